// The Parents of a simulated node: balanced, each behind a breaker, never beyond a deadline.
//
// Breaker, balance and retry budget are the production objects. Mirrors src/node/parents: the same order of calls and
// the same rules. Left out are the budget of the uplink, foreign servers, and links emulated by the node itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "balance/balance.h"
#include "breaker/breaker.h"
#include "node/least_time.h"
#include "sim/invariants.h"
#include "sim/message.h"
#include "sim/plan.h"

namespace ganglion::sim {

class Node;

struct ParentsQuestion {
  Question question;
  topology::Tier highest = topology::Tier::kGlobal;
  TimePoint deadline{};
  bool audit = false;
};

struct ParentsReply {
  Code code = Code::kInternal;
  std::vector<RowAnswer> rows;
  bool forbidden = false;
  bool timed_out = false;
};

class Parents {
 public:
  Parents(Node* node, const NodeSpec& spec);

  void Ask(ParentsQuestion question, std::function<void(const ParentsReply&)> done);
  void OnReply(const Reply& reply);
  bool Live(topology::Tier highest) const;
  Duration fastest() const;
  void Probe();
  int in_flight() const;
  std::uint64_t trips() const;

 private:
  struct Parent {
    Parent(NodeId n, breaker::CircuitBreaker b) : node(n), breaker(std::move(b)) {}
    NodeId node;
    topology::Tier tier = topology::Tier::kGlobal;
    bool up = false;
    breaker::CircuitBreaker breaker;
    balance::PeakEwma latency;
    int in_flight = 0;
  };
  struct Asking {
    ParentsQuestion question;
    std::function<void(const ParentsReply&)> done;
    bool over = false;
    struct Attempt {
      std::size_t parent = 0;
      breaker::Permit permit;
      TimePoint at{};
      std::uint64_t call = 0;
      std::uint64_t spell = 0;
      bool open = true;
    };
    std::vector<Attempt> attempts;
    World::Timer timer;
    World::Timer hedge;
  };

  void Try(const std::shared_ptr<Asking>& asking);
  void Answered(const std::shared_ptr<Asking>& asking, std::size_t attempt, const Reply& reply);
  void Finish(const std::shared_ptr<Asking>& asking, const ParentsReply& reply);
  bool TakeRetry();

  Node* node_;
  std::vector<Parent> parents_;
  std::optional<Duration> hedge_;
  balance::RetryBudget retries_;
  node::LeastTime fastest_{256};
  std::uint64_t next_call_ = 1;
  std::map<std::uint64_t, std::pair<std::shared_ptr<Asking>, std::size_t>> calls_;
};

}  // namespace ganglion::sim
