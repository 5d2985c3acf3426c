// Editing a graph: who makes and who reads each value, which values are constants, and names that are still free.
//
// Every transformation of this module works on a prepared copy of its model: Constant nodes with a tensor have become
// initializers, so that a weight is always found in one place, and declared shapes of inner values are gone, because
// edits make them wrong.
// For the sources of this module. Pure; the pointers of Links are into the graph it was made of, which must not change
// while they are used.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace onnx {
class GraphProto;
class ModelProto;
class NodeProto;
class TensorProto;
}  // namespace onnx

namespace ganglion::shrink {

// Checks `model` (graph::Validate, operator sets 13 to 17) and copies it, prepared as above.
Status Prepare(const onnx::ModelProto& model, onnx::ModelProto* prepared);

class Links {
 public:
  explicit Links(const onnx::GraphProto& graph);

  // The initializer of that name, or null.
  const onnx::TensorProto* Constant(const std::string& name) const;
  // Index of the node that makes the value; -1 for inputs and initializers.
  int Maker(const std::string& name) const;
  // Indices of the nodes that read the value, each once, ascending; those whose subgraphs read it among them.
  const std::vector<int>& Readers(const std::string& name) const;
  bool IsOutput(const std::string& name) const { return outputs_.contains(name); }
  bool IsInput(const std::string& name) const { return inputs_.contains(name); }

 private:
  std::unordered_map<std::string, const onnx::TensorProto*> constants_;
  std::unordered_map<std::string, int> maker_;
  std::unordered_map<std::string, std::vector<int>> readers_;
  std::unordered_set<std::string> inputs_;
  std::unordered_set<std::string> outputs_;
};

// Names that no value of a graph has yet.
class Names {
 public:
  explicit Names(const onnx::GraphProto& graph);
  // `wanted` if it is free, else `wanted` with a number. The name is taken from then on.
  std::string Fresh(const std::string& wanted);

 private:
  std::unordered_set<std::string> taken_;
};

// Every name that the subgraphs of `node` read, their own values among them.
void AddSubgraphReads(const onnx::NodeProto& node, std::unordered_set<std::string>* names);

// Removes initializers that nothing reads and that are no output.
void DropUnused(onnx::GraphProto* graph);

// An FP32 initializer's numbers. Refuses other datatypes and numbers that are not finite, naming `where`.
Result<tensor::Tensor> Weights(const onnx::TensorProto& proto, const std::string& where);

// Writes an initializer of any datatype from its bytes.
void SetBytes(onnx::TensorProto* proto, const std::string& name, int onnx_type, const tensor::Shape& shape,
              const void* bytes, std::size_t size);
void SetFloats(onnx::TensorProto* proto, const std::string& name, const tensor::Shape& shape,
               const std::vector<float>& values);

}  // namespace ganglion::shrink
