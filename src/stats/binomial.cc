#include "stats/binomial.h"

#include <cmath>

#include "base/check.h"

namespace ganglion::stats {
namespace {

// lgamma writes a global sign; lgamma_r does not, so threads may share these functions.
double LogGamma(double x) {
  int sign = 0;
  return lgamma_r(x, &sign);
}

double ContinuedFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  double c = 1;
  double d = 1 - (a + b) * x / (a + 1);
  if (std::fabs(d) < kTiny) d = kTiny;
  d = 1 / d;
  double h = d;
  for (int m = 1; m <= 100'000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 + even * d;
    if (std::fabs(d) < kTiny) d = kTiny;
    c = 1 + even / c;
    if (std::fabs(c) < kTiny) c = kTiny;
    d = 1 / d;
    h *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 + odd * d;
    if (std::fabs(d) < kTiny) d = kTiny;
    c = 1 + odd / c;
    if (std::fabs(c) < kTiny) c = kTiny;
    d = 1 / d;
    const double step = d * c;
    h *= step;
    if (std::fabs(step - 1) < 1e-15) break;
  }
  return h;
}

}  // namespace

double IncompleteBeta(double a, double b, double x) {
  GANGLION_CHECK(a > 0 && b > 0 && x >= 0 && x <= 1);
  if (x == 0 || x == 1) return x;
  const double log_front = LogGamma(a + b) - LogGamma(a) - LogGamma(b) + a * std::log(x) + b * std::log1p(-x);
  // The fraction converges fast below the mean; above it, use the symmetry I_x(a,b) = 1 - I_{1-x}(b,a).
  if (x < (a + 1) / (a + b + 2)) return std::exp(log_front) * ContinuedFraction(a, b, x) / a;
  return 1 - std::exp(log_front) * ContinuedFraction(b, a, 1 - x) / b;
}

double BinomialCdf(std::int64_t k, std::int64_t n, double p) {
  GANGLION_CHECK(n >= 0 && p >= 0 && p <= 1);
  if (k < 0) return 0;
  if (k >= n) return 1;
  if (k == 0) return std::exp(static_cast<double>(n) * std::log1p(-p));
  return IncompleteBeta(static_cast<double>(n - k), static_cast<double>(k + 1), 1 - p);
}

std::int64_t BinomialQuantile(double q, std::int64_t n, double p) {
  std::int64_t low = -1;
  std::int64_t high = n;  // cdf(low) < q <= cdf(high)
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (BinomialCdf(middle, n, p) >= q ? high : low) = middle;
  }
  return high;
}

double BinomialUpperBound(std::int64_t k, std::int64_t n, double delta) {
  GANGLION_CHECK(delta > 0 && delta < 1);
  if (k >= n) return 1;
  double low = 0;
  double high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (BinomialCdf(k, n, middle) <= delta ? high : low) = middle;
  }
  return high;
}

}  // namespace ganglion::stats
