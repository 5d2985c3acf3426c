#include "stats/summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace ganglion::stats {
namespace {

double NearestRank(const std::vector<double>& sorted, double q) {
  GANGLION_CHECK(q >= 0 && q <= 1);
  const double rank = std::ceil(q * static_cast<double>(sorted.size()));
  return sorted[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

}  // namespace

double Quantile(std::vector<double> sample, double q) {
  if (sample.empty()) return 0;
  std::sort(sample.begin(), sample.end());
  return NearestRank(sample, q);
}

Summary Summarize(std::vector<double> sample) {
  if (sample.empty()) return {};
  std::sort(sample.begin(), sample.end());
  const double sum = std::accumulate(sample.begin(), sample.end(), 0.0);
  return {sample.size(), sum / static_cast<double>(sample.size()), NearestRank(sample, .5), NearestRank(sample, .99),
          sample.back()};
}

}  // namespace ganglion::stats
