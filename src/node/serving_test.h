// For tests: nodes with real sockets in this process, clients of both fronts, and a parent that does what a test says.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/guarded.h"
#include "net/grpc_client.h"
#include "net/grpc_server.h"
#include "net/http_client.h"
#include "net/service.h"
#include "node/fixture_test.h"
#include "node/server.h"
#include "wire/json.h"
#include "wire/rest.h"

namespace ganglion::node::fixture {

using Row = std::array<float, 2>;
inline constexpr Row kEasy{3, .5f};         // label 0, which the device accepts
inline constexpr Row kHard{.001f, -.001f};  // which only the top accepts
inline constexpr Duration kPatience = std::chrono::seconds(10);

// Looks again and again until it is so, at most `patience`.
template <typename F>
bool Eventually(F&& so, Duration patience = kPatience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!so()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline wire::InferInput InputOf(const std::string& name, Tensor t) {
  wire::InferInput in;
  in.name = name;
  in.type = t.type();
  in.shape = t.shape();
  in.owned = std::move(t);
  in.bytes = in.owned->View().bytes;
  return in;
}

inline wire::InferRequest Ask(const std::vector<Row>& rows, const std::vector<std::string>& outputs = {},
                              const std::string& model = "plane", const std::string& input = "point") {
  std::vector<float> flat;
  for (const Row& r : rows) flat.insert(flat.end(), r.begin(), r.end());
  wire::InferRequest request;
  request.model = model;
  request.inputs.push_back(
      InputOf(input, Tensor::From<float>({static_cast<std::int64_t>(rows.size()), 2}, flat).value()));
  for (const auto& o : outputs) request.outputs.push_back({o, false, 0, {}, {}});
  return request;
}

inline const Tensor* Output(const wire::InferResponse& response, const std::string& name) {
  for (const auto& o : response.outputs) {
    if (o.name == name) return &o.tensor;
  }
  return nullptr;
}
template <typename T>
std::vector<T> Numbers(const wire::InferResponse& response, const std::string& name) {
  const Tensor* t = Output(response, name);
  if (t == nullptr || t->type() != tensor::DataTypeOf<T>::value) return {};
  return {t->As<T>().begin(), t->As<T>().end()};
}
inline std::vector<std::int64_t> Labels(const wire::InferResponse& r) { return Numbers<std::int64_t>(r, "label"); }
inline std::vector<bool> Flags(const wire::InferResponse& response, const std::string& name) {
  std::vector<bool> flags;
  if (const Tensor* t = Output(response, name)) {
    for (const std::byte b : t->View().bytes) flags.push_back(b != std::byte{0});
  }
  return flags;
}
inline Tensor TextTensor(const std::vector<std::string>& texts) {
  std::string bytes;
  for (const auto& t : texts) {
    const auto n = static_cast<std::uint32_t>(t.size());
    bytes.append(reinterpret_cast<const char*>(&n), sizeof n).append(t);
  }
  return Tensor::FromBytes(DataType::kBytes, {static_cast<std::int64_t>(texts.size())}, std::as_bytes(std::span(bytes)))
      .value();
}
inline std::vector<std::string> Texts(const wire::InferResponse& response, const std::string& name) {
  std::vector<std::string> texts;
  const Tensor* t = Output(response, name);
  if (t == nullptr) return texts;
  const auto bytes = t->View().bytes;
  for (std::size_t at = 0; at + 4 <= bytes.size();) {
    std::uint32_t n = 0;
    std::memcpy(&n, bytes.data() + at, 4);
    texts.emplace_back(reinterpret_cast<const char*>(bytes.data()) + at + 4, n);
    at += 4 + n;
  }
  return texts;
}
// A parameter as text, "(none)" when it is not there.
inline std::string TextOf(const wire::Parameters& parameters, const std::string& name) {
  const auto* value = wire::Find(parameters, name);
  if (value == nullptr) return "(none)";
  if (const auto* text = std::get_if<std::string>(value)) return *text;
  if (const auto* truth = std::get_if<bool>(value)) return *truth ? "true" : "false";
  if (const auto* integer = std::get_if<std::int64_t>(value)) return std::to_string(*integer);
  return std::to_string(std::get<double>(*value));
}
inline double NumberOf(const wire::Parameters& parameters, const std::string& name) {
  const auto found = wire::FindNumber(parameters, name);
  return found.ok() && *found ? **found : -1;
}

// The value of a series in Prometheus' text, -1 when it is not there: Metric(text, "ganglion_x_total", {{"kind",
// "y"}}).
inline double Metric(const std::string& text, const std::string& name,
                     const std::map<std::string, std::string>& labels = {}) {
  std::string series = name;  // labels stand in alphabetical order
  for (const auto& [label, value] : labels) {
    series += series == name ? '{' : ',';
    series.append(label).append("=\"").append(value).append("\"");
  }
  if (!labels.empty()) series += '}';
  const std::size_t at = ("\n" + text).find("\n" + series + " ");
  return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + series.size() + 1, nullptr);
}

// A client of one node, by both fronts.
class Client {
 public:
  explicit Client(const Server& server, const std::string& token = "") : Client(server.ports(), token) {}
  explicit Client(Server::Ports ports, std::string token = "") : ports_(ports), token_(std::move(token)) {
    net::GrpcClientOptions options;
    options.target = "127.0.0.1:" + std::to_string(ports_.grpc);
    options.token = token_;
    grpc_ = net::GrpcClient::Create(options).value();
  }

  Result<net::HttpAnswer> Http(const std::string& method, const std::string& path, const std::string& body = "",
                               std::vector<std::pair<std::string, std::string>> headers = {}) const {
    return To(ports_.http, method, path, body, std::move(headers));
  }
  // Status and body; 0 when nobody answered.
  std::pair<int, std::string> Get(const std::string& path) const { return Both(Http("GET", path)); }
  std::pair<int, std::string> Post(const std::string& path, const std::string& body = "") const {
    return Both(Http("POST", path, body));
  }
  // Of the port for metrics.
  std::string Metrics() const { return Both(To(ports_.metrics, "GET", "/metrics", "", {})).second; }
  wire::Json StatusDocument() const {
    wire::Json j;
    const ganglion::Status parsed = wire::ParseJson(Both(To(ports_.metrics, "GET", "/status", "", {})).second, &j);
    EXPECT_TRUE(parsed.ok()) << parsed.message();
    return j;
  }

  Result<wire::InferResponse> Rest(const wire::InferRequest& request, bool binary = true) const {
    const wire::RestBody body = wire::WriteInferRequest(request, binary);
    std::vector<std::pair<std::string, std::string>> headers;
    if (body.json_bytes) headers.emplace_back("Inference-Header-Content-Length", std::to_string(*body.json_bytes));
    const std::string version = request.version.empty() ? "" : "/versions/" + request.version;
    ASSIGN_OR_RETURN(const auto answer,
                     Http("POST", "/v2/models/" + request.model + version + "/infer", body.body, std::move(headers)));
    if (answer.status != 200) return ganglion::Status(wire::CodeFromHttp(answer.status), answer.body);
    const auto length = answer.Header("inference-header-content-length");
    return wire::ParseInferResponse(
        answer.body, length.empty() ? std::nullopt : std::optional<std::size_t>(std::stoul(std::string(length))));
  }
  Result<wire::InferResponse> Grpc(const wire::InferRequest& request) const {
    return grpc_->InferAndWait(request, kPatience);
  }
  net::GrpcClient& grpc() const { return *grpc_; }

 private:
  static std::pair<int, std::string> Both(const Result<net::HttpAnswer>& answer) {
    return answer.ok() ? std::pair(answer->status, answer->body) : std::pair(0, answer.status().message());
  }
  Result<net::HttpAnswer> To(int port, const std::string& method, const std::string& path, const std::string& body,
                             std::vector<std::pair<std::string, std::string>> headers) const {
    net::HttpQuestion q;
    q.method = method;
    q.url = "http://127.0.0.1:" + std::to_string(port) + path;
    q.body = body;
    q.headers = std::move(headers);
    if (!token_.empty()) q.headers.emplace_back("Authorization", "Bearer " + token_);
    return net::Ask(q, kPatience);
  }

  Server::Ports ports_;
  std::string token_;
  std::unique_ptr<net::GrpcClient> grpc_;
};

// A server of the protocol behind a real gRPC front, which remembers what it was asked and answers as it is told.
class FakeParent final : public net::Service {
 public:
  struct Seen {
    std::string model, version;
    wire::Parameters parameters;
    std::vector<std::string> outputs;
    std::vector<std::string> inputs;
    std::vector<float> numbers;  // of the first input
    std::int64_t rows = 0;
    bool unary = false;  // the transport itself had a deadline
    std::string traceparent;
  };
  using Handler = std::function<void(std::unique_ptr<net::InferCall>)>;

  explicit FakeParent(std::vector<std::string> extensions, int port = 0) : extensions_(std::move(extensions)) {
    Listen(port);
  }
  ~FakeParent() override { Stop(); }
  // Breaks its connections off. Listen brings it back.
  void Stop() {
    state_.With([](State& s) { s.stopping = true; });
    DropHeld();
    server_.reset();
  }
  void Listen(int port) {
    state_.With([](State& s) { s.stopping = false; });
    server_ = net::GrpcServer::Start({.address = "127.0.0.1:" + std::to_string(port)}, this).value();
    port_ = server_->port();
  }
  int port() const { return port_; }
  std::string Url() const { return "\"grpc://127.0.0.1:" + std::to_string(port_) + "\""; }

  void OnInfer(Handler handler) {
    state_.With([&](State& s) { s.handler = std::move(handler); });
  }
  // Keeps every request unanswered.
  void Hold() {
    OnInfer([this](std::unique_ptr<net::InferCall> call) {
      state_.With([&](State& s) {
        if (!s.stopping) s.held.push_back(std::move(call));
      });
      if (call != nullptr) call->Finish(Unavailable("stopping"));
    });
  }
  std::vector<std::unique_ptr<net::InferCall>> TakeHeld() {
    return state_.With([](State& s) { return std::exchange(s.held, {}); });
  }
  void DropHeld() {
    for (auto& call : TakeHeld()) call->Finish(Unavailable("dropped"));
  }
  std::size_t held() {
    return state_.With([](State& s) { return s.held.size(); });
  }
  std::vector<Seen> seen() {
    return state_.With([](State& s) { return s.seen; });
  }
  std::size_t asked() {
    return state_.With([](State& s) { return s.seen.size(); });
  }

  static std::size_t RowsOf(const net::InferCall& call) {
    return static_cast<std::size_t>(call.request.inputs.at(0).shape.at(0));
  }
  // What a node says: every row gets `label` at `tier`.
  static wire::InferResponse NodeAnswer(const net::InferCall& call, std::int64_t label,
                                        const std::string& tier = "global") {
    const std::size_t n = RowsOf(call);
    const auto rows = static_cast<std::int64_t>(n);
    wire::InferResponse r;
    r.model = call.request.model;
    r.outputs.push_back({"label", Tensor::From<std::int64_t>({rows}, std::vector<std::int64_t>(n, label)).value(), {}});
    r.outputs.push_back({"confidence", Tensor::From<float>({rows}, std::vector<float>(n, .875f)).value(), {}});
    r.outputs.push_back({"ganglion.tier", TextTensor(std::vector<std::string>(n, tier)), {}});
    r.outputs.push_back({"ganglion.stage", TextTensor(std::vector<std::string>(n, "fake")), {}});
    r.outputs.push_back({"ganglion.degraded",
                         Tensor::FromBytes(DataType::kBool, {rows}, std::vector<std::byte>(n, std::byte{0})).value(),
                         {}});
    r.outputs.push_back({"ganglion.decision_id", TextTensor(std::vector<std::string>(n, "from-above")), {}});
    return r;
  }
  void AnswerAsNode(std::int64_t label, const std::string& tier = "global") {
    OnInfer([label, tier](std::unique_ptr<net::InferCall> call) {
      auto answer = NodeAnswer(*call, label, tier);
      call->Finish(std::move(answer));
    });
  }

  // net::Service
  void Infer(std::unique_ptr<net::InferCall> call) override {
    Seen one;
    const wire::InferRequest& q = call->request;
    one.model = q.model;
    one.version = q.version;
    one.parameters = q.parameters;
    for (const auto& o : q.outputs) one.outputs.push_back(o.name);
    for (const auto& i : q.inputs) one.inputs.push_back(i.name);
    if (!q.inputs.empty()) {
      const auto numbers = q.inputs[0].View().As<float>();
      one.numbers.assign(numbers.begin(), numbers.end());
      one.rows = q.inputs[0].shape[0];
    }
    one.unary = call->context.deadline.has_value();
    one.traceparent = call->context.traceparent;
    Handler handler = state_.With([&](State& s) {
      s.seen.push_back(std::move(one));
      return s.handler;
    });
    if (handler) return handler(std::move(call));
    call->Finish(NotFound("nobody told me what to say"));
  }
  Status Allow(const net::CallContext&, net::Role) const override { return {}; }
  bool Live() const override { return true; }
  bool Ready() const override { return true; }
  bool ModelReady(const std::string&, const std::string&) const override { return true; }
  wire::ServerMetadata ServerMetadata() const override { return {"fake", "1", extensions_}; }
  Result<wire::ModelMetadata> ModelMetadata(const std::string&, const std::string&) const override {
    return Unimplemented("no");
  }
  Result<wire::ModelConfig> ModelConfig(const std::string&, const std::string&) const override {
    return Unimplemented("no");
  }
  Result<std::vector<wire::ModelStatistics>> Statistics(const std::string&, const std::string&) const override {
    return Unimplemented("no");
  }
  std::vector<wire::RepositoryEntry> RepositoryIndex(bool) const override { return {}; }
  void Load(const std::string&, std::function<void(Status)> done) override { done(Unimplemented("no")); }
  void Unload(const std::string&, std::function<void(Status)> done) override { done(Unimplemented("no")); }
  Result<std::vector<wire::SharedMemoryRegion>> SharedMemoryStatus(const std::string&) const override {
    return Unimplemented("no");
  }
  Status RegisterSharedMemory(const wire::SharedMemoryRegion&) override { return Unimplemented("no"); }
  Status UnregisterSharedMemory(const std::string&) override { return Unimplemented("no"); }
  std::string MetricsText() const override { return ""; }
  std::string StatusJson() const override { return "{}"; }

 private:
  struct State {
    Handler handler;
    std::vector<Seen> seen;
    std::vector<std::unique_ptr<net::InferCall>> held;
    bool stopping = false;
  };
  Guarded<State> state_;
  const std::vector<std::string> extensions_;
  int port_ = 0;
  std::unique_ptr<net::GrpcServer> server_;
};

inline const std::vector<std::string> kTellsGlobal{"ganglion.tier=global"};
inline const std::vector<std::string> kTellsEdge{"ganglion.tier=edge"};

// A port of loopback that is bound: silent when it listens, so that connections are made and nothing is ever said;
// refusing when it does not.
class Hole {
 public:
  explicit Hole(bool listens) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    if (listens) {
      EXPECT_EQ(::listen(fd_, 64), 0);
    }
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Hole() { Close(); }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  int port() const { return port_; }
  std::string Url() const { return "\"grpc://127.0.0.1:" + std::to_string(port_) + "\""; }

 private:
  int fd_;
  int port_ = 0;
};

class ServingDir : public DecisionDir {
 protected:
  // A node on free ports. `rest` is node.yaml without listen and log.
  Result<std::unique_ptr<Server>> TryStart(const std::string& rest, const std::string& grpc_address = "127.0.0.1:0") {
    const std::string yaml = "listen: {http: \"127.0.0.1:0\", grpc: \"" + grpc_address +
                             "\", metrics: \"127.0.0.1:0\"}\nlog: {level: error}\n" + rest;
    ASSIGN_OR_RETURN(auto config, ParseNodeFile(yaml, dir_, "node.yaml"));
    ASSIGN_OR_RETURN(auto server, Server::Create(engine_, std::move(config)));
    RETURN_IF_ERROR(server->Listen());
    return server;
  }
  std::unique_ptr<Server> Start(const std::string& rest, const std::string& grpc_address = "127.0.0.1:0") {
    auto server = TryStart(rest, grpc_address);
    EXPECT_TRUE(server.ok()) << server.status().message();
    return server.ok() ? std::move(*server) : nullptr;
  }
  static std::string Url(const Server& server) {
    return "\"grpc://127.0.0.1:" + std::to_string(server.ports().grpc) + "\"";
  }
  // A device that has heard from its parents; at once where they are not there to be heard.
  std::unique_ptr<Server> StartDevice(const std::string& parents, const std::string& more = "") {
    auto device = StartAlone(parents, more);
    EXPECT_TRUE(device != nullptr && Eventually([&] {
                  const auto all = device->parents().Look();
                  return std::all_of(all.begin(), all.end(), [](const auto& parent) { return parent.up; });
                }));
    return device;
  }
  std::unique_ptr<Server> StartAlone(const std::string& parents, const std::string& more = "") {
    return Start("tier: device\ndecisions: [.]\nparents: [" + parents + "]\n" + more);
  }
  static bool ParentUp(const Server& server, std::size_t i = 0) {
    return const_cast<Server&>(server).parents().Look().at(i).up;
  }

  // Rows of MakePoints(400, 9) that the whole decision decides at `tier`.
  std::vector<Row> RowsDecidedAt(topology::Tier tier) {
    const auto decision = Decision::Open(engine_, dir_).value();
    std::vector<Row> rows;
    const SteadyClock clock;
    const auto points = MakePoints(400, 9);
    for (std::int64_t r = 0; r < 400; ++r) {
      tensor::Shape shape;
      const auto view = tensor::Rows(points.x.View(), r, r + 1, &shape);
      const auto decided = decision->Decide({&view, 1}, clock, clock.Now() + kPatience);
      if (decided.ok() && decided->tier == tier) rows.push_back({view.As<float>()[0], view.As<float>()[1]});
    }
    return rows;
  }
};

}  // namespace ganglion::node::fixture
