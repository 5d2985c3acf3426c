// GrpcServer and GrpcClient against each other: unary and on the stream, shutting down, starting again, TLS.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "base/scratch_test.h"
#include "net/certificates_test.h"
#include "net/grpc_client.h"
#include "net/grpc_server.h"
#include "net/service_test.h"

namespace ganglion::net {
namespace {

using Mode = RecordingService::Mode;
constexpr auto kPatience = std::chrono::seconds(20);

TimePoint In(Duration d) { return std::chrono::steady_clock::now() + d; }

// Borrows `values`.
wire::InferRequest RequestOf(const float (&values)[2]) {
  wire::InferRequest r;
  r.model = "m";
  wire::InferInput in;
  in.name = "x";
  in.type = tensor::DataType::kFp32;
  in.shape = {1, 2};
  in.bytes = std::as_bytes(std::span(values));
  r.inputs.push_back(std::move(in));
  return r;
}

class BothEnds : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    StartServer("127.0.0.1:0", nullptr);
  }
  void StartServer(const std::string& address, const TlsFiles* tls) {
    GrpcServerOptions options;
    options.address = address;
    options.tls = tls;
    auto server = GrpcServer::Start(options, &service_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    target_ = "127.0.0.1:" + std::to_string(server_->port());
  }
  std::unique_ptr<GrpcClient> Client(StreamMode mode) { return ClientOf({target_, false, {}, {}, "", "", mode}); }
  static std::unique_ptr<GrpcClient> ClientOf(GrpcClientOptions options) {
    auto client = GrpcClient::Create(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status().message();
    return client.ok() ? *std::move(client) : nullptr;
  }
  // Infer, and wait for what it says.
  static Result<wire::InferResponse> Run(GrpcClient* client, const wire::InferRequest& request,
                                         TimePoint deadline = In(kPatience), const std::string& trace = "") {
    auto promise = std::make_shared<std::promise<Result<wire::InferResponse>>>();
    auto answer = promise->get_future();
    client->Infer(request, deadline, trace, [promise](auto r) { promise->set_value(std::move(r)); });
    if (answer.wait_for(2 * kPatience) != std::future_status::ready) return Internal("the test waited in vain");
    return answer.get();
  }

  RecordingService service_;
  std::unique_ptr<GrpcServer> server_;  // before the service
  std::string target_;
};

TEST_F(BothEnds, ShutsDownAfterTheCallUnderWay) {
  service_.SetMode(Mode::kHold);
  const auto client = Client(StreamMode::kNever);
  const float values[2] = {1, 2};
  std::promise<Result<wire::InferResponse>> promise;
  client->Infer(RequestOf(values), In(kPatience), "", [&](auto r) { promise.set_value(std::move(r)); });
  ASSERT_TRUE(service_.WaitForHeld(1));
  std::thread shutting([&] { server_->Shutdown(kPatience); });
  const TimePoint end = In(kPatience);
  bool refused = false;  // new calls, while the old one is still under way
  while (!refused && std::chrono::steady_clock::now() < end) {
    GrpcClientOptions options{target_, false, {}, {}, "", "", StreamMode::kNever};
    refused = !ClientOf(options)->ServerReady(std::chrono::milliseconds(200)).ok();
  }
  EXPECT_TRUE(refused);
  service_.Release(1);
  auto answer = promise.get_future();
  ASSERT_EQ(answer.wait_for(kPatience), std::future_status::ready);
  EXPECT_TRUE(answer.get().ok());
  shutting.join();
}

TEST_F(BothEnds, ShutsDownWithoutWaitingForIdleStreams) {
  const auto client = Client(StreamMode::kAlways);
  const float values[2] = {1, 2};
  ASSERT_TRUE(Run(client.get(), RequestOf(values)).ok());
  const TimePoint begin = std::chrono::steady_clock::now();
  server_->Shutdown(10 * kPatience);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPatience);
  EXPECT_EQ(Run(client.get(), RequestOf(values)).status().code(), Code::kUnavailable);
}

TEST_F(BothEnds, CancelsCallsThatOutlastItsPatience) {
  service_.SetMode(Mode::kHold);
  const auto unary = Client(StreamMode::kNever);
  const auto streaming = Client(StreamMode::kAlways);
  const float values[2] = {1, 2};
  std::promise<Result<wire::InferResponse>> promises[2];
  unary->Infer(RequestOf(values), In(2 * kPatience), "", [&](auto r) { promises[0].set_value(std::move(r)); });
  streaming->Infer(RequestOf(values), In(2 * kPatience), "", [&](auto r) { promises[1].set_value(std::move(r)); });
  ASSERT_TRUE(service_.WaitForHeld(2));
  std::thread shutting([&] { server_->Shutdown(std::chrono::milliseconds(50)); });
  for (auto& p : promises) {
    auto answer = p.get_future();
    ASSERT_EQ(answer.wait_for(kPatience), std::future_status::ready);
    EXPECT_FALSE(answer.get().ok());
  }
  service_.ReleaseAll();  // answers that nobody waits for
  shutting.join();
}

class BothModes : public BothEnds, public ::testing::WithParamInterface<StreamMode> {};
INSTANTIATE_TEST_SUITE_P(Grpc, BothModes, ::testing::Values(StreamMode::kNever, StreamMode::kAlways),
                         [](const auto& i) { return i.param == StreamMode::kNever ? "Unary" : "Stream"; });

TEST_P(BothModes, EchoAnInference) {
  const auto client = Client(GetParam());
  const float values[2] = {3, 4};
  wire::InferRequest q = RequestOf(values);
  q.id = "not sent";
  q.version = "5";
  wire::Set(&q.parameters, "deadline_ms", 20.5);
  const auto r = Run(client.get(), q, In(kPatience), "00-trace-01");
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->version, "5");
  EXPECT_EQ(r->outputs[0].tensor.As<float>()[1], 4.0f);
  const SeenRequest seen = service_.last();
  EXPECT_EQ(**wire::FindNumber(seen.parameters, "deadline_ms"), 20.5);
  EXPECT_NE(seen.id, "not sent");
  const bool unary = GetParam() == StreamMode::kNever;
  EXPECT_EQ(seen.context.deadline.has_value(), unary);
  EXPECT_EQ(seen.context.traceparent, unary ? "00-trace-01" : "");
}

TEST_P(BothModes, CarryRefusalsWithCodeAndMessage) {
  const auto client = Client(GetParam());
  const float values[2] = {3, 4};
  for (const Status& status : {ResourceExhausted("64 in flight: full"), Status(Code::kDeadlineExceeded, "late"),
                               NotFound("no model"), InvalidArgument("NOT_FOUND: nested")}) {
    service_.FailWith(status);
    const auto r = Run(client.get(), RequestOf(values));
    EXPECT_EQ(r.status().code(), status.code());
    EXPECT_EQ(r.status().message(), status.message());
  }
  service_.SetMode(Mode::kDrop);
  EXPECT_EQ(Run(client.get(), RequestOf(values)).status().code(), Code::kInternal);
  service_.SetMode(Mode::kEchoLater);
  EXPECT_TRUE(Run(client.get(), RequestOf(values)).ok());
}

TEST_P(BothModes, AnswerManyThreadsAtOnceEachItsOwn) {
  service_.SetMode(Mode::kEchoLater);
  constexpr int kThreads = 8;
  constexpr int kEach = 40;
  const auto client = Client(GetParam());  // no stream yet: all of them race to open it
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const float values[2] = {static_cast<float>(t), static_cast<float>(i)};
        const auto r = Run(client.get(), RequestOf(values));
        EXPECT_TRUE(r.ok()) << r.status().message();
        if (r.ok() && r->outputs[0].tensor.As<float>()[0] == values[0] &&
            r->outputs[0].tensor.As<float>()[1] == values[1])
          ++right;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(right, kThreads * kEach);
}

TEST_P(BothModes, MatchAnswersThatComeInAnyOrder) {
  service_.SetMode(Mode::kHold);
  const auto client = Client(GetParam());
  constexpr int kAll = 50;
  std::promise<Result<wire::InferResponse>> promises[kAll];
  float values[kAll][2];
  for (int i = 0; i < kAll; ++i) {
    values[i][0] = values[i][1] = static_cast<float>(i);
    client->Infer(RequestOf(values[i]), In(kPatience), "", [&, i](auto r) { promises[i].set_value(std::move(r)); });
  }
  ASSERT_TRUE(service_.WaitForHeld(kAll));
  service_.Release(kAll / 2, true);
  service_.Release(kAll / 2);
  for (int i = 0; i < kAll; ++i) {
    auto answer = promises[i].get_future();
    ASSERT_EQ(answer.wait_for(kPatience), std::future_status::ready);
    const auto r = answer.get();
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(r->outputs[0].tensor.As<float>()[0], static_cast<float>(i));
  }
}

TEST_P(BothModes, FindEachOtherAgainAfterARestartOnTheSamePort) {
  const auto client = Client(GetParam());
  const float values[2] = {1, 2};
  ASSERT_TRUE(Run(client.get(), RequestOf(values)).ok());
  server_.reset();
  const auto gone = Run(client.get(), RequestOf(values));
  EXPECT_EQ(gone.status().code(), Code::kUnavailable) << gone.status().message();
  EXPECT_FALSE(client->Connected());
  StartServer(target_, nullptr);
  const TimePoint end = In(kPatience);
  auto r = Run(client.get(), RequestOf(values));
  while (!r.ok() && std::chrono::steady_clock::now() < end) r = Run(client.get(), RequestOf(values));
  EXPECT_TRUE(r.ok()) << r.status().message();
  EXPECT_TRUE(client->Connected());
}

TEST_P(BothModes, BoundWhatIsUnderWay) {
  service_.SetMode(Mode::kHold);
  GrpcClientOptions options{target_, false, {}, {}, "", "", GetParam()};
  options.max_under_way = 2;
  const auto client = ClientOf(options);
  const float values[2] = {1, 2};
  std::promise<void> done[2];
  for (auto& p : done) client->Infer(RequestOf(values), In(kPatience), "", [&](const auto&) { p.set_value(); });
  EXPECT_EQ(Run(client.get(), RequestOf(values)).status().code(), Code::kResourceExhausted);
  ASSERT_TRUE(service_.WaitForHeld(2));
  service_.ReleaseAll();
  for (auto& p : done) ASSERT_EQ(p.get_future().wait_for(kPatience), std::future_status::ready);
  EXPECT_TRUE(Run(client.get(), RequestOf(values)).ok());
}

TEST_F(BothEnds, ClientAsksForEverythingElse) {
  const auto client = Client(StreamMode::kAuto);
  EXPECT_EQ(client->ServerMetadata(kPatience)->name, "recorder");
  EXPECT_EQ(client->ModelMetadata("m", "", kPatience)->inputs[0].Text(), "FP32[-1,2]");
  EXPECT_EQ(client->ModelMetadata("absent", "", kPatience).status().code(), Code::kNotFound);
  EXPECT_TRUE(*client->ServerReady(kPatience));
  service_.SetReady(true, false);
  EXPECT_FALSE(*client->ServerReady(kPatience));
  EXPECT_TRUE(client->Load("m", kPatience).ok());
  EXPECT_EQ(client->Unload("absent", kPatience).code(), Code::kNotFound);
  const float values[2] = {1, 2};
  EXPECT_EQ(client->InferAndWait(RequestOf(values), kPatience)->outputs[0].tensor.As<float>()[1], 2.0f);
  service_.SetMode(Mode::kHold);
  EXPECT_EQ(client->InferAndWait(RequestOf(values), std::chrono::milliseconds(100)).status().code(),
            Code::kDeadlineExceeded);
  service_.ReleaseAll();
}

TEST_F(BothEnds, SendAndAskForAToken) {
  service_.RequireTokens();
  GrpcClientOptions options{target_, false, {}, {}, "", "operator", StreamMode::kNever};
  EXPECT_TRUE(ClientOf(options)->Unload("m", kPatience).ok());
  options.token = "";
  EXPECT_EQ(ClientOf(options)->ServerMetadata(kPatience).status().code(), Code::kUnauthenticated);
}

class BothEndsTls : public BothEnds {
 protected:
  void SetUp() override {
    BothEnds::SetUp();
    ASSERT_TRUE(MakeAuthority(dir_, "ca"));
    ASSERT_TRUE(MakeAuthority(dir_, "stranger"));
    ASSERT_TRUE(MakeCertificate(dir_, "ca", "node"));
    ASSERT_TRUE(MakeCertificate(dir_, "ca", "client"));
    ASSERT_TRUE(MakeCertificate(dir_, "stranger", "other"));
  }
  Result<wire::InferResponse> Try(const TlsFiles& files, StreamMode mode) {
    const auto client = ClientOf({target_, true, files, {}, "", "", mode});
    const float values[2] = {1, 2};
    return Run(client.get(), RequestOf(values));
  }
};

TEST_F(BothEndsTls, ServesThoseWhoTrustTheAuthority) {
  const TlsFiles files = FilesOf(dir_, "node", "");
  StartServer("127.0.0.1:0", &files);
  TlsFiles trusting;
  trusting.authority = (dir_ / "ca.pem").string();
  EXPECT_TRUE(Try(trusting, StreamMode::kNever).ok());
  EXPECT_TRUE(Try(trusting, StreamMode::kAlways).ok());
  EXPECT_FALSE(service_.last().context.peer_verified);
  trusting.authority = (dir_ / "stranger.pem").string();
  EXPECT_EQ(Try(trusting, StreamMode::kNever).status().code(), Code::kUnavailable);
  const auto plain = Client(StreamMode::kNever);
  const float values[2] = {1, 2};
  EXPECT_FALSE(Run(plain.get(), RequestOf(values)).ok());
  EXPECT_FALSE(GrpcClient::Create({target_, true, FilesOf(dir_, "absent", "ca"), {}, "", "", StreamMode::kAuto}).ok());
}

TEST_F(BothEndsTls, RefusesClientsWithoutACertificateWhenOneIsRequired) {
  TlsFiles files = FilesOf(dir_, "node", "ca");
  files.require_client = true;
  StartServer("127.0.0.1:0", &files);
  const auto known = Try(FilesOf(dir_, "client", "ca"), StreamMode::kAlways);
  EXPECT_TRUE(known.ok()) << known.status().message();
  EXPECT_TRUE(service_.last().context.peer_verified);
  TlsFiles nothing_shown;
  nothing_shown.authority = files.authority;
  EXPECT_EQ(Try(nothing_shown, StreamMode::kNever).status().code(), Code::kUnavailable);
  EXPECT_EQ(Try(FilesOf(dir_, "other", "ca"), StreamMode::kNever).status().code(), Code::kUnavailable);
  EXPECT_EQ(service_.seen().size(), 1u);
}

}  // namespace
}  // namespace ganglion::net
