// Magnitude pruning of single weights: the smallest are set to zero and kept there while the others train on.
//
// Intuition: small weights change little. Removed a few at a time, with training in between, most of a large net's
// weights can go before its accuracy does.
// What it is good for: a file with zeros compresses (half of the weights zero: about half of the bytes with any
// compressor), and zeros are cheap to send. What it is not: the model computes as many products as before, its file is
// as large as before, and no kernel of the runtime skips a zero. To be smaller and faster, remove whole channels
// (channels.h).
//
// Definition. Over the weights of Conv, Gemm and MatMul (not biases), the `sparsity` share of smallest |w_ij| d_j is
// masked: of all of them together (global) or of each layer. d_j is how much input j varies (its standard deviation on
// some rows), 1 where nobody measured it. Ties go to the earlier index, so the count is exact.
// Why not |w| alone: the weight of an input that hardly varies (a pixel in the corner) keeps the size it was drawn
// with, and does nothing. Without d_j the useful small weights go in its place; on Fashion-MNIST, 80 % sparse, |w|
// alone lost 5 points of accuracy, this half a point.
// What a removed weight gave on average, w_ij mean_j, is added to the bias (ShiftBiases), so that an input which is
// constant can be removed without a trace.
//
// Ranges: 0 <= sparsity < 1. Errors: a layer that would lose all of its weights, by name; weights that are not finite.
// Pure.
// Source: S. Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015; M. Sun et al.,
// "A Simple and Effective Pruning Approach for Large Language Models", 2023 (the input's norm; here its deviation,
// because the mean goes to the bias).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "gradient/gradient.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrink {

struct Mask {
  std::string parameter;
  std::vector<std::uint8_t> keep;  // one a weight, in the parameter's order
};

enum class Scope { kGlobal, kPerLayer };

// What enters a layer: of each input (a column of a linear layer, a channel of a convolution) its mean and deviation.
struct LayerInputs {
  std::string parameter;  // the layer's weights
  std::vector<float> mean;
  std::vector<float> deviation;
};
// The layers whose inputs can be measured: names of their weights. `observed` is a model whose output i, FP32
// [rows, inputs, places], is what enters layer i.
Result<std::vector<std::string>> PlanInputs(const onnx::ModelProto& model, onnx::ModelProto* observed);

// Layers that `inputs` do not have count with deviation 1.
Result<std::vector<Mask>> MagnitudeMasks(const onnx::ModelProto& model, double sparsity, Scope scope,
                                         const std::vector<LayerInputs>& inputs = {});
// Adds to each bias what the removed weights give on average: before ApplyMasks. Layers without a constant bias of
// their own stay as they are.
Status ShiftBiases(const std::vector<Mask>& masks, const std::vector<LayerInputs>& inputs, onnx::ModelProto* model);
// The masked weights become 0. Refuses masks of other sizes than the parameters.
Status ApplyMasks(const std::vector<Mask>& masks, onnx::ModelProto* model);
// The share of weights that `masks` remove.
double Sparsity(const std::vector<Mask>& masks);

// Masks over the flat vector of parameters that a trainer moves: call it after each step. A value.
class MaskProjection {
 public:
  // Refuses masks of parameters that `segments` do not have, or of other sizes.
  static Result<MaskProjection> Create(const std::vector<Mask>& masks, const std::vector<gradient::Segment>& segments);
  // REQUIRES: the size that the segments add up to.
  void Apply(std::span<float> parameters) const;

 private:
  std::vector<std::size_t> zeros_;
  std::size_t size_ = 0;
};

}  // namespace ganglion::shrink
