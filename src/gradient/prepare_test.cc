#include "gradient/prepare.h"

#include <gtest/gtest.h>

#include "gradient/cases_test.h"
#include "gradient/upgrade.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;
using List = std::vector<std::int64_t>;

// A model around one node of an old operator set: x [2, 3, 4, 4] (or as said) to y.
struct Old {
  std::string op;
  std::int64_t opset;
  std::vector<Attribute> attributes;
  Shape x{2, 3, 4, 4};
  std::string constant;  // a second input: "scales"
};

onnx::ModelProto OldModel(const Old& o, const Shape& y) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  model.mutable_opset_import(0)->set_version(o.opset);
  g.Input({"x", DataType::kFp32, o.x});
  std::vector<std::string> in{"x"};
  if (!o.constant.empty()) {
    const float scales[4] = {1, 1, 2, 3};
    g.Initializer(o.constant, Tensor::From<float>({4}, scales).value());
    in.push_back(o.constant);
  }
  g.Node(o.op, in, o.attributes, "y");
  g.Output({"y", DataType::kFp32, y});
  return model;
}

class OldOperator : public ::testing::TestWithParam<Old> {};

// The runtime knows the old operators: before and after must be the same numbers.
TEST_P(OldOperator, IsTheSameFunctionInTheNewSet) {
  const Old& o = GetParam();
  Random random(3);
  const std::vector<Feed> feeds{{"x", RandomTensor(o.x, random)}};
  auto model = OldModel(o, Shape(o.op == "Squeeze" ? 3 : o.op == "Unsqueeze" ? 5 : o.x.size(), -1));
  const auto before = RunModel(model, feeds);
  ASSERT_TRUE(Upgrade(&model).ok());
  EXPECT_EQ(graph::OpsetVersion(model), 13);
  const auto after = RunModel(model, feeds);
  ASSERT_EQ(before.count("y") + after.count("y"), 2u);
  EXPECT_EQ(before.at("y").shape(), after.at("y").shape());
  const auto a = before.at("y").As<float>();
  const auto b = after.at("y").As<float>();
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) EXPECT_FLOAT_EQ(a[i], b[i]) << i;
}

Attribute Ints(const char* name, List v) { return {name, std::move(v)}; }
const std::vector<Old> kOld{
    {"Clip", 7, {{"min", -.5f}, {"max", .25f}}},
    {"Clip", 10, {{"max", .25f}}},
    {"Dropout", 9, {{"ratio", .3f}}},
    {"LogSoftmax", 9, {{"axis", std::int64_t{1}}}},
    {"Pad", 9, {Ints("pads", {0, 0, 1, 2, 0, 0, 0, 1}), {"value", .5f}}},
    {"Pad", 10, {Ints("pads", {0, 0, 1, 2, 0, 0, 0, 1}), {"mode", std::string("reflect")}}},
    {"ReduceSum", 11, {Ints("axes", {1, -1})}},
    {"ReduceSum", 12, {}},
    {"Resize", 10, {}, {2, 3, 4, 4}, "scales"},
    {"Resize", 10, {{"mode", std::string("linear")}}, {2, 3, 4, 4}, "scales"},
    {"Slice", 9, {Ints("starts", {1, 0}), Ints("ends", {3, 9}), Ints("axes", {2, 3})}},
    {"Slice", 7, {Ints("starts", {0, 1}), Ints("ends", {1, -1})}},
    {"Softmax", 9, {}},
    {"Softmax", 9, {}, {2, 5}},
    {"Softmax", 11, {{"axis", std::int64_t{2}}}},
    {"Softmax", 11, {{"axis", std::int64_t{-1}}}},
    {"Squeeze", 11, {Ints("axes", {1})}, {2, 1, 4, 4}},
    {"Unsqueeze", 11, {Ints("axes", {1})}},
    {"Upsample", 7, {{"scales", std::vector<float>{1, 1, 2, 2}}}},
    {"Upsample", 9, {{"mode", std::string("linear")}}, {2, 3, 4, 4}, "scales"},
};
INSTANTIATE_TEST_SUITE_P(Upgrade, OldOperator, ::testing::ValuesIn(kOld), [](const auto& test) {
  return test.param.op + std::to_string(test.param.opset) + "_" + std::to_string(test.index);
});

// A final Softmax over [batch, classes] stays one node, so that the loss still sees through it.
TEST(Upgrade, KeepsAFinalSoftmaxASoftmax) {
  auto model = OldModel({"Softmax", 9, {}, {2, 5}}, {2, 5});
  ASSERT_TRUE(Upgrade(&model).ok());
  ASSERT_EQ(model.graph().node_size(), 1);
  EXPECT_EQ(model.graph().node(0).op_type(), "Softmax");
  EXPECT_EQ(graph::IntAttribute(model.graph().node(0), "axis", 7), -1);
}

TEST(Upgrade, LeavesNewModelsAlone) {
  auto model = OldModel({"Relu", 14, {}}, {2, 3, 4, 4});
  const std::string before = graph::Serialize(model);
  ASSERT_TRUE(Upgrade(&model).ok());
  EXPECT_EQ(graph::Serialize(model), before);
}

// Weights in Constant nodes, an If on an input, and a shape that the batch decides: all of it goes away, and what is
// left trains. The condition chooses between w x and 2 w x.
class Prepared : public ::testing::Test {
 protected:
  static onnx::ModelProto Model() {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    g.Input({"x", DataType::kFp32, {-1, -1}});
    g.Input({"rate", DataType::kInt64, {}});
    const float w[6] = {1, 2, 3, 4, 5, 6};
    auto* constant = model.mutable_graph()->add_node();
    constant->set_op_type("Constant");
    constant->add_output("w");
    auto* value = constant->add_attribute();
    value->set_name("value");
    value->set_type(onnx::AttributeProto::TENSOR);
    graph::FromTensor("", Tensor::From<float>({3, 2}, w).value().View(), value->mutable_t());
    const long fast = 16000;
    const std::string is_fast =
        g.Node("Equal", {"rate", g.Constant("fast", Tensor::From<long>({}, {&fast, 1}).value())});
    const auto branch = [&](bool twice) {
      auto graph = std::make_shared<onnx::GraphProto>();
      graph->set_name(twice ? "slow" : "fast");
      auto* n = graph->add_node();
      n->set_op_type("MatMul");
      n->add_input("x");
      n->add_input("w");
      n->add_output("product");
      if (twice) {
        auto* sum = graph->add_node();
        sum->set_op_type("Add");
        sum->add_input("product");
        sum->add_input("product");
        sum->add_output("sum");
      }
      auto* out = graph->add_output();
      out->set_name(twice ? "sum" : "product");
      out->mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
      return Attribute{twice ? "else_branch" : "then_branch", std::shared_ptr<const onnx::GraphProto>(graph)};
    };
    g.Node("If", {is_fast}, {branch(false), branch(true)}, "y");
    g.Output({"y", DataType::kFp32, {-1, 2}});
    return model;
  }
  static Tensor Rate(long rate) { return Tensor::From<long>({}, {&rate, 1}).value(); }
};

TEST_F(Prepared, ModelsWithBranchesAndConstantsTrain) {
  Random random(4);
  const Tensor x = RandomTensor({2, 3}, random);
  for (const long rate : {16000, 8000}) {
    auto model = Model();
    const auto before = RunModel(model, {{"x", x}, {"rate", Rate(rate)}});
    ASSERT_TRUE(Prepare({.fixed = {{"rate", Rate(rate)}}, .shapes = {{"x", {-1, 3}}}}, &model).ok());
    const auto after = RunModel(model, {{"x", x}});
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_FLOAT_EQ(before.at("y").As<float>()[i], after.at("y").As<float>()[i]) << rate;
    Tensor w = RandomTensor({2}, random, 0, 1);
    ExpectCentralDifferences(model, {.loss = Loss::kSquaredError},
                             {{"x", x}, {"target", RandomTensor({2, 2}, random)}, {"row_weight", w}});
  }
}

TEST_F(Prepared, ModelsKeepAnIfThatTheInputDecides) {
  auto model = Model();
  ASSERT_TRUE(Prepare({.shapes = {{"x", {-1, 3}}}}, &model).ok());
  onnx::ModelProto step;
  const auto refused = Differentiate(model, {.loss = Loss::kSquaredError}, &step);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("If goes away where its condition follows"), std::string::npos)
      << refused.status().message();
}

TEST_F(Prepared, ModelsSayWhatInputsTheyHave) {
  auto model = Model();
  EXPECT_NE(Prepare({.fixed = {{"speed", Rate(1)}}}, &model).message().find("no input \"speed\"; it has: x rate"),
            std::string::npos);
  model = Model();
  EXPECT_NE(Prepare({.fixed = {{"x", Rate(1)}}}, &model).message().find("INT64 numbers, it takes FP32"),
            std::string::npos);
  model = Model();
  EXPECT_NE(Prepare({.shapes = {{"x", {-1, 3, 3}}}}, &model).message().find("cannot have the shape [-1,3,3]"),
            std::string::npos);
}

// Shape, Gather, Mul and Concat give Reshape its shape, as exporters write it.
TEST(KnownShapes, FollowFromTheSizesOfInputs) {
  Random random(5);
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 4, 3}});
  g.Initializer("w", RandomTensor({3, 2}, random));
  const std::string h = g.Node("MatMul", {"x", "w"});
  const std::string shape = g.Node("Shape", {h});
  const auto size = [&](std::int64_t i) {
    const long at = i;
    return g.Node("Gather", {shape, g.Constant("at", Tensor::From<long>({}, {&at, 1}).value())});
  };
  const auto list = [&](const std::string& one) { return g.Node("Unsqueeze", {one, g.Ints("axes", {0})}); };
  const std::string columns = g.Node("Mul", {size(1), size(2)});
  const std::string to = g.Node("Concat", {list(size(0)), list(columns)}, {{"axis", std::int64_t{0}}});
  g.Node("Reshape", {h, to}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 8}});
  for (const std::int64_t rows : {1, 3}) {
    ExpectCentralDifferences(model, {.loss = Loss::kSquaredError},
                             {{"x", RandomTensor({rows, 4, 3}, random)},
                              {"target", RandomTensor({rows, 8}, random)},
                              {"row_weight", RandomTensor({rows}, random, 0, 1)}});
  }
}

// What asks whether a size is the batch, a Where that replaces -1, and numbers counted in floats: PyTorch's Expand and
// old upsampling.
TEST(KnownShapes, FollowThroughComparisonsAndFloats) {
  Random random(6);
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 2, 3}});
  g.Initializer("token", RandomTensor({1, 2, 3}, random));
  const std::string shape = g.Node("Shape", {"x"});
  const std::string ones = g.Ints("ones", {1, 1, 1});
  const std::string is_open = g.Node("Equal", {shape, g.Ints("minus", {-1, -1, -1})});
  const std::string to = g.Node("Where", {is_open, ones, shape});
  const std::string sum = g.Node("Add", {"x", g.Node("Expand", {"token", to})});
  const Attribute to_float{"to", std::int64_t{1}};
  const Attribute to_int{"to", std::int64_t{7}};
  const std::string tail = g.Node("Slice", {shape, g.Ints("from", {1}), g.Ints("to", {3})});
  const std::string doubled = g.Node(
      "Cast", {g.Node("Floor", {g.Node("Mul", {g.Node("Cast", {tail}, {to_float}), g.Scalar("two", 2)})})}, {to_int});
  const std::string repeats =
      g.Node("Concat", {g.Ints("once", {1}), g.Node("Div", {doubled, tail})}, {{"axis", std::int64_t{0}}});
  g.Node("Flatten", {g.Node("Tile", {sum, repeats})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 24}});
  for (const std::int64_t rows : {1, 3}) {
    ExpectCentralDifferences(model, {.loss = Loss::kSquaredError},
                             {{"x", RandomTensor({rows, 2, 3}, random)},
                              {"target", RandomTensor({rows, 24}, random)},
                              {"row_weight", RandomTensor({rows}, random, 0, 1)}});
  }
}

}  // namespace
}  // namespace ganglion::gradient
