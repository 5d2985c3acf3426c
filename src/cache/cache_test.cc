#include "cache/cache.h"

#include <gtest/gtest.h>

#include <list>
#include <map>
#include <set>
#include <string>

#include "base/random.h"
#include "cache/pays_off.h"

namespace ganglion::cache {
namespace {

using std::chrono::seconds;

const TimePoint kStart{seconds(1000)};

Value Number(int n) { return std::make_shared<int>(n); }
int NumberOf(const Value& value) { return value == nullptr ? -1 : *static_cast<const int*>(value.get()); }
Key KeyOf(const std::string& content) { return {HashBytes(content, 7), content}; }

bool Put(Store& store, const std::string& content, int number, TimePoint now = kStart, std::size_t bytes = 8,
         std::uint64_t group = 0) {
  return store.Insert(HashBytes(content, 7), content, Number(number), bytes, group, now);
}
int Get(Store& store, const std::string& content, TimePoint now = kStart) {
  return NumberOf(store.Find(KeyOf(content), now));
}
StoreOptions RoomFor(std::size_t entries) {  // of names of at most 15 characters
  StoreOptions options;
  options.max_bytes = entries * (8 + 15 + Store::kEntryOverheadBytes);
  return options;
}

TEST(Hash, DiffersForEveryLengthAndFlippedBit) {
  std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
  std::size_t hashes = 0;
  for (std::size_t length = 0; length <= 200; ++length) {
    std::string bytes(length, '\0');
    const auto add = [&] {
      const Hash128 h = HashBytes(bytes, 1);
      seen.insert({h.high, h.low});
      ++hashes;
    };
    add();
    for (std::size_t bit = 0; bit < 8 * length; ++bit) {
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
      add();
      bytes[bit / 8] = 0;
    }
  }
  EXPECT_EQ(seen.size(), hashes);
}

TEST(Hash, FlipsHalfTheBitsForOneBitOfInputOrSeed) {
  Random random(3);
  for (const std::size_t length : {1, 8, 63, 64, 65, 1000}) {
    std::string bytes(length, 'x');
    double flipped_high = 0, flipped_low = 0, by_seed = 0;
    constexpr int kTrials = 2000;
    for (int i = 0; i < kTrials; ++i) {
      for (char& c : bytes) c = static_cast<char>(random.Next());
      const std::uint64_t seed = random.Next();
      const Hash128 before = HashBytes(bytes, seed);
      const Hash128 other = HashBytes(bytes, seed ^ (std::uint64_t{1} << random.Below(64)));
      bytes[random.Below(length)] ^= static_cast<char>(1 << random.Below(8));
      const Hash128 after = HashBytes(bytes, seed);
      flipped_high += __builtin_popcountll(before.high ^ after.high);
      flipped_low += __builtin_popcountll(before.low ^ after.low);
      by_seed += __builtin_popcountll(before.low ^ other.low);
    }
    // 64 bits of mean 0.5: the mean of 2000 trials has a standard deviation of 0.09 bits.
    EXPECT_NEAR(flipped_high / kTrials, 32, 0.6) << length;
    EXPECT_NEAR(flipped_low / kTrials, 32, 0.6) << length;
    EXPECT_NEAR(by_seed / kTrials, 32, 0.6) << length;
  }
}

TEST(Store, FindsWhatWasInsertedAndNothingElse) {
  Store store(RoomFor(100));
  EXPECT_EQ(Get(store, "a"), -1);
  EXPECT_TRUE(Put(store, "a", 1));
  EXPECT_TRUE(Put(store, "", 2));
  EXPECT_EQ(Get(store, "a"), 1);
  EXPECT_EQ(Get(store, ""), 2);
  EXPECT_EQ(Get(store, std::string(1, '\0')), -1);
  EXPECT_EQ(store.entries(), 2u);
  EXPECT_EQ(store.bytes(), 1 + 2 * 8 + 2 * Store::kEntryOverheadBytes);
}

TEST(Store, ReplacesTheValueOfAnEqualKey) {
  Store store(RoomFor(100));
  Put(store, "a", 1);
  Put(store, "a", 2, kStart, 20);
  EXPECT_EQ(Get(store, "a"), 2);
  EXPECT_EQ(store.entries(), 1u);
  EXPECT_EQ(store.bytes(), 1 + 20 + Store::kEntryOverheadBytes);
  EXPECT_EQ(store.evictions(), 0u);
}

TEST(Store, KeepsContentsOfOneHashApart) {
  Store store(RoomFor(100));
  const Hash128 same{1, 2};
  ASSERT_TRUE(store.Insert(same, "a", Number(1), 8, 0, kStart));
  EXPECT_EQ(store.Find({same, "b"}, kStart), nullptr);
  EXPECT_EQ(store.Find({same, "ab"}, kStart), nullptr);
  ASSERT_TRUE(store.Insert(same, "b", Number(2), 8, 0, kStart));
  EXPECT_EQ(NumberOf(store.Find({same, "a"}, kStart)), 1);
  EXPECT_EQ(NumberOf(store.Find({same, "b"}, kStart)), 2);
  EXPECT_TRUE(store.Erase({same, "a"}));
  EXPECT_FALSE(store.Erase({same, "a"}));
  EXPECT_EQ(store.Find({same, "a"}, kStart), nullptr);
  EXPECT_EQ(NumberOf(store.Find({same, "b"}, kStart)), 2);
}

TEST(Store, DropsWhatIsTooOld) {
  StoreOptions options = RoomFor(100);
  options.time_to_live = seconds(10);
  Store store(options);
  Put(store, "a", 1);
  EXPECT_EQ(Get(store, "a", kStart + seconds(10) - Duration(1)), 1);
  EXPECT_EQ(Get(store, "a", kStart + seconds(10)), -1);
  EXPECT_EQ(store.entries(), 0u);
  EXPECT_EQ(store.bytes(), 0u);
}

TEST(Store, KeepsForeverWithTheLongestTime) {
  StoreOptions options = RoomFor(100);
  options.time_to_live = Duration::max();
  Store store(options);
  Put(store, "a", 1);
  EXPECT_EQ(Get(store, "a", kStart + std::chrono::hours(24 * 365)), 1);
}

TEST(Store, ErasesAGroupAndLeavesTheOthers) {
  Store store(RoomFor(400));
  for (int i = 0; i < 300; ++i) Put(store, std::to_string(i), i, kStart, 8, static_cast<std::uint64_t>(i % 3));
  EXPECT_EQ(store.EraseGroup(1), 100u);
  EXPECT_EQ(store.EraseGroup(1), 0u);
  for (int i = 0; i < 300; ++i) EXPECT_EQ(Get(store, std::to_string(i)), i % 3 == 1 ? -1 : i);
}

TEST(Store, RefusesWhatWouldFillAQuarter) {
  StoreOptions options;
  options.max_bytes = 8000;
  Store store(options);
  EXPECT_TRUE(Put(store, "a", 1, kStart, 2000 - 1 - Store::kEntryOverheadBytes));
  EXPECT_FALSE(Put(store, "b", 1, kStart, 2000 - Store::kEntryOverheadBytes));
  EXPECT_FALSE(Put(store, "c", 1, kStart, ~std::size_t{0}));
  EXPECT_EQ(store.entries(), 1u);
}

TEST(Store, ValuesOutliveTheirEviction) {
  Store store(RoomFor(10));
  Put(store, "a", 42);
  const Value held = store.Find(KeyOf("a"), kStart);
  store.EraseGroup(0);
  EXPECT_EQ(NumberOf(held), 42);
}

TEST(Store, KeepsWhatIsUsedThroughAScan) {
  Store store(RoomFor(100));
  for (int i = 0; i < 50; ++i) Put(store, "hot" + std::to_string(i), i);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Get(store, "hot" + std::to_string(i)), i);
  for (int i = 0; i < 10'000; ++i) Put(store, "scan" + std::to_string(i), i);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Get(store, "hot" + std::to_string(i)), i);
}

TEST(Store, LetsAKeyThatCameBackSoonOutliveNewcomers) {
  Store store(RoomFor(100));
  for (int i = 0; i < 95; ++i) Put(store, "hot" + std::to_string(i), i);
  for (int i = 0; i < 95; ++i) Get(store, "hot" + std::to_string(i));
  for (int i = 0; i < 100; ++i) Put(store, "fill" + std::to_string(i), i);
  ASSERT_EQ(Get(store, "fill60"), -1);  // thrown out, and remembered
  Put(store, "fill60", 60);
  for (int i = 0; i < 50; ++i) Put(store, "late" + std::to_string(i), i);
  EXPECT_EQ(Get(store, "fill60"), 60);
  EXPECT_EQ(Get(store, "late10"), -1);
}

TEST(Ghosts, RememberAWindowOfDepartures) {
  Ghosts ghosts;
  Random random(5);
  std::list<std::uint32_t> gone;
  constexpr std::size_t kWindow = 1000;
  for (int i = 0; i < 5000; ++i) {
    gone.push_back(static_cast<std::uint32_t>(random.Next()));
    ghosts.Add(gone.back(), kWindow);
  }
  std::size_t recent = 0, old = 0, twice = 0, age = 0;
  for (auto it = gone.rbegin(); it != gone.rend(); ++it, ++age) {
    const bool found = ghosts.Take(*it, kWindow);
    (age < kWindow ? recent : old) += found ? 1 : 0;
    twice += ghosts.Take(*it, kWindow) ? 1 : 0;
  }
  EXPECT_GE(recent, kWindow * 95 / 100);  // a few lost their slot to a crowded bucket
  EXPECT_EQ(old, 0u);
  EXPECT_EQ(twice, 0u);
}

// Against a map that never forgets: an answer is the last one inserted, never an old, erased or foreign one; the bytes
// are the sum of the entries and never above the limit.
TEST(StoreProperty, NeverAnswersWronglyNorExceedsItsBytes) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    StoreOptions options;
    options.max_bytes = 4000 + random.Below(60'000);
    options.time_to_live = seconds(50);
    options.small_share = random.Uniform(0.01, 0.5);
    options.promote_at = 1 + static_cast<int>(random.Below(2));
    Store store(options);
    struct Known {
      int number;
      std::uint64_t group;
      TimePoint at;
    };
    std::map<std::string, Known> model;
    TimePoint now = kStart;
    std::size_t hits = 0, misses = 0;
    for (int step = 0; step < 20'000; ++step) {
      now += std::chrono::milliseconds(random.Below(10));
      const std::string name(1 + random.Below(40), static_cast<char>('a' + random.Below(26)));
      const Hash128 hash{name.size() % 2, name.size() % 8};  // few hashes: chains of many contents
      switch (random.Below(20)) {
        case 0:
          store.Erase({hash, name});
          model.erase(name);
          break;
        case 1:
          if (random.Below(50) == 0) {
            const std::uint64_t group = random.Below(4);
            store.EraseGroup(group);
            std::erase_if(model, [&](const auto& known) { return known.second.group == group; });
          }
          break;
        default: {
          const Value found = store.Find({hash, name}, now);
          const auto known = model.find(name);
          if (found != nullptr) {
            ++hits;
            ASSERT_NE(known, model.end());
            ASSERT_EQ(NumberOf(found), known->second.number);
            ASSERT_LT(now - known->second.at, options.time_to_live);
          } else {
            ++misses;
            const std::uint64_t group = random.Below(4);
            if (store.Insert(hash, name, Number(step), random.Below(500), group, now)) {
              model[name] = {step, group, now};
              ASSERT_EQ(NumberOf(store.Find({hash, name}, now)), step);
            } else {
              ASSERT_EQ(store.Find({hash, name}, now), nullptr);
            }
          }
        }
      }
      ASSERT_LE(store.bytes(), options.max_bytes);
      ASSERT_GE(store.bytes(), store.entries() * Store::kEntryOverheadBytes);
    }
    EXPECT_GT(hits, 100u);
    EXPECT_GT(misses, 100u);
    for (std::uint64_t group = 0; group < 4; ++group) store.EraseGroup(group);
    EXPECT_EQ(store.bytes(), 0u);
    EXPECT_EQ(store.entries(), 0u);
  }
}

Traffic Of(std::uint64_t lookups, double hit_rate, double compute_seconds = 100e-6, double cost_seconds = 1e-6) {
  Traffic t;
  t.lookups = lookups;
  t.hits = static_cast<std::uint64_t>(hit_rate * static_cast<double>(lookups));
  t.computed = lookups - t.hits;
  t.compute_seconds = compute_seconds * static_cast<double>(t.computed);
  t.timed = lookups;
  t.cost_seconds = cost_seconds * static_cast<double>(lookups);
  return t;
}

TEST(PaysOff, StaysOnWhileHitsSaveMoreThanLookupsCost) {
  PaysOff pays({});
  for (int i = 0; i < 1000; ++i) pays.Observe(Of(1024, 0.02));  // 2 % of 100 us against 1 us
  EXPECT_TRUE(pays.on());
  for (int i = 0; i < 1000; ++i) pays.Observe(Of(1024, 1.0));  // nothing computed: the last mean stands
  EXPECT_TRUE(pays.on());
}

TEST(PaysOff, TurnsOffAfterItsPatienceWhereNothingRepeats) {
  PaysOff pays({});
  for (int i = 0; i < 7; ++i) pays.Observe(Of(4096, 0));
  EXPECT_TRUE(pays.on());
  pays.Observe(Of(4096, 0.5));
  for (int i = 0; i < 7; ++i) pays.Observe(Of(4096, 0));
  EXPECT_TRUE(pays.on());
  pays.Observe(Of(4096, 0));
  EXPECT_FALSE(pays.on());
}

TEST(PaysOff, TurnsOffWhereComputingIsAsCheapAsLooking) {
  PaysOff pays({});
  for (int i = 0; i < 8; ++i) pays.Observe(Of(4096, 0.5, 1e-6, 1e-6));
  EXPECT_FALSE(pays.on());
}

TEST(PaysOff, UsesOneKeyIn64WhileOff) {
  PaysOff pays({});
  for (std::uint64_t bits = 0; bits < 64; ++bits) EXPECT_TRUE(pays.Use(bits));
  for (int i = 0; i < 8; ++i) pays.Observe(Of(4096, 0));
  std::size_t used = 0;
  for (std::uint64_t bits = 0; bits < 6400; ++bits) used += pays.Use(bits) ? 1 : 0;
  EXPECT_EQ(used, 100u);
}

TEST(PaysOff, TurnsOnWhenTheSampleRepeats) {
  PaysOff pays({});
  for (int i = 0; i < 8; ++i) pays.Observe(Of(4096, 0));
  for (int i = 0; i < 100; ++i) pays.Observe(Of(512, 0.01));  // would just pay: not enough to come back
  EXPECT_FALSE(pays.on());
  pays.Observe(Of(512, 0.1));
  EXPECT_TRUE(pays.on());
}

TEST(PaysOff, NeedsEverMoreProofAfterAttemptsThatFail) {
  PaysOff pays({});
  int last = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    for (int i = 0; i < 8; ++i) pays.Observe(Of(4096, 0));
    ASSERT_FALSE(pays.on());
    int needed = 0;
    while (!pays.on()) {
      pays.Observe(Of(512, 0.5));
      ASSERT_LE(++needed, 64);
    }
    EXPECT_EQ(needed, attempt == 0 ? 1 : std::min(64, 2 * last));
    last = needed;
  }
  pays.Observe(Of(4096, 0.5));  // it was right this time
  for (int i = 0; i < 8; ++i) pays.Observe(Of(4096, 0));
  ASSERT_FALSE(pays.on());
  pays.Observe(Of(512, 0.5));
  EXPECT_TRUE(pays.on());
}

}  // namespace
}  // namespace ganglion::cache
