// What travels between simulated nodes, with as much in it as the real messages have: no clock is shared, a deadline
// travels as the time that is left. Values.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "sim/world.h"
#include "topology/topology.h"

namespace ganglion::sim {

struct Question {
  std::uint64_t call = 0;     // the asker's; the reply names it
  std::uint64_t request = 0;  // the client's; stands for the inputs
  std::size_t decision = 0;
  std::vector<int> rows;  // of the request
  std::optional<topology::Tier> above_tier;
  std::optional<topology::Tier> require_tier;  // an audit
  Duration left{};
  int hop = 0;
};

struct RowAnswer {
  int row = 0;
  int label = -1;
  float confidence = 0;
  std::size_t stage = 0;
  topology::Tier tier = topology::Tier::kDevice;
  bool degraded = false;
  bool from_above = false;
  std::string_view reason;  // of a degraded answer
};

struct Reply {
  std::uint64_t call = 0;
  Code code = Code::kOk;
  std::vector<RowAnswer> rows;
};

// How a node reaches others.
class Network {
 public:
  virtual ~Network() = default;
  virtual void Ask(NodeId from, NodeId to, const Question& question) = 0;
  virtual void Answer(NodeId from, NodeId to, const Reply& reply) = 0;
  // The end of a client's request.
  virtual void End(NodeId node, std::uint64_t request, const Reply& reply) = 0;
  // Whether the other would answer "what are you?" now.
  virtual bool Probe(NodeId from, NodeId to) = 0;
  // A new request of the node's own: an audit.
  virtual std::uint64_t NewRequest(NodeId node, std::size_t decision, std::size_t rows, TimePoint deadline) = 0;
};

}  // namespace ganglion::sim
