#include "gradient/upgrade.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "tensor/tensor.h"

namespace ganglion::gradient {
namespace {

using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Tensor;

void NamesOf(const onnx::GraphProto& g, std::unordered_set<std::string>* names) {
  for (const auto& t : g.initializer()) names->insert(t.name());
  for (const auto& v : g.input()) names->insert(v.name());
  for (const auto& n : g.node()) {
    names->insert(n.output().begin(), n.output().end());
    for (const auto& a : n.attribute()) {
      if (a.has_g()) NamesOf(a.g(), names);
    }
  }
}

// The ranks that a graph declares of its values.
std::unordered_map<std::string, std::int64_t> RanksOf(const onnx::GraphProto& g) {
  std::unordered_map<std::string, std::int64_t> ranks;
  for (const auto* list : {&g.value_info(), &g.output(), &g.input()}) {
    for (const auto& v : *list) {
      if (v.type().tensor_type().has_shape()) ranks[v.name()] = v.type().tensor_type().shape().dim_size();
    }
  }
  return ranks;
}

// One graph being rewritten: nodes are appended to `nodes`, constants to its initializers.
class Rewriting {
 public:
  Rewriting(onnx::GraphProto& g, std::unordered_set<std::string>& names)
      : graph_(g), names_(names), ranks_(RanksOf(g)) {}

  std::string Fresh(const std::string& hint) {
    for (;;) {
      std::string name = hint + ".upgraded" + std::to_string(next_++);
      if (names_.insert(name).second) return name;
    }
  }
  std::string Constant(const std::string& hint, const Tensor& value) {
    std::string name = Fresh(hint);
    graph::FromTensor(name, value.View(), graph_.add_initializer());
    return name;
  }
  std::string List(const std::string& hint, const Ints& values) {
    return Constant(hint, Tensor::From<long>({static_cast<std::int64_t>(values.size())}, values).value());
  }
  std::string Number(const std::string& hint, float value) {
    return Constant(hint, Tensor::From<float>({}, {&value, 1}).value());
  }
  std::optional<std::int64_t> Rank(const std::string& value) const {
    const auto at = ranks_.find(value);
    return at == ranks_.end() ? std::nullopt : std::optional(at->second);
  }
  // A node before the one being rewritten (or after it), with one output.
  Node& Append(const std::string& op, const std::vector<std::string>& in, const std::string& out) {
    Node& n = nodes.emplace_back();
    n.set_op_type(op);
    for (const auto& name : in) n.add_input(name);
    n.add_output(out);
    return n;
  }

  std::vector<Node> nodes;

 private:
  onnx::GraphProto& graph_;
  std::unordered_set<std::string>& names_;
  const std::unordered_map<std::string, std::int64_t> ranks_;
  int next_ = 0;
};

void Drop(Node* n, const std::string& attribute) {
  auto* list = n->mutable_attribute();
  list->erase(std::remove_if(list->begin(), list->end(), [&](const auto& a) { return a.name() == attribute; }),
              list->end());
}

void SetInt(Node* n, const std::string& name, std::int64_t value) {
  Drop(n, name);
  auto* a = n->add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::INT);
  a->set_i(value);
}

void SetText(Node* n, const std::string& name, const std::string& value) {
  Drop(n, name);
  auto* a = n->add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::STRING);
  a->set_s(value);
}

void SetInput(Node* n, int i, const std::string& name) {
  while (n->input_size() <= i) n->add_input("");
  n->set_input(i, name);
}

// An attribute of integers becomes input i.
void ListToInput(Node* n, Rewriting& r, const char* attribute, int i) {
  const auto list = graph::IntsAttribute(*n, attribute);
  if (!list) return;
  SetInput(n, i, r.List(attribute, *list));
  Drop(n, attribute);
}
void NumberToInput(Node* n, Rewriting& r, const char* attribute, int i) {
  if (graph::FindAttribute(*n, attribute) == nullptr) return;
  SetInput(n, i, r.Number(attribute, graph::FloatAttribute(*n, attribute, 0)));
  Drop(n, attribute);
}

Status AxesToInput(Node* n, Rewriting& r) {
  ListToInput(n, r, "axes", 1);
  return {};
}
Status SplitToInput(Node* n, Rewriting& r) {
  ListToInput(n, r, "split", 1);
  return {};
}
Status BoundsToInputs(Node* n, Rewriting& r) {
  NumberToInput(n, r, "min", 1);
  NumberToInput(n, r, "max", 2);
  return {};
}
Status PadsToInputs(Node* n, Rewriting& r) {
  ListToInput(n, r, "pads", 1);
  NumberToInput(n, r, "value", 2);
  return {};
}
Status SliceToInputs(Node* n, Rewriting& r) {
  ListToInput(n, r, "starts", 1);
  ListToInput(n, r, "ends", 2);
  ListToInput(n, r, "axes", 3);
  return {};
}
Status RatioToInput(Node* n, Rewriting& r) {
  SetInput(n, 1, r.Number("ratio", graph::FloatAttribute(*n, "ratio", .5f)));
  Drop(n, "ratio");
  return {};
}

// The old Resize and Upsample: pixel i comes from i / scale, rounded down.
Status ScalesToResize(Node* n, Rewriting& r) {
  std::string scales;
  if (n->input_size() > 1) {
    scales = n->input(1);
  } else if (const auto* a = graph::FindAttribute(*n, "scales"); a != nullptr) {
    const std::vector<float> values(a->floats().begin(), a->floats().end());
    scales = r.Constant("scales", Tensor::From<float>({static_cast<std::int64_t>(values.size())}, values).value());
  } else {
    return InvalidArgument("has no scales");
  }
  n->set_op_type("Resize");
  Drop(n, "scales");
  SetInput(n, 1, "");
  SetInput(n, 2, scales);
  const auto* mode = graph::FindAttribute(*n, "mode");
  if (mode != nullptr && mode->s() == "bilinear") SetText(n, "mode", "linear");
  SetText(n, "coordinate_transformation_mode", "asymmetric");
  SetText(n, "nearest_mode", "floor");
  return {};
}

// The old Softmax takes everything from `axis` (1 if it is not said) to the last one as one axis. That is the last axis
// alone if nothing follows; else the input is made a matrix first, and what comes of it gets the input's shape again.
Status SoftmaxOverTheRest(Node* n, Rewriting& r) {
  const std::int64_t axis = graph::IntAttribute(*n, "axis", 1);
  auto rank = r.Rank(n->output(0));
  if (!rank) rank = r.Rank(n->input(0));
  if (axis == -1 || (rank && axis == *rank - 1)) {
    SetInt(n, "axis", -1);
    return {};
  }
  const std::string x = n->input(0);
  const std::string y = n->output(0);
  const std::string matrix = r.Fresh("matrix");
  const std::string result = r.Fresh("result");
  SetInt(&r.Append("Flatten", {x}, matrix), "axis", axis);
  SetInt(&r.Append(n->op_type(), {matrix}, result), "axis", -1);
  const std::string shape = r.Fresh("shape");
  r.Append("Shape", {x}, shape);
  n->Clear();
  n->set_op_type("Reshape");
  n->add_input(result);
  n->add_input(shape);
  n->add_output(y);
  return {};
}

Status PerActivation(Node* n, Rewriting&) {
  if (graph::IntAttribute(*n, "spatial", 1) != 1)
    return Unimplemented("normalises each activation by itself (spatial)");
  Drop(n, "spatial");
  return {};
}

struct Change {
  const char* op;
  std::int64_t since;  // older sets are rewritten
  Status (*rewrite)(Node*, Rewriting&);
};
constexpr Change kChanges[] = {
    {"BatchNormalization", 9, PerActivation},
    {"Clip", 11, BoundsToInputs},
    {"Dropout", 12, RatioToInput},
    {"LogSoftmax", 13, SoftmaxOverTheRest},
    {"Pad", 11, PadsToInputs},
    {"ReduceSum", 13, AxesToInput},
    {"Resize", 11, ScalesToResize},
    {"Slice", 10, SliceToInputs},
    {"Softmax", 13, SoftmaxOverTheRest},
    {"Split", 13, SplitToInput},
    {"Squeeze", 13, AxesToInput},
    {"Unsqueeze", 13, AxesToInput},
    {"Upsample", 10, ScalesToResize},
};

Status UpgradeGraph(onnx::GraphProto* g, std::int64_t from, std::unordered_set<std::string>& names) {
  Rewriting r(*g, names);
  for (int i = 0; i < g->node_size(); ++i) {
    Node n = std::move(*g->mutable_node(i));
    for (auto& a : *n.mutable_attribute()) {
      if (a.has_g()) RETURN_IF_ERROR(UpgradeGraph(a.mutable_g(), from, names));
    }
    const std::string where = graph::Describe(n, i);
    for (const Change& change : kChanges) {
      if (n.op_type() != change.op || !n.domain().empty() || from >= change.since) continue;
      if (n.input_size() == 0 || n.output_size() == 0) return InvalidArgument(where + " has no input or no output");
      if (auto s = change.rewrite(&n, r); !s.ok()) return s.Within(where);
      break;
    }
    r.nodes.push_back(std::move(n));
  }
  g->clear_node();
  for (auto& n : r.nodes) *g->add_node() = std::move(n);
  return {};
}

}  // namespace

Status Upgrade(onnx::ModelProto* model) {
  const std::int64_t from = graph::OpsetVersion(*model);
  if (from >= kPlainOpset) return {};
  std::unordered_set<std::string> names;
  NamesOf(model->graph(), &names);
  RETURN_IF_ERROR(UpgradeGraph(model->mutable_graph(), from, names));
  for (auto& import : *model->mutable_opset_import()) {
    if (import.domain().empty() || import.domain() == "ai.onnx") import.set_version(kPlainOpset);
  }
  model->set_ir_version(std::max<std::int64_t>(model->ir_version(), 7));
  return {};
}

}  // namespace ganglion::gradient
