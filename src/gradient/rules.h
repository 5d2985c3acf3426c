// The table of differentiable operators, and what a rule may use.
//
// A rule is two short functions: the shape of the output, and the operators that give the gradients of the inputs.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "gradient/gradient.h"
#include "gradient/term.h"
#include "graph/graph.h"
#include "tensor/tensor.h"

namespace onnx {
class NodeProto;
}

namespace ganglion::gradient {

// In Shapes::ints, a number that is computed from the batch. Not -1, which may well be the number -1, nor the smallest
// number, which exporters write for "from the very first".
inline constexpr std::int64_t kOfBatch = std::numeric_limits<std::int64_t>::min() + 0xBA7C4;

// What is known of values by name before anything runs; a size of -1 is the batch. Integers (and truth values, as 0 and
// 1) are known of constants, and of what is computed from shapes; numbers of FP32 constants, for bounds and ratios.
struct Shapes {
  std::map<std::string, tensor::Shape> shape;
  std::map<std::string, std::vector<std::int64_t>> ints;
  std::map<std::string, std::vector<float>> floats;  // of at most kKnownNumbers numbers
  std::int64_t usual_batch = 32;                     // Options::usual_batch
  bool one_thread = false;                           // Options::one_thread
};
inline constexpr std::size_t kKnownNumbers = 4096;

// What a rule sees that changes its node for training (say, asks it for another output that the gradient needs), before
// the node is copied into the step model.
struct Forward {
  onnx::NodeProto* n;      // the node; what is left here is appended after this call, unless `replaced`
  graph::GraphBuilder& g;  // appends to the step model
  Shapes& shapes;          // shapes of the node's outputs are known already; add those of new values
  const Options& options;
  bool needs_gradient;    // whether any gradient will be asked of this node; may be taken back: none goes through
  bool replaced = false;  // set: the node is not copied, its outputs were made by what was appended
  // Values of the step model that are no parameters: statistics (an initializer's name, and the value that replaces it
  // after the step), and noise: inputs that the trainer fills with uniform numbers in [0, 1).
  std::vector<std::pair<std::string, std::string>> statistics;
  std::vector<tensor::Spec> noise;

  // A name for a new value of this node.
  std::string Name(const std::string& hint) const;
};

// What a gradient function sees of its node. `dy` is the gradient of the node's first output.
class Backward {
 public:
  Backward(const onnx::NodeProto& node, const Shapes& shapes, std::vector<std::string> upstream,
           graph::GraphBuilder* builder)
      : n(node), g(*builder), dys(std::move(upstream)), dy(dys[0]), shapes_(shapes) {}

  const onnx::NodeProto& n;
  graph::GraphBuilder& g;
  const std::vector<std::string> dys;  // by output; "" where nothing depends on it
  const std::string dy;

  std::string x(int i) const;      // name of input i
  std::string y(int i = 0) const;  // name of output i
  bool has(int i) const;           // whether optional input i is given
  // The same as terms of a formula.
  Term X(int i) const { return {g, x(i)}; }
  Term Y(int i = 0) const { return {g, y(i)}; }
  Term Dy(int i = 0) const { return {g, dys[static_cast<std::size_t>(i)]}; }
  const tensor::Shape& ShapeOf(const std::string& value) const { return shapes_.shape.at(value); }
  const tensor::Shape& ShapeOfInput(int i) const { return ShapeOf(x(i)); }
  const tensor::Shape& ShapeOfOutput(int i = 0) const { return ShapeOf(y(i)); }
  const Shapes& shapes() const { return shapes_; }

  bool wanted(int i) const {
    return static_cast<std::size_t>(i) < wanted_.size() && wanted_[static_cast<std::size_t>(i)];
  }
  void Want(std::vector<bool> wanted) { wanted_ = std::move(wanted); }  // an entry for each input

  // Names that a rule leaves for a later call for the same node (clipping makes one), by its first output.
  std::map<std::string, std::vector<std::string>>* notes = nullptr;

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

using Inferred = Result<std::vector<tensor::Shape>>;  // by output; trailing outputs that nobody reads may be left out

struct Rule {
  std::string_view op;
  int inputs = 1;  // that must be there; more are optional
  Inferred (*infer)(const onnx::NodeProto&, Shapes&);
  // Null: the operator has no gradient (Shape, ArgMax, Equal), it is constant as far as training goes.
  Status (*gradient)(Backward&);
  Status (*forward)(Forward&) = nullptr;
  bool many_outputs = false;  // the gradient function handles gradients of outputs beyond the first
};

// The inference of an operator with one output.
template <Result<tensor::Shape> (*F)(const onnx::NodeProto&, const Shapes&)>
Inferred One(const onnx::NodeProto& n, Shapes& s) {
  ASSIGN_OR_RETURN(tensor::Shape y, F(n, s));
  return std::vector<tensor::Shape>{std::move(y)};
}

// The table, a part in each file, and all of it.
std::vector<Rule> ArithmeticRules();
std::vector<Rule> ShapeRules();
std::vector<Rule> ReductionRules();
std::vector<Rule> PieceRules();
std::vector<Rule> MatrixRules();
std::vector<Rule> ConvolutionRules();
std::vector<Rule> PoolRules();
std::vector<Rule> NormalisationRules();
std::vector<Rule> RecurrentRules();
const std::vector<Rule>& Rules();
const Rule* FindRule(std::string_view op);

// ---- what rules share ----------------------------------------------------------------------------------------------

const tensor::Shape& In(const onnx::NodeProto& n, const Shapes& s, int i);
Result<tensor::Shape> SameAsInput(const onnx::NodeProto& n, const Shapes& s);
Result<tensor::Shape> BroadcastInputs(const onnx::NodeProto& n, const Shapes& s);
// Multidirectional broadcasting of two shapes.
Result<tensor::Shape> Broadcast(const tensor::Shape& a, const tensor::Shape& b);
// `axis` counted from the front.
Result<std::int64_t> Axis(std::int64_t axis, std::size_t rank);
// The integers that input i is known to be; a refusal when it is computed while running, or absent.
Result<std::vector<std::int64_t>> KnownInts(const onnx::NodeProto& n, const Shapes& s, int i);
// What Slice takes along an axis: start, start + step, ... (count of them; -1: the whole batch).
struct Cut {
  std::size_t axis;
  std::int64_t start, step, count;
};
Result<std::vector<Cut>> CutsOf(const onnx::NodeProto& n, const Shapes& s);
// The permutation of a Transpose.
std::vector<std::int64_t> Permutation(const onnx::NodeProto& n, std::size_t rank);
// The product of s[from, to); -1 when it is not known.
std::int64_t Product(const tensor::Shape& s, std::size_t from, std::size_t to);
graph::Attribute KeepDims(bool keep);
// The sum of all rows of v [rows, columns], [columns]; rows -1: not known. A product with ones: the runtime's ReduceSum
// over first axes takes up to ten times as long (ADR 3).
std::string SumOfRows(graph::GraphBuilder& g, const std::string& v, std::int64_t rows = -1);

}  // namespace ganglion::gradient
