#include "balance/balance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/check.h"

namespace ganglion::balance {
namespace {

constexpr std::int64_t kToken = 1'000'000;
constexpr double kMaxBurst = 1e6;

// 32 random bits to 0..n-1.
std::size_t Scale(std::uint64_t bits32, std::uint64_t n) { return static_cast<std::size_t>((bits32 * n) >> 32); }

bool Usable(double cost) { return cost < std::numeric_limits<double>::infinity(); }  // false for NaN

}  // namespace

PeakEwma::PeakEwma(Duration decay, Duration initial)
    : decay_(decay), latency_ns_(static_cast<double>(initial.count())) {
  GANGLION_CHECK(decay > Duration::zero());
  GANGLION_CHECK(initial >= Duration::zero());
}

double PeakEwma::Decayed(TimePoint now) const {
  if (!any_ || now <= observed_) return latency_ns_;
  const double elapsed = static_cast<double>((now - observed_).count());
  return latency_ns_ * std::exp(-elapsed / static_cast<double>(decay_.count()));
}

void PeakEwma::Observe(Duration latency, TimePoint now) {
  const double ns = static_cast<double>(std::max(latency, Duration::zero()).count());
  const double kept = Decayed(now);
  if (!any_ || ns >= kept) {
    latency_ns_ = ns;
  } else {
    const double w = latency_ns_ > 0 ? kept / latency_ns_ : 1;
    latency_ns_ = kept + ns * (1 - w);
  }
  observed_ = any_ ? std::max(observed_, now) : now;  // threads race: a slightly older one must not turn time back
  any_ = true;
}

void PeakEwma::ObserveFailure(Duration took, Duration penalty, TimePoint now) { Observe(std::max(took, penalty), now); }

double PeakEwma::Cost(int in_flight, TimePoint now) const {
  GANGLION_CHECK(in_flight >= 0);
  return (Decayed(now) + 1) * (static_cast<double>(in_flight) + 1);
}

Duration PeakEwma::latency(TimePoint now) const { return Duration(std::llround(Decayed(now))); }

std::size_t PickOfTwo(std::span<const double> costs, std::uint64_t bits) {
  const std::size_t n = costs.size();
  GANGLION_CHECK(n >= 1 && n < (std::uint64_t{1} << 32));
  const std::size_t first = Scale(bits & 0xffffffffu, n);
  std::size_t pick = first;
  if (n > 1) {
    std::size_t second = Scale(bits >> 32, n - 1);
    if (second >= first) ++second;  // uniform over the others
    if (!Usable(costs[first]) || costs[second] < costs[first]) pick = second;
  }
  for (std::size_t i = 0; i < n && !Usable(costs[pick]); ++i) pick = (first + i) % n;
  return Usable(costs[pick]) ? pick : kNone;
}

Result<RetryBudget> RetryBudget::Create(RetryBudgetOptions options) {
  if (!(options.ratio >= 0 && options.ratio <= 1)) {
    return InvalidArgument("ratio must be 0 to 1 retries a request, got " + std::to_string(options.ratio));
  }
  if (!(options.burst >= 0 && options.burst <= kMaxBurst)) {
    return InvalidArgument("burst must be 0 to 1000000 retries, got " + std::to_string(options.burst));
  }
  // Rounded down, so that the promised bound holds; the tiny term takes back what .1 * 1e6 may lose as a double.
  const auto tokens = [](double x) { return static_cast<std::int64_t>(x * static_cast<double>(kToken) + 1e-4); };
  const std::int64_t start = tokens(options.burst);
  // At least one token fits, or a burst below 1 would forbid retries altogether.
  return RetryBudget(tokens(options.ratio), start, std::max(start, kToken));
}

void RetryBudget::OnRequest() { tokens_ = std::min(cap_, tokens_ + add_); }

bool RetryBudget::TryRetry() {
  if (tokens_ < kToken) return false;
  tokens_ -= kToken;
  return true;
}

}  // namespace ganglion::balance
