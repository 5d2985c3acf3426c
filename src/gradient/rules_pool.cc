// Pooling.
#include <algorithm>
#include <numeric>

#include "base/limits.h"
#include "gradient/rules.h"
#include "gradient/window.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Shape;
using tensor::Tensor;

Result<Window> PoolWindow(const Node& n, const Shape& x) {
  const auto kernel = graph::IntsAttribute(n, "kernel_shape");
  if (!kernel) return InvalidArgument("has no kernel_shape");
  if (x.size() > 2 && x[1] < 1) return InvalidArgument("channels of " + tensor::ShapeText(x) + " are not known");
  return ReadWindow(n, x, *kernel, graph::IntAttribute(n, "ceil_mode", 0) != 0);
}

Shape OutputOf(const Shape& x, const Window& w) {
  Shape y{x[0], x[1]};
  y.insert(y.end(), w.out.begin(), w.out.end());
  return y;
}

// Whether the windows tile the input: each pixel is read exactly once.
bool Tiles(const Window& w) {
  for (std::size_t a = 0; a < w.rank(); ++a) {
    if (w.kernel[a] != w.stride[a] || w.dilation[a] != 1 || w.out[a] * w.kernel[a] != w.in[a]) return false;
  }
  return !w.padded();
}

// Each position repeated over its tile.
std::string OverTiles(GraphBuilder& g, const Window& w, const std::string& value) {
  std::vector<float> scales{1, 1};
  for (const auto k : w.kernel) scales.push_back(static_cast<float>(k));
  const Shape shape{static_cast<std::int64_t>(scales.size())};
  const std::string by = g.Constant("scales", Tensor::From<float>(shape, scales).value());
  return g.Node("Resize", {value, "", by},
                {{"mode", std::string("nearest")},
                 {"coordinate_transformation_mode", std::string("asymmetric")},
                 {"nearest_mode", std::string("floor")}});
}

// ---- MaxPool -------------------------------------------------------------------------------------------------------

Inferred InferMaxPool(const Node& n, Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const Window w, PoolWindow(n, x));
  if (graph::IntAttribute(n, "storage_order", 0) != 0) return Unimplemented("indices in column order (storage_order)");
  const Shape y = OutputOf(x, w);
  return std::vector<Shape>{y, y};
}

// The operator knows which pixel it took, the first of equals: asking it keeps ties right.
Status AskForIndices(Forward& f) {
  if (!f.needs_gradient) return {};
  if (f.n->output_size() < 2) f.n->add_output();
  if (f.n->output(1).empty()) f.n->set_output(1, f.Name("indices"));
  return {};
}

Status GradMaxPool(Backward& b) {
  ASSIGN_OR_RETURN(const Window w, PoolWindow(b.n, b.ShapeOfInput(0)));
  bool within = !w.padded();
  for (std::size_t a = 0; a < w.rank(); ++a) within = within && w.unread(a) >= 0;
  if (!w.overlaps() && within) {  // no two positions took the same pixel
    b.Give(0, b.g.Node("MaxUnpool", {b.dy, b.y(1), b.g.Node("Shape", {b.x(0)})},
                       {{"kernel_shape", w.kernel}, {"strides", w.stride}}));
    return {};
  }
  const std::string flat = b.g.Ints("flat", {-1});
  const std::string size = b.g.Node("Reshape", {b.g.Node("Size", {b.x(0)}), flat});
  const std::string zeros = b.g.Node("ConstantOfShape", {size});
  const std::string taken = b.g.Node("Reshape", {b.y(1), flat});
  const std::string dy = b.g.Node("Reshape", {b.dy, flat});
  const std::string sum =
      b.g.Node("ScatterElements", {zeros, taken, dy}, {{"axis", std::int64_t{0}}, {"reduction", std::string("add")}});
  b.Give(0, b.ReshapeLikeInput(sum, 0));
  return {};
}

// ---- AveragePool ---------------------------------------------------------------------------------------------------

// How many numbers each position averages over, [out...], or one number where all have as many.
Result<Tensor> Counts(const Node& n, const Window& w) {
  const bool with_padding = graph::IntAttribute(n, "count_include_pad", 0) != 0;
  std::vector<std::vector<float>> by_axis(w.rank());
  for (std::size_t a = 0; a < w.rank(); ++a) {
    if (with_padding && w.unread(a) < 0)
      return Unimplemented("ceil_mode with windows beyond the padding that count_include_pad counts");
    for (std::int64_t o = 0; o < w.out[a]; ++o) {
      const std::int64_t count = with_padding ? w.kernel[a] : w.within(a, o);
      by_axis[a].push_back(static_cast<float>(count));
    }
  }
  std::vector<float> counts{1};
  for (const auto& axis : by_axis) {
    std::vector<float> next;
    next.reserve(counts.size() * axis.size());
    for (const float c : counts) {
      for (const float d : axis) next.push_back(c * d);
    }
    counts = std::move(next);
  }
  for (float& c : counts) c = c > 0 ? 1 / c : 0;
  if (std::all_of(counts.begin(), counts.end(), [&](float c) { return c == counts[0]; }))
    return Tensor::From<float>({}, {counts.data(), 1});
  return Tensor::From<float>(w.out, counts);
}

Result<Shape> InferAveragePool(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const Window w, PoolWindow(n, x));
  if (w.positions() > limits::kMaxRowElements || w.taps() > limits::kMaxRowElements)
    return InvalidArgument("windows beyond " + std::to_string(limits::kMaxRowElements) + " positions or taps");
  return OutputOf(x, w);
}

Status GradAveragePool(Backward& b) {
  const Shape& x = b.ShapeOfInput(0);
  ASSIGN_OR_RETURN(const Window w, PoolWindow(b.n, x));
  ASSIGN_OR_RETURN(const Tensor counts, Counts(b.n, w));
  const std::string share = b.g.Node("Mul", {b.dy, b.g.Constant("one_over_count", counts)});
  if (Tiles(w)) {
    b.Give(0, OverTiles(b.g, w, share));
    return {};
  }
  // The transpose of summing over windows: a ConvTranspose with ones, every channel an image by itself.
  Ints one_channel{-1, 1};
  one_channel.insert(one_channel.end(), w.out.begin(), w.out.end());
  Shape kernel{1, 1};
  kernel.insert(kernel.end(), w.kernel.begin(), w.kernel.end());
  const std::vector<float> ones(static_cast<std::size_t>(w.taps()), 1.f);
  ASSIGN_OR_RETURN(const Tensor weights, Tensor::From<float>(kernel, ones));
  Ints pads = w.begin;
  Ints extra;
  for (std::size_t a = 0; a < w.rank(); ++a) {
    // Where the last window reaches beyond the padding, that much more is cut off again.
    pads.push_back(w.end[a] + std::max<std::int64_t>(0, -w.unread(a)));
    extra.push_back(std::max<std::int64_t>(0, w.unread(a)));
  }
  const std::string images = b.g.Node("Reshape", {share, b.g.Ints("one_channel", one_channel)});
  const std::string sums =
      b.g.Node("ConvTranspose", {images, b.g.Constant("ones", weights)},
               {{"pads", pads}, {"strides", w.stride}, {"dilations", w.dilation}, {"output_padding", extra}});
  b.Give(0, b.ReshapeLikeInput(sums, 0));
  return {};
}

// ---- pools over everything -----------------------------------------------------------------------------------------

Result<Shape> InferGlobalPool(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  if (y.size() < 3) return InvalidArgument("takes [N, C, D1, ...], got " + tensor::ShapeText(y));
  std::fill(y.begin() + 2, y.end(), 1);
  return y;
}

Status GradGlobalAveragePool(Backward& b) {
  const Shape& x = b.ShapeOfInput(0);
  const std::int64_t count = Product(x, 2, x.size());
  std::string share;
  if (count > 0) {
    share = b.g.Node("Mul", {b.dy, b.g.Scalar("one_over_count", 1.f / static_cast<float>(count))});
  } else {
    const graph::Attribute to_float{"to", std::int64_t{onnx::TensorProto::FLOAT}};
    const std::string of_x = b.g.Node("Cast", {b.g.Node("Size", {b.x(0)})}, {to_float});
    const std::string of_y = b.g.Node("Cast", {b.g.Node("Size", {b.y()})}, {to_float});
    share = b.g.Node("Mul", {b.dy, b.g.Node("Div", {of_y, of_x})});
  }
  b.Give(0, b.g.Node("Expand", {share, b.g.Node("Shape", {b.x(0)})}));
  return {};
}

// The first of equal maxima takes all, as in MaxPool.
Status GradGlobalMaxPool(Backward& b) {
  const graph::Attribute last{"axis", std::int64_t{2}};
  const std::string flat = b.g.Node("Reshape", {b.x(0), b.g.Ints("flat", {0, 0, -1})});
  const std::string taken = b.g.Node("ArgMax", {flat}, {last});
  const std::string zeros = b.g.Node("ConstantOfShape", {b.g.Node("Shape", {flat})});
  const std::string dy = b.g.Node("Reshape", {b.dy, b.g.Ints("flat", {0, 0, -1})});
  b.Give(0, b.ReshapeLikeInput(b.g.Node("ScatterElements", {zeros, taken, dy}, {last}), 0));
  return {};
}

}  // namespace

std::vector<Rule> PoolRules() {
  return {
      {"AveragePool", 1, One<InferAveragePool>, GradAveragePool},
      {"GlobalAveragePool", 1, One<InferGlobalPool>, GradGlobalAveragePool},
      {"GlobalMaxPool", 1, One<InferGlobalPool>, GradGlobalMaxPool},
      {"MaxPool", 1, InferMaxPool, GradMaxPool, AskForIndices},
  };
}

}  // namespace ganglion::gradient
