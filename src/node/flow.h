// A Flow takes one request for a decision up its stages, over threads and links, and ends it once, by its deadline.
//
// Intuition: the cascade (a state machine for each row) says what to do next; the flow does it. A stage that takes
// little time runs where the flow is; a longer one waits in the stage's queue for a worker, together with other
// requests; what no stage here accepts goes up to a parent. While it waits, a timer holds the deadline: whoever comes
// first, timer or answer, goes on with the flow, and the other finds that it is too late.
//
//   Advance: which rows are still open? none: Finish. Their stage is
//     local    run here | queue -> worker -> Advance        (breaker open, queue full: that is a failure of the stage)
//     above    ask a parent -> Advance
//
// All open rows of a request are at the same stage: they start together, and each moves up only after a run.
// A flow is owned by whoever runs Advance; the handover is under its lock. Inputs are copied before they are computed
// elsewhere, so the request's memory is free as soon as `done` runs.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cascade/cascade.h"
#include "node/executor.h"
#include "node/parents.h"
#include "node/served.h"

namespace ganglion::node {

struct RowAnswer {
  int label = -1;
  float confidence = 0;
  topology::Tier tier = topology::Tier::kDevice;
  std::string stage;
  bool degraded = false;
  bool from_above = false;
  std::string reason;       // of a degraded answer
  std::string decision_id;  // of the tier that answered, where it was one above
  std::size_t local_stage = 0;
};

struct FlowResult {
  Status status;  // not OK: no row has an answer
  std::vector<RowAnswer> rows;
  Duration compute{};  // in runs of stages, as this request saw them
  Duration queued{};
  std::size_t asked_above = 0;   // rows
  bool forbidden = false;        // rows were kept from going up by privacy
  Status failure;                // of a stage here, also where a later one answered
  bool another_version = false;  // a parent answered by another version of the decision
  std::string parent;            // which
};

struct FlowPlan {
  std::shared_ptr<const Served> served;
  std::vector<tensor::View> inputs;  // in the order of the decision's; alive until `done` runs
  TimePoint begin{};
  TimePoint deadline{};
  std::size_t first_stage = 0;  // of the decision; those below were asked elsewhere
  // Only the stage that it starts with, and nothing above: under overload. Its answer is degraded.
  bool cheapest_only = false;
  bool may_run_here = false;
  std::string unit;
  std::string traceparent;
  int hop = 0;
  bool audit = false;
  // Before the flow asks above, once: it needs no place among those that compute here any more. False: too many wait
  // for somebody above already. Nothing: yes.
  std::function<bool()> leave_for_above;
  Parents* parents = nullptr;
  Executor* executor = nullptr;
};

// What runs for less than this runs where the request is; handing it over would cost as much.
inline constexpr Duration kShortRun = std::chrono::microseconds(150);

class Flow : public std::enable_shared_from_this<Flow> {
 public:
  using Done = std::function<void(FlowResult)>;
  // `done` runs once: before this returns, or later on another thread.
  static void Start(FlowPlan plan, Done done);

 private:
  struct Private {};
  class StageWait;

 public:
  Flow(Private, FlowPlan plan, Done done);

 private:
  struct Row {
    cascade::Cascade cascade;
    cascade::Step step;
    RowAnswer best;  // of the highest stage that answered
  };

  void Advance();
  void RunLocal(std::size_t stage, const std::vector<std::size_t>& open);
  void AskAbove(const std::vector<std::size_t>& open);
  void ReportRun(std::size_t stage, bool ok);
  void Judge(std::size_t stage, const std::vector<std::size_t>& open,
             const Result<std::vector<tensor::Tensor>>& outputs);
  void TakeReply(const std::vector<std::size_t>& open, const Reply& reply);
  Status ReadReply(const std::vector<std::size_t>& open, const Reply& reply);
  void FailAll(const std::vector<std::size_t>& open, cascade::Reason reason);
  void Finish();
  std::vector<std::size_t> Open() const;
  // The inputs' rows that are open, borrowed or copied into `tensors`.
  std::vector<tensor::View> Select(const std::vector<std::size_t>& open, std::vector<tensor::Tensor>* tensors) const;
  bool IsAbove(std::size_t stage) const { return stage >= local_; }

  std::uint64_t BeginWait(bool for_worker);
  bool Claim(std::uint64_t token);  // true: the flow is the caller's

  FlowPlan plan_;
  Done done_;
  std::size_t local_ = 0;   // stages of the decision that are here
  cascade::Policy policy_;  // those, and one for all above
  std::vector<Row> rows_;
  FlowResult result_;
  Status failure_;

  std::mutex mutex_;
  std::uint64_t waits_ = 0;
  std::uint64_t waiting_ = 0;  // the wait under way; 0: none
  bool for_worker_ = false;
  TimePoint wait_began_{};
  std::optional<breaker::Permit> permit_;  // of the stage that runs or is about to
  Executor::Timer timer_;
};

}  // namespace ganglion::node
