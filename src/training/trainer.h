// The training loop: gradient graph on the runtime, optimiser in C++, schedule, checkpoints, stop and resume.
//
// Any model that gradient::Differentiate takes: any number of inputs, any loss, statistics, dropout. Examples come from
// a Source (source.h), of any size.
//
// A run is determined by its model, examples, options and seed: the same four give the same bytes on the same machine,
// whether it was interrupted and resumed or not, and however many runs go on beside it (each computes on one thread).
// The state goes to a checkpoint file after every epoch, and in between every so many steps or seconds if wished,
// written so that a full disk or a kill leaves the last good one.
// A loss or a gradient that is not finite stops the run before the parameters move, and says which number it was: the
// checkpoint before it stays. So does one whose parameters have become infinite.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "gradient/gradient.h"
#include "model/model.h"
#include "optimizer/early_stopping.h"
#include "optimizer/optimizer.h"
#include "optimizer/schedule.h"
#include "runtime/runtime.h"
#include "training/examples.h"
#include "training/measure.h"
#include "training/source.h"
#include "training/step.h"

namespace ganglion::training {

class Exchange;

struct TrainOptions {
  optimizer::Options optimizer{.kind = optimizer::Kind::kAdam, .rate = 1e-3};
  optimizer::Schedule schedule{.warmup = .03};
  std::int64_t batch = 128;
  std::int64_t epochs = 10;
  std::uint64_t seed = 1;
  std::filesystem::path checkpoint;  // empty: none is written
  bool resume = false;               // continue from the checkpoint when there is one

  // The loss and its numbers, frozen parameters (names, or patterns with *), frozen statistics.
  gradient::Options gradient{.loss = gradient::Loss::kSoftmaxCrossEntropyDense};
  std::optional<double> clip_norm;   // of the whole batch's gradient
  std::optional<double> clip_value;  // of every number of it
  bool decay_all = false;            // weight decay on biases and norm parameters, too
  // Validation after every epoch (0), or every so many steps; the curve gets a point each time.
  std::int64_t validate_every = 0;
  // On the validation loss; the run then ends with the best parameters. Needs validation rows.
  std::optional<optimizer::EarlyStopping::Options> early_stopping;
  std::int64_t checkpoint_steps = 0;  // a checkpoint every so many steps within an epoch; 0: none
  double checkpoint_seconds = 0;      // and one every so many seconds; 0: none

  // Other processes that train with this one (exchange.h). Each takes its slice of every batch.
  Exchange* exchange = nullptr;
  // Called after every step with the parameters, which it may change: a projection (a mask that keeps pruned weights at
  // zero), say. `step` counts from 0. It must be a function of its arguments, or resumed runs differ.
  std::function<void(std::span<float> parameters, std::int64_t step)> after_step;
};

struct Progress {
  std::int64_t epoch = 0;  // 1 .. epochs
  std::int64_t epochs = 0;
  double done = 0;         // share of the whole run, 0 .. 1
  double loss = 0;         // mean over the epoch so far
  double accuracy = -1;    // on the validation rows, last measured; -1 before, and where the loss has no accuracy
  double valid_loss = -1;  // the same of the loss
};

// A point of the learning curve: what validation found, or the end of an epoch.
struct CurvePoint {
  std::int64_t step = 0;  // made so far
  double epoch = 0;       // the same in epochs
  double loss = 0;        // mean over the steps of the epoch so far
  double accuracy = -1;
  double valid_loss = -1;
};

// A point of the finer curve of the steps themselves: means over about a two-hundredth of the run.
struct TracePoint {
  std::int64_t step = 0;
  float loss = 0;
  float gradient_norm = 0;  // before clipping
  float rate = 0;
};

struct Trained {
  model::Model model;
  std::vector<CurvePoint> history;
  std::vector<TracePoint> trace;
  std::int64_t steps = 0;
  std::int64_t best_step = -1;  // of early stopping: whose parameters these are; -1: the last
};

// Measures a snapshot; empty: no validation.
using Validation = std::function<Result<Measured>(const model::Model&)>;

// Trains `model`. `on_progress` is called about twenty times an epoch. When `stop` is requested, returns CANCELLED; the
// checkpoint holds the last step it could (with checkpoint_steps or checkpoint_seconds: this one; else the last whole
// epoch).
Result<Trained> Train(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model, Source& source,
                      const Validation& validation, const TrainOptions& options, const std::stop_token& stop,
                      const std::function<void(const Progress&)>& on_progress);

// The same on examples in memory, one FP32 input and a distribution over classes each. `valid` may be null.
Result<Trained> Train(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                      const Examples& examples, const data::Dataset* valid, const TrainOptions& options,
                      const std::stop_token& stop, const std::function<void(const Progress&)>& on_progress);

}  // namespace ganglion::training
