#include "batching/batching.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace ganglion::batching {
namespace {

constexpr std::int64_t kMaxRows = 1'000'000;
constexpr std::size_t kMaxQueue = 1'000'000;
constexpr Duration kMaxDelay = std::chrono::minutes(1);
constexpr Duration kMaxExpected = std::chrono::hours(1);
constexpr Duration kFarAway = std::chrono::hours(24 * 365);  // keeps sums with deadlines in range

}  // namespace

Result<Batcher> Batcher::Create(BatchOptions options) {
  if (options.max_rows < 1 || options.max_rows > kMaxRows) {
    return InvalidArgument("max_rows must be 1 to " + std::to_string(kMaxRows) + ", got " +
                           std::to_string(options.max_rows) + "; 1 runs every request alone");
  }
  if (options.max_delay < Duration::zero() || options.max_delay > kMaxDelay) {
    return InvalidArgument("max_delay must be 0 to 60000 ms, got " + std::to_string(Milliseconds(options.max_delay)) +
                           " ms; 0 never keeps an idle worker waiting");
  }
  if (options.max_queue < 1 || options.max_queue > kMaxQueue) {
    return InvalidArgument("max_queue must be 1 to " + std::to_string(kMaxQueue) + " requests, got " +
                           std::to_string(options.max_queue));
  }
  return Batcher(options);
}

bool Batcher::Enqueue(std::uint64_t id, std::int64_t rows, TimePoint deadline, TimePoint now) {
  GANGLION_CHECK(rows >= 1);
  if (queue_.size() >= options_.max_queue) return false;
  // One that is past stays past, one far away stays far away.
  queue_.push_back({id, rows, now, std::clamp(deadline, now - Duration(1), now + kFarAway)});
  rows_ += rows;
  return true;
}

void Batcher::SetExpected(Duration expected) { expected_ = std::clamp(expected, Duration::zero(), kMaxExpected); }

TimePoint Batcher::RunBy(const Waiting& w) const {
  const Duration spare = std::max(w.deadline - expected_ - w.since, Duration::zero());
  return w.since + std::min(options_.max_delay, spare / 2);
}

bool Batcher::ShouldRun(TimePoint now, bool idle_worker) const {
  if (!idle_worker) return false;
  std::int64_t rows = 0;
  for (const Waiting& w : queue_) {
    rows += w.rows;
    if (rows >= options_.max_rows || RunBy(w) <= now) return true;  // what has expired is past its RunBy as well
  }
  return false;
}

void Batcher::MoveExpired(TimePoint now, std::vector<std::uint64_t>* expired) {
  const auto gone = std::remove_if(queue_.begin(), queue_.end(), [&](const Waiting& w) {
    if (!Expired(w, now)) return false;
    expired->push_back(w.id);
    rows_ -= w.rows;
    return true;
  });
  queue_.erase(gone, queue_.end());
}

std::vector<std::uint64_t> Batcher::Expire(TimePoint now) {
  std::vector<std::uint64_t> expired;
  MoveExpired(now, &expired);
  return expired;
}

std::vector<std::uint64_t> Batcher::Take(TimePoint now, std::vector<std::uint64_t>* expired) {
  MoveExpired(now, expired);
  std::vector<std::uint64_t> batch;
  std::int64_t rows = 0;
  while (!queue_.empty() && (batch.empty() || queue_.front().rows <= options_.max_rows - rows)) {
    rows += queue_.front().rows;
    batch.push_back(queue_.front().id);
    queue_.pop_front();
  }
  rows_ -= rows;
  return batch;
}

std::optional<TimePoint> Batcher::NextAt(bool idle_worker) const {
  if (queue_.empty()) return std::nullopt;
  if (idle_worker && rows_ >= options_.max_rows) return queue_.front().since;  // full: at once
  TimePoint next = TimePoint::max();
  for (const Waiting& w : queue_) {
    // Without a worker: the first instant at which it is too late.
    next = std::min(next, idle_worker ? RunBy(w) : w.deadline - expected_ + Duration(1));
  }
  return next;
}

}  // namespace ganglion::batching
