#include "compress/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "compress/levels.h"

namespace ganglion::compress {
namespace {

constexpr char kMagic[] = {'G', 'Q', '0', '8'};

// The largest magnitude; eight running maxima, so that the loop needs no order.
float Largest(const float* v, std::size_t n) {
  float top[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) top[j] = std::max(top[j], std::fabs(v[i + j]));
  }
  for (; i < n; ++i) top[0] = std::max(top[0], std::fabs(v[i]));
  return *std::max_element(top, top + 8);
}

}  // namespace

Status EightBit::Encode(std::span<const float> gradient, std::string* bytes) {
  GANGLION_CHECK(gradient.size() == size());
  for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] = gradient[i] + residual_[i];
  RETURN_IF_ERROR(CheckFinite(sum_));
  bytes->resize(Bytes(size()));
  char* to = bytes->data();
  std::memcpy(to, kMagic, 4);
  const auto count = static_cast<std::uint32_t>(size());
  std::memcpy(to + 4, &count, 4);
  to += 8;
  for (std::size_t begin = 0; begin < size(); begin += kBlock) {
    const std::size_t n = std::min(kBlock, size() - begin);
    const float* v = sum_.data() + begin;
    const Levels levels(Largest(v, n));
    std::memcpy(to, &levels.scale, 4);
    to += 4;
    float* rest = residual_.data() + begin;
    for (std::size_t i = 0; i < n; ++i) {
      const std::int8_t level = levels.Nearest(v[i]);
      to[i] = static_cast<char>(level);
      rest[i] = v[i] - levels.Value(level);
    }
    to += n;
  }
  return {};
}

Status EightBit::Accumulate(std::string_view bytes, std::span<float> out) const {
  GANGLION_CHECK(out.size() == size());
  if (bytes.size() != Bytes(size())) {
    return DataLoss("an 8-bit message about " + std::to_string(size()) + " numbers has " +
                    std::to_string(Bytes(size())) + " bytes, this one has " + std::to_string(bytes.size()));
  }
  std::uint32_t count = 0;
  std::memcpy(&count, bytes.data() + 4, 4);
  if (std::memcmp(bytes.data(), kMagic, 4) != 0 || count != size())
    return DataLoss("this is no 8-bit message about " + std::to_string(size()) + " numbers");
  const char* const first = bytes.data() + 8;
  const char* from = first;
  for (std::size_t begin = 0; begin < size(); begin += kBlock) {  // all is checked before anything changes
    const std::size_t n = std::min(kBlock, size() - begin);
    float scale = 0;
    std::memcpy(&scale, from, 4);
    if (!Levels::Good(scale, from + 4, n))
      return DataLoss("the 8-bit message is damaged in the block of number " + std::to_string(begin));
    from += 4 + n;
  }
  from = first;
  for (std::size_t begin = 0; begin < size(); begin += kBlock) {
    const std::size_t n = std::min(kBlock, size() - begin);
    float scale = 0;
    std::memcpy(&scale, from, 4);
    from += 4;
    float* to = out.data() + begin;
    for (std::size_t i = 0; i < n; ++i) to[i] += scale * static_cast<float>(static_cast<std::int8_t>(from[i]));
    from += n;
  }
  return {};
}

}  // namespace ganglion::compress
