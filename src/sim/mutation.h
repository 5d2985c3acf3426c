// A Mutation makes every simulated node do one thing wrong, on purpose.
//
// A simulator that finds nothing proves nothing unless it finds what is there: the tests plant each of these and want
// the invariants to report it within a number of seeds. Each is a bug that a change could really bring.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ganglion::sim {

enum class Mutation : std::uint8_t {
  kNone,
  kRunExpired,           // a worker computes what has ended while it waited
  kForgetExpired,        // who expires in a queue is not told
  kIgnorePrivacy,        // any parent may be asked
  kTimeoutIsSuccess,     // a call without a reply in time counts as a good one
  kHedgeLoserIsSuccess,  // so does a call that another parent's reply made superfluous
  kNoQuestionTimer,      // a question waits for its reply for ever
  kRetryUnlimited,       // the retry budget is not asked
  kLeakParentInFlight,   // a failed call stays counted as under way
  kLeakAdmission,        // a degraded request stays counted as inside
  kAskFromTheBottom,     // what has been asked below is not said to the parent
  kHideDegraded,         // a degraded answer passes for an accepted one
  kHideReason,           // a degraded answer does not say why
  kMixRows,              // a parent's answers are given to other rows
  kIgnoreHops,           // questions may go round in circles
  kOneQueueTimer,        // a queue's timer is not set earlier for a more urgent request
  kFastestNeverFades,    // the least time seen of a parent is believed for ever, though nobody is asked any more
  kNoProbe,              // a parent that was cut off is never asked again
  kForgetLateRun,        // a stage's breaker is not told of a run that outlasted the request
  kCount,
};

inline constexpr std::array<std::string_view, static_cast<std::size_t>(Mutation::kCount)> kMutationNames{
    "none",           "run_expired",     "forget_expired", "ignore_privacy",  "timeout_is_success",  "hedge_loser",
    "no_timer",       "retry_unlimited", "leak_parent",    "leak_admission",  "ask_from_bottom",     "hide_degraded",
    "hide_reason",    "mix_rows",        "ignore_hops",    "one_queue_timer", "fastest_never_fades", "no_probe",
    "forget_late_run"};
inline std::string_view Name(Mutation m) { return kMutationNames[static_cast<std::size_t>(m)]; }

}  // namespace ganglion::sim
