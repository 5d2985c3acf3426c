// GrpcServer and GrpcClient against each other, and the server against bare stubs as any client has them. What the
// client does with servers of others is in grpc_client_test.cc.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>

#include "base/scratch_test.h"
#include "net/certificates_test.h"
#include "net/grpc_client.h"
#include "net/grpc_server.h"
#include "net/inference.grpc.pb.h"
#include "net/service_test.h"

namespace ganglion::net {
namespace {

using inference::GRPCInferenceService;
using Mode = RecordingService::Mode;
constexpr auto kPatience = std::chrono::seconds(20);

TimePoint In(Duration d) { return std::chrono::steady_clock::now() + d; }

std::string Bytes(std::initializer_list<float> values) {
  std::string bytes;
  for (const float v : values) bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
  return bytes;
}

inference::ModelInferRequest Message(const std::string& id, float value) {
  inference::ModelInferRequest m;
  m.set_model_name("m");
  m.set_id(id);
  auto* in = m.add_inputs();
  in->set_name("x");
  in->set_datatype("FP32");
  in->add_shape(1);
  in->add_shape(2);
  m.add_raw_input_contents(Bytes({value, -value}));
  return m;
}

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

class Grpc : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    StartServer("127.0.0.1:0", nullptr);
  }
  void StartServer(const std::string& address, const TlsFiles* tls) {
    GrpcServerOptions options;
    options.address = address;
    options.tls = tls;
    options.max_message_bytes = 1 << 20;
    auto server = GrpcServer::Start(options, &service_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    target_ = "127.0.0.1:" + std::to_string(server_->port());
    stub_ = GRPCInferenceService::NewStub(grpc::CreateChannel(target_, grpc::InsecureChannelCredentials()));
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
  std::unique_ptr<GRPCInferenceService::Stub> stub_;
  std::string target_;
};

TEST_F(Grpc, TellsLifeReadinessAndMetadata) {
  const auto ask = [](auto call, const auto& request, auto* response) {
    grpc::ClientContext context;
    return call(&context, request, response);
  };
  service_.SetReady(true, false);
  inference::ServerLiveResponse live;
  EXPECT_TRUE(ask([&](auto... a) { return stub_->ServerLive(a...); }, inference::ServerLiveRequest(), &live).ok());
  EXPECT_TRUE(live.live());
  inference::ServerReadyResponse ready;
  EXPECT_TRUE(ask([&](auto... a) { return stub_->ServerReady(a...); }, inference::ServerReadyRequest(), &ready).ok());
  EXPECT_FALSE(ready.ready());
  inference::ModelReadyRequest model;
  model.set_name("m");
  model.set_version("3");
  inference::ModelReadyResponse model_ready;
  EXPECT_TRUE(ask([&](auto... a) { return stub_->ModelReady(a...); }, model, &model_ready).ok());
  EXPECT_TRUE(model_ready.ready());
  model.set_name("absent");
  EXPECT_TRUE(ask([&](auto... a) { return stub_->ModelReady(a...); }, model, &model_ready).ok());
  EXPECT_FALSE(model_ready.ready());
  inference::ServerMetadataResponse server;
  EXPECT_TRUE(
      ask([&](auto... a) { return stub_->ServerMetadata(a...); }, inference::ServerMetadataRequest(), &server).ok());
  EXPECT_EQ(server.name(), "recorder");
  EXPECT_EQ(server.extensions_size(), 2);
  inference::ModelMetadataRequest q;
  q.set_name("m");
  inference::ModelMetadataResponse metadata;
  EXPECT_TRUE(ask([&](auto... a) { return stub_->ModelMetadata(a...); }, q, &metadata).ok());
  EXPECT_EQ(metadata.inputs(0).shape(1), 2);
  q.set_name("absent");
  const auto missing = ask([&](auto... a) { return stub_->ModelMetadata(a...); }, q, &metadata);
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(missing.error_message(), "no model \"absent\"");
}

TEST_F(Grpc, TellsConfigurationStatisticsAndRepository) {
  grpc::ClientContext a, b, c, d, e, f, g;
  inference::ModelConfigRequest config_request;
  config_request.set_name("m");
  inference::ModelConfigResponse config;
  ASSERT_TRUE(stub_->ModelConfig(&a, config_request, &config).ok());
  EXPECT_EQ(config.config().max_batch_size(), 8);
  EXPECT_EQ(config.config().input(1).data_type(), inference::TYPE_STRING);
  inference::ModelStatisticsResponse statistics;
  ASSERT_TRUE(stub_->ModelStatistics(&b, {}, &statistics).ok());
  EXPECT_EQ(statistics.model_stats(0).inference_stats().success().ns(), 1234u);
  inference::RepositoryIndexRequest index_request;
  inference::RepositoryIndexResponse index;
  ASSERT_TRUE(stub_->RepositoryIndex(&c, index_request, &index).ok());
  ASSERT_EQ(index.models_size(), 2);
  EXPECT_EQ(index.models(1).reason(), "no file \"model.onnx\"");
  index_request.set_ready(true);
  ASSERT_TRUE(stub_->RepositoryIndex(&d, index_request, &index).ok());
  EXPECT_EQ(index.models_size(), 1);
  inference::RepositoryModelLoadRequest load;
  load.set_model_name("m");
  inference::RepositoryModelLoadResponse loaded;
  EXPECT_TRUE(stub_->RepositoryModelLoad(&e, load, &loaded).ok());
  load.set_model_name("absent");
  EXPECT_EQ(stub_->RepositoryModelLoad(&f, load, &loaded).error_code(), grpc::StatusCode::NOT_FOUND);
  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("m");
  inference::RepositoryModelUnloadResponse unloaded;
  EXPECT_TRUE(stub_->RepositoryModelUnload(&g, unload, &unloaded).ok());
  EXPECT_EQ(service_.asked().back(), "unload m");
}

TEST_F(Grpc, RegistersSharedMemory) {
  inference::SystemSharedMemoryRegisterRequest q;
  q.set_name("r");
  q.set_key("/k");
  q.set_offset(8);
  q.set_byte_size(64);
  inference::SystemSharedMemoryRegisterResponse registered;
  grpc::ClientContext a, b, c, d, e;
  EXPECT_TRUE(stub_->SystemSharedMemoryRegister(&a, q, &registered).ok());
  EXPECT_EQ(stub_->SystemSharedMemoryRegister(&b, q, &registered).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  inference::SystemSharedMemoryStatusResponse status;
  EXPECT_TRUE(stub_->SystemSharedMemoryStatus(&c, {}, &status).ok());
  EXPECT_EQ(status.regions().at("r").key(), "/k");
  EXPECT_EQ(status.regions().at("r").offset(), 8u);
  EXPECT_EQ(status.regions().at("r").byte_size(), 64u);
  inference::SystemSharedMemoryUnregisterResponse unregistered;
  EXPECT_TRUE(stub_->SystemSharedMemoryUnregister(&d, {}, &unregistered).ok());
  EXPECT_TRUE(stub_->SystemSharedMemoryStatus(&e, {}, &status).ok());
  EXPECT_EQ(status.regions_size(), 0);
}

TEST_F(Grpc, EchoesAnInferenceWithItsIdInRawContents) {
  grpc::ClientContext context;
  inference::ModelInferResponse r;
  ASSERT_TRUE(stub_->ModelInfer(&context, Message("42", 1.5f), &r).ok());
  EXPECT_EQ(r.id(), "42");
  EXPECT_EQ(r.model_name(), "m");
  EXPECT_EQ(r.raw_output_contents(0), Bytes({1.5f, -1.5f}));
  EXPECT_FALSE(r.outputs(0).has_contents());
  EXPECT_EQ(service_.last().context.front, Front::kGrpc);
}

TEST_F(Grpc, RefusesContentsBesideRawContentsOnBothKindsOfCall) {
  auto q = Message("7", 1);
  q.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  grpc::ClientContext context;
  inference::ModelInferResponse r;
  const auto refused = stub_->ModelInfer(&context, q, &r);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(refused.error_message().find("contents must be empty"), std::string::npos);
  grpc::ClientContext streaming;
  auto stream = stub_->ModelStreamInfer(&streaming);
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Write(q) && stream->Read(&answer));
  EXPECT_EQ(answer.error_message().rfind("INVALID_ARGUMENT: ", 0), 0u) << answer.error_message();
  EXPECT_EQ(answer.infer_response().id(), "7");
  ASSERT_TRUE(stream->Write(Message("8", 2)) && stream->Read(&answer));  // the stream goes on
  EXPECT_EQ(answer.error_message(), "");
  EXPECT_EQ(answer.infer_response().id(), "8");
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(Grpc, RefusesMessagesBeyondTheLimit) {
  auto q = Message("1", 1);
  q.set_raw_input_contents(0, std::string(2 << 20, 'x'));
  grpc::ClientContext context;
  inference::ModelInferResponse r;
  EXPECT_EQ(stub_->ModelInfer(&context, q, &r).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(service_.seen().empty());
}

TEST_F(Grpc, PassesOnDeadlineTraceContextAndToken) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  context.AddMetadata("traceparent", "00-aa-bb-01");
  context.AddMetadata("authorization", "Bearer s3cret");
  inference::ModelInferResponse r;
  ASSERT_TRUE(stub_->ModelInfer(&context, Message("1", 1), &r).ok());
  const CallContext seen = service_.last().context;
  ASSERT_TRUE(seen.deadline.has_value());
  EXPECT_GT(*seen.deadline - seen.received, std::chrono::seconds(5));
  EXPECT_LE(*seen.deadline - seen.received, std::chrono::seconds(31));
  EXPECT_EQ(seen.traceparent, "00-aa-bb-01");
  EXPECT_EQ(seen.token, "s3cret");
  EXPECT_FALSE(seen.peer_verified);
  grpc::ClientContext none;
  ASSERT_TRUE(stub_->ModelInfer(&none, Message("1", 1), &r).ok());
  EXPECT_FALSE(service_.last().context.deadline.has_value());
  EXPECT_EQ(service_.last().context.token, "");
}

TEST_F(Grpc, KeepsTheStreamsDeadlineAndTraceApartFromTheRequests) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  context.AddMetadata("traceparent", "00-of-the-stream");
  context.AddMetadata("authorization", "Bearer s3cret");
  auto stream = stub_->ModelStreamInfer(&context);
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Write(Message("1", 1)) && stream->Read(&answer));
  EXPECT_FALSE(service_.last().context.deadline.has_value());
  EXPECT_EQ(service_.last().context.traceparent, "");
  EXPECT_EQ(service_.last().context.token, "s3cret");
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(Grpc, TellsRefusalsWithTheirCodeAndWhenToComeBack) {
  service_.FailWith(ResourceExhausted("64 in flight"), std::chrono::milliseconds(40));
  grpc::ClientContext context;
  inference::ModelInferResponse r;
  const auto refused = stub_->ModelInfer(&context, Message("1", 1), &r);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "64 in flight");
  const auto& trailer = context.GetServerTrailingMetadata();
  const auto hint = trailer.find("grpc-retry-pushback-ms");
  ASSERT_NE(hint, trailer.end());
  EXPECT_EQ(std::string(hint->second.data(), hint->second.size()), "40");
  service_.SetMode(Mode::kDrop);
  grpc::ClientContext dropped;
  EXPECT_EQ(stub_->ModelInfer(&dropped, Message("1", 1), &r).error_code(), grpc::StatusCode::INTERNAL);
}

TEST_F(Grpc, AsksForATokenWhereTheServiceDoes) {
  service_.RequireTokens();
  const auto load = [&](const char* authorization) {
    grpc::ClientContext context;
    if (*authorization != '\0') context.AddMetadata("authorization", authorization);
    inference::RepositoryModelLoadRequest q;
    q.set_model_name("m");
    inference::RepositoryModelLoadResponse r;
    return stub_->RepositoryModelLoad(&context, q, &r).error_code();
  };
  EXPECT_EQ(load(""), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(load("Bearer user"), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(load("Bearer operator"), grpc::StatusCode::OK);
  GrpcClientOptions options{target_, false, {}, {}, "", "operator", StreamMode::kNever};
  EXPECT_TRUE(ClientOf(options)->Unload("m", kPatience).ok());
  options.token = "";
  EXPECT_EQ(ClientOf(options)->ServerMetadata(kPatience).status().code(), Code::kUnauthenticated);
}

TEST_F(Grpc, AnswersAStreamAsAnswersComeAndFinishesAfterTheLast) {
  service_.SetMode(Mode::kHold);
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(stream->Write(Message(std::to_string(i), static_cast<float>(i))));
  stream->WritesDone();
  ASSERT_TRUE(service_.WaitForHeld(10));
  service_.Release(10, true);
  for (int i = 9; i >= 0; --i) {  // the newest was answered first
    inference::ModelStreamInferResponse answer;
    ASSERT_TRUE(stream->Read(&answer));
    EXPECT_EQ(answer.infer_response().id(), std::to_string(i));
    EXPECT_EQ(answer.infer_response().raw_output_contents(0), Bytes({static_cast<float>(i), -static_cast<float>(i)}));
  }
  inference::ModelStreamInferResponse none;
  EXPECT_FALSE(stream->Read(&none));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(Grpc, StopsReadingAStreamWhenTooManyAreUnderWay) {
  service_.SetMode(Mode::kHold);
  constexpr std::size_t kAll = GrpcServer::kMaxPerStream + 100;
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  for (std::size_t i = 0; i < kAll; ++i) ASSERT_TRUE(stream->Write(Message(std::to_string(i), 1)));
  stream->WritesDone();
  ASSERT_TRUE(service_.WaitForHeld(GrpcServer::kMaxPerStream));
  grpc::ClientContext other;  // other calls are not held up
  inference::ServerLiveResponse live;
  EXPECT_TRUE(stub_->ServerLive(&other, {}, &live).ok());
  std::thread releasing([&] {
    for (std::size_t i = 0; i < kAll; ++i) {
      ASSERT_TRUE(service_.WaitForHeld(1));
      service_.Release(1);
    }
  });
  std::vector<int> answered(kAll, 0);
  inference::ModelStreamInferResponse answer;
  while (stream->Read(&answer)) ++answered[std::stoul(answer.infer_response().id())];
  releasing.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answered, std::vector<int>(kAll, 1));
  EXPECT_EQ(service_.most_held(), static_cast<std::size_t>(GrpcServer::kMaxPerStream));
}

TEST_F(Grpc, SurvivesClientsThatLeaveInTheMiddle) {
  service_.SetMode(Mode::kHold);
  {
    grpc::ClientContext context;
    auto stream = stub_->ModelStreamInfer(&context);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(stream->Write(Message(std::to_string(i), 1)));
    ASSERT_TRUE(service_.WaitForHeld(5));
    context.TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  inference::ModelInferResponse r;
  EXPECT_EQ(stub_->ModelInfer(&late, Message("1", 1), &r).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  service_.ReleaseAll();
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->ModelInfer(&context, Message("1", 1), &r).ok());
}

TEST_F(Grpc, ShutsDownAfterTheCallUnderWay) {
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

TEST_F(Grpc, CancelsCallsThatOutlastItsPatience) {
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

TEST_F(Grpc, RefusesAddressesAndCertificatesThatItCannotHave) {
  GrpcServerOptions options;
  options.address = target_;
  EXPECT_EQ(GrpcServer::Start(options, &service_).status().code(), Code::kUnavailable);
  const TlsFiles none{"/nowhere.pem", "/nowhere.key", "", false};
  options.address = "127.0.0.1:0";
  options.tls = &none;
  const auto refused = GrpcServer::Start(options, &service_);
  EXPECT_NE(refused.status().message().find("/nowhere.pem"), std::string::npos) << refused.status().message();
}

class GrpcBothEnds : public Grpc, public ::testing::WithParamInterface<StreamMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, GrpcBothEnds, ::testing::Values(StreamMode::kNever, StreamMode::kAlways),
                         [](const auto& i) { return i.param == StreamMode::kNever ? "Unary" : "Stream"; });

TEST_P(GrpcBothEnds, EchoAnInference) {
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

TEST_P(GrpcBothEnds, CarryRefusalsWithCodeAndMessage) {
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

TEST_P(GrpcBothEnds, AnswerManyThreadsAtOnceEachItsOwn) {
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
        if (r.ok() && r->outputs[0].tensor.As<float>()[0] == values[0] && r->outputs[0].tensor.As<float>()[1] == values[1])
          ++right;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(right, kThreads * kEach);
}

TEST_P(GrpcBothEnds, MatchAnswersThatComeInAnyOrder) {
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

TEST_P(GrpcBothEnds, FindEachOtherAgainAfterARestartOnTheSamePort) {
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

TEST_P(GrpcBothEnds, BoundWhatIsUnderWay) {
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

TEST_F(Grpc, ClientAsksForEverythingElse) {
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

class GrpcTls : public Grpc {
 protected:
  void SetUp() override {
    Grpc::SetUp();
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

TEST_F(GrpcTls, ServesThoseWhoTrustTheAuthority) {
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

TEST_F(GrpcTls, RefusesClientsWithoutACertificateWhenOneIsRequired) {
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
