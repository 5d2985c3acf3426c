// What no client should send: each is answered with its status and an error in JSON, or the connection ends, and the
// server answers the next.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "net/http_server.h"
#include "net/socket_test.h"
#include "wire/json.h"

namespace ganglion::net {
namespace {

using std::chrono::milliseconds;

HttpServerOptions Small() {
  HttpServerOptions o;
  o.address = "127.0.0.1:0";
  o.max_header_bytes = 2048;
  o.max_body_bytes = 1000;
  return o;
}
HttpServerOptions Impatient() {
  HttpServerOptions o = Small();
  o.slow = milliseconds(200);
  return o;
}

std::unique_ptr<HttpServer> MustStart(const HttpServerOptions& options, HttpHandler handler) {
  auto server = HttpServer::Start(options, std::move(handler));
  EXPECT_TRUE(server.ok()) << server.status().message();
  return server.ok() ? *std::move(server) : nullptr;
}

void EchoBody(const HttpRequest& request, HttpReply reply) {
  reply.Send({200, std::string(request.body), "text/plain", {}});
}

void ExpectError(const RawAnswer& answer, int status) {
  EXPECT_EQ(answer.status, status) << answer.head << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  wire::Json json;
  ASSERT_TRUE(wire::ParseJson(answer.body, &json).ok()) << answer.body;
  const auto error = wire::GetString(json, "error");
  ASSERT_TRUE(error.ok()) << answer.body;
  EXPECT_FALSE(error->empty());
}

void ExpectAnswersAGoodRequest(int port) {
  RawClient c = RawClient::Tcp(port);
  ASSERT_TRUE(c.Send("POST /good HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"));
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "ok");
}

struct Case {
  const char* name;
  std::string bytes;
  bool half_close;
  int status;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::string Bytes(std::string_view text) { return std::string(text); }
using namespace std::string_view_literals;

const Case kCases[] = {
    {"HalfAMethod", "GE", true, 400},
    {"HalfARequestLine", "GET /v2 HT", true, 400},
    {"HalfAHeader", "GET / HTTP/1.1\r\nHost: x\r\nAcce", true, 400},
    {"NoEndOfHeaders", "GET / HTTP/1.1\r\nHost: x\r\n", true, 400},
    {"LengthBeyondTheBody", "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", true, 400},
    {"LengthNegative", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", false, 400},
    {"LengthWithSign", "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", false, 400},
    {"LengthNoNumber", "POST / HTTP/1.1\r\nContent-Length: abc\r\n\r\n", false, 400},
    {"LengthHexadecimal", "POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\nabc", false, 400},
    {"LengthEmpty", "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", false, 400},
    {"LengthBeyondSixtyFourBits", "POST / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\na", false, 400},
    {"LengthsThatDiffer", "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", false, 400},
    {"LengthsInOneList", "POST / HTTP/1.1\r\nContent-Length: 3, 4\r\n\r\nabcd", false, 400},
    {"LengthAndChunked",
     "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false, 400},
    {"ChunkedAndLength",
     "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false, 400},
    {"ChunkSizeNoNumber", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", false, 400},
    {"ChunkSizeBeyondSixtyFourBits",
     "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\nabc\r\n", false, 400},
    {"ChunkLongerThanItSaid", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", false, 400},
    {"ChunksWithoutEnd", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true, 400},
    {"BodyAboveTheLimit", "POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", false, 413},
    {"BodyFarAboveTheLimit", "POST / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\nabc", false, 413},
    {"ChunksAboveTheLimit",
     "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'a') + "\r\n0\r\n\r\n", false,
     413},
    {"HugeHeader", "GET / HTTP/1.1\r\nX: " + std::string(3000, 'a') + "\r\n\r\n", false, 431},
    {"HugeHeaderWithoutEnd", "GET / HTTP/1.1\r\nX: " + std::string(3000, 'a'), false, 431},
    {"HugeTarget", "GET /" + std::string(3000, 'a') + " HTTP/1.1\r\n\r\n", false, 431},
    {"VersionTwo", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", false, 505},
    {"VersionOnePointTwo", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", false, 505},
    {"VersionThatIsNone", "GET / HTTP/x.y\r\nHost: x\r\n\r\n", false, 505},
    {"NoVersion", "GET /\r\n\r\n", false, 400},
    {"PrefaceOfHttp2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, 505},
    {"NoTarget", "GET  HTTP/1.1\r\n\r\n", false, 400},
    {"NoMethod", " / HTTP/1.1\r\n\r\n", false, 400},
    {"QuotesAndBackslashes", "GET \"\\\" \"\\\"HTTP/1.1\r\n\r\n", false, 505},
    {"ControlInTheTarget", "GET /a\tb HTTP/1.1\r\n\r\n", false, 400},
    {"NulInTheTarget", Bytes("GET /a\0b HTTP/1.1\r\n\r\n"sv), false, 400},
    {"NulInAHeader", Bytes("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n"sv), false, 400},
    {"NulBytes", std::string(64, '\0'), false, 400},
    {"GreetingOfTls", Bytes("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"sv), false, 400},
    {"Garbage", Bytes("\xff\xfe\xfd\x80\x81 \xc3\x28 \x07\x08\r\n\r\n"sv), false, 400},
    {"BareLineFeeds", "GET / HTTP/1.1\nHost: x\n\n", false, 505},  // the version does not end as it should
    {"BareLineFeedInAHeader", "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", false, 400},
    {"BareCarriageReturn", "GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", false, 400},
    {"HeaderWithoutColon", "GET / HTTP/1.1\r\nHost\r\n\r\n", false, 400},
    {"HeaderWithoutName", "GET / HTTP/1.1\r\n: x\r\n\r\n", false, 400},
    {"SpaceBeforeTheColon", "POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc", false, 400},
};

class Malformed : public ::testing::TestWithParam<Case> {};

TEST_P(Malformed, IsAnsweredWithItsErrorAndHarmsNothing) {
  const auto server = MustStart(Small(), EchoBody);
  RawClient c = RawClient::Tcp(server->port());
  c.Send(GetParam().bytes);  // the answer may come before all of it has been taken
  if (GetParam().half_close) c.HalfClose();
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value()) << "no answer";
  ExpectError(*answer, GetParam().status);
  EXPECT_TRUE(c.Ends()) << "something came after the error, or the connection stays";
  ExpectAnswersAGoodRequest(server->port());
}

INSTANTIATE_TEST_SUITE_P(HttpServer, Malformed, ::testing::ValuesIn(kCases),
                         [](const auto& i) { return std::string(i.param.name); });

// The parser, having begun with a part, looks again at what ends a header, at the limit, or when no more comes. The
// others could as well be slow senders, and are told so.
std::vector<Case> CasesThatEnd() {
  std::vector<Case> cases;
  for (const Case& c : kCases) {
    if (c.half_close || c.bytes.size() > 2048 || c.bytes.find("\r\n\r\n") != std::string::npos) cases.push_back(c);
  }
  return cases;
}

class MalformedInSingleBytes : public ::testing::TestWithParam<Case> {};

TEST_P(MalformedInSingleBytes, IsAnsweredAsTheWhole) {
  const auto server = MustStart(Small(), EchoBody);
  RawClient c = RawClient::Tcp(server->port());
  for (const char byte : GetParam().bytes) {
    if (!c.Send({&byte, 1})) break;
  }
  if (GetParam().half_close) c.HalfClose();
  const auto answer = c.Read();
  ASSERT_TRUE(answer.has_value()) << "no answer";
  ExpectError(*answer, GetParam().status);
}

INSTANTIATE_TEST_SUITE_P(HttpServer, MalformedInSingleBytes, ::testing::ValuesIn(CasesThatEnd()),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(HttpServerLimits, TellSlowSendersAndEndTheirConnection) {
  const auto server = MustStart(Impatient(), EchoBody);
  for (const char* begun : {"G", "GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
                            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"}) {
    SCOPED_TRACE(begun);
    RawClient c = RawClient::Tcp(server->port());
    ASSERT_TRUE(c.Send(begun));
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value());
    ExpectError(*answer, 408);
    c.Send("more of the same");
    EXPECT_TRUE(c.Ends());
  }
  ExpectAnswersAGoodRequest(server->port());
}

TEST(HttpServerLimits, TellASenderThatKeepsSendingALittle) {
  const auto server = MustStart(Impatient(), EchoBody);
  RawClient c = RawClient::Tcp(server->port());
  ASSERT_TRUE(c.Send("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"));
  std::optional<RawAnswer> answer;
  for (int i = 0; i < 900 && !answer; ++i) {
    c.Send("a");
    answer = c.Read(false, milliseconds(20));
  }
  ASSERT_TRUE(answer.has_value());
  ExpectError(*answer, 408);
}

TEST(HttpServerLimits, EndIdleConnectionsWithoutAWord) {
  HttpServerOptions options = Small();
  options.idle = milliseconds(100);
  const auto server = MustStart(options, EchoBody);
  RawClient silent = RawClient::Tcp(server->port());
  RawClient once = RawClient::Tcp(server->port());
  ASSERT_TRUE(once.Send("GET / HTTP/1.1\r\n\r\n"));
  ASSERT_TRUE(once.Read().has_value());
  EXPECT_TRUE(silent.Ends());
  EXPECT_TRUE(once.Ends());
}

TEST(HttpServerLimits, RefuseABodyBeyondTheBudgetOfAll) {
  HttpServerOptions options = Small();
  options.max_bodies_bytes = 500;
  const auto server = MustStart(options, EchoBody);
  for (int i = 0; i < 3; ++i) {  // what was refused is given back
    RawClient c = RawClient::Tcp(server->port());
    ASSERT_TRUE(c.Send("POST / HTTP/1.1\r\nContent-Length: 600\r\n\r\n" + std::string(600, 'a')));
    const auto answer = c.Read();
    ASSERT_TRUE(answer.has_value());
    ExpectError(*answer, 503);
    c.Close();
  }
  ExpectAnswersAGoodRequest(server->port());
}

TEST(HttpServerLimits, CountTheBodiesOfAllConnectionsTogetherAndGiveThemBack) {
  HttpServerOptions options = Small();
  options.max_bodies_bytes = 1000;
  std::vector<HttpReply> held;
  std::mutex mutex;
  std::condition_variable changed;
  const auto server = MustStart(options, [&](const HttpRequest& request, HttpReply reply) {
    if (request.target != "/hold") return EchoBody(request, std::move(reply));
    std::lock_guard lock(mutex);
    held.push_back(std::move(reply));
    changed.notify_all();
  });
  const std::string body(600, 'a');
  RawClient first = RawClient::Tcp(server->port());
  ASSERT_TRUE(first.Send("POST /hold HTTP/1.1\r\nContent-Length: 600\r\n\r\n" + body));
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, RawClient::kPatience, [&] { return held.size() == 1; }));
  }
  {
    RawClient second = RawClient::Tcp(server->port());
    ASSERT_TRUE(second.Send("POST / HTTP/1.1\r\nContent-Length: 600\r\n\r\n" + body));
    const auto refused = second.Read();
    ASSERT_TRUE(refused.has_value());
    ExpectError(*refused, 503);
  }
  held[0].Send({200, "", "text/plain", {}});
  ASSERT_TRUE(first.Read().has_value());
  // The refused connection lingers a little with what it had: ask until it is gone.
  int status = 0;
  for (int i = 0; i < 200 && status != 200; ++i) {
    RawClient third = RawClient::Tcp(server->port());
    ASSERT_TRUE(third.Send("POST / HTTP/1.1\r\nContent-Length: 600\r\n\r\n" + body));
    const auto answer = third.Read();
    ASSERT_TRUE(answer.has_value());
    status = answer->status;
  }
  EXPECT_EQ(status, 200);
}

TEST(HttpServerLimits, RefuseConnectionsBeyondTheLimit) {
  HttpServerOptions options = Small();
  options.max_connections = 2;
  const auto server = MustStart(options, EchoBody);
  std::vector<RawClient> open;
  for (int i = 0; i < 2; ++i) {
    open.push_back(RawClient::Tcp(server->port()));
    ASSERT_TRUE(open.back().Send("GET / HTTP/1.1\r\n\r\n"));
    ASSERT_TRUE(open.back().Read().has_value());
  }
  EXPECT_EQ(server->connections(), 2u);
  RawClient third = RawClient::Tcp(server->port());
  const auto answer = third.Read();
  ASSERT_TRUE(answer.has_value());
  ExpectError(*answer, 503);
  EXPECT_EQ(answer->headers.at("retry-after"), "1");
  EXPECT_TRUE(third.Ends()) << "the length of the body is not what Content-Length says";
  open.pop_back();
  const auto end = std::chrono::steady_clock::now() + RawClient::kPatience;
  while (server->connections() > 1 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  ExpectAnswersAGoodRequest(server->port());
}

}  // namespace
}  // namespace ganglion::net
