#include "wire/rest_data.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

namespace ganglion::wire {
namespace {

using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

// An FP64 half way between two FP32 may have been rounded to there, so that rounding it again goes the wrong way: of
// all FP32 written in their shortest form that happens to one, 7.038531e-26. Below the normal FP32 half ways lie
// elsewhere.
void RoundOnce(JsonValue& value, double number, float* out) {
  constexpr std::uint64_t kDropped = (std::uint64_t{1} << 29) - 1;  // of 52 bits, FP32 keeps 23
  const bool half_way = (std::bit_cast<std::uint64_t>(number) & kDropped) == (kDropped + 1) / 2;
  if (!half_way && (std::fabs(number) >= std::numeric_limits<float>::min() || number == 0)) return;
  const std::string_view text = value.raw_json_token();
  float once = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), once).ec == std::errc()) *out = once;
}

// Elements of `data` into memory. Each returns false when the value does not fit the datatype.
template <typename T>
bool ReadElement(JsonValue& value, bool null_is_nan, T* out) {
  if constexpr (std::is_floating_point_v<T>) {
    double number = 0;
    if (value.get_double().get(number)) {
      bool is_null = false;
      if (!null_is_nan || value.is_null().get(is_null) || !is_null) return false;
      *out = std::numeric_limits<T>::quiet_NaN();
      return true;
    }
    // Half way from the largest FP32 to what would come next: from there on rounding gives infinity.
    if (std::is_same_v<T, float> && std::fabs(number) >= 0x1.ffffffp127) return false;
    *out = static_cast<T>(number);
    if constexpr (std::is_same_v<T, float>) RoundOnce(value, number, out);
    return std::isfinite(number);
  } else if constexpr (std::is_same_v<T, bool>) {
    std::int64_t number = 0;
    if (!value.get_bool().get(*out)) return true;
    if (value.get_int64().get(number) || (number != 0 && number != 1)) return false;
    *out = number == 1;
    return true;
  } else if constexpr (std::is_same_v<T, std::uint64_t>) {
    return !value.get_uint64().get(*out);
  } else {
    std::int64_t number = 0;
    if (value.get_int64().get(number)) return false;
    *out = static_cast<T>(number);
    return number >= std::numeric_limits<T>::min() && number <= std::numeric_limits<T>::max();
  }
}

const char* Wanted(DataType type) {
  switch (type) {
    case DataType::kBool:
      return "true, false, 1 or 0 for BOOL";
    case DataType::kUint8:
      return "an integer from 0 to 255 for UINT8";
    case DataType::kUint16:
      return "an integer from 0 to 65535 for UINT16";
    case DataType::kUint32:
      return "an integer from 0 to 4294967295 for UINT32";
    case DataType::kUint64:
      return "an integer from 0 to 18446744073709551615 for UINT64";
    case DataType::kInt8:
      return "an integer from -128 to 127 for INT8";
    case DataType::kInt16:
      return "an integer from -32768 to 32767 for INT16";
    case DataType::kInt32:
      return "an integer from -2147483648 to 2147483647 for INT32";
    case DataType::kInt64:
      return "an integer from -9223372036854775808 to 9223372036854775807 for INT64";
    case DataType::kFp32:
      return "a number of at most 3.4028235e38 for FP32";
    case DataType::kFp64:
      return "a number of at most 1.7976931348623157e308 for FP64";
    default:
      return "a string for BYTES";
  }
}

// Walks `data`, flat or nested as `shape`, and gives each element to `put` in row-major order.
template <typename Put>
struct DataWalk {
  const JsonText& json;
  const DataType type;
  const Shape& shape;
  const std::int64_t count;
  Put put;
  std::int64_t next = 0;

  Status Run(JsonArray array, std::size_t level) {
    bool leaf = level + 1 >= shape.size();
    std::int64_t n = 0;
    std::int64_t want = level == 0 && leaf ? count : shape[level];
    for (auto item : array) {
      JsonValue value;
      if (const auto e = item.get(value)) return json.Broken(e);
      if (n == 0 && level == 0 && !leaf && JsonText::Kind(value) != '[') {  // flat after all
        leaf = true;
        want = count;
      }
      if (n == want) return TooMany(level, leaf, want);
      ++n;
      if (!leaf) {
        JsonArray inner;
        if (value.get_array().get(inner)) return Nests(value);
        RETURN_IF_ERROR(Run(inner, level + 1));
        continue;
      }
      if (!put(value, next)) {
        if (JsonText::Kind(value) == '[') return Nests(value);
        return InvalidArgument("element " + std::to_string(next) + " of data is " + JsonText::Token(value) + ", want " +
                               Wanted(type));
      }
      ++next;
    }
    if (n == 0 && level == 0) want = count;
    if (n == want) return {};
    if (level == 0 && (leaf || n == 0)) {
      return InvalidArgument("data has " + std::to_string(n) + " elements, shape " + tensor::ShapeText(shape) +
                             " takes " + std::to_string(want));
    }
    return Ragged(std::to_string(n), level);
  }

  Status TooMany(std::size_t level, bool leaf, std::int64_t want) const {
    if (level > 0 || !leaf) return Ragged("more than " + std::to_string(want), level);
    return InvalidArgument("data has more than the " + std::to_string(want) + " elements of shape " +
                           tensor::ShapeText(shape));
  }
  Status Ragged(const std::string& n, std::size_t level) const {
    return InvalidArgument("data has a list of " + n + " where dimension " + std::to_string(level) + " of shape " +
                           tensor::ShapeText(shape) + " has " + std::to_string(shape[level]) +
                           "; nest data as the shape says, or send it flat");
  }
  Status Nests(JsonValue& value) const {
    return InvalidArgument("element " + std::to_string(next) + " of data is " + JsonText::Token(value) +
                           ", which nests otherwise than shape " + tensor::ShapeText(shape) +
                           "; nest data as the shape says, or send it flat");
  }
};

constexpr double kPowersOfTen[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The usual case by itself, three times as fast: a flat list of exactly `count` plain numbers. False, and nothing is
// said about why: anything else, which the walk above reads or refuses.
// At most 15 digits without an exponent are a whole number below 2^53 over a power of ten, both exact as FP64, so their
// quotient is rounded once; rounding it again to FP32 is wrong at most where it lies half way (RoundOnce).
bool ReadPlainFloats(std::string_view text, std::int64_t count, float* out) {
  const char* p = text.data();
  const char* const end = p + text.size();
  if (p == end || *p++ != '[') return false;
  for (std::int64_t i = 0; i < count; ++i) {
    while (p != end && IsSpace(*p)) ++p;
    const char* const begin = p;
    const bool negative = p != end && *p == '-';
    p += negative;
    const char* const first = p;
    std::uint64_t digits = 0;
    while (p != end && IsDigit(*p)) digits = digits * 10 + static_cast<std::uint64_t>(*p++ - '0');
    if (p == first || (*first == '0' && p - first > 1)) return false;
    std::ptrdiff_t length = p - first;
    std::ptrdiff_t behind = 0;
    if (p != end && *p == '.') {
      const char* const fraction = ++p;
      while (p != end && IsDigit(*p)) digits = digits * 10 + static_cast<std::uint64_t>(*p++ - '0');
      behind = p - fraction;
      if (behind == 0) return false;
      length += behind;
    }
    bool plain = length <= 15;
    if (p != end && (*p == 'e' || *p == 'E')) {
      plain = false;
      ++p;
      if (p != end && (*p == '+' || *p == '-')) ++p;
      const char* const exponent = p;
      while (p != end && IsDigit(*p)) ++p;
      if (p == exponent) return false;
    }
    if (plain) {
      const double number = static_cast<double>(digits) / kPowersOfTen[behind];
      constexpr std::uint64_t kDropped = (std::uint64_t{1} << 29) - 1;
      plain = (std::bit_cast<std::uint64_t>(number) & kDropped) != (kDropped + 1) / 2 &&
              (number >= static_cast<double>(std::numeric_limits<float>::min()) || number == 0);
      out[i] = static_cast<float>(negative ? -number : number);
    }
    // The library takes what is half way beyond the largest FP32 for infinity without a word.
    if (!plain && (std::from_chars(begin, p, out[i]).ec != std::errc() || !std::isfinite(out[i]))) return false;
    while (p != end && IsSpace(*p)) ++p;
    if (p == end || *p++ != (i + 1 == count ? ']' : ',')) return false;
  }
  while (p != end && IsSpace(*p)) ++p;
  return p == end;
}

template <typename T>
Result<Tensor> Numbers(JsonText& json, JsonArray array, DataType type, const Shape& shape, std::int64_t count,
                       bool null_is_nan) {
  static_assert(sizeof(bool) == 1);
  ASSIGN_OR_RETURN(Tensor t, Tensor::Zeros(type, shape));
  T* const out = reinterpret_cast<T*>(t.Mutable().bytes.data());
  if constexpr (std::is_same_v<T, float>) {
    std::string_view text;
    if (count > 0 && !array.raw_json().get(text) && ReadPlainFloats(text, count, out)) return t;
    bool rewound = false;
    if (array.reset().get(rewound)) return InvalidArgument("data is no list");
  }
  const auto put = [out, null_is_nan](JsonValue& value, std::int64_t i) {
    return ReadElement(value, null_is_nan, out + i);
  };
  DataWalk<decltype(put)> walk{json, type, shape, count, put};
  RETURN_IF_ERROR(walk.Run(array, 0));
  return t;
}

Result<Tensor> Strings(JsonText& json, JsonArray array, const Shape& shape, std::int64_t count) {
  std::string bytes;
  const auto put = [&bytes](JsonValue& value, std::int64_t) {
    std::string_view text;
    if (value.get_string().get(text)) return false;
    const auto length = static_cast<std::uint32_t>(text.size());
    bytes.append(reinterpret_cast<const char*>(&length), 4).append(text);
    return true;
  };
  DataWalk<decltype(put)> walk{json, DataType::kBytes, shape, count, put};
  RETURN_IF_ERROR(walk.Run(array, 0));
  return Tensor::FromBytes(DataType::kBytes, shape, std::as_bytes(std::span(bytes)));
}

}  // namespace

Result<Tensor> ReadData(JsonText& json, JsonArray array, DataType type, const Shape& shape, std::int64_t count,
                        bool null_is_nan) {
  const auto numbers = [&](auto zero) { return Numbers<decltype(zero)>(json, array, type, shape, count, null_is_nan); };
  switch (type) {
    case DataType::kBool:
      return numbers(false);
    case DataType::kUint8:
      return numbers(std::uint8_t{});
    case DataType::kUint16:
      return numbers(std::uint16_t{});
    case DataType::kUint32:
      return numbers(std::uint32_t{});
    case DataType::kUint64:
      return numbers(std::uint64_t{});
    case DataType::kInt8:
      return numbers(std::int8_t{});
    case DataType::kInt16:
      return numbers(std::int16_t{});
    case DataType::kInt32:
      return numbers(std::int32_t{});
    case DataType::kInt64:
      return numbers(std::int64_t{});
    case DataType::kFp32:
      return numbers(float{});
    case DataType::kFp64:
      return numbers(double{});
    case DataType::kBytes:
      return Strings(json, array, shape, count);
    case DataType::kFp16:
    case DataType::kBf16:
      break;
  }
  return InvalidArgument(std::string(tensor::Name(type)) + " has no JSON form; send it as bytes with binary_data_size");
}

}  // namespace ganglion::wire
