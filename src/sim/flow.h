// A Flow takes one request of a simulated node up its stages and ends it once, by its deadline.
//
// The production Cascade says what to do next for each row; the flow does it, on the world's clock. Mirrors
// src/node/flow: the same order of calls and the same rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "breaker/breaker.h"
#include "cascade/cascade.h"
#include "sim/executor.h"
#include "sim/message.h"
#include "sim/parents.h"
#include "sim/plan.h"

namespace ganglion::sim {

class Node;

struct FlowResult {
  Code code = Code::kOk;  // not kOk: no row has an answer
  std::vector<RowAnswer> rows;
  std::size_t asked_above = 0;
  bool forbidden = false;
  Duration queued{};  // for workers
};

struct FlowPlan {
  Question question;
  TimePoint deadline{};
  std::size_t first_stage = 0;
  bool cheapest_only = false;
  bool may_run_here = false;
  bool audit = false;
  // Before it asks above, once: it needs no place among those that compute here any more. False: too many are away.
  std::function<bool()> leave_for_above;
};

class Flow : public std::enable_shared_from_this<Flow> {
 public:
  using Done = std::function<void(FlowResult)>;
  // `then` runs when the thread that this was called on is free again.
  static void Start(Node* node, FlowPlan plan, Done done, const Then& then);

  Flow(Node* node, FlowPlan plan, Done done);

 private:
  class StageWait;

  struct Row {
    cascade::Cascade cascade;
    cascade::Step step;
    RowAnswer best;
  };

  void Advance(const Then& then);
  void RunLocal(std::size_t stage, const std::vector<std::size_t>& open, const Then& then);
  void AskAbove(const std::vector<std::size_t>& open);
  void ReportRun(std::size_t stage, bool ok);
  void Judge(std::size_t stage, const std::vector<std::size_t>& open, bool ok);
  void TakeReply(const std::vector<std::size_t>& open, const ParentsReply& reply);
  void FailAll(const std::vector<std::size_t>& open, cascade::Reason reason);
  void Finish();
  std::vector<std::size_t> Open() const;
  bool IsAbove(std::size_t stage) const { return stage >= local_; }
  std::vector<int> Numbers(const std::vector<std::size_t>& open) const;  // of these rows, in the client's request

  std::uint64_t BeginWait(bool for_worker);
  bool Claim(std::uint64_t token);

  Node* node_;
  FlowPlan plan_;
  const DecisionSpec* decision_;
  Done done_;
  std::size_t local_ = 0;
  cascade::Policy policy_;
  std::vector<Row> rows_;
  FlowResult result_;
  Code failure_ = Code::kOk;
  std::uint64_t waits_ = 0;
  std::uint64_t waiting_ = 0;
  World::Timer timer_;
  bool for_worker_ = false;
  TimePoint wait_began_{};
  std::uint64_t spell_ = 0;                // of the stage, see Invariants
  std::optional<breaker::Permit> permit_;  // of the stage that runs or is about to
};

}  // namespace ganglion::sim
