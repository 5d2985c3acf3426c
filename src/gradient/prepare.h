// Prepare makes a model of anyone's making one that can be trained: the same function, with less left open.
//
//   inputs of fixed value   become constants (a sample rate, say), and inputs get the sizes that they will have
//   older operator sets     are rewritten in set 13 (upgrade.h)
//   weights in Constant nodes become initializers under the same names, which is where parameters lie; constants of
//                           one number stay what they are
//   If                      whose condition is known then is replaced by the branch that it takes
// A model that needs nothing of this comes back as it is. Values that a model's shapes decide are found by the same
// shape inference that the rules use.
// Why apart from Differentiate: a trainer writes parameters back into a model, and that is the prepared one.
// Pure; thread-safe. Cost: a copy of the model.
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "tensor/tensor.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::gradient {

struct PrepareOptions {
  std::map<std::string, tensor::Tensor> fixed;  // inputs by name: they become constants
  std::map<std::string, tensor::Shape> shapes;  // of inputs; -1: the batch
};

Status Prepare(const PrepareOptions& options, onnx::ModelProto* model);

}  // namespace ganglion::gradient
