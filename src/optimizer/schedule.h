// A Schedule says how the learning rate changes over a run: a multiplier of the optimiser's rate for every step.
//
// Intuition: large steps find the valley, small ones its floor; a warm-up keeps the first steps small while an adaptive
// optimiser has seen too little to scale them.
//
// Definitions, s the step (from 0) of n, u = (s + 1/2) / n, w the warm-up's share, x = (u - w) / (1 - w), e the epochs
// passed (whole), f the final multiplier:
//   constant      1
//   linear        1 - (1 - f) x
//   cosine        f + (1 - f) (1 + cos(pi x)) / 2
//   step          factor^floor(e / every)
//   exponential   factor^e
//   onecycle      rises along a cosine from 1/25 to 1 over the first `peak` share, falls along one to 1/250,000
//   plateau       1, times what a Plateau says (below)
// During the warm-up (u < w) all but onecycle, which has its own, are u / w times what they would be at its end.
// RateAt is a pure function: a run that is resumed in the middle sees what it would have seen.
//
// A Plateau is the part that depends on the past: after `patience` observations without an improvement by more than
// the relative `threshold` it multiplies the rate by `factor`. A state machine; its state is a value.
//
// Ranges: 0 <= warmup < 1; 0 <= final <= 1; 0 < factor < 1; every > 0; 0 < peak < 1. ParseSchedule and Check refuse
// others.
// Source: I. Loshchilov and F. Hutter, "SGDR", 2017 (cosine, without restarts); L. Smith and N. Topin,
// "Super-convergence", 2019 (onecycle, in PyTorch's form, without the cycle of the momentum).
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/status.h"

namespace ganglion::optimizer {

struct Schedule {
  enum class Kind { kConstant, kLinear, kCosine, kStep, kExponential, kOneCycle, kPlateau };
  Kind kind = Kind::kCosine;
  double warmup = 0;           // share of the steps
  double final = 0;            // of linear and cosine
  double factor = .1;          // of step, exponential and plateau
  std::int64_t every = 10;     // epochs, of step
  double peak = .3;            // share of the steps, of onecycle
  std::int64_t patience = 10;  // of plateau, in observations
  double threshold = 1e-4;     // of plateau, relative
  bool operator==(const Schedule&) const = default;
};

Status Check(const Schedule& schedule);

// "constant", "linear[:FINAL]", "cosine[:FINAL]", "step:EPOCHS[:FACTOR]", "exponential:FACTOR", "onecycle[:PEAK]",
// "plateau[:PATIENCE[:FACTOR]]".
Result<Schedule> ParseSchedule(const std::string& text);
// The same, to the last digit, with the warm-up: names a schedule.
std::string Text(const Schedule& schedule);

// The multiplier at `step` of `steps`, `epoch_steps` of them an epoch.
// REQUIRES: 0 <= step < steps, epoch_steps >= 1, a schedule that Check takes.
double RateAt(const Schedule& schedule, std::int64_t step, std::int64_t steps, std::int64_t epoch_steps);

// A linear warm-up over the first `warmup` share, then a cosine to zero. REQUIRES: 0 <= step < steps.
double CosineSchedule(std::int64_t step, std::int64_t steps, double warmup);

class Plateau {
 public:
  struct State {
    double best = std::numeric_limits<double>::infinity();
    std::int64_t waited = 0;
    double scale = 1;
  };
  explicit Plateau(const Schedule& schedule) : schedule_(schedule) {}

  // A validation loss. NaN is no improvement.
  void Observe(double loss);
  double scale() const { return state_.scale; }
  const State& state() const { return state_; }
  void Restore(const State& state) { state_ = state; }

 private:
  Schedule schedule_;
  State state_;
};

}  // namespace ganglion::optimizer
