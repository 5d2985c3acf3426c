// What a learner is to be: everything that must be equal for two models to be continued, compared or merged.
// A value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::online {

enum class Task : std::uint8_t {
  kRegression = 0,     // a number; squared loss
  kBinary = 1,         // -1 or 1; logistic loss
  kOneAgainstAll = 2,  // a class of K: K logistic models, the highest score wins
  kSoftmax = 3,        // a class of K: K scores, cross-entropy of their softmax
};
enum class Update : std::uint8_t {
  kGradient = 0,  // adaptive, normalised, invariant gradient descent, each switchable
  kFtrl = 1,      // follow the regularised leader, per coordinate
};

inline constexpr int kMinBits = 1;
inline constexpr int kMaxBits = 28;
inline constexpr int kMaxFactors = 64;
inline constexpr std::uint64_t kMaxTableBytes = std::uint64_t{1} << 32;

struct LearnerOptions {
  Task task = Task::kRegression;
  std::uint32_t classes = 1;  // K; 1 for regression and two classes
  int bits = 18;              // the table has 2^bits places
  Update update = Update::kGradient;

  // Of kGradient. A step on weight i is rate * x_i * decay_i, decay_i = (sum of squared gradients)^-power_t.
  double rate = .5;
  double power_t = .5;     // in [0, 1]
  bool adaptive = true;    // decay by each weight's own gradients, not by time
  bool normalised = true;  // by the largest value of each feature so far: features need no scaling
  bool invariant = true;   // the closed form of loss.h; regression, two classes and one against all

  // Of kFtrl.
  double alpha = .5;
  double beta = 1;

  // Of both: weights pulled towards 0, on the features of the example at hand.
  double l1 = 0;
  double l2 = 0;

  int factors = 0;           // rank of a factorisation machine; 0: none. Regression and two classes
  double factor_rate = .1;   // of its factors, adaptive
  double factor_scale = .1;  // standard deviation of their starting values

  // Against forgetting: how strongly weights are held at the anchor, see learner.h; examples to keep and to replay.
  double anchor = 0;
  std::uint64_t anchor_every = 0;  // the anchor moves by itself after so many examples; 0: when told
  std::uint32_t replay = 0;        // examples in the reservoir; 0: none
  std::uint32_t replays = 1;       // of these, how many are learned again with each new one

  std::uint64_t seed = 0;  // of the factors' starting values

  // How examples are made, so that whoever asks a stored model makes them alike.
  bool constant = true;
  std::vector<std::string> interactions;  // "ab" or "name,name", as interactions.h takes them

  std::uint32_t outputs() const { return task == Task::kRegression || task == Task::kBinary ? 1 : classes; }
  std::uint64_t table_bytes() const;
  bool operator==(const LearnerOptions&) const = default;
};

// The first mistake, with the value, its range and the way out.
Status Check(const LearnerOptions& options);

const char* Name(Task task);  // "regression", "binary", "one-against-all", "softmax"

}  // namespace ganglion::online
