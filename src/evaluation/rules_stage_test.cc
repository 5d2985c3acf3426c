// Evaluation of a decision whose first stage is made of rules.
#include <gtest/gtest.h>

#include "evaluation/evaluation.h"
#include "evaluation/report.h"
#include "node/fixture_test.h"

namespace ganglion::evaluation {
namespace {

using node::fixture::DecisionDir;
using node::fixture::MakePoints;

class EvaluationWithRules : public DecisionDir {};

TEST_F(EvaluationWithRules, CountsWhatTheRulesDecidedAsAStageOfItsOwn) {
  WriteThreeTiers(R"(  - {tier: device, rules: rules.yaml}
  - {tier: device, model: device.onnx}
  - {tier: global, ensemble: [a.onnx, b.onnx]}
)");
  Write(
      "rules.yaml",
      "rules:\n  - if: {all: [{feature: \"point[0]\", above: 1}, {feature: \"point[1]\", above: 1}]}\n    then: ne\n");
  CalibrateInPlace();
  const auto decision = node::Decision::Open(engine_, dir_);
  ASSERT_TRUE(decision.ok()) << decision.status().message();
  const auto points = MakePoints(2000, 42);
  std::int64_t covered = 0;
  for (std::size_t r = 0; r < 2000; ++r)
    covered += points.x.As<float>()[2 * r] > 1 && points.x.As<float>()[2 * r + 1] > 1 ? 1 : 0;
  const tensor::View view = points.x.View();
  const auto scores = (*decision)->ScoreAll({&view, 1});
  ASSERT_TRUE(scores.ok()) << scores.status().message();
  const auto report = Evaluate(**decision, *scores, points.labels, {});
  ASSERT_TRUE(report.ok()) << report.status().message();
  ASSERT_EQ(report->tiers.size(), 3u);
  EXPECT_EQ(report->tiers[0].decided, covered);
  EXPECT_EQ(report->tiers[0].files, "rules.yaml");
  EXPECT_LT(report->tiers[0].error, .05);
  EXPECT_EQ(report->tiers[0].decided + report->tiers[1].decided + report->tiers[2].decided, 2000);
  EXPECT_EQ(report->cascade.lost, 0);
  EXPECT_LE(report->cascade.risk, .05);
  EXPECT_LT(report->cascade.cost, report->cloud.cost);
}

}  // namespace
}  // namespace ganglion::evaluation
