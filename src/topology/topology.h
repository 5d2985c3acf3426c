// A Topology says what it means to decide at each tier: how long the round trip to it takes, what a request costs
// there, how available it is.
//
// Four tiers stand above each other: device, edge, region, global. A request that leaves one tier goes to the next
// one that has a stage; times and prices of the lower tiers have been spent by then. Round trips are ranges; where a
// single number is drawn, it is uniform over the range.
// The default is the table "Performance Benchmarks by Placement" of the requirement (latency of the placement, price a
// request, availability). The device's range is its own time to decide; it has no link.
// A value. Times are Durations, prices in dollars a request.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include "base/clock.h"

namespace ganglion::topology {

enum class Tier { kDevice, kEdge, kRegion, kGlobal };
inline constexpr std::size_t kTierCount = 4;
inline constexpr std::array<Tier, kTierCount> kTiers{Tier::kDevice, Tier::kEdge, Tier::kRegion, Tier::kGlobal};

std::string_view Name(Tier tier);  // "device", "edge", "region", "global"
std::optional<Tier> TierFromName(std::string_view name);

struct TierProfile {
  Duration round_trip_min{};
  Duration round_trip_max{};
  double price = 0;         // dollars a request
  double availability = 1;  // share of time
  double bytes_min = 0;     // what the requirement expects a request to move, for planning
  double bytes_max = 0;

  Duration MeanRoundTrip() const { return (round_trip_min + round_trip_max) / 2; }
  // `u` in [0, 1): where in the range.
  Duration RoundTrip(double u) const {
    return round_trip_min + std::chrono::duration_cast<Duration>((round_trip_max - round_trip_min) * u);
  }
};

class Topology {
 public:
  static Topology Default();
  const TierProfile& at(Tier tier) const { return tiers_[static_cast<std::size_t>(tier)]; }
  TierProfile& at(Tier tier) { return tiers_[static_cast<std::size_t>(tier)]; }

 private:
  std::array<TierProfile, kTierCount> tiers_{};
};

}  // namespace ganglion::topology
