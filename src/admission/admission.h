// A ConcurrencyLimit refuses requests that would only make the others late.
//
// Intuition: a shop lets in only as many as it can serve in time. The limit is on requests inside (queued or being
// served), because that is what a new one has to wait behind. It feels its way: a little more while the limit is used
// and answers are on time, a tenth less when waiting made too many of them late.
//
// Definition (additive increase, multiplicative decrease), L the limit, real-valued, at least L finished in a round:
//   late > late_share * finished                    ->  L = max(min, backoff * L);  step = (what it lost) / 50
//   otherwise, if at least L/2 were inside at once  ->  L = min(max, L + step);     step = min(1, 2 step)
// A round lasts at least `window`, and at least as long as the slowest request of this round and the one before took
// (50 windows at most): a limit that moves again before its last move can be felt runs away. Too many late ones end a
// round early, but not before `window`; so it shrinks at most once per window. After that only requests admitted since
// can make it shrink again: the older ones tell what is known.
// The step begins small and doubles: six good rounds undo one bad one, so about one round in seven is bad at a limit
// that is right, and from far below it still grows by one a round. With a step of 1 throughout, the limit of a server
// with one or two workers, which should stay near ten, overshoots all the time: a quarter of the answers come late.
//
// Why lateness and not a gradient of latency (shortest or long-term latency over recent latency): a gradient takes
// every rise of the mean for a queue. Here service time is bimodal: answers come from a cheap stage or an expensive
// one, or from a cache. When the mix turns to the expensive stage the mean rises tenfold without any queue, and a
// gradient refuses work that would be on time; when it turns to the cheap one a long queue still looks fast. Lateness
// is what a user sees, whatever the mix.
// Why only lateness that waiting caused (Judge): what is late by its own service time alone is late at any limit. If it
// counted, a server whose slowest twentieth misses the deadline would come to refuse nearly everybody in vain.
// Why L/2 and not L before it grows: growing only when it was hit would mean that somebody was refused; and a limit
// that shrank by chance at low load would creep down to where it refuses. `min` is best the number of workers: fewer
// inside leaves workers idle and shortens no queue.
//
// Ranges: 1 <= min <= initial <= max <= 1,000,000; 0 <= late_share < 1; 0 < backoff < 1; 0 < window <= 1 h; else Create
// refuses. Time is an argument, never read; times slightly out of order do no harm.
// A state machine, copyable. Thread-compatible; share it as Guarded<ConcurrencyLimit>. Cost: O(1), no allocation.
// Source: the congestion avoidance of TCP: D. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for
// congestion avoidance in computer networks", 1989; V. Jacobson, "Congestion avoidance and control", 1988. We differ in
// that the signal is a share of late answers in place of a lost packet, a round has a shortest length, and the
// step varies.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::admission {

struct AdmissionOptions {
  int initial = 32;
  int min = 1;  // best the number of workers
  int max = 1024;
  double late_share = .05;  // of finished requests, tolerated
  double backoff = .9;
  Duration window = std::chrono::milliseconds(100);
};

enum class AdmissionOutcome : std::uint8_t {
  kOk,       // answered in time
  kLate,     // waiting made it miss its deadline, or it was dropped because the deadline could not be met any more
  kIgnored,  // says nothing about load: cancelled, refused as malformed, late without having waited
};
// The outcome of a request that had `allowed` from TryAcquire to its deadline and `took` so long, `waited` of it in the
// queue. Late but in time without the wait: kLate. Late in any case: kIgnored.
AdmissionOutcome Judge(Duration took, Duration waited, Duration allowed);

class ConcurrencyLimit {
 public:
  static Result<ConcurrencyLimit> Create(AdmissionOptions options);

  // false: refuse the request, now. True: it is inside until Release.
  [[nodiscard]] bool TryAcquire();
  // `took`: from TryAcquire to now, queueing included. REQUIRES: a TryAcquire that was true and is not released yet.
  void Release(AdmissionOutcome outcome, Duration took, TimePoint now);

  int limit() const { return static_cast<int>(limit_); }
  int in_flight() const { return in_flight_; }  // may exceed limit() for a while after it shrank
  // About how long until a slot is free: the average time inside over the number inside (J. Little, 1961). `window`
  // until something has finished. A client that waits this long finds one slot, and all others who wait: add jitter.
  Duration RetryAfter() const;

 private:
  explicit ConcurrencyLimit(const AdmissionOptions& options) : options_(options), limit_(options.initial) {}
  void BeginRound(TimePoint now);

  AdmissionOptions options_;
  double limit_;
  double step_ = 1;
  int in_flight_ = 0;
  double average_took_ns_ = -1;  // exponential, a sixteenth a request; below 0: nothing finished yet

  // This round.
  bool begun_ = false;
  TimePoint began_{};
  int most_inside_ = 0;
  std::int64_t finished_ = 0;
  std::int64_t late_ = 0;
  Duration slowest_{};
  Duration slowest_before_{};               // of the round before
  TimePoint shrunk_at_ = TimePoint::min();  // requests admitted earlier do not count
};

}  // namespace ganglion::admission
