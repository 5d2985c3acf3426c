#include "node/decision.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace ganglion::node {
namespace {
// A burst of threads makes as many lanes; no more than these are kept.
constexpr std::size_t kMaxIdleLanes = 64;
}  // namespace

Result<std::unique_ptr<Decision>> Decision::Open(const std::shared_ptr<runtime::Engine>& engine,
                                                 const std::filesystem::path& dir, const OpenOptions& options) {
  std::unique_ptr<Decision> decision(new Decision);
  Decision& d = *decision;
  ASSIGN_OR_RETURN(d.config_, LoadDecisionFile(dir));
  if (options.with_lock) {
    ASSIGN_OR_RETURN(d.lock_, LoadLock(dir));
    if (d.lock_->stages.size() != d.config_.stages.size()) {
      return FailedPrecondition(
          fmt::format("{}: decision.yaml has {} stages, decision.lock certifies {}. Run ganglion calibrate {}.",
                      d.config_.name, d.config_.stages.size(), d.lock_->stages.size(), dir.string()));
    }
  }
  std::vector<const Stage*> loaded;
  for (std::size_t i = 0; i < d.config_.stages.size(); ++i) {
    if (options.highest_tier && d.config_.stages[i].tier > *options.highest_tier) break;
    ASSIGN_OR_RETURN(auto stage, Stage::Load(engine, d.config_, i, options.connect));
    loaded.push_back(stage.get());
    d.stages_.push_back(std::move(stage));
  }
  if (loaded.empty() && !options.without_stages) {
    return FailedPrecondition(
        fmt::format("{} has no stage on tier {} or below", d.config_.name, topology::Name(*options.highest_tier)));
  }
  const Stage* first = nullptr;
  for (const Stage* s : loaded) {
    if (s->is_rules()) continue;
    if (first == nullptr) first = s;
    if (s->classes() != first->classes()) {
      return InvalidArgument(fmt::format("{}: {} has {} classes, {} has {}", d.config_.name, first->files().back().file,
                                         first->classes(), s->files().back().file, s->classes()));
    }
  }
  // A node with nothing but rules learns the number of classes from the labels.
  d.classes_ = first != nullptr ? first->classes() : d.config_.labels.size();
  if (d.classes_ == 0 && !loaded.empty())
    return InvalidArgument(
        fmt::format("{}: rules alone, and no labels that say how many classes there are; add labels", d.config_.name));
  for (auto& s : d.stages_) {
    if (s->is_rules()) RETURN_IF_ERROR(s->SetClasses(d.classes_).Within(d.config_.name));
  }
  if (d.classes_ != 0 && !d.config_.labels.empty() && d.config_.labels.size() != d.classes()) {
    return InvalidArgument(fmt::format("{}: labels has {} names, the models have {} classes", d.config_.name,
                                       d.config_.labels.size(), d.classes()));
  }
  if (d.lock_) RETURN_IF_ERROR(Certifies(*d.lock_, d.config_, loaded));

  d.policy_.when_late = d.config_.when_late;
  for (std::size_t i = 0; i < d.config_.stages.size(); ++i) {
    cascade::StagePolicy policy;
    policy.tier = d.config_.stages[i].tier;
    policy.threshold = d.lock_ ? d.lock_->stages[i].threshold : calibration::kNever;
    d.policy_.stages.push_back(policy);
  }
  // One set of lanes now: it shows whether there can be any, and the first request finds it warm.
  if (auto lanes = d.TakeLanes()) {
    d.has_lanes_ = true;
    d.idle_.With([&](auto& idle) {
      idle.reserve(kMaxIdleLanes);
      idle.push_back(std::move(lanes));
    });
  }
  return decision;
}

std::unique_ptr<Decision::Lanes> Decision::TakeLanes() const {
  std::unique_ptr<Lanes> lanes = idle_.With([](auto& idle) -> std::unique_ptr<Lanes> {
    if (idle.empty()) return nullptr;
    auto last = std::move(idle.back());
    idle.pop_back();
    return last;
  });
  if (lanes != nullptr) return lanes;
  lanes = std::make_unique<Lanes>();
  for (const auto& stage : stages_) {
    lanes->stages.push_back(stage->MakeLane());
    if (lanes->stages.back() == nullptr) return nullptr;
  }
  return lanes;
}

Status Decision::CheckInputs(std::span<const tensor::View> inputs) const {
  if (inputs.size() != config_.inputs.size()) {
    return InvalidArgument(
        fmt::format("{} takes {} inputs, got {}", config_.name, config_.inputs.size(), inputs.size()));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    RETURN_IF_ERROR(tensor::Matches(config_.inputs[i], inputs[i]));
    RETURN_IF_ERROR(tensor::CheckFinite(config_.inputs[i].name, inputs[i]));
    if (inputs[i].shape[0] != inputs[0].shape[0]) {
      return InvalidArgument(fmt::format("input \"{}\" has {} rows, \"{}\" has {}", config_.inputs[i].name,
                                         inputs[i].shape[0], config_.inputs[0].name, inputs[0].shape[0]));
    }
  }
  return {};
}

calibration::Judgement Decision::Judge(std::size_t i, std::span<const float> z, std::optional<float> own) const {
  const LockStage& s = lock_->stages[i];
  auto judgement = calibration::Judge(z, s.temperature, s.measure);
  if (own && judgement.confidence >= 0) {
    const bool sure = stages_[i]->is_rules() ? *own >= 0 : *own >= 0 && *own <= 1;
    judgement.confidence = sure ? *own : -1;  // NaN too: none
    if (!sure && stages_[i]->is_rules()) judgement.label = -1;
  }
  return judgement;
}

Status Decision::CheckScores(std::size_t stage, std::span<const float> z) const {
  for (const float v : z) {
    if (std::isnan(v) || v == std::numeric_limits<float>::infinity()) [[unlikely]] {
      return Internal(fmt::format("{} gave a number that is not finite", stages_[stage]->files().back().file));
    }
  }
  return {};
}

// The request path.
Result<Decided> Decision::Decide(std::span<const tensor::View> inputs, const Clock& clock, TimePoint deadline) const {
  GANGLION_CHECK(lock_.has_value());
  RETURN_IF_ERROR(CheckInputs(inputs));
  if (inputs[0].shape[0] != 1) return InvalidArgument(fmt::format("one row at a time, got {}", inputs[0].shape[0]));
  if (!has_lanes_) return DecideIn(nullptr, inputs, clock, deadline);
  std::unique_ptr<Lanes> lanes = TakeLanes();
  auto decided = DecideIn(lanes.get(), inputs, clock, deadline);
  idle_.With([&](auto& idle) {
    if (lanes != nullptr && idle.size() < kMaxIdleLanes) idle.push_back(std::move(lanes));
  });
  return decided;
}

Result<Decided> Decision::DecideIn(Lanes* lanes, std::span<const tensor::View> inputs, const Clock& clock,
                                   TimePoint deadline) const {
  const TimePoint begin = clock.Now();
  cascade::Cascade cascade(policy_, deadline);
  cascade::Step step = cascade.Begin(begin);
  Decided d;
  Status failure;
  TimePoint now = begin;
  while (step.kind == cascade::Step::Kind::kDefer) {
    if (step.stage >= stages_.size()) {  // a tier above decides
      d.kind = Decided::Kind::kDeferred;
      d.took = now - begin;
      return d;
    }
    calibration::Judgement judgement;
    Status ran;
    if (lanes != nullptr) {
      Stage::Lane& lane = *lanes->stages[step.stage];
      ran = lane.Run(inputs);
      if (ran.ok()) ran = CheckScores(step.stage, lane.z());
      if (ran.ok()) judgement = Judge(step.stage, lane.z(), lane.confidence());
    } else {
      const auto scores = stages_[step.stage]->Score(inputs);
      ran = scores.ok() ? CheckScores(step.stage, scores->z) : scores.status();
      if (ran.ok())
        judgement = Judge(step.stage, scores->z,
                          scores->confidence.empty() ? std::nullopt : std::optional(scores->confidence[0]));
    }
    now = clock.Now();
    if (ran.ok() && judgement.label < 0 && stages_[step.stage]->is_rules()) {  // no rule holds: not an answer
      step = cascade.OnFailure(cascade::Reason::kFailed, now);
    } else if (ran.ok()) {
      d.label = judgement.label;
      d.confidence = std::clamp(judgement.confidence, 0.f, 1.f);
      d.stage = step.stage;
      d.tier = policy_.stages[step.stage].tier;
      step = cascade.OnAnswer(judgement.label, judgement.confidence, now);
    } else {
      failure = std::move(ran);
      step = cascade.OnFailure(cascade::Reason::kFailed, now);
    }
  }
  if (step.kind == cascade::Step::Kind::kFail) {
    if (step.answer.reason == cascade::Reason::kFailed) return failure;
    return Status(Code::kDeadlineExceeded, d.label < 0
                                               ? "deadline passed before any stage answered"
                                               : "deadline passed before a stage accepted, and when_late is fail");
  }
  d.kind = step.answer.degraded ? Decided::Kind::kDegraded : Decided::Kind::kAccepted;
  d.label = step.answer.label;
  d.confidence = std::clamp(step.answer.confidence, 0.f, 1.f);
  d.stage = step.answer.stage;
  d.tier = policy_.stages[d.stage].tier;
  d.reason = step.answer.reason;
  d.took = now - begin;
  return d;
}

Result<std::vector<Stage::Scores>> Decision::ScoreAll(std::span<const tensor::View> inputs) const {
  RETURN_IF_ERROR(CheckInputs(inputs));
  std::vector<Stage::Scores> all;
  for (const auto& stage : stages_) {
    ASSIGN_OR_RETURN(auto scores, stage->Score(inputs));
    all.push_back(std::move(scores));
  }
  return all;
}

}  // namespace ganglion::node
