// An Example is what a learner sees of one event: features by their place in the table, and, when it is known, what
// came of it.
//
// A value; reuse one for a whole stream, so that its memory is asked for once.
// Ranges: values finite; weight finite and >= 0 (how many times the event counts). label is a number for regression;
// -1 or 1 (0 is taken as -1) for two classes; the class, from 0, for several.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ganglion::online {

struct Feature {
  std::uint32_t index = 0;  // below 2^bits
  float value = 0;
  bool operator==(const Feature&) const = default;
};

struct Example {
  std::vector<Feature> features;
  float label = 0;
  float weight = 1;
  bool labelled = false;
  std::string tag;  // what to call it in a file of predictions

  void Clear() {
    features.clear();
    label = 0;
    weight = 1;
    labelled = false;
    tag.clear();
  }
};

// Far above honest use: a line with more features is refused.
inline constexpr std::size_t kMaxFeatures = std::size_t{1} << 20;

// Appends numbers that have no names: number i lies at place `first` + i, zeros are left out. REQUIRES: they fit below
// 2^bits.
void AppendDense(std::span<const float> values, std::uint32_t first, Example* example);
// Appends the constant feature.
void AppendConstant(int bits, Example* example);

}  // namespace ganglion::online
