// Folding a BatchNormalization into the layer before it: the same function with one operator and four tensors less.
//
// Intuition: after training, BatchNormalization multiplies each channel by a number and adds another. A convolution or
// a linear layer can do that itself if its weights and bias take the numbers in.
//   y = (conv(x; W) + b - mean) g + beta,  g = scale / sqrt(variance + epsilon)
//     = conv(x; W g) + (b - mean) g + beta                                        (g over W's output channels)
// Needed before quantisation: 8 bits for a layer's output and 8 more for its normalised copy would lose twice.
//
// Folded: BatchNormalization in inference form (training_mode 0) with constant parameters, whose input is made by a
// Conv, or by a Gemm with alpha and beta 1, and read by nothing else. Others stay as they are; that is no error.
// Errors: parameters that are not finite or of another size than the channels, naming the node.
// Pure. Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
// Inference", 2018, section 3.2.
#pragma once

#include "base/status.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrink {

// `folded` receives how many there were.
Status FoldBatchNorm(const onnx::ModelProto& model, onnx::ModelProto* out, int* folded = nullptr);

// MatMul and the Add of a bias after it become one Gemm, wherever the MatMul's input is known to be a matrix: the same
// function, in the form that eight-bit kernels know with its bias. `model` is prepared (edit.h). Returns how many.
int FuseBiases(onnx::ModelProto* model);

}  // namespace ganglion::shrink
