// The training loop: gradient graph on the runtime, optimiser in C++, schedule, checkpoints, stop and resume.
//
// A run is determined by its model, examples, options and seed: the same four give the same bytes on the same machine,
// whether it was interrupted and resumed or not, and however many runs go on beside it (each computes on one thread).
// After every epoch the state goes to a checkpoint file, written so that a full disk or a kill leaves the last good
// one. A loss that is not finite stops the run and says so; the checkpoint before it stays.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "gradient/gradient.h"
#include "model/model.h"
#include "optimizer/optimizer.h"
#include "runtime/runtime.h"
#include "training/examples.h"

namespace ganglion::training {

struct TrainOptions {
  optimizer::Options optimizer{.kind = optimizer::Kind::kAdam, .rate = 1e-3};
  double warmup = .03;  // share of the steps over which the rate rises; it then falls to zero along a cosine
  std::int64_t batch = 128;
  std::int64_t epochs = 10;
  std::uint64_t seed = 1;
  std::filesystem::path checkpoint;  // empty: none is written
  bool resume = false;               // continue from the checkpoint when there is one
};

struct Progress {
  std::int64_t epoch = 0;  // 1 .. epochs
  std::int64_t epochs = 0;
  double done = 0;       // share of the whole run, 0 .. 1
  double loss = 0;       // mean over the epoch so far
  double accuracy = -1;  // on the validation rows after the last whole epoch; -1 before the first
};

struct EpochRecord {
  double loss = 0;
  double accuracy = -1;
};

struct Trained {
  model::Model model;
  std::vector<EpochRecord> history;
};

// Trains `model` (one FP32 input [-1, features], first output [-1, classes]). `valid` may be null. `on_progress` is
// called about a hundred times an epoch at most. When `stop` is requested, returns CANCELLED; the checkpoint holds the
// last whole epoch.
Result<Trained> Train(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                      const Examples& examples, const data::Dataset* valid, const TrainOptions& options,
                      const std::stop_token& stop, const std::function<void(const Progress&)>& on_progress);

// The share of rows whose largest output is their label.
Result<double> Accuracy(const runtime::Session& session, const data::Dataset& dataset);

// One session that computes loss and gradients for a fixed batch, and the memory around it: the inner loop, by itself.
// Also what the benchmark of a training step runs. Thread-compatible.
class Step {
 public:
  static Result<std::unique_ptr<Step>> Create(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                                              gradient::Loss loss, std::int64_t batch);
  std::span<float> x() { return x_.As<float>(); }             // [batch, features]
  tensor::MutableView target() { return target_.Mutable(); }  // as the loss wants it
  std::span<float> weight() { return weight_.As<float>(); }   // [batch], 1/batch to begin with
  std::span<float> parameters() { return parameters_.As<float>(); }
  std::span<const float> gradients() const { return gradients_.As<float>(); }
  float loss() const { return loss_.As<float>()[0]; }
  const std::vector<gradient::Segment>& segments() const { return segments_; }

  // loss() and gradients() of the current x, target, weight and parameters.
  Status Run() { return binding_->Run(); }

  // The model with the current parameters.
  Result<model::Model> Snapshot(const std::string& name) const;

 private:
  Step() = default;
  std::string model_bytes_;
  std::unique_ptr<runtime::Session> session_;
  std::vector<gradient::Segment> segments_;
  tensor::Tensor x_, target_, weight_, parameters_, gradients_, loss_;
  std::unique_ptr<runtime::Binding> binding_;
};

}  // namespace ganglion::training
