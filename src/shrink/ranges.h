// Which numbers a tensor takes, and which range eight bits should cover.
//
// Intuition: 256 steps over the whole range are coarse when a few outliers are far out. Cutting the outliers off makes
// the steps finer for all the rest. How many to cut is a guess that calibration rows decide:
//   min-max      nothing is cut: exact for bounded tensors, poor with outliers
//   percentile   what lies beyond the q-quantile is cut, on each side
//   entropy      the threshold whose 8-bit histogram diverges least (Kullback-Leibler) from the full one
// RangeObserver counts |x| on each side of zero in kBins bins; when a larger number comes, bins are merged in pairs and
// the range doubles. So a stream of unknown range is seen once, and batches in any order give the same counts.
//
// A state machine, thread-compatible. Ranges: quantile in (.5, 1]. Numbers that are not finite are counted and make
// Find refuse. Cost: about 2 ns a number; 32 KiB a tensor.
// Source: S. Migacz, "8-bit Inference with TensorRT", 2017 (entropy); here with zero kept exact, and each side of a
// tensor that never goes below zero seen with all 256 steps.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::shrink {

struct Range {
  float low = 0;
  float high = 0;
};

enum class RangeRule { kMinMax, kPercentile, kEntropy };
std::string_view Name(RangeRule rule);  // "min-max", "percentile", "entropy"
std::optional<RangeRule> RangeRuleFromName(std::string_view name);

class RangeObserver {
 public:
  static constexpr int kBins = 2048;  // on each side of zero

  void Observe(std::span<const float> values);
  std::int64_t count() const { return count_; }

  // REQUIRES: .5 < quantile <= 1 (kPercentile alone reads it). Refuses a tensor that was never seen or that held a
  // number that is not finite; `name` is for the message.
  Result<Range> Find(RangeRule rule, double quantile, const std::string& name) const;

 private:
  void Grow(float to);
  float Cut(const std::vector<std::int64_t>& side, std::int64_t beyond) const;
  float EntropyThreshold() const;

  float limit_ = 0;  // bins cover [-limit_, limit_], a power of two; 0 before the first number that is not 0
  float low_ = 0;
  float high_ = 0;
  std::int64_t count_ = 0;
  std::int64_t bad_ = 0;
  std::vector<std::int64_t> below_;  // bin k: k <= |x| kBins / limit < k + 1, x < 0
  std::vector<std::int64_t> above_;  // x >= 0
};

}  // namespace ganglion::shrink
