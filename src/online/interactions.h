// Interactions make a feature of each pair of features out of two groups: "this user" and "this page" say less apart
// than "this user on this page" together, and a linear model knows only what is a feature.
//
// A group is a namespace of VW's text, told by its first letter, or a column of a CSV. Pairs are written "ab" (first
// letters; ":" is any namespace; " " the one without a name) or "one,other" (columns).
//   a with b    every feature of a with every one of b
//   a with a    every pair once, and each feature with itself
// The value of a pair is the product of the two; its place is HashPair's.
//
// A value; const members are thread-safe. Errors: pairs that are no pairs; an example that would grow beyond
// kMaxFeatures. Cost: about 1 ns a pair made.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "online/example.h"

namespace ganglion::online {

// Features [begin, end) of an example belong to a group. A group may have several spans.
struct Span {
  std::uint32_t group = 0;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

class Interactions {
 public:
  static constexpr std::uint32_t kAny = 0xffffffff;

  Interactions() = default;
  // "ab", "a:", "::".
  static Result<Interactions> OfLetters(const std::vector<std::string>& pairs);
  // "one,other"; the group of a column is its number in `columns`.
  static Result<Interactions> OfColumns(const std::vector<std::string>& pairs, const std::vector<std::string>& columns);

  bool empty() const { return pairs_.empty(); }
  // Appends the pairs' features.
  Status Expand(std::span<const Span> spans, std::uint32_t mask, Example* example) const;

 private:
  using Pair = std::pair<std::uint32_t, std::uint32_t>;
  static Status Cross(std::span<const Span> spans, Pair pair, std::uint32_t mask, Example* example);

  std::vector<Pair> pairs_;
  bool any_ = false;  // some pair has a kAny
};

}  // namespace ganglion::online
