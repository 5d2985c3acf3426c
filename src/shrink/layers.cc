#include "shrink/layers.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "graph/graph.h"
#include "shrink/edit.h"
#include "shrink/fold.h"

namespace ganglion::shrink {
namespace {

constexpr double kBiasSteps = 1 << 30;   // a bias uses half of its 32 bits at most
constexpr float kLeastScale = 0x1p-60f;  // products of two scales stay normal numbers

bool IsLinear(const onnx::NodeProto& n) {
  return n.domain().empty() && (n.op_type() == "Conv" || n.op_type() == "Gemm" || n.op_type() == "MatMul");
}

bool OnlyMoves(const onnx::NodeProto& n) {
  static const std::set<std::string> kMoves{"MaxPool",   "Reshape", "Flatten", "Transpose",
                                            "Unsqueeze", "Squeeze", "Identity"};
  return n.domain().empty() && kMoves.contains(n.op_type());
}

bool Reads(const onnx::NodeProto& n, int input) { return input < n.input_size() && !n.input(input).empty(); }

int ChannelAxis(const onnx::NodeProto& n) {
  if (n.op_type() == "Conv") return 0;
  return n.op_type() == "Gemm" && graph::IntAttribute(n, "transB", 0) != 0 ? 0 : 1;
}

// Why a linear layer cannot be quantised; empty: it can.
std::string Obstacle(const Links& links, const onnx::NodeProto& n) {
  if (!Reads(n, 0) || !Reads(n, 1) || n.output_size() != 1) return "it lacks an input or an output";
  if (links.Constant(n.input(0)) != nullptr) return "its input is a constant";
  const auto* w = links.Constant(n.input(1));
  if (w == nullptr) return "its weights are computed";
  if (w->data_type() != onnx::TensorProto::FLOAT) return "its weights are not FP32";
  const bool conv = n.op_type() == "Conv";
  if (conv ? w->dims_size() < 3 : w->dims_size() != 2)
    return "its weights have " + std::to_string(w->dims_size()) + " dimensions";
  for (const auto d : w->dims()) {
    if (d < 1) return "its weights are empty";
  }
  if (n.op_type() == "Gemm" && graph::IntAttribute(n, "transA", 0) != 0) return "it reads its input transposed";
  if (n.op_type() == "MatMul" || !Reads(n, 2)) return "";
  const auto* b = links.Constant(n.input(2));
  if (b == nullptr) return "its bias is computed";
  if (b->data_type() != onnx::TensorProto::FLOAT) return "its bias is not FP32";
  const std::int64_t channels = w->dims(ChannelAxis(n));
  std::int64_t count = 1;
  for (const auto d : b->dims()) count *= d;
  const bool vector = b->dims_size() > 0 && b->dims(b->dims_size() - 1) == channels && count == channels;
  if (!vector && !(count == 1 && !conv)) return "its bias is no vector over the channels";
  return "";
}

// f(i, channel) for each of `count` numbers, `inner` neighbours a channel.
template <typename F>
void ForChannels(std::size_t count, std::size_t channels, std::size_t inner, const F& f) {
  std::size_t place = 0;
  std::size_t channel = 0;
  for (std::size_t i = 0; i < count; ++i) {
    f(i, channel);
    if (++place < inner) continue;
    place = 0;
    if (++channel == channels) channel = 0;
  }
}

}  // namespace

Result<Plan> MakePlan(const onnx::ModelProto& model, const QuantiseOptions& options) {
  Plan plan;
  onnx::ModelProto prepared;
  RETURN_IF_ERROR(Prepare(model, &prepared));
  FuseBiases(&prepared);
  RETURN_IF_ERROR(FoldBatchNorm(prepared, &plan.model));
  const auto& g = plan.model.graph();
  const Links links(g);
  // What lies before and after any linear layer.
  const auto nodes = static_cast<std::size_t>(g.node_size());
  std::vector<bool> before(nodes, false);  // some linear layer is before it
  std::vector<bool> after(nodes, false);
  const auto visit = [&](int i, std::vector<bool>& flag, const std::vector<int>& neighbours) {
    for (const int j : neighbours) {
      if (flag[static_cast<std::size_t>(j)] || IsLinear(g.node(j))) flag[static_cast<std::size_t>(i)] = true;
    }
  };
  for (int i = 0; i < g.node_size(); ++i) {
    std::vector<int> makers;
    for (const auto& name : g.node(i).input()) {
      if (const int at = links.Maker(name); at >= 0 && at < i) makers.push_back(at);
    }
    visit(i, before, makers);
  }
  for (int i = g.node_size() - 1; i >= 0; --i) {
    for (const auto& name : g.node(i).output()) visit(i, after, links.Readers(name));
  }

  std::set<std::string> wanted;
  for (int i = 0; i < g.node_size(); ++i) {
    const auto& n = g.node(i);
    if (!IsLinear(n)) continue;
    std::string why = Obstacle(links, n);
    if (why.empty() && options.float_first && !before[static_cast<std::size_t>(i)]) why = "the first stays float";
    if (why.empty() && options.float_last && !after[static_cast<std::size_t>(i)]) why = "the last stays float";
    const std::string name = graph::Describe(n, i);
    if (!why.empty()) {
      plan.left_float.push_back(name + ": " + why);
      continue;
    }
    Layer layer{i, ChannelAxis(n), name, ""};
    wanted.insert(n.input(0));
    // Runtimes take a Conv or a MatMul into integers only together with the ruler behind it, a Gemm with a Relu, too.
    const std::string& y = n.output(0);
    const auto& readers = links.Readers(y);
    std::string activated;
    if (readers.size() == 1 && !links.IsOutput(y)) {
      const auto& next = g.node(readers[0]);
      const bool clips = next.domain().empty() && (next.op_type() == "Relu" || next.op_type() == "Clip");
      if (clips && next.input(0) == y) activated = next.output(0);
    }
    if (n.op_type() == "MatMul") {
      layer.point = y;
    } else if (n.op_type() == "Conv") {
      layer.point = activated.empty() ? y : activated;
    } else if (!links.IsOutput(activated)) {
      layer.point = activated;
    }
    if (!layer.point.empty()) wanted.insert(layer.point);
    plan.layers.push_back(std::move(layer));
  }
  if (plan.layers.empty()) {
    std::string all;
    for (const auto& why : plan.left_float) all += (all.empty() ? ": " : "; ") + why;
    return FailedPrecondition("the model has no layer to quantise (Conv, Gemm or MatMul with constant weights)" + all);
  }
  for (const auto& v : g.input()) {
    if (wanted.contains(v.name())) plan.tensors.push_back(v.name());
  }
  for (const auto& n : g.node()) {
    for (const auto& name : n.output()) {
      if (wanted.contains(name)) plan.tensors.push_back(name);
    }
  }
  for (const auto& t : plan.tensors) {
    for (std::string at = t;;) {
      const int maker = links.Maker(at);
      if (maker < 0 || !OnlyMoves(g.node(maker)) || g.node(maker).output(0) != at) break;
      at = g.node(maker).input(0);
      if (!wanted.contains(at)) continue;
      const auto known = plan.range_of.find(at);
      plan.range_of[t] = known == plan.range_of.end() ? at : known->second;
      break;
    }
  }
  return plan;
}

Result<EightBits> ToEightBits(const onnx::GraphProto& g, const Layer& layer, float input_scale, bool seven_bit) {
  const Links links(g);
  const auto& n = g.node(layer.node);
  ASSIGN_OR_RETURN(const tensor::Tensor w, Weights(*links.Constant(n.input(1)), layer.name));
  EightBits e;
  e.shape = w.shape();
  const auto axis = static_cast<std::size_t>(layer.channel_axis);
  const auto channels = static_cast<std::size_t>(w.shape()[axis]);
  std::size_t inner = 1;
  for (std::size_t d = axis + 1; d < w.shape().size(); ++d) inner *= static_cast<std::size_t>(w.shape()[d]);
  const bool gemm = n.op_type() == "Gemm";
  const double alpha = gemm ? graph::FloatAttribute(n, "alpha", 1) : 1;
  const double beta = gemm ? graph::FloatAttribute(n, "beta", 1) : 1;
  if (!std::isfinite(alpha) || !std::isfinite(beta))
    return InvalidArgument(layer.name + ": alpha or beta is not finite");
  if (n.op_type() != "MatMul" && Reads(n, 2)) {
    ASSIGN_OR_RETURN(const tensor::Tensor b, Weights(*links.Constant(n.input(2)), layer.name));
    const auto values = b.As<float>();
    for (std::size_t c = 0; c < channels; ++c) e.bias.push_back(beta * values[values.size() == 1 ? 0 : c]);
  }
  const auto values = w.As<float>();
  std::vector<double> top(channels, 0);
  ForChannels(values.size(), channels, inner,
              [&](std::size_t i, std::size_t c) { top[c] = std::max(top[c], std::fabs(alpha * values[i])); });
  const double steps = seven_bit ? 63 : 127;
  for (std::size_t c = 0; c < channels; ++c) {
    double scale = top[c] / steps;
    if (input_scale > 0 && !e.bias.empty()) scale = std::max(scale, std::fabs(e.bias[c]) / (input_scale * kBiasSteps));
    if (scale == 0) scale = 1;
    e.scale.push_back(std::max(static_cast<float>(scale), kLeastScale));
    if (!std::isfinite(e.scale.back()) || !std::isfinite(e.scale.back() * input_scale)) {
      return InvalidArgument(layer.name + ": weights or bias of channel " + std::to_string(c) +
                             " are too large to quantise");
    }
  }
  e.weights.resize(values.size());
  ForChannels(values.size(), channels, inner, [&](std::size_t i, std::size_t c) {
    const double q = std::nearbyint(alpha * values[i] / e.scale[c]);
    e.weights[i] = static_cast<std::int8_t>(std::clamp(q, -steps, steps));
  });
  return e;
}

Ruler ActivationRuler(Range range, bool is_signed) {
  const double low = std::min(range.low, 0.f);
  const double high = std::max(range.high, 0.f);
  const double span = is_signed ? std::max(-low, high) / 127 : (high - low) / 255;
  Ruler r;
  if (span == 0) return r;
  r.scale = std::max(static_cast<float>(span), kLeastScale);
  if (!is_signed) r.zero_point = static_cast<int>(std::clamp(std::nearbyint(-low / r.scale), 0., 255.));
  return r;
}

}  // namespace ganglion::shrink
