// Convolution and its transpose.
#include "gradient/convolution.h"
#include "gradient/rules.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Node = onnx::NodeProto;
using tensor::Shape;

Status CheckBias(const Node& n, const Shapes& s, std::int64_t channels) {
  if (n.input_size() < 3 || n.input(2).empty() || In(n, s, 2) == Shape{channels}) return {};
  return InvalidArgument("the bias is " + tensor::ShapeText(In(n, s, 2)) + ", there are " + std::to_string(channels) +
                         " output channels");
}

Result<Shape> InferConv(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const Convolution c, ReadConvolution(n, In(n, s, 0), In(n, s, 1)));
  RETURN_IF_ERROR(CheckBias(n, s, c.out_channels));
  Shape y{In(n, s, 0)[0], c.out_channels};
  y.insert(y.end(), c.window.out.begin(), c.window.out.end());
  return y;
}

Status GradConv(Backward& b) {
  ASSIGN_OR_RETURN(const Convolution c,
                   ReadConvolution(b.n, b.ShapeOfInput(0), b.ShapeOfInput(1), b.shapes().usual_batch));
  if (b.wanted(0)) b.Give(0, InputGradient(b.g, c, b.x(1), b.dy));
  if (b.wanted(1)) b.Give(1, WeightGradient(b.g, c, b.x(0), b.dy));
  if (b.has(2) && b.wanted(2)) b.Give(2, BiasGradient(b.g, c.window.rank(), b.dy));
  return {};
}

Result<Shape> InferConvTranspose(const Node& n, const Shapes& s) {
  ASSIGN_OR_RETURN(const Convolution c, ReadTransposedConvolution(n, In(n, s, 0), In(n, s, 1)));
  RETURN_IF_ERROR(CheckBias(n, s, c.in_channels));
  Shape y{In(n, s, 0)[0], c.in_channels};
  y.insert(y.end(), c.window.in.begin(), c.window.in.end());
  return y;
}

// y is what the input gradient of a Conv would be with x as the upstream gradient, so dx is that Conv of dy, and dw is
// that Conv's weight gradient with the two exchanged.
Status GradConvTranspose(Backward& b) {
  ASSIGN_OR_RETURN(const Convolution c,
                   ReadTransposedConvolution(b.n, b.ShapeOfInput(0), b.ShapeOfInput(1), b.shapes().usual_batch));
  if (b.wanted(0)) {
    std::vector<std::int64_t> pads = c.window.begin;
    pads.insert(pads.end(), c.window.end.begin(), c.window.end.end());
    b.Give(0,
           b.g.Node(
               "Conv", {b.dy, b.x(1)},
               {{"group", c.groups}, {"pads", pads}, {"strides", c.window.stride}, {"dilations", c.window.dilation}}));
  }
  if (b.wanted(1)) b.Give(1, WeightGradient(b.g, c, b.dy, b.x(0)));
  if (b.has(2) && b.wanted(2)) b.Give(2, BiasGradient(b.g, c.window.rank(), b.dy));
  return {};
}

}  // namespace

std::vector<Rule> ConvolutionRules() {
  return {
      {"Conv", 2, One<InferConv>, GradConv},
      {"ConvTranspose", 2, One<InferConvTranspose>, GradConvTranspose},
  };
}

}  // namespace ganglion::gradient
