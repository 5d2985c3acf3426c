// GrpcServer against bare stubs as any client has them. Both ends are in grpc_both_ends_test.cc; what our client does
// with servers of others is in grpc_client_test.cc.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <thread>

#include "net/grpc_server.h"
#include "net/inference.grpc.pb.h"
#include "net/service_test.h"

namespace ganglion::net {
namespace {

using inference::GRPCInferenceService;
using Mode = RecordingService::Mode;
constexpr auto kPatience = std::chrono::seconds(20);

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

class Grpc : public ::testing::Test {
 protected:
  void SetUp() override {
    GrpcServerOptions options;
    options.address = "127.0.0.1:0";
    options.max_message_bytes = 1 << 20;
    auto server = GrpcServer::Start(options, &service_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    target_ = "127.0.0.1:" + std::to_string(server_->port());
    stub_ = GRPCInferenceService::NewStub(grpc::CreateChannel(target_, grpc::InsecureChannelCredentials()));
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
  grpc::ClientContext of_stream;
  auto stream = stub_->ModelStreamInfer(&of_stream);
  inference::ModelStreamInferResponse reply;
  ASSERT_TRUE(stream->Write(Message("1", 1)) && stream->Read(&reply));
  EXPECT_EQ(reply.infer_response().parameters().at("retry_after_ms").int64_param(), 40);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
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
}

TEST_F(Grpc, AnswersAStreamAsAnswersComeAndFinishesAfterTheLast) {
  service_.SetMode(Mode::kHold);
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(stream->Write(Message(std::to_string(i), static_cast<float>(i))));
  stream->WritesDone();
  ASSERT_TRUE(service_.WaitForHeld(10));
  service_.Release(10, true);
  const auto seen = service_.seen();    // they may reach the service in any order, too
  for (std::size_t n = 10; n-- > 0;) {  // the newest was answered first
    inference::ModelStreamInferResponse answer;
    ASSERT_TRUE(stream->Read(&answer));
    EXPECT_EQ(answer.infer_response().id(), seen[n].id);
    const float i = std::stof(seen[n].id);
    EXPECT_EQ(answer.infer_response().raw_output_contents(0), Bytes({i, -i}));
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

}  // namespace
}  // namespace ganglion::net
