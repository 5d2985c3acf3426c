#include "calibration/confidence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace ganglion::calibration {
namespace {
constexpr std::array<std::string_view, 3> kNames{"max_probability", "margin", "entropy"};
}

std::string_view Name(Measure measure) { return kNames[static_cast<std::size_t>(measure)]; }

std::optional<Measure> MeasureFromName(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Measure>(i);
  }
  return std::nullopt;
}

Judgement Judge(std::span<const float> z, float temperature, Measure measure) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < z.size(); ++i) {
    if (z[i] > z[best]) best = i;
  }
  float second = -INFINITY;
  for (std::size_t i = 0; i < z.size(); ++i) {
    if (i != best) second = std::max(second, z[i]);
  }
  // exp((z - z_best) / T): the largest is 1, so nothing overflows.
  const float scale = 1 / temperature;
  float sum = 0;
  float weighted = 0;
  for (const float v : z) {
    const float d = (v - z[best]) * scale;
    const float e = std::exp(d);
    sum += e;
    weighted += e > 0 ? e * d : 0;
  }
  float confidence = 0;
  switch (measure) {
    case Measure::kMaxProbability:
      confidence = 1 / sum;
      break;
    case Measure::kMargin:
      confidence = z.size() == 1 ? 1 : (1 - std::exp((second - z[best]) * scale)) / sum;
      break;
    case Measure::kEntropy:
      // H = log sum - weighted / sum
      confidence = z.size() == 1 ? 1 : 1 - (std::log(sum) - weighted / sum) / std::log(static_cast<float>(z.size()));
      break;
  }
  if (std::isnan(confidence)) return {static_cast<int>(best), -1};
  confidence = std::max(confidence, 0.f);
  return {static_cast<int>(best), std::min(confidence, 1.f)};
}

double NegativeLogLikelihood(std::span<const float> z, std::span<const int> labels, std::size_t classes,
                             double temperature) {
  double total = 0;
  std::size_t rows = 0;
  for (std::size_t r = 0; r < labels.size(); ++r) {
    const auto row = z.subspan(r * classes, classes);
    const double top = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float v : row) sum += std::exp((v - top) / temperature);
    const double loss = std::log(sum) - (row[static_cast<std::size_t>(labels[r])] - top) / temperature;
    if (!std::isfinite(loss)) continue;
    total += loss;
    ++rows;
  }
  return rows == 0 ? 0 : total / static_cast<double>(rows);
}

float FitTemperature(std::span<const float> z, std::span<const int> labels, std::size_t classes) {
  GANGLION_CHECK(z.size() == labels.size() * classes);
  if (NegativeLogLikelihood(z, labels, classes, 1) == 0) return 1;  // nothing to fit
  // The likelihood is unimodal in log T (it is concave in 1/T): golden-section search.
  const double golden = (std::sqrt(5.) - 1) / 2;
  double low = std::log(.25);
  double high = std::log(20.);
  double a = high - golden * (high - low);
  double b = low + golden * (high - low);
  double fa = NegativeLogLikelihood(z, labels, classes, std::exp(a));
  double fb = NegativeLogLikelihood(z, labels, classes, std::exp(b));
  while (high - low > 1e-3) {
    if (fa < fb) {
      high = b;
      b = a;
      fb = fa;
      a = high - golden * (high - low);
      fa = NegativeLogLikelihood(z, labels, classes, std::exp(a));
    } else {
      low = a;
      a = b;
      fa = fb;
      b = low + golden * (high - low);
      fb = NegativeLogLikelihood(z, labels, classes, std::exp(b));
    }
  }
  return static_cast<float>(std::exp((low + high) / 2));
}

double RankingQuality(std::span<const float> confidence, std::span<const std::uint8_t> bad) {
  GANGLION_CHECK(confidence.size() == bad.size());
  for (const float c : confidence) GANGLION_CHECK(!std::isnan(c));
  std::vector<std::size_t> order(bad.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return confidence[i] < confidence[j]; });
  double wins = 0;  // pairs (bad below good)
  double bad_below = 0;
  double good = 0;
  for (std::size_t i = 0; i < order.size();) {
    std::size_t j = i;
    double bad_here = 0;
    while (j < order.size() && confidence[order[j]] == confidence[order[i]]) bad_here += bad[order[j++]];
    const double good_here = static_cast<double>(j - i) - bad_here;
    wins += good_here * (bad_below + bad_here / 2);
    bad_below += bad_here;
    good += good_here;
    i = j;
  }
  return good == 0 || bad_below == 0 ? .5 : wins / (good * bad_below);
}

}  // namespace ganglion::calibration
