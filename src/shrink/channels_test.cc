#include "shrink/channels.h"

#include <gtest/gtest.h>

#include <numeric>

#include "shrink/models_test.h"

namespace ganglion::shrink {
namespace {

class Channels : public ::testing::Test {
 protected:
  Keep RandomKeep(const ChannelReport& report) {
    Keep keep;
    for (const auto& g : report.groups) {
      std::vector<std::int64_t> all(static_cast<std::size_t>(g.channels));
      std::iota(all.begin(), all.end(), 0);
      random_.Shuffle(all);
      all.resize(1 + random_.Below(all.size()));
      keep.push_back(all);
    }
    return keep;
  }
  // Keeping some channels is the whole model with zeros where the others are read.
  void ExpectSame(const onnx::ModelProto& model, const tensor::Tensor& x, std::size_t groups) {
    const auto report = FindChannels(model);
    ASSERT_TRUE(report.ok()) << report.status().message();
    std::string fixed;
    for (const auto& f : report->fixed) fixed += f + "; ";
    ASSERT_EQ(report->groups.size(), groups) << fixed;
    for (int round = 0; round < 5; ++round) {
      const Keep keep = RandomKeep(*report);
      onnx::ModelProto cut;
      onnx::ModelProto masked;
      ASSERT_TRUE(KeepChannels(model, keep, &cut).ok());
      ASSERT_TRUE(MaskChannels(model, keep, &masked).ok());
      EXPECT_LT(LargestDifference(run_.First(cut, x), run_.First(masked, x)), 1e-4);
      std::int64_t kept = 0;
      std::int64_t all = 0;
      for (std::size_t g = 0; g < keep.size(); ++g) {
        kept += static_cast<std::int64_t>(keep[g].size());
        all += report->groups[g].channels;
      }
      if (kept < all) {
        EXPECT_LT(cut.ByteSizeLong(), masked.ByteSizeLong());
      }
    }
  }

  Runner run_;
  Random random_{11};
};

TEST_F(Channels, CuttingAPerceptronIsMaskingIt) {
  ExpectSame(Perceptron(1, {7, 12, 9, 3}), RandomTensor(random_, {20, 7}), 2);
}

TEST_F(Channels, CuttingAConvNetWithAResidualSumIsMaskingIt) {
  // c1, the depthwise layer and c2 are one group; f1 is the other.
  ExpectSame(ConvNet(2), RandomTensor(random_, {20, 2, 8, 8}), 2);
}

TEST_F(Channels, FollowsSqueezeAndExcitation) {
  Net net(4);
  std::string h = net.Op("HardSwish", {net.Conv(net.Input({-1, 2, 6, 6}), "c1", {8, 2, 3, 3})});
  std::string s = net.Op("GlobalAveragePool", {h});
  s = net.Op("Relu", {net.Conv(s, "s1", {4, 8, 1, 1})});
  s = net.Op("HardSigmoid", {net.Conv(s, "s2", {8, 4, 1, 1})});
  h = net.Op("Mul", {h, s});
  h = net.Conv(h, "c2", {5, 8, 1, 1});
  h = net.Op("ReduceMean", {h}, {{"axes", std::vector<std::int64_t>{2, 3}}, {"keepdims", std::int64_t{0}}});
  net.Output(net.Gemm(h, "f", 5, 3), {-1, 3});
  ExpectSame(net.model(), RandomTensor(random_, {10, 2, 6, 6}), 3);
}

TEST_F(Channels, FollowsReshapeMatMulAndPerChannelConstants) {
  Net net(4);
  std::string h = net.Op("Relu", {net.Conv(net.Input({-1, 1, 4, 4}), "c1", {6, 1, 3, 3})});
  net.Parameter("gain", {6, 1, 1}, 1);
  h = net.Op("Mul", {h, "gain"});
  h = net.Op("Reshape", {h, net.builder().Ints("shape", {-1, 96})});
  h = net.Op("Relu", {net.MatMul(h, "f1", 96, 8)});
  net.Output(net.MatMul(h, "f2", 8, 3), {-1, 3});
  ExpectSame(net.model(), RandomTensor(random_, {10, 1, 4, 4}), 2);
}

TEST_F(Channels, KeepingAllInAnotherOrderIsTheSameFunction) {
  const auto model = ConvNet(3);
  const auto report = FindChannels(model).value();
  onnx::ModelProto sorted;
  ASSERT_TRUE(KeepChannels(model, ByImportance(report.groups), &sorted).ok());
  const auto x = RandomTensor(random_, {20, 2, 8, 8});
  EXPECT_LT(LargestDifference(run_.First(model, x), run_.First(sorted, x)), 1e-4);
}

TEST_F(Channels, FixesWhatMustStayAndSaysWhy) {
  Net net(1);
  const std::string x = net.Input({-1, 4});
  const std::string a = net.Gemm(x, "a", 4, 4);  // meets the input
  const std::string b = net.Op("Add", {a, x});
  const std::string c = net.Op("Softmax", {net.Gemm(b, "b", 4, 6)});  // mixes channels
  net.Output(net.Gemm(c, "c", 6, 3), {-1, 3});
  const auto report = FindChannels(net.model()).value();
  EXPECT_TRUE(report.groups.empty());
  ASSERT_EQ(report.fixed.size(), 3u);
  EXPECT_NE(report.fixed[1].find("(Softmax) reads them"), std::string::npos) << report.fixed[1];
  EXPECT_NE(report.fixed[2].find("an output of the model"), std::string::npos) << report.fixed[2];
}

TEST_F(Channels, FixesChannelsWhoseParametersAreShared) {
  Net net(1);
  std::string h = net.Op("Relu", {net.Gemm(net.Input({-1, 5}), "a", 5, 5)});
  h = net.Op("Relu", {net.Op("Gemm", {h, "a.w", "a.b"})});
  net.Output(net.Gemm(h, "b", 5, 2), {-1, 2});
  const auto report = FindChannels(net.model()).value();
  EXPECT_TRUE(report.groups.empty());
  EXPECT_NE(report.fixed[0].find("is shared"), std::string::npos);
}

TEST_F(Channels, ImportanceDoesNotChangeWhenANeuronIsScaled) {
  auto model = Perceptron(1, {5, 4, 2});
  const auto before = FindChannels(model).value().groups[0].importance;
  for (auto& t : *model.mutable_graph()->mutable_initializer()) {
    if (t.name() != "f0.w" && t.name() != "f1.w") continue;
    auto v = graph::ToTensor(t).value();
    for (std::size_t i = 0; i < v.As<float>().size(); ++i) {
      if (t.name() == "f0.w" && i % 4 == 2) v.As<float>()[i] *= 8;
      if (t.name() == "f1.w" && i / 2 == 2) v.As<float>()[i] /= 8;
    }
    const std::string name = t.name();
    t.Clear();
    graph::FromTensor(name, v.View(), &t);
  }
  const auto after = FindChannels(model).value().groups[0].importance;
  for (std::size_t c = 0; c < 4; ++c) EXPECT_NEAR(before[c], after[c], 1e-6);
}

TEST_F(Channels, RefusesAKeepThatDoesNotFit) {
  const auto model = Perceptron(1, {3, 4, 2});
  onnx::ModelProto out;
  EXPECT_FALSE(KeepChannels(model, {}, &out).ok());
  EXPECT_FALSE(KeepChannels(model, {{}}, &out).ok());
  EXPECT_FALSE(KeepChannels(model, {{0, 4}}, &out).ok());
  EXPECT_FALSE(KeepChannels(model, {{1, 1}}, &out).ok());
  EXPECT_FALSE(MaskChannels(model, {{-1}}, &out).ok());
}

TEST_F(Channels, AModelWhoseParametersDoNotFitTogetherIsFixedNotRead) {
  auto model = Perceptron(1, {3, 4, 2});
  for (auto& t : *model.mutable_graph()->mutable_initializer()) {
    if (t.name() != "f0.b") continue;
    t.Clear();
    graph::FromTensor("f0.b", RandomTensor(random_, {2}).View(), &t);
  }
  const auto report = FindChannels(model).value();
  EXPECT_TRUE(report.groups.empty());
}

TEST_F(Channels, MostImportantKeepsTheLargest) {
  const std::vector<ChannelGroup> groups{{"a", 5, {.1, 5, .3, 4, .2}}};
  EXPECT_EQ(MostImportant(groups, .4), (Keep{{1, 3}}));
  EXPECT_EQ(MostImportant(groups, .2), (Keep{{1}}));
  EXPECT_EQ(MostImportant(groups, .2, 4), (Keep{{1, 2, 3, 4}}));
  EXPECT_EQ(MostImportant(groups, 1), (Keep{{0, 1, 2, 3, 4}}));
}

}  // namespace
}  // namespace ganglion::shrink
