// A CircuitBreaker stops sending work to a peer that keeps failing, and probes it back.
//
// Intuition: a fuse. While the peer works, every call goes through and its outcome moves an average of failures. Too
// many failures and the fuse trips: nobody calls, nobody waits for a timeout, and the peer is left alone to recover.
// After a while a few calls are let through as probes; all of them must succeed before the rest follow.
//
//     average > trip             open_for elapsed
//   CLOSED ---------> OPEN ------------------------> HALF-OPEN --all probes ok--> CLOSED, average 0
//                      ^------ a probe failed, or was unreported for open_for -----'
//
// Definition: failed = 1 when the call was not ok or took longer than `slow`, else 0;
//   average = keep * average + (1 - keep) * failed, from 0. With keep .9 and trip .5, seven failures in a row trip it.
// Why an exponential average and not N failures in a row: one success in a stream of 90 % failures sets a run counter
// back to zero, so a run counter may never trip. Why not failures in a time window: a peer that is rarely called would
// never gather enough of them.
// A report that belongs to an earlier life of the breaker (the call began before it last opened or closed) says nothing
// about the peer now, and is ignored. So is a second report of the same probe. A permit of the closed state that is
// never reported changes nothing; an unreported probe counts as failed, so a lost call cannot hold the breaker
// half-open for ever.
//
// Ranges: 0 <= keep < 1, 0 <= trip < 1, 0 < open_for <= 24 h, 1 <= probes <= 1000, slow > 0; else Create refuses.
// Time is an argument, never read. A `now` slightly earlier than the last one (threads race) does no harm.
// A state machine, copyable. Thread-compatible; share it as Guarded<CircuitBreaker>.
// Cost: O(probes) a call; allocates only for probes.
// Source: M. Nygard, "Release It!", 2007, chapter 5 (the three states). We differ in the average and the expiring
// probe.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::breaker {

struct BreakerOptions {
  double keep = .9;                              // what the average keeps of itself at each report
  double trip = .5;                              // opens when the average is above this
  Duration open_for = std::chrono::seconds(30);  // no calls for so long; also how long a probe may go unreported
  int probes = 1;                                // how many must succeed to close, and how many may be out at once
  Duration slow = Duration::max();               // a call that takes longer than this failed, whatever it brought
};

enum class State : std::uint8_t { kClosed, kOpen, kHalfOpen };
std::string_view Name(State state);  // "closed", "open", "half-open"

// Leave to make one call. Hand it back to Report when the call ends, however it ends.
struct Permit {
  std::uint64_t generation = 0;
  TimePoint at{};  // when it was given; of probes given in the same nanosecond, a nanosecond later each
  bool probe = false;
};

class CircuitBreaker {
 public:
  static Result<CircuitBreaker> Create(BreakerOptions options);

  // nullopt: do not call, answer from elsewhere. Not an error.
  [[nodiscard]] std::optional<Permit> TryAcquire(TimePoint now);
  void Report(const Permit& permit, bool ok, TimePoint now);

  // What TryAcquire would find at `now`; changes nothing.
  State state(TimePoint now) const { return At(now).state; }
  double average() const { return average_; }  // of failures, 0..1; stands still while not closed
  // The earliest time at which a call may go through when nothing more is reported, as seen by the last TryAcquire or
  // Report. TimePoint::min(): closed, at any time.
  TimePoint probe_at() const;
  std::uint64_t trips() const { return trips_; }  // from closed to open; failed probes are not counted again

 private:
  struct Phase {
    State state;
    TimePoint opened_at;
    bool lapsed;  // a probe went unreported for too long on the way
  };

  explicit CircuitBreaker(const BreakerOptions& options) : options_(options) {}
  Phase At(TimePoint now) const;
  void Advance(TimePoint now);
  void Open(TimePoint at);

  BreakerOptions options_;
  State state_ = State::kClosed;
  double average_ = 0;
  TimePoint opened_at_{};  // of the last opening
  TimePoint last_probe_ =
      TimePoint::min();           // probes are told apart by when they were given, so no two share an instant
  std::vector<TimePoint> out_;    // half-open: when each unreported probe was given, oldest first
  int succeeded_ = 0;             // half-open: probes reported ok; out_.size() + succeeded_ <= probes
  std::uint64_t generation_ = 0;  // counts openings and closings: permits of another generation are stale
  std::uint64_t trips_ = 0;
};

}  // namespace ganglion::breaker
