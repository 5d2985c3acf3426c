#include "telemetry/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <sstream>
#include <thread>

#include "base/random.h"

namespace ganglion::telemetry {
namespace {

using namespace std::chrono_literals;

// A page read back by the rules of the exposition format; anything else on it is a failure.
struct Page {
  std::map<std::string, std::string> help, type;
  std::map<std::pair<std::string, Labels>, double> samples;

  double At(const std::string& name, const Labels& labels = {}) const {
    const auto found = samples.find({name, labels});
    return found == samples.end() ? -1 : found->second;
  }
  bool Has(const std::string& name, const Labels& labels = {}) const { return samples.count({name, labels}) > 0; }
};

std::string Name(const std::string& line, std::size_t* at) {
  const std::size_t begin = *at;
  while (*at < line.size() && (std::isalnum(static_cast<unsigned char>(line[*at])) || line[*at] == '_')) ++*at;
  return line.substr(begin, *at - begin);
}

// Undoes \\ and \n, and \" where quotes end the text.
std::string Unescape(const std::string& line, std::size_t* at, bool quoted) {
  std::string text;
  for (; *at < line.size() && !(quoted && line[*at] == '"'); ++*at) {
    if (line[*at] != '\\') {
      text += line[*at];
      continue;
    }
    const char c = line.at(++*at);
    EXPECT_TRUE(c == '\\' || c == 'n' || (quoted && c == '"')) << line;
    text += c == 'n' ? '\n' : c;
  }
  return text;
}

// The family that a sample belongs to.
std::string FamilyOf(const Page& page, const std::string& sample) {
  if (page.type.count(sample) > 0) return sample;
  for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
    if (sample.size() <= suffix.size() || sample.substr(sample.size() - suffix.size()) != suffix) continue;
    const std::string family = sample.substr(0, sample.size() - suffix.size());
    if (page.type.count(family) > 0 && page.type.at(family) == "histogram") return family;
  }
  return "";
}

Page Parse(const std::string& text) {
  Page page;
  EXPECT_TRUE(text.empty() || text.back() == '\n');
  std::istringstream lines(text);
  std::string current;  // all lines of a family stand together
  for (std::string line; std::getline(lines, line);) {
    std::size_t at = 7;
    if (line.rfind("# HELP ", 0) == 0) {
      const std::string name = Name(line, &at);
      EXPECT_EQ(line.at(at++), ' ');
      EXPECT_TRUE(page.help.emplace(name, Unescape(line, &at, false)).second) << "twice: " << line;
      continue;
    }
    if (line.rfind("# TYPE ", 0) == 0) {
      const std::string name = Name(line, &at);
      EXPECT_TRUE(page.type.emplace(name, line.substr(at + 1)).second) << "twice: " << line;
      current = name;
      continue;
    }
    at = 0;
    const std::string name = Name(line, &at);
    EXPECT_EQ(FamilyOf(page, name), current) << line;
    Labels labels;
    if (line.at(at) == '{') {
      while (line.at(at) != '}') {
        ++at;
        const std::string label = Name(line, &at);
        EXPECT_EQ(line.substr(at, 2), "=\"") << line;
        at += 2;
        labels.emplace_back(label, Unescape(line, &at, true));
        EXPECT_EQ(line.at(at++), '"') << line;
        EXPECT_TRUE(line.at(at) == ',' || line.at(at) == '}') << line;
      }
      ++at;
    }
    EXPECT_EQ(line.at(at++), ' ') << line;
    char* end = nullptr;
    const double value = std::strtod(line.c_str() + at, &end);  // reads +Inf and NaN too
    EXPECT_EQ(*end, '\0') << line;
    EXPECT_TRUE(page.samples.emplace(std::pair(name, labels), value).second) << "twice: " << line;
  }
  return page;
}

TEST(Metrics, WriteCountersAndGauges) {
  Registry registry;
  Counter& accepted = registry.AddCounter("requests_total", "Requests by outcome.", {{"outcome", "accepted"}});
  Counter& failed = registry.AddCounter("requests_total", "Requests by outcome.", {{"outcome", "failed"}});
  Gauge& in_flight = registry.AddGauge("in_flight", "Requests under way.");
  accepted.Add(3);
  accepted.Add(std::size_t{4});
  in_flight.Add(2);
  in_flight.Add(-0.5);
  const Page page = Parse(registry.Text());
  EXPECT_EQ(page.help.at("requests_total"), "Requests by outcome.");
  EXPECT_EQ(page.type.at("requests_total"), "counter");
  EXPECT_EQ(page.type.at("in_flight"), "gauge");
  EXPECT_EQ(page.At("requests_total", {{"outcome", "accepted"}}), 7);
  EXPECT_EQ(page.At("requests_total", {{"outcome", "failed"}}), 0);
  EXPECT_EQ(page.At("in_flight"), 1.5);
  EXPECT_EQ(page.samples.size(), 3u);
  EXPECT_EQ(failed.Units(), 0u);
}

TEST(Metrics, GiveTheSameSeriesForTheSameLabelsInAnyOrder) {
  Registry registry;
  Counter& a = registry.AddCounter("n", "", {{"x", "1"}, {"y", "2"}});
  EXPECT_EQ(&a, &registry.AddCounter("n", "", {{"y", "2"}, {"x", "1"}}));
  EXPECT_NE(&a, &registry.AddCounter("n", "", {{"y", "1"}, {"x", "2"}}));
}

TEST(Metrics, CountMoneyInBillionths) {
  Registry registry;
  Counter& cost = registry.AddCounter("cost_dollars_total", "", {}, kBillionthsADollar);
  for (int i = 0; i < 10'000; ++i) cost.AddReal(0.0001);
  cost.AddReal(-5);
  cost.AddReal(std::nan(""));
  cost.AddReal(std::numeric_limits<double>::infinity());
  EXPECT_EQ(Parse(registry.Text()).At("cost_dollars_total"), 1.0);  // exactly: ten thousand sums of doubles are not
}

TEST(Metrics, EscapeLabelsAndHelp) {
  Registry registry;
  const std::string value = "a\\b\"c\"\nd{}=,\xC3\xA9";
  registry.AddGauge("g", "one \\ two\nthree \"four\"", {{"path", value}}).Set(1);
  const Page page = Parse(registry.Text());
  EXPECT_EQ(page.help.at("g"), "one \\ two\nthree \"four\"");
  EXPECT_EQ(page.At("g", {{"path", value}}), 1);
}

TEST(Metrics, RepairLabelsThatAreNoUtf8) {
  const std::string r = "\xEF\xBF\xBD";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xFF", r},
      {"a\xC3", "a" + r},                        // cut
      {"\xC0\xAF", r + r},                       // overlong
      {"\xE0\x80\x80", r + r + r},               // overlong
      {"\xED\xA0\x80", r + r + r},               // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},       // beyond U+10FFFF
      {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},  // an emoji stays
      {"\xEF\xBF\xBF \xC2\x80", "\xEF\xBF\xBF \xC2\x80"},
  };
  for (const auto& [bad, good] : cases) {
    Registry registry;
    registry.AddGauge("g", "", {{"l", bad}}).Set(1);
    EXPECT_TRUE(Parse(registry.Text()).Has("g", {{"l", good}})) << registry.Text();
  }
}

TEST(Metrics, WriteHistogramsWithCumulativeBuckets) {
  Registry registry;
  Histogram& seconds = registry.AddHistogram("request_seconds", "", {{"decision", "d"}});
  seconds.Observe(Duration(50us));  // a bound belongs to its bucket
  seconds.Observe(Duration(50us) + 1ns);
  seconds.Observe(Duration(3ms));
  seconds.Observe(Duration(1h));
  seconds.Observe(Duration(-1s));
  const Page page = Parse(registry.Text());
  EXPECT_EQ(page.type.at("request_seconds"), "histogram");
  const std::vector<std::pair<std::string, double>> expected = {
      {"5e-05", 2}, {"0.0001", 3}, {"0.00025", 3}, {"0.0005", 3}, {"0.001", 3}, {"0.0025", 3},
      {"0.005", 4}, {"0.01", 4},   {"0.025", 4},   {"0.05", 4},   {"0.1", 4},   {"0.25", 4},
      {"0.5", 4},   {"1", 4},      {"2.5", 4},     {"5", 4},      {"10", 4},    {"+Inf", 5}};
  for (const auto& [le, count] : expected) {
    EXPECT_EQ(page.At("request_seconds_bucket", {{"decision", "d"}, {"le", le}}), count) << le;
  }
  EXPECT_EQ(page.At("request_seconds_count", {{"decision", "d"}}), 5);
  EXPECT_NEAR(page.At("request_seconds_sum", {{"decision", "d"}}), 3600.0031, 1e-6);
  EXPECT_EQ(page.samples.size(), expected.size() + 2);
}

TEST(Metrics, CountRowsInPowersOfTwo) {
  EXPECT_EQ(PowersOfTwo(1024).bounds.size(), 11u);
  EXPECT_EQ(PowersOfTwo(1000).bounds.back(), 1024u);
  EXPECT_EQ(PowersOfTwo(std::numeric_limits<std::uint64_t>::max()).bounds.size(), 64u);
  Registry registry;
  Histogram& rows = registry.AddHistogram("batch_rows", "", {}, PowersOfTwo(1024));
  rows.Observe(1);
  rows.Observe(3);
  rows.Observe(std::size_t{2000});
  const Page page = Parse(registry.Text());
  EXPECT_EQ(page.At("batch_rows_bucket", {{"le", "1"}}), 1);
  EXPECT_EQ(page.At("batch_rows_bucket", {{"le", "2"}}), 1);
  EXPECT_EQ(page.At("batch_rows_bucket", {{"le", "4"}}), 2);
  EXPECT_EQ(page.At("batch_rows_bucket", {{"le", "1024"}}), 2);
  EXPECT_EQ(page.At("batch_rows_bucket", {{"le", "+Inf"}}), 3);
  EXPECT_EQ(page.At("batch_rows_sum"), 2004);
}

TEST(Metrics, EstimateQuantilesInsideTheRightBucket) {
  Histogram rows(PowersOfTwo(1024));
  EXPECT_FALSE(rows.Snapshot().Quantile(0.5).has_value());
  // Against the sorted values: the estimate lies in the bucket of the true quantile.
  const std::uint64_t seed = 7;
  SCOPED_TRACE(seed);
  Random random(seed);
  std::vector<double> values;
  for (int i = 0; i < 2000; ++i) {
    const auto value = random.Below(1024) + 1;
    rows.Observe(value);
    values.push_back(static_cast<double>(value));
  }
  std::sort(values.begin(), values.end());
  const HistogramSnapshot all = rows.Snapshot();
  for (const double q : {0.001, 0.1, 0.5, 0.9, 0.99, 1.0}) {
    const double truth = values[static_cast<std::size_t>(std::ceil(q * 2000)) - 1];
    const double high = std::exp2(std::ceil(std::log2(truth)));
    EXPECT_LE(*all.Quantile(q), high) << q;
    EXPECT_GE(*all.Quantile(q), high == 1 ? 0 : high / 2) << q;
  }
  rows.Observe(1'000'000);
  EXPECT_EQ(*rows.Snapshot().Since(all).Quantile(0.5), 1024);  // above the last bound: the last bound
  EXPECT_EQ(rows.Snapshot().Since(all).sum, 1'000'000);
}

TEST(Metrics, InterpolateLinearlyAsPrometheusDoes) {
  Histogram h(Buckets{{10, 20, 40}, 1});
  for (int i = 0; i < 4; ++i) h.Observe(15);
  for (int i = 0; i < 4; ++i) h.Observe(30);
  EXPECT_DOUBLE_EQ(*h.Snapshot().Quantile(0.25), 15);
  EXPECT_DOUBLE_EQ(*h.Snapshot().Quantile(0.5), 20);
  EXPECT_DOUBLE_EQ(*h.Snapshot().Quantile(0.75), 30);
  EXPECT_DOUBLE_EQ(*h.Snapshot().Quantile(7), 40);
  EXPECT_DOUBLE_EQ(*h.Snapshot().Quantile(-1), 10);
}

TEST(Metrics, RemoveASeriesAndShowItAgainWithItsCount) {
  Registry registry;
  Counter& counter = registry.AddCounter("n", "", {{"model", "a"}});
  Gauge& loaded = registry.AddGauge("loaded", "", {{"model", "a"}});
  registry.AddGauge("loaded", "", {{"model", "b"}}).Set(1);
  Histogram& seconds = registry.AddHistogram("s", "", {{"model", "a"}});
  counter.Add(5);
  registry.Remove(counter);
  registry.Remove(loaded);
  registry.Remove(seconds);
  counter.Add(1);  // a late request
  Page page = Parse(registry.Text());
  EXPECT_EQ(page.samples.size(), 1u);
  EXPECT_TRUE(page.Has("loaded", {{"model", "b"}}));
  EXPECT_EQ(page.type.count("n"), 0u);  // nothing of an empty family
  EXPECT_EQ(&registry.AddCounter("n", "", {{"model", "a"}}), &counter);
  EXPECT_EQ(Parse(registry.Text()).At("n", {{"model", "a"}}), 6);
}

TEST(Metrics, AskCollectorsForValuesThatLiveElsewhere) {
  Registry registry;
  registry.AddGauge("state", "Of the breaker.", {{"target", "a"}}).Set(2);
  double hits = 41;
  const auto id = registry.AddCollector([&](Sink& sink) {
    sink.Counter("hits_total", "Of the cache.", {}, ++hits);
    sink.Gauge("state", "", {{"target", "b"}}, 1);
    sink.Gauge("state", "", {{"target", "a"}}, 0);  // there already
  });
  Page page = Parse(registry.Text());
  EXPECT_EQ(page.At("hits_total"), 42);
  EXPECT_EQ(page.type.at("hits_total"), "counter");
  EXPECT_EQ(page.help.at("state"), "Of the breaker.");
  EXPECT_EQ(page.At("state", {{"target", "a"}}), 2);
  EXPECT_EQ(page.At("state", {{"target", "b"}}), 1);
  EXPECT_EQ(Parse(registry.Text()).At("hits_total"), 43);
  registry.RemoveCollector(id);
  EXPECT_FALSE(Parse(registry.Text()).Has("hits_total"));
}

TEST(Metrics, PutSeriesBeyondTheLimitTogether) {
  Registry registry;
  for (std::size_t i = 0; i < kMaxSeries + 50; ++i) {
    registry.AddCounter("n", "", {{"code", std::to_string(i)}, {"front", "http"}}).Add(1);
  }
  const Page page = Parse(registry.Text());
  EXPECT_EQ(page.samples.size(), kMaxSeries);
  EXPECT_EQ(page.At("n", {{"code", "other"}, {"front", "other"}}), 51);
  EXPECT_EQ(page.At("n", {{"code", "998"}, {"front", "http"}}), 1);
  registry.AddCounter("n", "", {{"code", "3"}, {"front", "http"}}).Add(1);  // those that are there stay reachable
  EXPECT_EQ(Parse(registry.Text()).At("n", {{"code", "3"}, {"front", "http"}}), 2);
}

TEST(Metrics, LoseNoUpdateAmongThreads) {
  Registry registry;
  Counter& counter = registry.AddCounter("n", "");
  Gauge& gauge = registry.AddGauge("g", "");
  Histogram& histogram = registry.AddHistogram("h", "", {}, PowersOfTwo(16));
  constexpr int kThreads = 4, kTimes = 20'000;
  std::atomic<bool> done = false;
  // Meanwhile every page is whole: buckets rise, the last equals the count, counts never fall.
  std::thread reader([&] {
    double last = 0;
    while (!done) {
      const Page page = Parse(registry.Text());
      double below = 0;
      for (const char* le : {"1", "2", "4", "8", "16", "+Inf"}) {
        EXPECT_GE(page.At("h_bucket", {{"le", le}}), below);
        below = page.At("h_bucket", {{"le", le}});
      }
      EXPECT_EQ(below, page.At("h_count"));
      EXPECT_GE(below, last);
      last = below;
    }
  });
  std::vector<std::thread> writers;
  for (int t = 0; t < kThreads; ++t) {
    writers.emplace_back([&, t] {
      for (int i = 0; i < kTimes; ++i) {
        counter.Add(1);
        gauge.Add(i % 2 == 0 ? 1 : -1);
        histogram.Observe(i % 20);
        if (i % 1000 == 0) registry.AddGauge("late", "", {{"thread", std::to_string(t)}}).Set(i);
      }
    });
  }
  for (auto& writer : writers) writer.join();
  done = true;
  reader.join();
  const Page page = Parse(registry.Text());
  EXPECT_EQ(page.At("n"), kThreads * kTimes);
  EXPECT_EQ(page.At("g"), 0);
  EXPECT_EQ(page.At("h_count"), kThreads * kTimes);
  EXPECT_EQ(page.At("h_sum"), kThreads * (kTimes / 20) * 190);
}

TEST(MetricsDeathTest, StopAtNamesThatClash) {
  Registry registry;
  registry.AddCounter("n", "", {{"a", "1"}});
  registry.AddHistogram("h", "");
  EXPECT_DEATH(registry.AddGauge("n", "", {{"a", "1"}}), "metric n is of another type already");
  EXPECT_DEATH(registry.AddCounter("n", "", {{"b", "1"}}), "metric n has other labels already");
  EXPECT_DEATH(registry.AddCounter("n", "", {{"a", "1"}}, 1000), "metric n has other units");
  EXPECT_DEATH(registry.AddHistogram("h", "", {}, PowersOfTwo(8)), "metric h has other units or buckets");
  EXPECT_DEATH(registry.AddCounter("1n", ""), "name that Prometheus does not allow");
  EXPECT_DEATH(registry.AddCounter("m", "", {{"le", "1"}}), "label that Prometheus does not allow");
  EXPECT_DEATH(registry.AddCounter("m", "", {{"a", "1"}, {"a", "2"}}), "has a label twice");
  EXPECT_DEATH(Histogram(Buckets{{2, 1}, 1}), "CHECK failed");
  const Counter stranger;
  EXPECT_DEATH(registry.Remove(stranger), "not of this registry");
  registry.AddCollector([](Sink& sink) { sink.Gauge("n", "", {{"a", "2"}}, 1); });
  EXPECT_DEATH(registry.Text(), "metric n is of another type already");
}

}  // namespace
}  // namespace ganglion::telemetry
