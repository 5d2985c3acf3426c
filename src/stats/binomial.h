// Exact binomial tails, and the bounds on an unknown probability that follow from them.
//
// Why exact and not normal or Hoeffding: promises are about rare events (1 % wrong), where the normal approximation
// is anti-conservative and Hoeffding's bound wastes most of the data.
//
//   BinomialCdf(k, n, p) = P(Bin(n, p) <= k) = 1 - I_p(k+1, n-k), the regularised incomplete beta function by its
//   continued fraction (Lentz's method). Relative error about 1e-12 for n of thousands, 1e-8 for n = 1e7 (lgamma
//   cancels). Cost: about 1 us.
// Source: C. Clopper and E. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
// binomial", 1934; continued fraction as in DLMF 8.17.22.
// All functions are pure. REQUIRES everywhere: n >= 0, 0 <= p <= 1, 0 < delta < 1.
#pragma once

#include <cstdint>

namespace ganglion::stats {

// I_x(a, b). REQUIRES: a > 0, b > 0, 0 <= x <= 1.
double IncompleteBeta(double a, double b, double x);

// P(Bin(n, p) <= k); 0 for k < 0, 1 for k >= n.
double BinomialCdf(std::int64_t k, std::int64_t n, double p);

// The smallest k with P(Bin(n, p) <= k) >= q.
std::int64_t BinomialQuantile(double q, std::int64_t n, double p);

// The largest p that k successes in n do not contradict at level delta: P(Bin(n, p) <= k) = delta.
// The true probability lies at or below it with probability at least 1 - delta. 1 for k >= n (and for n = 0).
double BinomialUpperBound(std::int64_t k, std::int64_t n, double delta);

}  // namespace ganglion::stats
