#include "training/convnet.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "base/random.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::training {
namespace {

using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

Status CheckSpec(const ConvNetSpec& s) {
  const auto in_range = [](std::int64_t v) { return v >= 1 && v <= (1 << 16); };
  const auto all = [&](const std::vector<std::int64_t>& v) { return std::all_of(v.begin(), v.end(), in_range); };
  if (!all({s.channels, s.height, s.width, s.kernel, s.classes}) || !all(s.dense))
    return InvalidArgument("a size of a convolutional net is not in [1, 65536]");
  for (const auto& block : s.blocks) {
    if (!all(block)) return InvalidArgument("a number of channels is not in [1, 65536]");
  }
  if (s.kernel % 2 == 0) return InvalidArgument("kernel " + std::to_string(s.kernel) + ", must be odd");
  if (!(s.dropout >= 0 && s.dropout < 1))
    return InvalidArgument("dropout " + std::to_string(s.dropout) + ", must be in [0, 1)");
  if (!(s.scale.deviation > 0)) return InvalidArgument("the deviation of the input must be above 0");
  if (s.blocks.size() > 16 || (std::min(s.height, s.width) >> s.blocks.size()) < 1) {
    return InvalidArgument(std::to_string(s.blocks.size()) + " pools leave nothing of an image of " +
                           std::to_string(s.height) + " x " + std::to_string(s.width));
  }
  return {};
}

// Appends layers; each draws its weights in order.
class Layers {
 public:
  Layers(GraphBuilder& g, const ConvNetSpec& spec, std::uint64_t seed) : g_(g), spec_(spec), random_(seed) {}

  Status Weights(const std::string& name, const Shape& shape, double variance) {
    ASSIGN_OR_RETURN(Tensor w, Tensor::Zeros(DataType::kFp32, shape));
    for (float& v : w.As<float>()) v = static_cast<float>(std::sqrt(variance) * random_.Normal());
    g_.Initializer(name, w);
    return {};
  }

  Status Fill(const std::string& name, std::int64_t size, float value) {
    ASSIGN_OR_RETURN(Tensor t, Tensor::Zeros(DataType::kFp32, {size}));
    std::fill(t.As<float>().begin(), t.As<float>().end(), value);
    g_.Initializer(name, t);
    return {};
  }

  Result<std::string> Convolution(const std::string& x, std::int64_t in, std::int64_t out) {
    const std::string number = std::to_string(convolutions_++);
    const std::string conv = "conv" + number;
    const std::int64_t k = spec_.kernel;
    const std::vector<graph::Attribute> same{{"pads", std::vector<std::int64_t>(4, k / 2)}};
    RETURN_IF_ERROR(Weights(conv + ".w", {out, in, k, k}, 2. / static_cast<double>(in * k * k)));
    if (!spec_.normalise) {
      RETURN_IF_ERROR(Fill(conv + ".b", out, 0));
      return g_.Node("Relu", {g_.Node("Conv", {x, conv + ".w", conv + ".b"}, same, conv)}, {}, "relu" + number);
    }
    const std::string norm = "norm" + number;
    const std::string h = g_.Node("Conv", {x, conv + ".w"}, same, conv);
    RETURN_IF_ERROR(Fill(norm + ".scale", out, 1));
    RETURN_IF_ERROR(Fill(norm + ".bias", out, 0));
    RETURN_IF_ERROR(Fill(norm + ".mean", out, 0));
    RETURN_IF_ERROR(Fill(norm + ".variance", out, 1));
    const std::string y = g_.Node("BatchNormalization",
                                  {h, norm + ".scale", norm + ".bias", norm + ".mean", norm + ".variance"}, {}, norm);
    return g_.Node("Relu", {y}, {}, "relu" + number);
  }

  Result<std::string> Dense(const std::string& x, std::int64_t in, std::int64_t out, bool last) {
    const std::string dense = "dense" + std::to_string(dense_++);
    RETURN_IF_ERROR(Weights(dense + ".w", {in, out}, (last ? 1. : 2.) / static_cast<double>(in)));
    RETURN_IF_ERROR(Fill(dense + ".b", out, 0));
    const std::string h = g_.Node("Gemm", {x, dense + ".w", dense + ".b"}, {}, last ? "logits" : dense);
    return last ? h : g_.Node("Relu", {h}, {}, dense + ".relu");
  }

 private:
  GraphBuilder& g_;
  const ConvNetSpec& spec_;
  Random random_;
  int convolutions_ = 0;
  int dense_ = 0;
};

}  // namespace

Result<std::string> MakeConvNet(const ConvNetSpec& spec, std::uint64_t seed) {
  RETURN_IF_ERROR(CheckSpec(spec));
  onnx::ModelProto model;
  GraphBuilder g(&model);
  Layers layers(g, spec, seed);
  g.Input({"x", DataType::kFp32, {-1, spec.channels * spec.height * spec.width}});
  std::string h = "x";
  if (spec.scale.mean != 0 || spec.scale.deviation != 1) {
    h = g.Node("Mul", {g.Node("Sub", {h, g.Scalar("mean", spec.scale.mean)}),
                       g.Scalar("one_over_deviation", 1 / spec.scale.deviation)});
  }
  h = g.Node("Reshape", {h, g.Ints("image", {-1, spec.channels, spec.height, spec.width})});
  std::int64_t channels = spec.channels;
  std::int64_t height = spec.height;
  std::int64_t width = spec.width;
  const std::vector<std::int64_t> two{2, 2};
  for (const auto& block : spec.blocks) {
    for (const std::int64_t out : block) {
      ASSIGN_OR_RETURN(h, layers.Convolution(h, channels, out));
      channels = out;
    }
    h = g.Node("MaxPool", {h}, {{"kernel_shape", two}, {"strides", two}});
    height /= 2;
    width /= 2;
  }
  h = g.Node("Flatten", {h});
  std::int64_t features = channels * height * width;
  for (const std::int64_t out : spec.dense) {
    ASSIGN_OR_RETURN(h, layers.Dense(h, features, out, false));
    features = out;
  }
  if (spec.dropout > 0) h = g.Node("Dropout", {h, g.Scalar("dropout", spec.dropout)});
  ASSIGN_OR_RETURN(h, layers.Dense(h, features, spec.classes, true));
  g.Output({"logits", DataType::kFp32, {-1, spec.classes}});
  return graph::Serialize(model);
}

}  // namespace ganglion::training
