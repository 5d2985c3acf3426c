#include "shrink/slim.h"

#include <gtest/gtest.h>

#include "shrink/models_test.h"

namespace ganglion::shrink {
namespace {

class Slim : public ::testing::Test {
 protected:
  Runner run_;
  Random random_{5};
};

TEST_F(Slim, AWidthIsTheWideNetWithItsOtherChannelsMasked) {
  for (const auto& [model, x] : {std::pair(ConvNet(6), RandomTensor(random_, {10, 2, 8, 8})),
                                 std::pair(Perceptron(6, {8, 16, 12, 4}), RandomTensor(random_, {10, 8}))}) {
    const auto groups = FindChannels(model).value().groups;
    for (const double width : {.25, .5, .75, 1.}) {
      onnx::ModelProto narrow;
      onnx::ModelProto masked;
      ASSERT_TRUE(ExtractWidth(model, width, 1, &narrow).ok());
      ASSERT_TRUE(MaskChannels(model, FirstChannels(groups, width), &masked).ok());
      EXPECT_LT(LargestDifference(run_.First(narrow, x), run_.First(masked, x)), 1e-4) << width;
    }
  }
}

// The flat vector of a model's FP32 initializers, as the trainer lays it out.
struct Flat {
  std::vector<gradient::Segment> segments;
  std::vector<float> values;
};
Flat FlatOf(const onnx::ModelProto& model) {
  Flat flat;
  for (const auto& t : model.graph().initializer()) {
    const auto v = graph::ToTensor(t).value();
    flat.segments.push_back({t.name(), v.shape(), static_cast<std::int64_t>(flat.values.size()),
                             static_cast<std::int64_t>(v.As<float>().size())});
    flat.values.insert(flat.values.end(), v.As<float>().begin(), v.As<float>().end());
  }
  return flat;
}

TEST_F(Slim, NestedFindsTheNarrowNetsParametersInTheWide) {
  const auto wide = ConvNet(6);
  onnx::ModelProto narrow;
  ASSERT_TRUE(ExtractWidth(wide, .5, 1, &narrow).ok());
  const Flat w = FlatOf(wide);
  const Flat n = FlatOf(narrow);
  const auto nested = Nested::Create(w.segments, n.segments);
  ASSERT_TRUE(nested.ok()) << nested.status().message();
  std::vector<float> gathered(n.values.size());
  nested->Gather(w.values, gathered);
  EXPECT_EQ(gathered, n.values);
  // Adding puts each number where it was gathered from, and nothing elsewhere.
  std::vector<float> sum(w.values.size(), 0);
  nested->Add(n.values, 1, sum);
  std::size_t places = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    if (sum[i] == 0) continue;
    EXPECT_EQ(sum[i], w.values[i]);
    ++places;
  }
  EXPECT_EQ(places, n.values.size());
}

TEST_F(Slim, NestedRefusesWhatIsNotInside) {
  const std::vector<gradient::Segment> wide{{"w", {4, 3}, 0, 12}};
  EXPECT_FALSE(Nested::Create(wide, {{"w", {5, 3}, 0, 15}}).ok());
  EXPECT_FALSE(Nested::Create(wide, {{"w", {4}, 0, 4}}).ok());
  EXPECT_FALSE(Nested::Create(wide, {{"v", {4, 3}, 0, 12}}).ok());
}

TEST_F(Slim, SortingByImportanceKeepsTheFunctionAndPutsTheBestFirst) {
  const auto model = Perceptron(6, {8, 16, 4});
  onnx::ModelProto sorted;
  ASSERT_TRUE(SortByImportance(model, &sorted).ok());
  const auto x = RandomTensor(random_, {10, 8});
  EXPECT_LT(LargestDifference(run_.First(model, x), run_.First(sorted, x)), 1e-4);
  const auto importance = FindChannels(sorted).value().groups[0].importance;
  EXPECT_TRUE(std::is_sorted(importance.rbegin(), importance.rend()));
}

TEST_F(Slim, FindsTheStatisticsThatBelongToAWidth) {
  onnx::ModelProto observed;
  const auto norms = FindNorms(ConvNet(6), &observed).value();
  ASSERT_EQ(norms.size(), 2u);
  EXPECT_EQ(norms[0].mean, "n1.mean");
  EXPECT_EQ(norms[1].variance, "n2.variance");
  const auto seen = run_.All(observed, RandomTensor(random_, {3, 2, 8, 8}), Runner::Optimise::kBasic);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].shape(), (tensor::Shape{3, 6, 64}));
}

TEST_F(Slim, RefusesWidthsOutOfRangeAndModelsThatCannotBeCut) {
  onnx::ModelProto out;
  EXPECT_FALSE(ExtractWidth(Perceptron(1, {3, 4, 2}), 0, 1, &out).ok());
  EXPECT_FALSE(ExtractWidth(Perceptron(1, {3, 4, 2}), 1.5, 1, &out).ok());
  EXPECT_FALSE(ExtractWidth(Perceptron(1, {3, 4, 2}), NAN, 1, &out).ok());
  const auto s = ExtractWidth(Perceptron(1, {3, 2}), .5, 1, &out);
  EXPECT_NE(s.message().find("node 0 (Gemm): they are an output"), std::string::npos) << s.message();
}

}  // namespace
}  // namespace ganglion::shrink
