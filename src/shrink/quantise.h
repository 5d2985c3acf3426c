// Quantisation: weights and activations in eight bits, a quarter of the bytes.
//
// Intuition: a number becomes an integer on a ruler, x ~ scale (q - zero_point). Products of integers are cheap, and a
// file of them is a quarter as large. What is lost is the rounding, half a step of the ruler, and what lies beyond its
// ends.
//
// Static (QuantiseStatic): the rulers of activations are fixed beforehand, from ranges seen on calibration rows.
// Written in QDQ form: standard QuantizeLinear and DequantizeLinear around the unchanged float operators. A runtime
// that knows integer kernels takes the pairs in; one that does not computes the same in float.
//   weights      INT8, symmetric, one scale a channel:  s_c = max|w_c| / 127, zero point 0
//   activations  UINT8 [zero kept exact]:               s = (high - low) / 255, z = round(-low / s)
//                or INT8 symmetric:                     s = max(-low, high) / 127, z = 0
//   biases       INT32:                                 scale s s_c, zero point 0
//   rounding to the nearest, ties to even, as ONNX says; beyond the ends it saturates.
// Where a tensor is only moved (MaxPool, Reshape, Flatten, Transpose, Squeeze, Unsqueeze, Identity), what comes out
// keeps the ruler of what went in, so that nothing is rounded twice.
// A convolution's output is put on a ruler after its Relu or Clip, if one follows; that of a Gemm only where a Relu or
// Clip follows or another quantised layer reads it, so logits stay float; that of a MatMul at once (MatMul and bias of
// a matrix become a Gemm before). Without these, ONNX Runtime 1.30 would not take the layer into integers, but unpack
// its weights in every run.
//
// Dynamic (QuantiseDynamic): weights as above, activations by DynamicQuantizeLinear, whose ruler is the minimum and
// maximum of the whole tensor in each run. No calibration, but a trap: **the rows of a batch then depend on each
// other**. A node finds this when it loads such a model and scores its rows one by one. Prefer static.
//
// Quantised: Conv, Gemm (transA 0) and MatMul with a constant second operand. BatchNormalization is folded first. Left
// in float, and said so in the report: layers whose weights are computed, the first and last layer if asked, biases of
// odd shapes. On processors without 8-bit dot products (AVX2 or AVX-512 without VNNI) the runtime's integer kernels add
// pairs in 16 bits, which can saturate; `seven_bit_weights` prevents that.
//
// Errors: no layer can be quantised (each is named, with the reason), a tensor without a range, weights that are not
// finite. Pure.
// Source: B. Jacob et al., 2018 (see fold.h); R. Krishnamoorthi, "Quantizing deep convolutional networks for efficient
// inference", 2018, sections 2 and 3; operators as in ONNX 13.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "shrink/ranges.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrink {

struct QuantiseOptions {
  // INT8 in place of UINT8, for ARM: on x86 the runtime has integer kernels for UINT8 alone.
  bool signed_activations = false;
  bool seven_bit_weights = false;  // weights in -63..63
  bool float_first = false;        // layers that read the model's inputs stay float
  bool float_last = false;         // layers whose output is an output of the model stay float
};

struct QuantiseReport {
  std::vector<std::string> quantised;   // "node 3 \"fc2\" (Gemm)", numbered as in the folded model
  std::vector<std::string> left_float;  // "node 5 (Gemm): its weights are computed"
};

// What calibration must watch: `observed` is a model whose outputs are these tensors, in this order, each flattened to
// [-1]. Names are those of the folded model; QuantiseStatic wants a range for each.
Result<std::vector<std::string>> PlanCalibration(const onnx::ModelProto& model, const QuantiseOptions& options,
                                                 onnx::ModelProto* observed);

Result<QuantiseReport> QuantiseStatic(const onnx::ModelProto& model, const std::map<std::string, Range>& ranges,
                                      const QuantiseOptions& options, onnx::ModelProto* out);

Result<QuantiseReport> QuantiseDynamic(const onnx::ModelProto& model, const QuantiseOptions& options,
                                       onnx::ModelProto* out);

// The ruler of an activation with that range.
struct Ruler {
  float scale = 1;
  int zero_point = 0;
};
// REQUIRES: both ends are finite.
Ruler ActivationRuler(Range range, bool is_signed);

}  // namespace ganglion::shrink
