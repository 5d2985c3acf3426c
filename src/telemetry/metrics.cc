#include "telemetry/metrics.h"

#include <prometheus/check_names.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <set>

#include "base/check.h"

namespace ganglion::telemetry {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// A CHECK that says which metric.
void Require(bool condition, std::string_view name, const char* what) {
  if (!condition) CheckFailed(__FILE__, __LINE__, ("metric " + std::string(name) + " " + what).c_str());
}

// Bytes of the UTF-8 character that begins at `at`; 0 when there is none (cut, overlong, surrogate, beyond U+10FFFF).
std::size_t CharacterBytes(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(at), second = byte(at + 1);
  const auto continues = [](unsigned b) { return (b & 0xC0u) == 0x80u; };
  if (first < 0x80) return 1;
  if (first < 0xC2 || !continues(second)) return 0;
  if (first < 0xE0) return 2;
  if (first < 0xF0) {
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || !continues(byte(at + 2))) return 0;
    return 3;
  }
  if (first > 0xF4 || (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return 0;
  return continues(byte(at + 2)) && continues(byte(at + 3)) ? 4 : 0;
}

std::string Utf8(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t bytes = CharacterBytes(text, at);
    if (bytes > 0) {
      clean.append(text.substr(at, bytes));
    } else {
      clean.append("\xEF\xBF\xBD");  // U+FFFD, the replacement character
    }
    at += std::max<std::size_t>(bytes, 1);
  }
  return clean;
}

// The library writes help as it is; the format wants backslash and line feed escaped.
std::string EscapeHelp(std::string_view help) {
  std::string escaped;
  for (const char c : Utf8(help)) {
    if (c == '\\') {
      escaped += "\\\\";
    } else if (c == '\n') {
      escaped += "\\n";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

Labels Canonical(std::string_view name, Labels labels) {
  Require(prometheus::CheckMetricName(std::string(name)), name, "has a name that Prometheus does not allow");
  std::sort(labels.begin(), labels.end());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    Require(prometheus::CheckLabelName(labels[i].first) && labels[i].first != "le", name,
            "has a label that Prometheus does not allow");
    Require(i == 0 || labels[i].first != labels[i - 1].first, name, "has a label twice");
    labels[i].second = Utf8(labels[i].second);
  }
  return labels;
}

std::vector<std::string> Names(const Labels& labels) {
  std::vector<std::string> names;
  for (const auto& label : labels) names.push_back(label.first);
  return names;
}

ClientMetric WithLabels(const Labels& labels) {
  ClientMetric metric;
  for (const auto& [name, value] : labels) metric.label.push_back({name, value});
  return metric;
}

// One of the three, as the family's type says.
struct Series {
  std::unique_ptr<Counter> counter;
  std::unique_ptr<Gauge> gauge;
  std::unique_ptr<Histogram> histogram;
  bool shown = true;

  bool Holds(const void* metric) const {
    return metric == counter.get() || metric == gauge.get() || metric == histogram.get();
  }
};

ClientMetric Read(const Series& series, const Labels& labels) {
  ClientMetric metric = WithLabels(labels);
  if (series.counter) metric.counter.value = series.counter->Value();
  if (series.gauge) metric.gauge.value = series.gauge->Value();
  if (series.histogram) {
    const HistogramSnapshot snapshot = series.histogram->Snapshot();
    metric.histogram.sample_count = snapshot.count;
    metric.histogram.sample_sum = snapshot.sum;
    std::uint64_t cumulative = 0;
    for (std::size_t i = 0; i < snapshot.buckets.bounds.size(); ++i) {
      cumulative += snapshot.counts[i];
      const double bound = static_cast<double>(snapshot.buckets.bounds[i]) / snapshot.buckets.per_one;
      metric.histogram.bucket.push_back({cumulative, bound});
    }
  }
  return metric;
}

struct Family {
  MetricType type = MetricType::Untyped;
  std::string help;
  std::vector<std::string> label_names;
  Buckets buckets;  // of histograms; of counters only per_one
  std::map<Labels, Series> series;
};

}  // namespace

void Counter::AddReal(double amount) {
  const double units = std::round(amount * per_one_);
  // Up to 2^63 the conversion is defined; above that an amount is a mistake.
  if (units > 0 && units < 9.2e18) Add(static_cast<std::uint64_t>(units));
}

Buckets LatencyBuckets() {
  using namespace std::chrono_literals;
  Buckets buckets{{}, kNanosecondsASecond};
  for (const Duration bound :
       {Duration(50us), Duration(100us), Duration(250us), Duration(500us), Duration(1ms), Duration(2500us),
        Duration(5ms), Duration(10ms), Duration(25ms), Duration(50ms), Duration(100ms), Duration(250ms),
        Duration(500ms), Duration(1s), Duration(2500ms), Duration(5s), Duration(10s)}) {
    buckets.bounds.push_back(static_cast<std::uint64_t>(bound.count()));
  }
  return buckets;
}

Buckets PowersOfTwo(std::uint64_t at_least) {
  Buckets buckets{{1}, 1};
  while (buckets.bounds.back() < at_least && buckets.bounds.size() < Buckets::kMaxBounds) {
    buckets.bounds.push_back(buckets.bounds.back() * 2);
  }
  return buckets;
}

HistogramSnapshot HistogramSnapshot::Since(const HistogramSnapshot& earlier) const {
  GANGLION_CHECK(buckets == earlier.buckets);
  HistogramSnapshot later = *this;
  for (std::size_t i = 0; i < counts.size(); ++i) later.counts[i] -= earlier.counts[i];
  later.count -= earlier.count;
  later.sum -= earlier.sum;
  return later;
}

std::optional<double> HistogramSnapshot::Quantile(double q) const {
  if (count == 0) return std::nullopt;
  const double rank = std::clamp(q, 0.0, 1.0) * static_cast<double>(count);
  double below = 0;
  for (std::size_t i = 0; i < buckets.bounds.size(); ++i) {
    const auto inside = static_cast<double>(counts[i]);
    if (inside > 0 && below + inside >= rank) {
      const double low = i == 0 ? 0 : static_cast<double>(buckets.bounds[i - 1]);
      const double high = static_cast<double>(buckets.bounds[i]);
      return (low + (high - low) * (rank - below) / inside) / buckets.per_one;
    }
    below += inside;
  }
  return static_cast<double>(buckets.bounds.back()) / buckets.per_one;
}

Histogram::Histogram(Buckets buckets)
    : buckets_(std::move(buckets)), lines_(new Line[(buckets_.bounds.size() + 2 + kCells - 1) / kCells]) {
  const auto& bounds = buckets_.bounds;
  GANGLION_CHECK(!bounds.empty() && bounds.size() <= Buckets::kMaxBounds && buckets_.per_one > 0);
  for (std::size_t i = 1; i < bounds.size(); ++i) GANGLION_CHECK(bounds[i - 1] < bounds[i]);
}

void Histogram::ObserveUnits(std::uint64_t units) {
  const auto& bounds = buckets_.bounds;
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), units) - bounds.begin();
  Cell(static_cast<std::size_t>(bucket)).fetch_add(1, std::memory_order_relaxed);
  Cell(bounds.size() + 1).fetch_add(units, std::memory_order_relaxed);
}

HistogramSnapshot Histogram::Snapshot() const {
  HistogramSnapshot snapshot{buckets_, std::vector<std::uint64_t>(buckets_.bounds.size() + 1)};
  for (std::size_t i = 0; i < snapshot.counts.size(); ++i) {
    snapshot.counts[i] = Cell(i).load(std::memory_order_relaxed);
    snapshot.count += snapshot.counts[i];  // not a cell of its own: the last bucket and the count always agree
  }
  snapshot.sum = static_cast<double>(Cell(snapshot.counts.size()).load(std::memory_order_relaxed)) / buckets_.per_one;
  return snapshot;
}

// A page while it is made.
struct Sink::Gathering {
  struct Page {
    MetricFamily family;
    std::vector<std::string> label_names;
    std::set<Labels> seen;
  };
  std::map<std::string, Page, std::less<>> pages;

  // The page of a family; one that is there must agree.
  Page& At(std::string_view name, std::string_view help, MetricType type, std::vector<std::string> label_names) {
    const auto [at, is_new] = pages.try_emplace(std::string(name));
    Page& page = at->second;
    if (is_new) {
      page.family.name = std::string(name);
      page.family.help = EscapeHelp(help);
      page.family.type = type;
      page.label_names = std::move(label_names);
    } else {
      Require(page.family.type == type, name, "is of another type already");
      Require(page.label_names == label_names, name, "has other labels already");
    }
    return page;
  }

  void Put(std::string_view name, std::string_view help, MetricType type, const Labels& labels, double value) {
    const Labels canonical = Canonical(name, labels);
    Page& page = At(name, help, type, Names(canonical));
    if (!page.seen.insert(canonical).second) return;  // a series twice would make Prometheus refuse the page
    ClientMetric metric = WithLabels(canonical);
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    page.family.metric.push_back(std::move(metric));
  }
};

void Sink::Counter(std::string_view name, std::string_view help, const Labels& labels, double value) {
  gathering_->Put(name, help, MetricType::Counter, labels, value);
}

void Sink::Gauge(std::string_view name, std::string_view help, const Labels& labels, double value) {
  gathering_->Put(name, help, MetricType::Gauge, labels, value);
}

struct Registry::Impl final : prometheus::Collectable {
  mutable std::mutex mutex;  // over families
  std::map<std::string, Family, std::less<>> families;
  // Over collectors, and held while they run: that is what RemoveCollector waits for. Never taken under `mutex`.
  mutable std::mutex collecting;
  std::map<std::uint64_t, Collector> collectors;
  std::uint64_t next_collector = 1;

  // Calls `make` on the series when it is new.
  template <typename Make>
  Series& Add(std::string_view name, std::string_view help, MetricType type, Labels labels, Buckets buckets,
              Make make) {
    labels = Canonical(name, std::move(labels));
    std::lock_guard lock(mutex);
    const auto [at, is_new] = families.try_emplace(std::string(name));
    Family& family = at->second;
    if (is_new) {
      family.type = type;
      family.help = std::string(help);
      family.label_names = Names(labels);
      family.buckets = std::move(buckets);
    } else {
      Require(family.type == type, name, "is of another type already");
      Require(family.label_names == Names(labels), name, "has other labels already");
      Require(family.buckets == buckets, name, "has other units or buckets already");
    }
    auto found = family.series.find(labels);
    if (found == family.series.end()) {
      // One less than the limit, so that there is room for "other".
      if (family.series.size() + 1 >= kMaxSeries) {
        for (auto& label : labels) label.second = "other";
      }
      const auto [there, created] = family.series.try_emplace(std::move(labels));
      if (created) make(there->second, family.buckets);
      found = there;
    }
    found->second.shown = true;
    return found->second;
  }

  void Remove(const void* metric) {
    std::lock_guard lock(mutex);
    for (auto& [name, family] : families) {
      for (auto& [labels, series] : family.series) {
        if (!series.Holds(metric)) continue;
        series.shown = false;
        return;
      }
    }
    Require(false, "?", "to remove is not of this registry");
  }

  std::vector<MetricFamily> Collect() const override {
    std::lock_guard one_at_a_time(collecting);
    Sink::Gathering gathering;
    {
      std::lock_guard lock(mutex);
      for (const auto& [name, family] : families) {
        auto& page = gathering.At(name, family.help, family.type, family.label_names);
        for (const auto& [labels, series] : family.series) {
          if (!series.shown) continue;
          page.seen.insert(labels);
          page.family.metric.push_back(Read(series, labels));
        }
      }
    }
    Sink sink(&gathering);
    for (const auto& [id, collector] : collectors) collector(sink);
    std::vector<MetricFamily> result;
    for (auto& [name, page] : gathering.pages) {
      if (!page.family.metric.empty()) result.push_back(std::move(page.family));
    }
    return result;
  }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::AddCounter(std::string_view name, std::string_view help, Labels labels, double per_one) {
  Require(per_one > 0, name, "has no unit");
  return *impl_
              ->Add(name, help, MetricType::Counter, std::move(labels), Buckets{{}, per_one},
                    [](Series& s, const Buckets& b) { s.counter = std::make_unique<Counter>(b.per_one); })
              .counter;
}

Gauge& Registry::AddGauge(std::string_view name, std::string_view help, Labels labels) {
  return *impl_
              ->Add(name, help, MetricType::Gauge, std::move(labels), Buckets{},
                    [](Series& s, const Buckets&) { s.gauge = std::make_unique<Gauge>(); })
              .gauge;
}

Histogram& Registry::AddHistogram(std::string_view name, std::string_view help, Labels labels, Buckets buckets) {
  return *impl_
              ->Add(name, help, MetricType::Histogram, std::move(labels), std::move(buckets),
                    [](Series& s, const Buckets& b) { s.histogram = std::make_unique<Histogram>(b); })
              .histogram;
}

void Registry::Remove(const Counter& counter) { impl_->Remove(&counter); }
void Registry::Remove(const Gauge& gauge) { impl_->Remove(&gauge); }
void Registry::Remove(const Histogram& histogram) { impl_->Remove(&histogram); }

std::uint64_t Registry::AddCollector(Collector collector) {
  std::lock_guard lock(impl_->collecting);
  impl_->collectors.emplace(impl_->next_collector, std::move(collector));
  return impl_->next_collector++;
}

void Registry::RemoveCollector(std::uint64_t id) {
  std::lock_guard lock(impl_->collecting);
  impl_->collectors.erase(id);
}

std::string Registry::Text() const { return prometheus::TextSerializer().Serialize(impl_->Collect()); }

}  // namespace ganglion::telemetry
