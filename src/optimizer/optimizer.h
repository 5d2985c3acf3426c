// An Optimizer turns gradients into new parameters: one pass over one flat vector.
//
// Intuition: the gradient graph gives directions; how far to go is a few multiplications a parameter, which a fused
// loop does at memory speed, while optimiser operators inside the graph cost several times the gradient itself.
//
// Definitions, g the gradient, theta the parameters, t the step counted from 1:
//   SGD    v = momentum v + g;  theta -= rate v                                  (momentum 0: no v is kept)
//   Adam   m = beta1 m + (1-beta1) g;  v = beta2 v + (1-beta2) g^2
//          theta -= rate (m / (1-beta1^t)) / (sqrt(v / (1-beta2^t)) + epsilon)
// weight_decay w adds w theta to g first (L2), for both.
//
// A state machine: its state is a value that can be saved and restored, and the same calls give the same bits on the
// same machine. Thread-compatible.
// Ranges: rate > 0, 0 <= momentum, beta1, beta2 < 1, epsilon > 0, weight_decay >= 0; anything else is refused.
// Cost: about 0.1 ns (SGD) to 0.4 ns (Adam) a parameter.
// Source: I. Sutskever et al., "On the importance of initialization and momentum", 2013, in PyTorch's form of momentum;
// D. Kingma and J. Ba, "Adam", 2015, algorithm 1.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::optimizer {

enum class Kind { kSgd, kAdam };
std::string_view Name(Kind kind);  // "sgd", "adam"
std::optional<Kind> KindFromName(std::string_view name);

struct Options {
  Kind kind = Kind::kSgd;
  double rate = .01;
  double momentum = 0;
  double beta1 = .9;
  double beta2 = .999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};

struct State {
  std::int64_t steps = 0;
  std::vector<float> first;   // SGD: v, Adam: m; empty while unused
  std::vector<float> second;  // Adam: v
};

class Optimizer {
 public:
  // `size`: parameters in the flat vector.
  static Result<Optimizer> Create(const Options& options, std::size_t size);

  // parameters += update(gradients). `rate_scale` multiplies the rate for this step: what a schedule says.
  // REQUIRES: both have the size given to Create.
  void Step(std::span<float> parameters, std::span<const float> gradients, double rate_scale = 1);

  const State& state() const { return state_; }
  // Refuses a state of another size or kind.
  Status Restore(State state);

 private:
  Optimizer(const Options& options, std::size_t size);
  Options options_;
  std::size_t size_;
  State state_;
};

// The rate's multiplier at `step` of `steps`: a linear warm-up over the first `warmup` share, then a cosine to zero.
// REQUIRES: 0 <= step < steps.
double CosineSchedule(std::int64_t step, std::int64_t steps, double warmup);

}  // namespace ganglion::optimizer
