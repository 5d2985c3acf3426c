#include "graph/graph.h"

#include <gtest/gtest.h>

#include <array>

#include "graph/onnx.pb.h"

namespace ganglion::graph {
namespace {

onnx::ModelProto Linear() {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", tensor::DataType::kFp32, {-1, 2}});
  const std::array<float, 4> w{1, 2, 3, 4};
  g.Initializer("w", tensor::Tensor::From<float>({2, 2}, w).value());
  g.Node("MatMul", {"x", "w"}, {}, "y");
  g.Output({"y", tensor::DataType::kFp32, {-1, 2}});
  return model;
}

Status Reparse(const onnx::ModelProto& model) {
  const std::string bytes = Serialize(model);
  onnx::ModelProto back;
  return Parse(std::as_bytes(std::span(bytes)), &back);
}

TEST(Parse, AcceptsWhatTheBuilderMakes) {
  const auto model = Linear();
  ASSERT_TRUE(Reparse(model).ok()) << Reparse(model).message();
  EXPECT_EQ(InputSpecs(model)->at(0).Text(), "FP32[-1,2]");
  EXPECT_EQ(OutputSpecs(model)->at(0).name, "y");
  EXPECT_EQ(OpsetVersion(model), kOpset);
}

TEST(Parse, RefusesEveryTruncation) {
  const std::string bytes = Serialize(Linear());
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    onnx::ModelProto back;
    EXPECT_FALSE(Parse(std::as_bytes(std::span(bytes.data(), n)), &back).ok()) << n;
  }
}

TEST(Parse, RefusesDataOutsideTheFile) {
  auto model = Linear();
  auto* t = model.mutable_graph()->mutable_initializer(0);
  t->clear_raw_data();
  t->set_data_location(onnx::TensorProto::EXTERNAL);
  auto* e = t->add_external_data();
  e->set_key("location");
  e->set_value("/etc/passwd");
  EXPECT_NE(Reparse(model).message().find("initializer \"w\" keeps its data outside the file"), std::string::npos);
}

TEST(Parse, RefusesDataOutsideTheFileInAttributesAndSubgraphs) {
  auto model = Linear();
  auto* a = model.mutable_graph()->mutable_node(0)->add_attribute();
  a->set_name("value");
  a->set_type(onnx::AttributeProto::GRAPH);
  auto* t = a->mutable_g()->add_initializer();
  t->set_name("inner");
  t->set_data_type(onnx::TensorProto::FLOAT);
  t->add_dims(1);
  t->add_external_data()->set_key("location");
  EXPECT_NE(Reparse(model).message().find("outside the file"), std::string::npos);
}

// A sparse constant could keep its values outside the file, where the digest does not reach.
TEST(Parse, RefusesSparseConstants) {
  auto model = Linear();
  auto* a = model.mutable_graph()->mutable_node(0)->add_attribute();
  a->set_name("sparse_value");
  a->set_type(onnx::AttributeProto::SPARSE_TENSOR);
  a->mutable_sparse_tensor()->mutable_values()->set_data_location(onnx::TensorProto::EXTERNAL);
  EXPECT_NE(Reparse(model).message().find("is a sparse tensor"), std::string::npos);
}

TEST(Parse, RefusesSizesThatLie) {
  auto model = Linear();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, 3);
  EXPECT_NE(Reparse(model).message().find("takes 24 bytes for its shape, the file has 16"), std::string::npos);
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, -3);
  EXPECT_FALSE(Reparse(model).ok());
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, std::int64_t{1} << 60);
  EXPECT_FALSE(Reparse(model).ok());
}

TEST(Parse, RefusesNamesMadeTwiceOrNever) {
  auto model = Linear();
  *model.mutable_graph()->add_node() = model.graph().node(0);
  EXPECT_NE(Reparse(model).message().find("makes \"y\", which exists already"), std::string::npos);
  model = Linear();
  model.mutable_graph()->mutable_node(0)->set_input(0, "nowhere");
  EXPECT_NE(Reparse(model).message().find("node 0 (MatMul) reads \"nowhere\""), std::string::npos);
  model = Linear();
  model.mutable_graph()->mutable_output(0)->set_name("z");
  EXPECT_NE(Reparse(model).message().find("output \"z\" is made by no node"), std::string::npos);
}

TEST(Parse, RefusesGraphsNestedBeyondTheLimit) {
  auto model = Linear();
  onnx::GraphProto* g = model.mutable_graph();
  for (int i = 0; i < 30; ++i) {
    auto* n = g->add_node();
    n->set_op_type("If");
    n->add_output("o" + std::to_string(i));
    auto* a = n->add_attribute();
    a->set_name("then_branch");
    a->set_type(onnx::AttributeProto::GRAPH);
    g = a->mutable_g();
  }
  EXPECT_FALSE(Reparse(model).ok());
}

TEST(Parse, ReadsTheNamesOfOuterGraphsInInnerOnes) {
  auto model = Linear();
  auto* n = model.mutable_graph()->add_node();
  n->set_op_type("If");
  n->add_output("o");
  auto* a = n->add_attribute();
  a->set_name("then_branch");
  a->set_type(onnx::AttributeProto::GRAPH);
  auto* inner = a->mutable_g()->add_node();
  inner->set_op_type("Identity");
  inner->add_input("y");
  inner->add_output("inside");
  a->mutable_g()->add_output()->set_name("inside");
  EXPECT_TRUE(Reparse(model).ok()) << Reparse(model).message();
  model.mutable_graph()->add_output()->set_name("inside");
  EXPECT_FALSE(Reparse(model).ok()) << "an inner name is not known outside";
}

TEST(Parse, RefusesWhatIsNoModelAtAll) {
  onnx::ModelProto model;
  EXPECT_NE(Parse(std::as_bytes(std::span("hello world", 11)), &model).message().find("not an ONNX file"),
            std::string::npos);
  EXPECT_FALSE(Parse({}, &model).ok());
}

TEST(ToTensor, ReadsRawAndTypedFields) {
  onnx::TensorProto t;
  t.set_name("t");
  t.set_data_type(onnx::TensorProto::FLOAT);
  t.add_dims(2);
  t.add_float_data(1.5f);
  t.add_float_data(2.5f);
  EXPECT_EQ(ToTensor(t)->As<float>()[1], 2.5f);
  onnx::TensorProto raw;
  FromTensor("t", ToTensor(t)->View(), &raw);
  EXPECT_EQ(ToTensor(raw)->As<float>()[0], 1.5f);
  t.add_float_data(3);
  EXPECT_FALSE(ToTensor(t).ok());
}

}  // namespace
}  // namespace ganglion::graph
