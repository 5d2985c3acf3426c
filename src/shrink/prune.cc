#include "shrink/prune.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/check.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/edit.h"

namespace ganglion::shrink {
namespace {

struct Weight {
  float size = 0;
  std::uint32_t layer = 0;
  std::uint64_t index = 0;
};

bool Smaller(const Weight& a, const Weight& b) {
  if (a.size != b.size) return a.size < b.size;
  return a.layer != b.layer ? a.layer < b.layer : a.index < b.index;
}

void MaskSmallest(std::vector<Weight>& weights, double sparsity, std::vector<Mask>& masks) {
  const auto count = static_cast<std::size_t>(std::llround(sparsity * static_cast<double>(weights.size())));
  if (count == 0 || weights.empty()) return;
  std::nth_element(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(count - 1), weights.end(), Smaller);
  for (std::size_t i = 0; i < count; ++i) masks[weights[i].layer].keep[weights[i].index] = 0;
}

bool IsLinear(const onnx::NodeProto& n) {
  const bool linear = n.op_type() == "Conv" || n.op_type() == "Gemm" || n.op_type() == "MatMul";
  return linear && n.domain().empty() && n.input_size() >= 2 && n.output_size() == 1;
}

// Which input and which output each weight of a layer joins.
struct Places {
  bool known = false;  // false: weights that are no matrix and no kernel
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  std::size_t inner = 1;  // numbers of one kernel
  std::size_t group_in = 1;
  std::size_t group_out = 1;
  bool input_first = false;  // [inputs, outputs]

  std::size_t Output(std::size_t i) const { return input_first ? i % outputs : i / inner / group_in; }
  std::size_t Input(std::size_t i) const {
    return input_first ? i / outputs : Output(i) / group_out * group_in + i / inner % group_in;
  }
};

Places PlacesOf(const onnx::NodeProto& n, const onnx::TensorProto& w) {
  Places p;
  for (const auto d : w.dims()) {
    if (d < 1) return p;
  }
  const auto dim = [&](int d) { return static_cast<std::size_t>(w.dims(d)); };
  if (n.op_type() == "Conv") {
    const std::int64_t groups = graph::IntAttribute(n, "group", 1);
    if (w.dims_size() < 3 || groups < 1 || w.dims(0) % groups != 0) return p;
    const auto g = static_cast<std::size_t>(groups);
    p.outputs = dim(0);
    p.group_in = dim(1);
    p.group_out = p.outputs / g;
    p.inputs = p.group_in * g;
    for (int d = 2; d < w.dims_size(); ++d) p.inner *= dim(d);
  } else {
    if (w.dims_size() != 2 || graph::IntAttribute(n, "transA", 0) != 0) return p;
    const bool transposed = n.op_type() == "Gemm" && graph::IntAttribute(n, "transB", 0) != 0;
    p.input_first = !transposed;
    p.inputs = dim(transposed ? 1 : 0);
    p.outputs = dim(transposed ? 0 : 1);
    p.group_in = p.inputs;
    p.group_out = p.outputs;
  }
  p.known = true;
  return p;
}

const LayerInputs* Find(const std::vector<LayerInputs>& inputs, const std::string& parameter) {
  const auto at =
      std::find_if(inputs.begin(), inputs.end(), [&](const LayerInputs& l) { return l.parameter == parameter; });
  return at == inputs.end() ? nullptr : &*at;
}

Status CheckInputs(const LayerInputs& in, const Places& places, const std::string& where) {
  if (places.known && in.mean.size() == places.inputs && in.deviation.size() == places.inputs) return {};
  return InvalidArgument(where + ": means and deviations of " + std::to_string(in.mean.size()) + " and " +
                         std::to_string(in.deviation.size()) + " inputs for " + std::to_string(places.inputs));
}

}  // namespace

Result<std::vector<std::string>> PlanInputs(const onnx::ModelProto& model, onnx::ModelProto* observed) {
  onnx::ModelProto prepared;
  RETURN_IF_ERROR(Prepare(model, &prepared));
  auto* g = prepared.mutable_graph();
  struct Watch {
    std::string value;
    std::vector<std::int64_t> shape;
  };
  std::vector<Watch> watches;
  std::vector<std::string> parameters;
  {
    const Links links(*g);
    for (const auto& n : g->node()) {
      const auto* w = IsLinear(n) ? links.Constant(n.input(1)) : nullptr;
      if (w == nullptr || w->data_type() != onnx::TensorProto::FLOAT || links.Readers(w->name()).size() != 1 ||
          links.Constant(n.input(0)) != nullptr) {
        continue;
      }
      const Places places = PlacesOf(n, *w);
      if (!places.known) continue;
      const auto inputs = static_cast<std::int64_t>(places.inputs);
      watches.push_back({n.input(0), n.op_type() == "Conv" ? std::vector<std::int64_t>{0, inputs, -1}
                                                           : std::vector<std::int64_t>{-1, inputs, 1}});
      parameters.push_back(w->name());
    }
  }
  Names names(*g);
  if (parameters.empty()) return parameters;
  g->clear_output();
  graph::GraphBuilder builder(&prepared);
  for (const Watch& watch : watches) {
    const std::string out = builder.Node("Reshape", {watch.value, builder.Ints("places", watch.shape)}, {},
                                         names.Fresh(watch.value + ".observed"));
    builder.Output({out, tensor::DataType::kFp32, {-1, -1, -1}});
  }
  DropUnused(g);
  *observed = std::move(prepared);
  return parameters;
}

Result<std::vector<Mask>> MagnitudeMasks(const onnx::ModelProto& model, double sparsity, Scope scope,
                                         const std::vector<LayerInputs>& inputs) {
  if (!(sparsity >= 0 && sparsity < 1))
    return InvalidArgument("sparsity must be at least 0 and below 1, got " + std::to_string(sparsity));
  RETURN_IF_ERROR(graph::Validate(model));
  const auto& g = model.graph();
  const Links links(g);
  std::vector<Mask> masks;
  std::vector<std::string> names;
  std::vector<Weight> all;
  std::unordered_set<std::string> seen;
  for (int i = 0; i < g.node_size(); ++i) {
    const auto& n = g.node(i);
    if (!IsLinear(n)) continue;
    const auto* t = links.Constant(n.input(1));
    if (t == nullptr || t->data_type() != onnx::TensorProto::FLOAT || !seen.insert(t->name()).second) continue;
    ASSIGN_OR_RETURN(const tensor::Tensor w, Weights(*t, graph::Describe(n, i)));
    const auto values = w.As<float>();
    const auto layer = static_cast<std::uint32_t>(masks.size());
    masks.push_back({t->name(), std::vector<std::uint8_t>(values.size(), 1)});
    names.push_back(graph::Describe(n, i));
    std::vector<Weight> weights;
    weights.reserve(values.size());
    const LayerInputs* in = Find(inputs, t->name());
    const Places places = PlacesOf(n, *t);
    if (in != nullptr) RETURN_IF_ERROR(CheckInputs(*in, places, names.back()));
    for (std::size_t k = 0; k < values.size(); ++k) {
      const float varies = in == nullptr ? 1.f : in->deviation[places.Input(k)];
      weights.push_back({std::fabs(values[k]) * varies, layer, k});
    }
    if (scope == Scope::kPerLayer) {
      MaskSmallest(weights, sparsity, masks);
    } else {
      all.insert(all.end(), weights.begin(), weights.end());
    }
  }
  if (masks.empty()) return FailedPrecondition("the model has no weights to prune (constants of Conv, Gemm or MatMul)");
  if (scope == Scope::kGlobal) MaskSmallest(all, sparsity, masks);
  for (std::size_t l = 0; l < masks.size(); ++l) {
    if (!masks[l].keep.empty() && std::count(masks[l].keep.begin(), masks[l].keep.end(), 1) == 0) {
      return FailedPrecondition(names[l] + " would lose all of its weights at sparsity " + std::to_string(sparsity) +
                                "; choose less, or prune each layer by itself");
    }
  }
  return masks;
}

Status ShiftBiases(const std::vector<Mask>& masks, const std::vector<LayerInputs>& inputs, onnx::ModelProto* model) {
  auto* g = model->mutable_graph();
  const Links links(*g);
  for (int i = 0; i < g->node_size(); ++i) {
    const auto& n = g->node(i);
    if (!IsLinear(n) || n.op_type() == "MatMul" || n.input_size() < 3 || n.input(2).empty()) continue;
    const auto* w = links.Constant(n.input(1));
    const auto* b = links.Constant(n.input(2));
    const LayerInputs* in = w == nullptr ? nullptr : Find(inputs, w->name());
    const auto mask =
        std::find_if(masks.begin(), masks.end(), [&](const Mask& m) { return m.parameter == n.input(1); });
    if (in == nullptr || mask == masks.end() || b == nullptr || b->dims_size() != 1 ||
        links.Readers(b->name()).size() != 1 || graph::FloatAttribute(n, "beta", 1) == 0) {
      continue;
    }
    const std::string where = graph::Describe(n, i);
    const Places places = PlacesOf(n, *w);
    RETURN_IF_ERROR(CheckInputs(*in, places, where));
    ASSIGN_OR_RETURN(const tensor::Tensor weights, Weights(*w, where));
    ASSIGN_OR_RETURN(tensor::Tensor bias, Weights(*b, where));
    const auto values = weights.As<float>();
    if (mask->keep.size() != values.size() || bias.As<float>().size() != places.outputs)
      return InvalidArgument(where + ": mask or bias do not fit the weights");
    const double scale = graph::FloatAttribute(n, "alpha", 1) / graph::FloatAttribute(n, "beta", 1);
    std::vector<double> shift(places.outputs, 0);
    for (std::size_t k = 0; k < values.size(); ++k) {
      if (mask->keep[k] == 0) shift[places.Output(k)] += scale * values[k] * in->mean[places.Input(k)];
    }
    for (std::size_t c = 0; c < places.outputs; ++c) bias.As<float>()[c] += static_cast<float>(shift[c]);
    for (auto& t : *g->mutable_initializer()) {
      if (&t != b) continue;
      const std::string name = t.name();
      t.Clear();
      graph::FromTensor(name, bias.View(), &t);
    }
  }
  return {};
}

Status ApplyMasks(const std::vector<Mask>& masks, onnx::ModelProto* model) {
  for (const Mask& m : masks) {
    bool found = false;
    for (auto& t : *model->mutable_graph()->mutable_initializer()) {
      if (t.name() != m.parameter) continue;
      found = true;
      ASSIGN_OR_RETURN(tensor::Tensor w, Weights(t, "mask"));
      auto values = w.As<float>();
      if (values.size() != m.keep.size()) {
        return InvalidArgument("the mask of \"" + m.parameter + "\" has " + std::to_string(m.keep.size()) +
                               " entries, the parameter " + std::to_string(values.size()));
      }
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (m.keep[i] == 0) values[i] = 0;
      }
      const std::string name = t.name();
      t.Clear();
      graph::FromTensor(name, w.View(), &t);
    }
    if (!found) return InvalidArgument("the mask of \"" + m.parameter + "\" has no parameter in the model");
  }
  return {};
}

double Sparsity(const std::vector<Mask>& masks) {
  double zeros = 0;
  double all = 0;
  for (const Mask& m : masks) {
    zeros += static_cast<double>(std::count(m.keep.begin(), m.keep.end(), 0));
    all += static_cast<double>(m.keep.size());
  }
  return all > 0 ? zeros / all : 0;
}

Result<MaskProjection> MaskProjection::Create(const std::vector<Mask>& masks,
                                              const std::vector<gradient::Segment>& segments) {
  MaskProjection p;
  for (const auto& s : segments) p.size_ = std::max(p.size_, static_cast<std::size_t>(s.offset + s.size));
  for (const Mask& m : masks) {
    const auto at =
        std::find_if(segments.begin(), segments.end(), [&](const auto& s) { return s.name == m.parameter; });
    if (at == segments.end()) return InvalidArgument("masked parameter \"" + m.parameter + "\" does not train");
    if (static_cast<std::size_t>(at->size) != m.keep.size()) {
      return InvalidArgument("the mask of \"" + m.parameter + "\" has " + std::to_string(m.keep.size()) +
                             " entries, the parameter " + std::to_string(at->size));
    }
    for (std::size_t i = 0; i < m.keep.size(); ++i) {
      if (m.keep[i] == 0) p.zeros_.push_back(static_cast<std::size_t>(at->offset) + i);
    }
  }
  return p;
}

void MaskProjection::Apply(std::span<float> parameters) const {
  GANGLION_CHECK(parameters.size() == size_);
  for (const std::size_t i : zeros_) parameters[i] = 0;
}

}  // namespace ganglion::shrink
