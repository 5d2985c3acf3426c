// An untrained perceptron as an ONNX model: Gemm layers with Relu between them, giving logits.
//
// Input "x" FP32[-1, sizes.front()], output "logits" FP32[-1, sizes.back()], parameters "w0" [in, out], "b0" [out], ...
// Weights are normal with variance 2 / fan-in, 1 / fan-in in the last layer, which no Relu follows (K. He et al.,
// "Delving Deep into Rectifiers", 2015); biases are zero.
// With an InputScale the network begins with (x - mean) / deviation, so that callers feed raw numbers.
// The same arguments give the same bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ganglion::training {

struct InputScale {
  float mean = 0;
  float deviation = 1;
};

// REQUIRES: at least two sizes, all > 0; deviation > 0. Returns the serialised model.
std::string MakePerceptron(const std::vector<std::int64_t>& sizes, std::uint64_t seed, const InputScale& scale = {});

// Mean and standard deviation over all numbers of `x`; deviation 1 where they do not vary.
InputScale ScaleOf(std::span<const float> x);

}  // namespace ganglion::training
