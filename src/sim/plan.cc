#include "sim/plan.h"

#include <algorithm>
#include <utility>

namespace ganglion::sim {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;
using topology::Tier;

constexpr int kTries = 20;

bool Chance(Random& r, double p) { return r.Uniform() < p; }
int Between(Random& r, int low, int high) {
  return low + static_cast<int>(r.Below(static_cast<std::uint64_t>(high - low) + 1));
}
Duration Ms(Random& r, double low, double high) { return FromMilliseconds(r.Uniform(low, high)); }
Duration Times(Duration d, double factor) { return duration_cast<Duration>(d * factor); }

DecisionSpec DrawDecision(Random& r) {
  struct OfTier {
    Tier tier;
    double chance, low_ms, high_ms;
  };
  constexpr OfTier kModels[] = {
      {Tier::kDevice, .85, .02, 2}, {Tier::kEdge, .7, .1, 12}, {Tier::kRegion, .5, 3, 30}, {Tier::kGlobal, .9, 5, 60}};
  DecisionSpec d;
  while (d.stages.empty()) {
    for (const OfTier& t : kModels) {
      if (t.tier == Tier::kDevice && Chance(r, .3)) {
        StageSpec rules{t.tier, r.Uniform(), Ms(r, .002, .02)};
        rules.silent = r.Uniform(.2, .9);
        d.stages.push_back(rules);
      }
      if (!Chance(r, t.chance)) continue;
      StageSpec model{t.tier, r.Uniform(.2, .8), Ms(r, t.low_ms, t.high_ms), r.Uniform(.02, .5)};
      model.together = Chance(r, .85);
      d.stages.push_back(model);
    }
  }
  if (Chance(r, .2)) d.when_late = cascade::WhenLate::kFail;
  if (Chance(r, .4)) d.privacy = Chance(r, .5) ? node::Privacy::kSensitive : node::Privacy::kRegulated;
  if (Chance(r, .3)) d.audit = r.Uniform(.01, .2);
  d.salt = r.Next();
  return d;
}

// The nodes of a tier, lowest tier first; each asks some of those of the next tier there is.
void DrawNodes(Random& r, Plan* plan) {
  const std::array<int, topology::kTierCount> counts{Between(r, 1, 4), Chance(r, .9) ? Between(r, 1, 3) : 0,
                                                     Chance(r, .6) ? Between(r, 1, 2) : 0, Between(r, 1, 2)};
  plan->circles = counts[1] > 1 && Chance(r, .1);
  const bool hedges = Chance(r, .4);
  std::array<std::vector<NodeId>, topology::kTierCount> of_tier;
  NodeId next = 0;
  for (std::size_t t = 0; t < topology::kTierCount; ++t) {
    for (int i = 0; i < counts[t]; ++i) of_tier[t].push_back(next++);
  }
  for (const Tier tier : topology::kTiers) {
    const auto t = static_cast<std::size_t>(tier);
    std::vector<NodeId> above;
    for (std::size_t u = t + 1; u < topology::kTierCount; ++u) {
      // Now and then past the next tier, too.
      if (above.empty() || Chance(r, .15)) above.insert(above.end(), of_tier[u].begin(), of_tier[u].end());
    }
    for (const NodeId id : of_tier[t]) {
      NodeSpec n;
      n.tier = tier;
      n.workers = Between(r, 1, 4);
      r.Shuffle(above);
      const auto some = above.empty() ? 0 : 1 + r.Below(std::min<std::size_t>(above.size(), 3));
      for (std::size_t i = 0; i < some; ++i) n.parents.push_back({above[i], Chance(r, .8)});
      if (plan->circles && tier == Tier::kEdge) {
        for (const NodeId other : of_tier[t]) {
          if (other != id) n.parents.push_back({other, Chance(r, .8)});
        }
      }
      n.breaker.open_for = Ms(r, 5'000, 30'000);
      n.breaker.probes = Chance(r, .8) ? 1 : 2;
      n.retries.ratio = Chance(r, .7) ? .1 : r.Uniform(0, .5);
      if (Chance(r, .3)) n.retries.burst = Between(r, 0, 3);
      if (hedges && Chance(r, .7)) n.hedge = Ms(r, 10, 300);
      n.batching.max_rows = Chance(r, .5) ? 64 : Between(r, 1, 8);
      if (Chance(r, .4)) n.batching.max_delay = Ms(r, .5, 20);
      if (Chance(r, .5)) n.batching.max_queue = static_cast<std::size_t>(Between(r, 2, 40));
      n.admission.min = n.workers;
      n.admission.max = Chance(r, .5) ? 256 : Between(r, n.workers + 7, 48);
      n.admission.initial = std::clamp(32, n.admission.min, n.admission.max);
      plan->nodes.push_back(std::move(n));
    }
  }
}

void DrawLinks(World* world, const Plan& plan) {
  Random& r = world->random();
  world->SetNodes(plan.nodes.size());
  const topology::Topology topology = topology::Topology::Default();
  const double loss = Chance(r, .2) ? r.Uniform(0, .02) : 0;
  const double duplicate = Chance(r, .3) ? r.Uniform(0, .1) : 0;
  const double reorder = Chance(r, .3) ? r.Uniform(0, .2) : 0;
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    for (const ParentSpec& p : plan.nodes[i].parents) {
      const Tier tier = plan.nodes[static_cast<std::size_t>(p.node)].tier;
      const Duration there = topology.at(tier).RoundTrip(r.Uniform()) / 2;
      const auto from = static_cast<NodeId>(i);
      world->link(from, p.node) = {there, Times(there, r.Uniform(0, .3)), loss, duplicate, reorder};
      world->link(p.node, from) = world->link(from, p.node);
    }
  }
}

// The longest that a lone request can take from here on, when everything works.
Duration Longest(World* world, const Plan& plan, const DecisionSpec& decision, NodeId id) {
  const NodeSpec& n = plan.nodes[static_cast<std::size_t>(id)];
  Duration here{};
  for (const StageSpec& s : decision.stages) {
    if (s.tier <= n.tier) here += 2 * s.service + n.batching.max_delay;
  }
  Duration above{};
  for (const ParentSpec& p : n.parents) {
    if (plan.nodes[static_cast<std::size_t>(p.node)].tier <= n.tier) continue;  // round in a circle
    const Link& l = world->link(id, p.node);
    above = std::max(above, 2 * (l.delay + l.jitter) + Longest(world, plan, decision, p.node));
  }
  return here + above;
}

void DrawTimes(World* world, Plan* plan) {
  Random& r = world->random();
  Duration path{};
  for (DecisionSpec& d : plan->decisions) {
    Duration longest{};
    for (std::size_t i = 0; i < plan->nodes.size(); ++i)
      longest = std::max(longest, Longest(world, *plan, d, static_cast<NodeId>(i)));
    path = std::max(path, longest);
    d.deadline = milliseconds(20) + Times(longest, r.Uniform(1.8, 4));
    plan->longest = std::max(plan->longest, 3 * d.deadline);
  }
  Duration open_for{};
  for (NodeSpec& n : plan->nodes) {
    n.breaker.slow = std::max<Duration>(seconds(1), Times(path, 1.5));
    open_for = std::max(open_for, n.breaker.open_for);
  }
  plan->calm_every = plan->longest / 2 + seconds(1);
  plan->settle_at = world->now() + Ms(r, 15'000, 60'000);
  // A node that can only relay fails whoever asks it while its own breaker is open, so that open times add up.
  plan->calm_at = plan->settle_at + kLongestRun + plan->longest + static_cast<int>(topology::kTierCount) * open_for;
  plan->check_at = plan->calm_at + plan->longest;
}

void DrawClients(Random& r, Plan* plan, TimePoint now) {
  const double requests = r.Uniform(200, 800);
  const double load_s = Milliseconds(plan->settle_at - now) / 1000;
  while (plan->clients.empty()) {
    for (std::size_t i = 0; i < plan->nodes.size(); ++i) {
      for (std::size_t d = 0; d < plan->decisions.size(); ++d) {
        const Tier tier = plan->nodes[i].tier;
        const double chance = tier == Tier::kDevice ? .9 : tier == Tier::kEdge ? .15 : .03;
        if (tier <= node::HighestTier(plan->decisions[d].privacy) && Chance(r, chance))
          plan->clients.push_back({static_cast<NodeId>(i), d, r.Uniform(.2, 1)});
      }
    }
  }
  double sum = 0;
  for (const ClientSpec& c : plan->clients) sum += c.rate_per_s;
  for (ClientSpec& c : plan->clients) c.rate_per_s *= requests / load_s / sum;
}

void DrawFaults(Random& r, Plan* plan, TimePoint now) {
  double total_rate = 0;
  for (const ClientSpec& c : plan->clients) total_rate += c.rate_per_s;
  const int faults = Between(r, 1, 8);
  for (int i = 0; i < faults; ++i) {
    FaultSpec f;
    f.kind = static_cast<FaultKind>(r.Below(static_cast<std::uint64_t>(FaultKind::kCount)));
    f.at = now + Times(plan->settle_at - now, Chance(r, .2) ? 0 : r.Uniform());
    f.until = std::min(plan->settle_at, f.at + (Chance(r, .35) ? Duration(seconds(60)) : Ms(r, 200, 20'000)));
    f.node = static_cast<NodeId>(r.Below(plan->nodes.size()));
    // Parents are what matters most.
    for (int t = 0; t < kTries && plan->nodes[static_cast<std::size_t>(f.node)].tier == Tier::kDevice && Chance(r, .6);
         ++t)
      f.node = static_cast<NodeId>(r.Below(plan->nodes.size()));
    switch (f.kind) {
      case FaultKind::kCut:
      case FaultKind::kLossy: {
        const auto& parents = plan->nodes[static_cast<std::size_t>(f.node)].parents;
        if (parents.empty()) continue;
        f.other = parents[r.Below(parents.size())].node;
        f.both_ways = Chance(r, .6);
        if (!f.both_ways && Chance(r, .5)) std::swap(f.node, f.other);
        f.value = r.Uniform(.05, .9);
        break;
      }
      case FaultKind::kSlow:
        f.value = r.Uniform(2, 50);
        break;
      case FaultKind::kBurst:
        // A few hundred more requests at most.
        f.value = r.Uniform(5, 40);
        f.until = std::min(f.until, f.at + FromMilliseconds(1000 * r.Uniform(100, 400) / (total_rate * f.value)));
        break;
      default:
        break;
    }
    plan->faults.push_back(f);
  }
}

}  // namespace

Score DecisionSpec::At(std::uint64_t request, int row, std::size_t stage) const {
  Random r(salt + request * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(row) * 1000 + stage);
  if (r.Uniform() < stages[stage].silent) return {};
  return {static_cast<int>(r.Below(10)), static_cast<float>(r.Uniform())};
}

std::string Name(FaultKind kind) {
  constexpr const char* kNames[] = {"crash",   "power loss", "cut link", "lossy link", "slow node",
                                    "swallow", "fail fast",  "broken",   "burst"};
  return kNames[static_cast<std::size_t>(kind)];
}

Way WayTo(const Plan& plan, NodeId node, const DecisionSpec& decision, std::size_t stage) {
  const NodeSpec& n = plan.nodes[static_cast<std::size_t>(node)];
  if (n.tier >= decision.stages[stage].tier) return Way::kAlways;
  bool all = true;
  bool any = false;
  for (const ParentSpec& p : n.parents) {
    const Tier tier = plan.nodes[static_cast<std::size_t>(p.node)].tier;
    if (tier <= n.tier || tier > node::HighestTier(decision.privacy)) continue;
    const Way way = WayTo(plan, p.node, decision, stage);
    all &= way == Way::kAlways;
    any |= way != Way::kNever;
  }
  return !any ? Way::kNever : all ? Way::kAlways : Way::kSometimes;
}

Plan DrawPlan(World* world) {
  Random& r = world->random();
  Plan plan;
  const int decisions = Between(r, 1, 2);
  for (int i = 0; i < decisions; ++i) plan.decisions.push_back(DrawDecision(r));
  DrawNodes(r, &plan);
  DrawLinks(world, plan);
  DrawTimes(world, &plan);
  DrawClients(r, &plan, world->now());
  DrawFaults(r, &plan, world->now());
  plan.rest_at = plan.check_at + 2 * static_cast<int>(plan.clients.size()) * plan.calm_every;
  plan.end_at = plan.rest_at + plan.longest + seconds(1);
  return plan;
}

}  // namespace ganglion::sim
