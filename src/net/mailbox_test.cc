#include "net/mailbox.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <thread>

#include "base/scratch_test.h"

namespace ganglion::net {
namespace {

constexpr Duration kLong = std::chrono::seconds(20);

class Mailbox : public ScratchDir {
 protected:
  std::string Path() const { return (dir_ / "mailbox").string(); }
  std::unique_ptr<MailboxServer> Start(HttpHandler handler, std::size_t capacity = 1 << 16) {
    auto server = MailboxServer::Start({Path(), capacity, std::chrono::microseconds(50)}, std::move(handler));
    EXPECT_TRUE(server.ok()) << server.status().message();
    return server.ok() ? std::move(*server) : nullptr;
  }
  // Says what it was asked.
  static void Echo(const HttpRequest& q, HttpReply reply) {
    HttpResponse r;
    r.body = std::string(q.method) + " " + std::string(q.target) + " " +
             std::string(q.Header("inference-HEADER-content-length")) + " " + std::string(q.body);
    r.headers.emplace_back("Inference-Header-Content-Length", "7");
    reply.Send(std::move(r));
  }
};

TEST_F(Mailbox, CarriesRequestsAndAnswersOneAfterTheOther) {
  const auto server = Start(Echo);
  const auto client = MailboxClient::Connect(Path());
  ASSERT_TRUE(client.ok()) << client.status().message();
  for (int i = 0; i < 2000; ++i) {
    const std::string body(static_cast<std::size_t>(i), 'x');
    const auto answer = (*client)->Ask("POST", "/v2/a", body, 3, kLong);
    ASSERT_TRUE(answer.ok()) << answer.status().message();
    ASSERT_EQ(answer->status, 200);
    ASSERT_EQ(answer->body, "POST /v2/a 3 " + body);
    ASSERT_EQ(answer->json_bytes, std::size_t{7});
  }
  const auto json = (*client)->Ask("GET", "/", "", std::nullopt, kLong);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->body, "GET /  ");
}

TEST_F(Mailbox, WaitsForAnAnswerThatAnotherThreadGives) {
  std::vector<std::thread> threads;  // the mailbox's own thread's, until the server has ended
  auto server = Start([&threads](const HttpRequest& q, HttpReply reply) {
    threads.emplace_back([body = std::string(q.body), r = std::make_shared<HttpReply>(std::move(reply))] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than either end watches
      r->Send({201, body, "application/json", {}});
    });
  });
  const auto client = MailboxClient::Connect(Path());
  ASSERT_TRUE(client.ok());
  for (int i = 0; i < 50; ++i) {
    const auto answer = (*client)->Ask("POST", "/", std::to_string(i), std::nullopt, kLong);
    ASSERT_TRUE(answer.ok()) << answer.status().message();
    EXPECT_EQ(answer->status, 201);
    EXPECT_EQ(answer->body, std::to_string(i));
  }
  server = nullptr;
  for (auto& t : threads) t.join();
}

TEST_F(Mailbox, ServesSeveralClientsApart) {
  const auto server = Start(Echo);
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([this, c] {
      const auto client = MailboxClient::Connect(Path());
      ASSERT_TRUE(client.ok());
      for (int i = 0; i < 300; ++i) {
        const std::string body = std::to_string(c) + ":" + std::to_string(i);
        const auto answer = (*client)->Ask("POST", "/", body, std::nullopt, kLong);
        ASSERT_TRUE(answer.ok());
        ASSERT_EQ(answer->body, "POST /  " + body);
      }
    });
  }
  for (auto& t : clients) t.join();
}

TEST_F(Mailbox, RefusesWhatDoesNotFit) {
  const auto server = Start(
      [](const HttpRequest&, HttpReply reply) {
        reply.Send({200, std::string(5000, 'y'), "application/json", {}});
      },
      4096);
  const auto client = MailboxClient::Connect(Path());
  ASSERT_TRUE(client.ok());
  EXPECT_EQ((*client)->Ask("POST", "/", std::string(4097, 'x'), std::nullopt, kLong).status().code(),
            Code::kInvalidArgument);
  const auto answer = (*client)->Ask("POST", "/", "x", std::nullopt, kLong);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->status, 413);
}

TEST_F(Mailbox, ADroppedRequestIsAnswered) {
  const auto server = Start([](const HttpRequest&, HttpReply) {});
  const auto client = MailboxClient::Connect(Path());
  ASSERT_TRUE(client.ok());
  const auto answer = (*client)->Ask("POST", "/", "x", std::nullopt, kLong);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->status, 500);
}

TEST_F(Mailbox, TellsAClientThatTheServerIsGone) {
  auto server = Start(Echo);
  const auto client = MailboxClient::Connect(Path());
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE((*client)->Ask("GET", "/", "", std::nullopt, kLong).ok());
  server = nullptr;
  EXPECT_EQ((*client)->Ask("GET", "/", "", std::nullopt, kLong).status().code(), Code::kUnavailable);
  EXPECT_FALSE(MailboxClient::Connect(Path()).ok());
}

TEST_F(Mailbox, OpensNoMoreThanItsLimitAndFreesWhatClientsLeave) {
  const auto server = Start(Echo);
  std::vector<std::unique_ptr<MailboxClient>> all;
  for (int i = 0; i < kMaxMailboxes; ++i) {
    auto client = MailboxClient::Connect(Path());
    ASSERT_TRUE(client.ok());
    all.push_back(std::move(*client));
  }
  EXPECT_EQ(MailboxClient::Connect(Path()).status().code(), Code::kUnavailable);
  all.clear();
  Result<std::unique_ptr<MailboxClient>> again = Unavailable("");
  const TimePoint until = std::chrono::steady_clock::now() + kLong;
  while (!again.ok() && std::chrono::steady_clock::now() < until) again = MailboxClient::Connect(Path());
  EXPECT_TRUE(again.ok());
}

TEST_F(Mailbox, TakesTheNameOfADeadServerButNotOfALivingOneNorOfAFile) {
  auto first = Start(Echo);
  EXPECT_FALSE(MailboxServer::Start({Path()}, Echo).ok());
  first = nullptr;
  {  // a socket that nobody listens on any more
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::strcpy(a.sun_path, Path().c_str());
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    ::close(fd);
  }
  EXPECT_TRUE(MailboxServer::Start({Path()}, Echo).ok());
  const std::string file = (dir_ / "file").string();
  std::ofstream(file) << "mine";
  EXPECT_FALSE(MailboxServer::Start({file}, Echo).ok());
  std::string text;
  std::ifstream(file) >> text;
  EXPECT_EQ(text, "mine");
}

}  // namespace
}  // namespace ganglion::net
