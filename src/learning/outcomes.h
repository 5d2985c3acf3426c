// An OutcomeLearner answers now and learns later, when somebody reports what came of the decision.
//
// Intuition: a request is predicted and leaves its features behind under the id of its decision; the report of the
// outcome names that id. Only what was predicted here is learned, with the features as they were, once.
// What is open is bounded in number and age (online/pending.h); reports for what is no longer open say so.
//
// This is what a decision stage made of an online model runs on: Predict in the request's thread, Learn where outcomes
// arrive, Snapshot now and then to keep what was learned.
//
// A service, thread-safe: predictions never wait for a step (shared.h), only for the short entry into the list of open
// ones; steps and snapshots take turns.
// Errors: NOT_FOUND for an id that is not open; what Learn of online/learner.h refuses (then the id is used up).
// Cost: a prediction and an entry, about 1 us; memory as pending.h says.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/guarded.h"
#include "base/status.h"
#include "learning/shared.h"
#include "online/pending.h"

namespace ganglion::learning {

class OutcomeLearner {
 public:
  // From a snapshot, as `ganglion learn -m` writes it.
  static Result<std::unique_ptr<OutcomeLearner>> Create(std::string_view snapshot,
                                                        const online::PendingOptions& pending = {});

  const online::LearnerOptions& options() const { return learner_.options(); }
  std::uint32_t outputs() const { return learner_.outputs(); }

  // The scores, as online/learner.h has them. With an id the example waits for its outcome; without, it is forgotten.
  // Refuses values that are not finite. REQUIRES: scores.size() == outputs().
  Status Predict(const std::string& id, online::Example example, TimePoint now, std::span<float> scores);

  struct Learned {
    online::Outcome outcome;
    online::Example example;  // as it was predicted, with its label
  };
  // What came of it. `weight`: how much it counts (1 / propensity where the decision was drawn at random).
  Result<Learned> Learn(const std::string& id, float label, float weight, TimePoint now);

  std::string Snapshot() const;
  online::Progress progress() const;
  std::size_t open() const;

 private:
  OutcomeLearner(SharedLearner learner, const online::PendingOptions& pending)
      : learner_(std::move(learner)), pending_(pending) {}

  SharedLearner learner_;
  mutable std::mutex learning_;  // held for a step or a snapshot
  mutable Guarded<online::Pending> pending_;
};

}  // namespace ganglion::learning
