// How a BasicLearner does what learner.h says. Included by the files that make one for an Access (learner.cc,
// learning/shared.cc), by nobody else.
#pragma once

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <utility>

#include "base/random.h"
#include "online/learner.h"
#include "online/loss.h"

namespace ganglion::online {

inline constexpr float kMaxEvidence = 1e37f;     // sums of squares stop here, far from infinity
inline constexpr double kMaxSquaredStep = 1e36;  // largest squared gradient of one weight
inline constexpr float kMaxValue = 1e18f;        // largest value of a feature: its square is finite
inline constexpr float kMaxWeight = 1e30f;
inline constexpr float kMaxLogOdds = 50;

namespace internal {

inline float SoftThreshold(float w, float by) {
  if (w > by) return w - by;
  if (w < -by) return w + by;
  return 0;
}

inline float Within(float v, float limit) { return std::min(std::max(v, -limit), limit); }

Status RefuseValue(const Example& example, std::uint32_t mask);
Status RefuseLabel(const LearnerOptions& options, float label);
Status RefuseStep(double score, float label, float largest);

}  // namespace internal

template <class Access>
BasicLearner<Access>::BasicLearner(internal::State state)
    : state_(std::move(state)),
      outputs_(state_.options.outputs()),
      standard_(state_.options.adaptive && state_.options.normalised && state_.options.power_t == .5),
      scores_(outputs_),
      shares_(outputs_) {}

template <class Access>
Result<BasicLearner<Access>> BasicLearner<Access>::Create(const LearnerOptions& options) {
  RETURN_IF_ERROR(online::Check(options));
  return BasicLearner(internal::NewState(options));
}

template <class Access>
float BasicLearner<Access>::Score(std::span<const Feature> features, std::uint32_t output) const {
  const float* base = state_.cells.data() + std::size_t{output} * 4;
  const std::size_t stride = std::size_t{outputs_} * 4;
  float score = 0;
  for (const Feature& f : features) score += Access::Load(base + f.index * stride) * f.value;
  return score;
}

// sum_{i<j} <v_i, v_j> x_i x_j = 1/2 sum_f ((sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2); `sums` become the inner sums.
template <class Access>
float BasicLearner<Access>::FactorScore(std::span<const Feature> features, float* sums) const {
  const auto k = static_cast<std::size_t>(state_.options.factors);
  std::fill(sums, sums + k, 0.f);
  float squares = 0;
  for (const Feature& f : features) {
    const float* v = state_.factors.data() + f.index * 2 * k;
    for (std::size_t j = 0; j < k; ++j) {
      const float vx = Access::Load(v + j) * f.value;
      sums[j] += vx;
      squares += vx * vx;
    }
  }
  float score = 0;
  for (std::size_t j = 0; j < k; ++j) score += sums[j] * sums[j];
  return .5f * (score - squares);
}

template <class Access>
void BasicLearner<Access>::Predict(std::span<const Feature> features, std::span<float> scores) const {
  GANGLION_CHECK(scores.size() == outputs_);
  Scores(features, scores);
  for (float& z : scores) z = std::isnan(z) ? 0 : internal::Within(z, kMaxWeight);
}

// As Predict, but what has no sum (infinity less infinity) stays NaN, for Steps to refuse.
template <class Access>
void BasicLearner<Access>::Scores(std::span<const Feature> features, std::span<float> scores) const {
  const LearnerOptions& o = state_.options;
  for (std::uint32_t k = 0; k < outputs_; ++k) scores[k] = Score(features, k);
  if (o.factors > 0) {
    std::array<float, kMaxFactors> sums;
    scores[0] += FactorScore(features, sums.data());
  }
  if (o.task == Task::kRegression) {
    scores[0] = std::min(std::max(scores[0], Access::Load(&state_.label_low)), Access::Load(&state_.label_high));
  } else if (o.task != Task::kSoftmax) {
    for (float& z : scores) z = std::min(std::max(z, -kMaxLogOdds), kMaxLogOdds);
  }
}

template <class Access>
double BasicLearner<Access>::Loss(std::span<const float> scores, float label) const {
  switch (state_.options.task) {
    case Task::kRegression:
      return SquaredLoss::Loss(scores[0], label);
    case Task::kBinary:
      return LogisticLoss::Loss(scores[0], label > 0 ? 1 : -1);
    case Task::kOneAgainstAll: {
      const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
      return best == static_cast<std::ptrdiff_t>(label) ? 0 : 1;
    }
    case Task::kSoftmax: {
      const double top = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (const float z : scores) sum += std::exp(z - top);
      return std::log(sum) + top - scores[static_cast<std::size_t>(label)];
    }
  }
  return 0;
}

template <class Access>
Status BasicLearner<Access>::Check(const Example& example) const {
  const LearnerOptions& o = state_.options;
  const std::uint32_t mask = (1u << o.bits) - 1;
  float zero = example.weight * 0.f;
  std::uint32_t places = 0;
  for (const Feature& f : example.features) {
    zero += f.value * 0.f;  // NaN for what is not finite
    places |= f.index;
  }
  if (!(zero == 0.f) || places > mask || example.weight < 0) return internal::RefuseValue(example, mask);
  if (!example.labelled) return InvalidArgument("the example has no label, so there is nothing to learn from it");
  const float y = example.label;
  bool fits = false;
  if (o.task == Task::kRegression) {
    fits = std::isfinite(y);
  } else if (o.task == Task::kBinary) {
    fits = y == 1 || y == -1 || y == 0;
  } else {
    fits = y >= 0 && y < static_cast<float>(o.classes) && y == std::floor(y);
  }
  return fits ? Status() : internal::RefuseLabel(o, y);
}

// Evidence and scale of each feature are brought up to date, and its rate is left in its cell. kStandard: adaptive,
// normalised and a power of one half, where powers are square roots.
template <class Access>
template <bool kStandard>
typename BasicLearner<Access>::Pass BasicLearner<Access>::Decay(const Example& example, std::uint32_t output,
                                                                double squared) {
  const LearnerOptions& o = state_.options;
  const auto square = static_cast<float>(squared);
  const auto norm_power = static_cast<float>(o.adaptive ? o.power_t - 1 : -1);
  float* const base = state_.cells.data() + std::size_t{output} * 4;
  const std::size_t stride = std::size_t{outputs_} * 4;
  float per_unit = 0;
  float norms = 0;
  for (const Feature& f : example.features) {
    float x = f.value;
    if (x == 0) continue;
    float x2 = x * x;
    if (x2 < FLT_MIN) {
      x2 = FLT_MIN;
      x = std::sqrt(FLT_MIN);
    }
    float* const c = base + f.index * stride;
    c[1] = std::min(std::max(c[1] + square * x2, FLT_MIN), kMaxEvidence);
    if (kStandard || o.normalised) {
      const float size = std::abs(x);
      if (size > c[2]) {  // a scale not seen before
        if (c[2] > 0) {
          const float ratio = c[2] / size;
          Access::Store(c, Access::Load(c) * (kStandard ? ratio : std::pow(ratio * ratio, -norm_power)));
        }
        c[2] = size;
      }
    }
    float rate = 1;
    if (kStandard) {
      const float inverse = 1 / c[2];
      const float relative = x * inverse;
      norms += relative * relative;
      rate = inverse / std::sqrt(c[1]);
    } else {
      if (o.adaptive) rate = std::pow(c[1], static_cast<float>(-o.power_t));
      if (o.normalised) {
        norms += x2 / (c[2] * c[2]);
        rate *= std::pow(c[2] * c[2], norm_power);
      }
    }
    if (!kStandard) rate = std::min(rate, 1e37f);
    c[3] = rate;
    per_unit += x2 * rate;
  }
  state_.total_weight += example.weight;
  Pass pass;
  pass.per_unit = per_unit;
  if (kStandard || o.normalised) {
    state_.norm_sum += static_cast<double>(example.weight) * norms;
    if (state_.norm_sum > 0) {
      pass.multiplier = kStandard ? std::sqrt(state_.total_weight / state_.norm_sum)
                                  : std::pow(state_.norm_sum / state_.total_weight, static_cast<double>(norm_power));
    }
  }
  return pass;
}

// w_i += update x_i rate_i, then what pulls it: l1, l2 and the anchor, by a step of `rate` rate_i.
template <class Access>
void BasicLearner<Access>::Apply(const Example& example, std::uint32_t output, double update, double rate) {
  const LearnerOptions& o = state_.options;
  const auto step = static_cast<float>(std::min(std::max(update, -1e30), 1e30));
  const bool pulled = o.l1 > 0 || o.l2 > 0 || o.anchor > 0;
  for (const Feature& f : example.features) {
    float* const c = Cell(f.index, output);
    float w = internal::Within(Access::Load(c) + step * (f.value * c[3]), kMaxWeight);
    if (pulled && f.value != 0) {
      const float s = static_cast<float>(std::min(rate * c[3], 1e18));
      w = internal::SoftThreshold(w, s * static_cast<float>(o.l1)) / (1 + s * static_cast<float>(o.l2));
      if (o.anchor > 0) {
        const float* const a = state_.anchors.data() + (std::size_t{f.index} * outputs_ + output) * 2;
        const float hold = std::min(s * static_cast<float>(o.anchor) * a[1], 1e18f);
        w += (a[0] - w) * (hold / (1 + hold));
      }
    }
    Access::Store(c, w);
  }
}

template <class Access>
template <class LossFunction>
void BasicLearner<Access>::StepToLabel(const Example& example, std::uint32_t output, double score, double label) {
  const LearnerOptions& o = state_.options;
  const double d = LossFunction::Derivative(score, label);
  const double squared = d * d * example.weight;
  if (!(squared > 0)) return;
  const Pass pass = standard_ ? Decay<true>(example, output, squared) : Decay<false>(example, output, squared);
  double rate = o.rate;
  if (!o.adaptive) rate *= std::pow(state_.total_weight / outputs_, -o.power_t);
  double update = 0;
  if (o.invariant) {
    const double s = rate * example.weight * pass.per_unit * pass.multiplier;
    if (!(pass.per_unit > 0)) return;  // no feature
    update = s < 1e-6 ? -d * rate * example.weight * pass.multiplier
                      : LossFunction::Move(score, label, std::min(s, 1e100)) / pass.per_unit;
  } else {
    update = -d * rate * example.weight * pass.multiplier;
  }
  Apply(example, output, update, rate * pass.multiplier);
}

template <class Access>
void BasicLearner<Access>::StepAgainst(const Example& example, std::uint32_t output, double derivative) {
  const LearnerOptions& o = state_.options;
  const double squared = derivative * derivative * example.weight;
  if (!(squared > 0)) return;
  const Pass pass = standard_ ? Decay<true>(example, output, squared) : Decay<false>(example, output, squared);
  double rate = o.rate * pass.multiplier;
  if (!o.adaptive) rate *= std::pow(state_.total_weight / outputs_, -o.power_t);
  Apply(example, output, -derivative * example.weight * rate, rate);
}

template <class Access>
void BasicLearner<Access>::Ftrl(const Example& example, std::uint32_t output, double derivative) {
  const LearnerOptions& o = state_.options;
  const auto slope = static_cast<float>(derivative * example.weight);
  const auto inverse_alpha = static_cast<float>(1 / o.alpha);
  const auto beta = static_cast<float>(o.beta);
  const auto l1 = static_cast<float>(o.l1);
  const auto l2 = static_cast<float>(o.l2);
  state_.total_weight += example.weight;
  for (const Feature& f : example.features) {
    float* const c = Cell(f.index, output);
    float w = Access::Load(c);
    const float g = slope * f.value;
    const float n = std::min(c[1] + g * g, kMaxEvidence);
    const float root = std::sqrt(n);
    const float stiffness = (beta + root) * inverse_alpha + l2;
    c[2] += g - (root - std::sqrt(c[1])) * inverse_alpha * w;
    c[1] = n;
    if (!(stiffness > 0)) continue;  // beta 0 and no gradient yet
    const float step = 1 / stiffness;
    w = -internal::SoftThreshold(c[2], l1) * step;
    if (o.anchor > 0) {
      const float* const a = state_.anchors.data() + (std::size_t{f.index} * outputs_ + output) * 2;
      const float hold = std::min(step * static_cast<float>(o.anchor) * a[1], 1e18f);
      c[2] = internal::Within(c[2] - (a[0] - w) * (hold / (1 + hold)) * stiffness, 1e36f);
      w = -internal::SoftThreshold(c[2], l1) * step;
    }
    Access::Store(c, w);
  }
}

template <class Access>
void BasicLearner<Access>::StepFactors(const Example& example, double derivative, const float* sums) {
  const LearnerOptions& o = state_.options;
  const auto k = static_cast<std::size_t>(o.factors);
  const auto rate = static_cast<float>(o.factor_rate);
  const auto l2 = static_cast<float>(o.l2);
  const auto slope = static_cast<float>(derivative * example.weight);
  for (const Feature& f : example.features) {
    float* const v = state_.factors.data() + f.index * 2 * k;
    float* const squares = v + k;
    const float x = f.value;
    const float slope_x = slope * x;
    for (std::size_t j = 0; j < k; ++j) {
      const float old = Access::Load(v + j);
      const float g = std::min(std::max(slope_x * (sums[j] - old * x) + l2 * old, -1e18f), 1e18f);
      const float sum = std::min(squares[j] + g * g, kMaxEvidence);
      squares[j] = sum;
      Access::Store(v + j, old - rate * g / std::sqrt(sum + FLT_MIN));
    }
  }
}

// The step from scores already predicted.
template <class Access>
Status BasicLearner<Access>::Steps(const Example& example, double label, std::span<float> scores) {
  const LearnerOptions& o = state_.options;
  const bool squared = o.task == Task::kRegression;
  float largest = 0;
  for (const Feature& f : example.features) largest = std::max(largest, std::abs(f.value));
  double sum = 0;
  for (const float z : scores) sum += z;
  const double d = squared ? 2 * (scores[0] - label) : 1;
  const double weight = std::max(1.f, example.weight);
  const double step = d * d * weight * weight * largest * largest;
  if (!(step <= kMaxSquaredStep) || !(largest <= kMaxValue) || !std::isfinite(sum))
    return internal::RefuseStep(sum, example.label, largest);

  if (o.factors > 0) {
    std::array<float, kMaxFactors> sums;
    FactorScore(example.features, sums.data());
    const double slope = squared ? d : LogisticLoss::Derivative(scores[0], label);
    if (o.update == Update::kFtrl) {
      Ftrl(example, 0, slope);
    } else {
      StepAgainst(example, 0, slope);
    }
    StepFactors(example, slope, sums.data());
  } else if (o.task == Task::kSoftmax) {
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (std::uint32_t k = 0; k < outputs_; ++k) total += shares_[k] = std::exp(scores[k] - top);
    for (std::uint32_t k = 0; k < outputs_; ++k) {
      const double slope = shares_[k] / total - (k == static_cast<std::uint32_t>(label) ? 1 : 0);
      if (o.update == Update::kFtrl) {
        Ftrl(example, k, slope);
      } else {
        StepAgainst(example, k, slope);
      }
    }
  } else {
    for (std::uint32_t k = 0; k < outputs_; ++k) {
      double y = label;
      if (o.task == Task::kOneAgainstAll) y = k == static_cast<std::uint32_t>(label) ? 1 : -1;
      if (o.update == Update::kFtrl) {
        Ftrl(example, k, squared ? SquaredLoss::Derivative(scores[k], y) : LogisticLoss::Derivative(scores[k], y));
      } else if (squared) {
        StepToLabel<SquaredLoss>(example, k, scores[k], y);
      } else {
        StepToLabel<LogisticLoss>(example, k, scores[k], y);
      }
    }
  }
  return {};
}

template <class Access>
Status BasicLearner<Access>::LearnOnce(const Example& example, std::span<float> scores) {
  Scores(example.features, scores);
  double label = example.label;
  if (state_.options.task == Task::kBinary) label = label > 0 ? 1 : -1;
  RETURN_IF_ERROR(Steps(example, label, scores));
  if (state_.options.task == Task::kRegression) {
    if (example.label < state_.label_low) Access::Store(&state_.label_low, example.label);
    if (example.label > state_.label_high) Access::Store(&state_.label_high, example.label);
  }
  return {};
}

template <class Access>
Result<Outcome> BasicLearner<Access>::Learn(const Example& example, std::uint64_t bits) {
  RETURN_IF_ERROR(Check(example));
  RETURN_IF_ERROR(LearnOnce(example, scores_));
  Outcome outcome;
  outcome.loss = Loss(scores_, example.label);
  outcome.prediction = scores_[0];
  if (outputs_ > 1) {
    outcome.prediction = static_cast<float>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
  }
  Progress& p = state_.progress;
  ++p.examples;
  p.weight += example.weight;
  p.loss += outcome.loss * example.weight;
  if (state_.reservoir.capacity() > 0) {
    Random random(bits);
    for (std::uint32_t i = 0; i < state_.options.replays && !state_.reservoir.empty(); ++i) {
      // One that was learned before can be refused now only where its step has grown out of range: it is left out.
      (void)LearnOnce(state_.reservoir.Draw(random.Next()), scores_).ok();
    }
    state_.reservoir.Offer(example, random.Next());
  }
  const std::uint64_t every = state_.options.anchor_every;
  if (state_.options.anchor > 0 && every > 0 && p.examples % every == 0) PlaceAnchor();
  return outcome;
}

template <class Access>
void BasicLearner<Access>::PlaceAnchor() {
  GANGLION_CHECK(!state_.anchors.empty());
  for (std::size_t i = 0; i < state_.cells.size() / 4; ++i) {
    state_.anchors[2 * i] = state_.cells[4 * i];
    state_.anchors[2 * i + 1] = state_.cells[4 * i + 1];
  }
}

template <class Access>
void BasicLearner<Access>::SetAnchor(double strength, std::uint64_t every) {
  state_.options.anchor = strength;
  state_.options.anchor_every = every;
  if (!(strength > 0)) state_.anchors.clear();
  if (strength > 0 && state_.anchors.empty()) state_.anchors.resize(state_.cells.size() / 2);
}

}  // namespace ganglion::online
