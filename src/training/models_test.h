// For tests: small models of each kind that training must take, and rows to feed them.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "base/random.h"
#include "data/formats.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "model/model.h"

namespace ganglion::training::test {

using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

inline void AddWeights(graph::GraphBuilder& g, const std::string& name, const Shape& shape, std::uint64_t seed,
                       double spread) {
  Random random(seed);
  Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
  for (float& v : t.As<float>()) v = static_cast<float>(spread * random.Normal());
  g.Initializer(name, t);
}

inline void AddFilled(graph::GraphBuilder& g, const std::string& name, const Shape& shape, float value) {
  Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
  for (float& v : t.As<float>()) v = value;
  g.Initializer(name, t);
}

inline model::Model Finish(const onnx::ModelProto& proto, const std::string& name) {
  return model::Model::FromBytes(name, graph::Serialize(proto)).value();
}

// "image" [-1,1,size,size] -> Conv, BatchNormalization, Relu, mean over the image, Dropout -> "logits" [-1,3].
// `size` -1 leaves height and width open.
inline model::Model ConvNet(std::int64_t size, float dropout = 0) {
  onnx::ModelProto proto;
  graph::GraphBuilder g(&proto);
  g.Input({"image", DataType::kFp32, {-1, 1, size, size}});
  AddWeights(g, "conv.w", {6, 1, 3, 3}, 1, .4);
  AddFilled(g, "bn.scale", {6}, 1);
  AddFilled(g, "bn.bias", {6}, 0);
  AddFilled(g, "bn.mean", {6}, 0);
  AddFilled(g, "bn.var", {6}, 1);
  AddWeights(g, "fc.w", {6, 3}, 2, .4);
  AddFilled(g, "fc.b", {3}, 0);
  std::string h =
      g.Node("Conv", {"image", "conv.w"},
             {{"kernel_shape", std::vector<std::int64_t>{3, 3}}, {"pads", std::vector<std::int64_t>{1, 1, 1, 1}}});
  h = g.Node("BatchNormalization", {h, "bn.scale", "bn.bias", "bn.mean", "bn.var"});
  h = g.Node("Relu", {h});
  h = g.Node("Flatten", {g.Node("GlobalAveragePool", {h})});
  if (dropout > 0) h = g.Node("Dropout", {h, g.Scalar("ratio", dropout)});
  g.Node("Gemm", {h, "fc.w", "fc.b"}, {}, "logits");
  g.Output({"logits", DataType::kFp32, {-1, 3}});
  return Finish(proto, "conv.onnx");
}

// "x" INT64 [-1,length] of tokens 0..vocabulary-1 -> embedding, Tanh, product -> "logits" [-1,length,vocabulary].
inline model::Model Language(std::int64_t vocabulary, std::int64_t length) {
  onnx::ModelProto proto;
  graph::GraphBuilder g(&proto);
  g.Input({"x", DataType::kInt64, {-1, length}});
  AddWeights(g, "embedding", {vocabulary, 8}, 1, .5);
  AddWeights(g, "out", {8, vocabulary}, 2, .3);
  const std::string h = g.Node("Tanh", {g.Node("Gather", {"embedding", "x"})});
  g.Node("MatMul", {h, "out"}, {}, "logits");
  g.Output({"logits", DataType::kFp32, {-1, length, vocabulary}});
  return Finish(proto, "language.onnx");
}

// "city" INT64 [-1], "size" FP32 [-1,2] -> "price" [-1,1].
inline model::Model TwoInputs() {
  onnx::ModelProto proto;
  graph::GraphBuilder g(&proto);
  g.Input({"city", DataType::kInt64, {-1}});
  g.Input({"size", DataType::kFp32, {-1, 2}});
  AddWeights(g, "cities", {5, 1}, 1, .1);
  AddWeights(g, "w", {2, 1}, 2, .1);
  const std::string city = g.Node("Gather", {"cities", "city"});
  g.Node("Add", {city, g.Node("MatMul", {"size", "w"})}, {}, "price");
  g.Output({"price", DataType::kFp32, {-1, 1}});
  return Finish(proto, "price.onnx");
}

// "x" [-1,2] -> Log of it times w: not a number where x w is negative.
inline model::Model Logarithm() {
  onnx::ModelProto proto;
  graph::GraphBuilder g(&proto);
  g.Input({"x", DataType::kFp32, {-1, 2}});
  AddFilled(g, "w", {2, 2}, 1);
  const std::string h = g.Node("MatMul", {"x", "w"}, {}, "product");
  g.Node("Log", {h}, {}, "logits");
  g.Output({"logits", DataType::kFp32, {-1, 2}});
  return Finish(proto, "log.onnx");
}

inline void WriteText(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

template <typename T>
void WriteArray(const std::string& path, const Shape& shape, const std::vector<T>& values) {
  WriteText(path, data::WriteNpy(Tensor::From<T>(shape, values)->View()));
}

// Images of three kinds of stripes as PREFIX-images-idx3-ubyte, PREFIX-labels-idx1-ubyte.
inline void WriteStripes(const std::string& prefix, int rows, int size, std::uint64_t seed) {
  Random random(seed);
  const auto head = [](std::initializer_list<int> dims) {
    std::string s{0, 0, 8, static_cast<char>(dims.size())};
    for (const int d : dims) {
      for (int shift = 24; shift >= 0; shift -= 8) s += static_cast<char>(d >> shift);
    }
    return s;
  };
  std::string x = head({rows, size, size});
  std::string y = head({rows});
  for (int i = 0; i < rows; ++i) {
    const auto label = static_cast<int>(random.Below(3));
    y += static_cast<char>(label);
    for (int r = 0; r < size; ++r) {
      for (int c = 0; c < size; ++c) {
        const int phase = label == 0 ? r : label == 1 ? c : r + c;
        x += static_cast<char>(phase % 2 * 160 + static_cast<int>(random.Below(90)));
      }
    }
  }
  WriteText(prefix + "-images-idx3-ubyte", x);
  WriteText(prefix + "-labels-idx1-ubyte", y);
}

}  // namespace ganglion::training::test
