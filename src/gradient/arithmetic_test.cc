// The cases of rules_arithmetic, rules_matrix and rules_reduction.
#include "gradient/cases_test.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using List = std::vector<std::int64_t>;

const Attribute kDrop{"keepdims", std::int64_t{0}};
Attribute Axis(std::int64_t axis) { return {"axis", axis}; }
Attribute Axes(List axes) { return {"axes", std::move(axes)}; }
Attribute Alpha(float alpha) { return {"alpha", alpha}; }

// Numbers of both signs that keep their distance from the corners at 0, +-1 and +-3.
const std::vector<double> kSides{-4, -2, -.5, .4, 1.5, 3.5, -3.2, 2.2, -.1, .1, -1.2, .9, 5, -.7, .6};

const std::vector<Case> kBroadcasting{
    Case("Add", "same shape", {P({2, 3}), P({2, 3})}),
    Case("Add", "bias", {P({2, 3}), P({3})}).Batched(),
    Case("Add", "column", {P({2, 1}), P({2, 3})}),
    Case("Add", "both ways", {P({2, 1, 3}), P({4, 1})}).Batched(),
    Case("Add", "one number", {P({2, 3}), P({1})}),
    Case("Add", "one element", {P({1, 1}), P({1})}),
    Case("Sub", "bias", {P({2, 3}), P({3})}).Batched(),
    Case("Sub", "both ways", {P({1, 3}), P({2, 1})}),
    Case("Mul", "same shape", {P({2, 3}), P({2, 3})}),
    Case("Mul", "row", {P({2, 3}), P({1, 3})}).Batched(),
    Case("Mul", "both ways", {P({2, 1, 3}), P({4, 1})}),
    Case("Div", "column", {P({2, 3}), P({2, 1})}).In(.5, 1.5),
    Case("Div", "bias", {P({2, 3}), P({3})}).In(.5, 1.5).Batched(),
    Case("Div", "both ways", {P({2, 1, 3}), P({4, 1})}).In(.5, 1.5),
    Case("Pow", "square", {P({3, 3}), C({}, {2})}).Batched(),
    Case("Pow", "integer exponent", {P({3, 3}), I({}, {3})}),
    Case("Pow", "half", {P({3, 3}), C({}, {.5})}).In(.5, 1.5),
    Case("Pow", "exponents, both trained", {P({2, 3}), P({3})}).In(.5, 1.5),
    Case("Pow", "exponent at base 0", {C({2, 2}, {0, 1.5, .7, 0}), P({2}, {2, 3})}),
    Case("Mod", "by a constant", {P({2, 3}, {2.3, -1.2, 4.4, 3.1, -2.6, .3}), C({}, {1})}, {{"fmod", std::int64_t{1}}}),
    Case("PRelu", "slope a channel", {P({3, 5}, kSides), P({5})}).Batched(),
    Case("PRelu", "one slope", {P({3, 5}, kSides), P({1})}),
    Case("PRelu", "slopes of images", {P({1, 2, 2, 2}, {1, -1, 2, -2, 3, -3, 4, -4}), P({2, 1, 1})}),
    Case("Where", "same shape", {B({2, 3}, {1, 0, 1, 0, 0, 1}), P({2, 3}), P({2, 3})}),
    Case("Where", "broadcast", {B({2, 1}, {1, 0}), P({3}), P({4, 1, 1})}),
    Case("Sum", "three, broadcast", {P({2, 3}), P({3}), P({1, 1})}).Batched(),
    Case("Sum", "one", {P({2, 3})}),
    Case("Mean", "three, broadcast", {P({2, 3}), P({3}), P({1, 1})}).Batched(),
    Case("Max", "two, broadcast", {P({2, 3}), P({3})}).Batched(),
    Case("Max", "two, ties", {P({2, 2}, {1, 2, 3, 4}), P({2, 2}, {1, 5, 3, 0})}),
    Case("Max", "three, broadcast", {P({2, 3}), P({3}), P({1, 1})}).Batched(),
    Case("Max", "three, ties of two", {P({2, 2}, {1, 2, 3, 4}), P({2, 2}, {1, 2, 0, 0}), P({2, 2}, {0, 1, 3, 9})}),
    Case("Max", "one", {P({2, 3})}),
    Case("Min", "two, broadcast", {P({2, 3}), P({3})}).Batched(),
    Case("Min", "two, ties", {P({2, 2}, {1, 2, 3, 4}), P({2, 2}, {1, 5, 3, 0})}),
    Case("Min", "three, broadcast", {P({2, 3}), P({3}), P({2, 1})}),
    Case("Clip", "both bounds", {P({3, 5}, kSides), C({}, {-1}), C({}, {2})}).Batched(),
    Case("Clip", "below", {P({3, 5}, kSides), C({}, {-1})}),
    Case("Clip", "above", {P({3, 5}, kSides), Absent(), C({}, {2})}),
    Case("Clip", "no bounds", {P({3, 5}, kSides)}),
};
INSTANTIATE_TEST_SUITE_P(Broadcasting, EveryRule, ::testing::ValuesIn(kBroadcasting), CaseName);

const std::vector<Case> kElementwise{
    Case("Abs", "both signs", {P({3, 5}, kSides)}).Batched(),
    Case("Abs", "at 0", {P({2, 2}, {0, 1, -1, 0})}),
    Case("Acos", "odd size", {P({3, 5})}).In(-.9, .9),
    Case("Acosh", "odd size", {P({3, 5})}).In(1.2, 3),
    Case("Asin", "odd size", {P({3, 5})}).In(-.9, .9),
    Case("Asinh", "odd size", {P({3, 5})}),
    Case("Atan", "odd size", {P({3, 5})}),
    Case("Atanh", "odd size", {P({3, 5})}).In(-.9, .9),
    Case("Cast", "FP32 to FP32", {P({3, 5})}, {{"to", std::int64_t{1}}}),
    Case("Celu", "alpha 1", {P({3, 5}, kSides)}).Batched(),
    Case("Celu", "alpha 2", {P({3, 5}, kSides)}, {Alpha(2)}),
    Case("Cos", "odd size", {P({3, 5})}).Batched(),
    Case("Cosh", "odd size", {P({3, 5})}),
    Case("Elu", "alpha 1", {P({3, 5}, kSides)}).Batched(),
    Case("Elu", "alpha .3", {P({3, 5}, kSides)}, {Alpha(.3f)}),
    Case("Erf", "odd size", {P({3, 5})}).Batched(),
    Case("Exp", "odd size", {P({3, 5})}).Batched(),
    Case("HardSigmoid", "default", {P({3, 5}, kSides)}).Batched(),
    Case("HardSigmoid", "alpha, beta", {P({3, 5}, kSides)}, {Alpha(.3f), {"beta", .4f}}),
    Case("HardSwish", "inside and outside", {P({3, 5}, kSides)}).Batched(),
    Case("Identity", "odd size", {P({3, 5})}),
    Case("LeakyRelu", "default", {P({3, 5}, kSides)}).Batched(),
    Case("LeakyRelu", "alpha 1.5", {P({3, 5}, kSides)}, {Alpha(1.5f)}),
    Case("LeakyRelu", "alpha -.5", {P({3, 5}, kSides)}, {Alpha(-.5f)}),
    Case("Log", "odd size", {P({3, 5})}).In(.5, 2).Batched(),
    Case("Neg", "odd size", {P({3, 5})}).Batched(),
    Case("Reciprocal", "odd size", {P({3, 5})}).In(.5, 2),
    Case("Relu", "both signs", {P({3, 5}, kSides)}).Batched(),
    Case("Selu", "default", {P({3, 5}, kSides)}),
    Case("Selu", "alpha, gamma", {P({3, 5}, kSides)}, {Alpha(.5f), {"gamma", 2.f}}),
    Case("Sigmoid", "odd size", {P({3, 5})}).Batched(),
    Case("Sin", "odd size", {P({3, 5})}).Batched(),
    Case("Sinh", "odd size", {P({3, 5})}),
    Case("Softplus", "odd size", {P({3, 5})}).Batched(),
    Case("Softsign", "both signs", {P({3, 5}, kSides)}),
    Case("Sqrt", "odd size", {P({3, 5})}).In(.5, 2).Batched(),
    Case("Tan", "odd size", {P({3, 5})}).In(-1, 1),
    Case("Tanh", "odd size", {P({3, 5})}).Batched(),
    Case("ThresholdedRelu", "default", {P({3, 5}, kSides)}),
    Case("ThresholdedRelu", "alpha .3", {P({3, 5}, kSides)}, {Alpha(.3f)}),
};
INSTANTIATE_TEST_SUITE_P(Elementwise, EveryRule, ::testing::ValuesIn(kElementwise), CaseName);

const std::vector<Case> kAlongAxis{
    Case("Softmax", "last axis", {P({3, 4})}).Batched(),
    Case("Softmax", "first axis", {P({3, 4})}, {Axis(0)}),
    Case("Softmax", "middle axis", {P({2, 3, 2})}, {Axis(1)}).Batched(),
    Case("LogSoftmax", "last axis", {P({3, 4})}).Batched(),
    Case("LogSoftmax", "first axis", {P({3, 4})}, {Axis(0)}),
    Case("LogSoftmax", "middle axis", {P({2, 3, 2})}, {Axis(-2)}).Batched(),
    Case("CumSum", "last axis", {P({2, 4}), I({}, {1})}).Batched(),
    Case("CumSum", "reverse, exclusive", {P({2, 4}), I({}, {-1})},
         {{"reverse", std::int64_t{1}}, {"exclusive", std::int64_t{1}}}),
    Case("ReduceSum", "keep", {P({2, 3, 2}), I({1})}).Batched(),
    Case("ReduceSum", "drop", {P({2, 3, 2}), I({0, -1})}, {kDrop}),
    Case("ReduceSum", "all", {P({2, 3})}),
    Case("ReduceSum", "none", {P({2, 3}), I({})}, {{"noop_with_empty_axes", std::int64_t{1}}}),
    Case("ReduceMean", "keep", {P({2, 3, 2})}, {Axes({1})}).Batched(),
    Case("ReduceMean", "drop", {P({2, 3, 2})}, {Axes({0, 2}), kDrop}),
    Case("ReduceMean", "all", {P({2, 3})}),
    Case("ReduceMax", "keep", {P({2, 3, 2})}, {Axes({1})}).Batched(),
    Case("ReduceMax", "drop", {P({2, 3, 2})}, {Axes({-1}), kDrop}).Batched(),
    Case("ReduceMax", "ties of two", {P({2, 3}, {1, 3, 3, 2, 0, 2})}, {Axes({1}), kDrop}),
    Case("ReduceMin", "all", {P({2, 3})}),
    Case("ReduceMin", "ties of two", {P({2, 3}, {1, 3, 1, 2, 0, 0})}, {Axes({1})}),
    Case("ReduceL1", "drop", {P({2, 3, 2})}, {Axes({1}), kDrop}).Batched(),
    Case("ReduceL2", "drop", {P({2, 3, 2})}, {Axes({1}), kDrop}).Batched(),
    Case("ReduceL2", "keep", {P({2, 3})}, {Axes({1})}),
    Case("ReduceSumSquare", "drop", {P({2, 3, 2})}, {Axes({1}), kDrop}).Batched(),
    Case("ReduceLogSum", "keep", {P({2, 3})}, {Axes({1})}).In(.5, 2),
    Case("ReduceLogSumExp", "keep", {P({2, 3, 2})}, {Axes({1})}).Batched(),
    Case("ReduceLogSumExp", "drop", {P({2, 3})}, {Axes({0}), kDrop}),
    Case("ReduceProd", "drop", {P({2, 3, 2})}, {Axes({1}), kDrop}).Batched(),
    Case("ReduceProd", "one and two zeros", {P({2, 3}, {1, 0, 2, 0, 0, 3})}, {Axes({1})}),
};
INSTANTIATE_TEST_SUITE_P(AlongAxis, EveryRule, ::testing::ValuesIn(kAlongAxis), CaseName);

const Attribute kTransA{"transA", std::int64_t{1}};
const Attribute kTransB{"transB", std::int64_t{1}};
const std::vector<Case> kMatrices{
    Case("Gemm", "bias", {P({2, 3}), P({3, 4}), P({4})}).Batched(),
    Case("Gemm", "no bias", {P({2, 3}), P({3, 4})}).Batched(),
    Case("Gemm", "transA", {P({3, 2}), P({3, 4}), P({2, 1})}, {kTransA}),
    Case("Gemm", "transB", {P({2, 3}), P({4, 3}), P({4})}, {kTransB}).Batched(),
    Case("Gemm", "trans both", {P({3, 2}), P({4, 3}), P({1, 4})}, {kTransA, kTransB}),
    Case("Gemm", "alpha, beta", {P({2, 3}), P({3, 4}), P({2, 4})}, {Alpha(.5f), {"beta", 2.f}}),
    Case("Gemm", "1 x 1", {P({1, 1}), P({1, 1}), P({1})}),
    Case("MatMul", "matrices", {P({2, 3}), P({3, 4})}).Batched(),
    Case("MatMul", "many by one", {P({2, 2, 3}), P({3, 4})}).Batched(),
    Case("MatMul", "many by many", {P({2, 2, 3}), P({2, 3, 4})}),
    Case("MatMul", "broadcast", {P({2, 1, 2, 3}), P({3, 3, 2})}).Batched(),
    Case("MatMul", "one by many", {P({2, 3}), P({2, 3, 4})}),
    Case("MatMul", "row by matrix", {P({3}), P({3, 4})}),
    Case("MatMul", "matrix by column", {P({2, 3}), P({3})}).Batched(),
    Case("MatMul", "row by column", {P({3}), P({3})}),
    Case("MatMul", "row by many", {P({3}), P({2, 3, 4})}),
    Case("MatMul", "many by column", {P({2, 2, 3}), P({3})}).Batched(),
};
INSTANTIATE_TEST_SUITE_P(Matrices, EveryRule, ::testing::ValuesIn(kMatrices), CaseName);

}  // namespace
}  // namespace ganglion::gradient
