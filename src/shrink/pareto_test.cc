#include "shrink/pareto.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ganglion::shrink {
namespace {

const std::vector<Candidate> kCandidates{
    {"as given", 400, 1, 2, .90, -1, false, ""},   {"int8", 100, .5, 1, .897, 0, false, ""},
    {"int8 slow", 90, 1.2, 2, .899, 0, false, ""}, {"half", 200, .6, 1.2, .88, -1, false, ""},
    {"worse", 210, .7, 3, .87, -1, false, ""},     {"broken", 0, 0, 0, 1, -1, false, "no gradient rule"},
    {"large", 800, 2, 8, .92, -1, false, ""},
};

TEST(Pareto, TakesTheSmallestWithinAnAccuracyBudget) {
  const Choice c = Choose(kCandidates, {.accuracy_loss = .005}, 0);
  EXPECT_EQ(c.chosen, 1);
  EXPECT_EQ(c.verdicts[1].why, "chosen");
  EXPECT_NE(c.verdicts[2].why.find("1.20x as slow as as given"), std::string::npos) << c.verdicts[2].why;
  EXPECT_NE(c.verdicts[3].why.find("accuracy -0.0200, budget -0.005"), std::string::npos) << c.verdicts[3].why;
  EXPECT_EQ(c.verdicts[5].why, "no gradient rule");
  EXPECT_TRUE(c.verdicts[0].kept);
}

TEST(Pareto, TakesTheMostAccurateWithinABudgetOfBytes) {
  EXPECT_EQ(Choose(kCandidates, {.bytes = 250}, 0).chosen, 2)
      << "slower than a float model that does not fit is no reason";
  EXPECT_EQ(Choose(kCandidates, {.bytes = 500}, 0).chosen, 0);
  EXPECT_EQ(Choose(kCandidates, {}, 0).chosen, 6);
}

TEST(Pareto, ALatencyBudgetIsAboutTheSlowRuns) {
  const Choice c = Choose(kCandidates, {.latency_ms = 1.1}, 0);
  EXPECT_EQ(c.chosen, 1);
  EXPECT_NE(c.verdicts[0].why.find("p99 2 ms, budget 1.1 ms"), std::string::npos) << c.verdicts[0].why;
}

TEST(Pareto, WhatIsWorseInEverythingIsOut) {
  const Choice c = Choose(kCandidates, {}, 0);
  EXPECT_NE(c.verdicts[4].why.find("no better in anything than"), std::string::npos);
  EXPECT_FALSE(c.verdicts[4].kept);
}

TEST(Pareto, ALastResortIsChosenOnlyWhenNothingElseIsIn) {
  auto candidates = kCandidates;
  candidates.push_back({"dynamic", 95, .4, .9, .898, 0, true, ""});
  const Choice c = Choose(candidates, {.accuracy_loss = .005}, 0);
  EXPECT_EQ(c.chosen, 1);
  EXPECT_TRUE(c.verdicts.back().kept);
  EXPECT_EQ(Choose(candidates, {.bytes = 96, .latency_ms = 1}, 0).chosen, static_cast<int>(candidates.size()) - 1);
}

TEST(Pareto, SaysWhenNothingFits) {
  const Choice c = Choose(kCandidates, {.bytes = 10}, 0);
  EXPECT_EQ(c.chosen, -1);
  for (const auto& v : c.verdicts) EXPECT_FALSE(v.why.empty());
}

TEST(Pareto, AMeasurementThatIsNotFiniteIsNotChosen) {
  auto candidates = kCandidates;
  for (auto& c : candidates) c.accuracy = NAN;
  EXPECT_EQ(Choose(candidates, {}, 0).chosen, -1);
}

}  // namespace
}  // namespace ganglion::shrink
