#include "base/random.h"

#include <cmath>

#include "base/check.h"

namespace ganglion {
namespace {

std::uint64_t SplitMix(std::uint64_t& x) {
  x += 0x9e3779b97f4a7c15u;
  std::uint64_t z = x;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::uint64_t RotateLeft(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

}  // namespace

Random::Random(std::uint64_t seed) : state_{} {
  for (auto& word : state_) word = SplitMix(seed);
}

Random Random::Fork(std::uint64_t stream) const {
  std::uint64_t mixed = state_[0] ^ RotateLeft(state_[3], 17) ^ (stream * 0xd1342543de82ef95u);
  return Random(SplitMix(mixed));
}

std::uint64_t Random::Next() {
  auto& s = state_;
  const std::uint64_t result = RotateLeft(s[0] + s[3], 23) + s[0];
  const std::uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = RotateLeft(s[3], 45);
  return result;
}

std::uint64_t Random::Below(std::uint64_t bound) {
  GANGLION_CHECK(bound > 0);
  const std::uint64_t reject_below = (0 - bound) % bound;  // 2^64 mod bound: the part that would bias
  for (;;) {
    const std::uint64_t x = Next();
    if (x >= reject_below) return x % bound;
  }
}

double Random::Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

double Random::Normal() {
  for (;;) {
    const double u = 2 * Uniform() - 1;
    const double v = 2 * Uniform() - 1;
    const double s = u * u + v * v;
    if (s > 0 && s < 1) return u * std::sqrt(-2 * std::log(s) / s);
  }
}

}  // namespace ganglion
