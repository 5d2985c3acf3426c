// An HttpServer answers HTTP/1.1 on TCP, TLS and Unix sockets: it reads whole requests within stated bounds, hands each
// to a handler, and writes the reply, in order, one request of a connection at a time.
//
// Intuition: a few threads, each with its own event loop and its own connections, so that nothing is locked on the way
// of a request. A handler that answers at once does so on that thread; a later reply may come from any thread.
// HTTP/1.0, pipelining, Expect: 100-continue, half-closed sockets and chunked bodies are understood. What is malformed
// gets its status and the connection is closed; slow senders and idle connections are closed after their time; the
// bodies under way are bounded together.
// Parsing is Boost.Beast's, sockets and TLS are Boost.Asio's; no other file includes either.
// Errors: Start refuses addresses that cannot be bound and certificates that cannot be read.
// A service.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "net/service.h"
#include "net/tls.h"

namespace ganglion::net {

// Valid until the reply has been sent.
struct HttpRequest {
  std::string_view method;
  std::string_view target;
  std::string_view body;  // at least kBodyPadding readable bytes follow
  Front front = Front::kHttp;
  bool peer_verified = false;
  TimePoint received{};

  // By name in any letter case; empty when absent. Of several, the first.
  std::string_view Header(std::string_view name) const { return header_(source_, name); }

  std::string_view (*header_)(const void* source, std::string_view name) = nullptr;
  const void* source_ = nullptr;
};
inline constexpr std::size_t kBodyPadding = 64;

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string_view content_type = "application/json";  // outlives the reply: a literal
  std::vector<std::pair<std::string, std::string>> headers;
};

// What can take the answer of a request. Send is called once, on any thread.
class HttpAnswerer {
 public:
  virtual ~HttpAnswerer() = default;
  virtual void Send(HttpResponse response) = 0;
};

// The right to answer one request. Destroyed unsent it answers 500.
class HttpReply {
 public:
  HttpReply() = default;
  explicit HttpReply(std::shared_ptr<HttpAnswerer> to) : to_(std::move(to)) {}
  HttpReply(HttpReply&&) noexcept = default;
  HttpReply& operator=(HttpReply&&) = delete;
  ~HttpReply();
  void Send(HttpResponse response);

 private:
  std::shared_ptr<HttpAnswerer> to_;
};

using HttpHandler = std::function<void(const HttpRequest&, HttpReply)>;

struct HttpServerOptions {
  std::string address;    // "127.0.0.1:8000", "[::1]:0"; empty: no TCP
  std::string unix_path;  // empty: no Unix socket. A stale socket file of that name is replaced.
  int threads = 1;
  std::size_t max_connections = 1024;
  std::size_t max_body_bytes = std::size_t{64} << 20;
  std::size_t max_bodies_bytes = std::size_t{256} << 20;  // of all connections together
  std::size_t max_header_bytes = 16 << 10;
  Duration idle = std::chrono::seconds(60);  // between requests
  Duration slow = std::chrono::seconds(10);  // for one request to arrive whole, or one reply to be taken
  const TlsFiles* tls = nullptr;             // for TCP
};

class HttpServer {
 public:
  static Result<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options, HttpHandler handler);
  // Closes everything. REQUIRES: every reply has been sent.
  ~HttpServer();

  int port() const;  // 0 without TCP
  std::size_t connections() const;
  // No new connections; idle ones are closed, the others after their current reply.
  void Drain();

  struct Impl;  // of http_server.cc

 private:
  HttpServer();
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::net
