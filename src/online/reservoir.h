// A Reservoir keeps a fair sample of a stream that has no end: every example so far is in it with the same chance.
//
// Intuition: each example draws a ticket, 64 random bits; kept are the examples with the lowest tickets. Learning some
// of them again beside the new ones keeps a model from forgetting what it has not seen for a while.
// Why tickets and not algorithm R's replacement: the lowest tickets of two samples together are a fair sample of both
// streams, whichever way round and however often they are put together; R's samples cannot be merged.
//
// A state machine; random bits are arguments. Thread-compatible.
// Memory: capacity examples, each as large as it came. Cost: one comparison an example that is not kept, O(log
// capacity) one that is. Source: bottom-k sampling, E. Cohen and H. Kaplan, "Summarizing data using bottom-k sketches",
// PODC 2007.
#pragma once

#include <cstdint>
#include <vector>

#include "online/example.h"

namespace ganglion::online {

class Reservoir {
 public:
  struct Kept {
    std::uint64_t ticket = 0;
    Example example;
  };

  explicit Reservoir(std::size_t capacity = 0) : capacity_(capacity) {}

  void Offer(const Example& example, std::uint64_t bits);
  // One of the kept, each with the same chance. REQUIRES: !empty().
  const Example& Draw(std::uint64_t bits) const { return kept_[bits % kept_.size()].example; }
  bool empty() const { return kept_.empty(); }
  std::size_t size() const { return kept_.size(); }
  std::size_t capacity() const { return capacity_; }

  // The sample of both streams. Order does not matter, and what is in both counts once.
  void Merge(const Reservoir& other);

  // In the order in which they lie, which Draw goes by; Restore takes them back in that order.
  const std::vector<Kept>& kept() const { return kept_; }
  // False when there are more than fit or the order is no heap's.
  bool Restore(std::vector<Kept> kept);

 private:
  std::size_t capacity_;
  std::vector<Kept> kept_;  // a heap with the highest ticket in front
};

}  // namespace ganglion::online
