// Confidence: a number in [0, 1] for how sure a stage is of its answer, from its logits.
//
//   p = softmax(z / T)
//   max_probability  p_(1)                    margin  p_(1) - p_(2)                 entropy  1 - H(p) / log K
// The answer is the largest logit (the first, on ties); T does not change it.
// A threshold on any of them may be certified; a measure that ranks the wrong answers lower lets more be accepted.
//
// T is fitted by the log-likelihood of the true classes (temperature scaling): it makes confidences of several stages
// comparable and honest, and changes only how rows rank in margin and entropy.
// Source: C. Guo et al., "On Calibration of Modern Neural Networks", 2017.
// Ranges: T in [1/4, 20] (colder, and confidences would round to 1 in float and tie); at least one class. Logits of
// -inf (a class that is ruled out) are fine; NaN and +inf give the confidence -1, which no threshold accepts. Pure,
// thread-safe. Cost: one exponential a class.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace ganglion::calibration {

enum class Measure { kMaxProbability, kMargin, kEntropy };
std::string_view Name(Measure measure);  // "max_probability", "margin", "entropy"
std::optional<Measure> MeasureFromName(std::string_view name);

struct Judgement {
  int label = -1;
  float confidence = 0;  // -1: the logits were not numbers
};

// REQUIRES: z is not empty, temperature > 0.
Judgement Judge(std::span<const float> z, float temperature, Measure measure);

// The temperature that maximises the mean log-likelihood of `labels` under rows of logits z [rows, classes].
// Rows whose likelihood is not finite are left out. 1 when none is left.
// REQUIRES: labels.size() * classes == z.size(), labels in 0 .. classes-1.
float FitTemperature(std::span<const float> z, std::span<const int> labels, std::size_t classes);

// Mean negative log-likelihood at a temperature, what FitTemperature minimises.
double NegativeLogLikelihood(std::span<const float> z, std::span<const int> labels, std::size_t classes,
                             double temperature);

// The probability that a row with bad = 0 has a higher confidence than one with bad = 1 (ties count half): how well
// confidence ranks. .5 when all rows are alike. Source: the Mann-Whitney statistic.
double RankingQuality(std::span<const float> confidence, std::span<const std::uint8_t> bad);

}  // namespace ganglion::calibration
