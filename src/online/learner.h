// A Learner takes one example at a time: it says what it expects, is told what came of it, and is a little wiser.
//
// Intuition: a long vector of weights, one for each place of the table; the score is the sum of the weights of the
// features at hand. After each outcome the weights of these features, and no others, move against the error. A second
// with half a million examples is one second's work for one core, and nothing is ever gone over twice.
//
// score(x) = sum_i w_i x_i, and for a factorisation machine + sum_{i<j} <v_i, v_j> x_i x_j with v_i in R^k
//
// Gradient steps, adaptive, normalised and invariant (each can be left out). N_i is the largest |x_i| so far, G_i the
// sum of squared gradients, d the loss's derivative, W the weight of all examples so far:
//     w_i *= N_i / |x_i|, N_i = |x_i|   where |x_i| is larger than N_i
//     G_i += weight d^2 x_i^2
//     rate_i = rate sqrt(W / sum of x_j^2 / N_j^2) / (N_i sqrt(G_i))
//     w_i moves along x_i rate_i until the score has moved as loss.h says for an invariant step; else by d rate_i x_i
//   This is normalised adaptive gradient (NAG): features need no scaling, rare features learn fast, weights of examples
//   are exact.
// FTRL-Proximal, per coordinate, g = weight d x_i:
//     z_i += g - (sqrt(n_i + g^2) - sqrt(n_i)) w_i / alpha;  n_i += g^2
//     w_i = 0 where |z_i| <= l1, else -(z_i - sign(z_i) l1) / ((beta + sqrt(n_i)) / alpha + l2)
//   Its weights are exactly zero where l1 says so: the model of a stream of rare words stays small.
// Factors move by adaptive gradient, each with its own sum.
// l1 and l2 of gradient steps are proximal (w = soft(w, s l1) / (1 + s l2), s = rate_i), on the features at hand.
//
// Against forgetting. An anchor (a_i, F_i) is a copy of the weights and of their evidence G_i; with `anchor` lambda,
// every step ends with w_i = (w_i + c a_i) / (1 + c), c = rate_i lambda F_i: a weight that many examples have made is
// held, one that none has made is free (elastic weight consolidation). lambda .01: a hundred new examples weigh about
// as much as all before the anchor. And a reservoir (reservoir.h) from which some examples are learned again with each
// new one.
// Why both: the anchor costs no memory of examples, which may be private; replay works where old and new concept share
// no weights at all, and where the old one is to be learned further.
//
// Loss is progressive: predicted first, learned after, so every example is a test before it is a lesson, and the mean
// loss is honest without data held out.
//
// Access says how weights are read and written where one thread learns while others predict: Plain here; src/learning
// has one that shares. Only Predict may be called from other threads, and only there.
// Determinism: the same examples and bits give the same weights on the same machine, with any Access, interrupted by
// snapshot and restore or not (snapshot.h).
// Errors: an example that is not as example.h says is refused and changes nothing. The gradient of a number beyond
// 1e18 squared is refused too: it would turn weights into infinities.
// Memory: 16 bytes a place and output (24 with an anchor), 8 bytes more a factor.
// Cost, 14 features over a table of 16 MiB: about .1 us a prediction, .35 us a step; half of that in the cache.
// Source: S. Ross, P. Mineiro, J. Langford, "Normalized Online Learning", UAI 2013, algorithms 1-2; N. Karampatziakis
// and J. Langford, "Online Importance Weight Aware Updates", UAI 2011; H. B. McMahan et al., "Ad Click Prediction: a
// View from the Trenches", KDD 2013, algorithm 1; S. Rendle, "Factorization Machines", ICDM 2010; J. Kirkpatrick et
// al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017. Square roots are exact where VW's are
// approximate; softmax and factors take plain adaptive steps, for which no closed form is known.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "online/example.h"
#include "online/options.h"
#include "online/reservoir.h"

namespace ganglion::online {

// One thread.
struct Plain {
  static float Load(const float* p) { return *p; }
  static void Store(float* p, float v) { *p = v; }
};

// What has been learned so far, told with a model.
struct Progress {
  std::uint64_t examples = 0;  // learned from, replays not counted
  double weight = 0;           // sum of their weights
  double loss = 0;             // sum of weight * loss, each predicted before it was learned
  double mean_loss() const { return weight > 0 ? loss / weight : 0; }
  bool operator==(const Progress&) const = default;
};

// Whose learning this is: for merging (merge.h).
struct Origin {
  std::string writer;       // empty: unnamed
  std::uint64_t epoch = 0;  // a writer that lost its state begins another
  bool merged = false;      // the work of several
  bool operator==(const Origin&) const = default;
};

// What Learn says of one example.
struct Outcome {
  float prediction = 0;  // the score before learning; for classes the one with the highest
  double loss = 0;       // of it, unweighted
};

namespace internal {
// Everything of a learner but how it is accessed: what snapshot.h stores and merge.h combines.
struct State {
  LearnerOptions options;
  Origin origin;
  Progress progress;
  double total_weight = 0;              // W, over steps: replays and classes count
  double norm_sum = 0;                  // the sum that goes with it
  float label_low = 0, label_high = 0;  // of regression: predictions stay between the labels seen
  std::vector<float> cells;             // [2^bits, outputs, 4]: w, G or n, N or z, and a step's rate
  std::vector<float> anchors;           // [2^bits, outputs, 2]: a, F; empty without
  std::vector<float> factors;           // [2^bits, 2, k]: v, then their sums of squared gradients
  Reservoir reservoir;
};
// A new model's state. REQUIRES: Check(options).ok().
State NewState(const LearnerOptions& options);
// The starting value of a factor: the same for everyone with the same seed, so that models learned apart can be merged.
float StartingFactor(const LearnerOptions& options, std::uint64_t index, int factor);
}  // namespace internal

template <class Access>
class BasicLearner {
 public:
  // Refuses options that are out of range.
  static Result<BasicLearner> Create(const LearnerOptions& options);
  // What a snapshot held; see snapshot.h.
  explicit BasicLearner(internal::State state);

  const LearnerOptions& options() const { return state_.options; }
  std::uint32_t outputs() const { return state_.options.outputs(); }
  const Progress& progress() const { return state_.progress; }
  const internal::State& state() const { return state_; }
  Origin& origin() { return state_.origin; }
  const Origin& origin() const { return state_.origin; }

  // The scores: a number within the labels seen (regression), log odds (binary, one against all), logits (softmax).
  // Finite, whatever the features: a sum of infinities of both signs is 0.
  // REQUIRES: scores.size() == outputs(), indices below 2^bits.
  void Predict(std::span<const Feature> features, std::span<float> scores) const;

  // Predicts, then learns. `bits` are fresh random bits; they matter with a reservoir alone.
  Result<Outcome> Learn(const Example& example, std::uint64_t bits);

  // The loss of scores against a label. REQUIRES: the label is in range.
  double Loss(std::span<const float> scores, float label) const;

  // Whether an example could be learned from, without doing it.
  Status Check(const Example& example) const;

  // From here on weights are held where they are now. REQUIRES: options().anchor > 0.
  void PlaceAnchor();
  // How strongly, from now on; 0: not at all. The first time allocates.
  void SetAnchor(double strength, std::uint64_t every);

 private:
  struct Pass {
    double per_unit = 0;    // how far the score moves for a step of 1
    double multiplier = 1;  // sqrt(W / sum), or 1
  };
  void Scores(std::span<const Feature> features, std::span<float> scores) const;
  float Score(std::span<const Feature> features, std::uint32_t output) const;
  float FactorScore(std::span<const Feature> features, float* sums) const;
  Status LearnOnce(const Example& example, std::span<float> scores);
  Status Steps(const Example& example, double label, std::span<float> scores);
  template <class LossFunction>
  void StepToLabel(const Example& example, std::uint32_t output, double score, double label);
  void StepAgainst(const Example& example, std::uint32_t output, double derivative);
  template <bool kStandard>
  Pass Decay(const Example& example, std::uint32_t output, double squared);
  void Apply(const Example& example, std::uint32_t output, double update, double rate);
  void Ftrl(const Example& example, std::uint32_t output, double derivative);
  void StepFactors(const Example& example, double derivative, const float* sums);
  float* Cell(std::uint32_t index, std::uint32_t output) {
    return state_.cells.data() + (std::size_t{index} * outputs_ + output) * 4;
  }
  const float* Cell(std::uint32_t index, std::uint32_t output) const {
    return state_.cells.data() + (std::size_t{index} * outputs_ + output) * 4;
  }

  internal::State state_;
  std::uint32_t outputs_;
  bool standard_;  // adaptive, normalised, power_t .5: square roots in place of powers
  std::vector<float> scores_;
  std::vector<double> shares_;
};

using Learner = BasicLearner<Plain>;

// Random bits for the next Learn that follow from the seed, the origin and how many examples there were: a run that is
// resumed draws as one that was never stopped, and two writers draw apart.
std::uint64_t StepBits(const internal::State& state);

}  // namespace ganglion::online

extern template class ganglion::online::BasicLearner<ganglion::online::Plain>;
