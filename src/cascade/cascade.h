// A Cascade takes one request up the stages until one may answer it.
//
// Intuition: ask the cheapest stage first. It answers with a confidence; at or above the stage's certified threshold
// that is the answer, below it the request is deferred to the next stage. The top's answer is always accepted. A
// request ends by its deadline in any case: with the best answer so far, marked degraded, when time or a broken link
// allows no more.
//
//            below threshold, time left              top answers, or confidence >= threshold
//   DEFERRED(s) -----------------> DEFERRED(s+1)   DEFERRED(s) ------------------> ANSWERED
//        |  no time left for s+1, s unreachable, or failed at the top
//        +--> DEGRADED with the answer of the highest stage that gave one, or FAILED when none did
//
// Time is an argument, never read: the same calls give the same decisions in a test, under a virtual clock and in
// production. What a stage is (a local model, a parent node) and how it runs is the caller's business.
// Degraded answers are outside the promise, whatever their confidence.
//
// A state machine for one request; a small value. Thread-compatible. Cost: nanoseconds a call, no allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "topology/topology.h"

namespace ganglion::cascade {

struct StagePolicy {
  topology::Tier tier = topology::Tier::kDevice;
  double threshold = 0;                 // accept at or above; infinity: never. The last stage's is not looked at.
  Duration shortest{};                  // the least time in which an answer can come: no use to start with less left
  Duration patience = Duration::max();  // after this without an answer the stage counts as unreachable
};

enum class WhenLate { kAnswer, kFail };  // the best so far, marked degraded; or nothing

// Shared by all requests of a decision; immutable while they run.
struct Policy {
  std::vector<StagePolicy> stages;  // cheapest first, at least one
  WhenLate when_late = WhenLate::kAnswer;
};

enum class Reason : std::uint8_t {
  kNone,
  kDeadline,     // the next stage cannot answer in time
  kUnreachable,  // a link is down or nobody answered: what lies above it is out of reach too
  kFailed,       // the last stage broke
  kForbidden,    // what lies above may not see the input
  kOverload,     // there is more work than can be done in time
};
std::string_view Name(Reason reason);  // "", "deadline", "unreachable", "failed", "forbidden", "overload"

struct Answer {
  int label = -1;
  float confidence = 0;
  std::size_t stage = 0;  // which stage gave it
  bool degraded = false;
  Reason reason = Reason::kNone;
};

struct Step {
  enum class Kind : std::uint8_t {
    kDefer,   // run stage `stage`; report OnAnswer, or OnFailure at `give_up_at` at the latest
    kAnswer,  // the end: `answer`
    kFail,    // the end: no answer, `answer.reason` says why
  } kind = Kind::kFail;
  std::size_t stage = 0;
  TimePoint give_up_at{};
  Answer answer;
};

class Cascade {
 public:
  // The policy must outlive the cascade. REQUIRES: it has at least one stage.
  Cascade(const Policy& policy, TimePoint deadline) : policy_(&policy), deadline_(deadline) {}

  // Each returns what to do next. REQUIRES: Begin first and once; OnAnswer and OnFailure only after kDefer.
  // `first`: where to start, when what lies below has been asked elsewhere. REQUIRES: first < stages.
  Step Begin(TimePoint now, std::size_t first = 0);
  Step OnAnswer(int label, float confidence, TimePoint now);
  // kFailed goes on to the next stage; the others end the way up.
  Step OnFailure(Reason reason, TimePoint now);

 private:
  Step TryStage(std::size_t stage, TimePoint now);
  Step Finish(Reason reason) const;

  const Policy* policy_;
  TimePoint deadline_;
  std::size_t stage_ = 0;
  bool has_best_ = false;
  Answer best_;
};

}  // namespace ganglion::cascade
