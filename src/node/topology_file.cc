#include "node/topology_file.h"

#include "base/limits.h"
#include "data/file.h"
#include "node/yaml.h"

namespace ganglion::node {

Result<topology::Topology> LoadTopologyFile(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string text, data::ReadFile(path, limits::kMaxConfigBytes));
  YamlReader y(path.string(), text);
  auto topology = topology::Topology::Default();
  y.KnownKeys(y.root(), "", {"device", "edge", "region", "global"});
  for (const auto tier : topology::kTiers) {
    const std::string name(topology::Name(tier));
    const YAML::Node node = y.root().IsMap() ? y.root()[name] : YAML::Node();
    if (!node.IsDefined() || node.IsNull()) continue;
    if (!node.IsMap()) {
      y.Error(node, name + " must be a mapping, for example {latency: [5ms, 20ms], price: 0.001}");
      continue;
    }
    auto& profile = topology.at(tier);
    y.KnownKeys(node, name + ".", {"latency", "price", "availability"});
    const YAML::Node latency = node.IsMap() ? node["latency"] : YAML::Node(YAML::NodeType::Undefined);
    if (latency.IsDefined()) {
      const bool pair = latency.IsSequence() && latency.size() == 2 && latency[0].IsScalar() && latency[1].IsScalar();
      const auto low = pair ? ParseDuration(latency[0].Scalar()) : Result<Duration>(InvalidArgument(""));
      const auto high = pair ? ParseDuration(latency[1].Scalar()) : Result<Duration>(InvalidArgument(""));
      if (!low.ok() || !high.ok() || *low > *high) {
        y.Error(latency, name + ".latency must be two times, the smaller first, for example [5ms, 20ms]");
      } else {
        profile.round_trip_min = *low;
        profile.round_trip_max = *high;
      }
    }
    if (const auto v = y.Number(node, name + ".", "price")) {
      if (*v < 0) y.Error(node["price"], name + ".price must be at least 0");
      profile.price = *v;
    }
    if (const auto v = y.Number(node, name + ".", "availability")) {
      if (*v < 0 || *v > 1) y.Error(node["availability"], name + ".availability must be between 0 and 1");
      profile.availability = *v;
    }
  }
  RETURN_IF_ERROR(y.Finish());
  return topology;
}

}  // namespace ganglion::node
