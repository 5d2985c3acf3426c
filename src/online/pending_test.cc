#include "online/pending.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace ganglion::online {
namespace {

using std::chrono::seconds;

Example Of(float label) {
  Example e;
  e.label = label;
  return e;
}

TEST(Pending, GivesEachExampleBackOnce) {
  Pending p({10, seconds(100)});
  p.Remember("a", Of(1), TimePoint(seconds(1)));
  p.Remember("b", Of(2), TimePoint(seconds(2)));
  EXPECT_EQ(p.Take("b", TimePoint(seconds(3)))->label, 2);
  EXPECT_FALSE(p.Take("b", TimePoint(seconds(3))));
  EXPECT_FALSE(p.Take("c", TimePoint(seconds(3))));
  EXPECT_EQ(p.Take("a", TimePoint(seconds(4)))->label, 1);
  EXPECT_EQ(p.size(), 0u);
  EXPECT_EQ(p.forgotten(), 0u);
}

TEST(Pending, ForgetsTheOldestBeyondItsCapacityAndWhatIsTooOld) {
  Pending p({2, seconds(10)});
  p.Remember("a", Of(1), TimePoint(seconds(1)));
  p.Remember("b", Of(2), TimePoint(seconds(2)));
  p.Remember("c", Of(3), TimePoint(seconds(3)));
  EXPECT_FALSE(p.Take("a", TimePoint(seconds(3))));
  EXPECT_EQ(p.Take("b", TimePoint(seconds(12)))->label, 2);
  EXPECT_FALSE(p.Take("c", TimePoint(seconds(14))));
  EXPECT_EQ(p.forgotten(), 2u);
}

TEST(Pending, ASecondPredictionUnderOneIdReplacesTheFirst) {
  Pending p({10, seconds(10)});
  p.Remember("a", Of(1), TimePoint(seconds(1)));
  p.Remember("a", Of(2), TimePoint(seconds(9)));
  EXPECT_EQ(p.Take("a", TimePoint(seconds(15)))->label, 2) << "its age counts from the second";
  EXPECT_EQ(p.size(), 0u);
}

TEST(Pending, StaysBoundedWhateverComes) {
  Pending p({100, seconds(1000)});
  Random random(1);
  for (int i = 0; i < 100'000; ++i) {
    const TimePoint now{seconds(i / 100)};
    if (random.Below(3) == 0) {
      (void)p.Take(std::to_string(random.Below(500)), now);
    } else {
      p.Remember(std::to_string(random.Below(500)), Of(0), now);
    }
    ASSERT_LE(p.size(), 100u);
  }
}

}  // namespace
}  // namespace ganglion::online
