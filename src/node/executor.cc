#include "node/executor.h"

#include <algorithm>

namespace ganglion::node {

Executor::Executor(int workers) {
  for (int i = 0; i < std::max(1, workers); ++i) threads_.emplace_back([this] { Work(); });
  time_ = std::thread([this] { KeepTime(); });
}

Executor::~Executor() { Stop(); }

void Executor::Post(Job job) {
  {
    std::lock_guard lock(mutex_);
    if (!stopping_) {
      jobs_.push_back(std::move(job));
      job = nullptr;
    }
  }
  if (job) return job();
  ready_.notify_one();
}

void Executor::Soon(Job job) {
  {
    std::lock_guard lock(time_mutex_);
    if (!time_stopping_) {
      soon_.push_back(std::move(job));
      job = nullptr;
    }
  }
  if (job) return job();
  time_ready_.notify_one();
}

Executor::Timer Executor::At(TimePoint at, Job job) {
  bool first = false;
  Timer timer{at, 0};
  {
    std::lock_guard lock(time_mutex_);
    timer.id = next_timer_++;
    first = timers_.empty() || at < timers_.begin()->first.first;
    timers_.emplace(std::pair(at, timer.id), std::move(job));
  }
  if (first) time_ready_.notify_one();
  return timer;
}

bool Executor::Cancel(const Timer& timer) {
  if (timer.id == 0) return false;
  Job dropped;  // destroyed outside the lock: it may hold the last reference to much
  std::lock_guard lock(time_mutex_);
  const auto it = timers_.find({timer.at, timer.id});
  if (it == timers_.end()) return false;
  dropped = std::move(it->second);
  timers_.erase(it);
  return true;
}

int Executor::idle_workers() const {
  std::lock_guard lock(mutex_);
  return std::max(0, idle_ - static_cast<int>(jobs_.size()));
}

std::size_t Executor::waiting() const {
  std::lock_guard lock(mutex_);
  return jobs_.size();
}

void Executor::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    ready_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    --idle_;
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
  }
}

void Executor::KeepTime() {
  std::unique_lock lock(time_mutex_);
  while (true) {
    Job job;
    if (!soon_.empty()) {
      job = std::move(soon_.front());
      soon_.pop_front();
    } else if (time_stopping_) {
      return;
    } else if (timers_.empty()) {
      time_ready_.wait(lock);
      continue;
    } else {
      const auto first = timers_.begin();
      // A copy: wait_until looks at it again when the timer may have been cancelled and be gone.
      if (const TimePoint due = first->first.first; due > std::chrono::steady_clock::now()) {
        time_ready_.wait_until(lock, due);
        continue;
      }
      job = std::move(first->second);
      timers_.erase(first);
    }
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
  }
}

void Executor::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (auto& t : threads_) {
    if (t.joinable()) t.join();
  }
  {
    std::lock_guard lock(time_mutex_);
    time_stopping_ = true;
  }
  time_ready_.notify_all();
  if (time_.joinable()) time_.join();
}

}  // namespace ganglion::node
