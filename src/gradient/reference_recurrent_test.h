// For tests only: RNN, GRU and LSTM in double precision, number by number from the equations of the ONNX operator
// documents.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "gradient/reference_test.h"

namespace ganglion::gradient::reference {

inline double Activate(const std::string& name, double v) {
  if (name == "Tanh") return std::tanh(v);
  if (name == "Relu") return v > 0 ? v : 0;
  return 1 / (1 + std::exp(-v));
}

// One layer in one direction over the arrays of the operator.
class RecurrentLayer {
 public:
  RecurrentLayer(const onnx::NodeProto& n, const std::vector<Array>& in, std::size_t direction)
      : n_(n),
        in_(in),
        direction_(direction),
        batch_(Size(0, 1)),
        inputs_(Size(0, 2)),
        hidden_(Size(2, 2)),
        gates_(Size(1, 1) / Size(2, 2)) {}

  // h, c [B, H] into their next values, for X at `time`.
  void Step(std::size_t time, std::vector<double>* h, std::vector<double>* c) const {
    const std::vector<double> before = *h;
    const std::vector<double> cells = *c;
    for (std::size_t b = 0; b < batch_; ++b) {
      for (std::size_t j = 0; j < hidden_; ++j) {
        const std::size_t at = b * hidden_ + j;
        const auto sigmoid = [](double v) { return Activate("Sigmoid", v); };
        const auto gate = [&](std::size_t g) { return OfX(g, time, b, j) + OfH(g, before, b, j); };
        if (n_.op_type() == "RNN") {
          (*h)[at] = Activate(ActivationOfRnn(), gate(0));
        } else if (n_.op_type() == "LSTM") {  // i o f c
          (*c)[at] = sigmoid(gate(2)) * cells[at] + sigmoid(gate(0)) * std::tanh(gate(3));
          (*h)[at] = sigmoid(gate(1)) * std::tanh((*c)[at]);
        } else {  // z r h
          const double z = sigmoid(gate(0));
          double of_h = 0;
          if (graph::IntAttribute(n_, "linear_before_reset", 0) != 0) {
            of_h = sigmoid(gate(1)) * OfH(2, before, b, j);
          } else {
            std::vector<double> reset(before.size());
            for (std::size_t k = 0; k < hidden_; ++k) {
              const double r = sigmoid(OfX(1, time, b, k) + OfH(1, before, b, k));
              reset[b * hidden_ + k] = r * before[b * hidden_ + k];
            }
            of_h = OfH(2, reset, b, j);
          }
          (*h)[at] = (1 - z) * std::tanh(OfX(2, time, b, j) + of_h) + z * before[at];
        }
      }
    }
  }

 private:
  std::size_t Size(std::size_t input, std::size_t axis) const {
    return static_cast<std::size_t>(in_[input].shape[axis]);
  }
  std::string ActivationOfRnn() const {
    const auto* a = graph::FindAttribute(n_, "activations");
    return a == nullptr ? "Tanh" : a->strings(static_cast<int>(direction_));
  }
  double Bias(std::size_t half, std::size_t gate, std::size_t j) const {
    if (in_.size() < 4 || in_[3].size() == 0) return 0;
    return in_[3].v[((direction_ * 2 + half) * gates_ + gate) * hidden_ + j];
  }
  double OfX(std::size_t gate, std::size_t time, std::size_t b, std::size_t j) const {
    double sum = Bias(0, gate, j);
    for (std::size_t k = 0; k < inputs_; ++k) {
      sum += in_[1].v[((direction_ * gates_ + gate) * hidden_ + j) * inputs_ + k] *
             in_[0].v[(time * batch_ + b) * inputs_ + k];
    }
    return sum;
  }
  double OfH(std::size_t gate, const std::vector<double>& h, std::size_t b, std::size_t j) const {
    double sum = Bias(1, gate, j);
    for (std::size_t k = 0; k < hidden_; ++k)
      sum += in_[2].v[((direction_ * gates_ + gate) * hidden_ + j) * hidden_ + k] * h[b * hidden_ + k];
    return sum;
  }

  const onnx::NodeProto& n_;
  const std::vector<Array>& in_;
  const std::size_t direction_, batch_, inputs_, hidden_, gates_;
};

inline std::vector<Array> Recurrent(const onnx::NodeProto& n, const std::vector<Array>& in) {
  const auto times = static_cast<std::size_t>(in[0].shape[0]);
  const auto directions = static_cast<std::size_t>(in[1].shape[0]);
  const std::int64_t batch = in[0].shape[1];
  const std::int64_t hidden = in[2].shape[2];
  const auto state = static_cast<std::size_t>(batch * hidden);
  const auto* attribute = graph::FindAttribute(n, "direction");
  const std::string direction = attribute == nullptr ? "forward" : attribute->s();
  Array y{{in[0].shape[0], in[1].shape[0], batch, hidden}, std::vector<double>(times * directions * state)};
  Array last_h{{in[1].shape[0], batch, hidden}, {}};
  Array last_c = last_h;
  for (std::size_t d = 0; d < directions; ++d) {
    const RecurrentLayer layer(n, in, d);
    const auto initial = [&](std::size_t input) {
      if (in.size() <= input || in[input].size() == 0) return std::vector<double>(state);
      const auto begin = in[input].v.begin() + static_cast<std::ptrdiff_t>(d * state);
      return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(state));
    };
    std::vector<double> h = initial(5);
    std::vector<double> c = initial(6);
    for (std::size_t i = 0; i < times; ++i) {
      const std::size_t time = direction == "reverse" || d == 1 ? times - 1 - i : i;
      layer.Step(time, &h, &c);
      std::copy(h.begin(), h.end(), y.v.begin() + static_cast<std::ptrdiff_t>((time * directions + d) * state));
    }
    last_h.v.insert(last_h.v.end(), h.begin(), h.end());
    last_c.v.insert(last_c.v.end(), c.begin(), c.end());
  }
  return {y, last_h, last_c};
}

inline const Operators& RecurrentOperators() {
  static const Operators operators{{"RNN", Recurrent}, {"GRU", Recurrent}, {"LSTM", Recurrent}};
  return operators;
}

}  // namespace ganglion::gradient::reference
