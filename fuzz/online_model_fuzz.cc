// Snapshots of online models: bytes whose checksum fits are not therefore sound.
#include "base/check.h"
#include "online/online.h"
#include "target.h"

using ganglion::online::LearnerOptions;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion;
  constexpr std::uint64_t kMaxTable = 1 << 20;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  (void)online::Restore(bytes, kMaxTable).ok();
  (void)online::Contributions::FromBytes(bytes, kMaxTable).ok();
  auto learner = online::Restore(online::Seal(bytes), kMaxTable);
  if (!learner.ok()) return 0;
  online::Example example;
  example.features = {{0, 1}, {1, -2}};
  example.labelled = true;
  example.label = 1;
  (void)learner->Learn(example, 7).ok();
  // What was read is written and read again as the same.
  const std::string again = online::Snapshot(*learner);
  const auto twice = online::Restore(again, kMaxTable);
  GANGLION_CHECK(!twice.ok() || online::Snapshot(*twice) == again);
  return 0;
}

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const bool rich : {false, true}) {
    LearnerOptions o;
    o.bits = 4;
    if (rich) {
      o.factors = 2;
      o.anchor = .1;
      o.replay = 4;
      o.interactions = {"ab"};
    }
    auto learner = ganglion::online::Learner::Create(o);
    ganglion::online::Example e;
    e.features = {{3, 1.5f}, {7, -1}};
    e.labelled = true;
    e.label = 2;
    for (std::uint64_t i = 0; i < 6; ++i) (void)learner->Learn(e, i * 0x9e3779b97f4a7c15u).ok();
    const std::string snapshot = ganglion::online::Snapshot(*learner);
    seeds.push_back(snapshot.substr(0, snapshot.size() - 32));
  }
  return seeds;
}
