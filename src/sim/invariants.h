// Invariants watch a simulation from outside and say at once when something happens that must never happen.
//
// Nodes tell what they do (an input arrived, a run starts, a parent is called); the invariants keep books of their own,
// from which alone they judge. The first violation stops the run, with the seed, a sentence and the last notes.
//   ends       every request ends exactly once, by its deadline; only a run that was under way where the request was
//              may take it past. Only the death of the node that took it in may leave it unanswered.
//   work       no run starts after the deadline of a row in it; no stage computes a row twice, on whatever node, but
//              for a counted retry, hedge or repeated message; none expires in a queue beside an idle worker
//   privacy    no node above a decision's highest tier ever gets an input of it
//   honesty    an answer is what its stage says of this row; below the threshold it is degraded, and then says why
//   retries    at most ratio * questions + burst
//   breaker    a dead parent whose failures must have tripped the breaker is called at most once for each probe due: in
//              any minute, probes * (a minute / open_for + 1), which is 3 with what node.yaml has by default. The same
//              for a stage here whose runs fail or are slower than its breaker allows
//   bounds     queues and requests inside stay within their limits; at rest nothing is left of anything
//   recovery   when all faults are over and the breakers' time has passed, requests are decided by exactly the stage
//              that the thresholds say: no parent is left out, no stage is thought too slow, nothing is refused
// Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "sim/message.h"
#include "sim/plan.h"
#include "sim/world.h"

namespace ganglion::sim {

// What was seen, to know that the simulation gets about.
struct Counts {
  std::uint64_t requests = 0, accepted_rows = 0, degraded_rows = 0, failed = 0, lost = 0;
  std::uint64_t runs = 0, shared_runs = 0, calls = 0, retries = 0, audits = 0, expired = 0, timeouts = 0, trips = 0;
  std::uint64_t refused = 0, cheaper = 0, queue_full = 0, calls_to_dead = 0, checked = 0, past_deadline = 0;
  std::array<std::uint64_t, 7> by_reason{};  // degraded rows
  void Add(const Counts& other);
};

// Of an index of Counts::by_reason: those of cascade::Reason, then "above".
std::string_view ReasonName(std::size_t index);

class Invariants {
 public:
  Invariants(World* world, const Plan* plan);

  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  Counts& counts() { return counts_; }

  // Requests. A request is named by a number above 0.
  std::uint64_t Begin(NodeId node, std::size_t decision, std::size_t rows, TimePoint deadline, bool audit);
  void End(std::uint64_t request, const Reply& reply);
  void Lost(std::uint64_t request);  // its node died
  bool open(std::uint64_t request) const { return !requests_[request].ended; }

  // Nodes.
  void Seen(NodeId node, std::size_t decision);  // an input arrived
  // A run of these rows of a request. `inline_until`: when it ends, if the request itself waits for it.
  void Run(NodeId node, const Question& question, std::size_t stage, const std::vector<int>& rows, TimePoint deadline,
           TimePoint inline_until);
  void ExpiredInQueue(NodeId node, std::uint64_t request, bool idle_worker);
  void Bound(NodeId node, const char* what, std::size_t value, std::size_t limit);
  void Rest(NodeId node, const char* what, std::size_t left) { Bound(node, what, left, 0); }
  void Restarted(NodeId node);

  // Questions to parents.
  void Asked(NodeId node) { ++budgets_[static_cast<std::size_t>(node)].asked; }
  void RetrySpent(NodeId node);
  void Repeated(std::uint64_t request) { ++requests_[request].repeats; }
  // Returns which spell of the link's life this is; it is given back to CallEnded.
  std::uint64_t Called(NodeId from, NodeId to);
  enum class Outcome { kOk, kFailed, kUnknown };
  void CallEnded(NodeId from, NodeId to, std::uint64_t spell, Outcome outcome);
  void SetDead(NodeId from, NodeId to, bool dead);

  // Stages of a node. Returns which spell of the stage's life this is; it is given back to StageRan.
  std::uint64_t StageTaken(NodeId node, std::size_t decision, std::size_t stage);
  // Once for each request in a run: it failed or was slower than the breaker allows.
  void StageRan(NodeId node, std::size_t decision, std::size_t stage, std::uint64_t spell, bool bad);

  // All must have ended.
  void AtEnd();

 private:
  static constexpr std::size_t kMaxStages = 8;

  struct Request {
    NodeId node = kOutside;
    std::size_t decision = 0;
    std::size_t rows = 0;
    TimePoint begin{};
    TimePoint deadline{};
    TimePoint inline_until = TimePoint::min();
    bool audit = false;
    bool ended = false;
    int repeats = 0;
    std::vector<std::uint16_t> runs;  // by stage and row
  };
  // What a breaker watches.
  struct Watched {
    bool dead = false;
    std::uint64_t spell = 0;
    int failed = 0;
    std::deque<TimePoint> calls;  // since it must have tripped
  };
  struct Budget {
    std::uint64_t asked = 0;
    std::uint64_t spent = 0;
  };

  Watched& edge(NodeId from, NodeId to) {
    return edges_[static_cast<std::size_t>(from) * budgets_.size() + static_cast<std::size_t>(to)];
  }
  Watched& stage(NodeId node, std::size_t decision, std::size_t s) {
    return stages_[(static_cast<std::size_t>(node) * plan_->decisions.size() + decision) * kMaxStages + s];
  }
  // Counts a call where the breaker must have tripped. Returns how many there were within a minute, 0 when all is well.
  std::size_t CountCall(NodeId node, Watched* w);
  const NodeSpec& spec(NodeId node) const { return plan_->nodes[static_cast<std::size_t>(node)]; }
  void Fail(const std::string& what);
  void CheckRow(std::uint64_t request, const RowAnswer& row);
  void CheckRecovered(std::uint64_t request, const Reply& reply);

  World* world_;
  const Plan* plan_;
  std::string failure_;
  Counts counts_;
  std::vector<Request> requests_;
  std::vector<Budget> budgets_;
  std::vector<Watched> edges_;
  std::vector<Watched> stages_;
};

}  // namespace ganglion::sim
