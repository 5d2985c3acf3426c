#include "evaluation/evaluation.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "base/random.h"
#include "stats/binomial.h"
#include "wire/infer_request.h"

namespace ganglion::evaluation {
namespace {

using calibration::Judgement;
using topology::Tier;

// Everything that is the same for every way to decide.
struct World {
  const node::Decision& decision;
  const topology::Topology& topology;
  std::span<const int> truth;                                   // labels, or the top's answers
  std::vector<std::vector<Judgement>> judgements;               // [stage][row]
  std::vector<std::array<double, topology::kTierCount>> draws;  // [row][tier], where in the range the round trip lies
  double request_bytes = 0;

  std::size_t rows() const { return draws.size(); }
  std::size_t top() const { return judgements.size() - 1; }
  Tier TierOf(std::size_t stage) const { return decision.config().stages[stage].tier; }
};

// Requests are encoded as a node would send them up: shape and datatype of the decision's inputs, one row.
double EncodedBytes(const node::DecisionConfig& config) {
  std::vector<tensor::Tensor> zeros;
  std::vector<wire::NamedTensor> inputs;
  for (const auto& spec : config.inputs) {
    auto shape = spec.shape;
    for (auto& d : shape) d = d < 0 ? 1 : d;
    zeros.push_back(tensor::Tensor::Zeros(spec.type, shape).value());
  }
  for (std::size_t i = 0; i < zeros.size(); ++i) inputs.push_back({config.inputs[i].name, zeros[i].View()});
  return static_cast<double>(wire::EncodeInferRequest("", inputs).body.size());
}

// The policy of some stages of the decision, as the links of the topology allow them.
cascade::Policy MakePolicy(const World& w, const std::vector<std::size_t>& stages,
                           const calibration::Thresholds& thresholds) {
  cascade::Policy policy;
  policy.when_late = w.decision.config().when_late;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    cascade::StagePolicy s;
    s.tier = w.TierOf(stages[i]);
    const bool moves = i == 0 || w.TierOf(stages[i - 1]) != s.tier;
    const auto& profile = w.topology.at(s.tier);
    s.shortest = moves ? profile.round_trip_min : Duration::zero();
    s.patience = moves ? profile.round_trip_max : Duration::max();
    s.threshold = i < thresholds.size() ? thresholds[i] : calibration::kNever;
    policy.stages.push_back(s);
  }
  return policy;
}

// One request through the production state machine, on a virtual clock that starts at zero. `down`: the tier whose link
// swallows everything, if any.
Outcome RunRequest(const World& w, const cascade::Policy& policy, const std::vector<std::size_t>& stages,
                   std::size_t row, std::optional<Tier> down) {
  const TimePoint start{};
  TimePoint now = start;
  cascade::Cascade cascade(policy, start + w.decision.config().deadline);
  cascade::Step step = cascade.Begin(now);
  Outcome out;
  Tier at = Tier::kDevice;  // where the request is
  bool reached_link = false;
  while (step.kind == cascade::Step::Kind::kDefer) {
    const Tier tier = policy.stages[step.stage].tier;
    const bool first = step.stage == 0;
    const bool moves = first || tier != policy.stages[step.stage - 1].tier;
    if (tier != at) {  // the request crosses a link
      if (at == Tier::kDevice) out.uplink_bytes += w.request_bytes;
      out.hop_bytes += w.request_bytes;
    }
    reached_link = down && at < *down && tier >= *down;
    if (reached_link) {  // nothing comes back
      now = step.give_up_at;
      step = cascade.OnFailure(cascade::Reason::kUnreachable, now);
      continue;
    }
    at = tier;
    const auto& profile = w.topology.at(tier);
    if (moves) {
      now += profile.RoundTrip(w.draws[row][static_cast<std::size_t>(tier)]);
      out.cost += profile.price;
    }
    if (now > step.give_up_at) {
      now = step.give_up_at;
      step = cascade.OnFailure(cascade::Reason::kUnreachable, now);
      continue;
    }
    const Judgement& j = w.judgements[stages[step.stage]][row];
    // Label -1: no rule holds, which is no answer.
    step =
        j.label < 0 ? cascade.OnFailure(cascade::Reason::kFailed, now) : cascade.OnAnswer(j.label, j.confidence, now);
  }
  out.latency_ms = Milliseconds(now - start);
  if (step.kind == cascade::Step::Kind::kAnswer) {
    out.label = step.answer.label;
    out.stage = stages[step.answer.stage];
    out.degraded = step.answer.degraded;
  }
  return out;
}

std::vector<Outcome> RunAll(const World& w, const std::vector<std::size_t>& stages,
                            const calibration::Thresholds& thresholds, std::optional<Tier> outage_tier = std::nullopt) {
  const auto policy = MakePolicy(w, stages, thresholds);
  std::vector<Outcome> outcomes;
  outcomes.reserve(w.rows());
  for (std::size_t row = 0; row < w.rows(); ++row) {
    const bool middle = row >= w.rows() / 3 && row < 2 * w.rows() / 3;
    outcomes.push_back(RunRequest(w, policy, stages, row, middle ? outage_tier : std::nullopt));
  }
  return outcomes;
}

// Whether an accepted answer breaks the promise.
bool Breaks(const World& w, calibration::PromiseKind kind, int label, std::size_t row) {
  const int top = w.judgements[w.top()][row].label;
  switch (kind) {
    case calibration::PromiseKind::kLoss:
      return label != w.truth[row] && top == w.truth[row];
    case calibration::PromiseKind::kError:
      return label != w.truth[row];
    case calibration::PromiseKind::kDisagreement:
      return label != top;
  }
  return false;
}

Way Summarise(const World& w, const std::string& name, const std::vector<Outcome>& outcomes,
              calibration::PromiseKind kind) {
  Way way;
  way.name = name;
  std::vector<double> latency;
  std::int64_t right = 0;
  std::int64_t accepted = 0;
  std::int64_t broken = 0;
  for (std::size_t row = 0; row < outcomes.size(); ++row) {
    const Outcome& o = outcomes[row];
    latency.push_back(o.latency_ms);
    way.uplink_bytes += o.uplink_bytes;
    way.hop_bytes += o.hop_bytes;
    way.cost += o.cost;
    if (o.label < 0) {
      ++way.lost;
      continue;
    }
    ++way.answered;
    way.degraded += o.degraded;
    right += o.label == w.truth[row];
    if (!o.degraded && o.stage != w.top()) {
      ++accepted;
      broken += Breaks(w, kind, o.label, row);
    }
  }
  const auto rows = static_cast<double>(std::max<std::size_t>(1, outcomes.size()));
  way.accuracy = static_cast<double>(right) / rows;
  way.broken = broken;
  way.trials = kind == calibration::PromiseKind::kError ? accepted : static_cast<std::int64_t>(outcomes.size());
  way.risk = static_cast<double>(broken) / std::max(1., static_cast<double>(way.trials));
  way.latency_ms = stats::Summarize(std::move(latency));
  return way;
}

}  // namespace

Result<Report> Evaluate(const node::Decision& decision, const std::vector<node::Stage::Scores>& scores,
                        std::span<const int> labels, const Options& options) {
  const auto& config = decision.config();
  const auto& lock = decision.lock();
  GANGLION_CHECK(scores.size() == config.stages.size());
  World w{decision, options.topology, {}, {}, {}, EncodedBytes(config)};
  const std::size_t rows = scores[0].rows;
  const std::size_t k = decision.classes();
  for (std::size_t s = 0; s < scores.size(); ++s) {
    std::vector<Judgement> judgements;
    for (std::size_t r = 0; r < rows; ++r) {
      judgements.push_back(
          decision.Judge(s, std::span(scores[s].z).subspan(r * k, k),
                         scores[s].confidence.empty() ? std::nullopt : std::optional(scores[s].confidence[r])));
    }
    w.judgements.push_back(std::move(judgements));
  }
  std::vector<int> top_answers;
  for (const auto& j : w.judgements.back()) top_answers.push_back(j.label);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || static_cast<std::size_t>(labels[i]) >= k) {
      return InvalidArgument("label " + std::to_string(labels[i]) + " of row " + std::to_string(i) +
                             " is out of range; the models have " + std::to_string(k) + " classes");
    }
  }
  w.truth = labels.empty() ? std::span<const int>(top_answers) : labels;
  const Random seed(options.seed);
  for (std::size_t r = 0; r < rows; ++r) {
    Random random = seed.Fork(r);
    std::array<double, topology::kTierCount> u{};
    for (double& v : u) v = random.Uniform();
    w.draws.push_back(u);
  }

  Report report;
  report.decision = config.name;
  report.rows = static_cast<std::int64_t>(rows);
  report.labelled = !labels.empty();
  report.promise = lock.promise;
  report.certified = lock.holds;
  report.certifying_rows = lock.certifying_rows;
  report.deadline_ms = Milliseconds(config.deadline);
  report.request_bytes = w.request_bytes;
  const auto kind = lock.promise.kind;
  std::vector<std::size_t> all(scores.size());
  std::iota(all.begin(), all.end(), 0);

  const auto cascade = RunAll(w, all, lock.thresholds());
  const auto cloud = RunAll(w, {w.top()}, {});
  report.cascade = Summarise(w, "cascade", cascade, kind);
  report.breach_p_value = 1 - stats::BinomialCdf(report.cascade.broken - 1, report.cascade.trials, lock.promise.limit);
  report.cloud = Summarise(w, "everything in the cloud", cloud, kind);
  report.device = Summarise(w, "everything on the device", RunAll(w, {0}, {}), kind);
  report.plug_in = Summarise(w, "plug-in thresholds", RunAll(w, all, lock.plug_in), kind);
  report.outage = Summarise(w, "cascade, link down", RunAll(w, all, lock.thresholds(), options.outage_tier), kind);
  report.outage_cloud = Summarise(w, "cloud, link down", RunAll(w, {w.top()}, {}, options.outage_tier), kind);
  report.outage_rows = static_cast<std::int64_t>(2 * rows / 3 - rows / 3);

  std::vector<std::vector<double>> tier_latency(scores.size());
  for (std::size_t s = 0; s < scores.size(); ++s) {
    TierReport t;
    t.stage = s;
    t.tier = w.TierOf(s);
    for (const auto& f : decision.stage(s).files()) t.files += (t.files.empty() ? "" : " ") + f.file;
    t.error_bound = s == w.top() ? 1 : lock.stages[s].wrong_at_most;
    std::int64_t right = 0;
    for (std::size_t r = 0; r < rows; ++r) right += w.judgements[s][r].label == w.truth[r];
    t.alone = static_cast<double>(right) / static_cast<double>(rows);
    report.tiers.push_back(std::move(t));
  }
  for (std::size_t r = 0; r < rows; ++r) {
    const Outcome& o = cascade[r];
    report.cascade_latency_ms.push_back(o.latency_ms);
    report.cloud_latency_ms.push_back(cloud[r].latency_ms);
    if (o.label < 0) continue;
    TierReport& t = report.tiers[o.stage];
    ++t.decided;
    t.error += o.label != w.truth[r];
    t.uplink_bytes += o.uplink_bytes;
    t.cost += o.cost;
    tier_latency[o.stage].push_back(o.latency_ms);
    report.below_region += !o.degraded && w.TierOf(o.stage) < Tier::kRegion;
  }
  report.below_region /= static_cast<double>(std::max<std::size_t>(1, rows));
  for (std::size_t s = 0; s < scores.size(); ++s) {
    if (report.tiers[s].decided > 0) report.tiers[s].error /= static_cast<double>(report.tiers[s].decided);
    report.tiers[s].latency_ms = stats::Summarize(std::move(tier_latency[s]));
  }

  // Risk against coverage along the path, on these rows and as certified.
  calibration::Evidence evidence;
  evidence.rows = rows;
  std::vector<std::vector<int>> answers;
  for (std::size_t s = 0; s < scores.size(); ++s) {
    std::vector<float> c;
    std::vector<int> a;
    for (const auto& j : w.judgements[s]) {
      c.push_back(j.confidence);
      a.push_back(j.label);
    }
    answers.push_back(std::move(a));
    if (s < w.top()) evidence.confidence.push_back(std::move(c));
  }
  evidence.breaks = calibration::Breaks(kind, answers, w.truth);
  const auto point = [&](const calibration::Thresholds& thresholds, std::int64_t accepted, std::int64_t broken) {
    const auto c = calibration::Count(evidence, thresholds);
    const std::int64_t n = calibration::Trials(kind, c);
    const std::int64_t certified_n = kind == calibration::PromiseKind::kError ? accepted : lock.certifying_rows;
    return CurvePoint{static_cast<double>(c.accepted) / static_cast<double>(std::max<std::int64_t>(1, c.rows)),
                      n == 0 ? 0 : static_cast<double>(c.broken) / static_cast<double>(n),
                      stats::BinomialUpperBound(broken, certified_n, lock.promise.delta)};
  };
  for (const auto& p : lock.path) report.curve.push_back(point(p.thresholds, p.accepted, p.broken));
  const auto chosen = point(lock.thresholds(), lock.accepted, lock.broken);
  report.chosen_coverage = chosen.coverage;
  report.chosen_risk = chosen.risk;
  return report;
}

}  // namespace ganglion::evaluation
