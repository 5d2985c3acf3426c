// Time is std::chrono. A TimePoint is nanoseconds on some clock that only goes forward; which clock is the business of
// whoever calls. Decisions (layer 2) never read a clock: `now` is an argument, so that the same calls give the same
// states in a test, under a virtual clock and in production.
#pragma once

#include <chrono>

namespace ganglion {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// Milliseconds as a plain number, for reports. 1.5ms gives 1.5.
inline double Milliseconds(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }
inline Duration FromMilliseconds(double ms) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(ms));
}

// What an effect reads the time from. A service; const means callable from many threads.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

// The machine's monotonic clock.
class SteadyClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
};

}  // namespace ganglion
