#include "shrink/prune.h"

#include <gtest/gtest.h>

#include "shrink/models_test.h"

namespace ganglion::shrink {
namespace {

std::size_t Zeros(const Mask& m) { return static_cast<std::size_t>(std::count(m.keep.begin(), m.keep.end(), 0)); }

TEST(Prune, RemovesTheSmallestWeightsAndNoOthers) {
  const auto model = Perceptron(1, {20, 10, 5});
  const auto masks = MagnitudeMasks(model, .3, Scope::kGlobal).value();
  ASSERT_EQ(masks.size(), 2u);
  EXPECT_EQ(Zeros(masks[0]) + Zeros(masks[1]), 75u);  // of 250
  float largest_gone = 0;
  float smallest_kept = INFINITY;
  for (const Mask& m : masks) {
    const auto w = graph::ToTensor(Parameter(model, m.parameter)).value();
    for (std::size_t i = 0; i < m.keep.size(); ++i) {
      const float size = std::fabs(w.As<float>()[i]);
      (m.keep[i] != 0 ? smallest_kept : largest_gone) =
          m.keep[i] != 0 ? std::min(smallest_kept, size) : std::max(largest_gone, size);
    }
  }
  EXPECT_LE(largest_gone, smallest_kept);
  EXPECT_NEAR(Sparsity(masks), .3, 1e-9);
}

TEST(Prune, PerLayerTakesTheSameShareOfEach) {
  const auto masks = MagnitudeMasks(Perceptron(1, {20, 10, 5}), .5, Scope::kPerLayer).value();
  EXPECT_EQ(Zeros(masks[0]), 100u);
  EXPECT_EQ(Zeros(masks[1]), 25u);
}

TEST(Prune, ProjectionKeepsMaskedWeightsAtZeroThroughTraining) {
  auto model = Perceptron(1, {4, 3, 2});
  const auto masks = MagnitudeMasks(model, .5, Scope::kPerLayer).value();
  const std::vector<gradient::Segment> segments{
      {"f0.w", {4, 3}, 0, 12}, {"f0.b", {3}, 12, 3}, {"f1.w", {3, 2}, 15, 6}, {"f1.b", {2}, 21, 2}};
  const auto projection = MaskProjection::Create(masks, segments).value();
  std::vector<float> parameters(23, 1);
  projection.Apply(parameters);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(parameters[i], masks[0].keep[i]);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(parameters[15 + i], masks[1].keep[i]);
  EXPECT_EQ(parameters[12], 1);
  ASSERT_TRUE(ApplyMasks(masks, &model).ok());
  const auto w = graph::ToTensor(Parameter(model, "f0.w")).value();
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(w.As<float>()[i] == 0, masks[0].keep[i] == 0);
}

TEST(Prune, AnInputThatIsConstantIsRemovedWithoutATrace) {
  const auto model = Perceptron(1, {6, 5, 2});
  Random random(2);
  auto x = RandomTensor(random, {40, 6});
  for (std::size_t r = 0; r < 40; ++r) x.As<float>()[r * 6 + 2] = 3;  // input 2
  LayerInputs in{"f0.w", std::vector<float>(6, 0.f), std::vector<float>(6, 1.f)};
  in.mean[2] = 3;
  in.deviation[2] = 0;
  const auto masks = MagnitudeMasks(model, 5. / 40, Scope::kGlobal, {in}).value();
  for (std::size_t k = 0; k < 30; ++k) EXPECT_EQ(masks[0].keep[k], k / 5 == 2 ? 0 : 1) << k;
  onnx::ModelProto pruned = model;
  ASSERT_TRUE(ShiftBiases(masks, {in}, &pruned).ok());
  ASSERT_TRUE(ApplyMasks(masks, &pruned).ok());
  Runner run;
  EXPECT_LT(LargestDifference(run.First(model, x), run.First(pruned, x)), 1e-5);
}

TEST(Prune, FindsWhatEntersEachLayer) {
  onnx::ModelProto observed;
  const auto parameters = PlanInputs(ConvNet(3), &observed).value();
  EXPECT_EQ(parameters, (std::vector<std::string>{"c1.w", "depthwise.w", "c2.w", "f1.w", "f2.w"}));
  Random random(2);
  Runner run;
  const auto seen = run.All(observed, RandomTensor(random, {3, 2, 8, 8}), Runner::Optimise::kBasic);
  ASSERT_EQ(seen.size(), 5u);
  EXPECT_EQ(seen[0].shape(), (tensor::Shape{3, 2, 64}));
  EXPECT_EQ(seen[1].shape(), (tensor::Shape{3, 6, 64}));
  EXPECT_EQ(seen[3].shape(), (tensor::Shape{3, 96, 1}));
  // Deviations of a depthwise layer belong to its channels, and those of a transposed one to its columns.
  const auto model = ConvNet(3);
  LayerInputs depthwise{"depthwise.w", std::vector<float>(6, 0.f), {1, 1, 0, 1, 1, 1}};
  LayerInputs f1{"f1.w", std::vector<float>(96, 0.f), std::vector<float>(96, 1.f)};
  f1.deviation[7] = 0;
  const auto masks = MagnitudeMasks(model, .01, Scope::kPerLayer, {depthwise, f1}).value();
  EXPECT_EQ(std::count(masks[1].keep.begin() + 18, masks[1].keep.begin() + 27, 0), 1);
  for (std::size_t k = 0; k < 960; ++k) EXPECT_EQ(masks[3].keep[k] == 0, k % 96 == 7) << k;
  depthwise.mean.pop_back();
  EXPECT_FALSE(MagnitudeMasks(model, .01, Scope::kPerLayer, {depthwise}).ok());
}

TEST(Prune, RefusesToEmptyALayerAndMasksThatDoNotFit) {
  auto model = Perceptron(1, {20, 10, 5});
  for (auto& t : *model.mutable_graph()->mutable_initializer()) {
    if (t.name() != "f1.w") continue;
    auto v = graph::ToTensor(t).value();
    for (float& x : v.As<float>()) x *= 1e-6f;
    t.Clear();
    graph::FromTensor("f1.w", v.View(), &t);
  }
  const auto s = MagnitudeMasks(model, .5, Scope::kGlobal).status();
  EXPECT_NE(s.message().find("(Gemm) would lose all of its weights"), std::string::npos) << s.message();
  EXPECT_FALSE(MagnitudeMasks(model, 1, Scope::kGlobal).ok());
  EXPECT_FALSE(MagnitudeMasks(model, -.1, Scope::kGlobal).ok());
  EXPECT_FALSE(ApplyMasks({{"f0.w", {1, 0}}}, &model).ok());
  EXPECT_FALSE(ApplyMasks({{"nobody", {1, 0}}}, &model).ok());
  EXPECT_FALSE(MaskProjection::Create({{"f0.w", {1, 0}}}, {{"f0.w", {200}, 0, 200}}).ok());
  EXPECT_FALSE(MaskProjection::Create({{"f0.w", {1, 0}}}, {}).ok());
}

}  // namespace
}  // namespace ganglion::shrink
