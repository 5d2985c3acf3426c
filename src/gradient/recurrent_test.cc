// RNN, GRU and LSTM against central differences in double precision, and whole classifiers against PyTorch.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "gradient/cases_test.h"
#include "gradient/reference_recurrent_test.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

const Attribute kReverse{"direction", std::string("reverse")};
const Attribute kBoth{"direction", std::string("bidirectional")};
const Attribute kAfter{"linear_before_reset", std::int64_t{1}};

struct Sizes {
  std::int64_t times = 4, batch = 2, inputs = 3, hidden = 2, directions = 1;
};

Case Layer(const std::string& op, const std::string& form, const Sizes& s, bool bias, int states,
           std::vector<Attribute> attributes = {}) {
  const std::int64_t g = (op == "RNN" ? 1 : op == "GRU" ? 3 : 4) * s.hidden;
  std::vector<Operand> in{P({s.times, s.batch, s.inputs}), P({s.directions, g, s.inputs}),
                          P({s.directions, g, s.hidden})};
  if (bias || states > 0) in.push_back(bias ? P({s.directions, 2 * g}) : Absent());
  if (states > 0) in.push_back(Absent());
  for (int i = 0; i < states; ++i) in.push_back(P({s.directions, s.batch, s.hidden}));
  attributes.push_back({"hidden_size", s.hidden});
  return Case(op, form, in, std::move(attributes)).In(-.8, .8).With(reference::RecurrentOperators);
}

const Sizes kPlain;
const Sizes kTwo{3, 2, 2, 2, 2};
const std::vector<Case> kCases{
    Layer("RNN", "Tanh", kPlain, true, 0),
    Layer("RNN", "Relu, no biases, last state", kPlain, false, 0, {{"activations", std::vector<std::string>{"Relu"}}})
        .Reads({false, true}),
    Layer("RNN", "both directions, initial state", kTwo, true, 1,
          {kBoth, {"activations", std::vector<std::string>{"Tanh", "Sigmoid"}}})
        .Reads({true, true}),
    Layer("RNN", "time not fixed", kPlain, true, 0).Batched(),
    Layer("GRU", "reset after, all states", kPlain, true, 0, {kAfter}),
    Layer("GRU", "reset after, last state", kPlain, true, 0, {kAfter}).Reads({false, true}),
    Layer("GRU", "reset after, reverse, initial state", kPlain, true, 1, {kAfter, kReverse}).Reads({true, true}),
    Layer("GRU", "reset after, both directions", kTwo, true, 0, {kAfter, kBoth}).Reads({true, true}),
    Layer("GRU", "reset after, no biases, one step, one example", {1, 1, 3, 2, 1}, false, 0, {kAfter}),
    Layer("GRU", "reset after, time not fixed", kPlain, true, 0, {kAfter}).Batched(),
    Layer("GRU", "reset before, all states", kPlain, true, 0),
    Layer("GRU", "reset before, no biases, last state", kPlain, false, 0).Reads({false, true}),
    Layer("GRU", "reset before, both directions, initial state", kTwo, true, 1, {kBoth}).Reads({true, true}),
    Layer("GRU", "reset before, reverse, one step", {1, 3, 1, 3, 1}, true, 0, {kReverse}),
    Layer("LSTM", "all states", kPlain, true, 0),
    Layer("LSTM", "last state and cell, initial ones", kPlain, true, 2).Reads({false, true, true}),
    Layer("LSTM", "reverse, no biases", kPlain, false, 0, {kReverse}).Reads({true, false, true}),
    Layer("LSTM", "both directions, initial ones", kTwo, false, 2, {kBoth}).Reads({true, true, true}),
    Layer("LSTM", "one step, one example", {1, 1, 3, 2, 1}, true, 0),
    Layer("LSTM", "time not fixed", kPlain, true, 0).Batched(),
};
INSTANTIATE_TEST_SUITE_P(Recurrent, EveryRule, ::testing::ValuesIn(kCases), CaseName);

// tokens [batch, times] through an embedding, one recurrent layer and a linear one, as tests/golden/recurrent.py.
onnx::ModelProto Classifier(const std::string& op, std::int64_t directions, const std::string& reads,
                            std::int64_t times) {
  const auto wave = [](const Shape& shape, double k, double scale) {
    Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
    for (std::size_t i = 0; i < t.As<float>().size(); ++i)
      t.As<float>()[i] = static_cast<float>(std::sin(.37 * static_cast<double>(i) + k) * scale);
    return t;
  };
  const std::int64_t h = 5;
  const std::int64_t gates = (op == "RNN" ? 1 : op == "GRU" ? 3 : 4) * h;
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"tokens", DataType::kInt64, {-1, times}});
  g.Initializer("embedding", wave({11, 6}, 1, .8));
  g.Initializer("w", wave({directions, gates, 6}, 2, .5));
  g.Initializer("r", wave({directions, gates, h}, 3, .5));
  g.Initializer("b", wave({directions, 2 * gates}, 4, .2));
  g.Initializer("fw", wave({3, directions * h}, 5, .6));
  g.Initializer("fb", wave({3}, 6, .1));
  const std::string x =
      g.Node("Transpose", {g.Node("Gather", {"embedding", "tokens"})}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}});
  std::vector<Attribute> attributes{{"hidden_size", h}};
  if (op == "GRU") attributes.push_back(kAfter);
  if (directions == 2) attributes.push_back(kBoth);
  const auto y = g.Nodes(op, {x, "w", "r", "b"}, 2, attributes);
  std::string states;  // [batch, directions, h]
  if (reads == "last") {
    states = g.Node("Transpose", {y[1]}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}});
  } else {
    const std::string mean =
        g.Node("ReduceMean", {y[0]}, {{"axes", std::vector<std::int64_t>{0}}, {"keepdims", std::int64_t{0}}});
    states = g.Node("Transpose", {mean}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}});
  }
  const std::string flat = g.Node("Reshape", {states, g.Ints("flat", {-1, directions * h})});
  g.Node("Gemm", {flat, "fw", "fb"}, {{"transB", std::int64_t{1}}}, "y");
  g.Output({"y", DataType::kFp32, {-1, 3}});
  return model;
}

TEST(Recurrent, ClassifiersHavePyTorchsGradients) {
  std::ifstream file(GANGLION_SOURCE_DIR "/tests/golden/recurrent.txt");
  ASSERT_TRUE(file.good());
  std::map<std::string, Tensor> out;
  int cases = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string name;
    in >> name;
    if (name == "case") {
      ++cases;
      std::string op;
      std::string reads;
      std::int64_t directions = 0;
      std::int64_t batch = 0;
      std::int64_t times = 0;
      double loss = 0;
      in >> op >> directions >> reads >> batch >> times >> loss;
      const auto model = Classifier(op, directions, reads, times);
      onnx::ModelProto step;
      const auto parts = Differentiate(model, {}, &step);
      ASSERT_TRUE(parts.ok()) << parts.status().message();
      std::vector<long> tokens;
      std::vector<long> classes;
      for (std::int64_t i = 0; i < batch; ++i) {
        classes.push_back(i % 3);
        for (std::int64_t t = 0; t < times; ++t) tokens.push_back((3 * i + 5 * t) % 11);
      }
      const std::vector<float> w(static_cast<std::size_t>(batch), 1.f / static_cast<float>(batch));
      std::vector<Feed> feeds{{"tokens", Tensor::From<long>({batch, times}, tokens).value()},
                              {"target", Tensor::From<long>({batch}, classes).value()},
                              {"row_weight", Tensor::From<float>({batch}, w).value()}};
      for (const auto& t : model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
      out = RunModel(step, feeds);
      ASSERT_EQ(out.count("loss"), 1u) << line;
      EXPECT_NEAR(out["loss"].As<float>()[0], loss, 1e-5 * loss) << line;
      continue;
    }
    SCOPED_TRACE(line);
    ExpectGoldenGradient(in, out["grad." + name].As<float>());
  }
  EXPECT_EQ(cases, 12);
}

TEST(Recurrent, RefusesWhatHasNoRuleInASentence) {
  const auto refusal = [](const std::string& op, std::vector<std::string> more, const Attribute& attribute) {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    const std::int64_t gates = op == "GRU" ? 6 : 8;
    g.Input({"x", DataType::kFp32, {-1, 4, 3}});
    g.Initializer("w", Tensor::Zeros(DataType::kFp32, {1, gates, 3}).value());
    g.Initializer("r", Tensor::Zeros(DataType::kFp32, {1, gates, 2}).value());
    g.Initializer("p", Tensor::Zeros(DataType::kFp32, {1, 6}).value());
    g.Initializer("lengths", Tensor::Zeros(DataType::kInt32, {4}).value());
    std::vector<std::string> in{g.Node("Transpose", {"x"}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}}), "w", "r"};
    in.insert(in.end(), more.begin(), more.end());
    const auto y = g.Nodes(op, in, 2, {attribute});
    g.Node("Reshape", {y[1], g.Ints("rows", {-1, 2})}, {}, "y");
    g.Output({"y", DataType::kFp32, {-1, 2}});
    onnx::ModelProto step;
    return Differentiate(model, {}, &step).status().message();
  };
  const auto expect = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(refusal("GRU", {"", "lengths"}, {"layout", std::int64_t{0}}), "sequence_lens; pad");
  expect(refusal("GRU", {}, {"layout", std::int64_t{1}}), "layout 1");
  expect(refusal("GRU", {}, {"clip", 3.f}), "attribute clip");
  expect(refusal("GRU", {}, {"direction", std::string("sideways")}), "sideways");
  expect(refusal("GRU", {}, {"hidden_size", std::int64_t{7}}), "hidden_size");
  expect(refusal("GRU", {}, {"activations", std::vector<std::string>{"Relu", "Tanh"}}), "other activations");
  expect(refusal("LSTM", {"", "", "", "", "p"}, {"layout", std::int64_t{0}}), "peepholes");
  expect(refusal("LSTM", {}, {"input_forget", std::int64_t{1}}), "input_forget");
  expect(refusal("LSTM", {"p"}, {"layout", std::int64_t{0}}), "B should be [1,16], is [1,6]");
}

}  // namespace
}  // namespace ganglion::gradient
