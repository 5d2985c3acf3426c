// Pooling.
#include <algorithm>
#include <numeric>

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

// Whether no two windows touch and together they fill the image, but for what is left over at its end.
bool Tiles(const Window& w) {
  for (std::size_t a = 0; a < w.rank(); ++a) {
    if (w.kernel[a] != w.stride[a] || w.dilation[a] != 1 || w.unread(a) < 0) return false;
  }
  return !w.padded();
}

// The spatial axes, cut to what tiles cover; and zeros in place of what was cut.
std::string Cut(GraphBuilder& g, const Window& w, const std::string& x) {
  Ints covered;
  for (std::size_t a = 0; a < w.rank(); ++a) covered.push_back(w.out[a] * w.kernel[a]);
  if (covered == w.in) return x;
  Ints axes(w.rank());
  std::iota(axes.begin(), axes.end(), 2);
  return g.Node("Slice", {x, g.Ints("starts", Ints(w.rank(), 0)), g.Ints("ends", covered), g.Ints("axes", axes)});
}
std::string Uncut(GraphBuilder& g, const Window& w, const std::string& x) {
  Ints pads(2 * (w.rank() + 2), 0);
  for (std::size_t a = 0; a < w.rank(); ++a) pads[w.rank() + 4 + a] = w.unread(a);
  const bool none = std::all_of(pads.begin(), pads.end(), [](std::int64_t p) { return p == 0; });
  return none ? x : g.Node("Pad", {x, g.Ints("pads", pads)});
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

// Constants of the size of an image are kept below this.
constexpr std::int64_t kMaxConstant = std::int64_t{1} << 24;

// ---- MaxPool -------------------------------------------------------------------------------------------------------

Inferred InferMaxPool(const Node& n, Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const Window w, PoolWindow(n, x));
  if (graph::IntAttribute(n, "storage_order", 0) != 0) return Unimplemented("indices in column order (storage_order)");
  const Shape y = OutputOf(x, w);
  return std::vector<Shape>{y, y};
}

bool HasRanks(const Window& w) { return Tiles(w) && w.pixels() <= kMaxConstant; }

// The operator knows which pixel it took, the first of equals: asking it keeps ties right. It is slow at that, so tiles
// find out otherwise.
Status AskForIndices(Forward& f) {
  if (!f.needs_gradient) return {};
  ASSIGN_OR_RETURN(const Window w, PoolWindow(*f.n, f.shapes.shape.at(f.n->input(0))));
  if (HasRanks(w)) return {};
  if (f.n->output_size() < 2) f.n->add_output();
  if (f.n->output(1).empty()) f.n->set_output(1, f.Name("indices"));
  return {};
}

// Which pixel of each tile was taken: of those that equal the maximum (blank rows of an image are equal) the one of the
// highest rank, and the first pixel of a tile ranks highest. [.., in...], as a truth value.
Result<std::string> Taken(Backward& b, const Window& w, const std::string& x) {
  GraphBuilder& g = b.g;
  Shape shape{1, 1};
  for (std::size_t a = 0; a < w.rank(); ++a) shape.push_back(w.out[a] * w.kernel[a]);
  ASSIGN_OR_RETURN(Tensor ranks, Tensor::Zeros(tensor::DataType::kFp32, shape));
  std::size_t i = 0;
  for (float& rank : ranks.As<float>()) {
    std::size_t rest = i++;
    std::int64_t at = 0;
    std::int64_t scale = 1;
    for (std::size_t a = w.rank(); a-- > 0;) {
      const auto size = static_cast<std::size_t>(shape[a + 2]);
      at += static_cast<std::int64_t>(rest % size) % w.kernel[a] * scale;
      rest /= size;
      scale *= w.kernel[a];
    }
    rank = static_cast<float>(w.taps() - at);
  }
  const std::string equal =
      g.Node("Cast", {g.Node("Equal", {x, OverTiles(g, w, b.y())})}, {{"to", std::int64_t{onnx::TensorProto::FLOAT}}});
  const std::string ranked = g.Node("Mul", {equal, g.Constant("ranks", ranks)});
  const std::string best = g.Node("MaxPool", {ranked}, {{"kernel_shape", w.kernel}, {"strides", w.stride}});
  return g.Node("Equal", {ranked, OverTiles(g, w, best)});
}

Status GradMaxPool(Backward& b) {
  ASSIGN_OR_RETURN(const Window w, PoolWindow(b.n, b.ShapeOfInput(0)));
  if (HasRanks(w)) {
    ASSIGN_OR_RETURN(const std::string taken, Taken(b, w, Cut(b.g, w, b.x(0))));
    const std::string mask = b.g.Node("Cast", {taken}, {{"to", std::int64_t{onnx::TensorProto::FLOAT}}});
    b.Give(0, Uncut(b.g, w, b.g.Node("Mul", {mask, OverTiles(b.g, w, b.dy)})));
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
  if (w.positions() > kMaxConstant || w.taps() > kMaxConstant)
    return InvalidArgument("windows beyond " + std::to_string(kMaxConstant) + " positions or taps");
  return OutputOf(x, w);
}

Status GradAveragePool(Backward& b) {
  const Shape& x = b.ShapeOfInput(0);
  ASSIGN_OR_RETURN(const Window w, PoolWindow(b.n, x));
  ASSIGN_OR_RETURN(const Tensor counts, Counts(b.n, w));
  const std::string share = b.g.Node("Mul", {b.dy, b.g.Constant("one_over_count", counts)});
  if (Tiles(w)) {
    b.Give(0, Uncut(b.g, w, OverTiles(b.g, w, share)));
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
