#include "calibration/certify.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "stats/binomial.h"

namespace ganglion::calibration {
namespace {

constexpr std::array<std::string_view, 3> kNames{"loss_at_most", "error_at_most", "disagreement_at_most"};

// Thresholds as ranks: stage s accepts the `take` most confident rows. Ties are never split.
class Ranks {
 public:
  explicit Ranks(const Evidence& e) : evidence_(e), order_(e.stages()), rank_(e.stages()), usable_(e.stages()) {
    for (std::size_t s = 0; s < e.stages(); ++s) {
      order_[s].resize(e.rows);
      std::iota(order_[s].begin(), order_[s].end(), std::uint32_t{0});
      const auto& c = e.confidence[s];
      std::sort(order_[s].begin(), order_[s].end(), [&](std::uint32_t i, std::uint32_t j) { return c[i] > c[j]; });
      rank_[s].resize(e.rows);
      for (std::size_t k = 0; k < e.rows; ++k) rank_[s][order_[s][k]] = static_cast<std::uint32_t>(k);
      usable_[s] = static_cast<std::size_t>(std::count_if(c.begin(), c.end(), [](float v) { return v >= 0; }));
    }
  }
  const std::vector<std::uint32_t>& order(std::size_t s) const { return order_[s]; }
  std::uint32_t rank(std::size_t s, std::size_t row) const { return rank_[s][row]; }
  // Rows that any threshold may accept: those whose confidence is one (a stage that gave NaN has -1).
  std::size_t usable(std::size_t s) const { return usable_[s]; }
  // Whether a threshold can lie between the `take`-th and the next row.
  bool Boundary(std::size_t s, std::size_t take) const {
    if (take == 0 || take == usable_[s]) return true;
    const auto& c = evidence_.confidence[s];
    return c[order_[s][take - 1]] > c[order_[s][take]];
  }
  double Threshold(std::size_t s, std::size_t take) const {
    if (take == 0) return kNever;
    if (take == usable_[s]) return 0;
    // Half way to the next row, so that a last bit more or less in serving changes nothing.
    const auto& c = evidence_.confidence[s];
    return (static_cast<double>(c[order_[s][take - 1]]) + static_cast<double>(c[order_[s][take]])) / 2;
  }

 private:
  const Evidence& evidence_;
  std::vector<std::vector<std::uint32_t>> order_;
  std::vector<std::vector<std::uint32_t>> rank_;
  std::vector<std::size_t> usable_;
};

using Takes = std::vector<std::size_t>;

// One sweep of coordinate descent at a given price: each stage, from the last to the first, takes the number of rows
// that minimises burden + price * breaches with the others held; never fewer than `least`. Returns whether it moved.
bool Sweep(const Evidence& e, const Ranks& ranks, const StageCost& cost, double price, const Takes& least, Takes& takes,
           std::vector<double>& go_on) {
  bool moved = false;
  const std::size_t stages = e.stages();
  // go_on[row]: what the row pays from stage s+1 on.
  std::fill(go_on.begin(), go_on.end(), cost[stages]);
  for (std::size_t s = stages; s-- > 0;) {
    double gain = 0;
    double best = 0;
    std::size_t best_take = least[s];
    bool counted = false;
    const auto& order = ranks.order(s);
    const std::size_t usable = ranks.usable(s);
    for (std::size_t k = 0; k <= usable; ++k) {
      if (k >= least[s] && ranks.Boundary(s, k) && (!counted || gain > best + 1e-12)) {
        best = gain;
        best_take = k;
        counted = true;
      }
      if (k == usable) break;
      const std::size_t row = order[k];
      bool reached = true;
      for (std::size_t q = 0; q < s && reached; ++q) reached = ranks.rank(q, row) >= takes[q];
      if (reached) gain += go_on[row] - price * e.breaks[s][row];
    }
    moved |= best_take != takes[s];
    takes[s] = best_take;
    for (std::size_t row = 0; row < e.rows; ++row) {
      go_on[row] = cost[s] + (ranks.rank(s, row) < best_take ? price * e.breaks[s][row] : go_on[row]);
    }
  }
  return moved;
}

}  // namespace

std::string_view Name(PromiseKind kind) { return kNames[static_cast<std::size_t>(kind)]; }
std::string_view RiskName(PromiseKind kind) { return Name(kind).substr(0, Name(kind).find('_')); }

std::optional<PromiseKind> PromiseFromName(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<PromiseKind>(i);
  }
  return std::nullopt;
}

Status Promise::Check() const {
  constexpr double kSmallest = 1e-6;  // below, no data set of a size that fits could certify anything
  if (!(limit >= kSmallest && limit < 1)) {
    return InvalidArgument(std::string(Name(kind)) + " must be at least 0.000001 and below 1, got " +
                           std::to_string(limit));
  }
  if (!(delta >= kSmallest && delta < 1)) {
    return InvalidArgument("delta must be at least 0.000001 and below 1, got " + std::to_string(delta));
  }
  return {};
}

Evidence Evidence::Select(std::span<const std::size_t> wanted) const {
  Evidence e;
  e.rows = wanted.size();
  e.confidence.resize(stages());
  e.breaks.resize(stages());
  for (std::size_t s = 0; s < stages(); ++s) {
    e.confidence[s].reserve(wanted.size());
    e.breaks[s].reserve(wanted.size());
    for (const std::size_t row : wanted) {
      e.confidence[s].push_back(confidence[s][row]);
      e.breaks[s].push_back(breaks[s][row]);
    }
  }
  return e;
}

std::vector<std::vector<std::uint8_t>> Breaks(PromiseKind kind, const std::vector<std::vector<int>>& answers,
                                              std::span<const int> truth) {
  GANGLION_CHECK(!answers.empty());
  const auto& top = answers.back();
  GANGLION_CHECK(kind == PromiseKind::kDisagreement || truth.size() == top.size());
  std::vector<std::vector<std::uint8_t>> breaks;
  for (std::size_t s = 0; s + 1 < answers.size(); ++s) {
    std::vector<std::uint8_t> b(top.size());
    for (std::size_t i = 0; i < top.size(); ++i) {
      switch (kind) {
        case PromiseKind::kLoss:
          b[i] = answers[s][i] != truth[i] && top[i] == truth[i];
          break;
        case PromiseKind::kError:
          b[i] = answers[s][i] != truth[i];
          break;
        case PromiseKind::kDisagreement:
          b[i] = answers[s][i] != top[i];
          break;
      }
    }
    breaks.push_back(std::move(b));
  }
  return breaks;
}

Counts Count(const Evidence& e, const Thresholds& thresholds) {
  GANGLION_CHECK(thresholds.size() == e.stages());
  Counts c;
  c.rows = static_cast<std::int64_t>(e.rows);
  c.stage_accepted.resize(e.stages());
  c.stage_broken.resize(e.stages());
  for (std::size_t row = 0; row < e.rows; ++row) {
    for (std::size_t s = 0; s < e.stages(); ++s) {
      if (static_cast<double>(e.confidence[s][row]) < thresholds[s]) continue;
      ++c.stage_accepted[s];
      c.stage_broken[s] += e.breaks[s][row];
      break;
    }
  }
  for (std::size_t s = 0; s < e.stages(); ++s) {
    c.accepted += c.stage_accepted[s];
    c.broken += c.stage_broken[s];
  }
  return c;
}

std::int64_t Trials(PromiseKind kind, const Counts& c) { return kind == PromiseKind::kError ? c.accepted : c.rows; }

double PValue(const Promise& promise, const Counts& c) {
  const std::int64_t n = Trials(promise.kind, c);
  return n == 0 ? 1 : stats::BinomialCdf(c.broken, n, promise.limit);
}

std::vector<Thresholds> BuildPath(const Evidence& tuning, const StageCost& cost) {
  GANGLION_CHECK(cost.size() == tuning.stages() + 1);
  const Ranks ranks(tuning);
  // One breach is worth at first more than all burden there is, at last nothing.
  const double all =
      std::accumulate(cost.begin(), cost.end(), 0.) * static_cast<double>(std::max<std::size_t>(tuning.rows, 1));
  constexpr int kPrices = 48;
  std::vector<Takes> corners{Takes(tuning.stages(), 0)};
  std::vector<double> go_on(tuning.rows);
  const double lowest = .02 * cost.back();
  for (int i = 0; i < kPrices; ++i) {
    const double price = all * std::pow(lowest / all, static_cast<double>(i) / (kPrices - 1));
    const Takes least = corners.back();
    Takes takes = least;
    for (int sweep = 0; sweep < 8 && Sweep(tuning, ranks, cost, price, least, takes, go_on); ++sweep) {
    }
    if (takes != corners.back()) corners.push_back(std::move(takes));
  }
  // The loosest point of all: everything at the first stage.
  Takes everything = corners.back();
  if (!everything.empty()) everything[0] = ranks.usable(0);
  if (everything != corners.back()) corners.push_back(std::move(everything));

  // Fill the gaps in rank space, so that no step accepts much more than half a percent of the rows at once.
  std::vector<Thresholds> path;
  const double step = std::max(1., static_cast<double>(tuning.rows) * .005);
  for (std::size_t c = 0; c < corners.size(); ++c) {
    std::size_t parts = 1;
    if (c > 0) {
      for (std::size_t s = 0; s < tuning.stages(); ++s) {
        const auto gap = static_cast<double>(corners[c][s] - corners[c - 1][s]);
        parts = std::max(parts, static_cast<std::size_t>(std::ceil(gap / step)));
      }
    }
    for (std::size_t part = 1; part <= parts; ++part) {
      Thresholds t(tuning.stages());
      for (std::size_t s = 0; s < tuning.stages(); ++s) {
        const std::size_t from = c == 0 ? 0 : corners[c - 1][s];
        const std::size_t take = from + (corners[c][s] - from) * part / parts;
        t[s] = ranks.Threshold(s, take);
      }
      if (path.empty() || t != path.back()) path.push_back(std::move(t));
    }
  }
  return path;
}

std::size_t ChooseStart(const Promise& promise, const Evidence& tuning, const std::vector<Thresholds>& path) {
  if (promise.kind != PromiseKind::kError) return 0;
  std::size_t start = 0;
  double least = 2;
  for (std::size_t j = 0; j < path.size(); ++j) {
    const double p = PValue(promise, Count(tuning, path[j]));
    if (p <= promise.delta * promise.delta) return j;
    if (p <= least) {
      least = p;
      start = j;
    }
  }
  return start;
}

Certificate Walk(const Promise& promise, const Evidence& certifying, const std::vector<Thresholds>& path,
                 std::size_t start) {
  GANGLION_CHECK(start < path.size());
  Certificate c;
  c.thresholds.assign(certifying.stages(), kNever);
  for (std::size_t j = start; j < path.size(); ++j) {
    const Counts counts = Count(certifying, path[j]);
    const double p = PValue(promise, counts);
    ++c.walked;
    const bool passed = p <= promise.delta;
    if (passed && counts.accepted > 0) {
      c.holds = true;
      c.point = j;
      c.thresholds = path[j];
    }
    if (passed || !c.holds) {
      c.counts = counts;
      c.p_value = p;
    }
    if (!passed) break;
  }
  return c;
}

std::size_t PlugIn(const Promise& promise, const Evidence& evidence, const std::vector<Thresholds>& path) {
  std::size_t chosen = 0;
  for (std::size_t j = 0; j < path.size(); ++j) {
    const Counts c = Count(evidence, path[j]);
    const auto n = static_cast<double>(Trials(promise.kind, c));
    if (static_cast<double>(c.broken) <= promise.limit * n) chosen = j;
  }
  return chosen;
}

std::int64_t RowsNeeded(const Promise& promise) {
  const double n = std::log(promise.delta) / std::log1p(-promise.limit);
  auto rows = static_cast<std::int64_t>(std::ceil(n));
  while (rows > 1 && stats::BinomialCdf(0, rows - 1, promise.limit) <= promise.delta) --rows;
  while (stats::BinomialCdf(0, rows, promise.limit) > promise.delta) ++rows;
  return rows;
}

}  // namespace ganglion::calibration
