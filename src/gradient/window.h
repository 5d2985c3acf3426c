// A Window is how convolution and pooling walk over an image: which pixels each output position reads.
//
// Intuition: output position o reads, for every tap k of the kernel, pixel o * stride + k * dilation - begin of the
// input, along each spatial axis by itself; what lies outside the image is padding. All of a gradient rule's shapes
// and index tables follow from these six numbers an axis.
// Spatial sizes must be known: they decide the operators that a gradient is written in. The batch need not be.
// Sizes: 1 to 3 spatial axes; every number at most kMaxExtent, so that products of a few stay in 64 bits.
// Values; pure.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace onnx {
class NodeProto;
}

namespace ganglion::gradient {

inline constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;

struct Window {
  // By spatial axis; all of the same size.
  std::vector<std::int64_t> in;        // input pixels, > 0
  std::vector<std::int64_t> out;       // output positions, > 0
  std::vector<std::int64_t> kernel;    // taps, > 0
  std::vector<std::int64_t> stride;    // > 0
  std::vector<std::int64_t> dilation;  // > 0
  std::vector<std::int64_t> begin;     // padding before the first pixel, >= 0
  std::vector<std::int64_t> end;       // padding after the last, >= 0

  std::size_t rank() const { return in.size(); }
  std::int64_t pixels() const;     // of the input
  std::int64_t positions() const;  // of the output
  std::int64_t taps() const;       // of the kernel
  // From the first tap of a kernel to its last, along an axis.
  std::int64_t reach(std::size_t axis) const { return (kernel[axis] - 1) * dilation[axis]; }
  // Pixels, counted with the padding, that no position reads after the last one does; negative where the last position
  // reaches beyond the padding (pools that round up).
  std::int64_t unread(std::size_t axis) const {
    return in[axis] + begin[axis] + end[axis] - 1 - reach(axis) - (out[axis] - 1) * stride[axis];
  }
  // How many taps of the kernel lie on the image, not on padding, at a position along an axis.
  std::int64_t within(std::size_t axis, std::int64_t position) const;
  bool padded() const;
  bool unit_stride() const;
  // Whether a pixel may be read by two positions.
  bool overlaps() const;
  // For each tap, then each position, the pixel that is read; pixels() where it is padding. [taps * positions]
  std::vector<std::int64_t> Table() const;
};

// The window of a Conv or a pool over x [N, C, spatial...]: strides, dilations, pads and auto_pad. `rounds_up`: the
// ceil_mode of pools.
Result<Window> ReadWindow(const onnx::NodeProto& n, const tensor::Shape& x, const std::vector<std::int64_t>& kernel,
                          bool rounds_up = false);
// The window of the Conv whose input gradient a ConvTranspose over x [N, C, spatial...] is: `in` are its outputs, `out`
// the sizes of x.
Result<Window> ReadTransposedWindow(const onnx::NodeProto& n, const tensor::Shape& x,
                                    const std::vector<std::int64_t>& kernel);

}  // namespace ganglion::gradient
