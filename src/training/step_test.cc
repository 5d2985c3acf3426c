#include "training/step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "training/models_test.h"
#include "training/perceptron.h"

namespace ganglion::training {
namespace {

class Steps : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Step>> Make(const model::Model& model, const StepOptions& options) {
    return Step::Create(engine_, model, options);
  }
  static void FillInputs(Step& step, std::uint64_t seed) {
    Random random(seed);
    for (float& v : step.x()) v = static_cast<float>(random.Uniform());
    for (long& y : step.target().As<long>()) y = static_cast<long>(random.Below(3));
  }
  static std::vector<float> Copy(std::span<const float> v) { return {v.begin(), v.end()}; }

  std::shared_ptr<runtime::Engine> engine_ = runtime::Engine::Create().value();
};

TEST_F(Steps, KeepStatisticsBesideTheParameters) {
  auto step = Make(test::ConvNet(5), {.batch = 8}).value();
  ASSERT_EQ(step->statistic_segments().size(), 2u);
  EXPECT_EQ(step->statistics().size(), 12u);
  for (const auto& s : step->segments()) EXPECT_NE(s.name, "bn.mean");
  FillInputs(*step, 1);
  const auto before = Copy(step->statistics());
  ASSERT_TRUE(step->Run().ok());
  EXPECT_EQ(Copy(step->statistics()), before) << "until they are kept";
  step->KeepStatistics();
  EXPECT_NE(Copy(step->statistics()), before);
  const auto snapshot = step->Snapshot("s.onnx").value();
  auto again = Make(snapshot, {.batch = 8}).value();
  EXPECT_EQ(Copy(again->statistics()), Copy(step->statistics()));
}

// Rows that a shorter batch leaves over must reach neither gradients nor statistics.
TEST_F(Steps, ComputeAShorterBatchAsIfItWereTheWholeOne) {
  auto large = Make(test::ConvNet(5), {.batch = 8}).value();
  auto small = Make(test::ConvNet(5), {.batch = 3}).value();
  FillInputs(*large, 1);
  std::copy_n(large->x().begin(), small->x().size(), small->x().begin());
  std::copy_n(large->target().As<long>().begin(), 3, small->target().As<long>().begin());
  ASSERT_TRUE(large->Weigh(3, 1.f / 3).ok());
  ASSERT_TRUE(large->Run().ok());
  ASSERT_TRUE(small->Run().ok());
  EXPECT_EQ(large->loss(), small->loss());
  EXPECT_EQ(Copy(large->gradients()), Copy(small->gradients()));
  large->KeepStatistics();
  small->KeepStatistics();
  EXPECT_EQ(Copy(large->statistics()), Copy(small->statistics()));
  // And back to the whole batch.
  ASSERT_TRUE(large->Weigh(8, 1.f / 8).ok());
  ASSERT_TRUE(large->Run().ok());
  EXPECT_NE(large->loss(), small->loss());
}

TEST_F(Steps, FreezeStatisticsAndParameters) {
  StepOptions o{.batch = 4};
  o.gradient.freeze_statistics = true;
  o.gradient.frozen = {"conv.w", "bn.scale"};
  auto step = Make(test::ConvNet(5), o).value();
  EXPECT_TRUE(step->statistics().empty());
  ASSERT_EQ(step->segments().size(), 3u);
  EXPECT_EQ(step->segments()[0].name, "bn.bias");
}

TEST_F(Steps, LeaveBiasesAndNormParametersOutOfWeightDecay) {
  auto step = Make(test::ConvNet(5), {.batch = 4}).value();
  std::vector<bool> undecayed(step->parameters().size(), false);
  for (const auto& r : step->undecayed())
    std::fill(undecayed.begin() + static_cast<long>(r.begin), undecayed.begin() + static_cast<long>(r.end), true);
  for (const auto& s : step->segments()) {
    const bool vector = s.name != "conv.w" && s.name != "fc.w";
    for (std::int64_t i = s.offset; i < s.offset + s.size; ++i)
      EXPECT_EQ(undecayed[static_cast<std::size_t>(i)], vector) << s.name;
  }
}

TEST_F(Steps, TakeTokensAndATargetAtEveryPosition) {
  auto step = Make(test::Language(7, 4), {.batch = 2}).value();
  EXPECT_EQ(step->target_spec().shape, (tensor::Shape{-1, 4}));
  EXPECT_EQ(step->classes(), 7);
  ASSERT_TRUE(step->Run().ok());
  EXPECT_NEAR(step->loss(), std::log(7.), 1);
}

TEST_F(Steps, TakeSeveralInputs) {
  StepOptions o{.batch = 2};
  o.gradient.loss = gradient::Loss::kSquaredError;
  auto step = Make(test::TwoInputs(), o).value();
  ASSERT_EQ(step->input_specs().size(), 2u);
  step->input(0).As<long>()[1] = 4;
  step->input(1).As<float>()[0] = 3;
  step->target().As<float>()[0] = 1;
  ASSERT_TRUE(step->Run().ok());
  EXPECT_GT(step->loss(), 0);
}

TEST_F(Steps, TakeOpenImagesWhenTheDataFixThem) {
  const auto open = Make(test::ConvNet(-1), {.batch = 2});
  ASSERT_FALSE(open.ok());
  EXPECT_NE(open.status().message().find("\"image\" FP32[-1,1,-1,-1] has open dimensions"), std::string::npos)
      << open.status().message();
  auto step = Make(test::ConvNet(-1), {.batch = 2, .row_shapes = {{1, 6, 7}}});
  ASSERT_TRUE(step.ok()) << step.status().message();
  EXPECT_EQ((*step)->x().size(), 84u);
  EXPECT_EQ((*step)->Snapshot("s")->signature().inputs[0].shape, (tensor::Shape{-1, 1, -1, -1}))
      << "the trained model keeps them open";
  EXPECT_FALSE(Make(test::ConvNet(-1), {.batch = 2, .row_shapes = {{3, 6, 7}}}).ok()) << "another number of channels";
}

TEST_F(Steps, PullToAnchors) {
  StepOptions o{.batch = 2};
  o.gradient.proximal = 2;
  auto step = Make(test::ConvNet(5), o).value();
  EXPECT_EQ(Copy(step->anchors()), Copy(step->parameters()));
  FillInputs(*step, 1);
  ASSERT_TRUE(step->Run().ok());
  const float loss = step->loss();
  const auto gradients = Copy(step->gradients());
  for (float& v : step->anchors()) v -= 1;
  ASSERT_TRUE(step->Run().ok());
  EXPECT_NEAR(step->loss() - loss, static_cast<float>(step->parameters().size()), 1e-3);
  for (std::size_t i = 0; i < gradients.size(); ++i) EXPECT_NEAR(step->gradients()[i] - gradients[i], 2, 1e-5);
}

TEST_F(Steps, DrawNoiseOfTheGivenStream) {
  auto step = Make(test::ConvNet(5, .5f), {.batch = 8}).value();
  ASSERT_TRUE(step->has_noise());
  FillInputs(*step, 1);
  const auto loss = [&](std::uint64_t seed) {
    step->DrawNoise(Random(seed));
    EXPECT_TRUE(step->Run().ok());
    return step->loss();
  };
  const float a = loss(1);
  EXPECT_NE(loss(2), a);
  EXPECT_EQ(loss(1), a);
}

TEST_F(Steps, NameTheFirstNumberThatIsNotFinite) {
  auto step = Make(test::Logarithm(), {.batch = 2}).value();
  for (float& v : step->x()) v = 1;
  EXPECT_EQ(step->WhatIsNotFinite(engine_), "no single value could be named") << "all are finite";
  step->x()[1] = -3;
  ASSERT_TRUE(step->Run().ok());
  EXPECT_FALSE(std::isfinite(step->loss()));
  const std::string what = step->WhatIsNotFinite(engine_);
  EXPECT_NE(what.find("value \"logits\" has NaN at element 0, made by node 1 (Log)"), std::string::npos) << what;
  step->x()[2] = std::nanf("");
  EXPECT_EQ(step->WhatIsNotFinite(engine_), "input \"x\" has NaN at element 2");
  step->parameters()[3] = INFINITY;
  EXPECT_EQ(step->WhatIsNotFinite(engine_), "parameter \"w\" has an infinity at element 3");
}

TEST_F(Steps, RefuseWhatCannotTrain) {
  EXPECT_NE(Make(test::ConvNet(5), {.batch = 0}).status().message().find("batch must be at least 1"),
            std::string::npos);
  StepOptions all{.batch = 2};
  all.gradient.frozen = ParameterNames(test::ConvNet(5)).value();
  EXPECT_NE(Make(test::ConvNet(5), all).status().message().find("no trainable parameters"), std::string::npos);
}

TEST(MatchNames, TakesNamesAndPatterns) {
  const std::vector<std::string> names{"layer1.w", "layer1.b", "layer2.w", "head"};
  EXPECT_EQ(MatchNames({"layer1.*", "head"}, names).value(),
            (std::vector<std::string>{"layer1.w", "layer1.b", "head"}));
  EXPECT_EQ(MatchNames({"*.w", "layer2.w"}, names).value(), (std::vector<std::string>{"layer1.w", "layer2.w"}));
  EXPECT_EQ(MatchNames({"*"}, names)->size(), 4u);
  EXPECT_EQ(MatchNames({"l*1*w"}, names).value(), (std::vector<std::string>{"layer1.w"}));
  const auto none = MatchNames({"layer3"}, names);
  EXPECT_EQ(none.status().message(), "no parameter is called \"layer3\"; there are: layer1.w layer1.b layer2.w head");
  EXPECT_FALSE(MatchNames({"layer"}, names).ok()) << "a name is matched whole";
}

}  // namespace
}  // namespace ganglion::training
