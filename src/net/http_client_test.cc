#include "net/http_client.h"

#include <gtest/gtest.h>

#include <mutex>

#include "net/http_server.h"
#include "net/socket_test.h"

namespace ganglion::net {
namespace {

using std::chrono::milliseconds;

TEST(HttpClient, ReadsUrls) {
  struct {
    const char* text;
    Url url;
  } const cases[] = {
      {"http://127.0.0.1:8000/v2?x=1", {"http", "127.0.0.1", "8000", "/v2?x=1"}},
      {"http://edge.lyon", {"http", "edge.lyon", "80", "/"}},
      {"https://edge.lyon/a/b", {"https", "edge.lyon", "443", "/a/b"}},
      {"grpc://edge.lyon", {"grpc", "edge.lyon", "8001", "/"}},
      {"grpcs://[::1]:9001", {"grpcs", "::1", "9001", "/"}},
      {"http://[fe80::1]/x:y", {"http", "fe80::1", "80", "/x:y"}},
  };
  for (const auto& c : cases) {
    const auto url = ParseUrl(c.text);
    ASSERT_TRUE(url.ok()) << url.status().message();
    EXPECT_EQ(url->scheme, c.url.scheme) << c.text;
    EXPECT_EQ(url->host, c.url.host) << c.text;
    EXPECT_EQ(url->port, c.url.port) << c.text;
    EXPECT_EQ(url->path, c.url.path) << c.text;
  }
  for (const char* wrong : {"", "edge:8001", "://x", "http://", "http://:80", "http:///path", "http://x:80a"})
    EXPECT_EQ(ParseUrl(wrong).status().code(), Code::kInvalidArgument) << wrong;
}

TEST(HttpClient, AsksAndGivesStatusHeadersAndBody) {
  HttpServerOptions options;
  options.address = "127.0.0.1:0";
  std::string seen;
  const auto server = HttpServer::Start(options, [&](const HttpRequest& q, HttpReply reply) {
    seen = std::string(q.method) + " " + std::string(q.target) + " " + std::string(q.Header("X-A")) + " " +
           std::string(q.Header("host")) + " " + std::string(q.body);
    reply.Send({404, "nothing", "text/plain", {{"X-Reply", "yes"}}});
  });
  ASSERT_TRUE(server.ok());
  const std::string host = "127.0.0.1:" + std::to_string((*server)->port());
  HttpQuestion q{"PUT", "http://" + host + "/a/b?c", {{"X-A", "1"}}, "body", ""};
  auto answer = Ask(q, RawClient::kPatience);
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ(answer->status, 404);
  EXPECT_EQ(answer->body, "nothing");
  EXPECT_EQ(answer->Header("x-reply"), "yes");
  EXPECT_EQ(answer->Header("x-none"), "");
  EXPECT_EQ(seen, "PUT /a/b?c 1 " + host + " body");
  q.method = "BREW";
  ASSERT_TRUE(Ask(q, RawClient::kPatience).ok());
  EXPECT_EQ(seen.substr(0, 7), "BREW /a");
}

TEST(HttpClient, EndsByItsPatience) {
  HttpServerOptions options;
  options.address = "127.0.0.1:0";
  std::mutex mutex;
  std::vector<HttpReply> held;
  const auto server = HttpServer::Start(options, [&](const HttpRequest&, HttpReply reply) {
    std::lock_guard lock(mutex);
    held.push_back(std::move(reply));
  });
  ASSERT_TRUE(server.ok());
  HttpQuestion q;
  q.url = "http://127.0.0.1:" + std::to_string((*server)->port());
  EXPECT_EQ(Ask(q, milliseconds(200)).status().code(), Code::kDeadlineExceeded);
  q.url.insert(4, "s");  // a handshake that is answered with nothing that it understands
  EXPECT_FALSE(Ask(q, milliseconds(200)).ok());
  std::lock_guard lock(mutex);
  for (auto& reply : held) reply.Send({200, "", "text/plain", {}});
}

TEST(HttpClient, SaysThatNobodyIsThere) {
  int port = 0;
  {
    HttpServerOptions options;
    options.address = "127.0.0.1:0";
    const auto server = HttpServer::Start(options, [](const HttpRequest&, HttpReply) {});
    ASSERT_TRUE(server.ok());
    port = (*server)->port();
  }
  HttpQuestion q;
  q.url = "http://127.0.0.1:" + std::to_string(port);
  EXPECT_EQ(Ask(q, RawClient::kPatience).status().code(), Code::kUnavailable);
  q.url = "grpc://127.0.0.1:1";
  EXPECT_EQ(Ask(q, RawClient::kPatience).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace ganglion::net
