// A Server is a running node: what it serves, and the path of every request, behind REST, gRPC and Unix-socket fronts.
//
// The path of a request (Server::Run) is one list:
//    1  find the model                         6  look into the cache
//    2  read deadline, trace, unit, hop        7  admit, or answer from the cheapest stage, or refuse
//    3  fetch inputs out of shared memory      8  take it up the cascade (Flow), or run the model
//    4  check shapes and numbers               9  make the answer, keep it in the cache, count, trace
//    5  is there time left?                   10  send some accepted ones up for audit
//
// Models come and go while requests run: a name points to an immutable Served; loading makes a new one and then moves
// the pointer, so that no request fails and none is answered by half of each.
// A service. Create loads everything; Listen opens the fronts; Drain ends it in good order.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "admission/admission.h"
#include "base/guarded.h"
#include "net/service.h"
#include "node/flow.h"
#include "node/node_file.h"
#include "node/parents.h"
#include "node/prediction_cache.h"
#include "node/served.h"
#include "node/shared_memory.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "telemetry/trace.h"
#include "topology/topology.h"

namespace ganglion::net {
class GrpcServer;
class HttpServer;
class MailboxServer;
struct TlsFiles;
}  // namespace ganglion::net

namespace ganglion::node {

class Server final : public net::Service {
 public:
  // Refuses when something that the file names cannot be served; says all of it, a line each. Models of a repository
  // that cannot be served do not stop the others: the index says why.
  static Result<std::unique_ptr<Server>> Create(std::shared_ptr<runtime::Engine> engine, NodeConfig config);
  ~Server() override;

  Status Listen();
  struct Ports {
    int http = 0;
    int grpc = 0;
    int metrics = 0;
  };
  Ports ports() const;

  // No new connections, ends those that are idle, and lets requests under way finish, for `config.drain` at most.
  // Returns how many had not.
  std::size_t Drain();

  const NodeConfig& config() const { return config_; }
  Parents& parents() { return *parents_; }
  // "fashion@3f9c2a41b7d0, linear@..."
  std::string Summary() const;

  // net::Service
  void Infer(std::unique_ptr<net::InferCall> call) override;
  Status Allow(const net::CallContext& context, net::Role needed) const override;
  bool Live() const override { return true; }
  bool Ready() const override;
  bool ModelReady(const std::string& model, const std::string& version) const override;
  wire::ServerMetadata ServerMetadata() const override;
  Result<wire::ModelMetadata> ModelMetadata(const std::string& model, const std::string& version) const override;
  Result<wire::ModelConfig> ModelConfig(const std::string& model, const std::string& version) const override;
  Result<std::vector<wire::ModelStatistics>> Statistics(const std::string& model,
                                                        const std::string& version) const override;
  std::vector<wire::RepositoryEntry> RepositoryIndex(bool only_ready) const override;
  void Load(const std::string& model, std::function<void(Status)> done) override;
  void Unload(const std::string& model, std::function<void(Status)> done) override;
  Status Report(const std::string& model, const std::string& version, const wire::Outcome& outcome) override;
  Result<std::string> Learned(const std::string& model, const std::string& version) const override;
  Result<std::vector<wire::SharedMemoryRegion>> SharedMemoryStatus(const std::string& name) const override;
  Status RegisterSharedMemory(const wire::SharedMemoryRegion& region) override;
  Status UnregisterSharedMemory(const std::string& name) override;
  std::string MetricsText() const override;
  std::string StatusJson() const override;

 private:
  struct Pending;  // one request under way

  // Where a name's versions come from, and which are there.
  struct Entry {
    std::filesystem::path decision;  // one of these three
    std::filesystem::path file;
    bool repository = false;
    std::map<std::string, std::shared_ptr<const Served>> versions;
    std::shared_ptr<const Served> newest;
    std::string state = "UNAVAILABLE";
    std::string reason;
  };
  using Entries = std::map<std::string, Entry>;

  explicit Server(NodeConfig config);

  // The path of a request.
  void Run(const std::shared_ptr<Pending>& p);
  Status ReadParameters(Pending* p) const;
  Status ReadInputs(Pending* p) const;
  bool AskCache(const std::shared_ptr<Pending>& p);
  void Compute(const std::shared_ptr<Pending>& p);
  void RunDecision(const std::shared_ptr<Pending>& p, bool cheapest_only);
  void RunModel(const std::shared_ptr<Pending>& p);
  void FinishDecision(const std::shared_ptr<Pending>& p, FlowResult result);
  void RememberRows(const Served& served, std::span<const tensor::View> inputs, std::vector<RowAnswer>* rows,
                    const std::function<std::string()>& new_id);
  void FinishModel(const std::shared_ptr<Pending>& p, Result<std::vector<tensor::Tensor>> outputs);
  void Answer(const std::shared_ptr<Pending>& p, Result<wire::InferResponse> response);
  void Share(const std::shared_ptr<Pending>& p, wire::InferResponse answer);
  Result<wire::InferResponse> ForCaller(const Pending& p, const wire::InferResponse& answer) const;
  void Release(Pending* p, admission::AdmissionOutcome outcome);
  void Refused(const Pending& p, const char* reason);
  static void CountQueued(const LocalStage& stage, Duration queued);
  void Audit(const Pending& p, const FlowResult& result);
  void Count(const Pending& p, const std::string& tier, const std::string& stage, const char* outcome,
             std::size_t rows);

  Result<std::shared_ptr<const Served>> Find(const std::string& model, const std::string& version) const;
  Status LoadAll();
  Result<Entry> LoadEntry(const Entry& from, const std::string& name, bool* exists) const;
  Status LoadNow(const std::string& model);
  Status UnloadNow(const std::string& model);
  ServedContext MakeContext() const;

  NodeConfig config_;
  std::shared_ptr<runtime::Engine> engine_;
  SteadyClock clock_;
  std::unique_ptr<telemetry::Log> log_;
  std::unique_ptr<telemetry::Registry> registry_;
  std::unique_ptr<telemetry::TraceExporter> traces_;
  topology::Topology topology_ = topology::Topology::Default();
  TimePoint started_{};

  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Executor> loader_;
  std::unique_ptr<Parents> parents_;
  std::unique_ptr<PredictionCache> cache_;
  std::unique_ptr<Guarded<admission::ConcurrencyLimit>> admission_;
  std::atomic<int> cheap_under_way_{0};
  std::atomic<int> above_under_way_{0};
  std::atomic<std::size_t> under_way_{0};
  std::atomic<bool> draining_{false};
  SharedRegions regions_;

  mutable std::mutex entries_mutex_;
  std::shared_ptr<const Entries> entries_;  // replaced as a whole

  mutable Guarded<std::map<std::string, telemetry::Counter*>> request_counters_;
  std::map<topology::Tier, telemetry::Counter*> cost_;
  // By front and by code of the answer.
  std::array<std::array<telemetry::Counter*, 17>, 3> fronts_{};

  std::unique_ptr<net::TlsFiles> tls_;
  std::unique_ptr<net::HttpServer> http_;
  std::unique_ptr<net::MailboxServer> mailbox_;
  std::unique_ptr<net::HttpServer> metrics_;
  std::unique_ptr<net::GrpcServer> grpc_;
};

}  // namespace ganglion::node
