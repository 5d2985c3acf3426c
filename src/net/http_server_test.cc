#include "net/http_server.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <condition_variable>
#include <deque>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/scratch_test.h"
#include "net/socket_test.h"
#include "wire/json.h"

namespace ganglion::net {
namespace {

HttpServerOptions Loopback() {
  HttpServerOptions o;
  o.address = "127.0.0.1:0";
  return o;
}

std::unique_ptr<HttpServer> MustStart(const HttpServerOptions& options, HttpHandler handler) {
  auto server = HttpServer::Start(options, std::move(handler));
  EXPECT_TRUE(server.ok()) << server.status().message();
  return server.ok() ? *std::move(server) : nullptr;
}

// "GET /x body"
void Tell(const HttpRequest& q, HttpReply reply) {
  reply.Send({200, std::string(q.method) + " " + std::string(q.target) + " " + std::string(q.body), "text/plain", {}});
}

// Keeps replies until the test sends them.
class Holder {
 public:
  void operator()(const HttpRequest&, HttpReply reply) {
    std::lock_guard lock(mutex_);
    held_.push_back(std::move(reply));
    changed_.notify_all();
  }
  HttpReply Take() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, RawClient::kPatience, [&] { return !held_.empty(); }));
    HttpReply first = std::move(held_.front());
    held_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<HttpReply> held_;
};

TEST(HttpServer, PassesOnMethodTargetHeadersAndBody) {
  std::string seen;
  const auto server = MustStart(Loopback(), [&](const HttpRequest& q, HttpReply reply) {
    seen = std::string(q.Header("X-Thing")) + "|" + std::string(q.Header("x-tHING")) + "|" +
           std::string(q.Header("absent")) + "|" + (q.front == Front::kHttp ? "http" : "other");
    // So many bytes behind the body may be read, whatever they are.
    volatile char last = 0;
    for (std::size_t i = 0; i < kBodyPadding; ++i) last = q.body.data()[q.body.size() + i];
    (void)last;
    Tell(q, std::move(reply));
  });
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("PUT /a%20b?q=1 HTTP/1.1\r\nHost: x\r\nx-thing:   v w  \r\nContent-Length: 4\r\n\r\nbody"));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "PUT /a%20b?q=1 body");
  EXPECT_EQ(answer->headers.at("content-type"), "text/plain");
  EXPECT_EQ(answer->headers.at("connection"), "keep-alive");
  EXPECT_EQ(seen, "v w|v w||http");
}

TEST(HttpServer, SendsTheHandlersStatusAndHeaders) {
  const auto server = MustStart(Loopback(), [&](const HttpRequest&, HttpReply reply) {
    reply.Send({429, "{}", "application/json", {{"Retry-After", "3"}, {"X-B", "c"}}});
  });
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->head.substr(0, answer->head.find('\r')), "HTTP/1.1 429 Too Many Requests");
  EXPECT_EQ(answer->headers.at("retry-after"), "3");
  EXPECT_EQ(answer->headers.at("x-b"), "c");
}

TEST(HttpServer, AnswersAHalfClosedClientInFull) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("POST /half HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"));
  c.HalfClose();
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "POST /half hi");
  EXPECT_TRUE(c.Ends());
}

TEST(HttpServer, AnswersAHalfClosedClientLater) {
  Holder holder;
  const auto server = MustStart(Loopback(), std::ref(holder));
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
  c.HalfClose();
  holder.Take().Send({200, "late", "text/plain", {}});
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "late");
  EXPECT_TRUE(c.Ends());
}

TEST(HttpServer, ClosesAfterHttpOnePointZeroUnlessToldToKeep) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->headers.at("connection"), "keep-alive");
  ASSERT_TRUE(c.Send("GET /2 HTTP/1.0\r\n\r\n"));
  answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "GET /2 ");
  EXPECT_EQ(answer->headers.at("connection"), "close");
  EXPECT_TRUE(c.Ends());
}

TEST(HttpServer, ClosesWhenAskedTo) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n"));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->headers.at("connection"), "close");
  EXPECT_TRUE(c.Ends());
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  std::string all;
  for (int i = 0; i < 20; ++i)
    all += "POST /" + std::to_string(i) + " HTTP/1.1\r\nContent-Length: 3\r\n\r\n" + std::to_string(100 + i);
  ASSERT_TRUE(c.Send(all));
  for (int i = 0; i < 20; ++i) {
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value()) << i;
    EXPECT_EQ(answer->body, "POST /" + std::to_string(i) + " " + std::to_string(100 + i));
  }
}

TEST(HttpServer, AnswersPipelinedRequestsInOrderFromOtherThreads) {
  Holder holder;
  const auto server = MustStart(Loopback(), std::ref(holder));
  RawClient c = RawClient::Tcp(server->port());
  std::string all;
  for (int i = 0; i < 20; ++i) all += "GET / HTTP/1.1\r\n\r\n";
  ASSERT_TRUE(c.Send(all));
  for (int i = 0; i < 20; ++i) holder.Take().Send({200, std::to_string(i), "text/plain", {}});
  for (int i = 0; i < 20; ++i) {
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value()) << i;
    EXPECT_EQ(answer->body, std::to_string(i));
  }
}

TEST(HttpServer, ReadsChunkedBodies) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(
      c.Send("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\n"
             "Trailer: t\r\n\r\nGET /next HTTP/1.1\r\n\r\n"));
  auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "POST /c abc0123456789");
  answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "GET /next ");
}

TEST(HttpServer, ReadsRequestsThatArriveByteByByte) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  for (const char byte : std::string("POST /slow HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"))
    ASSERT_TRUE(c.Send({&byte, 1}));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "POST /slow hello");
}

TEST(HttpServer, CarriesLargeBodiesBothWays) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  std::string body(5 << 20, ' ');
  for (std::size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 2654435761u >> 24);
  ASSERT_TRUE(c.Send("POST / HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(answer->body == "POST / " + body);
}

TEST(HttpServer, TellsAClientThatWaitsToContinue) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  for (int i = 0; i < 2; ++i) {  // on a kept connection too
    ASSERT_TRUE(c.Send("POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
    const auto interim = c.Read();
    ASSERT_TRUE(interim.has_value());
    EXPECT_EQ(interim->status, 100);
    ASSERT_TRUE(c.Send("body"));
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value()) << "the body was never read";
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "POST /e body");
  }
}

TEST(HttpServer, KnowsExpectationsInAnyCaseAndRefusesOthers) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("POST /e HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n"));
  auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 100);
  ASSERT_TRUE(c.Send("bodyPOST /e HTTP/1.1\r\nExpect: miracles\r\nContent-Length: 4\r\n\r\n"));
  EXPECT_EQ(c.Read()->status, 200);
  answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 417);
  // HTTP/1.0 clients do not wait, whatever they say.
  RawClient old = RawClient::Tcp(server->port());
  ASSERT_TRUE(old.Send("POST /e HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"));
  answer = old.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 200);
}

TEST(HttpServer, DoesNotTellAClientToContinueThatWillBeRefused) {
  HttpServerOptions options = Loopback();
  options.max_body_bytes = 3;
  const auto server = MustStart(options, Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 413);
}

TEST(HttpServer, AnswersHeadWithoutABody) {
  const auto server = MustStart(Loopback(), Tell);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("HEAD /h HTTP/1.1\r\n\r\nGET /g HTTP/1.1\r\n\r\n"));
  auto answer = c.Read(true);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->headers.at("content-length"), "8");
  answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "GET /g ");
}

TEST(HttpServer, AnswersADroppedReplyWithAnError) {
  const auto server = MustStart(Loopback(), [](const HttpRequest&, HttpReply) {});
  RawClient c = RawClient::Tcp(server->port());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->status, 500);
    wire::Json json;
    ASSERT_TRUE(wire::ParseJson(answer->body, &json).ok());
    EXPECT_TRUE(wire::GetString(json, "error").ok());
  }
}

TEST(HttpServer, AnswersADroppedReplyOfAnotherThread) {
  Holder holder;
  const auto server = MustStart(Loopback(), std::ref(holder));
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
  { const HttpReply dropped = holder.Take(); }
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 500);
}

TEST(HttpServer, SurvivesAClientThatLeavesBeforeItsAnswer) {
  Holder holder;
  const auto server = MustStart(Loopback(), std::ref(holder));
  {
    RawClient c = RawClient::Tcp(server->port());
    ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
    HttpReply reply = holder.Take();
    c.Close();
    reply.Send({200, std::string(4 << 20, 'x'), "text/plain", {}});
  }
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
  holder.Take().Send({200, "still here", "text/plain", {}});
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "still here");
}

TEST(HttpServer, AnswersManyConnectionsOnSeveralThreads) {
  HttpServerOptions options = Loopback();
  options.threads = 3;
  const auto server = MustStart(options, Tell);
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&server, t] {
      RawClient c = RawClient::Tcp(server->port());
      for (int i = 0; i < 50; ++i) {
        const std::string target = "/" + std::to_string(t) + "/" + std::to_string(i);
        ASSERT_TRUE(c.Send("GET " + target + " HTTP/1.1\r\n\r\n"));
        const auto answer = c.Read();
        ASSERT_TRUE(answer.has_value());
        EXPECT_EQ(answer->body, "GET " + target + " ");
      }
    });
  }
  for (auto& t : threads) t.join();
}

TEST(HttpServer, DrainsIdleConnectionsAtOnceAndOthersAfterTheirAnswer) {
  Holder holder;
  const auto server = MustStart(Loopback(), std::ref(holder));
  RawClient idle = RawClient::Tcp(server->port());
  RawClient current = RawClient::Tcp(server->port());
  ASSERT_TRUE(current.Send("GET / HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\n\r\n"));
  HttpReply reply = holder.Take();
  server->Drain();
  EXPECT_TRUE(idle.Ends());
  reply.Send({200, "whole", "text/plain", {}});
  const auto answer = current.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "whole");
  EXPECT_EQ(answer->headers.at("connection"), "close");
  EXPECT_TRUE(current.Ends());
  // Nobody listens any more; what the kernel had accepted just before ends.
  RawClient late = RawClient::Tcp(server->port());
  EXPECT_TRUE(!late.connected() || late.Ends());
}

TEST(HttpServer, IsDestroyedWithOpenConnectionsInEveryState) {
  for (int threads = 1; threads <= 2; ++threads) {
    HttpServerOptions options = Loopback();
    options.threads = threads;
    auto server = MustStart(options, Tell);
    std::vector<RawClient> open;
    for (const char* bytes : {"", "GET / HT", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", "\r\n\r\nbad",
                              "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"}) {
      open.push_back(RawClient::Tcp(server->port()));
      ASSERT_TRUE(open.back().Send(bytes));
    }
    open.push_back(RawClient::Tcp(server->port()));
    ASSERT_TRUE(open.back().Send("GET / HTTP/1.1\r\n\r\n"));
    ASSERT_TRUE(open.back().Read().has_value());
    server.reset();
    for (auto& c : open) EXPECT_TRUE(c.ReadToEnd().has_value());
  }
}

TEST(HttpServer, RefusesAddressesThatItCannotHave) {
  const auto server = MustStart(Loopback(), Tell);
  HttpServerOptions same;
  same.address = "127.0.0.1:" + std::to_string(server->port());
  EXPECT_EQ(HttpServer::Start(same, Tell).status().code(), Code::kUnavailable);
  for (const char* wrong : {"127.0.0.1", "nowhere:80", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:80x",
                            "[::1:80", ":80"}) {
    HttpServerOptions options;
    options.address = wrong;
    EXPECT_EQ(HttpServer::Start(options, Tell).status().code(), Code::kInvalidArgument) << wrong;
  }
}

class HttpServerUnix : public ScratchDir {
 protected:
  HttpServerOptions AtPath() const {
    HttpServerOptions o;
    o.unix_path = (dir_ / "s.sock").string();
    return o;
  }
};

TEST_F(HttpServerUnix, AnswersOnAUnixSocketAndRemovesItAtTheEnd) {
  Front front = Front::kHttp;
  auto server = MustStart(AtPath(), [&](const HttpRequest& q, HttpReply reply) {
    front = q.front;
    Tell(q, std::move(reply));
  });
  EXPECT_EQ(server->port(), 0);
  RawClient c = RawClient::Unix(AtPath().unix_path);
  ASSERT_TRUE(c.Send("GET /u HTTP/1.1\r\n\r\n"));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->body, "GET /u ");
  EXPECT_EQ(front, Front::kUnix);
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(AtPath().unix_path));
}

TEST_F(HttpServerUnix, AnswersOnBothAtOnce) {
  HttpServerOptions options = AtPath();
  options.address = "127.0.0.1:0";
  const auto server = MustStart(options, Tell);
  RawClient both[] = {RawClient::Unix(options.unix_path), RawClient::Tcp(server->port())};
  for (RawClient& c : both) {
    ASSERT_TRUE(c.Send("GET /b HTTP/1.1\r\n\r\n"));
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->body, "GET /b ");
  }
}

TEST_F(HttpServerUnix, ReplacesAStaleSocketFile) {
  const std::string path = AtPath().unix_path;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  path.copy(at.sun_path, sizeof at.sun_path - 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  ::close(fd);  // as a process that was killed leaves it
  const auto server = MustStart(AtPath(), Tell);
  RawClient c = RawClient::Unix(path);
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_TRUE(c.Read().has_value());
}

TEST_F(HttpServerUnix, LeavesTheSocketOfALivingServerAlone) {
  const auto server = MustStart(AtPath(), Tell);
  EXPECT_EQ(HttpServer::Start(AtPath(), Tell).status().code(), Code::kUnavailable);
  RawClient c = RawClient::Unix(AtPath().unix_path);
  ASSERT_TRUE(c.Send("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_TRUE(c.Read().has_value());
}

TEST_F(HttpServerUnix, LeavesAFileThatIsNoSocketAlone) {
  std::ofstream(AtPath().unix_path) << "precious";
  EXPECT_EQ(HttpServer::Start(AtPath(), Tell).status().code(), Code::kUnavailable);
  EXPECT_TRUE(std::filesystem::exists(AtPath().unix_path));
}

TEST_F(HttpServerUnix, RefusesPathsThatAreTooLongAndCertificatesThatAreNotThere) {
  HttpServerOptions options = AtPath();
  options.unix_path = "/tmp/" + std::string(200, 'a');
  EXPECT_EQ(HttpServer::Start(options, Tell).status().code(), Code::kInvalidArgument);
  const TlsFiles none{"/nowhere.pem", "/nowhere.key", "", false};
  options = AtPath();
  options.address = "127.0.0.1:0";
  options.tls = &none;
  const auto refused = HttpServer::Start(options, Tell);
  EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("/nowhere.pem"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::net
