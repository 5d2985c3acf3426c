// What the prediction cache is held against: traces of keys, and the hit rates of four ways to evict on them.
//
// LRU, SIEVE and W-TinyLFU are simulators over integer keys of equal size, for comparison only; S3-FIFO is the
// production store of src/cache, given room for the same number of such keys.
//   SIEVE      Zhang, Yang, Yue, Vigfusson, Vinayak, "SIEVE is simpler than LRU", NSDI 2024
//   W-TinyLFU  Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS 2017: a window
//              of 1 %, a segmented LRU of 20 % probation and 80 % protected, 4-bit counters in a count-min sketch of
//              four rows that are halved after ten times as many lookups as there is room for
// Every hit rate counts the whole trace, the cold start included. Deterministic for a seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "figures.h"

namespace ganglion::bench {

using Trace = std::vector<std::uint64_t>;  // keys in the order in which they are asked for

// Popularity of rank r proportional to r^-skew, over `keys` keys.
Trace ZipfTrace(double skew, std::size_t keys, std::size_t lookups, std::uint64_t seed);
// Zipf 1; after every 4 * `scan` lookups come `scan` keys one after the other that never return.
Trace ScanTrace(std::size_t keys, std::size_t lookups, std::size_t scan, std::uint64_t seed);
// Zipf 1; after every `every` lookups the ranking moves on by `by` keys: the most popular become the least.
Trace ShiftingTrace(std::size_t keys, std::size_t lookups, std::size_t every, std::size_t by, std::uint64_t seed);

// "LRU", "SIEVE", "S3-FIFO", "W-TinyLFU" -> hits / lookups, with room for `capacity` keys. REQUIRES: capacity >= 100.
std::map<std::string, double> HitRates(const Trace& trace, std::size_t capacity);

// One figure for each of the four traces: the worst of two cache sizes, 1 % and 10 % of the keys.
void AddCacheFigures(Figures* figures);

}  // namespace ganglion::bench
