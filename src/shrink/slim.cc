#include "shrink/slim.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/edit.h"

namespace ganglion::shrink {
namespace {

Status NothingToCut(const ChannelReport& report) {
  std::string all;
  for (const auto& why : report.fixed) all += (all.empty() ? ": " : "; ") + why;
  return FailedPrecondition("the model has no channels that could be cut" + all);
}

}  // namespace

Keep FirstChannels(const std::vector<ChannelGroup>& groups, double width, std::int64_t multiple) {
  GANGLION_CHECK(width > 0 && width <= 1 && multiple >= 1);
  Keep keep = MostImportant(groups, width, multiple);
  for (auto& channels : keep) std::iota(channels.begin(), channels.end(), 0);
  return keep;
}

Status ExtractWidth(const onnx::ModelProto& wide, double width, std::int64_t multiple, onnx::ModelProto* out) {
  if (!(width > 0 && width <= 1))
    return InvalidArgument("width must be above 0 and at most 1, got " + std::to_string(width));
  if (multiple < 1) return InvalidArgument("multiple must be at least 1, got " + std::to_string(multiple));
  ASSIGN_OR_RETURN(const ChannelReport report, FindChannels(wide));
  if (report.groups.empty()) return NothingToCut(report);
  return KeepChannels(wide, FirstChannels(report.groups, width, multiple), out);
}

Status SortByImportance(const onnx::ModelProto& model, onnx::ModelProto* out) {
  ASSIGN_OR_RETURN(const ChannelReport report, FindChannels(model));
  if (report.groups.empty()) return NothingToCut(report);
  return KeepChannels(model, ByImportance(report.groups), out);
}

Result<Nested> Nested::Create(const std::vector<gradient::Segment>& wide,
                              const std::vector<gradient::Segment>& narrow) {
  Nested nested;
  for (const auto& s : wide)
    nested.wide_size_ = std::max(nested.wide_size_, static_cast<std::size_t>(s.offset + s.size));
  for (const auto& s : narrow) {
    nested.narrow_size_ = std::max(nested.narrow_size_, static_cast<std::size_t>(s.offset + s.size));
    const auto at = std::find_if(wide.begin(), wide.end(), [&](const auto& w) { return w.name == s.name; });
    if (at == wide.end()) return InvalidArgument("the wide net has no parameter \"" + s.name + "\"");
    bool inside = at->shape.size() == s.shape.size() && !s.shape.empty();
    for (std::size_t d = 0; inside && d < s.shape.size(); ++d) inside = s.shape[d] <= at->shape[d];
    if (!inside) {
      return InvalidArgument("parameter \"" + s.name + "\" is " + tensor::ShapeText(s.shape) +
                             " in the narrow net, which does not lie inside " + tensor::ShapeText(at->shape));
    }
    if (s.size == 0) continue;
    // One run for each index of the leading axes.
    const auto run = static_cast<std::size_t>(s.shape.back());
    const std::size_t runs = static_cast<std::size_t>(s.size) / run;
    for (std::size_t r = 0; r < runs; ++r) {
      std::size_t rest = r;
      std::size_t place = 0;
      std::size_t step = static_cast<std::size_t>(at->shape.back());
      for (std::size_t d = s.shape.size() - 1; d-- > 0;) {
        const auto size = static_cast<std::size_t>(s.shape[d]);
        place += rest % size * step;
        rest /= size;
        step *= static_cast<std::size_t>(at->shape[d]);
      }
      const Run next{static_cast<std::size_t>(at->offset) + place, static_cast<std::size_t>(s.offset) + r * run, run};
      if (!nested.runs_.empty()) {
        Run& last = nested.runs_.back();
        if (last.wide + last.count == next.wide && last.narrow + last.count == next.narrow) {
          last.count += next.count;
          continue;
        }
      }
      nested.runs_.push_back(next);
    }
  }
  return nested;
}

void Nested::Gather(std::span<const float> wide, std::span<float> narrow) const {
  GANGLION_CHECK(wide.size() == wide_size_ && narrow.size() == narrow_size_);
  for (const Run& r : runs_) {
    std::copy_n(wide.begin() + static_cast<std::ptrdiff_t>(r.wide), r.count,
                narrow.begin() + static_cast<std::ptrdiff_t>(r.narrow));
  }
}

void Nested::Add(std::span<const float> narrow, float weight, std::span<float> wide) const {
  GANGLION_CHECK(wide.size() == wide_size_ && narrow.size() == narrow_size_);
  for (const Run& r : runs_) {
    for (std::size_t i = 0; i < r.count; ++i) wide[r.wide + i] += weight * narrow[r.narrow + i];
  }
}

Result<std::vector<Norm>> FindNorms(const onnx::ModelProto& model, onnx::ModelProto* observed) {
  onnx::ModelProto prepared;
  RETURN_IF_ERROR(Prepare(model, &prepared));
  auto* g = prepared.mutable_graph();
  const Links links(*g);
  std::vector<Norm> norms;
  std::vector<std::string> inputs;
  for (int i = 0; i < g->node_size(); ++i) {
    const auto& n = g->node(i);
    if (n.op_type() != "BatchNormalization" || !n.domain().empty() || n.input_size() != 5) continue;
    const auto* mean = links.Constant(n.input(3));
    const auto* variance = links.Constant(n.input(4));
    if (mean == nullptr || variance == nullptr || mean->dims_size() != 1 || variance->dims_size() != 1 ||
        mean->dims(0) != variance->dims(0) || mean->data_type() != onnx::TensorProto::FLOAT ||
        variance->data_type() != onnx::TensorProto::FLOAT) {
      continue;
    }
    norms.push_back({graph::Describe(n, i), n.input(3), n.input(4), mean->dims(0)});
    inputs.push_back(n.input(0));
  }
  if (norms.empty()) return norms;
  Names names(*g);
  g->clear_output();
  graph::GraphBuilder builder(&prepared);
  for (const auto& x : inputs) {
    // [rows, channels, everything else]
    const std::string out =
        builder.Node("Reshape", {x, builder.Ints("three", {0, 0, -1})}, {}, names.Fresh(x + ".observed"));
    builder.Output({out, tensor::DataType::kFp32, {-1, -1, -1}});
  }
  DropUnused(g);
  *observed = std::move(prepared);
  return norms;
}

}  // namespace ganglion::shrink
