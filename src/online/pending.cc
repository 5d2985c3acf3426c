#include "online/pending.h"

#include <utility>

namespace ganglion::online {

void Pending::Forget(TimePoint now) {
  while (!order_.empty()) {
    const Line& oldest = order_.front();
    const auto at = open_.find(oldest.id);
    const bool open = at != open_.end() && at->second.serial == oldest.serial;
    if (open && open_.size() <= options_.capacity && now - oldest.at <= options_.keep) {
      // What was taken leaves its line behind; no more of these are kept than there may be predictions.
      if (order_.size() <= 2 * options_.capacity + 16) return;
      std::deque<Line> still;
      for (Line& line : order_) {
        const auto there = open_.find(line.id);
        if (there != open_.end() && there->second.serial == line.serial) still.push_back(std::move(line));
      }
      order_ = std::move(still);
      return;
    }
    if (open) {
      open_.erase(at);
      ++forgotten_;
    }
    order_.pop_front();
  }
}

void Pending::Remember(std::string id, Example example, TimePoint now) {
  ++serial_;
  order_.push_back({id, serial_, now});
  open_.insert_or_assign(std::move(id), Open{std::move(example), serial_});
  Forget(now);
}

std::optional<Example> Pending::Take(const std::string& id, TimePoint now) {
  Forget(now);
  const auto at = open_.find(id);
  if (at == open_.end()) return std::nullopt;
  std::optional<Example> example = std::move(at->second.example);
  open_.erase(at);
  return example;
}

}  // namespace ganglion::online
