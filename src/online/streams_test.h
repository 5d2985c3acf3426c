// For tests: streams with a known truth, made from a seed.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/random.h"
#include "online/learner.h"

namespace ganglion::online {

struct Named {
  std::string name;
  LearnerOptions options;
};

// One of each kind: what the contract holds for.
inline std::vector<Named> EveryLearner() {
  std::vector<Named> all;
  const auto add = [&all](const std::string& name, const std::function<void(LearnerOptions*)>& set) {
    LearnerOptions o;
    o.bits = 10;
    o.seed = 5;
    set(&o);
    all.push_back({name, o});
  };
  add("Regression", [](LearnerOptions*) {});
  add("RegressionPlain", [](LearnerOptions* o) { o->adaptive = o->normalised = o->invariant = false; });
  add("RegressionFtrl", [](LearnerOptions* o) { o->update = Update::kFtrl; });
  add("Logistic", [](LearnerOptions* o) { o->task = Task::kBinary; });
  add("LogisticPowers", [](LearnerOptions* o) {
    o->task = Task::kBinary;
    o->power_t = .3;
    o->l1 = 1e-4;
    o->l2 = 1e-4;
  });
  add("LogisticFtrl", [](LearnerOptions* o) {
    o->task = Task::kBinary;
    o->update = Update::kFtrl;
    o->l1 = .1;
    o->l2 = .1;
  });
  add("LogisticReplay", [](LearnerOptions* o) {
    o->task = Task::kBinary;
    o->replay = 50;
    o->replays = 2;
  });
  add("LogisticAnchor", [](LearnerOptions* o) {
    o->task = Task::kBinary;
    o->anchor = .01;
    o->anchor_every = 100;
  });
  add("FtrlAnchorReplay", [](LearnerOptions* o) {
    o->task = Task::kBinary;
    o->update = Update::kFtrl;
    o->anchor = .01;
    o->anchor_every = 100;
    o->replay = 50;
  });
  add("OneAgainstAll", [](LearnerOptions* o) {
    o->task = Task::kOneAgainstAll;
    o->classes = 4;
  });
  add("OneAgainstAllFtrl", [](LearnerOptions* o) {
    o->task = Task::kOneAgainstAll;
    o->classes = 4;
    o->update = Update::kFtrl;
  });
  add("Softmax", [](LearnerOptions* o) {
    o->task = Task::kSoftmax;
    o->classes = 4;
  });
  add("SoftmaxFtrl", [](LearnerOptions* o) {
    o->task = Task::kSoftmax;
    o->classes = 4;
    o->update = Update::kFtrl;
  });
  add("FactorsRegression", [](LearnerOptions* o) { o->factors = 4; });
  add("FactorsLogisticFtrl", [](LearnerOptions* o) {
    o->task = Task::kBinary;
    o->factors = 4;
    o->update = Update::kFtrl;
  });
  return all;
}

// Examples of ten sparse features out of a hundred, whose label a linear truth draws.
class Stream {
 public:
  Stream(const LearnerOptions& options, std::uint64_t seed) : options_(options), random_(seed), truth_(100 * 4) {
    Random truth(99);
    for (float& w : truth_) w = static_cast<float>(truth.Normal());
  }
  Example Next() {
    Example e;
    std::array<double, 4> scores{};
    for (int i = 0; i < 10; ++i) {
      const auto at = static_cast<std::uint32_t>(random_.Below(100));
      const auto value = static_cast<float>(random_.Uniform(.5, 2));
      e.features.push_back({at * 7 + 3, value});
      for (std::size_t k = 0; k < 4; ++k) scores[k] += truth_[at * 4 + k] * value;
    }
    AppendConstant(options_.bits, &e);
    e.weight = random_.Below(4) == 0 ? 2 : 1;
    e.labelled = true;
    if (options_.task == Task::kRegression) {
      e.label = static_cast<float>(scores[0] + .1 * random_.Normal());
    } else if (options_.task == Task::kBinary) {
      e.label = random_.Uniform() < 1 / (1 + std::exp(-scores[0])) ? 1 : -1;
    } else {
      e.label = static_cast<float>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    }
    return e;
  }

 private:
  LearnerOptions options_;
  Random random_;
  std::vector<float> truth_;
};

inline std::vector<Example> Take(Stream* stream, int n) {
  std::vector<Example> all;
  all.reserve(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) all.push_back(stream->Next());
  return all;
}

template <class Access>
void LearnAll(BasicLearner<Access>* learner, const std::vector<Example>& examples) {
  for (const Example& e : examples) {
    const auto outcome = learner->Learn(e, StepBits(learner->state()));
    ASSERT_TRUE(outcome.ok()) << outcome.status().message();
  }
}

}  // namespace ganglion::online
