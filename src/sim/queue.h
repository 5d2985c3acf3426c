// A Queue gathers the rows of many requests for one stage of a simulated node and computes them in shared runs.
//
// Which of them run and when is the production Batcher's to say; how long a run takes is drawn, and what was seen of it
// is the production Runner's to remember. Mirrors BatchQueue of src/node/runner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "batching/batching.h"
#include "node/runner.h"
#include "sim/executor.h"

namespace ganglion::sim {

class Node;

// What is known of a stage's times: the production estimate, without a model behind it.
class StageTimes final : public node::Runner {
 public:
  explicit StageTimes(bool together) : together_(together) {}
  Result<std::vector<tensor::Tensor>> Run(std::span<const tensor::View>) const override {
    return Unimplemented("a simulated stage has no model");
  }
  bool together() const override { return together_; }

 private:
  bool together_;
};

// One request's rows in a queue. Mirrors node::Waiting.
class Waiting {
 public:
  virtual ~Waiting() = default;
  virtual bool Collect() = 0;  // false: does not wait any more
  virtual void Compute() = 0;  // a run with its rows begins
  // The run has ended after so long; `then` when the worker is free again.
  virtual void Deliver(bool ok, Duration took, Then then) = 0;
  virtual void Expire() = 0;  // its deadline cannot be met any more
  std::int64_t rows = 1;
  TimePoint deadline{};
};

class Queue {
 public:
  Queue(Node* node, std::size_t decision, std::size_t stage, const StageTimes* times, batching::Batcher batcher)
      : node_(node), decision_(decision), stage_(stage), times_(times), batcher_(std::move(batcher)) {}

  bool Enqueue(std::shared_ptr<Waiting> waiting);
  std::size_t depth() const { return waiting_.size(); }
  // Whether somebody is about to look at what waits.
  bool attended() const { return workers_ > 0; }

 private:
  using Batch = std::vector<std::shared_ptr<Waiting>>;

  void Pump();
  void RunSome(const Then& then);
  // Computes what is left of the batch, from `first` on, in as many runs as it takes.
  void RunBatch(const std::shared_ptr<Batch>& batch, std::size_t first, const Then& then);
  void DeliverFrom(const std::shared_ptr<Batch>& members, std::size_t at, bool ok, Duration took, const Then& then);

  Node* node_;
  std::size_t decision_;
  std::size_t stage_;
  const StageTimes* times_;
  batching::Batcher batcher_;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, std::shared_ptr<Waiting>> waiting_;
  int workers_ = 0;
  TimePoint timer_at_ = TimePoint::max();  // the earliest timer that is set
};

}  // namespace ganglion::sim
