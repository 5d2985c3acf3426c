#include "telemetry/trace.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/random.h"

namespace ganglion::telemetry {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::ordered_json;

constexpr char kValid[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(Trace, ReadsAndWritesTraceparent) {
  const auto context = ParseTraceparent(kValid);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(TraceIdText(context->trace_id), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(context->trace_id[0], 0x0A);
  EXPECT_EQ(context->span_id[7], 0x31);
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(FormatTraceparent(*context), kValid);
}

TEST(Trace, RefusesWhatTheRecommendationCallsInvalid) {
  const std::string id = "0af7651916cd43dd8448eb211c80319c", span = "b7ad6b7169203331";
  for (const std::string& header :
       std::vector<std::string>{"",
                                "00",
                                "00-",
                                kValid + std::string("-"),
                                kValid + std::string("0"),
                                kValid + std::string("-what"),
                                " " + std::string(kValid),
                                std::string(kValid).substr(0, 54),
                                "ff-" + id + "-" + span + "-01",  // the version that must not be
                                "FF-" + id + "-" + span + "-01",
                                "0x-" + id + "-" + span + "-01",
                                "00-0AF7651916cd43dd8448eb211c80319c-" + span + "-01",  // upper case
                                "00-" + id + "-B7ad6b7169203331-01",
                                "00-" + id + "-" + span + "-0A",
                                "00-00000000000000000000000000000000-" + span + "-01",  // zeros
                                "00-" + id + "-0000000000000000-01",
                                "00-" + id + "_" + span + "-01",
                                "00_" + id + "-" + span + "-01",
                                "00-" + id + "-" + span + "_01",
                                "00-0af7651916cd43dd8448eb211c80319g-" + span + "-01",  // no hex
                                "00-" + id + "-" + span + "-0 ",
                                "01-" + id + "-" + span + "-01x",
                                "01-" + id + "-" + span + "-01.what-the-future-brings"}) {
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << header;
  }
}

TEST(Trace, ReadsHigherVersionsLeniently) {
  const std::string rest = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";
  for (const std::string& header : {"01" + rest + "01", "cc" + rest + "01-", "fe" + rest + "01-what-comes"}) {
    const auto context = ParseTraceparent(header);
    ASSERT_TRUE(context.has_value()) << header;
    EXPECT_EQ(FormatTraceparent(*context), kValid);  // goes on as version 00
  }
}

TEST(Trace, KeepsOfTheFlagsOnlySampled) {
  const std::string head(kValid, 53);
  EXPECT_FALSE(ParseTraceparent(head + "00")->sampled);
  EXPECT_FALSE(ParseTraceparent(head + "fe")->sampled);
  EXPECT_EQ(FormatTraceparent(*ParseTraceparent(head + "ff")), kValid);
  EXPECT_EQ(FormatTraceparent(*ParseTraceparent(head + "02")), head + "00");
}

TEST(Trace, ReadsBackWhatItMakes) {
  const std::uint64_t seed = 11;
  SCOPED_TRACE(seed);
  Random random(seed);
  for (int i = 0; i < 1000; ++i) {
    const TraceContext root = NewTrace({random.Next(), random.Next(), random.Next()}, i % 2 == 0);
    EXPECT_EQ(ParseTraceparent(FormatTraceparent(root)), root);
    const TraceContext child = Child(root, random.Next());
    EXPECT_EQ(child.trace_id, root.trace_id);
    EXPECT_NE(child.span_id, root.span_id);
    EXPECT_EQ(child.sampled, root.sampled);
    EXPECT_EQ(ParseTraceparent(FormatTraceparent(child)), child);
  }
  // Random bits of zeros make a valid context all the same.
  const TraceContext zeros = NewTrace({0, 0, 0}, true);
  EXPECT_EQ(ParseTraceparent(FormatTraceparent(zeros)), zeros);
  EXPECT_EQ(ParseTraceparent(FormatTraceparent(Child(zeros, 0))), Child(zeros, 0));
}

Span MakeSpan(std::string name = "infer") {
  Span span;
  span.trace = *ParseTraceparent(kValid);
  span.name = std::move(name);
  return span;
}

TEST(Trace, EncodesOtlpAsTheProtocolSays) {
  Span server = MakeSpan();
  server.kind = SpanKind::kServer;
  server.start_unix_ns = 1'544'712'660'000'000'000;
  server.end_unix_ns = 1'544'712'661'000'000'000;
  server.attributes = {{"decision", "fashion"}, {"rows", 3}, {"confidence", 0.5}, {"degraded", false}};
  Span client = MakeSpan("ask parent");
  client.parent_span_id = server.trace.span_id;
  client.trace = Child(client.trace, 0xEEE19B7EC3C1B174);
  client.kind = SpanKind::kClient;
  client.ok = false;
  client.error = "timeout";
  EXPECT_EQ(EncodeOtlp(std::vector<Span>{server, client}, "ganglion", "gw-0417"),
            R"({"resourceSpans":[{"resource":{"attributes":[)"
            R"({"key":"service.name","value":{"stringValue":"ganglion"}},)"
            R"({"key":"service.instance.id","value":{"stringValue":"gw-0417"}}]},)"
            R"("scopeSpans":[{"scope":{"name":"ganglion"},"spans":[)"
            R"({"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"infer","kind":2,)"
            R"("startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","attributes":[)"
            R"({"key":"decision","value":{"stringValue":"fashion"}},{"key":"rows","value":{"intValue":"3"}},)"
            R"({"key":"confidence","value":{"doubleValue":0.5}},{"key":"degraded","value":{"boolValue":false}}],)"
            R"("status":{"code":1}},)"
            R"({"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"eee19b7ec3c1b174",)"
            R"("parentSpanId":"b7ad6b7169203331","name":"ask parent","kind":3,"startTimeUnixNano":"0",)"
            R"("endTimeUnixNano":"0","status":{"code":2,"message":"timeout"}}]}]}]})");
}

TEST(Trace, EncodesOddValues) {
  Span span = MakeSpan("a\xFF\"\n");
  span.attributes = {{"nan", std::nan("")}, {"inf", std::numeric_limits<double>::infinity()}};
  const Json json = Json::parse(EncodeOtlp({&span, 1}, "s", "n"), nullptr, false);
  ASSERT_TRUE(json.is_object());
  const Json& encoded = json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(encoded["name"], "a\xEF\xBF\xBD\"\n");
  EXPECT_EQ(encoded["attributes"][0]["value"]["doubleValue"], "NaN");
  EXPECT_EQ(encoded["attributes"][1]["value"]["doubleValue"], "Infinity");
}

class FakeClock final : public Clock {
 public:
  TimePoint Now() const override {
    const TimePoint now{Duration(ns.load())};
    ++reads;
    reads.notify_all();
    return now;
  }
  std::atomic<std::int64_t> ns{0};
  mutable std::atomic<int> reads{0};
};

// A collector that answers what it is told, and can be made to wait.
class FakeCollector {
 public:
  TraceExporter::Post Poster() {
    return [this](const std::string& body) { return Take(body); };
  }
  void Answer(Status status) {
    std::lock_guard lock(mutex_);
    answers_.push_back(std::move(status));
  }
  void Hold(bool held) {
    std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  // Spans in each body so far, once there are `count` bodies.
  std::vector<std::size_t> WaitForBodies(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return bodies_.size() >= count; });
    std::vector<std::size_t> sizes;
    for (const auto& body : bodies_) {
      sizes.push_back(Json::parse(body)["resourceSpans"][0]["scopeSpans"][0]["spans"].size());
    }
    return sizes;
  }
  std::function<void()> on_post = [] {};

 private:
  Status Take(const std::string& body) {
    std::unique_lock lock(mutex_);
    bodies_.push_back(body);
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_; });
    on_post();
    if (answers_.empty()) return {};
    Status answer = answers_.front();
    answers_.pop_front();
    return answer;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> bodies_;
  std::deque<Status> answers_;
  bool held_ = false;
};

using Sizes = std::vector<std::size_t>;

TEST(TraceExporter, PostsABatchAsSoonAsItIsFull) {
  FakeCollector collector;
  FakeClock clock;
  auto exporter = TraceExporter::Create({.batch = 3, .every = 1h}, collector.Poster(), clock);
  ASSERT_TRUE(exporter.ok());
  for (int i = 0; i < 3; ++i) (*exporter)->Add(MakeSpan());
  EXPECT_EQ(collector.WaitForBodies(1), Sizes{3});
}

TEST(TraceExporter, PostsWhatIsThereAfterAWhile) {
  FakeCollector collector;
  FakeClock clock;
  auto exporter = TraceExporter::Create({.every = 1ms}, collector.Poster(), clock);
  (*exporter)->Add(MakeSpan());
  EXPECT_EQ(collector.WaitForBodies(1), Sizes{1});
}

TEST(TraceExporter, PostsTheRestWhenItStops) {
  FakeCollector collector;
  FakeClock clock;
  auto exporter = TraceExporter::Create({.batch = 4, .every = 1h}, collector.Poster(), clock);
  collector.Hold(true);
  for (int i = 0; i < 4; ++i) (*exporter)->Add(MakeSpan());
  collector.WaitForBodies(1);
  for (int i = 0; i < 6; ++i) (*exporter)->Add(MakeSpan());
  collector.Hold(false);
  (*exporter)->Stop();
  EXPECT_EQ(collector.WaitForBodies(3), (Sizes{4, 4, 2}));
  EXPECT_EQ((*exporter)->Counts().exported, 10u);
  (*exporter)->Add(MakeSpan());
  (*exporter)->Stop();
  EXPECT_EQ((*exporter)->Counts().dropped, 1u);
  EXPECT_EQ(collector.WaitForBodies(3).size(), 3u);
}

TEST(TraceExporter, BeginsNoPostAfterTheBoundOfStop) {
  FakeCollector collector;
  FakeClock clock;
  collector.on_post = [&] { clock.ns += Duration(1500ms).count(); };  // slow
  auto exporter = TraceExporter::Create({.batch = 2, .every = 1h, .stop_within = 2s}, collector.Poster(), clock);
  collector.Hold(true);
  for (int i = 0; i < 2; ++i) (*exporter)->Add(MakeSpan());
  collector.WaitForBodies(1);
  for (int i = 0; i < 9; ++i) (*exporter)->Add(MakeSpan());
  std::thread stopper([&] { (*exporter)->Stop(); });
  clock.reads.wait(0);  // Stop has taken its time, 0 s; only then may the first post end
  collector.Hold(false);
  stopper.join();
  EXPECT_EQ(collector.WaitForBodies(2), (Sizes{2, 2}));  // ended at 1.5 s and at 3 s: no third one
  EXPECT_EQ((*exporter)->Counts().exported, 4u);
  EXPECT_EQ((*exporter)->Counts().dropped, 7u);
}

TEST(TraceExporter, DropsWhatTheQueueCannotHold) {
  FakeCollector collector;
  FakeClock clock;
  auto exporter = TraceExporter::Create({.queue = 4, .batch = 2, .every = 1h}, collector.Poster(), clock);
  collector.Hold(true);
  for (int i = 0; i < 2; ++i) (*exporter)->Add(MakeSpan());
  collector.WaitForBodies(1);  // these two are under way, the queue is empty
  for (int i = 0; i < 7; ++i) (*exporter)->Add(MakeSpan());
  EXPECT_EQ((*exporter)->Counts().dropped, 3u);
  collector.Hold(false);
  (*exporter)->Stop();
  EXPECT_EQ((*exporter)->Counts().exported, 6u);
}

TEST(TraceExporter, RepeatsABatchThatACollectorCouldNotTake) {
  FakeCollector collector;
  FakeClock clock;
  collector.Answer(Unavailable("restarting"));
  collector.Answer(ResourceExhausted("busy"));
  auto exporter = TraceExporter::Create({.batch = 2, .every = 1ms}, collector.Poster(), clock);
  for (int i = 0; i < 2; ++i) (*exporter)->Add(MakeSpan());
  collector.WaitForBodies(3);
  (*exporter)->Stop();
  EXPECT_EQ((*exporter)->Counts().exported, 2u);
  EXPECT_EQ((*exporter)->Counts().dropped, 0u);
}

TEST(TraceExporter, GivesUpABatchAfterAFewTries) {
  FakeCollector collector;
  FakeClock clock;
  for (int i = 0; i < TraceExporter::kAttempts; ++i) collector.Answer(Unavailable("down"));
  auto exporter = TraceExporter::Create({.batch = 2, .every = 1ms}, collector.Poster(), clock);
  for (int i = 0; i < 2; ++i) (*exporter)->Add(MakeSpan());
  collector.WaitForBodies(TraceExporter::kAttempts);
  (*exporter)->Stop();
  EXPECT_EQ((*exporter)->Counts().dropped, 2u);
  EXPECT_EQ(collector.WaitForBodies(0).size(), static_cast<std::size_t>(TraceExporter::kAttempts));
}

TEST(TraceExporter, DropsABatchThatTheCollectorRefuses) {
  FakeCollector collector;
  FakeClock clock;
  collector.Answer(InvalidArgument("400"));
  auto exporter = TraceExporter::Create({.batch = 2, .every = 1h}, collector.Poster(), clock);
  for (int i = 0; i < 4; ++i) (*exporter)->Add(MakeSpan());
  (*exporter)->Stop();
  EXPECT_EQ((*exporter)->Counts().dropped, 2u);
  EXPECT_EQ((*exporter)->Counts().exported, 2u);
}

TEST(TraceExporter, LeavesOutTracesThatAreNotSampled) {
  FakeCollector collector;
  FakeClock clock;
  auto exporter = TraceExporter::Create({.every = 1h}, collector.Poster(), clock);
  Span span = MakeSpan();
  span.trace.sampled = false;
  (*exporter)->Add(span);
  (*exporter)->Stop();
  EXPECT_EQ(collector.WaitForBodies(0), Sizes{});
  EXPECT_EQ((*exporter)->Counts().dropped, 0u);
}

TEST(TraceExporter, CountsEverySpanOnceAmongThreads) {
  FakeCollector collector;
  FakeClock clock;
  auto exporter = TraceExporter::Create({.queue = 64, .batch = 16, .every = 1ms}, collector.Poster(), clock);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) (*exporter)->Add(MakeSpan());
    });
  }
  for (auto& thread : threads) thread.join();
  (*exporter)->Stop();
  const TraceCounts counts = (*exporter)->Counts();
  EXPECT_EQ(counts.exported + counts.dropped, 4000u);
  std::size_t posted = 0;
  for (const std::size_t size : collector.WaitForBodies(0)) posted += size;
  EXPECT_EQ(posted, counts.exported);
}

TEST(TraceExporter, RefusesOptionsThatCannotWork) {
  FakeClock clock;
  const auto post = [](const std::string&) { return Status(); };
  EXPECT_EQ(TraceExporter::Create({.batch = 0}, post, clock).status().message(),
            "trace batch must be at least 1 and at most the queue, got 0 and 4096");
  EXPECT_FALSE(TraceExporter::Create({.queue = 1}, post, clock).ok());
  EXPECT_FALSE(TraceExporter::Create({.every = 0s}, post, clock).ok());
  EXPECT_FALSE(TraceExporter::Create({}, nullptr, clock).ok());
}

}  // namespace
}  // namespace ganglion::telemetry
