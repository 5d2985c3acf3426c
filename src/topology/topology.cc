#include "topology/topology.h"

namespace ganglion::topology {
namespace {
using std::chrono::milliseconds;
constexpr std::array<std::string_view, kTierCount> kNames{"device", "edge", "region", "global"};
}  // namespace

std::string_view Name(Tier tier) { return kNames[static_cast<std::size_t>(tier)]; }

std::optional<Tier> TierFromName(std::string_view name) {
  for (const Tier tier : kTiers) {
    if (Name(tier) == name) return tier;
  }
  return std::nullopt;
}

Topology Topology::Default() {
  Topology t;
  t.at(Tier::kDevice) = {milliseconds(1), milliseconds(5), .0001, .9999, 0, 0};
  t.at(Tier::kEdge) = {milliseconds(5), milliseconds(20), .001, .999, 1e3, 10e3};
  t.at(Tier::kRegion) = {milliseconds(20), milliseconds(100), .01, .9995, 10e3, 100e3};
  t.at(Tier::kGlobal) = {milliseconds(100), milliseconds(500), .1, .9999, 100e3, 1e6};
  return t;
}

}  // namespace ganglion::topology
