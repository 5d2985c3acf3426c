// An untrained convolutional net as an ONNX model: blocks of convolutions with a pool after each, then dense layers.
//
// Input "x" FP32[-1, channels * height * width], images row by row as the perceptron takes them, so that both can be
// stages of one decision; output "logits" FP32[-1, classes]. Inside: Reshape to [-1, C, H, W]; for every block its
// convolutions (odd square kernels, padded to keep the size), each with BatchNormalization if asked for and Relu, then
// MaxPool 2x2; Flatten; Gemm and Relu for every dense layer; Dropout if asked for; the last Gemm.
// Parameters "conv0.w" [out, in, k, k], "conv0.b" [out], ... (with normalisation "norm0.scale", "norm0.bias" in place
// of the convolution's bias, and the statistics "norm0.mean", "norm0.variance"); "dense0.w" [in, out], "dense0.b", ...
// Weights are normal with variance 2 / fan-in, 1 / fan-in in the last layer (as in perceptron.h); biases are zero.
// The same arguments give the same bytes.
// FedAvg's net (H. B. McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
// 2017) is {.blocks = {{32}, {64}}, .kernel = 5, .dense = {512}}: 1,663,370 parameters on 28x28.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "training/perceptron.h"

namespace ganglion::training {

struct ConvNetSpec {
  std::int64_t channels = 1;
  std::int64_t height = 28;
  std::int64_t width = 28;
  std::vector<std::vector<std::int64_t>> blocks{{32}, {64}};  // output channels of the convolutions of each block
  std::int64_t kernel = 3;
  std::vector<std::int64_t> dense{128};
  std::int64_t classes = 10;
  bool normalise = false;
  float dropout = 0;  // the share that is dropped before the last layer
  InputScale scale;
};

// Refuses sizes below 1, even kernels, a dropout outside [0, 1), and more pools than the image has room for.
// Returns the serialised model.
Result<std::string> MakeConvNet(const ConvNetSpec& spec, std::uint64_t seed);

}  // namespace ganglion::training
