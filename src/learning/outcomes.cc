#include "learning/outcomes.h"

#include <cmath>
#include <utility>

#include "online/snapshot.h"

namespace ganglion::learning {

Result<std::unique_ptr<OutcomeLearner>> OutcomeLearner::Create(std::string_view snapshot,
                                                               const online::PendingOptions& pending) {
  ASSIGN_OR_RETURN(SharedLearner learner, online::Restore<Relaxed>(snapshot));
  return std::unique_ptr<OutcomeLearner>(new OutcomeLearner(std::move(learner), pending));
}

Status OutcomeLearner::Predict(const std::string& id, online::Example example, TimePoint now, std::span<float> scores) {
  const std::uint32_t mask = (1u << options().bits) - 1;
  for (const online::Feature& f : example.features) {
    if (!std::isfinite(f.value) || f.index > mask)
      return InvalidArgument("a feature at place " + std::to_string(f.index) + " is no finite number, or lies beyond " +
                             "the table's last place, " + std::to_string(mask));
  }
  learner_.Predict(example.features, scores);
  if (!id.empty()) pending_.With([&](online::Pending& p) { p.Remember(id, std::move(example), now); });
  return {};
}

Result<OutcomeLearner::Learned> OutcomeLearner::Learn(const std::string& id, float label, float weight, TimePoint now) {
  auto example = pending_.With([&](online::Pending& p) { return p.Take(id, now); });
  if (!example) {
    return NotFound("no prediction \"" + id +
                    "\" waits for an outcome: it was never made here, has had one, or is too long ago");
  }
  example->label = label;
  example->labelled = true;
  example->weight = weight;
  const std::lock_guard lock(learning_);
  ASSIGN_OR_RETURN(const online::Outcome outcome, learner_.Learn(*example, online::StepBits(learner_.state())));
  return Learned{outcome, std::move(*example)};
}

std::string OutcomeLearner::Snapshot() const {
  const std::lock_guard lock(learning_);
  return online::Snapshot(learner_);
}

online::Progress OutcomeLearner::progress() const {
  const std::lock_guard lock(learning_);
  return learner_.progress();
}

std::size_t OutcomeLearner::open() const {
  return pending_.With([](online::Pending& p) { return p.size(); });
}

}  // namespace ganglion::learning
