// For tests only: the losses in double precision, written from their definitions in gradient.h.
#pragma once

#include <cmath>
#include <string>

#include "gradient/gradient.h"
#include "gradient/reference_test.h"

namespace ganglion::gradient::reference {

// `y` is the head [rows, ..., K] before any final Softmax or Sigmoid that the loss contains.
inline double LossOf(const Options& o, const Array& y, const Array& target, const Array& labels, const Array& weight) {
  const auto k = static_cast<std::size_t>(y.shape.back());
  const std::size_t positions = y.size() / k;
  const std::size_t per_row = positions / static_cast<std::size_t>(y.shape[0]);
  const double t = o.temperature;
  const Array log_p = LogSoftmax(y, -1);
  const Array log_q = LogSoftmax(Map(y, [&](double v) { return v / t; }), -1);
  Array log_z = target;
  if (o.loss == Loss::kDistillation) log_z = LogSoftmax(Map(target, [&](double v) { return v / t; }), -1);
  double total = 0;
  for (std::size_t r = 0; r < positions; ++r) {
    double l = 0;
    const auto nll = [&](const Array& classes) { return -log_p.v[r * k + static_cast<std::size_t>(classes.v[r])]; };
    if (o.loss == Loss::kSoftmaxCrossEntropy) l = nll(target);
    if (o.loss == Loss::kDistillation && o.hard_share > 0) l = o.hard_share * nll(labels);
    for (std::size_t i = r * k; i < (r + 1) * k; ++i) {
      const double e = y.v[i] - (o.loss == Loss::kSoftmaxCrossEntropy ? 0 : target.v[i]);
      switch (o.loss) {
        case Loss::kSoftmaxCrossEntropy:
          break;
        case Loss::kSoftmaxCrossEntropyDense:
          l -= target.v[i] * log_p.v[i];
          break;
        case Loss::kSquaredError:
          l += e * e / static_cast<double>(k);
          break;
        case Loss::kSigmoidCrossEntropy: {
          const double s = 1 / (1 + std::exp(-y.v[i]));
          l -= (target.v[i] * std::log(s) + (1 - target.v[i]) * std::log1p(-s)) / static_cast<double>(k);
          break;
        }
        case Loss::kHuber: {
          const double d = o.huber_delta;
          l += (std::fabs(e) <= d ? e * e / 2 : d * (std::fabs(e) - d / 2)) / static_cast<double>(k);
          break;
        }
        case Loss::kDistillation:
          l += (1 - o.hard_share) * t * t * std::exp(log_z.v[i]) * (log_z.v[i] - log_q.v[i]);
          break;
      }
    }
    total += weight.v[r / per_row] * l / static_cast<double>(per_row);
  }
  return total;
}

// What goes into a model's final Softmax or Sigmoid, up to what the loss does not see.
inline Array BeforeTheTail(const Options& o, const std::string& last_op, const Array& y) {
  if (o.loss == Loss::kSquaredError || o.loss == Loss::kHuber) return y;
  if (last_op == "Softmax" && o.loss != Loss::kSigmoidCrossEntropy) return Map(y, [](double x) { return std::log(x); });
  if (last_op == "Sigmoid" && o.loss == Loss::kSigmoidCrossEntropy)
    return Map(y, [](double x) { return std::log(x / (1 - x)); });
  return y;
}

}  // namespace ganglion::gradient::reference
