// Training one set of parameters at several widths: the sandwich rule.
//
// Intuition: if every step asks the narrowest and the widest net, and some of those between, to answer the same rows,
// the shared parameters settle where all of them are good. The narrow ones learn what matters first into the first
// channels.
//
// Definition. A step fills one batch; for the widest, the narrowest and up to `between` others, drawn anew, it runs the
// training step of that width's net on the corner of the parameters and adds its gradients at the corner
// (shrink::Nested). The optimiser moves the wide vector by the mean over the nets of that step. Targets are the same
// for all widths: labels or a teacher's answers (where the source has the widest net teach the others, a teacher that
// is better than it does here).
// BatchNormalization: each width keeps statistics of its own; they are measured anew on `statistics_rows` rows at the
// end.
//
// Checkpoints, stop and resume as training::Train: after each epoch, and to the bit. A loss that is not finite stops
// the run.
// Source: see shrink/slim.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "model/model.h"
#include "optimizer/optimizer.h"
#include "runtime/runtime.h"
#include "training/examples.h"

namespace ganglion::shrinking {

struct SlimOptions {
  std::vector<double> widths{.25, .5, 1};  // rising, the last 1
  std::int64_t multiple = 1;               // channels in multiples of this
  int between = 2;                         // random widths a step, beside the widest and the narrowest
  optimizer::Options optimizer{.kind = optimizer::Kind::kAdam, .rate = 1e-3};
  double warmup = .03;  // then along a cosine to zero
  std::int64_t batch = 128;
  std::int64_t epochs = 10;
  std::uint64_t seed = 1;
  std::int64_t statistics_rows = 4000;
  std::filesystem::path checkpoint;  // empty: none is written
  bool resume = false;
};

struct SlimProgress {
  double done = 0;
  std::int64_t epoch = 0;  // 1 .. epochs
  double loss = 0;         // of the widest net, mean over the epoch so far
};

// The nets from narrow to wide. `rows`: what statistics of normalisations are measured on.
Result<std::vector<model::Model>> TrainSlim(const std::shared_ptr<runtime::Engine>& engine, const model::Model& wide,
                                            const training::Examples& examples, const data::Dataset& rows,
                                            const SlimOptions& options, const std::stop_token& stop,
                                            const std::function<void(const SlimProgress&)>& on_progress);

}  // namespace ganglion::shrinking
