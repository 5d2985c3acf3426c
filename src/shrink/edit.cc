#include "shrink/edit.h"

#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::shrink {

Status Prepare(const onnx::ModelProto& model, onnx::ModelProto* prepared) {
  RETURN_IF_ERROR(graph::Validate(model));
  const auto opset = graph::OpsetVersion(model);
  if (opset < 13 || opset > graph::kOpset) {
    return Unimplemented("the model is of operator set " + std::to_string(opset) +
                         ", shrinking takes 13 to 17; convert it, or export it again");
  }
  *prepared = model;
  auto* g = prepared->mutable_graph();
  g->clear_value_info();
  // Constant nodes become initializers.
  google::protobuf::RepeatedPtrField<onnx::NodeProto> nodes;
  nodes.Swap(g->mutable_node());
  for (auto& n : nodes) {
    const auto* value = n.op_type() == "Constant" ? graph::FindAttribute(n, "value") : nullptr;
    if (value != nullptr && value->has_t() && n.output_size() == 1 && n.domain().empty()) {
      auto* t = g->add_initializer();
      *t = value->t();
      t->set_name(n.output(0));
    } else {
      *g->add_node() = std::move(n);
    }
  }
  // Initializers that are declared as inputs too (the old way) are constants.
  std::unordered_set<std::string> constants;
  for (const auto& t : g->initializer()) constants.insert(t.name());
  google::protobuf::RepeatedPtrField<onnx::ValueInfoProto> inputs;
  inputs.Swap(g->mutable_input());
  for (auto& v : inputs) {
    if (!constants.contains(v.name())) *g->add_input() = std::move(v);
  }
  return {};
}

void AddSubgraphReads(const onnx::NodeProto& node, std::unordered_set<std::string>* names) {
  const auto add = [&](const onnx::GraphProto& g) {
    for (const auto& n : g.node()) {
      names->insert(n.input().begin(), n.input().end());
      AddSubgraphReads(n, names);
    }
    for (const auto& v : g.output()) names->insert(v.name());
  };
  for (const auto& a : node.attribute()) {
    if (a.has_g()) add(a.g());
    for (const auto& g : a.graphs()) add(g);
  }
}

Links::Links(const onnx::GraphProto& graph) {
  for (const auto& t : graph.initializer()) constants_.emplace(t.name(), &t);
  for (const auto& v : graph.input()) inputs_.insert(v.name());
  for (const auto& v : graph.output()) outputs_.insert(v.name());
  for (int i = 0; i < graph.node_size(); ++i) {
    const auto& n = graph.node(i);
    for (const auto& name : n.output()) {
      if (!name.empty()) maker_.emplace(name, i);
    }
    std::unordered_set<std::string> reads(n.input().begin(), n.input().end());
    AddSubgraphReads(n, &reads);
    for (const auto& name : reads) {
      if (!name.empty()) readers_[name].push_back(i);
    }
  }
}

const onnx::TensorProto* Links::Constant(const std::string& name) const {
  const auto at = constants_.find(name);
  return at == constants_.end() ? nullptr : at->second;
}

int Links::Maker(const std::string& name) const {
  const auto at = maker_.find(name);
  return at == maker_.end() ? -1 : at->second;
}

const std::vector<int>& Links::Readers(const std::string& name) const {
  static const std::vector<int> kNobody;
  const auto at = readers_.find(name);
  return at == readers_.end() ? kNobody : at->second;
}

Names::Names(const onnx::GraphProto& graph) {
  for (const auto& t : graph.initializer()) taken_.insert(t.name());
  for (const auto& v : graph.input()) taken_.insert(v.name());
  for (const auto& n : graph.node()) {
    taken_.insert(n.output().begin(), n.output().end());
    AddSubgraphReads(n, &taken_);  // a name that a subgraph uses for its own must not come to mean ours
  }
}

std::string Names::Fresh(const std::string& wanted) {
  std::string name = wanted;
  for (int i = 1; !taken_.insert(name).second; ++i) name = wanted + "." + std::to_string(i);
  return name;
}

void DropUnused(onnx::GraphProto* graph) {
  std::unordered_set<std::string> read;
  for (const auto& n : graph->node()) {
    read.insert(n.input().begin(), n.input().end());
    AddSubgraphReads(n, &read);
  }
  for (const auto& v : graph->output()) read.insert(v.name());
  google::protobuf::RepeatedPtrField<onnx::TensorProto> all;
  all.Swap(graph->mutable_initializer());
  for (auto& t : all) {
    if (read.contains(t.name())) *graph->add_initializer() = std::move(t);
  }
}

Result<tensor::Tensor> Weights(const onnx::TensorProto& proto, const std::string& where) {
  if (proto.data_type() != onnx::TensorProto::FLOAT)
    return InvalidArgument(where + ": parameter \"" + proto.name() + "\" is not FP32");
  auto t = graph::ToTensor(proto);
  if (!t.ok()) return t.status().Within(where);
  if (auto s = tensor::CheckFinite(proto.name(), t->View()); !s.ok()) return s.Within(where);
  return t;
}

void SetBytes(onnx::TensorProto* proto, const std::string& name, int onnx_type, const tensor::Shape& shape,
              const void* bytes, std::size_t size) {
  proto->Clear();
  proto->set_name(name);
  proto->set_data_type(onnx_type);
  for (const auto d : shape) proto->add_dims(d);
  proto->set_raw_data(bytes, size);
}

void SetFloats(onnx::TensorProto* proto, const std::string& name, const tensor::Shape& shape,
               const std::vector<float>& values) {
  SetBytes(proto, name, onnx::TensorProto::FLOAT, shape, values.data(), values.size() * sizeof(float));
}

}  // namespace ganglion::shrink
