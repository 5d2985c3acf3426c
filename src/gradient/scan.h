// A ScanBody builds a Scan: a short graph that runs once for each position along the first axis of some sequences.
//
// Intuition: a loop over time as one operator. Unrolled steps would be T copies of the same nodes; a session of such a
// graph takes ten times as long to make (ADR 3), and T must be known.
//
// Values inside get names that the graph around has not, because a body may read those (parameters, constants), and
// must not hide them. Use: State and Sequence, then Node, then Carry for every State in order, then Emit, then Append.
//   ScanBody s(g);
//   const std::string sum = s.State(zeros, {-1, 8});
//   const std::string x = s.Sequence(xs, {-1, 8});         // xs [T, batch, 8]
//   s.Carry(s.Node("Add", {sum, x}));
//   const std::string total = s.Append(false)[0];
// Thread-compatible.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "tensor/tensor.h"

namespace ganglion::gradient {

class ScanBody {
 public:
  explicit ScanBody(graph::GraphBuilder& around) : around_(around), inside_(&body_) {}
  ScanBody(const ScanBody&) = delete;
  ScanBody& operator=(const ScanBody&) = delete;

  // What is carried from step to step, `initial` before the first. Gives its name inside.
  std::string State(const std::string& initial, tensor::Shape shape);
  // A position of `sequence`, whose first axis is run along; `shape` is what is left of it.
  std::string Sequence(const std::string& sequence, tensor::Shape shape,
                       tensor::DataType type = tensor::DataType::kFp32);
  std::string Node(const std::string& op, std::vector<std::string> inputs,
                   const std::vector<graph::Attribute>& attributes = {});
  // The next value of the state that is declared in the same place.
  void Carry(const std::string& value);
  // A value of every step, made by a node; outside they lie along a new first axis.
  void Emit(const std::string& value, tensor::Shape shape);

  // Appends the Scan: the last states, then what was emitted. Backwards: from the last position to the first; sequences
  // keep their order.
  std::vector<std::string> Append(bool backwards);

  // The graph inside, for nodes that are copied there from elsewhere.
  onnx::GraphProto* graph() { return body_.mutable_graph(); }

 private:
  graph::GraphBuilder& around_;
  onnx::ModelProto body_;
  graph::GraphBuilder inside_;
  std::vector<std::string> initial_, sequences_;
  std::vector<tensor::Spec> states_, slices_, next_, emitted_;
};

}  // namespace ganglion::gradient
