// gradient turns an ONNX model into the ONNX model of its training step: the gradient is a model.
//
// Intuition: reverse-mode differentiation walks the graph backwards and, for every operator, appends the operators
// that compute its vector-Jacobian product. The result holds standard operators only, so whatever runs ONNX can train:
// there is no training framework, on a server or on a phone.
//
// Definition. For a model y = f(x; theta) and a loss l, the step model computes
//     loss   = sum_i w_i l(f(x_i; theta), t_i)
//     grad_p = d loss / d p            for every trainable parameter p
//   inputs   the model's inputs, "target", "row_weight" FP32[-1] (w; 1/batch for the mean, 0 to leave a row out), and
//   every
//            trainable parameter under its own name
//   outputs  "loss" FP32[], and "grad." + p for every p, in the shape of p; "norms" where examples are clipped
// Parameters are inputs, so one session serves any number of clients and threads. The update itself is not part of the
// graph: a fused loop (module optimizer) takes a tenth of what optimiser operators cost.
//
// Which parameters train: FP32 initializers of rank >= 1, except those named in `frozen`. Scalars and integers are
// constants of the architecture.
// Where a model ends in Softmax or LogSoftmax and the loss is a softmax cross-entropy, the loss is taken on what goes
// into it: the same function, without the loss of digits.
//
// Heads of more than two dimensions, [-1, T, K], are a loss at each position; a row's loss is the mean over them.
//
// Operator sets 7 to 17; models below 13 are rewritten first (upgrade.h). Above 17 a model is refused: reductions,
// Split, Pad and Resize changed there, and every exporter can still write 17. One operator without a rule is a refusal
// that names every such node. Subgradients: Relu is 0 at 0. A size of -1 is taken to be the batch: two of them are
// equal, and neither is 1 for broadcasting.
//
// Rules are the rows of the tables in rules_*.cc, one short function each. Which forms are fast, and by how much, is in
// docs/adr/0003-the-gradient-is-a-model.md.
// Pure; thread-safe. Cost: milliseconds for a hundred nodes.
// Source: A. Griewank and A. Walther, "Evaluating Derivatives", 2nd ed., 2008, ch. 3.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::gradient {

enum class Loss {
  kSoftmaxCrossEntropy,       // target INT64[-1, ...]: classes;            l = -log softmax(y)[t]
  kSoftmaxCrossEntropyDense,  // target FP32[-1, ..., K]: probabilities;    l = -sum_k t_k log softmax(y)_k
  kSquaredError,              // target FP32[-1, ..., K]: values;           l = mean_k (y_k - t_k)^2
  kSigmoidCrossEntropy,  // target FP32[-1, ..., K] in [0, 1];         l = -mean_k t_k log s_k + (1 - t_k) log(1 - s_k)
  kHuber,                // target FP32[-1, ..., K]: values;           l = mean_k h(y_k - t_k); h(e) = e^2 / 2 where
                         //                                            |e| <= delta, delta (|e| - delta / 2) beyond
  kDistillation,         // target FP32[-1, ..., K]: a teacher's logits z, and "label" INT64[-1, ...] if hard_share > 0;
                         //   l = (1 - h) T^2 KL(softmax(z/T) || softmax(y/T)) + h (-log softmax(y)[label])
};
std::string_view Name(Loss loss);
std::optional<Loss> LossFromName(std::string_view name);  // "softmax_cross_entropy", ..._dense, "squared_error", ...
std::vector<std::string> LossNames();

struct Options {
  std::string output;  // of the model, that the loss is taken on; empty: its first
  Loss loss = Loss::kSoftmaxCrossEntropy;
  float huber_delta = 1;  // > 0
  float temperature = 1;  // of distillation, > 0
  float hard_share = 0;   // of distillation, in [0, 1]
  // mu of the proximal term mu/2 ||theta - anchor||^2, which adds an input "anchor." + p for every parameter; 0: none.
  float proximal = 0;
  std::vector<std::string> frozen;  // parameters that keep their value
  // Rows that a batch usually has, where the model leaves it open: some forms are faster for few rows, others for many,
  // and all are right for any.
  std::int64_t usual_batch = 32;
  // The step will only run on one intra-op thread. Then the gradient of an embedding is a ScatterND, which takes a
  // fifth of the time and whose threads would add to the same row unguarded.
  bool one_thread = false;
  // BatchNormalization uses the statistics that the model has, and keeps them, instead of the batch's.
  bool freeze_statistics = false;
  // C > 0: every example's gradient is cut to this norm before it is weighted and summed, and there is another output,
  // "norms" FP32[-1], of the gradients before that (gradient/clip.h). The loss stays as it is.
  std::optional<float> clip_norm;
};

// A trainable parameter's place in the flat vector that optimisers and federated rounds work on.
struct Segment {
  std::string name;
  tensor::Shape shape;
  std::int64_t offset = 0;
  std::int64_t size = 0;
};

// What a step model takes and gives beside its inputs, target and weights.
struct StepModel {
  std::vector<Segment> parameters;  // inputs p, outputs "grad." + p; in the order of the model's initializers
  // Running means and variances: inputs s, outputs "next." + s, which replace them after each step.
  std::vector<Segment> statistics;
  // Inputs to be filled with fresh uniform numbers in [0, 1) before each step (dropout).
  std::vector<tensor::Spec> noise;
  tensor::Spec target;
  // With clip_norm: why the step goes through the examples one at a time; "" where one pass does all.
  std::string one_by_one;
};

// Writes the step model to `step`.
Result<StepModel> Differentiate(const onnx::ModelProto& model, const Options& options, onnx::ModelProto* step);

// "Add Div Flatten Gemm ...": what has a rule.
std::vector<std::string> SupportedOperators();

}  // namespace ganglion::gradient
