#include "evaluation/evaluation.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "evaluation/report.h"
#include "node/fixture_test.h"
#include "wire/json.h"

namespace ganglion::evaluation {
namespace {

using node::fixture::DecisionDir;
using node::fixture::MakePoints;

class Evaluation : public DecisionDir {
 protected:
  void SetUp() override {
    DecisionDir::SetUp();
    WriteThreeTiers();
    CalibrateInPlace();
    decision_ = node::Decision::Open(engine_, dir_).value();
  }
  Result<Report> Run(const node::fixture::Points& p, const Options& options = {}) {
    const tensor::View view = p.x.View();
    const auto scores = decision_->ScoreAll({&view, 1});
    EXPECT_TRUE(scores.ok());
    return Evaluate(*decision_, *scores, p.labels, options);
  }
  std::unique_ptr<node::Decision> decision_;
};

TEST_F(Evaluation, AddsUp) {
  const auto p = MakePoints(3000, 42);
  const auto r = Run(p);
  ASSERT_TRUE(r.ok()) << r.status().message();
  std::int64_t decided = 0;
  double cost = 0;
  double bytes = 0;
  for (const auto& t : r->tiers) {
    decided += t.decided;
    cost += t.cost;
    bytes += t.uplink_bytes;
  }
  EXPECT_EQ(decided, 3000);
  EXPECT_NEAR(cost, r->cascade.cost, 1e-9);
  EXPECT_NEAR(bytes, r->cascade.uplink_bytes, 1e-6);
  EXPECT_EQ(r->cascade.lost, 0);
  EXPECT_EQ(r->cascade.degraded, 0);
  // What leaves the device crosses its uplink exactly once.
  const auto beyond = static_cast<double>(3000 - r->tiers[0].decided);
  EXPECT_NEAR(r->cascade.uplink_bytes, beyond * r->request_bytes, 1e-6);
  const auto top = static_cast<double>(r->tiers[2].decided);
  EXPECT_NEAR(r->cascade.hop_bytes, (beyond + top) * r->request_bytes, 1e-6);
  // Prices of every tier that was visited.
  EXPECT_NEAR(r->cascade.cost, 3000 * .0001 + beyond * .001 + top * .1, 1e-9);
  EXPECT_NEAR(r->cloud.cost, 3000 * .1, 1e-9);
  EXPECT_EQ(r->device.uplink_bytes, 0);
}

TEST_F(Evaluation, DrawsRoundTripsFromTheTopology) {
  const auto r = Run(MakePoints(3000, 42)).value();
  // The cloud alone: uniform over 100 to 500 ms. Mean 300, sd of the mean 2.1; 6 sd fails with probability 2e-9.
  EXPECT_NEAR(r.cloud.latency_ms.mean, 300, 13);
  EXPECT_LE(r.cloud.latency_ms.max, 500);
  EXPECT_NEAR(r.device.latency_ms.mean, 3, .15);
  // What the top decides has paid device and edge on its way.
  EXPECT_GT(r.tiers[2].latency_ms.p50, 250);
  EXPECT_LE(r.tiers[2].latency_ms.p99, 525);
  EXPECT_NE(Run(MakePoints(3000, 42), {.seed = 2})->cloud.latency_ms.mean, r.cloud.latency_ms.mean);
  EXPECT_EQ(Run(MakePoints(3000, 42))->cloud.latency_ms.mean, r.cloud.latency_ms.mean);
}

TEST_F(Evaluation, LosesNothingAndHangsNowhereWhenALinkIsDown) {
  Options o;
  o.outage_tier = topology::Tier::kEdge;
  const auto r = Run(MakePoints(3000, 42), o).value();
  EXPECT_EQ(r.outage.lost, 0);
  EXPECT_EQ(r.outage.answered, 3000);
  EXPECT_GT(r.outage.degraded, 0);
  EXPECT_LE(r.outage.latency_ms.max, r.deadline_ms);
  EXPECT_EQ(r.outage_cloud.lost, 1000);
  EXPECT_EQ(r.outage_rows, 1000);
}

TEST_F(Evaluation, MeasuresThePromiseItCertified) {
  const auto p = MakePoints(20'000, 43);
  const auto r = Run(p).value();
  // The same population as in calibration: the risk lies below the limit, and the curve's chosen point says the same.
  EXPECT_LE(r.cascade.risk, r.promise.limit);
  EXPECT_NEAR(r.chosen_risk, r.cascade.risk, 1e-12);
  EXPECT_GT(r.chosen_coverage, .3);
  double last = -1;
  for (const auto& c : r.curve) {
    EXPECT_GE(c.coverage, last);
    EXPECT_GE(c.bound, 0);
    last = c.coverage;
  }
}

TEST_F(Evaluation, WorksWithoutLabelsAndRefusesLabelsOutOfRange) {
  auto p = MakePoints(500, 44);
  p.labels[3] = 9;
  EXPECT_NE(Run(p).status().message().find("label 9 of row 3"), std::string::npos);
  p.labels.clear();
  const auto r = Run(p).value();
  EXPECT_FALSE(r.labelled);
  EXPECT_EQ(r.cloud.accuracy, 1);
}

TEST_F(Evaluation, ReportsAreJsonAndSelfContainedHtml) {
  const auto r = Run(MakePoints(2000, 45)).value();
  wire::Json j;
  ASSERT_TRUE(wire::ParseJson(ToJson(r), &j).ok());
  EXPECT_EQ(j["rows"], 2000);
  EXPECT_EQ(j["tiers"].size(), 3u);
  EXPECT_GT(j["cascade"]["cloud_over_this"]["latency"].get<double>(), 1);
  const std::string html = ToHtml(r);
  EXPECT_EQ(html.find("http"), std::string::npos) << "nothing outside the page";
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_NE(html.find("risk against coverage"), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::evaluation
