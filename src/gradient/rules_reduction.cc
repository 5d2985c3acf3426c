// Reductions. Where several numbers attain a maximum or minimum, they share its gradient evenly.
#include <algorithm>
#include <numeric>

#include "gradient/rules.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Shape;

const graph::Attribute kToFloat{"to", std::int64_t{onnx::TensorProto::FLOAT}};

// The axes of ReduceSum (an input since operator set 13) and ReduceMean (an attribute until 18), none meaning all.
Result<Ints> ReductionAxes(const Node& n, const Shapes& s) {
  Ints axes;
  if (const auto a = graph::IntsAttribute(n, "axes")) {
    axes = *a;
  } else if (n.input_size() > 1 && !n.input(1).empty()) {
    ASSIGN_OR_RETURN(axes, KnownInts(n, s, 1));
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

// A reduction being differentiated: `y` and `dy` with the reduced axes kept, so that they broadcast over x.
struct Kept {
  Ints axes;
  Term y;
  Term dy;
};
Result<Kept> Keep(const Backward& b) {
  ASSIGN_OR_RETURN(Ints axes, ReductionAxes(b.n, b.shapes()));
  const bool dropped = graph::IntAttribute(b.n, "keepdims", 1) == 0 && !axes.empty();
  if (!dropped) return Kept{std::move(axes), b.Y(), b.Dy()};
  const std::string list = b.g.Ints("axes", axes);
  Term y = b.Y().With("Unsqueeze", list);
  Term dy = b.Dy().With("Unsqueeze", list);
  return Kept{std::move(axes), std::move(y), std::move(dy)};
}

// Every summand gets the sum's gradient.
Term Spread(const Backward& b, const Term& dy) { return dy.With("Expand", b.X(0).Then("Shape")); }

Status GradReduceSum(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  b.Give(0, Spread(b, kept.dy));
  return {};
}

Status GradReduceMean(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  std::int64_t count = 1;
  for (const auto a : kept.axes) {
    const auto d = b.ShapeOfInput(0)[static_cast<std::size_t>(a)];
    if (d < 0 || count < 0 || __builtin_mul_overflow(count, d, &count)) count = -1;
  }
  if (count >= 0) {
    b.Give(0, Spread(b, kept.dy * (1 / static_cast<float>(count))));
  } else {  // the batch is among them: count while running
    const Term share = b.Y().Then("Size").Then("Cast", {kToFloat}) / b.X(0).Then("Size").Then("Cast", {kToFloat});
    b.Give(0, Spread(b, kept.dy * share));
  }
  return {};
}

Status GradReduceExtreme(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  const Term attains = b.X(0).With("Equal", kept.y).Then("Cast", {kToFloat});
  const Term count = {b.g, b.g.Node("ReduceSum", {attains, b.g.Ints("axes", kept.axes)}, {KeepDims(true)})};
  b.Give(0, attains * (kept.dy / count));
  return {};
}

Status GradReduceSumSquare(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  b.Give(0, b.X(0) * (kept.dy * 2));
  return {};
}

// x / |x|, and 0 where everything is 0.
Status GradReduceL2(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  b.Give(0, b.X(0) * (kept.dy / kept.y.With("Max", 1e-30f)));
  return {};
}

Status GradReduceL1(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  b.Give(0, b.X(0).Then("Sign") * kept.dy);
  return {};
}

Status GradReduceLogSum(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  b.Give(0, Spread(b, kept.dy * (-kept.y).Then("Exp")));
  return {};
}

Status GradReduceLogSumExp(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  b.Give(0, kept.dy * (b.X(0) - kept.y).Then("Exp"));
  return {};
}

// The product of the others. With zeros counted as ones it is p / x where nothing is zero; next to one zero it is p at
// the zero alone, next to more it is 0.
Status GradReduceProd(Backward& b) {
  ASSIGN_OR_RETURN(const Kept kept, Keep(b));
  const std::string axes_attribute = "axes";
  const Term zero = b.X(0).With("Equal", 0.f).Then("Cast", {kToFloat});
  const Term x = b.X(0) + zero;
  const Term p = x.Then("ReduceProd", {{axes_attribute, kept.axes}, KeepDims(true)});
  const Term zeros = {b.g, b.g.Node("ReduceSum", {zero, b.g.Ints("axes", kept.axes)}, {KeepDims(true)})};
  const Term others_fine = (zeros - zero).With("Equal", 0.f).Then("Cast", {kToFloat});
  b.Give(0, kept.dy * (p / x) * others_fine);
  return {};
}

// ArgMax and ArgMin reduce one axis.
Result<Shape> InferArg(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  ASSIGN_OR_RETURN(const std::int64_t axis, Axis(graph::IntAttribute(n, "axis", 0), y.size()));
  if (graph::IntAttribute(n, "keepdims", 1) != 0) {
    y[static_cast<std::size_t>(axis)] = 1;
  } else {
    y.erase(y.begin() + axis);
  }
  return y;
}

}  // namespace

std::vector<Rule> ReductionRules() {
  constexpr auto kReduce = One<InferReduce>;
  return {
      {"ReduceL1", 1, kReduce, GradReduceL1},         {"ReduceL2", 1, kReduce, GradReduceL2},
      {"ReduceLogSum", 1, kReduce, GradReduceLogSum}, {"ReduceLogSumExp", 1, kReduce, GradReduceLogSumExp},
      {"ReduceMax", 1, kReduce, GradReduceExtreme},   {"ReduceMean", 1, kReduce, GradReduceMean},
      {"ReduceMin", 1, kReduce, GradReduceExtreme},   {"ReduceProd", 1, kReduce, GradReduceProd},
      {"ReduceSum", 1, kReduce, GradReduceSum},       {"ReduceSumSquare", 1, kReduce, GradReduceSumSquare},
      {"ArgMax", 1, One<InferArg>, nullptr},          {"ArgMin", 1, One<InferArg>, nullptr},
  };
}

}  // namespace ganglion::gradient
