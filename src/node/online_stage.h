// An OnlineStage answers with a model of `ganglion learn`, and learns beside it from what came of its decisions.
//
// Intuition: what answers is the model that the lock certifies, and it stays; what learns is a copy that starts from
// it. How both would have done on each reported outcome is counted, so that one sees what certifying the copy would
// bring; then the copy is fetched, put in the model's place and calibrated. Why the copy does not answer by itself: a
// promise is about the model that was certified. One that changes with every outcome could break it, and whoever
// reports outcomes could make it do so.
//
// Inputs are FP32 or BYTES of any shape; how they become features, online/inputs.h says. Scores z [classes]: of two
// classes (0, log odds); of several the scores themselves. A model of numbers (regression) is refused.
// Remembered are as many open decisions and for as long as online::PendingOptions says by default: 100,000, a day.
// A service, thread-safe: Score is lock-free; Remember takes a short lock; outcomes take turns.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/guarded.h"
#include "base/status.h"
#include "learning/outcomes.h"
#include "online/inputs.h"
#include "online/learner.h"
#include "tensor/tensor.h"

namespace ganglion::node {

class OnlineStage {
 public:
  // What a thread needs to score; keep one a thread or lane.
  struct Scratch {
    online::InputFeatures features;
    online::Example example;
    std::vector<float> numbers;
  };

  static Result<std::unique_ptr<OnlineStage>> Create(const std::string& snapshot,
                                                     const std::vector<tensor::Spec>& inputs);

  std::size_t classes() const { return classes_; }
  Scratch MakeScratch() const { return {features_, {}, {}}; }

  // One row of the inputs, in the order of the decision's. REQUIRES: z.size() == classes().
  Status Score(std::span<const tensor::View> inputs, std::size_t row, Scratch* scratch, std::span<float> z) const;

  // The rows wait for their outcome under these ids.
  Status Remember(std::span<const tensor::View> inputs, std::span<const std::string> ids, TimePoint now);

  struct Report {
    std::uint64_t outcomes = 0;  // since it was loaded
    double certified_loss = 0;   // mean over these outcomes: of the model that answers
    double learned_loss = 0;     // and of the copy, each before it learned it
  };
  // NOT_FOUND when the id waits for no outcome here. `label` is a class from 0.
  Status Learn(const std::string& id, int label, float weight, TimePoint now);
  Report report() const;
  // The copy as `ganglion learn` writes it.
  std::string Learned() const { return learning_->Snapshot(); }

 private:
  OnlineStage(online::Learner certified, std::unique_ptr<learning::OutcomeLearner> learning,
              online::InputFeatures features, std::size_t classes)
      : certified_(std::move(certified)),
        learning_(std::move(learning)),
        features_(std::move(features)),
        classes_(classes) {}
  Status Features(std::span<const tensor::View> inputs, std::size_t row, Scratch* scratch) const;
  void Scores(std::span<const online::Feature> features, std::span<float> z) const;

  const online::Learner certified_;
  std::unique_ptr<learning::OutcomeLearner> learning_;
  const online::InputFeatures features_;
  const std::size_t classes_;
  struct Sums {
    std::uint64_t outcomes = 0;
    double weight = 0, certified = 0, learned = 0;
  };
  mutable Guarded<Sums> sums_;
};

}  // namespace ganglion::node
