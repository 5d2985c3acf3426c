// evaluation: what a calibrated decision would do to traffic, on rows it has never seen.
//
//   evaluation.h  the run: the production cascade under a virtual clock, against three other ways to decide
//   report.h      the result as JSON and as one self-contained HTML page
//
// Each row is a request. Its round trips are drawn once, uniformly from the topology's ranges, and used by every way to
// decide, so that comparisons are paired. A request pays time and price at every tier it visits; bytes are those of the
// encoded request (REST with binary tensors), counted on the device's uplink and over all hops.
//   cascade   the certified thresholds
//   cloud     everything sent straight to the top (one hop)
//   device    everything answered by the first stage
//   plug-in   the cascade with thresholds that looked right on the calibration rows, uncertified
//   outage    the cascade with the link into `outage_tier` swallowing everything for the middle third of the requests
// Pure but for the models' scores, which are an argument. Cost: about 1 us a row and way.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "node/decision.h"
#include "stats/summary.h"
#include "topology/topology.h"

namespace ganglion::evaluation {

struct Options {
  topology::Topology topology = topology::Topology::Default();
  std::uint64_t seed = 1;
  topology::Tier outage_tier = topology::Tier::kRegion;
};

// One request's end.
struct Outcome {
  int label = -1;  // -1: no answer
  std::size_t stage = 0;
  bool degraded = false;
  double latency_ms = 0;
  double uplink_bytes = 0;
  double hop_bytes = 0;
  double cost = 0;
};

// One way to decide, over all rows.
struct Way {
  std::string name;
  std::int64_t answered = 0;
  std::int64_t degraded = 0;
  std::int64_t lost = 0;    // no answer by the deadline
  double accuracy = 0;      // of all rows; without labels, agreement with the top
  double risk = 0;          // the promise's own measure; see PromiseKind
  std::int64_t broken = 0;  // risk = broken / trials
  std::int64_t trials = 0;
  stats::Summary latency_ms;
  double uplink_bytes = 0;  // sums
  double hop_bytes = 0;
  double cost = 0;
};

struct TierReport {
  std::size_t stage = 0;
  topology::Tier tier = topology::Tier::kDevice;
  std::string files;
  std::int64_t decided = 0;
  double error = 0;        // of what it decided; without labels, disagreement with the top
  double error_bound = 1;  // certified, from the lock; 1 for the top
  double alone = 0;        // accuracy of this stage on all rows
  stats::Summary latency_ms;
  double uplink_bytes = 0;
  double cost = 0;
};

// A point of the path: how much is accepted below the top, and the risk, here and as certified.
struct CurvePoint {
  double coverage = 0;
  double risk = 0;
  double bound = 1;  // Clopper-Pearson at delta from the certifying half, for this point alone
};

struct Report {
  std::string decision;
  std::int64_t rows = 0;
  bool labelled = true;
  calibration::Promise promise;
  bool certified = false;
  std::int64_t certifying_rows = 0;
  double deadline_ms = 0;
  double request_bytes = 0;
  double below_region = 0;  // share decided by tiers below region
  std::vector<TierReport> tiers;
  Way cascade, cloud, device, plug_in;
  // The probability of so many breaches or more if the risk were just the limit: small where these rows are not like
  // the calibration rows (or the certificate is one of the delta that fail).
  double breach_p_value = 1;
  Way outage, outage_cloud;  // all rows, with the link down in the middle third
  std::int64_t outage_rows = 0;
  std::vector<CurvePoint> curve;
  double chosen_coverage = 0;
  double chosen_risk = 0;
  std::vector<double> cascade_latency_ms;  // for the histogram
  std::vector<double> cloud_latency_ms;
};

// `scores` are Decision::ScoreAll of the rows; `labels` may be empty. Refuses labels out of range.
Result<Report> Evaluate(const node::Decision& decision, const std::vector<node::Stage::Scores>& scores,
                        std::span<const int> labels, const Options& options);

}  // namespace ganglion::evaluation
