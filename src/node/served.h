// Something served under a name: one version of a plain model or of a decision, with what computes it.
//
// Immutable once made, apart from its counters; requests hold it while they run, so that a reload or an unload never
// takes it away from under them.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/guarded.h"
#include "base/status.h"
#include "breaker/breaker.h"
#include "node/decision.h"
#include "node/node_file.h"
#include "node/runner.h"
#include "telemetry/metrics.h"
#include "wire/inference.h"

namespace ganglion::node {

// What is counted of a model, for the statistics endpoint.
struct ServedCounts {
  struct Timed {
    std::atomic<std::uint64_t> count{0};
    std::atomic<std::uint64_t> ns{0};
    void Add(Duration d) {
      count.fetch_add(1, std::memory_order_relaxed);
      ns.fetch_add(static_cast<std::uint64_t>(d.count() > 0 ? d.count() : 0), std::memory_order_relaxed);
    }
  };
  Timed success, fail, cache_hit, cache_miss;
  std::atomic<std::uint64_t> rows{0};
  std::atomic<std::uint64_t> last_ms{0};  // since 1970
};

struct LocalStage {
  std::string name;  // "small", "ensemble", "rules"
  std::unique_ptr<Runner> runner;
  std::unique_ptr<BatchQueue> queue;
  std::unique_ptr<Guarded<breaker::CircuitBreaker>> breaker;
  telemetry::Histogram* seconds = nullptr;
};

class Served {
 public:
  std::string name;
  std::string version;
  std::string digest;  // names what exactly answers: in the cache's key and in model_version
  wire::ModelMetadata metadata;
  wire::ModelConfig config;
  std::vector<std::vector<std::string>> output_labels;  // for the classification extension, by output

  std::unique_ptr<Decision> decision;  // nullptr: a plain model, which has one stage
  OnlineStage* learns = nullptr;       // the decision's stage that learns from outcomes, if it is here
  std::vector<LocalStage> stages;

  std::size_t InputIndex(const std::string& input) const;  // kNoInput
  static constexpr std::size_t kNoInput = static_cast<std::size_t>(-1);

  telemetry::Histogram* seconds = nullptr;  // of requests
  mutable ServedCounts counts;
};

// What making one needs.
struct ServedContext {
  std::shared_ptr<runtime::Engine> engine;
  const NodeConfig* node = nullptr;
  Executor* executor = nullptr;
  telemetry::Registry* registry = nullptr;
};

Result<std::shared_ptr<const Served>> ServeDecision(const ServedContext& context, const std::filesystem::path& dir);

struct PlainModel {
  std::string name;
  std::string version;  // empty: its digest
  std::filesystem::path file;
  std::int64_t max_batch_size = 0;
  std::vector<tensor::Spec> inputs, outputs;  // of a Triton configuration, to be checked; empty: the model's own
  std::vector<std::vector<std::string>> output_labels;
  std::optional<Duration> batch_delay;
};
Result<std::shared_ptr<const Served>> ServeModel(const ServedContext& context, const PlainModel& model);

}  // namespace ganglion::node
