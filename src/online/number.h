// Reads a decimal number fast: the digits as an integer, scaled by an exact power of ten where both fit into a double,
// which rounds once and so rightly (W. Clinger, "How to read floating point numbers accurately", 1990, the fast path);
// everything else by std::from_chars.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace ganglion::online {

// The whole text as a finite number. False for anything else: empty, trailing characters, inf, nan, too large.
inline bool ReadNumber(std::string_view text, float* out) {
  static constexpr std::array<double, 16> kPowers{1,   1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const char* p = text.data();
  const char* const end = p + text.size();
  const bool negative = p != end && *p == '-';
  if (p != end && (*p == '-' || *p == '+')) ++p;
  const char* const digits = p;
  std::uint64_t mantissa = 0;
  while (p != end && *p >= '0' && *p <= '9') mantissa = mantissa * 10 + static_cast<std::uint64_t>(*p++ - '0');
  std::ptrdiff_t count = p - digits;
  std::ptrdiff_t behind = 0;
  if (p != end && *p == '.') {
    const char* const fraction = ++p;
    while (p != end && *p >= '0' && *p <= '9') mantissa = mantissa * 10 + static_cast<std::uint64_t>(*p++ - '0');
    behind = p - fraction;
    count += behind;
  }
  if (p == end && count > 0 && count <= 15) {
    const double v = static_cast<double>(mantissa) / kPowers[static_cast<std::size_t>(behind)];
    *out = static_cast<float>(negative ? -v : v);
    return true;
  }
  if (count == 0) return false;  // from_chars would take "inf" and "nan"
  double v = 0;
  const char* const from = *text.data() == '+' ? text.data() + 1 : text.data();
  const auto r = std::from_chars(from, end, v);
  if (r.ec == std::errc::result_out_of_range && r.ptr == end) {  // too small is 0, too large is refused
    const auto e = text.find_first_of("eE");
    const bool tiny = e != std::string_view::npos && e + 1 < text.size() && text[e + 1] == '-';
    *out = 0;
    return tiny;
  }
  if (r.ec != std::errc() || r.ptr != end) return false;
  *out = static_cast<float>(v);
  return std::isfinite(*out);
}

}  // namespace ganglion::online
