#include "gradient/gradient.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "base/random.h"
#include "gradient/cases_test.h"
#include "gradient/rules.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

const Attribute kTransB{"transB", std::int64_t{1}};

// The cases lie beside the rules, in arithmetic_test.cc and so on.
TEST(Rules, HaveACaseEach) {
  std::vector<std::string> names;
  const auto& unit = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < unit.total_test_suite_count(); ++i) {
    const auto& suite = *unit.GetTestSuite(i);
    names.push_back("/" + std::string(suite.name()) + "_");  // a suite of an operator's own
    if (std::string(suite.name()).find("EveryRule") == std::string::npos) continue;
    for (int k = 0; k < suite.total_test_count(); ++k) names.emplace_back(suite.GetTestInfo(k)->name());
  }
  for (const auto& op : SupportedOperators()) {
    if (FindRule(op)->gradient == nullptr) continue;
    const auto is_of_op = [&](const std::string& n) { return n.find("/" + op + "_") != std::string::npos; };
    EXPECT_TRUE(std::any_of(names.begin(), names.end(), is_of_op)) << op << " has a rule and no test";
  }
}

// docs/operators.md is made of the tests' reports: `make operators-table`.
TEST(Rules, AreAllInTheTableOfOperators) {
  std::ifstream file(GANGLION_SOURCE_DIR "/docs/operators.md");
  std::stringstream text;
  text << file.rdbuf();
  std::string without;
  for (const auto& op : SupportedOperators()) {
    EXPECT_NE(text.str().find("`" + op + "`"), std::string::npos)
        << op << " is not in docs/operators.md: make operators-table";
    if (FindRule(op)->gradient == nullptr) without += (without.empty() ? "" : " ") + op;
  }
  RecordProperty("without_gradient", without);
}

// x [batch, in] through linear layers (PyTorch's layout) with an activation between each two.
onnx::ModelProto Perceptron(const std::vector<std::int64_t>& sizes, const std::vector<std::string>& activations,
                            const std::function<Tensor(const Shape&, std::size_t layer, bool bias)>& fill,
                            const std::string& tail = "") {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, sizes[0]}});
  std::string h = "x";
  for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
    const std::string w = "w" + std::to_string(l);
    const std::string b = "b" + std::to_string(l);
    g.Initializer(w, fill({sizes[l + 1], sizes[l]}, l, false));
    g.Initializer(b, fill({sizes[l + 1]}, l, true));
    h = g.Node("Gemm", {h, w, b}, {kTransB});
    if (l < activations.size()) h = g.Node(activations[l], {h});
  }
  if (!tail.empty()) h = g.Node(tail, {h});
  g.Rename(h, "y");
  g.Output({"y", DataType::kFp32, {-1, sizes.back()}});
  return model;
}

TEST(Differentiate, WholeModelsMatchCentralDifferencesForEveryLossAndTail) {
  Random random(5);
  const auto fill = [&](const Shape& s, std::size_t, bool) { return RandomTensor(s, random); };
  const long classes[5] = {0, 2, 1, 1, 0};
  const float w[5] = {.2f, .2f, .2f, .4f, 0.f};
  const Tensor x = RandomTensor({5, 4}, random);
  Tensor dense = Tensor::Zeros(DataType::kFp32, {5, 3}).value();
  for (std::size_t i = 0; i < 15; ++i) dense.As<float>()[i] = i % 3 == 0 ? .5f : .25f;
  for (const std::string tail : {"", "Softmax", "LogSoftmax"}) {
    const auto model = Perceptron({4, 6, 3}, {"Tanh"}, fill, tail);
    const Feed weight{"row_weight", Tensor::From<float>({5}, w).value()};
    ExpectCentralDifferences(model, {.loss = Loss::kSoftmaxCrossEntropy},
                             {{"x", x}, {"target", Tensor::From<long>({5}, classes).value()}, weight});
    ExpectCentralDifferences(model, {.loss = Loss::kSoftmaxCrossEntropyDense}, {{"x", x}, {"target", dense}, weight});
    ExpectCentralDifferences(model, {.loss = Loss::kSquaredError}, {{"x", x}, {"target", dense}, weight});
  }
}

// A value used twice gets the sum of both gradients; a parameter used twice, too.
TEST(Differentiate, SumsTheGradientsOfValuesUsedTwice) {
  Random random(6);
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 3}});
  g.Initializer("w", RandomTensor({3, 3}, random));
  const std::string h = g.Node("Tanh", {g.Node("MatMul", {"x", "w"})});
  const std::string k = g.Node("MatMul", {h, "w"});
  g.Node("Add", {g.Node("Mul", {h, k}), h}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 3}});
  const float w[2] = {.5f, .5f};
  ExpectCentralDifferences(model, {.loss = Loss::kSquaredError},
                           {{"x", RandomTensor({2, 3}, random)},
                            {"target", RandomTensor({2, 3}, random)},
                            {"row_weight", Tensor::From<float>({2}, w).value()}});
}

// Two parameters may have the very same gradient value.
TEST(Differentiate, GivesEachParameterItsOwnOutput) {
  Random random(7);
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 3}});
  g.Initializer("a", RandomTensor({2, 3}, random));
  g.Initializer("b", RandomTensor({2, 3}, random));
  g.Node("Add", {"x", g.Node("Add", {"a", "b"})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 3}});
  const float w[2] = {.5f, .5f};
  ExpectCentralDifferences(model, {.loss = Loss::kSquaredError},
                           {{"x", RandomTensor({2, 3}, random)},
                            {"target", RandomTensor({2, 3}, random)},
                            {"row_weight", Tensor::From<float>({2}, w).value()}});
}

// Golden numbers: tests/golden/gradients.txt, written by tests/golden/gradients.py with PyTorch 1.13 in double
// precision. Weights and inputs are sin(0.37 i + k) * scale, so nothing but the results is stored.
TEST(Differentiate, MatchesPyTorchOnWholeModels) {
  std::ifstream file(GANGLION_SOURCE_DIR "/tests/golden/gradients.txt");
  ASSERT_TRUE(file.good());
  const auto wave = [](const Shape& shape, double k, double scale) {
    Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
    for (std::size_t i = 0; i < t.As<float>().size(); ++i)
      t.As<float>()[i] = static_cast<float>(std::sin(.37 * static_cast<double>(i) + k) * scale);
    return t;
  };
  std::string line;
  std::map<std::string, Tensor> out;
  int cases = 0;
  while (std::getline(file, line)) {
    std::istringstream in(line);
    std::string name;
    in >> name;
    if (name == "case") {
      ++cases;
      std::string loss;
      std::string sizes_text;
      std::string activations_text;
      std::int64_t batch = 0;
      double expected = 0;
      in >> loss >> batch >> sizes_text >> activations_text >> expected;
      const auto split = [](std::string text) {
        std::vector<std::string> parts;
        std::istringstream s(text == "-" ? "" : text);
        for (std::string p; std::getline(s, p, ',');) parts.push_back(p);
        return parts;
      };
      std::vector<std::int64_t> sizes;
      for (const auto& s : split(sizes_text)) sizes.push_back(std::stoll(s));
      const auto model = Perceptron(sizes, split(activations_text), [&](const Shape& s, std::size_t l, bool bias) {
        return wave(s, static_cast<double>(l) + (bias ? 2 : 1), bias ? .1 : 1 / std::sqrt(static_cast<double>(s[1])));
      });
      const bool ce = loss == "ce";
      onnx::ModelProto step;
      ASSERT_TRUE(Differentiate(model, {.loss = ce ? Loss::kSoftmaxCrossEntropy : Loss::kSquaredError}, &step).ok());
      std::vector<Feed> feeds{{"x", wave({batch, sizes[0]}, .5, 1)}};
      std::vector<long> classes;
      for (std::int64_t i = 0; i < batch; ++i) classes.push_back(i % sizes.back());
      feeds.push_back(
          {"target", ce ? Tensor::From<long>({batch}, classes).value() : wave({batch, sizes.back()}, 3, 1)});
      const std::vector<float> w(static_cast<std::size_t>(batch), 1.f / static_cast<float>(batch));
      feeds.push_back({"row_weight", Tensor::From<float>({batch}, w).value()});
      for (const auto& t : model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
      out = RunModel(step, feeds);
      EXPECT_NEAR(out["loss"].As<float>()[0], expected, 1e-5 * expected);
      continue;
    }
    SCOPED_TRACE(line);
    ExpectGoldenGradient(in, out["grad." + name].As<float>());
  }
  EXPECT_EQ(cases, 4);
}

TEST(Differentiate, NamesEveryOperatorWithoutARule) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 3}});
  g.Initializer("w", Tensor::Zeros(DataType::kFp32, {3, 3}).value());
  const std::string h = g.Node("Det", {g.Node("MatMul", {"x", "w"})});
  g.Node("Hardmax", {h}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 3}});
  onnx::ModelProto step;
  const auto refused = Differentiate(model, {}, &step);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("node 1 (Det), node 2 (Hardmax)"), std::string::npos)
      << refused.status().message();
  EXPECT_NE(refused.status().message().find("Tanh"), std::string::npos);
}

TEST(Differentiate, RefusesWhatItCannotTrain) {
  Random random(1);
  const auto fill = [&](const Shape& s, std::size_t, bool) { return RandomTensor(s, random); };
  const auto model = Perceptron({4, 3}, {}, fill);
  onnx::ModelProto step;
  EXPECT_NE(Differentiate(model, {.frozen = {"w0", "b0"}}, &step).status().message().find("no trainable parameters"),
            std::string::npos);
  EXPECT_NE(Differentiate(model, {.frozen = {"nope"}}, &step).status().message().find("\"nope\" is not in the model"),
            std::string::npos);
  for (const int opset : {6, 18}) {
    auto other = model;
    other.mutable_opset_import(0)->set_version(opset);
    EXPECT_NE(Differentiate(other, {}, &step)
                  .status()
                  .message()
                  .find("operator set " + std::to_string(opset) + ", training takes 7 to 17"),
              std::string::npos);
  }
  EXPECT_NE(Differentiate(model, {.output = "z"}, &step).status().message().find("no output \"z\"; it has: y"),
            std::string::npos);
  const auto frozen = Differentiate(model, {.frozen = {"w0"}}, &step);
  ASSERT_TRUE(frozen.ok()) << frozen.status().message();
  EXPECT_EQ(frozen->parameters.size(), 1u);
}

// Each was found by fuzzing: a model that no runtime would load must not bring the differentiation down either.
TEST(Differentiate, RefusesNodesThatLackInputsOrDoNotFit) {
  const auto refusal = [](const std::function<void(GraphBuilder&)>& build) {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    g.Input({"x", DataType::kFp32, {-1, 3}});
    g.Initializer("w", Tensor::Zeros(DataType::kFp32, {3, 3}).value());
    g.Initializer("c", Tensor::Zeros(DataType::kFp32, {2, 2, 3, 3}).value());
    build(g);
    g.Output({"y", DataType::kFp32, {-1, 3}});
    onnx::ModelProto step;
    return Differentiate(model, {}, &step).status().message();
  };
  EXPECT_NE(refusal([](GraphBuilder& g) { g.Node("Gemm", {"w"}, {}, "y"); }).find("has 1 inputs, needs 2"),
            std::string::npos);
  EXPECT_NE(refusal([](GraphBuilder& g) { g.Node("Add", {"w", ""}, {}, "y"); }).find("needs 2"), std::string::npos);
  EXPECT_NE(refusal([](GraphBuilder& g) {
              g.Node("Gemm", {"x", "w", "c"}, {}, "y");
            }).find("does not broadcast"),
            std::string::npos);
}

// PyTorch calls the parameters of a single linear layer "weight" and "bias".
TEST(Differentiate, TakesAnExportedLinearLayerAndSaysWhichNamesAreItsOwn) {
  Random random(1);
  const auto with = [&](const std::string& name) {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    g.Input({"x", DataType::kFp32, {-1, 3}});
    g.Initializer(name, RandomTensor({3, 3}, random));
    g.Node("MatMul", {"x", name}, {}, "y");
    g.Output({"y", DataType::kFp32, {-1, 3}});
    onnx::ModelProto step;
    return Differentiate(model, {}, &step).status();
  };
  EXPECT_TRUE(with("weight").ok());
  EXPECT_NE(with("target").message().find("has a tensor \"target\""), std::string::npos);
  EXPECT_FALSE(with("row_weight").ok());
}

TEST(Broadcast, FollowsTheRulesOfNumpy) {
  EXPECT_EQ(Broadcast({-1, 3}, {3}).value(), (Shape{-1, 3}));
  EXPECT_EQ(Broadcast({2, 1, 3}, {4, 1}).value(), (Shape{2, 4, 3}));
  EXPECT_FALSE(Broadcast({2, 3}, {2}).ok());
}

}  // namespace
}  // namespace ganglion::gradient
