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
//   outputs  "loss" FP32[], and "grad." + p for every p, in the shape of p
// Parameters are inputs, so one session serves any number of clients and threads. The update itself is not part of the
// graph: a fused loop (module optimizer) takes a tenth of what optimiser operators cost.
//
// Which parameters train: FP32 initializers of rank >= 1, except those named in `frozen`. Scalars and integers are
// constants of the architecture.
// Where a model ends in Softmax or LogSoftmax and the loss is a softmax cross-entropy, the loss is taken on what goes
// into it: the same function, without the loss of digits.
//
// Operator sets 13 to 17. One operator without a rule is a refusal that names every such node. Subgradients: Relu is 0
// at 0. A size of -1 is taken to be the batch: two of them are equal, and neither is 1 for broadcasting.
//
// Rules are the rows of the table in rules.cc, one short function each. Which forms are fast, and by how much, is in
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
  kSoftmaxCrossEntropy,       // target INT64[-1]: classes;             l = -log softmax(y)[t]
  kSoftmaxCrossEntropyDense,  // target FP32[-1,K]: probabilities;      l = -sum_k t_k log softmax(y)_k
  kSquaredError,              // target FP32[-1,K]: values;             l = mean_k (y_k - t_k)^2
};
std::string_view Name(Loss loss);
std::optional<Loss> LossFromName(std::string_view name);  // "softmax_cross_entropy", ..._dense, "squared_error"

struct Options {
  Loss loss = Loss::kSoftmaxCrossEntropy;
  std::vector<std::string> frozen;  // parameters that keep their value
};

// A trainable parameter's place in the flat vector that optimisers and federated rounds work on.
struct Segment {
  std::string name;
  tensor::Shape shape;
  std::int64_t offset = 0;
  std::int64_t size = 0;
};

// Writes the step model and returns its parameters in the order of the model's initializers.
Result<std::vector<Segment>> Differentiate(const onnx::ModelProto& model, const Options& options,
                                           onnx::ModelProto* step);

// "Add Div Flatten Gemm ...": what has a rule.
std::vector<std::string> SupportedOperators();

}  // namespace ganglion::gradient
