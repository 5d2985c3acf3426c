#include "admission/admission.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/check.h"

namespace ganglion::admission {
namespace {

constexpr int kMaxLimit = 1'000'000;
constexpr Duration kMaxWindow = std::chrono::hours(1);
constexpr int kMaxRoundWindows = 50;  // or one request that hung for an hour would stop the limit for two
constexpr double kFirstStepOf = 50;   // 1 + 2 + 4 + 8 + 16 + 32 = 63: six good rounds undo one bad one

}  // namespace

AdmissionOutcome Judge(Duration took, Duration waited, Duration allowed) {
  if (took <= allowed) return AdmissionOutcome::kOk;
  return took - waited <= allowed ? AdmissionOutcome::kLate : AdmissionOutcome::kIgnored;
}

Result<ConcurrencyLimit> ConcurrencyLimit::Create(AdmissionOptions o) {
  if (o.min < 1) return InvalidArgument("min must be >= 1, got " + std::to_string(o.min));
  if (o.max < o.min || o.max > kMaxLimit) {
    return InvalidArgument("max must be from min (" + std::to_string(o.min) + ") to " + std::to_string(kMaxLimit) +
                           ", got " + std::to_string(o.max));
  }
  if (o.initial < o.min || o.initial > o.max) {
    return InvalidArgument("initial must be from min (" + std::to_string(o.min) + ") to max (" + std::to_string(o.max) +
                           "), got " + std::to_string(o.initial));
  }
  if (!(o.late_share >= 0 && o.late_share < 1)) {
    return InvalidArgument("late_share must be >= 0 and < 1, got " + std::to_string(o.late_share));
  }
  if (!(o.backoff > 0 && o.backoff < 1)) {
    return InvalidArgument("backoff must be > 0 and < 1, got " + std::to_string(o.backoff));
  }
  if (o.window <= Duration::zero() || o.window > kMaxWindow) {
    return InvalidArgument("window must be above 0 and at most 1 hour, got " + std::to_string(Milliseconds(o.window)) +
                           " ms");
  }
  return ConcurrencyLimit(o);
}

bool ConcurrencyLimit::TryAcquire() {
  if (in_flight_ >= limit()) return false;
  ++in_flight_;
  most_inside_ = std::max(most_inside_, in_flight_);
  return true;
}

void ConcurrencyLimit::BeginRound(TimePoint now) {
  began_ = now;
  most_inside_ = in_flight_;
  finished_ = 0;
  late_ = 0;
  slowest_before_ = slowest_;
  slowest_ = Duration::zero();
}

void ConcurrencyLimit::Release(AdmissionOutcome outcome, Duration took, TimePoint now) {
  GANGLION_CHECK(in_flight_ > 0);
  const int inside = in_flight_--;
  if (outcome == AdmissionOutcome::kIgnored) return;
  took = std::max(took, Duration::zero());
  const double ns = static_cast<double>(took.count());
  average_took_ns_ = average_took_ns_ < 0 ? ns : average_took_ns_ + (ns - average_took_ns_) / 16;

  if (!begun_) {
    BeginRound(now - took);
    most_inside_ = inside;
    begun_ = true;
  }
  slowest_ = std::max(slowest_, took);
  if (now - took < shrunk_at_) return;
  ++finished_;
  if (outcome == AdmissionOutcome::kLate) ++late_;

  const Duration lasted = now - began_;
  if (lasted < options_.window) return;
  // However on time the rest of the round will be: too many are late already.
  const double counted = std::max(static_cast<double>(finished_), limit_);
  if (static_cast<double>(late_) > options_.late_share * counted) {
    const double lost = limit_ * (1 - options_.backoff);
    limit_ = std::max<double>(options_.min, limit_ - lost);
    step_ = lost / kFirstStepOf;
    shrunk_at_ = now;
    BeginRound(now);
    return;
  }
  const Duration felt = std::min(std::max(slowest_, slowest_before_), kMaxRoundWindows * options_.window);
  if (lasted < felt || static_cast<double>(finished_) < limit_) return;
  if (2 * most_inside_ >= limit()) {
    limit_ = std::min<double>(options_.max, limit_ + step_);
    step_ = std::min(1., 2 * step_);
  }
  BeginRound(now);
}

Duration ConcurrencyLimit::RetryAfter() const {
  if (average_took_ns_ < 0) return options_.window;
  return Duration(std::llround(average_took_ns_ / std::max(in_flight_, 1)));
}

}  // namespace ganglion::admission
