// Parents are the servers above this node that it may ask: balanced, each behind a breaker, never beyond a deadline.
//
// Intuition: of several parents two are drawn and the one that would answer sooner is asked (balance::PickOfTwo); one
// that keeps failing is left alone and probed now and then (breaker). A parent that fails at once may be followed by
// another within the retry budget; where `hedge` is set, a slow one is joined by another. Whatever happens, the answer
// comes by the deadline given, which is the parents' own timer.
// A parent is another node, or any server of the Open Inference Protocol: which of the two it is and its tier it tells
// itself ("ganglion.tier=edge" among the extensions of its metadata) when it is asked at start and now and then after.
// One that is foreign, or not known yet and not configured, counts as global: it sees public inputs only.
//
// A question forbidden by the privacy of its decision is not sent: the candidates are those at or below `highest`.
// A service. Continuations run on the executor's thread that keeps time. Stop the executor before destroying this.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "balance/balance.h"
#include "base/clock.h"
#include "base/guarded.h"
#include "base/random.h"
#include "base/status.h"
#include "breaker/breaker.h"
#include "node/executor.h"
#include "node/least_time.h"
#include "node/node_file.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "topology/topology.h"
#include "wire/inference.h"

namespace ganglion::node {

struct Question {
  wire::InferRequest request;         // as another node takes it; borrowed bytes must live until `done` has run
  std::shared_ptr<const void> keeps;  // what keeps those bytes alive
  topology::Tier highest = topology::Tier::kGlobal;
  TimePoint deadline{};
  std::string traceparent;
  int hop = 0;
  bool audit = false;  // never retried, first to be dropped
};

struct Reply {
  Result<wire::InferResponse> response = Internal("no reply");
  bool forbidden = false;  // nobody who may see the input could be asked
  bool timed_out = false;
  // Of who answered.
  std::string parent;
  topology::Tier tier = topology::Tier::kGlobal;
  bool foreign = false;
  std::string output;  // foreign: which output holds the scores; empty: the first
  Duration took{};
};

class Parents {
 public:
  static Result<std::unique_ptr<Parents>> Create(const NodeConfig& config, Executor* executor, telemetry::Log* log,
                                                 telemetry::Registry* registry, std::uint64_t seed);
  ~Parents();

  bool empty() const { return parents_.empty(); }
  // `done` runs once, by the deadline.
  void Ask(Question question, std::function<void(Reply)> done);
  // What it said was no answer, though it came in time: that counts as a failure of it.
  void NoAnswer(const std::string& name, const std::string& why);
  // Whether one that may see such inputs is up and not cut off.
  bool Live(topology::Tier highest) const;
  // The least time in which an answer from above has come lately, zero while unknown.
  Duration fastest(TimePoint now) const { return fastest_.at(now); }

  struct View {
    std::string name;
    std::string url;
    std::string tier;
    bool foreign = false;
    bool up = false;
    Duration round_trip{};  // of the last probe that was answered
    std::string breaker;    // "closed", "open", "half-open"
    double average = 0;
    Duration latency{};
    int in_flight = 0;
    std::string last_error;
    Duration probe_in{};
  };
  std::vector<View> Look() const;
  // Asks each for its metadata now, at most `patience` in all. What `ganglion check --online` does.
  void ProbeAll(Duration patience);

 private:
  struct Parent;
  struct Asking;

  Parents() = default;
  void Try(const std::shared_ptr<Asking>& asking);
  void Sent(const std::shared_ptr<Asking>& asking, std::size_t attempt);
  void Answered(const std::shared_ptr<Asking>& asking, std::size_t attempt, Result<wire::InferResponse> response);
  void TimedOut(const std::shared_ptr<Asking>& asking);
  void Finish(const std::shared_ptr<Asking>& asking, Reply reply);
  void Probe(Parent& parent, Duration patience);
  void KeepProbing(const std::stop_token& stop);
  bool TakeUplink(std::size_t bytes, bool audit);
  void LogOpened(const Parent& parent, double average, const std::string& last) const;

  Executor* executor_ = nullptr;
  telemetry::Log* log_ = nullptr;
  std::vector<std::unique_ptr<Parent>> parents_;
  std::optional<Duration> hedge_;
  BreakerConfig breaker_;
  Guarded<Random> random_{std::uint64_t{0}};
  std::unique_ptr<Guarded<balance::RetryBudget>> retries_;
  telemetry::Counter* retried_ = nullptr;
  LeastTime fastest_{256};

  struct Uplink {
    double tokens = 0;
    TimePoint at{};
  };
  std::optional<double> uplink_per_s_;
  Guarded<Uplink> uplink_;
  std::atomic<bool> closing_{false};
  std::jthread prober_;
};

}  // namespace ganglion::node
