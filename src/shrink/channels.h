// Channels that belong together through a graph, and the model without some of them.
//
// Intuition: a hidden neuron (a channel) is a column of the layer that makes it, a bias, perhaps a row of a
// normalisation, and a row of each layer that reads it. Take all of these out and the model is smaller and faster, with
// no trace left: an ordinary dense model with fewer channels. Where two branches are added, their channels have to go
// together.
//
// Definition. A group is a set of channels that can only be kept or removed together, channel by channel: made by the
// output axis of one or more Conv, Gemm or MatMul, carried by elementwise operators, pools, normalisations, depthwise
// convolutions and Flatten (one channel then spans several columns), and read by the input axis of other layers.
// Removing channel c of a group gives exactly the model in which all readers have zeros for c (MaskChannels). For
// activations with f(0) = 0 this is also the model in which the channel's makers are zero.
//
// A group is fixed where its channels must stay: they are an output of the model, meet an input of the model, pass
// through an operator that mixes or moves channels (Concat, Softmax, Transpose, a grouped convolution, LSTM, ...), or
// share parameters with another layer. Fixed groups are listed with the reason; only the others can be cut.
//
// Importance of a channel: the norm of what makes it times the norm of what reads it. Unlike either alone it does not
// change when a neuron is scaled up and its readers down, which leaves the function of a Relu net as it is. Behind a
// BatchNormalization |scale| takes the place of the first norm, because normalising divides it out.
// Pure. Cost: one walk over the graph.
// Source: H. Li et al., "Pruning Filters for Efficient ConvNets", 2017, for removing whole filters; grouping as in G.
// Fang et al., "DepGraph", 2023; the product of norms is the path norm of B. Neyshabur et al., 2015, of one neuron.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrink {

struct ChannelGroup {
  std::string name;  // "node 0 (Gemm)": its first maker
  std::int64_t channels = 0;
  std::vector<double> importance;  // one a channel
};

struct ChannelReport {
  std::vector<ChannelGroup> groups;  // that can be cut, in graph order
  std::vector<std::string> fixed;    // "node 4 (Gemm): its channels are an output of the model"
};
Result<ChannelReport> FindChannels(const onnx::ModelProto& model);

// For each group of FindChannels the channels that stay, in their new order.
using Keep = std::vector<std::vector<std::int64_t>>;

// The model with these channels alone. Refuses a Keep of another number of groups, without a channel in a group, or
// with a channel twice or out of range.
Status KeepChannels(const onnx::ModelProto& model, const Keep& keep, onnx::ModelProto* out);
// The model as it is, with zeros where layers read the other channels: computes the same, costs what it did.
Status MaskChannels(const onnx::ModelProto& model, const Keep& keep, onnx::ModelProto* out);

// The share of channels with the largest importance in each group, ascending; at least one, and a multiple of
// `multiple` where the group is large enough. REQUIRES: 0 < share <= 1, multiple >= 1.
Keep MostImportant(const std::vector<ChannelGroup>& groups, double share, std::int64_t multiple = 1);
// All channels, the most important first.
Keep ByImportance(const std::vector<ChannelGroup>& groups);

}  // namespace ganglion::shrink
