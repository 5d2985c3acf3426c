// A GrpcClient asks one server of the Open Inference Protocol v2: a parent node, or anybody's.
//
// Requests go over one long-lived ModelStreamInfer where the server offers it (an answer comes back in about half the
// time of a unary call, and nothing is set up for each), unary otherwise. On the stream replies match by id, so the
// client gives each request an id of its own; an error without an id fails all that are under way. A stream that breaks
// fails what is under way with UNAVAILABLE; the next request opens another. A server that does not implement the stream
// is found out with the first request, which is then sent again, unary.
// The deadline of a stream's request travels in its parameters, which is the caller's part; the client itself gives up
// at the deadline only in unary mode. Callers keep their own timer and say Forget.
// Continuations run on gRPC's threads: hand on, do not compute there.
// A service. Destroy it after all continuations have run or been forgotten; the destructor cancels and waits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "net/tls.h"
#include "wire/inference.h"

namespace ganglion::net {

enum class StreamMode { kAuto, kAlways, kNever };

struct GrpcClientOptions {
  std::string target;  // "edge.lyon:8001"
  bool tls = false;
  TlsFiles files;  // with tls: authority, and certificate and key where we show one
  std::vector<std::pair<std::string, std::string>> headers;
  std::string authority;  // the server's name where it is not that of the target ("Host")
  std::string token;      // sent as "authorization: Bearer ..."
  StreamMode stream = StreamMode::kAuto;
  std::size_t max_message_bytes = std::size_t{64} << 20;
  std::size_t max_under_way = 4096;
};

class GrpcClient {
 public:
  using Done = std::function<void(Result<wire::InferResponse>)>;

  static Result<std::unique_ptr<GrpcClient>> Create(GrpcClientOptions options);
  ~GrpcClient();

  struct Sent {
    std::uint64_t id = 0;  // for Forget
    std::size_t bytes = 0;
  };
  // `done` runs once, unless forgotten. The request's id is not sent; the response's is not set.
  Sent Infer(const wire::InferRequest& request, TimePoint deadline, const std::string& traceparent, Done done);
  // The caller has given up on it: `done` will not run any more, unless it is running now.
  void Forget(std::uint64_t id);

  // Whether the connection stands (asks for one when idle).
  bool Connected();

  // These block, at most `patience`.
  Result<wire::ServerMetadata> ServerMetadata(Duration patience);
  Result<wire::ModelMetadata> ModelMetadata(const std::string& model, const std::string& version, Duration patience);
  Result<bool> ServerReady(Duration patience);
  Result<wire::InferResponse> InferAndWait(const wire::InferRequest& request, Duration patience);
  Status Load(const std::string& model, Duration patience);
  Status Unload(const std::string& model, Duration patience);

 private:
  GrpcClient();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::net
