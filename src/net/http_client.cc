#include "net/http_client.h"

#include <utility>  // before Asio: Boost 1.74 does not include it where it should

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kMaxAnswerBytes = std::size_t{256} << 20;

// Steps of one exchange; `failed` names where it ended.
template <class Stream>
struct Exchange {
  Stream& stream;
  http::request<http::string_body>& request;
  http::response_parser<http::string_body> parser;
  boost::beast::flat_buffer buffer;
  error_code error;
  bool done = false;

  void Run() {
    http::async_write(stream, request, [this](const error_code& ec, std::size_t) {
      if (ec) return End(ec);
      parser.body_limit(kMaxAnswerBytes);
      http::async_read(stream, buffer, parser, [this](const error_code& e, std::size_t) { End(e); });
    });
  }
  void End(const error_code& ec) {
    error = ec;
    done = true;
  }
};

HttpAnswer Take(http::response<http::string_body>&& response) {
  HttpAnswer a;
  a.status = response.result_int();
  for (const auto& field : response) {
    std::string name(field.name_string().data(), field.name_string().size());
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    a.headers.emplace_back(std::move(name), std::string(field.value().data(), field.value().size()));
  }
  a.body = std::move(response.body());
  return a;
}

}  // namespace

std::string_view HttpAnswer::Header(std::string_view name) const {
  for (const auto& [n, value] : headers) {
    if (n == name) return value;
  }
  return {};
}

Result<Url> ParseUrl(const std::string& text) {
  Url u;
  const auto colon = text.find("://");
  if (colon == std::string::npos || colon == 0)
    return InvalidArgument("\"" + text +
                           "\" has no scheme; write for example http://127.0.0.1:8000 or grpc://127.0.0.1:8001");
  u.scheme = text.substr(0, colon);
  std::string rest = text.substr(colon + 3);
  if (u.scheme == "mailbox") {
    u.path = rest;
    return u;
  }
  const auto slash = rest.find('/');
  u.path = slash == std::string::npos ? "/" : rest.substr(slash);
  rest = rest.substr(0, slash);
  const auto close = rest.find(']');  // [::1]:8000
  const auto port = rest.find(':', close == std::string::npos ? 0 : close);
  u.host = rest.substr(0, port);
  if (u.host.size() > 2 && u.host.front() == '[' && u.host.back() == ']') u.host = u.host.substr(1, u.host.size() - 2);
  if (port != std::string::npos) u.port = rest.substr(port + 1);
  if (u.port.empty()) u.port = u.scheme == "https" ? "443" : u.scheme == "http" ? "80" : "8001";
  if (u.host.empty() || u.port.find_first_not_of("0123456789") != std::string::npos)
    return InvalidArgument("\"" + text + "\" is no URL; write for example http://127.0.0.1:8000");
  return u;
}

Result<HttpAnswer> Ask(const HttpQuestion& q, Duration patience) {
  ASSIGN_OR_RETURN(const Url url, ParseUrl(q.url));
  if (url.scheme != "http" && url.scheme != "https") return InvalidArgument(q.url + " is not http or https");
  http::request<http::string_body> request(http::verb::get, url.path, 11);
  request.method_string(q.method);  // also those that Beast has no name for
  request.set(http::field::host, url.host + ":" + url.port);
  request.set(http::field::connection, "close");
  for (const auto& [name, value] : q.headers) request.set(name, value);
  request.body() = q.body;
  request.prepare_payload();

  const TimePoint end = std::chrono::steady_clock::now() + patience;
  asio::io_context io{1};
  asio::ip::tcp::socket socket(io);
  const auto late = [&q, patience] {
    return Status(Code::kDeadlineExceeded,
                  q.url + " did not answer within " + std::to_string(Milliseconds(patience)) + " ms");
  };
  const auto broke = [&q](const error_code& ec) { return Unavailable(q.url + ": " + ec.message()); };

  error_code ec;
  asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(url.host, url.port, ec);
  if (ec) return broke(ec);
  bool connected = false;
  asio::async_connect(socket, found, [&](const error_code& e, const auto&) {
    ec = e;
    connected = true;
  });
  io.run_until(end);
  if (!connected) return late();
  if (ec) return broke(ec);
  socket.set_option(asio::ip::tcp::no_delay(true), ec);

  if (url.scheme == "http") {
    Exchange<asio::ip::tcp::socket> exchange{socket, request, {}, {}, {}, false};
    io.restart();
    exchange.Run();
    io.run_until(end);
    if (!exchange.done) return late();
    if (exchange.error) return broke(exchange.error);
    return Take(exchange.parser.release());
  }
  asio::ssl::context tls(asio::ssl::context::tls_client);
  q.authority.empty() ? void(tls.set_default_verify_paths(ec)) : void(tls.load_verify_file(q.authority, ec));
  if (ec) return InvalidArgument(q.authority + ": " + ec.message());
  tls.set_verify_mode(asio::ssl::verify_peer, ec);
  asio::ssl::stream<asio::ip::tcp::socket&> stream(socket, tls);
  SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
  stream.set_verify_callback(asio::ssl::host_name_verification(url.host), ec);
  Exchange<asio::ssl::stream<asio::ip::tcp::socket&>> exchange{stream, request, {}, {}, {}, false};
  io.restart();
  stream.async_handshake(asio::ssl::stream_base::client, [&](const error_code& e) {
    if (e) return exchange.End(e);
    exchange.Run();
  });
  io.run_until(end);
  if (!exchange.done) return late();
  if (exchange.error && exchange.error != asio::ssl::error::stream_truncated) return broke(exchange.error);
  return Take(exchange.parser.release());
}

}  // namespace ganglion::net
