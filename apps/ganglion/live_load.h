// A LiveLoad sends labelled rows to a node over REST at a steady rate and keeps what became of each.
//
// The load is open: row i is due at begin + i / rate whatever happened to the rows before it, and its latency counts
// from then, so a node that stalls is seen to stall (a client that waits for each answer would send less instead).
// Each request is one row in the binary extension, on a connection of its own, with a deadline. One that has no answer
// two seconds after its deadline hangs; one whose connection broke or that was answered with an error is lost.
// A service: the threads start with it and end with Stop or its destruction, a deadline and two seconds later at most.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/guarded.h"
#include "data/dataset.h"
#include "topology/topology.h"

namespace ganglion::app {

// How one request ended.
struct LiveSample {
  enum class End { kAnswered, kLost, kHung };
  End end = End::kAnswered;
  TimePoint at{};  // when it ended
  double ms = 0;   // since it was due
  // Of an answer.
  bool labelled = false;  // names a class, a tier, a stage and a decision
  bool right = false;
  bool degraded = false;
  topology::Tier tier = topology::Tier::kDevice;
  std::string why;  // degraded: the reason; lost: the error
};

struct LiveLoadOptions {
  std::string url;    // "http://127.0.0.1:8000"
  std::string model;  // the decision's name
  std::string input;
  double rate_per_s = 200;
  Duration deadline = std::chrono::seconds(1);
};

class LiveLoad {
 public:
  static constexpr Duration kHangs = std::chrono::seconds(2);

  // REQUIRES: the data set has labels and outlives this.
  LiveLoad(LiveLoadOptions options, const data::Dataset& rows);
  ~LiveLoad() { Stop(); }

  // No new requests; waits for those under way.
  void Stop();
  // When the first answer that this tier accepted after `since` came.
  std::optional<TimePoint> Accepted(topology::Tier tier, TimePoint since);
  // All so far, in the order in which they ended.
  std::vector<LiveSample> Samples();

 private:
  void Work();
  LiveSample Send(std::size_t i) const;

  const LiveLoadOptions options_;
  const data::Dataset& rows_;
  const TimePoint begin_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopping_{false};
  Guarded<std::vector<LiveSample>> samples_;
  std::vector<std::thread> threads_;
};

}  // namespace ganglion::app
