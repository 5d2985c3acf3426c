#include "gradient/convolution.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/limits.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using Ints = std::vector<std::int64_t>;
using tensor::Shape;

// Up to so many taps, a Slice for each of them gathers the patches; beyond, one Gather with a table.
constexpr std::int64_t kSlicedTaps = 64;

Ints Joined(Ints a, const Ints& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string Reshape(GraphBuilder& g, const std::string& x, const Ints& shape) {
  return g.Node("Reshape", {x, g.Ints("shape", shape)});
}

std::string Transpose(GraphBuilder& g, const std::string& x, const Ints& perm) {
  return g.Node("Transpose", {x}, {{"perm", perm}});
}

// A table of pixels is a constant of the step model.
Status CheckTable(const Window& w) {
  if (w.taps() <= kSlicedTaps || w.taps() <= limits::kMaxRowElements / w.positions()) return {};
  return Unimplemented("kernels of " + std::to_string(w.taps()) + " taps over " + std::to_string(w.positions()) +
                       " positions; the limit is " + std::to_string(limits::kMaxRowElements) + " for their product");
}

// Zeros around the spatial axes, the first of which is `axis` of `rank`.
std::string PadSpatial(GraphBuilder& g, const std::string& x, const Ints& begin, const Ints& end, std::size_t axis,
                       std::size_t rank) {
  Ints pads(2 * rank, 0);
  bool some = false;
  for (std::size_t a = 0; a < begin.size(); ++a) {
    pads[axis + a] = begin[a];
    pads[rank + axis + a] = end[a];
    some = some || begin[a] != 0 || end[a] != 0;
  }
  return some ? g.Node("Pad", {x, g.Ints("pads", pads)}) : x;
}

// What the positions read at one tap: of the padded `x`, whose spatial axes begin at `axis`.
std::string SliceTap(GraphBuilder& g, const Window& w, const std::string& x, std::int64_t tap, std::size_t axis) {
  Ints starts(w.rank());
  Ints ends(w.rank());
  Ints axes(w.rank());
  bool whole = w.unit_stride() && !w.padded();
  for (std::size_t a = w.rank(); a-- > 0;) {
    starts[a] = tap % w.kernel[a] * w.dilation[a];
    tap /= w.kernel[a];
    ends[a] = starts[a] + (w.out[a] - 1) * w.stride[a] + 1;
    axes[a] = static_cast<std::int64_t>(axis + a);
    whole = whole && w.out[a] == w.in[a];
  }
  if (whole) return x;
  return g.Node("Slice",
                {x, g.Ints("starts", starts), g.Ints("ends", ends), g.Ints("axes", axes), g.Ints("steps", w.stride)});
}

// x [N, C, in...] with the examples innermost: [C, in..., N].
std::string ExamplesInnermost(GraphBuilder& g, const Window& w, const std::string& x) {
  Ints perm(w.rank() + 2);
  std::iota(perm.begin(), perm.end() - 1, 1);
  perm.back() = 0;
  return Transpose(g, x, perm);
}

// dy [N, M, out...] as rows over positions and, inside them, examples: [G, O N, M/G].
std::string RowsOverExamples(GraphBuilder& g, const Convolution& c, const std::string& dy) {
  const std::int64_t o = c.window.positions();
  const std::string flat = Reshape(g, dy, {0, c.groups, c.out_group(), o});
  return Reshape(g, Transpose(g, flat, {1, 3, 0, 2}), {c.groups, -1, c.out_group()});
}

// [K, G, C/G, M/G], a slab for each tap, in the layout of the weights.
std::string TapsAsWeights(GraphBuilder& g, const Convolution& c, const std::string& taps) {
  const std::string split = Reshape(g, taps, {c.window.taps(), c.groups, c.in_group(), c.out_group()});
  return Reshape(g, Transpose(g, split, {1, 3, 2, 0}), Joined({c.out_channels, c.in_group()}, c.window.kernel));
}

// One product for each tap: the slice is read while it is still in the cache.
std::string ByTaps(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const std::string pixels =
      PadSpatial(g, ExamplesInnermost(g, c.window, x), c.window.begin, c.window.end, 1, c.window.rank() + 2);
  const std::string rows = RowsOverExamples(g, c, dy);
  std::vector<std::string> products;
  for (std::int64_t k = 0; k < c.window.taps(); ++k) {
    const std::string slice = SliceTap(g, c.window, pixels, k, 1);
    products.push_back(g.Node("MatMul", {Reshape(g, slice, {c.groups, c.in_group(), -1}), rows}));
  }
  return TapsAsWeights(g, c,
                       products.size() == 1 ? products[0] : g.Node("Concat", products, {{"axis", std::int64_t{0}}}));
}

// One product for all taps, of patches that a table of pixels gathers.
std::string ByTable(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const Window& w = c.window;
  const std::string pixels = Reshape(g, ExamplesInnermost(g, w, x), {c.in_channels, w.pixels(), -1});
  const std::string with_zero = PadSpatial(g, pixels, {0}, {1}, 1, 3);
  const std::string table = Reshape(g, g.Ints("pixels", w.Table()), {w.taps(), w.positions()});
  const std::string patches = g.Node("Gather", {with_zero, table}, {{"axis", std::int64_t{1}}});  // [C, K, O, N]
  const std::string a = Reshape(g, patches, {c.groups, c.in_group() * w.taps(), -1});
  return AsWeights(g, c, g.Node("MatMul", {a, RowsOverExamples(g, c, dy)}), false);
}

// Depthwise: every channel by itself, so sums of products and no matrices.
std::string ByChannel(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const Window& w = c.window;
  const std::string pixels = PadSpatial(g, x, w.begin, w.end, 2, w.rank() + 2);
  Ints axes(w.rank() + 1, 0);
  std::iota(axes.begin() + 1, axes.end(), 2);
  std::vector<std::string> sums;
  for (std::int64_t k = 0; k < w.taps(); ++k) {
    const std::string product = g.Node("Mul", {SliceTap(g, w, pixels, k, 2), dy});
    sums.push_back(g.Node("ReduceSum", {product, g.Ints("axes", axes)}, {{"keepdims", std::int64_t{0}}}));
  }
  return TapsAsWeights(g, c, sums.size() == 1 ? sums[0] : g.Node("Concat", sums, {{"axis", std::int64_t{0}}}));
}

// w [M, C/G, kernel...] turned for the Conv that gives the input's gradient: [C, M/G, kernel...], kernels flipped.
std::string Flipped(GraphBuilder& g, const Convolution& c, const std::string& w) {
  const std::size_t rank = c.window.rank();
  std::string turned = w;
  if (!c.depthwise()) {
    const std::string split = Reshape(g, w, {c.groups, c.out_group(), c.in_group(), c.window.taps()});
    turned = Reshape(g, Transpose(g, split, {0, 2, 1, 3}), Joined({c.in_channels, c.out_group()}, c.window.kernel));
  }
  if (c.window.taps() == 1) return turned;
  Ints axes(rank);
  std::iota(axes.begin(), axes.end(), 2);
  const Ints last(rank, -1);
  const Ints before_first(rank, std::numeric_limits<std::int64_t>::min());
  return g.Node("Slice", {turned, g.Ints("starts", last), g.Ints("ends", before_first), g.Ints("axes", axes),
                          g.Ints("steps", last)});
}

// dy [N, M, out...] with stride - 1 zeros after each position.
std::string Spread(GraphBuilder& g, const Convolution& c, const std::string& dy) {
  const Window& w = c.window;
  if (w.unit_stride()) return dy;
  Ints apart{0, c.out_channels};
  Ints whole{0, c.out_channels};
  const std::size_t rank = 2 + 2 * w.rank();
  Ints pads(2 * rank, 0);
  for (std::size_t a = 0; a < w.rank(); ++a) {
    apart.insert(apart.end(), {w.out[a], 1});
    whole.push_back(w.out[a] * w.stride[a]);
    pads[rank + 3 + 2 * a] = w.stride[a] - 1;
  }
  return Reshape(g, g.Node("Pad", {Reshape(g, dy, apart), g.Ints("pads", pads)}), whole);
}

}  // namespace

Result<Convolution> ReadConvolution(const onnx::NodeProto& n, const Shape& x, const Shape& w) {
  if (w.size() < 3 || w.size() != x.size())
    return InvalidArgument("weights " + tensor::ShapeText(w) + " do not fit the input " + tensor::ShapeText(x));
  Convolution c;
  const Ints kernel(w.begin() + 2, w.end());
  if (const auto stated = graph::IntsAttribute(n, "kernel_shape"); stated && *stated != kernel)
    return InvalidArgument("kernel_shape differs from the weights " + tensor::ShapeText(w));
  ASSIGN_OR_RETURN(c.window, ReadWindow(n, x, kernel));
  RETURN_IF_ERROR(CheckTable(c.window));
  c.groups = graph::IntAttribute(n, "group", 1);
  c.in_channels = x[1];
  c.out_channels = w[0];
  if (c.groups < 1 || c.in_channels < 1 || c.out_channels < 1 || c.in_channels % c.groups != 0 ||
      c.out_channels % c.groups != 0 || c.in_group() != w[1]) {
    return InvalidArgument("weights " + tensor::ShapeText(w) + " in " + std::to_string(c.groups) +
                           " groups do not fit the input " + tensor::ShapeText(x));
  }
  return c;
}

Result<Convolution> ReadTransposedConvolution(const onnx::NodeProto& n, const Shape& x, const Shape& w) {
  if (w.size() < 3 || w.size() != x.size())
    return InvalidArgument("weights " + tensor::ShapeText(w) + " do not fit the input " + tensor::ShapeText(x));
  Convolution c;
  const Ints kernel(w.begin() + 2, w.end());
  if (const auto stated = graph::IntsAttribute(n, "kernel_shape"); stated && *stated != kernel)
    return InvalidArgument("kernel_shape differs from the weights " + tensor::ShapeText(w));
  ASSIGN_OR_RETURN(c.window, ReadTransposedWindow(n, x, kernel));
  RETURN_IF_ERROR(CheckTable(c.window));
  c.groups = graph::IntAttribute(n, "group", 1);
  c.out_channels = x[1];
  if (c.groups < 1 || w[1] < 1 || w[1] > kMaxExtent || c.groups > kMaxExtent)
    return InvalidArgument("weights " + tensor::ShapeText(w) + " in " + std::to_string(c.groups) + " groups");
  c.in_channels = w[1] * c.groups;
  if (c.out_channels < 1 || c.out_channels != w[0] || c.out_channels % c.groups != 0) {
    return InvalidArgument("weights " + tensor::ShapeText(w) + " in " + std::to_string(c.groups) +
                           " groups do not fit the input " + tensor::ShapeText(x));
  }
  return c;
}

std::string InputPatches(GraphBuilder& g, const Convolution& c, const std::string& x) {
  const Window& w = c.window;
  const Ints rows{0, c.groups, c.in_group() * w.taps(), w.positions()};
  if (w.taps() > kSlicedTaps) {
    const std::string pixels = PadSpatial(g, Reshape(g, x, {0, c.in_channels, w.pixels()}), {0}, {1}, 2, 3);
    const std::string table = Reshape(g, g.Ints("pixels", w.Table()), {w.taps(), w.positions()});
    return Reshape(g, g.Node("Gather", {pixels, table}, {{"axis", std::int64_t{2}}}), rows);
  }
  const std::string padded = PadSpatial(g, x, w.begin, w.end, 2, w.rank() + 2);
  std::vector<std::string> slices;
  for (std::int64_t k = 0; k < w.taps(); ++k)
    slices.push_back(Reshape(g, SliceTap(g, w, padded, k, 2), {0, c.in_channels, 1, w.positions()}));
  return Reshape(g, slices.size() == 1 ? slices[0] : g.Node("Concat", slices, {{"axis", std::int64_t{2}}}), rows);
}

std::string OutputRows(GraphBuilder& g, const Convolution& c, const std::string& dy) {
  return Transpose(g, Reshape(g, dy, {0, c.groups, c.out_group(), c.window.positions()}), {0, 1, 3, 2});
}

std::string AsWeights(GraphBuilder& g, const Convolution& c, const std::string& product, bool by_example) {
  const Ints shape = Joined({c.out_channels, c.in_group()}, c.window.kernel);
  if (!by_example) return Reshape(g, Transpose(g, product, {0, 2, 1}), shape);
  return Reshape(g, Transpose(g, product, {0, 1, 3, 2}), Joined({0}, shape));
}

std::string WeightGradient(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  if (c.window.taps() > kSlicedTaps) return ByTable(g, c, x, dy);
  if (c.depthwise()) return ByChannel(g, c, x, dy);
  return ByTaps(g, c, x, dy);
}

std::string InputGradient(GraphBuilder& g, const Convolution& c, const std::string& w, const std::string& dy) {
  const Window& win = c.window;
  // As a Conv over dy, spread by the stride, with flipped kernels: it needs this padding.
  Ints pads(2 * win.rank());
  bool possible = true;
  for (std::size_t a = 0; a < win.rank(); ++a) {
    pads[a] = win.reach(a) - win.begin[a];
    pads[win.rank() + a] = win.in[a] - win.out[a] * win.stride[a] + win.begin[a];
    possible = possible && pads[a] >= 0 && pads[win.rank() + a] >= 0;
  }
  if (possible && c.depthwise()) {
    return g.Node("Conv", {Spread(g, c, dy), Flipped(g, c, w)},
                  {{"group", c.groups}, {"pads", pads}, {"dilations", win.dilation}});
  }
  Ints extra(win.rank());
  for (std::size_t a = 0; a < win.rank(); ++a) extra[a] = win.unread(a);
  return g.Node("ConvTranspose", {dy, w},
                {{"group", c.groups},
                 {"pads", Joined(win.begin, win.end)},
                 {"strides", win.stride},
                 {"dilations", win.dilation},
                 {"output_padding", extra}});
}

std::string BiasGradient(GraphBuilder& g, std::size_t spatial_axes, const std::string& dy) {
  Ints axes(spatial_axes + 1, 0);
  std::iota(axes.begin() + 1, axes.end(), 2);
  return g.Node("ReduceSum", {dy, g.Ints("axes", axes)}, {{"keepdims", std::int64_t{0}}});
}

}  // namespace ganglion::gradient
