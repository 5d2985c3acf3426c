// The pieces of a convolution's gradient: patches of the input, rows of the output's gradient, and what they give.
//
// Intuition: a convolution is a matrix product over patches. With A the patches, [C K, rows] (a column for each output
// position of each example, a row for each channel and tap), and D the output's gradient as rows [rows, M], the
// kernel's gradient is A D. Everything here is a way to write A D without ever copying more than the caches hold.
//
// Letters: N examples, C input channels, M output channels, G groups, K taps, P input pixels, O output positions;
// rows = O N, with the examples innermost, so that a step to the next pixel copies N numbers at once and a table of
// pixels need not know N.
// Why not the convolution with its operands exchanged, which is the textbook form: the runtime takes 2 to 9 times as
// long for it (docs/adr/0003-the-gradient-is-a-model.md has the table).
// Pure; appends to the builder that is given.
#pragma once

#include <string>

#include "base/status.h"
#include "gradient/window.h"
#include "graph/graph.h"
#include "tensor/tensor.h"

namespace onnx {
class NodeProto;
}

namespace ganglion::gradient {

struct Convolution {
  Window window;
  std::int64_t groups = 1;
  std::int64_t in_channels = 0;   // C
  std::int64_t out_channels = 0;  // M
  std::int64_t batch = 32;        // N, or what it usually is: which form is fast depends on it, none is wrong

  std::int64_t in_group() const { return in_channels / groups; }    // C/G
  std::int64_t out_group() const { return out_channels / groups; }  // M/G
  bool depthwise() const { return in_group() == 1 && out_group() == 1 && groups > 1; }
  // Whether every position reads the pixel under it and no other.
  bool pointwise() const { return window.taps() == 1 && window.unit_stride() && !window.padded(); }
};

// A Conv over x [N, C, in...] with weights w [M, C/G, kernel...].
Result<Convolution> ReadConvolution(const onnx::NodeProto& n, const tensor::Shape& x, const tensor::Shape& w,
                                    std::int64_t usual_batch = 32);
// A ConvTranspose over x [N, C, ...] with weights w [C, M/G, kernel...], as the Conv whose input gradient it is: that
// Conv's input is this one's output.
Result<Convolution> ReadTransposedConvolution(const onnx::NodeProto& n, const tensor::Shape& x, const tensor::Shape& w,
                                              std::int64_t usual_batch = 32);

// Patches of x [N, C, in...], example by example: [N, G, C/G K, O], a row for each channel and, inside it, tap.
std::string InputPatches(graph::GraphBuilder& g, const Convolution& c, const std::string& x);
// The output's gradient [N, M, out...], example by example: [N, G, O, M/G].
// The kernel's gradient of one example, as [G, C/G K, M/G], is the product of its patches and these rows.
std::string OutputRows(graph::GraphBuilder& g, const Convolution& c, const std::string& dy);
// [G, C/G K, M/G] or, with leading examples, [N, G, C/G K, M/G], in the layout of the weights: [(N,) M, C/G,
// kernel...].
std::string AsWeights(graph::GraphBuilder& g, const Convolution& c, const std::string& product, bool by_example);

// Summed over the examples, in the shape of w.
std::string WeightGradient(graph::GraphBuilder& g, const Convolution& c, const std::string& x, const std::string& dy);
// In the shape of x.
std::string InputGradient(graph::GraphBuilder& g, const Convolution& c, const std::string& w, const std::string& dy);
// [M], of dy [N, M, ...] with so many axes after M.
std::string BiasGradient(graph::GraphBuilder& g, std::size_t spatial_axes, const std::string& dy);

}  // namespace ganglion::gradient
