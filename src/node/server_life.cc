// How a node begins, listens and ends.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "net/grpc_server.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/mailbox.h"
#include "net/rest_front.h"
#include "node/answers.h"
#include "node/server.h"
#include "node/thread_random.h"

namespace ganglion::node {
namespace {

using topology::Tier;

TimePoint Now() { return std::chrono::steady_clock::now(); }

}  // namespace

Server::Server(NodeConfig config) : config_(std::move(config)), started_(Now()) {}

ServedContext Server::MakeContext() const { return {engine_, &config_, executor_.get(), registry_.get()}; }

Result<std::unique_ptr<Server>> Server::Create(std::shared_ptr<runtime::Engine> engine, NodeConfig config) {
  std::unique_ptr<Server> server(new Server(std::move(config)));
  Server& s = *server;
  s.engine_ = std::move(engine);
  telemetry::LogOptions log;
  log.level = *telemetry::LevelFromName(Name(s.config_.log.level));
  log.format = *telemetry::LogFormatFromName(Name(s.config_.log.format));
  s.log_ = std::make_unique<telemetry::Log>(log, s.clock_);
  s.registry_ = std::make_unique<telemetry::Registry>();
  const int threads =
      s.config_.limits.threads.value_or(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  s.executor_ = std::make_unique<Executor>(threads);
  s.loader_ = std::make_unique<Executor>(1);
  ASSIGN_OR_RETURN(s.parents_, Parents::Create(s.config_, s.executor_.get(), s.log_.get(), s.registry_.get(),
                                               ThreadRandom().Next()));
  if (s.config_.cache) {
    PredictionCacheOptions cache;
    cache.max_bytes = static_cast<std::size_t>(s.config_.cache->memory_bytes);
    cache.time_to_live = s.config_.cache->ttl;
    cache.seed = ThreadRandom().Next();
    ASSIGN_OR_RETURN(s.cache_, PredictionCache::Create(cache));
  }
  const int most = std::max(1, s.config_.limits.in_flight);
  const int least = std::min(most, threads);
  ASSIGN_OR_RETURN(const auto limit, admission::ConcurrencyLimit::Create(
                                         {.initial = std::clamp(32, least, most), .min = least, .max = most}));
  s.admission_ = std::make_unique<Guarded<admission::ConcurrencyLimit>>(limit);
  if (s.config_.trace) {
    telemetry::TraceExporterOptions options;
    options.node = s.config_.name;
    const std::string url = s.config_.trace->otlp;
    ASSIGN_OR_RETURN(s.traces_, telemetry::TraceExporter::Create(
                                    options,
                                    [url](const std::string& body) -> Status {
                                      net::HttpQuestion q;
                                      q.method = "POST";
                                      q.url = url;
                                      q.headers = {{"Content-Type", "application/json"}};
                                      q.body = body;
                                      const auto answer = net::Ask(q, std::chrono::seconds(2));
                                      if (!answer.ok()) return answer.status();
                                      if (answer->status < 300) return {};
                                      const std::string said = fmt::format("{} answered {}", url, answer->status);
                                      return answer->status >= 500 || answer->status == 429 ? Unavailable(said)
                                                                                            : InvalidArgument(said);
                                    },
                                    s.clock_));
  }
  for (const Tier tier : topology::kTiers) {
    s.cost_[tier] =
        &s.registry_->AddCounter("ganglion_cost_dollars_total", "What decisions cost at the tier that made them",
                                 {{"tier", std::string(topology::Name(tier))}}, telemetry::kBillionthsADollar);
  }
  for (const auto& [front, name] : {std::pair(net::Front::kHttp, "http"), std::pair(net::Front::kGrpc, "grpc"),
                                    std::pair(net::Front::kUnix, "unix")}) {
    for (int code = 0; code <= 16; ++code) {
      s.fronts_.at(static_cast<std::size_t>(front)).at(static_cast<std::size_t>(code)) = &s.registry_->AddCounter(
          "ganglion_requests_by_front_total", "Infer requests by the way they came and the code they got",
          {{"front", name}, {"code", CodeName(static_cast<Code>(code))}});
    }
  }
  s.registry_->AddGauge("ganglion_build_info", "Always 1", {{"version", GANGLION_VERSION}}).Set(1);
  RETURN_IF_ERROR(s.LoadAll());
  s.registry_->AddCollector([server = server.get()](telemetry::Sink& sink) {
    const Server& n = *server;
    sink.Gauge("ganglion_ready", "1 when every decision has a stage here or a live parent", {}, n.Ready() ? 1 : 0);
    n.admission_->With([&](const admission::ConcurrencyLimit& l) {
      sink.Gauge("ganglion_in_flight", "Requests that are admitted and not answered", {}, l.in_flight());
      sink.Gauge("ganglion_concurrency_limit", "How many are admitted at once, at present", {}, l.limit());
    });
    sink.Gauge("ganglion_waiting_above", "Requests that wait for a parent", {}, n.above_under_way_.load());
    if (n.http_)
      sink.Gauge("ganglion_connections", "Open connections", {{"front", "http"}},
                 static_cast<double>(n.http_->connections()));
    if (n.cache_) {
      const auto c = n.cache_->stats();
      sink.Counter("ganglion_cache_hits_total", "Answers out of the cache", {}, static_cast<double>(c.hits));
      sink.Counter("ganglion_cache_misses_total", "Requests that were not in the cache", {},
                   static_cast<double>(c.misses));
      sink.Counter("ganglion_cache_waits_total", "Requests that shared another's run", {},
                   static_cast<double>(c.waits));
      sink.Counter("ganglion_cache_evictions_total", "Answers that made room", {}, static_cast<double>(c.evictions));
      sink.Gauge("ganglion_cache_bytes", "Bytes that the cache holds", {}, static_cast<double>(c.bytes));
      sink.Gauge("ganglion_cache_off", "1 while the cache does not pay", {}, c.off ? 1 : 0);
    }
    std::shared_ptr<const Entries> entries;
    {
      std::lock_guard lock(n.entries_mutex_);
      entries = n.entries_;
    }
    for (const auto& [name, entry] : *entries) {
      if (entry.versions.empty())
        sink.Gauge("ganglion_model_loaded", "1 for what is served", {{"model", name}, {"version", ""}}, 0);
      for (const auto& [version, served] : entry.versions) {
        sink.Gauge("ganglion_model_loaded", "1 for what is served", {{"model", name}, {"version", version}}, 1);
        for (const auto& stage : served->stages) {
          sink.Gauge("ganglion_queue_depth", "Requests that wait for a worker",
                     {{"decision", name}, {"stage", stage.name}}, static_cast<double>(stage.queue->depth()));
          const telemetry::Labels target{{"target", name + "/" + stage.name}};
          stage.breaker->With([&](breaker::CircuitBreaker& b) {
            const auto state = b.state(n.clock_.Now());
            sink.Gauge("ganglion_breaker_state", "0 closed, 1 half-open, 2 open", target,
                       state == breaker::State::kClosed     ? 0
                       : state == breaker::State::kHalfOpen ? 1
                                                            : 2);
            sink.Gauge("ganglion_breaker_average", "Exponential average of failures", target, b.average());
            sink.Counter("ganglion_breaker_trips_total", "How often it opened", target, static_cast<double>(b.trips()));
          });
        }
      }
    }
  });
  return server;
}

Server::~Server() {
  draining_ = true;
  // Fronts first: nothing new comes in. Then what is under way ends, then who does it.
  if (http_) http_->Drain();
  if (grpc_) grpc_->Shutdown(Duration::zero());
  const TimePoint patience = Now() + std::chrono::seconds(15);
  while (under_way_ > 0 && Now() < patience) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  loader_.reset();
  executor_->Stop();
  parents_.reset();
  grpc_.reset();
  http_.reset();
  mailbox_.reset();
  metrics_.reset();
  if (traces_) traces_->Stop();
}

Status Server::Listen() {
  if (config_.tls) {
    tls_ = std::make_unique<net::TlsFiles>();
    tls_->certificate = config_.Path(config_.tls->cert);
    tls_->key = config_.Path(config_.tls->key);
    if (!config_.tls->ca.empty()) tls_->authority = config_.Path(config_.tls->ca);
    tls_->require_client = config_.tls->require_client;
  }
  const auto numeric = [](const Address& a) {
    return a.host == "localhost" ? Address{"127.0.0.1", a.port}.Text() : a.Text();
  };
  if (config_.listen.http || !config_.listen.unix_path.empty()) {
    net::HttpServerOptions o;
    if (config_.listen.http) o.address = numeric(*config_.listen.http);
    if (!config_.listen.unix_path.empty()) o.unix_path = config_.Path(config_.listen.unix_path).string();
    o.threads = executor_->workers();
    o.max_connections = static_cast<std::size_t>(config_.limits.connections);
    o.max_body_bytes = static_cast<std::size_t>(config_.limits.request_bytes);
    o.max_bodies_bytes =
        static_cast<std::size_t>(config_.limits.memory_bytes.value_or(4 * config_.limits.request_bytes));
    o.idle = config_.limits.idle;
    o.tls = tls_.get();
    ASSIGN_OR_RETURN(http_, net::HttpServer::Start(o, net::MakeRestFront(this)));
  }
  if (!config_.listen.mailbox_path.empty()) {
    net::MailboxOptions o;
    o.path = config_.Path(config_.listen.mailbox_path).string();
    ASSIGN_OR_RETURN(mailbox_, net::MailboxServer::Start(o, net::MakeRestFront(this)));
  }
  if (config_.listen.grpc) {
    net::GrpcServerOptions o;
    o.address = config_.listen.grpc->Text();
    o.max_message_bytes = static_cast<std::size_t>(config_.limits.request_bytes);
    // Below a few hundred KB gRPC refuses every connection.
    o.max_memory_bytes = static_cast<std::size_t>(
        config_.limits.memory_bytes.value_or(std::max<std::int64_t>(4 * config_.limits.request_bytes, 16'000'000)));
    o.tls = tls_.get();
    ASSIGN_OR_RETURN(grpc_, net::GrpcServer::Start(o, this));
  }
  if (config_.listen.metrics) {
    net::HttpServerOptions o;
    o.address = numeric(*config_.listen.metrics);
    o.max_connections = 64;
    o.max_body_bytes = 1 << 16;
    o.tls = tls_.get();
    ASSIGN_OR_RETURN(metrics_, net::HttpServer::Start(o, net::MakeMetricsFront(this)));
  }
  return {};
}

Server::Ports Server::ports() const {
  return {http_ ? http_->port() : 0, grpc_ ? grpc_->port() : 0, metrics_ ? metrics_->port() : 0};
}

std::size_t Server::Drain() {
  draining_ = true;
  log_->Info("draining", {{"under_way", under_way_.load()}});
  if (http_) http_->Drain();
  const TimePoint end = Now() + config_.drain;
  if (grpc_) grpc_->Shutdown(config_.drain);
  while ((under_way_ > 0 || (http_ && http_->connections() > 0)) && Now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return under_way_;
}

}  // namespace ganglion::node
