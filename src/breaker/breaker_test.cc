#include "breaker/breaker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"

namespace ganglion::breaker {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

const TimePoint kStart{seconds(1000)};

CircuitBreaker Make(BreakerOptions options = {}) {
  auto breaker = CircuitBreaker::Create(options);
  EXPECT_TRUE(breaker.ok()) << breaker.status().message();
  return *breaker;
}

// One call that begins and ends at `now`. False: it was not let through.
bool Call(CircuitBreaker& breaker, bool ok, TimePoint now) {
  const auto permit = breaker.TryAcquire(now);
  if (permit) breaker.Report(*permit, ok, now);
  return permit.has_value();
}

void Trip(CircuitBreaker& breaker, TimePoint now) {
  for (int i = 0; i < 1000 && breaker.state(now) == State::kClosed; ++i) Call(breaker, false, now);
  ASSERT_EQ(breaker.state(now), State::kOpen);
}

TEST(CircuitBreaker, LetsEveryCallThroughWhileThePeerWorks) {
  CircuitBreaker breaker = Make();
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(Call(breaker, true, kStart + milliseconds(i)));
  EXPECT_EQ(breaker.average(), 0);
  EXPECT_EQ(breaker.trips(), 0u);
  EXPECT_EQ(breaker.probe_at(), TimePoint::min());
}

TEST(CircuitBreaker, TripsAfterSevenFailuresInARowByDefault) {
  CircuitBreaker breaker = Make();
  for (int i = 0; i < 6; ++i) Call(breaker, false, kStart);
  EXPECT_EQ(breaker.state(kStart), State::kClosed);
  Call(breaker, false, kStart);
  EXPECT_EQ(breaker.state(kStart), State::kOpen);
  EXPECT_EQ(breaker.trips(), 1u);
  EXPECT_NEAR(breaker.average(), 1 - std::pow(.9, 7), 1e-12);
  EXPECT_EQ(breaker.probe_at(), kStart + seconds(30));
}

// Every tenth call succeeds. A counter of ten failures in a row is set back to zero each time and never trips.
TEST(CircuitBreaker, TripsInAStreamOf90PercentFailuresWhereARunCounterNeverDoes) {
  for (int phase = 0; phase < 10; ++phase) {
    CircuitBreaker breaker = Make();
    int run = 0, longest_run = 0, tripped_at = -1;
    for (int i = 0; i < 1000; ++i) {
      const bool ok = (i + phase) % 10 == 0;
      run = ok ? 0 : run + 1;
      longest_run = std::max(longest_run, run);
      if (tripped_at < 0) Call(breaker, ok, kStart);
      if (tripped_at < 0 && breaker.state(kStart) == State::kOpen) tripped_at = i;
    }
    EXPECT_LT(longest_run, 10) << "the run counter would have tripped: the stream shows nothing";
    EXPECT_GE(tripped_at, 0) << "phase " << phase;
    EXPECT_LT(tripped_at, 20) << "phase " << phase;
  }
}

// Three of four fail: never even four in a row.
TEST(CircuitBreaker, TripsWhereNoRunIsLongerThanThree) {
  CircuitBreaker breaker = Make();
  for (int i = 0; i < 40; ++i) Call(breaker, i % 4 == 0, kStart);
  EXPECT_EQ(breaker.state(kStart), State::kOpen);
}

TEST(CircuitBreaker, ToleratesOneFailureInFive) {
  CircuitBreaker breaker = Make();
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(Call(breaker, i % 5 != 0, kStart));
  EXPECT_EQ(breaker.trips(), 0u);
}

TEST(CircuitBreaker, CountsASlowSuccessAsFailure) {
  BreakerOptions options;
  options.slow = milliseconds(100);
  for (const bool too_slow : {false, true}) {
    CircuitBreaker breaker = Make(options);
    for (int i = 0; i < 20; ++i) {
      const auto permit = breaker.TryAcquire(kStart);
      if (!permit) break;
      breaker.Report(*permit, true, kStart + milliseconds(100) + nanoseconds(too_slow ? 1 : 0));
    }
    EXPECT_EQ(breaker.trips(), too_slow ? 1u : 0u);
  }
}

TEST(CircuitBreaker, ClosesWhenTheProbeSucceedsAndForgetsTheAverage) {
  CircuitBreaker breaker = Make();
  Trip(breaker, kStart);
  EXPECT_FALSE(breaker.TryAcquire(kStart + seconds(30) - nanoseconds(1)));
  const auto probe = breaker.TryAcquire(kStart + seconds(30));
  ASSERT_TRUE(probe);
  EXPECT_TRUE(probe->probe);
  EXPECT_EQ(breaker.state(kStart + seconds(30)), State::kHalfOpen);
  EXPECT_FALSE(breaker.TryAcquire(kStart + seconds(30))) << "one probe at once";
  breaker.Report(*probe, true, kStart + seconds(31));
  EXPECT_EQ(breaker.state(kStart + seconds(31)), State::kClosed);
  EXPECT_EQ(breaker.average(), 0);
  const auto next = breaker.TryAcquire(kStart + seconds(31));
  ASSERT_TRUE(next);
  EXPECT_FALSE(next->probe);
}

TEST(CircuitBreaker, StaysOpenOnceMoreWhenTheProbeFails) {
  CircuitBreaker breaker = Make();
  Trip(breaker, kStart);
  const TimePoint failed = kStart + seconds(35);
  ASSERT_TRUE(Call(breaker, false, failed));
  EXPECT_EQ(breaker.probe_at(), failed + seconds(30));
  EXPECT_FALSE(breaker.TryAcquire(failed + seconds(30) - nanoseconds(1)));
  EXPECT_TRUE(breaker.TryAcquire(failed + seconds(30)));
  EXPECT_EQ(breaker.trips(), 1u);
}

TEST(CircuitBreaker, NeedsAllItsProbesAndOneFailureReopens) {
  BreakerOptions options;
  options.probes = 3;
  for (int failing = -1; failing < 3; ++failing) {
    CircuitBreaker breaker = Make(options);
    Trip(breaker, kStart);
    const TimePoint later = kStart + seconds(30);
    std::vector<Permit> probes;
    for (int i = 0; i < 3; ++i) {
      const auto permit = breaker.TryAcquire(later + seconds(i));
      ASSERT_TRUE(permit);
      probes.push_back(*permit);
    }
    EXPECT_FALSE(breaker.TryAcquire(later + seconds(3)));
    for (int i = 0; i < 3; ++i) breaker.Report(probes[i], i != failing, later + seconds(4));
    EXPECT_EQ(breaker.state(later + seconds(4)), failing < 0 ? State::kClosed : State::kOpen) << failing;
  }
}

TEST(CircuitBreaker, IsNotClosedByOneProbeReportedTwice) {
  BreakerOptions options;
  options.probes = 2;
  CircuitBreaker breaker = Make(options);
  Trip(breaker, kStart);
  const TimePoint later = kStart + seconds(30);
  const auto probe = breaker.TryAcquire(later);
  ASSERT_TRUE(probe);
  breaker.Report(*probe, true, later);
  breaker.Report(*probe, true, later);
  EXPECT_EQ(breaker.state(later), State::kHalfOpen);
  const auto second = breaker.TryAcquire(later);  // of the same instant as the first
  ASSERT_TRUE(second);
  breaker.Report(*probe, true, later);
  EXPECT_EQ(breaker.state(later), State::kHalfOpen);
  breaker.Report(*second, true, later);
  EXPECT_EQ(breaker.state(later), State::kClosed);
}

TEST(CircuitBreaker, IgnoresReportsFromBeforeTheTrip) {
  CircuitBreaker breaker = Make();
  const auto old_failure = breaker.TryAcquire(kStart);
  const auto old_success = breaker.TryAcquire(kStart);
  ASSERT_TRUE(old_failure && old_success);
  Trip(breaker, kStart);
  const TimePoint later = kStart + seconds(30);
  const auto probe = breaker.TryAcquire(later);
  ASSERT_TRUE(probe);
  EXPECT_NE(probe->generation, old_success->generation);
  breaker.Report(*old_success, true, later);
  EXPECT_EQ(breaker.state(later), State::kHalfOpen) << "an old success is no probe";
  breaker.Report(*old_failure, false, later);
  EXPECT_EQ(breaker.state(later), State::kHalfOpen) << "an old failure is none either";
  breaker.Report(*probe, true, later);
  breaker.Report(*old_failure, false, later);
  EXPECT_EQ(breaker.average(), 0);
}

TEST(CircuitBreaker, CountsAnUnreportedProbeAsFailedAndProbesAgain) {
  CircuitBreaker breaker = Make();
  Trip(breaker, kStart);
  const TimePoint lost = kStart + seconds(40);
  const auto probe = breaker.TryAcquire(lost);
  ASSERT_TRUE(probe);
  EXPECT_EQ(breaker.probe_at(), lost + seconds(60));
  EXPECT_EQ(breaker.state(lost + seconds(30) - nanoseconds(1)), State::kHalfOpen);
  EXPECT_EQ(breaker.state(lost + seconds(30)), State::kOpen);
  EXPECT_EQ(breaker.state(lost + seconds(60)), State::kHalfOpen);
  EXPECT_FALSE(breaker.TryAcquire(lost + seconds(59)));
  const auto second = breaker.TryAcquire(lost + seconds(60));
  ASSERT_TRUE(second);
  breaker.Report(*probe, true, lost + seconds(60));  // it comes back after all, too late
  EXPECT_EQ(breaker.state(lost + seconds(60)), State::kHalfOpen);
  breaker.Report(*second, true, lost + seconds(61));
  EXPECT_EQ(breaker.state(lost + seconds(61)), State::kClosed);
}

// A caller every millisecond for twenty minutes; the peer is dead, and says so at once, after a timeout, or never.
TEST(CircuitBreaker, SendsADeadPeerAtMostFiveCallsAMinuteUnderHeavyDemand) {
  for (const int timeout_ms : {0, 1000, -1}) {
    CircuitBreaker breaker = Make();
    Trip(breaker, kStart);
    std::deque<TimePoint> last_minute;
    std::map<TimePoint, Permit> pending;
    int calls = 0;
    for (TimePoint now = kStart; now < kStart + minutes(20); now += milliseconds(1)) {
      while (!pending.empty() && pending.begin()->first <= now) {
        breaker.Report(pending.begin()->second, false, now);
        pending.erase(pending.begin());
      }
      if (const auto permit = breaker.TryAcquire(now)) {
        ++calls;
        last_minute.push_back(now);
        if (timeout_ms >= 0) pending[now + milliseconds(timeout_ms)] = *permit;
      }
      while (!last_minute.empty() && last_minute.front() <= now - minutes(1)) last_minute.pop_front();
      ASSERT_LE(last_minute.size(), 5u);
    }
    EXPECT_GE(calls, 15) << "it must be probed, or it never comes back; timeout " << timeout_ms;
  }
}

TEST(CircuitBreaker, RefusesOptionsOutOfRangeAndNamesThem) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto message = [](auto change) {
    BreakerOptions options;
    change(options);
    const auto breaker = CircuitBreaker::Create(options);
    return breaker.ok() ? std::string("accepted") : breaker.status().message();
  };
  for (const double bad : {-.1, 1., nan}) {
    EXPECT_EQ(message([&](auto& o) { o.keep = bad; }).rfind("keep must be", 0), 0u) << bad;
    EXPECT_EQ(message([&](auto& o) { o.trip = bad; }).rfind("trip must be", 0), 0u) << bad;
  }
  for (const Duration bad : {Duration(0), Duration(-1), Duration(hours(25)), Duration::max()}) {
    EXPECT_EQ(message([&](auto& o) { o.open_for = bad; }).rfind("open_for must be", 0), 0u) << bad.count();
  }
  for (const int bad : {0, -1, 1001}) {
    EXPECT_EQ(message([&](auto& o) { o.probes = bad; }).rfind("probes must be", 0), 0u) << bad;
  }
  EXPECT_EQ(message([](auto& o) { o.slow = Duration::zero(); }).rfind("slow must be", 0), 0u);
  EXPECT_EQ(message([](auto& o) { o.keep = 0, o.trip = 0, o.probes = 1000, o.open_for = hours(24); }), "accepted");
}

// The same machine told with a ticking clock and explicit sets, whole milliseconds: everything happens when it is due.
class Model {
 public:
  explicit Model(const BreakerOptions& options) : options_(options), open_for_(options.open_for / milliseconds(1)) {}

  void TickTo(long now) {
    for (; now_ < now;) {
      ++now_;
      if (state_ == State::kHalfOpen) {
        for (const auto& [id, at] : valid_) {
          if (now_ - at >= open_for_) {
            Become(State::kOpen);
            break;
          }
        }
      }
      if (state_ == State::kOpen && now_ - since_ >= open_for_) Become(State::kHalfOpen);
    }
  }

  bool TryAcquire(int id) {
    if (state_ == State::kOpen) return false;
    if (state_ == State::kHalfOpen && given_ == options_.probes) return false;
    ++given_;
    valid_[id] = now_;
    return true;
  }

  void Report(int id, bool ok) {
    const auto found = valid_.find(id);
    if (found == valid_.end()) return;
    const bool failed = !ok || now_ - found->second > options_.slow / milliseconds(1);
    if (state_ == State::kClosed) {  // a closed permit may be reported again: the breaker does not tell them apart
      average = options_.keep * average + (failed ? 1 - options_.keep : 0);
      if (average > options_.trip) Become(State::kOpen), ++trips;
      return;
    }
    valid_.erase(found);
    ++good_;
    if (failed) {
      Become(State::kOpen);
    } else if (good_ == options_.probes) {
      Become(State::kClosed);
      average = 0;
    }
  }

  State state() const { return state_; }
  double average = 0;
  std::uint64_t trips = 0;

 private:
  void Become(State state) {
    state_ = state;
    since_ = now_;
    given_ = good_ = 0;
    valid_.clear();
  }

  BreakerOptions options_;
  long open_for_;
  long now_ = 0;
  long since_ = 0;
  int given_ = 0;
  int good_ = 0;
  State state_ = State::kClosed;
  std::map<int, long> valid_;  // permits whose report still counts, and when they were given
};

TEST(CircuitBreakerProperty, AgreesWithATickingModel) {
  std::map<State, int> seen;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    BreakerOptions options;
    options.keep = random.Uniform(0, .95);
    options.trip = random.Uniform(0, .9);
    options.open_for = milliseconds(1 + random.Below(50));
    options.probes = 1 + static_cast<int>(random.Below(4));
    if (random.Below(2) == 0) options.slow = milliseconds(1 + random.Below(30));
    CircuitBreaker breaker = Make(options);
    Model model(options);
    std::map<int, Permit> permits;
    long now_ms = 0;
    double failing = random.Uniform();
    for (int step = 0; step < 500; ++step) {
      if (random.Below(50) == 0) failing = random.Uniform();
      now_ms += static_cast<long>(random.Below(4) == 0 ? random.Below(40) : random.Below(3));
      const TimePoint now = kStart + milliseconds(now_ms);
      model.TickTo(now_ms);
      ASSERT_EQ(breaker.state(now), model.state());
      if (random.Below(2) == 0 || permits.empty()) {
        // The model counts whole milliseconds; two probes of one instant would be a nanosecond apart.
        if (!permits.empty() && permits.rbegin()->second.at == now) continue;
        const auto permit = breaker.TryAcquire(now);
        ASSERT_EQ(permit.has_value(), model.TryAcquire(step));
        if (!permit) {
          ASSERT_GT(breaker.probe_at(), now);
          continue;
        }
        ASSERT_EQ(permit->probe, model.state() == State::kHalfOpen);
        permits[step] = *permit;
      } else {  // any permit ever given: fresh, stale, or reported before; some never are
        auto chosen = permits.begin();
        const std::uint64_t back = random.Below(random.Below(3) == 0 ? permits.size() : 1);
        std::advance(chosen, permits.size() - 1 - back);
        const bool ok = random.Uniform() >= failing;
        breaker.Report(chosen->second, ok, now);
        model.Report(chosen->first, ok);
      }
      ASSERT_EQ(breaker.state(now), model.state());
      ASSERT_NEAR(breaker.average(), model.average, 1e-9);
      ASSERT_EQ(breaker.trips(), model.trips);
      ++seen[model.state()];
    }
  }
  for (const State state : {State::kClosed, State::kOpen, State::kHalfOpen}) {
    EXPECT_GT(seen[state], 1000) << Name(state) << " was hardly visited";
  }
}

}  // namespace
}  // namespace ganglion::breaker
