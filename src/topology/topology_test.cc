#include "topology/topology.h"

#include <gtest/gtest.h>

namespace ganglion::topology {
namespace {

TEST(Topology, NamesRoundTrip) {
  for (const Tier tier : kTiers) EXPECT_EQ(TierFromName(Name(tier)), tier);
  EXPECT_FALSE(TierFromName("cloud"));
}

TEST(Topology, DefaultIsTheRequirementsTable) {
  const Topology t = Topology::Default();
  EXPECT_EQ(t.at(Tier::kDevice).MeanRoundTrip(), std::chrono::milliseconds(3));
  EXPECT_EQ(t.at(Tier::kGlobal).MeanRoundTrip(), std::chrono::milliseconds(300));
  EXPECT_EQ(t.at(Tier::kRegion).price, .01);
  EXPECT_EQ(t.at(Tier::kEdge).availability, .999);
}

TEST(Topology, DrawsRoundTripsInsideTheirRange) {
  const TierProfile edge = Topology::Default().at(Tier::kEdge);
  EXPECT_EQ(edge.RoundTrip(0), edge.round_trip_min);
  EXPECT_EQ(edge.RoundTrip(.5), edge.MeanRoundTrip());
  EXPECT_LT(edge.RoundTrip(.999), edge.round_trip_max);
}

}  // namespace
}  // namespace ganglion::topology
