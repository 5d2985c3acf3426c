// Which of several measured models to keep under a budget.
//
// Intuition: of two models one is worse if the other is at least as small, as fast and as accurate, and better in one
// of these. What is left when all worse ones are gone is the Pareto front: the honest choices. The budget then picks.
//
// Definition. A candidate is out, with a reason, when
//   it failed;
//   it breaks a limit of the budget (bytes, the 99th percentile of latency, accuracy below the reference);
//   it is slower than the float model it was made of (its median by more than kSlower), and that one is within the
//   budget: eight bits that cost time buy nothing there;
//   or another candidate that is in dominates it (bytes, median latency, accuracy).
// Of the rest, the smallest is chosen if accuracy has a limit, else the most accurate; ties go to the faster, then to
// the earlier. So "at most .005 worse" gives the smallest that is, and "at most 100 KB" the best that fits. A candidate
// of last resort (dynamic quantisation) is chosen only when no other is in, and dominates no other.
// Accuracies were measured on the rows by which the choice is made: report the chosen model's on other rows.
// Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ganglion::shrink {

inline constexpr double kSlower = 1.05;

struct Candidate {
  std::string name;
  std::uint64_t bytes = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double accuracy = 0;
  int made_of = -1;          // the float candidate whose latency it must not exceed; -1: none
  bool last_resort = false;  // its rows depend on each other in a batch
  std::string failed;        // why there is no model; the figures are then meaningless
};

struct Budget {
  std::optional<std::uint64_t> bytes;
  std::optional<double> latency_ms;
  std::optional<double> accuracy_loss;  // >= 0, below the reference
};

struct Verdict {
  bool kept = false;
  std::string why;  // why not; for what is kept "chosen" or ""
};

struct Choice {
  std::vector<Verdict> verdicts;
  int chosen = -1;  // -1: nothing is within the budget
};

// `reference`: the candidate whose accuracy the budget is about.
Choice Choose(const std::vector<Candidate>& candidates, const Budget& budget, int reference);

}  // namespace ganglion::shrink
