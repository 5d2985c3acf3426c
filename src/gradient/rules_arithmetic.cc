// Elementwise operators with broadcasting, softmax, comparisons.
//
// Where a function has a corner, its gradient there is: Relu, LeakyRelu, PRelu, HardSwish, ThresholdedRelu: of the left
// side; Abs and Sign: 0; Max and Min: shared evenly among the inputs that attain it; Clip: 1 on its bounds, as in
// PyTorch.
#include <cmath>

#include "gradient/rules.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Node = onnx::NodeProto;
using tensor::Shape;

// ---- broadcasting --------------------------------------------------------------------------------------------------

Status GradAdd(Backward& b) {
  for (int i = 0; i < b.n.input_size(); ++i) {
    if (b.wanted(i)) b.GiveReduced(i, b.dy);
  }
  return {};
}

Status GradSub(Backward& b) {
  if (b.wanted(0)) b.GiveReduced(0, b.dy);
  if (b.wanted(1)) b.GiveReduced(1, -b.Dy());
  return {};
}

Status GradMul(Backward& b) {
  if (b.wanted(0)) b.GiveReduced(0, b.Dy() * b.X(1));
  if (b.wanted(1)) b.GiveReduced(1, b.Dy() * b.X(0));
  return {};
}

Status GradDiv(Backward& b) {
  const Term quotient = b.Dy() / b.X(1);
  if (b.wanted(0)) b.GiveReduced(0, quotient);
  if (b.wanted(1)) b.GiveReduced(1, -(quotient * b.Y()));
  return {};
}

Status GradMean(Backward& b) {
  const Term share = b.Dy() * (1.f / static_cast<float>(b.n.input_size()));
  for (int i = 0; i < b.n.input_size(); ++i) {
    if (b.wanted(i)) b.GiveReduced(i, share);
  }
  return {};
}

// The exponent, where it is one known number.
std::optional<float> KnownExponent(const Backward& b) {
  if (const auto f = b.shapes().floats.find(b.x(1)); f != b.shapes().floats.end() && f->second.size() == 1)
    return f->second[0];
  if (const auto i = b.shapes().ints.find(b.x(1)); i != b.shapes().ints.end() && i->second.size() == 1)
    return static_cast<float>(i->second[0]);
  return std::nullopt;
}

// d(a^e) = e a^(e-1) da + a^e log(a) de; the second is 0 at a = 0.
Status GradPow(Backward& b) {
  if (b.wanted(0)) {
    const auto e = KnownExponent(b);
    if (e == 2.f) {
      b.GiveReduced(0, b.Dy() * (b.X(0) * 2));
    } else if (e) {
      b.GiveReduced(0, b.Dy() * (b.X(0).With("Pow", *e - 1) * *e));
    } else {
      const Term exponent = b.X(1).Then("Cast", {{"to", std::int64_t{onnx::TensorProto::FLOAT}}});
      b.GiveReduced(0, b.Dy() * (exponent * b.X(0).With("Pow", exponent - 1)));
    }
  }
  if (b.wanted(1)) {
    const std::string zero = b.g.Scalar("zero", 0);
    const std::string log = b.g.Node("Where", {b.X(0).With("Equal", zero), zero, b.X(0).Then("Log")});
    b.GiveReduced(1, b.Dy() * (b.Y() * Term(b.g, log)));
  }
  return {};
}

// x mod m moves with x; it has no gradient by m here.
Status GradMod(Backward& b) {
  if (b.wanted(0)) b.GiveReduced(0, b.dy);
  return {};
}

// Of two inputs: the step function of their difference is 1, 1/2 (a tie) or 0.
void GradOfTwo(Backward& b, bool max) {
  const Term over = max ? b.X(0) - b.X(1) : b.X(1) - b.X(0);
  const Term first = b.Dy() * over.Step(.5f);
  if (b.wanted(0)) b.GiveReduced(0, first);
  if (b.wanted(1)) b.GiveReduced(1, b.Dy() - first);
}

Term Equals(const Term& a, const Term& b) {
  return a.With("Equal", b).Then("Cast", {{"to", std::int64_t{onnx::TensorProto::FLOAT}}});
}

Status GradMaxOrMin(Backward& b) {
  const int inputs = b.n.input_size();
  if (inputs == 1) b.Give(0, b.dy);
  if (inputs == 2) GradOfTwo(b, b.n.op_type() == "Max");
  if (inputs <= 2) return {};
  std::vector<Term> attains;
  attains.reserve(static_cast<std::size_t>(inputs));
  for (int i = 0; i < inputs; ++i) attains.push_back(Equals(b.X(i), b.Y()));
  Term count = attains[0];
  for (std::size_t i = 1; i < attains.size(); ++i) count = count + attains[i];
  const Term share = b.Dy() / count;
  for (int i = 0; i < inputs; ++i) {
    if (b.wanted(i)) b.GiveReduced(i, share * attains[static_cast<std::size_t>(i)]);
  }
  return {};
}

// Nothing was clipped where y = x.
Status GradClip(Backward& b) {
  if (b.wanted(0)) b.Give(0, b.Dy() * Equals(b.X(0), b.Y()));
  return {};
}

Status GradWhere(Backward& b) {
  const std::string zero = b.g.Scalar("zero", 0);
  if (b.wanted(1)) b.GiveReduced(1, b.g.Node("Where", {b.x(0), b.dy, zero}));
  if (b.wanted(2)) b.GiveReduced(2, b.g.Node("Where", {b.x(0), zero, b.dy}));
  return {};
}

// y = x where x > 0, slope x elsewhere.
Status GradPRelu(Backward& b) {
  const Term positive = b.X(0).Step();
  if (b.wanted(0)) b.Give(0, b.Dy() * (positive + (1 - positive) * b.X(1)));
  if (b.wanted(1)) b.GiveReduced(1, b.Dy() * b.X(0).With("Min", 0.f));
  return {};
}

// ---- of one number -------------------------------------------------------------------------------------------------

// A rule of dx = dy y'(x): the function gives y'.
template <Term (*Slope)(const Backward&)>
Status Times(Backward& b) {
  b.Give(0, b.Dy() * Slope(b));
  return {};
}

float Alpha(const Backward& b, float otherwise) { return graph::FloatAttribute(b.n, "alpha", otherwise); }

Term SlopeAbs(const Backward& b) { return b.X(0).Then("Sign"); }
Term SlopeAcos(const Backward& b) { return -1 / (1 - b.X(0) * b.X(0)).Then("Sqrt"); }
Term SlopeAcosh(const Backward& b) { return 1 / (b.X(0) * b.X(0) - 1).Then("Sqrt"); }
Term SlopeAsin(const Backward& b) { return 1 / (1 - b.X(0) * b.X(0)).Then("Sqrt"); }
Term SlopeAsinh(const Backward& b) { return 1 / (b.X(0) * b.X(0) + 1).Then("Sqrt"); }
Term SlopeAtan(const Backward& b) { return 1 / (1 + b.X(0) * b.X(0)); }
Term SlopeAtanh(const Backward& b) { return 1 / (1 - b.X(0) * b.X(0)); }
Term SlopeCos(const Backward& b) { return -b.X(0).Then("Sin"); }
Term SlopeCosh(const Backward& b) { return b.X(0).Then("Sinh"); }
Term SlopeErf(const Backward& b) { return (-(b.X(0) * b.X(0))).Then("Exp") * static_cast<float>(M_2_SQRTPI); }
Term SlopeExp(const Backward& b) { return b.Y(); }
Term SlopeReciprocal(const Backward& b) { return -(b.Y() * b.Y()); }
Term SlopeRelu(const Backward& b) { return b.Y().Step(); }
Term SlopeSigmoid(const Backward& b) { return b.Y() - b.Y() * b.Y(); }
Term SlopeSin(const Backward& b) { return b.X(0).Then("Cos"); }
Term SlopeSinh(const Backward& b) { return b.X(0).Then("Cosh"); }
Term SlopeSoftplus(const Backward& b) { return b.X(0).Then("Sigmoid"); }
Term SlopeSqrt(const Backward& b) { return .5f / b.Y(); }
Term SlopeTan(const Backward& b) { return 1 + b.Y() * b.Y(); }
Term SlopeTanh(const Backward& b) { return 1 - b.Y() * b.Y(); }
Term SlopeThresholdedRelu(const Backward& b) { return (b.X(0) - Alpha(b, 1)).Step(); }
Term SlopeCelu(const Backward& b) { return (b.X(0).With("Min", 0.f) * (1 / Alpha(b, 1))).Then("Exp"); }

Term SlopeSoftsign(const Backward& b) {
  const Term r = 1 / (1 + b.X(0).Then("Abs"));
  return r * r;
}

// Below 0 the function is y = left (exp(x) - 1), so y' = y + left; above, y' = right.
Term SlopeOfExponential(const Backward& b, float left, float right) {
  const Term below = b.Y().With("Min", 0.f) + left;
  return left == right ? below : below + b.Y().Step() * (right - left);
}
Term SlopeElu(const Backward& b) { return SlopeOfExponential(b, Alpha(b, 1), 1); }
Term SlopeSelu(const Backward& b) {
  const float gamma = graph::FloatAttribute(b.n, "gamma", 1.05070102214813232421875f);
  return SlopeOfExponential(b, gamma * Alpha(b, 1.67326319217681884765625f), gamma);
}

// Up to alpha = 1 the slope is the larger of the step and alpha.
Term SlopeLeakyRelu(const Backward& b) {
  const float alpha = Alpha(b, .01f);
  const Term step = b.X(0).Step();
  return alpha <= 1 && alpha >= 0 ? step.With("Max", alpha) : step * (1 - alpha) + alpha;
}

// y - y^2 > 0 where 0 < y < 1.
Term SlopeHardSigmoid(const Backward& b) { return (b.Y() - b.Y() * b.Y()).Step() * Alpha(b, .2f); }

// y = x h(x), h = clip(x/6 + 1/2, 0, 1); h' = 1/6 where 9 - x^2 > 0.
Term SlopeHardSwish(const Backward& b) {
  const Term h = b.X(0).Then("HardSigmoid", {{"alpha", 1.f / 6}, {"beta", .5f}});
  return h + b.X(0) * (9 - b.X(0) * b.X(0)).Step() * (1.f / 6);
}

Status GradNeg(Backward& b) {
  b.Give(0, -b.Dy());
  return {};
}

Status GradLog(Backward& b) {
  b.Give(0, b.Dy() / b.X(0));
  return {};
}

Status GradIdentity(Backward& b) {
  b.Give(0, b.dy);
  return {};
}

// Gradients stay FP32: they go through a cast from FP32 to FP32 and end at any other.
Status ForwardCast(Forward& f) {
  const bool to_float = graph::IntAttribute(*f.n, "to", 0) == onnx::TensorProto::FLOAT;
  const bool to_other_float = graph::IntAttribute(*f.n, "to", 0) == onnx::TensorProto::DOUBLE ||
                              graph::IntAttribute(*f.n, "to", 0) == onnx::TensorProto::FLOAT16;
  if (f.needs_gradient && to_other_float) return Unimplemented("training computes in FP32, this casts to another");
  f.needs_gradient = f.needs_gradient && to_float;
  return {};
}

// ---- along an axis -------------------------------------------------------------------------------------------------

Term SumOverAxis(const Backward& b, const Term& v) {
  const std::string axis = b.g.Ints("axis", {graph::IntAttribute(b.n, "axis", -1)});
  return {b.g, b.g.Node("ReduceSum", {v, axis}, {KeepDims(true)})};
}

// dx = y (dy - sum(dy y))
Status GradSoftmax(Backward& b) {
  b.Give(0, b.Y() * (b.Dy() - SumOverAxis(b, b.Dy() * b.Y())));
  return {};
}

// dx = dy - exp(y) sum(dy)
Status GradLogSoftmax(Backward& b) {
  b.Give(0, b.Dy() - b.Y().Then("Exp") * SumOverAxis(b, b.Dy()));
  return {};
}

Status GradCumSum(Backward& b) {
  const std::int64_t reverse = graph::IntAttribute(b.n, "reverse", 0);
  const std::int64_t exclusive = graph::IntAttribute(b.n, "exclusive", 0);
  b.Give(0, b.g.Node("CumSum", {b.dy, b.x(1)}, {{"reverse", 1 - reverse}, {"exclusive", exclusive}}));
  return {};
}

// ---- shapes --------------------------------------------------------------------------------------------------------

Result<Shape> BroadcastAll(const Node& n, const Shapes& s) {
  Shape y = In(n, s, 0);
  for (int i = 1; i < n.input_size(); ++i) {
    ASSIGN_OR_RETURN(y, Broadcast(y, In(n, s, i)));
  }
  return y;
}

Result<Shape> InferAlongAxis(const Node& n, const Shapes& s) {
  RETURN_IF_ERROR(Axis(graph::IntAttribute(n, "axis", -1), In(n, s, 0).size()).status());
  return In(n, s, 0);
}

Result<Shape> InferPRelu(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const Shape y, BroadcastInputs(n, s));
  if (y != In(n, s, 0))
    return InvalidArgument("slope " + tensor::ShapeText(In(n, s, 1)) + " does not broadcast to " +
                           tensor::ShapeText(In(n, s, 0)));
  return y;
}

}  // namespace

std::vector<Rule> ArithmeticRules() {
  constexpr auto kSame = One<SameAsInput>;
  constexpr auto kTwo = One<BroadcastInputs>;
  constexpr auto kAll = One<BroadcastAll>;
  constexpr auto kAxis = One<InferAlongAxis>;
  return {
      {"Add", 2, kTwo, GradAdd},
      {"Sub", 2, kTwo, GradSub},
      {"Mul", 2, kTwo, GradMul},
      {"Div", 2, kTwo, GradDiv},
      {"Pow", 2, kTwo, GradPow},
      {"Mod", 2, kTwo, GradMod},
      {"PRelu", 2, One<InferPRelu>, GradPRelu},
      {"Where", 3, kAll, GradWhere},
      {"Sum", 1, kAll, GradAdd},
      {"Mean", 1, kAll, GradMean},
      {"Max", 1, kAll, GradMaxOrMin},
      {"Min", 1, kAll, GradMaxOrMin},
      {"Clip", 1, kSame, GradClip},
      {"Identity", 1, kSame, GradIdentity},
      {"Cast", 1, kSame, GradIdentity, ForwardCast},
      {"Neg", 1, kSame, GradNeg},
      {"Log", 1, kSame, GradLog},
      {"Abs", 1, kSame, Times<SlopeAbs>},
      {"Acos", 1, kSame, Times<SlopeAcos>},
      {"Acosh", 1, kSame, Times<SlopeAcosh>},
      {"Asin", 1, kSame, Times<SlopeAsin>},
      {"Asinh", 1, kSame, Times<SlopeAsinh>},
      {"Atan", 1, kSame, Times<SlopeAtan>},
      {"Atanh", 1, kSame, Times<SlopeAtanh>},
      {"Celu", 1, kSame, Times<SlopeCelu>},
      {"Cos", 1, kSame, Times<SlopeCos>},
      {"Cosh", 1, kSame, Times<SlopeCosh>},
      {"Elu", 1, kSame, Times<SlopeElu>},
      {"Erf", 1, kSame, Times<SlopeErf>},
      {"Exp", 1, kSame, Times<SlopeExp>},
      {"HardSigmoid", 1, kSame, Times<SlopeHardSigmoid>},
      {"HardSwish", 1, kSame, Times<SlopeHardSwish>},
      {"LeakyRelu", 1, kSame, Times<SlopeLeakyRelu>},
      {"Reciprocal", 1, kSame, Times<SlopeReciprocal>},
      {"Relu", 1, kSame, Times<SlopeRelu>},
      {"Selu", 1, kSame, Times<SlopeSelu>},
      {"Sigmoid", 1, kSame, Times<SlopeSigmoid>},
      {"Sin", 1, kSame, Times<SlopeSin>},
      {"Sinh", 1, kSame, Times<SlopeSinh>},
      {"Softplus", 1, kSame, Times<SlopeSoftplus>},
      {"Softsign", 1, kSame, Times<SlopeSoftsign>},
      {"Sqrt", 1, kSame, Times<SlopeSqrt>},
      {"Tan", 1, kSame, Times<SlopeTan>},
      {"Tanh", 1, kSame, Times<SlopeTanh>},
      {"ThresholdedRelu", 1, kSame, Times<SlopeThresholdedRelu>},
      {"LogSoftmax", 1, kAxis, GradLogSoftmax},
      {"Softmax", 1, kAxis, GradSoftmax},
      {"CumSum", 2, kSame, GradCumSum},
      // Constant between jumps, or a truth: no gradient.
      {"Ceil", 1, kSame, nullptr},
      {"Floor", 1, kSame, nullptr},
      {"Round", 1, kSame, nullptr},
      {"Sign", 1, kSame, nullptr},
      {"Not", 1, kSame, nullptr},
      {"IsInf", 1, kSame, nullptr},
      {"IsNaN", 1, kSame, nullptr},
      {"And", 2, kTwo, nullptr},
      {"Or", 2, kTwo, nullptr},
      {"Xor", 2, kTwo, nullptr},
      {"Equal", 2, kTwo, nullptr},
      {"Greater", 2, kTwo, nullptr},
      {"GreaterOrEqual", 2, kTwo, nullptr},
      {"Less", 2, kTwo, nullptr},
      {"LessOrEqual", 2, kTwo, nullptr},
  };
}

}  // namespace ganglion::gradient
