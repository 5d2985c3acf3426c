// Convolution, pooling and normalisation: every form against central differences, and what has no derivative (ties)
// or no numbers (refusals) by itself.
#include "gradient/convolution.h"

#include "gradient/cases_test.h"
#include "gradient/reference_convolution_test.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using reference::ConvolutionOperators;
using reference::FrozenOperators;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;
using L = std::vector<std::int64_t>;

Attribute Kernel(L k) { return {"kernel_shape", std::move(k)}; }
Attribute Strides(L s) { return {"strides", std::move(s)}; }
Attribute Dilations(L d) { return {"dilations", std::move(d)}; }
Attribute Pads(L p) { return {"pads", std::move(p)}; }
Attribute Extra(L p) { return {"output_padding", std::move(p)}; }
Attribute Groups(std::int64_t g) { return {"group", g}; }
Attribute Auto(const char* word) { return {"auto_pad", std::string(word)}; }
const Attribute kCeil{"ceil_mode", std::int64_t{1}};
const Attribute kCountPadding{"count_include_pad", std::int64_t{1}};

Case Of(const std::string& op, const std::string& form, std::vector<Operand> in, std::vector<Attribute> a = {}) {
  return Case(op, form, std::move(in), std::move(a)).With(ConvolutionOperators);
}

// Numbers that are far apart, so that a central difference meets no tie.
std::vector<double> Apart(std::int64_t count) {
  std::vector<double> v;
  for (std::int64_t i = 0; i < count; ++i) v.push_back(static_cast<double>(i * 37 % count) / 10 - 1);
  return v;
}
Operand PApart(const Shape& s) { return P(s, Apart(reference::Count(s))); }

const std::vector<Case> kConvolutions{
    Of("Conv", "3x3", {P({2, 3, 5, 5}), P({4, 3, 3, 3})}).Batched(),
    Of("Conv", "bias", {P({2, 3, 5, 5}), P({4, 3, 3, 3}), P({4})}, {Pads({1, 1, 1, 1})}).Batched(),
    Of("Conv", "1x1", {P({2, 5, 4, 3}), P({3, 5, 1, 1}), P({3})}).Batched(),
    Of("Conv", "1x1, stride 2", {P({2, 5, 5, 4}), P({3, 5, 1, 1})}, {Strides({2, 2})}).Batched(),
    Of("Conv", "1x1, padded", {P({1, 2, 3, 3}), P({3, 2, 1, 1})}, {Pads({1, 1, 1, 1})}),
    Of("Conv", "one channel, 5x5 same", {P({2, 1, 7, 6}), P({3, 1, 5, 5}), P({3})}, {Auto("SAME_UPPER")}).Batched(),
    Of("Conv", "same lower, even kernel", {P({1, 2, 5, 5}), P({2, 2, 2, 4})}, {Auto("SAME_LOWER")}),
    Of("Conv", "same upper, stride 2", {P({2, 2, 5, 6}), P({3, 2, 3, 3})}, {Auto("SAME_UPPER"), Strides({2, 2})}),
    Of("Conv", "valid", {P({1, 2, 5, 5}), P({2, 2, 2, 3})}, {Auto("VALID")}),
    Of("Conv", "asymmetric pads", {P({2, 2, 5, 4}), P({3, 2, 3, 3})}, {Pads({0, 2, 1, 0})}).Batched(),
    Of("Conv", "stride 2, odd", {P({2, 3, 7, 5}), P({4, 3, 3, 3})}, {Strides({2, 2}), Pads({1, 1, 1, 1})}).Batched(),
    Of("Conv", "stride 2, even", {P({2, 3, 6, 8}), P({4, 3, 3, 3})}, {Strides({2, 2}), Pads({1, 1, 1, 1})}),
    Of("Conv", "stride 3 of a kernel of 2", {P({1, 2, 7, 8}), P({2, 2, 2, 2})}, {Strides({3, 3})}),
    Of("Conv", "strides differ", {P({1, 2, 7, 6}), P({2, 2, 3, 2})}, {Strides({3, 1})}),
    Of("Conv", "dilation 2", {P({2, 2, 7, 7}), P({3, 2, 3, 3})}, {Dilations({2, 2}), Pads({2, 2, 2, 2})}).Batched(),
    Of("Conv", "dilation and stride", {P({1, 2, 8, 7}), P({2, 2, 2, 3})}, {Dilations({3, 2}), Strides({2, 2})}),
    Of("Conv", "2 groups", {P({2, 4, 5, 5}), P({6, 2, 3, 3}), P({6})}, {Groups(2), Pads({1, 1, 1, 1})}).Batched(),
    Of("Conv", "2 groups, stride 2", {P({1, 4, 5, 5}), P({2, 2, 3, 3})}, {Groups(2), Strides({2, 2})}),
    Of("Conv", "depthwise", {P({2, 3, 5, 5}), P({3, 1, 3, 3}), P({3})}, {Groups(3), Pads({1, 1, 1, 1})}).Batched(),
    Of("Conv", "depthwise, stride 2", {P({2, 3, 6, 7}), P({3, 1, 3, 3})},
       {Groups(3), Strides({2, 2}), Pads({1, 1, 1, 1})})
        .Batched(),
    Of("Conv", "depthwise, asymmetric", {P({1, 2, 6, 6}), P({2, 1, 3, 3})},
       {Groups(2), Strides({2, 2}), Pads({0, 0, 1, 1})}),
    Of("Conv", "depthwise, dilation", {P({1, 2, 7, 6}), P({2, 1, 3, 2})}, {Groups(2), Dilations({2, 3})}),
    Of("Conv", "depthwise, padded beyond the kernel", {P({1, 2, 3, 3}), P({2, 1, 2, 2})},
       {Groups(2), Pads({2, 2, 2, 2})}),
    Of("Conv", "depthwise with multiplier", {P({2, 2, 5, 4}), P({4, 1, 3, 3})}, {Groups(2), Pads({1, 1, 1, 1})}),
    Of("Conv", "kernel of 9x9", {P({2, 2, 9, 10}), P({2, 2, 9, 9})}, {Pads({4, 4, 4, 4})}).Batched(),
    Of("Conv", "kernel of 9x9, 2 groups", {P({1, 2, 10, 9}), P({2, 1, 9, 9})},
       {Groups(2), Strides({2, 2}), Pads({4, 4, 4, 4})}),
    Of("Conv", "1-D", {P({2, 2, 9}), P({3, 2, 3}), P({3})}, {Pads({1, 1})}).Batched(),
    Of("Conv", "1-D, 80 taps, stride 16", {P({1, 1, 176}), P({2, 1, 80})}, {Strides({16})}),
    Of("Conv", "3-D", {P({1, 2, 3, 4, 3}), P({2, 2, 2, 2, 3}), P({2})}, {Pads({1, 0, 1, 0, 1, 1})}),
    Of("ConvTranspose", "2x2, stride 2", {P({2, 3, 3, 4}), P({3, 2, 2, 2}), P({2})}, {Strides({2, 2})}).Batched(),
    Of("ConvTranspose", "3x3", {P({2, 2, 4, 3}), P({2, 3, 3, 3})}, {Pads({1, 1, 1, 1})}).Batched(),
    Of("ConvTranspose", "output padding", {P({1, 2, 3, 3}), P({2, 2, 3, 3}), P({2})},
       {Strides({2, 2}), Pads({1, 1, 1, 1}), Extra({1, 1})}),
    Of("ConvTranspose", "2 groups", {P({2, 4, 3, 3}), P({4, 3, 3, 2}), P({6})}, {Groups(2), Strides({2, 1})}).Batched(),
    Of("ConvTranspose", "depthwise", {P({1, 3, 3, 3}), P({3, 1, 2, 2})}, {Groups(3), Strides({2, 2})}),
    Of("ConvTranspose", "dilation", {P({1, 2, 3, 4}), P({2, 2, 2, 2})}, {Dilations({2, 3})}),
    Of("ConvTranspose", "same upper", {P({1, 2, 3, 3}), P({2, 2, 3, 3})}, {Strides({2, 2}), Auto("SAME_UPPER")}),
    Of("ConvTranspose", "same lower", {P({1, 2, 3, 3}), P({2, 2, 3, 3})}, {Strides({2, 2}), Auto("SAME_LOWER")}),
    Of("ConvTranspose", "output shape", {P({1, 2, 3, 3}), P({2, 2, 3, 3})},
       {Strides({2, 2}), {"output_shape", L{6, 5}}}),
    Of("ConvTranspose", "1-D", {P({2, 2, 5}), P({2, 2, 4})}, {Strides({3})}),
    Of("ConvTranspose", "3-D", {P({1, 2, 2, 2, 3}), P({2, 1, 2, 2, 2})}, {Strides({2, 2, 1})}),
};
INSTANTIATE_TEST_SUITE_P(Convolution, EveryRule, ::testing::ValuesIn(kConvolutions), CaseName);

// The form is chosen by the batch that is usual: few rows, as many that patches are never put together.
std::vector<Case> ForOtherBatches() {
  std::vector<Case> cases;
  for (const auto& [rows, name] : {std::pair<std::int64_t, std::string>{1, "one row"}, {1 << 20, "a million rows"}}) {
    Options o;
    o.usual_batch = rows;
    cases.push_back(Of("Conv", "for " + name, {P({2, 3, 5, 4}), P({4, 3, 3, 3}), P({4})}, {Pads({1, 0, 1, 1})}));
    cases.push_back(Of("Conv", "many channels, for " + name, {P({1, 9, 4, 4}), P({3, 9, 3, 3})}, {Pads({1, 1, 1, 1})}));
    cases.push_back(
        Of("Conv", "many channels, stride 2, for " + name, {P({2, 9, 5, 5}), P({3, 9, 2, 2})}, {Strides({2, 2})}));
    cases.push_back(Of("Conv", "2 groups, for " + name, {P({2, 4, 5, 4}), P({4, 2, 3, 2})}, {Groups(2)}));
    for (auto& c : cases) c = c.Batched();
    for (std::size_t i = cases.size() - 4; i < cases.size(); ++i) cases[i] = cases[i].Under(o);
  }
  Options one;
  one.usual_batch = 1;
  cases.push_back(Of("Conv", "1x1, for one row", {P({2, 5, 4, 3}), P({3, 5, 1, 1})}).Under(one).Batched());
  cases.push_back(Of("Conv", "many outputs", {P({2, 2, 4, 5}), P({8, 2, 3, 3})}, {Pads({1, 0, 2, 1})}).Batched());
  cases.push_back(Of("Conv", "many outputs, dilation", {P({1, 2, 6, 5}), P({8, 2, 2, 3})}, {Dilations({3, 2})}));
  cases.push_back(Of("Conv", "1x1, large image", {P({1, 2, 12, 11}), P({3, 2, 1, 1})}).Batched());
  cases.push_back(
      Of("Conv", "depthwise, many channels", {P({1, 48, 3, 3}), P({48, 1, 2, 2})}, {Groups(48), Pads({0, 0, 1, 1})}));
  return cases;
}
INSTANTIATE_TEST_SUITE_P(ConvolutionForms, EveryRule, ::testing::ValuesIn(ForOtherBatches()), CaseName);

const std::vector<Case> kPools{
    Of("MaxPool", "2x2", {PApart({2, 2, 4, 6})}, {Kernel({2, 2}), Strides({2, 2})}),
    Of("MaxPool", "2x2, batch", {P({2, 3, 4, 4})}, {Kernel({2, 2}), Strides({2, 2})}).Batched(),
    Of("MaxPool", "2x2, odd sizes", {PApart({2, 2, 5, 7})}, {Kernel({2, 2}), Strides({2, 2})}),
    Of("MaxPool", "2x2, odd sizes rounded up", {PApart({2, 2, 5, 7})}, {Kernel({2, 2}), Strides({2, 2}), kCeil}),
    Of("MaxPool", "3x3, stride 2, padded", {PApart({2, 2, 7, 6})},
       {Kernel({3, 3}), Strides({2, 2}), Pads({1, 1, 1, 1})}),
    Of("MaxPool", "3x3, stride 2, batch", {P({2, 2, 7, 7})}, {Kernel({3, 3}), Strides({2, 2})}).Batched(),
    Of("MaxPool", "3x3, stride 1, same", {PApart({1, 2, 5, 5})}, {Kernel({3, 3}), Auto("SAME_UPPER")}),
    Of("MaxPool", "stride beyond the kernel", {PApart({1, 2, 7, 7})}, {Kernel({2, 2}), Strides({3, 3})}),
    Of("MaxPool", "tiles, padded", {PApart({1, 2, 6, 6})}, {Kernel({2, 2}), Strides({2, 2}), Pads({1, 1, 1, 1})}),
    Of("MaxPool", "dilation", {PApart({1, 2, 7, 7})}, {Kernel({2, 3}), Dilations({3, 2}), Strides({2, 1})}),
    Of("MaxPool", "1-D", {PApart({2, 2, 9})}, {Kernel({3}), Strides({3})}),
    Of("MaxPool", "3-D", {PApart({1, 2, 4, 4, 2})}, {Kernel({2, 2, 2}), Strides({2, 2, 2})}),
    Of("AveragePool", "2x2", {P({2, 2, 4, 6})}, {Kernel({2, 2}), Strides({2, 2})}).Batched(),
    Of("AveragePool", "2x2, odd sizes", {P({2, 2, 5, 7})}, {Kernel({2, 2}), Strides({2, 2})}),
    Of("AveragePool", "3x3, stride 2, padded", {P({2, 2, 7, 6})}, {Kernel({3, 3}), Strides({2, 2}), Pads({1, 1, 1, 1})})
        .Batched(),
    Of("AveragePool", "3x3, padding counted", {P({1, 2, 5, 6})},
       {Kernel({3, 3}), Strides({2, 1}), Pads({1, 1, 1, 1}), kCountPadding}),
    Of("AveragePool", "rounded up", {P({1, 2, 6, 8})}, {Kernel({3, 3}), Strides({2, 2}), kCeil}),
    Of("AveragePool", "same lower", {P({1, 2, 5, 5})}, {Kernel({2, 2}), Strides({2, 2}), Auto("SAME_LOWER")}),
    Of("AveragePool", "1-D", {P({2, 2, 9})}, {Kernel({4}), Strides({3})}),
    Of("AveragePool", "3-D", {P({1, 2, 4, 4, 3})}, {Kernel({2, 2, 2}), Strides({2, 2, 1})}),
    Of("GlobalAveragePool", "2-D", {P({2, 3, 3, 5})}).Batched(),
    Of("GlobalAveragePool", "1-D", {P({2, 3, 5})}),
    Of("GlobalMaxPool", "2-D", {PApart({2, 3, 3, 5})}),
    Of("GlobalMaxPool", "batch", {P({2, 3, 4, 3})}).Batched(),
};
INSTANTIATE_TEST_SUITE_P(Pool, EveryRule, ::testing::ValuesIn(kPools), CaseName);

Options FrozenStatistics() {
  Options o;
  o.freeze_statistics = true;
  return o;
}
const std::vector<double> kVariances{.5, 2, 1};
const std::vector<Case> kNormalisations{
    Of("BatchNormalization", "statistics of the batch", {P({2, 3, 4, 3}), P({3}), P({3}), C({3}), C({3}, kVariances)})
        .Batched(),
    Of("BatchNormalization", "of features", {P({4, 3}), P({3}), P({3}), C({3}), C({3}, kVariances)}),
    Of("BatchNormalization", "1-D", {P({2, 3, 4}), P({3}), P({3}), C({3}), C({3}, kVariances)}, {{"epsilon", .1f}}),
    Case("BatchNormalization", "frozen statistics", {P({2, 3, 4, 3}), P({3}), P({3}), C({3}), C({3}, kVariances)})
        .With(FrozenOperators)
        .Under(FrozenStatistics())
        .Batched(),
    Of("InstanceNormalization", "2-D", {P({2, 3, 4, 3}), P({3}), P({3})}).Batched(),
    Of("InstanceNormalization", "1-D", {P({2, 3, 5}), P({3}), P({3})}, {{"epsilon", .1f}}),
    Of("LayerNormalization", "last axis", {P({2, 3, 5}), P({5}), P({5})}).Batched(),
    Of("LayerNormalization", "without bias", {P({4, 5}), P({5})}),
    Of("LayerNormalization", "last two axes", {P({2, 3, 4}), P({3, 4}), P({3, 4})}, {{"axis", std::int64_t{-2}}}),
    Of("LayerNormalization", "scale of fewer axes", {P({2, 3, 4}), P({4}), P({1})}, {{"axis", std::int64_t{1}}}),
    Of("LRN", "5 channels of 7", {P({2, 7, 2, 3})}, {{"size", std::int64_t{5}}, {"alpha", .5f}, {"bias", 2.f}}),
    Of("LRN", "3 channels of 5", {P({2, 5, 2, 1})}, {{"size", std::int64_t{3}}, {"alpha", .3f}, {"beta", .5f}})
        .Batched(),
};
INSTANTIATE_TEST_SUITE_P(Normalisation, EveryRule, ::testing::ValuesIn(kNormalisations), CaseName);

// A model whose only parameter `p` is added to x before the nodes that `build` makes of it.
struct Small {
  onnx::ModelProto model;
  GraphBuilder g{&model};
};

// The gradient of sum_k y_k t_k, up to a constant: squared error against targets is -2/K (t - y).
std::map<std::string, Tensor> StepOf(const onnx::ModelProto& model, const Options& options, std::vector<Feed> feeds,
                                     StepModel* parts = nullptr) {
  onnx::ModelProto step;
  const auto made = Differentiate(model, options, &step);
  EXPECT_TRUE(made.ok()) << made.status().message();
  if (!made.ok()) return {};
  if (parts != nullptr) *parts = *made;
  for (const auto& t : model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
  return RunModel(step, feeds);
}

Tensor Numbers(const Shape& shape, const std::vector<float>& v) { return Tensor::From<float>(shape, v).value(); }

// Blank rows of an image are ties. The first of equal numbers, row by row, takes the whole gradient, as in PyTorch.
TEST(MaxPool, GivesTheFirstOfEqualNumbersTheWholeGradient) {
  struct Form {
    std::vector<Attribute> attributes;
    std::vector<float> expected;  // of a 4x4 image of zeros with a one at (3, 3); dy is 1, 2, 3, ...
  };
  const std::vector<Form> forms{
      {{Kernel({2, 2}), Strides({2, 2})}, {1, 0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 4}},
      {{Kernel({3, 3}), Strides({1, 1})}, {1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4}},
      {{Kernel({3, 3}), Strides({2, 2}), Pads({1, 1, 1, 1})}, {1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4}},
  };
  for (const auto& form : forms) {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    g.Input({"x", DataType::kFp32, {-1, 1, 4, 4}});
    g.Initializer("p", Tensor::Zeros(DataType::kFp32, {1, 1, 4, 4}).value());
    g.Node("Flatten", {g.Node("MaxPool", {g.Node("Add", {"x", "p"})}, form.attributes)}, {}, "y");
    g.Output({"y", DataType::kFp32, {-1, 4}});
    Tensor x = Tensor::Zeros(DataType::kFp32, {1, 1, 4, 4}).value();
    x.As<float>()[15] = 1;
    // The squared error's gradient is (y - t) / 2: with y = 0, 0, 0, 1 it is 1, 2, 3, 4.
    auto out = StepOf(model, {.loss = Loss::kSquaredError},
                      {{"x", x}, {"target", Numbers({1, 4}, {-2, -4, -6, -7})}, {"row_weight", Numbers({1}, {1})}});
    const auto gradient = out["grad.p"].As<float>();
    EXPECT_EQ(std::vector<float>(gradient.begin(), gradient.end()), form.expected);
  }
}

TEST(GlobalMaxPool, GivesTheFirstOfEqualNumbersTheWholeGradient) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 2, 2, 2}});
  g.Initializer("p", Tensor::Zeros(DataType::kFp32, {1, 2, 2, 2}).value());
  g.Node("Flatten", {g.Node("GlobalMaxPool", {g.Node("Add", {"x", "p"})})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 2}});
  auto out = StepOf(model, {.loss = Loss::kSquaredError},
                    {{"x", Numbers({1, 2, 2, 2}, {0, 5, 5, 0, 0, 0, 0, 0})},
                     {"target", Numbers({1, 2}, {4, -2})},
                     {"row_weight", Numbers({1}, {1})}});
  const auto gradient = out["grad.p"].As<float>();
  EXPECT_EQ(std::vector<float>(gradient.begin(), gradient.end()), (std::vector<float>{0, 1, 0, 0, 2, 0, 0, 0}));
}

// A Relu is moved behind the pool that reads it. Nothing may change by that, ties at zero among them.
TEST(MaxPool, OfAReluGivesNothingToWindowsWithoutAPositiveNumber) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 1, 2, 4}});
  g.Initializer("p", Tensor::Zeros(DataType::kFp32, {1, 1, 2, 4}).value());
  const std::string relu = g.Node("Relu", {g.Node("Add", {"x", "p"})});
  g.Node("Flatten", {g.Node("MaxPool", {relu}, {Kernel({2, 2}), Strides({2, 2})})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 2}});
  auto out = StepOf(model, {.loss = Loss::kSquaredError},
                    {{"x", Numbers({1, 1, 2, 4}, {-1, -2, 3, 1, -3, 0, -1, 3})},
                     {"target", Numbers({1, 2}, {-1, 1})},
                     {"row_weight", Numbers({1}, {1})}});
  const auto gradient = out["grad.p"].As<float>();
  EXPECT_EQ(std::vector<float>(gradient.begin(), gradient.end()), (std::vector<float>{0, 0, 2, 0, 0, 0, 0, 0}));
}

// Rows that the last batch of an epoch lacks have weight 0: what is in them must not reach the statistics.
TEST(BatchNormalization, LeavesRowsOfWeightZeroOutOfItsStatistics) {
  Random random(3);
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 2, 3, 3}});
  g.Initializer("w", RandomTensor({2, 2, 2, 2}, random));
  g.Initializer("scale", RandomTensor({2}, random, .5, 1.5));
  g.Initializer("bias", RandomTensor({2}, random));
  g.Initializer("mean", RandomTensor({2}, random));
  g.Initializer("variance", RandomTensor({2}, random, .5, 1.5));
  const std::string h = g.Node("Conv", {"x", "w"});
  g.Node("Flatten", {g.Node("BatchNormalization", {h, "scale", "bias", "mean", "variance"}, {{"momentum", .8f}})}, {},
         "y");
  g.Output({"y", DataType::kFp32, {-1, 8}});
  const Tensor x = RandomTensor({2, 2, 3, 3}, random);
  const Tensor t = RandomTensor({2, 8}, random);
  StepModel parts;
  auto two = StepOf(model, {.loss = Loss::kSquaredError},
                    {{"x", x}, {"target", t}, {"row_weight", Numbers({2}, {.5f, .25f})}}, &parts);
  Tensor x3 = RandomTensor({3, 2, 3, 3}, random, 50, 100);
  Tensor t3 = RandomTensor({3, 8}, random);
  std::copy(x.As<float>().begin(), x.As<float>().end(), x3.As<float>().begin());
  std::copy(t.As<float>().begin(), t.As<float>().end(), t3.As<float>().begin());
  auto three = StepOf(model, {.loss = Loss::kSquaredError},
                      {{"x", x3}, {"target", t3}, {"row_weight", Numbers({3}, {.5f, .25f, 0})}});
  ASSERT_EQ(parts.statistics.size(), 2u);
  EXPECT_EQ(parts.statistics[0].name, "mean");
  EXPECT_EQ(parts.parameters.size(), 3u);
  for (const auto& [name, value] : two) {
    ASSERT_EQ(three.count(name), 1u);
    for (std::size_t i = 0; i < value.As<float>().size(); ++i)
      EXPECT_NEAR(three[name].As<float>()[i], value.As<float>()[i], 2e-5) << name << '[' << i << ']';
  }
  // The statistics move by 1 - momentum towards the batch's.
  reference::Values values{{"x", reference::FromTensor(x)}};
  for (const auto& p : model.graph().initializer())
    values[p.name()] = reference::FromTensor(graph::ToTensor(p).value());
  const auto y = reference::Conv(model.graph().node(0), {values["x"], values["w"]})[0];
  for (std::size_t c = 0; c < 2; ++c) {
    double sum = 0;
    double squares = 0;
    for (std::size_t n = 0; n < 2; ++n) {
      for (std::size_t i = 0; i < 4; ++i) sum += y.v[(n * 2 + c) * 4 + i] / 8;
    }
    for (std::size_t n = 0; n < 2; ++n) {
      for (std::size_t i = 0; i < 4; ++i) squares += std::pow(y.v[(n * 2 + c) * 4 + i] - sum, 2) / 8;
    }
    EXPECT_NEAR(two["next.mean"].As<float>()[c], .8 * values["mean"].v[c] + .2 * sum, 1e-5);
    EXPECT_NEAR(two["next.variance"].As<float>()[c], .8 * values["variance"].v[c] + .2 * squares, 1e-5);
  }
}

// A number is dropped where its noise is below the ratio, the others grow so that the mean stays.
TEST(Dropout, MasksByItsNoiseInput) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 4}});
  g.Initializer("p", Numbers({1, 4}, {1, 2, 3, 4}));
  g.Node("Dropout", {g.Node("Add", {"x", "p"}), g.Scalar("ratio", .25f)}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 4}});
  StepModel parts;
  auto out = StepOf(model, {.loss = Loss::kSquaredError},
                    {{"x", Tensor::Zeros(DataType::kFp32, {1, 4}).value()},
                     {"target", Numbers({1, 4}, {0, 0, 0, 0})},
                     {"row_weight", Numbers({1}, {1})},
                     {"noise.y", Numbers({1, 4}, {.2f, .25f, .9f, 0})}},
                    &parts);
  ASSERT_EQ(parts.noise.size(), 1u);
  EXPECT_EQ(parts.noise[0].name, "noise.y");
  EXPECT_EQ(parts.noise[0].shape, (Shape{-1, 4}));
  // y = 0, 2/.75, 3/.75, 0; the loss is the mean of its squares, dp = 2/4 y / .75 where kept.
  EXPECT_NEAR(out["loss"].As<float>()[0], (4 + 9) / (.75 * .75) / 4, 1e-5);
  const std::vector<double> expected{0, 2 / .75 / .75 / 2, 3 / .75 / .75 / 2, 0};
  double worst = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(out["grad.p"].As<float>()[i], expected[i], 1e-5);
    worst = std::max(worst, std::fabs(out["grad.p"].As<float>()[i] - expected[i]) / expected[2]);
  }
  RecordForm("Dropout", "noise as an input", worst);
}

// What clip.cc builds on: the sum over examples of their patches times their rows is the weight gradient.
TEST(Convolution, PatchesTimesRowsIsTheWeightGradient) {
  struct Form {
    Shape x, w;
    std::vector<Attribute> attributes;
  };
  const std::vector<Form> forms{{{3, 2, 5, 4}, {4, 2, 3, 3}, {Pads({1, 1, 1, 1})}},
                                {{3, 4, 6, 5}, {6, 2, 2, 3}, {Groups(2), Strides({2, 1})}},
                                {{2, 2, 9, 9}, {3, 2, 9, 9}, {Pads({4, 4, 4, 4}), Strides({2, 2})}}};
  Random random(8);
  for (const auto& form : forms) {
    onnx::ModelProto conv;
    GraphBuilder node(&conv);
    node.Node("Conv", {"x", "w"}, form.attributes, "y");
    const auto c = ReadConvolution(conv.graph().node(0), form.x, form.w);
    ASSERT_TRUE(c.ok()) << c.status().message();
    Shape dy{form.x[0], form.w[0]};
    dy.insert(dy.end(), c->window.out.begin(), c->window.out.end());
    onnx::ModelProto model;
    GraphBuilder g(&model);
    g.Input({"x", DataType::kFp32, form.x});
    g.Input({"dy", DataType::kFp32, dy});
    const std::string by_example =
        AsWeights(g, *c, g.Node("MatMul", {InputPatches(g, *c, "x"), OutputRows(g, *c, "dy")}), true);
    g.Node("ReduceSum", {by_example, g.Ints("axes", {0})}, {{"keepdims", std::int64_t{0}}}, "sum");
    g.Node("Identity", {WeightGradient(g, *c, "x", "dy")}, {}, "whole");
    g.Output({"sum", DataType::kFp32, form.w});
    g.Output({"whole", DataType::kFp32, form.w});
    auto out = RunModel(model, {{"x", RandomTensor(form.x, random)}, {"dy", RandomTensor(dy, random)}});
    ASSERT_EQ(out.size(), 2u);
    EXPECT_EQ(out["whole"].shape(), form.w);
    for (std::size_t i = 0; i < out["sum"].As<float>().size(); ++i)
      EXPECT_NEAR(out["sum"].As<float>()[i], out["whole"].As<float>()[i], 1e-4);
  }
}

std::string RefusalOf(const std::string& op, const Shape& x, const Shape& w, const std::vector<Attribute>& attributes) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, x});
  std::vector<std::string> in{"x"};
  g.Initializer("w", Tensor::Zeros(DataType::kFp32, w).value());
  if (op != "MaxPool" && op != "AveragePool") in.push_back("w");
  g.Node("Add", {g.Node("Flatten", {g.Node(op, in, attributes)}), g.Node("ReduceSum", {"w"})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 4}});
  onnx::ModelProto step;
  return Differentiate(model, {.loss = Loss::kSquaredError}, &step).status().message();
}

TEST(Convolution, RefusesWhatItCannotWriteAndNamesTheNode) {
  const auto says = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  const Shape w{2, 3, 3, 3};
  says(RefusalOf("Conv", {-1, 3, -1, 8}, w, {}), "node 0 (Conv)");
  says(RefusalOf("Conv", {-1, 3, -1, 8}, w, {}), "export the model with fixed sizes");
  says(RefusalOf("MaxPool", {-1, 3, 8, -1}, w, {Kernel({2, 2})}), "export the model with fixed sizes");
  says(RefusalOf("Conv", {-1, 4, 8, 8}, w, {}), "do not fit the input");
  says(RefusalOf("Conv", {-1, 3, 2, 2}, w, {}), "the kernel spans 3 pixels");
  says(RefusalOf("Conv", {-1, 3, 8, 8}, w, {Strides({0, 1})}), "strides has 0");
  says(RefusalOf("Conv", {-1, 3, 8, 8}, w, {Pads({1, 1, 1})}), "pads has 3 numbers, needs 4");
  says(RefusalOf("Conv", {-1, 3, 8, 8}, w, {Pads({1, 1, 1, -1})}), "pads has -1");
  says(RefusalOf("Conv", {-1, 3, 8, 8}, w, {Auto("SAME")}), "auto_pad \"SAME\"");
  says(RefusalOf("Conv", {-1, 3, 8, 8}, w, {Groups(0)}), "groups");
  says(RefusalOf("ConvTranspose", {-1, 2, 4, 4}, {2, 3, 3, 3}, {Extra({2, 0})}), "output_padding 2");
  says(RefusalOf("MaxPool", {-1, 3, 8, 8}, w, {}), "has no kernel_shape");
  says(RefusalOf("MaxPool", {-1, 3, 8, 8}, w, {Kernel({2, 2}), {"storage_order", std::int64_t{1}}}), "column order");
  const std::int64_t huge = std::int64_t{1} << 40;
  says(RefusalOf("MaxPool", {-1, 3, 8, 8}, w, {Kernel({huge, 2})}), "kernel size");
}

}  // namespace
}  // namespace ganglion::gradient
