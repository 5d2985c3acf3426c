#include "batching/batching.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"

namespace ganglion::batching {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using Ids = std::vector<std::uint64_t>;

const TimePoint kStart{seconds(1000)};
const TimePoint kNever = TimePoint::max();

Batcher Make(std::int64_t max_rows = 64, Duration max_delay = {}, std::size_t max_queue = 1024) {
  auto batcher = Batcher::Create({max_rows, max_delay, max_queue});
  EXPECT_TRUE(batcher.ok()) << batcher.status().message();
  return *batcher;
}

Ids Take(Batcher& batcher, TimePoint now) {
  Ids expired;
  Ids batch = batcher.Take(now, &expired);
  EXPECT_TRUE(expired.empty());
  return batch;
}

TEST(Batcher, NeverDelaysALoneRequestOnAnIdleNode) {
  Batcher batcher = Make();
  EXPECT_FALSE(batcher.ShouldRun(kStart, true));
  EXPECT_EQ(batcher.NextAt(), std::nullopt);
  ASSERT_TRUE(batcher.Enqueue(7, 1, kNever, kStart));
  EXPECT_LE(*batcher.NextAt(), kStart);
  ASSERT_TRUE(batcher.ShouldRun(kStart, true));
  EXPECT_EQ(Take(batcher, kStart), Ids{7});
  EXPECT_FALSE(batcher.ShouldRun(kStart, true));
}

TEST(Batcher, GathersWhileWorkersAreBusyUpToMaxRows) {
  Batcher batcher = Make(10);
  for (std::uint64_t id = 0; id < 5; ++id) {
    ASSERT_TRUE(batcher.Enqueue(id, 3, kNever, kStart));
    EXPECT_FALSE(batcher.ShouldRun(kStart + hours(1), false));
  }
  EXPECT_EQ(batcher.waiting_rows(), 15);
  EXPECT_EQ(Take(batcher, kStart), (Ids{0, 1, 2}));  // 9 rows; a fourth would make 12
  EXPECT_EQ(Take(batcher, kStart), (Ids{3, 4}));
  EXPECT_EQ(batcher.waiting(), 0u);
  EXPECT_EQ(batcher.waiting_rows(), 0);
}

TEST(Batcher, RunsABigRequestAloneAndInItsTurn) {
  Batcher batcher = Make(10);
  ASSERT_TRUE(batcher.Enqueue(0, 4, kNever, kStart));
  ASSERT_TRUE(batcher.Enqueue(1, 25, kNever, kStart));
  ASSERT_TRUE(batcher.Enqueue(2, 4, kNever, kStart));
  EXPECT_EQ(Take(batcher, kStart), Ids{0});
  EXPECT_EQ(Take(batcher, kStart), Ids{1});
  EXPECT_EQ(Take(batcher, kStart), Ids{2});
}

TEST(Batcher, LetsNobodyOvertake) {
  Batcher batcher = Make(10);
  ASSERT_TRUE(batcher.Enqueue(0, 6, kNever, kStart));
  ASSERT_TRUE(batcher.Enqueue(1, 6, kNever, kStart));
  ASSERT_TRUE(batcher.Enqueue(2, 4, kNever, kStart));  // would fit beside 0
  EXPECT_EQ(Take(batcher, kStart), Ids{0});
  EXPECT_EQ(Take(batcher, kStart), (Ids{1, 2}));
}

TEST(Batcher, KeepsAnIdleWorkerWaitingForMaxDelayAtMost) {
  Batcher batcher = Make(10, milliseconds(5));
  ASSERT_TRUE(batcher.Enqueue(0, 1, kNever, kStart));
  ASSERT_TRUE(batcher.Enqueue(1, 1, kNever, kStart + milliseconds(4)));
  EXPECT_EQ(batcher.NextAt(), kStart + milliseconds(5));
  EXPECT_FALSE(batcher.ShouldRun(kStart + milliseconds(5) - nanoseconds(1), true));
  EXPECT_TRUE(batcher.ShouldRun(kStart + milliseconds(5), true));
  EXPECT_EQ(Take(batcher, kStart + milliseconds(5)), (Ids{0, 1}));
}

TEST(Batcher, DoesNotWaitOnceMaxRowsAreThere) {
  Batcher batcher = Make(10, milliseconds(5));
  ASSERT_TRUE(batcher.Enqueue(0, 6, kNever, kStart));
  EXPECT_FALSE(batcher.ShouldRun(kStart, true));
  ASSERT_TRUE(batcher.Enqueue(1, 4, kNever, kStart));
  EXPECT_TRUE(batcher.ShouldRun(kStart, true));
  EXPECT_LE(*batcher.NextAt(), kStart);
  EXPECT_EQ(Take(batcher, kStart), (Ids{0, 1}));
}

TEST(Batcher, WaitsForCompanyNoLongerThanHalfOfWhatADeadlineSpares) {
  Batcher batcher = Make(10, milliseconds(50));
  batcher.SetExpected(milliseconds(10));
  ASSERT_TRUE(batcher.Enqueue(0, 1, kNever, kStart));
  ASSERT_TRUE(batcher.Enqueue(1, 1, kStart + milliseconds(30), kStart));
  EXPECT_EQ(batcher.NextAt(), kStart + milliseconds(10));
  EXPECT_FALSE(batcher.ShouldRun(kStart + milliseconds(9), true));
  EXPECT_TRUE(batcher.ShouldRun(kStart + milliseconds(10), true));
  EXPECT_EQ(Take(batcher, kStart + milliseconds(10)), (Ids{0, 1}));
}

TEST(Batcher, RunsNothingThatCannotBeInTime) {
  Batcher batcher = Make();
  batcher.SetExpected(milliseconds(10));
  const TimePoint now = kStart + milliseconds(90);
  ASSERT_TRUE(batcher.Enqueue(0, 1, kStart + milliseconds(100), kStart));  // just possible
  ASSERT_TRUE(batcher.Enqueue(1, 1, kStart + milliseconds(100) - nanoseconds(1), kStart));
  ASSERT_TRUE(batcher.Enqueue(2, 1, kStart - hours(1), kStart));
  ASSERT_TRUE(batcher.Enqueue(3, 1, TimePoint::min(), kStart));
  ASSERT_TRUE(batcher.Enqueue(4, 1, kNever, kStart));
  Ids expired;
  EXPECT_EQ(batcher.Take(now, &expired), (Ids{0, 4}));
  EXPECT_EQ(expired, (Ids{1, 2, 3}));
}

TEST(Batcher, ReportsWhatExpiresWhileWorkersAreBusy) {
  Batcher batcher = Make();
  ASSERT_TRUE(batcher.Enqueue(0, 1, kStart + milliseconds(20), kStart));
  ASSERT_TRUE(batcher.Enqueue(1, 1, kStart + milliseconds(10), kStart));
  EXPECT_EQ(batcher.NextAt(false), kStart + milliseconds(10) + nanoseconds(1));
  EXPECT_EQ(batcher.Expire(kStart + milliseconds(10)), Ids{});
  EXPECT_EQ(batcher.Expire(kStart + milliseconds(10) + nanoseconds(1)), Ids{1});
  EXPECT_EQ(batcher.waiting(), 1u);
  EXPECT_EQ(batcher.waiting_rows(), 1);
}

TEST(Batcher, SaysTrueWhenAllThatWaitsHasExpiredSoThatItIsReported) {
  Batcher batcher = Make(64, minutes(1));
  ASSERT_TRUE(batcher.Enqueue(0, 1, kStart + milliseconds(10), kStart));
  ASSERT_TRUE(batcher.ShouldRun(kStart + seconds(1), true));
  Ids expired;
  EXPECT_EQ(batcher.Take(kStart + seconds(1), &expired), Ids{});
  EXPECT_EQ(expired, Ids{0});
}

TEST(Batcher, RefusesWhenItsQueueIsFull) {
  Batcher batcher = Make(64, {}, 2);
  EXPECT_TRUE(batcher.Enqueue(0, 1, kNever, kStart));
  EXPECT_TRUE(batcher.Enqueue(1, 1, kNever, kStart));
  EXPECT_FALSE(batcher.Enqueue(2, 1, kNever, kStart));
  EXPECT_EQ(Take(batcher, kStart), (Ids{0, 1}));
  EXPECT_TRUE(batcher.Enqueue(2, 1, kNever, kStart));
}

TEST(Batcher, RefusesOptionsOutOfRangeAndNamesThem) {
  const auto message = [](std::int64_t max_rows, Duration max_delay, std::size_t max_queue) {
    const auto batcher = Batcher::Create({max_rows, max_delay, max_queue});
    return batcher.ok() ? std::string("accepted") : batcher.status().message();
  };
  EXPECT_EQ(message(1, {}, 1), "accepted");
  EXPECT_EQ(message(1'000'000, minutes(1), 1'000'000), "accepted");
  for (const std::int64_t bad : {0, -1, 1'000'001}) EXPECT_EQ(message(bad, {}, 1).rfind("max_rows must be", 0), 0u);
  for (const Duration bad : {Duration(-1), Duration(minutes(2))}) {
    EXPECT_EQ(message(1, bad, 1).rfind("max_delay must be", 0), 0u);
  }
  for (const std::size_t bad : {0u, 1'000'001u}) EXPECT_EQ(message(1, {}, bad).rfind("max_queue must be", 0), 0u);
}

// A node on a virtual clock: requests come at random, workers run batches for random times, the batcher is driven as
// its header says and looked at only at events and at NextAt.
TEST(BatcherProperty, HandsEveryRequestBackOnceInOrderAndInTime) {
  struct Request {
    std::int64_t rows;
    TimePoint came, deadline;
    bool out = false;
  };
  int batches = 0, shared = 0, alone = 0, expirations = 0, delayed = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const std::int64_t max_rows = 1 + static_cast<std::int64_t>(random.Below(20));
    const Duration max_delay = random.Below(2) == 0 ? Duration(0) : Duration(microseconds(random.Below(5000)));
    const std::size_t max_queue = 1 + random.Below(40);
    const std::size_t workers = 1 + random.Below(3);
    const Duration expected = random.Below(2) == 0 ? Duration(0) : Duration(microseconds(random.Below(3000)));
    const std::uint64_t mean_us = 1 + random.Below(3000);
    const bool deadlines = random.Below(3) > 0;
    Batcher batcher = Make(max_rows, max_delay, max_queue);
    batcher.SetExpected(expected);

    std::map<std::uint64_t, Request> requests;
    std::multimap<TimePoint, int> busy;  // when a worker is idle again
    std::uint64_t last_taken = 0;        // ids count up from 1: first in first out means they come out rising
    TimePoint idle_since = kStart, now = kStart, next_request = kStart;
    std::uint64_t next_id = 1;
    std::size_t out = 0;

    const auto hand_back_expired = [&](const Ids& ids) {
      for (const std::uint64_t id : ids) {
        Request& r = requests.at(id);
        ASSERT_FALSE(r.out);
        ASSERT_LT(r.deadline, now + expected) << "it could have been in time";
        // If a worker was idle all the time, nothing but its own deadline made it expire.
        const bool was_idle = busy.size() < workers && r.came >= idle_since;
        ASSERT_TRUE(!was_idle || r.deadline < r.came + expected);
        r.out = true;
        ++out;
        ++expirations;
      }
    };

    while (next_id <= 300 || out < requests.size()) {
      // The next event.
      const bool idle = busy.size() < workers;
      TimePoint at = next_id <= 300 ? next_request : TimePoint::max();
      if (!busy.empty()) at = std::min(at, busy.begin()->first);
      if (const auto next = batcher.NextAt(idle)) at = std::min(at, std::max(*next, now));
      ASSERT_LT(at, TimePoint::max()) << "something waits and nothing will happen";
      now = at;
      while (!busy.empty() && busy.begin()->first <= now) {
        if (busy.size() == workers) idle_since = now;
        busy.erase(busy.begin());
      }
      if (next_id <= 300 && next_request <= now) {
        Request r{1 + static_cast<std::int64_t>(random.Below(random.Below(10) == 0 ? 40 : 5)), now, TimePoint::max()};
        if (deadlines) r.deadline = now + microseconds(random.Below(20'000)) - milliseconds(1);
        const bool room = batcher.waiting() < max_queue;
        ASSERT_EQ(batcher.Enqueue(next_id, r.rows, r.deadline, now), room);
        if (room) requests[next_id] = r;
        ++next_id;
        next_request = now + microseconds(random.Below(2 * mean_us));
      }

      ASSERT_FALSE(batcher.ShouldRun(now, false));
      ASSERT_NO_FATAL_FAILURE(hand_back_expired(batcher.Expire(now)));
      int turns = 0;
      while (busy.size() < workers && batcher.ShouldRun(now, true)) {
        ASSERT_LT(++turns, 100) << "says run and hands out nothing";
        Ids expired;
        const Ids batch = batcher.Take(now, &expired);
        ASSERT_NO_FATAL_FAILURE(hand_back_expired(expired));
        if (batch.empty()) continue;
        std::int64_t rows = 0;
        for (const std::uint64_t id : batch) {
          Request& r = requests.at(id);
          ASSERT_FALSE(r.out);
          ASSERT_GT(id, last_taken) << "overtaken";
          ASSERT_GE(r.deadline, now + expected) << "runs in vain";
          // It may wait for a worker, but not for company.
          ASSERT_LE(now - std::max(r.came, idle_since), max_delay);
          if (now > std::max(r.came, idle_since)) ++delayed;
          last_taken = id;
          rows += r.rows;
          r.out = true;
          ++out;
        }
        ASSERT_TRUE(rows <= max_rows || batch.size() == 1) << rows;
        ++batches;
        ++(batch.size() > 1 ? shared : alone);
        busy.emplace(now + microseconds(random.Below(4000)), 0);
      }
      const auto next = batcher.NextAt(busy.size() < workers);
      ASSERT_EQ(next.has_value(), batcher.waiting() > 0);
      ASSERT_TRUE(!next || *next > now) << "to be looked at again at once, for ever";
    }
    ASSERT_EQ(batcher.waiting(), 0u);
    ASSERT_EQ(batcher.waiting_rows(), 0);
    for (const auto& [id, r] : requests) ASSERT_TRUE(r.out) << id;
  }
  for (const int seen : {batches, shared, alone, expirations, delayed}) EXPECT_GT(seen, 1000) << "hardly exercised";
}

}  // namespace
}  // namespace ganglion::batching
