// Normalisation and dropout.
#include <numeric>

#include "gradient/rules.h"
#include "gradient/window.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Shape;

const Attribute kToFloat{"to", std::int64_t{onnx::TensorProto::FLOAT}};
const Attribute kToBool{"to", std::int64_t{onnx::TensorProto::BOOL}};

std::string ForwardName(const Node& n, const std::string& hint) { return n.output(0) + "." + hint; }

Ints Range(std::int64_t from, std::size_t to) {
  Ints axes;
  for (std::int64_t a = from; a < static_cast<std::int64_t>(to); ++a) axes.push_back(a);
  return axes;
}

std::string Sum(GraphBuilder& g, const std::string& x, const Ints& axes) {
  return axes.empty() ? x : g.Node("ReduceSum", {x, g.Ints("axes", axes)}, {KeepDims(false)});
}

std::string Mean(GraphBuilder& g, const std::string& x, const Ints& axes) {
  return g.Node("ReduceMean", {x}, {{"axes", axes}, KeepDims(true)});
}

// 1 / sqrt(variance + epsilon)
std::string InverseDeviation(GraphBuilder& g, const std::string& variance, float epsilon) {
  return g.Node("Reciprocal", {g.Node("Sqrt", {g.Node("Add", {variance, g.Scalar("epsilon", epsilon)})})});
}

// Numbers by channel, [C] or [rows, C], over x of this rank: [..., C, 1, ...].
std::string OverChannels(GraphBuilder& g, const std::string& v, std::size_t rank, bool by_row = false) {
  if (rank == 2) return v;
  Ints shape(rank - 1, 1);
  shape[0] = -1;
  if (by_row) {
    shape.insert(shape.begin(), 0);
    shape[1] = 0;
  }
  return g.Node("Reshape", {v, g.Ints("over_channels", shape)});
}

// ---- BatchNormalization --------------------------------------------------------------------------------------------
// With the batch's statistics, the sums go over the rows that count: one whose row_weight is 0 is not there, neither in
// the mean nor in what the mean's gradient gives back. Sums by row come first, [rows, C], so that leaving rows out
// costs a product of small matrices and no pass over x.

Result<Shape> InferBatchNorm(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  if (x.size() < 2 || x[1] < 1) return InvalidArgument("takes [N, C, ...], got " + tensor::ShapeText(x));
  for (int i = 1; i < 5; ++i) {
    if (In(n, s, i) != Shape{x[1]})
      return InvalidArgument("input " + std::to_string(i) + " is " + tensor::ShapeText(In(n, s, i)) + ", there are " +
                             std::to_string(x[1]) + " channels");
  }
  return x;
}

// 1 for each row of x that counts, 0 for the others, [rows, 1]. Where the first axis holds several positions of an
// example, they are in the order of the examples.
std::string RowsThatCount(GraphBuilder& g, const std::string& x) {
  const std::string counts = g.Node("Cast", {g.Node("Cast", {"row_weight"}, {kToBool})}, {kToFloat});
  const std::string examples = g.Node("Shape", {counts});
  const std::string rows = g.Node("Shape", {x}, {{"start", std::int64_t{0}}, {"end", std::int64_t{1}}});
  const std::string by_example =
      g.Node("Concat", {examples, g.Node("Div", {rows, examples})}, {{"axis", std::int64_t{0}}});
  const std::string column = g.Ints("column", {-1, 1});
  return g.Node("Reshape", {g.Node("Expand", {g.Node("Reshape", {counts, column}), by_example}), column});
}

Status NormaliseByBatch(Forward& f) {
  Node& n = *f.n;
  GraphBuilder& g = f.g;
  if (f.options.freeze_statistics) {  // the operator as it is at inference
    while (n.output_size() > 1) n.mutable_output()->RemoveLast();
    for (auto& a : *n.mutable_attribute()) {
      if (a.name() == "training_mode") a.set_i(0);
    }
    return {};
  }
  const std::string x = n.input(0);
  const Shape shape = f.shapes.shape.at(x);
  const float epsilon = graph::FloatAttribute(n, "epsilon", 1e-5f);
  const float momentum = graph::FloatAttribute(n, "momentum", .9f);
  const Ints spatial = Range(2, shape.size());
  const std::int64_t pixels = Product(shape, 2, shape.size());
  if (pixels < 1)
    return InvalidArgument("height and width must be known for batch statistics, \"" + x + "\" is " +
                           tensor::ShapeText(shape) + "; export the model with fixed sizes, or freeze its statistics");
  const std::string rows = g.Node("Identity", {RowsThatCount(g, x)}, {}, f.Name("rows"));
  const std::string of_rows = g.Node("Reshape", {rows, g.Ints("row", {1, -1})});
  const std::string counted =
      g.Node("Mul", {g.Node("ReduceSum", {rows}, {KeepDims(false)}), g.Scalar("pixels", static_cast<float>(pixels))});
  const std::string count = g.Node("Max", {counted, g.Scalar("one", 1)}, {}, f.Name("count"));
  const std::string flat = g.Ints("channels", {-1});
  const auto mean_of = [&](const std::string& v) {  // [C]
    return g.Node("Reshape", {g.Node("Div", {g.Node("MatMul", {of_rows, Sum(g, v, spatial)}), count}), flat});
  };
  const std::string mean = mean_of(x);
  const std::string apart = g.Node("Sub", {x, OverChannels(g, mean, shape.size())}, {}, f.Name("apart"));
  const std::string variance = mean_of(g.Node("Mul", {apart, apart}));
  g.Node("Identity", {InverseDeviation(g, variance, epsilon)}, {}, f.Name("inverse"));
  g.Node("BatchNormalization", {x, n.input(1), n.input(2), mean, variance}, {{"epsilon", epsilon}}, n.output(0));
  f.shapes.shape[f.Name("inverse")] = {shape[1]};
  f.replaced = true;

  const std::string keep = g.Scalar("momentum", momentum);
  const std::string take = g.Scalar("one_less_momentum", 1 - momentum);
  for (const int i : {3, 4}) {
    const std::string next =
        g.Node("Add", {g.Node("Mul", {n.input(i), keep}), g.Node("Mul", {i == 3 ? mean : variance, take})});
    f.statistics.emplace_back(n.input(i), next);
    if (n.output_size() > i - 2 && !n.output(i - 2).empty()) g.Node("Identity", {next}, {}, n.output(i - 2));
  }
  return {};
}

Status GradFrozenBatchNorm(Backward& b) {
  const std::size_t rank = b.ShapeOfInput(0).size();
  Ints axes = Range(2, rank);
  axes.insert(axes.begin(), 0);
  const std::string inverse = InverseDeviation(b.g, b.x(4), graph::FloatAttribute(b.n, "epsilon", 1e-5f));
  if (b.wanted(0)) {
    const std::string slope = OverChannels(b.g, b.g.Node("Mul", {b.x(1), inverse}), rank);
    b.Give(0, b.g.Node("Mul", {b.dy, slope}));
  }
  if (b.wanted(1)) {
    const std::string apart = b.g.Node("Sub", {b.x(0), OverChannels(b.g, b.x(3), rank)});
    b.Give(1, b.g.Node("Mul", {Sum(b.g, b.g.Node("Mul", {b.dy, apart}), axes), inverse}));
  }
  if (b.wanted(2)) b.Give(2, Sum(b.g, b.dy, axes));
  return {};
}

// With h = (x - mean) / deviation over the m numbers that count:
//   dscale = sum dy h,  dbias = sum dy,  dx = scale / deviation (dy - dbias / m - h dscale / m)
Status GradBatchNorm(Backward& b) {
  const std::string inverse = ForwardName(b.n, "inverse");
  if (!b.shapes().shape.contains(inverse)) return GradFrozenBatchNorm(b);
  GraphBuilder& g = b.g;
  const std::size_t rank = b.ShapeOfInput(0).size();
  const std::string apart = ForwardName(b.n, "apart");
  Ints axes = Range(2, rank);
  axes.insert(axes.begin(), 0);
  const std::string d_bias = Sum(g, b.dy, axes);
  const std::string d_scale = g.Node("Mul", {Sum(g, g.Node("Mul", {b.dy, apart}), axes), inverse});
  if (b.wanted(1)) b.Give(1, d_scale);
  if (b.wanted(2)) b.Give(2, d_bias);
  if (!b.wanted(0)) return {};
  const std::string slope = g.Node("Mul", {b.x(1), inverse});
  const std::string share = g.Node("Div", {slope, ForwardName(b.n, "count")});
  const auto of_rows = [&](const std::string& by_channel) {  // [rows, C, 1, ...], 0 in rows that do not count
    return OverChannels(g, g.Node("Mul", {ForwardName(b.n, "rows"), by_channel}), rank, true);
  };
  const std::string constant = of_rows(g.Node("Mul", {share, d_bias}));
  const std::string along = of_rows(g.Node("Mul", {g.Node("Mul", {share, inverse}), d_scale}));
  const std::string pull = g.Node("Add", {g.Node("Mul", {apart, along}), constant});
  b.Give(0, g.Node("Sub", {g.Node("Mul", {b.dy, OverChannels(g, slope, rank)}), pull}));
  return {};
}

// ---- normalisation of each example ---------------------------------------------------------------------------------

// With h = (x - mean) inverse over `axes` and d the gradient by h: inverse (d - mean(d) - h mean(d h)).
std::string ThroughNormalisation(GraphBuilder& g, const std::string& d, const std::string& h,
                                 const std::string& inverse, const Ints& axes) {
  const std::string along = g.Node("Mul", {h, Mean(g, g.Node("Mul", {d, h}), axes)});
  return g.Node("Mul", {g.Node("Sub", {g.Node("Sub", {d, Mean(g, d, axes)}), along}), inverse});
}

Inferred InferLayerNorm(const Node& n, Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const std::int64_t axis, Axis(graph::IntAttribute(n, "axis", -1), x.size()));
  const Shape normalised(x.begin() + axis, x.end());
  for (int i = 1; i < std::min(n.input_size(), 3); ++i) {
    if (n.input(i).empty()) continue;
    const auto fits = Broadcast(normalised, In(n, s, i));
    if (!fits.ok() || *fits != normalised)
      return InvalidArgument("input " + std::to_string(i) + " is " + tensor::ShapeText(In(n, s, i)) +
                             ", normalised are " + tensor::ShapeText(normalised));
  }
  Shape statistics = x;
  std::fill(statistics.begin() + axis, statistics.end(), 1);
  return std::vector<Shape>{x, statistics, statistics};
}

Status AskForStatistics(Forward& f) {
  if (!f.needs_gradient) return {};
  while (f.n->output_size() < 3) f.n->add_output();
  if (f.n->output(1).empty()) f.n->set_output(1, f.Name("mean"));
  if (f.n->output(2).empty()) f.n->set_output(2, f.Name("inverse"));
  return {};
}

Status GradLayerNorm(Backward& b) {
  GraphBuilder& g = b.g;
  const Shape& x = b.ShapeOfInput(0);
  ASSIGN_OR_RETURN(const std::int64_t axis, Axis(graph::IntAttribute(b.n, "axis", -1), x.size()));
  const std::string h = g.Node("Mul", {g.Node("Sub", {b.x(0), b.y(1)}), b.y(2)});
  if (b.wanted(1)) b.GiveReduced(1, g.Node("Mul", {b.dy, h}));
  if (b.has(2) && b.wanted(2)) b.GiveReduced(2, b.dy);
  if (b.wanted(0)) {
    b.Give(0, ThroughNormalisation(g, g.Node("Mul", {b.dy, b.x(1)}), h, b.y(2), Range(axis, x.size())));
  }
  return {};
}

Result<Shape> InferInstanceNorm(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  if (x.size() < 3 || x[1] < 1) return InvalidArgument("takes [N, C, D1, ...], got " + tensor::ShapeText(x));
  for (const int i : {1, 2}) {
    if (In(n, s, i) != Shape{x[1]})
      return InvalidArgument("input " + std::to_string(i) + " is " + tensor::ShapeText(In(n, s, i)) + ", there are " +
                             std::to_string(x[1]) + " channels");
  }
  return x;
}

Status GradInstanceNorm(Backward& b) {
  GraphBuilder& g = b.g;
  const std::size_t rank = b.ShapeOfInput(0).size();
  const Ints spatial = Range(2, rank);
  const std::string apart = g.Node("Sub", {b.x(0), Mean(g, b.x(0), spatial)});
  const std::string variance = Mean(g, g.Node("Mul", {apart, apart}), spatial);
  const std::string inverse = InverseDeviation(g, variance, graph::FloatAttribute(b.n, "epsilon", 1e-5f));
  const std::string h = g.Node("Mul", {apart, inverse});
  Ints axes = spatial;
  axes.insert(axes.begin(), 0);
  if (b.wanted(1)) b.Give(1, Sum(g, g.Node("Mul", {b.dy, h}), axes));
  if (b.wanted(2)) b.Give(2, Sum(g, b.dy, axes));
  if (b.wanted(0)) {
    const std::string d = g.Node("Mul", {b.dy, OverChannels(g, b.x(1), rank)});
    b.Give(0, ThroughNormalisation(g, d, h, inverse, spatial));
  }
  return {};
}

// y = x / s^beta with s = bias + alpha / size sum of x^2 over `size` neighbouring channels.
Result<Shape> InferLrn(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const std::int64_t size = graph::IntAttribute(n, "size", 0);
  if (x.size() != 4 || x[1] < 1) return InvalidArgument("takes [N, C, H, W], got " + tensor::ShapeText(x));
  if (size < 1 || size % 2 == 0 || size > kMaxExtent)
    return InvalidArgument("size " + std::to_string(size) + ", must be odd: the runtime has no other");
  return x;
}

// The mean over a window of channels (with zeros beyond the first and the last): a pool along them.
std::string MeanOverChannels(Backward& b, const std::string& x, std::int64_t before, std::int64_t after) {
  const std::string image = b.g.Node("Reshape", {x, b.g.Ints("channels", {0, 1, b.ShapeOfInput(0)[1], -1})});
  const std::string mean = b.g.Node("AveragePool", {image},
                                    {{"kernel_shape", Ints{before + after + 1, 1}},
                                     {"pads", Ints{before, 0, after, 0}},
                                     {"count_include_pad", std::int64_t{1}}});
  return b.ReshapeLikeInput(mean, 0);
}

// dx = dy s^-beta - 2 alpha beta x mean(dy y / s), the mean over the windows that a channel is in.
Status GradLrn(Backward& b) {
  GraphBuilder& g = b.g;
  const std::int64_t size = graph::IntAttribute(b.n, "size", 1);
  const float alpha = graph::FloatAttribute(b.n, "alpha", 1e-4f);
  const float beta = graph::FloatAttribute(b.n, "beta", .75f);
  const std::int64_t before = (size - 1) / 2;
  const std::string squares = MeanOverChannels(b, g.Node("Mul", {b.x(0), b.x(0)}), before, size - 1 - before);
  const std::string s = g.Node("Add", {g.Node("Mul", {squares, g.Scalar("alpha", alpha)}),
                                       g.Scalar("bias", graph::FloatAttribute(b.n, "bias", 1))});
  const std::string pulls =
      MeanOverChannels(b, g.Node("Div", {g.Node("Mul", {b.dy, b.y()}), s}), size - 1 - before, before);
  const std::string direct = g.Node("Mul", {b.dy, g.Node("Pow", {s, g.Scalar("minus_beta", -beta)})});
  const std::string others = g.Node("Mul", {g.Node("Mul", {b.x(0), pulls}), g.Scalar("slope", 2 * alpha * beta)});
  b.Give(0, g.Node("Sub", {direct, others}));
  return {};
}

// ---- Dropout -------------------------------------------------------------------------------------------------------
// A training step drops whatever training_mode says: the operator is in the model for nothing else. A number is kept
// where its noise is at least the ratio.

Status DropByNoise(Forward& f) {
  Node& n = *f.n;
  float ratio = .5f;
  if (n.input_size() > 1 && !n.input(1).empty()) {
    const auto known = f.shapes.floats.find(n.input(1));
    if (known == f.shapes.floats.end() || known->second.size() != 1)
      return Unimplemented("a ratio that is computed while running");
    ratio = known->second[0];
  }
  if (!(ratio >= 0 && ratio < 1)) return InvalidArgument("ratio " + std::to_string(ratio) + ", must be in [0, 1)");
  const Shape& shape = f.shapes.shape.at(n.input(0));
  for (std::size_t i = 1; i < shape.size(); ++i) {
    if (shape[i] < 0)
      return InvalidArgument("the sizes after the batch must be known to draw noise, \"" + n.input(0) + "\" is " +
                             tensor::ShapeText(shape));
  }
  const std::string noise = "noise." + n.output(0);
  f.noise.push_back({noise, tensor::DataType::kFp32, shape});
  const std::string kept = f.g.Node("GreaterOrEqual", {noise, f.g.Scalar("ratio", ratio)});
  const std::string mask = f.g.Node(
      "Mul", {f.g.Node("Cast", {kept}, {kToFloat}), f.g.Scalar("one_over_kept", 1 / (1 - ratio))}, {}, f.Name("mask"));
  f.g.Node("Mul", {n.input(0), mask}, {}, n.output(0));
  if (n.output_size() > 1 && !n.output(1).empty()) f.g.Node("Identity", {kept}, {}, n.output(1));
  f.replaced = true;
  return {};
}

Status GradDropout(Backward& b) {
  b.Give(0, b.g.Node("Mul", {b.dy, ForwardName(b.n, "mask")}));
  return {};
}

}  // namespace

std::vector<Rule> NormalisationRules() {
  return {
      {"BatchNormalization", 5, One<InferBatchNorm>, GradBatchNorm, NormaliseByBatch},
      {"Dropout", 1, One<SameAsInput>, GradDropout, DropByNoise},
      {"InstanceNormalization", 3, One<InferInstanceNorm>, GradInstanceNorm},
      {"LRN", 1, One<InferLrn>, GradLrn},
      {"LayerNormalization", 2, InferLayerNorm, GradLayerNorm, AskForStatistics},
  };
}

}  // namespace ganglion::gradient
