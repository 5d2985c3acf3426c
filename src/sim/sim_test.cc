#include "sim/sim.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace ganglion::sim {
namespace {

using std::chrono::milliseconds;

#ifdef GANGLION_SANITIZED
constexpr std::uint64_t kSeeds = 60;
#else
constexpr std::uint64_t kSeeds = 500;
#endif

TEST(Sim, KeepsEveryInvariantOnEverySeed) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Report report = Simulate(seed);
    ASSERT_TRUE(report.ok()) << report.failure;
  }
}

TEST(Sim, GetsAbout) {
  Counts c;
  for (std::uint64_t seed = 1000; seed < 1150; ++seed) {
    const Report report = Simulate(seed);
    ASSERT_TRUE(report.ok()) << report.failure;
    c.Add(report.counts);
  }
  for (const auto& [count, name] :
       {std::pair(c.accepted_rows, "accepted"), std::pair(c.failed, "failed"), std::pair(c.lost, "lost"),
        std::pair(c.shared_runs, "shared runs"), std::pair(c.calls_to_dead, "calls to dead parents"),
        std::pair(c.timeouts, "timeouts"), std::pair(c.trips, "trips"), std::pair(c.retries, "retries"),
        std::pair(c.audits, "audits"), std::pair(c.expired, "expired in a queue"),
        std::pair(c.cheaper, "cheapest only"), std::pair(c.refused, "refused"), std::pair(c.queue_full, "queue full"),
        std::pair(c.checked, "checked in calm")})
    EXPECT_GT(count, 0u) << "no seed gets to: " << name;
  for (std::size_t i = 1; i < c.by_reason.size(); ++i)
    EXPECT_GT(c.by_reason[i], 0u) << "no row is degraded for the reason " << ReasonName(i);
}

TEST(Sim, RunsTheSameTwice) {
  std::set<std::uint64_t> digests;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const Report first = Simulate(seed);
    const Report second = Simulate(seed);
    EXPECT_EQ(first.digest, second.digest) << "seed " << seed;
    EXPECT_EQ(first.events, second.events) << "seed " << seed;
    digests.insert(first.digest);
  }
  EXPECT_EQ(digests.size(), 20u);
}

TEST(Sim, TellsTheSeedAndWhatLedToIt) {
  for (std::uint64_t seed = 1; seed < 100; ++seed) {
    const Report report = Simulate(seed, Mutation::kHideReason);
    if (report.ok()) continue;
    EXPECT_EQ(report.failure.rfind("seed " + std::to_string(seed) + ", ", 0), 0u) << report.failure;
    EXPECT_NE(report.failure.find("is degraded, with the reason \"\""), std::string::npos) << report.failure;
    EXPECT_NE(report.failure.find(" arrives, from "), std::string::npos) << report.failure;
    EXPECT_EQ(Simulate(seed, Mutation::kHideReason).failure, report.failure);
    return;
  }
  FAIL() << "no seed fails";
}

// The simulator bites: whatever is planted is found, and by the invariant that is about it.
struct Planted {
  Mutation mutation;
  const char* says;
  std::uint64_t within = 500;
};
class SimBites : public testing::TestWithParam<Planted> {};

TEST_P(SimBites, WhenOneThingIsWrong) {
  const Planted& planted = GetParam();
  for (std::uint64_t seed = 1; seed <= planted.within; ++seed) {
    const Report report = Simulate(seed, planted.mutation);
    if (report.ok()) continue;
    const std::string line = report.failure.substr(0, report.failure.find('\n'));
    EXPECT_NE(line.find(planted.says), std::string::npos) << line;
    return;
  }
  FAIL() << "not found within " << planted.within << " seeds";
}

const std::vector<Planted>& AllPlanted() {
  static const std::vector<Planted> all{{Mutation::kRunExpired, "after its deadline"},
                                        {Mutation::kForgetExpired, "after its deadline"},
                                        {Mutation::kIgnorePrivacy, "gets an input that is"},
                                        {Mutation::kTimeoutIsSuccess, "calls dead parent"},
                                        {Mutation::kHedgeLoserIsSuccess, "calls dead parent", 1500},
                                        {Mutation::kNoQuestionTimer, "after its deadline"},
                                        {Mutation::kRetryUnlimited, "retries for"},
                                        {Mutation::kLeakParentInFlight, "calls under way at rest"},
                                        {Mutation::kLeakAdmission, "requests inside at rest"},
                                        {Mutation::kAskFromTheBottom, "is computed by stage"},
                                        {Mutation::kHideDegraded, "row"},
                                        {Mutation::kHideReason, "with the reason \"\""},
                                        {Mutation::kMixRows, "is not what stage"},
                                        {Mutation::kIgnoreHops, "hops"},
                                        {Mutation::kOneQueueTimer, "while a worker is idle"},
                                        {Mutation::kFastestNeverFades, "all is well again"},
                                        {Mutation::kNoProbe, "all is well again"},
                                        {Mutation::kForgetLateRun, "bad runs"}};
  return all;
}

INSTANTIATE_TEST_SUITE_P(Sim, SimBites, testing::ValuesIn(AllPlanted()),
                         [](const auto& planted) { return std::string(Name(planted.param.mutation)); });

TEST(Sim, PlantsEveryMutation) {
  std::set<Mutation> planted{Mutation::kNone};
  for (const Planted& p : AllPlanted()) planted.insert(p.mutation);
  EXPECT_EQ(planted.size(), static_cast<std::size_t>(Mutation::kCount));
}

TEST(World, RunsEventsInOrderOfTimeThenOfPlanning) {
  World world(1);
  const TimePoint begin = world.now();
  std::vector<int> order;
  world.At(begin + milliseconds(2), [&] { order.push_back(3); });
  world.At(begin + milliseconds(1), [&] {
    order.push_back(1);
    world.At(begin, [&] { order.push_back(2); });  // has passed: now
  });
  const auto cancelled = world.At(begin + milliseconds(1), [&] { order.push_back(-1); });
  world.At(begin + milliseconds(2), [&] { order.push_back(4); });
  EXPECT_TRUE(world.Cancel(cancelled));
  EXPECT_FALSE(world.Cancel(cancelled));
  while (world.Step(begin + milliseconds(5))) {
  }
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
  EXPECT_EQ(world.now(), begin + milliseconds(5));
}

TEST(World, KeepsTheOrderOfALinkUnlessToldOtherwise) {
  for (const double reorder : {0., .5}) {
    World world(7);
    world.SetNodes(2);
    world.link(0, 1) = {milliseconds(10), milliseconds(9), 0, 0, reorder};
    const TimePoint begin = world.now();
    std::vector<int> order;
    for (int i = 0; i < 50; ++i) {
      world.At(begin + milliseconds(i), [&world, &order, i] { world.Send(0, 1, [&order, i] { order.push_back(i); }); });
    }
    while (world.Step(begin + std::chrono::seconds(1))) {
    }
    EXPECT_EQ(order.size(), 50u);
    EXPECT_EQ(std::is_sorted(order.begin(), order.end()), reorder == 0);
  }
}

TEST(World, LosesAndRepeatsAsOftenAsTold) {
  World world(7);
  world.SetNodes(2);
  int arrived = 0;
  const auto send = [&](double loss, double duplicate, int cuts) {
    world.link(0, 1) = {milliseconds(1), {}, loss, duplicate, 0, cuts};
    arrived = 0;
    for (int i = 0; i < 1000; ++i) world.Send(0, 1, [&] { ++arrived; });
    while (world.Step(world.now() + milliseconds(5))) {
    }
    return arrived;
  };
  EXPECT_EQ(send(0, 0, 0), 1000);
  EXPECT_EQ(send(0, 0, 1), 0);
  EXPECT_NEAR(send(.3, 0, 0), 700, 60);
  EXPECT_NEAR(send(0, .2, 0), 1200, 60);
}

}  // namespace
}  // namespace ganglion::sim
