// A Scenario runs one simulation: a fleet of devices, edges, regions and clouds, its clients and its faults, as drawn
// from one seed.
//
// Same seed and mutation: same run, to the last event. The run stops at the first violation.
#pragma once

#include <cstdint>
#include <string>

#include "sim/invariants.h"
#include "sim/mutation.h"

namespace ganglion::sim {

struct Report {
  std::uint64_t seed = 0;
  std::string failure;       // empty: every invariant held; otherwise the seed, a sentence and the last notes
  std::uint64_t digest = 0;  // of everything that was noted
  std::uint64_t events = 0;
  double seconds = 0;  // simulated
  Counts counts;
  bool ok() const { return failure.empty(); }
};

Report Simulate(std::uint64_t seed, Mutation mutation = Mutation::kNone);

}  // namespace ganglion::sim
