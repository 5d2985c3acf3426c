#include "model/model.h"

#include <gtest/gtest.h>

#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::model {
namespace {

std::string Classifier(bool softmax) {
  onnx::ModelProto proto;
  graph::GraphBuilder g(&proto);
  g.Input({"x", tensor::DataType::kFp32, {-1, 2}});
  g.Initializer("w", tensor::Tensor::Zeros(tensor::DataType::kFp32, {2, 3}).value());
  g.Node("MatMul", {"x", "w"}, {}, "logits");
  if (softmax) g.Node("Softmax", {"logits"}, {}, "p");
  g.Output({softmax ? "p" : "logits", tensor::DataType::kFp32, {-1, 3}});
  return graph::Serialize(proto);
}

TEST(Model, IsNamedByItsDigestAndKnowsItsSignature) {
  const auto m = Model::FromBytes("small.onnx", Classifier(false));
  ASSERT_TRUE(m.ok()) << m.status().message();
  EXPECT_EQ(m->signature().Text(), "x FP32[-1,2] -> logits FP32[-1,3]");
  EXPECT_EQ(m->digest(), crypto::Sha256(m->bytes()));
  EXPECT_EQ(m->parameter_count(), 6);
  EXPECT_FALSE(m->gives_probabilities());
  EXPECT_TRUE(Model::FromBytes("p.onnx", Classifier(true))->gives_probabilities());
  EXPECT_NE(Model::FromBytes("p.onnx", Classifier(true))->digest(), m->digest());
}

TEST(Model, SaysWhichFileIsBad) {
  EXPECT_EQ(Model::FromBytes("bad.onnx", "nonsense").status().message(),
            "bad.onnx: not an ONNX file, or cut short (8 bytes)");
}

}  // namespace
}  // namespace ganglion::model
