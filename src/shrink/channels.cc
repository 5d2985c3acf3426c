#include "shrink/channels.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "base/check.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/channel_flow.h"
#include "shrink/edit.h"

namespace ganglion::shrink {
namespace {

using Role = ChannelUse::Role;

std::vector<const TracedGroup*> Cuttable(const ChannelFlow& flow) {
  std::vector<const TracedGroup*> groups;
  for (const auto& g : flow.groups) {
    if (g.fixed.empty()) groups.push_back(&g);
  }
  return groups;
}

// Sizes before, along and behind an axis.
struct Extent {
  std::size_t outer = 1;
  std::size_t along = 1;
  std::size_t inner = 1;
};
Extent ExtentOf(const tensor::Shape& shape, int axis) {
  Extent e;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    const auto n = static_cast<std::size_t>(shape[d]);
    (d < static_cast<std::size_t>(axis) ? e.outer : d == static_cast<std::size_t>(axis) ? e.along : e.inner) *= n;
  }
  return e;
}

// Adds the squares of a parameter to its channels.
Status AddSquares(const onnx::TensorProto& proto, const ChannelUse& use, std::vector<double>* into) {
  ASSIGN_OR_RETURN(const tensor::Tensor t, Weights(proto, "importance of channels"));
  const Extent e = ExtentOf(t.shape(), use.axis);
  const auto v = t.As<float>();
  for (std::size_t i = 0; i < v.size(); ++i) {
    const std::size_t c = i / e.inner % e.along / static_cast<std::size_t>(use.repeat);
    (*into)[c] += static_cast<double>(v[i]) * v[i];
  }
  return {};
}

Status CheckKeep(const std::vector<const TracedGroup*>& groups, const Keep& keep) {
  if (keep.size() != groups.size()) {
    return InvalidArgument("channels are given for " + std::to_string(keep.size()) + " groups, the model has " +
                           std::to_string(groups.size()));
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (keep[g].empty()) return InvalidArgument(groups[g]->name + " would keep no channel");
    std::vector<bool> seen(static_cast<std::size_t>(groups[g]->channels), false);
    for (const auto c : keep[g]) {
      if (c < 0 || c >= groups[g]->channels || seen[static_cast<std::size_t>(c)]) {
        return InvalidArgument(groups[g]->name + ": channel " + std::to_string(c) + " of " +
                               std::to_string(groups[g]->channels) + " is out of range or given twice");
      }
      seen[static_cast<std::size_t>(c)] = true;
    }
  }
  return {};
}

using Tensors = std::unordered_map<std::string, onnx::TensorProto*>;
Tensors TensorsOf(onnx::GraphProto* g) {
  Tensors tensors;
  for (auto& t : *g->mutable_initializer()) tensors[t.name()] = &t;
  return tensors;
}

Status Select(const ChannelUse& use, const std::vector<std::int64_t>& keep, onnx::TensorProto* proto) {
  ASSIGN_OR_RETURN(const tensor::Tensor t, graph::ToTensor(*proto));
  const auto repeat = static_cast<std::size_t>(use.repeat);
  const std::string name = proto->name();
  const int type = proto->data_type();
  if (use.role == Role::kSize) {
    std::vector<long> v(t.As<long>().begin(), t.As<long>().end());
    v[static_cast<std::size_t>(use.axis)] = static_cast<long>(keep.size() * repeat);
    SetBytes(proto, name, type, t.shape(), v.data(), v.size() * sizeof(long));
    return {};
  }
  const Extent e = ExtentOf(t.shape(), use.axis);
  const std::size_t size = tensor::SizeOf(t.type());
  if (size == 0) return Unimplemented("parameter \"" + name + "\" has strings for its channels");
  const std::size_t run = e.inner * repeat * size;  // bytes a channel in one of `outer`
  const std::size_t line = e.along * e.inner * size;
  const auto from = t.View().bytes;
  std::string bytes;
  bytes.reserve(e.outer * keep.size() * run);
  for (std::size_t o = 0; o < e.outer; ++o) {
    for (const auto c : keep)
      bytes.append(reinterpret_cast<const char*>(from.data()) + o * line + static_cast<std::size_t>(c) * run, run);
  }
  tensor::Shape shape = t.shape();
  shape[static_cast<std::size_t>(use.axis)] = static_cast<std::int64_t>(keep.size() * repeat);
  SetBytes(proto, name, type, shape, bytes.data(), bytes.size());
  return {};
}

Status Zero(const ChannelUse& use, const std::vector<std::int64_t>& keep, std::int64_t channels,
            onnx::TensorProto* proto) {
  ASSIGN_OR_RETURN(tensor::Tensor t, graph::ToTensor(*proto));
  const Extent e = ExtentOf(t.shape(), use.axis);
  std::vector<bool> kept(static_cast<std::size_t>(channels), false);
  for (const auto c : keep) kept[static_cast<std::size_t>(c)] = true;
  auto v = t.As<float>();
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (!kept[i / e.inner % e.along / static_cast<std::size_t>(use.repeat)]) v[i] = 0;
  }
  const std::string name = proto->name();
  proto->Clear();
  graph::FromTensor(name, t.View(), proto);
  return {};
}

}  // namespace

Result<ChannelReport> FindChannels(const onnx::ModelProto& model) {
  ASSIGN_OR_RETURN(ChannelFlow flow, TraceChannels(model));
  const Tensors tensors = TensorsOf(flow.model.mutable_graph());
  ChannelReport report;
  for (const auto& g : flow.groups) {
    if (!g.fixed.empty()) {
      report.fixed.push_back(g.name + ": " + g.fixed);
      continue;
    }
    const auto n = static_cast<std::size_t>(g.channels);
    std::vector<double> made(n, 0);
    std::vector<double> scale(n, 0);
    std::vector<double> read(n, 0);
    bool normalised = false;
    for (const auto& use : g.uses) {
      normalised |= use.role == Role::kNormScale;
      auto* into = use.role == Role::kMakes       ? &made
                   : use.role == Role::kNormScale ? &scale
                   : use.role == Role::kReads     ? &read
                                                  : nullptr;
      if (into == nullptr) continue;
      if (auto s = AddSquares(*tensors.at(use.parameter), use, into); !s.ok()) return s.Within(g.name);
    }
    ChannelGroup group{g.name, g.channels, {}};
    group.importance.reserve(n);
    for (std::size_t c = 0; c < n; ++c)
      group.importance.push_back(std::sqrt((normalised ? scale[c] : made[c]) * read[c]));
    report.groups.push_back(std::move(group));
  }
  return report;
}

Status KeepChannels(const onnx::ModelProto& model, const Keep& keep, onnx::ModelProto* out) {
  ASSIGN_OR_RETURN(ChannelFlow flow, TraceChannels(model));
  const auto groups = Cuttable(flow);
  RETURN_IF_ERROR(CheckKeep(groups, keep));
  const Tensors tensors = TensorsOf(flow.model.mutable_graph());
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (const auto& use : groups[g]->uses) {
      if (auto s = Select(use, keep[g], tensors.at(use.parameter)); !s.ok()) return s.Within(groups[g]->name);
    }
    for (const int i : groups[g]->depthwise) {
      for (auto& a : *flow.model.mutable_graph()->mutable_node(i)->mutable_attribute()) {
        if (a.name() == "group") a.set_i(static_cast<std::int64_t>(keep[g].size()));
      }
    }
  }
  *out = std::move(flow.model);
  return {};
}

Status MaskChannels(const onnx::ModelProto& model, const Keep& keep, onnx::ModelProto* out) {
  ASSIGN_OR_RETURN(ChannelFlow flow, TraceChannels(model));
  const auto groups = Cuttable(flow);
  RETURN_IF_ERROR(CheckKeep(groups, keep));
  const Tensors tensors = TensorsOf(flow.model.mutable_graph());
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (const auto& use : groups[g]->uses) {
      if (use.role != Role::kReads) continue;
      if (auto s = Zero(use, keep[g], groups[g]->channels, tensors.at(use.parameter)); !s.ok())
        return s.Within(groups[g]->name);
    }
  }
  *out = std::move(flow.model);
  return {};
}

Keep MostImportant(const std::vector<ChannelGroup>& groups, double share, std::int64_t multiple) {
  GANGLION_CHECK(share > 0 && share <= 1 && multiple >= 1);
  Keep keep = ByImportance(groups);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::int64_t all = groups[g].channels;
    auto count = static_cast<std::int64_t>(std::ceil(share * static_cast<double>(all) - 1e-9));
    if (all > multiple) count = std::min(all, (count + multiple - 1) / multiple * multiple);
    count = std::max<std::int64_t>(count, 1);
    keep[g].resize(static_cast<std::size_t>(count));
    std::sort(keep[g].begin(), keep[g].end());
  }
  return keep;
}

Keep ByImportance(const std::vector<ChannelGroup>& groups) {
  Keep keep;
  keep.reserve(groups.size());
  for (const auto& g : groups) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(g.channels));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return g.importance[static_cast<std::size_t>(a)] > g.importance[static_cast<std::size_t>(b)];
    });
    keep.push_back(std::move(order));
  }
  return keep;
}

}  // namespace ganglion::shrink
