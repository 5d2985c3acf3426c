// Mean and exact quantiles of a sample that is held whole (reports, benchmarks; streams get sketches when they come).
#pragma once

#include <vector>

namespace ganglion::stats {

// The q-quantile by the nearest-rank rule: the smallest element with at least q of the sample at or below it.
// Sorts a copy. REQUIRES: 0 <= q <= 1. 0 for an empty sample.
double Quantile(std::vector<double> sample, double q);

struct Summary {
  std::size_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p99 = 0;
  double max = 0;
};
// One sort for all of it. Zeros for an empty sample.
Summary Summarize(std::vector<double> sample);

}  // namespace ganglion::stats
