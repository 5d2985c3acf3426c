#include "training/convnet.h"

#include <gtest/gtest.h>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "optimizer/optimizer.h"
#include "runtime/runtime.h"
#include "training/step.h"

namespace ganglion::training {
namespace {

TEST(MakeConvNet, OfFedAvgHas1663370Parameters) {
  const auto bytes = MakeConvNet({.blocks = {{32}, {64}}, .kernel = 5, .dense = {512}}, 1);
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  onnx::ModelProto model;
  ASSERT_TRUE(graph::Parse(std::as_bytes(std::span(*bytes)), &model).ok());
  std::int64_t parameters = 0;
  for (const auto& t : model.graph().initializer()) {
    if (t.data_type() != onnx::TensorProto::FLOAT || t.dims_size() == 0) continue;
    parameters += tensor::ElementCount(std::vector<std::int64_t>(t.dims().begin(), t.dims().end())).value();
  }
  EXPECT_EQ(parameters, 1'663'370);
}

TEST(MakeConvNet, GivesTheSameBytesForTheSameArguments) {
  const ConvNetSpec spec{.blocks = {{4, 4}, {8}}, .dense = {}, .normalise = true, .dropout = .1f};
  EXPECT_EQ(MakeConvNet(spec, 3).value(), MakeConvNet(spec, 3).value());
  EXPECT_NE(MakeConvNet(spec, 3).value(), MakeConvNet(spec, 4).value());
}

TEST(MakeConvNet, RefusesWhatIsNoNet) {
  const auto refusal = [](const ConvNetSpec& spec) { return MakeConvNet(spec, 1).status().message(); };
  EXPECT_NE(refusal({.kernel = 4}).find("kernel 4, must be odd"), std::string::npos);
  EXPECT_NE(refusal({.height = 7, .blocks = {{1}, {1}, {1}}}).find("3 pools leave nothing"), std::string::npos);
  EXPECT_NE(refusal({.dropout = 1}).find("dropout"), std::string::npos);
  EXPECT_NE(refusal({.dense = {0}}).find("not in [1, 65536]"), std::string::npos);
  EXPECT_NE(refusal({.scale = {0, 0}}).find("deviation"), std::string::npos);
}

// Images of 8x9 with a bright row or a bright column: what a convolution is for.
TEST(MakeConvNet, LearnsWithNormalisationAndDropout) {
  constexpr std::int64_t kBatch = 32;
  const ConvNetSpec spec{
      .height = 8, .width = 9, .blocks = {{4}, {8}}, .dense = {16}, .classes = 2, .normalise = true, .dropout = .1f};
  const auto model = model::Model::FromBytes("net.onnx", MakeConvNet(spec, 1).value());
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto engine = runtime::Engine::Create().value();
  const auto step = Step::Create(engine, *model, gradient::Loss::kSoftmaxCrossEntropy, kBatch);
  ASSERT_TRUE(step.ok()) << step.status().message();
  auto optimiser =
      optimizer::Optimizer::Create({.kind = optimizer::Kind::kAdam, .rate = .01}, (*step)->parameters().size()).value();
  Random random(7);
  float first = 0;
  for (int i = 0; i < 60; ++i) {
    std::fill((*step)->x().begin(), (*step)->x().end(), 0.f);
    for (std::size_t r = 0; r < kBatch; ++r) {
      const bool row = random.Below(2) == 0;
      (*step)->target().As<long>()[r] = row ? 1 : 0;
      const std::size_t at = random.Below(8);
      for (std::size_t p = 0; p < 8; ++p) (*step)->x()[r * 72 + (row ? at * 9 + p : p * 9 + at)] = 1;
    }
    (*step)->DrawNoise(random.Fork(static_cast<std::uint64_t>(i)));
    ASSERT_TRUE((*step)->Run().ok());
    if (i == 0) first = (*step)->loss();
    (*step)->KeepStatistics();
    optimiser.Step((*step)->parameters(), (*step)->gradients());
  }
  EXPECT_LT((*step)->loss(), first / 4);
}

}  // namespace
}  // namespace ganglion::training
