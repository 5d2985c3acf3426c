// For tests only: convolution, pooling and normalisation in double precision, for EveryRule's `With`. Plain loops over
// every output, every tap and every channel, written from the operator documents; nothing is shared with the rules.
#pragma once

#include "gradient/reference_test.h"

namespace ganglion::gradient::reference {

using List = std::vector<std::int64_t>;

// Calls f(index) for every index below `shape`.
inline void ForEach(const Shape& shape, const std::function<void(const List&)>& f) {
  List at(shape.size(), 0);
  for (std::int64_t i = 0; i < Count(shape); ++i) {
    f(at);
    for (std::size_t a = shape.size(); a-- > 0;) {
      if (++at[a] < shape[a]) break;
      at[a] = 0;
    }
  }
}

inline std::size_t FlatOf(const Shape& shape, const List& at) {
  std::int64_t flat = 0;
  for (std::size_t a = 0; a < shape.size(); ++a) flat = flat * shape[a] + at[a];
  return static_cast<std::size_t>(flat);
}

inline std::string Word(const onnx::NodeProto& n, const char* name) {
  const auto* a = graph::FindAttribute(n, name);
  return a == nullptr ? "" : a->s();
}

struct Steps {
  List stride, dilation, begin, end;
};
inline Steps StepsOf(const onnx::NodeProto& n, const List& in, const List& kernel) {
  const std::size_t rank = kernel.size();
  Steps s{graph::IntsAttribute(n, "strides").value_or(List(rank, 1)),
          graph::IntsAttribute(n, "dilations").value_or(List(rank, 1)), List(rank, 0), List(rank, 0)};
  const List pads = graph::IntsAttribute(n, "pads").value_or(List(2 * rank, 0));
  const std::string word = Word(n, "auto_pad");
  for (std::size_t a = 0; a < rank; ++a) {
    s.begin[a] = pads[a];
    s.end[a] = pads[rank + a];
    if (word.rfind("SAME", 0) == 0) {
      const std::int64_t out = (in[a] + s.stride[a] - 1) / s.stride[a];
      const std::int64_t missing =
          std::max<std::int64_t>(0, (out - 1) * s.stride[a] + (kernel[a] - 1) * s.dilation[a] + 1 - in[a]);
      s.begin[a] = word == "SAME_UPPER" ? missing / 2 : (missing + 1) / 2;
      s.end[a] = missing - s.begin[a];
    }
  }
  return s;
}

inline List Tail(const Shape& s) { return List(s.begin() + 2, s.end()); }
inline Shape WithTail(std::int64_t n, std::int64_t c, const List& tail) {
  Shape s{n, c};
  s.insert(s.end(), tail.begin(), tail.end());
  return s;
}

inline std::vector<Array> Conv(const onnx::NodeProto& n, const std::vector<Array>& x) {
  const List in = Tail(x[0].shape);
  const List kernel = Tail(x[1].shape);
  const Steps s = StepsOf(n, in, kernel);
  List out;
  for (std::size_t a = 0; a < in.size(); ++a) {
    out.push_back((in[a] + s.begin[a] + s.end[a] - (kernel[a] - 1) * s.dilation[a] - 1) / s.stride[a] + 1);
  }
  const std::int64_t per_group = x[1].shape[0] / graph::IntAttribute(n, "group", 1);
  Array y{WithTail(x[0].shape[0], x[1].shape[0], out), {}};
  y.v.assign(static_cast<std::size_t>(Count(y.shape)), 0);
  ForEach(y.shape, [&](const List& o) {
    double& sum = y.v[FlatOf(y.shape, o)];
    if (x.size() > 2 && x[2].size() > 0) sum = x[2].v[static_cast<std::size_t>(o[1])];
    ForEach(WithTail(1, x[1].shape[1], kernel), [&](const List& k) {
      List at{o[0], o[1] / per_group * x[1].shape[1] + k[1]};
      for (std::size_t a = 0; a < in.size(); ++a) {
        at.push_back(o[a + 2] * s.stride[a] + k[a + 2] * s.dilation[a] - s.begin[a]);
        if (at.back() < 0 || at.back() >= in[a]) return;
      }
      List w = k;
      w[0] = o[1];
      sum += x[0].v[FlatOf(x[0].shape, at)] * x[1].v[FlatOf(x[1].shape, w)];
    });
  });
  return {y};
}

// Every input number is spread over the outputs that its kernel reaches.
inline std::vector<Array> ConvTranspose(const onnx::NodeProto& n, const std::vector<Array>& x) {
  const List in = Tail(x[0].shape);
  const List kernel = Tail(x[1].shape);
  const List extra = graph::IntsAttribute(n, "output_padding").value_or(List(in.size(), 0));
  const auto sizes = graph::IntsAttribute(n, "output_shape");
  const std::string word = Word(n, "auto_pad");
  Steps s = StepsOf(n, in, kernel);
  List out;
  for (std::size_t a = 0; a < in.size(); ++a) {
    const std::int64_t whole = s.stride[a] * (in[a] - 1) + extra[a] + (kernel[a] - 1) * s.dilation[a] + 1;
    if (sizes || word.rfind("SAME", 0) == 0) {
      out.push_back(sizes ? (*sizes)[a] : in[a] * s.stride[a]);
      const std::int64_t total = whole - out[a];
      s.begin[a] = word == "SAME_UPPER" ? total / 2 : total - total / 2;
    } else {
      out.push_back(whole - s.begin[a] - s.end[a]);
    }
  }
  const std::int64_t groups = graph::IntAttribute(n, "group", 1);
  const std::int64_t per_group = x[1].shape[1];
  Array y{WithTail(x[0].shape[0], per_group * groups, out), {}};
  y.v.assign(static_cast<std::size_t>(Count(y.shape)), 0);
  ForEach(x[0].shape, [&](const List& i) {
    const std::int64_t group = i[1] / (x[0].shape[1] / groups);
    ForEach(WithTail(1, per_group, kernel), [&](const List& k) {
      List at{i[0], group * per_group + k[1]};
      for (std::size_t a = 0; a < in.size(); ++a) {
        at.push_back(i[a + 2] * s.stride[a] + k[a + 2] * s.dilation[a] - s.begin[a]);
        if (at.back() < 0 || at.back() >= out[a]) return;
      }
      List w = k;
      w[0] = i[1];
      y.v[FlatOf(y.shape, at)] += x[0].v[FlatOf(x[0].shape, i)] * x[1].v[FlatOf(x[1].shape, w)];
    });
  });
  if (x.size() > 2 && x[2].size() > 0) {
    ForEach(y.shape, [&](const List& o) { y.v[FlatOf(y.shape, o)] += x[2].v[static_cast<std::size_t>(o[1])]; });
  }
  return {y};
}

// `pick`: of the numbers in a window and how many taps of it lie in the padded image.
inline Operator Pool(const std::function<double(const onnx::NodeProto&, const std::vector<double>&, double)>& pick) {
  return [pick](const onnx::NodeProto& n, const std::vector<Array>& x) {
    const List in = Tail(x[0].shape);
    const List kernel = *graph::IntsAttribute(n, "kernel_shape");
    const Steps s = StepsOf(n, in, kernel);
    List out;
    for (std::size_t a = 0; a < in.size(); ++a) {
      const std::int64_t room = in[a] + s.begin[a] + s.end[a] - (kernel[a] - 1) * s.dilation[a] - 1;
      std::int64_t count = room / s.stride[a] + 1;
      if (graph::IntAttribute(n, "ceil_mode", 0) != 0 && room % s.stride[a] != 0 &&
          count * s.stride[a] < in[a] + s.begin[a]) {
        ++count;
      }
      out.push_back(count);
    }
    Array y{WithTail(x[0].shape[0], x[0].shape[1], out), {}};
    ForEach(y.shape, [&](const List& o) {
      std::vector<double> window;
      double with_padding = 0;
      ForEach(kernel, [&](const List& k) {
        List at{o[0], o[1]};
        bool padding = false;
        for (std::size_t a = 0; a < in.size(); ++a) {
          at.push_back(o[a + 2] * s.stride[a] + k[a] * s.dilation[a] - s.begin[a]);
          if (at.back() >= in[a] + s.end[a]) return;
          padding = padding || at.back() < 0 || at.back() >= in[a];
        }
        ++with_padding;
        if (!padding) window.push_back(x[0].v[FlatOf(x[0].shape, at)]);
      });
      y.v.push_back(pick(n, window, with_padding));
    });
    return std::vector<Array>{y};
  };
}

// Over all spatial axes.
inline Operator GlobalPool(const std::function<double(const std::vector<double>&)>& pick) {
  return [pick](const onnx::NodeProto&, const std::vector<Array>& x) {
    Array y{WithTail(x[0].shape[0], x[0].shape[1], List(x[0].shape.size() - 2, 1)), {}};
    const std::size_t pixels = x[0].size() / static_cast<std::size_t>(x[0].shape[0] * x[0].shape[1]);
    for (std::size_t i = 0; i < x[0].size(); i += pixels) {
      y.v.push_back(pick(
          {x[0].v.begin() + static_cast<std::ptrdiff_t>(i), x[0].v.begin() + static_cast<std::ptrdiff_t>(i + pixels)}));
    }
    return std::vector<Array>{y};
  };
}

inline double MeanOf(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.) / static_cast<double>(v.size());
}
inline double LargestOf(const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); }

// Normalises the numbers of x that `group` gives the same key, then y = h * scale(index) + bias(index).
inline Array Normalise(const Array& x, const std::function<std::int64_t(const List&)>& group, double epsilon,
                       const std::function<double(const List&, double)>& scale_and_bias) {
  std::map<std::int64_t, std::vector<double>> groups;
  ForEach(x.shape, [&](const List& at) { groups[group(at)].push_back(x.v[FlatOf(x.shape, at)]); });
  std::map<std::int64_t, std::pair<double, double>> moments;
  for (const auto& [key, v] : groups) {
    const double mean = MeanOf(v);
    double squares = 0;
    for (const double a : v) squares += (a - mean) * (a - mean);
    moments[key] = {mean, std::sqrt(squares / static_cast<double>(v.size()) + epsilon)};
  }
  Array y = x;
  ForEach(x.shape, [&](const List& at) {
    const auto& [mean, deviation] = moments.at(group(at));
    double& v = y.v[FlatOf(x.shape, at)];
    v = scale_and_bias(at, (v - mean) / deviation);
  });
  return y;
}

inline std::function<double(const List&, double)> ByChannel(const std::vector<Array>& x) {
  return [&x](const List& at, double h) {
    const auto c = static_cast<std::size_t>(at[1]);
    return h * x[1].v[c] + x[2].v[c];
  };
}

inline std::vector<Array> BatchNorm(const onnx::NodeProto& n, const std::vector<Array>& x) {
  return {Normalise(
      x[0], [](const List& at) { return at[1]; }, graph::FloatAttribute(n, "epsilon", 1e-5f), ByChannel(x))};
}
inline std::vector<Array> FrozenBatchNorm(const onnx::NodeProto& n, const std::vector<Array>& x) {
  const double epsilon = graph::FloatAttribute(n, "epsilon", 1e-5f);
  Array y = x[0];
  ForEach(y.shape, [&](const List& at) {
    const auto c = static_cast<std::size_t>(at[1]);
    double& v = y.v[FlatOf(y.shape, at)];
    v = (v - x[3].v[c]) / std::sqrt(x[4].v[c] + epsilon) * x[1].v[c] + x[2].v[c];
  });
  return {y};
}
inline std::vector<Array> InstanceNorm(const onnx::NodeProto& n, const std::vector<Array>& x) {
  return {Normalise(
      x[0], [&](const List& at) { return at[0] * x[0].shape[1] + at[1]; }, graph::FloatAttribute(n, "epsilon", 1e-5f),
      ByChannel(x))};
}
inline std::vector<Array> LayerNorm(const onnx::NodeProto& n, const std::vector<Array>& x) {
  const Shape& shape = x[0].shape;
  const std::int64_t asked = graph::IntAttribute(n, "axis", -1);
  const std::int64_t axis = asked < 0 ? asked + static_cast<std::int64_t>(shape.size()) : asked;
  const auto inner = Count(Shape(shape.begin() + axis, shape.end()));
  return {Normalise(
      x[0], [&](const List& at) { return static_cast<std::int64_t>(FlatOf(shape, at)) / inner; },
      graph::FloatAttribute(n, "epsilon", 1e-5f),
      [&](const List& at, double h) {
        const double scale = x[1].v[BroadcastIndex(FlatOf(shape, at), shape, x[1].shape)];
        return h * scale +
               (x.size() > 2 && x[2].size() > 0 ? x[2].v[BroadcastIndex(FlatOf(shape, at), shape, x[2].shape)] : 0.);
      })};
}

inline std::vector<Array> Lrn(const onnx::NodeProto& n, const std::vector<Array>& x) {
  const std::int64_t size = graph::IntAttribute(n, "size", 1);
  Array y = x[0];
  ForEach(y.shape, [&](const List& at) {
    double squares = 0;
    const std::int64_t first = std::max<std::int64_t>(0, at[1] - (size - 1) / 2);
    const std::int64_t last = std::min(y.shape[1] - 1, at[1] + size / 2);
    List c = at;
    for (c[1] = first; c[1] <= last; ++c[1]) squares += std::pow(x[0].v[FlatOf(y.shape, c)], 2);
    y.v[FlatOf(y.shape, at)] /=
        std::pow(graph::FloatAttribute(n, "bias", 1) +
                     graph::FloatAttribute(n, "alpha", 1e-4f) / static_cast<double>(size) * squares,
                 graph::FloatAttribute(n, "beta", .75f));
  });
  return {y};
}

inline const Operators& ConvolutionOperators() {
  static const Operators operators{
      {"Conv", Conv},
      {"ConvTranspose", ConvTranspose},
      {"MaxPool", Pool([](const onnx::NodeProto&, const std::vector<double>& v, double) { return LargestOf(v); })},
      {"AveragePool", Pool([](const onnx::NodeProto& n, const std::vector<double>& v, double with_padding) {
         const double sum = std::accumulate(v.begin(), v.end(), 0.);
         return sum / (graph::IntAttribute(n, "count_include_pad", 0) != 0 ? with_padding : double(v.size()));
       })},
      {"GlobalAveragePool", GlobalPool(MeanOf)},
      {"GlobalMaxPool", GlobalPool(LargestOf)},
      {"BatchNormalization", BatchNorm},
      {"InstanceNormalization", InstanceNorm},
      {"LayerNormalization", LayerNorm},
      {"LRN", Lrn},
  };
  return operators;
}
inline const Operators& FrozenOperators() {
  static const Operators operators = [] {
    Operators o = ConvolutionOperators();
    o["BatchNormalization"] = FrozenBatchNorm;
    return o;
  }();
  return operators;
}

}  // namespace ganglion::gradient::reference
