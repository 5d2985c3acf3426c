// Models of operator sets 7 to 12 are rewritten in operator set 13, so that rules know one form of each operator.
//
// Since 13, axes, bounds, pads and splits are inputs where they were attributes, Upsample is Resize, and Softmax runs
// along one axis where it ran over all that follow. Names of parameters, inputs and outputs stay. Operators that
// changed in ways no rule sees are left alone. Not the ONNX project's version converter: it is a library of its own
// with an open parser (see graph/graph.h). Pure; thread-safe. Source: the ONNX operator changelog, sets 7 to 13.
#pragma once

#include "base/status.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::gradient {

inline constexpr int kOldestOpset = 7;
inline constexpr int kPlainOpset = 13;  // what rules are written for, up to graph::kOpset

// Rewrites `model` in place; nothing to do from 13 on. REQUIRES: graph::Validate accepted it.
Status Upgrade(onnx::ModelProto* model);

}  // namespace ganglion::gradient
