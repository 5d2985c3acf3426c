#include "sim/invariants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace ganglion::sim {
namespace {

constexpr Duration kMinute = std::chrono::minutes(1);
constexpr int kMaxHops = 8;
constexpr std::size_t kAbove = 6;  // after the reasons of a cascade

std::size_t ReasonIndex(std::string_view reason) {
  for (std::size_t i = 1; i <= kAbove; ++i) {
    if (reason == ReasonName(i)) return i;
  }
  return 0;
}

}  // namespace

std::string_view ReasonName(std::size_t index) {
  return index == kAbove ? "above" : cascade::Name(static_cast<cascade::Reason>(index));
}

void Counts::Add(const Counts& o) {
  requests += o.requests, accepted_rows += o.accepted_rows, degraded_rows += o.degraded_rows, failed += o.failed;
  lost += o.lost, runs += o.runs, shared_runs += o.shared_runs, calls += o.calls, retries += o.retries;
  audits += o.audits, expired += o.expired, timeouts += o.timeouts, trips += o.trips, refused += o.refused;
  cheaper += o.cheaper, queue_full += o.queue_full, calls_to_dead += o.calls_to_dead, checked += o.checked;
  past_deadline += o.past_deadline;
  for (std::size_t i = 0; i < by_reason.size(); ++i) by_reason[i] += o.by_reason[i];
}

Invariants::Invariants(World* world, const Plan* plan)
    : world_(world),
      plan_(plan),
      requests_(1),
      budgets_(plan->nodes.size()),
      edges_(plan->nodes.size() * plan->nodes.size()),
      stages_(plan->nodes.size() * plan->decisions.size() * kMaxStages) {}

void Invariants::Fail(const std::string& what) {
  if (failed()) return;
  failure_ =
      fmt::format("seed {}, {:.6f} s: {}\n{}", world_->seed(), world_->Seconds(world_->now()), what, world_->Trace());
}

std::uint64_t Invariants::Begin(NodeId node, std::size_t decision, std::size_t rows, TimePoint deadline, bool audit) {
  Request r;
  r.node = node;
  r.decision = decision;
  r.rows = rows;
  r.begin = world_->now();
  r.deadline = deadline;
  r.audit = audit;
  r.runs.resize(rows * plan_->decisions[decision].stages.size());
  requests_.push_back(std::move(r));
  ++(audit ? counts_.audits : counts_.requests);
  return requests_.size() - 1;
}

void Invariants::End(std::uint64_t request, const Reply& reply) {
  Request& r = requests_[request];
  if (r.ended) return Fail(fmt::format("request {} ends a second time", request));
  r.ended = true;
  const TimePoint now = world_->now();
  if (now > r.deadline) {
    ++counts_.past_deadline;
    if (now > r.inline_until)
      Fail(fmt::format("request {} ends {:.3f} ms after its deadline", request, Milliseconds(now - r.deadline)));
  }
  std::int64_t degraded = 0;
  for (const RowAnswer& row : reply.rows) degraded += row.degraded;
  world_->Note(What::kEnd, r.node, request, static_cast<std::int64_t>(reply.code), degraded);
  if (r.audit) return;
  if (reply.code == Code::kOk) {
    if (reply.rows.size() != r.rows)
      return Fail(fmt::format("request {} has {} rows, its answer {}", request, r.rows, reply.rows.size()));
    for (std::size_t i = 0; i < r.rows; ++i) {
      if (reply.rows[i].row != static_cast<int>(i)) Fail(fmt::format("request {}: rows changed places", request));
      CheckRow(request, reply.rows[i]);
    }
  } else {
    ++counts_.failed;
  }
  if (r.begin >= plan_->check_at && !plan_->circles) CheckRecovered(request, reply);
}

void Invariants::CheckRow(std::uint64_t request, const RowAnswer& row) {
  const DecisionSpec& d = plan_->decisions[requests_[request].decision];
  if (row.degraded != !row.reason.empty())
    return Fail(fmt::format("request {}: row {} is {}degraded, with the reason \"{}\"", request, row.row,
                            row.degraded ? "" : "not ", row.reason));
  if (row.degraded) {
    ++counts_.degraded_rows;
    ++counts_.by_reason[ReasonIndex(row.reason)];
    if (row.label < 0) return;
  } else {
    ++counts_.accepted_rows;
  }
  const Score score = d.At(request, row.row, row.stage);
  if (row.label < 0 || row.label != score.label || row.confidence != score.confidence ||
      row.tier != d.stages[row.stage].tier)
    return Fail(fmt::format("request {}: row {} has label {} of tier {}, which is not what stage {} says of it",
                            request, row.row, row.label, topology::Name(row.tier), row.stage));
  if (!row.degraded && row.stage + 1 < d.stages.size() &&
      static_cast<double>(row.confidence) < d.stages[row.stage].threshold)
    Fail(fmt::format("request {}: row {} lies below its threshold and is not degraded", request, row.row));
}

// Nothing is broken and nobody else asks: the thresholds alone say who decides.
void Invariants::CheckRecovered(std::uint64_t request, const Reply& reply) {
  const Request& r = requests_[request];
  const DecisionSpec& d = plan_->decisions[r.decision];
  ++counts_.checked;
  for (std::size_t row = 0; row < r.rows; ++row) {
    std::size_t decider = d.stages.size();
    for (std::size_t s = 0; s < d.stages.size() && decider == d.stages.size(); ++s) {
      const Score score = d.At(request, static_cast<int>(row), s);
      if (score.label < 0) continue;
      if (s + 1 == d.stages.size() || static_cast<double>(score.confidence) >= d.stages[s].threshold) decider = s;
    }
    // Beyond all stages: the top has no rule for it.
    const Way way = decider == d.stages.size() ? Way::kNever : WayTo(*plan_, r.node, d, decider);
    if (way == Way::kSometimes) continue;
    if (way == Way::kNever) {
      if (reply.code == Code::kOk && !reply.rows[row].degraded)
        Fail(fmt::format("request {}: nobody may decide row {}, and yet it is not degraded", request, row));
      continue;
    }
    if (reply.code != Code::kOk && r.rows > 1) continue;  // another row may have had nobody
    if (reply.code != Code::kOk || reply.rows[row].degraded || reply.rows[row].stage != decider)
      return Fail(fmt::format("request {}: all is well again, stage {} of tier {} should decide row {}; got {}",
                              request, decider, topology::Name(d.stages[decider].tier), row,
                              reply.code != Code::kOk ? std::string(CodeName(reply.code))
                                                      : fmt::format("stage {}, degraded \"{}\"", reply.rows[row].stage,
                                                                    reply.rows[row].reason)));
  }
}

void Invariants::Lost(std::uint64_t request) {
  Request& r = requests_[request];
  if (r.ended) return;
  r.ended = true;
  ++counts_.lost;
  world_->Note(What::kLost, r.node, request);
}

void Invariants::Seen(NodeId node, std::size_t decision) {
  const node::Privacy privacy = plan_->decisions[decision].privacy;
  if (spec(node).tier > node::HighestTier(privacy))
    Fail(fmt::format("node {} of tier {} gets an input that is {}", node, topology::Name(spec(node).tier),
                     node::Name(privacy)));
}

void Invariants::Run(NodeId node, const Question& question, std::size_t stage, const std::vector<int>& rows,
                     TimePoint deadline, TimePoint inline_until) {
  ++counts_.runs;
  world_->Note(What::kRun, node, question.request, static_cast<std::int64_t>(stage),
               static_cast<std::int64_t>(rows.size()));
  Request& r = requests_[question.request];
  if (world_->now() > deadline)
    Fail(fmt::format("node {} starts to compute request {} {:.3f} ms after its deadline", node, question.request,
                     Milliseconds(world_->now() - deadline)));
  if (question.hop > kMaxHops)
    Fail(fmt::format("request {} is computed after {} hops", question.request, question.hop));
  if (node == r.node) r.inline_until = std::max(r.inline_until, inline_until);
  for (const int row : rows) {
    std::uint16_t& runs = r.runs[stage * r.rows + static_cast<std::size_t>(row)];
    if (++runs > 1 + r.repeats)
      Fail(fmt::format("row {} of request {} is computed by stage {} for the {}. time, after {} repeats", row,
                       question.request, stage, runs, r.repeats));
  }
}

void Invariants::ExpiredInQueue(NodeId node, std::uint64_t request, bool idle_worker) {
  ++counts_.expired;
  if (idle_worker) Fail(fmt::format("request {} expires in a queue of node {} while a worker is idle", request, node));
}

void Invariants::Bound(NodeId node, const char* what, std::size_t value, std::size_t limit) {
  if (value > limit) Fail(fmt::format("node {}: {} is {}, limit {}", node, what, value, limit));
}

void Invariants::Restarted(NodeId node) {
  budgets_[static_cast<std::size_t>(node)] = {};
  const auto begin_again = [](Watched& w) {
    w.failed = 0;
    w.calls.clear();
    ++w.spell;
  };
  for (std::size_t to = 0; to < budgets_.size(); ++to) begin_again(edge(node, static_cast<NodeId>(to)));
  for (std::size_t d = 0; d < plan_->decisions.size(); ++d) {
    for (std::size_t s = 0; s < kMaxStages; ++s) begin_again(stage(node, d, s));
  }
}

void Invariants::RetrySpent(NodeId node) {
  ++counts_.retries;
  Budget& b = budgets_[static_cast<std::size_t>(node)];
  const balance::RetryBudgetOptions& o = spec(node).retries;
  // A budget holds one token at least, or a burst below 1 would forbid retries altogether.
  const double most = o.ratio * static_cast<double>(b.asked) + o.burst;
  if (static_cast<double>(++b.spent) > most + 1e-6)
    Fail(fmt::format("node {} has made {} retries for {} questions; {} * questions + {} are allowed", node, b.spent,
                     b.asked, o.ratio, o.burst));
}

std::uint64_t Invariants::Called(NodeId from, NodeId to) {
  ++counts_.calls;
  Watched& e = edge(from, to);
  if (!e.dead) return e.spell;
  ++counts_.calls_to_dead;
  if (const std::size_t calls = CountCall(from, &e); calls > 0)
    Fail(fmt::format("node {} calls dead parent {} {} times within a minute after {} failures", from, to, calls,
                     e.failed));
  return e.spell;
}

std::size_t Invariants::CountCall(NodeId node, Watched* w) {
  // So many failures in a row trip any breaker, whatever its average was.
  const breaker::BreakerOptions& o = spec(node).breaker;
  const int trips_after = static_cast<int>(std::log(1 - o.trip) / std::log(o.keep)) + 1;
  if (w->failed < trips_after) return 0;
  const TimePoint now = world_->now();
  w->calls.push_back(now);
  while (now - w->calls.front() > kMinute) w->calls.pop_front();
  const auto most = static_cast<std::size_t>(o.probes) * (static_cast<std::size_t>(kMinute / o.open_for) + 1);
  return w->calls.size() > most ? w->calls.size() : 0;
}

std::uint64_t Invariants::StageTaken(NodeId node, std::size_t decision, std::size_t s) {
  Watched& w = stage(node, decision, s);
  if (const std::size_t calls = CountCall(node, &w); calls > 0)
    Fail(fmt::format("node {} gives stage {} work {} times within a minute after {} bad runs", node, s, calls,
                     w.failed));
  return w.spell;
}

void Invariants::StageRan(NodeId node, std::size_t decision, std::size_t s, std::uint64_t spell, bool bad) {
  Watched& w = stage(node, decision, s);
  if (!bad) {
    w.failed = 0;
    w.calls.clear();
    ++w.spell;
  } else if (spell == w.spell) {
    ++w.failed;
  }
}

void Invariants::CallEnded(NodeId from, NodeId to, std::uint64_t spell, Outcome outcome) {
  Watched& e = edge(from, to);
  if (outcome == Outcome::kOk) e.failed = 0;
  if (outcome == Outcome::kFailed && spell == e.spell && e.dead) ++e.failed;
}

void Invariants::SetDead(NodeId from, NodeId to, bool dead) {
  Watched& e = edge(from, to);
  if (e.dead == dead) return;
  e.dead = dead;
  e.failed = 0;
  e.calls.clear();
  ++e.spell;
}

void Invariants::AtEnd() {
  for (std::size_t i = 1; i < requests_.size(); ++i) {
    if (!requests_[i].ended) return Fail(fmt::format("request {} of node {} never ends", i, requests_[i].node));
  }
}

}  // namespace ganglion::sim
