#include "sim/scenario.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "sim/node.h"
#include "sim/plan.h"
#include "sim/world.h"

namespace ganglion::sim {
namespace {

using std::chrono::duration_cast;

constexpr double kCalmRate = .5;  // requests per second and client while things settle

class Scenario final : public Network {
 public:
  Scenario(std::uint64_t seed, Mutation mutation)
      : world_(seed), plan_(DrawPlan(&world_)), invariants_(&world_, &plan_), seats_(plan_.nodes.size()) {
    around_ = {&world_, &plan_, this, &invariants_, mutation};
  }

  Report Run();

  void Ask(NodeId from, NodeId to, const Question& question) override;
  void Answer(NodeId from, NodeId to, const Reply& reply) override;
  void End(NodeId, std::uint64_t request, const Reply& reply) override { invariants_.End(request, reply); }
  bool Probe(NodeId from, NodeId to) override {
    const Seat& s = seat(to);
    return s.node != nullptr && s.swallows == 0 && world_.link(from, to).cuts == 0 && world_.link(to, from).cuts == 0;
  }
  std::uint64_t NewRequest(NodeId node, std::size_t decision, std::size_t rows, TimePoint deadline) override {
    const std::uint64_t request = invariants_.Begin(node, decision, rows, deadline, true);
    seat(node).requests.push_back(request);
    return request;
  }

 private:
  // A place for a node, and what is wrong there; some faults may be there twice at a time.
  struct Seat {
    std::unique_ptr<Node> node;  // nullptr: down
    Ailment ailment;
    int downs = 0;
    int silent_downs = 0;
    int swallows = 0;
    int fails_fast = 0;
    std::vector<std::uint64_t> requests;  // of its own clients, since it started
  };
  Seat& seat(NodeId id) { return seats_[static_cast<std::size_t>(id)]; }

  void Arrive(NodeId from, NodeId to, const Question& question);
  void SetFault(const FaultSpec& fault, bool on);
  void Crash(NodeId id, bool silently);
  void Start(NodeId id) { seat(id).node = std::make_unique<Node>(id, around_, &seat(id).ailment); }
  void CutLink(NodeId from, NodeId to, bool on) { world_.link(from, to).cuts += on ? 1 : -1; }
  void FindDead();
  void Calm();

  void Ask(std::size_t client, double rate_per_s, TimePoint until);
  void Request(const ClientSpec& client, std::size_t rows, Duration limit);

  World world_;
  const Plan plan_;
  Invariants invariants_;
  std::vector<Seat> seats_;
  Node::Surroundings around_{};
};

void Scenario::Ask(NodeId from, NodeId to, const Question& question) {
  const int copies = world_.Send(from, to, [this, from, to, question] { Arrive(from, to, question); });
  if (copies > 1) invariants_.Repeated(question.request);
}

void Scenario::Answer(NodeId from, NodeId to, const Reply& reply) {
  world_.Send(from, to, [this, to, reply] {
    if (seat(to).node != nullptr) seat(to).node->OnReply(reply);
  });
}

void Scenario::Arrive(NodeId from, NodeId to, const Question& question) {
  Seat& s = seat(to);
  if (s.node == nullptr) {
    // Where a machine still stands, it says that nobody listens.
    if (s.silent_downs == 0) Answer(to, from, {question.call, Code::kUnavailable, {}});
    return;
  }
  invariants_.Seen(to, question.decision);
  world_.Note(What::kArrive, to, question.request, from, question.left.count() / 1000);
  if (s.swallows > 0) return;
  if (s.fails_fast > 0) return Answer(to, from, {question.call, Code::kUnavailable, {}});
  s.node->Infer(from, question);
}

void Scenario::Crash(NodeId id, bool silently) {
  Seat& s = seat(id);
  if (s.node == nullptr) return;
  world_.Note(What::kCrash, id, 0, silently);
  invariants_.counts().trips += s.node->parents().trips();
  if (!silently) {
    for (const auto& [asker, call] : s.node->Asked()) Answer(id, asker, {call, Code::kUnavailable, {}});
  }
  s.node = nullptr;
  for (const std::uint64_t request : std::exchange(s.requests, {})) invariants_.Lost(request);
  invariants_.Restarted(id);
}

void Scenario::SetFault(const FaultSpec& f, bool on) {
  world_.Note(on ? What::kFault : What::kFaultOver, f.node, 0, static_cast<std::int64_t>(f.kind), f.other);
  Seat& s = seat(f.node);
  const int one = on ? 1 : -1;
  switch (f.kind) {
    case FaultKind::kCrash:
    case FaultKind::kPowerLoss:
      s.downs += one;
      if (f.kind == FaultKind::kPowerLoss) s.silent_downs += one;
      if (on) Crash(f.node, f.kind == FaultKind::kPowerLoss);
      if (s.downs == 0) Start(f.node);
      break;
    case FaultKind::kCut:
      CutLink(f.node, f.other, on);
      if (f.both_ways) CutLink(f.other, f.node, on);
      break;
    case FaultKind::kLossy:
      world_.link(f.node, f.other).loss = on ? f.value : 0;
      if (f.both_ways) world_.link(f.other, f.node).loss = on ? f.value : 0;
      break;
    case FaultKind::kSlow:
      s.ailment.slow *= on ? f.value : 1 / f.value;
      break;
    case FaultKind::kSwallow:
      s.swallows += one;
      break;
    case FaultKind::kFailFast:
      s.fails_fast += one;
      break;
    case FaultKind::kBroken:
      s.ailment.broken += one;
      break;
    case FaultKind::kBurst:
      for (std::size_t c = 0; on && c < plan_.clients.size(); ++c)
        Ask(c, plan_.clients[c].rate_per_s * f.value, f.until);
      break;
    case FaultKind::kCount:
      break;
  }
  FindDead();
}

// A parent is dead for who asks it when no question can come back answered.
void Scenario::FindDead() {
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    const auto from = static_cast<NodeId>(i);
    for (const ParentSpec& p : plan_.nodes[i].parents) {
      const Seat& s = seat(p.node);
      invariants_.SetDead(from, p.node,
                          s.node == nullptr || s.swallows > 0 || s.fails_fast > 0 ||
                              world_.link(from, p.node).cuts > 0 || world_.link(p.node, from).cuts > 0);
    }
  }
}

// The end of all that may go wrong.
void Scenario::Calm() {
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    seats_[i].ailment.slow = 1;  // a product of factors and their inverses is not quite 1
    for (std::size_t j = 0; j < seats_.size(); ++j) {
      Link& l = world_.link(static_cast<NodeId>(i), static_cast<NodeId>(j));
      l.loss = l.duplicate = l.reorder = 0;
    }
  }
  for (std::size_t c = 0; c < plan_.clients.size(); ++c) Ask(c, kCalmRate, plan_.calm_at);
}

void Scenario::Request(const ClientSpec& client, std::size_t rows, Duration limit) {
  Seat& s = seat(client.node);
  if (s.node == nullptr) return;
  Question q;
  q.decision = client.decision;
  q.left = limit;
  for (std::size_t r = 0; r < rows; ++r) q.rows.push_back(static_cast<int>(r));
  q.request = invariants_.Begin(client.node, client.decision, rows, world_.now() + limit, false);
  s.requests.push_back(q.request);
  invariants_.Seen(client.node, client.decision);
  world_.Note(What::kArrive, client.node, q.request, kOutside, limit.count() / 1000);
  s.node->Infer(kOutside, q);
}

// One client's requests at random times, from now on.
void Scenario::Ask(std::size_t c, double rate_per_s, TimePoint until) {
  const double wait_s = -std::log(1 - world_.random().Uniform()) / rate_per_s;
  const TimePoint at = world_.now() + FromMilliseconds(1000 * wait_s);
  if (at >= until) return;
  world_.At(at, [this, c, rate_per_s, until] {
    const ClientSpec& client = plan_.clients[c];
    Random& r = world_.random();
    Duration limit = plan_.decisions[client.decision].deadline;
    std::size_t rows = 1;
    if (until <= plan_.settle_at) {
      const double kind = r.Uniform();
      if (kind < .3) limit = duration_cast<Duration>(limit * r.Uniform(.001, 1));
      if (kind > .9) limit = duration_cast<Duration>(limit * r.Uniform(1, 3));
      if (r.Uniform() < .25) rows = 2 + r.Below(7);
    }
    Request(client, rows, limit);
    // Sometimes a more urgent one comes right after.
    if (until <= plan_.settle_at && r.Uniform() < .1) {
      const Duration urgent = duration_cast<Duration>(limit * r.Uniform(.002, .1));
      world_.At(world_.now() + FromMilliseconds(r.Uniform(0, 2)),
                [this, c, urgent] { Request(plan_.clients[c], 1, urgent); });
    }
    Ask(c, rate_per_s, until);
  });
}

Report Scenario::Run() {
  for (std::size_t i = 0; i < seats_.size(); ++i) Start(static_cast<NodeId>(i));
  for (const FaultSpec& f : plan_.faults) {
    if (f.until <= f.at) continue;
    world_.At(f.at, [this, &f] { SetFault(f, true); });
    world_.At(f.until, [this, &f] { SetFault(f, false); });
  }
  // After the faults that end at this instant.
  world_.At(plan_.settle_at, [this] { world_.At(world_.now(), [this] { Calm(); }); });
  for (std::size_t c = 0; c < plan_.clients.size(); ++c) Ask(c, plan_.clients[c].rate_per_s, plan_.settle_at);
  for (std::size_t i = 0; i < 2 * plan_.clients.size(); ++i) {
    world_.At(plan_.check_at + static_cast<int>(i) * plan_.calm_every, [this, i] {
      const ClientSpec& client = plan_.clients[i % plan_.clients.size()];
      Request(client, 1 + i % 2, plan_.decisions[client.decision].deadline);
    });
  }
  while (!invariants_.failed() && world_.Step(plan_.end_at)) {
  }
  if (!invariants_.failed()) {
    invariants_.AtEnd();
    for (const Seat& s : seats_) s.node->CheckRest();
  }
  for (const Seat& s : seats_) {
    if (s.node != nullptr) invariants_.counts().trips += s.node->parents().trips();
  }
  return {world_.seed(),   invariants_.failure(),        world_.digest(),
          world_.events(), world_.Seconds(world_.now()), invariants_.counts()};
}

}  // namespace

Report Simulate(std::uint64_t seed, Mutation mutation) { return Scenario(seed, mutation).Run(); }

}  // namespace ganglion::sim
