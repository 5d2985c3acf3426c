#include "base/base.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ganglion {
namespace {

Result<int> Half(int x) {
  if (x % 2 != 0) return InvalidArgument("odd: " + std::to_string(x));
  return x / 2;
}

Result<int> Quarter(int x) {
  ASSIGN_OR_RETURN(const int half, Half(x));
  return Half(half);
}

TEST(Status, CarriesTheRefusalOutwards) {
  EXPECT_EQ(Quarter(8).value(), 2);
  const auto refused = Quarter(6);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().message(), "odd: 3");
  EXPECT_EQ(refused.status().Within("file").message(), "file: odd: 3");
  EXPECT_STREQ(CodeName(refused.status().code()), "INVALID_ARGUMENT");
}

TEST(StatusDeathTest, AskingARefusalForItsValueIsABug) { EXPECT_DEATH((void)Half(1).value(), "CHECK failed"); }

// First outputs of xoshiro256++ from state {1,2,3,4}, as the authors' reference program prints them.
TEST(Random, MatchesTheReferenceStream) {
  Random random(Random::State{1, 2, 3, 4});
  EXPECT_EQ(random.Next(), 41943041u);
  EXPECT_EQ(random.Next(), 58720359u);
  EXPECT_EQ(random.Next(), 3588806011781223u);
}

TEST(Random, RepeatsFromASeedAndContinuesFromAState) {
  Random a(7);
  Random b(7);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(a.Next(), b.Next());
  Random c(a.state());
  EXPECT_EQ(a.Next(), c.Next());
  EXPECT_NE(Random(7).Fork(1).Next(), Random(7).Fork(2).Next());
}

// Chi-square over 10 cells, 9 degrees of freedom: P(> 33.72) = 1e-4.
TEST(Random, BelowIsUniform) {
  Random random(11);
  std::vector<int> count(10);
  for (int i = 0; i < 100'000; ++i) ++count[random.Below(10)];
  double chi2 = 0;
  for (int c : count) chi2 += (c - 1e4) * (c - 1e4) / 1e4;
  EXPECT_LT(chi2, 33.72) << "seed 11";
}

// Mean of 1e5 normals: sd .00316; 4.5 sd fails with probability 7e-6.
TEST(Random, NormalHasMeanZeroAndVarianceOne) {
  Random random(13);
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double x = random.Normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 1e5, 0, .0143) << "seed 13";
  EXPECT_NEAR(squares / 1e5, 1, .021) << "seed 13";
}

TEST(Random, ShuffleKeepsEveryElement) {
  std::vector<int> v(100);
  std::iota(v.begin(), v.end(), 0);
  auto shuffled = v;
  Random(3).Shuffle(shuffled);
  EXPECT_NE(v, shuffled);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(v, shuffled);
}

TEST(Guarded, GivesTheValueOnlyUnderItsLock) {
  Guarded<int> guarded(41);
  EXPECT_EQ(guarded.With([](int& x) { return ++x; }), 42);
}

}  // namespace
}  // namespace ganglion
