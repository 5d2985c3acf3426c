#include "compress/top_k.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "compress/levels.h"

namespace ganglion::compress {
namespace {

constexpr char kMagic[] = {'G', 'T', 'K', '2'};
constexpr std::size_t kHead = 12;
constexpr std::size_t kBlock = Levels::kBlock;
// Non-negative floats are ordered as their bits are. The upper 15 of 31 bits choose a bucket.
constexpr int kShift = 16;

std::uint32_t Magnitude(float v) { return std::bit_cast<std::uint32_t>(v) & 0x7fffffffU; }

// Places of the k numbers of largest magnitude above zero, in order. Ties: the first ones.
void Choose(std::span<const float> v, std::size_t k, std::vector<std::uint32_t>* chosen) {
  std::array<std::uint32_t, (1U << (31 - kShift))> histogram{};
  for (const float x : v) ++histogram[Magnitude(x) >> kShift];
  std::size_t above = 0;
  std::uint32_t bucket = histogram.size() - 1;
  while (bucket > 0 && above + histogram[bucket] < k) above += histogram[bucket--];
  // Inside the bucket that holds the k-th: its own k - above largest.
  std::vector<std::uint32_t> inside;
  inside.reserve(histogram[bucket]);
  for (const float x : v) {
    const std::uint32_t m = Magnitude(x);
    if (m >> kShift == bucket) inside.push_back(m);
  }
  std::uint32_t threshold = 1;
  std::size_t equal = 0;  // how many of exactly the threshold are taken
  const std::size_t wanted = k - above;
  if (wanted > 0 && wanted <= inside.size()) {
    const auto at = inside.begin() + static_cast<std::ptrdiff_t>(wanted - 1);
    std::nth_element(inside.begin(), at, inside.end(), std::greater<>());
    threshold = std::max<std::uint32_t>(1, *at);
    equal = wanted - static_cast<std::size_t>(
                         std::count_if(inside.begin(), inside.end(), [&](std::uint32_t m) { return m > threshold; }));
  } else {
    equal = inside.size();  // fewer than k numbers: all
  }
  chosen->clear();
  for (std::size_t i = 0; i < v.size(); ++i) {
    const std::uint32_t m = Magnitude(v[i]);
    if (m < threshold || (m == threshold && equal == 0)) continue;
    if (m == threshold) --equal;
    chosen->push_back(static_cast<std::uint32_t>(i));
  }
}

}  // namespace

TopK::TopK(std::size_t size, double share)
    : k_(std::min(size, static_cast<std::size_t>(std::ceil(share * static_cast<double>(size))))),
      residual_(size),
      sum_(size) {
  chosen_.reserve(k_);
}

Status TopK::Encode(std::span<const float> gradient, std::string* bytes) {
  GANGLION_CHECK(gradient.size() == size());
  for (std::size_t i = 0; i < size(); ++i) sum_[i] = residual_[i] + gradient[i];
  RETURN_IF_ERROR(CheckFinite(sum_));
  residual_.swap(sum_);

  Choose(residual_, k_, &chosen_);
  bytes->assign(kMagic, 4);
  const std::uint32_t counts[2] = {static_cast<std::uint32_t>(size()), static_cast<std::uint32_t>(chosen_.size())};
  bytes->append(reinterpret_cast<const char*>(counts), 8);
  std::uint32_t next = 0;  // the smallest place that is still possible
  for (const std::uint32_t place : chosen_) {
    std::uint32_t gap = place - next;
    for (; gap >= 128; gap >>= 7) bytes->push_back(static_cast<char>(gap | 128));
    bytes->push_back(static_cast<char>(gap));
    next = place + 1;
  }
  for (std::size_t begin = 0; begin < chosen_.size(); begin += kBlock) {
    const auto block = std::span(chosen_).subspan(begin, std::min(kBlock, chosen_.size() - begin));
    float largest = 0;
    for (const std::uint32_t place : block) largest = std::max(largest, std::fabs(residual_[place]));
    const Levels levels(largest);
    bytes->append(reinterpret_cast<const char*>(&levels.scale), 4);
    for (const std::uint32_t place : block) {
      const std::int8_t level = levels.Nearest(residual_[place]);
      bytes->push_back(static_cast<char>(level));
      residual_[place] -= levels.Value(level);
    }
  }
  return {};
}

Status TopK::Accumulate(std::string_view bytes, std::span<float> out) const {
  GANGLION_CHECK(out.size() == size());
  std::uint32_t counts[2] = {};
  if (bytes.size() < kHead || std::memcmp(bytes.data(), kMagic, 4) != 0) return DataLoss("this is no top-k message");
  std::memcpy(counts, bytes.data() + 4, 8);
  const std::size_t k = counts[1];
  const std::size_t blocks = (k + kBlock - 1) / kBlock;
  if (counts[0] != size() || k > size() || bytes.size() - kHead < k * 2 + blocks * 4) {
    return DataLoss("a top-k message about " + std::to_string(counts[0]) + " numbers with " + std::to_string(k) +
                    " of them in " + std::to_string(bytes.size()) + " bytes does not fit " + std::to_string(size()) +
                    " numbers");
  }
  const auto damaged = [] { return DataLoss("the top-k message is damaged"); };
  const std::size_t values = bytes.size() - k - blocks * 4;
  std::size_t at = kHead;
  std::uint64_t next = 0;
  std::vector<std::uint32_t> places;
  places.reserve(k);
  for (std::size_t i = 0; i < k; ++i) {
    std::uint64_t gap = 0;
    for (int shift = 0;; shift += 7) {
      if (at >= values || shift > 28) return damaged();
      const auto byte = static_cast<unsigned char>(bytes[at++]);
      gap |= static_cast<std::uint64_t>(byte & 127U) << shift;
      if ((byte & 128U) == 0) break;
    }
    next += gap;
    if (next >= size()) return damaged();
    places.push_back(static_cast<std::uint32_t>(next++));
  }
  if (at != values) return damaged();
  const char* const numbers = bytes.data() + values;
  const auto scale_of = [&](std::size_t block) {
    float scale = 0;
    std::memcpy(&scale, numbers + block * (4 + kBlock), 4);
    return scale;
  };
  for (std::size_t block = 0; block < blocks; ++block) {
    const std::size_t n = std::min(kBlock, k - block * kBlock);
    if (!Levels::Good(scale_of(block), numbers + block * (4 + kBlock) + 4, n)) return damaged();
  }
  for (std::size_t i = 0; i < k; ++i) {
    const std::size_t block = i / kBlock;
    const char code = numbers[block * (4 + kBlock) + 4 + i % kBlock];
    out[places[i]] += scale_of(block) * static_cast<float>(static_cast<std::int8_t>(code));
  }
  return {};
}

}  // namespace ganglion::compress
