#include "cache_traces.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <list>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/random.h"
#include "cache/cache.h"

namespace ganglion::bench {
namespace {

class Lru {
 public:
  explicit Lru(std::size_t capacity) : capacity_(capacity) {}

  bool Access(std::uint64_t key) {
    if (const auto at = where_.find(key); at != where_.end()) {
      keys_.splice(keys_.begin(), keys_, at->second);
      return true;
    }
    if (keys_.size() == capacity_) {
      where_.erase(keys_.back());
      keys_.pop_back();
    }
    keys_.push_front(key);
    where_[key] = keys_.begin();
    return false;
  }

 private:
  std::size_t capacity_;
  std::list<std::uint64_t> keys_;
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> where_;
};

class Sieve {
 public:
  explicit Sieve(std::size_t capacity) : capacity_(capacity), hand_(keys_.end()) {}

  bool Access(std::uint64_t key) {
    if (const auto at = where_.find(key); at != where_.end()) {
      at->second->visited = true;
      return true;
    }
    if (keys_.size() == capacity_) Evict();
    keys_.push_front({key, false});
    where_[key] = keys_.begin();
    return false;
  }

 private:
  struct Node {
    std::uint64_t key;
    bool visited;
  };

  // The hand goes from old to new, spares what was visited once, and starts again at the oldest.
  void Evict() {
    auto at = hand_ == keys_.end() ? std::prev(keys_.end()) : hand_;
    while (at->visited) {
      at->visited = false;
      at = at == keys_.begin() ? std::prev(keys_.end()) : std::prev(at);
    }
    hand_ = at == keys_.begin() ? keys_.end() : std::prev(at);
    where_.erase(at->key);
    keys_.erase(at);
  }

  std::size_t capacity_;
  std::list<Node> keys_;  // the newest first
  std::list<Node>::iterator hand_;
  std::unordered_map<std::uint64_t, std::list<Node>::iterator> where_;
};

// Count-min with counters of four bits (held in bytes; only the arithmetic matters here).
class Sketch {
 public:
  explicit Sketch(std::size_t capacity) : age_after_(10 * capacity) {
    std::size_t width = 16;
    while (width < 4 * capacity) width *= 2;  // 16 counters a key over four rows
    for (auto& row : rows_) row.assign(width, 0);
  }

  void Add(std::uint64_t key) {
    const int least = Estimate(key);
    bool added = false;
    for (std::size_t i = 0; i < rows_.size() && least < 15; ++i) {  // only the least: conservative update
      std::uint8_t& counter = rows_[i][Column(key, i)];
      if (counter > least) continue;
      ++counter;
      added = true;
    }
    if (added && ++additions_ >= age_after_) {
      for (auto& row : rows_)
        for (auto& counter : row) counter /= 2;
      additions_ /= 2;
    }
  }

  int Estimate(std::uint64_t key) const {
    int least = 15;
    for (std::size_t i = 0; i < rows_.size(); ++i) least = std::min<int>(least, rows_[i][Column(key, i)]);
    return least;
  }

 private:
  std::size_t Column(std::uint64_t key, std::size_t row) const {
    std::uint64_t x = (key + 1) * (0x9e3779b97f4a7c15u + 2 * row * 0x632be59bd9b4e019u);
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
    return (x ^ (x >> 32)) & (rows_[row].size() - 1);
  }

  std::array<std::vector<std::uint8_t>, 4> rows_;
  std::size_t age_after_;
  std::size_t additions_ = 0;
};

class WTinyLfu {
 public:
  explicit WTinyLfu(std::size_t capacity)
      : window_room_(std::max<std::size_t>(1, capacity / 100)),
        main_room_(capacity - window_room_),
        protected_room_(main_room_ * 8 / 10),
        sketch_(capacity) {}

  bool Access(std::uint64_t key) {
    sketch_.Add(key);
    if (const auto found = where_.find(key); found != where_.end()) {
      Hit(found->second);
      return true;
    }
    window_.push_front(key);
    where_[key] = {kWindow, window_.begin()};
    if (window_.size() > window_room_) AdmitOldestOfWindow();
    return false;
  }

 private:
  enum Segment { kWindow, kProbation, kProtected };
  using Keys = std::list<std::uint64_t>;
  struct Place {
    Segment segment = kWindow;
    Keys::iterator at;
  };

  void Hit(Place& place) {
    if (place.segment == kWindow) return window_.splice(window_.begin(), window_, place.at);
    if (place.segment == kProtected) return protected_.splice(protected_.begin(), protected_, place.at);
    protected_.splice(protected_.begin(), probation_, place.at);
    place.segment = kProtected;
    if (protected_.size() > protected_room_) {
      where_[protected_.back()].segment = kProbation;
      probation_.splice(probation_.begin(), protected_, std::prev(protected_.end()));
    }
  }

  void AdmitOldestOfWindow() {
    const std::uint64_t candidate = window_.back();
    if (probation_.size() + protected_.size() >= main_room_) {
      Keys& from = probation_.empty() ? protected_ : probation_;
      const std::uint64_t victim = from.back();
      if (sketch_.Estimate(candidate) <= sketch_.Estimate(victim)) {
        where_.erase(candidate);
        window_.pop_back();
        return;
      }
      where_.erase(victim);
      from.pop_back();
    }
    where_[candidate].segment = kProbation;
    probation_.splice(probation_.begin(), window_, std::prev(window_.end()));
  }

  std::size_t window_room_;
  std::size_t main_room_;
  std::size_t protected_room_;
  Sketch sketch_;
  Keys window_, probation_, protected_;  // the most recent first
  std::unordered_map<std::uint64_t, Place> where_;
};

// The production store, with room for so many keys of eight bytes.
class Production {
 public:
  explicit Production(std::size_t capacity) : store_(Options(capacity)) {}

  bool Access(std::uint64_t key) {
    const std::string_view content(reinterpret_cast<const char*>(&key), sizeof key);
    const cache::Hash128 hash = cache::HashBytes(content, 1);
    if (store_.Find({hash, content}, TimePoint{}) != nullptr) return true;
    store_.Insert(hash, std::string(content), value_, 0, 0, TimePoint{});
    return false;
  }

 private:
  static cache::StoreOptions Options(std::size_t capacity) {
    cache::StoreOptions options;
    options.max_bytes = capacity * (sizeof(std::uint64_t) + cache::Store::kEntryOverheadBytes);
    return options;
  }

  cache::Store store_;
  cache::Value value_ = std::make_shared<int>(0);
};

template <typename Cache>
double HitRate(const Trace& trace, std::size_t capacity) {
  Cache cache(capacity);
  std::size_t hits = 0;
  for (const std::uint64_t key : trace) hits += cache.Access(key) ? 1 : 0;
  return static_cast<double>(hits) / static_cast<double>(trace.size());
}

// Ranks 0 .. keys-1, drawn by looking up a uniform number in the running sum.
class Zipf {
 public:
  Zipf(double skew, std::size_t keys) {
    double sum = 0;
    for (std::size_t r = 1; r <= keys; ++r) up_to_.push_back(sum += std::pow(static_cast<double>(r), -skew));
  }
  std::uint64_t Draw(Random& random) const {
    const auto at = std::upper_bound(up_to_.begin(), up_to_.end(), random.Uniform() * up_to_.back());
    return std::min<std::uint64_t>(static_cast<std::uint64_t>(at - up_to_.begin()), up_to_.size() - 1);
  }

 private:
  std::vector<double> up_to_;
};

}  // namespace

Trace ZipfTrace(double skew, std::size_t keys, std::size_t lookups, std::uint64_t seed) {
  const Zipf zipf(skew, keys);
  Random random(seed);
  Trace trace;
  trace.reserve(lookups);
  while (trace.size() < lookups) trace.push_back(zipf.Draw(random));
  return trace;
}

Trace ScanTrace(std::size_t keys, std::size_t lookups, std::size_t scan, std::uint64_t seed) {
  const Zipf zipf(1.0, keys);
  Random random(seed);
  Trace trace;
  trace.reserve(lookups);
  std::uint64_t fresh = keys;
  while (trace.size() < lookups) {
    const bool scanning = trace.size() % (5 * scan) >= 4 * scan;
    trace.push_back(scanning ? fresh++ : zipf.Draw(random));
  }
  return trace;
}

Trace ShiftingTrace(std::size_t keys, std::size_t lookups, std::size_t every, std::size_t by, std::uint64_t seed) {
  const Zipf zipf(1.0, keys);
  Random random(seed);
  Trace trace;
  trace.reserve(lookups);
  while (trace.size() < lookups) {
    const std::uint64_t shift = trace.size() / every * by;
    trace.push_back((zipf.Draw(random) + shift) % keys);
  }
  return trace;
}

std::map<std::string, double> HitRates(const Trace& trace, std::size_t capacity) {
  return {{"LRU", HitRate<Lru>(trace, capacity)},
          {"SIEVE", HitRate<Sieve>(trace, capacity)},
          {"S3-FIFO", HitRate<Production>(trace, capacity)},
          {"W-TinyLFU", HitRate<WTinyLfu>(trace, capacity)}};
}

void AddCacheFigures(Figures* figures) {
  constexpr std::size_t kKeys = 100'000;
  constexpr std::size_t kLookups = 1'000'000;
  const std::pair<const char*, std::function<Trace()>> traces[] = {
      {"Zipf 0.8", [] { return ZipfTrace(0.8, kKeys, kLookups, 1); }},
      {"Zipf 1.0", [] { return ZipfTrace(1.0, kKeys, kLookups, 2); }},
      {"scans mixed in", [] { return ScanTrace(kKeys, kLookups, 20'000, 3); }},
      {"shifting popularity", [] { return ShiftingTrace(kKeys, kLookups, 10'000, 100, 4); }},
  };
  for (const auto& named : traces) {
    const Trace trace = named.second();
    double worst = 100;
    for (const std::size_t capacity : {kKeys / 100, kKeys / 10}) {
      const auto rates = HitRates(trace, capacity);
      double best = 0;
      for (const auto& rate : rates) best = std::max(best, rate.second);
      worst = std::min(worst, 100 * (rates.at("S3-FIFO") - best));
    }
    figures->Add(
        {std::string("cache hit rate, ") + named.first + ": S3-FIFO minus the best of LRU, SIEVE, S3-FIFO, W-TinyLFU",
         worst, "points", std::nullopt, ">= -1"});
  }
}

}  // namespace ganglion::bench
