// A Node of the simulation: the path of a request through a server, with the production objects that decide on it.
//
// A request is admitted, answered from the cheapest stage, or refused (admission::ConcurrencyLimit); a flow takes it up
// the stages; parents are asked. Mirrors src/node/server. Left out are the cache, plain models, and everything about
// the wire. When a node dies the object is destroyed, with all that it knew; a new one takes its place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "admission/admission.h"
#include "sim/executor.h"
#include "sim/flow.h"
#include "sim/invariants.h"
#include "sim/message.h"
#include "sim/mutation.h"
#include "sim/parents.h"
#include "sim/plan.h"
#include "sim/queue.h"
#include "sim/world.h"

namespace ganglion::sim {

// What can be wrong with a node while it runs. Owned by the scenario, so that it outlives the node.
struct Ailment {
  double slow = 1;  // runs take so many times as long
  int broken = 0;   // above 0: runs fail
};

struct LocalStage {
  LocalStage(Node* node, std::size_t decision, std::size_t stage, bool together, batching::Batcher batcher,
             breaker::CircuitBreaker fuse)
      : times(together), queue(node, decision, stage, &times, std::move(batcher)), breaker(std::move(fuse)) {}
  StageTimes times;
  Queue queue;
  breaker::CircuitBreaker breaker;
};

class Node {
 public:
  struct Surroundings {
    World* world;
    const Plan* plan;
    Network* network;
    Invariants* invariants;
    Mutation mutation;
  };
  Node(NodeId id, const Surroundings& surroundings, const Ailment* ailment);

  // From a client (kOutside), or from another node.
  void Infer(NodeId from, const Question& question);
  void OnReply(const Reply& reply) { parents_.OnReply(reply); }
  // The questions of other nodes that are under way: who asked, and by which call.
  std::vector<std::pair<NodeId, std::uint64_t>> Asked() const;
  // Nothing may be left.
  void CheckRest() const;

  NodeId id() const { return id_; }
  const NodeSpec& spec() const { return spec_; }
  bool has(Mutation m) const { return around_.mutation == m; }
  bool broken() const { return ailment_->broken > 0; }
  TimePoint now() const { return around_.world->now(); }
  // The time at which least times are observed and looked up.
  TimePoint news_at() const { return has(Mutation::kFastestNeverFades) ? TimePoint{} : now(); }
  World& world() const { return *around_.world; }
  Network& network() const { return *around_.network; }
  Invariants& invariants() const { return *around_.invariants; }
  Executor& executor() { return executor_; }
  Parents& parents() { return parents_; }
  const DecisionSpec& decision(std::size_t d) const { return around_.plan->decisions[d]; }
  topology::Tier tier_of(NodeId node) const { return around_.plan->nodes[static_cast<std::size_t>(node)].tier; }
  // The stages of a decision that are here, cheapest first.
  std::vector<std::unique_ptr<LocalStage>>& stages(std::size_t d) { return served_[d].stages; }
  void StageRan(std::size_t d, std::size_t stage, std::uint64_t spell, bool ok, Duration took) const {
    invariants().StageRan(id_, d, stage, spell, !ok || took > spec_.breaker.slow);
  }
  // How long a run takes that begins now.
  Duration Takes(std::size_t d, std::size_t stage, std::int64_t rows) const;

 private:
  struct Pending {
    NodeId from = kOutside;
    Question question;
    TimePoint begin{};
    TimePoint admitted_at{};
    TimePoint deadline{};
    std::size_t first_stage = 0;
    bool audit = false;
    bool may_run_here = false;
    bool answered = false;
    bool admitted = false;
    bool cheap = false;
    bool above = false;  // waits for somebody above
    std::uint64_t number = 0;
  };
  struct Served {
    bool served = false;
    std::vector<std::unique_ptr<LocalStage>> stages;
  };

  void Run(const std::shared_ptr<Pending>& p, const Then& then);
  Code ReadParameters(Pending* p) const;
  void Compute(const std::shared_ptr<Pending>& p, const Then& then);
  void RunDecision(const std::shared_ptr<Pending>& p, bool cheapest_only, const Then& then);
  void FinishDecision(const std::shared_ptr<Pending>& p, FlowResult result);
  void Answer(const std::shared_ptr<Pending>& p, Code code, std::vector<RowAnswer> rows);
  void Release(Pending* p, admission::AdmissionOutcome outcome);
  void Audit(const Pending& p, const std::vector<RowAnswer>& rows);
  void KeepProbing();

  NodeId id_;
  Surroundings around_;
  const NodeSpec& spec_;
  const Ailment* ailment_;
  Executor executor_;
  Parents parents_;
  admission::ConcurrencyLimit admission_;
  int cheap_under_way_ = 0;
  int above_under_way_ = 0;
  std::vector<Served> served_;
  std::uint64_t next_number_ = 1;
  std::map<std::uint64_t, std::shared_ptr<Pending>> under_way_;
};

}  // namespace ganglion::sim
