#include "balance/balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <queue>
#include <string>
#include <vector>

#include "base/random.h"

namespace ganglion::balance {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kUnusable = std::numeric_limits<double>::infinity();
const TimePoint kStart{seconds(1000)};

TEST(PeakEwma, JumpsUpAtOnceAndForgetsExponentially) {
  PeakEwma ewma(seconds(10), milliseconds(1));
  EXPECT_EQ(ewma.latency(kStart), milliseconds(1));
  EXPECT_EQ(ewma.latency(kStart + seconds(100)), milliseconds(1)) << "nothing seen, nothing to forget";
  ewma.Observe(microseconds(200), kStart);
  EXPECT_EQ(ewma.latency(kStart), microseconds(200)) << "the first observation replaces the guess";
  ewma.Observe(milliseconds(100), kStart + milliseconds(1));
  EXPECT_EQ(ewma.latency(kStart + milliseconds(1)), milliseconds(100));
  const TimePoint later = kStart + milliseconds(1) + seconds(10);
  const double w = std::exp(-1.);
  EXPECT_NEAR(Milliseconds(ewma.latency(later)), 100 * w, 1e-5);
  ewma.Observe(milliseconds(10), later);
  EXPECT_NEAR(Milliseconds(ewma.latency(later)), 100 * w + 10 * (1 - w), 1e-5);
}

TEST(PeakEwma, IsNotChangedByReading) {
  PeakEwma read, unread;
  for (PeakEwma* e : {&read, &unread}) e->Observe(milliseconds(50), kStart);
  for (int i = 0; i < 1000; ++i) (void)read.Cost(0, kStart + milliseconds(10 * i));
  for (PeakEwma* e : {&read, &unread}) e->Observe(milliseconds(1), kStart + seconds(10));
  EXPECT_EQ(read.latency(kStart + seconds(10)), unread.latency(kStart + seconds(10)));
}

TEST(PeakEwma, HoldsASteadyLatency) {
  PeakEwma ewma;
  for (int i = 0; i < 1000; ++i) ewma.Observe(milliseconds(7), kStart + milliseconds(37 * i));
  EXPECT_EQ(ewma.latency(kStart + milliseconds(37 * 999)), milliseconds(7));
}

TEST(PeakEwma, CostsMoreTheMoreIsInFlight) {
  PeakEwma ewma;
  ewma.Observe(Duration(99), kStart);
  EXPECT_DOUBLE_EQ(ewma.Cost(0, kStart), 100);
  EXPECT_DOUBLE_EQ(ewma.Cost(4, kStart), 500);
  PeakEwma instant;
  instant.Observe(Duration(0), kStart);
  EXPECT_LT(instant.Cost(1, kStart), instant.Cost(2, kStart));
}

TEST(PeakEwma, CountsAFailureAsSlow) {
  PeakEwma ewma;
  ewma.ObserveFailure(microseconds(50), milliseconds(500), kStart);
  EXPECT_EQ(ewma.latency(kStart), milliseconds(500));
  ewma.ObserveFailure(seconds(2), milliseconds(500), kStart);
  EXPECT_EQ(ewma.latency(kStart), seconds(2));
}

TEST(PeakEwma, IsNotConfusedByTimesOutOfOrder) {
  PeakEwma ewma;
  ewma.Observe(milliseconds(10), kStart);
  ewma.Observe(milliseconds(5), kStart - milliseconds(1));
  EXPECT_EQ(ewma.latency(kStart), milliseconds(10));
  EXPECT_EQ(ewma.latency(kStart - seconds(1)), milliseconds(10));
  ewma.Observe(-milliseconds(5), kStart);
  EXPECT_GE(ewma.latency(kStart), Duration::zero());
}

// Property: for any observations the estimate lies between 0 and the largest of them, and is never below the last one.
TEST(PeakEwmaProperty, LiesBetweenTheLastAndTheLargest) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    PeakEwma ewma(milliseconds(1 + random.Below(1000)));
    TimePoint now = kStart;
    Duration largest{};
    for (int i = 0; i < 200; ++i) {
      now += microseconds(random.Below(100'000));
      const Duration latency = microseconds(random.Below(random.Below(2) == 0 ? 10 : 100'000));
      ewma.Observe(latency, now);
      largest = std::max(largest, latency);
      ASSERT_GE(ewma.latency(now), latency - Duration(1));
      ASSERT_LE(ewma.latency(now), largest);
      const TimePoint later = now + microseconds(random.Below(1000));
      ASSERT_LE(ewma.latency(later), ewma.latency(now));
    }
  }
}

// With distinct costs and two distinct uniform picks, the k-th cheapest of n wins in 2 (n-1-k) / (n (n-1)) of draws.
TEST(PickOfTwo, DrawsTwoDistinctCandidatesUniformly) {
  constexpr int kDraws = 200'000;
  for (const std::size_t n : {2u, 3u, 5u, 10u}) {
    Random random(n);
    std::vector<double> costs(n);
    for (std::size_t i = 0; i < n; ++i) costs[i] = static_cast<double>((i * 7 + 3) % 11);  // distinct up to 11
    std::vector<int> wins(n);
    for (int i = 0; i < kDraws; ++i) ++wins[PickOfTwo(costs, random.Next())];
    double chi2 = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto rank = std::count_if(costs.begin(), costs.end(), [&](double c) { return c < costs[i]; });
      const double expected =
          kDraws * 2. * static_cast<double>(static_cast<long>(n) - 1 - rank) / static_cast<double>(n * (n - 1));
      if (expected == 0) {
        EXPECT_EQ(wins[i], 0) << "the worst can win only against itself";
      } else {
        chi2 += (wins[i] - expected) * (wins[i] - expected) / expected;
      }
    }
    EXPECT_LT(chi2, 30) << "n " << n;  // at most 8 degrees of freedom: 1 in 4,000
  }
}

TEST(PickOfTwo, SpreadsEqualCostsUniformly) {
  constexpr int kDraws = 100'000;
  Random random(5);
  const std::vector<double> costs(7, 3.);
  std::vector<int> wins(costs.size());
  for (int i = 0; i < kDraws; ++i) ++wins[PickOfTwo(costs, random.Next())];
  double chi2 = 0;
  for (const int w : wins) chi2 += (w - kDraws / 7.) * (w - kDraws / 7.) / (kDraws / 7.);
  EXPECT_LT(chi2, 27);  // 6 degrees of freedom
}

TEST(PickOfTwo, TakesTheOnlyCandidateIfItIsUsable) {
  EXPECT_EQ(PickOfTwo(std::vector<double>{5}, 0), 0u);
  EXPECT_EQ(PickOfTwo(std::vector<double>{5}, ~std::uint64_t{0}), 0u);
  EXPECT_EQ(PickOfTwo(std::vector<double>{kUnusable}, 1), kNone);
}

// Of {unusable, 1, 2} each pair is a third of draws: 2 wins when drawn with the unusable one, and only then.
TEST(PickOfTwo, TakesTheOtherOfThePairWhenOneIsUnusable) {
  for (const double unusable : {kUnusable, std::nan("")}) {
    Random random(3);
    const std::vector<double> costs{unusable, 1, 2};
    std::vector<int> wins(3);
    for (int i = 0; i < 30'000; ++i) ++wins[PickOfTwo(costs, random.Next())];
    EXPECT_EQ(wins[0], 0);
    EXPECT_NEAR(wins[2], 10'000, 400);  // five standard deviations
  }
}

TEST(PickOfTwo, FindsAUsableCandidateWheneverThereIsOne) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    std::vector<double> costs(1 + random.Below(12));
    for (double& c : costs) {
      c = random.Below(4) > 0 ? (random.Below(2) > 0 ? kUnusable : std::nan("")) : random.Uniform();
    }
    const bool any = std::any_of(costs.begin(), costs.end(), [](double c) { return std::isfinite(c); });
    for (const std::uint64_t bits :
         {std::uint64_t{0}, ~std::uint64_t{0}, random.Next(), random.Next(), random.Next()}) {
      const std::size_t pick = PickOfTwo(costs, bits);
      ASSERT_EQ(pick != kNone, any) << "seed " << seed;
      ASSERT_TRUE(!any || (pick < costs.size() && std::isfinite(costs[pick]))) << "seed " << seed;
    }
  }
}

// Replicas with a queue and one worker each, Poisson arrivals, exponential service: what a sender sees is what is in
// flight and when it came back.
struct Replicas {
  struct Event {
    TimePoint at;
    std::size_t replica;
    TimePoint sent;
    bool operator>(const Event& other) const { return at > other.at; }
  };
  using Pick = std::function<std::size_t(std::span<const double>, Random&)>;

  explicit Replicas(std::size_t n) : slowness(n, 1), broken(n, false), sent(n), in_flight(n), ewma(n), free_at(n) {}

  void Run(Duration length, const Pick& pick) {
    const TimePoint end = now + length;
    std::vector<double> costs(slowness.size());
    TimePoint seen_at = TimePoint::min();
    while (now < end) {
      now += Exponential(mean_between);
      for (; !running.empty() && running.top().at <= now; running.pop()) Finish(running.top());
      if (now >= seen_at + stale || stale == Duration::zero()) {
        for (std::size_t i = 0; i < costs.size(); ++i) costs[i] = ewma[i].Cost(in_flight[i], now);
        seen_at = now;
      }
      const std::size_t i = pick(costs, random);
      ++sent[i];
      longest = std::max(longest, ++in_flight[i]);
      const TimePoint start = std::max(now, free_at[i]);
      free_at[i] = start + (broken[i] ? Duration(microseconds(50)) : slowness[i] * Exponential(service));
      running.push({free_at[i], i, now});
    }
  }

  void Finish(const Event& e) {
    --in_flight[e.replica];
    if (broken[e.replica]) {
      ++failures;
      ewma[e.replica].ObserveFailure(e.at - e.sent, penalty, e.at);
    } else {
      ewma[e.replica].Observe(e.at - e.sent, e.at);
      took.push_back(Milliseconds(e.at - e.sent));
    }
  }

  Duration Exponential(Duration mean) {
    return Duration(static_cast<Duration::rep>(-std::log(1 - random.Uniform()) * static_cast<double>(mean.count())));
  }

  double Share(std::size_t i) const {
    double all = 0;
    for (const int s : sent) all += s;
    return sent[i] / all;
  }

  double Quantile(double q) {
    std::sort(took.begin(), took.end());
    return took[static_cast<std::size_t>(q * static_cast<double>(took.size() - 1))];
  }

  Duration mean_between{}, service = milliseconds(10), stale{}, penalty = milliseconds(500);
  std::vector<int> slowness;
  std::vector<bool> broken;
  std::vector<int> sent, in_flight;
  std::vector<PeakEwma> ewma;
  std::vector<TimePoint> free_at;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> running;
  std::vector<double> took;
  int longest = 0, failures = 0;
  TimePoint now = kStart;
  Random random{1};
};

std::size_t AtRandom(std::span<const double> costs, Random& random) { return random.Below(costs.size()); }
std::size_t OfTwo(std::span<const double> costs, Random& random) { return PickOfTwo(costs, random.Next()); }
std::size_t Cheapest(std::span<const double> costs, Random&) {
  return static_cast<std::size_t>(std::min_element(costs.begin(), costs.end()) - costs.begin());
}

Replicas Simulate(const Replicas::Pick& pick, Duration stale, std::uint64_t seed) {
  Replicas r(20);
  r.random = Random(seed);
  r.mean_between = Duration(milliseconds(10)) / 16;  // 80 % of 20 workers
  r.stale = stale;
  r.Run(seconds(60), pick);
  return r;
}

TEST(BalanceSimulation, SpreadsLoadBetterThanRandom) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Replicas two = Simulate(OfTwo, Duration::zero(), seed);
    Replicas random = Simulate(AtRandom, Duration::zero(), seed);
    EXPECT_LT(two.Quantile(.99) * 2, random.Quantile(.99)) << "seed " << seed;
    EXPECT_LT(two.longest * 2, random.longest) << "seed " << seed;
  }
}

TEST(BalanceSimulation, DoesNotHerdOnFiguresThatAreOld) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Replicas two = Simulate(OfTwo, milliseconds(20), seed);
    Replicas cheapest = Simulate(Cheapest, milliseconds(20), seed);
    EXPECT_LT(two.Quantile(.99) * 2, cheapest.Quantile(.99)) << "seed " << seed;
    EXPECT_LT(two.longest * 2, cheapest.longest) << "seed " << seed;
  }
}

TEST(BalanceSimulation, SendsASlowReplicaLessAndComesBackWhenItIsFast) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Replicas r(5);
    r.random = Random(seed);
    r.mean_between = Duration(milliseconds(10)) / 2;  // 40 % of 5 workers
    r.slowness[2] = 10;
    r.Run(seconds(60), OfTwo);
    EXPECT_LT(r.Share(2), .05) << "seed " << seed;
    EXPECT_GT(r.sent[2], 0) << "it must be tried now and then";
    r.slowness[2] = 1;
    r.Run(seconds(60), OfTwo);  // forget
    std::fill(r.sent.begin(), r.sent.end(), 0);
    r.Run(seconds(60), OfTwo);
    EXPECT_GT(r.Share(2), .15) << "seed " << seed;
  }
}

// Replica 0 fails within 50 microseconds. Believed at its word it would be the fastest of all.
TEST(BalanceSimulation, IsNotDrawnToAReplicaThatFailsFast) {
  const auto share = [](Duration penalty, std::uint64_t seed) {
    Replicas r(5);
    r.random = Random(seed);
    r.mean_between = Duration(milliseconds(10)) / 2;
    r.broken[0] = true;
    r.penalty = penalty;
    r.Run(seconds(60), OfTwo);
    return r.Share(0);
  };
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    EXPECT_LT(share(milliseconds(500), seed), .02) << "seed " << seed;
    EXPECT_GT(share(Duration::zero(), seed), .35) << "without the penalty it draws nearly all it can";
  }
}

TEST(RetryBudgetProperty, NeverExceedsItsShareAndGrantsWhatIsDue) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const long ratio = static_cast<long>(random.Below(101));  // hundredths, so that the model is exact
    const long burst = static_cast<long>(random.Below(2) == 0 ? random.Below(200) : 100 * random.Below(50));
    auto budget = RetryBudget::Create({static_cast<double>(ratio) / 100, static_cast<double>(burst) / 100});
    ASSERT_TRUE(budget.ok());
    long saved = burst, requests = 0, retries = 0;
    for (int i = 0; i < 3000; ++i) {
      const bool outage = (i / 300) % 2 == 1;  // in an outage everybody wants to retry, and more than once
      budget->OnRequest();
      ++requests;
      saved = std::min(saved + ratio, std::max(burst, 100L));
      for (std::uint64_t k = random.Below(outage ? 4 : 2); k > 0; --k) {
        const bool due = saved >= 100;
        ASSERT_EQ(budget->TryRetry(), due);
        if (due) ++retries, saved -= 100;
      }
      ASSERT_LE(100 * retries, ratio * requests + burst);
    }
  }
}

TEST(RetryBudget, GrantsExactlyOneInTenAfterTheBurst) {
  auto budget = RetryBudget::Create({.1, 10});
  ASSERT_TRUE(budget.ok());
  int burst = 0;
  while (budget->TryRetry()) ++burst;
  EXPECT_EQ(burst, 10);
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 9; ++i) {
      budget->OnRequest();
      ASSERT_FALSE(budget->TryRetry());
    }
    budget->OnRequest();
    ASSERT_TRUE(budget->TryRetry());
  }
}

TEST(RetryBudget, SavesUpNoMoreThanTheBurst) {
  auto budget = RetryBudget::Create({1, 3});
  ASSERT_TRUE(budget.ok());
  for (int i = 0; i < 1000; ++i) budget->OnRequest();
  int granted = 0;
  while (budget->TryRetry()) ++granted;
  EXPECT_EQ(granted, 3);
}

TEST(RetryBudget, RefusesOptionsOutOfRange) {
  for (const double bad : {-.1, 1.1, std::nan("")}) {
    const auto budget = RetryBudget::Create({bad, 10});
    ASSERT_FALSE(budget.ok());
    EXPECT_EQ(budget.status().message().rfind("ratio must be", 0), 0u);
  }
  for (const double bad : {-1., 2e6, std::nan("")}) {
    const auto budget = RetryBudget::Create({.1, bad});
    ASSERT_FALSE(budget.ok());
    EXPECT_EQ(budget.status().message().rfind("burst must be", 0), 0u);
  }
}

}  // namespace
}  // namespace ganglion::balance
