#include "net/grpc_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include <atomic>
#include <deque>
#include <fstream>
#include <mutex>
#include <sstream>
#include <unordered_map>

#include "net/grpc_log.h"
#include "net/inference.grpc.pb.h"
#include "net/proto.h"

namespace ganglion::net {
namespace {

grpc::Status ToGrpc(const Status& s) {
  return s.ok() ? grpc::Status::OK : grpc::Status(static_cast<grpc::StatusCode>(s.code()), s.message());
}

std::string Metadata(const grpc::CallbackServerContext& context, const char* key) {
  const auto it = context.client_metadata().find(key);
  return it == context.client_metadata().end() ? std::string() : std::string(it->second.data(), it->second.size());
}

// Short runs may happen on gRPC's threads. Not under ThreadSanitizer: gRPC is not instrumented, so what its threads
// hand to each other looks like a race; there everything goes to the node's own threads, whose locks it sees.
#if defined(__SANITIZE_THREAD__)
constexpr bool kMayRunHere = false;
#else
constexpr bool kMayRunHere = true;
#endif

CallContext ContextOf(const grpc::CallbackServerContext& context) {
  CallContext c;
  c.may_run_here = kMayRunHere;
  c.front = Front::kGrpc;
  c.received = std::chrono::steady_clock::now();
  const auto deadline = context.deadline();
  if (deadline != std::chrono::system_clock::time_point::max()) {
    const auto left = deadline - std::chrono::system_clock::now();
    // Beyond a day it is none: gRPC's "infinite" comes in several forms.
    if (left < std::chrono::hours(24)) c.deadline = c.received + std::chrono::duration_cast<Duration>(left);
  }
  c.traceparent = Metadata(context, "traceparent");
  const std::string authorization = Metadata(context, "authorization");
  if (authorization.size() > 7 &&
      (authorization.compare(0, 7, "Bearer ") == 0 || authorization.compare(0, 7, "bearer ") == 0))
    c.token = authorization.substr(7);
  const auto auth = context.auth_context();
  c.peer_verified = auth != nullptr && auth->IsPeerAuthenticated();
  return c;
}

class UnaryCall final : public InferCall {
 public:
  UnaryCall(grpc::CallbackServerContext* server_context, grpc::ServerUnaryReactor* reactor,
            inference::ModelInferResponse* response)
      : context_(server_context), reactor_(reactor), response_(response) {}
  ~UnaryCall() override {
    if (reactor_ != nullptr)
      reactor_->Finish({grpc::StatusCode::INTERNAL, "the request was dropped without an answer"});
  }
  void Finish(Result<wire::InferResponse> response) override {
    auto* reactor = std::exchange(reactor_, nullptr);
    if (response.ok()) {
      ToProto(*response, response_);
    } else if (retry_after) {
      context_->AddTrailingMetadata(
          "grpc-retry-pushback-ms",
          std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(*retry_after).count()));
    }
    reactor->Finish(ToGrpc(response.status()));
  }

 private:
  grpc::CallbackServerContext* context_;
  grpc::ServerUnaryReactor* reactor_;
  inference::ModelInferResponse* response_;
};

// The streams that are open, since nobody else would end them when the node ends: a child keeps its stream for ever.
class Stream;
class OpenStreams {
 public:
  void Add(const std::shared_ptr<Stream>& stream);
  void Remove(Stream* stream);
  // Ends them all, and those that are added from now on.
  void Drain();

 private:
  std::mutex mutex_;
  bool draining_ = false;
  std::unordered_map<Stream*, std::weak_ptr<Stream>> open_;
};

// One ModelStreamInfer. Lives until gRPC is done with it and no call of it is under way.
class Stream final : public grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>,
                     public std::enable_shared_from_this<Stream> {
 public:
  Stream(net::Service* service, OpenStreams* open, CallContext context)
      : service_(service), open_(open), context_(std::move(context)) {}

  void Begin() {
    self_ = shared_from_this();
    Read();
  }

  // Reads no more, and ends when what it has read is answered.
  void Drain() {
    bool finish = false;
    {
      std::lock_guard lock(mutex_);
      draining_ = true;
      finish = ShouldFinish();
    }
    if (finish) Finish(grpc::Status::OK);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      bool finish = false;
      {
        std::lock_guard lock(mutex_);
        read_over_ = true;
        finish = ShouldFinish();
      }
      if (finish) Finish(grpc::Status::OK);
      return;
    }
    bool more = false;
    {
      std::lock_guard lock(mutex_);
      if (finished_) return;  // it came as the stream was ended; its sender sees that it was not answered
      more = ++under_way_ < GrpcServer::kMaxPerStream && !draining_;
      reading_ = more;
    }
    auto call = std::make_unique<Call>(shared_from_this(), std::move(incoming_));
    if (more) Read();
    Call::Run(std::move(call), service_, context_);
  }

  void OnWriteDone(bool ok) override {
    bool finish = false;
    inference::ModelStreamInferResponse* next = nullptr;
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (ok) {
        replies_.pop_front();
      } else {
        broken_ = true;
        replies_.clear();
      }
      if (!replies_.empty()) {
        writing_ = true;
        next = &replies_.front();
      }
      finish = ShouldFinish();
    }
    if (next != nullptr) StartWrite(next);
    if (finish) Finish(grpc::Status::OK);
  }

  void OnCancel() override {
    std::lock_guard lock(mutex_);
    broken_ = true;
  }
  void OnDone() override {
    open_->Remove(this);
    const auto last = std::move(self_);
  }

 private:
  class Call final : public InferCall {
   public:
    Call(std::shared_ptr<Stream> stream, std::unique_ptr<inference::ModelInferRequest> message)
        : stream_(std::move(stream)), message_(std::move(message)) {}
    ~Call() override {
      if (stream_ != nullptr) Finish(Internal("the request was dropped without an answer"));
    }
    static void Run(std::unique_ptr<Call> call, net::Service* service, const CallContext& of_stream) {
      call->context = of_stream;
      call->context.deadline.reset();  // the stream's, not this request's
      call->context.traceparent.clear();
      call->context.received = std::chrono::steady_clock::now();
      auto request = FromProto(*call->message_);
      if (!request.ok()) return call->Finish(request.status());
      call->request = std::move(*request);
      service->Infer(std::move(call));
    }
    void Finish(Result<wire::InferResponse> response) override {
      inference::ModelStreamInferResponse reply;
      if (response.ok()) {
        ToProto(*response, reply.mutable_infer_response());
      } else {
        reply.set_error_message(std::string(CodeName(response.status().code())) + ": " + response.status().message());
        // A stream has one trailer, at its end: when to come back is said in the reply.
        if (retry_after)
          (*reply.mutable_infer_response()->mutable_parameters())["retry_after_ms"].set_int64_param(
              std::chrono::duration_cast<std::chrono::milliseconds>(*retry_after).count());
      }
      reply.mutable_infer_response()->set_id(message_->id());
      std::exchange(stream_, nullptr)->Reply(std::move(reply));
    }

   private:
    std::shared_ptr<Stream> stream_;
    std::unique_ptr<inference::ModelInferRequest> message_;
  };

  void Read() {
    incoming_ = std::make_unique<inference::ModelInferRequest>();
    StartRead(incoming_.get());
  }

  void Reply(inference::ModelStreamInferResponse reply) {
    bool finish = false;
    bool read = false;
    inference::ModelStreamInferResponse* next = nullptr;
    {
      std::lock_guard lock(mutex_);
      --under_way_;
      if (!broken_) {
        replies_.push_back(std::move(reply));
        if (!writing_) {
          writing_ = true;
          next = &replies_.front();
        }
      }
      if (!reading_ && !read_over_ && !draining_) read = reading_ = true;
      finish = ShouldFinish();
    }
    if (next != nullptr) StartWrite(next);
    if (read) Read();
    if (finish) Finish(grpc::Status::OK);
  }

  // Under the lock; true once.
  bool ShouldFinish() {
    if ((!read_over_ && !draining_) || under_way_ > 0 || writing_ || finished_) return false;
    finished_ = true;
    return true;
  }

  net::Service* service_;
  OpenStreams* open_;
  const CallContext context_;
  std::unique_ptr<inference::ModelInferRequest> incoming_;
  std::shared_ptr<Stream> self_;
  std::mutex mutex_;
  std::deque<inference::ModelStreamInferResponse> replies_;  // the first is being written
  int under_way_ = 0;
  bool reading_ = true;
  bool read_over_ = false;
  bool draining_ = false;
  bool writing_ = false;
  bool broken_ = false;
  bool finished_ = false;
};

void OpenStreams::Add(const std::shared_ptr<Stream>& stream) {
  bool late = false;
  {
    std::lock_guard lock(mutex_);
    open_.emplace(stream.get(), stream);
    late = draining_;
  }
  if (late) stream->Drain();
}
void OpenStreams::Remove(Stream* stream) {
  std::lock_guard lock(mutex_);
  open_.erase(stream);
}
void OpenStreams::Drain() {
  std::vector<std::shared_ptr<Stream>> all;
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
    for (const auto& [key, stream] : open_) {
      if (auto alive = stream.lock()) all.push_back(std::move(alive));
    }
  }
  for (const auto& stream : all) stream->Drain();
}

class Endpoint final : public inference::GRPCInferenceService::CallbackService {
 public:
  explicit Endpoint(net::Service* service) : service_(service) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* ModelInfer(Context* context, const inference::ModelInferRequest* request,
                      inference::ModelInferResponse* response) override {
    Reactor* reactor = context->DefaultReactor();
    auto call = std::make_unique<UnaryCall>(context, reactor, response);
    auto parsed = FromProto(*request);
    if (!parsed.ok()) {
      call->Finish(parsed.status());
      return reactor;
    }
    call->context = ContextOf(*context);
    call->request = std::move(*parsed);
    service_->Infer(std::move(call));
    return reactor;
  }

  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      Context* context) override {
    auto stream = std::make_shared<Stream>(service_, &streams_, ContextOf(*context));
    stream->Begin();
    streams_.Add(stream);
    return stream.get();
  }
  void Drain() { streams_.Drain(); }

  Reactor* ServerLive(Context* c, const inference::ServerLiveRequest*, inference::ServerLiveResponse* r) override {
    r->set_live(service_->Live());
    return Done(c, {});
  }
  Reactor* ServerReady(Context* c, const inference::ServerReadyRequest*, inference::ServerReadyResponse* r) override {
    r->set_ready(service_->Ready());
    return Done(c, {});
  }
  Reactor* ModelReady(Context* c, const inference::ModelReadyRequest* q, inference::ModelReadyResponse* r) override {
    r->set_ready(service_->ModelReady(q->name(), q->version()));
    return Done(c, {});
  }
  Reactor* ServerMetadata(Context* c, const inference::ServerMetadataRequest*,
                          inference::ServerMetadataResponse* r) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    const wire::ServerMetadata m = service_->ServerMetadata();
    r->set_name(m.name);
    r->set_version(m.version);
    for (const auto& e : m.extensions) r->add_extensions(e);
    return Done(c, {});
  }
  Reactor* ModelMetadata(Context* c, const inference::ModelMetadataRequest* q,
                         inference::ModelMetadataResponse* r) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    const auto m = service_->ModelMetadata(q->name(), q->version());
    if (m.ok()) ToProto(*m, r);
    return Done(c, m.status());
  }
  Reactor* ModelConfig(Context* c, const inference::ModelConfigRequest* q, inference::ModelConfigResponse* r) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    const auto m = service_->ModelConfig(q->name(), q->version());
    if (m.ok()) ToProto(*m, r->mutable_config());
    return Done(c, m.status());
  }
  Reactor* ModelStatistics(Context* c, const inference::ModelStatisticsRequest* q,
                           inference::ModelStatisticsResponse* r) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    const auto all = service_->Statistics(q->name(), q->version());
    if (all.ok()) {
      for (const auto& s : *all) ToProto(s, r);
    }
    return Done(c, all.status());
  }
  Reactor* RepositoryIndex(Context* c, const inference::RepositoryIndexRequest* q,
                           inference::RepositoryIndexResponse* r) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    for (const auto& e : service_->RepositoryIndex(q->ready())) {
      auto* m = r->add_models();
      m->set_name(e.name);
      m->set_version(e.version);
      m->set_state(e.state);
      m->set_reason(e.reason);
    }
    return Done(c, {});
  }
  Reactor* RepositoryModelLoad(Context* c, const inference::RepositoryModelLoadRequest* q,
                               inference::RepositoryModelLoadResponse*) override {
    if (const Status s = Allow(c, Role::kOperate); !s.ok()) return Done(c, s);
    Reactor* reactor = c->DefaultReactor();
    service_->Load(q->model_name(), [reactor](const Status& s) { reactor->Finish(ToGrpc(s)); });
    return reactor;
  }
  Reactor* RepositoryModelUnload(Context* c, const inference::RepositoryModelUnloadRequest* q,
                                 inference::RepositoryModelUnloadResponse*) override {
    if (const Status s = Allow(c, Role::kOperate); !s.ok()) return Done(c, s);
    Reactor* reactor = c->DefaultReactor();
    service_->Unload(q->model_name(), [reactor](const Status& s) { reactor->Finish(ToGrpc(s)); });
    return reactor;
  }
  Reactor* SystemSharedMemoryStatus(Context* c, const inference::SystemSharedMemoryStatusRequest* q,
                                    inference::SystemSharedMemoryStatusResponse* r) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    const auto all = service_->SharedMemoryStatus(q->name());
    if (all.ok()) {
      for (const auto& region : *all) {
        auto& out = (*r->mutable_regions())[region.name];
        out.set_name(region.name);
        out.set_key(region.key);
        out.set_offset(region.offset);
        out.set_byte_size(region.bytes);
      }
    }
    return Done(c, all.status());
  }
  Reactor* SystemSharedMemoryRegister(Context* c, const inference::SystemSharedMemoryRegisterRequest* q,
                                      inference::SystemSharedMemoryRegisterResponse*) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    return Done(c, service_->RegisterSharedMemory({q->name(), q->key(), q->offset(), q->byte_size()}));
  }
  Reactor* SystemSharedMemoryUnregister(Context* c, const inference::SystemSharedMemoryUnregisterRequest* q,
                                        inference::SystemSharedMemoryUnregisterResponse*) override {
    if (const Status s = Allow(c, Role::kInfer); !s.ok()) return Done(c, s);
    return Done(c, service_->UnregisterSharedMemory(q->name()));
  }

 private:
  Status Allow(Context* context, Role role) const { return service_->Allow(ContextOf(*context), role); }
  static Reactor* Done(Context* context, const Status& status) {
    Reactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status));
    return reactor;
  }

  net::Service* service_;
  OpenStreams streams_;
};

Result<std::string> ReadPem(const char* what, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return InvalidArgument(std::string(what) + " " + path + " cannot be read");
  return text.str();
}

}  // namespace

struct GrpcServer::Impl {
  explicit Impl(net::Service* service) : endpoint(service) {}
  Endpoint endpoint;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

GrpcServer::GrpcServer() = default;

Result<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options, net::Service* service) {
  QuietGrpc();
  std::unique_ptr<GrpcServer> s(new GrpcServer);
  s->impl_ = std::make_unique<Impl>(service);
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (options.tls != nullptr) {
    grpc::SslServerCredentialsOptions ssl(options.tls->authority.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                          : options.tls->require_client
                                              ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                              : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
    ASSIGN_OR_RETURN(auto certificate, ReadPem("tls.cert", options.tls->certificate));
    ASSIGN_OR_RETURN(auto key, ReadPem("tls.key", options.tls->key));
    ssl.pem_key_cert_pairs.push_back({key, certificate});
    if (!options.tls->authority.empty()) {
      ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem("tls.ca", options.tls->authority));
    }
    credentials = grpc::SslServerCredentials(ssl);
  }
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(std::min<std::size_t>(options.max_message_bytes, 1u << 30)));
  builder.SetMaxSendMessageSize(-1);
  grpc::ResourceQuota quota("ganglion");
  quota.Resize(options.max_memory_bytes);
  builder.SetResourceQuota(quota);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  // Peers that vanished without a word are noticed; clients may ask as often.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddListeningPort(options.address, credentials, &s->impl_->port);
  builder.RegisterService(&s->impl_->endpoint);
  s->impl_->server = builder.BuildAndStart();
  if (s->impl_->server == nullptr || s->impl_->port == 0)
    return Unavailable("cannot listen on " + options.address +
                       " for gRPC: in use, no address of this machine, or no permission");
  return s;
}

GrpcServer::~GrpcServer() { Shutdown(Duration::zero()); }

int GrpcServer::port() const { return impl_->port; }

void GrpcServer::Shutdown(Duration patience) {
  if (impl_->server == nullptr) return;
  impl_->endpoint.Drain();
  impl_->server->Shutdown(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::system_clock::duration>(patience));
  impl_->server.reset();
}

}  // namespace ganglion::net
