// A Registry holds the numbers that a node shows to Prometheus, and writes them as text when it is asked.
//
// Intuition: whoever counts holds a reference to a few atomics and adds to them; names, labels and text exist only
// when somebody scrapes. So an update takes no lock and allocates nothing.
//
//   Counter& accepted = registry.AddCounter("ganglion_requests_total", "Requests by how they ended.",
//                                           {{"decision", "fashion"}, {"outcome", "accepted"}});
//   accepted.Add(1);
//
// A name is a family: one type, one set of label names, one help text. The same name with other label values is another
// series of the family; with the same values it is the same series, and the same reference. A name used with another
// type, other label names or other buckets is a bug of ours and a CHECK.
//
// Why not prometheus-cpp's own metrics: a histogram there takes a lock for every observation, and its families hand out
// references that die when a series is removed. Its data model and its text writer are used.
// Why integers: one fetch_add is exact and does not loop under contention. What is not a whole number is counted in
// small units (nanoseconds, billionths of a dollar) and divided when it is written.
// Why not a cell for each thread: even when threads meet on it, an atomic add is small beside the model's run of
// microseconds that every request pays, and a cell a thread would multiply the memory of every series.
//
// Limits: kMaxSeries series a family; what comes after shares one series whose label values are all "other", so that
// labels which come from outside cannot fill the memory. Label values that are not UTF-8 are repaired, as one of them
// would make Prometheus refuse the whole page.
// Threads: everything here may be called from any. Cost: an update of a counter or gauge is one atomic add, of a
// histogram two and a search among its bounds; Text allocates and formats everything.
// Source: Prometheus exposition formats, "Text-based format", version 0.0.4.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace ganglion::telemetry {

inline constexpr std::size_t kCacheLine = 64;    // two metrics never share one: writers would slow each other
inline constexpr std::size_t kMaxSeries = 1000;  // of a family, those removed included
inline constexpr double kNanosecondsASecond = 1e9;
inline constexpr double kBillionthsADollar = 1e9;  // per_one of a counter of money

// Only goes up. Counts whole units; per_one of them are 1 in the text.
class alignas(kCacheLine) Counter {
 public:
  explicit Counter(double per_one = 1) : per_one_(per_one) {}
  Counter(const Counter&) = delete;

  template <std::integral T>
  void Add(T units) {  // REQUIRES: units >= 0
    units_.fetch_add(static_cast<std::uint64_t>(units), std::memory_order_relaxed);
  }
  // The same in the unit of the text, rounded to whole units: cost.AddReal(0.0001). Negative and NaN add nothing.
  void AddReal(double amount);
  // Not whole units: AddReal.
  void Add(double) = delete;

  std::uint64_t Units() const { return units_.load(std::memory_order_relaxed); }
  double Value() const { return static_cast<double>(Units()) / per_one_; }

 private:
  std::atomic<std::uint64_t> units_{0};
  const double per_one_;
};

// Goes up and down.
class alignas(kCacheLine) Gauge {
 public:
  Gauge() = default;
  Gauge(const Gauge&) = delete;

  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  void Add(double change) { value_.fetch_add(change, std::memory_order_relaxed); }
  double Value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Upper bounds of a histogram's buckets, each inclusive, strictly rising, 1 to kMaxBounds of them; a last bucket
// without a bound comes by itself. In whole units, per_one of which are 1 in the text.
struct Buckets {
  static constexpr std::size_t kMaxBounds = 64;
  std::vector<std::uint64_t> bounds;
  double per_one = 1;
  bool operator==(const Buckets&) const = default;
};
Buckets LatencyBuckets();                     // nanoseconds, shown as seconds: 50us, 100us, 250us, 500us, 1ms ... 10s
Buckets PowersOfTwo(std::uint64_t at_least);  // 1, 2, 4 ... until at_least is within: PowersOfTwo(1024) for batch rows

// What a histogram held at one time. A value.
struct HistogramSnapshot {
  Buckets buckets;
  std::vector<std::uint64_t> counts;  // of each bucket alone, the one without a bound last
  std::uint64_t count = 0;
  double sum = 0;  // in the unit of the text

  // What came after `earlier`, a snapshot of the same histogram.
  HistogramSnapshot Since(const HistogramSnapshot& earlier) const;
  // An estimate of the q-quantile, q in [0, 1], in the unit of the text: linear inside its bucket, as Prometheus'
  // histogram_quantile. What lies above the last bound counts as the last bound. Nothing when nothing was observed.
  std::optional<double> Quantile(double q) const;
};

// How often values fell between the bounds.
class alignas(kCacheLine) Histogram {
 public:
  explicit Histogram(Buckets buckets);  // REQUIRES: as Buckets says
  Histogram(const Histogram&) = delete;

  // For histograms in nanoseconds (LatencyBuckets); below zero counts as zero.
  void Observe(Duration time) { ObserveUnits(time.count() > 0 ? static_cast<std::uint64_t>(time.count()) : 0); }
  template <std::integral T>
  void Observe(T units) {  // REQUIRES: units >= 0
    ObserveUnits(static_cast<std::uint64_t>(units));
  }
  void Observe(double) = delete;  // seconds as a number would be taken for nanoseconds

  // Counts and sum are read one after the other while others write: the sum may be ahead by what is under way.
  HistogramSnapshot Snapshot() const;
  const Buckets& buckets() const { return buckets_; }

 private:
  struct alignas(kCacheLine) Line {
    std::atomic<std::uint64_t> cells[kCacheLine / sizeof(std::atomic<std::uint64_t>)]{};
  };
  static constexpr std::size_t kCells = sizeof(Line::cells) / sizeof(Line::cells[0]);
  std::atomic<std::uint64_t>& Cell(std::size_t i) const { return lines_[i / kCells].cells[i % kCells]; }
  void ObserveUnits(std::uint64_t units);

  const Buckets buckets_;
  const std::unique_ptr<Line[]> lines_;  // a cell for each bucket, then the sum
};

using Labels = std::vector<std::pair<std::string, std::string>>;  // name and value, in any order

// Takes values that live elsewhere while the text is made. A series that is there already keeps its first value.
class Sink {
 public:
  void Counter(std::string_view name, std::string_view help, const Labels& labels, double value);
  void Gauge(std::string_view name, std::string_view help, const Labels& labels, double value);

 private:
  friend class Registry;
  struct Gathering;
  explicit Sink(Gathering* gathering) : gathering_(gathering) {}
  Gathering* gathering_;
};

class Registry {
 public:
  Registry();
  ~Registry();

  // References stay good as long as the registry, removed or not. REQUIRES: names that Prometheus allows
  // ([a-zA-Z_:][a-zA-Z0-9_:]*; labels [a-zA-Z_][a-zA-Z0-9_]*, not beginning with "__", not "le").
  // `help` is that of the first who adds.
  Counter& AddCounter(std::string_view name, std::string_view help, Labels labels = {}, double per_one = 1);
  Gauge& AddGauge(std::string_view name, std::string_view help, Labels labels = {});
  Histogram& AddHistogram(std::string_view name, std::string_view help, Labels labels = {},
                          Buckets buckets = LatencyBuckets());

  // Takes the series out of the text: its model is unloaded. Late updates do no harm. Adding it again shows it again,
  // with the value it had, so that a counter never falls. What is not of this registry is a CHECK.
  void Remove(const Counter& counter);
  void Remove(const Gauge& gauge);
  void Remove(const Histogram& histogram);

  // Called in every Text, in the thread that asks for it, one at a time. It must not call the registry.
  // The number is for RemoveCollector, after which it does not run and is not running.
  using Collector = std::function<void(Sink&)>;
  std::uint64_t AddCollector(Collector collector);
  void RemoveCollector(std::uint64_t id);

  // Everything, families sorted by name. One call at a time, others wait.
  std::string Text() const;
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::telemetry
