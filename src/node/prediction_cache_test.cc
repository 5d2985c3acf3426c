#include "node/prediction_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "base/random.h"

namespace ganglion::node {
namespace {

using Kind = PredictionCache::Lookup::Kind;
using Value = PredictionCache::Value;
using std::chrono::microseconds;
using std::chrono::seconds;

const TimePoint kStart{seconds(1000)};

Value Answer(const std::string& id) {
  auto response = std::make_shared<wire::InferResponse>();
  response->id = id;
  return response;
}
std::string IdOf(const Value& value) { return value == nullptr ? "none" : value->id; }

std::unique_ptr<PredictionCache> Make(const PredictionCacheOptions& options = {}) {
  auto cache = PredictionCache::Create(options);
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return std::move(cache).value();
}

std::string KeyFor(const std::string& content, const std::string& model = "m") {
  wire::InferRequest request;
  request.model = model;
  request.inputs.push_back({"x", tensor::DataType::kUint8, {static_cast<std::int64_t>(content.size())}});
  request.inputs[0].bytes = std::as_bytes(std::span(content));
  std::string key;
  EXPECT_TRUE(AppendKey(request, "1", &key));
  return key;
}

// What most requests do: answer from the cache, or compute and report.
std::string Ask(PredictionCache& cache, const std::string& key, const std::string& computed, TimePoint now = kStart) {
  auto found = cache.Find(key, now, nullptr);
  if (found.kind == Kind::kHit) return found.value->id;
  if (found.kind == Kind::kLead) cache.Complete(std::move(found.ticket), Answer(computed), 100, true, now);
  return computed;
}

// --- keys

const std::vector<std::int32_t> kNumbers{1, 2, 3, 4, 5, 6};

wire::InferRequest Request() {
  wire::InferRequest request;
  request.model = "digits";
  request.id = "7";
  for (const char* name : {"a", "b"}) {
    request.inputs.push_back({name, tensor::DataType::kInt32, {2, 3}});
    request.inputs.back().bytes = std::as_bytes(std::span(kNumbers));
  }
  request.outputs.push_back({"y"});
  request.parameters = {{"top", std::int64_t{5}}, {"mode", std::string("fast")}};
  return request;
}

std::string KeyOf(const wire::InferRequest& request, const std::string& served = "1") {
  std::string key;
  EXPECT_TRUE(AppendKey(request, served, &key));
  return key;
}

TEST(PredictionKey, DiffersWhereAnswersMay) {
  using Change = std::function<void(wire::InferRequest&)>;
  const std::map<std::string, Change> changes{
      {"nothing", [](auto&) {}},
      {"model", [](auto& r) { r.model = "digit"; }},
      {"shape 3,2",
       [](auto& r) {
         r.inputs[0].shape = {3, 2};
       }},
      {"shape 6", [](auto& r) { r.inputs[0].shape = {6}; }},
      {"shape 1,2,3",
       [](auto& r) {
         r.inputs[0].shape = {1, 2, 3};
       }},
      {"datatype", [](auto& r) { r.inputs[0].type = tensor::DataType::kUint32; }},
      {"datatype of another width", [](auto& r) { r.inputs[0].type = tensor::DataType::kUint8; }},
      {"input name", [](auto& r) { r.inputs[0].name = "ab"; }},
      {"input order", [](auto& r) { std::swap(r.inputs[0], r.inputs[1]); }},
      {"one input less", [](auto& r) { r.inputs.pop_back(); }},
      {"content", [](auto& r) { r.inputs[0].bytes = r.inputs[0].bytes.subspan(4); }},
      {"content of the second", [](auto& r) { r.inputs[1].bytes = r.inputs[1].bytes.first(20); }},
      {"content moved over the boundary",
       [](auto& r) {
         r.inputs[0].bytes = r.inputs[0].bytes.first(20);
         r.inputs[1].bytes = r.inputs[1].bytes.subspan(4);
       }},
      {"input parameter",
       [](auto& r) {
         r.inputs[0].parameters = {{"p", true}};
       }},
      {"the second's parameter",
       [](auto& r) {
         r.inputs[1].parameters = {{"p", true}};
       }},
      {"no output named", [](auto& r) { r.outputs.clear(); }},
      {"output name", [](auto& r) { r.outputs[0].name = "z"; }},
      {"two outputs", [](auto& r) { r.outputs.push_back({"z"}); }},
      {"two outputs the other way", [](auto& r) { r.outputs.insert(r.outputs.begin(), {"z"}); }},
      {"classification", [](auto& r) { r.outputs[0].classification = 3; }},
      {"other classification", [](auto& r) { r.outputs[0].classification = 4; }},
      {"output parameter",
       [](auto& r) {
         r.outputs[0].parameters = {{"p", true}};
       }},
      {"no parameters", [](auto& r) { r.parameters.clear(); }},
      {"parameter name", [](auto& r) { r.parameters[0].name = "to"; }},
      {"parameter value", [](auto& r) { r.parameters[0].value = std::int64_t{6}; }},
      {"parameter as number", [](auto& r) { r.parameters[0].value = 5.0; }},
      {"parameter as text", [](auto& r) { r.parameters[0].value = std::string("5"); }},
      {"parameter as flag", [](auto& r) { r.parameters[0].value = true; }},
      {"parameter 1", [](auto& r) { r.parameters[0].value = std::int64_t{1}; }},
      {"one parameter more",
       [](auto& r) {
         r.parameters.push_back({"deadline", 5.0});
       }},
      {"values swapped", [](auto& r) { std::swap(r.parameters[0].value, r.parameters[1].value); }},
  };
  std::map<std::string, std::string> seen;
  for (const auto& change : changes) {
    wire::InferRequest request = Request();
    change.second(request);
    const auto added = seen.emplace(KeyOf(request), change.first);
    EXPECT_TRUE(added.second) << change.first << " gives the key of " << added.first->second;
  }
  EXPECT_TRUE(seen.emplace(KeyOf(Request(), "2"), "version").second);
  wire::InferRequest moved = Request();
  moved.model = "digits1";
  EXPECT_TRUE(seen.emplace(KeyOf(moved, ""), "version moved into the name").second);
}

// Without the rank before the dimensions these two would have the same bytes.
TEST(PredictionKey, CannotTakeADimensionForWhatFollows) {
  wire::InferRequest one = Request();
  one.inputs[0].bytes = {};
  wire::InferRequest other = one;
  one.inputs[0].shape = {6, 0};
  one.inputs[1] = {"", tensor::DataType::kInt8, {}, one.inputs[1].bytes};
  other.inputs[0].shape = {6};
  other.inputs[1] = {"", tensor::DataType::kBool, {static_cast<int>(tensor::DataType::kInt8)}, other.inputs[1].bytes};
  EXPECT_NE(KeyOf(one), KeyOf(other));
}

TEST(PredictionKey, IsEqualWhereAnswersAre) {
  using Change = std::function<void(wire::InferRequest&)>;
  const std::map<std::string, Change> changes{
      {"id", [](auto& r) { r.id = "8"; }},
      {"version asked for", [](auto& r) { r.version = "1"; }},
      {"binary", [](auto& r) { r.outputs[0].binary = r.binary_output = true; }},
      {"shared memory of an output",
       [](auto& r) {
         r.outputs[0].shared = wire::SharedMemory{"out", 0, 64};
       }},
      {"parameter order", [](auto& r) { std::swap(r.parameters[0], r.parameters[1]); }},
      {"where the content lies",
       [](auto& r) {
         static const std::vector<std::int32_t> copy = kNumbers;
         r.inputs[0].bytes = std::as_bytes(std::span(copy));
       }},
  };
  for (const auto& change : changes) {
    wire::InferRequest request = Request();
    change.second(request);
    EXPECT_EQ(KeyOf(request), KeyOf(Request())) << change.first;
  }
  for (const char* name : {"deadline_ms", "timeout", "unit", "traceparent", "tracestate", "hop", "event_id", "priority",
                           "sequence_start", "sequence_end"}) {
    wire::InferRequest request = Request();
    request.parameters.insert(request.parameters.begin(), {name, std::int64_t{1}});
    EXPECT_EQ(KeyOf(request), KeyOf(Request())) << name;
    request = Request();
    request.inputs[0].parameters.push_back({name, std::int64_t{1}});  // of an input: whatever the model makes of it
    EXPECT_NE(KeyOf(request), KeyOf(Request())) << name;
  }
}

TEST(PredictionKey, IsRefusedForSequencesAndInputsInSharedMemory) {
  std::string key;
  wire::InferRequest request = Request();
  request.parameters.push_back({"sequence_id", std::int64_t{1}});
  EXPECT_FALSE(AppendKey(request, "1", &key));
  request = Request();
  request.inputs[1].shared = wire::SharedMemory{"in", 0, 24};
  EXPECT_FALSE(AppendKey(request, "1", &key));
}

// --- answers

TEST(PredictionCache, RefusesOptionsThatCannotWork) {
  PredictionCacheOptions options;
  options.shards = 12;
  EXPECT_EQ(PredictionCache::Create(options).status().message(),
            "cache shards must be a power of two from 1 to 1024, got 12");
  options = {};
  options.max_bytes = 1000;
  EXPECT_EQ(PredictionCache::Create(options).status().message(),
            "cache bytes must be at least 65536 for 16 shards, got 1000");
  options = {};
  options.time_to_live = Duration::zero();
  EXPECT_FALSE(PredictionCache::Create(options).ok());
}

TEST(PredictionCache, AnswersASecondEqualRequest) {
  const auto cache = Make();
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "first"), "first");
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "second"), "first");
  EXPECT_EQ(Ask(*cache, KeyFor("r"), "third"), "third");
  const auto stats = cache->stats();
  EXPECT_EQ(stats.hits, 1u);
  EXPECT_EQ(stats.misses, 2u);
  EXPECT_EQ(stats.entries, 2u);
  EXPECT_GT(stats.bytes, 200u);
  EXPECT_FALSE(stats.off);
}

TEST(PredictionCache, KeepsOnlyWhatIsCacheable) {
  const auto cache = Make();
  auto found = cache->Find(KeyFor("q"), kStart, nullptr);
  ASSERT_EQ(found.kind, Kind::kLead);
  cache->Complete(std::move(found.ticket), Answer("degraded"), 100, false, kStart);
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "whole"), "whole");
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "other"), "whole");
}

TEST(PredictionCache, ForgetsAfterTheTimeToLive) {
  const auto cache = Make();
  Ask(*cache, KeyFor("q"), "old");
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "new", kStart + seconds(59)), "old");
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "new", kStart + seconds(60)), "new");
  EXPECT_EQ(Ask(*cache, KeyFor("q"), "newer", kStart + seconds(61)), "new");
}

TEST(PredictionCache, TellsRequestsOfOneHashApart) {
  PredictionCacheOptions options;
  options.hash = [](std::string_view, std::uint64_t) { return cache::Hash128{1, 2}; };
  const auto cache = Make(options);
  auto a = cache->Find(KeyFor("a"), kStart, nullptr);
  auto b = cache->Find(KeyFor("b"), kStart, [](Value) {});
  ASSERT_EQ(a.kind, Kind::kLead);
  ASSERT_EQ(b.kind, Kind::kLead);  // no waiting for another's answer
  std::string waited;
  ASSERT_EQ(cache->Find(KeyFor("a"), kStart, [&](Value v) { waited = IdOf(v); }).kind, Kind::kWait);
  cache->Complete(std::move(b.ticket), Answer("of b"), 100, true, kStart);
  EXPECT_EQ(waited, "");
  cache->Complete(std::move(a.ticket), Answer("of a"), 100, true, kStart);
  EXPECT_EQ(waited, "of a");
  EXPECT_EQ(Ask(*cache, KeyFor("a"), "wrong"), "of a");
  EXPECT_EQ(Ask(*cache, KeyFor("b"), "wrong"), "of b");
  EXPECT_EQ(Ask(*cache, KeyFor("c"), "of c"), "of c");
}

TEST(PredictionCache, ComputesOnceForManyThreads) {
  const auto cache = Make();
  constexpr int kThreads = 8;
  constexpr int kRounds = 50;
  for (int round = 0; round < kRounds; ++round) {
    const std::string key = KeyFor("q" + std::to_string(round));
    const std::uint64_t waits_before = cache->stats().waits;
    std::atomic<int> computations{0}, right{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        std::promise<Value> promise;
        auto found = cache->Find(key, kStart, [&](Value v) { promise.set_value(std::move(v)); });
        Value value;
        if (found.kind == Kind::kLead) {
          ++computations;
          while (cache->stats().waits - waits_before < kThreads - 1) std::this_thread::yield();
          value = Answer(std::to_string(round));
          cache->Complete(std::move(found.ticket), value, 100, true, kStart);
        } else if (found.kind == Kind::kWait) {
          value = promise.get_future().get();
        }
        right += IdOf(value) == std::to_string(round) ? 1 : 0;
      });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(computations, 1);
    EXPECT_EQ(right, kThreads);
  }
  EXPECT_EQ(cache->stats().waits, static_cast<std::uint64_t>(kRounds * (kThreads - 1)));
}

TEST(PredictionCache, WakesWaitersWhenTheLeaderGivesUp) {
  const auto cache = Make();
  const std::string key = KeyFor("q");
  for (const bool dropped : {false, true}) {
    std::vector<std::string> woken;
    auto lead = cache->Find(key, kStart, nullptr);
    ASSERT_EQ(lead.kind, Kind::kLead);
    // The first waiter asks again at once and leads: no lock may be held while it is called.
    PredictionCache::Ticket next;
    cache->Find(key, kStart, [&](Value v) {
      woken.push_back(IdOf(v));
      next = cache->Find(key, kStart, nullptr).ticket;
    });
    cache->Find(key, kStart, [&](Value v) { woken.push_back(IdOf(v)); });
    if (dropped) {
      lead = {};
    } else {
      cache->Abandon(std::move(lead.ticket));
    }
    EXPECT_EQ(woken, (std::vector<std::string>{"none", "none"}));
    EXPECT_TRUE(next.valid());
  }
  EXPECT_EQ(cache->stats().entries, 0u);
}

TEST(PredictionCache, DoesNotCallAWaiterThatCancelled) {
  const auto cache = Make();
  const std::string key = KeyFor("q");
  auto lead = cache->Find(key, kStart, nullptr);
  int patient = 0, cancelled = 0;
  const auto first = cache->Find(key, kStart, [&](Value) { ++patient; });
  const auto second = cache->Find(key, kStart, [&](Value) { ++cancelled; });
  EXPECT_TRUE(cache->CancelWait(second.wait));
  EXPECT_FALSE(cache->CancelWait(second.wait));
  cache->Complete(std::move(lead.ticket), Answer("a"), 100, true, kStart);
  EXPECT_FALSE(cache->CancelWait(first.wait));
  EXPECT_EQ(patient, 1);
  EXPECT_EQ(cancelled, 0);
}

TEST(PredictionCache, DoesNotMakeThoseWaitWhoCannot) {
  const auto cache = Make();
  const auto lead = cache->Find(KeyFor("q"), kStart, nullptr);
  EXPECT_EQ(cache->Find(KeyFor("q"), kStart, nullptr).kind, Kind::kOff);
}

TEST(PredictionCache, ErasesAModelAndNoOther) {
  const auto cache = Make();
  for (const char* model : {"m", "mm", ""}) {
    for (int i = 0; i < 100; ++i) Ask(*cache, KeyFor(std::to_string(i), model), model);
  }
  EXPECT_EQ(cache->EraseModel("m"), 100u);
  EXPECT_EQ(cache->stats().entries, 200u);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Ask(*cache, KeyFor(std::to_string(i), "m"), "new"), "new");
    EXPECT_EQ(Ask(*cache, KeyFor(std::to_string(i), "mm"), "new"), "mm");
  }
}

TEST(PredictionCache, KeepsNoAnswerOfALeaderFromBeforeTheErase) {
  const auto cache = Make();
  const std::string key = KeyFor("q");
  std::string before, after;
  auto old_lead = cache->Find(key, kStart, nullptr);
  cache->Find(key, kStart, [&](Value v) { before = IdOf(v); });
  cache->EraseModel("m");
  auto new_lead = cache->Find(key, kStart, nullptr);
  ASSERT_EQ(new_lead.kind, Kind::kLead);  // and does not wait for the old one
  ASSERT_EQ(cache->Find(key, kStart, [&](Value v) { after = IdOf(v); }).kind, Kind::kWait);
  cache->Complete(std::move(old_lead.ticket), Answer("old"), 100, true, kStart);
  EXPECT_EQ(before, "old");
  EXPECT_EQ(after, "");
  EXPECT_EQ(cache->stats().entries, 0u);
  cache->Complete(std::move(new_lead.ticket), Answer("new"), 100, true, kStart);
  EXPECT_EQ(after, "new");
  EXPECT_EQ(Ask(*cache, key, "newer"), "new");
}

// Threads that ask, complete, abandon, cancel and erase at random: every answer is the right one for its key, and every
// request ends once.
TEST(PredictionCacheProperty, AnswersRightlyUnderThreads) {
  PredictionCacheOptions options;
  options.shards = 2;
  options.max_bytes = 64 << 10;
  options.hash = [](std::string_view key, std::uint64_t) {
    return cache::Hash128{std::uint64_t{static_cast<unsigned char>(key.back())} << 48, key.size()};
  };
  const auto cache = Make(options);
  std::atomic<int> wrong{0}, ended{0};
  constexpr int kThreads = 4;
  constexpr int kRequests = 20'000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<std::uint64_t>(t));
      for (int i = 0; i < kRequests; ++i) {
        const std::string content = std::to_string(random.Below(300));
        const std::string key = KeyFor(content);
        const auto end = [&wrong, &ended, content](const Value& v) {
          wrong += v != nullptr && v->id != content ? 1 : 0;
          ++ended;
        };
        auto found = cache->Find(key, kStart, end);
        if (found.kind == Kind::kHit) {
          end(found.value);
        } else if (found.kind == Kind::kLead) {
          if (random.Below(10) > 0) {
            cache->Complete(std::move(found.ticket), Answer(content), random.Below(300), random.Below(5) > 0, kStart);
          }
          end(nullptr);
        } else if (found.kind == Kind::kWait && random.Below(4) == 0) {
          if (cache->CancelWait(found.wait)) end(nullptr);
        } else if (found.kind == Kind::kOff) {
          end(nullptr);
        }
        if (random.Below(1000) == 0) cache->EraseModel("m");
        if (cache->stats().bytes > options.max_bytes) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(ended, kThreads * kRequests);
  EXPECT_GT(cache->stats().hits, 1000u);
  EXPECT_GT(cache->stats().evictions, 1000u);
}

TEST(PredictionCache, TurnsItselfOffWithoutRepeatsAndOnWithThem) {
  struct StepClock final : Clock {  // every look takes a microsecond
    mutable TimePoint now = kStart;
    TimePoint Now() const override { return now += microseconds(1); }
  } clock;
  PredictionCacheOptions options;
  options.clock = &clock;
  const auto cache = Make(options);
  const auto ask = [&](int i) {
    const std::string key = KeyFor(std::to_string(i));
    auto found = cache->Find(key, kStart, nullptr);
    if (found.kind == Kind::kLead) {
      cache->Complete(std::move(found.ticket), Answer(""), 100, true, kStart + microseconds(50));
    }
    return found.kind;
  };
  int asked = 0;
  while (!cache->stats().off && asked < 100'000) ask(asked++);
  EXPECT_GE(asked, 8 * 4096);
  EXPECT_LT(asked, 10 * 4096);
  int off = 0;
  for (int i = 0; i < 64'000; ++i) off += ask(asked++) == Kind::kOff ? 1 : 0;
  EXPECT_TRUE(cache->stats().off);
  EXPECT_NEAR(off, 63'000, 200);  // one in 64: binomial, its standard deviation is 31
  EXPECT_EQ(cache->stats().skipped, static_cast<std::uint64_t>(off));
  asked = 0;
  while (cache->stats().off && asked < 1'000'000) ask(-1 - asked++ % 1000);
  EXPECT_FALSE(cache->stats().off);
  for (int i = 0; i < 1000; ++i) ask(-1 - i);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(ask(-1 - i), Kind::kHit);
}

}  // namespace
}  // namespace ganglion::node
