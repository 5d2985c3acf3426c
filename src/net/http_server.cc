#include "net/http_server.h"

#include <utility>  // before Asio: Boost 1.74 does not include it where it should

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <charconv>
#include <optional>
#include <thread>
#include <unordered_set>

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;
using TlsStream = asio::ssl::stream<Socket>;

// Bytes that all bodies under way may hold together.
struct BodyBudget {
  std::atomic<std::size_t> used{0};
  std::size_t limit = 0;
  bool Take(std::size_t n) {
    if (used.fetch_add(n, std::memory_order_relaxed) + n <= limit) return true;
    used.fetch_sub(n, std::memory_order_relaxed);
    return false;
  }
  void Give(std::size_t n) { used.fetch_sub(n, std::memory_order_relaxed); }
};

// A body with room behind it for a JSON parser that reads in blocks. It grows with what arrives, not with what a header
// claims.
struct PaddedBody {
  struct value_type {
    std::string bytes;
    BodyBudget* budget = nullptr;
    std::size_t taken = 0;
    value_type() = default;
    value_type(const value_type&) = delete;
    value_type& operator=(const value_type&) = delete;
    ~value_type() {
      if (budget != nullptr) budget->Give(taken);
    }
  };
  class reader {
   public:
    template <bool kIsRequest, class Fields>
    reader(http::header<kIsRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>& length, error_code& ec) {
      const std::size_t expected = static_cast<std::size_t>(length.value_or(0));
      body_.bytes.reserve(std::min<std::size_t>(expected, 64 << 10) + kBodyPadding);
      ec = {};
    }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, error_code& ec) {
      std::size_t n = 0;
      for (auto it = asio::buffer_sequence_begin(buffers); it != asio::buffer_sequence_end(buffers); ++it) {
        const asio::const_buffer b = *it;
        if (!body_.budget->Take(b.size())) {
          ec = http::error::buffer_overflow;
          return n;
        }
        body_.taken += b.size();
        if (body_.bytes.capacity() < body_.bytes.size() + b.size() + kBodyPadding) {
          body_.bytes.reserve(std::max(2 * body_.bytes.capacity(), body_.bytes.size() + b.size() + kBodyPadding));
        }
        body_.bytes.append(static_cast<const char*>(b.data()), b.size());
        n += b.size();
      }
      ec = {};
      return n;
    }
    void finish(error_code& ec) { ec = {}; }

   private:
    value_type& body_;
  };
};
using Parser = http::request_parser<PaddedBody>;

std::string_view View(beast::string_view s) { return {s.data(), s.size()}; }

std::string_view FindHeader(const void* source, std::string_view name) {
  const auto& fields = *static_cast<const http::fields*>(source);
  const auto it = fields.find(beast::string_view(name.data(), name.size()));
  return it == fields.end() ? std::string_view() : View(it->value());
}

const char* Phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return status < 500 ? "Error" : "Internal Server Error";
  }
}

struct Refusal {
  int status;
  std::string message;
};

Refusal RefusalFor(const error_code& ec, const HttpServerOptions& o) {
  if (ec == http::error::header_limit)
    return {431, "header fields are longer than the limit of " + std::to_string(o.max_header_bytes) + " bytes"};
  if (ec == http::error::body_limit)
    return {413,
            "body is longer than the limit of " + std::to_string(o.max_body_bytes) + " bytes; raise limits.request"};
  if (ec == http::error::buffer_overflow)
    return {503, "bodies under way exceed the limit of " + std::to_string(o.max_bodies_bytes) + " bytes; retry"};
  if (ec == http::error::bad_version) return {505, "HTTP version is not 1.0 or 1.1"};
  return {400, "request is no HTTP/1.1: " + ec.message()};
}

}  // namespace

class HttpConnection;

// What all kinds of connections share with the server.
struct Loop;
struct HttpServer::Impl {
  HttpServerOptions options;
  HttpHandler handler;
  std::vector<std::unique_ptr<Loop>> loops;
  std::optional<asio::ssl::context> tls;
  BodyBudget bodies;
  std::atomic<std::size_t> connections{0};
  std::atomic<bool> draining{false};
  std::size_t next_loop = 0;
  int port = 0;

  template <class Acceptor>
  void Accept(Acceptor& acceptor, Front front);
};

struct Loop {
  explicit Loop(HttpServer::Impl& s) : server(s), sweep(io) {}
  HttpServer::Impl& server;
  asio::io_context io{1};
  asio::steady_timer sweep;
  std::optional<asio::ip::tcp::acceptor> tcp;
  std::optional<asio::local::stream_protocol::acceptor> local;
  std::optional<asio::steady_timer> accept_again;
  std::unordered_set<HttpConnection*> connections;
  std::thread thread;

  void Run();
  void Sweep();
};

// The loop whose thread this is.
static thread_local const Loop* running_loop = nullptr;

class HttpConnection : public HttpAnswerer, public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpServer::Impl& server, Loop& loop, Front front) : server_(server), loop_(loop), front_(front) {
    server_.connections.fetch_add(1, std::memory_order_relaxed);
  }
  ~HttpConnection() override { server_.connections.fetch_sub(1, std::memory_order_relaxed); }

  // On the loop's thread.
  virtual void Start() = 0;
  virtual void Close() = 0;

  bool Overdue(TimePoint now) const {
    switch (state_) {
      case State::kIdle:
        return now - since_ > server_.options.idle;
      case State::kReading:
      case State::kWriting:
        return now - since_ > server_.options.slow;
      case State::kHandling:
        return false;
    }
    return false;
  }
  bool idle() const { return state_ == State::kIdle; }
  bool reading() const { return state_ == State::kReading; }

  // Any thread.
  void Send(HttpResponse response) override {
    if (running_loop == &loop_) return Reply(response);
    asio::post(loop_.io, [self = shared_from_this(), r = std::move(response)] { self->Reply(r); });
  }

  void RefuseSlowSender() {
    close_after_ = true;
    Reply({408, R"({"error":"request did not arrive whole in time"})", "application/json", {}});
  }

 protected:
  enum class State { kIdle, kReading, kHandling, kWriting };

  virtual void ReadSome() = 0;
  virtual void WriteOut() = 0;  // out_ from written_ on
  virtual bool peer_verified() const { return false; }

  void Join() { loop_.connections.insert(this); }
  void Leave() { loop_.connections.erase(this); }

  void Enter(State state) {
    state_ = state;
    since_ = std::chrono::steady_clock::now();
  }

  void Begin() {
    parser_.emplace();
    parser_->eager(true);
    parser_->header_limit(static_cast<std::uint32_t>(server_.options.max_header_bytes));
    parser_->body_limit(server_.options.max_body_bytes);
    parser_->get().body().budget = &server_.bodies;
    continued_ = false;
    Enter(buffer_.size() > 0 ? State::kReading : State::kIdle);
  }

  void OnRead(const error_code& ec, std::size_t n) {
    if (ec) {
      if (ec == asio::error::eof && state_ == State::kReading && parser_->got_some()) {
        close_after_ = true;
        return Reply({400, R"({"error":"connection was closed in the middle of a request"})", "application/json", {}});
      }
      return Close();
    }
    buffer_.commit(n);
    if (state_ == State::kIdle) Enter(State::kReading);
    Pump();
  }

  // Parses what is there and answers what is complete; a loop, so that pipelined requests do not nest.
  void Pump() {
    if (pumping_) return;
    pumping_ = true;
    while (state_ == State::kReading || state_ == State::kIdle) {
      error_code ec;
      if (buffer_.size() > 0) {
        const std::size_t used = parser_->put(buffer_.data(), ec);
        buffer_.consume(used);
      }
      if (ec && ec != http::error::need_more) {
        const Refusal refusal = RefusalFor(ec, server_.options);
        close_after_ = true;
        Reply({refusal.status, R"({"error":")" + refusal.message + "\"}", "application/json", {}});
        break;
      }
      if (parser_->is_done()) {
        Dispatch();
        continue;
      }
      if (const auto expects = Expects(); !continued_ && !expects.empty()) {
        continued_ = true;
        if (!beast::iequals({expects.data(), expects.size()}, "100-continue")) {
          close_after_ = true;
          Reply({417, R"({"error":"the only expectation known here is 100-continue"})", "application/json", {}});
          break;
        }
        out_ = "HTTP/1.1 100 Continue\r\n\r\n";
        written_ = 0;
        interim_ = true;
        WriteOut();
        if (interim_) break;  // goes on once it is written, or the connection broke
        continue;
      }
      ReadSome();
      break;
    }
    pumping_ = false;
  }

  void Dispatch() {
    Enter(State::kHandling);
    const auto& message = parser_->get();
    keep_alive_ = message.keep_alive();
    HttpRequest request;
    request.method = View(message.method_string());
    request.target = View(message.target());
    request.body = message.body().bytes;
    request.front = front_;
    request.peer_verified = peer_verified();
    request.received = since_;
    request.header_ = &FindHeader;
    request.source_ = static_cast<const http::fields*>(&message);
    head_only_ = message.method() == http::verb::head;
    server_.handler(request, HttpReply(shared_from_this()));
  }

  // What a client waits for before it sends its body, empty for nothing; HTTP/1.0 knows no such wait (RFC
  // 9110, 10.1.1).
  std::string_view Expects() const {
    if (!parser_->is_header_done() || parser_->get().version() < 11) return {};
    return FindHeader(static_cast<const http::fields*>(&parser_->get()), "Expect");
  }

  void Reply(const HttpResponse& response) {
    if (closed_) return;
    const bool close = close_after_ || !keep_alive_ || server_.draining.load(std::memory_order_relaxed);
    close_after_ = close;
    out_.clear();
    out_.reserve(256 + response.body.size());
    char number[24];
    const auto digits = [&number](std::size_t v) {
      return std::string_view(number,
                              static_cast<std::size_t>(std::to_chars(number, number + sizeof number, v).ptr - number));
    };
    out_.append("HTTP/1.1 ").append(digits(static_cast<std::size_t>(response.status))).append(" ");
    out_.append(Phrase(response.status)).append("\r\nContent-Type: ").append(response.content_type);
    out_.append("\r\nContent-Length: ").append(digits(response.body.size()));
    for (const auto& [name, value] : response.headers) out_.append("\r\n").append(name).append(": ").append(value);
    // HTTP/1.0 clients that want to keep the connection need to be told.
    out_.append(close ? "\r\nConnection: close\r\n\r\n" : "\r\nConnection: keep-alive\r\n\r\n");
    if (!head_only_) out_.append(response.body);
    head_only_ = false;
    written_ = 0;
    interim_ = false;
    Enter(State::kWriting);
    WriteOut();
  }

  void OnWritten(const error_code& ec) {
    if (ec) return Close();
    if (interim_) {
      interim_ = false;
      return Pump();
    }
    if (close_after_) return Finish();
    Begin();
    Pump();
  }

  // After the last reply: no more from us, but what the peer still sends is read for a moment, so that it is not told
  // "connection reset" before it has read the reply.
  virtual void Finish() = 0;

  HttpServer::Impl& server_;
  Loop& loop_;
  const Front front_;
  State state_ = State::kIdle;
  TimePoint since_{};
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::string out_;
  std::size_t written_ = 0;
  bool keep_alive_ = true;
  bool close_after_ = false;
  bool head_only_ = false;
  bool continued_ = false;
  bool interim_ = false;
  bool pumping_ = false;
  bool closed_ = false;
};

HttpReply::~HttpReply() {
  if (to_ != nullptr)
    to_->Send({500, R"({"error":"the request was dropped without an answer"})", "application/json", {}});
}
void HttpReply::Send(HttpResponse response) { std::exchange(to_, nullptr)->Send(std::move(response)); }

namespace {

constexpr std::size_t kReadBlock = 64 << 10;

Socket& Lowest(Socket& s) { return s; }
Socket& Lowest(TlsStream& s) { return s.next_layer(); }

template <class Stream>
class Connection final : public HttpConnection {
 public:
  template <class... Args>
  Connection(HttpServer::Impl& server, Loop& loop, Front front, Args&&... args)
      : HttpConnection(server, loop, front), stream_(std::forward<Args>(args)...) {}

  void Start() override {
    Join();
    Begin();
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      Enter(State::kReading);
      stream_.async_handshake(asio::ssl::stream_base::server, [self = Self()](const error_code& ec) {
        if (ec) return self->Close();
        self->verified_ =
            SSL_get_verify_result(self->stream_.native_handle()) == X509_V_OK && self->HasPeerCertificate();
        self->Begin();
        self->ReadSome();
      });
    } else {
      error_code ec;
      stream_.non_blocking(true, ec);
      ReadSome();
    }
  }

  void Close() override {
    if (closed_) return;
    closed_ = true;
    Leave();
    error_code ec;
    Lowest(stream_).close(ec);
  }

 private:
  std::shared_ptr<Connection> Self() { return std::static_pointer_cast<Connection>(shared_from_this()); }
  bool peer_verified() const override { return verified_; }
  bool HasPeerCertificate() {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      X509* certificate = SSL_get_peer_certificate(stream_.native_handle());
      X509_free(certificate);
      return certificate != nullptr;
    }
    return false;
  }

  void ReadSome() override {
    stream_.async_read_some(buffer_.prepare(kReadBlock),
                            [self = Self()](const error_code& ec, std::size_t n) { self->OnRead(ec, n); });
  }

  void WriteOut() override {
    if constexpr (std::is_same_v<Stream, Socket>) {
      // Most replies fit the socket's buffer: one call, no round through the event loop.
      error_code ec;
      written_ += stream_.send(asio::buffer(out_) + written_, MSG_NOSIGNAL, ec);
      if (ec && ec != asio::error::would_block) return OnWritten(ec);
      if (written_ == out_.size()) return OnWritten({});
    }
    asio::async_write(stream_, asio::buffer(out_) + written_,
                      [self = Self()](const error_code& ec, std::size_t) { self->OnWritten(ec); });
  }

  void Finish() override {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      Enter(State::kWriting);
      stream_.async_shutdown([self = Self()](const error_code&) { self->Close(); });
    } else {
      error_code ec;
      stream_.shutdown(Socket::shutdown_send, ec);
      if (ec) return Close();
      Enter(State::kWriting);
      Linger();
    }
  }
  void Linger() {
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(kReadBlock), [self = Self()](const error_code& ec, std::size_t) {
      if (ec) return self->Close();
      self->Linger();
    });
  }

  Stream stream_;
  bool verified_ = false;
};

}  // namespace

// After something happened the loop looks again for a moment before it sleeps: a client that asks, reads and asks again
// is back within that time, and waking a sleeping thread would take longer than most answers do.
void Loop::Run() {
  const auto guard = asio::make_work_guard(io);
  constexpr Duration kWatch = std::chrono::microseconds(30);
  TimePoint last = std::chrono::steady_clock::now();
  while (!io.stopped()) {
    const bool watching = std::chrono::steady_clock::now() - last < kWatch;
    if (io.poll() > 0 || (!watching && io.run_one() > 0)) {
      last = std::chrono::steady_clock::now();
    } else {
      std::this_thread::yield();
    }
  }
}

void Loop::Sweep() {
  sweep.expires_after(std::chrono::milliseconds(250));
  sweep.async_wait([this](const error_code& ec) {
    if (ec) return;
    const TimePoint now = std::chrono::steady_clock::now();
    const bool draining = server.draining.load(std::memory_order_relaxed);
    const std::vector<HttpConnection*> all(connections.begin(), connections.end());
    for (HttpConnection* c : all) {
      if (connections.count(c) == 0) continue;
      const auto keep = c->shared_from_this();
      if (c->Overdue(now)) {
        c->reading() ? c->RefuseSlowSender() : c->Close();
      } else if (draining && c->idle()) {
        c->Close();
      }
    }
    Sweep();
  });
}

template <class Acceptor>
void HttpServer::Impl::Accept(Acceptor& acceptor, Front front) {
  Loop& loop = *loops[next_loop++ % loops.size()];
  acceptor.async_accept(
      loop.io, [this, &acceptor, &loop, front](const error_code& ec, typename Acceptor::protocol_type::socket s) {
        if (ec == asio::error::operation_aborted || !acceptor.is_open()) return;
        if (ec) {  // out of descriptors: try again a little later, not at once and for ever
          Loop& own = *loops[0];
          own.accept_again.emplace(own.io, std::chrono::milliseconds(50));
          own.accept_again->async_wait([this, &acceptor, front](const error_code& stopped) {
            if (!stopped) Accept(acceptor, front);
          });
          return;
        }
        error_code ignored;
        if constexpr (std::is_same_v<typename Acceptor::protocol_type, asio::ip::tcp>)
          s.set_option(asio::ip::tcp::no_delay(true), ignored);
        if (connections.load(std::memory_order_relaxed) >= options.max_connections) {
          static constexpr char kFull[] =
              "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: "
              "close\r\nContent-Length: 39\r\n\r\n{\"error\":\"too many connections; retry\"}";
          s.send(asio::buffer(kFull, sizeof kFull - 1), MSG_NOSIGNAL | MSG_DONTWAIT, ignored);
          s.close(ignored);
        } else {
          Socket plain(std::move(s));
          std::shared_ptr<HttpConnection> c;
          if (front == Front::kHttp && tls) {
            c = std::make_shared<Connection<TlsStream>>(*this, loop, front, std::move(plain), *tls);
          } else {
            c = std::make_shared<Connection<Socket>>(*this, loop, front, std::move(plain));
          }
          asio::post(loop.io, [c] { c->Start(); });
        }
        Accept(acceptor, front);
      });
}

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) {}

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options, HttpHandler handler) {
  std::unique_ptr<HttpServer> server(new HttpServer);
  Impl& s = *server->impl_;
  s.options = options;
  s.handler = std::move(handler);
  s.bodies.limit = options.max_bodies_bytes;
  error_code ec;
  if (options.tls != nullptr) {
    s.tls.emplace(asio::ssl::context::tls_server);
    asio::ssl::context& t = *s.tls;
    t.set_options(
        asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1, ec);
    t.use_certificate_chain_file(options.tls->certificate, ec);
    if (ec) return InvalidArgument("tls.cert " + options.tls->certificate + ": " + ec.message());
    t.use_private_key_file(options.tls->key, asio::ssl::context::pem, ec);
    if (ec) return InvalidArgument("tls.key " + options.tls->key + ": " + ec.message());
    if (!options.tls->authority.empty()) {
      t.load_verify_file(options.tls->authority, ec);
      if (ec) return InvalidArgument("tls.ca " + options.tls->authority + ": " + ec.message());
      t.set_verify_mode(options.tls->require_client ? asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert
                                                    : asio::ssl::verify_peer,
                        ec);
    }
  }
  for (int i = 0; i < std::max(1, options.threads); ++i) s.loops.push_back(std::make_unique<Loop>(s));
  Loop& first = *s.loops[0];
  if (!options.address.empty()) {
    const auto colon = options.address.rfind(':');
    std::string host = options.address.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    if (host == "localhost") host = "127.0.0.1";
    const auto address = asio::ip::make_address(host, ec);
    int port = -1;
    const char* const end = options.address.data() + options.address.size();
    if (colon != std::string::npos && std::from_chars(options.address.data() + colon + 1, end, port).ptr != end)
      port = -1;
    if (ec || port < 0 || port > 65535)
      return InvalidArgument("address \"" + options.address + "\" is no IP:PORT; write for example 127.0.0.1:8000");
    const asio::ip::tcp::endpoint endpoint(address, static_cast<unsigned short>(port));
    first.tcp.emplace(first.io);
    first.tcp->open(endpoint.protocol(), ec);
    if (!ec) first.tcp->set_option(asio::socket_base::reuse_address(true), ec);
    if (!ec) first.tcp->bind(endpoint, ec);
    if (!ec) first.tcp->listen(1024, ec);
    if (ec) return Unavailable("cannot listen on " + options.address + ": " + ec.message());
    s.port = first.tcp->local_endpoint(ec).port();
  }
  if (!options.unix_path.empty()) {
    struct stat info {};
    if (::stat(options.unix_path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) {
      Socket probe(first.io);
      const asio::local::stream_protocol::endpoint there(options.unix_path);
      probe.connect(asio::generic::stream_protocol::endpoint(there), ec);
      if (!ec) return Unavailable("cannot listen on " + options.unix_path + ": another process does");
      ::unlink(options.unix_path.c_str());
    }
    if (options.unix_path.size() > 100)
      return InvalidArgument("unix socket path of " + std::to_string(options.unix_path.size()) +
                             " characters, limit 100");
    first.local.emplace(first.io);
    first.local->open(asio::local::stream_protocol(), ec);
    if (!ec) first.local->bind(asio::local::stream_protocol::endpoint(options.unix_path), ec);
    if (!ec) first.local->listen(1024, ec);
    if (ec) {
      first.local.reset();  // what is there is not ours to remove
      return Unavailable("cannot listen on " + options.unix_path + ": " + ec.message());
    }
  }
  if (first.tcp) s.Accept(*first.tcp, Front::kHttp);
  if (first.local) s.Accept(*first.local, Front::kUnix);
  for (auto& loop : s.loops) {
    loop->Sweep();
    loop->thread = std::thread([l = loop.get()] {
      running_loop = l;
      l->Run();
    });
  }
  return server;
}

int HttpServer::port() const { return impl_->port; }
std::size_t HttpServer::connections() const { return impl_->connections.load(std::memory_order_relaxed); }

void HttpServer::Drain() {
  impl_->draining = true;
  Loop& first = *impl_->loops[0];
  asio::post(first.io, [&first] {
    error_code ec;
    if (first.tcp) first.tcp->close(ec);
    if (first.local) first.local->close(ec);
  });
}

HttpServer::~HttpServer() {
  for (auto& loop : impl_->loops) {
    if (!loop->thread.joinable()) continue;
    asio::post(loop->io, [l = loop.get()] {
      error_code ec;
      l->sweep.cancel(ec);
      if (l->tcp) l->tcp->close(ec);
      if (l->local) l->local->close(ec);
      const std::vector<HttpConnection*> all(l->connections.begin(), l->connections.end());
      for (HttpConnection* c : all) c->shared_from_this()->Close();
      l->io.stop();
    });
  }
  for (auto& loop : impl_->loops) {
    if (loop->thread.joinable()) loop->thread.join();
  }
  if (!impl_->loops.empty() && impl_->loops[0]->local) ::unlink(impl_->options.unix_path.c_str());
}

}  // namespace ganglion::net
