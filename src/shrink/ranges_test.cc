#include "shrink/ranges.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace ganglion::shrink {
namespace {

TEST(RangeObserver, MinMaxIsExactAndHoldsZero) {
  RangeObserver o;
  o.Observe(std::vector<float>{.5f, 3.25f, 1});
  const auto r = o.Find(RangeRule::kMinMax, 1, "t").value();
  EXPECT_EQ(r.low, 0);
  EXPECT_EQ(r.high, 3.25f);
}

TEST(RangeObserver, FindsTheSameWhateverTheOrderAndTheBatches) {
  Random random(3);
  std::vector<float> v(20000);
  for (float& x : v) x = static_cast<float>(std::exp(3 * random.Normal()));
  RangeObserver together;
  together.Observe(v);
  RangeObserver apart;
  for (std::size_t i = v.size(); i > 0; i -= 100) apart.Observe(std::span(v).subspan(i - 100, 100));
  for (const auto rule : {RangeRule::kMinMax, RangeRule::kPercentile, RangeRule::kEntropy}) {
    EXPECT_EQ(together.Find(rule, .999, "t")->high, apart.Find(rule, .999, "t")->high) << Name(rule);
    EXPECT_EQ(together.Find(rule, .999, "t")->low, apart.Find(rule, .999, "t")->low);
  }
}

TEST(RangeObserver, PercentileCutsWhatLiesBeyondIt) {
  RangeObserver o;
  std::vector<float> v(10000);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i) / 10000;
  v[0] = 5000;
  v[1] = -4000;
  o.Observe(v);
  const auto r = o.Find(RangeRule::kPercentile, .999, "t").value();
  EXPECT_LT(r.high, 6);  // 8192 / 2048 = 4 is the width of a bin
  EXPECT_GE(r.high, 1);
  EXPECT_GT(r.low, -6);
}

TEST(RangeObserver, EntropyKeepsAUniformTensorAndCutsAnOutlier) {
  Random random(1);
  std::vector<float> v(100000);
  for (float& x : v) x = static_cast<float>(random.Uniform(-1, 1));
  RangeObserver uniform;
  uniform.Observe(v);
  EXPECT_GT(uniform.Find(RangeRule::kEntropy, 1, "t")->high, .95f);
  for (float& x : v) x = static_cast<float>(random.Normal());
  v[0] = 60;
  RangeObserver spiked;
  spiked.Observe(v);
  const auto r = spiked.Find(RangeRule::kEntropy, 1, "t").value();
  EXPECT_LT(r.high, 20);
  EXPECT_GT(r.high, 2);
}

TEST(RangeObserver, RefusesNothingSeenAndNumbersThatAreNotFinite) {
  RangeObserver o;
  EXPECT_FALSE(o.Find(RangeRule::kMinMax, 1, "t").ok());
  o.Observe(std::vector<float>{1, NAN, INFINITY});
  const auto s = o.Find(RangeRule::kMinMax, 1, "t").status();
  EXPECT_NE(s.message().find("2 numbers that are not finite"), std::string::npos) << s.message();
}

TEST(RangeObserver, TakesTheLargestAndSmallestFloats) {
  RangeObserver o;
  o.Observe(std::vector<float>{0, 0});
  o.Observe(std::vector<float>{1e-45f});
  o.Observe(std::vector<float>{3.4e38f, -3.4e38f});
  for (const auto rule : {RangeRule::kMinMax, RangeRule::kPercentile, RangeRule::kEntropy}) {
    const auto r = o.Find(rule, .9999, "t").value();
    EXPECT_TRUE(std::isfinite(r.low) && std::isfinite(r.high)) << Name(rule);
  }
}

}  // namespace
}  // namespace ganglion::shrink
