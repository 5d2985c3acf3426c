// An Executor runs the node's work: a few threads compute, one more keeps time and does what must not wait behind a
// long computation (deadlines that pass, replies that come in).
//
// Why a thread of its own for time: with all workers inside long model runs, a request whose deadline passes must still
// be answered then, not when a worker comes back.
// A service. Stop (or the destructor) runs what was posted before, drops timers, and joins.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace ganglion::node {

class Executor {
 public:
  using Job = std::function<void()>;

  explicit Executor(int workers);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  int workers() const { return static_cast<int>(threads_.size()); }

  // On a worker, first come first served. After Stop the job is run by the caller.
  void Post(Job job);
  // On the thread that keeps time: short things only.
  void Soon(Job job);

  struct Timer {
    TimePoint at{};
    std::uint64_t id = 0;  // 0: none
  };
  // Runs `job` on the thread that keeps time, not before `at`.
  Timer At(TimePoint at, Job job);
  // False: it has run, or is running now.
  bool Cancel(const Timer& timer);

  // How many workers have nothing to do.
  int idle_workers() const;
  std::size_t waiting() const;

  void Stop();

 private:
  void Work();
  void KeepTime();

  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Job> jobs_;
  int idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;

  std::mutex time_mutex_;
  std::condition_variable time_ready_;
  std::deque<Job> soon_;
  std::map<std::pair<TimePoint, std::uint64_t>, Job> timers_;
  std::uint64_t next_timer_ = 1;
  bool time_stopping_ = false;
  std::thread time_;
};

}  // namespace ganglion::node
