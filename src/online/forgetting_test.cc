#include <gtest/gtest.h>

#include "online/returning_test.h"

namespace ganglion::online {
namespace {

constexpr int kSeason = 20'000;
constexpr std::uint64_t kSeed = 11;

TEST(Forgetting, APlainModelForgetsWhatItDoesNotSee) {
  const Forgetting plain = MeasureForgetting({}, kSeed, kSeason);
  EXPECT_GT(plain.forgotten(), .05) << "else the tests below would say nothing";
}

TEST(Forgetting, ReplayKeepsAnOldConceptAndLearnsTheNewOne) {
  const Forgetting plain = MeasureForgetting({}, kSeed, kSeason);
  LearnerOptions o;
  o.replay = 5000;
  const Forgetting kept = MeasureForgetting(o, kSeed, kSeason);
  EXPECT_LT(kept.forgotten(), .5 * plain.forgotten());
  EXPECT_LT(kept.winter, plain.winter + .05);
}

TEST(Forgetting, AnAnchorKeepsAnOldConceptAndLearnsTheNewOne) {
  const Forgetting plain = MeasureForgetting({}, kSeed, kSeason);
  LearnerOptions o;
  o.anchor = .003;
  const Forgetting kept = MeasureForgetting(o, kSeed, kSeason);
  EXPECT_LT(kept.forgotten(), .5 * plain.forgotten());
  EXPECT_LT(kept.winter, plain.winter + .1);
}

TEST(Forgetting, AnAnchorHoldsFtrlToo) {
  LearnerOptions o;
  o.update = Update::kFtrl;
  const Forgetting plain = MeasureForgetting(o, kSeed, kSeason);
  o.anchor = .001;
  const Forgetting kept = MeasureForgetting(o, kSeed, kSeason);
  EXPECT_LT(kept.forgotten(), .5 * plain.forgotten());
  EXPECT_LT(kept.winter, plain.winter + .1);
}

}  // namespace
}  // namespace ganglion::online
