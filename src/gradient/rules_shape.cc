// Operators that give numbers another shape or order, or repeat them.
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

// ---- shapes that are asked for -------------------------------------------------------------------------------------

// Sizes as a shape: what depends on the batch is -1 again.
Result<Shape> AsShape(const Ints& sizes) {
  Shape y = sizes;
  for (auto& d : y) {
    if (d < 0 && d != kOfBatch) return InvalidArgument("a size of " + std::to_string(d));
    d = std::max<std::int64_t>(d, -1);
  }
  return y;
}

// The size that Reshape is to find out, marked -1 in y (where kOfBatch is the batch): -1 again if that is not known.
Result<std::int64_t> MissingSize(const Shape& x, const Ints& y) {
  const auto refuse = [&] {
    return InvalidArgument(tensor::ShapeText(x) + " does not reshape to " + tensor::ShapeText(y));
  };
  const auto batches_of_x = std::count(x.begin(), x.end(), -1);
  const auto batches_of_y = std::count(y.begin(), y.end(), kOfBatch);
  if (batches_of_x != batches_of_y) return std::int64_t{-1};
  std::int64_t have = 1;
  std::int64_t others = 1;
  for (const auto d : x) {
    if (d >= 0 && __builtin_mul_overflow(have, d, &have)) return refuse();
  }
  for (const auto d : y) {
    if (d >= 0 && __builtin_mul_overflow(others, d, &others)) return refuse();
  }
  if (others == 0 || have % others != 0) return refuse();
  return have / others;
}

Result<Shape> InferReshape(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(Ints y, KnownInts(n, s, 1));
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (y[i] == 0 && graph::IntAttribute(n, "allowzero", 0) == 0) {
      if (i >= x.size())
        return InvalidArgument("shape copies dimension " + std::to_string(i) + " of a tensor with " +
                               std::to_string(x.size()));
      y[i] = x[i] < 0 ? kOfBatch : x[i];
    }
  }
  const auto missing = std::find(y.begin(), y.end(), -1);
  if (missing != y.end()) {
    if (std::count(y.begin(), y.end(), -1) > 1) return InvalidArgument("a shape with two sizes of -1");
    ASSIGN_OR_RETURN(const std::int64_t size, MissingSize(x, y));
    *missing = size < 0 ? kOfBatch : size;
  }
  ASSIGN_OR_RETURN(const Shape shape, AsShape(y));
  const std::int64_t before = Product(x, 0, x.size());
  const std::int64_t after = Product(shape, 0, shape.size());
  if (before >= 0 && after >= 0 && before != after)
    return InvalidArgument(tensor::ShapeText(x) + " does not reshape to " + tensor::ShapeText(shape));
  return shape;
}

Result<Shape> InferFlatten(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const std::int64_t asked = graph::IntAttribute(n, "axis", 1);
  const auto axis = static_cast<std::size_t>(asked < 0 ? asked + static_cast<std::int64_t>(x.size())
                                                       : asked);  // a negative sum is huge
  if (axis > x.size()) return InvalidArgument("axis " + std::to_string(asked) + " of " + tensor::ShapeText(x));
  return Shape{Product(x, 0, axis), Product(x, axis, x.size())};
}

Result<Shape> InferSqueeze(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  std::vector<bool> out(x.size(), false);
  if (n.input_size() > 1 && !n.input(1).empty()) {
    ASSIGN_OR_RETURN(const Ints axes, KnownInts(n, s, 1));
    for (const auto a : axes) {
      ASSIGN_OR_RETURN(const std::int64_t axis, Axis(a, x.size()));
      if (x[static_cast<std::size_t>(axis)] > 1)
        return InvalidArgument("axis " + std::to_string(a) + " of " + tensor::ShapeText(x) + " is not 1");
      out[static_cast<std::size_t>(axis)] = true;
    }
  } else {
    for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] == 1;
  }
  Shape y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!out[i]) y.push_back(x[i]);
  }
  return y;
}

Result<Shape> InferUnsqueeze(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const Ints axes, KnownInts(n, s, 1));
  const std::size_t rank = x.size() + axes.size();
  std::vector<bool> is_new(rank, false);
  for (const auto a : axes) {
    ASSIGN_OR_RETURN(const std::int64_t axis, Axis(a, rank));
    if (is_new[static_cast<std::size_t>(axis)]) return InvalidArgument("axis " + std::to_string(a) + " is named twice");
    is_new[static_cast<std::size_t>(axis)] = true;
  }
  Shape y;
  auto next = x.begin();
  for (std::size_t i = 0; i < rank; ++i) y.push_back(is_new[i] ? 1 : *next++);
  return y;
}

Status GradReshape(Backward& b) {
  b.Give(0, b.ReshapeLikeInput(b.dy, 0));
  return {};
}

// ---- another order -------------------------------------------------------------------------------------------------

Result<Shape> InferTranspose(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const Ints perm = Permutation(n, x.size());
  Ints sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted.size() != x.size() || sorted[i] != static_cast<std::int64_t>(i))
      return InvalidArgument("perm is no permutation of " + tensor::ShapeText(x));
  }
  Shape y;
  if (sorted.size() != x.size()) return InvalidArgument("perm is no permutation of " + tensor::ShapeText(x));
  for (const auto p : perm) y.push_back(x[static_cast<std::size_t>(p)]);
  return y;
}

Status GradTranspose(Backward& b) {
  const Ints perm = Permutation(b.n, b.ShapeOfInput(0).size());
  Ints inverse(perm.size());
  for (std::size_t i = 0; i < perm.size(); ++i)
    inverse[static_cast<std::size_t>(perm[i])] = static_cast<std::int64_t>(i);
  b.Give(0, b.g.Node("Transpose", {b.dy}, {{"perm", inverse}}));
  return {};
}

bool IsCrd(const Node& n) {
  const auto* mode = graph::FindAttribute(n, "mode");
  return mode != nullptr && mode->s() == "CRD";
}

// Blocks of b x b channels to b x b pixels (DepthToSpace), or back.
Result<Shape> InferBlocks(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  const std::int64_t b = graph::IntAttribute(n, "blocksize", 0);
  if (b < 1 || b > 1024 || y.size() != 4 || y[1] < 1 || y[2] < 1 || y[3] < 1)
    return InvalidArgument("blocks of " + std::to_string(b) + " on " + tensor::ShapeText(y));
  const bool to_space = n.op_type() == "DepthToSpace";
  if (to_space ? y[1] % (b * b) != 0 : y[2] % b != 0 || y[3] % b != 0)
    return InvalidArgument(tensor::ShapeText(y) + " does not divide into blocks of " + std::to_string(b));
  y[1] = to_space ? y[1] / (b * b) : y[1] * b * b;
  y[2] = to_space ? y[2] * b : y[2] / b;
  y[3] = to_space ? y[3] * b : y[3] / b;
  return y;
}

Status GradDepthToSpace(Backward& b) {
  const std::int64_t block = graph::IntAttribute(b.n, "blocksize", 0);
  if (!IsCrd(b.n)) {
    b.Give(0, b.g.Node("SpaceToDepth", {b.dy}, {{"blocksize", block}}));
    return {};
  }
  const Shape& y = b.ShapeOfOutput();
  const std::string apart =
      b.g.Node("Reshape", {b.dy, b.g.Ints("blocks", {-1, y[1], y[2] / block, block, y[3] / block, block})});
  b.Give(0, b.ReshapeLikeInput(b.g.Node("Transpose", {apart}, {{"perm", Ints{0, 1, 3, 5, 2, 4}}}), 0));
  return {};
}

Status GradSpaceToDepth(Backward& b) {
  b.Give(0, b.g.Node("DepthToSpace", {b.dy}, {{"blocksize", graph::IntAttribute(b.n, "blocksize", 0)}}));
  return {};
}

// ---- repeated ------------------------------------------------------------------------------------------------------

Result<Shape> InferExpand(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const Ints sizes, KnownInts(n, s, 1));
  ASSIGN_OR_RETURN(const Shape to, AsShape(sizes));
  return Broadcast(In(n, s, 0), to);
}

Status GradExpand(Backward& b) {
  b.GiveReduced(0, b.dy);
  return {};
}

Result<Shape> InferTile(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  ASSIGN_OR_RETURN(const Ints repeats, KnownInts(n, s, 1));
  if (repeats.size() != y.size())
    return InvalidArgument(std::to_string(repeats.size()) + " repeats of " + tensor::ShapeText(y));
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (repeats[i] < 0 && repeats[i] != kOfBatch) return InvalidArgument("repeats below 0");
    const bool known = y[i] >= 0 && repeats[i] >= 0;
    if (!known || __builtin_mul_overflow(y[i], repeats[i], &y[i])) y[i] = repeats[i] == 1 ? y[i] : -1;
  }
  return y;
}

// Each repeated axis as two, the number of repeats first, and summed over that one.
Status GradTile(Backward& b) {
  ASSIGN_OR_RETURN(const Ints repeats, KnownInts(b.n, b.shapes(), 1));
  Ints apart;
  Ints sum;
  for (std::size_t i = 0; i < repeats.size(); ++i) {
    if (repeats[i] != 1) {
      sum.push_back(static_cast<std::int64_t>(apart.size()));
      apart.push_back(repeats[i] == kOfBatch ? -1 : repeats[i]);
    }
    apart.push_back(b.ShapeOfInput(0)[i]);
  }
  if (std::count(apart.begin(), apart.end(), -1) > 1)
    return Unimplemented("repeats more than one axis of unknown size");
  if (sum.empty()) return GradExpand(b);
  const std::string dy = b.g.Node("Reshape", {b.dy, b.g.Ints("repeats", apart)});
  b.Give(0, b.g.Node("ReduceSum", {dy, b.g.Ints("axes", sum)}, {KeepDims(false)}));
  return {};
}

// ---- joined and split ----------------------------------------------------------------------------------------------

Result<std::size_t> AxisOf(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const std::int64_t axis, Axis(graph::IntAttribute(n, "axis", 0), In(n, s, 0).size()));
  return static_cast<std::size_t>(axis);
}

Result<Shape> InferConcat(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  ASSIGN_OR_RETURN(const std::size_t axis, AxisOf(n, s));
  for (int i = 1; i < n.input_size(); ++i) {
    const Shape& x = In(n, s, i);
    bool fits = x.size() == y.size();
    for (std::size_t k = 0; fits && k < y.size(); ++k) {
      if (k == axis) continue;
      fits = x[k] == y[k] || x[k] < 0 || y[k] < 0;
      y[k] = std::max(x[k], y[k]);
    }
    if (!fits)
      return InvalidArgument(tensor::ShapeText(x) + " does not join " + tensor::ShapeText(y) + " on axis " +
                             std::to_string(axis));
    y[axis] = x[axis] < 0 || y[axis] < 0 ? -1 : x[axis] + y[axis];
  }
  return y;
}

// Sizes along the axis, counted while running where they are not known.
Status GradConcatOfUnknown(Backward& b, std::int64_t axis) {
  std::vector<std::string> sizes;
  sizes.reserve(static_cast<std::size_t>(b.n.input_size()));
  for (int i = 0; i < b.n.input_size(); ++i)
    sizes.push_back(b.g.Node("Gather", {b.g.Node("Shape", {b.x(i)}), b.g.Ints("axis", {axis})}));
  const std::string split = b.g.Node("Concat", sizes, {{"axis", std::int64_t{0}}});
  const auto parts = b.g.Nodes("Split", {b.dy, split}, sizes.size(), {{"axis", axis}});
  for (int i = 0; i < b.n.input_size(); ++i) b.Give(i, parts[static_cast<std::size_t>(i)]);
  return {};
}

Status GradConcat(Backward& b) {
  ASSIGN_OR_RETURN(const std::size_t axis, AxisOf(b.n, b.shapes()));
  const auto a = static_cast<std::int64_t>(axis);
  if (b.ShapeOfOutput()[axis] < 0) return GradConcatOfUnknown(b, a);
  std::int64_t from = 0;
  for (int i = 0; i < b.n.input_size(); ++i) {
    const std::int64_t to = from + b.ShapeOfInput(i)[axis];
    if (b.wanted(i))
      b.Give(i, b.g.Node("Slice", {b.dy, b.g.Ints("from", {from}), b.g.Ints("to", {to}), b.g.Ints("axis", {a})}));
    from = to;
  }
  return {};
}

Inferred InferSplit(const Node& n, Shapes& s) {
  const Shape& x = In(n, s, 0);
  ASSIGN_OR_RETURN(const std::size_t axis, AxisOf(n, s));
  const auto parts = static_cast<std::int64_t>(n.output_size());
  Ints sizes;
  if (n.input_size() > 1 && !n.input(1).empty()) {
    ASSIGN_OR_RETURN(sizes, KnownInts(n, s, 1));
  } else {
    if (parts < 1 || x[axis] < 0 || x[axis] % parts != 0)
      return Unimplemented("split of " + tensor::ShapeText(x) + " into " + std::to_string(parts) + " equal parts");
    sizes.assign(static_cast<std::size_t>(parts), x[axis] / parts);
  }
  const auto negative = std::count_if(sizes.begin(), sizes.end(), [](std::int64_t v) { return v < 0; });
  const std::int64_t sum = Product(x, axis, axis + 1);
  std::int64_t left = sum;
  for (const auto v : sizes) left = v < 0 || v > left ? -1 : left - v;
  if (static_cast<std::int64_t>(sizes.size()) != parts || negative > 0 || left != 0)
    return InvalidArgument("split sizes do not add up to axis " + std::to_string(axis) + " of " + tensor::ShapeText(x));
  std::vector<Shape> y;
  y.reserve(sizes.size());
  for (const auto v : sizes) {
    y.push_back(x);
    y.back()[axis] = v;
  }
  return y;
}

// Outputs that nothing depends on give zeros.
Status GradSplit(Backward& b) {
  std::vector<std::string> parts;
  for (int i = 0; i < b.n.output_size(); ++i) {
    const std::string& dy = b.dys[static_cast<std::size_t>(i)];
    if (!dy.empty()) {
      parts.push_back(dy);
    } else if (!b.y(i).empty()) {
      parts.push_back(b.g.Node("Expand", {b.g.Scalar("zero", 0), b.g.Node("Shape", {b.y(i)})}));
    } else {
      return Unimplemented("an output without a name");
    }
  }
  b.Give(0, b.g.Node("Concat", parts, {{"axis", graph::IntAttribute(b.n, "axis", 0)}}));
  return {};
}

// ---- shapes as values ----------------------------------------------------------------------------------------------

Result<Shape> InferShape(const Node& n, const Shapes& s) {
  const auto rank = static_cast<std::int64_t>(In(n, s, 0).size());
  const auto place = [&](const char* name, std::int64_t otherwise) {
    const std::int64_t at = graph::IntAttribute(n, name, otherwise);
    return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  return Shape{std::max<std::int64_t>(place("end", rank) - place("start", 0), 0)};
}

Result<Shape> InferSize(const Node&, const Shapes&) { return Shape{}; }

Result<Shape> InferConstantOfShape(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const Ints sizes, KnownInts(n, s, 0));
  return AsShape(sizes);
}

// Up to the batch, or of known numbers.
Result<Shape> InferRange(const Node& n, const Shapes& s) {
  const auto floats = [&](int i) { return s.floats.find(n.input(i)); };
  if (floats(0) != s.floats.end() && floats(1) != s.floats.end() && floats(2) != s.floats.end()) {
    for (const int i : {0, 1, 2}) {
      if (floats(i)->second.size() != 1) return InvalidArgument("Range takes three numbers");
    }
    const double count = std::ceil((static_cast<double>(floats(1)->second[0]) - floats(0)->second[0]) /
                                   static_cast<double>(floats(2)->second[0]));
    if (!(count < 1e9)) return InvalidArgument("Range makes too many numbers");
    return Shape{static_cast<std::int64_t>(std::max(count, 0.))};
  }
  Ints v;
  for (const int i : {0, 1, 2}) {
    ASSIGN_OR_RETURN(const Ints one, KnownInts(n, s, i));
    if (one.size() != 1) return InvalidArgument("Range takes three numbers");
    v.push_back(one[0]);
  }
  if (v[1] == kOfBatch && v[0] != kOfBatch && v[2] != kOfBatch) return Shape{-1};
  std::int64_t span = 0;
  if (v[0] == kOfBatch || v[2] == kOfBatch || v[2] == 0 || __builtin_sub_overflow(v[1], v[0], &span))
    return Unimplemented("Range from " + std::to_string(v[0]) + " in steps of " + std::to_string(v[2]));
  if ((span > 0) != (v[2] > 0) || span == 0) return Shape{0};
  return Shape{span / v[2] + (span % v[2] != 0 ? 1 : 0)};
}

}  // namespace

std::vector<Rule> ShapeRules() {
  return {
      {"Concat", 1, One<InferConcat>, GradConcat},
      {"DepthToSpace", 1, One<InferBlocks>, GradDepthToSpace},
      {"Expand", 2, One<InferExpand>, GradExpand},
      {"Flatten", 1, One<InferFlatten>, GradReshape},
      {"Reshape", 2, One<InferReshape>, GradReshape},
      {"SpaceToDepth", 1, One<InferBlocks>, GradSpaceToDepth},
      {"Split", 1, InferSplit, GradSplit, nullptr, true},
      {"Squeeze", 1, One<InferSqueeze>, GradReshape},
      {"Tile", 2, One<InferTile>, GradTile},
      {"Transpose", 1, One<InferTranspose>, GradTranspose},
      {"Unsqueeze", 2, One<InferUnsqueeze>, GradReshape},
      {"ConstantOfShape", 1, One<InferConstantOfShape>, nullptr},
      {"Range", 3, One<InferRange>, nullptr},
      {"Shape", 1, One<InferShape>, nullptr},
      {"Size", 1, One<InferSize>, nullptr},
  };
}

}  // namespace ganglion::gradient
