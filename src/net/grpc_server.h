// A GrpcServer is the gRPC front of the Open Inference Protocol v2 (package inference, service GRPCInferenceService).
//
// Calls arrive on gRPC's own threads, which parse, and may compute what is short (waking another thread costs more);
// everything else is handed to threads of the node, and a call may be finished from any of them. Trace context and
// bearer token are read from the metadata, the deadline from grpc-timeout; on ModelStreamInfer, where those cover the
// stream and not the request, from each request's parameters (deadline_ms, traceparent), which the service reads for
// both kinds.
// On a stream, replies come as they are ready and match by `id`; at most kMaxPerStream requests of one stream are under
// way, then reading stops until one is done.
// Errors: Start refuses addresses that cannot be bound and certificates that cannot be read.
// A service. The other end must outlive it: destroy the server before the service.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "net/service.h"
#include "net/tls.h"

namespace ganglion::net {

struct GrpcServerOptions {
  std::string address;  // "127.0.0.1:8001", port 0: any
  std::size_t max_message_bytes = std::size_t{64} << 20;
  std::size_t max_memory_bytes = std::size_t{512} << 20;  // gRPC's buffers together
  const TlsFiles* tls = nullptr;
};

class GrpcServer {
 public:
  static constexpr int kMaxPerStream = 256;

  static Result<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options, Service* service);
  ~GrpcServer();
  int port() const;
  // No new calls; those under way may finish until `deadline`, then they are cancelled. Blocks until all are gone.
  void Shutdown(Duration patience);

 private:
  GrpcServer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::net
