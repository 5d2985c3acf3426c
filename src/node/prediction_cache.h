// A PredictionCache answers a request whose like was answered before, and lets equal requests under way share one run.
//
// Intuition: the first who asks something leads: it computes and reports. Whoever asks the same meanwhile waits for
// that answer instead of computing it again. Later ones find it, until it is too old or room is needed.
//
//   std::string key;  // keep it, to use its memory again
//   if (!AppendKey(request, digest, &key)) return Compute();
//   auto found = cache->Find(key, now, [this](Value v) { v != nullptr ? Send(v) : Compute(); });
//
//   kHit   found.value, now.
//   kLead  Compute, then Complete(std::move(found.ticket), ...). A ticket dropped unreported is an Abandon.
//   kWait  The function will be called once, on the leader's thread and outside every lock, perhaps before Find has
//          returned. With nullptr: the leader failed or abandoned; compute, or Find again. CancelWait, at the deadline,
//          says whether it will be called.
//   kOff   Compute, and report nothing: the cache does not pay at present (cache/pays_off.h), or no function was given
//          where waiting was due.
//
// Store: cache::Store (S3-FIFO) in shards, each behind its lock. A collision of hashes is a miss, never a wrong answer.
// Values: the answer without what is its requester's: clear id and shared memory before Complete, set them on a copy.
// Cacheable is what a later, equal request should get: no degraded answer, no error. What was cut short by the leader's
// own deadline is no answer for the waiters either: Abandon.
// Models: a key names the exact model served, see AppendKey. EraseModel drops the answers of a name; those under way
// will not be kept, and equal requests that come after it do not wait for a leader from before it.
// Threads: a service, thread-safe; it must outlive its tickets.
// Cost on a key of 3 KB: about half a microsecond for a hit, one for a miss with its Complete, a third of one while
// off; AppendKey takes another tenth.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/guarded.h"
#include "base/status.h"
#include "cache/cache.h"
#include "cache/pays_off.h"
#include "wire/inference.h"

namespace ganglion::node {

// Appends bytes that are equal exactly for requests that must get equal answers: the model and `served`; every input,
// in order, with name, datatype, shape, parameters and content; the outputs asked for, with classification and
// parameters; the request's parameters in any order. Not those that cannot change the answer: deadlines, priority,
// tracing, the form and place of outputs. `served` names the exact model that will answer: best its digest, for a
// version may be loaded again with other content.
// False, and nothing appended: the request is part of a sequence, so that its answer depends on others; or an input
// lies in shared memory, where its writer can change it between the key and the run and so poison others' answers.
bool AppendKey(const wire::InferRequest& request, std::string_view served, std::string* key);

struct PredictionCacheOptions {
  std::size_t max_bytes = std::size_t{64} << 20;  // over all shards; one answer at most a quarter of a shard
  Duration time_to_live = std::chrono::seconds(60);
  int shards = 16;         // a power of two, 1..1024
  std::uint64_t seed = 0;  // random, where strangers send requests
  cache::PaysOffOptions pays_off;
  const Clock* clock = nullptr;  // what the cache's own cost is taken with; nullptr: steady
  cache::Hash128 (*hash)(std::string_view, std::uint64_t) = cache::HashBytes;  // tests force collisions with it
};

class PredictionCache {
 public:
  using Value = std::shared_ptr<const wire::InferResponse>;
  using Waiter = std::function<void(Value)>;

 private:
  struct Flight;

 public:
  // The duty to report. Move-only; dropping it abandons.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)), flight_(std::move(other.flight_)) {}
    Ticket& operator=(Ticket&& other) noexcept;
    ~Ticket();
    bool valid() const { return cache_ != nullptr; }

   private:
    friend class PredictionCache;
    PredictionCache* cache_ = nullptr;
    std::shared_ptr<Flight> flight_;
  };

  // Names one waiter. Copyable; holding it keeps no answer alive.
  class Wait {
   private:
    friend class PredictionCache;
    std::weak_ptr<Flight> flight_;
    std::uint64_t id_ = 0;
  };

  struct Lookup {
    enum class Kind { kHit, kLead, kWait, kOff } kind = Kind::kOff;
    Value value;    // kHit
    Ticket ticket;  // kLead
    Wait wait;      // kWait
  };

  struct Stats {
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;  // leads, and those that would have waited but gave no function
    std::uint64_t waits = 0;
    std::uint64_t skipped = 0;  // kOff because the cache does not pay
    std::uint64_t evictions = 0;
    std::size_t bytes = 0;
    std::size_t entries = 0;
    bool off = false;
  };

  // Refuses shards that are no power of two or above 1024, no room or no time.
  static Result<std::unique_ptr<PredictionCache>> Create(const PredictionCacheOptions& options);
  ~PredictionCache();  // REQUIRES: no tickets are out

  // Before a key is made: whether this request is better computed at once, because the cache does not pay at present
  // and the request is not of the sample that goes on watching. Looks at a few words of the content; about 20 ns.
  bool Skips(const wire::InferRequest& request);
  // REQUIRES: `key` is of AppendKey. `asked`: Skips was asked and said no.
  Lookup Find(std::string_view key, TimePoint now, Waiter waiter, bool asked = false);
  // Hands `value` to all who wait, and keeps it where it is cacheable. `bytes` is what the value keeps alive.
  // REQUIRES: a valid ticket; value is not null.
  void Complete(Ticket ticket, const Value& value, std::size_t bytes, bool cacheable, TimePoint now);
  void Abandon(Ticket ticket);
  // True: the waiter will not be called. False: it was, or is being called right now.
  bool CancelWait(const Wait& wait);
  // Returns how many answers were dropped.
  std::size_t EraseModel(std::string_view model);
  Stats stats() const;

 private:
  struct Shard;
  explicit PredictionCache(const PredictionCacheOptions& options);

  Guarded<Shard>& ShardOf(const cache::Hash128& hash) const;
  std::uint64_t GroupOfModel(std::string_view model) const;
  double CostSince(TimePoint began) const;
  Lookup FindInShard(Shard& shard, const cache::Key& key, TimePoint now, Waiter& waiter);
  void Finish(const std::shared_ptr<Flight>& flight, const Value& value, std::size_t bytes, bool cacheable,
              TimePoint now);

  PredictionCacheOptions options_;
  SteadyClock steady_;
  const Clock& clock_;
  std::uint64_t report_at_ = 1;  // lookups in a shard
  std::vector<std::unique_ptr<Guarded<Shard>>> shards_;
  Guarded<cache::PaysOff> pays_off_;
  std::atomic<bool> off_{false};
  std::atomic<std::uint64_t> skipped_{0};
};

}  // namespace ganglion::node
