#include "optimizer/schedule.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <string_view>
#include <vector>

#include "base/check.h"

namespace ganglion::optimizer {
namespace {

using Kind = Schedule::Kind;

constexpr std::array<std::string_view, 7> kNames{"constant",    "linear",   "cosine", "step",
                                                 "exponential", "onecycle", "plateau"};
// PyTorch's OneCycleLR: the rate begins at 1/25 of its peak and ends at 1/10,000 of where it began.
constexpr double kOneCycleStart = 1. / 25;
constexpr double kOneCycleEnd = kOneCycleStart / 1e4;

double CosineBetween(double from, double to, double share) {
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * share));
}

double OneCycle(const Schedule& s, std::int64_t step, std::int64_t steps) {
  const double top = s.peak * static_cast<double>(steps) - 1;  // the step at which the rate is highest
  const double last = static_cast<double>(steps) - 1;
  const auto at = static_cast<double>(step);
  if (at <= top) return CosineBetween(kOneCycleStart, 1, top > 0 ? at / top : 1);
  return CosineBetween(1, kOneCycleEnd, last > top ? (at - top) / (last - top) : 1);
}

bool ReadNumber(std::string_view text, double* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(*out);
}

bool ReadCount(std::string_view text, std::int64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

Status RefuseNumber(const char* what, const char* range, double value) {
  return InvalidArgument(std::string("schedule: ") + what + " must be " + range + ", got " + std::to_string(value));
}

}  // namespace

Status Check(const Schedule& s) {
  if (!(s.warmup >= 0 && s.warmup < 1)) return RefuseNumber("warmup", "in [0, 1)", s.warmup);
  if (!(s.final >= 0 && s.final <= 1)) return RefuseNumber("the final multiplier", "in [0, 1]", s.final);
  if (!(s.factor > 0 && s.factor < 1)) return RefuseNumber("the factor", "between 0 and 1", s.factor);
  if (s.every < 1) return RefuseNumber("epochs a step", ">= 1", static_cast<double>(s.every));
  if (!(s.peak > 0 && s.peak < 1)) return RefuseNumber("the peak's share", "between 0 and 1", s.peak);
  if (s.patience < 0) return RefuseNumber("patience", ">= 0", static_cast<double>(s.patience));
  if (!(s.threshold >= 0 && s.threshold < 1)) return RefuseNumber("threshold", "in [0, 1)", s.threshold);
  return {};
}

Result<Schedule> ParseSchedule(const std::string& text) {
  std::vector<std::string_view> parts;
  for (std::string_view rest = text;;) {
    const auto colon = rest.find(':');
    parts.push_back(rest.substr(0, colon));
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  Schedule s;
  std::size_t kind = 0;
  while (kind < kNames.size() && kNames[kind] != parts[0]) ++kind;
  if (kind == kNames.size()) {
    return InvalidArgument("schedule \"" + text +
                           "\" is unknown; constant, linear[:FINAL], cosine[:FINAL], step:EPOCHS[:FACTOR], "
                           "exponential:FACTOR, onecycle[:PEAK], plateau[:PATIENCE[:FACTOR]]");
  }
  s.kind = static_cast<Kind>(kind);
  bool good = true;
  const std::size_t given = parts.size() - 1;
  switch (s.kind) {
    case Kind::kConstant:
      good = given == 0;
      break;
    case Kind::kLinear:
    case Kind::kCosine:
      good = given <= 1 && (given < 1 || ReadNumber(parts[1], &s.final));
      break;
    case Kind::kStep:
      good =
          (given == 1 || given == 2) && ReadCount(parts[1], &s.every) && (given < 2 || ReadNumber(parts[2], &s.factor));
      break;
    case Kind::kExponential:
      good = given == 1 && ReadNumber(parts[1], &s.factor);
      break;
    case Kind::kOneCycle:
      good = given <= 1 && (given < 1 || ReadNumber(parts[1], &s.peak));
      break;
    case Kind::kPlateau:
      good = given <= 2 && (given < 1 || ReadCount(parts[1], &s.patience)) &&
             (given < 2 || ReadNumber(parts[2], &s.factor));
      break;
  }
  if (!good) {
    return InvalidArgument("schedule \"" + text + "\" does not read as " + std::string(parts[0]) +
                           " and its numbers; for example step:10:0.1, exponential:0.95, plateau:5:0.5");
  }
  RETURN_IF_ERROR(Check(s));
  return s;
}

std::string Text(const Schedule& s) {
  char numbers[200];
  std::snprintf(numbers, sizeof numbers, " warmup %a final %a factor %a every %lld peak %a patience %lld threshold %a",
                s.warmup, s.final, s.factor, static_cast<long long>(s.every), s.peak,
                static_cast<long long>(s.patience), s.threshold);
  return std::string(kNames[static_cast<std::size_t>(s.kind)]) + numbers;
}

double RateAt(const Schedule& s, std::int64_t step, std::int64_t steps, std::int64_t epoch_steps) {
  GANGLION_CHECK(step >= 0 && step < steps && epoch_steps >= 1);
  if (s.kind == Kind::kOneCycle) return OneCycle(s, step, steps);
  const double at = (static_cast<double>(step) + .5) / static_cast<double>(steps);
  const bool warming = at < s.warmup;
  const double rise = warming ? at / s.warmup : 1;
  const double past = warming ? 0 : at - s.warmup;
  const std::int64_t epoch = step / epoch_steps;
  const std::int64_t drops = epoch / s.every;
  switch (s.kind) {
    case Kind::kLinear:
      return rise * (1 - (1 - s.final) * past / (1 - s.warmup));
    case Kind::kCosine:
      return rise * (s.final + (1 - s.final) * (.5 * (1 + std::cos(std::numbers::pi * past / (1 - s.warmup)))));
    case Kind::kStep:
      return rise * std::pow(s.factor, static_cast<double>(drops));
    case Kind::kExponential:
      return rise * std::pow(s.factor, static_cast<double>(epoch));
    default:
      return rise;
  }
}

double CosineSchedule(std::int64_t step, std::int64_t steps, double warmup) {
  GANGLION_CHECK(step >= 0 && step < steps);
  return RateAt({.kind = Kind::kCosine, .warmup = warmup}, step, steps, steps);
}

void Plateau::Observe(double loss) {
  if (loss < state_.best * (1 - schedule_.threshold) || (std::isinf(state_.best) && std::isfinite(loss))) {
    state_.best = loss;
    state_.waited = 0;
  } else if (++state_.waited > schedule_.patience) {
    state_.scale *= schedule_.factor;
    state_.waited = 0;
  }
}

}  // namespace ganglion::optimizer
