#include "shrink/fold.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/edit.h"

namespace ganglion::shrink {
namespace {

struct Pair {
  int layer = 0;
  int norm = 0;
};

bool Reads(const onnx::NodeProto& n, int input) { return input < n.input_size() && !n.input(input).empty(); }

std::optional<Pair> FindPair(const onnx::GraphProto& g, const Links& links) {
  for (int i = 0; i < g.node_size(); ++i) {
    const auto& norm = g.node(i);
    if (norm.op_type() != "BatchNormalization" || !norm.domain().empty() || norm.input_size() != 5 ||
        graph::IntAttribute(norm, "training_mode", 0) != 0) {
      continue;
    }
    bool constant = true;
    for (int k = 1; k < 5; ++k) constant &= links.Constant(norm.input(k)) != nullptr;
    for (int k = 1; k < norm.output_size(); ++k) constant &= norm.output(k).empty();
    const int at = links.Maker(norm.input(0));
    if (!constant || at < 0 || links.Readers(norm.input(0)).size() != 1 || links.IsOutput(norm.input(0))) continue;
    const auto& layer = g.node(at);
    const bool conv = layer.op_type() == "Conv";
    const bool gemm = layer.op_type() == "Gemm" && graph::FloatAttribute(layer, "alpha", 1) == 1 &&
                      graph::FloatAttribute(layer, "beta", 1) == 1;
    if ((!conv && !gemm) || !layer.domain().empty() || !Reads(layer, 1)) continue;
    const auto* w = links.Constant(layer.input(1));
    if (w == nullptr || w->dims_size() < 2) continue;
    if (Reads(layer, 2)) {
      const auto* b = links.Constant(layer.input(2));
      if (b == nullptr || b->dims_size() != 1 || b->dims(0) != links.Constant(norm.input(1))->dims(0)) continue;
    }
    return Pair{at, i};
  }
  return std::nullopt;
}

Status Fold(onnx::GraphProto* g, const Pair& pair) {
  const Links links(*g);
  Names names(*g);
  auto& layer = *g->mutable_node(pair.layer);
  const auto& norm = g->node(pair.norm);
  const std::string where = graph::Describe(norm, pair.norm);
  const auto read = [&](const std::string& name) { return Weights(*links.Constant(name), where); };
  ASSIGN_OR_RETURN(tensor::Tensor w, read(layer.input(1)));
  ASSIGN_OR_RETURN(const tensor::Tensor scale, read(norm.input(1)));
  ASSIGN_OR_RETURN(const tensor::Tensor beta, read(norm.input(2)));
  ASSIGN_OR_RETURN(const tensor::Tensor mean, read(norm.input(3)));
  ASSIGN_OR_RETURN(const tensor::Tensor variance, read(norm.input(4)));
  const std::size_t axis = layer.op_type() == "Conv" || graph::IntAttribute(layer, "transB", 0) != 0 ? 0 : 1;
  const auto channels = static_cast<std::size_t>(w.shape()[axis]);
  for (const auto* t : {&scale, &beta, &mean, &variance}) {
    if (t->shape() != tensor::Shape{static_cast<std::int64_t>(channels)}) {
      return InvalidArgument(where + ": parameters of " + tensor::ShapeText(t->shape()) + " for " +
                             std::to_string(channels) + " channels");
    }
  }
  std::vector<float> bias(channels, 0);
  if (Reads(layer, 2)) {
    ASSIGN_OR_RETURN(const tensor::Tensor b, read(layer.input(2)));
    bias.assign(b.As<float>().begin(), b.As<float>().end());
  }
  const double epsilon = graph::FloatAttribute(norm, "epsilon", 1e-5f);
  std::vector<double> gain(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    const double spread = variance.As<float>()[c] + epsilon;
    if (!(spread > 0)) {
      return InvalidArgument(where + ": variance " + std::to_string(variance.As<float>()[c]) + " of channel " +
                             std::to_string(c) + " plus epsilon is not above 0");
    }
    gain[c] = scale.As<float>()[c] / std::sqrt(spread);
    bias[c] = static_cast<float>((bias[c] - mean.As<float>()[c]) * gain[c] + beta.As<float>()[c]);
  }
  const auto values = w.As<float>();
  std::size_t inner = 1;
  for (std::size_t d = axis + 1; d < w.shape().size(); ++d) inner *= static_cast<std::size_t>(w.shape()[d]);
  std::vector<float> scaled;
  scaled.reserve(values.size());
  std::size_t place = 0;  // within a channel
  std::size_t channel = 0;
  for (const float v : values) {
    scaled.push_back(static_cast<float>(v * gain[channel]));
    if (++place < inner) continue;
    place = 0;
    if (++channel == channels) channel = 0;
  }
  // Fresh names: another layer may share what this one read.
  const std::string w_name = names.Fresh(layer.input(1) + ".folded");
  const std::string b_name = names.Fresh((Reads(layer, 2) ? layer.input(2) : layer.input(1) + ".bias") + ".folded");
  layer.set_input(1, w_name);
  while (layer.input_size() < 3) layer.add_input();
  layer.set_input(2, b_name);
  layer.set_output(0, norm.output(0));
  SetFloats(g->add_initializer(), w_name, w.shape(), scaled);
  SetFloats(g->add_initializer(), b_name, {static_cast<std::int64_t>(channels)}, bias);
  g->mutable_node()->DeleteSubrange(pair.norm, 1);
  return {};
}

}  // namespace

namespace {

// Names of values that are known to have two dimensions.
std::unordered_set<std::string> Matrices(const onnx::GraphProto& g, const Links& links) {
  static const std::unordered_set<std::string> kKeep{
      "Relu",      "LeakyRelu", "Elu",     "Sigmoid",    "Tanh",     "HardSigmoid",
      "HardSwish", "Clip",      "Softmax", "LogSoftmax", "Identity", "Dropout",
      "Erf",       "Neg",       "Sqrt",    "Exp",        "Softplus", "BatchNormalization"};
  static const std::unordered_set<std::string> kTogether{"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "MatMul"};
  std::unordered_set<std::string> two;
  for (const auto& v : g.input()) {
    if (v.type().tensor_type().has_shape() && v.type().tensor_type().shape().dim_size() == 2) two.insert(v.name());
  }
  for (const auto& t : g.initializer()) {
    if (t.dims_size() == 2) two.insert(t.name());
  }
  for (const auto& n : g.node()) {
    if (!n.domain().empty() || n.output_size() == 0 || n.input_size() == 0) continue;
    bool is = n.op_type() == "Flatten" || n.op_type() == "Gemm";
    if (kKeep.contains(n.op_type())) is = two.contains(n.input(0));
    if (kTogether.contains(n.op_type())) {
      is = true;
      for (const auto& x : n.input()) {
        const auto* c = links.Constant(x);
        is = is && (two.contains(x) || (n.op_type() != "MatMul" && c != nullptr && c->dims_size() <= 2));
      }
      is = is && (two.contains(n.input(0)) || (n.input_size() > 1 && two.contains(n.input(1))));
    }
    if (n.op_type() == "Reshape" && n.input_size() > 1) {
      const auto* shape = links.Constant(n.input(1));
      is = shape != nullptr && shape->dims_size() == 1 && shape->dims(0) == 2;
    }
    if (is) two.insert(n.output(0));
  }
  return two;
}

}  // namespace

int FuseBiases(onnx::ModelProto* model) {
  auto* g = model->mutable_graph();
  const Links links(*g);
  const auto two = Matrices(*g, links);
  std::vector<int> gone;
  for (int i = 0; i < g->node_size(); ++i) {
    auto& product = *g->mutable_node(i);
    if (product.op_type() != "MatMul" || !product.domain().empty() || product.input_size() != 2) continue;
    const std::string y = product.output(0);
    const auto* w = links.Constant(product.input(1));
    const auto& readers = links.Readers(y);
    if (!two.contains(product.input(0)) || w == nullptr || w->dims_size() != 2 || readers.size() != 1 ||
        links.IsOutput(y)) {
      continue;
    }
    const auto& add = g->node(readers[0]);
    if (add.op_type() != "Add" || !add.domain().empty() || add.input_size() != 2) continue;
    const std::string& bias = add.input(add.input(0) == y ? 1 : 0);
    const auto* b = links.Constant(bias);
    if (b == nullptr || b->dims_size() != 1 || b->dims(0) != w->dims(1)) continue;
    product.set_op_type("Gemm");
    product.add_input(bias);
    product.set_output(0, add.output(0));
    gone.push_back(readers[0]);
  }
  std::sort(gone.rbegin(), gone.rend());
  for (const int i : gone) g->mutable_node()->DeleteSubrange(i, 1);
  return static_cast<int>(gone.size());
}

Status FoldBatchNorm(const onnx::ModelProto& model, onnx::ModelProto* out, int* folded) {
  RETURN_IF_ERROR(Prepare(model, out));
  int count = 0;
  for (;;) {
    const auto pair = FindPair(out->graph(), Links(out->graph()));
    if (!pair) break;
    RETURN_IF_ERROR(Fold(out->mutable_graph(), *pair));
    ++count;
  }
  DropUnused(out->mutable_graph());
  if (folded != nullptr) *folded = count;
  return {};
}

}  // namespace ganglion::shrink
