#include "graph/graph.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "base/check.h"
#include "base/limits.h"
#include "graph/onnx.pb.h"

namespace ganglion::graph {
namespace {

using tensor::DataType;

struct OnnxType {
  int onnx;
  DataType ours;
};
constexpr OnnxType kTypes[] = {
    {onnx::TensorProto::BOOL, DataType::kBool},     {onnx::TensorProto::UINT8, DataType::kUint8},
    {onnx::TensorProto::UINT16, DataType::kUint16}, {onnx::TensorProto::UINT32, DataType::kUint32},
    {onnx::TensorProto::UINT64, DataType::kUint64}, {onnx::TensorProto::INT8, DataType::kInt8},
    {onnx::TensorProto::INT16, DataType::kInt16},   {onnx::TensorProto::INT32, DataType::kInt32},
    {onnx::TensorProto::INT64, DataType::kInt64},   {onnx::TensorProto::FLOAT16, DataType::kFp16},
    {onnx::TensorProto::BFLOAT16, DataType::kBf16}, {onnx::TensorProto::FLOAT, DataType::kFp32},
    {onnx::TensorProto::DOUBLE, DataType::kFp64},   {onnx::TensorProto::STRING, DataType::kBytes},
};

Status CheckTensor(const onnx::TensorProto& t, const std::string& where) {
  if (t.data_location() == onnx::TensorProto::EXTERNAL || t.external_data_size() > 0) {
    return InvalidArgument(
        where + " keeps its data outside the file; embed them (a model must be one file to have one digest)");
  }
  const auto count = tensor::ElementCount({t.dims().data(), static_cast<std::size_t>(t.dims_size())});
  if (!count.ok()) return count.status().Within(where);
  const auto type = DataTypeFromOnnx(t.data_type());
  if (!type) return {};  // a datatype we never look into; the runtime judges it
  if (t.has_raw_data()) {
    const std::size_t want = static_cast<std::size_t>(*count) * tensor::SizeOf(*type);
    if (*type != DataType::kBytes && t.raw_data().size() != want) {
      return InvalidArgument(where + " takes " + std::to_string(want) + " bytes for its shape, the file has " +
                             std::to_string(t.raw_data().size()));
    }
    return {};
  }
  // Numbers in typed fields: as many as elements (complex types are not in the table).
  std::int64_t have = 0;
  switch (*type) {
    case DataType::kFp32:
      have = t.float_data_size();
      break;
    case DataType::kFp64:
      have = t.double_data_size();
      break;
    case DataType::kInt64:
      have = t.int64_data_size();
      break;
    case DataType::kUint32:
    case DataType::kUint64:
      have = t.uint64_data_size();
      break;
    case DataType::kBytes:
      have = t.string_data_size();
      break;
    default:
      have = t.int32_data_size();
      break;
  }
  if (have != *count) {
    return InvalidArgument(where + " takes " + std::to_string(*count) + " numbers for its shape, the file has " +
                           std::to_string(have));
  }
  return {};
}

struct GraphCheck {
  int nodes = 0;
  std::vector<const std::unordered_set<std::string>*> scopes;  // names of the graph and of those around it

  bool Known(const std::string& name) const {
    return std::any_of(scopes.begin(), scopes.end(), [&](const auto* s) { return s->contains(name); });
  }

  Status Check(const onnx::GraphProto& g, int depth) {
    if (depth > limits::kMaxGraphNesting) {
      return InvalidArgument("graphs nested deeper than " + std::to_string(limits::kMaxGraphNesting));
    }
    nodes += g.node_size();
    if (nodes > limits::kMaxGraphNodes)
      return InvalidArgument("more than " + std::to_string(limits::kMaxGraphNodes) + " nodes");
    std::unordered_set<std::string> here;
    scopes.push_back(&here);
    for (const auto& t : g.initializer()) {
      if (t.name().empty()) return InvalidArgument("an initializer has no name");
      if (!here.insert(t.name()).second) return InvalidArgument("initializer \"" + t.name() + "\" is defined twice");
      RETURN_IF_ERROR(CheckTensor(t, "initializer \"" + t.name() + "\""));
    }
    if (g.sparse_initializer_size() > 0) return Unimplemented("sparse initializers are not supported");
    std::unordered_set<std::string> inputs;
    for (const auto& v : g.input()) {
      if (!inputs.insert(v.name()).second) return InvalidArgument("input \"" + v.name() + "\" is declared twice");
      here.insert(v.name());
    }
    for (int i = 0; i < g.node_size(); ++i) {
      const auto& n = g.node(i);
      if (n.op_type().empty()) return InvalidArgument(Describe(n, i) + " has no operator");
      for (const auto& name : n.input()) {
        if (!name.empty() && !Known(name)) {
          return InvalidArgument(Describe(n, i) + " reads \"" + name + "\", which nothing before it makes");
        }
      }
      for (const auto& a : n.attribute()) {
        if (a.has_t()) RETURN_IF_ERROR(CheckTensor(a.t(), "attribute \"" + a.name() + "\" of " + Describe(n, i)));
        for (const auto& t : a.tensors())
          RETURN_IF_ERROR(CheckTensor(t, "attribute \"" + a.name() + "\" of " + Describe(n, i)));
        if (a.has_sparse_tensor() || a.sparse_tensors_size() > 0) {
          return Unimplemented("attribute \"" + a.name() + "\" of " + Describe(n, i) +
                               " is a sparse tensor; make it dense");
        }
        if (a.has_g()) RETURN_IF_ERROR(Check(a.g(), depth + 1));
        for (const auto& sub : a.graphs()) RETURN_IF_ERROR(Check(sub, depth + 1));
      }
      for (const auto& name : n.output()) {
        if (name.empty()) continue;
        if (!here.insert(name).second)
          return InvalidArgument(Describe(n, i) + " makes \"" + name + "\", which exists already");
      }
    }
    if (g.output_size() == 0) return InvalidArgument("the graph has no output");
    for (const auto& v : g.output()) {
      if (!Known(v.name())) return InvalidArgument("output \"" + v.name() + "\" is made by no node");
    }
    scopes.pop_back();
    return {};
  }
};

Result<tensor::Spec> ToSpec(const onnx::ValueInfoProto& v, const char* kind) {
  const std::string where = std::string(kind) + " \"" + v.name() + "\"";
  if (!v.type().has_tensor_type()) return Unimplemented(where + " is not a tensor");
  if (std::string(kind) == "input" && !v.type().tensor_type().has_shape())
    return InvalidArgument(where + " has no shape; export the model with one (-1 where it is open)");
  tensor::Spec spec;
  spec.name = v.name();
  const auto type = DataTypeFromOnnx(v.type().tensor_type().elem_type());
  if (!type)
    return Unimplemented(where + " has ONNX datatype " + std::to_string(v.type().tensor_type().elem_type()) +
                         ", which the protocol cannot carry");
  spec.type = *type;
  for (const auto& d : v.type().tensor_type().shape().dim())
    spec.shape.push_back(d.has_dim_value() && d.dim_value() >= 0 ? d.dim_value() : -1);
  if (spec.shape.size() > static_cast<std::size_t>(limits::kMaxTensorRank))
    return InvalidArgument(where + " has too many dimensions");
  return spec;
}

}  // namespace

std::optional<DataType> DataTypeFromOnnx(int onnx_type) {
  for (const auto& row : kTypes) {
    if (row.onnx == onnx_type) return row.ours;
  }
  return std::nullopt;
}

int DataTypeToOnnx(DataType type) {
  for (const auto& row : kTypes) {
    if (row.ours == type) return row.onnx;
  }
  return onnx::TensorProto::UNDEFINED;
}

std::string Describe(const onnx::NodeProto& node, int index) {
  return "node " + std::to_string(index) + (node.name().empty() ? "" : " \"" + node.name() + "\"") + " (" +
         (node.domain().empty() ? "" : node.domain() + ".") + node.op_type() + ")";
}

std::int64_t OpsetVersion(const onnx::ModelProto& model) {
  for (const auto& import : model.opset_import()) {
    if (import.domain().empty() || import.domain() == "ai.onnx") return import.version();
  }
  return 0;
}

Status Parse(std::span<const std::byte> file, onnx::ModelProto* model) {
  if (file.size() > limits::kMaxModelBytes || file.size() > static_cast<std::size_t>(INT32_MAX)) {
    return ResourceExhausted("ONNX file of " + std::to_string(file.size()) + " bytes, limit " +
                             std::to_string(limits::kMaxModelBytes));
  }
  if (file.empty()) return InvalidArgument("ONNX file is empty");
  if (!model->ParseFromArray(file.data(), static_cast<int>(file.size()))) {
    return InvalidArgument("not an ONNX file, or cut short (" + std::to_string(file.size()) + " bytes)");
  }
  return Validate(*model);
}

Status Validate(const onnx::ModelProto& model) {
  if (!model.has_graph()) return InvalidArgument("not an ONNX model: it has no graph");
  if (OpsetVersion(model) <= 0) return InvalidArgument("the model imports no operator set");
  if (model.functions_size() > 0) return Unimplemented("model-local functions are not supported; inline them");
  GraphCheck check;
  return check.Check(model.graph(), 0);
}

std::string Serialize(const onnx::ModelProto& model) {
  std::string bytes;
  GANGLION_CHECK(model.SerializeToString(&bytes));
  return bytes;
}

Result<tensor::Tensor> ToTensor(const onnx::TensorProto& t) {
  const std::string where = "tensor \"" + t.name() + "\"";
  RETURN_IF_ERROR(CheckTensor(t, where));
  const auto type = DataTypeFromOnnx(t.data_type());
  if (!type) return Unimplemented(where + " has ONNX datatype " + std::to_string(t.data_type()));
  const tensor::Shape shape(t.dims().begin(), t.dims().end());
  if (t.has_raw_data()) {
    return tensor::Tensor::FromBytes(*type, shape,
                                     {reinterpret_cast<const std::byte*>(t.raw_data().data()), t.raw_data().size()});
  }
  switch (*type) {
    case DataType::kFp32:
      return tensor::Tensor::From<float>(shape, {t.float_data().data(), static_cast<std::size_t>(t.float_data_size())});
    case DataType::kFp64:
      return tensor::Tensor::From<double>(shape,
                                          {t.double_data().data(), static_cast<std::size_t>(t.double_data_size())});
    case DataType::kInt64: {
      const std::vector<long> values(t.int64_data().begin(), t.int64_data().end());
      return tensor::Tensor::From<long>(shape, values);
    }
    case DataType::kInt32:
      return tensor::Tensor::From<int>(shape, {t.int32_data().data(), static_cast<std::size_t>(t.int32_data_size())});
    default:
      return Unimplemented(where + ": " + std::string(tensor::Name(*type)) + " in typed fields");
  }
}

void FromTensor(const std::string& name, const tensor::View& view, onnx::TensorProto* proto) {
  proto->set_name(name);
  proto->set_data_type(DataTypeToOnnx(view.type));
  for (const auto d : view.shape) proto->add_dims(d);
  proto->set_raw_data(view.bytes.data(), view.bytes.size());
}

Result<std::vector<tensor::Spec>> InputSpecs(const onnx::ModelProto& model) {
  std::unordered_set<std::string> initialised;
  for (const auto& t : model.graph().initializer()) initialised.insert(t.name());
  std::vector<tensor::Spec> specs;
  for (const auto& v : model.graph().input()) {
    if (initialised.contains(v.name())) continue;
    ASSIGN_OR_RETURN(auto spec, ToSpec(v, "input"));
    specs.push_back(std::move(spec));
  }
  return specs;
}

Result<std::vector<tensor::Spec>> OutputSpecs(const onnx::ModelProto& model) {
  std::vector<tensor::Spec> specs;
  for (const auto& v : model.graph().output()) {
    ASSIGN_OR_RETURN(auto spec, ToSpec(v, "output"));
    specs.push_back(std::move(spec));
  }
  return specs;
}

const onnx::AttributeProto* FindAttribute(const onnx::NodeProto& node, std::string_view name) {
  for (const auto& a : node.attribute()) {
    if (a.name() == name) return &a;
  }
  return nullptr;
}

std::int64_t IntAttribute(const onnx::NodeProto& node, std::string_view name, std::int64_t otherwise) {
  const auto* a = FindAttribute(node, name);
  return a != nullptr ? a->i() : otherwise;
}

float FloatAttribute(const onnx::NodeProto& node, std::string_view name, float otherwise) {
  const auto* a = FindAttribute(node, name);
  return a != nullptr ? a->f() : otherwise;
}

std::optional<std::vector<std::int64_t>> IntsAttribute(const onnx::NodeProto& node, std::string_view name) {
  const auto* a = FindAttribute(node, name);
  if (a == nullptr) return std::nullopt;
  return std::vector<std::int64_t>(a->ints().begin(), a->ints().end());
}

GraphBuilder::GraphBuilder(onnx::ModelProto* model) : model_(model), graph_(model->mutable_graph()) {
  if (model_->ir_version() == 0) {
    model_->set_ir_version(kIrVersion);
    model_->set_producer_name("ganglion");
    model_->add_opset_import()->set_version(kOpset);
    graph_->set_name("graph");
  }
  Avoid(*graph_);
}

std::string GraphBuilder::Fresh(const std::string& hint) {
  for (;;) {
    std::string name = hint + "." + std::to_string(next_++);
    if (!std::binary_search(taken_.begin(), taken_.end(), name)) return name;
  }
}

namespace {
void FillValueInfo(const tensor::Spec& spec, onnx::ValueInfoProto* v) {
  v->set_name(spec.name);
  auto* type = v->mutable_type()->mutable_tensor_type();
  type->set_elem_type(DataTypeToOnnx(spec.type));
  auto* shape = type->mutable_shape();
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    auto* d = shape->add_dim();
    if (spec.shape[i] >= 0) {
      d->set_dim_value(spec.shape[i]);
    } else {
      d->set_dim_param(i == 0 ? "batch" : "d" + std::to_string(i));
    }
  }
}
}  // namespace

void GraphBuilder::Input(const tensor::Spec& spec) { FillValueInfo(spec, graph_->add_input()); }
void GraphBuilder::Output(const tensor::Spec& spec) { FillValueInfo(spec, graph_->add_output()); }

void GraphBuilder::Initializer(const std::string& name, const tensor::Tensor& value) {
  FromTensor(name, value.View(), graph_->add_initializer());
}

std::string GraphBuilder::Constant(const std::string& hint, const tensor::Tensor& value) {
  std::string name = Fresh(hint);
  Initializer(name, value);
  return name;
}

std::string GraphBuilder::Ints(const std::string& hint, std::vector<std::int64_t> values) {
  const tensor::Shape shape{static_cast<std::int64_t>(values.size())};
  return Constant(hint, tensor::Tensor::From<long>(shape, values).value());
}

std::string GraphBuilder::Scalar(const std::string& hint, float value) {
  return Constant(hint, tensor::Tensor::From<float>({}, {&value, 1}).value());
}

void GraphBuilder::Rename(const std::string& from, const std::string& to) {
  for (auto& n : *graph_->mutable_node()) {
    for (auto& name : *n.mutable_input()) {
      if (name == from) name = to;
    }
    for (auto& name : *n.mutable_output()) {
      if (name == from) name = to;
    }
  }
}

void GraphBuilder::Avoid(const onnx::GraphProto& graph) {
  for (const auto& t : graph.initializer()) taken_.push_back(t.name());
  for (const auto& v : graph.input()) taken_.push_back(v.name());
  for (const auto& n : graph.node()) taken_.insert(taken_.end(), n.output().begin(), n.output().end());
  std::sort(taken_.begin(), taken_.end());
}

namespace {
void FillAttribute(const Attribute& attribute, onnx::AttributeProto* a) {
  a->set_name(attribute.name);
  if (const auto* i = std::get_if<std::int64_t>(&attribute.value)) {
    a->set_type(onnx::AttributeProto::INT);
    a->set_i(*i);
  } else if (const auto* f = std::get_if<float>(&attribute.value)) {
    a->set_type(onnx::AttributeProto::FLOAT);
    a->set_f(*f);
  } else if (const auto* text = std::get_if<std::string>(&attribute.value)) {
    a->set_type(onnx::AttributeProto::STRING);
    a->set_s(*text);
  } else if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&attribute.value)) {
    a->set_type(onnx::AttributeProto::INTS);
    for (const auto v : *ints) a->add_ints(v);
  } else if (const auto* floats = std::get_if<std::vector<float>>(&attribute.value)) {
    a->set_type(onnx::AttributeProto::FLOATS);
    for (const auto v : *floats) a->add_floats(v);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&attribute.value)) {
    a->set_type(onnx::AttributeProto::STRINGS);
    for (const auto& v : *texts) a->add_strings(v);
  } else {
    a->set_type(onnx::AttributeProto::GRAPH);
    *a->mutable_g() = *std::get<std::shared_ptr<const onnx::GraphProto>>(attribute.value);
  }
}
}  // namespace

std::string GraphBuilder::Node(const std::string& op, std::vector<std::string> inputs,
                               const std::vector<Attribute>& attributes, const std::string& output) {
  auto* n = graph_->add_node();
  n->set_op_type(op);
  for (auto& in : inputs) n->add_input(std::move(in));
  for (const auto& attribute : attributes) FillAttribute(attribute, n->add_attribute());
  std::string name = output.empty() ? Fresh(op) : output;
  n->add_output(name);
  return name;
}

std::vector<std::string> GraphBuilder::Nodes(const std::string& op, std::vector<std::string> inputs,
                                             std::size_t outputs, const std::vector<Attribute>& attributes) {
  std::vector<std::string> names{Node(op, std::move(inputs), attributes)};
  auto* n = graph_->mutable_node(graph_->node_size() - 1);
  while (names.size() < outputs) {
    names.push_back(Fresh(op));
    n->add_output(names.back());
  }
  return names;
}

}  // namespace ganglion::graph
