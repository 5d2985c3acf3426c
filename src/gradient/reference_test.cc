#include "gradient/reference_test.h"

#include <limits>

namespace ganglion::gradient::reference {
namespace {

using Node = onnx::NodeProto;
using List = std::vector<std::int64_t>;
using In = std::vector<Array>;

bool Given(const In& in, std::size_t i) { return i < in.size() && in[i].size() > 0; }
List IntsOf(const Node& n, const char* name) { return graph::IntsAttribute(n, name).value_or(List{}); }
std::int64_t AxisOf(const Node& n, std::int64_t otherwise, const Array& a) {
  const std::int64_t axis = graph::IntAttribute(n, "axis", otherwise);
  return axis < 0 ? axis + static_cast<std::int64_t>(a.shape.size()) : axis;
}
std::string Text(const Node& n, const char* name, const std::string& otherwise) {
  const auto* a = graph::FindAttribute(n, name);
  return a == nullptr ? otherwise : a->s();
}

// ---- arithmetic ----------------------------------------------------------------------------------------------------

Operator Unary(const std::function<double(double)>& f) {
  return [f](const Node&, const In& in) { return In{Map(in[0], f)}; };
}
Operator Binary(const std::function<double(double, double)>& f) {
  return [f](const Node&, const In& in) { return In{Elementwise(in[0], in[1], f)}; };
}
// Any number of inputs, two at a time.
Operator Folded(const std::function<double(double, double)>& f, bool mean = false) {
  return [f, mean](const Node&, const In& in) {
    Array y = in[0];
    for (std::size_t i = 1; i < in.size(); ++i) y = Elementwise(y, in[i], f);
    if (mean) y = Map(y, [&](double x) { return x / static_cast<double>(in.size()); });
    return In{y};
  };
}
// A function of x and the node's attributes alpha and beta (gamma for Selu).
Operator WithAlpha(double alpha, double beta, const std::function<double(double, double, double)>& f,
                   const char* second = "beta") {
  return [=](const Node& n, const In& in) {
    const double a = graph::FloatAttribute(n, "alpha", static_cast<float>(alpha));
    const double b = graph::FloatAttribute(n, second, static_cast<float>(beta));
    return In{Map(in[0], [&](double x) { return f(x, a, b); })};
  };
}

void AddUnary(Operators& o) {
  o["Abs"] = Unary([](double x) { return std::fabs(x); });
  o["Acos"] = Unary([](double x) { return std::acos(x); });
  o["Acosh"] = Unary([](double x) { return std::acosh(x); });
  o["Asin"] = Unary([](double x) { return std::asin(x); });
  o["Asinh"] = Unary([](double x) { return std::asinh(x); });
  o["Atan"] = Unary([](double x) { return std::atan(x); });
  o["Atanh"] = Unary([](double x) { return std::atanh(x); });
  o["Cast"] = Unary([](double x) { return x; });
  o["Cos"] = Unary([](double x) { return std::cos(x); });
  o["Cosh"] = Unary([](double x) { return std::cosh(x); });
  o["Erf"] = Unary([](double x) { return std::erf(x); });
  o["Exp"] = Unary([](double x) { return std::exp(x); });
  o["Identity"] = Unary([](double x) { return x; });
  o["Log"] = Unary([](double x) { return std::log(x); });
  o["Neg"] = Unary(std::negate<>());
  o["Reciprocal"] = Unary([](double x) { return 1 / x; });
  o["Relu"] = Unary([](double x) { return std::max(x, 0.); });
  o["Sigmoid"] = Unary([](double x) { return 1 / (1 + std::exp(-x)); });
  o["Sign"] = Unary([](double x) { return x > 0 ? 1. : x < 0 ? -1. : 0.; });
  o["Sin"] = Unary([](double x) { return std::sin(x); });
  o["Sinh"] = Unary([](double x) { return std::sinh(x); });
  o["Softplus"] = Unary([](double x) { return std::log(1 + std::exp(x)); });
  o["Softsign"] = Unary([](double x) { return x / (1 + std::fabs(x)); });
  o["Sqrt"] = Unary([](double x) { return std::sqrt(x); });
  o["Tan"] = Unary([](double x) { return std::tan(x); });
  o["Tanh"] = Unary([](double x) { return std::tanh(x); });
  o["HardSwish"] = Unary([](double x) { return x * std::min(std::max(x / 6 + .5, 0.), 1.); });
  o["Celu"] = WithAlpha(
      1, 0, [](double x, double a, double) { return std::max(x, 0.) + std::min(0., a * (std::exp(x / a) - 1)); });
  o["Elu"] = WithAlpha(1, 0, [](double x, double a, double) { return x > 0 ? x : a * (std::exp(x) - 1); });
  o["HardSigmoid"] =
      WithAlpha(.2, .5, [](double x, double a, double b) { return std::min(std::max(a * x + b, 0.), 1.); });
  o["LeakyRelu"] = WithAlpha(.01, 0, [](double x, double a, double) { return x > 0 ? x : a * x; });
  o["Selu"] = WithAlpha(
      1.67326319217681884765625, 1.05070102214813232421875,
      [](double x, double a, double g) { return g * (x > 0 ? x : a * (std::exp(x) - 1)); }, "gamma");
  o["ThresholdedRelu"] = WithAlpha(1, 0, [](double x, double a, double) { return x > a ? x : 0.; });
}

void AddBinary(Operators& o) {
  o["Add"] = Binary(std::plus<>());
  o["Sub"] = Binary(std::minus<>());
  o["Mul"] = Binary(std::multiplies<>());
  o["Div"] = Binary(std::divides<>());
  o["Pow"] = Binary([](double a, double b) { return std::pow(a, b); });
  o["PRelu"] = Binary([](double x, double a) { return x > 0 ? x : a * x; });
  o["Mod"] = Binary([](double a, double b) { return std::fmod(a, b); });
  o["Sum"] = Folded(std::plus<>());
  o["Mean"] = Folded(std::plus<>(), true);
  o["Max"] = Folded([](double a, double b) { return std::max(a, b); });
  o["Min"] = Folded([](double a, double b) { return std::min(a, b); });
  o["Clip"] = [](const Node&, const In& in) {
    Array y = in[0];
    if (Given(in, 1)) y = Elementwise(y, in[1], [](double a, double b) { return std::max(a, b); });
    if (Given(in, 2)) y = Elementwise(y, in[2], [](double a, double b) { return std::min(a, b); });
    return In{y};
  };
  o["Where"] = [](const Node&, const In& in) {
    const Array yes = Elementwise(in[0], in[1], [](double c, double v) { return c != 0 ? v : 0; });
    const Array no = Elementwise(in[0], in[2], [](double c, double v) { return c != 0 ? 0 : v; });
    return In{Elementwise(yes, no, std::plus<>())};
  };
  o["LogSoftmax"] = [](const Node& n, const In& in) {
    return In{LogSoftmax(in[0], graph::IntAttribute(n, "axis", -1))};
  };
  o["Softmax"] = [](const Node& n, const In& in) {
    return In{Map(LogSoftmax(in[0], graph::IntAttribute(n, "axis", -1)), [](double x) { return std::exp(x); })};
  };
}

// ---- matrices ------------------------------------------------------------------------------------------------------

Array AnyMatMul(Array a, Array b) {
  const bool row = a.shape.size() == 1;
  const bool column = b.shape.size() == 1;
  if (row) a.shape.insert(a.shape.begin(), 1);
  if (column) b.shape.push_back(1);
  Array y = MatMul(a, b);
  if (column) y.shape.pop_back();
  if (row) y.shape.erase(y.shape.end() - (column ? 1 : 2));
  return y;
}

void AddMatrices(Operators& o) {
  o["MatMul"] = [](const Node&, const In& in) { return In{AnyMatMul(in[0], in[1])}; };
  o["Gemm"] = [](const Node& n, const In& in) {
    const Array a = graph::IntAttribute(n, "transA", 0) != 0 ? Swap(in[0]) : in[0];
    const Array b = graph::IntAttribute(n, "transB", 0) != 0 ? Swap(in[1]) : in[1];
    const double alpha = graph::FloatAttribute(n, "alpha", 1);
    const double beta = graph::FloatAttribute(n, "beta", 1);
    Array y = Map(MatMul(a, b), [&](double x) { return alpha * x; });
    if (Given(in, 2)) y = Elementwise(y, Map(in[2], [&](double x) { return beta * x; }), std::plus<>());
    return In{y};
  };
}

// ---- reductions ----------------------------------------------------------------------------------------------------

using Numbers = std::vector<double>;
double SumOf(const Numbers& v) { return std::accumulate(v.begin(), v.end(), 0.); }

Operator Reduction(const std::function<double(const Numbers&)>& f) {
  return [f](const Node& n, const In& in) {
    List axes = IntsOf(n, "axes");
    if (Given(in, 1)) axes = AsInts(in[1]);
    if (axes.empty() && graph::IntAttribute(n, "noop_with_empty_axes", 0) != 0) return In{in[0]};
    return In{Reduce(in[0], axes, graph::IntAttribute(n, "keepdims", 1) != 0, f)};
  };
}
double SumOfSquares(const Numbers& v) { return std::inner_product(v.begin(), v.end(), v.begin(), 0.); }

void AddReductions(Operators& o) {
  o["ReduceSum"] = Reduction(SumOf);
  o["ReduceMean"] = Reduction([](const Numbers& v) { return SumOf(v) / static_cast<double>(v.size()); });
  o["ReduceMax"] = Reduction([](const Numbers& v) { return *std::max_element(v.begin(), v.end()); });
  o["ReduceMin"] = Reduction([](const Numbers& v) { return *std::min_element(v.begin(), v.end()); });
  o["ReduceSumSquare"] = Reduction(SumOfSquares);
  o["ReduceL2"] = Reduction([](const Numbers& v) { return std::sqrt(SumOfSquares(v)); });
  o["ReduceL1"] = Reduction([](const Numbers& v) {
    return std::accumulate(v.begin(), v.end(), 0., [](double s, double x) { return s + std::fabs(x); });
  });
  o["ReduceLogSum"] = Reduction([](const Numbers& v) { return std::log(SumOf(v)); });
  o["ReduceLogSumExp"] = Reduction([](const Numbers& v) {
    return std::log(std::accumulate(v.begin(), v.end(), 0., [](double s, double x) { return s + std::exp(x); }));
  });
  o["ReduceProd"] =
      Reduction([](const Numbers& v) { return std::accumulate(v.begin(), v.end(), 1., std::multiplies<>()); });
  o["CumSum"] = [](const Node& n, const In& in) {
    Array y = in[0];
    const bool reverse = graph::IntAttribute(n, "reverse", 0) != 0;
    const bool exclusive = graph::IntAttribute(n, "exclusive", 0) != 0;
    AlongAxis(in[0], static_cast<std::int64_t>(in[1].v[0]), [&](const std::vector<std::size_t>& line) {
      for (std::size_t i = 0; i < line.size(); ++i) {
        y.v[line[i]] = 0;
        for (std::size_t j = 0; j < line.size(); ++j) {
          const bool before = reverse ? j > i : j < i;
          if (before || (j == i && !exclusive)) y.v[line[i]] += in[0].v[line[j]];
        }
      }
    });
    return In{y};
  };
}

// ---- shapes --------------------------------------------------------------------------------------------------------

In Reshaped(const Array& x, const Shape& shape) {
  Array y{shape, x.v};
  std::int64_t others = 1;
  for (std::size_t i = 0; i < y.shape.size(); ++i) {
    if (y.shape[i] == 0) y.shape[i] = x.shape[i];
    others *= y.shape[i] < 0 ? 1 : y.shape[i];
  }
  for (auto& d : y.shape) d = d < 0 ? static_cast<std::int64_t>(y.size()) / others : d;
  return {y};
}

void AddReshapes(Operators& o) {
  o["Reshape"] = [](const Node&, const In& in) { return Reshaped(in[0], AsInts(in[1])); };
  o["Flatten"] = [](const Node& n, const In& in) {
    const std::int64_t axis = AxisOf(n, 1, in[0]);
    const std::int64_t rows = Count(Shape(in[0].shape.begin(), in[0].shape.begin() + axis));
    return In{{{rows, static_cast<std::int64_t>(in[0].size()) / rows}, in[0].v}};
  };
  o["Squeeze"] = [](const Node&, const In& in) {
    Shape shape;
    const auto rank = static_cast<std::int64_t>(in[0].shape.size());
    for (std::int64_t i = 0; i < rank; ++i) {
      bool out = !Given(in, 1) && in[0].shape[static_cast<std::size_t>(i)] == 1;
      if (Given(in, 1)) {
        for (const auto a : AsInts(in[1])) out |= a == i || a + rank == i;
      }
      if (!out) shape.push_back(in[0].shape[static_cast<std::size_t>(i)]);
    }
    return In{{shape, in[0].v}};
  };
  o["Unsqueeze"] = [](const Node&, const In& in) {
    const List axes = AsInts(in[1]);
    Shape shape(in[0].shape.size() + axes.size(), 0);
    for (const auto a : axes)
      shape[static_cast<std::size_t>(a < 0 ? a + static_cast<std::int64_t>(shape.size()) : a)] = 1;
    std::size_t next = 0;
    for (auto& d : shape) d = d == 1 ? 1 : in[0].shape[next++];
    return In{{shape, in[0].v}};
  };
  o["Transpose"] = [](const Node& n, const In& in) {
    List perm(in[0].shape.size());
    for (std::size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<std::int64_t>(perm.size() - 1 - i);
    return In{Transpose(in[0], graph::IntsAttribute(n, "perm").value_or(perm))};
  };
  o["Expand"] = [](const Node&, const In& in) {
    const Shape to = AsInts(in[1]);
    return In{Elementwise(in[0], {to, Numbers(static_cast<std::size_t>(Count(to)))}, std::plus<>())};
  };
  o["Tile"] = [](const Node&, const In& in) {
    Shape shape = in[0].shape;
    for (std::size_t i = 0; i < shape.size(); ++i) shape[i] *= static_cast<std::int64_t>(in[1].v[i]);
    return In{Generate(shape, [&](List at) {
      for (std::size_t i = 0; i < at.size(); ++i) at[i] %= in[0].shape[i];
      return in[0].v[FlatIndex(at, in[0].shape)];
    })};
  };
}

void AddPieces(Operators& o) {
  o["Concat"] = [](const Node& n, const In& in) {
    const auto axis = static_cast<std::size_t>(AxisOf(n, 0, in[0]));
    Shape shape = in[0].shape;
    for (std::size_t i = 1; i < in.size(); ++i) shape[axis] += in[i].shape[axis];
    return In{Generate(shape, [&](List at) {
      std::size_t i = 0;
      while (at[axis] >= in[i].shape[axis]) at[axis] -= in[i++].shape[axis];
      return in[i].v[FlatIndex(at, in[i].shape)];
    })};
  };
  o["Split"] = [](const Node& n, const In& in) {
    const auto axis = static_cast<std::size_t>(AxisOf(n, 0, in[0]));
    const List sizes = Given(in, 1) ? AsInts(in[1])
                                    : List(static_cast<std::size_t>(n.output_size()),
                                           in[0].shape[axis] / static_cast<std::int64_t>(n.output_size()));
    In out;
    std::int64_t from = 0;
    for (const auto size : sizes) {
      Shape shape = in[0].shape;
      shape[axis] = size;
      out.push_back(Generate(shape, [&](List at) {
        at[axis] += from;
        return in[0].v[FlatIndex(at, in[0].shape)];
      }));
      from += size;
    }
    return out;
  };
  o["Slice"] = [](const Node&, const In& in) {
    List axes(in[1].size());
    std::iota(axes.begin(), axes.end(), 0);
    if (Given(in, 3)) axes = AsInts(in[3]);
    Shape shape = in[0].shape;
    List first(shape.size(), 0);
    List step(shape.size(), 1);
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const auto a =
          static_cast<std::size_t>(axes[i] < 0 ? axes[i] + static_cast<std::int64_t>(shape.size()) : axes[i]);
      const std::int64_t size = in[0].shape[a];
      step[a] = Given(in, 4) ? static_cast<std::int64_t>(in[4].v[i]) : 1;
      auto from = static_cast<std::int64_t>(in[1].v[i]);
      auto to = static_cast<std::int64_t>(in[2].v[i]);
      from = from < 0 ? from + size : from;
      to = to < 0 ? to + size : to;
      std::int64_t count = 0;
      if (step[a] > 0) from = std::max<std::int64_t>(from, 0);
      if (step[a] < 0) from = std::min(from, size - 1);
      first[a] = from;
      for (std::int64_t at = from; step[a] > 0 ? at < std::min(to, size) : at > std::max<std::int64_t>(to, -1);
           at += step[a])
        ++count;
      shape[a] = count;
    }
    return In{Generate(shape, [&](List at) {
      for (std::size_t i = 0; i < at.size(); ++i) at[i] = first[i] + at[i] * step[i];
      return in[0].v[FlatIndex(at, in[0].shape)];
    })};
  };
  o["Pad"] = [](const Node& n, const In& in) {
    const std::string mode = Text(n, "mode", "constant");
    const std::size_t rank = in[0].shape.size();
    Shape shape = in[0].shape;
    for (std::size_t i = 0; i < rank; ++i) shape[i] += static_cast<std::int64_t>(in[1].v[i] + in[1].v[rank + i]);
    return In{Generate(shape, [&](List at) {
      for (std::size_t i = 0; i < rank; ++i) {
        at[i] -= static_cast<std::int64_t>(in[1].v[i]);
        const std::int64_t last = in[0].shape[i] - 1;
        if (at[i] >= 0 && at[i] <= last) continue;
        if (mode == "constant") return Given(in, 2) ? in[2].v[0] : 0.;
        if (mode == "edge") at[i] = at[i] < 0 ? 0 : last;
        if (mode == "reflect") at[i] = at[i] < 0 ? -at[i] : 2 * last - at[i];
      }
      return in[0].v[FlatIndex(at, in[0].shape)];
    })};
  };
}

void AddGathers(Operators& o) {
  o["Gather"] = [](const Node& n, const In& in) {
    const auto axis = static_cast<std::size_t>(AxisOf(n, 0, in[0]));
    const auto k = static_cast<std::ptrdiff_t>(axis);
    Shape shape(in[0].shape.begin(), in[0].shape.begin() + k);
    shape.insert(shape.end(), in[1].shape.begin(), in[1].shape.end());
    shape.insert(shape.end(), in[0].shape.begin() + k + 1, in[0].shape.end());
    const auto m = static_cast<std::ptrdiff_t>(in[1].shape.size());
    return In{Generate(shape, [&](const List& at) {
      List from(at.begin(), at.begin() + k);
      const auto pick =
          static_cast<std::int64_t>(in[1].v[FlatIndex({at.begin() + k, at.begin() + k + m}, in[1].shape)]);
      from.push_back(pick < 0 ? pick + in[0].shape[axis] : pick);
      from.insert(from.end(), at.begin() + k + m, at.end());
      return in[0].v[FlatIndex(from, in[0].shape)];
    })};
  };
  o["GatherElements"] = [](const Node& n, const In& in) {
    const auto axis = static_cast<std::size_t>(AxisOf(n, 0, in[0]));
    return In{Generate(in[1].shape, [&](List at) {
      const auto pick = static_cast<std::int64_t>(in[1].v[FlatIndex(at, in[1].shape)]);
      at[axis] = pick < 0 ? pick + in[0].shape[axis] : pick;
      return in[0].v[FlatIndex(at, in[0].shape)];
    })};
  };
  o["Trilu"] = [](const Node& n, const In& in) {
    const bool upper = graph::IntAttribute(n, "upper", 1) != 0;
    const auto k = Given(in, 1) ? static_cast<std::int64_t>(in[1].v[0]) : 0;
    return In{Generate(in[0].shape, [&](const List& at) {
      const std::int64_t off = at[at.size() - 1] - at[at.size() - 2];
      return (upper ? off >= k : off <= k) ? in[0].v[FlatIndex(at, in[0].shape)] : 0;
    })};
  };
}

// The positions in the output of DepthToSpace that input position (n, c, h, w) goes to.
List ToSpace(const List& at, std::int64_t b, std::int64_t out_channels, bool dcr) {
  const std::int64_t c = at[1];
  const std::int64_t block = dcr ? c / out_channels : c % (b * b);
  const std::int64_t channel = dcr ? c % out_channels : c / (b * b);
  return {at[0], channel, at[2] * b + block / b, at[3] * b + block % b};
}

void AddImages(Operators& o) {
  o["DepthToSpace"] = [](const Node& n, const In& in) {
    const std::int64_t b = graph::IntAttribute(n, "blocksize", 1);
    const Shape& s = in[0].shape;
    Array y{{s[0], s[1] / (b * b), s[2] * b, s[3] * b}, Numbers(in[0].size())};
    for (std::size_t i = 0; i < in[0].size(); ++i)
      y.v[FlatIndex(ToSpace(Position(i, s), b, y.shape[1], Text(n, "mode", "DCR") == "DCR"), y.shape)] = in[0].v[i];
    return In{y};
  };
  o["SpaceToDepth"] = [](const Node& n, const In& in) {
    const std::int64_t b = graph::IntAttribute(n, "blocksize", 1);
    const Shape& s = in[0].shape;
    const Shape shape{s[0], s[1] * b * b, s[2] / b, s[3] / b};
    return In{Generate(shape, [&](const List& at) { return in[0].v[FlatIndex(ToSpace(at, b, s[1], true), s)]; })};
  };
}

// ---- Resize --------------------------------------------------------------------------------------------------------

// Where output index i of an axis reads from: the document's formulas, one axis.
double Origin(const std::string& mode, double i, double scale, double in_size, double out_size) {
  if (mode == "asymmetric") return i / scale;
  if (mode == "align_corners") return out_size == 1 ? 0 : i * (in_size - 1) / (out_size - 1);
  if (mode == "pytorch_half_pixel" && out_size <= 1) return 0;
  return (i + .5) / scale - .5;
}

double Nearest(const std::string& mode, double x) {
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  if (mode == "round_prefer_ceil") return std::floor(x + .5);
  return std::ceil(x - .5);
}

Array ResizeAxis(const Array& x, std::size_t axis, std::int64_t size, double scale, const Node& n) {
  Shape shape = x.shape;
  shape[axis] = size;
  const std::string mode = Text(n, "coordinate_transformation_mode", "half_pixel");
  const auto last = static_cast<double>(x.shape[axis] - 1);
  return Generate(shape, [&](List at) {
    const double from = Origin(mode, static_cast<double>(at[axis]), scale, last + 1, static_cast<double>(size));
    const auto value = [&](double index) {
      List there = at;
      there[axis] = static_cast<std::int64_t>(std::min(std::max(index, 0.), last));
      return x.v[FlatIndex(there, x.shape)];
    };
    if (Text(n, "mode", "nearest") == "nearest")
      return value(Nearest(Text(n, "nearest_mode", "round_prefer_floor"), from));
    const double low = std::floor(from);
    return value(low) * (1 - (from - low)) + value(low + 1) * (from - low);
  });
}

void AddResize(Operators& o) {
  o["Resize"] = [](const Node& n, const In& in) {
    Array y = in[0];
    for (std::size_t i = 0; i < y.shape.size(); ++i) {
      const auto d = static_cast<double>(in[0].shape[i]);
      const double scale = Given(in, 3) ? in[3].v[i] / d : in[2].v[i];
      const auto size = static_cast<std::int64_t>(Given(in, 3) ? in[3].v[i] : std::floor(d * scale));
      if (size != y.shape[i]) y = ResizeAxis(y, i, size, scale, n);
    }
    return In{y};
  };
}

// ---- what has no gradient ------------------------------------------------------------------------------------------

void AddIntegers(Operators& o) {
  o["Shape"] = [](const Node&, const In& in) {
    return In{{{static_cast<std::int64_t>(in[0].shape.size())}, Numbers(in[0].shape.begin(), in[0].shape.end())}};
  };
  o["Size"] = [](const Node&, const In& in) { return In{{{}, {static_cast<double>(in[0].size())}}}; };
  o["Floor"] = Unary([](double x) { return std::floor(x); });
  o["Ceil"] = Unary([](double x) { return std::ceil(x); });
  o["Greater"] = Binary([](double a, double b) { return a > b ? 1. : 0.; });
  o["Less"] = Binary([](double a, double b) { return a < b ? 1. : 0.; });
  o["Equal"] = Binary([](double a, double b) { return a == b ? 1. : 0.; });
  o["Not"] = Unary([](double x) { return x != 0 ? 0. : 1.; });
  o["And"] = Binary([](double a, double b) { return a != 0 && b != 0 ? 1. : 0.; });
  o["ConstantOfShape"] = [](const Node& n, const In& in) {
    const Shape shape = AsInts(in[0]);
    const auto* value = graph::FindAttribute(n, "value");
    const double fill = value == nullptr ? 0 : FromTensor(graph::ToTensor(value->t()).value()).v[0];
    return In{{shape, Numbers(static_cast<std::size_t>(Count(shape)), fill)}};
  };
  o["Constant"] = [](const Node& n, const In&) {
    return In{FromTensor(graph::ToTensor(graph::FindAttribute(n, "value")->t()).value())};
  };
}

}  // namespace

const Operators& Basic() {
  static const Operators all = [] {
    Operators o;
    AddUnary(o);
    AddBinary(o);
    AddMatrices(o);
    AddReductions(o);
    AddReshapes(o);
    AddPieces(o);
    AddGathers(o);
    AddImages(o);
    AddResize(o);
    AddIntegers(o);
    return o;
  }();
  return all;
}

}  // namespace ganglion::gradient::reference
