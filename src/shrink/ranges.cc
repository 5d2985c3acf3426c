#include "shrink/ranges.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace ganglion::shrink {
namespace {

constexpr std::array<std::pair<RangeRule, std::string_view>, 3> kRules{{
    {RangeRule::kMinMax, "min-max"},
    {RangeRule::kPercentile, "percentile"},
    {RangeRule::kEntropy, "entropy"},
}};
constexpr int kCandidateStep = 8;  // bins between the thresholds that the entropy rule tries

// KL(p || q) where p is `h` up to bin `end` with the rest added to the last bin, and q is `h` up to `end` without the
// rest, flattened within each of `levels` equal stretches over the bins that are not empty.
double Divergence(const std::vector<double>& h, std::size_t end, std::size_t levels, double total) {
  double beyond = total;
  for (std::size_t k = 0; k < end; ++k) beyond -= h[k];
  const double inside = total - beyond;
  if (inside <= 0) return std::numeric_limits<double>::infinity();
  double divergence = 0;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::size_t from = level * end / levels;
    const std::size_t to = std::max(from + 1, (level + 1) * end / levels);
    double sum = 0;
    double filled = 0;
    for (std::size_t k = from; k < to; ++k) {
      sum += h[k];
      filled += h[k] > 0;
    }
    for (std::size_t k = from; k < to; ++k) {
      const double p = (h[k] + (k + 1 == end ? beyond : 0)) / total;
      if (p <= 0) continue;
      // A clipped mass on a bin that was empty has no counterpart in q: as bad as its whole weight.
      const double q = h[k] > 0 ? sum / filled / inside : 1e-9;
      divergence += p * std::log(p / q);
    }
  }
  return divergence;
}

}  // namespace

std::string_view Name(RangeRule rule) { return kRules[static_cast<std::size_t>(rule)].second; }

std::optional<RangeRule> RangeRuleFromName(std::string_view name) {
  for (const auto& [rule, text] : kRules) {
    if (text == name) return rule;
  }
  return std::nullopt;
}

void RangeObserver::Grow(float to) {
  if (below_.empty()) {
    below_.assign(kBins, 0);
    above_.assign(kBins, 0);
  }
  int exponent = 0;
  std::frexp(to, &exponent);                      // to < 2^exponent
  exponent = std::clamp(exponent, -120, 127);     // the largest bins still have a finite limit
  const float limit = std::ldexp(1.f, exponent);  // a power of two: bins of two ranges nest exactly
  if (limit_ == 0) {
    limit_ = limit;
    return;
  }
  while (limit_ < limit) {
    for (auto* side : {&below_, &above_}) {
      for (std::size_t k = 0; k < kBins; ++k) (*side)[k] = k < kBins / 2 ? (*side)[2 * k] + (*side)[2 * k + 1] : 0;
    }
    limit_ *= 2;
  }
}

void RangeObserver::Observe(std::span<const float> values) {
  float top = 0;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    low_ = std::min(low_, v);
    high_ = std::max(high_, v);
    top = std::max(top, std::fabs(v));
  }
  if (limit_ == 0 || top >= limit_) Grow(std::max(top, std::numeric_limits<float>::min()));
  const float scale = static_cast<float>(kBins) / limit_;
  for (const float v : values) {
    ++count_;
    if (!std::isfinite(v)) {
      ++bad_;
      continue;
    }
    const auto k = std::min(static_cast<std::size_t>(std::fabs(v) * scale), std::size_t{kBins - 1});
    ++(v < 0 ? below_ : above_)[k];
  }
}

// The upper edge of the bin beyond which at most `beyond` numbers of this side lie.
float RangeObserver::Cut(const std::vector<std::int64_t>& side, std::int64_t beyond) const {
  std::int64_t out = 0;
  for (std::size_t k = kBins; k > 0; --k) {
    out += side[k - 1];
    if (out > beyond) return limit_ * static_cast<float>(k) / static_cast<float>(kBins);
  }
  return 0;
}

float RangeObserver::EntropyThreshold() const {
  std::vector<double> h(kBins);
  double total = 0;
  for (std::size_t k = 0; k < kBins; ++k) {
    h[k] = static_cast<double>(below_[k] + above_[k]);
    total += k == 0 ? 0 : h[k];
  }
  h[0] = 0;  // zero is exact in any 8-bit range and, after a Relu, so frequent that it would hide all else
  if (total == 0) return limit_;
  const std::size_t levels = low_ < 0 ? 128 : 256;
  std::size_t best = kBins;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t end = levels; end <= kBins; end += kCandidateStep) {
    const double d = Divergence(h, end, levels, total);
    if (d < least) {
      least = d;
      best = end;
    }
  }
  return limit_ * static_cast<float>(best) / static_cast<float>(kBins);
}

Result<Range> RangeObserver::Find(RangeRule rule, double quantile, const std::string& name) const {
  GANGLION_CHECK(quantile > .5 && quantile <= 1);
  if (count_ == 0) return FailedPrecondition("tensor \"" + name + "\" was never seen while calibrating");
  if (bad_ > 0) {
    return FailedPrecondition("tensor \"" + name + "\" held " + std::to_string(bad_) +
                              " numbers that are not finite while calibrating; the model is broken, or the rows are");
  }
  Range r{low_, high_};
  if (rule == RangeRule::kPercentile) {
    const auto beyond = static_cast<std::int64_t>((1 - quantile) * static_cast<double>(count_));
    r = {std::max(low_, -Cut(below_, beyond)), std::min(high_, Cut(above_, beyond))};
  } else if (rule == RangeRule::kEntropy) {
    const float t = EntropyThreshold();
    r = {std::max(low_, -t), std::min(high_, t)};
  }
  return r;
}

}  // namespace ganglion::shrink
