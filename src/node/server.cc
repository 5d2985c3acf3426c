#include "node/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/id.h"
#include "node/answers.h"
#include "node/thread_random.h"

namespace ganglion::node {
namespace {

using admission::AdmissionOutcome;
using tensor::DataType;
using tensor::Tensor;
using topology::Tier;

constexpr int kMaxHops = 8;
constexpr int kMaxAbove = 4000;  // requests that wait for somebody above: memory only, a few kilobytes each
constexpr Duration kMaxDeadline = std::chrono::minutes(10);
constexpr Duration kModelDeadline = std::chrono::minutes(1);  // of plain models, where the client names none

TimePoint Now() { return std::chrono::steady_clock::now(); }

// What admission takes for in time: a tenth less than there is. The caller's clock also runs while a request waits to
// be read and its answer to be written: a queue that ends at the deadline to the millisecond made one answer in six
// late.
Duration TimeHere(Duration allowed) { return allowed - allowed / 10; }

std::uint64_t UnixNow(std::chrono::nanoseconds unit) {
  return static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch() / unit);
}

std::string NewId() {
  Random& r = ThreadRandom();
  return TimeSortableId(UnixNow(std::chrono::milliseconds(1)), r.Next(), r.Next());
}

}  // namespace

// One request from its arrival to its answer.
struct Server::Pending {
  std::unique_ptr<net::InferCall> call;
  std::shared_ptr<const Served> served;
  TimePoint begin{};
  TimePoint deadline{};
  std::vector<tensor::View> inputs;  // in the order of the model's
  std::int64_t rows = 1;
  std::string unit;
  int hop = 0;
  bool audit = false;
  std::size_t first_stage = 0;
  telemetry::TraceContext trace;
  telemetry::SpanId asked_by{};
  PredictionCache::Ticket ticket;
  PredictionCache::Wait wait;
  std::atomic<bool> answered{false};
  bool admitted = false;
  bool cheap = false;
  bool above = false;  // waits for somebody above
  bool hit = false;
  std::string outcome = "failed";
  TimePoint admitted_at{};
  Duration queued{};
  // While it waits for an equal request, whose answer may come before the timer is set.
  Guarded<Executor::Timer> timer;
};

void Server::Infer(std::unique_ptr<net::InferCall> call) {
  under_way_.fetch_add(1, std::memory_order_relaxed);
  // The last reference to a request goes when it has been answered and nobody works for it any more.
  std::shared_ptr<Pending> p(new Pending, [this](Pending* last) {
    delete last;
    under_way_.fetch_sub(1, std::memory_order_relaxed);
  });
  p->call = std::move(call);
  p->begin = p->call->context.received;
  if (p->call->context.may_run_here) return Run(p);
  // From a thread that only parses. A worker if one is free; else the thread that keeps time: it queues, refuses or
  // answers from the cache, and runs nothing long.
  if (executor_->idle_workers() > 0) {
    p->call->context.may_run_here = true;
    executor_->Post([this, p] { Run(p); });
  } else {
    executor_->Soon([this, p] { Run(p); });
  }
}

void Server::Run(const std::shared_ptr<Pending>& p) {
  const wire::InferRequest& request = p->call->request;
  if (Status s = Allow(p->call->context, net::Role::kInfer); !s.ok()) return Answer(p, std::move(s));
  auto found = Find(request.model, request.version);
  if (!found.ok()) return Answer(p, found.status());
  p->served = std::move(*found);
  if (Status s = ReadParameters(p.get()); !s.ok()) return Answer(p, std::move(s));
  if (Status s = ReadInputs(p.get()); !s.ok()) return Answer(p, std::move(s));
  if (Now() >= p->deadline)
    return Answer(
        p, Status(Code::kDeadlineExceeded, fmt::format("deadline {:.3g}ms passed before the request was looked at",
                                                       Milliseconds(p->deadline - p->begin))));
  if (AskCache(p)) return;
  Compute(p);
}

// Deadline, trace, unit, hop, and where in the cascade to begin.
Status Server::ReadParameters(Pending* p) const {
  const wire::InferRequest& request = p->call->request;
  const net::CallContext& context = p->call->context;
  const wire::Parameters& in = request.parameters;
  Duration limit = p->served->decision ? p->served->decision->config().deadline : kModelDeadline;
  ASSIGN_OR_RETURN(const auto ms, wire::FindNumber(in, "deadline_ms"));
  ASSIGN_OR_RETURN(const auto us, wire::FindNumber(in, "timeout"));
  for (const auto& [value, unit_ms, name] : {std::tuple(ms, 1.0, "deadline_ms"), std::tuple(us, 1e-3, "timeout")}) {
    if (!value) continue;
    if (!(*value >= 0) || *value * unit_ms > Milliseconds(kMaxDeadline))
      return InvalidArgument(
          fmt::format("{} {} is out of range; 0 to {}", name, *value, Milliseconds(kMaxDeadline) / unit_ms));
    if (*value == 0 && std::string_view(name) == "timeout") continue;  // Triton's "none"
    limit = FromMilliseconds(*value * unit_ms);
  }
  p->deadline = p->begin + limit;
  if (context.deadline) p->deadline = std::min(p->deadline, *context.deadline);
  ASSIGN_OR_RETURN(const auto unit, wire::FindString(in, "unit"));
  p->unit = unit.value_or("");
  ASSIGN_OR_RETURN(const auto hop, wire::FindNumber(in, "hop"));
  if (hop && (*hop < 0 || *hop > kMaxHops))
    return FailedPrecondition(
        fmt::format("hop {} is beyond the limit of {}: do parents form a circle?", *hop, kMaxHops));
  p->hop = static_cast<int>(hop.value_or(0));
  ASSIGN_OR_RETURN(const auto traceparent, wire::FindString(in, "traceparent"));
  const auto asked = telemetry::ParseTraceparent(traceparent ? *traceparent : context.traceparent);
  Random& r = ThreadRandom();
  if (asked) {
    p->trace = telemetry::Child(*asked, r.Next());
    p->asked_by = asked->span_id;
  } else if (traces_ || !parents_->empty()) {
    p->trace = telemetry::NewTrace({r.Next(), r.Next(), r.Next()}, traces_ && r.Uniform() < config_.trace->sample);
  }
  if (p->served->decision == nullptr) return {};
  const auto& stages = p->served->decision->config().stages;
  ASSIGN_OR_RETURN(const auto above, wire::FindString(in, "above_tier"));
  ASSIGN_OR_RETURN(const auto require, wire::FindString(in, "require_tier"));
  for (const auto& [text, name] : {std::pair(above, "above_tier"), std::pair(require, "require_tier")}) {
    if (!text) continue;
    const auto tier = topology::TierFromName(*text);
    if (!tier)
      return InvalidArgument(
          fmt::format("{} \"{}\" is no tier; one of device, edge, region, global", name, text->substr(0, 100)));
    const bool strictly = std::string_view(name) == "above_tier";
    const auto it = std::find_if(stages.begin(), stages.end(),
                                 [&](const auto& s) { return strictly ? s.tier > *tier : s.tier >= *tier; });
    if (it == stages.end())
      return FailedPrecondition(
          fmt::format("{} has no stage {} tier {}", p->served->name, strictly ? "above" : "at or above", *text));
    p->first_stage = std::max(p->first_stage, static_cast<std::size_t>(it - stages.begin()));
    p->audit |= !strictly;
  }
  return {};
}

// The inputs in the model's order, checked.
Status Server::ReadInputs(Pending* p) const {
  wire::InferRequest& request = p->call->request;
  const auto& specs = p->served->metadata.inputs;
  p->inputs.resize(specs.size());
  std::vector<char> seen(specs.size(), 0);
  for (wire::InferInput& in : request.inputs) {
    if (in.name == "ganglion.unit" && p->served->decision) continue;
    const std::size_t i = p->served->InputIndex(in.name);
    if (i == Served::kNoInput || seen[i]) {
      std::string have;
      for (const auto& spec : specs) have += (have.empty() ? "" : ", ") + ("\"" + spec.name + "\"");
      return InvalidArgument(fmt::format("input \"{}\" is {}; {} takes {}", in.name.substr(0, 200),
                                         i == Served::kNoInput ? "unknown" : "there twice", p->served->name, have));
    }
    seen[i] = 1;
    if (in.shared) {
      auto read = regions_.Read(*in.shared, in.type, in.shape);
      if (!read.ok()) return read.status().Within("input \"" + in.name + "\"");
      in.owned = std::move(*read);
      in.bytes = in.owned->View().bytes;
    }
    p->inputs[i] = in.View();
  }
  RETURN_IF_ERROR(CheckOutputs(*p->served, request));
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!seen[i]) return InvalidArgument(fmt::format("input \"{}\" {} is missing", specs[i].name, specs[i].Text()));
  }
  if (p->served->decision) {
    RETURN_IF_ERROR(p->served->decision->CheckInputs(p->inputs));
    p->rows = p->inputs[0].shape[0];
    if (p->rows < 1) return InvalidArgument("the request has no rows");
    return {};
  }
  for (std::size_t i = 0; i < specs.size(); ++i) RETURN_IF_ERROR(tensor::Matches(specs[i], p->inputs[i]));
  p->rows = !specs.empty() && !p->inputs[0].shape.empty() && specs[0].shape[0] == -1 ? p->inputs[0].shape[0] : 1;
  const std::int64_t most = p->served->config.max_batch_size;
  if (most > 0 && p->rows > most)
    return InvalidArgument(fmt::format("{} rows, max_batch_size of {} is {}", p->rows, p->served->name, most));
  return {};
}

// True: answered from the cache, or waits for an equal request's answer.
bool Server::AskCache(const std::shared_ptr<Pending>& p) {
  // What is answered from the cache would wait for no outcome.
  if (!cache_ || p->audit || p->served->learns != nullptr || cache_->Skips(p->call->request)) return false;
  thread_local std::string key;
  key.clear();
  std::string served = p->served->digest;
  served += static_cast<char>('0' + p->first_stage);
  if (!AppendKey(p->call->request, served, &key)) return false;
  auto found = cache_->Find(
      key, Now(),
      [this, p](const PredictionCache::Value& value) {
        if (p->answered.load()) return;
        if (value != nullptr) {
          p->hit = true;
          Answer(p, ForCaller(*p, *value));
        } else if (executor_->idle_workers() > 0) {
          executor_->Post([this, p] { Compute(p); });
        } else {
          executor_->Soon([this, p] { Compute(p); });
        }
      },
      true);
  using Kind = PredictionCache::Lookup::Kind;
  switch (found.kind) {
    case Kind::kHit:
      p->hit = true;
      Count(*p, std::string(topology::Name(config_.tier)), "cache", "accepted", static_cast<std::size_t>(p->rows));
      p->served->counts.cache_hit.Add(Now() - p->begin);
      Answer(p, ForCaller(*p, *found.value));
      return true;
    case Kind::kWait:
      p->wait = found.wait;
      // A little before the deadline it computes for itself: a decision has at least the answer of its first stage.
      p->timer.With([&](Executor::Timer& timer) {
        timer = executor_->At(p->deadline - (p->deadline - Now()) / 10, [this, weak = std::weak_ptr<Pending>(p)] {
          const auto late = weak.lock();
          if (late == nullptr || late->answered.load() || !cache_->CancelWait(late->wait)) return;
          if (executor_->idle_workers() > 0) {
            executor_->Post([this, late] { Compute(late); });
          } else {
            Compute(late);
          }
        });
      });
      return true;
    case Kind::kLead:
      p->ticket = std::move(found.ticket);
      p->served->counts.cache_miss.Add(Now() - p->begin);
      return false;
    case Kind::kOff:
      return false;
  }
  return false;
}

// Admits and runs it; or answers from the cheapest stage; or refuses.
void Server::Compute(const std::shared_ptr<Pending>& p) {
  int limit = 0;
  Duration retry{};
  p->admitted = admission_->With([&](admission::ConcurrencyLimit& l) {
    const bool in = l.TryAcquire();
    limit = l.limit();
    if (!in) retry = l.RetryAfter();
    return in;
  });
  p->admitted_at = Now();
  if (p->admitted) return p->served->decision ? RunDecision(p, false) : RunModel(p);
  const bool cheaper = p->served->decision && p->first_stage + 1 < p->served->decision->config().stages.size() &&
                       p->first_stage < p->served->stages.size();
  if (cheaper && cheap_under_way_.fetch_add(1) < 2 * executor_->workers()) {
    p->cheap = true;
    return RunDecision(p, true);
  }
  if (cheaper) cheap_under_way_.fetch_sub(1);
  retry = retry + std::chrono::duration_cast<Duration>(retry * ThreadRandom().Uniform());
  p->call->retry_after = retry;
  Refused(*p, "overload");
  p->outcome = "refused";
  Answer(p, ResourceExhausted(fmt::format("{} in flight, limit {}; {}. Retry after {:.0f}ms.", limit, limit,
                                          cheaper ? "the cheaper stage is full, too" : "no cheaper stage",
                                          std::ceil(Milliseconds(retry)))));
}

void Server::RunDecision(const std::shared_ptr<Pending>& p, bool cheapest_only) {
  FlowPlan plan;
  plan.served = p->served;
  plan.inputs = p->inputs;
  plan.begin = p->begin;
  plan.deadline = p->deadline;
  plan.first_stage = p->first_stage;
  plan.cheapest_only = cheapest_only;
  plan.may_run_here = p->call->context.may_run_here;
  plan.unit = p->unit;
  // A trace that somebody began goes on, sampled or not.
  if (!parents_->empty() && (p->trace.sampled || p->asked_by != telemetry::SpanId{}))
    plan.traceparent = telemetry::FormatTraceparent(p->trace);
  plan.hop = p->hop;
  plan.audit = p->audit;
  plan.leave_for_above = [this, p] {
    Release(p.get(), AdmissionOutcome::kOk);  // what it did here was in time
    p->above = above_under_way_.fetch_add(1) < kMaxAbove;
    if (!p->above) above_under_way_.fetch_sub(1);
    return p->above;
  };
  plan.parents = parents_.get();
  plan.executor = executor_.get();
  Flow::Start(std::move(plan), [this, p](FlowResult result) { FinishDecision(p, std::move(result)); });
}

void Server::FinishDecision(const std::shared_ptr<Pending>& p, FlowResult result) {
  if (std::exchange(p->above, false)) above_under_way_.fetch_sub(1);
  Release(p.get(), admission::Judge(Now() - p->admitted_at, result.queued, TimeHere(p->deadline - p->admitted_at)));
  if (result.forbidden)
    registry_
        ->AddCounter("ganglion_forbidden_escalations_total", "Requests with rows that privacy kept from going up",
                     {{"decision", p->served->name}})
        .Add(1);
  if (result.another_version)
    log_->Warning("another version above",
                  {{"decision", p->served->name}, {"here", p->served->version}, {"parent", result.parent}});
  if (!result.failure.ok())
    log_->Warning("stage failed", {{"decision", p->served->name}, {"error", result.failure.message()}});
  if (!result.status.ok()) {
    if (result.status.code() == Code::kDeadlineExceeded) Refused(*p, "deadline");
    return Answer(p, result.status);
  }
  bool degraded = false;
  for (const RowAnswer& r : result.rows) {
    degraded |= r.degraded;
    Count(*p, std::string(topology::Name(r.tier)), r.stage, r.degraded ? "degraded" : "accepted", 1);
    cost_.at(r.tier)->AddReal(topology_.at(r.tier).price);
  }
  p->outcome = degraded ? "degraded" : "accepted";
  if (p->served->learns != nullptr) RememberRows(*p->served, p->inputs, &result.rows, NewId);
  wire::InferResponse answer = DecisionAnswer(*p->served, p->call->request, result.rows, NewId);
  if (degraded) p->ticket = {};  // what was cut short here is no answer for others
  Audit(*p, result);             // copies what it needs before the request's memory goes
  Share(p, std::move(answer));
}

// Keeps the answer in the cache where it leads, and gives the caller his.
void Server::Share(const std::shared_ptr<Pending>& p, wire::InferResponse answer) {
  if (p->ticket.valid()) {
    std::size_t bytes = 512;
    for (const auto& o : answer.outputs) bytes += o.tensor.size_bytes() + 128;
    cache_->Complete(std::move(p->ticket), std::make_shared<const wire::InferResponse>(answer), bytes, true, Now());
  }
  answer.id = p->call->request.id;
  Status placed = PlaceInSharedMemory(p->call->request, regions_, &answer);
  Answer(p,
         placed.ok() ? Result<wire::InferResponse>(std::move(answer)) : Result<wire::InferResponse>(std::move(placed)));
}

namespace {

// A plain model's request in its queue.
class ModelWait final : public Waiting {
 public:
  // `done` gets the outputs and how long they waited for a worker.
  using Done = std::function<void(Result<std::vector<Tensor>>, Duration)>;
  ModelWait(const std::vector<tensor::View>& inputs, TimePoint until, Executor* executor, Done done)
      : executor_(executor), inputs_(inputs), done_(std::move(done)) {
    for (const auto& in : inputs) {
      types.push_back(in.type);
      shapes.emplace_back(in.shape.begin(), in.shape.end());
    }
    deadline = until;
  }
  bool Collect(std::vector<std::vector<std::byte>>* into) override {
    std::lock_guard lock(mutex_);
    if (!done_) return false;
    into->resize(inputs_.size());
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      (*into)[i].insert((*into)[i].end(), inputs_[i].bytes.begin(), inputs_[i].bytes.end());
    return true;
  }
  void Deliver(Result<std::vector<Tensor>> outputs, Duration queued) override { End(std::move(outputs), queued); }
  void Expire() override {
    End(Status(Code::kDeadlineExceeded, "deadline passed before the model could run"), Now() - enqueued);
  }

  // Before it is queued.
  static void ExpireAtDeadline(const std::shared_ptr<ModelWait>& self) {
    std::lock_guard lock(self->mutex_);
    self->timer_ = self->executor_->At(self->deadline, [weak = std::weak_ptr<ModelWait>(self)] {
      if (const auto w = weak.lock()) w->Expire();
    });
  }
  void End(Result<std::vector<Tensor>> outputs, Duration queued) {
    Done done;
    Executor::Timer timer;
    {
      std::lock_guard lock(mutex_);
      done = std::exchange(done_, nullptr);
      timer = timer_;
    }
    if (!done) return;
    executor_->Cancel(timer);
    done(std::move(outputs), queued);
  }

 private:
  Executor* executor_;
  Executor::Timer timer_;
  std::mutex mutex_;
  const std::vector<tensor::View> inputs_;
  Done done_;
};

}  // namespace

void Server::RunModel(const std::shared_ptr<Pending>& p) {
  const LocalStage& stage = p->served->stages[0];
  const TimePoint now = Now();
  const auto acquired = stage.breaker->With([now](breaker::CircuitBreaker& b) { return b.TryAcquire(now); });
  if (!acquired) {
    Release(p.get(), AdmissionOutcome::kIgnored);
    return Answer(p, Unavailable(fmt::format("{}: breaker open, the model keeps failing", p->served->name)));
  }
  const auto report = [this, p, given = *acquired](Result<std::vector<Tensor>> outputs, Duration queued) {
    const TimePoint end = Now();
    breaker::Permit permit = given;
    if (!permit.probe) permit.at += queued;  // waiting for a worker is not slowness of the model
    p->queued = queued;
    const Code code = outputs.status().code();
    p->served->stages[0].breaker->With([&](breaker::CircuitBreaker& b) {
      // An input that the model does not take is not its fault, nor a deadline of ours.
      b.Report(permit, outputs.ok() || code == Code::kInvalidArgument || code == Code::kDeadlineExceeded, end);
    });
    FinishModel(p, std::move(outputs));
  };
  if (p->call->context.may_run_here && stage.runner->usual() > Duration::zero() && stage.runner->usual() < kShortRun) {
    auto outputs = stage.runner->Run(p->inputs);
    const Duration took = Now() - now;
    stage.runner->Observe(took, p->rows, now + took);
    stage.seconds->Observe(took);
    return report(std::move(outputs), Duration::zero());
  }
  auto waiting = std::make_shared<ModelWait>(p->inputs, p->deadline, executor_.get(), report);
  ModelWait::ExpireAtDeadline(waiting);
  if (!stage.queue->Enqueue(waiting, p->served))
    waiting->End(ResourceExhausted(p->served->name + ": the queue is full"), Duration::zero());
}

void Server::FinishModel(const std::shared_ptr<Pending>& p, Result<std::vector<Tensor>> outputs) {
  CountQueued(p->served->stages[0], p->queued);
  Release(p.get(), admission::Judge(Now() - p->admitted_at, p->queued, TimeHere(p->deadline - p->admitted_at)));
  if (outputs.status().code() == Code::kDeadlineExceeded) Refused(*p, "deadline");
  if (outputs.status().code() == Code::kInternal)
    log_->Warning("stage failed", {{"decision", p->served->name}, {"error", outputs.status().message()}});
  if (!outputs.ok()) return Answer(p, outputs.status());
  auto made = ModelAnswer(*p->served, p->call->request, std::move(*outputs));
  if (!made.ok()) return Answer(p, made.status());
  Count(*p, std::string(topology::Name(config_.tier)), "model", "accepted", static_cast<std::size_t>(p->rows));
  p->outcome = "accepted";
  Share(p, std::move(*made));
}

// Another's answer, with what is this caller's own: the id, decision ids, and the outputs in its shared memory.
Result<wire::InferResponse> Server::ForCaller(const Pending& p, const wire::InferResponse& answer) const {
  wire::InferResponse own = answer;
  own.id = p.call->request.id;
  if (p.served->decision) {
    RenewIds(&own, NewId);
    wire::Set(&own.parameters, "cached", true);
  }
  RETURN_IF_ERROR(PlaceInSharedMemory(p.call->request, regions_, &own));
  return own;
}

void Server::Release(Pending* p, AdmissionOutcome outcome) {
  if (p->cheap) cheap_under_way_.fetch_sub(1);
  p->cheap = false;
  if (!std::exchange(p->admitted, false)) return;
  const TimePoint now = Now();
  admission_->With([&](admission::ConcurrencyLimit& l) { l.Release(outcome, now - p->admitted_at, now); });
}

void Server::Count(const Pending& p, const std::string& tier, const std::string& stage, const char* outcome,
                   std::size_t rows) {
  thread_local std::string key;
  key.clear();
  key.append(p.served->name).append("\n").append(tier).append("\n").append(stage).append("\n").append(outcome);
  telemetry::Counter* counter = request_counters_.With([&](auto& all) -> telemetry::Counter* {
    const auto it = all.find(key);
    return it == all.end() ? nullptr : it->second;
  });
  if (counter == nullptr) {
    counter =
        &registry_->AddCounter("ganglion_requests_total", "Rows by how and where they were decided",
                               {{"decision", p.served->name}, {"tier", tier}, {"stage", stage}, {"outcome", outcome}});
    request_counters_.With([&](auto& all) { all.emplace(key, counter); });
  }
  counter->Add(rows);
}

void Server::Refused(const Pending& p, const char* reason) {
  registry_
      ->AddCounter("ganglion_refused_total", "Requests that were refused",
                   {{"decision", p.served == nullptr ? "" : p.served->name}, {"reason", reason}})
      .Add(1);
}

void Server::CountQueued(const LocalStage& stage, Duration queued) {
  auto& counts = stage.runner->counts();
  counts.queued.fetch_add(1, std::memory_order_relaxed);
  counts.queue_ns.fetch_add(static_cast<std::uint64_t>(std::max(queued, Duration::zero()).count()),
                            std::memory_order_relaxed);
}

void Server::Answer(const std::shared_ptr<Pending>& p, Result<wire::InferResponse> response) {
  if (p->answered.exchange(true)) return;
  Release(p.get(), AdmissionOutcome::kIgnored);
  if (p->ticket.valid()) p->ticket = {};
  executor_->Cancel(p->timer.With([](const Executor::Timer& timer) { return timer; }));
  const TimePoint now = Now();
  const Duration took = now - p->begin;
  const Code code = response.status().code();
  if (code == Code::kInvalidArgument) Refused(*p, "invalid");
  if (code == Code::kUnauthenticated || code == Code::kPermissionDenied) Refused(*p, "auth");
  fronts_.at(static_cast<std::size_t>(p->call->context.front)).at(static_cast<std::size_t>(code))->Add(1);
  if (p->served != nullptr) {
    auto& counts = p->served->counts;
    (response.ok() ? counts.success : counts.fail).Add(took);
    counts.last_ms.store(UnixNow(std::chrono::milliseconds(1)), std::memory_order_relaxed);
    if (response.ok()) {
      counts.rows.fetch_add(static_cast<std::uint64_t>(p->rows), std::memory_order_relaxed);
    } else if (p->outcome != "refused") {
      Count(*p, std::string(topology::Name(config_.tier)), "", "failed", static_cast<std::size_t>(p->rows));
    }
    p->served->seconds->Observe(took);
  }
  if (traces_ && p->trace.sampled) {
    telemetry::Span span;
    span.trace = p->trace;
    span.parent_span_id = p->asked_by;
    span.name = "infer " + p->call->request.model;
    span.kind = telemetry::SpanKind::kServer;
    span.end_unix_ns = UnixNow(std::chrono::nanoseconds(1));
    span.start_unix_ns = span.end_unix_ns - static_cast<std::uint64_t>(took.count());
    span.ok = response.ok();
    if (!response.ok()) span.error = response.status().message();
    if (response.ok()) {
      for (const char* name : {"tier", "stage", "decision_id"}) {
        const auto text = wire::FindString(response->parameters, name);
        if (text.ok() && *text) span.attributes.push_back({std::string("ganglion.") + name, **text});
      }
    }
    span.attributes.push_back({"ganglion.rows", p->rows});
    traces_->Add(std::move(span));
  }
  p->call->Finish(std::move(response));
}

// Sends a share of what was accepted here below the top to the top, after the caller has its answer.
void Server::Audit(const Pending& p, const FlowResult& result) {
  const DecisionConfig& config = p.served->decision->config();
  if (config.audit <= 0 || p.audit || p.hop > 0 || parents_->empty()) return;
  const Tier top = config.stages.back().tier;
  for (std::size_t row = 0; row < result.rows.size(); ++row) {
    const RowAnswer& r = result.rows[row];
    if (r.degraded || r.from_above || r.label < 0 || r.tier >= top) continue;
    if (ThreadRandom().Uniform() >= config.audit) continue;
    const auto counted = [this, name = config.name](const char* outcome) {
      registry_
          ->AddCounter("ganglion_audits_total", "Accepted answers that the top was asked about",
                       {{"decision", name}, {"outcome", outcome}})
          .Add(1);
    };
    if (!parents_->Live(HighestTier(config.privacy))) {
      counted("skipped");
      continue;
    }
    auto kept = std::make_shared<std::vector<Tensor>>();
    Question q;
    for (std::size_t i = 0; i < p.inputs.size(); ++i) {
      if (p.inputs[i].type == DataType::kBytes && p.rows > 1) return;  // rows of texts have no fixed place
      tensor::Shape shape;
      tensor::View view = p.inputs[i];
      if (p.rows > 1)
        view = tensor::Rows(view, static_cast<std::int64_t>(row), static_cast<std::int64_t>(row) + 1, &shape);
      auto copy = Tensor::FromBytes(view.type, tensor::Shape(view.shape.begin(), view.shape.end()), view.bytes);
      if (!copy.ok()) return;
      kept->push_back(std::move(*copy));
    }
    for (std::size_t i = 0; i < kept->size(); ++i) {
      wire::InferInput in;
      in.name = config.inputs[i].name;
      in.type = (*kept)[i].type();
      in.shape = (*kept)[i].shape();
      in.bytes = (*kept)[i].View().bytes;
      q.request.inputs.push_back(std::move(in));
    }
    q.request.model = config.name;
    q.request.outputs.push_back({"label", false, 0, {}, {}});
    q.request.parameters.push_back({"require_tier", std::string(topology::Name(top))});
    q.keeps = kept;
    q.highest = HighestTier(config.privacy);
    q.deadline = Now() + std::max<Duration>(config.deadline, std::chrono::seconds(1));
    q.hop = p.hop + 1;
    q.audit = true;
    const int label = r.label;
    const double share = config.audit;
    const std::string stage = r.stage;
    parents_->Ask(std::move(q), [this, counted, label, share, stage, name = config.name](const Reply& reply) {
      std::int64_t top_label = -1;
      if (reply.response.ok()) {
        for (const auto& o : reply.response->outputs) {
          if (reply.foreign && o.tensor.type() == DataType::kFp32 && o.tensor.size_bytes() > 0)
            top_label = calibration::Judge(o.tensor.As<float>(), 1, calibration::Measure::kMaxProbability).label;
          if (o.name == "label" && o.tensor.type() == DataType::kInt64 && o.tensor.size_bytes() >= 8)
            top_label = o.tensor.As<std::int64_t>()[0];
        }
      }
      counted(top_label < 0 ? "failed" : top_label == label ? "agreed" : "differed");
      if (top_label >= 0 && top_label != label)
        log_->Info("audit differed",
                   {{"decision", name}, {"stage", stage}, {"label", label}, {"top", top_label}, {"propensity", share}});
    });
  }
}

}  // namespace ganglion::node
