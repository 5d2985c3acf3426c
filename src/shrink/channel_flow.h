// Following channels through a graph: which parameters carry which, and where they have to stay.
// For the sources of this module. Pure. channels.h says what a group is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/onnx.pb.h"

namespace ganglion::shrink {

// A parameter's axis along which a group's channels lie. One channel spans `repeat` neighbouring places.
struct ChannelUse {
  enum class Role {
    kMakes,      // the output axis of a layer's weights
    kCarries,    // biases, per-channel constants, depthwise weights
    kNormScale,  // the scale of a BatchNormalization
    kReads,      // the input axis of a layer's weights
    kSize        // an INT64 vector that holds the number of channels times repeat at place `axis` (Reshape)
  };
  Role role = Role::kCarries;
  std::string parameter;
  int axis = 0;
  std::int64_t repeat = 1;
};

struct TracedGroup {
  std::string name;
  std::int64_t channels = 0;
  std::vector<ChannelUse> uses;
  std::vector<int> depthwise;  // nodes whose attribute "group" is the number of channels
  std::string fixed;           // why its channels must stay; empty: they can be cut
};

struct ChannelFlow {
  onnx::ModelProto model;  // prepared
  std::vector<TracedGroup> groups;
};
Result<ChannelFlow> TraceChannels(const onnx::ModelProto& model);

}  // namespace ganglion::shrink
