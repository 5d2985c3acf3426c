#include "training/perceptron.h"

#include <cmath>

#include "base/check.h"
#include "base/random.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::training {

InputScale ScaleOf(std::span<const float> x) {
  double sum = 0;
  for (const float v : x) sum += v;
  const double mean = x.empty() ? 0 : sum / static_cast<double>(x.size());
  double squares = 0;
  for (const float v : x) squares += (v - mean) * (v - mean);
  const double deviation = x.empty() ? 0 : std::sqrt(squares / static_cast<double>(x.size()));
  return {static_cast<float>(mean), deviation > 0 ? static_cast<float>(deviation) : 1.f};
}

std::string MakePerceptron(const std::vector<std::int64_t>& sizes, std::uint64_t seed, const InputScale& scale) {
  GANGLION_CHECK(sizes.size() >= 2 && scale.deviation > 0);
  using tensor::DataType;
  using tensor::Tensor;
  Random random(seed);
  onnx::ModelProto model;
  graph::GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, sizes.front()}});
  std::string h = "x";
  if (scale.mean != 0 || scale.deviation != 1) {
    h = g.Node("Mul",
               {g.Node("Sub", {h, g.Scalar("mean", scale.mean)}), g.Scalar("one_over_deviation", 1 / scale.deviation)});
  }
  for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
    const std::string layer = std::to_string(l);
    Tensor w = Tensor::Zeros(DataType::kFp32, {sizes[l], sizes[l + 1]}).value();
    const bool last = l + 2 == sizes.size();
    const double spread = std::sqrt((last ? 1. : 2.) / static_cast<double>(sizes[l]));
    for (float& v : w.As<float>()) v = static_cast<float>(spread * random.Normal());
    g.Initializer("w" + layer, w);
    g.Initializer("b" + layer, Tensor::Zeros(DataType::kFp32, {sizes[l + 1]}).value());
    h = g.Node("Gemm", {h, "w" + layer, "b" + layer}, {}, last ? "logits" : "h" + layer);
    if (!last) h = g.Node("Relu", {h}, {}, "a" + layer);
  }
  g.Output({"logits", DataType::kFp32, {-1, sizes.back()}});
  return graph::Serialize(model);
}

}  // namespace ganglion::training
