#include "rules/rules.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "base/check.h"

namespace ganglion::rules {
namespace {

using tensor::DataType;
using tensor::View;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Summary {
  double sum, mean, min, max;
};

// Elements may lie anywhere in a message, so they are copied out, not pointed at.
template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

struct Bool {
  std::uint8_t bits;
  explicit operator double() const { return bits != 0 ? 1 : 0; }
};
struct Half {  // 1 sign, 5 exponent (bias 15), 10 fraction bits
  std::uint16_t bits;
  explicit operator double() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 31u;
    const std::uint32_t fraction = bits & 1023u;
    if (exponent == 0) return (sign != 0 ? -1.0 : 1.0) * fraction * 0x1p-24;
    return std::bit_cast<float>(sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13);
  }
};
struct Brain {  // the upper half of an FP32
  std::uint16_t bits;
  explicit operator double() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

// Calls f with a value of the type that elements of `type` are stored as. REQUIRES: not kBytes.
template <typename F>
auto WithStored(DataType type, F f) {
  switch (type) {
    case DataType::kBool:
      return f(Bool{});
    case DataType::kUint8:
      return f(std::uint8_t{});
    case DataType::kUint16:
      return f(std::uint16_t{});
    case DataType::kUint32:
      return f(std::uint32_t{});
    case DataType::kUint64:
      return f(std::uint64_t{});
    case DataType::kInt8:
      return f(std::int8_t{});
    case DataType::kInt16:
      return f(std::int16_t{});
    case DataType::kInt32:
      return f(std::int32_t{});
    case DataType::kInt64:
      return f(std::int64_t{});
    case DataType::kFp16:
      return f(Half{});
    case DataType::kBf16:
      return f(Brain{});
    case DataType::kFp32:
      return f(float{});
    case DataType::kFp64:
      return f(double{});
    case DataType::kBytes:
      break;
  }
  GANGLION_CHECK(false && "texts are no numbers");
  return f(double{});
}

// Eight sums beside each other: one alone waits for its own last addition, and the compiler may not reorder doubles.
template <typename T>
Summary Summarise(const std::byte* bytes, std::size_t n) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sum{};
  std::array<double, kLanes> min;
  std::array<double, kLanes> max;
  min.fill(std::numeric_limits<double>::infinity());
  max.fill(-std::numeric_limits<double>::infinity());
  const auto add = [&](std::size_t lane, std::size_t i) {
    const auto v = static_cast<double>(Load<T>(bytes + i * sizeof(T)));
    sum[lane] += v;
    min[lane] = v < min[lane] ? v : min[lane];
    max[lane] = v > max[lane] ? v : max[lane];
  };
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (std::size_t lane = 0; i < n; ++i, ++lane) add(lane, i);
  Summary s{0, kNan, kNan, kNan};
  for (const double x : sum) s.sum += x;
  if (n == 0) return s;
  s.mean = s.sum / static_cast<double>(n);
  bool nan = false;
  if (std::isnan(s.sum)) {  // a NaN, or only infinities of both signs
    for (i = 0; i < n; ++i) nan = nan || std::isnan(static_cast<double>(Load<T>(bytes + i * sizeof(T))));
  }
  if (!nan) {
    s.min = *std::min_element(min.begin(), min.end());
    s.max = *std::max_element(max.begin(), max.end());
  }
  return s;
}

// The place after `count` elements that begin at `at`, or nothing where they are cut short.
std::optional<std::size_t> SkipTexts(std::span<const std::byte> bytes, std::size_t at, std::int64_t count) {
  for (; count > 0; --count) {
    if (at > bytes.size() || bytes.size() - at < 4) return std::nullopt;
    at += 4 + static_cast<std::size_t>(Load<std::uint32_t>(bytes.data() + at));
  }
  return at;
}

std::int64_t RowElements(const View& view) {
  std::int64_t n = 1;
  for (std::size_t d = 1; d < view.shape.size(); ++d) n *= view.shape[d];
  return n;
}

}  // namespace

struct RuleSet::Row {
  std::span<const View> inputs;
  std::int64_t index = 0;
  std::span<const std::size_t> text_starts;  // where the row begins in each BYTES input; empty: not known
  std::uint32_t summarised = 0;              // a bit for each of:
  std::array<Summary, kMaxAggregatedInputs> summaries;

  double Number(const Feature& f) const {
    const View& view = inputs[f.input];
    const std::size_t size = tensor::SizeOf(f.type);
    const auto at = static_cast<std::size_t>(index * f.row_elements + f.element) * size;
    GANGLION_CHECK(view.type == f.type && at + size <= view.bytes.size());
    return WithStored(f.type,
                      [&](auto stored) { return static_cast<double>(Load<decltype(stored)>(view.bytes.data() + at)); });
  }

  const Summary& SummaryOf(const Feature& f) {
    Summary& summary = summaries[f.summary];
    if ((summarised >> f.summary & 1u) != 0) return summary;
    const View& view = inputs[f.input];
    const auto n = static_cast<std::size_t>(RowElements(view));
    const std::size_t size = n * tensor::SizeOf(f.type);
    const std::size_t at = static_cast<std::size_t>(index) * size;
    GANGLION_CHECK(view.type == f.type && at + size <= view.bytes.size());
    summary = WithStored(f.type, [&](auto stored) { return Summarise<decltype(stored)>(view.bytes.data() + at, n); });
    summarised |= 1u << f.summary;
    return summary;
  }

  std::optional<std::string_view> Text(const Feature& f) const {
    const View& view = inputs[f.input];
    GANGLION_CHECK(view.type == DataType::kBytes);
    const auto at = text_starts.empty() ? SkipTexts(view.bytes, 0, index * f.row_elements + f.element)
                                        : SkipTexts(view.bytes, text_starts[f.input], f.element);
    if (!at || *at > view.bytes.size() || view.bytes.size() - *at < 4) return std::nullopt;
    const std::size_t length = Load<std::uint32_t>(view.bytes.data() + *at);
    if (view.bytes.size() - *at - 4 < length) return std::nullopt;
    return std::string_view(reinterpret_cast<const char*>(view.bytes.data() + *at + 4), length);
  }
};

bool RuleSet::TextHolds(const Step& step, const Row& row) const {
  const auto text = row.Text(step.feature);
  if (!text) return false;
  const auto begin = texts_.begin() + step.first;
  const bool found = std::binary_search(begin, begin + step.count, *text);
  return step.test == Test::kNotEqual ? !found : found;
}

bool RuleSet::Holds(const Step& step, Row* row) const {
  double v = 0;
  switch (step.feature.kind) {
    case Feature::Kind::kText:
      return TextHolds(step, *row);
    case Feature::Kind::kNumber:
      v = row->Number(step.feature);
      break;
    case Feature::Kind::kMean:
      v = row->SummaryOf(step.feature).mean;
      break;
    case Feature::Kind::kMin:
      v = row->SummaryOf(step.feature).min;
      break;
    case Feature::Kind::kMax:
      v = row->SummaryOf(step.feature).max;
      break;
    case Feature::Kind::kSum:
      v = row->SummaryOf(step.feature).sum;
      break;
  }
  if (std::isnan(v)) return false;
  switch (step.test) {
    case Test::kLess:
      return v < step.low;
    case Test::kLessOrEqual:
      return v <= step.low;
    case Test::kGreater:
      return v > step.low;
    case Test::kGreaterOrEqual:
      return v >= step.low;
    case Test::kEqual:
      return v == step.low;
    case Test::kNotEqual:
      return v != step.low;
    case Test::kBetween:
      return step.low <= v && v <= step.high;
    case Test::kIn: {
      const auto begin = numbers_.begin() + step.first;
      return std::binary_search(begin, begin + step.count, v);
    }
  }
  return false;
}

std::optional<RuleAnswer> RuleSet::Run(Row* row) const {
  std::uint32_t at = 0;  // arrows only lead forward, so this ends
  while (at < kAnswer) at = Holds(steps_[at], row) ? steps_[at].yes : steps_[at].no;
  if (at == kNone) return std::nullopt;
  return answers_[at - kAnswer];
}

std::optional<RuleAnswer> RuleSet::Evaluate(std::span<const View> inputs, std::int64_t row) const {
  GANGLION_CHECK(inputs.size() == inputs_ && row >= 0);
  Row r;
  r.inputs = inputs;
  r.index = row;
  return Run(&r);
}

std::vector<std::optional<RuleAnswer>> RuleSet::EvaluateAll(std::span<const View> inputs) const {
  GANGLION_CHECK(inputs.size() == inputs_ && !inputs[0].shape.empty());
  std::vector<std::optional<RuleAnswer>> answers(static_cast<std::size_t>(inputs[0].shape[0]));
  std::vector<std::size_t> starts(inputs.size(), 0);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    Row r;
    r.inputs = inputs;
    r.index = static_cast<std::int64_t>(i);
    r.text_starts = starts;
    answers[i] = Run(&r);
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      if (inputs[k].type != DataType::kBytes) continue;
      starts[k] = SkipTexts(inputs[k].bytes, starts[k], RowElements(inputs[k])).value_or(inputs[k].bytes.size());
    }
  }
  return answers;
}

}  // namespace ganglion::rules
