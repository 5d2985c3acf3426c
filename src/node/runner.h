// A Runner computes rows: a stage of a decision, or a plain model. A BatchQueue gives it rows of many requests at once.
//
// Intuition: while workers are busy, requests for the same runner gather; the next free worker takes as many as fit in
// one run (batching::Batcher says which). A lone request on an idle node runs at once.
// Who waits in the queue may stop waiting at any time (its deadline passes); so a worker asks each one, under the
// waiter's own lock, to copy its rows in, and only those that do are part of the run. After that the request's memory
// is not touched any more.
// Runners are thread-safe; the queue is a service.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/guarded.h"
#include "base/status.h"
#include "batching/batching.h"
#include "breaker/breaker.h"
#include "node/executor.h"
#include "node/least_time.h"
#include "runtime/runtime.h"
#include "tensor/tensor.h"

namespace ganglion::node {

class Stage;

class Runner {
 public:
  virtual ~Runner() = default;
  // Any number of rows, each input with them as its first dimension. Outputs in a fixed order, rows first when
  // together() is true.
  virtual Result<std::vector<tensor::Tensor>> Run(std::span<const tensor::View> inputs) const = 0;
  // Whether rows of different requests may be computed in one run.
  virtual bool together() const = 0;

  // How long a run takes, by what was seen: a least time, below which an answer cannot come, and a usual one.
  Duration fastest(TimePoint now) const { return fastest_.at(now); }
  Duration usual() const { return Duration(usual_ns_.load(std::memory_order_relaxed)); }
  void Observe(Duration took, std::int64_t rows, TimePoint now) const;

  // Counted for statistics and metrics.
  struct Counts {
    std::atomic<std::uint64_t> runs{0};
    std::atomic<std::uint64_t> rows{0};
    std::atomic<std::uint64_t> run_ns{0};
    std::atomic<std::uint64_t> queue_ns{0};
    std::atomic<std::uint64_t> queued{0};
  };
  Counts& counts() const { return counts_; }
  void ForgetCounts() const {
    for (auto* c : {&counts_.runs, &counts_.rows, &counts_.run_ns, &counts_.queue_ns, &counts_.queued}) *c = 0;
  }

 private:
  mutable LeastTime fastest_{1024};
  mutable std::atomic<std::int64_t> usual_ns_{0};
  mutable Counts counts_;
};

// Outputs: z [rows, classes], and the stage's own confidence [rows] where it has one.
class StageRunner final : public Runner {
 public:
  explicit StageRunner(const Stage& stage);
  ~StageRunner() override;
  Result<std::vector<tensor::Tensor>> Run(std::span<const tensor::View> inputs) const override;
  bool together() const override;

 private:
  struct Lanes;  // memory for single rows, used again
  const Stage& stage_;
  std::unique_ptr<Lanes> lanes_;
};

// Outputs: the model's, in its order.
class ModelRunner final : public Runner {
 public:
  // Tries two rows together and alone where every input and output has a batch dimension (-1 first).
  explicit ModelRunner(std::unique_ptr<runtime::Session> session);
  Result<std::vector<tensor::Tensor>> Run(std::span<const tensor::View> inputs) const override {
    return session_->Run(inputs);
  }
  bool together() const override { return together_; }
  const model::Signature& signature() const { return session_->signature(); }

 private:
  bool TryTogether() const;
  std::unique_ptr<runtime::Session> session_;
  bool together_ = false;
};

// One request's rows in a queue.
class Waiting {
 public:
  virtual ~Waiting() = default;
  // Appends copies of its rows to `into` (one buffer an input) and says their shapes; false: does not wait any more.
  // Called once, on a worker.
  virtual bool Collect(std::vector<std::vector<std::byte>>* into) = 0;
  // The outputs for its rows, after Collect was true. `queued`: how long it waited before the run.
  virtual void Deliver(Result<std::vector<tensor::Tensor>> outputs, Duration queued) = 0;
  // Its deadline cannot be met any more; Collect will not be called.
  virtual void Expire() = 0;

  // Set once by whoever enqueues.
  std::vector<tensor::DataType> types;
  std::vector<tensor::Shape> shapes;
  TimePoint deadline{};
  TimePoint enqueued{};
  std::int64_t rows() const { return shapes.empty() || shapes[0].empty() ? 1 : shapes[0][0]; }
};

class BatchQueue {
 public:
  BatchQueue(const Runner* runner, Executor* executor, batching::Batcher batcher,
             std::function<void(std::int64_t)> on_batch);

  // False: the queue is full. `owner` is what holds this queue and its runner; whoever works for the queue holds it,
  // too, since the last request of a model that was reloaded may end, and let go of it, in the middle of that work.
  bool Enqueue(std::shared_ptr<Waiting> waiting, const std::shared_ptr<const void>& owner);
  std::size_t depth() const;

 private:
  struct State {
    explicit State(batching::Batcher b) : batcher(std::move(b)) {}
    batching::Batcher batcher;
    std::uint64_t next_id = 1;
    std::unordered_map<std::uint64_t, std::shared_ptr<Waiting>> waiting;
    int workers = 0;                     // under way with this queue
    TimePoint timer = TimePoint::max();  // when the earliest one that is set goes off
  };
  void Pump(const std::shared_ptr<const void>& owner);
  void RunSome(const std::shared_ptr<const void>& owner);
  void RunBatch(const std::vector<std::shared_ptr<Waiting>>& batch);

  const Runner* runner_;
  Executor* executor_;
  std::function<void(std::int64_t)> on_batch_;
  mutable Guarded<State> state_;
};

}  // namespace ganglion::node
