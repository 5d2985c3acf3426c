#include "node/lock.h"

#include <fmt/format.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "data/file.h"
#include "wire/json.h"

namespace ganglion::node {
namespace {

using wire::Json;

// JSON has no infinity: a threshold that is never reached is null.
Json ThresholdJson(double t) { return t == calibration::kNever ? Json(nullptr) : Json(t); }

Json ThresholdsJson(const calibration::Thresholds& thresholds) {
  Json list = Json::array();
  for (const double t : thresholds) list.push_back(ThresholdJson(t));
  return list;
}

Result<double> ReadThreshold(const Json& j) {
  if (j.is_null()) return calibration::kNever;
  if (!j.is_number() || !(j.get<double>() >= 0)) return InvalidArgument("a threshold is no number >= 0");
  return j.get<double>();
}

Result<calibration::Thresholds> ReadThresholds(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* list, wire::GetArray(object, key));
  calibration::Thresholds t;
  for (const auto& v : *list) {
    ASSIGN_OR_RETURN(const double one, ReadThreshold(v));
    t.push_back(one);
  }
  return t;
}

Result<LockStage> ReadStage(const Json& j) {
  LockStage s;
  ASSIGN_OR_RETURN(const std::string tier, wire::GetString(j, "tier"));
  const auto t = topology::TierFromName(tier);
  if (!t) return InvalidArgument("\"" + tier + "\" is no tier");
  s.tier = *t;
  ASSIGN_OR_RETURN(const Json* files, wire::GetArray(j, "files"));
  for (const auto& f : *files) {
    StageFile file;
    ASSIGN_OR_RETURN(file.file, wire::GetString(f, "file"));
    ASSIGN_OR_RETURN(file.role, wire::GetString(f, "role"));
    ASSIGN_OR_RETURN(const std::string hex, wire::GetString(f, "sha256"));
    ASSIGN_OR_RETURN(file.digest, crypto::DigestFromHex(hex));
    s.files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(const double temperature, wire::GetNumber(j, "temperature"));
  s.temperature = static_cast<float>(temperature);
  if (!(s.temperature > 0) || !std::isfinite(s.temperature))
    return InvalidArgument("temperature must be > 0 and finite");
  ASSIGN_OR_RETURN(const std::string measure, wire::GetString(j, "confidence"));
  if (const auto m = calibration::MeasureFromName(measure)) {
    s.measure = *m;
  } else if (measure.starts_with("output:")) {
    s.confidence_output = measure.substr(7);
  } else {
    return InvalidArgument("\"" + measure + "\" is no confidence");
  }
  if (!j.contains("threshold")) return InvalidArgument("\"threshold\" is missing");
  ASSIGN_OR_RETURN(s.threshold, ReadThreshold(j["threshold"]));
  ASSIGN_OR_RETURN(s.accepted, wire::GetInteger(j, "accepted"));
  ASSIGN_OR_RETURN(s.wrong, wire::GetInteger(j, "wrong"));
  ASSIGN_OR_RETURN(s.wrong_at_most, wire::GetNumber(j, "wrong_at_most"));
  return s;
}

}  // namespace

calibration::Thresholds Lock::thresholds() const {
  calibration::Thresholds t;
  for (std::size_t i = 0; i + 1 < stages.size(); ++i) t.push_back(stages[i].threshold);
  return t;
}

std::string WriteLock(const Lock& lock) {
  Json j;
  j["ganglion_lock"] = 1;
  j["decision"] = lock.decision;
  for (const auto& spec : lock.inputs) j["input"][spec.name] = spec.Text();
  j["promise"][std::string(calibration::Name(lock.promise.kind))] = lock.promise.limit;
  j["promise"]["delta"] = lock.promise.delta;
  j["data"] = {{"sha256", lock.data_digest},
               {"tuning_rows", lock.tuning_rows},
               {"certifying_rows", lock.certifying_rows},
               {"seed", lock.seed}};
  j["certificate"] = {{"holds", lock.holds},   {"p_value", lock.p_value}, {"accepted", lock.accepted},
                      {"broken", lock.broken}, {"start", lock.start},     {"point", lock.point}};
  j["stages"] = Json::array();
  for (const auto& s : lock.stages) {
    Json one;
    one["tier"] = std::string(topology::Name(s.tier));
    one["files"] = Json::array();
    for (const auto& f : s.files)
      one["files"].push_back({{"file", f.file}, {"role", f.role}, {"sha256", f.digest.Hex()}});
    one["temperature"] = s.temperature;
    one["confidence"] =
        s.confidence_output.empty() ? std::string(calibration::Name(s.measure)) : "output:" + s.confidence_output;
    one["threshold"] = ThresholdJson(s.threshold);
    one["accepted"] = s.accepted;
    one["wrong"] = s.wrong;
    one["wrong_at_most"] = s.wrong_at_most;
    j["stages"].push_back(std::move(one));
  }
  j["plug_in"] = ThresholdsJson(lock.plug_in);
  j["path"] = Json::array();
  for (const auto& p : lock.path)
    j["path"].push_back({{"thresholds", ThresholdsJson(p.thresholds)}, {"accepted", p.accepted}, {"broken", p.broken}});
  return wire::WriteJson(j);
}

Result<Lock> ParseLock(const std::string& text) {
  Json j;
  RETURN_IF_ERROR(wire::ParseJson(text, &j));
  ASSIGN_OR_RETURN(const std::int64_t version, wire::GetInteger(j, "ganglion_lock"));
  if (version != 1)
    return Unimplemented("lock of format " + std::to_string(version) +
                         ", this version reads format 1; calibrate again");
  Lock lock;
  ASSIGN_OR_RETURN(lock.decision, wire::GetString(j, "decision"));
  ASSIGN_OR_RETURN(const Json* inputs, wire::GetObject(j, "input"));
  for (const auto& [name, type] : inputs->items()) {
    if (!type.is_string()) return InvalidArgument("\"input\" holds something that is no type");
    ASSIGN_OR_RETURN(auto spec, tensor::ParseSpec(type.get_ref<const std::string&>()));
    spec.name = name;
    lock.inputs.push_back(std::move(spec));
  }
  ASSIGN_OR_RETURN(const Json* promise, wire::GetObject(j, "promise"));
  bool found = false;
  for (const auto& [key, value] : promise->items()) {
    if (const auto kind = calibration::PromiseFromName(key)) {
      lock.promise.kind = *kind;
      ASSIGN_OR_RETURN(lock.promise.limit, wire::GetNumber(*promise, key));
      found = true;
    }
  }
  if (!found) return InvalidArgument("\"promise\" names no promise");
  ASSIGN_OR_RETURN(lock.promise.delta, wire::GetNumber(*promise, "delta"));
  RETURN_IF_ERROR(lock.promise.Check());
  ASSIGN_OR_RETURN(const Json* data, wire::GetObject(j, "data"));
  ASSIGN_OR_RETURN(lock.data_digest, wire::GetString(*data, "sha256"));
  ASSIGN_OR_RETURN(lock.tuning_rows, wire::GetInteger(*data, "tuning_rows"));
  ASSIGN_OR_RETURN(lock.certifying_rows, wire::GetInteger(*data, "certifying_rows"));
  ASSIGN_OR_RETURN(const std::int64_t seed, wire::GetInteger(*data, "seed"));
  lock.seed = static_cast<std::uint64_t>(seed);
  ASSIGN_OR_RETURN(const Json* certificate, wire::GetObject(j, "certificate"));
  ASSIGN_OR_RETURN(lock.holds, wire::GetBool(*certificate, "holds"));
  ASSIGN_OR_RETURN(lock.p_value, wire::GetNumber(*certificate, "p_value"));
  ASSIGN_OR_RETURN(lock.accepted, wire::GetInteger(*certificate, "accepted"));
  ASSIGN_OR_RETURN(lock.broken, wire::GetInteger(*certificate, "broken"));
  ASSIGN_OR_RETURN(const std::int64_t start, wire::GetInteger(*certificate, "start"));
  ASSIGN_OR_RETURN(const std::int64_t point, wire::GetInteger(*certificate, "point"));
  lock.start = static_cast<std::size_t>(start);
  lock.point = static_cast<std::size_t>(point);
  ASSIGN_OR_RETURN(const Json* stages, wire::GetArray(j, "stages"));
  for (std::size_t i = 0; i < stages->size(); ++i) {
    auto stage = ReadStage((*stages)[i]);
    if (!stage.ok()) return stage.status().Within(fmt::format("stages[{}]", i));
    if (!lock.holds) stage->threshold = calibration::kNever;
    lock.stages.push_back(std::move(*stage));
  }
  if (lock.stages.empty()) return InvalidArgument("\"stages\" is empty");
  ASSIGN_OR_RETURN(lock.plug_in, ReadThresholds(j, "plug_in"));
  ASSIGN_OR_RETURN(const Json* path, wire::GetArray(j, "path"));
  for (const auto& p : *path) {
    LockPoint one;
    ASSIGN_OR_RETURN(one.thresholds, ReadThresholds(p, "thresholds"));
    ASSIGN_OR_RETURN(one.accepted, wire::GetInteger(p, "accepted"));
    ASSIGN_OR_RETURN(one.broken, wire::GetInteger(p, "broken"));
    lock.path.push_back(std::move(one));
  }
  for (const auto& p : lock.path) {
    if (p.thresholds.size() + 1 != lock.stages.size())
      return InvalidArgument("a point of the path has other stages than the lock");
  }
  // Counts that cannot be: a lock that was edited by hand.
  const auto counts = [&](std::int64_t part, std::int64_t whole) {
    return 0 <= part && part <= whole && whole <= lock.certifying_rows;
  };
  bool sound = lock.tuning_rows >= 0 && lock.certifying_rows >= 0 &&
               lock.certifying_rows <= limits::kMaxTensorElements && counts(lock.broken, lock.accepted) && start >= 0 &&
               point >= 0;
  for (const auto& p : lock.path) sound &= counts(p.broken, p.accepted);
  for (const auto& s : lock.stages) sound &= counts(s.wrong, s.accepted);
  if (!sound || (lock.holds && lock.point >= lock.path.size()))
    return InvalidArgument("its counts contradict each other; calibrate again");
  if (lock.plug_in.size() + 1 != lock.stages.size())
    return InvalidArgument("\"plug_in\" has other stages than the lock");
  return lock;
}

Result<Lock> LoadLock(const std::filesystem::path& dir) {
  const auto path = dir / "decision.lock";
  const auto text = data::ReadFile(path, limits::kMaxJsonBytes);
  if (!text.ok()) {
    if (text.status().code() != Code::kNotFound) return text.status();
    return FailedPrecondition(dir.string() + " is not calibrated; run ganglion calibrate " + dir.string() +
                              " --data F");
  }
  auto lock = ParseLock(*text);
  if (!lock.ok()) return lock.status().Within(path.string());
  return lock;
}

Status Certifies(const Lock& lock, const DecisionConfig& config, const std::vector<const Stage*>& stages) {
  const std::string& decision = config.name;
  const std::string again = " Run ganglion calibrate " + config.dir.string() + ".";
  if (lock.decision != decision)
    return FailedPrecondition(decision + ": decision.lock is of \"" + lock.decision + "\"." + again);
  if (lock.inputs != config.inputs)
    return FailedPrecondition(decision + ": decision.yaml has other inputs than decision.lock certifies. Not loaded." +
                              again);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const bool same = i < lock.stages.size() && lock.stages[i].tier == stages[i]->config().tier &&
                      lock.stages[i].files.size() == stages[i]->files().size() &&
                      lock.stages[i].confidence_output == stages[i]->config().confidence_output &&
                      (!stages[i]->config().measure || lock.stages[i].measure == *stages[i]->config().measure);
    if (!same)
      return FailedPrecondition(fmt::format(
          "{}: stages[{}] is not the stage that decision.lock certifies. Not loaded.{}", decision, i, again));
    for (std::size_t f = 0; f < stages[i]->files().size(); ++f) {
      const auto& have = stages[i]->files()[f];
      const auto& want = lock.stages[i].files[f];
      if (have.role != want.role) {
        return FailedPrecondition(
            fmt::format("{}: stages[{}] uses {} as {}, decision.lock certifies it as {}. Not loaded.{}", decision, i,
                        have.file, have.role, want.role, again));
      }
      if (have.digest == want.digest) continue;
      return FailedPrecondition(fmt::format("{}: {} is {}, decision.lock certifies {}. Not loaded.{}", decision,
                                            have.file, have.digest.Short(), want.digest.Short(), again));
    }
  }
  return {};
}

}  // namespace ganglion::node
