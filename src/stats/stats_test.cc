#include "stats/stats.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ganglion::stats {
namespace {

double DirectCdf(int k, int n, double p) {
  double sum = 0;
  for (int i = 0; i <= k; ++i) {
    sum += std::exp(std::lgamma(n + 1.) - std::lgamma(i + 1.) - std::lgamma(n - i + 1.) + i * std::log(p) +
                    (n - i) * std::log1p(-p));
  }
  return sum;
}

TEST(Binomial, AgreesWithTheSumOfItsTerms) {
  for (const int n : {1, 2, 10, 230, 2500}) {
    for (const double p : {.001, .01, .1, .5, .9}) {
      for (const int k : {0, 1, n / 100, n / 10, n / 2, n - 1}) {
        if (k >= n) continue;
        EXPECT_NEAR(BinomialCdf(k, n, p), DirectCdf(k, n, p), 1e-10) << k << ' ' << n << ' ' << p;
      }
    }
  }
}

// (1-p)^n <= delta: an error of at most 1 % at 90 % needs 230 rows, all right (229 give .1001).
TEST(Binomial, NeedsTwoHundredAndThirtyCleanRowsForOnePercent) {
  EXPECT_LE(BinomialCdf(0, 230, .01), .1);
  EXPECT_GT(BinomialCdf(0, 229, .01), .1);
}

TEST(Binomial, QuantileIsTheSmallestThatReaches) {
  for (const double q : {.001, .1, .5, .9, .999}) {
    const auto k = BinomialQuantile(q, 1000, .1);
    EXPECT_GE(BinomialCdf(k, 1000, .1), q);
    EXPECT_LT(BinomialCdf(k - 1, 1000, .1), q);
  }
}

// Clopper-Pearson, one-sided: 0 of 10 at .05 gives 1 - .05^(1/10).
TEST(Binomial, UpperBoundMatchesTheClosedForm) {
  EXPECT_NEAR(BinomialUpperBound(0, 10, .05), 1 - std::pow(.05, .1), 1e-12);
  EXPECT_EQ(BinomialUpperBound(10, 10, .05), 1);
  EXPECT_EQ(BinomialUpperBound(0, 0, .05), 1);
  EXPECT_NEAR(BinomialCdf(7, 500, BinomialUpperBound(7, 500, .1)), .1, 1e-9);
}

TEST(Summary, UsesNearestRank) {
  EXPECT_EQ(Quantile({4, 1, 3, 2}, .5), 2);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, .51), 3);
  EXPECT_EQ(Quantile({}, .5), 0);
  const Summary s = Summarize({1, 2, 3, 10});
  EXPECT_EQ(s.mean, 4);
  EXPECT_EQ(s.p99, 10);
}

}  // namespace
}  // namespace ganglion::stats
