#include "node/prediction_cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "base/check.h"

namespace ganglion::node {
namespace {

constexpr int kMaxShards = 1024;
constexpr std::size_t kLeastShardBytes = 4096;
constexpr std::uint64_t kTimeOneIn = 16;  // lookups whose cost is taken: reading a clock costs too
// A thread that was suspended in the middle says nothing about the cache.
constexpr Duration kLongestCost = std::chrono::microseconds(100);

// What cannot change an answer. "sequence_" with anything behind it is another.
constexpr std::array<std::string_view, 8> kIgnored{"deadline_ms", "timeout", "unit",     "traceparent",
                                                   "tracestate",  "hop",     "event_id", "priority"};
constexpr std::string_view kSequence = "sequence_";

void PutNumber(std::uint64_t n, std::string* key) {
  std::array<char, sizeof n> bytes;
  std::memcpy(bytes.data(), &n, sizeof n);
  key->append(bytes.data(), bytes.size());
}

// Each thread counts for itself, so that counting shares nothing.
bool TimeThisOne() {
  thread_local std::uint64_t turn = 0;
  return turn++ % kTimeOneIn == 0;
}

// The length goes first everywhere, so that no boundary can move.
void PutText(std::string_view text, std::string* key) {
  PutNumber(text.size(), key);
  key->append(text);
}

void PutValue(const wire::ParameterValue& value, std::string* key) {
  PutNumber(value.index(), key);  // 1, 1.0 and "1" are different values
  if (const auto* flag = std::get_if<bool>(&value)) {
    PutNumber(*flag ? 1 : 0, key);
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    PutNumber(static_cast<std::uint64_t>(*integer), key);
  } else if (const auto* number = std::get_if<double>(&value)) {
    std::uint64_t bits;
    std::memcpy(&bits, number, sizeof bits);
    PutNumber(bits, key);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    PutText(*text, key);
  }
}

void PutParameters(const wire::Parameters& parameters, bool of_request, std::string* key) {
  std::vector<const wire::Parameter*> sorted;
  for (const wire::Parameter& p : parameters) {
    const bool ignored = of_request && (std::find(kIgnored.begin(), kIgnored.end(), p.name) != kIgnored.end() ||
                                        std::string_view(p.name).substr(0, kSequence.size()) == kSequence);
    if (!ignored) sorted.push_back(&p);
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  PutNumber(sorted.size(), key);
  for (const wire::Parameter* p : sorted) {
    PutText(p->name, key);
    PutValue(p->value, key);
  }
}

// The model's name, which every key begins with.
std::string_view ModelOf(std::string_view key) {
  std::uint64_t size = 0;
  if (key.size() < sizeof size) return {};
  std::memcpy(&size, key.data(), sizeof size);
  key.remove_prefix(sizeof size);
  return size <= key.size() ? key.substr(0, size) : std::string_view{};
}

}  // namespace

bool AppendKey(const wire::InferRequest& request, std::string_view served, std::string* key) {
  for (const wire::Parameter& p : request.parameters) {
    if (p.name == "sequence_id") return false;
  }
  for (const wire::InferInput& input : request.inputs) {
    if (input.shared) return false;
  }
  PutText(request.model, key);
  PutText(served, key);
  PutParameters(request.parameters, true, key);
  PutNumber(request.outputs.size(), key);
  for (const wire::RequestedOutput& output : request.outputs) {
    PutText(output.name, key);
    PutNumber(static_cast<std::uint64_t>(output.classification), key);
    PutParameters(output.parameters, false, key);
  }
  PutNumber(request.inputs.size(), key);
  for (const wire::InferInput& input : request.inputs) {
    PutText(input.name, key);
    PutNumber(static_cast<std::uint64_t>(input.type), key);
    PutNumber(input.shape.size(), key);
    for (const std::int64_t dimension : input.shape) PutNumber(static_cast<std::uint64_t>(dimension), key);
    PutParameters(input.parameters, false, key);
    PutText({reinterpret_cast<const char*>(input.bytes.data()), input.bytes.size()}, key);
  }
  return true;
}

// One computation under way. Everything but hash, key, group and started is touched under the shard's lock only.
struct PredictionCache::Flight {
  cache::Hash128 hash;
  std::string key;
  std::uint64_t group = 0;
  TimePoint started{};
  bool timed = false;
  bool listed = true;  // in its shard: others may wait, and its answer may be kept
  std::uint64_t next_id = 0;
  std::vector<std::pair<std::uint64_t, Waiter>> waiters;
};

struct PredictionCache::Shard {
  explicit Shard(const cache::StoreOptions& options) : store(options) {}

  cache::Store store;
  std::unordered_multimap<std::uint64_t, std::shared_ptr<Flight>> flights;  // by hash.low
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t waits = 0;
  cache::Traffic unreported;

  void Unlist(const std::shared_ptr<Flight>& flight) {
    const auto range = flights.equal_range(flight->hash.low);
    flights.erase(std::find_if(range.first, range.second, [&](const auto& f) { return f.second == flight; }));
  }
};

PredictionCache::Ticket& PredictionCache::Ticket::operator=(Ticket&& other) noexcept {
  if (this != &other) {
    if (cache_ != nullptr) cache_->Abandon(std::move(*this));
    cache_ = std::exchange(other.cache_, nullptr);
    flight_ = std::move(other.flight_);
  }
  return *this;
}

PredictionCache::Ticket::~Ticket() {
  if (cache_ != nullptr) cache_->Abandon(std::move(*this));
}

Result<std::unique_ptr<PredictionCache>> PredictionCache::Create(const PredictionCacheOptions& options) {
  const int shards = options.shards;
  if (shards < 1 || shards > kMaxShards || (shards & (shards - 1)) != 0) {
    return InvalidArgument("cache shards must be a power of two from 1 to " + std::to_string(kMaxShards) + ", got " +
                           std::to_string(shards));
  }
  const std::size_t least = kLeastShardBytes * static_cast<std::size_t>(shards);
  if (options.max_bytes < least) {
    return InvalidArgument("cache bytes must be at least " + std::to_string(least) + " for " + std::to_string(shards) +
                           " shards, got " + std::to_string(options.max_bytes));
  }
  if (options.time_to_live <= Duration::zero()) {
    return InvalidArgument("cache time to live must be longer than 0, got " +
                           std::to_string(Milliseconds(options.time_to_live)) + " ms");
  }
  return std::unique_ptr<PredictionCache>(new PredictionCache(options));
}

PredictionCache::PredictionCache(const PredictionCacheOptions& options)
    : options_(options), clock_(options.clock != nullptr ? *options.clock : steady_), pays_off_(options.pays_off) {
  cache::StoreOptions store;
  store.max_bytes = options.max_bytes / static_cast<std::size_t>(options.shards);
  store.time_to_live = options.time_to_live;
  report_at_ = std::max<std::uint64_t>(1, options.pays_off.sampled_window / static_cast<std::uint64_t>(options.shards));
  for (int i = 0; i < options.shards; ++i) shards_.push_back(std::make_unique<Guarded<Shard>>(store));
}

PredictionCache::~PredictionCache() = default;

// The store's buckets take the low bits of `low`, its fingerprints those of `high`: the shard takes others.
Guarded<PredictionCache::Shard>& PredictionCache::ShardOf(const cache::Hash128& hash) const {
  return *shards_[(hash.high >> 48) & (shards_.size() - 1)];
}

// Two names of one group would be erased together: a cost, not a wrong answer.
std::uint64_t PredictionCache::GroupOfModel(std::string_view model) const {
  return cache::HashBytes(model, options_.seed).low;
}

bool PredictionCache::Skips(const wire::InferRequest& request) {
  if (!off_.load(std::memory_order_relaxed)) return false;
  // The same request gives the same bits, so that repeats among the sample show up.
  std::uint64_t bits = options_.seed ^ request.inputs.size();
  for (const auto& in : request.inputs) {
    const std::size_t n = in.bytes.size();
    bits = (bits ^ n) * 0x9e3779b97f4a7c15;
    for (std::size_t i = 0; i < 8 && n >= 8; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, in.bytes.data() + (n - 8) * (i + 1) / 8, 8);
      bits = (bits ^ word) * 0x9e3779b97f4a7c15;
      bits ^= bits >> 32;
    }
  }
  if (cache::PaysOff::InSample(bits >> 16, options_.pays_off.sample_bits)) return false;
  skipped_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

PredictionCache::Lookup PredictionCache::Find(std::string_view content, TimePoint now, Waiter waiter, bool asked) {
  const bool timed = TimeThisOne();
  const TimePoint began = timed ? clock_.Now() : TimePoint{};
  const cache::Key key{options_.hash(content, options_.seed), content};
  if (!asked && off_.load(std::memory_order_relaxed) &&
      !cache::PaysOff::InSample(key.hash.high >> 32, options_.pays_off.sample_bits)) {
    skipped_.fetch_add(1, std::memory_order_relaxed);
    return {};
  }
  cache::Traffic report;
  Lookup lookup = ShardOf(key.hash).With([&](Shard& shard) {
    Lookup found = FindInShard(shard, key, now, waiter);
    if (timed) {
      if (found.ticket.valid()) found.ticket.flight_->timed = true;
      ++shard.unreported.timed;
      shard.unreported.cost_seconds += CostSince(began);
    }
    if (shard.unreported.lookups >= report_at_) report = std::exchange(shard.unreported, {});
    return found;
  });
  if (report.lookups > 0) {
    pays_off_.With([&](cache::PaysOff& pays_off) {
      pays_off.Observe(report);
      off_.store(!pays_off.on(), std::memory_order_relaxed);
    });
  }
  return lookup;
}

PredictionCache::Lookup PredictionCache::FindInShard(Shard& shard, const cache::Key& key, TimePoint now,
                                                     Waiter& waiter) {
  Lookup lookup;
  ++shard.unreported.lookups;
  if (cache::Value value = shard.store.Find(key, now); value != nullptr) {
    ++shard.hits;
    ++shard.unreported.hits;
    lookup.kind = Lookup::Kind::kHit;
    lookup.value = std::static_pointer_cast<const wire::InferResponse>(std::move(value));
    return lookup;
  }
  const auto range = shard.flights.equal_range(key.hash.low);
  for (auto at = range.first; at != range.second; ++at) {
    const std::shared_ptr<Flight>& flight = at->second;
    if (!(flight->hash == key.hash) || flight->key != key.content) continue;
    if (waiter == nullptr) {
      ++shard.misses;
      return lookup;
    }
    ++shard.waits;
    ++shard.unreported.hits;
    lookup.kind = Lookup::Kind::kWait;
    lookup.wait.flight_ = flight;
    lookup.wait.id_ = flight->next_id++;
    flight->waiters.emplace_back(lookup.wait.id_, std::move(waiter));
    return lookup;
  }
  ++shard.misses;
  auto flight = std::make_shared<Flight>();
  flight->hash = key.hash;
  flight->key = key.content;
  flight->group = GroupOfModel(ModelOf(key.content));
  flight->started = now;
  shard.flights.emplace(key.hash.low, flight);
  lookup.kind = Lookup::Kind::kLead;
  lookup.ticket.cache_ = this;
  lookup.ticket.flight_ = std::move(flight);
  return lookup;
}

double PredictionCache::CostSince(TimePoint began) const {
  return std::chrono::duration<double>(std::min(clock_.Now() - began, kLongestCost)).count();
}

void PredictionCache::Complete(Ticket ticket, const Value& value, std::size_t bytes, bool cacheable, TimePoint now) {
  GANGLION_CHECK(ticket.cache_ == this && value != nullptr);
  ticket.cache_ = nullptr;
  Finish(ticket.flight_, value, bytes, cacheable, now);
}

void PredictionCache::Abandon(Ticket ticket) {
  GANGLION_CHECK(ticket.cache_ == this);
  ticket.cache_ = nullptr;
  Finish(ticket.flight_, nullptr, 0, false, TimePoint{});
}

void PredictionCache::Finish(const std::shared_ptr<Flight>& flight, const Value& value, std::size_t bytes,
                             bool cacheable, TimePoint now) {
  const TimePoint began = flight->timed ? clock_.Now() : TimePoint{};
  std::vector<std::pair<std::uint64_t, Waiter>> waiters;
  ShardOf(flight->hash).With([&](Shard& shard) {
    waiters.swap(flight->waiters);
    const bool current = flight->listed;  // no EraseModel since it began
    if (current) shard.Unlist(flight);
    if (value != nullptr) {
      ++shard.unreported.computed;
      shard.unreported.compute_seconds += std::chrono::duration<double>(now - flight->started).count();
      if (current && cacheable) {
        shard.store.Insert(flight->hash, std::move(flight->key), value, bytes, flight->group, now);
      }
    }
    if (flight->timed) shard.unreported.cost_seconds += CostSince(began);
  });
  for (auto& waiter : waiters) waiter.second(value);
}

bool PredictionCache::CancelWait(const Wait& wait) {
  const std::shared_ptr<Flight> flight = wait.flight_.lock();
  if (flight == nullptr) return false;
  Waiter cancelled;  // destroyed outside the lock: what it holds may be anything
  return ShardOf(flight->hash).With([&](Shard&) {
    const auto at = std::find_if(flight->waiters.begin(), flight->waiters.end(),
                                 [&](const auto& waiter) { return waiter.first == wait.id_; });
    if (at == flight->waiters.end()) return false;
    cancelled = std::move(at->second);
    flight->waiters.erase(at);
    return true;
  });
}

std::size_t PredictionCache::EraseModel(std::string_view model) {
  const std::uint64_t group = GroupOfModel(model);
  std::size_t erased = 0;
  for (const auto& guarded : shards_) {
    guarded->With([&](Shard& shard) {
      erased += shard.store.EraseGroup(group);
      for (auto at = shard.flights.begin(); at != shard.flights.end();) {
        const bool its = at->second->group == group;
        if (its) at->second->listed = false;
        at = its ? shard.flights.erase(at) : std::next(at);
      }
    });
  }
  return erased;
}

PredictionCache::Stats PredictionCache::stats() const {
  Stats sum;
  for (const auto& guarded : shards_) {
    guarded->With([&](const Shard& shard) {
      sum.hits += shard.hits;
      sum.misses += shard.misses;
      sum.waits += shard.waits;
      sum.evictions += shard.store.evictions();
      sum.bytes += shard.store.bytes();
      sum.entries += shard.store.entries();
    });
  }
  sum.skipped = skipped_.load(std::memory_order_relaxed);
  sum.off = off_.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace ganglion::node
