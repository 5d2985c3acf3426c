#include "compress/compress.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "compress/power_sgd.h"
#include "compress/quantize.h"
#include "compress/top_k.h"

namespace ganglion::compress {
namespace {

// Places are 32-bit in the messages.
constexpr std::size_t kMaxNumbers = (std::size_t{1} << 32) - 1;

template <typename T>
bool Read(std::string_view text, T* value) {
  const auto [p, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && p == text.data() + text.size();
}

Status CheckOptions(const Options& o) {
  if (o.code == Code::kTopK && !(o.share > 0 && o.share <= 1))
    return InvalidArgument("top-k's share must be in (0, 1], got " + std::to_string(o.share));
  if (o.code == Code::kPowerSgd && (o.rank < 1 || o.rank > kMaxRank)) {
    return InvalidArgument("PowerSGD's rank must be 1 .. " + std::to_string(kMaxRank) + ", got " +
                           std::to_string(o.rank));
  }
  return {};
}

}  // namespace

Result<Options> ParseOptions(std::string_view text) {
  Options o;
  const auto colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const std::string_view number = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  const bool bare = colon == std::string_view::npos;
  bool good = true;
  if (name == "none" && bare) {
    o.code = Code::kNone;
  } else if (name == "8bit" && bare) {
    o.code = Code::kEightBit;
  } else if (name == "topk") {
    o.code = Code::kTopK;
    good = bare || Read(number, &o.share);
  } else if (name == "powersgd") {
    o.code = Code::kPowerSgd;
    good = bare || Read(number, &o.rank);
  } else {
    good = false;
  }
  if (!good) {
    return InvalidArgument("compression \"" + std::string(text) +
                           "\" is unknown; none, 8bit, topk:SHARE or powersgd:RANK");
  }
  RETURN_IF_ERROR(CheckOptions(o));
  return o;
}

std::string Name(const Options& o) {
  switch (o.code) {
    case Code::kNone:
      return "none";
    case Code::kEightBit:
      return "8bit";
    case Code::kTopK: {
      char text[40];
      std::snprintf(text, sizeof text, "topk:%g", o.share);
      return text;
    }
    case Code::kPowerSgd:
      return "powersgd:" + std::to_string(o.rank);
  }
  return "";
}

Result<std::unique_ptr<Compressor>> Create(const Options& o, std::size_t size, std::span<const Segment> segments) {
  RETURN_IF_ERROR(CheckOptions(o));
  if (size < 1 || size > kMaxNumbers) {
    return InvalidArgument("a gradient to compress has 1 .. " + std::to_string(kMaxNumbers) + " numbers, got " +
                           std::to_string(size));
  }
  std::vector<Segment> sorted(segments.begin(), segments.end());
  std::sort(sorted.begin(), sorted.end(), [](const Segment& a, const Segment& b) { return a.offset < b.offset; });
  std::size_t at = 0;
  for (const Segment& s : sorted) {
    if (s.rows < 1 || s.columns < 1 || s.offset < at || s.offset > size || s.rows > (size - s.offset) / s.columns) {
      return InvalidArgument("the segment [" + std::to_string(s.rows) + "," + std::to_string(s.columns) + "] at " +
                             std::to_string(s.offset) + " overlaps another or reaches beyond the " +
                             std::to_string(size) + " numbers");
    }
    at = s.offset + s.rows * s.columns;
  }
  std::unique_ptr<Compressor> made;
  switch (o.code) {
    case Code::kNone:
      return InvalidArgument("there is no compressor for \"none\"; send the numbers as they are");
    case Code::kEightBit:
      made = std::make_unique<EightBit>(size);
      break;
    case Code::kTopK:
      made = std::make_unique<TopK>(size, o.share);
      break;
    case Code::kPowerSgd:
      made = std::make_unique<PowerSgd>(size, segments, o.rank, o.seed);
      break;
  }
  return made;
}

Status CheckFinite(std::span<const float> numbers) {
  // x - x is 0 for finite x and NaN otherwise: one sum says whether any is not.
  float sum[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= numbers.size(); i += 8) {
    for (std::size_t j = 0; j < 8; ++j) sum[j] += numbers[i + j] - numbers[i + j];
  }
  for (; i < numbers.size(); ++i) sum[0] += numbers[i] - numbers[i];
  bool good = true;
  for (const float s : sum) good = good && s == 0;
  if (good) return {};
  const auto bad = std::find_if(numbers.begin(), numbers.end(), [](float v) { return !std::isfinite(v); });
  return InvalidArgument("number " + std::to_string(bad - numbers.begin()) +
                         " of the gradient is not finite; lower the rate");
}

}  // namespace ganglion::compress
