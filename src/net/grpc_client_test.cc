// GrpcClient against servers that are not ours: written by hand from the specification, and not all well behaved.
#include "net/grpc_client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "net/inference.grpc.pb.h"

namespace ganglion::net {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);
using StreamOfServer = grpc::ServerReaderWriter<inference::ModelStreamInferResponse, inference::ModelInferRequest>;

TimePoint In(Duration d) { return std::chrono::steady_clock::now() + d; }

// Answers unary calls with the inputs; what it does with a stream is the test's.
class Foreign : public inference::GRPCInferenceService::Service {
 public:
  using OnStream = std::function<grpc::Status(grpc::ServerContext*, StreamOfServer*)>;

  explicit Foreign(OnStream on_stream = nullptr) : on_stream_(std::move(on_stream)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Foreign() override { server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(100)); }

  static void Echo(const inference::ModelInferRequest& q, inference::ModelInferResponse* r) {
    r->set_model_name(q.model_name());
    r->set_id(q.id());
    for (const auto& in : q.inputs()) {
      auto* out = r->add_outputs();
      out->set_name(in.name());
      out->set_datatype(in.datatype());
      *out->mutable_shape() = in.shape();
    }
    *r->mutable_raw_output_contents() = q.raw_input_contents();
  }

  grpc::Status ModelInfer(grpc::ServerContext* context, const inference::ModelInferRequest* q,
                          inference::ModelInferResponse* r) override {
    ++unary;
    if (hold) {
      while (!context->IsCancelled()) std::this_thread::yield();
      ++cancelled;
      return grpc::Status::CANCELLED;
    }
    Echo(*q, r);
    return grpc::Status::OK;
  }
  grpc::Status ModelStreamInfer(grpc::ServerContext* context, StreamOfServer* stream) override {
    ++streams;
    if (on_stream_) return on_stream_(context, stream);
    return {grpc::StatusCode::UNIMPLEMENTED, ""};
  }
  // A stream as it should be.
  static grpc::Status EchoAll(grpc::ServerContext*, StreamOfServer* stream) {
    inference::ModelInferRequest q;
    while (stream->Read(&q)) {
      inference::ModelStreamInferResponse r;
      Echo(q, r.mutable_infer_response());
      stream->Write(r);
    }
    return grpc::Status::OK;
  }

  std::unique_ptr<GrpcClient> Client(StreamMode mode = StreamMode::kAuto,
                                     std::vector<std::pair<std::string, std::string>> headers = {}) {
    auto client =
        GrpcClient::Create({"127.0.0.1:" + std::to_string(port_), false, {}, std::move(headers), "", "s3cret", mode});
    EXPECT_TRUE(client.ok());
    return *std::move(client);
  }

  std::atomic<int> unary{0};
  std::atomic<int> streams{0};
  std::atomic<int> cancelled{0};
  std::atomic<bool> hold{false};

 private:
  int port_ = 0;
  OnStream on_stream_;
  std::unique_ptr<grpc::Server> server_;
};

// Answers of a client, by the number of the request.
class Answers {
 public:
  GrpcClient::Sent Ask(GrpcClient* client, float value, TimePoint deadline = In(kPatience)) {
    const float values[1] = {value};
    wire::InferRequest q;
    q.model = "m";
    wire::InferInput in;
    in.name = "x";
    in.shape = {1};
    in.bytes = std::as_bytes(std::span(values));
    q.inputs.push_back(std::move(in));
    return client->Infer(q, deadline, "", [this, value](Result<wire::InferResponse> r) {
      std::lock_guard lock(mutex_);
      const bool right = r.ok() && r->outputs.size() == 1 && r->outputs[0].tensor.As<float>()[0] == value;
      if (right) ++right_;
      statuses_.push_back(r.status());
      changed_.notify_all();
    });
  }
  // All answers so far, once there are that many.
  std::vector<Status> Wait(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return statuses_.size() >= count; }))
        << statuses_.size() << " answers of " << count;
    return statuses_;
  }
  std::size_t count() {
    std::lock_guard lock(mutex_);
    return statuses_.size();
  }
  int right() {
    std::lock_guard lock(mutex_);
    return right_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Status> statuses_;
  int right_ = 0;
};

TEST(GrpcClientAndForeign, FallsBackToUnaryWithoutLosingTheFirstRequest) {
  Foreign server;
  const auto client = server.Client();
  Answers answers;
  for (int i = 0; i < 10; ++i) answers.Ask(client.get(), static_cast<float>(i));
  for (const Status& s : answers.Wait(10)) EXPECT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(answers.right(), 10);
  EXPECT_EQ(server.unary, 10);
  answers.Ask(client.get(), 1);  // it does not ask again
  EXPECT_EQ(answers.Wait(11).back().message(), "");
  EXPECT_EQ(server.streams, 1);
}

// Requests that are queued on the stream just as it turns out not to exist must not be lost either.
TEST(GrpcClientAndForeign, FallsBackToUnaryForEveryThreadAtOnce) {
  Foreign server;
  for (int round = 0; round < 30; ++round) {
    const auto client = server.Client();
    Answers answers;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 25; ++i) answers.Ask(client.get(), static_cast<float>(i));
      });
    }
    for (auto& t : threads) t.join();
    for (const Status& s : answers.Wait(100)) ASSERT_TRUE(s.ok()) << "round " << round << ": " << s.message();
    EXPECT_EQ(answers.right(), 100);
  }
}

TEST(GrpcClientAndForeign, DoesNotFallBackWhenToldToStream) {
  Foreign server;
  const auto client = server.Client(StreamMode::kAlways);
  Answers answers;
  answers.Ask(client.get(), 1);
  EXPECT_EQ(answers.Wait(1)[0].code(), Code::kUnimplemented);
  EXPECT_EQ(server.unary, 0);
}

TEST(GrpcClientAndForeign, SharesOneStreamAmongAllThreads) {
  Foreign server(Foreign::EchoAll);
  const auto client = server.Client();
  Answers answers;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) answers.Ask(client.get(), static_cast<float>(100 * t + i));
    });
  }
  for (auto& t : threads) t.join();
  answers.Wait(400);
  EXPECT_EQ(answers.right(), 400);
  EXPECT_EQ(server.streams, 1);
  EXPECT_EQ(server.unary, 0);
}

TEST(GrpcClientAndForeign, FailsAllUnderWayAtAnErrorWithoutId) {
  Foreign server([](grpc::ServerContext*, StreamOfServer* stream) {
    inference::ModelInferRequest q;
    for (int i = 0; i < 3; ++i) stream->Read(&q);
    inference::ModelStreamInferResponse r;
    r.set_error_message("something broke");
    stream->Write(r);
    while (stream->Read(&q)) {  // and goes on as if nothing had been
      r.Clear();
      Foreign::Echo(q, r.mutable_infer_response());
      stream->Write(r);
    }
    return grpc::Status::OK;
  });
  const auto client = server.Client();
  Answers answers;
  for (int i = 0; i < 3; ++i) answers.Ask(client.get(), 1);
  for (const Status& s : answers.Wait(3)) {
    EXPECT_EQ(s.code(), Code::kUnknown);
    EXPECT_EQ(s.message(), "something broke");
  }
  answers.Ask(client.get(), 1);
  EXPECT_EQ(answers.Wait(4).back().message(), "");
  EXPECT_EQ(answers.count(), 4u);
  EXPECT_EQ(server.streams, 1);
}

TEST(GrpcClientAndForeign, FailsOnlyTheOneThatAnErrorNames) {
  Foreign server([](grpc::ServerContext*, StreamOfServer* stream) {
    inference::ModelInferRequest q[2];
    for (auto& each : q) stream->Read(&each);
    inference::ModelStreamInferResponse r;
    r.set_error_message("RESOURCE_EXHAUSTED: full");
    r.mutable_infer_response()->set_id(q[1].id());
    stream->Write(r);
    r.Clear();
    Foreign::Echo(q[0], r.mutable_infer_response());
    stream->Write(r);
    while (stream->Read(&q[0])) {
    }
    return grpc::Status::OK;
  });
  const auto client = server.Client();
  Answers answers;
  for (int i = 0; i < 2; ++i) answers.Ask(client.get(), static_cast<float>(i));
  const auto statuses = answers.Wait(2);
  EXPECT_EQ(statuses[0].code(), Code::kResourceExhausted);
  EXPECT_EQ(statuses[0].message(), "full");
  EXPECT_TRUE(statuses[1].ok());
}

TEST(GrpcClientAndForeign, IgnoresAnswersThatNobodyAskedFor) {
  Foreign server([](grpc::ServerContext*, StreamOfServer* stream) {
    inference::ModelInferRequest q;
    while (stream->Read(&q)) {
      inference::ModelStreamInferResponse r;
      for (const char* id : {"", "999999", "-1", "abc", "99999999999999999999999"}) {
        r.mutable_infer_response()->set_id(id);
        stream->Write(r);
      }
      r.Clear();
      Foreign::Echo(q, r.mutable_infer_response());
      stream->Write(r);
      stream->Write(r);  // twice
    }
    return grpc::Status::OK;
  });
  const auto client = server.Client();
  Answers answers;
  for (int i = 0; i < 5; ++i) answers.Ask(client.get(), static_cast<float>(i));
  answers.Wait(5);
  answers.Ask(client.get(), 7);
  answers.Wait(6);
  EXPECT_EQ(answers.right(), 6);
}

TEST(GrpcClientAndForeign, RefusesAnAnswerThatIsNotRight) {
  Foreign server([](grpc::ServerContext*, StreamOfServer* stream) {
    inference::ModelInferRequest q;
    while (stream->Read(&q)) {
      inference::ModelStreamInferResponse r;
      Foreign::Echo(q, r.mutable_infer_response());
      r.mutable_infer_response()->mutable_outputs(0)->set_shape(0, 1000);
      stream->Write(r);
    }
    return grpc::Status::OK;
  });
  const auto client = server.Client();
  Answers answers;
  answers.Ask(client.get(), 1);
  EXPECT_FALSE(answers.Wait(1)[0].ok());
}

TEST(GrpcClientAndForeign, FailsWhatIsUnderWayWhenTheStreamEndsAndOpensAnother) {
  std::atomic<int> which{0};
  Foreign server([&](grpc::ServerContext* context, StreamOfServer* stream) {
    if (++which == 3) return Foreign::EchoAll(context, stream);
    inference::ModelInferRequest q;
    for (int i = 0; i < 2; ++i) stream->Read(&q);
    // Ends in the middle: once as if all were well, once with an error.
    return which == 1 ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down");
  });
  const auto client = server.Client();
  Answers answers;
  for (int i = 0; i < 2; ++i) answers.Ask(client.get(), 1);
  for (const Status& s : answers.Wait(2)) EXPECT_EQ(s.code(), Code::kUnavailable) << s.message();
  for (int i = 0; i < 2; ++i) answers.Ask(client.get(), 1);
  for (const Status& s : answers.Wait(4)) EXPECT_EQ(s.code(), Code::kUnavailable) << s.message();
  for (int i = 0; i < 2; ++i) answers.Ask(client.get(), 1);
  answers.Wait(6);
  EXPECT_EQ(answers.right(), 2);
  EXPECT_EQ(server.streams, 3);
  EXPECT_EQ(server.unary, 0);
}

TEST(GrpcClientAndForeign, EndsEveryRequestWhileStreamsKeepBreaking) {
  Foreign server([&](grpc::ServerContext*, StreamOfServer* stream) {
    inference::ModelInferRequest q;
    for (int i = 0; i < 7 && stream->Read(&q); ++i) {
      inference::ModelStreamInferResponse r;
      Foreign::Echo(q, r.mutable_infer_response());
      stream->Write(r);
    }
    return grpc::Status::OK;
  });
  const auto client = server.Client();
  Answers answers;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) answers.Ask(client.get(), static_cast<float>(i));
    });
  }
  for (auto& t : threads) t.join();
  for (const Status& s : answers.Wait(800)) EXPECT_TRUE(s.ok() || s.code() == Code::kUnavailable) << s.message();
  EXPECT_EQ(answers.count(), 800u);
}

grpc::Status ReadAndSayNothing(grpc::ServerContext*, StreamOfServer* stream) {
  inference::ModelInferRequest q;
  while (stream->Read(&q)) {
  }
  return grpc::Status::OK;
}

TEST(GrpcClientAndForeign, ForgetsRequestsThatAreNeverAnswered) {
  Foreign server(ReadAndSayNothing);
  auto client = server.Client();
  Answers answers;
  std::vector<GrpcClient::Sent> sent;
  for (int i = 0; i < 3; ++i) sent.push_back(answers.Ask(client.get(), 1));
  for (const auto& s : sent) {
    EXPECT_GT(s.bytes, 4u);
    client->Forget(s.id);
    client->Forget(s.id);  // harmless
  }
  client->Forget(12345);
  client.reset();
  EXPECT_EQ(answers.count(), 0u);
}

TEST(GrpcClientAndForeign, IsDestroyedWithRequestsUnderWay) {
  Foreign server(ReadAndSayNothing);
  server.hold = true;
  for (const StreamMode mode : {StreamMode::kAuto, StreamMode::kNever}) {
    auto client = server.Client(mode);
    Answers answers;
    for (int i = 0; i < 5; ++i) answers.Ask(client.get(), 1, In(std::chrono::hours(1)));
    client.reset();
    EXPECT_EQ(answers.count(), 5u);
    for (const Status& s : answers.Wait(5)) EXPECT_EQ(s.code(), Code::kCancelled) << s.message();
  }
}

TEST(GrpcClientAndForeign, IsDestroyedWhileItFindsOutThatThereAreNoStreams) {
  Foreign server;
  server.hold = true;
  for (int round = 0; round < 20; ++round) {
    auto client = server.Client();
    Answers answers;
    for (int i = 0; i < 3; ++i) answers.Ask(client.get(), 1, In(std::chrono::hours(1)));
    for (int spin = 0; spin < 50 * round; ++spin) std::this_thread::yield();
    client.reset();  // must not wait for the deadline
    EXPECT_EQ(answers.count(), 3u);
  }
}

TEST(GrpcClientAndForeign, CancelsForgottenUnaryCallsAtTheServer) {
  Foreign server;
  server.hold = true;
  const auto client = server.Client(StreamMode::kNever);
  Answers answers;
  const auto sent = answers.Ask(client.get(), 1, In(std::chrono::hours(1)));
  const TimePoint end = In(kPatience);
  while (server.unary == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  client->Forget(sent.id);
  while (server.cancelled == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_EQ(server.cancelled, 1);
  EXPECT_EQ(answers.count(), 0u);
}

TEST(GrpcClientAndForeign, GivesUpUnaryCallsAtTheirDeadline) {
  Foreign server;
  server.hold = true;
  const auto client = server.Client(StreamMode::kNever);
  Answers answers;
  answers.Ask(client.get(), 1, In(std::chrono::milliseconds(50)));
  EXPECT_EQ(answers.Wait(1)[0].code(), Code::kDeadlineExceeded);
}

TEST(GrpcClientAndForeign, AsksAgainFromWithinAnAnswer) {
  Foreign server(Foreign::EchoAll);
  const auto client = server.Client();
  std::promise<void> done;
  wire::InferRequest q;
  q.model = "m";
  std::function<void(int)> ask = [&](int left) {
    client->Infer(q, In(kPatience), "", [&, left](const auto&) { left > 0 ? ask(left - 1) : done.set_value(); });
  };
  ask(100);
  EXPECT_EQ(done.get_future().wait_for(kPatience), std::future_status::ready);
}

TEST(GrpcClientAndForeign, SendsItsHeadersAndToken) {
  std::mutex mutex;
  std::multimap<std::string, std::string> seen;
  Foreign server([&](grpc::ServerContext* context, StreamOfServer* stream) {
    {
      std::lock_guard lock(mutex);
      for (const auto& [name, value] : context->client_metadata())
        seen.emplace(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
    }
    return Foreign::EchoAll(context, stream);
  });
  const auto client = server.Client(StreamMode::kAuto, {{"X-Team", "lyon"}, {"Host", "never.as.metadata"}});
  Answers answers;
  answers.Ask(client.get(), 1);
  answers.Wait(1);
  std::lock_guard lock(mutex);
  EXPECT_EQ(seen.find("x-team")->second, "lyon");
  EXPECT_EQ(seen.find("authorization")->second, "Bearer s3cret");
  EXPECT_EQ(seen.count("host"), 0u);
}

TEST(GrpcClientAndForeign, SaysThatNobodyIsThere) {
  std::unique_ptr<GrpcClient> client;
  {
    Foreign server;
    client = server.Client();
  }
  Answers answers;
  for (int i = 0; i < 3; ++i) {
    answers.Ask(client.get(), 1);
    EXPECT_EQ(answers.Wait(static_cast<std::size_t>(i) + 1).back().code(), Code::kUnavailable);
  }
  EXPECT_EQ(client->ServerReady(kPatience).status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace ganglion::net
