// A stream like that of advertisements and clicks: rare words, a few frequent ones, two numbers, a pair that matters.
//
// Definition, all from one seed: twelve namespaces a to l. a to j hold one word each out of 4, 12, 24, 60, 300, 1000,
// 5000, 20000, 50000 and 200000; word number floor(n u^3), u uniform, so that few words are frequent and most are rare.
// k and l hold a number each, exp(normal). The label is 1 with probability 1 / (1 + e^-z), else -1,
//   z = -1.5 + sum of the words' weights + weight of the pair (e, f) + .3 k - .2 l
// with weights that are normal numbers of deviation .5, made by hashing the word and the seed. Lines are VW's text, as
//   -1 |a a0 |b b3 ... |j j1f03 |k :0.731 |l :1.204
// A state machine. Cost: about 0.5 us a line.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/random.h"

namespace ganglion::bench {

class ClickStream {
 public:
  explicit ClickStream(std::uint64_t seed) : seed_(seed), random_(seed) {}

  // Appends one line with its line feed.
  void Append(std::string* text);

 private:
  double Weight(std::uint64_t field, std::uint64_t word) const;

  std::uint64_t seed_;
  Random random_;
};

}  // namespace ganglion::bench
