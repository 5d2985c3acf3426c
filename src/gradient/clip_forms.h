// The gradient of a parameter, example by example: a short function for each operator that can read one.
//
// Only what a backward pass left is used: the operator's inputs and the gradient of its output. What has no function
// here is clipped one example at a time (gradient/clip.h).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "gradient/examples.h"
#include "gradient/rules.h"
#include "graph/graph.h"

namespace ganglion::gradient {

// What is owed to input `input` of a node: a value that is the same for all examples, and that training changes.
struct Owed {
  const onnx::NodeProto* node;
  int input;
  std::vector<std::string> dys;  // gradients of the node's outputs
};

// Either the gradients, or their squared norms alone where those are cheaper.
struct PerExample {
  std::string squares;    // FP32[batch]
  std::string gradients;  // FP32[batch, ...]
  // What makes a weighted sum of `gradients` [1, numbers] the input's gradient; null: a Reshape does.
  std::function<std::string(const std::string&)> finish = nullptr;
  // Of squares alone: what makes the clipped sum from the factors FP32[batch]; null: the operator's rule on scaled dys.
  std::function<std::string(const std::string&)> scaled = nullptr;
};

// What the forms share.
struct ClipContext {
  graph::GraphBuilder& g;
  Shapes& shapes;
  const ExampleMap& map;
  std::map<std::string, std::vector<std::string>>& notes;  // that rules left (Backward::notes)
  std::map<std::string, std::string> squares = {};

  const tensor::Shape& ShapeOf(const std::string& value) const { return shapes.shape.at(value); }
  // A value whose last `tail` axes are numbers of one position: [batch, T, numbers], or [batch, numbers] where T is 1.
  // T is -1 where it is open. Refuses what would need sizes that are not known.
  Result<std::string> Positions(const std::string& value, std::size_t tail, std::int64_t* t);
  Result<std::string> Positions(const std::string& value, const tensor::Shape& shape, const Examples& at,
                                std::size_t tail, std::int64_t* t);
  // The sum of squares over all axes but the first; made once for each value.
  std::string Squares(const std::string& value, std::size_t rank);
};

// The gradients by example at one input. `whole`: not their norms alone.
Result<PerExample> ByExample(ClipContext& c, const Owed& owed, bool whole);

}  // namespace ganglion::gradient
