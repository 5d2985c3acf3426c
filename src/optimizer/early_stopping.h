// EarlyStopping says when a run no longer gets better, and which of its steps was the best.
//
// Intuition: the validation loss falls, then rises again as the model learns its examples by heart. Noise makes single
// values rise, too, so `patience` observations without an improvement are awaited before the run ends; it then goes
// back to the parameters of the best one.
//
// Definition: an observation improves when value < best - min_delta. After more than `patience` observations in a row
// that do not, stop. (For a measure where more is better, observe its negative.)
// A state machine; its state is a value. NaN does not improve. Ranges: patience >= 0, min_delta >= 0.
// Source: L. Prechelt, "Early stopping - but when?", 1998, criterion UP in its simplest form.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/status.h"

namespace ganglion::optimizer {

class EarlyStopping {
 public:
  struct Options {
    std::int64_t patience = 5;
    double min_delta = 0;
  };
  struct State {
    double best = std::numeric_limits<double>::infinity();
    std::int64_t best_step = -1;  // -1: nothing improved yet
    std::int64_t waited = 0;
  };
  enum class Verdict { kImproved, kWait, kStop };

  static Result<EarlyStopping> Create(const Options& options) {
    if (options.patience < 0) return InvalidArgument("patience must be >= 0, got " + std::to_string(options.patience));
    if (!(options.min_delta >= 0))
      return InvalidArgument("min_delta must be >= 0, got " + std::to_string(options.min_delta));
    return EarlyStopping(options);
  }

  Verdict Observe(std::int64_t step, double value) {
    // Infinity less anything is infinity: the first finite value improves.
    if (value < state_.best - options_.min_delta) {
      state_ = {value, step, 0};
      return Verdict::kImproved;
    }
    return ++state_.waited > options_.patience ? Verdict::kStop : Verdict::kWait;
  }

  const State& state() const { return state_; }
  void Restore(const State& state) { state_ = state; }

 private:
  explicit EarlyStopping(const Options& options) : options_(options) {}
  Options options_;
  State state_;
};

}  // namespace ganglion::optimizer
