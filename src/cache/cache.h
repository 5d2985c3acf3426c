// A Store keeps answers in a bounded number of bytes, so that a question that comes again need not be computed again.
//
// Intuition: most keys come once and never again, so a newcomer waits in a short queue first and leaves quickly unless
// it is asked for again. Entries that proved themselves live in a long queue; there each gets another round for every
// time it was used. Keys that left the short queue unused are remembered as fingerprints only: one that comes back
// soon was thrown out too early, and goes straight into the long queue.
//
//   new ----------> SMALL (a share of the bytes) --used--> MAIN --unused--> out        used in MAIN: one more round
//   new, in GHOST ------------------------------------------^
//                   SMALL --unused--> out, its fingerprint into GHOST
//
// Why not LRU: one sequential scan over keys that never return flushes it, and every hit moves list links. Here a hit
// adds 1 to a counter of two bits. Why not W-TinyLFU: it needs a sketch of frequencies, and its aging, for about the
// same hit rates (bench/cache_traces.h compares them).
//
// Bytes: an entry costs its content, its value and kEntryOverheadBytes (entry, table, allocations and fingerprints);
// the sum never exceeds max_bytes. The arrays of entries and fingerprints grow with the largest number of entries there
// ever was and do not shrink.
// Equality: keys are found by a 128-bit hash, but an entry answers only where every byte of the content is equal. Two
// contents of one hash are two entries; a collision costs time and is never a wrong answer. So the hash need not
// resist cryptanalysis; its seed, drawn by whoever makes it, keeps strangers from aiming at one bucket.
// Time: `now` is an argument. An entry older than time_to_live is gone, whether or not somebody looked.
// Threads: a state machine, thread-compatible; share it as Guarded<Store>. Find allocates nothing.
// Cost: O(1) and one comparison of contents a lookup; Insert amortised O(1), and copies no content; EraseGroup one
// pass.
//
// Source: Yang, Zhang, Qiu, Yue, Vinayak, "FIFO queues are all you need for cache eviction", SOSP 2023, Algorithm 1.
// We differ: one use in the small queue proves an entry (the paper: two), and fingerprints reach back by 0.75 of the
// entries (the paper: as many as the main queue has). On Zipf traces that is worth up to 0.4 points of hit rate. A
// small queue of 3 % would win another half point there, and lose twelve where keys come back in short bursts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace ganglion::cache {

struct Hash128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const Hash128&) const = default;
};

// Well mixed, not cryptographic, different on machines of another byte order: never store it or send it.
Hash128 HashBytes(std::string_view bytes, std::uint64_t seed);

// Borrowed: what a lookup needs.
struct Key {
  Hash128 hash;
  std::string_view content;
};

using Value = std::shared_ptr<const void>;

struct StoreOptions {
  std::size_t max_bytes = std::size_t{4} << 20;
  Duration time_to_live = std::chrono::seconds(60);
  double small_share = 0.1;   // of max_bytes, (0, 1)
  double ghost_share = 0.75;  // fingerprints that count, for each entry
  int promote_at = 1;         // uses in the small queue that prove an entry, 1..max_uses
  int max_uses = 3;           // counted at most: two bits
};

// Fingerprints of the last so many keys that left the small queue, by the order in which they left.
// False alarms: about `window` / 2^32; they put a newcomer into the wrong queue and nothing else.
class Ghosts {
 public:
  Ghosts();
  void Add(std::uint32_t fingerprint, std::size_t window);
  // True once for each key: it is forgotten with that.
  bool Take(std::uint32_t fingerprint, std::size_t window);

 private:
  struct Slot {
    std::uint32_t fingerprint = 0;
    std::uint32_t left_at = 0;  // 0: free
  };
  Slot* Bucket(std::uint32_t fingerprint);
  void Grow();

  std::vector<Slot> slots_;
  std::uint32_t clock_ = 0;  // departures so far
};

class Store {
 public:
  static constexpr std::size_t kEntryOverheadBytes = 256;

  // REQUIRES: options within their ranges.
  explicit Store(const StoreOptions& options);

  // Nullptr: not there, or too old (then it is dropped). A hit counts as a use.
  Value Find(const Key& key, TimePoint now);
  // Takes the place of an equal key. `value_bytes` is what the value keeps alive. False: larger than a quarter of the
  // store, and nothing changed. REQUIRES: hash is that of content, as in Find; value is not null.
  bool Insert(Hash128 hash, std::string content, Value value, std::size_t value_bytes, std::uint64_t group,
              TimePoint now);
  bool Erase(const Key& key);
  // Drops every entry that was inserted with this group; returns how many.
  std::size_t EraseGroup(std::uint64_t group);

  std::size_t bytes() const { return small_.bytes + main_.bytes; }
  std::size_t entries() const { return small_.entries + main_.entries; }
  std::uint64_t evictions() const { return evictions_; }  // for want of room; not the too old, replaced or erased

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  struct Entry {
    Hash128 hash;
    std::string content;
    Value value;
    std::size_t bytes = 0;  // 0: free
    std::uint64_t group = 0;
    TimePoint expires{};
    std::uint32_t newer = kNone;
    std::uint32_t older = kNone;
    std::uint32_t chain = kNone;  // the next entry of its bucket, or of the free ones
    std::uint8_t uses = 0;
    bool in_main = false;
  };
  struct Queue {
    std::uint32_t newest = kNone;
    std::uint32_t oldest = kNone;
    std::size_t bytes = 0;
    std::size_t entries = 0;
  };

  std::uint32_t Locate(const Key& key) const;
  Queue& QueueOf(const Entry& entry) { return entry.in_main ? main_ : small_; }
  void Push(std::uint32_t at, bool in_main);
  void Unlink(std::uint32_t at);
  void Remove(std::uint32_t at);
  std::uint32_t Allocate();
  void GrowBuckets();
  void Evict();
  void EvictFromSmall();
  void EvictFromMain();
  std::size_t GhostWindow() const;

  StoreOptions options_;
  std::size_t small_bytes_;
  std::vector<Entry> slab_;
  std::vector<std::uint32_t> buckets_;
  std::uint32_t free_ = kNone;
  Queue small_;
  Queue main_;
  Ghosts ghosts_;
  std::uint64_t evictions_ = 0;
};

}  // namespace ganglion::cache
