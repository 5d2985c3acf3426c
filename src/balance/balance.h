// Balance picks which of several equal replicas gets the next request, and how often a failed one may be tried again.
//
// Three small pieces. PeakEwma estimates how slow a replica is; PickOfTwo takes the cheaper of two replicas drawn at
// random; a RetryBudget keeps retries a fixed share of requests.
//
// Intuition: look at two queues in the supermarket and stand in the shorter one. Two are enough: with n requests on n
// replicas the fullest has about ln n / ln ln n of them when each goes to a random one, and about ln ln n / ln 2 when
// each goes to the better of two.
// Why not the best of all: every sender sees the same slightly old figures, so all of them send to the same replica at
// once and it drowns; then all go to the next (a herd). Two random candidates spread the same knowledge.
// Why not a bandit: a bandit looks for the one best arm of a reward that stays put. Here the reward of a replica falls
// as soon as it is chosen, is shared with senders one cannot see, and comes back late: the herd again, with an
// exploration rate to tune on top. The other candidate of the pair is all the exploration needed: a replica that no
// longer gets requests becomes cheap by itself, because its estimate decays.
//
// State machines and a pure function; random bits and time are arguments. Thread-compatible. Cost: nanoseconds, no
// allocation, except that the caller lists a cost for each replica.
// Source: M. Mitzenmacher, "The power of two choices in randomized load balancing", 2001; Peak EWMA and retry budgets
// after Twitter's Finagle. We differ in that reading an estimate does not change it, and that failures count as slow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::balance {

// How slow a replica is, cautiously: jumps to a higher latency at once, forgets it exponentially.
//
// Definition, c the estimate and t the time since the last observation, w = exp(-t / decay):
//   a latency l >= c w sets c = l, a lower one c = c w + l (1 - w); between observations the estimate reads c w.
// Before the first observation it reads `initial`, whatever the time. The first observation replaces it.
// Why the peak: an average over good and bad times reacts after the bad time is over. Why forget without observations:
// nobody sends to a replica that looks slow, so nobody would learn that it has recovered.
// Why a failure counts as slow: a broken replica often refuses within microseconds. Taken at its word it is the fastest
// of all and draws every request. ObserveFailure's penalty says what a failure is worth; the usual choice is the
// deadline of a request, or the timeout.
class PeakEwma {
 public:
  // REQUIRES: decay > 0, initial >= 0. With `initial` far below what others have, a new replica is sent everything
  // until its in-flight requests count against it.
  explicit PeakEwma(Duration decay = std::chrono::seconds(10), Duration initial = std::chrono::milliseconds(1));

  void Observe(Duration latency, TimePoint now);                        // below 0 counts as 0
  void ObserveFailure(Duration took, Duration penalty, TimePoint now);  // as a latency of max(took, penalty)

  // (latency + 1) (in_flight + 1), latency in nanoseconds: about how long the next request would take here. The ones
  // let requests in flight count at latency 0, and latency at none in flight. Infinity means "not usable" to PickOfTwo
  // and is the caller's to put in (breaker open, not ready). REQUIRES: in_flight >= 0.
  double Cost(int in_flight, TimePoint now) const;
  Duration latency(TimePoint now) const;

 private:
  double Decayed(TimePoint now) const;  // nanoseconds

  Duration decay_;
  double latency_ns_;
  TimePoint observed_{};  // the last observation
  bool any_ = false;
};

// What PickOfTwo returns when no candidate is usable.
inline constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// The cheaper of two distinct candidates, drawn uniformly with 64 random `bits`; equal costs go to the first drawn, so
// that ties are uniform too. Of one candidate: that one. Infinity (or NaN) is not usable: the other one is taken; when
// neither is, the first usable one after the first drawn (around the end), else kNone.
// REQUIRES: 1 <= costs.size() < 2^32. Each pair's probability is off by at most costs.size() / 2^32 of itself.
std::size_t PickOfTwo(std::span<const double> costs, std::uint64_t bits);

struct RetryBudgetOptions {
  double ratio = .1;  // retries a request, 0..1; 0: only the burst
  double burst = 10;  // retries on top, 0..1e6: what a quiet time saves up, and what one starts with
};

// Retries never exceed ratio * requests + burst, counted from the start.
//
// Why not "three tries each": when everything fails, that is three times the load on what is already down, at each tier
// of callers anew; a budget makes it 1.1 times.
// A token bucket in millionths of a token: sums of .1 stay exact.
class RetryBudget {
 public:
  static Result<RetryBudget> Create(RetryBudgetOptions options);

  void OnRequest();  // once a request, not for its retries
  // Whether one more retry may be made; if so it is spent.
  [[nodiscard]] bool TryRetry();

 private:
  RetryBudget(std::int64_t add, std::int64_t start, std::int64_t cap) : add_(add), tokens_(start), cap_(cap) {}

  std::int64_t add_;     // millionths a request
  std::int64_t tokens_;  // millionths
  std::int64_t cap_;
};

}  // namespace ganglion::balance
