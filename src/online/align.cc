#include "online/align.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ganglion::online {
namespace {

// The inverse by Gauss-Jordan elimination with row pivots. False where it is singular.
bool Invert(std::vector<double> a, std::size_t k, std::vector<double>* inverse) {
  inverse->assign(k * k, 0);
  for (std::size_t i = 0; i < k; ++i) (*inverse)[i * k + i] = 1;
  for (std::size_t c = 0; c < k; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c + 1; r < k; ++r) {
      if (std::abs(a[r * k + c]) > std::abs(a[pivot * k + c])) pivot = r;
    }
    const double p = a[pivot * k + c];
    if (!(std::abs(p) > 1e-300)) return false;
    for (std::size_t j = 0; j < k; ++j) {
      std::swap(a[pivot * k + j], a[c * k + j]);
      std::swap((*inverse)[pivot * k + j], (*inverse)[c * k + j]);
      a[c * k + j] /= p;
      (*inverse)[c * k + j] /= p;
    }
    for (std::size_t r = 0; r < k; ++r) {
      const double f = a[r * k + c];
      if (r == c || f == 0) continue;
      for (std::size_t j = 0; j < k; ++j) {
        a[r * k + j] -= f * a[c * k + j];
        (*inverse)[r * k + j] -= f * (*inverse)[c * k + j];
      }
    }
  }
  return true;
}

}  // namespace

std::vector<double> PolarFactor(std::vector<double> x, std::size_t k) {
  double largest = 0;
  for (const double v : x) largest = std::max(largest, std::abs(v));
  std::vector<double> identity(k * k, 0);
  for (std::size_t i = 0; i < k; ++i) identity[i * k + i] = 1;
  if (!(largest > 0) || !std::isfinite(largest)) return identity;
  for (std::size_t i = 0; i < k * k; ++i) x[i] = x[i] / largest + 1e-6 * identity[i];
  std::vector<double> inverse;
  for (int iteration = 0; iteration < 100; ++iteration) {
    if (!Invert(x, k, &inverse)) return identity;
    double change = 0;
    for (std::size_t i = 0; i < k; ++i) {
      for (std::size_t j = 0; j < k; ++j) {
        const double next = .5 * (x[i * k + j] + inverse[j * k + i]);
        change = std::max(change, std::abs(next - x[i * k + j]));
        x[i * k + j] = next;
      }
    }
    if (change < 1e-12) break;
  }
  for (const double v : x) {
    if (!(std::abs(v) < 1.001)) return identity;
  }
  return x;
}

}  // namespace ganglion::online
