// Slimmable nets: several widths in one set of parameters, the narrow inside the wide.
//
// Intuition: number the channels of every hidden layer. The net of width w is the one that uses the first w share of
// each, and no others. Its parameters are corners of the wide net's, so a device that has the narrow net needs only the
// rest to have the wide one. A net trained as usual is poor when cut so; trained at several widths at once, it is good
// at each.
//
// Definition. Width w keeps the first ceil(w C) channels of each group that can be cut (channels.h), rounded up to a
// multiple. ExtractWidth gives that net as an ordinary model. Inputs, outputs and fixed groups keep their size.
// BatchNormalization sees other means and variances at another width, so those (and, as in the source, scale and shift)
// belong to a width and not to the wide net: they are measured again for each width after training, and a file of
// several widths holds them once a width (progressive.h finds out by itself what is shared).
//
// Training: the sandwich rule. In each step the gradients of the widest, the narrowest and some random widths between
// are added up over the shared parameters. Nested does the adding: which places of the wide vector the narrow one has.
// Pure. Cost: Nested copies at memory speed, in runs along the last axis.
// Source: J. Yu et al., "Slimmable Neural Networks", 2019; J. Yu and T. Huang, "Universally Slimmable Networks and
// Improved Training Techniques", 2019 (sandwich rule, statistics measured after training).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "gradient/gradient.h"
#include "shrink/channels.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrink {

// The first channels of each group. REQUIRES: 0 < width <= 1, multiple >= 1.
Keep FirstChannels(const std::vector<ChannelGroup>& groups, double width, std::int64_t multiple = 1);

// Refuses a model of which nothing can be cut (each group is named, with the reason), and a width outside (0, 1].
Status ExtractWidth(const onnx::ModelProto& wide, double width, std::int64_t multiple, onnx::ModelProto* out);

// The wide model with its channels in order of importance, so that narrow widths begin with the best: the same
// function.
Status SortByImportance(const onnx::ModelProto& model, onnx::ModelProto* out);

// Where the parameters of a narrow net lie in the flat vector of a wide one. A value.
class Nested {
 public:
  // Refuses a parameter that the wide net does not have, or that is larger there than here in some axis.
  static Result<Nested> Create(const std::vector<gradient::Segment>& wide,
                               const std::vector<gradient::Segment>& narrow);

  // narrow = the corner of wide. REQUIRES (both): sizes as given to Create.
  void Gather(std::span<const float> wide, std::span<float> narrow) const;
  // wide += weight * narrow, at the corner.
  void Add(std::span<const float> narrow, float weight, std::span<float> wide) const;

 private:
  struct Run {
    std::size_t wide = 0;
    std::size_t narrow = 0;
    std::size_t count = 0;
  };
  std::vector<Run> runs_;
  std::size_t wide_size_ = 0;
  std::size_t narrow_size_ = 0;
};

// The BatchNormalization nodes whose statistics belong to a width, and what must be seen to measure them: `observed` is
// a model whose output i, FP32 [rows, channels, ...], is the input of norm i. No norms: an empty list, `observed`
// untouched.
struct Norm {
  std::string node;
  std::string mean;  // names of parameters
  std::string variance;
  std::int64_t channels = 0;
};
Result<std::vector<Norm>> FindNorms(const onnx::ModelProto& model, onnx::ModelProto* observed);

}  // namespace ganglion::shrink
