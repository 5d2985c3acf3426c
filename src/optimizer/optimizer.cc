#include "optimizer/optimizer.h"

#include <array>
#include <cmath>
#include <string>

#include "base/check.h"
#include "optimizer/clones.h"

namespace ganglion::optimizer {
namespace {

// In every loop: `keep` is 1 - rate * decay where decay is decoupled, `decay` the coupled one; the other is neutral.

GANGLION_CLONES void SgdLoop(float* __restrict p, const float* __restrict g, std::size_t n, float rate, float decay) {
  for (std::size_t i = 0; i < n; ++i) p[i] -= rate * (g[i] + decay * p[i]);
}

GANGLION_CLONES void MomentumLoop(float* __restrict p, const float* __restrict g, float* __restrict v, std::size_t n,
                                  float rate, float momentum, float decay) {
  for (std::size_t i = 0; i < n; ++i) {
    v[i] = momentum * v[i] + (g[i] + decay * p[i]);
    p[i] -= rate * v[i];
  }
}

GANGLION_CLONES void NesterovLoop(float* __restrict p, const float* __restrict g, float* __restrict v, std::size_t n,
                                  float rate, float momentum, float decay) {
  for (std::size_t i = 0; i < n; ++i) {
    const float d = g[i] + decay * p[i];
    v[i] = momentum * v[i] + d;
    p[i] -= rate * (d + momentum * v[i]);
  }
}

GANGLION_CLONES void AdamLoop(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
                              std::size_t n, float rate, float beta1, float beta2, float correct2, float epsilon,
                              float decay) {
  for (std::size_t i = 0; i < n; ++i) {
    const float d = g[i] + decay * p[i];
    m[i] = beta1 * m[i] + (1 - beta1) * d;
    v[i] = beta2 * v[i] + (1 - beta2) * d * d;
    p[i] -= rate * m[i] / (__builtin_sqrtf(v[i] * correct2) + epsilon);
  }
}

// Adam with decoupled decay: the parameter shrinks before it moves.
GANGLION_CLONES void AdamWLoop(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
                               std::size_t n, float rate, float beta1, float beta2, float correct2, float epsilon,
                               float keep) {
  for (std::size_t i = 0; i < n; ++i) {
    m[i] = beta1 * m[i] + (1 - beta1) * g[i];
    v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
    p[i] = keep * p[i] - rate * m[i] / (__builtin_sqrtf(v[i] * correct2) + epsilon);
  }
}

GANGLION_CLONES void YogiLoop(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
                              std::size_t n, float rate, float beta1, float beta2, float correct2, float epsilon,
                              float decay) {
  for (std::size_t i = 0; i < n; ++i) {
    const float d = g[i] + decay * p[i];
    const float square = d * d;
    const float change = (1 - beta2) * square;
    m[i] = beta1 * m[i] + (1 - beta1) * d;
    v[i] += v[i] > square ? -change : v[i] < square ? change : 0.f;
    p[i] -= rate * m[i] / (__builtin_sqrtf(v[i] * correct2) + epsilon);
  }
}

GANGLION_CLONES void AdagradLoop(float* __restrict p, const float* __restrict g, float* __restrict v, std::size_t n,
                                 float rate, float epsilon, float decay) {
  for (std::size_t i = 0; i < n; ++i) {
    const float d = g[i] + decay * p[i];
    v[i] += d * d;
    p[i] -= rate * d / (__builtin_sqrtf(v[i]) + epsilon);
  }
}

GANGLION_CLONES void ScaleLoop(float* __restrict p, std::size_t n, float keep) {
  for (std::size_t i = 0; i < n; ++i) p[i] *= keep;
}

constexpr std::array<std::string_view, 6> kNames{"sgd", "nesterov", "adam", "adamw", "adagrad", "yogi"};

bool KeepsFirst(const Options& o) { return o.kind == Kind::kSgd ? o.momentum > 0 : o.kind != Kind::kAdagrad; }
bool KeepsSecond(const Options& o) { return o.kind != Kind::kSgd && o.kind != Kind::kNesterov; }

}  // namespace

std::string_view Name(Kind kind) { return kNames[static_cast<std::size_t>(kind)]; }

std::optional<Kind> KindFromName(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Kind>(i);
  }
  return std::nullopt;
}

std::string KindNames() {
  std::string text;
  for (const auto name : kNames) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

Options Recommended(Kind kind) {
  switch (kind) {
    case Kind::kSgd:
      return {.kind = kind, .rate = .01};
    case Kind::kNesterov:
      return {.kind = kind, .rate = .01, .momentum = .9};
    case Kind::kAdam:
      return {.kind = kind, .rate = 1e-3};
    case Kind::kAdamW:
      return {.kind = kind, .rate = 1e-3, .weight_decay = .01, .decoupled = true};
    case Kind::kAdagrad:
      return {.kind = kind, .rate = .01, .epsilon = 1e-10};
    case Kind::kYogi:
      return {.kind = kind, .rate = .01, .epsilon = 1e-3, .initial_second = 1e-6};
  }
  return {};
}

Optimizer::Optimizer(const Options& options, std::size_t size) : options_(options), size_(size) {
  if (KeepsFirst(options)) state_.first.resize(size);
  if (KeepsSecond(options)) state_.second.assign(size, static_cast<float>(options.initial_second));
}

Result<Optimizer> Optimizer::Create(const Options& o, std::size_t size, std::vector<Range> undecayed) {
  const auto refuse = [](const char* what, const char* range, double value) {
    return InvalidArgument(std::string(what) + " must be " + range + ", got " + std::to_string(value));
  };
  if (!(o.rate > 0) || !std::isfinite(o.rate)) return refuse("rate", "> 0 and finite", o.rate);
  if (!(o.momentum >= 0 && o.momentum < 1)) return refuse("momentum", "in [0, 1)", o.momentum);
  if (o.kind == Kind::kNesterov && o.momentum == 0) return refuse("momentum of nesterov", "> 0", o.momentum);
  if (!(o.beta1 >= 0 && o.beta1 < 1)) return refuse("beta1", "in [0, 1)", o.beta1);
  if (!(o.beta2 >= 0 && o.beta2 < 1)) return refuse("beta2", "in [0, 1)", o.beta2);
  if (!(o.epsilon > 0)) return refuse("epsilon", "> 0", o.epsilon);
  if (!(o.weight_decay >= 0) || !std::isfinite(o.weight_decay)) return refuse("weight_decay", ">= 0", o.weight_decay);
  if (!(o.initial_second >= 0) || !std::isfinite(o.initial_second))
    return refuse("initial_second", ">= 0", o.initial_second);
  Optimizer optimizer(o, size);
  std::size_t at = 0;
  if (o.weight_decay == 0) undecayed.clear();  // nothing to leave out: one part
  optimizer.parts_.reserve(2 * undecayed.size() + 1);
  for (const Range& r : undecayed) {
    if (r.begin < at || r.end < r.begin || r.end > size) {
      return InvalidArgument("undecayed range " + std::to_string(r.begin) + ":" + std::to_string(r.end) +
                             " overlaps the one before it or leaves the " + std::to_string(size) + " parameters");
    }
    if (r.begin > at) optimizer.parts_.emplace_back(Range{at, r.begin}, true);
    optimizer.parts_.emplace_back(r, false);
    at = r.end;
  }
  if (at < size) optimizer.parts_.emplace_back(Range{at, size}, true);
  return optimizer;
}

void Optimizer::Step(std::span<float> parameters, std::span<const float> gradients, double rate_scale) {
  GANGLION_CHECK(parameters.size() == size_ && gradients.size() == size_);
  ++state_.steps;
  const double rate = options_.rate * rate_scale;
  for (const auto& part : parts_) {
    StepRange(parameters.data(), gradients.data(), part.first, rate, part.second ? options_.weight_decay : 0);
  }
}

void Optimizer::StepRange(float* parameters, const float* gradients, const Range& range, double rate,
                          double any_decay) {
  const bool decoupled = options_.decoupled || options_.kind == Kind::kAdamW;
  const std::size_t n = range.end - range.begin;
  float* const p = parameters + range.begin;
  const float* const g = gradients + range.begin;
  float* const first = state_.first.empty() ? nullptr : state_.first.data() + range.begin;
  float* const second = state_.second.empty() ? nullptr : state_.second.data() + range.begin;
  const auto decay = static_cast<float>(decoupled ? 0 : any_decay);
  const auto keep = static_cast<float>(decoupled ? 1 - rate * any_decay : 1);
  const auto r = static_cast<float>(rate);
  const auto t = static_cast<double>(state_.steps);
  const auto beta1 = static_cast<float>(options_.beta1);
  const auto beta2 = static_cast<float>(options_.beta2);
  const auto corrected = static_cast<float>(rate / (1 - std::pow(options_.beta1, t)));
  const auto correct2 = static_cast<float>(1 / (1 - std::pow(options_.beta2, t)));
  const auto epsilon = static_cast<float>(options_.epsilon);
  const bool adam = options_.kind == Kind::kAdam || options_.kind == Kind::kAdamW;
  if (adam && decoupled) {
    AdamWLoop(p, g, first, second, n, corrected, beta1, beta2, correct2, epsilon, keep);
    return;
  }
  if (keep != 1) ScaleLoop(p, n, keep);
  switch (options_.kind) {
    case Kind::kSgd:
      if (first != nullptr) {
        MomentumLoop(p, g, first, n, r, static_cast<float>(options_.momentum), decay);
      } else {
        SgdLoop(p, g, n, r, decay);
      }
      break;
    case Kind::kNesterov:
      NesterovLoop(p, g, first, n, r, static_cast<float>(options_.momentum), decay);
      break;
    case Kind::kAdam:
    case Kind::kAdamW:
      AdamLoop(p, g, first, second, n, corrected, beta1, beta2, correct2, epsilon, decay);
      break;
    case Kind::kAdagrad:
      AdagradLoop(p, g, second, n, r, epsilon, decay);
      break;
    case Kind::kYogi:
      YogiLoop(p, g, first, second, n, corrected, beta1, beta2, correct2, epsilon, decay);
      break;
  }
}

Status Optimizer::Restore(State state) {
  if (state.steps < 0 || state.first.size() != state_.first.size() || state.second.size() != state_.second.size()) {
    return InvalidArgument("the optimiser state is of another model or kind (" + std::to_string(state.first.size()) +
                           " numbers, want " + std::to_string(state_.first.size()) + ")");
  }
  state_ = std::move(state);
  return {};
}

}  // namespace ganglion::optimizer
