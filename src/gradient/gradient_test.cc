#include "gradient/gradient.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/random.h"
#include "gradient/reference_test.h"
#include "gradient/rules.h"
#include "runtime/runtime.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using reference::Array;
using reference::Values;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

const std::shared_ptr<runtime::Engine>& SharedEngine() {
  static const auto engine = runtime::Engine::Create().value();
  return engine;
}

Tensor RandomTensor(const Shape& shape, Random& random, double low = -1, double high = 1) {
  Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
  for (float& v : t.As<float>()) v = static_cast<float>(random.Uniform(low, high));
  return t;
}

struct Feed {
  std::string name;
  Tensor value;
};

// Runs the step on the runtime: outputs by name.
std::map<std::string, Tensor> RunStep(const onnx::ModelProto& step, const std::vector<Feed>& feeds) {
  const auto model = model::Model::FromBytes("step.onnx", graph::Serialize(step));
  EXPECT_TRUE(model.ok()) << model.status().message();
  const auto session =
      runtime::Session::Create(SharedEngine(), *model, {.optimise = runtime::SessionOptions::Optimise::kBasic});
  EXPECT_TRUE(session.ok()) << session.status().message();
  if (!session.ok()) return {};
  std::vector<tensor::View> inputs;
  for (const auto& spec : (*session)->signature().inputs) {
    for (const auto& f : feeds) {
      if (f.name == spec.name) inputs.push_back(f.value.View());
    }
  }
  auto out = (*session)->Run(inputs);
  EXPECT_TRUE(out.ok()) << out.status().message();
  std::map<std::string, Tensor> named;
  if (!out.ok()) return named;
  for (std::size_t i = 0; i < out->size(); ++i) named[(*session)->signature().outputs[i].name] = std::move((*out)[i]);
  return named;
}

double ReferenceLoss(Loss loss, const Array& y, const std::vector<Feed>& feeds) {
  Array target;
  Array weight;
  for (const auto& f : feeds) {
    if (f.name == "target") target = reference::FromTensor(f.value);
    if (f.name == "row_weight") weight = reference::FromTensor(f.value);
  }
  const auto k = static_cast<std::size_t>(y.shape[1]);
  double total = 0;
  const Array log_p = reference::LogSoftmax(y, 1);
  for (std::size_t r = 0; r < static_cast<std::size_t>(y.shape[0]); ++r) {
    double l = 0;
    for (std::size_t j = 0; j < k; ++j) {
      switch (loss) {
        case Loss::kSoftmaxCrossEntropy:
          l -= target.v[r] == static_cast<double>(j) ? log_p.v[r * k + j] : 0;
          break;
        case Loss::kSoftmaxCrossEntropyDense:
          l -= target.v[r * k + j] * log_p.v[r * k + j];
          break;
        case Loss::kSquaredError:
          l += std::pow(y.v[r * k + j] - target.v[r * k + j], 2) / static_cast<double>(k);
          break;
      }
    }
    total += weight.v[r] * l;
  }
  return total;
}

// Holds the step model's loss and every gradient entry to central differences of the double-precision reference.
// The reference is evaluated on the model as it is, so a Softmax at its end must agree with what was taken off it.
void ExpectCentralDifferences(const onnx::ModelProto& model, Loss loss, const std::vector<Feed>& feeds) {
  onnx::ModelProto step;
  const auto segments = Differentiate(model, {.loss = loss}, &step);
  ASSERT_TRUE(segments.ok()) << segments.status().message();
  std::vector<Feed> all = feeds;
  Values values;
  for (const auto& t : model.graph().initializer()) {
    all.push_back({t.name(), graph::ToTensor(t).value()});
    values[t.name()] = reference::FromTensor(all.back().value);
  }
  for (const auto& f : feeds) values[f.name] = reference::FromTensor(f.value);
  const auto evaluate = [&](Values v) {
    reference::Evaluate(model.graph(), v);
    Array y = v.at(model.graph().output(0).name());
    // The loss is defined on logits; a model that ends in Softmax is taken at log p, which gives the same loss.
    const auto& last = model.graph().node(model.graph().node_size() - 1);
    if (last.op_type() == "Softmax" && loss != Loss::kSquaredError)
      y = reference::Map(y, [](double x) { return std::log(x); });
    return ReferenceLoss(loss, y, feeds);
  };
  auto out = RunStep(step, all);
  const double expected_loss = evaluate(values);
  ASSERT_EQ(out.count("loss"), 1u);
  EXPECT_NEAR(out["loss"].As<float>()[0], expected_loss, 1e-5 * std::max(1., std::fabs(expected_loss)));
  for (const auto& s : *segments) {
    const auto gradient = out["grad." + s.name].As<float>();
    EXPECT_EQ(out["grad." + s.name].shape(), s.shape);
    std::vector<double> numeric;
    double largest = 1e-3;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      Values up = values;
      Values down = values;
      constexpr double h = 1e-5;
      up[s.name].v[i] += h;
      down[s.name].v[i] -= h;
      numeric.push_back((evaluate(up) - evaluate(down)) / (2 * h));
      largest = std::max(largest, std::fabs(numeric.back()));
    }
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      EXPECT_NEAR(gradient[i], numeric[i], 1e-4 * largest) << s.name << '[' << i << ']';
    }
  }
}

// A model around one operator: its parameters are the operator's inputs, and a product with fixed numbers follows, so
// that every output element counts differently. The result is flattened to [rows, K] for a squared error.
struct Case {
  std::string name;
  std::string op;
  std::vector<Shape> inputs;  // the first comes from a parameter too, so all are differentiated
  std::vector<Attribute> attributes;
  std::vector<std::int64_t> axes;  // a constant INT64 last input (Reshape's shape, ReduceSum's axes)
  double low = -1;
};

class EveryRule : public ::testing::TestWithParam<Case> {};

TEST_P(EveryRule, MatchesCentralDifferencesInDoublePrecision) {
  const Case& c = GetParam();
  Random random(20);
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 1}});
  std::vector<std::string> in;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    in.push_back("p" + std::to_string(i));
    g.Initializer(in.back(), RandomTensor(c.inputs[i], random, c.low, 1.5));
  }
  if (!c.axes.empty()) in.push_back(g.Ints("ints", c.axes));
  const std::string y = g.Node(c.op, in, c.attributes);
  const std::string flat = g.Node("Reshape", {y, g.Ints("flat", {1, -1})});
  const std::string rows = g.Node("Add", {g.Node("Mul", {"x", g.Scalar("zero", 0)}), flat});  // [rows, K]
  Values values;
  for (const auto& t : model.graph().initializer())
    values[t.name()] = reference::FromTensor(graph::ToTensor(t).value());
  values["x"] = {{2, 1}, {0, 0}};
  reference::Evaluate(model.graph(), values);
  const std::int64_t k = values.at(rows).shape[1];
  g.Rename(rows, "out");
  g.Output({"out", DataType::kFp32, {-1, k}});
  const float w[2] = {.3f, .7f};
  ExpectCentralDifferences(model, Loss::kSquaredError,
                           {{"x", Tensor::Zeros(DataType::kFp32, {2, 1}).value()},
                            {"target", RandomTensor({2, k}, random)},
                            {"row_weight", Tensor::From<float>({2}, w).value()}});
}

const Attribute kTransA{"transA", std::int64_t{1}};
const Attribute kTransB{"transB", std::int64_t{1}};
const Attribute kDrop{"keepdims", std::int64_t{0}};
const std::vector<Case> kCases{
    {"AddSame", "Add", {{2, 3}, {2, 3}}},
    {"AddBias", "Add", {{2, 3}, {3}}},
    {"AddColumn", "Add", {{2, 1}, {2, 3}}},
    {"AddBothWays", "Add", {{2, 1, 3}, {4, 1}}},
    {"AddScalarShape", "Add", {{2, 3}, {1}}},
    {"SubBias", "Sub", {{2, 3}, {3}}},
    {"SubFrom", "Sub", {{1, 3}, {2, 1}}},
    {"MulSame", "Mul", {{2, 3}, {2, 3}}},
    {"MulRow", "Mul", {{2, 3}, {1, 3}}},
    {"DivColumn", "Div", {{2, 3}, {2, 1}}, {}, {}, .5},
    {"Neg", "Neg", {{2, 3}}},
    {"Identity", "Identity", {{2, 3}}},
    {"Relu", "Relu", {{3, 5}}},
    {"Sigmoid", "Sigmoid", {{3, 5}}},
    {"Tanh", "Tanh", {{3, 5}}},
    {"SoftmaxLast", "Softmax", {{3, 4}}},
    {"SoftmaxFirst", "Softmax", {{3, 4}}, {{"axis", std::int64_t{0}}}},
    {"SoftmaxMiddle", "Softmax", {{2, 3, 2}}, {{"axis", std::int64_t{1}}}},
    {"LogSoftmaxLast", "LogSoftmax", {{3, 4}}},
    {"LogSoftmaxFirst", "LogSoftmax", {{3, 4}}, {{"axis", std::int64_t{0}}}},
    {"Gemm", "Gemm", {{2, 3}, {3, 4}, {4}}},
    {"GemmNoBias", "Gemm", {{2, 3}, {3, 4}}},
    {"GemmTransA", "Gemm", {{3, 2}, {3, 4}, {2, 1}}, {kTransA}},
    {"GemmTransB", "Gemm", {{2, 3}, {4, 3}, {4}}, {kTransB}},
    {"GemmTransBoth", "Gemm", {{3, 2}, {4, 3}, {1, 4}}, {kTransA, kTransB}},
    {"GemmAlphaBeta", "Gemm", {{2, 3}, {3, 4}, {2, 4}}, {{"alpha", .5f}, {"beta", 2.f}}},
    {"MatMul", "MatMul", {{2, 3}, {3, 4}}},
    {"MatMulManyByOne", "MatMul", {{2, 2, 3}, {3, 4}}},
    {"MatMulManyByMany", "MatMul", {{2, 2, 3}, {2, 3, 4}}},
    {"MatMulBroadcast", "MatMul", {{2, 1, 2, 3}, {3, 3, 2}}},
    {"MatMulOneByMany", "MatMul", {{2, 3}, {2, 3, 4}}},
    {"Reshape", "Reshape", {{2, 6}}, {}, {3, -1}},
    {"ReshapeZero", "Reshape", {{2, 6}}, {}, {0, 2, 3}},
    {"Flatten", "Flatten", {{2, 3, 2}}},
    {"FlattenLast", "Flatten", {{2, 3, 2}}, {{"axis", std::int64_t{2}}}},
    {"ReduceSumKeep", "ReduceSum", {{2, 3, 2}}, {}, {1}},
    {"ReduceSumDrop", "ReduceSum", {{2, 3, 2}}, {kDrop}, {0, -1}},
    {"ReduceSumAll", "ReduceSum", {{2, 3}}},
    {"ReduceMeanKeep", "ReduceMean", {{2, 3, 2}}, {{"axes", std::vector<std::int64_t>{1}}}},
    {"ReduceMeanDrop", "ReduceMean", {{2, 3, 2}}, {{"axes", std::vector<std::int64_t>{0, 2}}, kDrop}},
    {"ReduceMeanAll", "ReduceMean", {{2, 3}}},
    {"Transpose", "Transpose", {{2, 3}}},
    {"TransposePerm", "Transpose", {{2, 3, 4}}, {{"perm", std::vector<std::int64_t>{2, 0, 1}}}},
};
INSTANTIATE_TEST_SUITE_P(Gradient, EveryRule, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return test.param.name; });

TEST(Rules, HaveACaseEach) {
  for (const auto& op : SupportedOperators()) {
    EXPECT_TRUE(std::any_of(kCases.begin(), kCases.end(), [&](const Case& c) { return c.op == op; }))
        << op << " has a rule and no test";
  }
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
    ExpectCentralDifferences(model, Loss::kSoftmaxCrossEntropy,
                             {{"x", x}, {"target", Tensor::From<long>({5}, classes).value()}, weight});
    ExpectCentralDifferences(model, Loss::kSoftmaxCrossEntropyDense, {{"x", x}, {"target", dense}, weight});
    ExpectCentralDifferences(model, Loss::kSquaredError, {{"x", x}, {"target", dense}, weight});
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
  ExpectCentralDifferences(model, Loss::kSquaredError,
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
  ExpectCentralDifferences(model, Loss::kSquaredError,
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
      out = RunStep(step, feeds);
      EXPECT_NEAR(out["loss"].As<float>()[0], expected, 1e-5 * expected);
      continue;
    }
    double norm = 0;
    double sum = 0;
    in >> norm >> sum;
    const auto gradient = out["grad." + name].As<float>();
    double squares = 0;
    double total = 0;
    for (const float v : gradient) {
      squares += static_cast<double>(v) * v;
      total += v;
    }
    EXPECT_NEAR(std::sqrt(squares), norm, 1e-4 * norm) << line;
    EXPECT_NEAR(total, sum, 1e-4 * norm * std::sqrt(static_cast<double>(gradient.size()))) << line;
    std::size_t at = 0;
    double expected = 0;
    while (in >> at >> expected) EXPECT_NEAR(gradient[at], expected, 1e-4 * norm) << line;
  }
  EXPECT_EQ(cases, 4);
}

TEST(Differentiate, NamesEveryOperatorWithoutARule) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 3}});
  g.Initializer("w", Tensor::Zeros(DataType::kFp32, {3, 3}).value());
  const std::string h = g.Node("Erf", {g.Node("MatMul", {"x", "w"})});
  g.Node("Hardmax", {h}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 3}});
  onnx::ModelProto step;
  const auto refused = Differentiate(model, {}, &step);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("node 1 (Erf), node 2 (Hardmax)"), std::string::npos)
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
  auto old = model;
  old.mutable_opset_import(0)->set_version(9);
  EXPECT_NE(Differentiate(old, {}, &step).status().message().find("operator set 9"), std::string::npos);
  const auto frozen = Differentiate(model, {.frozen = {"w0"}}, &step);
  ASSERT_TRUE(frozen.ok()) << frozen.status().message();
  EXPECT_EQ(frozen->size(), 1u);
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
