// A Service is what stands behind the fronts: REST and gRPC decode what comes in, call it, and encode what it says.
//
// InferCall is one request under way, owned by whoever must finish it: Finish is called exactly once, on any thread; a
// call destroyed without Finish answers INTERNAL, so that no client waits for a bug.
// Everything else is small and answered on the spot, except Load and Unload, which take a continuation.
// An interface; implementations are thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "wire/inference.h"
#include "wire/outcome.h"

namespace ganglion::net {

enum class Front { kHttp, kGrpc, kUnix };
enum class Role { kInfer, kOperate };  // operate includes infer

struct CallContext {
  Front front = Front::kHttp;
  TimePoint received{};
  std::optional<TimePoint> deadline;  // of the transport: grpc-timeout
  std::string traceparent;            // W3C, empty: none
  std::string token;                  // of "Authorization: Bearer ...", empty: none
  bool peer_verified = false;         // showed a certificate of our authority
  // The front's own thread may compute a short answer at once; otherwise work goes to the node's threads.
  bool may_run_here = false;
};

class InferCall {
 public:
  virtual ~InferCall() = default;
  // Exactly once. Any thread; does not block.
  virtual void Finish(Result<wire::InferResponse> response) = 0;

  wire::InferRequest request;
  CallContext context;
  // With RESOURCE_EXHAUSTED: when it is worth coming back. Set before Finish.
  std::optional<Duration> retry_after;
};

class Service {
 public:
  virtual ~Service() = default;

  // May finish the call before it returns.
  virtual void Infer(std::unique_ptr<InferCall> call) = 0;

  // OK when whoever called may do what `needed` says.
  virtual Status Allow(const CallContext& context, Role needed) const = 0;

  virtual bool Live() const = 0;
  virtual bool Ready() const = 0;
  virtual bool ModelReady(const std::string& model, const std::string& version) const = 0;
  virtual wire::ServerMetadata ServerMetadata() const = 0;
  virtual Result<wire::ModelMetadata> ModelMetadata(const std::string& model, const std::string& version) const = 0;
  virtual Result<wire::ModelConfig> ModelConfig(const std::string& model, const std::string& version) const = 0;
  // Of all models where `model` is empty.
  virtual Result<std::vector<wire::ModelStatistics>> Statistics(const std::string& model,
                                                                const std::string& version) const = 0;
  virtual std::vector<wire::RepositoryEntry> RepositoryIndex(bool only_ready) const = 0;
  virtual void Load(const std::string& model, std::function<void(Status)> done) = 0;
  virtual void Unload(const std::string& model, std::function<void(Status)> done) = 0;

  // What came of a decision that was made here, for a stage that learns. NOT_FOUND: it waits for none.
  virtual Status Report(const std::string& model, const std::string& version, const wire::Outcome& outcome) {
    (void)model, (void)version, (void)outcome;
    return Unimplemented("this server learns from no outcomes");
  }
  // What that stage has learned so far: a model as `ganglion learn` writes it.
  virtual Result<std::string> Learned(const std::string& model, const std::string& version) const {
    (void)model, (void)version;
    return Unimplemented("this server learns from no outcomes");
  }

  // Of all regions where `name` is empty.
  virtual Result<std::vector<wire::SharedMemoryRegion>> SharedMemoryStatus(const std::string& name) const = 0;
  virtual Status RegisterSharedMemory(const wire::SharedMemoryRegion& region) = 0;
  virtual Status UnregisterSharedMemory(const std::string& name) = 0;

  virtual std::string MetricsText() const = 0;  // Prometheus exposition format
  virtual std::string StatusJson() const = 0;   // what `ganglion status` shows
};

}  // namespace ganglion::net
