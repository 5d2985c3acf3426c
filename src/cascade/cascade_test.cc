#include "cascade/cascade.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/random.h"

namespace ganglion::cascade {
namespace {

using std::chrono::milliseconds;
using topology::Tier;

const TimePoint kStart{};

Policy FourTiers() {
  Policy p;
  p.stages = {{Tier::kDevice, .9, milliseconds(1), milliseconds(5)},
              {Tier::kEdge, .8, milliseconds(5), milliseconds(20)},
              {Tier::kRegion, .7, milliseconds(20), milliseconds(100)},
              {Tier::kGlobal, std::numeric_limits<double>::infinity(), milliseconds(100), milliseconds(500)}};
  return p;
}

TEST(Cascade, AcceptsAtTheThresholdAndDefersBelowIt) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(1000));
  Step s = c.Begin(kStart);
  ASSERT_EQ(s.kind, Step::Kind::kDefer);
  EXPECT_EQ(s.stage, 0u);
  EXPECT_EQ(s.give_up_at, kStart + milliseconds(5));
  s = c.OnAnswer(3, .89f, kStart + milliseconds(2));
  ASSERT_EQ(s.kind, Step::Kind::kDefer);
  EXPECT_EQ(s.stage, 1u);
  s = c.OnAnswer(4, .8f, kStart + milliseconds(9));
  ASSERT_EQ(s.kind, Step::Kind::kAnswer);
  EXPECT_EQ(s.answer.label, 4);
  EXPECT_EQ(s.answer.stage, 1u);
  EXPECT_FALSE(s.answer.degraded);
}

TEST(Cascade, AlwaysAcceptsTheTop) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(1000));
  (void)c.Begin(kStart);
  for (int i = 0; i < 3; ++i) (void)c.OnAnswer(1, 0, kStart);
  const Step s = c.OnAnswer(7, .01f, kStart + milliseconds(300));
  ASSERT_EQ(s.kind, Step::Kind::kAnswer);
  EXPECT_EQ(s.answer.label, 7);
  EXPECT_FALSE(s.answer.degraded);
}

TEST(Cascade, AnswersDegradedWhenTheNextStageCannotBeInTime) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(100));
  (void)c.Begin(kStart);
  (void)c.OnAnswer(1, .1f, kStart + milliseconds(2));
  (void)c.OnAnswer(2, .2f, kStart + milliseconds(10));
  const Step s = c.OnAnswer(3, .3f, kStart + milliseconds(60));  // 40 ms left, global takes at least 100
  ASSERT_EQ(s.kind, Step::Kind::kAnswer);
  EXPECT_TRUE(s.answer.degraded);
  EXPECT_EQ(s.answer.reason, Reason::kDeadline);
  EXPECT_EQ(s.answer.label, 3);
}

TEST(Cascade, GivesUpAtTheDeadlineWhenThatComesFirst) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(3));
  EXPECT_EQ(c.Begin(kStart).give_up_at, kStart + milliseconds(3));
}

TEST(Cascade, AnswersDegradedWhenALinkIsDown) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(1000));
  (void)c.Begin(kStart);
  (void)c.OnAnswer(1, .1f, kStart + milliseconds(2));
  const Step s = c.OnFailure(Reason::kUnreachable, kStart + milliseconds(22));
  ASSERT_EQ(s.kind, Step::Kind::kAnswer);
  EXPECT_TRUE(s.answer.degraded);
  EXPECT_EQ(s.answer.reason, Reason::kUnreachable);
  EXPECT_EQ(s.answer.label, 1);
  EXPECT_EQ(s.answer.stage, 0u);
}

TEST(Cascade, GoesOnPastABrokenStageButNotPastABrokenTop) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(1000));
  (void)c.Begin(kStart);
  (void)c.OnAnswer(1, .1f, kStart);
  EXPECT_EQ(c.OnFailure(Reason::kFailed, kStart).stage, 2u);
  EXPECT_EQ(c.OnFailure(Reason::kFailed, kStart).stage, 3u);
  const Step s = c.OnFailure(Reason::kFailed, kStart);
  ASSERT_EQ(s.kind, Step::Kind::kAnswer);
  EXPECT_EQ(s.answer.reason, Reason::kFailed);
  EXPECT_TRUE(s.answer.degraded);
}

TEST(Cascade, FailsWhenNobodyAnsweredOrLateAnswersAreNotWanted) {
  Policy p = FourTiers();
  Cascade none(p, kStart);
  Step s = none.Begin(kStart);
  EXPECT_EQ(s.kind, Step::Kind::kFail);
  EXPECT_EQ(s.answer.reason, Reason::kDeadline);
  p.when_late = WhenLate::kFail;
  Cascade strict(p, kStart + milliseconds(30));
  (void)strict.Begin(kStart);
  (void)strict.OnAnswer(1, .1f, kStart + milliseconds(1));
  s = strict.OnAnswer(1, .1f, kStart + milliseconds(29));
  EXPECT_EQ(s.kind, Step::Kind::kFail);
}

// An answer that comes after the deadline is not passed off as one in time.
TEST(Cascade, MarksALateAnswerDegraded) {
  const Policy p = FourTiers();
  Cascade c(p, kStart + milliseconds(4));
  (void)c.Begin(kStart);
  const Step s = c.OnAnswer(1, .99f, kStart + milliseconds(5));
  ASSERT_EQ(s.kind, Step::Kind::kAnswer);
  EXPECT_TRUE(s.answer.degraded);
  EXPECT_EQ(s.answer.reason, Reason::kDeadline);
}

// Whatever the stages do, a request ends, no stage starts that cannot be in time, and only degraded answers may have a
// confidence below their threshold.
TEST(CascadeProperty, EveryRequestEndsOnceAndHonestly) {
  const std::uint64_t seed = 77;
  Random random(seed);
  for (int trial = 0; trial < 20'000; ++trial) {
    Policy p = FourTiers();
    p.when_late = random.Below(2) == 0 ? WhenLate::kAnswer : WhenLate::kFail;
    for (auto& s : p.stages)
      s.threshold = random.Below(5) == 0 ? std::numeric_limits<double>::infinity() : random.Uniform();
    TimePoint now = kStart;
    const TimePoint deadline = kStart + milliseconds(random.Below(800));
    Cascade c(p, deadline);
    Step s = c.Begin(now);
    std::size_t runs = 0;
    while (s.kind == Step::Kind::kDefer) {
      ASSERT_LE(++runs, p.stages.size()) << "seed " << seed << " trial " << trial;
      ASSERT_LE(now + p.stages[s.stage].shortest, deadline);
      ASSERT_LE(s.give_up_at, deadline);
      const auto what = random.Below(10);
      if (what < 7) {
        now = std::min(now + milliseconds(random.Below(200)), s.give_up_at);
        s = c.OnAnswer(static_cast<int>(s.stage), static_cast<float>(random.Uniform()), now);
      } else if (what < 9) {
        now = s.give_up_at;
        s = c.OnFailure(Reason::kUnreachable, now);
      } else {
        s = c.OnFailure(Reason::kFailed, now);
      }
    }
    if (s.kind == Step::Kind::kAnswer && !s.answer.degraded) {
      const bool top = s.answer.stage + 1 == p.stages.size();
      ASSERT_TRUE(top || static_cast<double>(s.answer.confidence) >= p.stages[s.answer.stage].threshold);
      ASSERT_EQ(s.answer.label, static_cast<int>(s.answer.stage));
    } else {
      ASSERT_NE(s.answer.reason, Reason::kNone);
    }
  }
}

}  // namespace
}  // namespace ganglion::cascade
