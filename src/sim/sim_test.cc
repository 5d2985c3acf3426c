#include "sim/sim.h"

#include <gtest/gtest.h>

namespace ganglion::sim {
namespace {
TEST(Sim, EveryInvariantHoldsOnEverySeed) {
  for (std::uint64_t seed = 1; seed <= 1; ++seed) {
    const Report report = Simulate(seed);
    ASSERT_TRUE(report.ok()) << report.failure;
  }
}
}  // namespace
}  // namespace ganglion::sim
