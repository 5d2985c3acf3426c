// An Optimizer turns gradients into new parameters: one pass over one flat vector.
//
//   optimizer.h       this: SGD, Nesterov, Adam, AdamW, Adagrad, Yogi
//   schedule.h        how the rate changes over a run
//   clip.h            gradients that are too large
//   early_stopping.h  when to stop
//
// Intuition: the gradient graph gives directions; how far to go is a few multiplications a parameter, which a fused
// loop does at memory speed, while optimiser operators inside the graph cost several times the gradient itself.
//
// Definitions, g the gradient, theta the parameters, t the step counted from 1:
//   SGD       v = momentum v + g;  theta -= rate v                                  (momentum 0: no v is kept)
//   Nesterov  v = momentum v + g;  theta -= rate (g + momentum v)
//   Adam      m = beta1 m + (1-beta1) g;  v = beta2 v + (1-beta2) g^2
//             theta -= rate (m / (1-beta1^t)) / (sqrt(v / (1-beta2^t)) + epsilon)
//   AdamW     Adam with decoupled weight decay
//   Adagrad   v = v + g^2;  theta -= rate g / (sqrt(v) + epsilon)
//   Yogi      Adam with v = v - (1-beta2) sign(v - g^2) g^2: v grows and shrinks by what g^2 is, not by how far it is
//             off, so rare large gradients are not forgotten at once
// initial_second is v before the first step. weight_decay w is coupled (g + w theta takes the place of g: L2) or
// decoupled (theta *= 1 - rate w first; always so for AdamW). Ranges named in `undecayed` (biases and norm parameters,
// which decay only hurts) are left out of it.
//
// A state machine: its state is a value that can be saved and restored, and the same calls give the same bits on the
// same machine. Thread-compatible.
// Ranges: rate > 0, 0 <= momentum, beta1, beta2 < 1, epsilon > 0, weight_decay >= 0, initial_second >= 0, for Nesterov
// momentum > 0; anything else is refused.
// Cost: about 0.1 ns (SGD) to 0.4 ns (Adam) a parameter.
// Source: I. Sutskever et al., "On the importance of initialization and momentum", 2013, in PyTorch's form of momentum;
// D. Kingma and J. Ba, "Adam", 2015, algorithm 1; I. Loshchilov and F. Hutter, "Decoupled weight decay regularization",
// 2019; J. Duchi et al., "Adaptive subgradient methods", 2011; M. Zaheer et al., "Adaptive methods for nonconvex
// optimization", 2018, algorithm 2, with Adam's correction of the start.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::optimizer {

enum class Kind { kSgd, kNesterov, kAdam, kAdamW, kAdagrad, kYogi };
std::string_view Name(Kind kind);  // "sgd", "nesterov", "adam", "adamw", "adagrad", "yogi"
std::optional<Kind> KindFromName(std::string_view name);
std::string KindNames();  // "sgd, nesterov, ..."

struct Options {
  Kind kind = Kind::kSgd;
  double rate = .01;
  double momentum = 0;
  double beta1 = .9;
  double beta2 = .999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;
  double initial_second = 0;
};
// What the sources recommend: rate, momentum, epsilon, initial_second and, for AdamW, a decay of .01.
Options Recommended(Kind kind);

// Parameters [begin, end) of the flat vector.
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
};

struct State {
  std::int64_t steps = 0;
  std::vector<float> first;   // SGD, Nesterov: v; Adam, AdamW, Yogi: m; empty while unused
  std::vector<float> second;  // Adam, AdamW, Adagrad, Yogi: v
};

class Optimizer {
 public:
  // `size`: parameters in the flat vector. `undecayed`: ascending, not overlapping, within it.
  static Result<Optimizer> Create(const Options& options, std::size_t size, std::vector<Range> undecayed = {});

  // parameters += update(gradients). `rate_scale` multiplies the rate for this step: what a schedule says.
  // REQUIRES: both have the size given to Create.
  void Step(std::span<float> parameters, std::span<const float> gradients, double rate_scale = 1);

  const State& state() const { return state_; }
  // Refuses a state of another size or kind.
  Status Restore(State state);

 private:
  Optimizer(const Options& options, std::size_t size);
  void StepRange(float* parameters, const float* gradients, const Range& range, double rate, double decay);
  Options options_;
  std::size_t size_;
  std::vector<std::pair<Range, bool>> parts_;  // the whole vector in parts, and whether each decays
  State state_;
};

}  // namespace ganglion::optimizer
