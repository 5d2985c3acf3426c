#include "gradient/prepare.h"

#include <algorithm>
#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "gradient/known.h"
#include "gradient/rules.h"
#include "gradient/upgrade.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Node = onnx::NodeProto;
using tensor::Shape;

onnx::ValueInfoProto* FindInput(onnx::GraphProto* g, const std::string& name) {
  for (auto& v : *g->mutable_input()) {
    if (v.name() == name) return &v;
  }
  return nullptr;
}

Status NoSuchInput(const onnx::GraphProto& g, const std::string& name) {
  std::string have;
  for (const auto& v : g.input()) have += " " + v.name();
  return InvalidArgument("the model has no input \"" + name + "\"; it has:" + have);
}

Status SetShapes(const std::map<std::string, Shape>& shapes, onnx::GraphProto* g) {
  for (const auto& [name, shape] : shapes) {
    auto* input = FindInput(g, name);
    if (input == nullptr) return NoSuchInput(*g, name);
    auto* declared = input->mutable_type()->mutable_tensor_type()->mutable_shape();
    bool fits = declared->dim_size() == static_cast<int>(shape.size());
    for (int i = 0; fits && i < declared->dim_size(); ++i) {
      const std::int64_t size = shape[static_cast<std::size_t>(i)];
      auto* d = declared->mutable_dim(i);
      fits = size >= -1 && (!d->has_dim_value() || d->dim_value() < 0 || d->dim_value() == size || size == -1);
      if (fits && size >= 0) d->set_dim_value(size);
      if (fits && size < 0) d->set_dim_param("batch");
    }
    if (!fits) return InvalidArgument("input \"" + name + "\" cannot have the shape " + tensor::ShapeText(shape));
  }
  return {};
}

Status FixInputs(const std::map<std::string, tensor::Tensor>& fixed, onnx::GraphProto* g) {
  for (const auto& entry : fixed) {
    const std::string& name = entry.first;
    const tensor::Tensor& value = entry.second;
    const auto* input = FindInput(g, name);
    if (input == nullptr) return NoSuchInput(*g, name);
    const auto type = graph::DataTypeFromOnnx(input->type().tensor_type().elem_type());
    if (type != value.type())
      return InvalidArgument("input \"" + name + "\" is fixed to " + std::string(tensor::Name(value.type())) +
                             " numbers, it takes " + (type ? std::string(tensor::Name(*type)) : "others"));
    auto* list = g->mutable_input();
    list->erase(std::remove_if(list->begin(), list->end(), [&](const auto& v) { return v.name() == name; }),
                list->end());
    graph::FromTensor(name, value.View(), g->add_initializer());
  }
  return {};
}

// A Constant node that holds a weight: FP32, more than one number.
const onnx::TensorProto* WeightOf(const Node& n) {
  if (n.op_type() != "Constant" || n.output_size() != 1) return nullptr;
  const auto* value = graph::FindAttribute(n, "value");
  if (value == nullptr || !value->has_t() || value->t().data_type() != onnx::TensorProto::FLOAT) return nullptr;
  std::int64_t count = 1;
  for (const auto d : value->t().dims()) {
    if (d < 0 || __builtin_mul_overflow(count, d, &count)) return nullptr;
  }
  return count > 1 && value->t().dims_size() > 0 ? &value->t() : nullptr;
}

// The graph written anew, node by node, with what is known of their values.
class Flattening {
 public:
  explicit Flattening(onnx::ModelProto* model) : graph_(*model->mutable_graph()) {}

  Status Run(const onnx::ModelProto& model) {
    ASSIGN_OR_RETURN(const auto inputs, graph::InputSpecs(model));
    for (const auto& spec : inputs) shapes_.shape[spec.name] = spec.shape;
    for (const auto& t : graph_.initializer()) RETURN_IF_ERROR(LearnInitializer(t));
    std::vector<Node> nodes(graph_.node().begin(), graph_.node().end());
    for (const auto& n : nodes) {
      for (const auto& name : n.output()) taken_.insert(name);
    }
    for (const auto& [name, shape] : shapes_.shape) taken_.insert(name);
    graph_.clear_node();
    for (auto& n : nodes) RETURN_IF_ERROR(Take(std::move(n)));
    return {};
  }

 private:
  Status LearnInitializer(const onnx::TensorProto& t) {
    // Data that the tensors of the protocol cannot hold is only unknown here.
    if (const auto value = graph::ToTensor(t); value.ok()) Know(t.name(), *value, &shapes_);
    return {};
  }

  Status Take(Node n) {
    if (const auto* weight = WeightOf(n); weight != nullptr) {
      auto* t = graph_.add_initializer();
      *t = *weight;
      t->set_name(n.output(0));
      return LearnInitializer(*t);
    }
    if (n.op_type() == "If" && n.domain().empty() && n.input_size() == 1) {
      const auto known = shapes_.ints.find(n.input(0));
      if (known != shapes_.ints.end() && known->second.size() == 1 && known->second[0] != kOfBatch)
        return TakeBranch(n, known->second[0] != 0 ? "then_branch" : "else_branch");
    }
    Infer(n);
    *graph_.add_node() = std::move(n);
    return {};
  }

  // What cannot be inferred stays unknown.
  void Infer(const Node& n) {
    if (n.op_type() == "Constant") {
      (void)LearnConstant(n, &shapes_);
      return;
    }
    const Rule* rule = n.domain().empty() ? FindRule(n.op_type()) : nullptr;
    if (rule == nullptr || n.input_size() < rule->inputs) return;
    for (int i = 0; i < n.input_size(); ++i) {
      if (n.input(i).empty() ? i < rule->inputs : !shapes_.shape.contains(n.input(i))) return;
    }
    const auto shapes = rule->infer(n, shapes_);
    if (!shapes.ok()) return;
    for (int i = 0; i < n.output_size() && i < static_cast<int>(shapes->size()); ++i)
      shapes_.shape[n.output(i)] = (*shapes)[static_cast<std::size_t>(i)];
    Learn(n, shapes_);
  }

  // The branch's values get names of their own, as two branches may use the same.
  Status TakeBranch(const Node& n, const char* which) {
    const auto* branch = graph::FindAttribute(n, which);
    if (branch == nullptr || !branch->has_g() || branch->g().output_size() < n.output_size())
      return InvalidArgument("an If without a " + std::string(which) + " for its outputs");
    const onnx::GraphProto& g = branch->g();
    std::unordered_map<std::string, std::string> renamed;
    for (const auto& t : g.initializer()) renamed[t.name()] = Unique(t.name());
    for (const auto& inner : g.node()) {
      for (const auto& name : inner.output()) {
        if (!name.empty()) renamed[name] = Unique(name);
      }
    }
    for (const auto& t : g.initializer()) {
      auto* copy = graph_.add_initializer();
      *copy = t;
      copy->set_name(renamed[t.name()]);
      RETURN_IF_ERROR(LearnInitializer(*copy));
    }
    for (Node inner : g.node()) {
      RenameIn(renamed, &inner);
      RETURN_IF_ERROR(Take(std::move(inner)));
    }
    for (int i = 0; i < n.output_size(); ++i) {
      if (n.output(i).empty()) continue;
      const auto at = renamed.find(g.output(i).name());
      Node same;
      same.set_op_type("Identity");
      same.add_input(at == renamed.end() ? g.output(i).name() : at->second);
      same.add_output(n.output(i));
      RETURN_IF_ERROR(Take(std::move(same)));
    }
    return {};
  }

  std::string Unique(const std::string& name) {
    std::string unique = name;
    for (int i = 1; !taken_.insert(unique).second; ++i) unique = name + "." + std::to_string(i);
    return unique;
  }

  // Names in the node and in the graphs inside it; those graphs' own values are not among `names`.
  static void RenameIn(const std::unordered_map<std::string, std::string>& names, Node* n) {
    const auto rename = [&](std::string* name) {
      if (const auto at = names.find(*name); at != names.end()) *name = at->second;
    };
    for (auto& name : *n->mutable_input()) rename(&name);
    for (auto& name : *n->mutable_output()) rename(&name);
    for (auto& a : *n->mutable_attribute()) {
      if (!a.has_g()) continue;
      for (auto& inner : *a.mutable_g()->mutable_node()) RenameIn(names, &inner);
      for (auto& out : *a.mutable_g()->mutable_output()) rename(out.mutable_name());
    }
  }

  onnx::GraphProto& graph_;
  Shapes shapes_;
  std::unordered_set<std::string> taken_;
};

}  // namespace

Status Prepare(const PrepareOptions& options, onnx::ModelProto* model) {
  RETURN_IF_ERROR(graph::Validate(*model));
  RETURN_IF_ERROR(SetShapes(options.shapes, model->mutable_graph()));
  RETURN_IF_ERROR(FixInputs(options.fixed, model->mutable_graph()));
  RETURN_IF_ERROR(Upgrade(model));
  RETURN_IF_ERROR(Flattening(model).Run(*model));
  return graph::Validate(*model);
}

}  // namespace ganglion::gradient
