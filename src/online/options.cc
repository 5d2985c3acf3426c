#include "online/options.h"

#include <cmath>
#include <utility>

#include "base/limits.h"
#include "online/example.h"
#include "online/hash.h"

namespace ganglion::online {
namespace {

std::string Number(double v) {
  std::string text = std::to_string(v);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

Status Range(const char* what, const char* range, double value) {
  return InvalidArgument(std::string(what) + " must be " + range + ", got " + Number(value));
}

}  // namespace

std::uint64_t LearnerOptions::table_bytes() const {
  const std::uint64_t places = std::uint64_t{1} << bits;
  std::uint64_t each = std::uint64_t{outputs()} * 4;
  if (anchor > 0) each += std::uint64_t{outputs()} * 2;
  each += static_cast<std::uint64_t>(factors) * 2;
  return places * each * sizeof(float);
}

Status Check(const LearnerOptions& o) {
  if (o.bits < kMinBits || o.bits > kMaxBits) return Range("bits", "from 1 to 28", o.bits);
  const bool several = o.task == Task::kOneAgainstAll || o.task == Task::kSoftmax;
  if (several && (o.classes < 2 || o.classes > static_cast<std::uint32_t>(limits::kMaxClasses)))
    return Range("classes", "from 2 to 100000", o.classes);
  if (!several && o.classes != 1)
    return InvalidArgument("classes is " + std::to_string(o.classes) + ", but " + Name(o.task) + " has one output");
  for (const auto& [what, value] :
       {std::pair("rate", o.rate), std::pair("alpha", o.alpha), std::pair("factor_rate", o.factor_rate),
        std::pair("factor_scale", o.factor_scale)}) {
    if (!(value >= 1e-9 && value <= 1e9)) return Range(what, "from 1e-9 to 1e9", value);
  }
  for (const auto& [what, value] :
       {std::pair("beta", o.beta), std::pair("l1", o.l1), std::pair("l2", o.l2), std::pair("anchor", o.anchor)}) {
    if (!(value >= 0 && value <= 1e9)) return Range(what, "from 0 to 1e9", value);
  }
  if (!(o.power_t >= 0 && o.power_t <= 1)) return Range("power_t", "in [0, 1]", o.power_t);
  if (o.factors < 0 || o.factors > kMaxFactors) return Range("factors", "from 0 to 64", o.factors);
  if (o.factors > 0 && several)
    return InvalidArgument("a factorisation machine has one output; leave out classes, or factors");
  if (o.replay > (1u << 24)) return Range("replay", "at most 16777216", o.replay);
  if (o.replays < 1 || o.replays > 100) return Range("replays", "from 1 to 100", o.replays);
  if (o.interactions.size() > 1000)
    return Range("the number of interactions", "at most 1000", static_cast<double>(o.interactions.size()));
  if (o.table_bytes() > kMaxTableBytes) {
    return InvalidArgument("the table would take " + std::to_string(o.table_bytes() >> 20) + " MiB, limit " +
                           std::to_string(kMaxTableBytes >> 20) + "; take fewer bits, classes or factors");
  }
  return {};
}

const char* Name(Task task) {
  switch (task) {
    case Task::kRegression:
      return "regression";
    case Task::kBinary:
      return "binary";
    case Task::kOneAgainstAll:
      return "one-against-all";
    case Task::kSoftmax:
      return "softmax";
  }
  return "?";
}

void AppendDense(std::span<const float> values, std::uint32_t first, Example* example) {
  example->features.reserve(example->features.size() + values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0) example->features.push_back({first + static_cast<std::uint32_t>(i), values[i]});
  }
}

void AppendConstant(int bits, Example* example) {
  example->features.push_back({kConstantFeature & ((1u << bits) - 1), 1.f});
}

}  // namespace ganglion::online
