#include "cascade/cascade.h"

#include <algorithm>

#include "base/check.h"

namespace ganglion::cascade {

std::string_view Name(Reason reason) {
  switch (reason) {
    case Reason::kNone:
      return "";
    case Reason::kDeadline:
      return "deadline";
    case Reason::kUnreachable:
      return "unreachable";
    case Reason::kFailed:
      return "failed";
    case Reason::kForbidden:
      return "forbidden";
    case Reason::kOverload:
      return "overload";
  }
  return "";
}

Step Cascade::Begin(TimePoint now, std::size_t first) {
  GANGLION_CHECK(first < policy_->stages.size());
  return TryStage(first, now);
}

Step Cascade::OnAnswer(int label, float confidence, TimePoint now) {
  best_ = {label, confidence, stage_, false, Reason::kNone};
  has_best_ = true;
  const bool top = stage_ + 1 == policy_->stages.size();
  if (now > deadline_) return Finish(Reason::kDeadline);
  if (top || static_cast<double>(confidence) >= policy_->stages[stage_].threshold) {
    return {Step::Kind::kAnswer, stage_, {}, best_};
  }
  return TryStage(stage_ + 1, now);
}

Step Cascade::OnFailure(Reason reason, TimePoint now) {
  GANGLION_CHECK(reason != Reason::kNone);
  if (reason == Reason::kFailed && stage_ + 1 < policy_->stages.size()) return TryStage(stage_ + 1, now);
  if (now >= deadline_) return Finish(Reason::kDeadline);
  return Finish(reason);
}

Step Cascade::TryStage(std::size_t stage, TimePoint now) {
  const StagePolicy& s = policy_->stages[stage];
  const Duration left = deadline_ - now;
  if (left <= Duration::zero() || left < s.shortest) return Finish(Reason::kDeadline);
  stage_ = stage;
  const TimePoint give_up_at = s.patience < left ? now + s.patience : deadline_;
  return {Step::Kind::kDefer, stage, give_up_at, {}};
}

Step Cascade::Finish(Reason reason) const {
  Step step;
  step.kind = has_best_ && policy_->when_late == WhenLate::kAnswer ? Step::Kind::kAnswer : Step::Kind::kFail;
  step.stage = best_.stage;
  if (step.kind == Step::Kind::kAnswer) step.answer = best_;
  step.answer.degraded = true;
  step.answer.reason = reason;
  return step;
}

}  // namespace ganglion::cascade
