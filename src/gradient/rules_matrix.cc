// Products of matrices.
#include "gradient/rules.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Node = onnx::NodeProto;
using tensor::Shape;

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

// A vector is a row on the left and a column on the right.
Shape AsLeft(Shape s) {
  if (s.size() == 1) s.insert(s.begin(), 1);
  return s;
}
Shape AsRight(Shape s) {
  if (s.size() == 1) s.push_back(1);
  return s;
}

Result<Shape> Leading(const Shape& a, const Shape& b) {
  return Broadcast(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
}

Result<Shape> InferMatMul(const Node& n, const Shapes& s) {
  const Shape& sa = In(n, s, 0);
  const Shape& sb = In(n, s, 1);
  if (sa.empty() || sb.empty())
    return InvalidArgument("MatMul of " + tensor::ShapeText(sa) + " and " + tensor::ShapeText(sb));
  const Shape a = AsLeft(sa);
  const Shape b = AsRight(sb);
  if (a.back() != b[b.size() - 2])
    return InvalidArgument("inner sizes differ: " + tensor::ShapeText(sa) + " and " + tensor::ShapeText(sb));
  ASSIGN_OR_RETURN(Shape y, Leading(a, b));
  if (sa.size() > 1) y.push_back(a[a.size() - 2]);
  if (sb.size() > 1) y.push_back(b.back());
  return y;
}

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

// A product with vectors made matrices, being differentiated.
struct Product2 {
  std::string x, w, dy;  // their names
  Shape sx, sw, sy;      // and shapes; sy has the leading axes of both and rows x columns
};

Result<Product2> AsMatrices(Backward& b) {
  Product2 p{b.x(0), b.x(1), b.dy, AsLeft(b.ShapeOfInput(0)), AsRight(b.ShapeOfInput(1)), {}};
  ASSIGN_OR_RETURN(p.sy, Leading(p.sx, p.sw));
  p.sy.push_back(p.sx[p.sx.size() - 2]);
  p.sy.push_back(p.sw.back());
  const auto unsqueeze = [&](const std::string& v, std::int64_t axis) {
    return b.g.Node("Unsqueeze", {v, b.g.Ints("axis", {axis})});
  };
  if (b.ShapeOfInput(1).size() == 1) {
    p.w = unsqueeze(p.w, 1);
    p.dy = unsqueeze(p.dy, -1);
  }
  if (b.ShapeOfInput(0).size() == 1) {
    p.x = unsqueeze(p.x, 0);
    p.dy = unsqueeze(p.dy, -2);
  }
  return p;
}

// dX = dY W', summed over what broadcasting repeated.
std::string GradLeft(Backward& b, const Product2& p) {
  if (p.sx.size() == 2 && p.sw.size() == 2) return b.g.Node("Gemm", {p.dy, p.w}, {{"transB", std::int64_t{1}}});
  const std::string dx = b.g.Node("MatMul", {p.dy, b.SwapLast(p.w, p.sw.size())});
  Shape full(p.sy.begin(), p.sy.end() - 2);
  full.insert(full.end(), p.sx.end() - 2, p.sx.end());
  return b.SumTo(dx, full, p.sx);
}

// dW = X' dY. One matrix for many: all leading axes are rows of one product.
std::string GradRight(Backward& b, const Product2& p) {
  if (p.sw.size() == 2 && p.sx.size() > 2 && p.sx.back() > 0 && p.sw.back() > 0) {
    const std::string x2 = b.g.Node("Reshape", {p.x, b.g.Ints("rows", {-1, p.sx.back()})});
    const std::string d2 = b.g.Node("Reshape", {p.dy, b.g.Ints("rows", {-1, p.sw.back()})});
    return b.g.Node("MatMul", {b.SwapLast(x2, 2), d2});
  }
  const std::string dw = b.g.Node("MatMul", {b.SwapLast(p.x, p.sx.size()), p.dy});
  Shape full(p.sy.begin(), p.sy.end() - 2);
  full.insert(full.end(), p.sw.end() - 2, p.sw.end());
  return b.SumTo(dw, full, p.sw);
}

Status GradMatMul(Backward& b) {
  ASSIGN_OR_RETURN(const Product2 p, AsMatrices(b));
  const auto give = [&](int i, const std::string& gradient) {
    b.Give(i, b.ShapeOfInput(i).size() == 1 ? b.ReshapeLikeInput(gradient, i) : gradient);
  };
  if (b.wanted(0)) give(0, GradLeft(b, p));
  if (b.wanted(1)) give(1, GradRight(b, p));
  return {};
}

}  // namespace

std::vector<Rule> MatrixRules() {
  return {
      {"Gemm", 2, One<InferGemm>, GradGemm},
      {"MatMul", 2, One<InferMatMul>, GradMatMul},
  };
}

}  // namespace ganglion::gradient
