#include "training/perceptron.h"

#include <cmath>

#include "base/check.h"
#include "base/random.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::training {

std::string MakePerceptron(const std::vector<std::int64_t>& sizes, std::uint64_t seed) {
  GANGLION_CHECK(sizes.size() >= 2);
  using tensor::DataType;
  using tensor::Tensor;
  Random random(seed);
  onnx::ModelProto model;
  graph::GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, sizes.front()}});
  std::string h = "x";
  for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
    const std::string layer = std::to_string(l);
    Tensor w = Tensor::Zeros(DataType::kFp32, {sizes[l], sizes[l + 1]}).value();
    const bool last = l + 2 == sizes.size();
    const double scale = std::sqrt((last ? 1. : 2.) / static_cast<double>(sizes[l]));
    for (float& v : w.As<float>()) v = static_cast<float>(scale * random.Normal());
    g.Initializer("w" + layer, w);
    g.Initializer("b" + layer, Tensor::Zeros(DataType::kFp32, {sizes[l + 1]}).value());
    h = g.Node("Gemm", {h, "w" + layer, "b" + layer}, {}, last ? "logits" : "h" + layer);
    if (!last) h = g.Node("Relu", {h}, {}, "a" + layer);
  }
  g.Output({"logits", DataType::kFp32, {-1, sizes.back()}});
  return graph::Serialize(model);
}

}  // namespace ganglion::training
