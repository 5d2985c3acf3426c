// Calibrate makes a lock: it scores the rows, splits them, tunes on one half and certifies on the other.
//
// Uses the tuning half alone for: temperature of each stage, its confidence measure (unless the file names one), the
// path and its start. Uses the certifying half alone for the walk, and for the bounds on what each stage accepts.
// Without labels only disagreement_at_most can be promised; temperatures are then fitted to the top's answers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "calibration/calibration.h"
#include "node/decision.h"
#include "topology/topology.h"

namespace ganglion::node {

struct CalibrateOptions {
  calibration::Promise promise;
  std::uint64_t seed = 1;  // of the split
  topology::Topology topology = topology::Topology::Default();
};

struct Calibrated {
  Lock lock;
  std::vector<std::string> remarks;  // what a user should know: a stage that accepts nothing, and why
};

// What the stages said of a set of rows: the input of tuning and certifying, wherever it comes from.
struct Scored {
  std::vector<Stage::Scores> stages;  // the top last
  std::size_t classes = 0;
  std::vector<int> labels;  // empty: none

  std::size_t rows() const { return stages[0].rows; }
};

// What tuning found, before anything is certified.
struct Tuning {
  std::vector<float> temperature;             // [stage], the top too
  std::vector<calibration::Measure> measure;  // [stage]
  calibration::Evidence evidence;             // of all rows
  std::vector<std::vector<int>> answers;      // [stage][row]
  std::vector<calibration::Thresholds> path;
  std::size_t start = 0;
};
// `fixed_measure[s]` where the file names one. `tuning_rows` are indices into `scored`.
Tuning Tune(const Scored& scored, const calibration::Promise& promise,
            const std::vector<std::optional<calibration::Measure>>& fixed_measure, const calibration::StageCost& cost,
            std::span<const std::size_t> tuning_rows);

// What it costs to come to each stage: the mean of round trip, price and uplink bytes, each as a share of what sending
// everything to the top costs. Only the first step off the device uses its uplink.
calibration::StageCost CostOf(const std::vector<StageConfig>& stages, const topology::Topology& topology);

// Refuses data that do not fit and sets too small to certify anything. `data_digest` is written into the lock.
Result<Calibrated> Calibrate(const Decision& decision, std::span<const tensor::View> inputs,
                             std::span<const int> labels, const std::string& data_digest,
                             const CalibrateOptions& options);

}  // namespace ganglion::node
