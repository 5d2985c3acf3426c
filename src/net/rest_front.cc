#include "net/rest_front.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "wire/outcome.h"
#include "wire/rest.h"

namespace ganglion::net {
namespace {

using Parts = std::vector<std::string>;

HttpResponse Document(std::string body) { return {200, std::move(body), "application/json", {}}; }

HttpResponse Error(const Status& status) {
  HttpResponse r{wire::HttpStatus(status.code()), wire::WriteError(status), "application/json", {}};
  if (status.code() == Code::kUnauthenticated) r.headers.emplace_back("WWW-Authenticate", "Bearer");
  return r;
}

HttpResponse Error(int status, const std::string& message) {
  return {status, wire::WriteError(InvalidArgument(message)), "application/json", {}};
}

CallContext ContextOf(const HttpRequest& http) {
  CallContext c;
  c.front = http.front;
  c.received = http.received;
  c.traceparent = http.Header("traceparent");
  const auto authorization = http.Header("authorization");
  if (authorization.size() > 7 && (authorization.substr(0, 7) == "Bearer " || authorization.substr(0, 7) == "bearer "))
    c.token = authorization.substr(7);
  c.peer_verified = http.peer_verified;
  c.may_run_here = true;
  return c;
}

int Hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "/v2/models/a%20b?x" into {"v2", "models", "a b"}. False: no path, or a wrong escape.
bool Split(std::string_view target, Parts* parts) {
  target = target.substr(0, target.find('?'));
  if (target.empty() || target[0] != '/') return false;
  std::string part;
  for (std::size_t i = 1; i <= target.size(); ++i) {
    if (i == target.size() || target[i] == '/') {
      if (!part.empty()) parts->push_back(std::exchange(part, ""));
    } else if (target[i] == '%') {
      if (i + 2 >= target.size() || Hex(target[i + 1]) < 0 || Hex(target[i + 2]) < 0) return false;
      part += static_cast<char>(Hex(target[i + 1]) * 16 + Hex(target[i + 2]));
      i += 2;
    } else {
      part += target[i];
    }
  }
  return true;
}

class HttpInferCall final : public InferCall {
 public:
  HttpInferCall(HttpReply reply, std::string_view body) : reply_(std::move(reply)), body_(body) {}
  void Finish(Result<wire::InferResponse> response) override {
    if (!response.ok()) {
      HttpResponse r = Error(response.status());
      if (retry_after) {
        const double ms = std::max(1.0, std::ceil(Milliseconds(*retry_after)));
        r.headers.emplace_back("Retry-After", std::to_string(static_cast<long>(std::ceil(ms / 1000))));
        r.headers.emplace_back("Retry-After-Ms", std::to_string(static_cast<long>(ms)));
      }
      return reply_.Send(std::move(r));
    }
    wire::RestBody out = wire::WriteInferResponse(*response, request);
    HttpResponse r = Document(std::move(out.body));
    if (out.json_bytes) {
      r.content_type = "application/octet-stream";
      r.headers.emplace_back("Inference-Header-Content-Length", std::to_string(*out.json_bytes));
    }
    reply_.Send(std::move(r));
  }
  std::string_view body() const { return body_; }

 private:
  HttpReply reply_;
  std::string_view body_;
};

void Infer(Service* service, const HttpRequest& http, HttpReply reply, std::string model, std::string version) {
  const auto encoding = http.Header("content-encoding");
  if (!encoding.empty() && encoding != "identity")
    return reply.Send(
        Error(415, "Content-Encoding \"" + std::string(encoding) + "\" is not supported; send the body as it is"));
  std::optional<std::size_t> json_bytes;
  const auto header = http.Header("inference-header-content-length");
  if (!header.empty()) {
    std::size_t n = 0;
    const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), n);
    if (error != std::errc() || end != header.data() + header.size())
      return reply.Send(
          Error(400, "Inference-Header-Content-Length \"" + std::string(header) + "\" is no number of bytes"));
    json_bytes = n;
  }
  auto call = std::make_unique<HttpInferCall>(std::move(reply), http.body);
  call->context = ContextOf(http);
  auto parsed = wire::ParseInferRequest(http.body, json_bytes, {}, http.body.size() + kBodyPadding);
  if (parsed.ok() && json_bytes == std::size_t{0}) {
    if (Status s = service->Allow(call->context, Role::kInfer); !s.ok()) return call->Finish(std::move(s));
    const auto metadata = service->ModelMetadata(model, version);
    parsed = metadata.ok() ? wire::RawInferRequest(http.body, metadata->inputs) : metadata.status();
  }
  if (!parsed.ok()) return call->Finish(parsed.status());
  call->request = std::move(*parsed);
  call->request.model = std::move(model);
  call->request.version = std::move(version);
  service->Infer(std::move(call));
}

struct Route {
  Service* service;
  const HttpRequest& http;
  HttpReply& reply;

  void Send(HttpResponse r) const { reply.Send(std::move(r)); }
  template <typename T, typename Write>
  void SendResult(const Result<T>& result, Write write) const {
    Send(result.ok() ? Document(write(*result)) : Error(result.status()));
  }
  void SendStatus(const Status& status) const {
    Send(status.ok() ? HttpResponse{200, "", "application/json", {}} : Error(status));
  }
  bool Method(std::string_view wanted) const {
    if (http.method == wanted || (wanted == "GET" && http.method == "HEAD")) return true;
    HttpResponse r = Error(405, std::string(http.method) + " is not allowed here; use " + std::string(wanted));
    r.headers.emplace_back("Allow", std::string(wanted));
    Send(std::move(r));
    return false;
  }
  // False: refused, and answered so.
  bool Allowed(Role role) const {
    const Status s = service->Allow(ContextOf(http), role);
    if (!s.ok()) Send(Error(s));
    return s.ok();
  }
  void NotFoundHere() const { Send(Error(404, "there is nothing at " + std::string(http.target.substr(0, 200)))); }
};

void Health(const Route& r, const Parts& p) {
  if (p.size() != 3 || (p[2] != "live" && p[2] != "ready")) return r.NotFoundHere();
  if (!r.Method("GET")) return;
  const bool good = p[2] == "live" ? r.service->Live() : r.service->Ready();
  r.Send(good ? HttpResponse{200, "", "application/json", {}} : Error(503, "not " + p[2]));
}

void Models(const Route& r, const Parts& p) {
  // /v2/models/stats, unless a model has that name and more of the path follows.
  if (p.size() == 3 && p[2] == "stats") {
    if (!r.Method("GET") || !r.Allowed(Role::kInfer)) return;
    return r.SendResult(r.service->Statistics("", ""), [](const auto& s) { return wire::WriteModelStatistics(s); });
  }
  if (p.size() < 3) return r.NotFoundHere();
  const std::string& model = p[2];
  std::string version;
  std::size_t at = 3;
  if (p.size() > 4 && p[3] == "versions") {
    version = p[4];
    at = 5;
  }
  const std::string what = at < p.size() ? p[at] : "";
  if (p.size() > at + 1) return r.NotFoundHere();
  if (what == "infer") {
    if (r.Method("POST")) Infer(r.service, r.http, std::move(r.reply), model, version);
  } else if (what == "ready") {
    if (!r.Method("GET")) return;
    const bool ready = r.service->ModelReady(model, version);
    r.Send(ready ? HttpResponse{200, "", "application/json", {}} : Error(400, "model \"" + model + "\" is not ready"));
  } else if (what == "outcome") {
    if (!r.Method("POST") || !r.Allowed(Role::kInfer)) return;
    const auto outcome = wire::ParseOutcome(r.http.body);
    r.SendStatus(outcome.ok() ? r.service->Report(model, version, *outcome) : outcome.status());
  } else if (what == "learned") {
    if (!r.Method("GET") || !r.Allowed(Role::kOperate)) return;
    auto learned = r.service->Learned(model, version);
    r.Send(learned.ok() ? HttpResponse{200, std::move(*learned), "application/octet-stream", {}}
                        : Error(learned.status()));
  } else if (what.empty() || what == "config" || what == "stats") {
    if (!r.Method("GET") || !r.Allowed(Role::kInfer)) return;
    if (what.empty()) return r.SendResult(r.service->ModelMetadata(model, version), wire::WriteModelMetadata);
    if (what == "config") return r.SendResult(r.service->ModelConfig(model, version), wire::WriteModelConfig);
    r.SendResult(r.service->Statistics(model, version), [](const auto& s) { return wire::WriteModelStatistics(s); });
  } else {
    r.NotFoundHere();
  }
}

void Repository(const Route& r, const Parts& p) {
  if (p.size() == 3 && p[2] == "index") {
    if (!r.Method("POST") || !r.Allowed(Role::kInfer)) return;
    const auto request = wire::ParseRepositoryIndexRequest(r.http.body);
    return r.SendResult(request,
                        [&](const auto& q) { return wire::WriteRepositoryIndex(r.service->RepositoryIndex(q.ready)); });
  }
  if (p.size() == 5 && p[2] == "models" && (p[4] == "load" || p[4] == "unload")) {
    if (!r.Method("POST") || !r.Allowed(Role::kOperate)) return;
    auto reply = std::make_shared<HttpReply>(std::move(r.reply));
    const auto done = [reply](const Status& s) {
      reply->Send(s.ok() ? HttpResponse{200, "", "application/json", {}} : Error(s));
    };
    return p[4] == "load" ? r.service->Load(p[3], done) : r.service->Unload(p[3], done);
  }
  r.NotFoundHere();
}

void SharedMemory(const Route& r, const Parts& p) {
  const bool one = p.size() == 5 && p[2] == "region";
  if (!one && p.size() != 3) return r.NotFoundHere();
  const std::string region = one ? p[3] : "";
  const std::string& what = p.back();
  if (what == "status") {
    if (!r.Method("GET") || !r.Allowed(Role::kInfer)) return;
    return r.SendResult(r.service->SharedMemoryStatus(region),
                        [](const auto& all) { return wire::WriteSharedMemoryStatus(all); });
  }
  if ((what != "register" || !one) && what != "unregister") return r.NotFoundHere();
  if (!r.Method("POST") || !r.Allowed(Role::kInfer)) return;
  if (what == "unregister") return r.SendStatus(r.service->UnregisterSharedMemory(region));
  const auto request = wire::ParseSharedMemoryRegister(region, r.http.body);
  r.SendStatus(request.ok() ? r.service->RegisterSharedMemory(*request) : request.status());
}

void Metrics(const Route& r, const Parts& p) {
  if (p.size() == 1 && (p[0] == "metrics" || p[0] == "status")) {
    if (!r.Method("GET") || !r.Allowed(Role::kInfer)) return;
    if (p[0] == "status") return r.Send(Document(r.service->StatusJson()));
    return r.Send({200, r.service->MetricsText(), "text/plain; version=0.0.4; charset=utf-8", {}});
  }
  r.NotFoundHere();
}

}  // namespace

HttpHandler MakeRestFront(Service* service) {
  return [service](const HttpRequest& http, HttpReply reply) {
    const Route route{service, http, reply};
    Parts p;
    if (!Split(http.target, &p))
      return route.Send(Error(400, "\"" + std::string(http.target.substr(0, 200)) + "\" is no path"));
    if (p.empty() || p[0] != "v2") return route.NotFoundHere();
    if (p.size() == 1) {
      if (!route.Method("GET") || !route.Allowed(Role::kInfer)) return;
      return route.Send(Document(wire::WriteServerMetadata(service->ServerMetadata())));
    }
    if (p[1] == "models") return Models(route, p);
    if (p[1] == "health") return Health(route, p);
    if (p[1] == "repository") return Repository(route, p);
    if (p[1] == "systemsharedmemory") return SharedMemory(route, p);
    route.NotFoundHere();
  };
}

HttpHandler MakeMetricsFront(Service* service) {
  return [service](const HttpRequest& http, HttpReply reply) {
    const Route route{service, http, reply};
    Parts p;
    if (!Split(http.target, &p)) return route.Send(Error(400, "no path"));
    if (p.size() == 3 && p[0] == "v2" && p[1] == "health") return Health(route, p);
    Metrics(route, p);
  };
}

}  // namespace ganglion::net
