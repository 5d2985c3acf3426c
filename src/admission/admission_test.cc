#include "admission/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <queue>
#include <string>
#include <vector>

#include "base/random.h"

namespace ganglion::admission {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

const TimePoint kStart{seconds(1000)};

ConcurrencyLimit Make(AdmissionOptions options = {}) {
  auto limit = ConcurrencyLimit::Create(options);
  EXPECT_TRUE(limit.ok()) << limit.status().message();
  return *limit;
}

// Fills the limit and empties it again, all in `took`, ending at `now`.
void Fill(ConcurrencyLimit& limit, AdmissionOutcome outcome, Duration took, TimePoint now) {
  while (limit.TryAcquire()) {
  }
  while (limit.in_flight() > 0) limit.Release(outcome, took, now);
}

TEST(ConcurrencyLimit, AdmitsUpToItsLimitAndNoMore) {
  AdmissionOptions options;
  options.initial = 3;
  ConcurrencyLimit limit = Make(options);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limit.TryAcquire());
  EXPECT_FALSE(limit.TryAcquire());
  EXPECT_EQ(limit.in_flight(), 3);
  limit.Release(AdmissionOutcome::kOk, milliseconds(1), kStart);
  EXPECT_TRUE(limit.TryAcquire());
  EXPECT_FALSE(limit.TryAcquire());
}

TEST(ConcurrencyLimit, GrowsByOneARoundWhileItIsUsedAndOnTime) {
  ConcurrencyLimit limit = Make();
  TimePoint now = kStart;
  for (int i = 0; i < 10; ++i) Fill(limit, AdmissionOutcome::kOk, milliseconds(5), now += milliseconds(100));
  EXPECT_GE(limit.limit(), 32 + 8);
  EXPECT_LE(limit.limit(), 32 + 10);
}

TEST(ConcurrencyLimit, DoesNotGrowWhileLessThanHalfIsUsed) {
  ConcurrencyLimit limit = Make();
  TimePoint now = kStart;
  for (int round = 0; round < 1000; ++round) {
    for (int i = 0; i < 15; ++i) ASSERT_TRUE(limit.TryAcquire());
    now += milliseconds(100);
    for (int i = 0; i < 15; ++i) limit.Release(AdmissionOutcome::kOk, milliseconds(5), now);
  }
  EXPECT_EQ(limit.limit(), 32);
}

TEST(ConcurrencyLimit, ShrinksAtMostOnceAWindowHoweverManyAreLate) {
  AdmissionOptions options;
  options.initial = 1000;
  ConcurrencyLimit limit = Make(options);
  TimePoint now = kStart, shrunk = kStart;
  int shrinks = 0;
  Random random(1);
  for (int i = 0; i < 20'000; ++i) {
    now += Duration(random.Below(1'000'000));
    const int before = limit.limit();
    ASSERT_TRUE(limit.TryAcquire());
    limit.Release(AdmissionOutcome::kLate, Duration(100), now);
    if (limit.limit() == before) continue;
    EXPECT_GE(limit.limit(), static_cast<int>(before * .9) - 1);
    if (shrinks > 0) {
      EXPECT_GE(now - shrunk, options.window);
    }
    ++shrinks;
    shrunk = now;
  }
  EXPECT_GT(shrinks, 20);
}

TEST(ConcurrencyLimit, IsNotShrunkAgainByRequestsFromBeforeItShrank) {
  ConcurrencyLimit limit = Make();
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(limit.TryAcquire());
  // All came in at kStart; they trickle out late, one every 100 ms.
  for (int i = 1; i <= 32; ++i) {
    limit.Release(AdmissionOutcome::kLate, milliseconds(100 * i), kStart + milliseconds(100 * i));
  }
  EXPECT_EQ(limit.limit(), 28);
}

TEST(ConcurrencyLimit, StaysBetweenMinAndMax) {
  AdmissionOptions options;
  options.initial = 6;
  options.min = 4;
  options.max = 8;
  ConcurrencyLimit limit = Make(options);
  TimePoint now = kStart;
  for (int i = 0; i < 100; ++i) {
    Fill(limit, AdmissionOutcome::kLate, milliseconds(5), now += milliseconds(200));
    ASSERT_GE(limit.limit(), 4);
  }
  EXPECT_EQ(limit.limit(), 4);
  for (int i = 0; i < 100; ++i) {
    Fill(limit, AdmissionOutcome::kOk, milliseconds(5), now += milliseconds(200));
    ASSERT_LE(limit.limit(), 8);
  }
  EXPECT_EQ(limit.limit(), 8);
}

TEST(ConcurrencyLimit, RecoversFromOneAfterAnOutage) {
  ConcurrencyLimit limit = Make();
  TimePoint now = kStart;
  for (int i = 0; i < 100; ++i) Fill(limit, AdmissionOutcome::kLate, milliseconds(150), now += milliseconds(200));
  ASSERT_EQ(limit.limit(), 1);
  for (int i = 0; i < 100; ++i) Fill(limit, AdmissionOutcome::kOk, milliseconds(5), now += milliseconds(200));
  EXPECT_GT(limit.limit(), 64);
}

TEST(ConcurrencyLimit, GrowsAgainSoonAfterOneRequestThatHung) {
  ConcurrencyLimit limit = Make();
  ASSERT_TRUE(limit.TryAcquire());
  limit.Release(AdmissionOutcome::kOk, hours(1), kStart);
  TimePoint now = kStart;
  for (int i = 0; i < 300; ++i) Fill(limit, AdmissionOutcome::kOk, milliseconds(5), now += milliseconds(100));
  EXPECT_GT(limit.limit(), 200);
}

TEST(ConcurrencyLimit, LearnsNothingFromIgnoredOnes) {
  ConcurrencyLimit limit = Make();
  TimePoint now = kStart;
  for (int i = 0; i < 100; ++i) Fill(limit, AdmissionOutcome::kIgnored, seconds(5), now += milliseconds(200));
  EXPECT_EQ(limit.limit(), 32);
  EXPECT_EQ(limit.RetryAfter(), milliseconds(100)) << "nothing finished: the window";
}

TEST(ConcurrencyLimit, SaysWhenASlotIsFree) {
  AdmissionOptions options;
  options.initial = 10;
  ConcurrencyLimit limit = Make(options);
  TimePoint now = kStart;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(limit.TryAcquire());
  for (int i = 0; i < 100; ++i) {  // ten inside for 50 ms each: one comes out every 5 ms
    limit.Release(AdmissionOutcome::kOk, milliseconds(50), now += milliseconds(5));
    ASSERT_TRUE(limit.TryAcquire());
  }
  EXPECT_NEAR(Milliseconds(limit.RetryAfter()), 5, .1);
}

TEST(ConcurrencyLimit, RefusesOptionsOutOfRangeAndNamesThem) {
  const auto message = [](auto change) {
    AdmissionOptions options;
    change(options);
    const auto limit = ConcurrencyLimit::Create(options);
    return limit.ok() ? std::string("accepted") : limit.status().message();
  };
  EXPECT_EQ(message([](auto&) {}), "accepted");
  EXPECT_EQ(message([](auto& o) { o.min = 0; }).rfind("min must be", 0), 0u);
  EXPECT_EQ(message([](auto& o) { o.max = 2'000'000; }).rfind("max must be", 0), 0u);
  EXPECT_EQ(message([](auto& o) { o.min = 50, o.max = 40; }).rfind("max must be", 0), 0u);
  EXPECT_EQ(message([](auto& o) { o.initial = 2000; }).rfind("initial must be", 0), 0u);
  EXPECT_EQ(message([](auto& o) { o.min = 33; }).rfind("initial must be", 0), 0u);
  for (const double bad : {-.1, 1., std::nan("")}) {
    EXPECT_EQ(message([&](auto& o) { o.late_share = bad; }).rfind("late_share must be", 0), 0u);
  }
  for (const double bad : {0., 1., std::nan("")}) {
    EXPECT_EQ(message([&](auto& o) { o.backoff = bad; }).rfind("backoff must be", 0), 0u);
  }
  EXPECT_EQ(message([](auto& o) { o.window = Duration::zero(); }).rfind("window must be", 0), 0u);
  EXPECT_EQ(message([](auto& o) { o.window = hours(2); }).rfind("window must be", 0), 0u);
}

// A server with workers and one queue, first in first out. It serves what it let in, late or not. Poisson arrivals.
class Server {
 public:
  struct Period {
    double offered = 0, refused = 0, late = 0, good = 0;
    int lowest = std::numeric_limits<int>::max();  // limit
  };

  Server(int workers, Duration deadline, const ConcurrencyLimit& limit, std::uint64_t seed)
      : deadline_(deadline), limit_(limit), random_(seed) {
    for (int i = 0; i < workers; ++i) free_at_.push(kStart);
  }

  // `service` draws how long one request keeps a worker. Arrivals are `per_s` a second.
  Period Run(Duration length, double per_s, const std::function<Duration(Random&)>& service) {
    Period p;
    for (const TimePoint end = now_ + length; now_ < end;) {
      now_ += Exponential(Duration(static_cast<Duration::rep>(1e9 / per_s)), random_);
      Finish(now_, &p);
      ++p.offered;
      p.lowest = std::min(p.lowest, limit_.limit());
      if (!limit_.TryAcquire()) {
        ++p.refused;
        continue;
      }
      const TimePoint start = std::max(now_, free_at_.top());
      free_at_.pop();
      const TimePoint done = start + service(random_);
      free_at_.push(done);
      running_.push({done, now_, start});
    }
    return p;
  }

  static Duration Exponential(Duration mean, Random& random) {
    return Duration(static_cast<Duration::rep>(-std::log(1 - random.Uniform()) * static_cast<double>(mean.count())));
  }

  int limit() const { return limit_.limit(); }

 private:
  struct Running {
    TimePoint done, came, start;
    bool operator>(const Running& other) const { return done > other.done; }
  };

  void Finish(TimePoint until, Period* p) {
    for (; !running_.empty() && running_.top().done <= until; running_.pop()) {
      const Duration took = running_.top().done - running_.top().came;
      ++(took > deadline_ ? p->late : p->good);
      const Duration waited = running_.top().start - running_.top().came;
      limit_.Release(Judge(took, waited, deadline_), took, running_.top().done);
    }
  }

  Duration deadline_;
  ConcurrencyLimit limit_;
  Random random_;
  TimePoint now_ = kStart;
  std::priority_queue<TimePoint, std::vector<TimePoint>, std::greater<>> free_at_;  // a worker each
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
};

Duration TenMilliseconds(Random& random) { return Server::Exponential(milliseconds(10), random); }

// A cheap stage answers nine of ten in 1 ms, an expensive one takes 91 ms: 10 ms on average.
Duration OneOrNinetyOne(Random& random) { return random.Below(10) == 0 ? milliseconds(91) : milliseconds(1); }

AdmissionOptions From(int initial) {
  AdmissionOptions options;
  options.initial = initial;
  return options;
}

// Without a limit everybody waits behind everybody: all answers are late, and the server works in vain.
TEST(AdmissionSimulation, KeepsNearlyAllOfTheCapacityUsefulAtTwiceTheLoad) {
  for (const int workers : {1, 2, 8, 32}) {
    const double capacity = 100. * workers;
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      SCOPED_TRACE("workers " + std::to_string(workers) + " seed " + std::to_string(seed));
      Server server(workers, milliseconds(200), Make(), seed);
      server.Run(seconds(20), 2 * capacity, TenMilliseconds);
      EXPECT_GE(server.Run(seconds(60), 2 * capacity, TenMilliseconds).good / 60, .9 * capacity);

      AdmissionOptions unlimited = From(1'000'000);
      unlimited.max = unlimited.min = 1'000'000;
      Server without(workers, milliseconds(200), Make(unlimited), seed);
      without.Run(seconds(20), 2 * capacity, TenMilliseconds);
      EXPECT_LE(without.Run(seconds(60), 2 * capacity, TenMilliseconds).good / 60, .01 * capacity);
    }
  }
}

// From far too low and from far too high.
TEST(AdmissionSimulation, FindsItsLimitFromBothSides) {
  for (const int initial : {1, 1024}) {
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      SCOPED_TRACE("initial " + std::to_string(initial) + " seed " + std::to_string(seed));
      Server server(8, milliseconds(100), Make(From(initial)), seed);
      server.Run(seconds(20), 1600, TenMilliseconds);
      EXPECT_GE(server.Run(seconds(30), 1600, TenMilliseconds).good / 30, .9 * 800);
    }
  }
}

TEST(AdmissionSimulation, RefusesNothingAtHalfTheLoad) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    for (const bool overloaded_before : {false, true}) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      Server server(8, milliseconds(100), Make(), seed);
      if (overloaded_before) server.Run(seconds(30), 1600, TenMilliseconds);
      server.Run(seconds(10), 400, TenMilliseconds);
      const Server::Period p = server.Run(seconds(300), 400, TenMilliseconds);
      EXPECT_EQ(p.refused, 0) << "of " << p.offered;
    }
  }
}

// One in twenty takes longer than the deadline all by itself. That is no reason to refuse the others.
TEST(AdmissionSimulation, IsNotTalkedDownByAnswersThatAreLateWithoutWaiting) {
  const auto service = [](Random& random) {
    return random.Below(20) == 0 ? Duration(milliseconds(60)) : Server::Exponential(milliseconds(7), random);
  };
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Server server(32, milliseconds(50), Make(), seed);
    const Server::Period p = server.Run(seconds(300), 1600, service);
    EXPECT_EQ(p.refused, 0) << "of " << p.offered;
    EXPECT_GT(p.late, .04 * p.offered);
  }
}

// The mix of cheap and expensive answers makes the mean latency jump about; it is not the limit's business.
TEST(AdmissionSimulation, KeepsTheCapacityUsefulWhenServiceIsBimodal) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Server server(8, milliseconds(400), Make(), seed);
    server.Run(seconds(30), 1600, OneOrNinetyOne);
    EXPECT_GE(server.Run(seconds(60), 1600, OneOrNinetyOne).good / 60, .9 * 800);
    server.Run(seconds(10), 400, OneOrNinetyOne);
    EXPECT_EQ(server.Run(seconds(100), 400, OneOrNinetyOne).refused, 0);
  }
}

// All requests turn to the expensive stage, at half of what the server can do then: latency rises 91-fold, no queue.
TEST(AdmissionSimulation, RefusesNothingWhenTheMixTurnsExpensiveButInTime) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Server server(8, milliseconds(400), Make(), seed);
    server.Run(seconds(30), 40, [](Random&) { return milliseconds(1); });
    EXPECT_EQ(server.Run(seconds(300), 40, [](Random&) { return milliseconds(91); }).refused, 0);
  }
}

TEST(AdmissionSimulation, IsUsefulAgainSoonAfterTheServerStoodStill) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Server server(8, milliseconds(100), Make(), seed);
    server.Run(seconds(10), 1600, TenMilliseconds);
    server.Run(seconds(30), 1600, [](Random& random) { return Server::Exponential(milliseconds(99), random); });
    server.Run(seconds(10), 1600, TenMilliseconds);
    EXPECT_GE(server.Run(seconds(30), 1600, TenMilliseconds).good / 30, .9 * 800);
  }
}

TEST(Judge, BlamesTheWaitOnlyForWhatItCaused) {
  EXPECT_EQ(Judge(milliseconds(100), milliseconds(90), milliseconds(100)), AdmissionOutcome::kOk);
  EXPECT_EQ(Judge(milliseconds(101), milliseconds(1), milliseconds(100)), AdmissionOutcome::kLate);
  EXPECT_EQ(Judge(milliseconds(120), milliseconds(19), milliseconds(100)), AdmissionOutcome::kIgnored);
  EXPECT_EQ(Judge(milliseconds(101), milliseconds(0), milliseconds(100)), AdmissionOutcome::kIgnored);
}

}  // namespace
}  // namespace ganglion::admission
