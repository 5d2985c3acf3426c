// What is known of a node's outputs before anything runs: integers computed from shapes, and small constants.
//
// Intuition: exporters compute the shape of a Reshape by Shape, Gather, Mul and Concat. With the sizes of the model's
// inputs given, such a chain is a constant, but for the batch (kOfBatch).
// Pure; thread-safe. Cost: at most kKnownNumbers numbers a node.
#pragma once

#include "gradient/rules.h"

namespace ganglion::gradient {

// A constant: its shape, and its numbers where they are integers or few.
void Know(const std::string& name, const tensor::Tensor& value, Shapes* shapes);
// The same of a Constant node; a refusal if it holds no numbers.
Status LearnConstant(const onnx::NodeProto& n, Shapes* shapes);
// Adds to `shapes.ints` or `shapes.floats` what the outputs of `n` are, if its inputs are known. The shapes of its
// outputs are there already.
void Learn(const onnx::NodeProto& n, Shapes& shapes);

}  // namespace ganglion::gradient
