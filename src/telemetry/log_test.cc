#include "telemetry/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

namespace ganglion::telemetry {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::ordered_json;

class FakeClock final : public Clock {
 public:
  TimePoint Now() const override { return now; }
  TimePoint now{};
};

struct Written {
  explicit Written(Level level = Level::kInfo, LogFormat format = LogFormat::kJson)
      : log(std::make_unique<Log>(LogOptions{level, format, &out}, clock)) {}

  // What was written since the last time.
  std::vector<std::string> Lines() {
    std::vector<std::string> lines;
    std::istringstream text(out.str());
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    out.str("");
    return lines;
  }
  std::vector<Json> Documents() {
    std::vector<Json> documents;
    for (const std::string& line : Lines()) documents.push_back(Json::parse(line, nullptr, false));
    return documents;
  }

  FakeClock clock;
  std::ostringstream out;
  std::unique_ptr<Log> log;
};

TEST(Log, WritesJsonWithTypedFields) {
  Written w;
  w.log->Warning("parent down", {{"parent", "edge:8001"},
                                 {"average", 0.52},
                                 {"tries", 3},
                                 {"last", true},
                                 {"bytes", std::size_t{1} << 40},
                                 {"delta", std::int64_t{-5}},
                                 {"huge", std::numeric_limits<std::uint64_t>::max()},
                                 {"text", std::string("a")}});
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 1u);
  std::string shape = lines[0]["ts"].get<std::string>();
  std::replace_if(
      shape.begin(), shape.end(), [](char c) { return c >= '0' && c <= '9'; }, '0');
  EXPECT_EQ(shape, "0000-00-00T00:00:00.000Z");
  Json rest = lines[0];
  rest.erase("ts");
  EXPECT_EQ(rest.dump(),
            R"({"level":"warning","event":"parent down","parent":"edge:8001","average":0.52,"tries":3,"last":true,)"
            R"("bytes":1099511627776,"delta":-5,"huge":9223372036854775807,"text":"a"})");
}

TEST(Log, WritesTextForPeople) {
  Written w(Level::kInfo, LogFormat::kText);
  w.log->Error("model refused", {{"file", "small.onnx"}, {"why", "two words"}, {"size", 7}, {"x", 0.5}, {"e", ""}});
  const auto lines = w.Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].substr(25), R"(error model refused file=small.onnx why="two words" size=7 x=0.5 e="")");
}

TEST(Log, LetsNoValueForgeALine) {
  const std::string evil = "x\n{\"event\":\"fake\"}\r\x1b[2J \" = \\ %v {}";
  for (const LogFormat format : {LogFormat::kJson, LogFormat::kText}) {
    Written w(Level::kInfo, format);
    w.log->Info("refused", {{"value", evil}});
    w.log->Info(evil);
    const auto lines = w.Lines();
    ASSERT_EQ(lines.size(), 2u);
    for (const auto& line : lines) {
      for (const char c : line) EXPECT_GE(c, ' ') << line;
    }
    if (format == LogFormat::kJson) {
      EXPECT_EQ(Json::parse(lines[0])["value"], evil);
      EXPECT_EQ(Json::parse(lines[1])["event"], evil);
    }
  }
}

TEST(Log, RepairsAndCutsValues) {
  Written w;
  std::string accents;
  for (int i = 0; i < 3000; ++i) accents += "\xC3\xA9";
  w.log->Info("long", {{"bad", "a\xFF"},
                       {"long", accents},
                       {"odd", "x" + accents},
                       {"nan", std::nan("")},
                       {"inf", -std::numeric_limits<double>::infinity()}});
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 1u);
  ASSERT_TRUE(lines[0].is_object());
  EXPECT_EQ(lines[0]["bad"], "a\xEF\xBF\xBD");
  EXPECT_EQ(lines[0]["long"], accents.substr(0, kMaxValueBytes) + "...");
  EXPECT_EQ(lines[0]["odd"], "x" + accents.substr(0, kMaxValueBytes - 2) + "...");  // not half a character
  EXPECT_EQ(lines[0]["nan"], "NaN");
  EXPECT_EQ(lines[0]["inf"], "-Infinity");
}

TEST(Log, KeepsItsOwnKeys) {
  Written w;
  w.log->Info("clash", {{"event", "a"}, {"level", "b"}, {"ts", "c"}});
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["event"], "clash");
  EXPECT_EQ(lines[0]["event_"], "a");
  EXPECT_EQ(lines[0]["level_"], "b");
  EXPECT_EQ(lines[0]["ts_"], "c");
}

TEST(Log, LeavesOutWhatIsBelowItsLevel) {
  Written w(Level::kWarning);
  w.log->Debug("a");
  w.log->Info("b");
  w.log->Warning("c");
  w.log->Error("d");
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["event"], "c");
  EXPECT_EQ(lines[1]["level"], "error");
  EXPECT_FALSE(w.log->Writes(Level::kInfo));
}

TEST(Log, LimitsTheLinesOfAnEventAndSaysHowManyItLeftOut) {
  Written w;
  for (int i = 0; i < 100; ++i) w.log->Warning("parent down", {{"i", i}});
  w.log->Error("parent down");
  EXPECT_EQ(w.Lines().size(), static_cast<std::size_t>(kLinesASecond));
  w.log->Info("other");  // an event of its own
  EXPECT_EQ(w.Lines().size(), 1u);

  w.clock.now += 1s - 1ns;
  w.log->Info("other");
  EXPECT_EQ(w.Lines().size(), 1u);

  w.clock.now += 1ns;
  w.log->Info("other");
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["event"], "lines left out");
  EXPECT_EQ(lines[0]["of"], "parent down");
  EXPECT_EQ(lines[0]["count"], 91);
  EXPECT_EQ(lines[0]["level"], "error");  // the highest of them
  EXPECT_EQ(lines[1]["event"], "other");

  for (int i = 0; i < 11; ++i) w.log->Warning("parent down");
  EXPECT_EQ(w.Lines().size(), 10u);  // and again
}

TEST(Log, TellsWhatItLeftOutWhenItEnds) {
  Written w;
  for (int i = 0; i < 12; ++i) w.log->Info("a");
  w.log->Flush();
  EXPECT_EQ(w.Lines().size(), 11u);
  w.log->Flush();
  EXPECT_EQ(w.Lines().size(), 0u);
  for (int i = 0; i < 3; ++i) w.log->Info("a");
  w.log.reset();
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["count"], 3);
}

TEST(Log, SharesOneLimitAmongEventsBeyondTheLimitOfNames) {
  Written w;
  for (std::size_t i = 0; i < kMaxEventNames + 100; ++i) w.log->Info("event " + std::to_string(i));
  EXPECT_EQ(w.Lines().size(), kMaxEventNames + kLinesASecond);
  w.log->Flush();
  const auto lines = w.Documents();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["of"], "(other events)");
  EXPECT_EQ(lines[0]["count"], 90);
}

TEST(Log, WritesWholeLinesFromManyThreads) {
  Written w;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) w.log->Info("event " + std::to_string(i), {{"thread", t}});
    });
  }
  for (auto& thread : threads) thread.join();
  const auto lines = w.Documents();
  EXPECT_EQ(lines.size(), 2000u);
  for (const auto& line : lines) EXPECT_TRUE(line.is_object() && line.contains("thread"));
}

TEST(Log, WritesToStandardErrorUnlessTold) {
  const FakeClock clock;
  testing::internal::CaptureStderr();
  Log(LogOptions{}, clock).Info("hello", {{"a", 1}});
  EXPECT_NE(testing::internal::GetCapturedStderr().find("info hello a=1\n"), std::string::npos);
}

TEST(Log, KnowsTheNamesOfLevelsAndFormats) {
  EXPECT_EQ(LevelFromName("debug"), Level::kDebug);
  EXPECT_EQ(LevelFromName("info"), Level::kInfo);
  EXPECT_EQ(LevelFromName("warning"), Level::kWarning);
  EXPECT_EQ(LevelFromName("error"), Level::kError);
  EXPECT_EQ(LevelFromName("Info"), std::nullopt);
  EXPECT_EQ(LogFormatFromName("text"), LogFormat::kText);
  EXPECT_EQ(LogFormatFromName("json"), LogFormat::kJson);
  EXPECT_EQ(LogFormatFromName(""), std::nullopt);
}

}  // namespace
}  // namespace ganglion::telemetry
