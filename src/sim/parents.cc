#include "sim/parents.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "sim/node.h"

namespace ganglion::sim {

using Outcome = Invariants::Outcome;

Parents::Parents(Node* node, const NodeSpec& spec)
    : node_(node), hedge_(spec.hedge), retries_(balance::RetryBudget::Create(spec.retries).value()) {
  // A reply to an earlier life of this node must not pass for one to this: calls are never counted twice.
  next_call_ = static_cast<std::uint64_t>(node_->now().time_since_epoch().count());
  for (const ParentSpec& p : spec.parents) {
    Parent parent(p.node, breaker::CircuitBreaker::Create(spec.breaker).value());
    if (p.configured) parent.tier = node_->tier_of(p.node);
    parents_.push_back(std::move(parent));
  }
}

void Parents::Probe() {
  for (Parent& p : parents_) {
    p.up = node_->network().Probe(node_->id(), p.node);
    if (p.up) p.tier = node_->tier_of(p.node);
  }
}

bool Parents::Live(topology::Tier highest) const {
  const TimePoint now = node_->now();
  return std::any_of(parents_.begin(), parents_.end(), [&](const Parent& p) {
    return p.up && p.tier <= highest && p.breaker.state(now) != breaker::State::kOpen;
  });
}

Duration Parents::fastest() const { return fastest_.at(node_->news_at()); }

int Parents::in_flight() const {
  int sum = 0;
  for (const Parent& p : parents_) sum += p.in_flight;
  return sum;
}

std::uint64_t Parents::trips() const {
  std::uint64_t sum = 0;
  for (const Parent& p : parents_) sum += p.breaker.trips();
  return sum;
}

bool Parents::TakeRetry() {
  if (!retries_.TryRetry() && !node_->has(Mutation::kRetryUnlimited)) return false;
  node_->invariants().RetrySpent(node_->id());
  return true;
}

void Parents::Ask(ParentsQuestion question, std::function<void(const ParentsReply&)> done) {
  auto asking = std::make_shared<Asking>();
  asking->question = std::move(question);
  asking->done = std::move(done);
  const Question& q = asking->question.question;
  node_->world().Note(What::kAsk, node_->id(), q.request, q.hop,
                      (asking->question.deadline - node_->now()).count() / 1000);
  retries_.OnRequest();
  node_->invariants().Asked(node_->id());
  if (!node_->has(Mutation::kNoQuestionTimer)) {
    asking->timer = node_->executor().At(asking->question.deadline, [this, asking] {
      ParentsReply reply;
      reply.timed_out = true;
      reply.code = Code::kDeadlineExceeded;
      Finish(asking, reply);
    });
  }
  if (hedge_ && !asking->question.audit) {
    asking->hedge = node_->executor().At(node_->now() + *hedge_, [this, asking] {
      if (TakeRetry()) Try(asking);
    });
  }
  Try(asking);
}

void Parents::Try(const std::shared_ptr<Asking>& asking) {
  const TimePoint now = node_->now();
  const ParentsQuestion& q = asking->question;
  if (asking->over) return;
  std::vector<double> costs;
  bool allowed = false;
  for (std::size_t i = 0; i < parents_.size(); ++i) {
    const Parent& p = parents_[i];
    double cost = std::numeric_limits<double>::infinity();
    const bool may = p.tier <= q.highest || node_->has(Mutation::kIgnorePrivacy);
    const bool asked = std::any_of(asking->attempts.begin(), asking->attempts.end(),
                                   [&](const Asking::Attempt& a) { return a.parent == i; });
    allowed |= may;
    if (may && !asked && p.breaker.state(now) != breaker::State::kOpen) cost = p.latency.Cost(p.in_flight, now);
    if (node_->has(Mutation::kNoProbe) && p.breaker.trips() > 0) cost = std::numeric_limits<double>::infinity();
    costs.push_back(cost);
  }
  const std::size_t attempt = asking->attempts.size();
  bool sent = false;
  while (!parents_.empty()) {
    const std::size_t i = balance::PickOfTwo(costs, node_->world().random().Next());
    if (i == balance::kNone) break;
    Parent& parent = parents_[i];
    const auto permit = parent.breaker.TryAcquire(now);
    if (!permit) {
      costs[i] = std::numeric_limits<double>::infinity();
      continue;
    }
    ++parent.in_flight;
    asking->attempts.push_back({i, *permit, now, 0, 0, true});
    sent = true;
    break;
  }
  if (!sent) {
    if (attempt > 0) return;
    ParentsReply reply;
    reply.forbidden = !allowed && !parents_.empty();
    reply.code = reply.forbidden ? Code::kFailedPrecondition : Code::kUnavailable;
    if (reply.forbidden) node_->world().Note(What::kForbidden, node_->id(), q.question.request);
    return Finish(asking, reply);
  }
  Asking::Attempt& a = asking->attempts[attempt];
  const NodeId to = parents_[a.parent].node;
  if (attempt > 0) {
    node_->invariants().Repeated(q.question.request);
    node_->world().Note(What::kRetry, node_->id(), q.question.request);
  }
  const Duration left = q.deadline - now;
  if (left <= Duration::zero()) return;  // the timer is about to say so
  a.call = next_call_++;
  a.spell = node_->invariants().Called(node_->id(), to);
  node_->world().Note(What::kCall, node_->id(), q.question.request, to, static_cast<std::int64_t>(attempt));
  calls_.emplace(a.call, std::pair(asking, attempt));
  Question message = q.question;
  message.call = a.call;
  message.left = left;
  node_->network().Ask(node_->id(), to, message);
}

void Parents::OnReply(const Reply& reply) {
  const auto it = calls_.find(reply.call);
  if (it == calls_.end()) return;  // forgotten
  const auto call = it->second;
  calls_.erase(it);
  Answered(call.first, call.second, reply);
}

void Parents::Answered(const std::shared_ptr<Asking>& asking, std::size_t attempt, const Reply& reply) {
  const TimePoint now = node_->now();
  Asking::Attempt& a = asking->attempts[attempt];
  if (asking->over || !a.open) return;
  a.open = false;
  Parent& parent = parents_[a.parent];
  const Duration took = now - a.at;
  bool others = std::any_of(asking->attempts.begin(), asking->attempts.end(),
                            [](const Asking::Attempt& other) { return other.open; });
  const bool ok = reply.code == Code::kOk;
  const bool fault = !ok && reply.code != Code::kInvalidArgument && reply.code != Code::kNotFound &&
                     reply.code != Code::kFailedPrecondition && reply.code != Code::kUnimplemented;
  node_->world().Note(What::kReply, node_->id(), asking->question.question.request, parent.node,
                      static_cast<std::int64_t>(reply.code));
  node_->invariants().CallEnded(node_->id(), parent.node, a.spell, fault ? Outcome::kFailed : Outcome::kOk);
  if (ok || !node_->has(Mutation::kLeakParentInFlight)) --parent.in_flight;
  parent.breaker.Report(a.permit, !fault, now);
  if (ok) {
    parent.latency.Observe(took, now);
    parent.up = true;
    fastest_.Observe(took, node_->news_at());
  } else {
    parent.latency.ObserveFailure(took, std::chrono::seconds(1), now);
    if (!asking->question.audit && parents_.size() > asking->attempts.size() && TakeRetry()) {
      const std::size_t before = asking->attempts.size();
      Try(asking);
      others |= asking->attempts.size() > before;
    }
    if (others) return;
  }
  ParentsReply end;
  end.code = reply.code;
  end.rows = reply.rows;
  Finish(asking, end);
}

void Parents::Finish(const std::shared_ptr<Asking>& asking, const ParentsReply& reply) {
  const TimePoint now = node_->now();
  if (asking->over) return;
  asking->over = true;
  const auto done = std::move(asking->done);
  if (!reply.timed_out) node_->executor().Cancel(asking->timer);
  node_->executor().Cancel(asking->hedge);
  for (Asking::Attempt& a : asking->attempts) {
    if (!std::exchange(a.open, false)) continue;
    calls_.erase(a.call);
    Parent& parent = parents_[a.parent];
    --parent.in_flight;
    node_->world().Note(What::kTimeout, node_->id(), asking->question.question.request, parent.node, reply.timed_out);
    node_->invariants().CallEnded(node_->id(), parent.node, a.spell,
                                  reply.timed_out ? Outcome::kFailed : Outcome::kUnknown);
    if (reply.timed_out) {
      ++node_->invariants().counts().timeouts;
      parent.breaker.Report(a.permit, node_->has(Mutation::kTimeoutIsSuccess), now);
      parent.latency.ObserveFailure(now - a.at, now - a.at, now);
    } else if (node_->has(Mutation::kHedgeLoserIsSuccess)) {
      parent.breaker.Report(a.permit, true, now);
    } else {
      // Another was faster. It takes at least so long; whether it works it has not shown.
      parent.latency.ObserveFailure(now - a.at, parent.latency.latency(now), now);
      if (a.permit.probe) parent.breaker.Report(a.permit, false, now);
    }
  }
  done(reply);
}

}  // namespace ganglion::sim
