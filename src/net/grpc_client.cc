#include "net/grpc_client.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <unordered_map>

#include "net/grpc_log.h"
#include "net/inference.grpc.pb.h"
#include "net/proto.h"

namespace ganglion::net {
namespace {

Status FromGrpc(const grpc::Status& s) {
  if (s.ok()) return {};
  // Codes that ours do not have are told as the nearest.
  switch (s.error_code()) {
    case grpc::StatusCode::OUT_OF_RANGE:
      return InvalidArgument(s.error_message());
    case grpc::StatusCode::ABORTED:
      return Unavailable(s.error_message());
    default:
      return {static_cast<Code>(s.error_code()), s.error_message()};
  }
}

std::chrono::system_clock::time_point SystemDeadline(TimePoint deadline) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(deadline - std::chrono::steady_clock::now());
}

}  // namespace

struct GrpcClient::Impl {
  class Stream;
  class Unary;
  struct UnderWay {
    Done done;
    std::shared_ptr<inference::ModelInferRequest> message;
    TimePoint deadline;
    std::string traceparent;
    std::shared_ptr<Unary> unary;  // nullptr: on the stream
  };

  GrpcClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub;

  std::mutex mutex;
  std::condition_variable quiet;
  bool closing = false;
  bool stream_unimplemented = false;
  std::uint64_t next_id = 1;
  std::unordered_map<std::uint64_t, UnderWay> under_way;
  std::shared_ptr<Stream> stream;
  // gRPC still holds them. The destructor waits for them, and they let go of everything before they say so: a channel
  // must not be destroyed on a thread of gRPC's own, which its last one would then join.
  int live_reactors = 0;

  void Prepare(grpc::ClientContext* context) const {
    for (const auto& [name, value] : options.headers) {
      std::string lower = name;
      for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (lower != "host") context->AddMetadata(lower, value);
    }
    if (!options.authority.empty()) context->set_authority(options.authority);
    if (!options.token.empty()) context->AddMetadata("authorization", "Bearer " + options.token);
  }

  // Ends one request. Any thread, no lock held.
  void Complete(std::uint64_t id, Result<wire::InferResponse> response) {
    Done done;
    {
      std::lock_guard lock(mutex);
      const auto it = under_way.find(id);
      if (it == under_way.end()) return;
      done = std::move(it->second.done);
      under_way.erase(it);
    }
    if (done) done(std::move(response));
  }

  void Gone() {
    std::lock_guard lock(mutex);
    --live_reactors;
    quiet.notify_all();
  }

  void SendUnary(std::uint64_t id);
  void StreamEnded(Stream* ended, const grpc::Status& status);
};

class GrpcClient::Impl::Unary final : public grpc::ClientUnaryReactor {
 public:
  Unary(Impl* client, std::uint64_t id, std::shared_ptr<inference::ModelInferRequest> message)
      : client_(client), id_(id), message_(std::move(message)) {}

  void Run(TimePoint deadline, const std::string& traceparent, std::shared_ptr<Unary> self) {
    self_ = std::move(self);
    client_->Prepare(&context_);
    context_.set_deadline(SystemDeadline(deadline));
    if (!traceparent.empty()) context_.AddMetadata("traceparent", traceparent);
    client_->stub->async()->ModelInfer(&context_, message_.get(), &response_, this);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }
  void OnDone(const grpc::Status& status) override {
    client_->Complete(id_, status.ok() ? FromProto(response_) : Result<wire::InferResponse>(FromGrpc(status)));
    Impl* const client = client_;
    self_ = nullptr;  // destroys this, unless a caller still has it
    client->Gone();
  }

 private:
  Impl* client_;  // waits for us
  std::uint64_t id_;
  std::shared_ptr<inference::ModelInferRequest> message_;
  inference::ModelInferResponse response_;
  grpc::ClientContext context_;
  std::shared_ptr<Unary> self_;
};

class GrpcClient::Impl::Stream final
    : public grpc::ClientBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse> {
 public:
  explicit Stream(Impl* client) : client_(client) {}

  void Run(std::shared_ptr<Stream> self) {
    self_ = std::move(self);
    client_->Prepare(&context_);
    std::lock_guard lock(mutex_);  // another thread may have queued a message before
    client_->stub->async()->ModelStreamInfer(&context_, this);
    AddHold();  // writes start outside of reactions, until the stream breaks
    StartRead(&incoming_);
    StartCall();
    begun_ = true;
    if (!queue_.empty()) {
      writing_ = true;
      StartWrite(queue_.front().get());
    }
  }

  // Of a broken stream nothing is sent: StreamEnded, which is still to come, ends all that are under way or sends them
  // again, and this one is among them.
  void Send(std::shared_ptr<inference::ModelInferRequest> message) {
    std::lock_guard lock(mutex_);
    if (broken_) return;
    queue_.push_back(std::move(message));
    if (begun_ && !writing_) {
      writing_ = true;
      StartWrite(queue_.front().get());  // under the lock: not after the hold has been released
    }
  }
  void Cancel() { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) queue_.pop_front();
    if (!ok || broken_) {
      queue_.clear();
      return;
    }
    if (!queue_.empty()) {
      writing_ = true;
      StartWrite(queue_.front().get());
    }
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      std::lock_guard lock(mutex_);
      broken_ = true;
      RemoveHold();
      return;
    }
    const auto& response = incoming_.infer_response();
    const std::uint64_t id = std::strtoull(response.id().c_str(), nullptr, 10);
    if (!incoming_.error_message().empty()) {
      const Status error = ErrorOf(incoming_.error_message());
      if (id != 0) {
        client_->Complete(id, error);
      } else {
        FailAll(error);
      }
    } else if (id != 0) {
      client_->Complete(id, FromProto(response));
    }
    incoming_.Clear();
    StartRead(&incoming_);
  }

  void OnDone(const grpc::Status& status) override {
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
      queue_.clear();
    }
    Impl* const client = client_;
    client->StreamEnded(this, status);
    self_ = nullptr;  // as above
    client->Gone();
  }

 private:
  // "RESOURCE_EXHAUSTED: 64 in flight" of a node of ours; anything else is a foreign server's text.
  static Status ErrorOf(const std::string& message) {
    for (int c = 1; c <= 16; ++c) {
      const std::string name = CodeName(static_cast<Code>(c));
      if (message.size() > name.size() + 2 && message.compare(0, name.size(), name) == 0 &&
          message.compare(name.size(), 2, ": ") == 0)
        return {static_cast<Code>(c), message.substr(name.size() + 2)};
    }
    return {Code::kUnknown, message};
  }
  void FailAll(const Status& error) {
    std::vector<std::uint64_t> ids;
    {
      std::lock_guard lock(client_->mutex);
      for (const auto& [id, u] : client_->under_way) {
        if (u.unary == nullptr) ids.push_back(id);
      }
    }
    for (const auto id : ids) client_->Complete(id, error);
  }

  Impl* client_;  // waits for us
  grpc::ClientContext context_;
  inference::ModelStreamInferResponse incoming_;
  std::shared_ptr<Stream> self_;
  std::mutex mutex_;
  std::deque<std::shared_ptr<inference::ModelInferRequest>> queue_;  // the first is being written
  bool begun_ = false;
  bool writing_ = false;
  bool broken_ = false;
};

void GrpcClient::Impl::SendUnary(std::uint64_t id) {
  std::shared_ptr<Unary> call;
  TimePoint deadline;
  std::string traceparent;
  bool late = false;
  {
    std::lock_guard lock(mutex);
    const auto it = under_way.find(id);
    if (it == under_way.end()) return;
    late = closing;
    call = std::make_shared<Unary>(this, id, it->second.message);
    it->second.unary = call;
    deadline = it->second.deadline;
    traceparent = it->second.traceparent;
    ++live_reactors;
  }
  if (late) call->Cancel();  // the destructor has cancelled what it saw, and waits
  call->Run(deadline, traceparent, call);
}

void GrpcClient::Impl::StreamEnded(Stream* ended, const grpc::Status& status) {
  std::vector<std::uint64_t> ids;
  bool again = false;
  {
    std::lock_guard lock(mutex);
    if (stream.get() == ended) stream = nullptr;
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED && options.stream == StreamMode::kAuto)
      again = stream_unimplemented = true;
    for (const auto& [id, u] : under_way) {
      if (u.unary == nullptr) ids.push_back(id);
    }
    again &= !closing;
  }
  for (const auto id : ids) {
    if (again) {
      SendUnary(id);
    } else {
      Complete(id, status.ok() ? Unavailable("the stream was closed by " + options.target) : FromGrpc(status));
    }
  }
}

GrpcClient::GrpcClient() = default;

Result<std::unique_ptr<GrpcClient>> GrpcClient::Create(GrpcClientOptions options) {
  QuietGrpc();
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    grpc::SslCredentialsOptions ssl;
    const auto read = [](const std::string& path, std::string* into) -> Status {
      if (path.empty()) return {};
      std::ifstream in(path, std::ios::binary);
      std::ostringstream text;
      text << in.rdbuf();
      if (!in) return InvalidArgument(path + " cannot be read");
      *into = text.str();
      return {};
    };
    RETURN_IF_ERROR(read(options.files.authority, &ssl.pem_root_certs));
    RETURN_IF_ERROR(read(options.files.certificate, &ssl.pem_cert_chain));
    RETURN_IF_ERROR(read(options.files.key, &ssl.pem_private_key));
    credentials = grpc::SslCredentials(ssl);
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(std::min<std::size_t>(options.max_message_bytes, 1u << 30)));
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // retries are the node's business, within its budget
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  // Despite its name, how long one attempt may take: a far parent needs four round trips, TLS included.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // With no more pings between data than the two that are gRPC's own limit: a stock server ends the connection of those
  // who send more, and with it every request under way.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  std::unique_ptr<GrpcClient> client(new GrpcClient);
  client->impl_ = std::make_unique<Impl>();
  client->impl_->options = std::move(options);
  client->impl_->channel = grpc::CreateCustomChannel(client->impl_->options.target, credentials, arguments);
  client->impl_->stub = inference::GRPCInferenceService::NewStub(client->impl_->channel);
  return client;
}

GrpcClient::~GrpcClient() {
  Impl& c = *impl_;
  std::shared_ptr<Impl::Stream> stream;
  std::vector<std::shared_ptr<Impl::Unary>> unary;
  {
    std::lock_guard lock(c.mutex);
    c.closing = true;
    stream = c.stream;
    for (const auto& [id, u] : c.under_way) {
      if (u.unary != nullptr) unary.push_back(u.unary);
    }
  }
  if (stream != nullptr) stream->Cancel();
  for (const auto& u : unary) u->Cancel();
  std::unique_lock lock(c.mutex);
  c.quiet.wait(lock, [&] { return c.live_reactors == 0; });
}

GrpcClient::Sent GrpcClient::Infer(const wire::InferRequest& request, TimePoint deadline,
                                   const std::string& traceparent, Done done) {
  Impl& c = *impl_;
  Sent sent;
  auto message = std::make_shared<inference::ModelInferRequest>();
  ToProto(request, message.get());
  std::shared_ptr<Impl::Stream> stream;
  bool fresh = false;
  std::unique_lock lock(c.mutex);
  if (c.under_way.size() >= c.options.max_under_way) {
    lock.unlock();
    done(ResourceExhausted(std::to_string(c.options.max_under_way) + " requests under way to " + c.options.target));
    return sent;
  }
  sent.id = c.next_id++;
  message->set_id(std::to_string(sent.id));
  sent.bytes = message->ByteSizeLong();
  c.under_way[sent.id] = {std::move(done), message, deadline, traceparent, nullptr};
  const bool streams =
      c.options.stream == StreamMode::kAlways || (c.options.stream == StreamMode::kAuto && !c.stream_unimplemented);
  if (streams) {
    if (c.stream == nullptr) {
      c.stream = std::make_shared<Impl::Stream>(impl_.get());
      ++c.live_reactors;
      fresh = true;
    }
    stream = c.stream;
  }
  lock.unlock();
  if (!streams) {
    c.SendUnary(sent.id);
    return sent;
  }
  if (fresh) stream->Run(stream);
  stream->Send(message);
  return sent;
}

void GrpcClient::Forget(std::uint64_t id) {
  Done done;
  std::shared_ptr<Impl::Unary> unary;
  {
    std::lock_guard lock(impl_->mutex);
    const auto it = impl_->under_way.find(id);
    if (it == impl_->under_way.end()) return;
    done = std::move(it->second.done);
    unary = std::move(it->second.unary);
    impl_->under_way.erase(it);
  }
  if (unary != nullptr) unary->Cancel();
}

bool GrpcClient::Connected() { return impl_->channel->GetState(true) == GRPC_CHANNEL_READY; }

namespace {

template <typename Request, typename Response, typename Call>
Status Ask(Duration patience, const Request& request, Response* response, Call call, grpc::ClientContext* context) {
  context->set_deadline(SystemDeadline(std::chrono::steady_clock::now() + patience));
  return FromGrpc(call(context, request, response));
}

}  // namespace

Result<wire::ServerMetadata> GrpcClient::ServerMetadata(Duration patience) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  inference::ServerMetadataResponse r;
  RETURN_IF_ERROR(Ask(
      patience, inference::ServerMetadataRequest(), &r,
      [&](auto* c, const auto& q, auto* out) { return impl_->stub->ServerMetadata(c, q, out); }, &context));
  wire::ServerMetadata m;
  m.name = r.name();
  m.version = r.version();
  m.extensions.assign(r.extensions().begin(), r.extensions().end());
  return m;
}

Result<wire::ModelMetadata> GrpcClient::ModelMetadata(const std::string& model, const std::string& version,
                                                      Duration patience) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  inference::ModelMetadataRequest q;
  q.set_name(model);
  q.set_version(version);
  inference::ModelMetadataResponse r;
  RETURN_IF_ERROR(Ask(
      patience, q, &r,
      [&](auto* c, const auto& request, auto* out) { return impl_->stub->ModelMetadata(c, request, out); }, &context));
  return FromProto(r);
}

Result<bool> GrpcClient::ServerReady(Duration patience) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  inference::ServerReadyResponse r;
  RETURN_IF_ERROR(Ask(
      patience, inference::ServerReadyRequest(), &r,
      [&](auto* c, const auto& q, auto* out) { return impl_->stub->ServerReady(c, q, out); }, &context));
  return r.ready();
}

Result<wire::InferResponse> GrpcClient::InferAndWait(const wire::InferRequest& request, Duration patience) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  inference::ModelInferRequest q;
  ToProto(request, &q);
  inference::ModelInferResponse r;
  RETURN_IF_ERROR(Ask(
      patience, q, &r,
      [&](auto* c, const auto& message, auto* out) { return impl_->stub->ModelInfer(c, message, out); }, &context));
  return FromProto(r);
}

Status GrpcClient::Load(const std::string& model, Duration patience) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  inference::RepositoryModelLoadRequest q;
  q.set_model_name(model);
  inference::RepositoryModelLoadResponse r;
  return Ask(
      patience, q, &r,
      [&](auto* c, const auto& request, auto* out) { return impl_->stub->RepositoryModelLoad(c, request, out); },
      &context);
}

Status GrpcClient::Unload(const std::string& model, Duration patience) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  inference::RepositoryModelUnloadRequest q;
  q.set_model_name(model);
  inference::RepositoryModelUnloadResponse r;
  return Ask(
      patience, q, &r,
      [&](auto* c, const auto& request, auto* out) { return impl_->stub->RepositoryModelUnload(c, request, out); },
      &context);
}

}  // namespace ganglion::net
