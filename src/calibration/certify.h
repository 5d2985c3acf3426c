// Certify chooses thresholds for all stages of a cascade together, so that a promise holds with probability 1 - delta.
//
// Intuition: thresholds that look right on the data they were chosen on break their promise about half of the time.
// So the calibration rows are split. The tuning half draws one path through the space of thresholds, from strict
// (nothing accepted below the top) to loose (everything accepted at the first stage). The certifying half, which the
// path has never seen, is walked along it from a start that the tuning half has also fixed: at each point an exact test
// asks whether the promise could still be broken; the walk stops at the first point where it could.
//
// Definition (Learn-then-Test with fixed-sequence testing). Point j has thresholds theta_j. On the certifying half, of
// n_j requests that count, k_j break the promise. H_j: "the risk at theta_j exceeds alpha" is rejected when
//     p_j = P(Bin(n_j, alpha) <= k_j) <= delta.
// Points are tested in the order of the path, each at the full level delta; the first that is not rejected ends the
// walk, and the last rejected one is chosen. The probability of choosing any point whose risk exceeds alpha is at most
// delta: choosing one means that the first such point on the path was rejected, and that has probability <= delta.
//   loss, disagreement   n = all requests;             k = accepted below the top and breaking
//   error                n = accepted below the top;   k = of these, wrong   (binomial given n: rows are independent)
// A request breaks the promise where it is accepted below the top and its answer there
//   loss_at_most          is wrong while the top is right
//   error_at_most         is wrong
//   disagreement_at_most  differs from the top's
//
// The path: for a falling price lambda of one breach, the thresholds that minimise mean burden + lambda * breaches on
// the tuning half, by coordinate descent, kept monotone; between these points it is filled in rank space. So the loss
// that the promise allows is spent at the stage where it saves most. Burden is what a request costs on its way (see
// StageCost). One path for all stages, so nothing is lost to splitting delta over them.
// Start: for loss and disagreement the first point, which accepts nothing and so passes whenever anything can. For
// error, whose strictest points have accepted too few rows for any certificate: the first point whose p-value on the
// tuning half is at most delta^2 (clear enough to pass on the other half too), else the point where it is smallest.
//
// Why not a union bound over a grid (loses with every stage and every grid point), nor Hoeffding (wastes most of the
// data at 1 %), nor thresholds found stage after stage on the same rows (not valid: a later stage's rows were chosen
// by an earlier threshold).
// Source: A. Angelopoulos, S. Bates, E. Candes, M. Jordan, L. Lei, "Learn then Test", arXiv 2110.01052, 2021, sections
// 2.2 and 3.1 (fixed-sequence testing); exact binomial tails as their remark on binary losses.
// Ranges: 1e-6 <= limit < 1, 1e-6 <= delta < 1. Pure, thread-safe.
// Cost: building a path of 200 points on 2,500 rows and 3 stages takes about 5 ms, the walk about 1 ms.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::calibration {

enum class PromiseKind { kLoss, kError, kDisagreement };
std::string_view Name(PromiseKind kind);  // "loss_at_most", "error_at_most", "disagreement_at_most"
std::optional<PromiseKind> PromiseFromName(std::string_view name);
std::string_view RiskName(PromiseKind kind);  // "loss", "error", "disagreement": what the promise limits

struct Promise {
  PromiseKind kind = PromiseKind::kLoss;
  double limit = .01;  // alpha
  double delta = .1;
  Status Check() const;
};

// A stage accepts a row when its confidence is at least the threshold.
inline constexpr double kNever = std::numeric_limits<double>::infinity();
using Thresholds = std::vector<double>;  // one for each stage below the top

// What the stages below the top said of each row, and whether accepting it there would break the promise.
struct Evidence {
  std::size_t rows = 0;
  std::vector<std::vector<float>> confidence;     // [stage][row], in [0, 1]
  std::vector<std::vector<std::uint8_t>> breaks;  // [stage][row], 0 or 1

  std::size_t stages() const { return confidence.size(); }
  Evidence Select(std::span<const std::size_t> rows_wanted) const;
};

// What a request has on it when it is answered at stage s: cost[0] + ... + cost[s]. The last entry is the top's.
// Any unit; only ratios matter.
using StageCost = std::vector<double>;

// Fills Evidence::breaks from answers. answers[s][row], the last stage being the top; `truth` is empty for
// disagreement. REQUIRES: kind is kDisagreement or truth has a label for every row.
std::vector<std::vector<std::uint8_t>> Breaks(PromiseKind kind, const std::vector<std::vector<int>>& answers,
                                              std::span<const int> truth);

struct Counts {
  std::int64_t rows = 0;
  std::int64_t accepted = 0;  // below the top
  std::int64_t broken = 0;
  std::vector<std::int64_t> stage_accepted;  // [stage]
  std::vector<std::int64_t> stage_broken;
};
Counts Count(const Evidence& evidence, const Thresholds& thresholds);
// n of the definition above.
std::int64_t Trials(PromiseKind kind, const Counts& counts);
// p of the definition above; 1 when nothing counts.
double PValue(const Promise& promise, const Counts& counts);

// Strict to loose, from the tuning half. The first point accepts nothing, the last everything at the first stage.
// REQUIRES: cost.size() == stages + 1.
std::vector<Thresholds> BuildPath(const Evidence& tuning, const StageCost& cost);
// Where on the path to start, from the tuning half.
std::size_t ChooseStart(const Promise& promise, const Evidence& tuning, const std::vector<Thresholds>& path);

struct Certificate {
  bool holds = false;     // false: no point that accepts anything kept the promise; nothing may be accepted
  std::size_t point = 0;  // on the path; meaningful when holds
  Thresholds thresholds;  // all kNever when !holds
  Counts counts;          // of the certifying half, at the chosen point; when !holds, where the walk ended
  double p_value = 1;
  std::size_t walked = 0;  // points tested
};
// Walks the certifying half. REQUIRES: start < path.size().
Certificate Walk(const Promise& promise, const Evidence& certifying, const std::vector<Thresholds>& path,
                 std::size_t start);

// The uncertified rule of thumb, for comparison only: the loosest point whose observed risk is within the limit.
std::size_t PlugIn(const Promise& promise, const Evidence& evidence, const std::vector<Thresholds>& path);

// The fewest rows, all of them right, that certify anything: 230 for 1 % at delta .1.
std::int64_t RowsNeeded(const Promise& promise);

}  // namespace ganglion::calibration
