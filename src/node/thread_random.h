// A stream of random numbers for each thread, seeded by the machine: ids, samples, jitter. Not for secrets, and not for
// layer 2, where random bits are arguments.
#pragma once

#include <random>

#include "base/random.h"

namespace ganglion::node {

inline Random& ThreadRandom() {
  thread_local Random random([] {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32) ^ device();
  }());
  return random;
}

}  // namespace ganglion::node
