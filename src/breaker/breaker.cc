#include "breaker/breaker.h"

#include <algorithm>
#include <string>

namespace ganglion::breaker {
namespace {

constexpr Duration kMaxOpenFor = std::chrono::hours(24);
constexpr int kMaxProbes = 1000;

std::string InMilliseconds(Duration d) { return std::to_string(Milliseconds(d)) + " ms"; }

}  // namespace

std::string_view Name(State state) {
  switch (state) {
    case State::kClosed:
      return "closed";
    case State::kOpen:
      return "open";
    case State::kHalfOpen:
      return "half-open";
  }
  return "";
}

Result<CircuitBreaker> CircuitBreaker::Create(BreakerOptions options) {
  // Written so that NaN is refused as well.
  if (!(options.keep >= 0 && options.keep < 1)) {
    return InvalidArgument("keep must be >= 0 and < 1, got " + std::to_string(options.keep) + "; .9 averages over ten");
  }
  if (!(options.trip >= 0 && options.trip < 1)) {
    return InvalidArgument("trip must be >= 0 and < 1 (the average never exceeds 1), got " +
                           std::to_string(options.trip));
  }
  if (options.open_for <= Duration::zero() || options.open_for > kMaxOpenFor) {
    return InvalidArgument("open_for must be above 0 and at most 24 hours, got " + InMilliseconds(options.open_for));
  }
  if (options.probes < 1 || options.probes > kMaxProbes) {
    return InvalidArgument("probes must be 1 to " + std::to_string(kMaxProbes) + ", got " +
                           std::to_string(options.probes));
  }
  if (options.slow <= Duration::zero()) {
    return InvalidArgument("slow must be above 0, got " + InMilliseconds(options.slow) +
                           "; leave it out when no answer is too slow");
  }
  return CircuitBreaker(options);
}

CircuitBreaker::Phase CircuitBreaker::At(TimePoint now) const {
  Phase phase{state_, opened_at_, false};
  if (phase.state == State::kHalfOpen && !out_.empty() && now - out_.front() >= options_.open_for) {
    // It reopened when the probe's time was up, not when somebody looked.
    phase = {State::kOpen, out_.front() + options_.open_for, true};
  }
  if (phase.state == State::kOpen && now - phase.opened_at >= options_.open_for) phase.state = State::kHalfOpen;
  return phase;
}

void CircuitBreaker::Advance(TimePoint now) {
  const Phase phase = At(now);
  if (phase.lapsed) Open(phase.opened_at);
  state_ = phase.state;
}

void CircuitBreaker::Open(TimePoint at) {
  state_ = State::kOpen;
  opened_at_ = at;
  ++generation_;
  out_.clear();
  succeeded_ = 0;
}

std::optional<Permit> CircuitBreaker::TryAcquire(TimePoint now) {
  Advance(now);
  if (state_ == State::kClosed) return Permit{generation_, now, false};
  if (state_ == State::kOpen) return std::nullopt;
  if (static_cast<int>(out_.size()) + succeeded_ >= options_.probes) return std::nullopt;
  last_probe_ = std::max(now, last_probe_ + Duration(1));
  out_.push_back(last_probe_);
  return Permit{generation_, last_probe_, true};
}

void CircuitBreaker::Report(const Permit& permit, bool ok, TimePoint now) {
  Advance(now);
  if (permit.generation != generation_) return;
  const bool failed = !ok || now - permit.at > options_.slow;
  if (state_ == State::kClosed) {
    average_ = options_.keep * average_ + (1 - options_.keep) * (failed ? 1 : 0);
    if (average_ > options_.trip) {
      ++trips_;
      Open(now);
    }
    return;
  }
  const auto probe = std::find(out_.begin(), out_.end(), permit.at);
  if (probe == out_.end()) return;  // reported before
  out_.erase(probe);
  if (failed) {
    Open(now);
  } else if (++succeeded_ == options_.probes) {
    state_ = State::kClosed;
    average_ = 0;
    succeeded_ = 0;
    ++generation_;  // a second report of a probe is not a report of the closed state
  }
}

TimePoint CircuitBreaker::probe_at() const {
  if (state_ == State::kClosed) return TimePoint::min();
  const bool all_out = state_ == State::kHalfOpen && static_cast<int>(out_.size()) + succeeded_ >= options_.probes;
  // All probes out and silent: the oldest runs out, and then the breaker stays open once more.
  return all_out ? out_.front() + 2 * options_.open_for : opened_at_ + options_.open_for;
}

}  // namespace ganglion::breaker
