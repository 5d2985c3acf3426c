// A Batcher says when waiting requests run, and which of them together.
//
// Intuition: a lift. When it stands idle it takes whoever is there, at once; while it is under way people gather, and
// the next ride takes as many as fit. The busier it is the fuller it goes, and nobody waits for company at a quiet
// hour.
//
// Policy ("natural batching"): with an idle worker and max_delay 0, whatever waits runs at once. While all workers are
// busy requests gather. One batch is the longest run of waiting requests, first in first out, whose rows add up to at
// most max_rows; a request with more rows than that runs alone. With max_delay > 0 an idle worker is kept waiting for
// company too, until max_rows are there or the first request has waited max_delay, or half of the time that it can
// spare (deadline - expected): a request must not be lost to our own politeness.
// Why not a timer in any case (max_delay a few milliseconds, as model servers often have it): on an idle node it is
// pure latency, on a busy one a batch is full before it rings. It pays only when a bigger batch costs hardly more than
// a small one and work arrives in trickles. Why strictly first in first out and not the best fit: a small request
// behind a big one would always overtake it, and the big one could wait for ever.
//
// Requests whose deadline has passed, or is nearer than a run is expected to take (SetExpected), come out as expired
// and never in a batch: running them would only make others late. An id comes out exactly once, in a batch or expired.
//
// How to drive it, on every event (a request came, a worker became idle, the time NextAt named):
//   for (id : batcher.Expire(now)) ...refuse it...
//   while (idle worker && batcher.ShouldRun(now, true)) run batcher.Take(now, &expired);
//   wake up at batcher.NextAt(idle worker)
//
// Ranges: 1 <= max_rows <= 1,000,000; 0 <= max_delay <= 1 min; 1 <= max_queue <= 1,000,000; else Create refuses.
// Units: rows of a model's input. A deadline more than a year away counts as a year away.
// Time is an argument, never read. A state machine, copyable. Thread-compatible; share it as Guarded<Batcher>.
// Cost: Enqueue O(1); the others O(requests waiting), a nanosecond or so each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::batching {

struct BatchOptions {
  std::int64_t max_rows = 64;
  Duration max_delay{0};         // how long an idle worker is kept waiting for company
  std::size_t max_queue = 1024;  // requests
};

class Batcher {
 public:
  static Result<Batcher> Create(BatchOptions options);

  // false: the queue is full, refuse the request. `id` is the caller's and only handed back; TimePoint::max() is no
  // deadline. REQUIRES: rows >= 1.
  [[nodiscard]] bool Enqueue(std::uint64_t id, std::int64_t rows, TimePoint deadline, TimePoint now);

  // How long a batch takes from Take to its answers, as far as is known; 0 at first. Cut to 0..1 h.
  void SetExpected(Duration expected);

  // Whether to Take now. Never without an idle worker; with one, also when something has only to be reported expired.
  bool ShouldRun(TimePoint now, bool idle_worker) const;
  // The next batch, whether it is time for it or not (at shutdown, say): empty when all that waits has expired. What
  // has expired is added to *expired.
  std::vector<std::uint64_t> Take(TimePoint now, std::vector<std::uint64_t>* expired);
  // What has expired, and nothing else: for while all workers are busy.
  std::vector<std::uint64_t> Expire(TimePoint now);

  // When to look again if nothing happens before, perhaps in the past: with an idle worker when ShouldRun will be true,
  // without one when something expires. nullopt: nothing waits.
  std::optional<TimePoint> NextAt(bool idle_worker = true) const;

  std::size_t waiting() const { return queue_.size(); }
  std::int64_t waiting_rows() const { return rows_; }

 private:
  struct Waiting {
    std::uint64_t id;
    std::int64_t rows;
    TimePoint since;
    TimePoint deadline;
  };

  explicit Batcher(const BatchOptions& options) : options_(options) {}
  bool Expired(const Waiting& w, TimePoint now) const { return w.deadline < now + expected_; }
  TimePoint RunBy(const Waiting& w) const;  // an idle worker waits no longer than this
  void MoveExpired(TimePoint now, std::vector<std::uint64_t>* expired);

  BatchOptions options_;
  Duration expected_{};
  std::deque<Waiting> queue_;  // first in first out
  std::int64_t rows_ = 0;      // of all in queue_
};

}  // namespace ganglion::batching
