// A Plan is everything that a simulation draws before it begins: decisions, nodes and who asks whom, load, faults.
//
// All of it comes from one seed. The run goes through four phases:
//   load     clients ask at their rates, in bursts too, with deadlines of all sizes, while faults come and go
//   settle   no more faults, little load, every request with its decision's own deadline; long enough for the slowest
//            question still under way and the longest open breaker
//   check    nothing is under way any more, and one request at a time comes: all has to be as if nothing had happened
//   rest     no load; whatever was under way has ended
// Values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "admission/admission.h"
#include "balance/balance.h"
#include "base/clock.h"
#include "base/random.h"
#include "batching/batching.h"
#include "breaker/breaker.h"
#include "cascade/cascade.h"
#include "node/decision_file.h"
#include "sim/world.h"
#include "topology/topology.h"

namespace ganglion::sim {

// However slow a node is. A worker that never came back would be another matter.
inline constexpr Duration kLongestRun = std::chrono::seconds(20);

struct StageSpec {
  topology::Tier tier = topology::Tier::kDevice;
  double threshold = 0;
  Duration service{};   // of one row
  double per_row = .1;  // what each further row of a run adds, as a share of it
  double silent = 0;    // share of rows on which no rule holds
  bool together = true;
};

// What a stage says of a row: a function of the two, however often and wherever it is computed.
struct Score {
  int label = -1;  // -1: no rule holds
  float confidence = 0;
};

struct DecisionSpec {
  std::vector<StageSpec> stages;
  cascade::WhenLate when_late = cascade::WhenLate::kAnswer;
  node::Privacy privacy = node::Privacy::kPublic;
  Duration deadline{};
  double audit = 0;
  std::uint64_t salt = 0;

  Score At(std::uint64_t request, int row, std::size_t stage) const;
};

struct ParentSpec {
  NodeId node = 0;
  bool configured = true;  // its tier is in node.yaml; otherwise it tells it when it is first reached
};

struct NodeSpec {
  topology::Tier tier = topology::Tier::kDevice;
  int workers = 1;
  std::vector<ParentSpec> parents;
  breaker::BreakerOptions breaker;
  balance::RetryBudgetOptions retries;
  std::optional<Duration> hedge;
  batching::BatchOptions batching;
  admission::AdmissionOptions admission;
};

struct ClientSpec {
  NodeId node = 0;
  std::size_t decision = 0;
  double rate_per_s = 1;  // under load
};

enum class FaultKind : std::uint8_t {
  kCrash,      // the process dies: who asks is told at once; it comes back with nothing in its memory
  kPowerLoss,  // the machine dies: nobody is told anything
  kCut,        // a link goes, one way or both
  kLossy,      // a link loses a share
  kSlow,       // a node computes slower
  kSwallow,    // a node takes questions and never answers
  kFailFast,   // a node answers every question with an error
  kBroken,     // a node's models fail
  kBurst,      // clients ask many times as often
  kCount,
};
std::string Name(FaultKind kind);

struct FaultSpec {
  FaultKind kind = FaultKind::kCrash;
  TimePoint at{};
  TimePoint until{};
  NodeId node = 0;
  NodeId other = kOutside;  // of a link
  bool both_ways = true;
  double value = 0;  // factor or share
};

struct Plan {
  std::vector<DecisionSpec> decisions;
  std::vector<NodeSpec> nodes;
  std::vector<ClientSpec> clients;
  std::vector<FaultSpec> faults;
  bool circles = false;   // parents ask each other round in circles: what the check phase expects does not hold
  Duration longest{};     // deadline under load
  Duration calm_every{};  // between two requests of the check phase
  TimePoint settle_at{};
  TimePoint calm_at{};  // from here on nobody asks, so that at check_at nothing is under way
  TimePoint check_at{};
  TimePoint rest_at{};
  TimePoint end_at{};
};

// Whether a request that comes to `node` gets to somebody with this stage, going up by whichever parents may see it.
enum class Way { kNever, kSometimes, kAlways };
Way WayTo(const Plan& plan, NodeId node, const DecisionSpec& decision, std::size_t stage);

// Draws it, and sets the world's links.
Plan DrawPlan(World* world);

}  // namespace ganglion::sim
