#include "online/interactions.h"

#include <algorithm>
#include <cmath>

#include "online/hash.h"

namespace ganglion::online {

Result<Interactions> Interactions::OfLetters(const std::vector<std::string>& pairs) {
  Interactions all;
  for (const std::string& pair : pairs) {
    if (pair.size() != 2)
      return InvalidArgument("\"" + pair + "\" is no pair; write the first letters of two namespaces, for example ab");
    const auto group = [&all](char c) -> std::uint32_t {
      all.any_ |= c == ':';
      return c == ':' ? kAny : static_cast<std::uint8_t>(c);
    };
    const std::uint32_t first = group(pair[0]);
    all.pairs_.emplace_back(first, group(pair[1]));
  }
  return all;
}

Result<Interactions> Interactions::OfColumns(const std::vector<std::string>& pairs,
                                             const std::vector<std::string>& columns) {
  Interactions all;
  for (const std::string& pair : pairs) {
    const auto comma = pair.find(',');
    if (comma == std::string::npos)
      return InvalidArgument("\"" + pair + "\" is no pair of columns; write for example origin,destination");
    Pair groups;
    for (const bool second : {false, true}) {
      const std::string name = second ? pair.substr(comma + 1) : pair.substr(0, comma);
      const auto at = std::find(columns.begin(), columns.end(), name);
      if (at == columns.end()) return InvalidArgument("there is no column \"" + name + "\" for the pair " + pair);
      (second ? groups.second : groups.first) = static_cast<std::uint32_t>(at - columns.begin());
    }
    all.pairs_.push_back(groups);
  }
  return all;
}

Status Interactions::Cross(std::span<const Span> spans, Pair pair, std::uint32_t mask, Example* example) {
  std::vector<Feature>& features = example->features;
  const auto append = [&](const Feature& a, const Feature& b) {
    features.push_back({HashPair(a.index, b.index) & mask, a.value * b.value});
    return std::isfinite(features.back().value);
  };
  for (std::size_t s = 0; s < spans.size(); ++s) {
    if (spans[s].group != pair.first) continue;
    for (std::size_t t = pair.first == pair.second ? s : 0; t < spans.size(); ++t) {
      if (spans[t].group != pair.second) continue;
      const std::size_t made = std::size_t{spans[s].end - spans[s].begin} * std::size_t{spans[t].end - spans[t].begin};
      if (features.size() + made > kMaxFeatures) {
        return ResourceExhausted("the pairs of one example make more than " + std::to_string(kMaxFeatures) +
                                 " features, the limit; leave out pairs of large namespaces");
      }
      for (std::uint32_t i = spans[s].begin; i < spans[s].end; ++i) {
        const Feature a = features[i];
        for (std::uint32_t j = s == t && pair.first == pair.second ? i : spans[t].begin; j < spans[t].end; ++j) {
          const Feature b = features[j];
          if (!append(a, b)) {
            return InvalidArgument("a pair of " + std::to_string(a.value) + " and " + std::to_string(b.value) +
                                   " is beyond all numbers; scale the values down");
          }
        }
      }
    }
  }
  return {};
}

Status Interactions::Expand(std::span<const Span> spans, std::uint32_t mask, Example* example) const {
  if (!any_) {
    for (const Pair& pair : pairs_) RETURN_IF_ERROR(Cross(spans, pair, mask, example));
    return {};
  }
  // Which groups there are is only known now; each pair of them counts once, the smaller first.
  std::vector<std::uint32_t> groups;
  groups.reserve(spans.size());
  for (const Span& s : spans) groups.push_back(s.group);
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  std::vector<Pair> pairs;
  for (const auto& [first, second] : pairs_) {
    for (const std::uint32_t a : groups) {
      for (const std::uint32_t b : groups) {
        if ((first != kAny && first != a) || (second != kAny && second != b)) continue;
        pairs.push_back(first == kAny || second == kAny ? Pair(std::minmax(a, b)) : Pair(a, b));
      }
    }
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  for (const Pair& pair : pairs) RETURN_IF_ERROR(Cross(spans, pair, mask, example));
  return {};
}

}  // namespace ganglion::online
