#include "optimizer/optimizer.h"

#include <cmath>
#include <numbers>
#include <string>

#include "base/check.h"

// One binary serves machines with and without AVX-512: the loops are compiled for each and the fastest that runs is
// chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(GANGLION_SANITIZED)
#define GANGLION_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GANGLION_CLONES
#endif

namespace ganglion::optimizer {
namespace {

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

}  // namespace

std::string_view Name(Kind kind) { return kind == Kind::kSgd ? "sgd" : "adam"; }

std::optional<Kind> KindFromName(std::string_view name) {
  if (name == "sgd") return Kind::kSgd;
  if (name == "adam") return Kind::kAdam;
  return std::nullopt;
}

Optimizer::Optimizer(const Options& options, std::size_t size) : options_(options), size_(size) {
  if (options.kind == Kind::kAdam || options.momentum > 0) state_.first.resize(size);
  if (options.kind == Kind::kAdam) state_.second.resize(size);
}

Result<Optimizer> Optimizer::Create(const Options& o, std::size_t size) {
  const auto refuse = [](const char* what, const char* range, double value) {
    return InvalidArgument(std::string(what) + " must be " + range + ", got " + std::to_string(value));
  };
  if (!(o.rate > 0) || !std::isfinite(o.rate)) return refuse("rate", "> 0 and finite", o.rate);
  if (!(o.momentum >= 0 && o.momentum < 1)) return refuse("momentum", "in [0, 1)", o.momentum);
  if (!(o.beta1 >= 0 && o.beta1 < 1)) return refuse("beta1", "in [0, 1)", o.beta1);
  if (!(o.beta2 >= 0 && o.beta2 < 1)) return refuse("beta2", "in [0, 1)", o.beta2);
  if (!(o.epsilon > 0)) return refuse("epsilon", "> 0", o.epsilon);
  if (!(o.weight_decay >= 0) || !std::isfinite(o.weight_decay)) return refuse("weight_decay", ">= 0", o.weight_decay);
  return Optimizer(o, size);
}

void Optimizer::Step(std::span<float> parameters, std::span<const float> gradients, double rate_scale) {
  GANGLION_CHECK(parameters.size() == size_ && gradients.size() == size_);
  ++state_.steps;
  const auto rate = options_.rate * rate_scale;
  const auto decay = static_cast<float>(options_.weight_decay);
  if (options_.kind == Kind::kAdam) {
    const auto t = static_cast<double>(state_.steps);
    const double correct1 = 1 - std::pow(options_.beta1, t);
    const double correct2 = 1 - std::pow(options_.beta2, t);
    AdamLoop(parameters.data(), gradients.data(), state_.first.data(), state_.second.data(), size_,
             static_cast<float>(rate / correct1), static_cast<float>(options_.beta1),
             static_cast<float>(options_.beta2), static_cast<float>(1 / correct2), static_cast<float>(options_.epsilon),
             decay);
  } else if (options_.momentum > 0) {
    MomentumLoop(parameters.data(), gradients.data(), state_.first.data(), size_, static_cast<float>(rate),
                 static_cast<float>(options_.momentum), decay);
  } else {
    SgdLoop(parameters.data(), gradients.data(), size_, static_cast<float>(rate), decay);
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

double CosineSchedule(std::int64_t step, std::int64_t steps, double warmup) {
  GANGLION_CHECK(step >= 0 && step < steps);
  const double at = (static_cast<double>(step) + .5) / static_cast<double>(steps);
  if (at < warmup) return at / warmup;
  return .5 * (1 + std::cos(std::numbers::pi * (at - warmup) / (1 - warmup)));
}

}  // namespace ganglion::optimizer
