// What every learner keeps, whatever it learns and however: one list of checks over the whole family.
#include <gtest/gtest.h>

#include <limits>

#include "online/merge.h"
#include "online/snapshot.h"
#include "online/streams_test.h"

namespace ganglion::online {
namespace {

class Contract : public ::testing::TestWithParam<Named> {
 protected:
  const LearnerOptions& options() const { return GetParam().options; }
  Learner Fresh(const std::string& writer = "") const {
    auto learner = Learner::Create(options());
    EXPECT_TRUE(learner.ok()) << learner.status().message();
    learner->origin().writer = writer;
    return std::move(*learner);
  }
  Learner Taught(const std::string& writer, std::uint64_t seed, int n) const {
    Learner learner = Fresh(writer);
    Stream stream(options(), seed);
    LearnAll(&learner, Take(&stream, n));
    return learner;
  }
};

TEST_P(Contract, SameStreamGivesTheSameBytes) {
  EXPECT_EQ(Snapshot(Taught("a", 1, 500)), Snapshot(Taught("a", 1, 500)));
  EXPECT_NE(Snapshot(Taught("a", 1, 500)), Snapshot(Taught("a", 2, 500)));
}

TEST_P(Contract, LearnsSomething) {
  Learner learner = Fresh();
  Stream stream(options(), 3);
  LearnAll(&learner, Take(&stream, 500));
  const double early = learner.progress().loss;
  const double early_weight = learner.progress().weight;
  LearnAll(&learner, Take(&stream, 4000));
  const Progress before = learner.progress();
  LearnAll(&learner, Take(&stream, 500));
  const double late = (learner.progress().loss - before.loss) / (learner.progress().weight - before.weight);
  EXPECT_LT(late, .85 * early / early_weight);
}

TEST_P(Contract, PredictsWhatItSaysBeforeItLearns) {
  Learner learner = Taught("a", 1, 300);
  Stream stream(options(), 4);
  std::vector<float> scores(learner.outputs());
  for (int i = 0; i < 50; ++i) {
    const Example e = stream.Next();
    learner.Predict(e.features, scores);
    const double loss = learner.Loss(scores, e.label);
    const auto outcome = learner.Learn(e, static_cast<std::uint64_t>(i));
    ASSERT_TRUE(outcome.ok());
    EXPECT_EQ(outcome->loss, loss);
    if (learner.outputs() == 1) {
      EXPECT_EQ(outcome->prediction, scores[0]);
    }
  }
}

TEST_P(Contract, SnapshotAndRestoreGoOnEqually) {
  Learner learner = Taught("a", 1, 400);
  auto restored = Restore(Snapshot(learner));
  ASSERT_TRUE(restored.ok()) << restored.status().message();
  EXPECT_EQ(Snapshot(*restored), Snapshot(learner));
  Stream stream(options(), 8);
  const auto more = Take(&stream, 400);
  LearnAll(&learner, more);
  LearnAll(&*restored, more);
  EXPECT_EQ(Snapshot(*restored), Snapshot(learner));
}

TEST_P(Contract, MergeOrderDoesNotMatterAndDuplicatesAreHarmless) {
  const Learner a = Taught("a", 1, 300);
  const Learner b = Taught("b", 2, 500);
  const Learner c = Taught("c", 3, 100);
  Contributions one;
  Contributions other;
  Contributions all;
  ASSERT_TRUE(one.Add(a).ok() && one.Add(b).ok());
  ASSERT_TRUE(other.Add(c).ok() && other.Add(b).ok());
  ASSERT_TRUE(all.Add(c).ok() && all.Merge(other).ok() && all.Merge(one).ok() && all.Merge(all).ok());
  ASSERT_TRUE(one.Merge(other).ok() && one.Add(a).ok());
  EXPECT_EQ(one.size(), 3u);
  EXPECT_EQ(one.Bytes(), all.Bytes());
  EXPECT_EQ(Snapshot(*one.Combine()), Snapshot(*all.Combine()));
  auto back = Contributions::FromBytes(all.Bytes());
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->Bytes(), all.Bytes());
}

TEST_P(Contract, MergeKeepsOfOneWriterWhatKnowsMost) {
  Contributions late;
  Contributions both;
  ASSERT_TRUE(late.Add(Taught("a", 1, 400)).ok());
  ASSERT_TRUE(both.Add(Taught("a", 1, 400)).ok() && both.Add(Taught("a", 1, 100)).ok());
  EXPECT_EQ(both.Bytes(), late.Bytes());
}

TEST_P(Contract, MergedModelsAreBetterThanTheirParts) {
  // Ten learners of 500 examples each, and one model of them all, on 3,000 examples that none has seen.
  Contributions all;
  std::vector<Learner> parts;
  for (std::uint64_t i = 0; i < 10; ++i) {
    parts.push_back(Taught("w" + std::to_string(i), 20 + i, 500));
    ASSERT_TRUE(all.Add(parts.back()).ok());
  }
  const auto merged = all.Combine();
  ASSERT_TRUE(merged.ok());
  Stream stream(options(), 77);
  const auto unseen = Take(&stream, 3000);
  const auto loss = [&](const Learner& learner) {
    std::vector<float> scores(learner.outputs());
    double sum = 0;
    for (const Example& e : unseen) {
      learner.Predict(e.features, scores);
      sum += learner.Loss(scores, e.label);
    }
    return sum;
  };
  double mean_of_parts = 0;
  for (const Learner& p : parts) mean_of_parts += loss(p) / 10;
  EXPECT_LT(loss(*merged), mean_of_parts);
}

TEST_P(Contract, AMergedModelLearnsOn) {
  Contributions all;
  ASSERT_TRUE(all.Add(Taught("a", 1, 300)).ok() && all.Add(Taught("b", 2, 300)).ok());
  auto merged = all.Combine();
  ASSERT_TRUE(merged.ok());
  Stream stream(options(), 5);
  LearnAll(&*merged, Take(&stream, 300));
  Contributions again;
  EXPECT_EQ(again.Add(*merged).code(), Code::kFailedPrecondition);
}

TEST_P(Contract, RefusesWhatIsNotFiniteAndChangesNothing) {
  Learner learner = Taught("a", 1, 50);
  const std::string before = Snapshot(learner);
  Stream stream(options(), 5);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {kNan, kInf, -kInf}) {
    Example e = stream.Next();
    e.features[2].value = bad;
    EXPECT_EQ(learner.Learn(e, 1).status().code(), Code::kInvalidArgument);
    e = stream.Next();
    e.weight = bad;
    EXPECT_FALSE(learner.Learn(e, 1).ok());
    e = stream.Next();
    e.label = bad;
    EXPECT_FALSE(learner.Learn(e, 1).ok());
  }
  Example e = stream.Next();
  e.weight = -1;
  EXPECT_FALSE(learner.Learn(e, 1).ok());
  e = stream.Next();
  e.features[0].index = 1u << 10;
  EXPECT_FALSE(learner.Learn(e, 1).ok());
  e = stream.Next();
  e.features[0].value = 3e38f;
  EXPECT_FALSE(learner.Learn(e, 1).ok());
  e = stream.Next();
  e.labelled = false;
  EXPECT_FALSE(learner.Learn(e, 1).ok());
  EXPECT_EQ(Snapshot(learner), before);
}

TEST_P(Contract, RefusesALabelOutOfRange) {
  if (options().task == Task::kRegression) return;  // every finite number is in range
  Learner learner = Fresh();
  Stream stream(options(), 5);
  for (const float label : {-2.f, 4.f, .5f, 1e9f}) {
    Example e = stream.Next();
    e.label = label;
    const auto refused = learner.Learn(e, 1);
    ASSERT_FALSE(refused.ok()) << label;
    EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
  }
  EXPECT_EQ(learner.progress().examples, 0u);
}

TEST_P(Contract, StaysFiniteOnAnEnemysStream) {
  Learner learner = Fresh();
  std::vector<float> scores(learner.outputs());
  Random random(6);
  for (int i = 0; i < 5000; ++i) {
    Example e;
    const auto n = random.Below(6);
    for (std::uint64_t j = 0; j < n; ++j) {
      const double size = std::pow(10., random.Uniform(-44, 38));
      e.features.push_back(
          {static_cast<std::uint32_t>(random.Below(8)), static_cast<float>(random.Below(2) == 0 ? size : -size)});
    }
    e.weight = static_cast<float>(std::pow(10., random.Uniform(-30, 20)));
    e.labelled = true;
    e.label = options().task == Task::kRegression
                  ? static_cast<float>(random.Normal() * std::pow(10., random.Uniform(-10, 20)))
              : learner.outputs() == 1 ? (random.Below(2) == 0 ? 1.f : -1.f)
                                       : static_cast<float>(random.Below(learner.outputs()));
    (void)learner.Learn(e, random.Next());
    learner.Predict(e.features, scores);
    for (const float z : scores) ASSERT_TRUE(std::isfinite(z)) << "example " << i;
  }
  const internal::State& s = learner.state();
  for (const auto* numbers : {&s.cells, &s.anchors, &s.factors}) {
    for (const float v : *numbers) ASSERT_TRUE(std::isfinite(v));
  }
  ASSERT_TRUE(Restore(Snapshot(learner)).ok());
}

INSTANTIATE_TEST_SUITE_P(EveryLearner, Contract, ::testing::ValuesIn(EveryLearner()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace ganglion::online
