#include "sim/flow.h"

#include <algorithm>
#include <utility>

#include "node/flow.h"
#include "sim/node.h"

namespace ganglion::sim {

using cascade::Reason;
using cascade::Step;

class Flow::StageWait final : public Waiting {
 public:
  StageWait(std::shared_ptr<Flow> flow, std::uint64_t token, std::size_t stage, std::vector<std::size_t> open)
      : flow_(std::move(flow)), token_(token), stage_(stage), open_(std::move(open)) {
    rows = static_cast<std::int64_t>(open_.size());
    deadline = flow_->plan_.deadline;
  }

  bool Collect() override {
    if (flow_->waiting_ != token_) return flow_->node_->has(Mutation::kRunExpired);
    const TimePoint now = flow_->node_->now();
    flow_->result_.queued += now - flow_->wait_began_;
    flow_->for_worker_ = false;  // it has one
    // Waiting for a worker is not slowness of the stage.
    if (flow_->permit_ && !flow_->permit_->probe) flow_->permit_->at = now;
    return true;
  }
  void Compute() override {
    flow_->node_->invariants().Run(flow_->node_->id(), flow_->plan_.question, stage_, flow_->Numbers(open_),
                                   flow_->plan_.deadline, TimePoint::min());
  }
  void Deliver(bool ok, Duration took, Then then) override {
    flow_->node_->StageRan(flow_->plan_.question.decision, stage_, flow_->spell_, ok, took);
    // Though the request has ended meanwhile, the stage is as slow as it is.
    if (!flow_->node_->has(Mutation::kForgetLateRun) || flow_->waiting_ == token_) flow_->ReportRun(stage_, ok);
    if (!flow_->Claim(token_)) return then();
    flow_->Judge(stage_, open_, ok);
    flow_->plan_.may_run_here = true;  // this is a worker
    flow_->Advance(then);
  }
  void Expire() override {
    if (flow_->node_->has(Mutation::kForgetExpired) || !flow_->Claim(token_)) return;
    flow_->FailAll(open_, Reason::kDeadline);
    flow_->Advance([] {});
  }

 private:
  std::shared_ptr<Flow> flow_;
  std::uint64_t token_;
  std::size_t stage_;
  std::vector<std::size_t> open_;
};

void Flow::Start(Node* node, FlowPlan plan, Done done, const Then& then) {
  std::make_shared<Flow>(node, std::move(plan), std::move(done))->Advance(then);
}

Flow::Flow(Node* node, FlowPlan plan, Done done)
    : node_(node), plan_(std::move(plan)), decision_(&node->decision(plan_.question.decision)), done_(std::move(done)) {
  const auto& stages = decision_->stages;
  auto& here = node_->stages(plan_.question.decision);
  local_ = here.size();
  policy_.when_late = plan_.audit ? cascade::WhenLate::kFail : decision_->when_late;
  const TimePoint now = node_->now();
  for (std::size_t i = 0; i < local_; ++i)
    policy_.stages.push_back({stages[i].tier, stages[i].threshold, here[i]->times.fastest(node_->news_at())});
  if (local_ < stages.size()) policy_.stages.push_back({stages[local_].tier, 0, node_->parents().fastest()});
  const std::size_t first = std::min(plan_.first_stage, policy_.stages.size() - 1);
  rows_.reserve(plan_.question.rows.size());
  for (const int number : plan_.question.rows) {
    rows_.push_back({cascade::Cascade(policy_, plan_.deadline), {}, {}});
    rows_.back().best.row = number;
    rows_.back().step = rows_.back().cascade.Begin(now, first);
  }
}

std::vector<std::size_t> Flow::Open() const {
  std::vector<std::size_t> open;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    if (rows_[r].step.kind == Step::Kind::kDefer) open.push_back(r);
  }
  return open;
}

std::vector<int> Flow::Numbers(const std::vector<std::size_t>& open) const {
  std::vector<int> numbers;
  numbers.reserve(open.size());
  for (const std::size_t r : open) numbers.push_back(plan_.question.rows[r]);
  return numbers;
}

std::uint64_t Flow::BeginWait(bool for_worker) {
  for_worker_ = for_worker;
  wait_began_ = node_->now();
  return waiting_ = ++waits_;
}

bool Flow::Claim(std::uint64_t token) {
  if (waiting_ != token) return false;
  waiting_ = 0;
  if (std::exchange(for_worker_, false)) result_.queued += node_->now() - wait_began_;
  node_->executor().Cancel(std::exchange(timer_, {}));
  return true;
}

void Flow::FailAll(const std::vector<std::size_t>& open, Reason reason) {
  const TimePoint now = node_->now();
  for (const std::size_t r : open) rows_[r].step = rows_[r].cascade.OnFailure(reason, now);
}

void Flow::Advance(const Then& then) {
  while (true) {
    const std::vector<std::size_t> open = Open();
    if (open.empty()) {
      Finish();
      return then();
    }
    const std::size_t stage = rows_[open[0]].step.stage;
    if (plan_.cheapest_only && (IsAbove(stage) || stage > plan_.first_stage)) {
      FailAll(open, Reason::kOverload);
      continue;
    }
    if (IsAbove(stage)) {
      if (result_.asked_above == 0 && !plan_.leave_for_above()) {
        FailAll(open, Reason::kOverload);
        continue;
      }
      AskAbove(open);
      return then();
    }
    LocalStage& local = *node_->stages(plan_.question.decision)[stage];
    permit_ = local.breaker.TryAcquire(node_->now());
    if (!permit_) {  // it keeps failing: the next stage is its fallback
      failure_ = Code::kUnavailable;
      FailAll(open, Reason::kFailed);
      continue;
    }
    spell_ = node_->invariants().StageTaken(node_->id(), plan_.question.decision, stage);
    const bool is_short = local.times.usual() * static_cast<std::int64_t>(open.size()) < node::kShortRun;
    if (plan_.may_run_here && is_short) return RunLocal(stage, open, then);
    const std::uint64_t token = BeginWait(true);
    auto waiting = std::make_shared<StageWait>(shared_from_this(), token, stage, open);
    node_->world().Note(What::kQueue, node_->id(), plan_.question.request, static_cast<std::int64_t>(stage),
                        static_cast<std::int64_t>(open.size()));
    timer_ = node_->executor().At(plan_.deadline, [weak = weak_from_this(), token, open, &local] {
      const auto self = weak.lock();
      if (self == nullptr || self->node_->has(Mutation::kForgetExpired) || !self->Claim(token)) return;
      Node& node = *self->node_;
      node.world().Note(What::kExpire, node.id(), self->plan_.question.request);
      node.invariants().ExpiredInQueue(node.id(), self->plan_.question.request,
                                       !local.queue.attended() && node.executor().idle_workers() > 0);
      self->FailAll(open, Reason::kDeadline);
      self->Advance([] {});
    });
    if (local.queue.Enqueue(std::move(waiting))) return then();
    ++node_->invariants().counts().queue_full;
    if (!Claim(token)) return then();
    FailAll(open, Reason::kOverload);
  }
}

void Flow::RunLocal(std::size_t stage, const std::vector<std::size_t>& open, const Then& then) {
  const auto rows = static_cast<std::int64_t>(open.size());
  const Duration takes = node_->Takes(plan_.question.decision, stage, rows);
  const TimePoint end = node_->now() + takes;
  node_->invariants().Run(node_->id(), plan_.question, stage, Numbers(open), plan_.deadline, end);
  node_->executor().At(end, [self = shared_from_this(), stage, open, rows, takes, then] {
    self->node_->stages(self->plan_.question.decision)[stage]->times.Observe(takes, rows, self->node_->news_at());
    const bool ok = !self->node_->broken();
    self->node_->StageRan(self->plan_.question.decision, stage, self->spell_, ok, takes);
    self->ReportRun(stage, ok);
    self->Judge(stage, open, ok);
    self->Advance(then);
  });
}

void Flow::ReportRun(std::size_t stage, bool ok) {
  if (const auto permit = std::exchange(permit_, std::nullopt))
    node_->stages(plan_.question.decision)[stage]->breaker.Report(*permit, ok, node_->now());
}

void Flow::Judge(std::size_t stage, const std::vector<std::size_t>& open, bool ok) {
  const TimePoint now = node_->now();
  if (!ok) {
    failure_ = Code::kInternal;
    return FailAll(open, Reason::kFailed);
  }
  for (const std::size_t r : open) {
    Row& row = rows_[r];
    const int number = plan_.question.rows[r];
    const Score score = decision_->At(plan_.question.request, number, stage);
    if (score.label < 0) {
      row.step = row.cascade.OnFailure(Reason::kFailed, now);
      continue;
    }
    row.best = {number, score.label, score.confidence, stage, decision_->stages[stage].tier, false, false, {}};
    row.step = row.cascade.OnAnswer(score.label, score.confidence, now);
  }
}

void Flow::AskAbove(const std::vector<std::size_t>& open) {
  ParentsQuestion q;
  q.question.request = plan_.question.request;
  q.question.decision = plan_.question.decision;
  q.question.rows = Numbers(open);
  if (plan_.audit) {
    // What was required, or the next above what has been computed here.
    const std::size_t next = std::max(std::min(plan_.first_stage, decision_->stages.size() - 1), local_);
    q.question.require_tier = decision_->stages[next].tier;
  } else if (local_ > 0 && !node_->has(Mutation::kAskFromTheBottom)) {
    q.question.above_tier = policy_.stages[local_ - 1].tier;
  }
  q.highest = node::HighestTier(decision_->privacy);
  const TimePoint now = node_->now();
  const Duration margin = std::max<Duration>(std::chrono::milliseconds(1), (plan_.deadline - now) / 20);
  q.deadline = plan_.deadline - std::min(margin, (plan_.deadline - now) / 2);
  q.question.hop = plan_.question.hop + 1;
  q.audit = plan_.audit;
  result_.asked_above += open.size();
  const std::uint64_t token = BeginWait(false);
  node_->parents().Ask(std::move(q), [self = shared_from_this(), token, open](const ParentsReply& reply) {
    if (!self->Claim(token)) return;
    self->TakeReply(open, reply);
    self->Advance([] {});
  });
}

void Flow::TakeReply(const std::vector<std::size_t>& open, const ParentsReply& reply) {
  if (reply.code != Code::kOk) {
    result_.forbidden |= reply.forbidden;
    failure_ = reply.code;
    return FailAll(open, reply.forbidden   ? Reason::kForbidden
                         : reply.timed_out ? Reason::kDeadline
                                           : Reason::kUnreachable);
  }
  const auto& rows = reply.rows;
  if (std::any_of(rows.begin(), rows.end(), [](const RowAnswer& r) { return r.label < 0; })) {
    failure_ = Code::kDataLoss;
    return FailAll(open, Reason::kFailed);
  }
  const TimePoint now = node_->now();
  for (std::size_t i = 0; i < open.size(); ++i) {
    Row& row = rows_[open[i]];
    const int number = row.best.row;
    row.best = rows[node_->has(Mutation::kMixRows) ? open.size() - 1 - i : i];
    row.best.row = number;
    row.best.from_above = true;
    row.best.reason = row.best.degraded ? "above" : std::string_view();
    row.step = row.cascade.OnAnswer(row.best.label, row.best.confidence, now);
  }
}

void Flow::Finish() {
  bool any = false;
  Reason reason = Reason::kNone;
  for (Row& row : rows_) {
    if (row.step.kind == Step::Kind::kFail) {
      row.best.label = -1;
      reason = row.step.answer.reason;
      row.best.reason = cascade::Name(reason);
      row.best.degraded = true;
    } else {
      any = true;
      if (row.step.answer.degraded) {
        row.best.degraded = true;
        row.best.reason = cascade::Name(row.step.answer.reason);
      }
    }
    if (node_->has(Mutation::kHideDegraded)) row.best.degraded = false, row.best.reason = {};
    if (node_->has(Mutation::kHideReason)) row.best.reason = {};
    result_.rows.push_back(row.best);
  }
  if (!any) {
    switch (reason) {
      case Reason::kDeadline:
        result_.code = Code::kDeadlineExceeded;
        break;
      case Reason::kForbidden:
        result_.code = Code::kFailedPrecondition;
        break;
      case Reason::kOverload:
        result_.code = Code::kResourceExhausted;
        break;
      default:
        result_.code = failure_ == Code::kOk ? Code::kUnavailable : failure_;
    }
  }
  const auto done = std::move(done_);
  done(std::move(result_));
}

}  // namespace ganglion::sim
