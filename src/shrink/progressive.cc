#include "shrink/progressive.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "base/check.h"
#include "base/limits.h"
#include "crypto/crypto.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/edit.h"

namespace ganglion::shrink {
namespace {

constexpr std::string_view kMagic = "GANGSLIM 1\n";
constexpr std::size_t kRow = 8 + 8 + 8 + 32;  // of the head, a level
constexpr std::uint8_t kWhole = 0;
constexpr std::uint8_t kGrow = 1;

template <typename T>
void Put(std::string* out, T v) {
  static_assert(std::is_trivially_copyable_v<T>);
  out->append(reinterpret_cast<const char*>(&v), sizeof v);
}

// Reads from the front of bytes; every read says whether there was enough.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <typename T>
  bool Take(T* v) {
    if (in_.size() < sizeof *v) return false;
    std::memcpy(v, in_.data(), sizeof *v);
    in_.remove_prefix(sizeof *v);
    return true;
  }
  bool Take(std::uint64_t n, std::string_view* v) {
    if (n > in_.size()) return false;
    *v = in_.substr(0, n);
    in_.remove_prefix(n);
    return true;
  }
  bool empty() const { return in_.empty(); }

 private:
  std::string_view in_;
};

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The 32 bytes of a SHA-256.
std::string DigestOf(std::string_view bytes) {
  const auto digest = crypto::Sha256(bytes);
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

std::uint64_t Parameters(const onnx::GraphProto& g) {
  std::uint64_t sum = 0;
  for (const auto& t : g.initializer()) {
    std::uint64_t count = 1;
    for (const auto d : t.dims()) count *= static_cast<std::uint64_t>(d);
    sum += count;
  }
  return sum;
}

// Calls f(offset in the large tensor, bytes, whether inside the corner) for each run along the last axis of `large`.
// REQUIRES: the same rank, at least 1, no axis of `small` larger, and `large` not empty.
template <typename F>
void ForRuns(const tensor::Shape& small, const tensor::Shape& large, std::size_t element, const F& f) {
  std::size_t lines = 1;
  for (std::size_t d = 0; d + 1 < large.size(); ++d) lines *= static_cast<std::size_t>(large[d]);
  const std::size_t line = static_cast<std::size_t>(large.back()) * element;
  const std::size_t inside = static_cast<std::size_t>(small.back()) * element;
  std::vector<std::int64_t> at(large.size(), 0);
  for (std::size_t i = 0; i < lines; ++i) {
    bool in = true;
    for (std::size_t d = 0; d + 1 < large.size(); ++d) in = in && at[d] < small[d];
    if (in && inside > 0) f(i * line, inside, true);
    const std::size_t from = in ? inside : 0;
    if (line > from) f(i * line + from, line - from, false);
    for (std::size_t d = large.size() - 1; d-- > 0;) {
      if (++at[d] < large[d]) break;
      at[d] = 0;
    }
  }
}

// Bytes an element, where a tensor keeps its numbers in raw_data; 0 where it does not.
std::size_t RawElement(const onnx::TensorProto& t) {
  const auto type = graph::DataTypeFromOnnx(t.data_type());
  return type && t.has_raw_data() ? tensor::SizeOf(*type) : 0;
}

tensor::Shape ShapeOf(const onnx::TensorProto& t) { return {t.dims().begin(), t.dims().end()}; }

bool Fits(const tensor::Shape& small, const tensor::Shape& large) {
  if (small.size() != large.size() || small.empty()) return false;
  for (std::size_t d = 0; d < small.size(); ++d) {
    if (small[d] > large[d] || small[d] < 0) return false;
  }
  return true;
}

// What `large` has outside of `small`, if `small` is its corner.
std::optional<std::string> Outside(const onnx::TensorProto& small, const onnx::TensorProto& large) {
  const std::size_t element = RawElement(large);
  if (element == 0 || RawElement(small) != element || small.data_type() != large.data_type()) return std::nullopt;
  const tensor::Shape from = ShapeOf(small);
  const tensor::Shape to = ShapeOf(large);
  if (!Fits(from, to) || large.raw_data().empty()) return std::nullopt;
  bool same = true;
  std::size_t read = 0;
  std::string outside;
  ForRuns(from, to, element, [&](std::size_t at, std::size_t n, bool inside) {
    if (!inside) {
      outside.append(large.raw_data(), at, n);
    } else {
      same = same && std::memcmp(large.raw_data().data() + at, small.raw_data().data() + read, n) == 0;
      read += n;
    }
  });
  if (!same) return std::nullopt;
  return outside;
}

// Parameters in raw_data, whatever way the model keeps them, so that they can be compared and cut.
Status ToRaw(onnx::ModelProto* model) {
  for (auto& t : *model->mutable_graph()->mutable_initializer()) {
    const auto type = graph::DataTypeFromOnnx(t.data_type());
    if (t.has_raw_data() || !type || *type == tensor::DataType::kBytes) continue;
    const auto read = graph::ToTensor(t);
    if (!read.ok()) continue;  // a datatype in typed fields that we never look into: written whole
    const std::string name = t.name();
    t.Clear();
    graph::FromTensor(name, read->View(), &t);
  }
  return {};
}

std::string WriteLevel(const onnx::ModelProto* before, const onnx::ModelProto& model) {
  onnx::ModelProto skeleton = model;
  std::string numbers;
  std::unordered_map<std::string, const onnx::TensorProto*> old;
  if (before != nullptr) {
    for (const auto& t : before->graph().initializer()) old[t.name()] = &t;
  }
  for (auto& t : *skeleton.mutable_graph()->mutable_initializer()) {
    if (RawElement(t) == 0) continue;  // stays in the skeleton
    const auto at = old.find(t.name());
    auto outside = at == old.end() ? std::nullopt : Outside(*at->second, t);
    Put(&numbers, outside ? kGrow : kWhole);
    const std::string& bytes = outside ? *outside : t.raw_data();
    Put(&numbers, static_cast<std::uint64_t>(bytes.size()));
    numbers += bytes;
    t.set_raw_data("");
  }
  const std::string graph = graph::Serialize(skeleton);
  std::string level;
  Put(&level, static_cast<std::uint64_t>(graph.size()));
  return level + graph + numbers;
}

Status Damaged(int level, const std::string& how) {
  return DataLoss("progressive file: level " + std::to_string(level) + " " + how + "; fetch it again");
}

Status ReadLevel(int level, std::string_view bytes, const onnx::ModelProto* before, onnx::ModelProto* model) {
  Reader in(bytes);
  std::uint64_t size = 0;
  std::string_view text;
  onnx::ModelProto made;
  if (!in.Take(&size) || !in.Take(size, &text) || size > INT32_MAX ||
      !made.ParseFromArray(text.data(), static_cast<int>(text.size()))) {
    return Damaged(level, "has no graph");
  }
  std::unordered_map<std::string, const onnx::TensorProto*> old;
  if (before != nullptr) {
    for (const auto& t : before->graph().initializer()) old[t.name()] = &t;
  }
  for (auto& t : *made.mutable_graph()->mutable_initializer()) {
    const std::size_t element = RawElement(t);
    if (element == 0) continue;
    const tensor::Shape shape = ShapeOf(t);
    const auto count = tensor::ElementCount(shape);
    if (!count.ok()) return count.status().Within("progressive file: parameter \"" + t.name() + "\"");
    const std::size_t full = static_cast<std::size_t>(*count) * element;
    std::uint8_t kind = 0;
    std::string_view numbers;
    if (!in.Take(&kind) || !in.Take(&size) || !in.Take(size, &numbers)) return Damaged(level, "ends too early");
    if (kind == kWhole) {
      if (numbers.size() != full) return Damaged(level, "has a parameter of another size");
      t.set_raw_data(numbers.data(), numbers.size());
      continue;
    }
    const auto at = old.find(t.name());
    if (kind != kGrow || full == 0 || at == old.end() || RawElement(*at->second) != element ||
        at->second->data_type() != t.data_type() || !Fits(ShapeOf(*at->second), shape) ||
        at->second->raw_data().size() + numbers.size() != full) {
      return Damaged(level, "does not follow from the level before it");
    }
    std::string all(full, '\0');
    std::size_t from_old = 0;
    std::size_t from_new = 0;
    ForRuns(ShapeOf(*at->second), shape, element, [&](std::size_t place, std::size_t n, bool inside) {
      auto& from = inside ? from_old : from_new;
      std::memcpy(all.data() + place, (inside ? at->second->raw_data().data() : numbers.data()) + from, n);
      from += n;
    });
    t.set_raw_data(std::move(all));
  }
  if (!in.empty()) return Damaged(level, "is longer than it says");
  RETURN_IF_ERROR(graph::Validate(made));
  *model = std::move(made);
  return {};
}

}  // namespace

Result<std::string> WriteProgressive(const std::vector<const onnx::ModelProto*>& models,
                                     const std::vector<double>& widths) {
  if (models.empty() || models.size() > kMaxLevels || widths.size() != models.size()) {
    return InvalidArgument("a progressive file takes 1 to " + std::to_string(kMaxLevels) +
                           " models and a width for each, got " + std::to_string(models.size()) + " and " +
                           std::to_string(widths.size()));
  }
  for (std::size_t i = 0; i < widths.size(); ++i) {
    if (!(widths[i] > 0) || !(widths[i] <= 1) || (i > 0 && !(widths[i] > widths[i - 1])))
      return InvalidArgument("widths rise and lie above 0 and at most at 1, got " + std::to_string(widths[i]));
  }
  std::vector<std::string> levels;
  std::vector<std::uint64_t> parameters;
  onnx::ModelProto before;
  for (std::size_t i = 0; i < models.size(); ++i) {
    onnx::ModelProto model = *models[i];
    RETURN_IF_ERROR(graph::Validate(model));
    RETURN_IF_ERROR(ToRaw(&model));
    levels.push_back(WriteLevel(i == 0 ? nullptr : &before, model));
    parameters.push_back(Parameters(model.graph()));
    before = std::move(model);
  }
  std::string head(kMagic);
  Put(&head, static_cast<std::uint32_t>(levels.size()));
  std::uint64_t end = kMagic.size() + 4 + kRow * levels.size() + 32;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    end += levels[i].size();
    Put(&head, end);
    Put(&head, parameters[i]);
    Put(&head, widths[i]);
    head += DigestOf(levels[i]);
  }
  head += DigestOf(head);
  for (const auto& level : levels) head += level;
  return head;
}

bool LooksProgressive(std::span<const std::byte> file) { return AsText(file).substr(0, kMagic.size()) == kMagic; }

Result<ProgressiveHead> ReadHead(std::span<const std::byte> file) {
  const std::string_view text = AsText(file);
  if (!LooksProgressive(file)) {
    return InvalidArgument(kMagic.substr(0, text.size()) == text
                               ? "progressive file: only " + std::to_string(text.size()) + " bytes, its head takes more"
                               : std::string("not a progressive file"));
  }
  Reader in(text.substr(kMagic.size()));
  std::uint32_t count = 0;
  if (!in.Take(&count))
    return InvalidArgument("progressive file: its head takes more than " + std::to_string(text.size()) + " bytes");
  if (count < 1 || count > kMaxLevels) {
    return DataLoss("progressive file: " + std::to_string(count) + " levels, 1 to " + std::to_string(kMaxLevels) +
                    " are possible");
  }
  ProgressiveHead head;
  head.size = kMagic.size() + 4 + kRow * count + 32;
  if (text.size() < head.size) {
    return InvalidArgument("progressive file: its head takes " + std::to_string(head.size) + " bytes, there are " +
                           std::to_string(text.size()));
  }
  if (DigestOf(text.substr(0, head.size - 32)) != text.substr(head.size - 32, 32))
    return DataLoss("progressive file: its head is damaged; fetch it again");
  std::uint64_t begin = head.size;
  for (std::uint32_t i = 0; i < count; ++i) {
    Level level;
    std::string_view digest;
    GANGLION_CHECK(in.Take(&level.end) && in.Take(&level.parameters) && in.Take(&level.width) && in.Take(32, &digest));
    level.begin = begin;
    level.digest = digest;
    if (level.end <= begin || level.end - begin > limits::kMaxModelBytes || !std::isfinite(level.width))
      return DataLoss("progressive file: its head does not add up; fetch it again");
    begin = level.end;
    head.levels.push_back(std::move(level));
  }
  return head;
}

Status Upgrade(const ProgressiveHead& head, int level, std::span<const std::byte> bytes, onnx::ModelProto* model) {
  GANGLION_CHECK(level >= 0 && level < static_cast<int>(head.levels.size()));
  const Level& l = head.levels[static_cast<std::size_t>(level)];
  if (bytes.size() != l.end - l.begin) {
    return InvalidArgument("progressive file: level " + std::to_string(level) + " takes " +
                           std::to_string(l.end - l.begin) + " bytes, got " + std::to_string(bytes.size()));
  }
  if (DigestOf(AsText(bytes)) != l.digest) return Damaged(level, "is damaged");
  return ReadLevel(level, AsText(bytes), level == 0 ? nullptr : model, model);
}

Status LoadPrefix(std::span<const std::byte> file, int at_most, onnx::ModelProto* model, int* level) {
  ASSIGN_OR_RETURN(const ProgressiveHead head, ReadHead(file));
  if (at_most < 0) return InvalidArgument("level " + std::to_string(at_most) + " is below 0");
  if (file.size() < head.levels[0].end) {
    return InvalidArgument("progressive file: the narrowest model takes the first " +
                           std::to_string(head.levels[0].end) + " bytes, there are " + std::to_string(file.size()));
  }
  onnx::ModelProto at;
  int last = 0;
  for (int i = 0; i < static_cast<int>(head.levels.size()) && i <= at_most; ++i) {
    const Level& l = head.levels[static_cast<std::size_t>(i)];
    if (l.end > file.size()) break;
    RETURN_IF_ERROR(Upgrade(head, i, file.subspan(l.begin, l.end - l.begin), &at));
    last = i;
  }
  *model = std::move(at);
  if (level != nullptr) *level = last;
  return {};
}

}  // namespace ganglion::shrink
