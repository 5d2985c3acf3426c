#include "gradient/rules.h"

#include <algorithm>
#include <numeric>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Shape;

// ---- what the rules share ------------------------------------------------------------------------------------------

const Shape& In(const Node& n, const Shapes& s, int i) { return s.shape.at(n.input(i)); }

Result<std::int64_t> Axis(std::int64_t axis, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  if (axis < -r || axis >= r)
    return InvalidArgument("axis " + std::to_string(axis) + " of a tensor with " + std::to_string(rank) +
                           " dimensions");
  return axis < 0 ? axis + r : axis;
}

std::int64_t Product(const Shape& s, std::size_t from, std::size_t to) {
  std::int64_t p = 1;
  for (std::size_t i = from; i < to; ++i) {
    if (s[i] < 0 || __builtin_mul_overflow(p, s[i], &p)) return -1;
  }
  return p;
}

Attribute KeepDims(bool keep) { return {"keepdims", std::int64_t{keep}}; }

// The axes of ReduceSum (an input since operator set 13) and ReduceMean (an attribute until 18), none meaning all.
Result<Ints> ReductionAxes(const Node& n, const Shapes& s) {
  Ints axes;
  if (const auto a = graph::IntsAttribute(n, "axes")) {
    axes = *a;
  } else if (n.input_size() > 1 && !n.input(1).empty()) {
    const auto known = s.ints.find(n.input(1));
    if (known == s.ints.end()) return Unimplemented("axes that are computed while running");
    axes = known->second;
  }
  const std::size_t rank = In(n, s, 0).size();
  if (axes.empty()) {
    if (graph::IntAttribute(n, "noop_with_empty_axes", 0) != 0) return axes;
    axes.resize(rank);
    std::iota(axes.begin(), axes.end(), 0);
  }
  for (auto& a : axes) {
    ASSIGN_OR_RETURN(a, Axis(a, rank));
  }
  std::sort(axes.begin(), axes.end());
  return axes;
}

// ---- shapes --------------------------------------------------------------------------------------------------------

Result<Shape> SameAsInput(const Node& n, const Shapes& s) { return In(n, s, 0); }
Result<Shape> BroadcastInputs(const Node& n, const Shapes& s) { return Broadcast(In(n, s, 0), In(n, s, 1)); }

Result<Shape> InferGemm(const Node& n, const Shapes& s) {
  const Shape& a = In(n, s, 0);
  const Shape& b = In(n, s, 1);
  if (a.size() != 2 || b.size() != 2)
    return InvalidArgument("Gemm takes matrices, got " + tensor::ShapeText(a) + " and " + tensor::ShapeText(b));
  const bool ta = graph::IntAttribute(n, "transA", 0) != 0;
  const bool tb = graph::IntAttribute(n, "transB", 0) != 0;
  if (a[ta ? 0 : 1] != b[tb ? 1 : 0])
    return InvalidArgument("inner sizes differ: " + tensor::ShapeText(a) + " and " + tensor::ShapeText(b));
  const Shape y{a[ta ? 1 : 0], b[tb ? 0 : 1]};
  if (n.input_size() > 2 && !n.input(2).empty()) {
    const Shape& c = In(n, s, 2);
    const auto sum = Broadcast(y, c);
    if (c.size() > 2 || !sum.ok() || *sum != y)
      return InvalidArgument("C of shape " + tensor::ShapeText(c) + " does not broadcast to " + tensor::ShapeText(y));
  }
  return y;
}

Result<Shape> InferMatMul(const Node& n, const Shapes& s) {
  const Shape& a = In(n, s, 0);
  const Shape& b = In(n, s, 1);
  if (a.size() < 2 || b.size() < 2) return Unimplemented("MatMul with a vector; reshape it to a matrix");
  if (a.back() != b[b.size() - 2])
    return InvalidArgument("inner sizes differ: " + tensor::ShapeText(a) + " and " + tensor::ShapeText(b));
  ASSIGN_OR_RETURN(Shape y, Broadcast(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2)));
  y.push_back(a[a.size() - 2]);
  y.push_back(b.back());
  return y;
}

Result<Shape> InferReshape(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const auto known = s.ints.find(n.input(1));
  if (known == s.ints.end()) return Unimplemented("a shape that is computed while running");
  Shape y = known->second;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (y[i] == 0 && graph::IntAttribute(n, "allowzero", 0) == 0) {
      if (i >= x.size())
        return InvalidArgument("shape copies dimension " + std::to_string(i) + " of a tensor with " +
                               std::to_string(x.size()));
      y[i] = x[i];
    }
  }
  // A single -1 can be computed when everything else is known.
  const auto unknown = std::count(y.begin(), y.end(), -1);
  const std::int64_t total = Product(x, 0, x.size());
  if (unknown == 1 && total >= 0) {
    std::int64_t others = 1;
    for (const auto d : y) {
      if (d >= 0 && __builtin_mul_overflow(others, d, &others)) others = 0;
    }
    if (others == 0 || total % others != 0)
      return InvalidArgument(tensor::ShapeText(x) + " does not reshape to " + tensor::ShapeText(y));
    *std::find(y.begin(), y.end(), -1) = total / others;
  }
  return y;
}

Result<Shape> InferFlatten(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const std::int64_t asked = graph::IntAttribute(n, "axis", 1);
  const auto axis = static_cast<std::size_t>(asked < 0 ? asked + static_cast<std::int64_t>(x.size())
                                                       : asked);  // a negative sum is huge
  if (axis > x.size()) return InvalidArgument("axis " + std::to_string(asked) + " of " + tensor::ShapeText(x));
  return Shape{Product(x, 0, axis), Product(x, axis, x.size())};
}

Result<Shape> InferReduce(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const Ints axes, ReductionAxes(n, s));
  const bool keep = graph::IntAttribute(n, "keepdims", 1) != 0;
  Shape y;
  const Shape& x = In(n, s, 0);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const bool reduced = std::binary_search(axes.begin(), axes.end(), static_cast<std::int64_t>(i));
    if (!reduced) y.push_back(x[i]);
    if (reduced && keep) y.push_back(1);
  }
  return y;
}

Ints Permutation(const Node& n, std::size_t rank) {
  if (auto perm = graph::IntsAttribute(n, "perm")) return *perm;
  Ints perm(rank);
  for (std::size_t i = 0; i < rank; ++i) perm[i] = static_cast<std::int64_t>(rank - 1 - i);
  return perm;
}

Result<Shape> InferTranspose(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  Ints perm = Permutation(n, x.size());
  Ints sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted.size() != x.size() || sorted[i] != static_cast<std::int64_t>(i))
      return InvalidArgument("perm is no permutation of " + tensor::ShapeText(x));
  }
  Shape y;
  for (const auto p : perm) y.push_back(x[static_cast<std::size_t>(p)]);
  return y;
}

// ---- gradients -----------------------------------------------------------------------------------------------------

// Y = alpha A' B' + beta C. Products with a transposed left operand are written as Transpose and MatMul: the runtime's
// Gemm is slow with transA (ADR 3).
Status GradGemm(Backward& b) {
  const bool ta = graph::IntAttribute(b.n, "transA", 0) != 0;
  const bool tb = graph::IntAttribute(b.n, "transB", 0) != 0;
  const float alpha = graph::FloatAttribute(b.n, "alpha", 1);
  const float beta = graph::FloatAttribute(b.n, "beta", 1);
  const auto product = [&](const std::string& left, bool left_t, const std::string& right, bool right_t) {
    const std::string l = left_t ? b.SwapLast(left, 2) : left;
    const std::string p =
        right_t ? b.g.Node("Gemm", {l, right}, {{"transB", std::int64_t{1}}}) : b.g.Node("MatMul", {l, right});
    return alpha == 1 ? p : b.g.Node("Mul", {p, b.g.Scalar("alpha", alpha)});
  };
  if (b.wanted(0)) b.Give(0, ta ? product(b.x(1), tb, b.dy, true) : product(b.dy, false, b.x(1), !tb));
  if (b.wanted(1)) b.Give(1, tb ? product(b.dy, true, b.x(0), ta) : product(b.x(0), !ta, b.dy, false));
  if (b.has(2) && b.wanted(2)) {
    b.GiveReduced(2, beta == 1 ? b.dy : b.g.Node("Mul", {b.dy, b.g.Scalar("beta", beta)}));
  }
  return {};
}

Status GradMatMul(Backward& b) {
  const Shape& sa = b.ShapeOfInput(0);
  const Shape& sb = b.ShapeOfInput(1);
  if (b.wanted(0)) {
    const std::string da = sb.size() == 2 && sa.size() == 2
                               ? b.g.Node("Gemm", {b.dy, b.x(1)}, {{"transB", std::int64_t{1}}})
                               : b.g.Node("MatMul", {b.dy, b.SwapLast(b.x(1), sb.size())});
    Shape full(b.ShapeOfOutput().begin(), b.ShapeOfOutput().end() - 2);
    full.insert(full.end(), sa.end() - 2, sa.end());
    b.Give(0, b.SumTo(da, full, sa));
  }
  if (b.wanted(1)) {
    if (sb.size() == 2 && sa.size() > 2) {  // one matrix for many: all leading axes are rows of one product
      const std::string a2 = b.g.Node("Reshape", {b.x(0), b.g.Ints("rows", {-1, sa.back()})});
      const std::string d2 = b.g.Node("Reshape", {b.dy, b.g.Ints("rows", {-1, sb.back()})});
      b.Give(1, b.g.Node("MatMul", {b.SwapLast(a2, 2), d2}));
    } else {
      const std::string db = b.g.Node("MatMul", {b.SwapLast(b.x(0), sa.size()), b.dy});
      Shape full(b.ShapeOfOutput().begin(), b.ShapeOfOutput().end() - 2);
      full.insert(full.end(), sb.end() - 2, sb.end());
      b.Give(1, b.SumTo(db, full, sb));
    }
  }
  return {};
}

Status GradAdd(Backward& b) {
  for (const int i : {0, 1}) {
    if (b.wanted(i)) b.GiveReduced(i, b.dy);
  }
  return {};
}

Status GradSub(Backward& b) {
  if (b.wanted(0)) b.GiveReduced(0, b.dy);
  if (b.wanted(1)) b.GiveReduced(1, b.g.Node("Neg", {b.dy}));
  return {};
}

Status GradMul(Backward& b) {
  if (b.wanted(0)) b.GiveReduced(0, b.g.Node("Mul", {b.dy, b.x(1)}));
  if (b.wanted(1)) b.GiveReduced(1, b.g.Node("Mul", {b.dy, b.x(0)}));
  return {};
}

Status GradDiv(Backward& b) {
  const std::string quotient = b.g.Node("Div", {b.dy, b.x(1)});
  if (b.wanted(0)) b.GiveReduced(0, quotient);
  if (b.wanted(1)) b.GiveReduced(1, b.g.Node("Neg", {b.g.Node("Mul", {quotient, b.y()})}));
  return {};
}

Status GradNeg(Backward& b) {
  b.Give(0, b.g.Node("Neg", {b.dy}));
  return {};
}

Status GradIdentity(Backward& b) {
  b.Give(0, b.dy);
  return {};
}

// HardSigmoid with a huge slope is the step function of y: one operator where Greater, Cast and Mul would be three.
Status GradRelu(Backward& b) {
  const std::string step = b.g.Node("HardSigmoid", {b.y()}, {{"alpha", 1e38f}, {"beta", 0.f}});
  b.Give(0, b.g.Node("Mul", {b.dy, step}));
  return {};
}

// y' = y (1 - y) = y - y^2
Status GradSigmoid(Backward& b) {
  const std::string slope = b.g.Node("Sub", {b.y(), b.g.Node("Mul", {b.y(), b.y()})});
  b.Give(0, b.g.Node("Mul", {b.dy, slope}));
  return {};
}

// y' = 1 - y^2
Status GradTanh(Backward& b) {
  const std::string slope = b.g.Node("Sub", {b.g.Scalar("one", 1), b.g.Node("Mul", {b.y(), b.y()})});
  b.Give(0, b.g.Node("Mul", {b.dy, slope}));
  return {};
}

// dx = y (dy - sum(dy y))
Status GradSoftmax(Backward& b) {
  const std::int64_t axis = graph::IntAttribute(b.n, "axis", -1);
  const std::string dot =
      b.g.Node("ReduceSum", {b.g.Node("Mul", {b.dy, b.y()}), b.g.Ints("axis", {axis})}, {KeepDims(true)});
  b.Give(0, b.g.Node("Mul", {b.y(), b.g.Node("Sub", {b.dy, dot})}));
  return {};
}

// dx = dy - exp(y) sum(dy)
Status GradLogSoftmax(Backward& b) {
  const std::int64_t axis = graph::IntAttribute(b.n, "axis", -1);
  const std::string sum = b.g.Node("ReduceSum", {b.dy, b.g.Ints("axis", {axis})}, {KeepDims(true)});
  b.Give(0, b.g.Node("Sub", {b.dy, b.g.Node("Mul", {b.g.Node("Exp", {b.y()}), sum})}));
  return {};
}

Status GradReshape(Backward& b) {
  b.Give(0, b.ReshapeLikeInput(b.dy, 0));
  return {};
}

Status GradTranspose(Backward& b) {
  const Ints perm = Permutation(b.n, b.ShapeOfInput(0).size());
  Ints inverse(perm.size());
  for (std::size_t i = 0; i < perm.size(); ++i)
    inverse[static_cast<std::size_t>(perm[i])] = static_cast<std::int64_t>(i);
  b.Give(0, b.g.Node("Transpose", {b.dy}, {{"perm", inverse}}));
  return {};
}

// Every summand gets the sum's gradient.
Result<std::string> SpreadOverInput(Backward& b) {
  ASSIGN_OR_RETURN(const Ints axes, ReductionAxes(b.n, b.shapes()));
  std::string dy = b.dy;
  if (graph::IntAttribute(b.n, "keepdims", 1) == 0 && !axes.empty())
    dy = b.g.Node("Unsqueeze", {dy, b.g.Ints("axes", axes)});
  return b.g.Node("Expand", {dy, b.g.Node("Shape", {b.x(0)})});
}

Status GradReduceSum(Backward& b) {
  ASSIGN_OR_RETURN(const std::string dx, SpreadOverInput(b));
  b.Give(0, dx);
  return {};
}

Status GradReduceMean(Backward& b) {
  ASSIGN_OR_RETURN(const std::string dx, SpreadOverInput(b));
  ASSIGN_OR_RETURN(const Ints axes, ReductionAxes(b.n, b.shapes()));
  std::int64_t count = 1;
  for (const auto a : axes) {
    const auto d = b.ShapeOfInput(0)[static_cast<std::size_t>(a)];
    count = d < 0 || count < 0 ? -1 : count * d;
  }
  if (count >= 0) {
    b.Give(0, b.g.Node("Mul", {dx, b.g.Scalar("one_over_count", 1.f / static_cast<float>(count))}));
  } else {  // the batch is among them: count while running
    const Attribute to_float{"to", std::int64_t{onnx::TensorProto::FLOAT}};
    const std::string of_x = b.g.Node("Cast", {b.g.Node("Size", {b.x(0)})}, {to_float});
    const std::string of_y = b.g.Node("Cast", {b.g.Node("Size", {b.y()})}, {to_float});
    b.Give(0, b.g.Node("Mul", {dx, b.g.Node("Div", {of_y, of_x})}));
  }
  return {};
}

}  // namespace

// ---- the table -----------------------------------------------------------------------------------------------------

const std::vector<Rule>& Rules() {
  static const std::vector<Rule> rules{
      {"Add", 2, BroadcastInputs, GradAdd},
      {"Div", 2, BroadcastInputs, GradDiv},
      {"Flatten", 1, InferFlatten, GradReshape},
      {"Gemm", 2, InferGemm, GradGemm},
      {"Identity", 1, SameAsInput, GradIdentity},
      {"LogSoftmax", 1, SameAsInput, GradLogSoftmax},
      {"MatMul", 2, InferMatMul, GradMatMul},
      {"Mul", 2, BroadcastInputs, GradMul},
      {"Neg", 1, SameAsInput, GradNeg},
      {"ReduceMean", 1, InferReduce, GradReduceMean},
      {"ReduceSum", 1, InferReduce, GradReduceSum},
      {"Relu", 1, SameAsInput, GradRelu},
      {"Reshape", 2, InferReshape, GradReshape},
      {"Sigmoid", 1, SameAsInput, GradSigmoid},
      {"Softmax", 1, SameAsInput, GradSoftmax},
      {"Sub", 2, BroadcastInputs, GradSub},
      {"Tanh", 1, SameAsInput, GradTanh},
      {"Transpose", 1, InferTranspose, GradTranspose},
  };
  return rules;
}

const Rule* FindRule(std::string_view op) {
  for (const Rule& rule : Rules()) {
    if (rule.op == op) return &rule;
  }
  return nullptr;
}

Result<Shape> Broadcast(const Shape& a, const Shape& b) {
  Shape y(std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::int64_t da = i < a.size() ? a[a.size() - 1 - i] : 1;
    const std::int64_t db = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (da != db && da != 1 && db != 1 && da >= 0 && db >= 0) {
      return InvalidArgument(tensor::ShapeText(a) + " and " + tensor::ShapeText(b) + " do not broadcast");
    }
    y[y.size() - 1 - i] = da == 1 ? db : db == 1 ? da : std::max(da, db);
  }
  return y;
}

std::string Backward::x(int i) const { return n.input(i); }
std::string Backward::y() const { return n.output(0); }
bool Backward::has(int i) const { return i < n.input_size() && !n.input(i).empty(); }

std::string Backward::SumTo(const std::string& value, const Shape& from, const Shape& to) {
  const std::size_t extra = from.size() - to.size();
  Ints leading(extra);
  std::iota(leading.begin(), leading.end(), 0);
  std::string v = value;
  if (extra > 0) v = g.Node("ReduceSum", {v, g.Ints("axes", leading)}, {KeepDims(false)});
  Ints inner;
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 1 && from[extra + i] != 1) inner.push_back(static_cast<std::int64_t>(i));
  }
  if (!inner.empty()) v = g.Node("ReduceSum", {v, g.Ints("axes", inner)}, {KeepDims(true)});
  return v;
}

std::string Backward::ReshapeLikeInput(const std::string& value, int i) {
  const Shape& shape = ShapeOfInput(i);
  const bool fixed = std::count(shape.begin(), shape.end(), -1) <= 1 && std::count(shape.begin(), shape.end(), 0) == 0;
  return g.Node("Reshape", {value, fixed ? g.Ints("shape", shape) : g.Node("Shape", {x(i)})});
}

std::string Backward::SwapLast(const std::string& value, std::size_t rank) {
  Ints perm(rank);
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm[rank - 1], perm[rank - 2]);
  return g.Node("Transpose", {value}, {{"perm", perm}});
}

}  // namespace ganglion::gradient
