#include "optimizer/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "optimizer/clip.h"
#include "optimizer/early_stopping.h"

namespace ganglion::optimizer {
namespace {

using Verdict = EarlyStopping::Verdict;

TEST(Schedule, CosineRisesThenFallsToZero) {
  EXPECT_LT(CosineSchedule(0, 1000, .1), .01);
  EXPECT_NEAR(CosineSchedule(100, 1000, .1), 1, 1e-3);
  EXPECT_LT(CosineSchedule(999, 1000, .1), 1e-4);
  EXPECT_NEAR(CosineSchedule(0, 1, 0), .5, 1e-12);
}

TEST(Schedule, EveryKindWarmsUpLinearlyAndStaysWithinZeroAndOne) {
  for (const char* text : {"constant", "linear:0.2", "cosine", "step:2:0.5", "exponential:0.9", "plateau"}) {
    Schedule s = ParseSchedule(text).value();
    s.warmup = .2;
    for (std::int64_t i = 0; i < 100; ++i) {
      const double rate = RateAt(s, i, 100, 50);
      EXPECT_GE(rate, 0) << text;
      EXPECT_LE(rate, 1) << text;
      if (i < 20) {
        EXPECT_NEAR(rate, (static_cast<double>(i) + .5) / 20, 1e-12) << text << ' ' << i;
      }
    }
  }
}

TEST(Schedule, StepsByWholeEpochs) {
  const Schedule s = ParseSchedule("step:2:0.1").value();
  EXPECT_EQ(RateAt(s, 19, 60, 10), 1);
  EXPECT_NEAR(RateAt(s, 20, 60, 10), .1, 1e-15);
  EXPECT_NEAR(RateAt(s, 59, 60, 10), .01, 1e-15);
}

TEST(Schedule, RefusesWhatItCannotRead) {
  for (const char* text : {"", "cosin", "cosine:2", "cosine:x", "step", "step:0", "step:2:1.5", "step:2:0.1:3",
                           "exponential", "exponential:-1", "onecycle:1", "plateau:-1", "constant:1", "linear:nan"}) {
    EXPECT_FALSE(ParseSchedule(text).ok()) << text;
  }
  EXPECT_NE(ParseSchedule("cosin").status().message().find("step:EPOCHS"), std::string::npos);
  EXPECT_EQ(ParseSchedule("exponential:1.5").status().message(),
            "schedule: the factor must be between 0 and 1, got 1.500000");
}

TEST(Schedule, IsNamedToTheLastDigit) {
  Schedule a = ParseSchedule("exponential:0.9").value();
  Schedule b = a;
  EXPECT_EQ(Text(a), Text(b));
  b.factor = std::nextafter(b.factor, 1);
  EXPECT_NE(Text(a), Text(b));
}

TEST(Plateau, ContinuesFromARestoredState) {
  const Schedule s = ParseSchedule("plateau:1:0.5").value();
  Plateau a(s);
  for (const double loss : {1., 1., 1.}) a.Observe(loss);
  Plateau b(s);
  b.Restore(a.state());
  for (const double loss : {1., 1., .1, std::nan("")}) {
    a.Observe(loss);
    b.Observe(loss);
    EXPECT_EQ(a.scale(), b.scale());
  }
  EXPECT_EQ(a.scale(), .25);
}

TEST(EarlyStopping, StopsAfterPatienceAndKnowsTheBestStep) {
  auto stopping = EarlyStopping::Create({.patience = 2, .min_delta = .01}).value();
  EXPECT_EQ(stopping.Observe(10, 1.), Verdict::kImproved);
  EXPECT_EQ(stopping.Observe(20, .995), Verdict::kWait) << "better by less than min_delta";
  EXPECT_EQ(stopping.Observe(30, .9), Verdict::kImproved);
  EXPECT_EQ(stopping.Observe(40, .9), Verdict::kWait);
  EXPECT_EQ(stopping.Observe(50, std::nan("")), Verdict::kWait);
  EXPECT_EQ(stopping.Observe(60, 2.), Verdict::kStop);
  EXPECT_EQ(stopping.state().best_step, 30);
  EXPECT_EQ(stopping.state().best, .9);
}

TEST(EarlyStopping, ContinuesFromARestoredState) {
  auto a = EarlyStopping::Create({.patience = 3}).value();
  a.Observe(1, .5);
  a.Observe(2, .6);
  auto b = EarlyStopping::Create({.patience = 3}).value();
  b.Restore(a.state());
  for (int i = 3; i < 8; ++i) EXPECT_EQ(a.Observe(i, .7), b.Observe(i, .7));
}

TEST(EarlyStopping, WithoutPatienceStopsAtTheFirstValueThatIsNotBetter) {
  auto stopping = EarlyStopping::Create({.patience = 0}).value();
  EXPECT_EQ(stopping.Observe(1, 1.), Verdict::kImproved);
  EXPECT_EQ(stopping.Observe(2, 1.), Verdict::kStop);
  EXPECT_FALSE(EarlyStopping::Create({.patience = -1}).ok());
  EXPECT_FALSE(EarlyStopping::Create({.min_delta = std::nan("")}).ok());
}

TEST(Clip, BoundsTheNormAndKeepsTheDirection) {
  std::vector<float> g(1003);
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  const auto before = g;
  const double norm = ClipByNorm(g, 1);
  EXPECT_NEAR(Norm(g), 1, 1e-6);
  for (std::size_t i = 0; i < g.size(); ++i) EXPECT_NEAR(g[i] * norm, before[i], 1e-5);
  EXPECT_EQ(ClipByNorm(g, 10), Norm(g)) << "a short one is left alone";
}

TEST(Clip, SeesASingleNumberThatIsNotFinite) {
  std::vector<float> g(100, 1);
  g[98] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(Norm(g)));
  g[98] = std::nanf("");
  EXPECT_FALSE(std::isfinite(Norm(g)));
  ClipByValue(g, .5f);
  EXPECT_EQ(g[0], .5f);
  EXPECT_TRUE(std::isnan(g[98]));
  g[98] = std::numeric_limits<float>::max();
  EXPECT_TRUE(std::isfinite(Norm(g))) << "squares of FP32 numbers do not overflow a double";
}

}  // namespace
}  // namespace ganglion::optimizer
