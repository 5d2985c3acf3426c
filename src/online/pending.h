// Pending keeps what was predicted until it is known what came of it.
//
// Intuition: the answer goes out now, the truth comes back hours later and names only the decision. To learn from it
// one needs the features as they were then, not as they are now.
// Bounded: of more than `capacity` open predictions the oldest are forgotten; so is what waits longer than `keep`. An
// outcome that comes too late, twice, or for a decision that was never made is told apart from one that fits: absent.
//
// A state machine; `now` is an argument. Thread-compatible.
// Memory: capacity examples, each as large as it came, in one list and one index. Cost: O(1) a call, amortised.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "online/example.h"

namespace ganglion::online {

struct PendingOptions {
  std::size_t capacity = 100'000;
  Duration keep = std::chrono::hours(24);
};

class Pending {
 public:
  explicit Pending(const PendingOptions& options) : options_(options) {}

  // A second prediction under the same id replaces the first.
  void Remember(std::string id, Example example, TimePoint now);
  // The example as it was, to learn from once; nullopt when it is not (or no longer) here.
  std::optional<Example> Take(const std::string& id, TimePoint now);

  std::size_t size() const { return open_.size(); }
  std::uint64_t forgotten() const { return forgotten_; }  // by capacity or age

 private:
  struct Open {
    Example example;
    std::uint64_t serial = 0;
  };
  struct Line {
    std::string id;
    std::uint64_t serial = 0;
    TimePoint at;
  };
  void Forget(TimePoint now);

  PendingOptions options_;
  std::unordered_map<std::string, Open> open_;
  std::deque<Line> order_;  // oldest first; entries whose serial is no longer open are skipped
  std::uint64_t serial_ = 0;
  std::uint64_t forgotten_ = 0;
};

}  // namespace ganglion::online
