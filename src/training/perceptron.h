// An untrained perceptron as an ONNX model: Gemm layers with Relu between them, giving logits.
//
// Input "x" FP32[-1, sizes.front()], output "logits" FP32[-1, sizes.back()], parameters "w0" [in, out], "b0" [out], ...
// Weights are normal with variance 2 / fan-in, 1 / fan-in in the last layer, which no Relu follows (K. He et al.,
// "Delving Deep into Rectifiers", 2015); biases are zero.
// The same seed gives the same bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ganglion::training {

// REQUIRES: at least two sizes, all > 0. Returns the serialised model.
std::string MakePerceptron(const std::vector<std::int64_t>& sizes, std::uint64_t seed);

}  // namespace ganglion::training
