// Reading an ONNX file, describing it, differentiating it.
#include "gradient/gradient.h"
#include "gradient/prepare.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "model/model.h"
#include "target.h"
#include "tensor/tensor.h"
#include "training/convnet.h"
#include "training/perceptron.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion;
  const auto model = model::Model::FromBytes("f.onnx", std::string(reinterpret_cast<const char*>(data), size));
  if (!model.ok()) return 0;
  onnx::ModelProto proto;
  onnx::ModelProto step;
  if (!graph::Parse(model->bytes(), &proto).ok()) return 0;
  (void)gradient::Differentiate(proto, {}, &step);
  gradient::Options clipped;
  clipped.clip_norm = 1.f;
  (void)gradient::Differentiate(proto, clipped, &step);
  if (gradient::Prepare({}, &proto).ok()) (void)gradient::Differentiate(proto, {}, &step);
  return 0;
}

namespace {

using ganglion::graph::GraphBuilder;
using ganglion::tensor::DataType;
using ganglion::tensor::Shape;
using ganglion::tensor::Tensor;

Tensor Zeros(const Shape& shape) { return Tensor::Zeros(DataType::kFp32, shape).value(); }

// Shapes that are computed, pieces, repeats, reductions: what is read of numbers and not only of shapes.
std::string Shapes() {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, 4, 6}});
  g.Initializer("w", Zeros({6, 6}));
  g.Initializer("table", Zeros({5, 4, 6}));
  std::string h = g.Node("Add", {g.Node("MatMul", {"x", "w"}), g.Node("Gather", {"table", g.Ints("one", {2})})});
  h = g.Node("Slice",
             {h, g.Ints("from", {-1, 1}), g.Ints("to", {-9, 6}), g.Ints("axes", {1, 2}), g.Ints("step", {-2, 3})});
  h = g.Node("Pad", {h, g.Ints("pads", {0, 1, 0, 0, 0, 1})}, {{"mode", std::string("reflect")}});
  h = g.Node("Tile", {h, g.Ints("repeats", {1, 2, 1})});
  const std::string shape = g.Node("Shape", {h});
  const std::string rows = g.Node("Slice", {shape, g.Ints("from", {0}), g.Ints("to", {1})});
  const std::string rest = g.Node("ReduceProd", {g.Node("Slice", {shape, g.Ints("from", {1}), g.Ints("to", {3})})});
  h = g.Node("Reshape", {h, g.Node("Concat", {rows, rest}, {{"axis", std::int64_t{0}}})});
  const auto parts = g.Nodes("Split", {h, g.Ints("split", {6, 12})}, 2, {{"axis", std::int64_t{1}}});
  h = g.Node("Concat", {parts[1], g.Node("Clip", {parts[0], g.Scalar("low", -1), g.Scalar("high", 1)})},
             {{"axis", std::int64_t{1}}});
  g.Node("Sub", {h, g.Node("ReduceMax", {h}, {{"axes", std::vector<std::int64_t>{1}}})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 18}});
  return ganglion::graph::Serialize(model);
}

// An image enlarged in both ways, blocks, and the forms of operator set 9.
std::string Enlarged(std::int64_t opset) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  if (opset != 0) model.mutable_opset_import(0)->set_version(opset);
  g.Input({"x", DataType::kFp32, {-1, 4, 2, 3}});
  g.Initializer("w", Zeros({4, 1, 1}));
  std::string h = g.Node("Mul", {"x", "w"});
  if (opset == 0) {
    const float scales[4] = {1, 1, 2, 2};
    h = g.Node("Resize", {h, "", g.Constant("scales", Tensor::From<float>({4}, scales).value())},
               {{"mode", std::string("linear")}});
    h = g.Node("DepthToSpace", {h}, {{"blocksize", std::int64_t{2}}, {"mode", std::string("CRD")}});
  } else {
    h = g.Node("Upsample", {h}, {{"scales", std::vector<float>{1, 1, 2, 3}}});
    h = g.Node("Slice", {h},
               {{"starts", std::vector<std::int64_t>{1}},
                {"ends", std::vector<std::int64_t>{3}},
                {"axes", std::vector<std::int64_t>{1}}});
    h = g.Node("Softmax", {h}, {{"axis", std::int64_t{2}}});
  }
  g.Node("Flatten", {h}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, -1}});
  return ganglion::graph::Serialize(model);
}

using Ints = std::vector<std::int64_t>;

// Tokens through an embedding, attention or a recurrent layer, normalisation and a linear layer.
std::string Sequences(bool recurrent) {
  onnx::ModelProto model;
  GraphBuilder g(&model);
  g.Input({"tokens", DataType::kInt64, {-1, 3}});
  const auto parameter = [&](const std::string& name, const Shape& shape) {
    g.Initializer(name, Zeros(shape));
    return name;
  };
  std::string h = g.Node("Gather", {parameter("words", {4, 2}), "tokens"});
  if (recurrent) {
    const std::string x = g.Node("Transpose", {h}, {{"perm", Ints{1, 0, 2}}});
    const auto y = g.Nodes("GRU", {x, parameter("w", {1, 6, 2}), parameter("r", {1, 6, 2}), parameter("b", {1, 12})}, 2,
                           {{"hidden_size", std::int64_t{2}}});
    h = g.Node("Squeeze", {y[1], g.Ints("axis", {0})});
  } else {
    const std::string q = g.Node("MatMul", {h, parameter("q", {2, 2})});
    const std::string scores = g.Node("MatMul", {q, g.Node("Transpose", {h}, {{"perm", Ints{0, 2, 1}}})});
    h = g.Node("Add", {h, g.Node("MatMul", {g.Node("Softmax", {scores}), h})});
    h = g.Node("LayerNormalization", {h, parameter("scale", {2}), parameter("bias", {2})});
    h = g.Node("Reshape", {h, g.Ints("rows", {-1, 2})});
    h = g.Node("Reshape", {g.Node("Mul", {h, parameter("by", {2})}), g.Ints("back", {-1, 3, 2})});
    h = g.Node("ReduceMean", {h}, {{"axes", Ints{1}}, {"keepdims", std::int64_t{0}}});
  }
  g.Node("Gemm", {h, parameter("out", {2, 3}), parameter("c", {3})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 3}});
  return ganglion::graph::Serialize(model);
}

std::string Convolutions() {
  return ganglion::training::MakeConvNet({.height = 6, .width = 4, .blocks = {{2}}, .dense = {3}, .classes = 2}, 1)
      .value();
}

}  // namespace

std::vector<std::string> Seeds() {
  return {ganglion::training::MakePerceptron({3, 2}, 1),
          ganglion::training::MakePerceptron({2, 3, 2}, 1, {.5f, 2}),
          Shapes(),
          Enlarged(0),
          Enlarged(9),
          Convolutions(),
          Sequences(true),
          Sequences(false)};
}
