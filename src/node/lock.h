// decision.lock: what calibration found, bound to the models it was found for.
//
// A JSON file for people and programs: the promise, the data (by digest) and how they were split, for every stage its
// files with their digests, temperature, measure and threshold, and the path that was walked, so that anybody can see
// how the certificate came about. A decision whose files have other digests than its lock is not served.
// A value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "calibration/calibration.h"
#include "node/stage.h"
#include "topology/topology.h"

namespace ganglion::node {

struct LockStage {
  topology::Tier tier = topology::Tier::kDevice;
  std::vector<StageFile> files;
  float temperature = 1;
  calibration::Measure measure = calibration::Measure::kMaxProbability;
  std::string confidence_output;           // overrides temperature and measure
  double threshold = calibration::kNever;  // of the top: never looked at
  // On the certifying half: rows accepted here, how many of them were wrong (without labels: differed from the top),
  // and the bound on that share which holds for all stages and all points of the path together with 1 - delta. That is
  // a statement beside the promise, with a delta of its own: both hold together with 1 - 2 delta.
  std::int64_t accepted = 0;
  std::int64_t wrong = 0;
  double wrong_at_most = 1;
};

struct LockPoint {
  calibration::Thresholds thresholds;
  std::int64_t accepted = 0;  // on the certifying half
  std::int64_t broken = 0;
};

struct Lock {
  std::string decision;
  std::vector<tensor::Spec> inputs;
  calibration::Promise promise;
  std::string data_digest;
  std::int64_t tuning_rows = 0;
  std::int64_t certifying_rows = 0;
  std::uint64_t seed = 0;
  bool holds = false;
  double p_value = 1;
  std::size_t start = 0;
  std::size_t point = 0;
  std::int64_t accepted = 0;  // below the top, on the certifying half, at `point`
  std::int64_t broken = 0;
  std::vector<LockStage> stages;  // the top last
  std::vector<LockPoint> path;
  calibration::Thresholds plug_in;  // the uncertified rule of thumb on the same rows, for comparison

  calibration::Thresholds thresholds() const;
};

std::string WriteLock(const Lock& lock);
Result<Lock> ParseLock(const std::string& text);
Result<Lock> LoadLock(const std::filesystem::path& dir);

// OK when the lock is of this decision's inputs and stages: same tiers, files in the same roles, and digests. Says what
// differs and what to do.
Status Certifies(const Lock& lock, const DecisionConfig& config, const std::vector<const Stage*>& stages);

}  // namespace ganglion::node
