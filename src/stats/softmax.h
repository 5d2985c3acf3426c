// The softmax that ensembles are averaged by, in serving and as a teacher alike.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

namespace ganglion::stats {

// into += weight * softmax(z). REQUIRES: same size, not empty. Stable for any finite logits.
inline void AddSoftmax(std::span<const float> z, float weight, std::span<float> into) {
  float top = z[0];
  for (const float v : z) top = std::max(top, v);
  float sum = 0;
  for (const float v : z) sum += std::exp(v - top);
  for (std::size_t k = 0; k < z.size(); ++k) into[k] += weight * std::exp(z[k] - top) / sum;
}

}  // namespace ganglion::stats
