#include "optimizer/clip.h"

#include <cmath>
#include <cstddef>

#include "base/check.h"
#include "optimizer/clones.h"

namespace ganglion::optimizer {
namespace {

constexpr std::size_t kLanes = 16;

GANGLION_CLONES double SumOfSquares(const float* __restrict v, std::size_t n) {
  double sums[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      const double x = v[i + j];
      sums[j] += x * x;
    }
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(v[i]) * v[i];
  for (const double s : sums) sum += s;
  return sum;
}

GANGLION_CLONES void Scale(float* __restrict v, std::size_t n, float by) {
  for (std::size_t i = 0; i < n; ++i) v[i] *= by;
}

GANGLION_CLONES void Clamp(float* __restrict v, std::size_t n, float limit) {
  for (std::size_t i = 0; i < n; ++i) {
    const float low = v[i] < -limit ? -limit : v[i];  // NaN stays NaN
    v[i] = low > limit ? limit : low;
  }
}

}  // namespace

double Norm(std::span<const float> v) { return std::sqrt(SumOfSquares(v.data(), v.size())); }

void ScaleToNorm(std::span<float> gradients, double norm, double limit) {
  GANGLION_CHECK(limit > 0);
  if (norm > limit) Scale(gradients.data(), gradients.size(), static_cast<float>(limit / norm));
}

double ClipByNorm(std::span<float> gradients, double limit) {
  const double norm = Norm(gradients);
  ScaleToNorm(gradients, norm, limit);
  return norm;
}

void ClipByValue(std::span<float> gradients, float limit) {
  GANGLION_CHECK(limit > 0);
  Clamp(gradients.data(), gradients.size(), limit);
}

}  // namespace ganglion::optimizer
