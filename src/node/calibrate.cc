#include "node/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"
#include "stats/binomial.h"

namespace ganglion::node {
namespace {

using calibration::Measure;

// The largest logit of each row.
std::vector<int> Answers(const Stage::Scores& scores, std::size_t classes) {
  std::vector<int> labels(scores.rows);
  for (std::size_t r = 0; r < scores.rows; ++r) {
    labels[r] =
        calibration::Judge(std::span(scores.z).subspan(r * classes, classes), 1, Measure::kMaxProbability).label;
  }
  return labels;
}

// Why a stage accepts nothing: nothing reaches it, or too much of what it is surest of breaks the promise.
std::string Explain(const calibration::Evidence& e, const calibration::Thresholds& thresholds, std::size_t stage,
                    const std::string& tier, const std::string& next, const calibration::Promise& promise) {
  std::vector<std::size_t> reach;
  for (std::size_t row = 0; row < e.rows; ++row) {
    bool stopped = false;
    for (std::size_t s = 0; s < stage && !stopped; ++s)
      stopped = static_cast<double>(e.confidence[s][row]) >= thresholds[s];
    if (!stopped) reach.push_back(row);
  }
  if (reach.empty()) return fmt::format("nothing reaches {}: the stages before it accept everything.", tier);
  std::sort(reach.begin(), reach.end(),
            [&](auto i, auto j) { return e.confidence[stage][i] > e.confidence[stage][j]; });
  const std::size_t n = std::min<std::size_t>(500, reach.size());
  std::size_t broken = 0;
  for (std::size_t i = 0; i < n; ++i) broken += e.breaks[stage][reach[i]];
  return fmt::format(
      "{} accepts nothing: of the {} rows it is surest of among those that reach it, {:.1f}% break the promise "
      "of {:g}%, or accepting them saves too little. Requests go to {}.",
      tier, n, 100. * static_cast<double>(broken) / static_cast<double>(n), 100 * promise.limit, next);
}

}  // namespace

calibration::StageCost CostOf(const std::vector<StageConfig>& stages, const topology::Topology& topology) {
  using topology::Tier;
  const auto& top = topology.at(stages.back().tier);
  const double top_time = std::max(Milliseconds(top.MeanRoundTrip()), 1e-9);
  const double top_price = std::max(top.price, 1e-12);
  calibration::StageCost cost;
  std::optional<Tier> before;
  for (const auto& s : stages) {
    double c = 1e-4;  // a second stage on the same tier is not free
    if (!before || *before != s.tier) {
      const auto& profile = topology.at(s.tier);
      const bool uplink = s.tier != Tier::kDevice && (!before || *before == Tier::kDevice);
      c = (Milliseconds(profile.MeanRoundTrip()) / top_time + profile.price / top_price + (uplink ? 1 : 0)) / 3;
    }
    cost.push_back(c);
    before = s.tier;
  }
  return cost;
}

Tuning Tune(const Scored& scored, const calibration::Promise& promise,
            const std::vector<std::optional<Measure>>& fixed_measure, const calibration::StageCost& cost,
            std::span<const std::size_t> tuning_rows) {
  Tuning t;
  const std::size_t k = scored.classes;
  const std::size_t rows = scored.rows();
  for (const auto& s : scored.stages) t.answers.push_back(Answers(s, k));
  t.evidence.rows = rows;
  t.evidence.breaks = calibration::Breaks(promise.kind, t.answers, scored.labels);
  const std::vector<int>& truth = scored.labels.empty() ? t.answers.back() : scored.labels;

  std::vector<float> z;
  std::vector<int> y;
  for (const std::size_t r : tuning_rows) y.push_back(truth[r]);
  for (std::size_t s = 0; s < scored.stages.size(); ++s) {
    const auto& scores = scored.stages[s];
    z.clear();
    for (const std::size_t r : tuning_rows)
      z.insert(z.end(), scores.z.begin() + static_cast<std::ptrdiff_t>(r * k),
               scores.z.begin() + static_cast<std::ptrdiff_t>((r + 1) * k));
    // Without labels the truth is the top's own answer: it would find itself infinitely sure.
    const bool own_truth = scored.labels.empty() && s + 1 == scored.stages.size();
    t.temperature.push_back(own_truth ? 1 : calibration::FitTemperature(z, y, k));
    const auto confidences = [&](Measure m) {
      std::vector<float> c(rows);
      for (std::size_t r = 0; r < rows; ++r)
        c[r] = calibration::Judge(std::span(scores.z).subspan(r * k, k), t.temperature[s], m).confidence;
      return c;
    };
    const bool below_top = s + 1 < scored.stages.size();
    if (!scores.confidence.empty()) {
      t.measure.push_back(Measure::kMaxProbability);
      if (below_top) {
        std::vector<float> c = scores.confidence;
        // Infinite: a rule's answer, accepted at any threshold.
        for (float& v : c) v = v >= 0 && (v <= 1 || std::isinf(v)) ? v : -1;
        t.evidence.confidence.push_back(std::move(c));
      }
      continue;
    }
    Measure best = fixed_measure[s].value_or(Measure::kMaxProbability);
    if (!fixed_measure[s] && below_top) {
      double best_quality = -1;
      std::vector<std::uint8_t> bad;
      for (const std::size_t r : tuning_rows) bad.push_back(t.evidence.breaks[s][r]);
      for (const Measure m : {Measure::kMargin, Measure::kMaxProbability, Measure::kEntropy}) {
        const auto all = confidences(m);
        std::vector<float> c;
        for (const std::size_t r : tuning_rows) c.push_back(all[r]);
        const double quality = calibration::RankingQuality(c, bad);
        if (quality > best_quality) {
          best_quality = quality;
          best = m;
        }
      }
    }
    t.measure.push_back(best);
    if (below_top) t.evidence.confidence.push_back(confidences(best));
  }
  const auto tuning = t.evidence.Select(tuning_rows);
  t.path = calibration::BuildPath(tuning, cost);
  t.start = calibration::ChooseStart(promise, tuning, t.path);
  return t;
}

Result<Calibrated> Calibrate(const Decision& decision, std::span<const tensor::View> inputs,
                             std::span<const int> labels, const std::string& data_digest,
                             const CalibrateOptions& options) {
  const auto& config = decision.config();
  const auto& promise = options.promise;
  RETURN_IF_ERROR(promise.Check());
  if (inputs.empty() || inputs[0].shape.empty()) return InvalidArgument("calibration needs rows");
  if (!labels.empty() && static_cast<std::int64_t>(labels.size()) != inputs[0].shape[0]) {
    return InvalidArgument(fmt::format("{} labels for {} rows", labels.size(), inputs[0].shape[0]));
  }
  if (labels.empty() && promise.kind != calibration::PromiseKind::kDisagreement) {
    return InvalidArgument(
        fmt::format("{} needs labels; without them promise disagreement_at_most", calibration::Name(promise.kind)));
  }
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (static_cast<std::size_t>(labels[i]) >= decision.classes()) {
      return InvalidArgument(fmt::format("label {} of row {} is out of range; the models have {} classes", labels[i], i,
                                         decision.classes()));
    }
  }
  const auto rows = static_cast<std::size_t>(inputs[0].shape[0]);
  const std::size_t certifying_rows = rows - rows / 2;
  const std::int64_t needed = calibration::RowsNeeded(promise);
  const std::string promise_name(calibration::Name(promise.kind));
  if (static_cast<std::int64_t>(certifying_rows) < needed || rows < 2) {
    return FailedPrecondition(
        fmt::format("{} {:g} at {:g}% needs >= {} certifying rows, all right; half of {} are {}. Add rows (at least {} "
                    "in all), or raise {} or delta.",
                    promise_name, promise.limit, 100 * (1 - promise.delta), needed, rows, certifying_rows, 2 * needed,
                    promise_name));
  }

  Scored scored;
  ASSIGN_OR_RETURN(scored.stages, decision.ScoreAll(inputs));
  scored.classes = decision.classes();
  for (std::size_t i = 0; i < scored.stages.back().z.size(); ++i) {
    const float v = scored.stages.back().z[i];
    if (std::isnan(v) || v == std::numeric_limits<float>::infinity()) {
      return FailedPrecondition(
          fmt::format("{} gives a number that is not finite for row {}; the top must answer everything",
                      decision.stage(config.stages.size() - 1).files().back().file, i / scored.classes));
    }
  }
  scored.labels.assign(labels.begin(), labels.end());
  std::vector<std::size_t> order(rows);
  std::iota(order.begin(), order.end(), 0);
  Random(options.seed).Shuffle(order);
  const auto tuning_rows = std::span(order).first(rows / 2);
  const auto certify_rows = std::span(order).subspan(rows / 2);

  std::vector<std::optional<Measure>> fixed;
  for (const auto& s : config.stages) fixed.push_back(s.measure);
  const Tuning tuning = Tune(scored, promise, fixed, CostOf(config.stages, options.topology), tuning_rows);
  const auto certifying = tuning.evidence.Select(certify_rows);
  const auto certificate = calibration::Walk(promise, certifying, tuning.path, tuning.start);

  Calibrated result;
  Lock& lock = result.lock;
  lock.decision = config.name;
  lock.inputs = config.inputs;
  lock.promise = promise;
  lock.data_digest = data_digest;
  lock.tuning_rows = static_cast<std::int64_t>(tuning_rows.size());
  lock.certifying_rows = static_cast<std::int64_t>(certify_rows.size());
  lock.seed = options.seed;
  lock.holds = certificate.holds;
  lock.p_value = certificate.p_value;
  lock.start = tuning.start;
  lock.point = certificate.holds ? certificate.point : tuning.start;
  lock.accepted = certificate.holds ? certificate.counts.accepted : 0;
  lock.broken = certificate.holds ? certificate.counts.broken : 0;
  for (const auto& t : tuning.path) {
    const auto c = calibration::Count(certifying, t);
    lock.path.push_back({t, c.accepted, c.broken});
  }
  lock.plug_in = tuning.path[calibration::PlugIn(promise, tuning.evidence, tuning.path)];

  // What each stage accepts, judged by plain wrongness whatever the promise is.
  const auto kind = labels.empty() ? calibration::PromiseKind::kDisagreement : calibration::PromiseKind::kError;
  const calibration::Evidence judged{rows, tuning.evidence.confidence,
                                     calibration::Breaks(kind, tuning.answers, labels)};
  const auto wrong = judged.Select(certify_rows);
  const auto counts = calibration::Count(wrong, certificate.thresholds);
  // The walk could have ended at any point from the start on: a union over these and over the stages.
  const std::size_t statements = (tuning.path.size() - tuning.start) * (config.stages.size() - 1);
  const double share_of_delta = promise.delta / static_cast<double>(std::max<std::size_t>(1, statements));
  for (std::size_t s = 0; s < config.stages.size(); ++s) {
    LockStage stage;
    stage.tier = config.stages[s].tier;
    stage.files = decision.stage(s).files();
    stage.temperature = tuning.temperature[s];
    stage.measure = tuning.measure[s];
    stage.confidence_output = config.stages[s].confidence_output;
    if (s + 1 < config.stages.size()) {
      stage.threshold = certificate.thresholds[s];
      stage.accepted = counts.stage_accepted[s];
      stage.wrong = counts.stage_broken[s];
      stage.wrong_at_most = stats::BinomialUpperBound(stage.wrong, stage.accepted, share_of_delta);
      if (stage.accepted == 0) {
        result.remarks.push_back(Explain(certifying, certificate.thresholds, s, std::string(topology::Name(stage.tier)),
                                         std::string(topology::Name(config.stages[s + 1].tier)), promise));
      }
    }
    lock.stages.push_back(std::move(stage));
  }
  if (config.stages.size() == 1) {
    result.remarks.push_back(config.name +
                             " has one stage: it answers every request, and there is nothing to certify.");
  } else if (!lock.holds) {
    const bool has_rules =
        std::any_of(config.stages.begin(), config.stages.end(), [](const auto& s) { return !s.rules.empty(); });
    result.remarks.insert(
        result.remarks.begin(),
        fmt::format(
            "no thresholds keep {} {:g} at {:g}%: nothing is accepted below {}{}. The loosest that was tried had "
            "{} of {} rows breaking it.",
            promise_name, promise.limit, 100 * (1 - promise.delta), topology::Name(config.stages.back().tier),
            has_rules ? " but what rules answer, whatever the thresholds; make them narrower" : "",
            certificate.counts.broken, calibration::Trials(promise.kind, certificate.counts)));
  }
  return result;
}

}  // namespace ganglion::node
