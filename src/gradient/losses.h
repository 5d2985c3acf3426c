// The losses, as operators that are appended to a step model: the value, and the gradient by the model's output.
#pragma once

#include <string>

#include "base/status.h"
#include "gradient/gradient.h"
#include "graph/graph.h"

namespace onnx {
class GraphProto;
}

namespace ganglion::gradient {

// The value the loss is taken on: the model's first output, or what its final Softmax, LogSoftmax or Sigmoid reads
// where the loss contains that function.
std::string Head(const onnx::GraphProto& g, Loss loss);

struct LossNodes {
  std::string loss;    // FP32[]
  std::string d_head;  // in the shape of the head
};

// What `options` ask of the loss that no model could give.
Status CheckLoss(const Options& options);
// The target of a head of shape [-1, ..., K].
tensor::Spec TargetSpec(Loss loss, const tensor::Shape& head);
// The loss on `head` and its gradient; reads the inputs "target", "row_weight" and, for a share of hard labels,
// "label".
Result<LossNodes> AppendLoss(graph::GraphBuilder& g, const Options& options, const std::string& head,
                             const tensor::Shape& shape);

}  // namespace ganglion::gradient
