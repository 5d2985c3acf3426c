#include "node/stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/random.h"
#include "data/file.h"
#include "node/rules_file.h"
#include "stats/softmax.h"

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Tensor;

// The members' share of an ensemble's mean: softmax of logits, or probabilities as they are.
void AddMember(std::span<const float> scores, bool probabilities, float weight, std::span<float> into) {
  if (!probabilities) return stats::AddSoftmax(scores, weight, into);
  for (std::size_t k = 0; k < scores.size(); ++k) into[k] += weight * scores[k];
}

// What a model's file calls each file's part in a stage.
constexpr const char* kPre = "pre";
constexpr const char* kModel = "model";
constexpr const char* kPost = "post";
constexpr const char* kRules = "rules";
constexpr const char* kOnline = "online";
constexpr const char* kServer = "server";
// How sure rules are: accepted at any threshold, or at none.
constexpr float kRuleHolds = std::numeric_limits<float>::infinity();
constexpr float kNoRule = -1;

}  // namespace

Stage::~Stage() = default;
Stage::Lane::Lane() = default;
Stage::Lane::~Lane() = default;

Status Stage::AddGraph(const std::shared_ptr<runtime::Engine>& engine, const DecisionConfig& config,
                       const std::string& file, const char* role) {
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(config.dir / file, limits::kMaxModelBytes));
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(file, std::move(bytes)));
  Graph g;
  ASSIGN_OR_RETURN(g.session, runtime::Session::Create(engine, model));
  g.member = role == kModel && config_.models.size() > 1;
  g.probabilities = model.gives_probabilities();
  for (const auto& in : model.signature().inputs) {
    std::optional<std::size_t> slot;
    for (const std::size_t s : at_hand_) {
      if (slot_specs_[s].name == in.name) slot = s;
    }
    // By position: the one tensor there is, or the first output of the graph before.
    const bool made = at_hand_[0] >= inputs_;
    if (!slot && (at_hand_.size() == 1 || made) && model.signature().inputs.size() == 1) slot = at_hand_[0];
    if (!slot) {
      std::string have;
      for (const std::size_t s : at_hand_) have += " " + slot_specs_[s].name;
      return InvalidArgument(
          fmt::format("{}: its input \"{}\" is none of the tensors at hand:{}", file, in.name, have));
    }
    g.reads.push_back(*slot);
    if (!in.shape.empty() && in.shape[0] != -1) batches_ = false;
  }
  g.first_output = slot_specs_.size();
  for (const auto& out : model.signature().outputs) slot_specs_.push_back(out);
  files_.push_back({file, role, model.digest()});
  graphs_.push_back(std::move(g));
  return {};
}

Result<std::unique_ptr<Stage>> Stage::Load(const std::shared_ptr<runtime::Engine>& engine, const DecisionConfig& config,
                                           std::size_t index, const RemoteConnect& connect) {
  std::unique_ptr<Stage> stage(new Stage);
  Stage& s = *stage;
  s.config_ = config.stages[index];
  s.slot_specs_ = config.inputs;
  s.inputs_ = config.inputs.size();
  const auto outputs_at_hand = [&] {
    s.at_hand_.clear();
    for (std::size_t i = s.graphs_.back().first_output; i < s.slot_specs_.size(); ++i) s.at_hand_.push_back(i);
  };
  const auto load = [&]() -> Status {
    if (!s.config_.rules.empty()) return s.LoadRules(config);
    if (!s.config_.online.empty()) return s.LoadOnline(config);
    if (!s.config_.server.empty()) return s.LoadRemote(config, connect);
    for (std::size_t i = 0; i < s.inputs_; ++i) s.at_hand_.push_back(i);
    if (!s.config_.pre.empty()) {
      RETURN_IF_ERROR(s.AddGraph(engine, config, s.config_.pre, kPre));
      outputs_at_hand();
    }
    const bool ensemble = s.config_.models.size() > 1;
    for (const auto& file : s.config_.models) RETURN_IF_ERROR(s.AddGraph(engine, config, file, kModel));
    if (ensemble) {
      s.mean_slot_ = s.slot_specs_.size();
      tensor::Spec mean = s.slot_specs_[s.graphs_.back().first_output];
      mean.name = "mean";
      s.slot_specs_.push_back(mean);
      s.at_hand_ = {*s.mean_slot_};
      s.score_slot_ = *s.mean_slot_;
      s.probabilities_ = true;
    } else {
      s.score_slot_ = s.graphs_.back().first_output;
      s.probabilities_ = s.graphs_.back().probabilities;
      outputs_at_hand();
    }
    if (!s.config_.post.empty()) {
      RETURN_IF_ERROR(s.AddGraph(engine, config, s.config_.post, kPost));
      s.score_slot_ = s.graphs_.back().first_output;
      s.probabilities_ = s.graphs_.back().probabilities;
    }
    if (!s.config_.confidence_output.empty()) {
      for (std::size_t i = s.inputs_; i < s.slot_specs_.size(); ++i) {
        if (s.slot_specs_[i].name == s.config_.confidence_output) s.confidence_slot_ = i;
      }
      if (!s.confidence_slot_) {
        std::string have;
        for (std::size_t i = s.inputs_; i < s.slot_specs_.size(); ++i) have += " " + s.slot_specs_[i].name;
        return InvalidArgument(
            fmt::format("no output \"{}\" for the confidence; there are:{}", s.config_.confidence_output, have));
      }
    }
    RETURN_IF_ERROR(s.DryRun(config));
    s.rows_independent_ = s.TryRowsTogether(config);
    return {};
  };
  if (auto status = load(); !status.ok()) return status.Within(fmt::format("{} stages[{}]", config.name, index));
  return stage;
}

Status Stage::DryRun(const DecisionConfig& config) {
  std::vector<Tensor> slots;
  for (const auto& spec : config.inputs) {
    tensor::Shape shape = spec.shape;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == -1) shape[i] = 1;
      fixed_row_ &= i == 0 || spec.shape[i] != -1;
    }
    // Before memory is asked for: does anything take it?
    for (const Graph& g : graphs_) {
      for (std::size_t r = 0; r < g.reads.size(); ++r) {
        if (g.reads[r] == slots.size()) {
          RETURN_IF_ERROR(
              tensor::Matches(g.session->signature().inputs[r], {spec.type, shape, {}}).Within(g.session->name()));
        }
      }
    }
    ASSIGN_OR_RETURN(auto t, Tensor::Zeros(spec.type, shape));
    slots.push_back(std::move(t));
  }
  for (const Graph& g : graphs_) {
    std::vector<tensor::View> views;
    for (const std::size_t r : g.reads) views.push_back(slots[r].View());
    ASSIGN_OR_RETURN(auto out, g.session->Run(views));
    for (auto& t : out) slots.push_back(std::move(t));
    if (mean_slot_ && slots.size() == *mean_slot_) slots.push_back(slots[g.first_output]);
  }
  for (const auto& t : slots) slot_shapes_.push_back(t.shape());
  const auto check = [&](std::size_t slot, const char* what) -> Status {
    const Tensor& t = slots[slot];
    const auto& shape = t.shape();
    if (t.type() != DataType::kFp32 || shape.empty() || shape[0] != 1) {
      return InvalidArgument(fmt::format("{} \"{}\" is {}{}, want FP32 with a row for each row of the input", what,
                                         slot_specs_[slot].name, tensor::Name(t.type()), tensor::ShapeText(shape)));
    }
    return {};
  };
  RETURN_IF_ERROR(check(score_slot_, "output"));
  classes_ = slots[score_slot_].As<float>().size();
  if (classes_ == 0 || classes_ > static_cast<std::size_t>(limits::kMaxClasses)) {
    return InvalidArgument(fmt::format("a stage with {} classes", classes_));
  }
  for (const Graph& g : graphs_) {
    if (!g.member) continue;
    RETURN_IF_ERROR(check(g.first_output, "output"));
    if (slots[g.first_output].As<float>().size() != slots[*mean_slot_].As<float>().size()) {
      return InvalidArgument("the members of the ensemble have different numbers of classes");
    }
  }
  if (confidence_slot_) {
    RETURN_IF_ERROR(check(*confidence_slot_, "confidence"));
    if (slots[*confidence_slot_].As<float>().size() != 1) {
      return InvalidArgument("confidence \"" + config_.confidence_output + "\" is more than one number a row");
    }
  }
  // What is read later; nothing else is computed on the hot path. Where the shape of such a tensor depends on the data,
  // a lane's fixed memory would not do.
  needed_.assign(slots.size(), false);
  needed_[score_slot_] = true;
  if (confidence_slot_) needed_[*confidence_slot_] = true;
  for (const Graph& g : graphs_) {
    for (const std::size_t r : g.reads) needed_[r] = true;
    if (g.member) needed_[g.first_output] = true;
  }
  for (std::size_t i = inputs_; i < slots.size(); ++i) {
    if (!needed_[i]) continue;
    const auto& spec = slot_specs_[i].shape;
    fixed_row_ &= spec.size() == slot_shapes_[i].size();
    for (std::size_t d = 1; d < spec.size(); ++d) fixed_row_ &= spec[d] != -1;
  }
  return {};
}

void Stage::ToLogits(std::span<const float> scores, std::span<float> z) const {
  if (!probabilities_) {
    std::copy(scores.begin(), scores.end(), z.begin());
  } else {
    for (std::size_t k = 0; k < z.size(); ++k) z[k] = std::log(std::max(scores[k], 1e-30f));
  }
}

Status Stage::ScoreChunk(std::span<const tensor::View> inputs, std::int64_t begin, std::int64_t end, std::span<float> z,
                         std::span<float> confidence) const {
  const auto n = static_cast<std::size_t>(end - begin);
  // Every number per row that is read must be there: a model may treat a batch otherwise than one row.
  const auto rows_of = [&](const tensor::View& view, std::size_t width, std::size_t slot) -> Status {
    if (view.type == DataType::kFp32 && view.As<float>().size() == n * width) return {};
    return InvalidArgument(fmt::format("{}: output \"{}\" has shape {} for {} rows, want {} numbers a row",
                                       config_.models[0], slot_specs_[slot].name, tensor::ShapeText(view.shape), n,
                                       width));
  };
  std::vector<tensor::Shape> shapes(inputs_);
  std::vector<tensor::View> slots;
  for (std::size_t i = 0; i < inputs_; ++i) slots.push_back(tensor::Rows(inputs[i], begin, end, &shapes[i]));
  std::vector<std::vector<Tensor>> keep;
  Tensor mean;
  for (const Graph& g : graphs_) {
    std::vector<tensor::View> reads;
    for (const std::size_t r : g.reads) reads.push_back(slots[r]);
    ASSIGN_OR_RETURN(auto out, g.session->Run(reads));
    keep.push_back(std::move(out));
    for (const auto& t : keep.back()) slots.push_back(t.View());
    if (!mean_slot_ || slots.size() != *mean_slot_) continue;
    ASSIGN_OR_RETURN(const std::int64_t width, tensor::ElementCount(slot_shapes_[*mean_slot_]));
    ASSIGN_OR_RETURN(mean, Tensor::Zeros(DataType::kFp32, {static_cast<std::int64_t>(n), width}));
    const auto w = static_cast<std::size_t>(width);
    for (const Graph& m : graphs_) {
      if (!m.member) continue;
      RETURN_IF_ERROR(rows_of(slots[m.first_output], w, m.first_output));
      for (std::size_t row = 0; row < n; ++row) {
        AddMember(slots[m.first_output].As<float>().subspan(row * w, w), m.probabilities,
                  1 / static_cast<float>(config_.models.size()), mean.As<float>().subspan(row * w, w));
      }
    }
    slots.push_back(mean.View());
  }
  RETURN_IF_ERROR(rows_of(slots[score_slot_], classes_, score_slot_));
  const auto scores = slots[score_slot_].As<float>();
  for (std::size_t row = 0; row < n; ++row) {
    ToLogits(scores.subspan(row * classes_, classes_), z.subspan(row * classes_, classes_));
  }
  if (confidence_slot_) {
    RETURN_IF_ERROR(rows_of(slots[*confidence_slot_], 1, *confidence_slot_));
    const auto own = slots[*confidence_slot_].As<float>();
    std::copy(own.begin(), own.end(), confidence.begin());
  }
  return {};
}

// For what reads the inputs as they are: the shape of a row, and whether it is always the same.
void Stage::FixRow(const DecisionConfig& config) {
  for (const auto& spec : config.inputs) {
    tensor::Shape shape = spec.shape;
    // Texts have no fixed size: such rows are judged where they lie.
    fixed_row_ &= spec.type != DataType::kBytes && config.inputs.size() <= 32;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      fixed_row_ &= i == 0 || shape[i] != -1;
      if (shape[i] == -1) shape[i] = 1;
    }
    slot_shapes_.push_back(std::move(shape));
  }
}

Status Stage::LoadOnline(const DecisionConfig& config) {
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(config.dir / config_.online));
  auto made = OnlineStage::Create(bytes, config.inputs);
  if (!made.ok()) return made.status().Within(config_.online);
  online_ = std::move(*made);
  classes_ = online_->classes();
  FixRow(config);
  files_.push_back({config_.online, kOnline, crypto::Sha256(std::as_bytes(std::span(bytes)))});
  rows_independent_ = true;
  return {};
}

Result<Stage::Scores> Stage::ScoreOnline(std::span<const tensor::View> inputs) const {
  Scores all;
  all.rows = inputs[0].shape.empty() ? 0 : static_cast<std::size_t>(inputs[0].shape[0]);
  all.z.resize(all.rows * classes_);
  OnlineStage::Scratch scratch = online_->MakeScratch();
  for (std::size_t row = 0; row < all.rows; ++row)
    RETURN_IF_ERROR(online_->Score(inputs, row, &scratch, std::span(all.z).subspan(row * classes_, classes_)));
  return all;
}

Status Stage::LoadRules(const DecisionConfig& config) {
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(config.dir / config_.rules, limits::kMaxConfigBytes));
  ASSIGN_OR_RETURN(auto parsed, ParseRulesFile(bytes, config_.rules));
  ASSIGN_OR_RETURN(auto compiled, rules::RuleSet::Compile(std::move(parsed), config.inputs, config.labels));
  rules_ = std::move(compiled);
  FixRow(config);
  files_.push_back({config_.rules, kRules, crypto::Sha256(std::as_bytes(std::span(bytes)))});
  rows_independent_ = true;
  return {};
}

Status Stage::LoadRemote(const DecisionConfig& config, const RemoteConnect& connect) {
  if (!connect) return Unimplemented(config_.server + " is another server, which an embedded decision cannot ask");
  ASSIGN_OR_RETURN(remote_, connect(config_.server, config.inputs));
  std::vector<Tensor> zeros;
  std::vector<tensor::View> views;
  for (const auto& spec : config.inputs) {
    tensor::Shape shape = spec.shape;
    for (auto& d : shape) d = d == -1 ? 1 : d;
    ASSIGN_OR_RETURN(auto t, Tensor::Zeros(spec.type, shape));
    zeros.push_back(std::move(t));
  }
  views.reserve(zeros.size());
  for (const auto& t : zeros) views.push_back(t.View());
  ASSIGN_OR_RETURN(const auto z, remote_->Score(views));
  classes_ = z.size();
  fixed_row_ = false;  // no lane: it is asked in batches
  rows_independent_ = true;
  files_.push_back({remote_->Pinned(), kServer, crypto::Sha256(remote_->Pinned())});
  return {};
}

Result<Stage::Scores> Stage::ScoreRemote(std::span<const tensor::View> inputs) const {
  Scores all;
  all.rows = static_cast<std::size_t>(inputs[0].shape[0]);
  ASSIGN_OR_RETURN(all.z, remote_->Score(inputs));
  if (all.z.size() != all.rows * classes_)
    return DataLoss(fmt::format("{} gives {} scores for {} rows, {} a row before", config_.server, all.z.size(),
                                all.rows, classes_));
  return all;
}

Status Stage::SetClasses(std::size_t classes) {
  GANGLION_CHECK(is_rules());
  if (rules_->highest_label() >= 0 && static_cast<std::size_t>(rules_->highest_label()) >= classes) {
    return InvalidArgument(fmt::format("{}: a rule answers class {}, the models have {} classes, counted from 0",
                                       config_.rules, rules_->highest_label(), classes));
  }
  classes_ = classes;
  return {};
}

Stage::Scores Stage::ScoreRules(std::span<const tensor::View> inputs) const {
  Scores all;
  const auto answers = rules_->EvaluateAll(inputs);
  all.rows = answers.size();
  all.z.resize(all.rows * classes_);
  all.confidence.assign(all.rows, kNoRule);
  for (std::size_t r = 0; r < all.rows; ++r) {
    if (!answers[r]) continue;
    all.z[r * classes_ + static_cast<std::size_t>(answers[r]->label)] = 1;
    all.confidence[r] = kRuleHolds;
  }
  return all;
}

// Random rows together and alone. Only FP32 inputs are random: others may be indices, for which any value but 0 could
// be out of range.
bool Stage::TryRowsTogether(const DecisionConfig& config) const {
  constexpr std::int64_t kRows = 5;
  if (!batches_) return false;
  Random random(20261124);
  std::vector<Tensor> tensors;
  std::vector<tensor::View> views;
  for (std::size_t i = 0; i < inputs_; ++i) {
    tensor::Shape shape = slot_shapes_[i];
    shape[0] = kRows;
    auto t = Tensor::Zeros(config.inputs[i].type, shape);
    if (!t.ok()) return false;
    if (t->type() == DataType::kFp32) {
      for (float& v : t->As<float>()) v = static_cast<float>(random.Uniform());
    }
    tensors.push_back(std::move(*t));
  }
  views.reserve(tensors.size());
  for (const auto& t : tensors) views.push_back(t.View());
  std::vector<float> together(kRows * classes_);
  std::vector<float> alone(classes_);
  std::vector<float> own(kRows);
  if (!ScoreChunk(views, 0, kRows, together, own).ok()) return false;
  for (std::int64_t row = 0; row < kRows; ++row) {
    if (!ScoreChunk(views, row, row + 1, alone, std::span(own).first(1)).ok()) return false;
    float largest = 1e-3f;
    float difference = 0;
    for (std::size_t k = 0; k < classes_; ++k) {
      const float a = alone[k];
      const float b = together[static_cast<std::size_t>(row) * classes_ + k];
      largest = std::max({largest, std::abs(a), std::abs(b)});
      difference = std::max(difference, std::abs(a - b));
    }
    if (!(difference <= 1e-4f * largest)) return false;
  }
  return true;
}

Result<Stage::Scores> Stage::ScoreTogether(std::span<const tensor::View> inputs) const {
  GANGLION_CHECK(inputs.size() == inputs_);
  if (rules_) return ScoreRules(inputs);
  if (online_) return ScoreOnline(inputs);
  if (remote_) return ScoreRemote(inputs);
  Scores all;
  all.rows = inputs[0].shape.empty() ? 0 : static_cast<std::size_t>(inputs[0].shape[0]);
  all.z.resize(all.rows * classes_);
  if (confidence_slot_) all.confidence.resize(all.rows);
  const std::size_t chunk = rows_independent_ ? std::max<std::size_t>(all.rows, 1) : 1;
  for (std::size_t begin = 0; begin < all.rows; begin += chunk) {
    const std::size_t n = std::min(chunk, all.rows - begin);
    RETURN_IF_ERROR(ScoreChunk(inputs, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(begin + n),
                               std::span(all.z).subspan(begin * classes_, n * classes_),
                               confidence_slot_ ? std::span(all.confidence).subspan(begin, n) : std::span<float>()));
  }
  return all;
}

Result<Stage::Scores> Stage::Score(std::span<const tensor::View> inputs) const {
  GANGLION_CHECK(inputs.size() == inputs_);
  if (rules_) return ScoreRules(inputs);
  if (online_) return ScoreOnline(inputs);
  if (remote_) return ScoreRemote(inputs);
  const std::int64_t rows = inputs[0].shape.empty() ? 0 : inputs[0].shape[0];
  Scores all;
  all.rows = static_cast<std::size_t>(rows);
  all.z.resize(all.rows * classes_);
  if (confidence_slot_) all.confidence.resize(all.rows);
  const auto score = [&](std::int64_t begin, std::int64_t end) {
    const auto b = static_cast<std::size_t>(begin);
    const auto n = static_cast<std::size_t>(end - begin);
    return ScoreChunk(inputs, begin, end, std::span(all.z).subspan(b * classes_, n * classes_),
                      confidence_slot_ ? std::span(all.confidence).subspan(b, n) : std::span<float>());
  };
  // Requests are served one row at a time, so a certificate must be about that. Models whose rows depend on each other
  // in a batch (dynamic quantisation does that) give other numbers together than alone: these are scored row by row.
  std::int64_t chunk = batches_ ? 512 : 1;
  if (chunk > 1 && rows > 1) {
    const std::int64_t end = std::min(rows, chunk);
    const Status together = score(0, end);
    if (!together.ok()) chunk = 1;
    for (const std::int64_t row : {std::int64_t{0}, end - 1}) {
      std::vector<float> alone(classes_);
      std::vector<float> own(1);
      RETURN_IF_ERROR(ScoreChunk(inputs, row, row + 1, alone, own));
      const float* in_batch = all.z.data() + static_cast<std::size_t>(row) * classes_;
      if (std::memcmp(alone.data(), in_batch, classes_ * sizeof(float)) != 0) chunk = 1;
    }
  }
  for (std::int64_t begin = 0; begin < rows; begin += chunk)
    RETURN_IF_ERROR(score(begin, std::min(rows, begin + chunk)));
  return all;
}

std::unique_ptr<Stage::Lane> Stage::MakeLane() const {
  if (!fixed_row_) return nullptr;
  std::unique_ptr<Lane> lane(new Lane);
  lane->stage_ = this;
  lane->z_.resize(classes_);
  if (online_) lane->scratch_ = online_->MakeScratch();
  for (std::size_t i = 0; i < slot_specs_.size(); ++i) {
    auto t = Tensor::Zeros(slot_specs_[i].type, rules_ || online_ || needed_[i] ? slot_shapes_[i] : tensor::Shape{0});
    if (!t.ok()) return nullptr;
    lane->slots_.push_back(std::move(*t));
  }
  for (const Graph& g : graphs_) {
    std::vector<runtime::NamedView> in;
    std::vector<runtime::NamedMutableView> out;
    const auto& signature = g.session->signature();
    for (std::size_t i = 0; i < g.reads.size(); ++i)
      in.push_back({signature.inputs[i].name, lane->slots_[g.reads[i]].View()});
    for (std::size_t i = 0; i < signature.outputs.size(); ++i) {
      const std::size_t slot = g.first_output + i;
      if (needed_[slot]) out.push_back({signature.outputs[i].name, lane->slots_[slot].Mutable()});
    }
    auto binding = g.session->Bind(in, out);
    if (!binding.ok()) return nullptr;
    lane->bindings_.push_back(std::move(*binding));
  }
  return lane;
}

void Stage::Lane::Load(std::span<const tensor::View> inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    std::memcpy(slots_[i].Mutable().bytes.data(), inputs[i].bytes.data(), inputs[i].bytes.size());
}

Status Stage::Lane::Run() {
  const Stage& s = *stage_;
  if (s.rules_) {
    std::array<tensor::View, 32> views;
    const std::size_t n = std::min(slots_.size(), views.size());
    for (std::size_t i = 0; i < n; ++i) views[i] = slots_[i].View();
    const auto answer = s.rules_->Evaluate(std::span(views).first(n), 0);
    std::fill(z_.begin(), z_.end(), 0.f);
    if (answer) z_[static_cast<std::size_t>(answer->label)] = 1;
    own_ = answer ? kRuleHolds : kNoRule;
    return {};
  }
  if (s.online_) {
    std::array<tensor::View, 32> views;
    for (std::size_t i = 0; i < slots_.size(); ++i) views[i] = slots_[i].View();
    return s.online_->Score(std::span(views).first(slots_.size()), 0, &*scratch_, z_);
  }
  for (std::size_t g = 0; g < bindings_.size(); ++g) {
    const bool last_member = s.graphs_[g].member && (g + 1 == bindings_.size() || !s.graphs_[g + 1].member);
    RETURN_IF_ERROR(bindings_[g].Run());
    if (!last_member) continue;
    const auto mean = slots_[*s.mean_slot_].As<float>();
    std::fill(mean.begin(), mean.end(), 0.f);
    for (const Graph& m : s.graphs_) {
      if (m.member)
        AddMember(slots_[m.first_output].As<float>(), m.probabilities, 1 / static_cast<float>(s.config_.models.size()),
                  mean);
    }
  }
  s.ToLogits(slots_[s.score_slot_].As<float>(), z_);
  return {};
}

std::optional<float> Stage::Lane::confidence() const {
  if (stage_->rules_) return own_;
  if (!stage_->confidence_slot_) return std::nullopt;
  return slots_[*stage_->confidence_slot_].As<float>()[0];
}

}  // namespace ganglion::node
