// Names that sort by the time they were given: 26 characters of Crockford's base 32, 48 bits of milliseconds since 1970
// and 80 bits that the caller draws. What a decision_id is.
// Source: the ULID specification. We differ in nothing; two ids of one millisecond are in no order.
// Pure.
#pragma once

#include <cstdint>
#include <string>

namespace ganglion {

inline std::string TimeSortableId(std::uint64_t unix_ms, std::uint64_t random_high, std::uint64_t random_low) {
  static constexpr char kAlphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  std::string id(26, '0');
  for (int i = 9; i >= 0; --i, unix_ms >>= 5) id[static_cast<std::size_t>(i)] = kAlphabet[unix_ms & 31];
  for (int i = 17; i >= 10; --i, random_high >>= 5) id[static_cast<std::size_t>(i)] = kAlphabet[random_high & 31];
  for (int i = 25; i >= 18; --i, random_low >>= 5) id[static_cast<std::size_t>(i)] = kAlphabet[random_low & 31];
  return id;
}

}  // namespace ganglion
