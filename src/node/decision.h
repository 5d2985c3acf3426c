// A Decision is a decision directory, loaded: it decides one request at a time, or scores many rows.
//
// Intuition: the hot path is one list: check the input, take a lane, then as the cascade says run a stage, judge its
// answer, accept or go on. Everything it needs was made when the decision was opened; once warm it allocates nothing.
//
// A service; const members are thread-safe.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/guarded.h"
#include "base/status.h"
#include "cascade/cascade.h"
#include "node/decision_file.h"
#include "node/lock.h"
#include "node/stage.h"
#include "runtime/runtime.h"

namespace ganglion::node {

struct Decided {
  enum class Kind {
    kAccepted,  // by the stage's certified threshold, or by the top
    kDegraded,  // the best so far, outside the promise; `reason` says why
    kDeferred,  // no loaded stage accepts it: ask a tier above. label is the best so far
  } kind = Kind::kAccepted;
  int label = -1;
  float confidence = 0;
  std::size_t stage = 0;
  topology::Tier tier = topology::Tier::kDevice;
  cascade::Reason reason = cascade::Reason::kNone;
  Duration took{};
};

struct OpenOptions {
  // Stages above this tier are not loaded; requests that would go there come back kDeferred.
  std::optional<topology::Tier> highest_tier;
  bool with_lock = true;        // false: to calibrate
  bool without_stages = false;  // allows that there is none up to highest_tier: then `classes` come from the labels
  RemoteConnect connect;        // for stages of other servers: ConnectRemoteStage; nothing: they are refused
};

class Decision {
 public:
  static Result<std::unique_ptr<Decision>> Open(const std::shared_ptr<runtime::Engine>& engine,
                                                const std::filesystem::path& dir, const OpenOptions& options = {});

  const DecisionConfig& config() const { return config_; }
  const Lock& lock() const { return *lock_; }  // REQUIRES: opened with_lock
  std::size_t classes() const { return classes_; }
  std::size_t loaded_stages() const { return stages_.size(); }
  const Stage& stage(std::size_t i) const { return *stages_[i]; }
  // Of all stages of the file, loaded or not, with the certified thresholds.
  const cascade::Policy& policy() const { return policy_; }

  // REQUIRES: opened with_lock. Decides one row. `inputs` in the order of the decision file; refuses wrong shapes and
  // numbers that are not finite.
  Result<Decided> Decide(std::span<const tensor::View> inputs, const Clock& clock, TimePoint deadline) const;

  // All stages on all rows, without thresholds: what calibration and evaluation start from.
  Result<std::vector<Stage::Scores>> ScoreAll(std::span<const tensor::View> inputs) const;

  // What stage i makes of its scores. Label -1: no answer (no rule holds).
  calibration::Judgement Judge(std::size_t i, std::span<const float> z, std::optional<float> own) const;
  // Refuses wrong shapes, row counts that differ, and numbers that are not finite.
  Status CheckInputs(std::span<const tensor::View> inputs) const;
  // A model that gives NaN has broken; its answer must not be taken for one, at the top least of all.
  Status CheckScores(std::size_t stage, std::span<const float> z) const;

 private:
  // Memory for one request at a time through all stages.
  struct Lanes {
    std::vector<std::unique_ptr<Stage::Lane>> stages;
  };
  Decision() = default;
  Result<Decided> DecideIn(Lanes* lanes, std::span<const tensor::View> inputs, const Clock& clock,
                           TimePoint deadline) const;
  std::unique_ptr<Lanes> TakeLanes() const;

  DecisionConfig config_;
  std::optional<Lock> lock_;
  std::vector<std::unique_ptr<Stage>> stages_;
  cascade::Policy policy_;
  std::size_t classes_ = 0;
  bool has_lanes_ = false;
  mutable Guarded<std::vector<std::unique_ptr<Lanes>>> idle_;
};

}  // namespace ganglion::node
