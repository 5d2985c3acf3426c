// The table of differentiable operators, and what a rule may use.
//
// A rule is two short functions: the shape of the output, and the operators that give the gradients of the inputs.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "tensor/tensor.h"

namespace onnx {
class NodeProto;
}

namespace ganglion::gradient {

// Shapes of values by name; -1 is the batch. Constants also keep their integers, for shapes and axes.
struct Shapes {
  std::map<std::string, tensor::Shape> shape;
  std::map<std::string, std::vector<std::int64_t>> ints;
};

// What a gradient function sees of its node. `dy` is the gradient of the node's (first) output.
class Backward {
 public:
  Backward(const onnx::NodeProto& node, const Shapes& shapes, std::string upstream, graph::GraphBuilder* builder)
      : n(node), g(*builder), dy(std::move(upstream)), shapes_(shapes) {}

  const onnx::NodeProto& n;
  graph::GraphBuilder& g;
  const std::string dy;

  std::string x(int i) const;  // name of input i
  std::string y() const;       // name of the output
  bool has(int i) const;       // whether optional input i is given
  const tensor::Shape& ShapeOf(const std::string& value) const { return shapes_.shape.at(value); }
  const tensor::Shape& ShapeOfInput(int i) const { return ShapeOf(x(i)); }
  const tensor::Shape& ShapeOfOutput() const { return ShapeOf(y()); }
  const Shapes& shapes() const { return shapes_; }

  bool wanted(int i) const { return wanted_.empty() || wanted_[static_cast<std::size_t>(i)]; }
  void Want(std::vector<bool> wanted) { wanted_ = std::move(wanted); }

  // Hands over the gradient of input i.
  void Give(int i, const std::string& gradient) { given_[i] = gradient; }
  // Hands over a gradient that has the shape of the output, summed over what broadcasting had repeated.
  void GiveReduced(int i, const std::string& gradient) { Give(i, SumTo(gradient, ShapeOfOutput(), ShapeOfInput(i))); }
  const std::map<int, std::string>& given() const { return given_; }

  // Sums `value` of shape `from` down to shape `to`, from which it was broadcast.
  std::string SumTo(const std::string& value, const tensor::Shape& from, const tensor::Shape& to);
  // Reshapes `value` to the shape of input i.
  std::string ReshapeLikeInput(const std::string& value, int i);
  // The last two axes swapped.
  std::string SwapLast(const std::string& value, std::size_t rank);

 private:
  const Shapes& shapes_;
  std::vector<bool> wanted_;
  std::map<int, std::string> given_;
};

struct Rule {
  std::string_view op;
  int inputs = 1;  // that must be there; more are optional
  Result<tensor::Shape> (*infer)(const onnx::NodeProto&, const Shapes&);
  Status (*gradient)(Backward&);
};

const std::vector<Rule>& Rules();
const Rule* FindRule(std::string_view op);

// Multidirectional broadcasting of two shapes.
Result<tensor::Shape> Broadcast(const tensor::Shape& a, const tensor::Shape& b);

}  // namespace ganglion::gradient
