// A Relu that only a MaxPool reads goes behind it: the same numbers, a quarter of the work, forward and backward.
//
// max(relu(a), relu(b)) = relu(max(a, b)), and where that is 0 no gradient flows either way. Values keep their names,
// but for the one between the two, which nobody else sees.
// Pure; thread-safe.
#pragma once

namespace onnx {
class GraphProto;
}

namespace ganglion::gradient {

void PoolsFirst(onnx::GraphProto* graph);

}  // namespace ganglion::gradient
