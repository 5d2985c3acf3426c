// A LeastTime is the least time in which something has been done lately: with less than that left it is not begun.
//
// Intuition: what has never taken less than 20 ms will not be done in 5. But whoever acts on that no longer sees how
// long it takes: a stage that was slow when it was first run, or a parent in a bad minute, would be thought too slow by
// everybody for ever. So it is believed only while there is news: kFresh after the last observation it is unknown
// again, and the next request finds out.
// It also creeps up by a small share with each observation, so that one lucky one is not believed for long.
//
// Thread-safe; races lose an observation. Time is an argument. Cost: nanoseconds.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace ganglion::node {

class LeastTime {
 public:
  static constexpr Duration kFresh = std::chrono::seconds(10);

  // Creeps up by one in `creep`.
  explicit LeastTime(std::int64_t creep) : creep_(creep) {}

  void Observe(Duration took, TimePoint now) {
    const std::int64_t ns = took.count() > 0 ? took.count() : 1;
    const std::int64_t least = at(now).count();
    least_ns_.store(least == 0 || ns < least ? ns : least + least / creep_, std::memory_order_relaxed);
    seen_ns_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }

  // Zero: not known.
  Duration at(TimePoint now) const {
    const TimePoint seen{Duration(seen_ns_.load(std::memory_order_relaxed))};
    return now - seen > kFresh ? Duration::zero() : Duration(least_ns_.load(std::memory_order_relaxed));
  }

 private:
  std::int64_t creep_;
  std::atomic<std::int64_t> least_ns_{0};
  std::atomic<std::int64_t> seen_ns_{0};
};

}  // namespace ganglion::node
