#include "sim/node.h"

#include <algorithm>
#include <utility>

namespace ganglion::sim {
namespace {

using admission::AdmissionOutcome;

constexpr int kMaxHops = 8;
constexpr int kMaxAbove = 4000;  // requests that wait for somebody above
constexpr Duration kProbeEvery = std::chrono::seconds(2);

}  // namespace

Node::Node(NodeId id, const Surroundings& surroundings, const Ailment* ailment)
    : id_(id),
      around_(surroundings),
      spec_(around_.plan->nodes[static_cast<std::size_t>(id)]),
      ailment_(ailment),
      executor_(around_.world, spec_.workers),
      parents_(this, spec_),
      admission_(admission::ConcurrencyLimit::Create(spec_.admission).value()) {
  world().Note(What::kStart, id_);
  const auto& decisions = around_.plan->decisions;
  served_.resize(decisions.size());
  for (std::size_t d = 0; d < decisions.size(); ++d) {
    served_[d].served = spec_.tier <= node::HighestTier(decisions[d].privacy);
    if (!served_[d].served) continue;
    const auto& stages = decisions[d].stages;
    for (std::size_t s = 0; s < stages.size() && stages[s].tier <= spec_.tier; ++s) {
      served_[d].stages.push_back(std::make_unique<LocalStage>(this, d, s, stages[s].together,
                                                               batching::Batcher::Create(spec_.batching).value(),
                                                               breaker::CircuitBreaker::Create(spec_.breaker).value()));
      // Of three runs on zeros the last two are looked at.
      for (int n = 0; n < 2; ++n) served_[d].stages.back()->times.Observe(Takes(d, s, 1), 1, news_at());
    }
  }
  if (!spec_.parents.empty()) executor_.Soon([this] { KeepProbing(); });
}

void Node::KeepProbing() {
  parents_.Probe();
  executor_.At(now() + kProbeEvery, [this] { KeepProbing(); });
}

Duration Node::Takes(std::size_t d, std::size_t stage, std::int64_t rows) const {
  const StageSpec& s = decision(d).stages[stage];
  const double factor =
      (1 + s.per_row * static_cast<double>(rows - 1)) * world().random().Uniform(.9, 1.1) * ailment_->slow;
  return std::min(kLongestRun, std::chrono::duration_cast<Duration>(s.service * factor));
}

void Node::Infer(NodeId from, const Question& question) {
  auto p = std::make_shared<Pending>();
  p->from = from;
  p->question = question;
  p->begin = now();
  p->number = next_number_++;
  under_way_.emplace(p->number, p);
  if (executor_.idle_workers() > 0) {
    p->may_run_here = true;
    executor_.Post([this, p](const Then& then) { Run(p, then); });
  } else {
    executor_.Soon([this, p] { Run(p, [] {}); });
  }
}

void Node::Run(const std::shared_ptr<Pending>& p, const Then& then) {
  Code code = served_[p->question.decision].served ? ReadParameters(p.get()) : Code::kNotFound;
  if (code == Code::kOk && now() >= p->deadline) code = Code::kDeadlineExceeded;
  if (code == Code::kOk) return Compute(p, then);
  Answer(p, code, {});
  then();
}

Code Node::ReadParameters(Pending* p) const {
  const Question& q = p->question;
  p->deadline = p->begin + q.left;
  if (q.hop > kMaxHops && !has(Mutation::kIgnoreHops)) return Code::kFailedPrecondition;
  const auto& stages = decision(q.decision).stages;
  for (const bool strictly : {true, false}) {
    const auto& tier = strictly ? q.above_tier : q.require_tier;
    if (!tier) continue;
    const auto it = std::find_if(stages.begin(), stages.end(),
                                 [&](const StageSpec& s) { return strictly ? s.tier > *tier : s.tier >= *tier; });
    if (it == stages.end()) return Code::kFailedPrecondition;
    p->first_stage = std::max(p->first_stage, static_cast<std::size_t>(it - stages.begin()));
    p->audit |= !strictly;
  }
  return Code::kOk;
}

void Node::Compute(const std::shared_ptr<Pending>& p, const Then& then) {
  const Question& q = p->question;
  p->admitted = admission_.TryAcquire();
  p->admitted_at = now();
  invariants().Bound(id_, "requests inside", static_cast<std::size_t>(admission_.in_flight()),
                     static_cast<std::size_t>(spec_.admission.max));
  if (p->admitted) {
    world().Note(What::kAdmit, id_, q.request, admission_.in_flight(), admission_.limit());
    return RunDecision(p, false, then);
  }
  const bool cheaper =
      p->first_stage + 1 < decision(q.decision).stages.size() && p->first_stage < served_[q.decision].stages.size();
  if (cheaper && cheap_under_way_++ < 2 * executor_.workers()) {
    p->cheap = true;
    ++invariants().counts().cheaper;
    world().Note(What::kCheaper, id_, q.request, admission_.in_flight(), admission_.limit());
    return RunDecision(p, true, then);
  }
  if (cheaper) --cheap_under_way_;
  ++invariants().counts().refused;
  world().Note(What::kRefuse, id_, q.request, admission_.in_flight(), admission_.limit());
  Answer(p, Code::kResourceExhausted, {});
  then();
}

void Node::RunDecision(const std::shared_ptr<Pending>& p, bool cheapest_only, const Then& then) {
  FlowPlan plan;
  plan.question = p->question;
  plan.deadline = p->deadline;
  plan.first_stage = p->first_stage;
  plan.cheapest_only = cheapest_only;
  plan.may_run_here = p->may_run_here;
  plan.audit = p->audit;
  plan.leave_for_above = [this, p] {
    Release(p.get(), AdmissionOutcome::kOk);  // what it did here was in time
    p->above = above_under_way_++ < kMaxAbove;
    if (!p->above) --above_under_way_;
    return p->above;
  };
  Flow::Start(
      this, std::move(plan), [this, p](FlowResult result) { FinishDecision(p, std::move(result)); }, then);
}

void Node::FinishDecision(const std::shared_ptr<Pending>& p, FlowResult result) {
  if (std::exchange(p->above, false)) --above_under_way_;
  const bool degraded =
      std::any_of(result.rows.begin(), result.rows.end(), [](const RowAnswer& r) { return r.degraded; });
  if (!(has(Mutation::kLeakAdmission) && degraded))
    Release(p.get(), admission::Judge(now() - p->admitted_at, result.queued, p->deadline - p->admitted_at));
  p->admitted = false;
  if (result.code != Code::kOk) return Answer(p, result.code, {});
  Audit(*p, result.rows);
  Answer(p, Code::kOk, std::move(result.rows));
}

void Node::Release(Pending* p, AdmissionOutcome outcome) {
  if (p->cheap) --cheap_under_way_;
  p->cheap = false;
  if (!std::exchange(p->admitted, false)) return;
  admission_.Release(outcome, now() - p->admitted_at, now());
}

void Node::Answer(const std::shared_ptr<Pending>& p, Code code, std::vector<RowAnswer> rows) {
  if (std::exchange(p->answered, true)) return;
  Release(p.get(), AdmissionOutcome::kIgnored);
  under_way_.erase(p->number);
  world().Note(What::kAnswer, id_, p->question.request, p->from, static_cast<std::int64_t>(code));
  const Reply reply{p->question.call, code, std::move(rows)};
  if (p->from == kOutside) return network().End(id_, p->question.request, reply);
  network().Answer(id_, p->from, reply);
}

void Node::Audit(const Pending& p, const std::vector<RowAnswer>& rows) {
  const DecisionSpec& d = decision(p.question.decision);
  if (d.audit <= 0 || p.audit || p.question.hop > 0 || spec_.parents.empty()) return;
  const topology::Tier top = d.stages.back().tier;
  for (const RowAnswer& r : rows) {
    if (r.degraded || r.from_above || r.label < 0 || r.tier >= top) continue;
    if (world().random().Uniform() >= d.audit) continue;
    if (!parents_.Live(node::HighestTier(d.privacy))) continue;
    ParentsQuestion q;
    q.deadline = now() + std::max<Duration>(d.deadline, std::chrono::seconds(1));
    q.question.request = network().NewRequest(id_, p.question.decision, 1, q.deadline);
    q.question.decision = p.question.decision;
    q.question.rows = {0};
    q.question.require_tier = top;
    q.question.hop = p.question.hop + 1;
    q.highest = node::HighestTier(d.privacy);
    q.audit = true;
    world().Note(What::kAudit, id_, q.question.request, r.row);
    const auto request = q.question.request;
    parents_.Ask(std::move(q), [this, request](const ParentsReply& reply) {
      network().End(id_, request, {0, reply.code, reply.rows});
    });
  }
}

std::vector<std::pair<NodeId, std::uint64_t>> Node::Asked() const {
  std::vector<std::pair<NodeId, std::uint64_t>> asked;
  for (const auto& [number, p] : under_way_) {
    if (p->from != kOutside) asked.emplace_back(p->from, p->question.call);
  }
  return asked;
}

void Node::CheckRest() const {
  invariants().Rest(id_, "requests under way at rest", under_way_.size());
  invariants().Rest(id_, "requests inside at rest", static_cast<std::size_t>(admission_.in_flight()));
  invariants().Rest(id_, "requests for the cheapest stage at rest", static_cast<std::size_t>(cheap_under_way_));
  invariants().Rest(id_, "requests away at rest", static_cast<std::size_t>(above_under_way_));
  invariants().Rest(id_, "calls under way at rest", static_cast<std::size_t>(parents_.in_flight()));
  invariants().Rest(id_, "busy workers at rest", executor_.busy());
  for (const Served& served : served_) {
    for (const auto& stage : served.stages) invariants().Rest(id_, "requests in a queue at rest", stage->queue.depth());
  }
}

}  // namespace ganglion::sim
