// Where a named feature lies in the table: MurmurHash3 of its name, seeded by its namespace, cut to the table's bits.
//
// Intuition: a stream has no end of words, a table has one. Hashing gives each word its place without a dictionary to
// keep, ship and merge; two words that share a place share a weight, which costs little while the table is large.
// Why these very hashes: VW's text format is the common tongue of such streams, and whoever comes from there finds the
// same feature at the same place, so that figures can be compared weight by weight.
//
//   namespace   h = Hash(name, 0); the namespace without a name is 0
//   feature     Hash(name, h); a name of digits alone is that number plus h; one without a name counts up from h
//   pair        (16777619 * i) xor j, i and j the places of the two features
// All of it modulo 2^bits. Blanks around a name do not count.
//
// Pure functions. Cost: about 3 ns a name of ten bytes.
// Source: A. Appleby, MurmurHash3 (x86, 32 bit), 2011; K. Weinberger et al., "Feature Hashing for Large Scale Multitask
// Learning", ICML 2009; the rules of names are VW 9's.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace ganglion::online {

// The place of the feature that every example has: the bias.
inline constexpr std::uint32_t kConstantFeature = 11650396;

inline std::uint32_t Murmur3(std::string_view bytes, std::uint32_t seed) {
  constexpr std::uint32_t kC1 = 0xcc9e2d51u;
  constexpr std::uint32_t kC2 = 0x1b873593u;
  const char* p = bytes.data();
  std::size_t left = bytes.size();
  std::uint32_t h = seed;
  for (; left >= 4; left -= 4, p += 4) {
    std::uint32_t k = 0;
    std::memcpy(&k, p, 4);
    if constexpr (std::endian::native == std::endian::big) k = __builtin_bswap32(k);
    h ^= std::rotl(k * kC1, 15) * kC2;
    h = std::rotl(h, 13) * 5 + 0xe6546b64u;
  }
  std::uint32_t tail = 0;
  for (std::size_t i = 0; i < left; ++i) tail |= std::uint32_t{static_cast<std::uint8_t>(p[i])} << (8 * i);
  if (left > 0) h ^= std::rotl(tail * kC1, 15) * kC2;
  h ^= static_cast<std::uint32_t>(bytes.size());
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

// A name's hash: of digits alone the number itself plus the seed, else MurmurHash3.
inline std::uint32_t HashName(std::string_view name, std::uint32_t seed) {
  const auto blank = [](char c) { return static_cast<unsigned char>(c) <= 0x20; };
  while (!name.empty() && blank(name.front())) name.remove_prefix(1);
  while (!name.empty() && blank(name.back())) name.remove_suffix(1);
  std::uint32_t number = 0;
  for (const char c : name) {
    if (c < '0' || c > '9') return Murmur3(name, seed);
    number = 10 * number + static_cast<std::uint32_t>(c - '0');
  }
  return number + seed;
}

// The place of two features together. The order matters.
inline std::uint32_t HashPair(std::uint32_t first, std::uint32_t second) { return (16777619u * first) ^ second; }

}  // namespace ganglion::online
