#include "node/parents.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <mutex>

#include "net/grpc_client.h"

namespace ganglion::node {
namespace {

using topology::Tier;

constexpr Duration kProbePatience = std::chrono::seconds(1);
constexpr Duration kProbeEvery = std::chrono::seconds(2);
constexpr char kTierExtension[] = "ganglion.tier=";

TimePoint Now() { return std::chrono::steady_clock::now(); }

}  // namespace

struct Parents::Parent {
  ParentConfig config;
  std::unique_ptr<net::GrpcClient> client;

  struct State {
    explicit State(breaker::CircuitBreaker b) : breaker(std::move(b)) {}
    breaker::CircuitBreaker breaker;
    balance::PeakEwma latency;
    int in_flight = 0;
    std::string last_error;
  };
  std::unique_ptr<Guarded<State>> state;
  std::atomic<bool> up{false};
  std::atomic<bool> known{false};  // has told what it is, or is configured
  std::atomic<bool> probed{false};
  std::atomic<std::int64_t> round_trip_ns{0};  // of the last probe that was answered
  bool readable_on_the_way = false;            // leaves the machine without TLS, and nobody said that this is all right
  std::atomic<bool> foreign{true};
  std::atomic<Tier> tier{Tier::kGlobal};

  telemetry::Counter *ok, *errors, *timeouts, *forbidden, *bytes_up, *bytes_down;
  telemetry::Histogram* seconds;
  telemetry::Gauge* up_gauge;

  std::optional<Duration> Delay(Guarded<Random>* random) const {
    const auto& e = config.emulate;
    return random->With([&e](Random& r) -> std::optional<Duration> {
      if (r.Uniform() < e.loss) return std::nullopt;
      const double half = Milliseconds(e.delay) / 2 + Milliseconds(e.jitter) / 2 * (2 * r.Uniform() - 1);
      return FromMilliseconds(std::max(0.0, half));
    });
  }
  bool emulated() const {
    return config.emulate.delay > Duration::zero() || config.emulate.jitter > Duration::zero() ||
           config.emulate.loss > 0;
  }
};

// One question with its attempts.
struct Parents::Asking {
  Question question;
  std::function<void(Reply)> done;
  std::mutex mutex;
  bool over = false;
  struct Attempt {
    Parent* parent = nullptr;
    breaker::Permit permit;
    TimePoint at{};
    std::uint64_t id = 0;  // of the client
    bool open = true;
  };
  std::vector<Attempt> attempts;
  Executor::Timer timer;
  Executor::Timer hedge;
};

Result<std::unique_ptr<Parents>> Parents::Create(const NodeConfig& config, Executor* executor, telemetry::Log* log,
                                                 telemetry::Registry* registry, std::uint64_t seed) {
  std::unique_ptr<Parents> p(new Parents);
  p->executor_ = executor;
  p->log_ = log;
  p->hedge_ = config.balance.hedge;
  p->breaker_ = config.breaker;
  p->random_.With([seed](Random& r) { r = Random(seed); });
  ASSIGN_OR_RETURN(const auto budget, balance::RetryBudget::Create({.ratio = config.balance.retries}));
  p->retries_ = std::make_unique<Guarded<balance::RetryBudget>>(budget);
  p->retried_ = &registry->AddCounter("ganglion_retries_total", "Questions to parents that were asked again");
  if (config.limits.uplink_bytes_per_s) {
    p->uplink_per_s_ = static_cast<double>(*config.limits.uplink_bytes_per_s);
    p->uplink_.With([&](Uplink& u) { u = {*p->uplink_per_s_, Now()}; });
  }
  for (const ParentConfig& c : config.parents) {
    auto parent = std::make_unique<Parent>();
    parent->config = c;
    net::GrpcClientOptions options;
    options.target = c.address.Text();
    options.tls = c.tls;
    if (config.tls) {
      options.files.authority = config.tls->ca.empty() ? "" : config.Path(config.tls->ca).string();
      options.files.certificate = config.Path(config.tls->cert).string();
      options.files.key = config.Path(config.tls->key).string();
    }
    if (!c.ca.empty()) options.files.authority = config.Path(c.ca).string();
    for (const auto& [name, value] : c.headers) {
      if (name == "Host" || name == "host") {
        options.authority = value;
      } else {
        options.headers.emplace_back(name, value);
      }
    }
    options.token = c.token;
    options.stream = c.stream == Stream::kAlways  ? net::StreamMode::kAlways
                     : c.stream == Stream::kNever ? net::StreamMode::kNever
                                                  : net::StreamMode::kAuto;
    options.max_message_bytes = static_cast<std::size_t>(config.limits.request_bytes);
    ASSIGN_OR_RETURN(parent->client, net::GrpcClient::Create(options));
    ASSIGN_OR_RETURN(auto breaker,
                     breaker::CircuitBreaker::Create({config.breaker.keep, config.breaker.trip, config.breaker.open_for,
                                                      config.breaker.probes, config.breaker.slow}));
    parent->state = std::make_unique<Guarded<Parent::State>>(std::move(breaker));
    parent->foreign = !c.model.empty() || !c.inputs.empty() || !c.output.empty();
    parent->readable_on_the_way = !c.tls && !c.address.IsLoopback() && !config.insecure;
    if (c.tier) {
      parent->tier = *c.tier;
      parent->known = true;
    }
    const auto count = [&](const char* outcome) {
      return &registry->AddCounter("ganglion_parent_requests_total", "Questions to a parent by how they ended",
                                   {{"parent", c.name}, {"outcome", outcome}});
    };
    parent->ok = count("ok");
    parent->errors = count("error");
    parent->timeouts = count("timeout");
    parent->forbidden = count("forbidden");
    parent->seconds =
        &registry->AddHistogram("ganglion_parent_seconds", "Time until a parent answered", {{"parent", c.name}});
    parent->bytes_up =
        &registry->AddCounter("ganglion_uplink_bytes_total", "Bytes of messages to a parent, of tensors from it",
                              {{"parent", c.name}, {"direction", "up"}});
    parent->bytes_down =
        &registry->AddCounter("ganglion_uplink_bytes_total", "Bytes of messages to a parent, of tensors from it",
                              {{"parent", c.name}, {"direction", "down"}});
    parent->up_gauge = &registry->AddGauge("ganglion_parent_up", "1 when the parent answers", {{"parent", c.name}});
    p->parents_.push_back(std::move(parent));
  }
  registry->AddCollector([parents = p.get()](telemetry::Sink& sink) {
    const TimePoint now = Now();
    for (const auto& parent : parents->parents_) {
      const telemetry::Labels labels{{"target", parent->config.name}};
      parent->state->With([&](Parent::State& s) {
        const auto state = s.breaker.state(now);
        sink.Gauge("ganglion_breaker_state", "0 closed, 1 half-open, 2 open", labels,
                   state == breaker::State::kClosed     ? 0
                   : state == breaker::State::kHalfOpen ? 1
                                                        : 2);
        sink.Gauge("ganglion_breaker_average", "Exponential average of failures", labels, s.breaker.average());
        sink.Counter("ganglion_breaker_trips_total", "How often it opened", labels,
                     static_cast<double>(s.breaker.trips()));
      });
    }
  });
  if (!p->parents_.empty())
    p->prober_ = std::jthread([parents = p.get()](const std::stop_token& stop) { parents->KeepProbing(stop); });
  return p;
}

Parents::~Parents() {
  prober_.request_stop();
  if (prober_.joinable()) prober_.join();
  // Answers that still come run here and now, since the executor has stopped, and find that it is over.
  closing_ = true;
  for (const auto& p : parents_) p->client.reset();
}

void Parents::Probe(Parent& parent, Duration patience) {
  const TimePoint began = Now();
  const auto metadata = parent.client->ServerMetadata(patience);
  const bool first = !parent.probed.exchange(true);
  const bool was_up = parent.up.exchange(metadata.ok());
  if (metadata.ok()) {
    parent.round_trip_ns = (Now() - began).count();
  } else {
    parent.state->With([&](Parent::State& s) { s.last_error = metadata.status().message(); });
  }
  parent.up_gauge->Set(metadata.ok() ? 1 : 0);
  if (metadata.ok()) {  // each time: another server may have come up at the same address
    bool foreign = true;
    Tier tier = Tier::kGlobal;
    for (const auto& e : metadata->extensions) {
      if (e.rfind(kTierExtension, 0) != 0) continue;
      foreign = false;
      tier = topology::TierFromName(e.substr(sizeof kTierExtension - 1)).value_or(Tier::kGlobal);
    }
    if (!parent.config.tier) parent.tier = tier;
    // Where `output` is given, a model's scores are wanted, also of a node that serves the plain model.
    parent.foreign = foreign || !parent.config.output.empty();
    parent.known = true;
  }
  if (metadata.ok() != was_up || first) {
    if (metadata.ok()) {
      log_->Info("parent up", {{"parent", parent.config.name}, {"tier", topology::Name(parent.tier)}});
    } else {
      log_->Warning("parent down", {{"parent", parent.config.name}, {"error", metadata.status().message()}});
    }
  }
}

void Parents::ProbeAll(Duration patience) {
  for (const auto& parent : parents_) Probe(*parent, patience);
}

void Parents::KeepProbing(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  while (!stop.stop_requested()) {
    for (const auto& parent : parents_) {
      if (!stop.stop_requested()) Probe(*parent, kProbePatience);
    }
    std::unique_lock lock(mutex);
    wake.wait_for(lock, stop, kProbeEvery, [] { return false; });
  }
}

bool Parents::Live(Tier highest) const {
  const TimePoint now = Now();
  return std::any_of(parents_.begin(), parents_.end(), [&](const auto& p) {
    return p->up && p->tier.load() <= highest &&
           p->state->With([&](Parent::State& s) { return s.breaker.state(now) != breaker::State::kOpen; });
  });
}

bool Parents::TakeUplink(std::size_t bytes, bool audit) {
  if (!uplink_per_s_) return true;
  const TimePoint now = Now();
  return uplink_.With([&](Uplink& u) {
    // A second's worth may be saved up. Audits leave half of it to requests.
    u.tokens = std::min(*uplink_per_s_, u.tokens + *uplink_per_s_ * std::chrono::duration<double>(now - u.at).count());
    u.at = now;
    if (u.tokens < static_cast<double>(bytes) + (audit ? *uplink_per_s_ / 2 : 0)) return false;
    u.tokens -= static_cast<double>(bytes);
    return true;
  });
}

void Parents::Ask(Question question, std::function<void(Reply)> done) {
  auto asking = std::make_shared<Asking>();
  asking->question = std::move(question);
  asking->done = std::move(done);
  retries_->With([](balance::RetryBudget& b) { b.OnRequest(); });
  {
    std::lock_guard lock(asking->mutex);  // a timer that is due at once must find itself set
    asking->timer = executor_->At(asking->question.deadline, [this, asking] { TimedOut(asking); });
    if (hedge_ && !asking->question.audit) {
      asking->hedge = executor_->At(Now() + *hedge_, [this, asking] {
        if (retries_->With([](balance::RetryBudget& b) { return b.TryRetry(); })) {
          retried_->Add(1);
          Try(asking);
        }
      });
    }
  }
  Try(asking);
}

// Sends to one that has not been asked yet.
void Parents::Try(const std::shared_ptr<Asking>& asking) {
  const TimePoint now = Now();
  const Question& q = asking->question;
  std::size_t bytes = 256;
  for (const auto& in : q.request.inputs) bytes += in.bytes.size() + 64;
  std::vector<double> costs;
  bool allowed = false;
  std::string why = "no parent";
  {
    std::lock_guard lock(asking->mutex);
    if (asking->over) return;
    for (const auto& p : parents_) {
      double cost = std::numeric_limits<double>::infinity();
      // What may not go everywhere may not go over a network for all to read, either.
      const bool may = p->tier.load() <= q.highest && !(p->readable_on_the_way && q.highest != Tier::kGlobal);
      const bool asked = std::any_of(asking->attempts.begin(), asking->attempts.end(),
                                     [&](const auto& a) { return a.parent == p.get(); });
      allowed |= may;
      if (may && !asked) {
        // gRPC makes a broken connection again in its own time. A probe that fails for want of one would keep the
        // breaker open for another period, though the parent is back.
        const bool connecting = p->state->With([&](Parent::State& s) {
          return s.breaker.state(now) == breaker::State::kHalfOpen;
        }) && !p->client->Connected();
        if (connecting) why = "parent " + p->config.name + ": connecting again";
        p->state->With([&](Parent::State& s) {
          if (connecting) return;
          if (s.breaker.state(now) == breaker::State::kOpen) {
            why = fmt::format("parent {}: breaker open (failure average {:.2f}{}{})", p->config.name,
                              s.breaker.average(), s.last_error.empty() ? "" : ", last: ", s.last_error);
          } else {
            cost = s.latency.Cost(s.in_flight, now);
          }
        });
      }
      costs.push_back(cost);
    }
  }
  std::size_t attempt = 0;
  bool sent = false;
  const bool first = [&] {
    std::lock_guard lock(asking->mutex);
    return asking->attempts.empty();
  }();
  bool paid = false;
  while (!parents_.empty()) {
    const std::size_t i = balance::PickOfTwo(costs, random_.With([](Random& r) { return r.Next(); }));
    if (i == balance::kNone) break;
    Parent& parent = *parents_[i];
    if (!paid && !TakeUplink(bytes, q.audit)) {
      why = "the uplink's budget (limits.uplink) is spent";
      break;
    }
    paid = true;
    const auto permit = parent.state->With([&](Parent::State& s) -> std::optional<breaker::Permit> {
      auto permit_for_one = s.breaker.TryAcquire(now);
      if (permit_for_one) ++s.in_flight;
      return permit_for_one;
    });
    if (!permit) {
      costs[i] = std::numeric_limits<double>::infinity();
      why = "parent " + parent.config.name + ": breaker open";
      continue;
    }
    {
      std::lock_guard lock(asking->mutex);
      attempt = asking->attempts.size();
      asking->attempts.push_back({&parent, *permit, now, 0, true});
    }
    sent = true;
    break;
  }
  if (!sent) {
    if (!first) return;  // others are under way, or have failed and said so
    Reply reply;
    reply.forbidden = !allowed && !parents_.empty();
    if (reply.forbidden) {
      for (const auto& p : parents_) p->forbidden->Add(1);
    }
    reply.response = reply.forbidden ? FailedPrecondition("no parent may see this input") : Unavailable(why);
    return Finish(asking, std::move(reply));
  }
  Parent& parent = *asking->attempts[attempt].parent;
  if (!parent.emulated()) return Sent(asking, attempt);
  const auto delay = parent.Delay(&random_);
  if (!delay) return;  // lost on the way: nobody will answer
  executor_->At(now + *delay, [this, asking, attempt] { Sent(asking, attempt); });
}

void Parents::Sent(const std::shared_ptr<Asking>& asking, std::size_t attempt) {
  const TimePoint now = Now();
  Parent* parent = nullptr;
  {
    std::lock_guard lock(asking->mutex);
    if (asking->over) return;
    parent = asking->attempts[attempt].parent;
  }
  const Question& q = asking->question;
  const Duration left = q.deadline - now;
  if (left <= Duration::zero()) return;  // the timer is about to say so
  const bool foreign = parent->foreign;
  // A shallow copy: the tensors stay where they are.
  wire::InferRequest message;
  message.model = parent->config.model.empty() ? q.request.model : parent->config.model;
  message.version = parent->config.version;
  for (const auto& in : q.request.inputs) {
    wire::InferInput copy;
    const auto renamed = parent->config.inputs.find(in.name);
    copy.name = renamed == parent->config.inputs.end() ? in.name : renamed->second;
    copy.type = in.type;
    copy.shape = in.shape;
    copy.bytes = in.bytes;
    message.inputs.push_back(std::move(copy));
  }
  if (foreign) {
    if (!parent->config.output.empty()) message.outputs.push_back({parent->config.output, false, 0, {}, {}});
    // Triton's form of a deadline; others ignore what they do not know.
    message.parameters.push_back(
        {"timeout", static_cast<std::int64_t>(std::chrono::duration_cast<std::chrono::microseconds>(left).count())});
  } else {
    message.outputs = q.request.outputs;
    message.parameters = q.request.parameters;
    message.parameters.push_back({"deadline_ms", Milliseconds(left)});
    message.parameters.push_back({"hop", static_cast<std::int64_t>(q.hop)});
    if (!q.traceparent.empty()) message.parameters.push_back({"traceparent", q.traceparent});
  }
  // gRPC's threads only hand on; the rest happens on the thread that keeps time.
  const auto done = [this, asking, attempt, parent](Result<wire::InferResponse> response) {
    auto shared = std::make_shared<Result<wire::InferResponse>>(std::move(response));
    executor_->Soon([this, asking, attempt, parent, shared] {
      if (!parent->emulated()) return Answered(asking, attempt, std::move(*shared));
      const auto delay = parent->Delay(&random_);
      if (!delay) return;
      executor_->At(Now() + *delay, [this, asking, attempt, shared] { Answered(asking, attempt, std::move(*shared)); });
    });
  };
  const auto sent = parent->client->Infer(message, q.deadline, q.traceparent, done);
  parent->bytes_up->Add(sent.bytes);
  bool late = false;
  {
    std::lock_guard lock(asking->mutex);
    asking->attempts[attempt].id = sent.id;
    late = asking->over;
  }
  if (late && sent.id != 0) parent->client->Forget(sent.id);
}

void Parents::Answered(const std::shared_ptr<Asking>& asking, std::size_t attempt,
                       Result<wire::InferResponse> response) {
  const TimePoint now = Now();
  Parent* parent = nullptr;
  Duration took{};
  bool others = false;
  std::optional<double> opened;
  {
    std::lock_guard lock(asking->mutex);
    Asking::Attempt& a = asking->attempts[attempt];
    if (asking->over || !a.open || closing_) return;
    a.open = false;
    parent = a.parent;
    took = now - a.at;
    others =
        std::any_of(asking->attempts.begin(), asking->attempts.end(), [](const auto& other) { return other.open; });
    // Tensors that lie elsewhere were not asked for; without them it is no answer.
    if (response.ok() &&
        std::any_of(response->outputs.begin(), response->outputs.end(), [](const auto& o) { return o.shared; }))
      response = DataLoss("the answer lies in shared memory");
    // What the server says of the request (malformed, no such model) is no fault of the server.
    const Code code = response.status().code();
    const bool fault = !response.ok() && code != Code::kInvalidArgument && code != Code::kNotFound &&
                       code != Code::kFailedPrecondition && code != Code::kUnimplemented;
    parent->state->With([&](Parent::State& s) {
      --s.in_flight;
      const auto trips = s.breaker.trips();
      s.breaker.Report(a.permit, !fault, now);
      opened = s.breaker.trips() > trips ? std::optional(s.breaker.average()) : std::nullopt;
      if (response.ok()) {
        s.latency.Observe(took, now);
      } else {
        s.latency.ObserveFailure(took, std::chrono::seconds(1), now);
        s.last_error = response.status().message();
      }
    });
  }
  if (opened) LogOpened(*parent, *opened, response.status().message());
  if (response.ok()) {
    parent->ok->Add(1);
    parent->seconds->Observe(took);
    for (const auto& o : response->outputs) parent->bytes_down->Add(o.tensor.size_bytes());
    parent->up = true;
    fastest_.Observe(took, now);
  } else {
    parent->errors->Add(1);
    // Whoever answers at this address next has to say again what it is, before it sees what not everybody may.
    if (response.status().code() == Code::kUnavailable && !parent->config.tier) {
      parent->tier = Tier::kGlobal;
      parent->known = false;
    }
    if (!asking->question.audit && parents_.size() > asking->attempts.size() &&
        retries_->With([](balance::RetryBudget& b) { return b.TryRetry(); })) {
      retried_->Add(1);
      std::size_t before = 0;
      {
        std::lock_guard lock(asking->mutex);
        before = asking->attempts.size();
      }
      Try(asking);
      std::lock_guard lock(asking->mutex);
      others |= asking->attempts.size() > before;
    }
    if (others) return;
  }
  Reply reply;
  reply.response = std::move(response);
  reply.parent = parent->config.name;
  reply.tier = parent->tier;
  reply.foreign = parent->foreign;
  reply.output = parent->config.output;
  reply.took = took;
  Finish(asking, std::move(reply));
}

void Parents::NoAnswer(const std::string& name, const std::string& why) {
  const TimePoint now = Now();
  for (const auto& p : parents_) {
    if (p->config.name != name) continue;
    p->errors->Add(1);
    p->state->With([&](Parent::State& s) {
      if (const auto permit = s.breaker.TryAcquire(now)) s.breaker.Report(*permit, false, now);
      s.latency.ObserveFailure(Duration::zero(), std::chrono::seconds(1), now);
      s.last_error = why;
    });
    log_->Warning("parent gave no answer that can be read", {{"parent", name}, {"error", why}});
  }
}

void Parents::LogOpened(const Parent& parent, double average, const std::string& last) const {
  log_->Warning("breaker open", {{"parent", parent.config.name},
                                 {"failures", average},
                                 {"limit", breaker_.trip},
                                 {"last", last},
                                 {"probe_in_ms", Milliseconds(breaker_.open_for)}});
}

void Parents::TimedOut(const std::shared_ptr<Asking>& asking) {
  Reply reply;
  reply.timed_out = true;
  reply.response = Status(Code::kDeadlineExceeded, "no answer from above in time");
  Finish(asking, std::move(reply));
}

void Parents::Finish(const std::shared_ptr<Asking>& asking, Reply reply) {
  const TimePoint now = Now();
  std::vector<Asking::Attempt> open;
  std::function<void(Reply)> done;
  Executor::Timer timer, hedge;
  {
    std::lock_guard lock(asking->mutex);
    if (asking->over) return;
    asking->over = true;
    timer = asking->timer;
    hedge = asking->hedge;
    for (auto& a : asking->attempts) {
      if (std::exchange(a.open, false)) open.push_back(a);
    }
    done = std::move(asking->done);
  }
  if (!reply.timed_out) executor_->Cancel(timer);
  executor_->Cancel(hedge);
  for (const auto& a : open) {
    if (a.id != 0) a.parent->client->Forget(a.id);
    std::optional<double> opened;
    a.parent->state->With([&](Parent::State& s) {
      --s.in_flight;
      if (reply.timed_out) {
        const auto trips = s.breaker.trips();
        s.breaker.Report(a.permit, false, now);
        opened = s.breaker.trips() > trips ? std::optional(s.breaker.average()) : std::nullopt;
        s.latency.ObserveFailure(now - a.at, now - a.at, now);
        s.last_error = "timeout";
      } else {
        // Another was faster. It takes at least so long; whether it works it has not shown. A probe that passed for
        // good here would close the breaker of a parent that swallows everything, for as long as hedges answer.
        s.latency.ObserveFailure(now - a.at, s.latency.latency(now), now);
        if (a.permit.probe) s.breaker.Report(a.permit, false, now);
      }
    });
    if (opened) LogOpened(*a.parent, *opened, "timeout");
    if (reply.timed_out) a.parent->timeouts->Add(1);
  }
  done(std::move(reply));
}

std::vector<Parents::View> Parents::Look() const {
  std::vector<View> views;
  const TimePoint now = Now();
  for (const auto& p : parents_) {
    View v;
    v.name = p->config.name;
    v.url = p->config.url;
    v.tier = p->known || p->config.tier ? std::string(topology::Name(p->tier)) : "unknown";
    v.foreign = p->foreign;
    v.up = p->up;
    v.round_trip = Duration(p->round_trip_ns.load());
    p->state->With([&](Parent::State& s) {
      v.breaker = std::string(breaker::Name(s.breaker.state(now)));
      v.average = s.breaker.average();
      v.latency = s.latency.latency(now);
      v.in_flight = s.in_flight;
      v.last_error = s.last_error;
      if (s.breaker.state(now) == breaker::State::kOpen)
        v.probe_in = std::max(Duration::zero(), s.breaker.probe_at() - now);
    });
    views.push_back(std::move(v));
  }
  return views;
}

}  // namespace ganglion::node
