// The layers of a graph that eight bits can carry, and the tensors that a static quantisation puts on a ruler.
// For the sources of this module. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/onnx.pb.h"
#include "shrink/quantise.h"
#include "tensor/tensor.h"

namespace ganglion::shrink {

struct Layer {
  int node = 0;
  int channel_axis = 0;  // of the weights
  std::string name;      // "node 3 \"fc2\" (Gemm)"
  std::string point;     // the tensor after it that gets a ruler; empty: none of its own
};

struct Plan {
  onnx::ModelProto model;  // folded
  std::vector<Layer> layers;
  std::vector<std::string> left_float;
  std::vector<std::string> tensors;             // that get a ruler, in the order in which they are made
  std::map<std::string, std::string> range_of;  // where a tensor keeps the ruler of another
};

// Refuses a model without a layer that could be quantised.
Result<Plan> MakePlan(const onnx::ModelProto& model, const QuantiseOptions& options);

// A layer's parameters in eight bits.
struct EightBits {
  tensor::Shape shape;
  std::vector<float> scale;          // a channel
  std::vector<std::int8_t> weights;  // in the order of the float weights
  std::vector<double> bias;          // a channel, with beta taken in; empty: none
};
// `input_scale` > 0: scales are made large enough for the bias to fit 32 bits at input_scale * scale; 0: no matter.
// A Gemm's alpha goes into the scales.
Result<EightBits> ToEightBits(const onnx::GraphProto& graph, const Layer& layer, float input_scale, bool seven_bit);

}  // namespace ganglion::shrink
