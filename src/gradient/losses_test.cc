#include "gradient/losses.h"

#include <gtest/gtest.h>

#include "gradient/cases_test.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

Shape With(Shape rows, std::int64_t last) {
  rows.push_back(last);
  return rows;
}

// x [-1, ..., 4] to y [-1, ..., 3]: a hidden layer and `tail` at the end.
onnx::ModelProto Network(Shape rows, const std::string& tail, Random& random) {
  rows[0] = -1;
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, With(rows, 4)});
  g.Initializer("w", RandomTensor({4, 5}, random));
  g.Initializer("b", RandomTensor({5}, random));
  g.Initializer("v", RandomTensor({5, 3}, random, -2, 2));
  std::string h = g.Node("Tanh", {g.Node("Add", {g.Node("MatMul", {"x", "w"}), "b"})});
  h = g.Node("MatMul", {h, "v"});
  if (!tail.empty()) h = g.Node(tail, {h});
  g.Rename(h, "y");
  g.Output({"y", DataType::kFp32, With(rows, 3)});
  return model;
}

struct LossCase {
  std::string name;
  Options options;
  std::vector<std::string> tails{""};
};

class EveryLoss : public ::testing::TestWithParam<LossCase> {};

// Of classes, or of numbers: probabilities that sum to one where the loss wants them, targets near 0 and far from it
// (both sides of Huber's delta), a teacher's logits.
Tensor TargetsOf(const Options& o, const Shape& rows, Random& random) {
  if (o.loss == Loss::kSoftmaxCrossEntropy) {
    Tensor t = Tensor::Zeros(DataType::kInt64, rows).value();
    for (long& c : t.As<long>()) c = static_cast<long>(random.Below(3));
    return t;
  }
  const bool probabilities = o.loss == Loss::kSoftmaxCrossEntropyDense || o.loss == Loss::kSigmoidCrossEntropy;
  Tensor t = RandomTensor(With(rows, 3), random, probabilities ? 0 : -3, probabilities ? 1 : 3);
  if (o.loss != Loss::kSoftmaxCrossEntropyDense) return t;
  const auto v = t.As<float>();
  for (std::size_t i = 0; i < v.size(); i += 3) {
    const float sum = v[i] + v[i + 1] + v[i + 2];
    for (std::size_t k = i; k < i + 3; ++k) v[k] /= sum;
  }
  return t;
}

TEST_P(EveryLoss, MatchesItsDefinitionOnRowsAndSequences) {
  const LossCase& c = GetParam();
  Random random(7);
  for (const Shape& rows : {Shape{5}, Shape{1}, Shape{3, 4}, Shape{2, 3, 2}}) {
    for (const auto& tail : c.tails) {
      SCOPED_TRACE(tensor::ShapeText(rows) + " " + tail);
      const auto model = Network(rows, tail, random);
      Tensor weights = RandomTensor({rows[0]}, random, 0, 1);
      if (rows[0] > 2) weights.As<float>()[1] = 0;  // a row that is left out
      std::vector<Feed> feeds{{"x", RandomTensor(With(rows, 4), random)},
                              {"target", TargetsOf(c.options, rows, random)},
                              {"row_weight", weights}};
      if (c.options.hard_share > 0)
        feeds.push_back({"label", TargetsOf({.loss = Loss::kSoftmaxCrossEntropy}, rows, random)});
      if (c.options.proximal > 0) {
        for (const auto& t : model.graph().initializer())
          feeds.push_back({"anchor." + t.name(), RandomTensor({t.dims().begin(), t.dims().end()}, random)});
      }
      ExpectCentralDifferences(model, c.options, feeds);
    }
  }
}

const std::vector<LossCase> kLosses{
    {"SoftmaxCrossEntropy", {.loss = Loss::kSoftmaxCrossEntropy}, {"", "Softmax", "LogSoftmax"}},
    {"SoftmaxCrossEntropyDense", {.loss = Loss::kSoftmaxCrossEntropyDense}, {"", "Softmax", "LogSoftmax"}},
    {"SquaredError", {.loss = Loss::kSquaredError}, {"", "Softmax", "Sigmoid"}},
    {"SigmoidCrossEntropy", {.loss = Loss::kSigmoidCrossEntropy}, {"", "Sigmoid"}},
    {"Huber", {.loss = Loss::kHuber}},
    {"HuberSmallDelta", {.loss = Loss::kHuber, .huber_delta = .3f}},
    {"Distillation", {.loss = Loss::kDistillation}, {"", "Softmax"}},
    {"DistillationWarm", {.loss = Loss::kDistillation, .temperature = 4}},
    {"DistillationWithLabels", {.loss = Loss::kDistillation, .temperature = 2, .hard_share = .3f}, {"", "LogSoftmax"}},
    {"DistillationOfLabelsOnly", {.loss = Loss::kDistillation, .hard_share = 1}},
    {"Proximal", {.loss = Loss::kSoftmaxCrossEntropy, .proximal = .5f}},
    {"ProximalHuber", {.loss = Loss::kHuber, .proximal = .01f}},
};
INSTANTIATE_TEST_SUITE_P(Losses, EveryLoss, ::testing::ValuesIn(kLosses),
                         [](const auto& test) { return test.param.name; });

TEST(Losses, AreNamedBothWays) {
  for (const auto& name : LossNames()) {
    ASSERT_TRUE(LossFromName(name).has_value()) << name;
    EXPECT_EQ(Name(*LossFromName(name)), name);
  }
  EXPECT_EQ(LossNames().size(), 6u);
  EXPECT_FALSE(LossFromName("absolute_error").has_value());
}

// Logits of +-100 lose nothing: the loss is the distance, the gradient one half of a row's weight.
TEST(Losses, SigmoidCrossEntropyNeitherOverflowsNorLosesDigits) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 2}});
  const float w[2] = {100, -100};
  g.Initializer("w", Tensor::From<float>({2}, w).value());
  g.Node("Add", {"x", "w"}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 2}});
  onnx::ModelProto step;
  ASSERT_TRUE(Differentiate(model, {.loss = Loss::kSigmoidCrossEntropy}, &step).ok());
  const float target[2] = {0, 1};
  const float weight[1] = {1};
  const auto out = RunModel(step, {{"x", Tensor::Zeros(DataType::kFp32, {1, 2}).value()},
                                   {"w", Tensor::From<float>({2}, w).value()},
                                   {"target", Tensor::From<float>({1, 2}, target).value()},
                                   {"row_weight", Tensor::From<float>({1}, weight).value()}});
  EXPECT_FLOAT_EQ(out.at("loss").As<float>()[0], 100);
  EXPECT_FLOAT_EQ(out.at("grad.w").As<float>()[0], .5f);
  EXPECT_FLOAT_EQ(out.at("grad.w").As<float>()[1], -.5f);
}

TEST(Losses, RefuseNumbersOutsideTheirRangeByName) {
  Random random(1);
  const auto model = Network({2}, "", random);
  const auto refusal = [&](const Options& o) {
    onnx::ModelProto step;
    const auto parts = Differentiate(model, o, &step);
    return parts.ok() ? "" : parts.status().message();
  };
  EXPECT_NE(refusal({.huber_delta = 0}).find("huber_delta must be > 0"), std::string::npos);
  EXPECT_NE(refusal({.temperature = -1}).find("temperature must be > 0"), std::string::npos);
  EXPECT_NE(refusal({.temperature = NAN}).find("temperature must be > 0"), std::string::npos);
  EXPECT_NE(refusal({.hard_share = 1.5f}).find("hard_share must be in [0, 1]"), std::string::npos);
  EXPECT_NE(refusal({.proximal = -1}).find("proximal must be >= 0"), std::string::npos);
}

TEST(Losses, SayWhatTargetTheyTake) {
  EXPECT_EQ(TargetSpec(Loss::kSoftmaxCrossEntropy, {-1, 7, 5}).Text(), "INT64[-1,7]");
  EXPECT_EQ(TargetSpec(Loss::kHuber, {-1, 7, 5}).Text(), "FP32[-1,7,5]");
}

}  // namespace
}  // namespace ganglion::gradient
