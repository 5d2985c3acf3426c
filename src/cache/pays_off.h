// PaysOff turns a cache off where it costs more than it saves, and on again when that changes.
//
// Intuition: a cache in front of questions that never repeat is a tax on each. Over windows of lookups it weighs
// what the hits saved, hits * mean time of computing a miss, against what all lookups and insertions cost. While off,
// one key in 64 still goes through the cache. Which ones is decided by bits of the key's hash, not by a coin: a key of
// the sample is in it every time, so that repeats among the sample show up however far apart they are.
//
//        `patience` windows in a row that do not pay                  ON: every key
//   ON ----------------------------------------------> OFF           OFF: one key in 2^sample_bits
//      <----------------------------------------------
//        sampled windows in a row that would pay `margin` times over
//
// Patience, because a cache that is still empty cannot pay yet. A sample overrates a cache that is too small for all
// keys, since the sample alone fits: each attempt that fails doubles the good sampled windows that the next one needs
// (to 64), so that being wrong costs ever less. On traffic that never repeats the cache goes off after `patience`
// windows, and from then on costs one lookup in 64 and the hashing of the others.
//
// Units: seconds. Cost: nanoseconds. Threads: a state machine, thread-compatible, without a clock.
#pragma once

#include <cstdint>

namespace ganglion::cache {

struct PaysOffOptions {
  std::uint64_t window = 4096;         // lookups that are judged together while on
  std::uint64_t sampled_window = 512;  // and while off
  int sample_bits = 6;                 // off: one key in 2^6
  int patience = 8;                    // windows
  double margin = 2;                   // how many times a sampled window must earn its cost
};

// What happened since the last report. Times may come from a few of the lookups: they are means.
struct Traffic {
  std::uint64_t lookups = 0;
  std::uint64_t hits = 0;      // answered without computing, waiting for another's computation included
  std::uint64_t computed = 0;  // misses whose computation ended, and the sum of their times
  double compute_seconds = 0;
  std::uint64_t timed = 0;  // lookups whose cost was taken (finding and inserting), and the sum of it
  double cost_seconds = 0;
};

class PaysOff {
 public:
  explicit PaysOff(const PaysOffOptions& options) : options_(options) {}

  bool on() const { return on_; }
  // Whether a lookup of a key with these bits goes through the cache. `bits` must be a function of the key alone.
  bool Use(std::uint64_t bits) const { return on_ || InSample(bits, options_.sample_bits); }
  static bool InSample(std::uint64_t bits, int sample_bits) {
    return (bits & ((std::uint64_t{1} << sample_bits) - 1)) == 0;
  }
  // Reports of any size; a window ends with the report that fills it. While off, only lookups of the sample count.
  void Observe(const Traffic& traffic);

 private:
  void EndWindow();

  PaysOffOptions options_;
  bool on_ = true;
  Traffic window_;
  double compute_mean_ = 0;  // the last that was known
  double cost_mean_ = 0;
  int bad_ = 0;     // in a row, while on
  int good_ = 0;    // in a row, while off
  int needed_ = 1;  // good windows for the next attempt
};

}  // namespace ganglion::cache
