#include "node/model_repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "base/limits.h"
#include "data/file.h"
#include "node/pbtxt.h"

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Spec;
namespace fs = std::filesystem;

constexpr std::size_t kMaxModels = 10'000;
constexpr std::size_t kMaxVersions = 10'000;
constexpr std::size_t kMaxTensors = 1'000;
constexpr std::int64_t kMaxBatch = 1'000'000;
constexpr std::int64_t kMaxDelayMicroseconds = 3'600'000'000;  // an hour

// TYPE_*, in the order of their numbers in model_config.proto; the text format allows both.
struct TypeName {
  std::string_view name;
  DataType type;
};
constexpr std::array<TypeName, 14> kTypes{{{"TYPE_BOOL", DataType::kBool},
                                           {"TYPE_UINT8", DataType::kUint8},
                                           {"TYPE_UINT16", DataType::kUint16},
                                           {"TYPE_UINT32", DataType::kUint32},
                                           {"TYPE_UINT64", DataType::kUint64},
                                           {"TYPE_INT8", DataType::kInt8},
                                           {"TYPE_INT16", DataType::kInt16},
                                           {"TYPE_INT32", DataType::kInt32},
                                           {"TYPE_INT64", DataType::kInt64},
                                           {"TYPE_FP16", DataType::kFp16},
                                           {"TYPE_FP32", DataType::kFp32},
                                           {"TYPE_FP64", DataType::kFp64},
                                           {"TYPE_STRING", DataType::kBytes},
                                           {"TYPE_BF16", DataType::kBf16}}};

// A sentence for people: a file that is wrong all over is told of by its first mistakes.
void AddProblem(RepositoryModel* model, const std::string& what) {
  constexpr std::size_t kMaxProblemBytes = 2'000;
  if (model->problem.size() < kMaxProblemBytes) model->problem += (model->problem.empty() ? "" : "; ") + what;
}

std::optional<DataType> TypeOf(const PbtxtField& field) {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (field.kind == PbtxtField::Kind::kWord && (field.text == kTypes[i].name || field.text == std::to_string(i + 1)))
      return kTypes[i].type;
  }
  return std::nullopt;
}

// Understands one config.pbtxt. A wrong value is noted and the rest is still read.
class ConfigReader {
 public:
  explicit ConfigReader(RepositoryModel* model) : model_(*model) {}

  void Read(const std::vector<PbtxtField>& fields) {
    std::string name;
    std::string platform;
    std::string backend;
    std::vector<const PbtxtField*> inputs;
    std::vector<const PbtxtField*> outputs;
    OnceEach(fields, {"name", "platform", "backend", "max_batch_size", "version_policy", "dynamic_batching",
                      "default_model_filename"});
    for (const auto& f : fields) {
      if (f.name == "name") {
        Take(PbtxtString(f), &name);
      } else if (f.name == "platform") {
        Take(PbtxtString(f), &platform);
      } else if (f.name == "backend") {
        Take(PbtxtString(f), &backend);
      } else if (f.name == "default_model_filename") {
        Take(PbtxtString(f), &model_.model_filename);
      } else if (f.name == "max_batch_size") {
        Ranged(f, 0, kMaxBatch, &model_.max_batch_size);
      } else if (f.name == "input") {
        inputs.push_back(&f);
      } else if (f.name == "output") {
        outputs.push_back(&f);
      } else if (f.name == "version_policy") {
        ReadPolicy(f);
      } else if (f.name == "dynamic_batching") {
        ReadBatching(f);
      } else if (f.name == "sequence_batching" || f.name == "ensemble_scheduling") {
        Problem(f, f.name + " is not done here; only single models without state are served");
      } else if (f.name == "model_transaction_policy") {
        for (const auto& g : f.message) {
          if (g.name == "decoupled" && PbtxtBool(g).ok() && *PbtxtBool(g))
            Problem(g, "decoupled is not done here; a request has one answer");
        }
      }
    }
    if (!name.empty() && name != model_.name)
      Note("the file names the model \"" + name + "\", but its directory is called " + model_.name);
    if ((!platform.empty() && platform != "onnxruntime_onnx") || (!backend.empty() && backend != "onnxruntime")) {
      Note("it is for " + (backend.empty() ? "platform " + platform : "backend " + backend) +
           "; only ONNX is served (platform onnxruntime_onnx or backend onnxruntime)");
    }
    if (model_.model_filename.empty()) model_.model_filename = "model.onnx";
    if (model_.model_filename.find('/') != std::string::npos || model_.model_filename == "..")
      Note("default_model_filename \"" + model_.model_filename + "\" is no plain file name");
    // After max_batch_size, which says what dims leave out, wherever it stands.
    ReadTensors(inputs, "input", &model_.inputs);
    ReadTensors(outputs, "output", &model_.outputs);
    for (const auto size :
         model_.dynamic_batching ? model_.dynamic_batching->preferred_sizes : std::vector<std::int64_t>()) {
      if (model_.max_batch_size > 0 && size > model_.max_batch_size)
        Note(fmt::format("preferred_batch_size {} is more than max_batch_size {}", size, model_.max_batch_size));
    }
  }

 private:
  void Note(const std::string& what) {
    ++problems_;
    AddProblem(&model_, what);
  }
  void Problem(const PbtxtField& at, const std::string& what) { Note("line " + std::to_string(at.line) + ": " + what); }
  template <typename T>
  bool Take(Result<T> result, T* value) {
    if (!result.ok()) {
      Note(result.status().message());
      return false;
    }
    *value = std::move(result).value();
    return true;
  }
  bool Ranged(const PbtxtField& f, std::int64_t low, std::int64_t high, std::int64_t* value) {
    std::int64_t v = 0;
    if (!Take(PbtxtInteger(f), &v)) return false;
    if (v < low || v > high) {
      Problem(f, fmt::format("{} must be from {} to {}, got {}", f.name, low, high, v));
      return false;
    }
    *value = v;
    return true;
  }
  void OnceEach(const std::vector<PbtxtField>& fields, const std::vector<std::string_view>& names) {
    for (const auto name : names) {
      const PbtxtField* first = nullptr;
      for (const auto& f : fields) {
        if (f.name != name) continue;
        if (first != nullptr) Problem(f, f.name + " is there twice, first in line " + std::to_string(first->line));
        if (first == nullptr) first = &f;
      }
    }
  }
  bool IsMessage(const PbtxtField& f) {
    if (f.kind == PbtxtField::Kind::kMessage) return true;
    Problem(f, f.name + " must be a message, in braces");
    return false;
  }

  void ReadTensors(const std::vector<const PbtxtField*>& fields, const std::string& what, std::vector<Spec>* specs) {
    if (fields.size() > kMaxTensors)
      return Note(fmt::format("{} {}s are more than the limit of {}", fields.size(), what, kMaxTensors));
    std::set<std::string> seen;
    for (const PbtxtField* field : fields) {
      if (!IsMessage(*field)) continue;
      Spec spec;
      if (!ReadTensor(*field, what, &spec)) continue;
      if (!seen.insert(spec.name).second) Problem(*field, what + " " + spec.name + " is there twice");
      specs->push_back(std::move(spec));
    }
  }

  bool ReadTensor(const PbtxtField& field, const std::string& what, Spec* spec) {
    const int problems = problems_;
    std::optional<DataType> type;
    std::vector<std::int64_t> dims;
    std::string label_file;
    OnceEach(field.message, {"name", "data_type", "label_filename"});
    for (const auto& f : field.message) {
      if (f.name == "name") Take(PbtxtString(f), &spec->name);
      if (f.name == "label_filename" && what == "output") Take(PbtxtString(f), &label_file);
      if (f.name == "dims") ReadDim(f, &dims);
      if (f.name == "data_type" && !(type = TypeOf(f)))
        Problem(f, "data_type " + f.text.substr(0, 40) +
                       " is not known here; TYPE_FP32, TYPE_INT64, TYPE_STRING and so on");
    }
    const std::string name = what + (spec->name.empty() ? "" : " " + spec->name);
    if (spec->name.empty()) Problem(field, name + " has no name");
    for (const auto& f : field.message) {
      const bool set = PbtxtBool(f).ok() && *PbtxtBool(f);
      if (f.name == "reshape")
        Problem(f, name + " has reshape, which is not done here; give the model the shape that is sent");
      if (set && (f.name == "allow_ragged_batch" || f.name == "is_shape_tensor" || f.name == "is_non_linear_format_io"))
        Problem(f, name + " has " + f.name + ", which is not done here");
    }
    if (!type && problems_ == problems) Problem(field, name + " has no data_type");
    if (dims.empty() && problems_ == problems) Problem(field, name + " has no dims");
    if (dims.size() >= static_cast<std::size_t>(limits::kMaxTensorRank))
      Problem(field, fmt::format("{} has {} dims, want fewer than {}", name, dims.size(), limits::kMaxTensorRank));
    if (problems_ != problems) return false;
    spec->type = *type;
    if (model_.max_batch_size > 0) spec->shape.push_back(-1);
    spec->shape.insert(spec->shape.end(), dims.begin(), dims.end());
    if (!label_file.empty()) model_.label_files[spec->name] = label_file;
    return true;
  }

  void ReadDim(const PbtxtField& f, std::vector<std::int64_t>* dims) {
    std::int64_t dim = 0;
    if (!Take(PbtxtInteger(f), &dim)) return;
    if (dim != -1 && (dim < 1 || dim > limits::kMaxTensorElements))
      return Problem(f, fmt::format("dims must be -1 or from 1 to {}, got {}", limits::kMaxTensorElements, dim));
    dims->push_back(dim);
  }

  void ReadPolicy(const PbtxtField& field) {
    if (!IsMessage(field)) return;
    auto& policy = model_.version_policy;
    int choices = 0;
    for (const auto& f : field.message) {
      if (f.name != "latest" && f.name != "all" && f.name != "specific") continue;
      if (!IsMessage(f)) continue;
      if (++choices == 2) Problem(f, "version_policy takes one of latest, all, specific");
      if (f.name == "all") policy.kind = VersionPolicy::Kind::kAll;
      if (f.name == "latest") policy.kind = VersionPolicy::Kind::kLatest;
      if (f.name == "specific") policy.kind = VersionPolicy::Kind::kSpecific;
      for (const auto& g : f.message) {
        if (f.name == "latest" && g.name == "num_versions") Ranged(g, 1, kMaxVersions, &policy.latest);
        std::int64_t version = 0;
        if (f.name == "specific" && g.name == "versions" && Ranged(g, 1, INT64_MAX, &version))
          policy.specific.push_back(version);
      }
      if (f.name == "specific" && policy.specific.empty()) Problem(f, "version_policy specific names no version");
    }
  }

  void ReadBatching(const PbtxtField& field) {
    if (!IsMessage(field)) return;
    model_.dynamic_batching.emplace();
    OnceEach(field.message, {"max_queue_delay_microseconds"});
    for (const auto& f : field.message) {
      std::int64_t value = 0;
      if (f.name == "preferred_batch_size" && Ranged(f, 1, kMaxBatch, &value))
        model_.dynamic_batching->preferred_sizes.push_back(value);
      if (f.name == "max_queue_delay_microseconds" && Ranged(f, 0, kMaxDelayMicroseconds, &value))
        model_.dynamic_batching->max_delay = std::chrono::microseconds(value);
    }
  }

  RepositoryModel& model_;
  int problems_ = 0;
};

// The names of the directories in `dir`, sorted. Links to directories count.
Result<std::vector<std::string>> Directories(const fs::path& dir, std::size_t limit) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    std::string name = it->path().filename().string();
    if (name.starts_with('.') || !it->is_directory(ignored)) continue;
    names.push_back(std::move(name));
    if (names.size() > limit)
      return ResourceExhausted(dir.string() + " holds more directories than the limit of " + std::to_string(limit));
  }
  if (error) return Unavailable("cannot list " + dir.string() + ": " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<std::int64_t> VersionOf(const std::string& name) {
  std::int64_t version = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), version);
  if (name[0] < '1' || name[0] > '9' || error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return version;
}

void FindVersions(RepositoryModel* model) {
  const auto names = Directories(model->dir, kMaxVersions);
  if (!names.ok()) return AddProblem(model, names.status().message());
  std::vector<std::int64_t> existing;
  for (const auto& name : *names) {
    if (const auto version = VersionOf(name)) existing.push_back(*version);
  }
  std::sort(existing.begin(), existing.end());
  const auto selected = model->version_policy.Select(existing);
  if (existing.empty()) {
    AddProblem(model, "it has no version: a directory named 1 or higher that holds " + model->model_filename);
  } else if (selected.empty()) {
    AddProblem(model, "none of the versions that its version_policy names is there");
  }
  for (const auto version : selected) {
    const fs::path file = model->dir / std::to_string(version) / model->model_filename;
    std::error_code error;
    if (!fs::is_regular_file(file, error)) {
      AddProblem(model, fmt::format("version {} has no file {}", version, model->model_filename));
    } else {
      model->versions.push_back({version, file});
    }
  }
}

void ReadLabels(RepositoryModel* model) {
  for (const auto& [output, file] : model->label_files) {
    const fs::path inside = fs::path(file).lexically_normal();
    if (inside.is_absolute() || *inside.begin() == "..") {
      AddProblem(model, "label_filename \"" + file + "\" lies outside the model's directory");
      continue;
    }
    std::error_code error;
    const fs::path path = model->dir / inside;
    if (!fs::is_regular_file(path, error)) {
      AddProblem(model, "label_filename " + path.string() + " does not exist");
      continue;
    }
    const auto text = data::ReadFile(path, limits::kMaxConfigBytes);
    if (!text.ok()) {
      AddProblem(model, text.status().message());
      continue;
    }
    // A line a class; an empty one in between is a class without a label.
    std::vector<std::string> labels;
    std::string line;
    for (const char c : *text) {
      if (c == '\n') {
        labels.push_back(std::exchange(line, ""));
      } else if (c != '\r') {
        line += c;
      }
    }
    if (!line.empty()) labels.push_back(line);
    if (labels.size() > static_cast<std::size_t>(limits::kMaxClasses)) {
      AddProblem(model, fmt::format("{} has {} labels, limit {}", path.string(), labels.size(), limits::kMaxClasses));
      continue;
    }
    model->labels[output] = std::move(labels);
  }
}

}  // namespace

std::vector<std::int64_t> VersionPolicy::Select(const std::vector<std::int64_t>& existing) const {
  const std::set<std::int64_t> named(specific.begin(), specific.end());
  std::vector<std::int64_t> selected;
  for (std::size_t i = 0; i < existing.size(); ++i) {
    const bool is_latest = existing.size() - i <= static_cast<std::uint64_t>(latest);
    if (kind == Kind::kAll || (kind == Kind::kLatest && is_latest) ||
        (kind == Kind::kSpecific && named.count(existing[i]) > 0))
      selected.push_back(existing[i]);
  }
  return selected;
}

RepositoryModel ReadModelConfig(const std::string& name, const std::string& text) {
  RepositoryModel model;
  model.name = name;
  const auto fields = ParsePbtxt(text);
  if (fields.ok()) {
    ConfigReader(&model).Read(*fields);
  } else {
    AddProblem(&model, fields.status().message());
  }
  if (!model.problem.empty()) model.problem = "config.pbtxt: " + model.problem;
  return model;
}

Result<std::vector<RepositoryModel>> ReadModelRepository(const fs::path& dir) {
  ASSIGN_OR_RETURN(const auto names, Directories(dir, kMaxModels));
  std::vector<RepositoryModel> models;
  for (const auto& name : names) {
    RepositoryModel model;
    model.name = name;
    const fs::path config = dir / name / "config.pbtxt";
    std::error_code error;
    if (fs::is_regular_file(config, error)) {
      const auto text = data::ReadFile(config, limits::kMaxConfigBytes);
      if (text.ok()) {
        model = ReadModelConfig(name, *text);
      } else {
        AddProblem(&model, text.status().message());
      }
    } else if (fs::exists(fs::symlink_status(config, error))) {
      AddProblem(&model, config.string() + " is no file");
    }
    model.dir = dir / name;
    if (model.problem.empty()) {  // files that a wrong configuration names would only be guesses
      FindVersions(&model);
      ReadLabels(&model);
    }
    models.push_back(std::move(model));
  }
  return models;
}

}  // namespace ganglion::node
