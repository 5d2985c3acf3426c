#include "node/least_time.h"

#include <gtest/gtest.h>

namespace ganglion::node {
namespace {

using std::chrono::milliseconds;

constexpr TimePoint kBegin{std::chrono::hours(1)};

TEST(LeastTime, IsTheLeastThatWasSeen) {
  LeastTime least(1024);
  EXPECT_EQ(least.at(kBegin), Duration::zero());
  least.Observe(milliseconds(20), kBegin);
  EXPECT_EQ(least.at(kBegin), milliseconds(20));
  least.Observe(milliseconds(5), kBegin + milliseconds(1));
  EXPECT_EQ(least.at(kBegin + milliseconds(1)), milliseconds(5));
}

TEST(LeastTime, CreepsUpWithEachSlowerOne) {
  LeastTime least(10);
  least.Observe(milliseconds(10), kBegin);
  least.Observe(milliseconds(50), kBegin);
  EXPECT_EQ(least.at(kBegin), milliseconds(11));
}

// Whoever thinks it too slow does not try, and would never learn that it has become fast again.
TEST(LeastTime, IsUnknownAgainWithoutNews) {
  LeastTime least(1024);
  least.Observe(std::chrono::seconds(2), kBegin);
  EXPECT_EQ(least.at(kBegin + LeastTime::kFresh), std::chrono::seconds(2));
  const TimePoint later = kBegin + LeastTime::kFresh + milliseconds(1);
  EXPECT_EQ(least.at(later), Duration::zero());
  least.Observe(milliseconds(30), later);
  EXPECT_EQ(least.at(later), milliseconds(30));
}

TEST(LeastTime, StartsAnewWithoutNewsAlsoWhenSlower) {
  LeastTime least(1024);
  least.Observe(milliseconds(30), kBegin);
  least.Observe(milliseconds(90), kBegin + 2 * LeastTime::kFresh);
  EXPECT_EQ(least.at(kBegin + 2 * LeastTime::kFresh), milliseconds(90));
}

}  // namespace
}  // namespace ganglion::node
