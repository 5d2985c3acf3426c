// The Executor of a simulated node: what node::Executor is to a real one, on the world's clock.
//
// A job on a worker says `then` when it is done with the worker, perhaps much later: that is how a model run takes
// time. What is planned dies with the executor, as threads die with their process. Mirrors src/node/executor.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "sim/world.h"

namespace ganglion::sim {

using Then = std::function<void()>;
using Job = std::function<void(Then)>;

class Executor {
 public:
  Executor(World* world, int workers) : world_(world), workers_(workers), idle_(workers) {}

  int workers() const { return workers_; }
  int idle_workers() const { return std::max(0, idle_ - static_cast<int>(jobs_.size())); }
  std::size_t busy() const { return static_cast<std::size_t>(workers_ - idle_) + jobs_.size(); }

  // On a worker, first come first served.
  void Post(Job job) {
    jobs_.push_back(std::move(job));
    Soon([this] { Work(); });
  }
  // On the thread that keeps time, which is never busy.
  void Soon(World::Action action) { At(world_->now(), std::move(action)); }
  World::Timer At(TimePoint at, World::Action action) {
    return world_->At(at, [alive = std::weak_ptr<int>(life_), action = std::move(action)] {
      if (!alive.expired()) action();
    });
  }
  bool Cancel(const World::Timer& timer) { return world_->Cancel(timer); }

 private:
  void Work() {
    if (idle_ == 0 || jobs_.empty()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    --idle_;
    job([this] {
      ++idle_;
      if (!jobs_.empty()) Soon([this] { Work(); });
    });
  }

  World* world_;
  int workers_;
  int idle_;
  std::deque<Job> jobs_;
  std::shared_ptr<int> life_ = std::make_shared<int>();
};

}  // namespace ganglion::sim
