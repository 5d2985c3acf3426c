#include "node/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <vector>

namespace ganglion::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(20);

// What happened, in order, from any thread.
class Diary {
 public:
  void Write(int what) {
    std::lock_guard lock(mutex_);
    entries_.push_back(what);
  }
  std::vector<int> entries() const {
    std::lock_guard lock(mutex_);
    return entries_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<int> entries_;
};

// Occupies workers until it is opened.
class Gate {
 public:
  void Occupy(Executor* executor, int workers) {
    for (int i = 0; i < workers; ++i) {
      auto inside = std::make_shared<std::promise<void>>();
      executor->Post([inside, open = open_] {
        inside->set_value();
        open.wait();
      });
      ASSERT_EQ(inside->get_future().wait_for(kPatience), std::future_status::ready);
    }
  }
  void Open() { opener_.set_value(); }

 private:
  std::promise<void> opener_;
  std::shared_future<void> open_ = opener_.get_future().share();
};

void WaitFor(std::promise<void>* promise) {
  ASSERT_EQ(promise->get_future().wait_for(kPatience), std::future_status::ready);
}

TEST(Executor, RunsWhatIsPostedFirstComeFirstServed) {
  Executor executor(1);
  Diary diary;
  std::promise<void> last;
  for (int i = 0; i < 100; ++i) executor.Post([&diary, i] { diary.Write(i); });
  executor.Post([&] { last.set_value(); });
  WaitFor(&last);
  std::vector<int> expected(100);
  for (int i = 0; i < 100; ++i) expected[static_cast<std::size_t>(i)] = i;
  EXPECT_EQ(diary.entries(), expected);
}

TEST(Executor, UsesAllItsWorkersAndAtLeastOne) {
  Executor executor(3);
  EXPECT_EQ(executor.workers(), 3);
  Gate gate;
  gate.Occupy(&executor, 3);  // each waits for the others to be inside, too
  EXPECT_EQ(executor.idle_workers(), 0);
  executor.Post([] {});
  EXPECT_EQ(executor.waiting(), 1u);
  gate.Open();
  EXPECT_EQ(Executor(0).workers(), 1);
}

TEST(Executor, TimersFireInTheOrderOfTheirTimesAndNotBefore) {
  Executor executor(1);
  Diary diary;
  std::promise<void> inside, open, last;
  executor.Soon([&] {  // holds the thread that keeps time until all are set
    inside.set_value();
    open.get_future().wait();
  });
  WaitFor(&inside);
  const auto now = steady_clock::now();
  std::atomic<int> early{0};
  // Set in another order than they are due; those of one time fire in the order in which they were set.
  int n = 0;
  for (const int ms : {60, 20, 40, 20, 0, -5}) {
    const auto at = now + milliseconds(ms);
    executor.At(at, [&, ms, at, which = n++] {
      early += steady_clock::now() < at ? 1 : 0;
      diary.Write(which);
      if (ms == 60) last.set_value();
    });
  }
  open.set_value();
  WaitFor(&last);
  EXPECT_EQ(early, 0);
  EXPECT_EQ(diary.entries(), (std::vector<int>{5, 4, 1, 3, 2, 0}));
}

TEST(Executor, ATimerSetLaterForAnEarlierTimeFiresFirst) {
  Executor executor(1);
  Diary diary;
  std::promise<void> first;
  const auto far = executor.At(steady_clock::now() + std::chrono::hours(1), [&] { diary.Write(2); });
  executor.At(steady_clock::now() + milliseconds(5), [&] {
    diary.Write(1);
    first.set_value();
  });
  WaitFor(&first);
  EXPECT_EQ(diary.entries(), std::vector<int>{1});
  EXPECT_TRUE(executor.Cancel(far));
}

TEST(Executor, CancelSaysWhetherItWasInTimeAndLetsGoOfTheJob) {
  Executor executor(1);
  auto held = std::make_shared<int>(7);
  std::atomic<bool> ran{false};
  const auto timer = executor.At(steady_clock::now() + std::chrono::hours(1), [&ran, held] { ran = true; });
  EXPECT_EQ(held.use_count(), 2);
  EXPECT_TRUE(executor.Cancel(timer));
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(executor.Cancel(timer));
  EXPECT_FALSE(executor.Cancel({}));
  std::promise<void> done;
  const auto past = executor.At(steady_clock::now(), [&] { done.set_value(); });
  WaitFor(&done);
  EXPECT_FALSE(executor.Cancel(past));  // runs or has run
  EXPECT_FALSE(ran);
}

// A job that is cancelled may hold the last reference to something whose end sets or cancels a timer.
TEST(Executor, WhatACancelledJobHeldMayUseTheExecutorWhileItEnds) {
  Executor executor(1);
  struct Owner {
    Executor* executor;
    Executor::Timer other;
    ~Owner() { executor->Cancel(other); }
  };
  const auto other = executor.At(steady_clock::now() + std::chrono::hours(1), [] {});
  auto owner = std::make_shared<Owner>(Owner{&executor, {}});
  owner->other = other;
  const auto timer = executor.At(steady_clock::now() + std::chrono::hours(1), [owner = std::move(owner)] {});
  EXPECT_TRUE(executor.Cancel(timer));
  EXPECT_FALSE(executor.Cancel(other));
}

TEST(Executor, SoonAndTimersDoNotWaitForBusyWorkers) {
  Executor executor(2);
  Gate gate;
  gate.Occupy(&executor, 2);
  Diary diary;
  std::promise<void> soon, timed, posted;
  executor.Post([&] {
    diary.Write(3);
    posted.set_value();
  });
  executor.Soon([&] {
    diary.Write(1);
    soon.set_value();
  });
  WaitFor(&soon);
  executor.At(steady_clock::now() + milliseconds(1), [&] {
    diary.Write(2);
    timed.set_value();
  });
  WaitFor(&timed);
  EXPECT_EQ(executor.idle_workers(), 0);
  EXPECT_EQ(executor.waiting(), 1u);
  gate.Open();
  WaitFor(&posted);
  EXPECT_EQ(diary.entries(), (std::vector<int>{1, 2, 3}));
}

TEST(Executor, WhatIsDueSoonComesBeforeTimersThatAreDueToo) {
  Executor executor(1);
  Diary diary;
  std::promise<void> inside, open, last;
  executor.Soon([&] {  // holds the thread that keeps time
    inside.set_value();
    open.get_future().wait();
  });
  WaitFor(&inside);
  executor.At(steady_clock::now() - milliseconds(1), [&] {
    diary.Write(2);
    last.set_value();
  });
  executor.Soon([&] { diary.Write(1); });
  open.set_value();
  WaitFor(&last);
  EXPECT_EQ(diary.entries(), (std::vector<int>{1, 2}));
}

TEST(Executor, JobsMaySetTimersPostAndCancel) {
  Executor executor(1);
  std::promise<void> done;
  executor.Post([&] {
    executor.At(steady_clock::now(), [&] {
      const auto never = executor.At(steady_clock::now() + std::chrono::hours(1), [] {});
      executor.Soon([&, never] {
        EXPECT_TRUE(executor.Cancel(never));
        executor.Post([&] { done.set_value(); });
      });
    });
  });
  WaitFor(&done);
}

TEST(Executor, StopRunsWhatWasPostedAndDropsTimers) {
  Diary diary;
  auto held = std::make_shared<int>(7);
  {
    Executor executor(2);
    Gate gate;
    gate.Occupy(&executor, 2);
    for (int i = 0; i < 50; ++i) executor.Post([&diary, i] { diary.Write(i); });
    executor.At(steady_clock::now() + std::chrono::hours(1), [&diary, held] { diary.Write(-1); });
    std::thread opener([&] { gate.Open(); });
    executor.Stop();
    opener.join();
    EXPECT_EQ(diary.entries().size(), 50u);
    // What comes after is run by whoever brings it: nothing is lost, and nobody waits for a thread that is gone.
    executor.Post([&] { diary.Write(100); });
    executor.Soon([&] { diary.Write(101); });
    EXPECT_EQ(diary.entries().size(), 52u);
    executor.Stop();  // twice is once
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Executor, ManyThreadsPostSetAndCancelAtOnce) {
  std::atomic<int> ran{0};
  std::atomic<int> cancelled{0};
  constexpr int kEach = 300;
  {
    Executor executor(2);
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          executor.Post([&] { ++ran; });
          executor.Soon([&] { ++ran; });
          const auto timer = executor.At(steady_clock::now() + std::chrono::microseconds(t * 37), [&] { ++ran; });
          if (i % 2 == 0 && executor.Cancel(timer)) ++cancelled;
        }
      });
    }
    threads.clear();
    const auto end = steady_clock::now() + kPatience;
    while (ran + cancelled < 4 * kEach * 3 && steady_clock::now() < end) std::this_thread::yield();
  }
  EXPECT_EQ(ran + cancelled, 4 * kEach * 3);
}

}  // namespace
}  // namespace ganglion::node
