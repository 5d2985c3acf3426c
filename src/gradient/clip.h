// Clipping bounds what one example can do to a step: the step gives sum_i w_i min(1, C / ||g_i||) g_i instead of
// sum_i w_i g_i, where g_i is the gradient of example i's loss by all parameters together. It is what differentially
// private training adds noise to.
//
// Intuition: the obvious way, a backward pass for each example, gives up what makes batches fast. But the gradients
// that flow between layers do not depend on how examples are scaled in the end. So one backward pass goes through the
// layers for all examples, and what it owes to the parameters is put off. Then the norms are made from what flowed,
// and, the factors known, each parameter's gradient as one product over scaled rows, the same product as without.
//
// Definition. At a linear layer that reads a_i [T, m] and whose output has the gradient d_i [T, n], T positions for
// each example, g_i = a_i' d_i. Three ways to its norm, by shape:
//   T = 1         ||g_i||^2 = |a_i|^2 |d_i|^2                       (a "ghost" norm: g_i is never made)
//   small T       ||g_i||^2 = sum over t, u of (a_i a_i')_tu (d_i d_i')_tu
//   else          g_i itself, a product for each example; the clipped gradient is then the weighted sum of these
// Embeddings are the second with 1 where two positions read the same row; biases, scales and other parameters that
// broadcasting repeats are summed for each example. A parameter that several nodes read is made for each example and
// added up before its norm is taken: norms of parts say nothing about the norm of a sum.
// Recurrent layers are linear layers at T positions once what goes through time is known, and that is linear, too.
// Elsewhere (a parameter that is changed before it meets the examples, or examples that mix on the way) the whole step
// of one example is the body of a Scan over the batch: exact for every model, and slower. Batch normalisation by the
// batch's statistics is refused: there is no gradient of one example.
//
// Pure; thread-compatible. Source: I. Goodfellow, "Efficient per-example gradient computations", 2015; X. Li et al.,
// "Large language models can be strong differentially private learners", 2022 (positions); M. Abadi et al., "Deep
// learning with differential privacy", 2016 (the clipped sum).
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gradient/clip_forms.h"
#include "gradient/examples.h"
#include "gradient/gradient.h"
#include "gradient/rules.h"
#include "graph/graph.h"

namespace ganglion::gradient {

// Puts off what a backward pass owes to parameters, and settles it. Refusals of Follow and Settle mean that one
// backward pass cannot tell the examples apart.
class Clipping {
 public:
  // `norm` > 0; `batch`: the number of examples, -1 where it is open.
  Clipping(graph::GraphBuilder& g, Shapes& shapes, float norm, std::int64_t batch)
      : g_(g), shapes_(shapes), norm_(norm), map_(batch) {}

  void Input(const tensor::Spec& spec) { map_.Input(spec.name, spec.shape); }
  // A node of the forward pass, in order. It must stay where it is.
  Status Follow(const onnx::NodeProto& n);
  // Whether a value differs from example to example.
  bool Differs(const std::string& value) const { return map_.Find(value) != nullptr; }
  // Whether examples lie along the first axis of a value, one position each.
  bool IsRows(const std::string& value) const;
  void Owe(Owed owed) { owed_.push_back(std::move(owed)); }
  std::map<std::string, std::vector<std::string>>& notes() { return notes_; }

  // Appends the norms, as a value "norms" FP32[batch], and what they are for: values and their clipped gradients.
  using Gradients = std::vector<std::pair<std::string, std::string>>;
  Result<Gradients> Settle();

 private:
  // From a value back to its parameter, through operators that only move numbers.
  struct Way {
    std::string parameter;
    std::vector<const onnx::NodeProto*> nodes;  // the one that makes the value first
  };
  Result<Way> WayOf(const std::string& value) const;
  Result<std::string> OnTheWay(const std::string& gradients, const Way& way);
  Result<PerExample> OfShared(ClipContext& c, const std::vector<std::pair<const Owed*, Way>>& owed);
  void AppendFactors(const std::vector<std::string>& squares);
  std::string Column(const Examples& at, std::size_t rank);
  std::string WeightedSum(const PerExample& of, const tensor::Shape& shape);
  Status Scaled(const onnx::NodeProto& n, const std::vector<const Owed*>& owed, Gradients* gradients);

  graph::GraphBuilder& g_;
  Shapes& shapes_;
  const float norm_;
  ExampleMap map_;
  std::map<std::string, const onnx::NodeProto*> makers_;  // of values that are the same for all examples
  std::vector<Owed> owed_;
  std::map<std::string, std::vector<std::string>> notes_;  // that rules left
  std::string factors_;                                    // FP32[batch]
  std::map<std::string, std::string> columns_;             // of the factors, by shape
  std::map<std::string, std::string> scaled_;              // gradients times a column
};

// The same step as a Scan over the examples, whose body is the step of one. `why` no other form would do.
Result<StepModel> ClipOneByOne(const onnx::ModelProto& model, const Options& options, const std::string& why,
                               onnx::ModelProto* step);

}  // namespace ganglion::gradient
