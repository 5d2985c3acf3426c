// For tests only: the forward operators in double precision, written plainly from the ONNX operator documents and
// sharing nothing with the gradient rules or the runtime. Central differences of this are what gradients are held to.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient::reference {

using Shape = tensor::Shape;

struct Array {
  Shape shape;
  std::vector<double> v;
  std::size_t size() const { return v.size(); }
};
using Values = std::map<std::string, Array>;

inline std::int64_t Count(const Shape& s) {
  return std::accumulate(s.begin(), s.end(), std::int64_t{1}, std::multiplies<>());
}

// The flat index into `a` of the element that broadcasting puts at flat index `flat` of `out`.
inline std::size_t BroadcastIndex(std::size_t flat, const Shape& out, const Shape& a) {
  std::size_t index = 0;
  std::size_t stride = 1;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto d = static_cast<std::size_t>(out[out.size() - 1 - i]);
    const std::size_t at = flat % d;
    flat /= d;
    if (i < a.size()) {
      const auto da = static_cast<std::size_t>(a[a.size() - 1 - i]);
      index += (da == 1 ? 0 : at) * stride;
      stride *= da;
    }
  }
  return index;
}

inline Array Elementwise(const Array& a, const Array& b, const std::function<double(double, double)>& f) {
  Shape shape(std::max(a.shape.size(), b.shape.size()), 1);
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const auto of = [&](const Shape& s) { return i < s.size() ? s[s.size() - 1 - i] : 1; };
    shape[shape.size() - 1 - i] = std::max(of(a.shape), of(b.shape));
  }
  Array out{shape, std::vector<double>(static_cast<std::size_t>(Count(shape)))};
  for (std::size_t i = 0; i < out.size(); ++i) {
    out.v[i] = f(a.v[BroadcastIndex(i, shape, a.shape)], b.v[BroadcastIndex(i, shape, b.shape)]);
  }
  return out;
}

inline Array Map(Array a, const std::function<double(double)>& f) {
  for (auto& x : a.v) x = f(x);
  return a;
}

inline Array Transpose(const Array& a, const std::vector<std::int64_t>& perm) {
  Shape shape;
  for (const auto p : perm) shape.push_back(a.shape[static_cast<std::size_t>(p)]);
  Array out{shape, std::vector<double>(a.size())};
  for (std::size_t flat = 0; flat < a.size(); ++flat) {
    std::vector<std::size_t> at(shape.size());
    std::size_t rest = flat;
    for (std::size_t i = shape.size(); i-- > 0;) {
      at[i] = rest % static_cast<std::size_t>(shape[i]);
      rest /= static_cast<std::size_t>(shape[i]);
    }
    std::vector<std::size_t> from(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) from[static_cast<std::size_t>(perm[i])] = at[i];
    std::size_t index = 0;
    for (std::size_t i = 0; i < from.size(); ++i) index = index * static_cast<std::size_t>(a.shape[i]) + from[i];
    out.v[flat] = a.v[index];
  }
  return out;
}

inline Array Swap(const Array& a) {
  std::vector<std::int64_t> perm(a.shape.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm.back(), perm[perm.size() - 2]);
  return Transpose(a, perm);
}

inline Array MatMul(const Array& a, const Array& b) {
  const auto m = static_cast<std::size_t>(a.shape[a.shape.size() - 2]);
  const auto k = static_cast<std::size_t>(a.shape.back());
  const auto n = static_cast<std::size_t>(b.shape.back());
  const Shape la(a.shape.begin(), a.shape.end() - 2);
  const Shape lb(b.shape.begin(), b.shape.end() - 2);
  const Array lead = Elementwise({la, std::vector<double>(static_cast<std::size_t>(Count(la)))},
                                 {lb, std::vector<double>(static_cast<std::size_t>(Count(lb)))}, std::plus<>());
  Array out{lead.shape, {}};
  out.shape.push_back(static_cast<std::int64_t>(m));
  out.shape.push_back(static_cast<std::int64_t>(n));
  out.v.assign(lead.size() * m * n, 0);
  for (std::size_t l = 0; l < lead.size(); ++l) {
    const double* pa = a.v.data() + BroadcastIndex(l, lead.shape, la) * m * k;
    const double* pb = b.v.data() + BroadcastIndex(l, lead.shape, lb) * k * n;
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t q = 0; q < k; ++q) out.v[(l * m + i) * n + j] += pa[i * k + q] * pb[q * n + j];
      }
    }
  }
  return out;
}

// Calls f(indices of one line along `axis`).
inline void AlongAxis(const Array& a, std::int64_t axis,
                      const std::function<void(const std::vector<std::size_t>&)>& f) {
  const auto ax = static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(a.shape.size()) : axis);
  std::size_t inner = 1;
  for (std::size_t i = ax + 1; i < a.shape.size(); ++i) inner *= static_cast<std::size_t>(a.shape[i]);
  const auto length = static_cast<std::size_t>(a.shape[ax]);
  const std::size_t outer = a.size() / inner / length;
  for (std::size_t o = 0; o < outer; ++o) {
    for (std::size_t i = 0; i < inner; ++i) {
      std::vector<std::size_t> line;
      for (std::size_t j = 0; j < length; ++j) line.push_back((o * length + j) * inner + i);
      f(line);
    }
  }
}

inline Array LogSoftmax(Array a, std::int64_t axis) {
  AlongAxis(a, axis, [&](const std::vector<std::size_t>& line) {
    double top = -1e300;
    for (const auto i : line) top = std::max(top, a.v[i]);
    double sum = 0;
    for (const auto i : line) sum += std::exp(a.v[i] - top);
    for (const auto i : line) a.v[i] -= top + std::log(sum);
  });
  return a;
}

inline Array Reduce(const Array& a, std::vector<std::int64_t> axes, bool keep, bool mean) {
  if (axes.empty()) {
    axes.resize(a.shape.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  for (auto& x : axes) x = x < 0 ? x + static_cast<std::int64_t>(a.shape.size()) : x;
  Shape kept = a.shape;
  for (const auto x : axes) kept[static_cast<std::size_t>(x)] = 1;
  Array out{kept, std::vector<double>(static_cast<std::size_t>(Count(kept)))};
  for (std::size_t i = 0; i < a.size(); ++i) out.v[BroadcastIndex(i, a.shape, kept)] += a.v[i];
  if (mean)
    out = Map(out, [&](double x) { return x * static_cast<double>(out.size()) / static_cast<double>(a.size()); });
  if (!keep) {
    out.shape.clear();
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (std::find(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) == axes.end()) out.shape.push_back(kept[i]);
    }
  }
  return out;
}

inline std::vector<std::int64_t> AsInts(const Array& a) {
  std::vector<std::int64_t> ints;
  for (const double x : a.v) ints.push_back(static_cast<std::int64_t>(x));
  return ints;
}

// Evaluates every node; `values` holds inputs and initializers, and receives what the nodes make.
inline void Evaluate(const onnx::GraphProto& g, Values& values) {
  for (const auto& n : g.node()) {
    const auto in = [&](int i) -> const Array& { return values.at(n.input(i)); };
    const std::string& op = n.op_type();
    Array y;
    if (op == "Add")
      y = Elementwise(in(0), in(1), std::plus<>());
    else if (op == "Sub")
      y = Elementwise(in(0), in(1), std::minus<>());
    else if (op == "Mul")
      y = Elementwise(in(0), in(1), std::multiplies<>());
    else if (op == "Div")
      y = Elementwise(in(0), in(1), std::divides<>());
    else if (op == "Neg")
      y = Map(in(0), std::negate<>());
    else if (op == "Identity")
      y = in(0);
    else if (op == "Relu")
      y = Map(in(0), [](double x) { return std::max(x, 0.); });
    else if (op == "Sigmoid")
      y = Map(in(0), [](double x) { return 1 / (1 + std::exp(-x)); });
    else if (op == "Tanh")
      y = Map(in(0), [](double x) { return std::tanh(x); });
    else if (op == "MatMul")
      y = MatMul(in(0), in(1));
    else if (op == "Gemm") {
      const Array a = graph::IntAttribute(n, "transA", 0) != 0 ? Swap(in(0)) : in(0);
      const Array b = graph::IntAttribute(n, "transB", 0) != 0 ? Swap(in(1)) : in(1);
      const double alpha = graph::FloatAttribute(n, "alpha", 1);
      const double beta = graph::FloatAttribute(n, "beta", 1);
      y = Map(MatMul(a, b), [&](double x) { return alpha * x; });
      if (n.input_size() > 2) y = Elementwise(y, Map(in(2), [&](double x) { return beta * x; }), std::plus<>());
    } else if (op == "LogSoftmax") {
      y = LogSoftmax(in(0), graph::IntAttribute(n, "axis", -1));
    } else if (op == "Softmax") {
      y = Map(LogSoftmax(in(0), graph::IntAttribute(n, "axis", -1)), [](double x) { return std::exp(x); });
    } else if (op == "Reshape") {
      y = in(0);
      y.shape = AsInts(in(1));
      std::int64_t others = 1;
      for (std::size_t i = 0; i < y.shape.size(); ++i) {
        if (y.shape[i] == 0) y.shape[i] = in(0).shape[i];
        others *= y.shape[i] < 0 ? 1 : y.shape[i];
      }
      for (auto& d : y.shape) d = d < 0 ? static_cast<std::int64_t>(y.size()) / others : d;
    } else if (op == "Flatten") {
      y = in(0);
      const auto axis = static_cast<std::size_t>(graph::IntAttribute(n, "axis", 1));
      const std::int64_t rows = Count(Shape(y.shape.begin(), y.shape.begin() + static_cast<std::ptrdiff_t>(axis)));
      y.shape = {rows, static_cast<std::int64_t>(y.size()) / rows};
    } else if (op == "ReduceSum") {
      y = Reduce(in(0), n.input_size() > 1 ? AsInts(in(1)) : std::vector<std::int64_t>{},
                 graph::IntAttribute(n, "keepdims", 1) != 0, false);
    } else if (op == "ReduceMean") {
      y = Reduce(in(0), graph::IntsAttribute(n, "axes").value_or(std::vector<std::int64_t>{}),
                 graph::IntAttribute(n, "keepdims", 1) != 0, true);
    } else if (op == "Transpose") {
      std::vector<std::int64_t> perm(in(0).shape.size());
      for (std::size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<std::int64_t>(perm.size() - 1 - i);
      y = Transpose(in(0), graph::IntsAttribute(n, "perm").value_or(perm));
    } else {
      FAIL() << "the reference has no operator " << op;
    }
    values[n.output(0)] = std::move(y);
  }
}

inline Array FromTensor(const tensor::Tensor& t) {
  Array a{t.shape(), {}};
  if (t.type() == tensor::DataType::kInt64) {
    for (const long x : t.As<long>()) a.v.push_back(static_cast<double>(x));
  } else {
    for (const float x : t.As<float>()) a.v.push_back(x);
  }
  return a;
}

}  // namespace ganglion::gradient::reference
