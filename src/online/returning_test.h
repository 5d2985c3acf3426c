// For tests and the benchmark: a stream that leaves a concept and returns to it, and how much of it was forgotten.
//
// An example has five words of two hundred and a site; its features are the words and each word with the site. In
// summer there is one site, in winter there are twenty, and there the same words speak against the label. A model has
// room for both, in the weights of words with sites. But these are rare in winter, so what nothing holds unlearns the
// weights of the words themselves, which are shared.
#pragma once

#include <cmath>
#include <vector>

#include "base/random.h"
#include "online/learner.h"

namespace ganglion::online {

class ReturningStream {
 public:
  static constexpr std::uint32_t kWords = 200;
  static constexpr std::uint32_t kSites = 20;
  static constexpr int kBits = 13;

  explicit ReturningStream(std::uint64_t seed) : random_(seed), truth_(kWords) {
    for (double& w : truth_) w = random_.Normal();
  }
  Example Next(bool winter) {
    Example e;
    e.labelled = true;
    double score = 0;
    const std::uint32_t site = winter ? 1 + static_cast<std::uint32_t>(random_.Below(kSites)) : 0;
    for (int i = 0; i < 5; ++i) {
      const auto word = static_cast<std::uint32_t>(random_.Below(kWords));
      e.features.push_back({word, 1});
      e.features.push_back({512 + site * kWords + word, 1});
      score += truth_[word];
    }
    AppendConstant(kBits, &e);
    e.label = random_.Uniform() < 1 / (1 + std::exp(winter ? score : -score)) ? 1 : -1;
    return e;
  }
  std::uint64_t Bits() { return random_.Next(); }

 private:
  Random random_;
  std::vector<double> truth_;
};

struct Forgetting {
  double before = 0;    // mean loss on 4,000 summer examples that were never learned, when the first summer ends
  double returned = 0;  // on the same, when summer comes back: before it is learned again
  double winter = 0;    // progressive loss of the last 2,000 examples of winter: what protection costs
  double forgotten() const { return returned - before; }
};

// A summer and a winter of `season` examples each. The anchor, if there is one, is placed when the summer ends.
inline Forgetting MeasureForgetting(LearnerOptions options, std::uint64_t seed, int season) {
  options.task = Task::kBinary;
  options.bits = ReturningStream::kBits;
  auto learner = Learner::Create(options);
  GANGLION_CHECK(learner.ok());
  ReturningStream stream(seed);
  std::vector<Example> summer;
  summer.reserve(4000);
  for (int i = 0; i < 4000; ++i) summer.push_back(stream.Next(false));
  const auto unseen = [&] {
    double sum = 0;
    float score = 0;
    for (const Example& e : summer) {
      learner->Predict(e.features, {&score, 1});
      sum += learner->Loss({&score, 1}, e.label);
    }
    return sum / static_cast<double>(summer.size());
  };
  const auto live = [&](bool winter) {
    double sum = 0;
    for (int i = 0; i < season; ++i) {
      const auto outcome = learner->Learn(stream.Next(winter), stream.Bits());
      GANGLION_CHECK(outcome.ok());
      if (i >= season - 2000) sum += outcome->loss;
    }
    return sum / 2000;
  };
  Forgetting f;
  (void)live(false);
  f.before = unseen();
  if (options.anchor > 0) learner->PlaceAnchor();
  f.winter = live(true);
  f.returned = unseen();
  return f;
}

}  // namespace ganglion::online
