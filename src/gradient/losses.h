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

// The value the loss is taken on: an output of the model (empty: the first), or what its final Softmax, LogSoftmax or
// Sigmoid reads where the loss contains that function. REQUIRES: the model has that output.
std::string Head(const onnx::GraphProto& g, Loss loss, const std::string& output = "");

struct LossNodes {
  std::string loss;    // FP32[]
  std::string d_head;  // in the shape of the head
};

// What `options` ask of the loss that no model could give.
Status CheckLoss(const Options& options);
// The target of a head of shape [-1, ..., K].
tensor::Spec TargetSpec(Loss loss, const tensor::Shape& head);
// The loss on `head` and its gradient; the latter with weights of one where examples are clipped, since factors come
// later. Reads the inputs "target", "row_weight" and, for a share of hard labels,
// "label".
Result<LossNodes> AppendLoss(graph::GraphBuilder& g, const Options& options, const std::string& head,
                             const tensor::Shape& shape);
// Adds mu/2 ||p - anchor||^2 to `loss` and its gradient to `gradient` ("" where there is none); declares the input
// "anchor." + p.
void AppendProximal(graph::GraphBuilder& g, float mu, const Segment& p, std::string* gradient, std::string* loss);

}  // namespace ganglion::gradient
