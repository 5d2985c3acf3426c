#include "online/reservoir.h"

#include <algorithm>
#include <utility>

namespace ganglion::online {
namespace {

bool Lower(const Reservoir::Kept& a, const Reservoir::Kept& b) { return a.ticket < b.ticket; }

}  // namespace

void Reservoir::Offer(const Example& example, std::uint64_t bits) {
  if (capacity_ == 0) return;
  if (kept_.size() < capacity_) {
    kept_.push_back({bits, example});
    std::push_heap(kept_.begin(), kept_.end(), Lower);
  } else if (bits < kept_.front().ticket) {
    std::pop_heap(kept_.begin(), kept_.end(), Lower);
    kept_.back().ticket = bits;
    kept_.back().example = example;  // into memory that is there already
    std::push_heap(kept_.begin(), kept_.end(), Lower);
  }
}

void Reservoir::Merge(const Reservoir& other) {
  kept_.insert(kept_.end(), other.kept_.begin(), other.kept_.end());
  std::stable_sort(kept_.begin(), kept_.end(), Lower);
  const auto same = [](const Kept& a, const Kept& b) { return a.ticket == b.ticket; };
  kept_.erase(std::unique(kept_.begin(), kept_.end(), same), kept_.end());
  if (kept_.size() > capacity_) kept_.resize(capacity_);
  std::make_heap(kept_.begin(), kept_.end(), Lower);
}

bool Reservoir::Restore(std::vector<Kept> kept) {
  if (kept.size() > capacity_ || !std::is_heap(kept.begin(), kept.end(), Lower)) return false;
  kept_ = std::move(kept);
  return true;
}

}  // namespace ganglion::online
