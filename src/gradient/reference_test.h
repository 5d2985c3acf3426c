// For tests only: the forward operators in double precision, written plainly from the ONNX operator documents and
// sharing nothing with the gradient rules or the runtime. Central differences of this are what gradients are held to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "tensor/tensor.h"

namespace ganglion::gradient::reference {

using Shape = tensor::Shape;

struct Array {
  Shape shape;
  std::vector<double> v;
  std::size_t size() const { return v.size(); }
};
using Values = std::map<std::string, Array>;

// An operator: its inputs by position (an empty array where an optional one is left out) to its outputs.
using Operator = std::function<std::vector<Array>(const onnx::NodeProto& n, const std::vector<Array>& in)>;
using Operators = std::map<std::string, Operator>;

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

// What is over `axes` (none: all) goes through f as one list.
inline Array Reduce(const Array& a, std::vector<std::int64_t> axes, bool keep,
                    const std::function<double(const std::vector<double>&)>& f) {
  if (axes.empty()) {
    axes.resize(a.shape.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  for (auto& x : axes) x = x < 0 ? x + static_cast<std::int64_t>(a.shape.size()) : x;
  Shape kept = a.shape;
  for (const auto x : axes) kept[static_cast<std::size_t>(x)] = 1;
  Array out{kept, {}};
  std::vector<std::vector<double>> lists(static_cast<std::size_t>(Count(kept)));
  for (std::size_t i = 0; i < a.size(); ++i) lists[BroadcastIndex(i, a.shape, kept)].push_back(a.v[i]);
  for (const auto& list : lists) out.v.push_back(f(list));
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

inline Array FromTensor(const tensor::Tensor& t) {
  Array a{t.shape(), {}};
  const auto copy = [&](const auto& numbers) {
    for (const auto x : numbers) a.v.push_back(static_cast<double>(x));
  };
  switch (t.type()) {
    case tensor::DataType::kInt64:
      copy(t.As<long>());
      break;
    case tensor::DataType::kInt32:
      copy(t.As<int>());
      break;
    case tensor::DataType::kBool:
      for (const std::byte b : t.View().bytes) a.v.push_back(b == std::byte{0} ? 0 : 1);
      break;
    default:
      copy(t.As<float>());
      break;
  }
  return a;
}

// The position of flat index `flat` in `shape`, and back.
inline std::vector<std::int64_t> Position(std::size_t flat, const Shape& shape) {
  std::vector<std::int64_t> at(shape.size());
  auto rest = static_cast<std::int64_t>(flat);
  for (std::size_t i = shape.size(); i-- > 0;) {
    at[i] = rest % shape[i];
    rest /= shape[i];
  }
  return at;
}
inline std::size_t FlatIndex(const std::vector<std::int64_t>& at, const Shape& shape) {
  std::int64_t flat = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) flat = flat * shape[i] + at[i];
  return static_cast<std::size_t>(flat);
}

// An array of `shape` whose element at a position is f(position).
inline Array Generate(const Shape& shape, const std::function<double(const std::vector<std::int64_t>&)>& f) {
  Array out{shape, std::vector<double>(static_cast<std::size_t>(Count(shape)))};
  for (std::size_t i = 0; i < out.size(); ++i) out.v[i] = f(Position(i, shape));
  return out;
}

// The operators of rules_arithmetic, rules_shape and rules_matrix.
const Operators& Basic();

// Evaluates every node; `values` holds inputs and initializers, and receives what the nodes make.
inline void Evaluate(const onnx::GraphProto& g, Values& values, const Operators& more = {}) {
  for (const auto& n : g.node()) {
    std::vector<Array> in;
    for (const auto& name : n.input()) in.push_back(name.empty() ? Array{} : values.at(name));
    auto at = more.find(n.op_type());
    if (at == more.end()) {
      at = Basic().find(n.op_type());
      ASSERT_TRUE(at != Basic().end()) << "the reference has no operator " << n.op_type();
    }
    std::vector<Array> out = at->second(n, in);
    ASSERT_GE(out.size(), static_cast<std::size_t>(n.output_size())) << n.op_type();
    for (int i = 0; i < n.output_size(); ++i) values[n.output(i)] = std::move(out[static_cast<std::size_t>(i)]);
  }
}

}  // namespace ganglion::gradient::reference
