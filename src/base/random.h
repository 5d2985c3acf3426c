// Random gives the same numbers for the same seed on every machine and compiler.
//
// xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018/2019), seeded through
// splitmix64. Not std::mt19937 with std:: distributions: the standard fixes the generator but not the distributions,
// so a shuffle would differ between libraries. Not for secrets.
// A value: copying it copies the stream. Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace ganglion {

class Random {
 public:
  using State = std::array<std::uint64_t, 4>;

  explicit Random(std::uint64_t seed);
  // Continues a stream where state() left it.
  explicit Random(const State& state) : state_(state) {}
  const State& state() const { return state_; }

  // An independent stream for a named purpose, so that adding a consumer does not shift the others.
  Random Fork(std::uint64_t stream) const;

  std::uint64_t Next();                      // uniform over 64 bits
  std::uint64_t Below(std::uint64_t bound);  // uniform over 0..bound-1, unbiased; REQUIRES: bound > 0
  double Uniform();                          // [0, 1), 53 bits
  double Uniform(double low, double high) { return low + (high - low) * Uniform(); }
  double Normal();  // mean 0, variance 1 (polar method, no state kept)

  template <typename T>
  void Shuffle(std::vector<T>& v) {
    for (std::size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[Below(i)]);
  }

 private:
  State state_;
};

}  // namespace ganglion
