// How fast a node answers: against an echo in the same server and build, over each way in, with and without the cache.
// Two cores are shared by client and server. Ratios are of medians of alternating runs.
//
// HTTP is loaded by wrk where it is installed (tools/setup.sh bench); latencies of one connection and of the mailbox by
// a blocking client of ours, the same for both sides of a ratio.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/random.h"
#include "cache_traces.h"
#include "data/file.h"
#include "figures.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "net/http_server.h"
#include "net/inference.grpc.pb.h"
#include "net/mailbox.h"
#include "node/server.h"
#include "wire/rest.h"

namespace ganglion::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using tensor::DataType;
using tensor::Tensor;

double g_scale = 1;  // GANGLION_BENCH_SCALE: shorter runs, for trying

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

std::string Linear(std::int64_t in, std::int64_t out) {
  Random random(7);
  std::vector<float> w(static_cast<std::size_t>(in * out));
  for (float& v : w) v = static_cast<float>(random.Normal());
  onnx::ModelProto model;
  graph::GraphBuilder g(&model);
  g.Input({"x", DataType::kFp32, {-1, in}});
  g.Initializer("w", Tensor::From<float>({in, out}, w).value());
  g.Node("MatMul", {"x", "w"}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, out}});
  return graph::Serialize(model);
}

std::vector<float> Numbers(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> v(n);
  for (float& x : v) x = std::round(static_cast<float>(random.Uniform()) * 10000) / 10000;
  return v;
}

struct Body {
  std::string bytes;
  std::size_t json = 0;  // 0: all of it
};

Body MakeBody(std::int64_t rows, std::int64_t width, bool binary, std::uint64_t seed = 1) {
  const auto values = Numbers(static_cast<std::size_t>(rows * width), seed);
  const auto t = Tensor::From<float>({rows, width}, values).value();
  wire::InferRequest r;
  wire::InferInput in;
  in.name = "x";
  in.shape = {rows, width};
  in.bytes = t.View().bytes;
  r.inputs.push_back(std::move(in));
  r.binary_output = binary;
  auto body = wire::WriteInferRequest(r, binary);
  return {std::move(body.body), body.json_bytes.value_or(0)};
}

// ---- wrk
// -------------------------------------------------------------------------------------------------------------

struct WrkResult {
  bool ok = false;
  double p50_us = 0;
  double p99_us = 0;
  double per_s = 0;
};

double ParseTime(const std::string& text) {
  const double v = std::strtod(text.c_str(), nullptr);
  return text.find("us") != std::string::npos ? v : text.find("ms") != std::string::npos ? v * 1e3 : v * 1e6;
}

class Wrk {
 public:
  explicit Wrk(fs::path dir) : dir_(std::move(dir)) { there_ = std::system("command -v wrk >/dev/null 2>&1") == 0; }
  bool there() const { return there_; }

  WrkResult Run(int port, const std::string& path, const Body& body, int connections, double seconds) const {
    const fs::path file = dir_ / "body";
    const fs::path script = dir_ / "post.lua";
    (void)data::WriteFileAtomically(file, body.bytes);
    std::string lua = fmt::format(
        "local f = io.open(\"{}\", \"rb\")\nwrk.body = f:read(\"*a\")\nwrk.method = \"POST\"\n", file.string());
    if (body.json > 0) lua += fmt::format("wrk.headers[\"Inference-Header-Content-Length\"] = \"{}\"\n", body.json);
    (void)data::WriteFileAtomically(script, lua);
    const std::string command = fmt::format("wrk -t1 -c{} -d{:.0f} --latency -s {} http://127.0.0.1:{}{} 2>&1",
                                            connections, std::max(1.0, seconds * g_scale), script.string(), port, path);
    WrkResult r;
    FILE* p = ::popen(command.c_str(), "r");
    if (p == nullptr) return r;
    char line[512];
    r.ok = true;
    std::string all;
    while (std::fgets(line, sizeof line, p) != nullptr) {
      const std::string s = line;
      all += s;
      if (s.find("Non-2xx") != std::string::npos || s.find("Socket errors") != std::string::npos) r.ok = false;
      if (s.find("50%") != std::string::npos) r.p50_us = ParseTime(s.substr(s.find("50%") + 3));
      if (s.find("99%") != std::string::npos) r.p99_us = ParseTime(s.substr(s.find("99%") + 3));
      if (s.rfind("Requests/sec:", 0) == 0) r.per_s = std::strtod(s.c_str() + 13, nullptr);
    }
    ::pclose(p);
    if (!r.ok) fmt::print(stderr, "bench_serve: wrk on {} saw errors:\n{}", path, all);
    return r;
  }

 private:
  fs::path dir_;
  bool there_ = false;
};

// ---- a blocking HTTP client
// --------------------------------------------------------------------------------------------

// How a client waits for its answer. One that sleeps has its core halted; on a virtual machine waking it takes some 20
// microseconds, more than an answer, on both sides of a ratio and on neither in the same way: just before a host stops
// to poll for a halted guest or just after. One that watches its socket sees what the server takes.
enum class Waits { kAsleep, kWatching };

class Http {
 public:
  explicit Http(int port, Waits waits = Waits::kAsleep) : flags_(waits == Waits::kWatching ? MSG_DONTWAIT : 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<std::uint16_t>(port));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    GANGLION_CHECK(::connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
    const int one = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  ~Http() { ::close(fd_); }
  static std::string Request(const std::string& path, const Body& body) {
    std::string r = fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", path, body.bytes.size());
    if (body.json > 0) r += fmt::format("Inference-Header-Content-Length: {}\r\n", body.json);
    return r + "\r\n" + body.bytes;
  }
  // The status.
  int Ask(const std::string& request) {
    GANGLION_CHECK(::send(fd_, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size()));
    buffer_.clear();
    std::size_t want = std::string::npos;
    char block[65536];
    while (buffer_.size() < want) {
      const ssize_t n = ::recv(fd_, block, sizeof block, flags_);
      if (n < 0 && errno == EAGAIN) continue;
      GANGLION_CHECK(n > 0);
      buffer_.append(block, static_cast<std::size_t>(n));
      if (want != std::string::npos) continue;
      const auto end = buffer_.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      const auto length = buffer_.find("Content-Length: ");
      want = end + 4 + std::strtoull(buffer_.c_str() + length + 16, nullptr, 10);
    }
    return std::atoi(buffer_.c_str() + 9);
  }

 private:
  const int flags_;
  int fd_ = -1;
  std::string buffer_;
};

// Median of `what`'s time in microseconds over so long a run.
double MedianOf(double seconds, const std::function<void()>& what) {
  std::vector<double> times;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds * g_scale);
  while (Clock::now() < end) {
    const auto t = Clock::now();
    what();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - t).count());
  }
  return Median(std::move(times));
}

// Alternates two sides and gives the medians of both.
std::pair<double, double> Paired(int rounds, double seconds, const std::function<void()>& one,
                                 const std::function<void()>& other) {
  std::vector<double> a, b;
  for (int i = 0; i < rounds; ++i) {
    a.push_back(MedianOf(seconds, one));
    b.push_back(MedianOf(seconds, other));
  }
  return {Median(a), Median(b)};
}

// ---- gRPC
// ------------------------------------------------------------------------------------------------------------

// Answers every request with the same bytes, at once: what gRPC itself costs.
class EchoService final : public inference::GRPCInferenceService::CallbackService {
 public:
  inference::ModelInferResponse answer;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context, const inference::ModelInferRequest*,
                                       inference::ModelInferResponse* response) override {
    *response = answer;
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

inference::ModelInferRequest GrpcRequest(const std::string& model, std::int64_t rows, std::int64_t width) {
  const auto values = Numbers(static_cast<std::size_t>(rows * width), 1);
  inference::ModelInferRequest q;
  q.set_model_name(model);
  auto* in = q.add_inputs();
  in->set_name("x");
  in->set_datatype("FP32");
  in->add_shape(rows);
  in->add_shape(width);
  q.add_raw_input_contents(values.data(), values.size() * sizeof(float));
  return q;
}

std::unique_ptr<inference::GRPCInferenceService::Stub> Stub(int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return inference::GRPCInferenceService::NewStub(
      grpc::CreateCustomChannel(fmt::format("127.0.0.1:{}", port), grpc::InsecureChannelCredentials(), arguments));
}

inference::ModelInferResponse AskGrpc(inference::GRPCInferenceService::Stub* stub,
                                      const inference::ModelInferRequest& q) {
  grpc::ClientContext context;
  inference::ModelInferResponse r;
  const grpc::Status s = stub->ModelInfer(&context, q, &r);
  if (!s.ok()) {
    fmt::print(stderr, "bench_serve: gRPC: {}\n", s.error_message());
    std::exit(1);
  }
  return r;
}

// Requests a second with so many threads that wait for their answers.
double GrpcPerSecond(int port, const inference::ModelInferRequest& q, int threads, double seconds) {
  std::atomic<std::uint64_t> count{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> all;
  const auto began = Clock::now();
  for (int i = 0; i < threads; ++i) {
    all.emplace_back([&] {
      const auto stub = Stub(port);
      while (!stop) {
        AskGrpc(stub.get(), q);
        ++count;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds * g_scale));
  stop = true;
  for (auto& t : all) t.join();
  return static_cast<double>(count) / std::chrono::duration<double>(Clock::now() - began).count();
}

Result<std::unique_ptr<node::Server>> StartNode(const std::shared_ptr<runtime::Engine>& engine, const fs::path& dir,
                                                bool cache) {
  const std::string text = fmt::format(
      "tier: device\nnode: bench\nmodels: [{{name: four, file: four.onnx}}, {{name: image, file: image.onnx}}]\n"
      "listen: {{http: \"127.0.0.1:0\", grpc: \"127.0.0.1:0\", metrics: off, mailbox: {}.mailbox}}\ncache: {}\n"
      "log: {{level: error}}\n",
      cache ? "cached" : "plain", cache ? "{memory: 64MB}" : "off");
  ASSIGN_OR_RETURN(auto config, node::ParseNodeFile(text, dir, "bench"));
  ASSIGN_OR_RETURN(auto server, node::Server::Create(engine, std::move(config)));
  RETURN_IF_ERROR(server->Listen());
  return server;
}

int Main() {
  if (const char* scale = std::getenv("GANGLION_BENCH_SCALE")) g_scale = std::strtod(scale, nullptr);
  const fs::path dir = fs::temp_directory_path() / fmt::format("ganglion-bench-serve-{}", ::getpid());
  fs::create_directories(dir);
  (void)data::WriteFileAtomically(dir / "four.onnx", Linear(4, 3));
  (void)data::WriteFileAtomically(dir / "image.onnx", Linear(784, 10));
  const auto engine = runtime::Engine::Create();
  auto plain = StartNode(*engine, dir, false);
  auto cached = StartNode(*engine, dir, true);
  if (!plain.ok() || !cached.ok()) {
    fmt::print(stderr, "bench_serve: {}\n", (plain.ok() ? cached : plain).status().message());
    return 1;
  }
  net::HttpServerOptions echo_options;
  echo_options.address = "127.0.0.1:0";
  echo_options.threads = 2;
  auto echo = net::HttpServer::Start(echo_options, [](const net::HttpRequest& q, net::HttpReply reply) {
    reply.Send({200, std::string(q.body), "application/octet-stream", {}});
  });
  const int port = (*plain)->ports().http;
  const int echo_port = (*echo)->port();
  Figures figures("serve");
  const Wrk wrk(dir);
  if (!wrk.there())
    fmt::print(stderr, "bench_serve: wrk is not installed (tools/setup.sh bench); its rows are left out\n");

  // REST against an echo of equal bytes.
  for (const auto& [model, width] : {std::pair("four", 4), std::pair("image", 784)}) {
    for (const bool binary : {false, true}) {
      const Body body = MakeBody(1, width, binary);
      Http a(port, Waits::kWatching), b(echo_port, Waits::kWatching);
      const auto infer_request = Http::Request(fmt::format("/v2/models/{}/infer", model), body);
      const auto echo_request = Http::Request("/", body);
      const auto [infer, base] = Paired(
          7, .7, [&] { a.Ask(infer_request); }, [&] { b.Ask(echo_request); });
      figures.Add({fmt::format("REST p50 against an HTTP echo, {} floats, {}, watching client", width,
                               binary ? "binary" : "JSON"),
                   infer, "us", base, "<= 1.5x"});
    }
  }
  if (wrk.there()) {
    for (const auto& [model, width] : {std::pair("four", 4), std::pair("image", 784)}) {
      for (const bool binary : {false, true}) {
        const Body body = MakeBody(1, width, binary);
        std::vector<double> infer, base;
        for (int i = 0; i < 5; ++i) {
          base.push_back(wrk.Run(echo_port, "/", body, 1, 1).p50_us);
          infer.push_back(wrk.Run(port, fmt::format("/v2/models/{}/infer", model), body, 1, 1).p50_us);
        }
        figures.Add({fmt::format("REST p50 against an HTTP echo, {} floats, {}, sleeping client", width,
                                 binary ? "binary" : "JSON"),
                     Median(infer), "us", Median(base), "<= 1.5x"});
      }
    }
    const WrkResult most = wrk.Run(port, "/v2/models/four/infer", MakeBody(1, 4, true), 32, 5);
    figures.Add(
        {"REST throughput, 4 floats, binary, 32 connections", most.per_s, "requests/s", std::nullopt, ">= 30000"});
    const WrkResult json = wrk.Run(port, "/v2/models/four/infer", MakeBody(1, 4, false), 32, 5);
    figures.Add(
        {"REST throughput, 4 floats, JSON, 32 connections", json.per_s, "requests/s", std::nullopt, ">= 30000"});
    const WrkResult batch = wrk.Run(port, "/v2/models/four/infer", MakeBody(64, 4, true), 32, 5);
    figures.Add({"REST rows a second in batches of 64, 4 floats a row", 64 * batch.per_s, "rows/s", std::nullopt,
                 ">= 1000000"});
    const WrkResult wide = wrk.Run(port, "/v2/models/image/infer", MakeBody(64, 784, true), 16, 5);
    figures.Add({"REST rows a second in batches of 64, 784 floats a row", 64 * wide.per_s, "rows/s", std::nullopt, ""});
  }

  // gRPC against an empty echo.
  {
    EchoService service;
    for (const auto& [model, width] : {std::pair("four", 4), std::pair("image", 784)}) {
      const auto q = GrpcRequest(model, 1, width);
      const auto stub = Stub((*plain)->ports().grpc);
      service.answer = AskGrpc(stub.get(), q);
      grpc::ServerBuilder builder;
      int grpc_echo = 0;
      builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &grpc_echo);
      builder.RegisterService(&service);
      const auto server = builder.BuildAndStart();
      const auto echo_stub = Stub(grpc_echo);
      const auto [infer, base] = Paired(
          7, 1, [&] { AskGrpc(stub.get(), q); }, [&] { AskGrpc(echo_stub.get(), q); });
      figures.Add({fmt::format("gRPC p50 against an empty echo, {} floats", width), infer, "us", base, "<= 1.15x"});
      std::vector<double> rate, echo_rate;
      for (int i = 0; i < 5; ++i) {
        rate.push_back(GrpcPerSecond((*plain)->ports().grpc, q, 4, 2));
        echo_rate.push_back(GrpcPerSecond(grpc_echo, q, 4, 2));
      }
      figures.Add({fmt::format("gRPC throughput against an empty echo, {} floats, 4 callers", width), Median(rate),
                   "requests/s", Median(echo_rate), ">= 0.85x"});
      server->Shutdown();
    }
    const double batch = GrpcPerSecond((*plain)->ports().grpc, GrpcRequest("four", 64, 4), 4, 4);
    figures.Add({"gRPC rows a second in batches of 64, 4 floats a row", 64 * batch, "rows/s", std::nullopt, ""});
  }

  // On one machine: shared memory, and the mailbox.
  {
    const std::string key = fmt::format("/ganglion-bench-{}", ::getpid());
    const int fd = ::shm_open(key.c_str(), O_CREAT | O_RDWR, 0600);
    const auto values = Numbers(784, 1);
    GANGLION_CHECK(fd >= 0 && ::ftruncate(fd, 8192) == 0 && ::pwrite(fd, values.data(), 3136, 0) == 3136);
    Status registered = (*plain)->RegisterSharedMemory({"bench", key, 0, 8192});
    GANGLION_CHECK(registered.ok());
    // The input lies in the region; the ten scores come back in the reply, as they do over binary REST.
    const Body shared{R"({"inputs":[{"name":"x","shape":[1,784],"datatype":"FP32",)"
                      R"("parameters":{"shared_memory_region":"bench","shared_memory_byte_size":3136}}],)"
                      R"("parameters":{"binary_data_output":true}})",
                      0};
    const Body binary = MakeBody(1, 784, true);
    const Body json = MakeBody(1, 784, false);
    const std::string path = "/v2/models/image/infer";
    const auto shared_request = Http::Request(path, shared);
    const auto binary_request = Http::Request(path, binary);
    const auto json_request = Http::Request(path, json);
    for (const Waits waits : {Waits::kWatching, Waits::kAsleep}) {
      const char* client = waits == Waits::kWatching ? "watching client" : "sleeping client";
      Http a(port, waits), b(port, waits), c(port, waits);
      GANGLION_CHECK(a.Ask(shared_request) == 200 && b.Ask(binary_request) == 200 && c.Ask(json_request) == 200);
      const auto [shm, over_binary] = Paired(
          9, .7, [&] { a.Ask(shared_request); }, [&] { b.Ask(binary_request); });
      figures.Add({fmt::format("system shared memory against binary REST, p50, 784 floats, {}", client), shm, "us",
                   over_binary, "<= 0.95x"});
      const auto [shm2, over_json] = Paired(
          9, .7, [&] { a.Ask(shared_request); }, [&] { c.Ask(json_request); });
      figures.Add({fmt::format("system shared memory against JSON REST, p50, 784 floats, {}", client), shm2, "us",
                   over_json, "<= 0.6x"});
    }
    Http b(port);
    auto mailbox = net::MailboxClient::Connect((dir / "plain.mailbox").string());
    if (mailbox.ok()) {
      const auto ask = [&] {
        const auto answer = (*mailbox)->Ask("POST", path, binary.bytes, binary.json, std::chrono::seconds(5));
        GANGLION_CHECK(answer.ok() && answer->status == 200);
      };
      const auto [box, rest] = Paired(9, .7, ask, [&] { b.Ask(binary_request); });
      figures.Add(
          {"mailbox (shared memory and futex) against binary REST, p50, 784 floats", box, "us", rest, "<= 0.5x"});
    } else {
      fmt::print(stderr, "bench_serve: {}\n", mailbox.status().message());
    }
    ::shm_unlink(key.c_str());
  }

  // The cache on traffic that never repeats.
  {
    Http with((*cached)->ports().http), without(port);
    Body body = MakeBody(1, 784, true);
    std::string request = Http::Request("/v2/models/image/infer", body);
    std::uint32_t n = 0;
    const auto next = [&]() -> const std::string& {
      const float v = static_cast<float>(++n) / 16777216.f;
      std::memcpy(request.data() + request.size() - 4, &v, 4);
      return request;
    };
    for (int i = 0; i < 60'000; ++i) with.Ask(next());  // until it has found out
    const auto [on, off] = Paired(
        25, .4, [&] { with.Ask(next()); }, [&] { without.Ask(next()); });
    figures.Add({"cache, 100 % unique requests of 784 floats: p50 against no cache", on, "us", off, "<= 1.02x"});
  }
  AddCacheFigures(&figures);
  fs::remove_all(dir);
  return figures.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main() { return ganglion::bench::Main(); }
