#include "gradient/convolution.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <numeric>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using Ints = std::vector<std::int64_t>;
using tensor::Shape;

// Where one form overtakes another; measured, see ADR 3.
constexpr std::int64_t kSlicedTaps = 64;    // kernels up to this may be cut out tap by tap
constexpr std::int64_t kSmallBatch = 16;    // below, copying N numbers at once is too little
constexpr std::int64_t kFewChannels = 8;    // below, copying C numbers at once is
constexpr std::int64_t kManyChannels = 48;  // depthwise
constexpr std::int64_t kLargeImage = 128;   // positions that make a product for one example worth its while
constexpr double kReaderNumbers = 1 << 22;  // beyond, ConvTranspose, which makes them a row at a time
constexpr double kPatchNumbers = 1 << 23;   // beyond, patches fall out of every cache

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

constexpr std::int64_t kTableNumbers = std::int64_t{1} << 24;

// Sizes come from a file: their product may be beyond any integer.
double Times(std::initializer_list<std::int64_t> sizes) {
  double product = 1;
  for (const auto s : sizes) product *= static_cast<double>(s);
  return product;
}

// A table of pixels is a constant of the step model.
Status CheckTable(const Window& w) {
  if (w.taps() <= kSlicedTaps || w.taps() <= kTableNumbers / w.positions()) return {};
  return Unimplemented("kernels of " + std::to_string(w.taps()) + " taps over " + std::to_string(w.positions()) +
                       " positions; the limit is " + std::to_string(kTableNumbers) + " for their product");
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
  if (c.groups == 1) {  // one axis moves past the others: the runtime is ten times as fast at that
    const std::string flat = Reshape(g, dy, {0, c.out_channels, o});
    return Reshape(g, Transpose(g, flat, {2, 0, 1}), {1, -1, c.out_channels});
  }
  const std::string flat = Reshape(g, dy, {0, c.groups, c.out_group(), o});
  return Reshape(g, Transpose(g, flat, {1, 3, 0, 2}), {c.groups, -1, c.out_group()});
}

// [K, G, C/G, M/G], a slab for each tap, in the layout of the weights.
std::string TapsAsWeights(GraphBuilder& g, const Convolution& c, const std::string& taps) {
  const std::string split = Reshape(g, taps, {c.window.taps(), c.groups, c.in_group(), c.out_group()});
  return Reshape(g, Transpose(g, split, {1, 3, 2, 0}), Joined({c.out_channels, c.in_group()}, c.window.kernel));
}

std::string Joined(GraphBuilder& g, const std::vector<std::string>& parts, std::int64_t axis) {
  return parts.size() == 1 ? parts[0] : g.Node("Concat", parts, {{"axis", axis}});
}

// ---- forms of the weight gradient ----------------------------------------------------------------------------------

// What the positions read at each tap, cut out of the padded image: [G, C/G, O N] each.
std::vector<std::string> SlicesByTap(GraphBuilder& g, const Convolution& c, const std::string& x) {
  const Window& w = c.window;
  const std::string pixels = PadSpatial(g, ExamplesInnermost(g, w, x), w.begin, w.end, 1, w.rank() + 2);
  std::vector<std::string> slices;
  for (std::int64_t k = 0; k < w.taps(); ++k)
    slices.push_back(Reshape(g, SliceTap(g, w, pixels, k, 1), {c.groups, c.in_group(), -1}));
  return slices;
}

// One product for each tap: the patches as a whole are never there.
std::string ByTaps(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const std::string rows = RowsOverExamples(g, c, dy);
  std::vector<std::string> products;
  for (const auto& slice : SlicesByTap(g, c, x)) products.push_back(g.Node("MatMul", {slice, rows}));
  return TapsAsWeights(g, c, Joined(g, products, 0));
}

// One product for all taps, of patches put together from slices: [G, K C/G, O N].
std::string BySlices(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const std::string patches = Joined(g, SlicesByTap(g, c, x), 1);
  const std::string product = g.Node("MatMul", {patches, RowsOverExamples(g, c, dy)});  // [G, K C/G, M/G]
  const std::string split = Reshape(g, product, {c.groups, c.window.taps(), c.in_group(), c.out_group()});
  return Reshape(g, Transpose(g, split, {0, 3, 2, 1}), Joined({c.out_channels, c.in_group()}, c.window.kernel));
}

// What a table of pixels gathers along `axis` of three; a zero pixel after the last is what padding reads.
std::string Gathered(GraphBuilder& g, const Window& w, const std::string& pixels, std::size_t axis, Ints table,
                     const Ints& shape) {
  const std::string with_zero = PadSpatial(g, pixels, {0}, {w.padded() ? 1 : 0}, axis, 3);
  return g.Node("Gather", {with_zero, Reshape(g, g.Ints("pixels", std::move(table)), shape)},
                {{"axis", static_cast<std::int64_t>(axis)}});
}

// One product for all taps, of patches that a table of pixels gathers, N numbers at once: [C, K, O, N].
std::string ByTable(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const Window& w = c.window;
  const std::string pixels = Reshape(g, ExamplesInnermost(g, w, x), {c.in_channels, w.pixels(), -1});
  const std::string patches = Gathered(g, w, pixels, 1, w.Table(), {w.taps(), w.positions()});
  const std::string a = Reshape(g, patches, {c.groups, c.in_group() * w.taps(), -1});
  return AsWeights(g, c, g.Node("MatMul", {a, RowsOverExamples(g, c, dy)}), false);
}

// The same with the channels innermost, C numbers at once: patches [N, O, K, C], and the product the other way round,
// [M, N O] by [N O, K C].
std::string ByPositions(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const Window& w = c.window;
  const std::string pixels = Transpose(g, Reshape(g, x, {0, c.in_channels, w.pixels()}), {0, 2, 1});
  std::string patches = pixels;
  if (!c.pointwise()) {
    const Ints by_tap = w.Table();
    Ints by_position;
    by_position.reserve(by_tap.size());
    for (std::int64_t o = 0; o < w.positions(); ++o) {
      for (std::int64_t k = 0; k < w.taps(); ++k)
        by_position.push_back(by_tap[static_cast<std::size_t>(k * w.positions() + o)]);
    }
    patches = Gathered(g, w, pixels, 1, std::move(by_position), {w.positions(), w.taps()});
  }
  const std::string rows = Reshape(g, patches, {-1, w.taps() * c.in_channels});
  const std::string flat = Transpose(g, Reshape(g, dy, {0, c.out_channels, w.positions()}), {1, 0, 2});
  const std::string product = g.Node("MatMul", {Reshape(g, flat, {c.out_channels, -1}), rows});
  const std::string split = Reshape(g, product, {c.out_channels, w.taps(), c.in_channels});
  return Reshape(g, Transpose(g, split, {0, 2, 1}), Joined({c.out_channels, c.in_channels}, w.kernel));
}

// A product for each example: [N, M, O] by [N, O, C], and their sum. For kernels of one pixel.
std::string ByExample(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const std::int64_t o = c.window.positions();
  const std::string rows = Transpose(g, Reshape(g, x, {0, c.in_channels, o}), {0, 2, 1});
  const std::string products = g.Node("MatMul", {Reshape(g, dy, {0, c.out_channels, o}), rows});
  const std::string sum = g.Node("ReduceSum", {products, g.Ints("axes", {0})}, {{"keepdims", std::int64_t{0}}});
  return Reshape(g, sum, Joined({c.out_channels, c.in_channels}, c.window.kernel));
}

// Depthwise: every channel by itself, so sums of products and no matrices. With many channels, or strides, they go
// innermost: sums over the axes before them, and slices in longer pieces.
std::string ByChannel(GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy) {
  const Window& w = c.window;
  const bool innermost = !w.unit_stride() || c.in_channels >= kManyChannels;
  Ints axes(w.rank() + 1, 0);
  std::iota(axes.begin() + 1, axes.end(), innermost ? 1 : 2);
  Ints perm = axes;
  perm.push_back(1);
  std::transform(perm.begin() + 1, perm.end() - 1, perm.begin() + 1, [](std::int64_t a) { return a + 1; });
  const std::size_t first = innermost ? 1 : 2;
  const std::string pixels = PadSpatial(g, innermost ? Transpose(g, x, perm) : x, w.begin, w.end, first, w.rank() + 2);
  const std::string d = innermost ? Transpose(g, dy, perm) : dy;
  std::vector<std::string> sums;
  for (std::int64_t k = 0; k < w.taps(); ++k) {
    const std::string product = g.Node("Mul", {SliceTap(g, w, pixels, k, first), d});
    sums.push_back(g.Node("ReduceSum", {product, g.Ints("axes", axes)}, {{"keepdims", std::int64_t{0}}}));
  }
  return TapsAsWeights(g, c, Joined(g, sums, 0));
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

// The input's gradient as one product: what each pixel's readers got, gathered [N, P, K, M], by the kernels [K M, C].
std::string ByReaders(GraphBuilder& g, const Convolution& c, const std::string& w, const std::string& dy) {
  const Window& win = c.window;
  const std::int64_t positions = win.positions();
  const std::int64_t taps = win.taps();
  const std::int64_t pixels = win.pixels();
  const Ints read = win.Table();
  Ints readers(static_cast<std::size_t>(pixels * taps), positions);  // of each pixel, by tap
  for (std::int64_t k = 0; k < taps; ++k) {
    for (std::int64_t o = 0; o < positions; ++o) {
      const std::int64_t pixel = read[static_cast<std::size_t>(k * positions + o)];
      if (pixel < pixels) readers[static_cast<std::size_t>(pixel * taps + k)] = o;
    }
  }
  const std::string rows = Transpose(g, Reshape(g, dy, {0, c.out_channels, positions}), {0, 2, 1});
  const std::string with_zero = PadSpatial(g, rows, {0}, {1}, 1, 3);
  const std::string table = Reshape(g, g.Ints("readers", std::move(readers)), {pixels, taps});
  const std::string got = g.Node("Gather", {with_zero, table}, {{"axis", std::int64_t{1}}});
  const std::string kernels = Transpose(g, Reshape(g, w, {c.out_channels, c.in_channels, taps}), {2, 0, 1});
  const std::string product = g.Node("MatMul", {Reshape(g, got, {-1, taps * c.out_channels}),
                                                Reshape(g, kernels, {taps * c.out_channels, c.in_channels})});
  const std::string by_channel = Transpose(g, Reshape(g, product, {-1, pixels, c.in_channels}), {0, 2, 1});
  return Reshape(g, by_channel, Joined({0, c.in_channels}, win.in));
}

}  // namespace

Result<Convolution> ReadConvolution(const onnx::NodeProto& n, const Shape& x, const Shape& w,
                                    std::int64_t usual_batch) {
  if (w.size() < 3 || w.size() != x.size())
    return InvalidArgument("weights " + tensor::ShapeText(w) + " do not fit the input " + tensor::ShapeText(x));
  Convolution c;
  const Ints kernel(w.begin() + 2, w.end());
  if (const auto stated = graph::IntsAttribute(n, "kernel_shape"); stated && *stated != kernel)
    return InvalidArgument("kernel_shape differs from the weights " + tensor::ShapeText(w));
  ASSIGN_OR_RETURN(c.window, ReadWindow(n, x, kernel));
  c.batch = x[0] > 0 ? x[0] : usual_batch;
  RETURN_IF_ERROR(CheckTable(c.window));
  c.groups = graph::IntAttribute(n, "group", 1);
  c.in_channels = x[1];
  c.out_channels = w[0];
  if (c.groups < 1 || c.in_channels < 1 || c.out_channels < 1 || c.in_channels > kMaxExtent ||
      c.out_channels > kMaxExtent || c.in_channels % c.groups != 0 || c.out_channels % c.groups != 0 ||
      c.in_group() != w[1]) {
    return InvalidArgument("weights " + tensor::ShapeText(w) + " in " + std::to_string(c.groups) +
                           " groups do not fit the input " + tensor::ShapeText(x));
  }
  return c;
}

Result<Convolution> ReadTransposedConvolution(const onnx::NodeProto& n, const Shape& x, const Shape& w,
                                              std::int64_t usual_batch) {
  if (w.size() < 3 || w.size() != x.size())
    return InvalidArgument("weights " + tensor::ShapeText(w) + " do not fit the input " + tensor::ShapeText(x));
  Convolution c;
  const Ints kernel(w.begin() + 2, w.end());
  if (const auto stated = graph::IntsAttribute(n, "kernel_shape"); stated && *stated != kernel)
    return InvalidArgument("kernel_shape differs from the weights " + tensor::ShapeText(w));
  ASSIGN_OR_RETURN(c.window, ReadTransposedWindow(n, x, kernel));
  c.batch = x[0] > 0 ? x[0] : usual_batch;
  RETURN_IF_ERROR(CheckTable(c.window));
  c.groups = graph::IntAttribute(n, "group", 1);
  c.out_channels = x[1];
  if (c.groups < 1 || w[1] < 1 || w[1] > kMaxExtent || c.groups > kMaxExtent)
    return InvalidArgument("weights " + tensor::ShapeText(w) + " in " + std::to_string(c.groups) + " groups");
  c.in_channels = w[1] * c.groups;
  if (c.in_channels > kMaxExtent || c.out_channels < 1 || c.out_channels > kMaxExtent || c.out_channels != w[0] ||
      c.out_channels % c.groups != 0) {
    return InvalidArgument("weights " + tensor::ShapeText(w) + " in " + std::to_string(c.groups) +
                           " groups do not fit the input " + tensor::ShapeText(x));
  }
  return c;
}

std::string InputPatches(GraphBuilder& g, const Convolution& c, const std::string& x) {
  const Window& w = c.window;
  const Ints rows{0, c.groups, c.in_group() * w.taps(), w.positions()};
  if (w.taps() > kSlicedTaps) {
    const std::string pixels = Reshape(g, x, {0, c.in_channels, w.pixels()});
    return Reshape(g, Gathered(g, w, pixels, 2, w.Table(), {w.taps(), w.positions()}), rows);
  }
  const std::string padded = PadSpatial(g, x, w.begin, w.end, 2, w.rank() + 2);
  std::vector<std::string> slices;
  for (std::int64_t k = 0; k < w.taps(); ++k)
    slices.push_back(Reshape(g, SliceTap(g, w, padded, k, 2), {0, c.in_channels, 1, w.positions()}));
  return Reshape(g, Joined(g, slices, 2), rows);
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
  const Window& w = c.window;
  const bool few_taps = w.taps() <= kSlicedTaps;
  if (few_taps && c.depthwise()) return ByChannel(g, c, x, dy);
  if (c.groups == 1 && c.pointwise())
    return w.positions() < kLargeImage ? ByPositions(g, c, x, dy) : ByExample(g, c, x, dy);
  const double patches = Times({c.batch, w.positions(), w.taps(), c.in_channels});
  if (few_taps && patches > kPatchNumbers) return ByTaps(g, c, x, dy);
  if (c.batch >= kSmallBatch) return ByTable(g, c, x, dy);
  if (c.groups == 1 && c.in_channels >= kFewChannels) return ByPositions(g, c, x, dy);
  return few_taps ? BySlices(g, c, x, dy) : ByTable(g, c, x, dy);
}

std::string InputGradient(GraphBuilder& g, const Convolution& c, const std::string& w, const std::string& dy) {
  const Window& win = c.window;
  // At stride 1 also a Conv over dy with flipped kernels; it needs this padding.
  Ints pads(2 * win.rank());
  bool possible = win.unit_stride();
  for (std::size_t a = 0; a < win.rank(); ++a) {
    pads[a] = win.reach(a) - win.begin[a];
    pads[win.rank() + a] = win.reach(a) - win.end[a];
    possible = possible && pads[a] >= 0 && pads[win.rank() + a] >= 0;
  }
  if (possible && (c.depthwise() || (win.taps() == 1 && c.batch >= kSmallBatch / 2))) {
    return g.Node("Conv", {dy, Flipped(g, c, w)}, {{"group", c.groups}, {"pads", pads}, {"dilations", win.dilation}});
  }
  if (c.groups == 1 && win.unit_stride() && win.taps() > 1 && c.out_channels >= kFewChannels &&
      Times({c.batch, win.pixels(), win.taps(), c.out_channels}) <= kReaderNumbers) {
    return ByReaders(g, c, w, dy);
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
