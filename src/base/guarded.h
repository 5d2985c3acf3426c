// Guarded<T> is a value that can only be reached while its lock is held.
//
//   Guarded<Counter> counter;
//   counter.With([](Counter& c) { c.Add(1); });
//
// Nothing blocks, runs a model or calls back into other modules inside With. Thread-safe.
#pragma once

#include <mutex>
#include <utility>

namespace ganglion {

template <typename T>
class Guarded {
 public:
  template <typename... Args>
  explicit Guarded(Args&&... args) : value_(std::forward<Args>(args)...) {}

  template <typename F>
  decltype(auto) With(F&& f) {
    std::lock_guard lock(mutex_);
    return std::forward<F>(f)(value_);
  }

 private:
  std::mutex mutex_;
  T value_;
};

}  // namespace ganglion
