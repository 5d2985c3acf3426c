// Operators that take numbers out of a tensor or put them into a larger one: Slice, Pad, Gather, Resize.
//
// Gathers are undone by ScatterElements with add. ScatterND with add takes a fifth of the time, as it needs no index
// for every element, but is wrong on more than one intra-op thread: its threads add to the same row unguarded. A step
// model is a standard model that anybody may run, so only a caller who says one_thread gets it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "gradient/rules.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Shape;

std::string TextAttribute(const Node& n, const char* name, const std::string& otherwise) {
  const auto* a = graph::FindAttribute(n, name);
  return a == nullptr ? otherwise : a->s();
}

// v[from, to) along an axis.
Term Part(const Backward& b, const Term& v, std::int64_t axis, std::int64_t from, std::int64_t to) {
  return {b.g, b.g.Node("Slice", {v, b.g.Ints("from", {from}), b.g.Ints("to", {to}), b.g.Ints("axis", {axis})})};
}

Term Reversed(const Backward& b, const Term& v, std::int64_t axis) {
  return {b.g, b.g.Node("Slice", {v, b.g.Ints("from", {-1}), b.g.Ints("to", {std::numeric_limits<std::int64_t>::min()}),
                                  b.g.Ints("axis", {axis}), b.g.Ints("step", {-1})})};
}

// Zeros around; a negative number of them cuts off. `pads`: those before each axis, then those after.
Term Padded(const Backward& b, const Term& v, const Ints& pads) {
  if (std::count(pads.begin(), pads.end(), 0) == static_cast<std::ptrdiff_t>(pads.size())) return v;
  return v.With("Pad", b.g.Ints("pads", pads));
}
Term PaddedAxis(const Backward& b, const Term& v, std::size_t rank, std::size_t axis, std::int64_t before,
                std::int64_t after) {
  Ints pads(2 * rank, 0);
  pads[axis] = before;
  pads[rank + axis] = after;
  return Padded(b, v, pads);
}

// ---- Slice ---------------------------------------------------------------------------------------------------------

Result<Cut> CutOf(std::size_t axis, std::int64_t size, std::int64_t from, std::int64_t to, std::int64_t step) {
  if (step == 0) return InvalidArgument("a step of 0");
  if (size < 0) {  // all of the batch
    if (from == 0 && step == 1 && (to == kOfBatch || to >= std::numeric_limits<std::int32_t>::max()))
      return Cut{axis, 0, 1, -1};
    return Unimplemented("takes a part of axis " + std::to_string(axis) + ", whose size is not known");
  }
  if (from == kOfBatch || to == kOfBatch) return Unimplemented("takes as much as the batch has rows");
  const auto place = [&](std::int64_t at, std::int64_t low, std::int64_t high) {
    return std::clamp(at < 0 ? at + size : at, low, high);
  };
  const std::int64_t first = step > 0 ? place(from, 0, size) : place(from, -1, size - 1);
  const std::int64_t last = step > 0 ? place(to, 0, size) : place(to, -1, size - 1);
  const std::int64_t stride = std::clamp(step, -size - 1, size + 1);  // no difference, and cannot overflow
  const std::int64_t span = stride > 0 ? last - first : first - last;
  const std::int64_t length = std::abs(stride);
  return Cut{axis, first, stride, span <= 0 ? 0 : (span + length - 1) / length};
}

}  // namespace

Result<std::vector<Cut>> CutsOf(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const Ints starts, KnownInts(n, s, 1));
  ASSIGN_OR_RETURN(const Ints ends, KnownInts(n, s, 2));
  Ints axes(starts.size());
  std::iota(axes.begin(), axes.end(), 0);
  Ints steps(starts.size(), 1);
  if (n.input_size() > 3 && !n.input(3).empty()) {
    ASSIGN_OR_RETURN(axes, KnownInts(n, s, 3));
  }
  if (n.input_size() > 4 && !n.input(4).empty()) {
    ASSIGN_OR_RETURN(steps, KnownInts(n, s, 4));
  }
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    return InvalidArgument("starts, ends, axes and steps are not of one length");
  std::vector<Cut> cuts;
  std::vector<bool> cut(x.size(), false);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    ASSIGN_OR_RETURN(const std::int64_t a, Axis(axes[i], x.size()));
    const auto axis = static_cast<std::size_t>(a);
    if (cut[axis]) return InvalidArgument("axis " + std::to_string(a) + " is named twice");
    cut[axis] = true;
    ASSIGN_OR_RETURN(const Cut one, CutOf(axis, x[axis], starts[i], ends[i], steps[i]));
    cuts.push_back(one);
  }
  return cuts;
}

namespace {

Result<Shape> InferSlice(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  ASSIGN_OR_RETURN(const std::vector<Cut> cuts, CutsOf(n, s));
  for (const Cut& c : cuts) y[c.axis] = c.count;
  return y;
}

// Zeros between the numbers along an axis: each becomes the first of `step`.
Term Spaced(const Backward& b, const Term& v, const Shape& shape, std::size_t axis, std::int64_t step) {
  const Term apart = v.With("Unsqueeze", b.g.Ints("axis", {static_cast<std::int64_t>(axis) + 1}));
  const Term filled = PaddedAxis(b, apart, shape.size() + 1, axis + 1, 0, step - 1);
  Ints joined = shape;
  std::fill(joined.begin(), joined.begin() + static_cast<std::ptrdiff_t>(axis), 0);  // 0: as it is
  joined[axis] = shape[axis] * step;
  return filled.With("Reshape", b.g.Ints("joined", joined));
}

Status GradSlice(Backward& b) {
  ASSIGN_OR_RETURN(const std::vector<Cut> cuts, CutsOf(b.n, b.shapes()));
  const Shape& x = b.ShapeOfInput(0);
  const std::size_t rank = x.size();
  Ints pads(2 * rank, 0);
  Shape shape = b.ShapeOfOutput();
  Term v = b.Dy();
  for (const Cut& c : cuts) {
    if (c.count < 0) continue;
    if (c.count == 0) return Unimplemented("takes nothing of its input");
    const std::int64_t step = std::abs(c.step);
    if (c.step < 0) v = Reversed(b, v, static_cast<std::int64_t>(c.axis));
    if (step > 1) {
      v = Spaced(b, v, shape, c.axis, step);
      shape[c.axis] *= step;
    }
    pads[c.axis] = c.step > 0 ? c.start : c.start + (c.count - 1) * c.step;
    pads[rank + c.axis] = x[c.axis] - pads[c.axis] - c.count * step;
  }
  b.Give(0, Padded(b, v, pads));
  return {};
}

// ---- Pad -----------------------------------------------------------------------------------------------------------

Result<Shape> InferPad(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  ASSIGN_OR_RETURN(const Ints pads, KnownInts(n, s, 1));
  if (pads.size() != 2 * y.size())
    return InvalidArgument(std::to_string(pads.size()) + " pads for " + tensor::ShapeText(y));
  const std::string mode = TextAttribute(n, "mode", "constant");
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::int64_t before = pads[i];
    const std::int64_t after = pads[y.size() + i];
    if (before == 0 && after == 0) continue;
    if (y[i] < 0) return Unimplemented("pads axis " + std::to_string(i) + ", whose size is not known");
    std::int64_t size = 0;
    if (__builtin_add_overflow(y[i], before, &size) || __builtin_add_overflow(size, after, &size) || size < 0)
      return InvalidArgument("pads of " + std::to_string(before) + " and " + std::to_string(after));
    if (mode != "constant" && (before < 0 || after < 0 || before >= y[i] || after >= y[i]))
      return Unimplemented(mode + " by " + std::to_string(before) + " and " + std::to_string(after) + " of " +
                           std::to_string(y[i]));
    y[i] = size;
  }
  return y;
}

// What lies before and after the tensor along an axis is added to where it was copied from.
Term Folded(const Backward& b, const Term& v, std::size_t axis, std::int64_t before, std::int64_t after, bool reflect) {
  const auto a = static_cast<std::int64_t>(axis);
  const std::size_t rank = b.ShapeOfInput(0).size();
  const std::int64_t size = b.ShapeOfInput(0)[axis];
  const auto copy = [&](std::int64_t from, std::int64_t to, std::int64_t at) {  // of dy[from, to), that starts at `at`
    const Term part = Part(b, v, a, from, to);
    const Term back = reflect ? Reversed(b, part, a)
                              : Term(b.g, b.g.Node("ReduceSum", {part, b.g.Ints("axis", {a})}, {KeepDims(true)}));
    const std::int64_t length = reflect ? to - from : 1;
    return PaddedAxis(b, back, rank, axis, at, size - at - length);
  };
  Term dx = Part(b, v, a, before, before + size);
  if (before > 0) dx = dx + copy(0, before, reflect ? 1 : 0);
  if (after > 0) dx = dx + copy(before + size, before + size + after, reflect ? size - 1 - after : size - 1);
  return dx;
}

Status GradPad(Backward& b) {
  ASSIGN_OR_RETURN(Ints pads, KnownInts(b.n, b.shapes(), 1));
  const std::string mode = TextAttribute(b.n, "mode", "constant");
  const std::size_t rank = b.ShapeOfInput(0).size();
  Term dx = b.Dy();
  if (mode == "constant") {
    for (auto& p : pads) p = -p;
    dx = Padded(b, dx, pads);
  } else if (mode == "reflect" || mode == "edge") {
    for (std::size_t i = 0; i < rank; ++i) {
      if (pads[i] != 0 || pads[rank + i] != 0) dx = Folded(b, dx, i, pads[i], pads[rank + i], mode == "reflect");
    }
  } else {
    return Unimplemented("mode " + mode);
  }
  b.Give(0, dx);
  return {};
}

// ---- Gather --------------------------------------------------------------------------------------------------------

Result<Shape> InferGather(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const Shape& index = In(n, s, 1);
  ASSIGN_OR_RETURN(const std::int64_t axis, Axis(graph::IntAttribute(n, "axis", 0), x.size()));
  Shape y(x.begin(), x.begin() + axis);
  y.insert(y.end(), index.begin(), index.end());
  y.insert(y.end(), x.begin() + axis + 1, x.end());
  return y;
}

Term ZerosLikeInput(const Backward& b) { return b.X(0).Then("Shape").Then("ConstantOfShape"); }

std::string ScatterAdded(const Backward& b, const Term& index, const Term& dy, std::int64_t axis) {
  return b.g.Node("ScatterElements", {ZerosLikeInput(b), index, dy},
                  {{"axis", axis}, {"reduction", std::string("add")}});
}

// dy with all axes of the index as one, in the place of x's axis.
Result<Term> WithOneIndexAxis(const Backward& b, std::size_t axis) {
  const std::size_t index_rank = b.ShapeOfInput(1).size();
  if (index_rank == 1) return b.Dy();
  if (index_rank == 0) return b.Dy().With("Unsqueeze", b.g.Ints("axis", {static_cast<std::int64_t>(axis)}));
  Ints shape(axis, 0);  // 0: as it is
  shape.push_back(-1);
  for (std::size_t i = axis + 1; i < b.ShapeOfInput(0).size(); ++i) {
    shape.push_back(b.ShapeOfInput(0)[i]);
    if (shape.back() < 1) return Unimplemented("gathers from " + tensor::ShapeText(b.ShapeOfInput(0)));
  }
  return b.Dy().With("Reshape", b.g.Ints("rows", shape));
}

Status GradGather(Backward& b) {
  const Shape& x = b.ShapeOfInput(0);
  ASSIGN_OR_RETURN(const std::int64_t axis, Axis(graph::IntAttribute(b.n, "axis", 0), x.size()));
  const auto a = static_cast<std::size_t>(axis);
  ASSIGN_OR_RETURN(const Term dy, WithOneIndexAxis(b, a));
  const auto known = b.shapes().ints.find(b.x(1));
  if (x[a] > 0 && known != b.shapes().ints.end() && known->second.size() == 1 && known->second[0] < x[a] &&
      known->second[0] >= -x[a]) {  // one known place
    const std::int64_t at = known->second[0] + (known->second[0] < 0 ? x[a] : 0);
    b.Give(0, PaddedAxis(b, dy, x.size(), a, at, x[a] - 1 - at));
    return {};
  }
  if (a == 0 && b.shapes().one_thread) {
    const std::string places = b.g.Node("Unsqueeze", {b.x(1), b.g.Ints("axis", {-1})});
    b.Give(0, b.g.Node("ScatterND", {ZerosLikeInput(b), places, b.dy}, {{"reduction", std::string("add")}}));
    return {};
  }
  Ints column{-1};
  column.resize(x.size() - a, 1);
  const Term index = b.X(1).With("Reshape", b.g.Ints("column", column)).With("Expand", dy.Then("Shape"));
  b.Give(0, ScatterAdded(b, index, dy, axis));
  return {};
}

Result<Shape> InferGatherElements(const Node& n, const Shapes& s) {
  RETURN_IF_ERROR(Axis(graph::IntAttribute(n, "axis", 0), In(n, s, 0).size()).status());
  if (In(n, s, 0).size() != In(n, s, 1).size())
    return InvalidArgument(tensor::ShapeText(In(n, s, 1)) + " indices of " + tensor::ShapeText(In(n, s, 0)));
  return In(n, s, 1);
}

Status GradGatherElements(Backward& b) {
  b.Give(0, ScatterAdded(b, b.X(1), b.Dy(), graph::IntAttribute(b.n, "axis", 0)));
  return {};
}

Status GradTrilu(Backward& b) {
  const graph::Attribute upper{"upper", graph::IntAttribute(b.n, "upper", 1)};
  b.Give(0, b.has(1) ? b.g.Node("Trilu", {b.dy, b.x(1)}, {upper}) : b.g.Node("Trilu", {b.dy}, {upper}));
  return {};
}

// ---- Resize --------------------------------------------------------------------------------------------------------

struct Resizing {
  Shape y;
  std::vector<float> scale;
};

Result<Resizing> ResizingOf(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  Resizing r{x, std::vector<float>(x.size(), 1.f)};
  for (const char* newer : {"antialias", "axes"}) {
    if (graph::FindAttribute(n, newer) != nullptr) return Unimplemented(std::string("attribute ") + newer);
  }
  if (n.input_size() > 3 && !n.input(3).empty()) {
    ASSIGN_OR_RETURN(const Ints sizes, KnownInts(n, s, 3));
    if (sizes.size() != x.size()) return InvalidArgument("sizes are not one for each axis");
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (x[i] < 0 || sizes[i] == kOfBatch) continue;
      if (sizes[i] < 1 || x[i] < 1) return InvalidArgument("a size of " + std::to_string(sizes[i]));
      r.y[i] = sizes[i];
      r.scale[i] = static_cast<float>(sizes[i]) / static_cast<float>(x[i]);
    }
    return r;
  }
  const auto scales = n.input_size() > 2 ? s.floats.find(n.input(2)) : s.floats.end();
  if (scales == s.floats.end()) return Unimplemented("scales that are computed while running");
  if (scales->second.size() != x.size()) return InvalidArgument("scales are not one for each axis");
  for (std::size_t i = 0; i < x.size(); ++i) {
    r.scale[i] = scales->second[i];
    if (r.scale[i] == 1) continue;
    if (x[i] < 0) return Unimplemented("resizes axis " + std::to_string(i) + ", whose size is not known");
    const double size = std::floor(static_cast<double>(x[i]) * r.scale[i]);
    if (!(size >= 1 && size < 1e6)) return InvalidArgument("a scale of " + std::to_string(r.scale[i]));
    r.y[i] = static_cast<std::int64_t>(size);
  }
  return r;
}

Result<Shape> InferResize(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(Resizing r, ResizingOf(n, s));
  return std::move(r.y);
}

// Where number i of an axis of y comes from, in x's coordinates.
Result<float> Origin(const std::string& mode, float i, float scale, float x_size, float y_size) {
  if (mode == "asymmetric") return i / scale;
  if (mode == "align_corners") return y_size == 1 ? 0 : i * (x_size - 1) / (y_size - 1);
  if (mode == "pytorch_half_pixel" && y_size <= 1) return 0.f;
  if (mode == "half_pixel" || mode == "pytorch_half_pixel") return (i + .5f) / scale - .5f;
  return Unimplemented("coordinate_transformation_mode " + mode);
}

float Nearest(const std::string& mode, float x) {
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  return mode == "round_prefer_ceil" ? std::floor(x + .5f) : std::ceil(x - .5f);
}

// Resizing an axis is linear: y = A x, A [y, x].
Result<tensor::Tensor> MatrixOf(const Node& n, std::int64_t x_size, std::int64_t y_size, float scale) {
  const std::string mode = TextAttribute(n, "mode", "nearest");
  if (mode != "nearest" && mode != "linear") return Unimplemented("mode " + mode);
  const std::string coordinates = TextAttribute(n, "coordinate_transformation_mode", "half_pixel");
  const std::string nearest = TextAttribute(n, "nearest_mode", "round_prefer_floor");
  ASSIGN_OR_RETURN(tensor::Tensor a, tensor::Tensor::Zeros(tensor::DataType::kFp32, {y_size, x_size}));
  const auto last = static_cast<float>(x_size - 1);
  for (std::int64_t i = 0; i < y_size; ++i) {
    ASSIGN_OR_RETURN(const float from, Origin(coordinates, static_cast<float>(i), scale, static_cast<float>(x_size),
                                              static_cast<float>(y_size)));
    const auto add = [&](float at, float share) {
      a.As<float>()[static_cast<std::size_t>(i * x_size) + static_cast<std::size_t>(std::clamp(at, 0.f, last))] +=
          share;
    };
    if (mode == "nearest") {
      add(Nearest(nearest, from), 1);
    } else {
      const float low = std::floor(from);
      add(low, 1 - (from - low));
      add(low + 1, from - low);
    }
  }
  return a;
}

// Whether each number is repeated `times` times.
bool Repeats(const tensor::Tensor& a, std::int64_t times) {
  const std::int64_t x_size = a.shape()[1];
  for (std::int64_t i = 0; i < a.shape()[0]; ++i) {
    if (a.As<float>()[static_cast<std::size_t>(i * x_size + i / times)] != 1) return false;
  }
  return true;
}

// Whole repeats of pixels: the sum over each block, as an AveragePool. Anything else: dx = A' dy, axis by axis.
Status GradResize(Backward& b) {
  ASSIGN_OR_RETURN(const Resizing r, ResizingOf(b.n, b.shapes()));
  const Shape& x = b.ShapeOfInput(0);
  const std::size_t rank = x.size();
  std::vector<std::optional<tensor::Tensor>> matrices(rank);
  bool blocks = rank > 2;
  Ints kernel;
  float count = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    if (x[i] >= 0 && r.y[i] != x[i]) {
      ASSIGN_OR_RETURN(matrices[i], MatrixOf(b.n, x[i], r.y[i], r.scale[i]));
      blocks &= i >= 2 && r.y[i] % x[i] == 0 && Repeats(*matrices[i], r.y[i] / x[i]);
    }
    if (i < 2) continue;
    kernel.push_back(matrices[i] ? r.y[i] / x[i] : 1);
    count *= static_cast<float>(kernel.back());
  }
  Term dx = b.Dy();
  if (blocks) {
    dx = dx.Then("AveragePool", {{"kernel_shape", kernel}, {"strides", kernel}}) * count;
    b.Give(0, dx);
    return {};
  }
  for (std::size_t i = 0; i < rank; ++i) {
    if (!matrices[i]) continue;
    if (i + 2 < rank) return Unimplemented("resizes axis " + std::to_string(i) + " of " + tensor::ShapeText(x));
    const Term a(b.g, b.g.Constant("resize", *matrices[i]));
    dx = i + 1 == rank ? dx.With("MatMul", a) : Term(b.g, b.SwapLast(a, 2)).With("MatMul", dx);
  }
  b.Give(0, dx);
  return {};
}

}  // namespace

std::vector<Rule> PieceRules() {
  return {
      {"Gather", 2, One<InferGather>, GradGather}, {"GatherElements", 2, One<InferGatherElements>, GradGatherElements},
      {"Pad", 2, One<InferPad>, GradPad},          {"Resize", 1, One<InferResize>, GradResize},
      {"Slice", 3, One<InferSlice>, GradSlice},    {"Trilu", 1, One<SameAsInput>, GradTrilu},
  };
}

}  // namespace ganglion::gradient
