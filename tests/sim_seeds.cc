// Runs the simulator over many seeds and stops at the first that breaks an invariant, with what led to it.
//
//   sim_seeds FIRST COUNT [MUTATION]
//
// With a mutation (src/sim/mutation.h) every node does one thing wrong on purpose, and a failure is what is wanted.
// Exit code 0: every invariant held; 1: one did not; 2: the arguments are wrong.
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "sim/sim.h"

namespace {

using namespace ganglion;

bool ReadNumber(const char* text, std::uint64_t* value) {
  const char* end = text + std::strlen(text);
  return std::from_chars(text, end, *value).ptr == end && end != text;
}

void Print(const sim::Counts& c, std::uint64_t seeds, double simulated_s, std::uint64_t events, Duration took) {
  fmt::print("{} seeds, {:.1f} simulated hours, {} events in {:.1f} s\n", seeds, simulated_s / 3600, events,
             Milliseconds(took) / 1000);
  fmt::print("requests {}: rows accepted {}, degraded {}; failed {}, lost with their node {}, checked in calm {}\n",
             c.requests, c.accepted_rows, c.degraded_rows, c.failed, c.lost, c.checked);
  fmt::print("degraded for:");
  for (std::size_t i = 1; i < c.by_reason.size(); ++i) fmt::print(" {} {}", sim::ReasonName(i), c.by_reason[i]);
  fmt::print("\nruns {}, {} of them shared; expired in a queue {}, ended past the deadline by a run {}\n", c.runs,
             c.shared_runs, c.expired, c.past_deadline);
  fmt::print("calls {}, {} to dead parents; timeouts {}, trips {}, retries {}, audits {}\n", c.calls, c.calls_to_dead,
             c.timeouts, c.trips, c.retries, c.audits);
  fmt::print("overload: cheapest stage {}, refused {}, queue full {}\n", c.cheaper, c.refused, c.queue_full);
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  auto mutation = sim::Mutation::kNone;
  bool ok = (argc == 3 || argc == 4) && ReadNumber(argv[1], &first) && ReadNumber(argv[2], &count);
  if (ok && argc == 4) {
    ok = false;
    for (std::size_t i = 0; i < sim::kMutationNames.size(); ++i) {
      if (sim::kMutationNames[i] != argv[3]) continue;
      mutation = static_cast<sim::Mutation>(i);
      ok = true;
    }
  }
  if (!ok) {
    fmt::print(stderr, "usage: sim_seeds FIRST COUNT [MUTATION]\nmutations: {}\n", fmt::join(sim::kMutationNames, " "));
    return 2;
  }
  sim::Counts counts;
  double simulated_s = 0;
  std::uint64_t events = 0;
  const auto began = std::chrono::steady_clock::now();
  auto last = began;
  for (std::uint64_t i = 0; i < count; ++i) {
    const sim::Report report = sim::Simulate(first + i, mutation);
    counts.Add(report.counts);
    simulated_s += report.seconds;
    events += report.events;
    const auto now = std::chrono::steady_clock::now();
    if (!report.ok()) {
      fmt::print("{}\n{} seeds before it held\n", report.failure, i);
      return 1;
    }
    if (now - last < std::chrono::seconds(10)) continue;
    last = now;
    fmt::print(stderr, "{} of {} seeds, {:.0f} a second\n", i + 1, count,
               static_cast<double>(i + 1) * 1000 / Milliseconds(now - began));
  }
  Print(counts, count, simulated_s, events, std::chrono::steady_clock::now() - began);
  return 0;
}
