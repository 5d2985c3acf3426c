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

}  // namespace

Result<std::vector<Mask>> MagnitudeMasks(const onnx::ModelProto& model, double sparsity, Scope scope) {
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
    const bool linear = n.op_type() == "Conv" || n.op_type() == "Gemm" || n.op_type() == "MatMul";
    if (!linear || !n.domain().empty() || n.input_size() < 2) continue;
    const auto* t = links.Constant(n.input(1));
    if (t == nullptr || t->data_type() != onnx::TensorProto::FLOAT || !seen.insert(t->name()).second) continue;
    ASSIGN_OR_RETURN(const tensor::Tensor w, Weights(*t, graph::Describe(n, i)));
    const auto values = w.As<float>();
    const auto layer = static_cast<std::uint32_t>(masks.size());
    masks.push_back({t->name(), std::vector<std::uint8_t>(values.size(), 1)});
    names.push_back(graph::Describe(n, i));
    std::vector<Weight> weights;
    weights.reserve(values.size());
    for (std::size_t k = 0; k < values.size(); ++k) weights.push_back({std::fabs(values[k]), layer, k});
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

double GradualSparsity(std::int64_t step, std::int64_t steps, double final) {
  if (step >= steps) return final;
  const double left = 1 - static_cast<double>(step) / static_cast<double>(steps);
  return final * (1 - left * left * left);
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
