#include "cache/cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace ganglion::cache {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kFirstBuckets = 64;
constexpr std::size_t kSlotsPerBucket = 8;  // one cache line
constexpr std::size_t kFirstGhostSlots = 64;
constexpr std::size_t kLargestEntry = 4;  // an entry may take one part of so many

// The fractional parts of the square roots of the first primes: numbers with nothing up their sleeves.
constexpr std::array<std::uint64_t, 8> kSalt{0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu,
                                             0xa54ff53a5f1d36f1u, 0x510e527fade682d1u, 0x9b05688c2b3e6c1fu,
                                             0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

std::uint64_t Word(const char* p) {
  std::uint64_t w;
  std::memcpy(&w, p, sizeof w);
  return w;
}

// Both halves of the 128-bit product, folded: every bit of a and b reaches every bit of the result.
std::uint64_t Fold(std::uint64_t a, std::uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

Hash128 HashBytes(std::string_view bytes, std::uint64_t seed) {
  // Four lanes that do not wait for each other, so that the multiplier is never idle.
  const std::uint64_t mixed = Fold(seed ^ kSalt[0], kSalt[1]);
  std::uint64_t a = mixed ^ kSalt[2], b = mixed ^ kSalt[3], c = mixed ^ kSalt[4], d = mixed ^ kSalt[5];
  const auto block = [&](const char* p) {
    a = Fold(Word(p) ^ kSalt[0], Word(p + 8) ^ a);
    b = Fold(Word(p + 16) ^ kSalt[1], Word(p + 24) ^ b);
    c = Fold(Word(p + 32) ^ kSalt[6], Word(p + 40) ^ c);
    d = Fold(Word(p + 48) ^ kSalt[7], Word(p + 56) ^ d);
  };
  const char* p = bytes.data();
  std::size_t left = bytes.size();
  for (; left > kBlock; left -= kBlock, p += kBlock) block(p);
  if (bytes.size() >= kBlock) {
    block(bytes.data() + bytes.size() - kBlock);  // the last block overlaps the one before: no padding, no branches
  } else {
    std::array<char, kBlock> padded{};
    if (!bytes.empty()) std::memcpy(padded.data(), bytes.data(), bytes.size());
    block(padded.data());
  }
  // The size tells "ab" from "ab" with zeros behind it.
  const std::uint64_t high = Fold(a ^ kSalt[2] ^ bytes.size(), b ^ kSalt[3]);
  const std::uint64_t low = Fold(c ^ kSalt[4], d ^ kSalt[5] ^ bytes.size());
  return {Fold(high ^ kSalt[6] ^ mixed, low ^ kSalt[7]), Fold(low ^ kSalt[0] ^ mixed, high ^ kSalt[1])};
}

Ghosts::Ghosts() : slots_(kFirstGhostSlots) {}

Ghosts::Slot* Ghosts::Bucket(std::uint32_t fingerprint) {
  const std::size_t buckets = slots_.size() / kSlotsPerBucket;
  return slots_.data() + (fingerprint & (buckets - 1)) * kSlotsPerBucket;
}

void Ghosts::Add(std::uint32_t fingerprint, std::size_t window) {
  while (slots_.size() < 2 * window && slots_.size() < (std::size_t{1} << 31)) Grow();
  if (++clock_ == 0) {  // once in 4 billion departures: forget everything instead of mistaking the order
    std::fill(slots_.begin(), slots_.end(), Slot{});
    clock_ = 1;
  }
  Slot* const bucket = Bucket(fingerprint);
  Slot* const oldest = std::min_element(bucket, bucket + kSlotsPerBucket,
                                        [](const Slot& x, const Slot& y) { return x.left_at < y.left_at; });
  *oldest = {fingerprint, clock_};
}

bool Ghosts::Take(std::uint32_t fingerprint, std::size_t window) {
  Slot* const bucket = Bucket(fingerprint);
  for (Slot* s = bucket; s != bucket + kSlotsPerBucket; ++s) {
    if (s->left_at == 0 || s->fingerprint != fingerprint) continue;
    const bool recent = clock_ - s->left_at < window;
    *s = {};
    return recent;
  }
  return false;
}

void Ghosts::Grow() {
  std::vector<Slot> before(slots_.size() * 2);
  before.swap(slots_);
  for (const Slot& s : before) {
    if (s.left_at == 0) continue;
    Slot* const bucket = Bucket(s.fingerprint);
    Slot* const free = std::find_if(bucket, bucket + kSlotsPerBucket, [](const Slot& x) { return x.left_at == 0; });
    *free = s;  // a bucket's slots spread over two buckets: there is room
  }
}

Store::Store(const StoreOptions& options)
    : options_(options),
      small_bytes_(static_cast<std::size_t>(options.small_share * static_cast<double>(options.max_bytes))),
      buckets_(kFirstBuckets, kNone) {
  // An entry, and as much again free in a vector that has just grown; its bucket; fingerprints; two allocations' heads.
  static_assert(2 * sizeof(Entry) + 2 * sizeof(std::uint32_t) + 4 * 8 <= kEntryOverheadBytes);
  GANGLION_CHECK(options.small_share > 0 && options.small_share < 1);
  GANGLION_CHECK(options.ghost_share >= 0);
  GANGLION_CHECK(options.max_uses >= 1 && options.max_uses <= 255);
  GANGLION_CHECK(options.promote_at >= 1 && options.promote_at <= options.max_uses);
}

std::uint32_t Store::Locate(const Key& key) const {
  std::uint32_t at = buckets_[key.hash.low & (buckets_.size() - 1)];
  while (at != kNone) {
    const Entry& e = slab_[at];
    if (e.hash == key.hash && e.content == key.content) break;
    at = e.chain;
  }
  return at;
}

Value Store::Find(const Key& key, TimePoint now) {
  const std::uint32_t at = Locate(key);
  if (at == kNone) return nullptr;
  Entry& e = slab_[at];
  if (now >= e.expires) {
    Remove(at);
    return nullptr;
  }
  if (e.uses < options_.max_uses) ++e.uses;
  return e.value;
}

bool Store::Insert(Hash128 hash, std::string content, Value value, std::size_t value_bytes, std::uint64_t group,
                   TimePoint now) {
  GANGLION_CHECK(value != nullptr);
  const std::size_t largest = options_.max_bytes / kLargestEntry;
  if (value_bytes > largest || content.size() > largest) return false;
  const std::size_t bytes = content.size() + value_bytes + kEntryOverheadBytes;
  if (bytes > largest) return false;

  const Key key{hash, content};
  bool in_main = false;
  std::uint8_t uses = 0;
  if (const std::uint32_t old = Locate(key); old != kNone) {
    in_main = slab_[old].in_main;
    uses = slab_[old].uses;
    Remove(old);
  } else {
    in_main = ghosts_.Take(static_cast<std::uint32_t>(hash.high), GhostWindow());
  }
  while (this->bytes() + bytes > options_.max_bytes) Evict();

  const std::uint32_t at = Allocate();
  std::uint32_t& bucket = buckets_[hash.low & (buckets_.size() - 1)];
  Entry& e = slab_[at];
  e.hash = hash;
  e.content = std::move(content);
  e.value = std::move(value);
  e.bytes = bytes;
  e.group = group;
  const Duration left = TimePoint::max() - now;
  e.expires = options_.time_to_live < left ? now + options_.time_to_live : TimePoint::max();
  e.uses = uses;
  e.chain = std::exchange(bucket, at);
  Push(at, in_main);
  return true;
}

bool Store::Erase(const Key& key) {
  const std::uint32_t at = Locate(key);
  if (at != kNone) Remove(at);
  return at != kNone;
}

std::size_t Store::EraseGroup(std::uint64_t group) {
  std::size_t erased = 0;
  for (std::uint32_t at = 0; at < slab_.size(); ++at) {
    if (slab_[at].bytes == 0 || slab_[at].group != group) continue;
    Remove(at);
    ++erased;
  }
  return erased;
}

void Store::Push(std::uint32_t at, bool in_main) {
  Entry& e = slab_[at];
  e.in_main = in_main;
  Queue& q = QueueOf(e);
  e.newer = kNone;
  e.older = std::exchange(q.newest, at);
  if (e.older != kNone) slab_[e.older].newer = at;
  if (q.oldest == kNone) q.oldest = at;
  q.bytes += e.bytes;
  ++q.entries;
}

void Store::Unlink(std::uint32_t at) {
  const Entry& e = slab_[at];
  Queue& q = QueueOf(e);
  (e.newer != kNone ? slab_[e.newer].older : q.newest) = e.older;
  (e.older != kNone ? slab_[e.older].newer : q.oldest) = e.newer;
  q.bytes -= e.bytes;
  --q.entries;
}

void Store::Remove(std::uint32_t at) {
  Unlink(at);
  Entry& e = slab_[at];
  std::uint32_t* link = &buckets_[e.hash.low & (buckets_.size() - 1)];
  while (*link != at) link = &slab_[*link].chain;
  *link = e.chain;
  e = Entry{};  // gives the content's and the value's memory back
  e.chain = std::exchange(free_, at);
}

std::uint32_t Store::Allocate() {
  if (free_ != kNone) return std::exchange(free_, slab_[free_].chain);
  GANGLION_CHECK(slab_.size() < kNone);
  slab_.emplace_back();
  if (slab_.size() > buckets_.size()) GrowBuckets();
  return static_cast<std::uint32_t>(slab_.size() - 1);
}

void Store::GrowBuckets() {
  buckets_.assign(buckets_.size() * 2, kNone);
  for (std::uint32_t at = 0; at < slab_.size(); ++at) {
    Entry& e = slab_[at];
    if (e.bytes > 0) e.chain = std::exchange(buckets_[e.hash.low & (buckets_.size() - 1)], at);
  }
}

std::size_t Store::GhostWindow() const {
  return static_cast<std::size_t>(options_.ghost_share * static_cast<double>(std::max<std::size_t>(entries(), 1)));
}

// REQUIRES: there are entries.
void Store::Evict() {
  if (main_.entries == 0 || (small_.entries > 0 && small_.bytes >= small_bytes_)) {
    EvictFromSmall();
  } else {
    EvictFromMain();
  }
}

// May leave the bytes as they are where everything proved itself; the next round then evicts from main.
void Store::EvictFromSmall() {
  while (small_.entries > 0 && (small_.bytes >= small_bytes_ || main_.entries == 0)) {
    const std::uint32_t at = small_.oldest;
    Entry& e = slab_[at];
    if (e.uses >= options_.promote_at) {
      Unlink(at);
      e.uses = 0;
      Push(at, true);
      continue;
    }
    ghosts_.Add(static_cast<std::uint32_t>(e.hash.high), GhostWindow());
    Remove(at);
    ++evictions_;
    return;
  }
}

void Store::EvictFromMain() {
  for (;;) {
    const std::uint32_t at = main_.oldest;
    Entry& e = slab_[at];
    if (e.uses == 0) {
      Remove(at);
      ++evictions_;
      return;
    }
    --e.uses;
    Unlink(at);
    Push(at, true);
  }
}

}  // namespace ganglion::cache
