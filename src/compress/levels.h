// Levels are the 255 values, evenly from minus to plus the largest of a block, that stand for its numbers: what the
// 8-bit and the top-k codes share. Inside the module only. A value; nearest, half away from zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ganglion::compress {

struct Levels {
  static constexpr std::size_t kBlock = 256;  // numbers that share a scale: it costs 1.6 % of the message
  static constexpr float kTop = 127;

  // REQUIRES: largest is finite and >= 0.
  explicit Levels(float largest) : scale(largest / kTop), inverse(scale > 0 ? 1 / scale : 0) {}

  std::int8_t Nearest(float v) const {
    // A subnormal scale may have an infinite inverse; the clamp holds then, too.
    const float level = std::clamp(v * inverse, -kTop, kTop);
    return static_cast<std::int8_t>(level + std::copysign(.5F, level));
  }
  float Value(std::int8_t level) const { return scale * static_cast<float>(level); }

  // Whether a message can hold this scale and these n levels.
  static bool Good(float scale, const char* levels, std::size_t n) {
    return std::isfinite(scale * kTop) && !std::signbit(scale) && std::memchr(levels, -128, n) == nullptr;
  }

  float scale;
  float inverse;
};

}  // namespace ganglion::compress
