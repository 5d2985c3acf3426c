#include "gradient/window.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/limits.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Ints = std::vector<std::int64_t>;
using tensor::Shape;

std::int64_t Product(const Ints& v) {
  return std::accumulate(v.begin(), v.end(), std::int64_t{1}, std::multiplies<>());
}

// Each number is at most a few times kMaxExtent, but three of them are multiplied.
Status CheckSizes(const Window& w) {
  for (const Ints* sizes : {&w.in, &w.out, &w.kernel}) {
    std::int64_t product = 1;
    for (const auto s : *sizes) {
      if (__builtin_mul_overflow(product, s, &product) || product > limits::kMaxTensorElements)
        return InvalidArgument("an image or kernel of more than " + std::to_string(limits::kMaxTensorElements) +
                               " pixels");
    }
  }
  return {};
}

std::string TextAttribute(const onnx::NodeProto& n, std::string_view name, const std::string& otherwise) {
  const auto* a = graph::FindAttribute(n, name);
  return a != nullptr && !a->s().empty() ? a->s() : otherwise;
}

// An attribute with a number for each spatial axis, within [least, kMaxExtent].
Result<Ints> PerAxis(const onnx::NodeProto& n, const std::string& name, std::size_t count, std::int64_t otherwise,
                     std::int64_t least) {
  const Ints v = graph::IntsAttribute(n, name).value_or(Ints(count, otherwise));
  if (v.size() != count)
    return InvalidArgument(name + " has " + std::to_string(v.size()) + " numbers, needs " + std::to_string(count));
  for (const auto x : v) {
    if (x < least || x > kMaxExtent)
      return InvalidArgument(name + " has " + std::to_string(x) + ", must be in [" + std::to_string(least) + ", " +
                             std::to_string(kMaxExtent) + "]");
  }
  return v;
}

// What is common to both directions: everything but pads and one of the sizes.
Result<Window> ReadSteps(const onnx::NodeProto& n, const Shape& x, const Ints& kernel) {
  if (x.size() < 3 || x.size() > 5)
    return InvalidArgument("takes [N, C, D1, ...] with 1 to 3 spatial axes, got " + tensor::ShapeText(x));
  for (std::size_t i = 2; i < x.size(); ++i) {
    if (x[i] < 0)
      return InvalidArgument("height and width must be known to write the gradient, \"" + n.input(0) + "\" is " +
                             tensor::ShapeText(x) + "; export the model with fixed sizes (only the batch may vary)");
    if (x[i] < 1 || x[i] > kMaxExtent)
      return InvalidArgument("\"" + n.input(0) + "\" is " + tensor::ShapeText(x) + ", sizes must be in [1, " +
                             std::to_string(kMaxExtent) + "]");
  }
  if (kernel.size() != x.size() - 2)
    return InvalidArgument("the kernel has " + std::to_string(kernel.size()) + " axes, the input " +
                           std::to_string(x.size() - 2));
  Window w;
  w.kernel = kernel;
  for (const auto k : kernel) {
    if (k < 1 || k > kMaxExtent) return InvalidArgument("kernel size " + std::to_string(k));
  }
  ASSIGN_OR_RETURN(w.stride, PerAxis(n, "strides", kernel.size(), 1, 1));
  ASSIGN_OR_RETURN(w.dilation, PerAxis(n, "dilations", kernel.size(), 1, 1));
  return w;
}

Status ReadPads(const onnx::NodeProto& n, Window* w) {
  const std::size_t rank = w->kernel.size();
  ASSIGN_OR_RETURN(const Ints pads, PerAxis(n, "pads", 2 * rank, 0, 0));
  w->begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
  w->end.assign(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  return {};
}

}  // namespace

std::int64_t Window::pixels() const { return Product(in); }
std::int64_t Window::positions() const { return Product(out); }
std::int64_t Window::taps() const { return Product(kernel); }

std::int64_t Window::within(std::size_t axis, std::int64_t position) const {
  const std::int64_t first = position * stride[axis] - begin[axis];  // the pixel of the first tap
  const std::int64_t before = first >= 0 ? 0 : (-first + dilation[axis] - 1) / dilation[axis];
  const std::int64_t up_to = first >= in[axis] ? 0 : (in[axis] - 1 - first) / dilation[axis] + 1;
  return std::max<std::int64_t>(0, std::min(up_to, kernel[axis]) - before);
}

bool Window::padded() const {
  const auto some = [](std::int64_t p) { return p != 0; };
  return std::any_of(begin.begin(), begin.end(), some) || std::any_of(end.begin(), end.end(), some);
}

bool Window::unit_stride() const {
  return std::all_of(stride.begin(), stride.end(), [](std::int64_t s) { return s == 1; });
}

bool Window::overlaps() const {
  for (std::size_t a = 0; a < rank(); ++a) {
    if (reach(a) >= stride[a] && out[a] > 1) return true;
  }
  return false;
}

Ints Window::Table() const {
  Ints table(1, 0);  // of the axes so far: [taps, positions]
  std::int64_t taps_before = 1;
  std::int64_t positions_before = 1;
  for (std::size_t a = 0; a < rank(); ++a) {
    Ints next;
    next.reserve(table.size() * static_cast<std::size_t>(kernel[a] * out[a]));
    for (std::int64_t t = 0; t < taps_before; ++t) {
      for (std::int64_t k = 0; k < kernel[a]; ++k) {
        for (std::int64_t p = 0; p < positions_before; ++p) {
          const std::int64_t before = table[static_cast<std::size_t>(t * positions_before + p)];
          for (std::int64_t o = 0; o < out[a]; ++o) {
            const std::int64_t at = o * stride[a] + k * dilation[a] - begin[a];
            next.push_back(before < 0 || at < 0 || at >= in[a] ? -1 : before * in[a] + at);
          }
        }
      }
    }
    table = std::move(next);
    taps_before *= kernel[a];
    positions_before *= out[a];
  }
  const std::int64_t nothing = pixels();
  for (auto& pixel : table) pixel = pixel < 0 ? nothing : pixel;
  return table;
}

Result<Window> ReadWindow(const onnx::NodeProto& n, const Shape& x, const Ints& kernel, bool rounds_up) {
  ASSIGN_OR_RETURN(Window w, ReadSteps(n, x, kernel));
  w.in.assign(x.begin() + 2, x.end());
  const std::string pad = TextAttribute(n, "auto_pad", "NOTSET");
  if (pad == "NOTSET") {
    RETURN_IF_ERROR(ReadPads(n, &w));
  } else if (pad == "VALID" || pad == "SAME_UPPER" || pad == "SAME_LOWER") {
    for (std::size_t a = 0; a < kernel.size(); ++a) {
      const std::int64_t positions = (w.in[a] + w.stride[a] - 1) / w.stride[a];
      const std::int64_t total =
          pad == "VALID" ? 0 : std::max<std::int64_t>(0, (positions - 1) * w.stride[a] + w.reach(a) + 1 - w.in[a]);
      w.begin.push_back(pad == "SAME_LOWER" ? total - total / 2 : total / 2);
      w.end.push_back(total - w.begin.back());
    }
  } else {
    return InvalidArgument("auto_pad \"" + pad + "\"; known are NOTSET, VALID, SAME_UPPER, SAME_LOWER");
  }
  for (std::size_t a = 0; a < kernel.size(); ++a) {
    const std::int64_t room = w.in[a] + w.begin[a] + w.end[a] - 1 - w.reach(a);
    if (room < 0)
      return InvalidArgument("the kernel spans " + std::to_string(w.reach(a) + 1) + " pixels, the padded input has " +
                             std::to_string(w.in[a] + w.begin[a] + w.end[a]));
    std::int64_t out = room / w.stride[a] + 1;
    // A last, partial window counts when it begins within the image or the padding before it.
    if (rounds_up && room % w.stride[a] != 0 && out * w.stride[a] < w.in[a] + w.begin[a]) ++out;
    w.out.push_back(out);
  }
  RETURN_IF_ERROR(CheckSizes(w));
  return w;
}

Result<Window> ReadTransposedWindow(const onnx::NodeProto& n, const Shape& x, const Ints& kernel) {
  ASSIGN_OR_RETURN(Window w, ReadSteps(n, x, kernel));
  const std::size_t rank = kernel.size();
  w.out.assign(x.begin() + 2, x.end());
  ASSIGN_OR_RETURN(const Ints extra, PerAxis(n, "output_padding", rank, 0, 0));
  const std::string pad = TextAttribute(n, "auto_pad", "NOTSET");
  const auto sizes = graph::IntsAttribute(n, "output_shape");
  if (pad == "NOTSET" && !sizes) RETURN_IF_ERROR(ReadPads(n, &w));
  for (std::size_t a = 0; a < rank; ++a) {
    const std::int64_t whole = (w.out[a] - 1) * w.stride[a] + extra[a] + w.reach(a) + 1;
    if (pad == "NOTSET" && !sizes) {
      w.in.push_back(whole - w.begin[a] - w.end[a]);
    } else if (pad == "VALID" && !sizes) {
      w.begin.push_back(0);
      w.end.push_back(0);
      w.in.push_back(whole);
    } else {
      if (sizes && sizes->size() != rank)
        return InvalidArgument("output_shape has " + std::to_string(sizes->size()) + " numbers, needs " +
                               std::to_string(rank));
      w.in.push_back(sizes ? (*sizes)[a] : w.out[a] * w.stride[a]);
      const std::int64_t total = whole - w.in.back();
      if (total < 0)
        return Unimplemented("output size " + std::to_string(w.in.back()) + " beyond the " + std::to_string(whole) +
                             " that the kernel reaches");
      w.begin.push_back(pad == "SAME_UPPER" ? total / 2 : total - total / 2);
      w.end.push_back(total - w.begin.back());
    }
    if (w.in[a] < 1 || w.in[a] > kMaxExtent) return InvalidArgument("output size " + std::to_string(w.in[a]));
    // The Conv the other way must come back to the size of x.
    if (w.unread(a) < 0 || w.unread(a) >= w.stride[a])
      return Unimplemented("output_padding " + std::to_string(extra[a]) + " at stride " + std::to_string(w.stride[a]));
  }
  RETURN_IF_ERROR(CheckSizes(w));
  return w;
}

}  // namespace ganglion::gradient
