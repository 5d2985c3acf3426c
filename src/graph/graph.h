// graph: ONNX files as messages. Reading with every check that can be made without running anything, and building.
//
// The messages are the ONNX schema's own (onnx::ModelProto); this header only declares them, sources that touch fields
// include "graph/onnx.pb.h". The ONNX project's parser and checker are not used (open CVEs, and their checker trusts
// sizes); ours refuses what could hurt later: data outside the file, sizes that lie, graphs nested or grown beyond the
// limits, names that are defined twice or used before they exist.
// A parsed model can still be one that no runtime accepts, or that asks for too much memory when run; loading proves
// nothing about running.
// Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace onnx {
class AttributeProto;
class GraphProto;
class ModelProto;
class NodeProto;
class TensorProto;
class ValueInfoProto;
}  // namespace onnx

namespace ganglion::graph {

// The operator set that graphs built here are written in.
inline constexpr std::int64_t kOpset = 17;
inline constexpr std::int64_t kIrVersion = 8;

// Reads and checks an ONNX file. Errors say what is wrong and, for a node, which.
Status Parse(std::span<const std::byte> file, onnx::ModelProto* model);
// The checks alone, for a model made in memory.
Status Validate(const onnx::ModelProto& model);
std::string Serialize(const onnx::ModelProto& model);

// "node 3 \"fc2\" (Gemm)": how errors name a node.
std::string Describe(const onnx::NodeProto& node, int index);

// The version of the default operator set, 0 if the model imports none.
std::int64_t OpsetVersion(const onnx::ModelProto& model);

// An initializer's or attribute's numbers as a Tensor. Refuses datatypes outside the Open Inference set.
Result<tensor::Tensor> ToTensor(const onnx::TensorProto& proto);
void FromTensor(const std::string& name, const tensor::View& view, onnx::TensorProto* proto);

std::optional<tensor::DataType> DataTypeFromOnnx(int onnx_type);
int DataTypeToOnnx(tensor::DataType type);

// Inputs that a caller feeds (graph inputs that are not initializers) and outputs, as specs. -1 for symbolic sizes.
// Refuses inputs and outputs that are not tensors.
Result<std::vector<tensor::Spec>> InputSpecs(const onnx::ModelProto& model);
Result<std::vector<tensor::Spec>> OutputSpecs(const onnx::ModelProto& model);

// An attribute of a node, or the default where it is absent.
std::int64_t IntAttribute(const onnx::NodeProto& node, std::string_view name, std::int64_t otherwise);
float FloatAttribute(const onnx::NodeProto& node, std::string_view name, float otherwise);
std::optional<std::vector<std::int64_t>> IntsAttribute(const onnx::NodeProto& node, std::string_view name);
const onnx::AttributeProto* FindAttribute(const onnx::NodeProto& node, std::string_view name);

struct Attribute {
  std::string name;
  std::variant<std::int64_t, float, std::vector<std::int64_t>, std::string, std::vector<float>,
               std::vector<std::string>, std::shared_ptr<const onnx::GraphProto>>
      value;
};

// Appends to a graph; names what it appends uniquely within that graph. Thread-compatible.
//
//   onnx::ModelProto model;
//   GraphBuilder g(&model);                       // a new model of operator set kOpset
//   g.Input(spec);
//   std::string h = g.Node("Gemm", {"x", "w", "b"});
//   g.Output(g.Node("Relu", {h}), spec);
class GraphBuilder {
 public:
  // Starts a fresh model, or continues one that already has nodes.
  explicit GraphBuilder(onnx::ModelProto* model);

  void Input(const tensor::Spec& spec);
  // Declares an existing value `spec.name` as an output.
  void Output(const tensor::Spec& spec);
  // A constant inside the model. Returns its name (unique, starting with `hint`).
  std::string Constant(const std::string& hint, const tensor::Tensor& value);
  std::string Ints(const std::string& hint, std::vector<std::int64_t> values);  // 1-D INT64
  std::string Scalar(const std::string& hint, float value);                     // FP32[]
  // A parameter: an initializer with exactly this name. REQUIRES: the name is new.
  void Initializer(const std::string& name, const tensor::Tensor& value);

  // The names that `graph` gives to its values are not given to fresh ones: nodes of it will be copied here.
  void Avoid(const onnx::GraphProto& graph);

  // Gives a value another name, wherever it is made and read. REQUIRES: `to` is new, `from` is made by a node.
  void Rename(const std::string& from, const std::string& to);

  // Appends a node with one output and returns the output's name; `output` forces the name.
  std::string Node(const std::string& op, std::vector<std::string> inputs,
                   const std::vector<Attribute>& attributes = {}, const std::string& output = "");

  // The same for an operator with several outputs.
  std::vector<std::string> Nodes(const std::string& op, std::vector<std::string> inputs, std::size_t outputs,
                                 const std::vector<Attribute>& attributes = {});
  // A name that no value has.
  std::string Fresh(const std::string& hint);

 private:
  onnx::ModelProto* model_;
  onnx::GraphProto* graph_;
  int next_ = 0;
  std::vector<std::string> taken_;  // sorted
};

}  // namespace ganglion::graph
