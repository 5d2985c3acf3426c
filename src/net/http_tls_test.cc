// TLS and mutual TLS of the HttpServer, with net::Ask and with a client on OpenSSL that can show a certificate.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "base/scratch_test.h"
#include "net/certificates_test.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/socket_test.h"

namespace ganglion::net {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);

// One GET over TLS, showing `certificate` where there is one. Empty: no answer.
std::string GetOverTls(int port, const TlsFiles& files, bool show_certificate) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_load_verify_locations(context, files.authority.c_str(), nullptr);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  if (show_certificate) {
    SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str());
    SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM);
  }
  RawClient c = RawClient::Tcp(port);
  timeval patience{20, 0};
  ::setsockopt(c.fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, c.fd());
  std::string all;
  if (SSL_connect(ssl) == 1) {
    const std::string request = "GET /tls HTTP/1.1\r\nConnection: close\r\n\r\n";
    char block[4096];
    int n = SSL_write(ssl, request.data(), static_cast<int>(request.size()));
    while (n > 0 && (n = SSL_read(ssl, block, sizeof block)) > 0) all.append(block, static_cast<std::size_t>(n));
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
  return all;
}

class HttpTls : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    ASSERT_TRUE(MakeAuthority(dir_, "ca"));
    ASSERT_TRUE(MakeAuthority(dir_, "stranger"));
    ASSERT_TRUE(MakeCertificate(dir_, "ca", "node"));
    ASSERT_TRUE(MakeCertificate(dir_, "ca", "client"));
    ASSERT_TRUE(MakeCertificate(dir_, "stranger", "other"));
  }
  std::unique_ptr<HttpServer> Start(const TlsFiles& files) {
    HttpServerOptions options;
    options.address = "127.0.0.1:0";
    options.slow = std::chrono::milliseconds(300);
    options.tls = &files;
    auto server = HttpServer::Start(options, [](const HttpRequest& q, HttpReply reply) {
      reply.Send({200,
                  std::string(q.method) + (q.peer_verified ? " verified " : " unknown ") + std::string(q.body),
                  "text/plain",
                  {}});
    });
    EXPECT_TRUE(server.ok()) << server.status().message();
    return *std::move(server);
  }
  HttpQuestion QuestionTo(const HttpServer& server, const std::string& authority) const {
    HttpQuestion q;
    q.method = "POST";
    q.url = "https://127.0.0.1:" + std::to_string(server.port()) + "/x";
    q.body = "hello";
    q.authority = (dir_ / (authority + ".pem")).string();
    return q;
  }
};

TEST_F(HttpTls, AnswersClientsThatTrustTheAuthority) {
  const TlsFiles files = FilesOf(dir_, "node", "");
  const auto server = Start(files);
  const auto answer = Ask(QuestionTo(*server, "ca"), kPatience);
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "POST unknown hello");
}

TEST_F(HttpTls, CarriesLargeBodies) {
  const TlsFiles files = FilesOf(dir_, "node", "");
  const auto server = Start(files);
  HttpQuestion q = QuestionTo(*server, "ca");
  q.body.assign(3 << 20, 'b');
  const auto answer = Ask(q, kPatience);
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_TRUE(answer->body == "POST unknown " + q.body);
}

TEST_F(HttpTls, IsNotBelievedByClientsOfAnotherAuthority) {
  const TlsFiles files = FilesOf(dir_, "node", "");
  const auto server = Start(files);
  EXPECT_EQ(Ask(QuestionTo(*server, "stranger"), kPatience).status().code(), Code::kUnavailable);
  EXPECT_TRUE(Ask(QuestionTo(*server, "ca"), kPatience).ok());
}

TEST_F(HttpTls, SaysWhetherThePeerShowedACertificate) {
  const TlsFiles files = FilesOf(dir_, "node", "ca");
  const auto server = Start(files);
  EXPECT_NE(GetOverTls(server->port(), FilesOf(dir_, "client", "ca"), true).find("GET verified"), std::string::npos);
  EXPECT_NE(GetOverTls(server->port(), FilesOf(dir_, "client", "ca"), false).find("GET unknown"), std::string::npos);
  EXPECT_EQ(GetOverTls(server->port(), FilesOf(dir_, "other", "ca"), true), "") << "a stranger's certificate passed";
}

TEST_F(HttpTls, RefusesClientsWithoutACertificateWhenOneIsRequired) {
  TlsFiles files = FilesOf(dir_, "node", "ca");
  files.require_client = true;
  const auto server = Start(files);
  EXPECT_EQ(GetOverTls(server->port(), FilesOf(dir_, "client", "ca"), false), "");
  EXPECT_EQ(GetOverTls(server->port(), FilesOf(dir_, "other", "ca"), true), "");
  EXPECT_NE(GetOverTls(server->port(), FilesOf(dir_, "client", "ca"), true).find("GET verified"), std::string::npos);
  EXPECT_FALSE(Ask(QuestionTo(*server, "ca"), kPatience).ok());
}

TEST_F(HttpTls, EndsConnectionsThatDoNotSpeakTls) {
  const TlsFiles files = FilesOf(dir_, "node", "");
  const auto server = Start(files);
  RawClient plain = RawClient::Tcp(server->port());
  plain.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(plain.ReadToEnd().has_value());
  RawClient silent = RawClient::Tcp(server->port());  // slow senders of the greeting too
  EXPECT_TRUE(silent.ReadToEnd().has_value());
  RawClient half = RawClient::Tcp(server->port());
  half.Send("\x16\x03\x01");
  half.HalfClose();
  EXPECT_TRUE(half.ReadToEnd().has_value());
  EXPECT_TRUE(Ask(QuestionTo(*server, "ca"), kPatience).ok());
}

TEST_F(HttpTls, IsDestroyedInTheMiddleOfHandshakes) {
  const TlsFiles files = FilesOf(dir_, "node", "");
  auto server = Start(files);
  RawClient silent = RawClient::Tcp(server->port());
  RawClient begun = RawClient::Tcp(server->port());
  begun.Send("\x16\x03\x01");
  EXPECT_TRUE(Ask(QuestionTo(*server, "ca"), kPatience).ok());
  server.reset();
  EXPECT_TRUE(silent.ReadToEnd().has_value());
  EXPECT_TRUE(begun.ReadToEnd().has_value());
}

TEST_F(HttpTls, NamesTheFileThatItCannotRead) {
  const auto refused = [&](const TlsFiles& files) {
    HttpServerOptions options;
    options.address = "127.0.0.1:0";
    options.tls = &files;
    return HttpServer::Start(options, [](const HttpRequest&, HttpReply) {}).status();
  };
  TlsFiles files = FilesOf(dir_, "node", "ca");
  files.key = (dir_ / "client.key").string();  // of another certificate
  EXPECT_EQ(refused(files).code(), Code::kInvalidArgument);
  files = FilesOf(dir_, "node", "absent");
  EXPECT_NE(refused(files).message().find("absent.pem"), std::string::npos);
  files = FilesOf(dir_, "absent", "ca");
  EXPECT_NE(refused(files).message().find("absent.pem"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::net
