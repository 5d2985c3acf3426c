#include "node/flow.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace ganglion::node {
namespace {

using cascade::Reason;
using cascade::Step;
using tensor::DataType;
using tensor::Tensor;

TimePoint Now() { return std::chrono::steady_clock::now(); }

const Tensor* FindOutput(const wire::InferResponse& response, const std::string& name) {
  for (const auto& o : response.outputs) {
    if (o.name == name) return &o.tensor;
  }
  return nullptr;
}

// The elements of a BYTES tensor.
std::vector<std::string> Texts(const Tensor& t) {
  std::vector<std::string> texts;
  const auto bytes = t.View().bytes;
  for (std::size_t at = 0; at + 4 <= bytes.size();) {
    std::uint32_t n = 0;
    std::memcpy(&n, bytes.data() + at, 4);
    texts.emplace_back(reinterpret_cast<const char*>(bytes.data()) + at + 4, n);
    at += 4 + n;
  }
  return texts;
}

}  // namespace

// The open rows of a flow in the queue of a stage.
class Flow::StageWait final : public Waiting {
 public:
  StageWait(std::shared_ptr<Flow> flow, std::uint64_t token, std::size_t stage, std::vector<std::size_t> open)
      : flow_(std::move(flow)), token_(token), stage_(stage), open_(std::move(open)) {
    for (const auto& in : flow_->plan_.inputs) {
      types.push_back(in.type);
      shapes.emplace_back(in.shape.begin(), in.shape.end());
      shapes.back()[0] = static_cast<std::int64_t>(open_.size());
    }
    deadline = flow_->plan_.deadline;
  }

  bool Collect(std::vector<std::vector<std::byte>>* into) override {
    std::lock_guard lock(flow_->mutex_);
    if (flow_->waiting_ != token_) return false;
    const TimePoint now = Now();
    flow_->result_.queued += now - flow_->wait_began_;
    flow_->for_worker_ = false;  // it has one
    // Waiting for a worker is not slowness of the stage.
    if (flow_->permit_ && !flow_->permit_->probe) flow_->permit_->at = now;
    std::vector<Tensor> copies;
    const auto views = flow_->Select(open_, &copies);
    into->resize(views.size());
    for (std::size_t i = 0; i < views.size(); ++i)
      (*into)[i].insert((*into)[i].end(), views[i].bytes.begin(), views[i].bytes.end());
    return true;
  }
  void Deliver(Result<std::vector<Tensor>> outputs, Duration queued) override {
    (void)queued;
    // Though the request has ended meanwhile, the stage is as slow as it is.
    if (!flow_->Claim(token_)) return flow_->ReportRun(stage_, outputs.ok());
    flow_->Judge(stage_, open_, outputs);
    flow_->plan_.may_run_here = true;  // this is a worker
    flow_->Advance();
  }
  void Expire() override {
    if (!flow_->Claim(token_)) return;
    flow_->FailAll(open_, Reason::kDeadline);
    flow_->Advance();
  }

 private:
  std::shared_ptr<Flow> flow_;
  std::uint64_t token_;
  std::size_t stage_;
  std::vector<std::size_t> open_;
};

void Flow::Start(FlowPlan plan, Done done) {
  std::make_shared<Flow>(Private{}, std::move(plan), std::move(done))->Advance();
}

Flow::Flow(Private, FlowPlan plan, Done done) : plan_(std::move(plan)), done_(std::move(done)) {
  const Decision& decision = *plan_.served->decision;
  local_ = decision.loaded_stages();
  policy_.when_late = plan_.audit ? cascade::WhenLate::kFail : decision.policy().when_late;
  policy_.stages.assign(decision.policy().stages.begin(),
                        decision.policy().stages.begin() + static_cast<std::ptrdiff_t>(local_));
  const TimePoint now = Now();
  for (std::size_t i = 0; i < local_; ++i) policy_.stages[i].shortest = plan_.served->stages[i].runner->fastest(now);
  if (local_ < decision.policy().stages.size()) {
    cascade::StagePolicy above;
    above.tier = decision.policy().stages[local_].tier;
    above.shortest = plan_.parents->fastest(now);
    policy_.stages.push_back(above);
  }
  const std::size_t first = std::min(plan_.first_stage, policy_.stages.size() - 1);
  const auto rows = static_cast<std::size_t>(plan_.inputs[0].shape[0]);
  rows_.reserve(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    rows_.push_back({cascade::Cascade(policy_, plan_.deadline), {}, {}});
    rows_.back().step = rows_.back().cascade.Begin(now, first);
  }
}

std::vector<std::size_t> Flow::Open() const {
  std::vector<std::size_t> open;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    if (rows_[r].step.kind == Step::Kind::kDefer) open.push_back(r);
  }
  return open;
}

std::vector<tensor::View> Flow::Select(const std::vector<std::size_t>& open, std::vector<Tensor>* tensors) const {
  if (open.size() == rows_.size()) return plan_.inputs;
  std::vector<tensor::View> views;
  tensors->reserve(plan_.inputs.size());
  for (const auto& in : plan_.inputs) {
    tensor::Shape shape(in.shape.begin(), in.shape.end());
    shape[0] = static_cast<std::int64_t>(open.size());
    std::vector<std::byte> bytes;
    if (in.type == DataType::kBytes) {  // texts lie one after the other: walk them once
      std::int64_t per_row = 1;
      for (std::size_t d = 1; d < in.shape.size(); ++d) per_row *= in.shape[d];
      std::size_t at = 0;
      std::size_t next = 0;
      for (std::size_t row = 0; row < rows_.size() && next < open.size(); ++row) {
        const std::size_t begin = at;
        for (std::int64_t e = 0; e < per_row; ++e) {
          std::uint32_t n = 0;
          std::memcpy(&n, in.bytes.data() + at, 4);
          at += 4 + n;
        }
        if (open[next] != row) continue;
        bytes.insert(bytes.end(), in.bytes.begin() + static_cast<std::ptrdiff_t>(begin),
                     in.bytes.begin() + static_cast<std::ptrdiff_t>(at));
        ++next;
      }
    } else {
      const std::size_t width = in.bytes.size() / rows_.size();
      for (const std::size_t row : open)
        bytes.insert(bytes.end(), in.bytes.begin() + static_cast<std::ptrdiff_t>(row * width),
                     in.bytes.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
    }
    tensors->push_back(Tensor::FromBytes(in.type, shape, bytes).value());
    views.push_back(tensors->back().View());
  }
  return views;
}

std::uint64_t Flow::BeginWait(bool for_worker) {
  std::lock_guard lock(mutex_);
  for_worker_ = for_worker;
  wait_began_ = Now();
  return waiting_ = ++waits_;
}

bool Flow::Claim(std::uint64_t token) {
  Executor::Timer timer;
  {
    std::lock_guard lock(mutex_);
    if (waiting_ != token) return false;
    waiting_ = 0;
    if (std::exchange(for_worker_, false)) result_.queued += Now() - wait_began_;
    timer = std::exchange(timer_, {});
  }
  plan_.executor->Cancel(timer);
  return true;
}

void Flow::FailAll(const std::vector<std::size_t>& open, Reason reason) {
  const TimePoint now = Now();
  for (const std::size_t r : open) rows_[r].step = rows_[r].cascade.OnFailure(reason, now);
}

// Runs until all rows have ended, or until it waits for somebody who will call it again.
void Flow::Advance() {
  while (true) {
    const std::vector<std::size_t> open = Open();
    if (open.empty()) return Finish();
    const std::size_t stage = rows_[open[0]].step.stage;
    if (plan_.cheapest_only && (IsAbove(stage) || stage > plan_.first_stage)) {
      FailAll(open, Reason::kOverload);
      continue;
    }
    if (IsAbove(stage)) return AskAbove(open);
    const LocalStage& local = plan_.served->stages[stage];
    const TimePoint now = Now();
    permit_ = local.breaker->With([now](breaker::CircuitBreaker& b) { return b.TryAcquire(now); });
    if (!permit_) {  // it keeps failing: the next stage is its fallback
      failure_ = Unavailable(fmt::format("{}: breaker open, stage {} keeps failing", plan_.served->name, local.name));
      FailAll(open, Reason::kFailed);
      continue;
    }
    const bool is_short = local.runner->usual() * static_cast<std::int64_t>(open.size()) < kShortRun;
    if (plan_.may_run_here && is_short) {
      RunLocal(stage, open);
      continue;
    }
    const std::uint64_t token = BeginWait(true);
    auto waiting = std::make_shared<StageWait>(shared_from_this(), token, stage, open);
    {
      std::lock_guard lock(mutex_);
      timer_ = plan_.executor->At(plan_.deadline, [weak = weak_from_this(), token, open] {
        const auto self = weak.lock();
        if (self == nullptr || !self->Claim(token)) return;
        self->FailAll(open, Reason::kDeadline);
        self->Advance();
      });
    }
    if (local.queue->Enqueue(std::move(waiting), plan_.served)) return;
    if (!Claim(token)) return;
    FailAll(open, Reason::kOverload);
  }
}

void Flow::RunLocal(std::size_t stage, const std::vector<std::size_t>& open) {
  const LocalStage& local = plan_.served->stages[stage];
  std::vector<Tensor> copies;
  const auto views = Select(open, &copies);
  const TimePoint began = Now();
  const auto outputs = local.runner->Run(views);
  const TimePoint end = Now();
  const Duration took = end - began;
  local.runner->Observe(took, static_cast<std::int64_t>(open.size()), end);
  result_.compute += took;
  Judge(stage, open, outputs);
}

// To the stage's breaker. A run is reported by whoever ends it, also when a timer has ended the flow: no one else uses
// the permit then.
void Flow::ReportRun(std::size_t stage, bool ok) {
  const auto permit = std::exchange(permit_, std::nullopt);
  if (!permit) return;
  const LocalStage& local = plan_.served->stages[stage];
  const TimePoint now = Now();
  local.seconds->Observe(now - permit->at);
  local.breaker->With([&](breaker::CircuitBreaker& b) { b.Report(*permit, ok, now); });
}

// What a stage's outputs mean for its rows.
void Flow::Judge(std::size_t stage, const std::vector<std::size_t>& open, const Result<std::vector<Tensor>>& outputs) {
  const Decision& decision = *plan_.served->decision;
  const LocalStage& local = plan_.served->stages[stage];
  const std::size_t classes = decision.classes();
  const TimePoint now = Now();
  Status ran = outputs.status();
  if (ran.ok()) ran = decision.CheckScores(stage, (*outputs)[0].As<float>());
  ReportRun(stage, ran.ok());
  if (!ran.ok()) {
    result_.failure = failure_ = ran;
    return FailAll(open, Reason::kFailed);
  }
  const auto z = (*outputs)[0].As<float>();
  for (std::size_t i = 0; i < open.size(); ++i) {
    Row& row = rows_[open[i]];
    std::optional<float> own;
    if (outputs->size() > 1) own = (*outputs)[1].As<float>()[i];
    const auto judgement = decision.Judge(stage, z.subspan(i * classes, classes), own);
    if (judgement.label < 0) {  // no rule holds: not an answer
      row.step = row.cascade.OnFailure(Reason::kFailed, now);
      continue;
    }
    row.best = {judgement.label,
                std::clamp(judgement.confidence, 0.f, 1.f),
                policy_.stages[stage].tier,
                local.name,
                false,
                false,
                "",
                "",
                stage};
    row.step = row.cascade.OnAnswer(judgement.label, judgement.confidence, now);
  }
}

void Flow::AskAbove(const std::vector<std::size_t>& open) {
  if (plan_.leave_for_above && result_.asked_above == 0 && !plan_.leave_for_above()) {
    FailAll(open, Reason::kOverload);
    return Advance();
  }
  const Decision& decision = *plan_.served->decision;
  const DecisionConfig& config = decision.config();
  // The parent's answer may come after the flow has ended at its deadline and the request's memory is gone, and until
  // then gRPC may still have to write: so what goes up is a copy.
  std::vector<Tensor> selected;
  const auto views = Select(open, &selected);
  auto kept = std::make_shared<std::vector<Tensor>>();
  Question q;
  for (std::size_t i = 0; i < views.size(); ++i) {
    kept->push_back(
        Tensor::FromBytes(views[i].type, tensor::Shape(views[i].shape.begin(), views[i].shape.end()), views[i].bytes)
            .value());
  }
  for (std::size_t i = 0; i < views.size(); ++i) {
    wire::InferInput in;
    in.name = config.inputs[i].name;
    in.type = (*kept)[i].type();
    in.shape = (*kept)[i].shape();
    in.bytes = (*kept)[i].View().bytes;
    q.request.inputs.push_back(std::move(in));
  }
  q.request.model = config.name;
  for (const char* output :
       {"label", "confidence", "ganglion.tier", "ganglion.stage", "ganglion.degraded", "ganglion.decision_id"})
    q.request.outputs.push_back({output, false, 0, {}, {}});
  if (!plan_.unit.empty()) q.request.parameters.push_back({"unit", plan_.unit});
  if (plan_.audit) {
    // What was required, or the next above what has been computed here.
    const std::size_t next = std::max(std::min(plan_.first_stage, config.stages.size() - 1), local_);
    q.request.parameters.push_back({"require_tier", std::string(topology::Name(config.stages[next].tier))});
  } else if (local_ > 0) {
    q.request.parameters.push_back({"above_tier", std::string(topology::Name(policy_.stages[local_ - 1].tier))});
  }
  q.keeps = kept;
  q.highest = HighestTier(config.privacy);
  // The answer has to come back, too.
  const TimePoint now = Now();
  const Duration margin = std::max<Duration>(std::chrono::milliseconds(1), (plan_.deadline - now) / 20);
  q.deadline = plan_.deadline - std::min(margin, (plan_.deadline - now) / 2);
  q.traceparent = plan_.traceparent;
  q.hop = plan_.hop + 1;
  q.audit = plan_.audit;
  result_.asked_above += open.size();
  const std::uint64_t token = BeginWait(false);
  plan_.parents->Ask(std::move(q), [self = shared_from_this(), token, open](const Reply& reply) {
    if (!self->Claim(token)) return;
    self->TakeReply(open, reply);
    self->Advance();
  });
}

void Flow::TakeReply(const std::vector<std::size_t>& open, const Reply& reply) {
  if (!reply.response.ok()) {
    result_.forbidden |= reply.forbidden;
    failure_ = reply.response.status();
    return FailAll(open, reply.forbidden   ? Reason::kForbidden
                         : reply.timed_out ? Reason::kDeadline
                                           : Reason::kUnreachable);
  }
  if (Status read = ReadReply(open, reply); !read.ok()) {
    plan_.parents->NoAnswer(reply.parent, read.message());
    failure_ = read.Within("parent " + reply.parent);
    FailAll(open, Reason::kFailed);
  }
}

// OK: every open row has ended with the reply's answer.
Status Flow::ReadReply(const std::vector<std::size_t>& open, const Reply& reply) {
  const Decision& decision = *plan_.served->decision;
  const wire::InferResponse& response = *reply.response;
  const std::size_t n = open.size();
  const TimePoint now = Now();
  if (response.outputs.empty()) return DataLoss("the answer has no outputs");
  if (reply.foreign) {
    const Tensor* scores = reply.output.empty() ? &response.outputs[0].tensor : FindOutput(response, reply.output);
    if (scores == nullptr) return DataLoss("the answer has no output \"" + reply.output + "\"");
    const std::size_t classes = decision.classes() != 0 ? decision.classes() : decision.config().labels.size();
    if (scores->type() != DataType::kFp32 || scores->shape().empty() || scores->As<float>().size() % n != 0)
      return DataLoss(fmt::format("output is {}{}, want FP32 with {} scores a row", tensor::Name(scores->type()),
                                  tensor::ShapeText(scores->shape()), classes));
    const std::size_t width = scores->As<float>().size() / n;
    if (width == 0 || (classes != 0 && width != classes))
      return DataLoss(fmt::format("output has {} scores a row, want {}", width, classes));
    std::vector<std::size_t> unusable;
    for (std::size_t i = 0; i < n; ++i) {
      const auto z = scores->As<float>().subspan(i * width, width);
      const bool probabilities = std::all_of(z.begin(), z.end(), [](float v) { return v >= 0 && v <= 1; });
      auto judgement = calibration::Judge(z, 1, calibration::Measure::kMaxProbability);
      if (judgement.label < 0 || judgement.confidence < 0) {
        unusable.push_back(open[i]);
        continue;
      }
      if (probabilities) judgement.confidence = z[static_cast<std::size_t>(judgement.label)];
      Row& row = rows_[open[i]];
      row.best = {judgement.label, judgement.confidence, reply.tier, reply.parent, false, true, "", "", 0};
      row.step = row.cascade.OnAnswer(judgement.label, judgement.confidence, now);
    }
    if (unusable.size() == n) return DataLoss("scores are not numbers");
    FailAll(unusable, Reason::kFailed);
    return {};
  }
  if (!response.version.empty() && response.version != plan_.served->version) {
    result_.another_version = true;
    result_.parent = reply.parent;
  }
  const Tensor* label = FindOutput(response, "label");
  const Tensor* confidence = FindOutput(response, "confidence");
  const Tensor* tier = FindOutput(response, "ganglion.tier");
  const Tensor* stage = FindOutput(response, "ganglion.stage");
  const Tensor* degraded = FindOutput(response, "ganglion.degraded");
  const Tensor* id = FindOutput(response, "ganglion.decision_id");
  const auto is = [n](const Tensor* t, DataType type) {
    return t != nullptr && t->type() == type && t->shape().size() == 1 && static_cast<std::size_t>(t->shape()[0]) == n;
  };
  if (!is(label, DataType::kInt64) || !is(confidence, DataType::kFp32) || !is(tier, DataType::kBytes) ||
      !is(stage, DataType::kBytes) || !is(degraded, DataType::kBool) || !is(id, DataType::kBytes))
    return DataLoss("the answer is not that of a node");
  const auto tiers = Texts(*tier);
  const auto stages = Texts(*stage);
  const auto ids = Texts(*id);
  // A row that the parent could not decide is that row's failure; one that makes no sense is the whole answer's.
  std::vector<std::size_t> undecided;
  for (std::size_t i = 0; i < n; ++i) {
    const auto t = topology::TierFromName(tiers[i]);
    const std::int64_t l = label->As<std::int64_t>()[i];
    if (l == -1) {
      undecided.push_back(open[i]);
      continue;
    }
    if (!t || l < 0 || (decision.classes() != 0 && static_cast<std::size_t>(l) >= decision.classes()))
      return DataLoss(fmt::format("the answer names class {} and tier \"{}\"", l, tiers[i]));
    if (const float c = confidence->As<float>()[i]; !(c >= 0 && c <= 1))
      return DataLoss(fmt::format("the answer has confidence {}", c));
  }
  if (undecided.size() == n) return DataLoss("the answer decides no row");
  if (!undecided.empty()) failure_ = Unavailable("parent " + reply.parent + " could not decide every row");
  FailAll(undecided, Reason::kFailed);
  for (std::size_t i = 0; i < n; ++i) {
    if (label->As<std::int64_t>()[i] == -1) continue;
    Row& row = rows_[open[i]];
    row.best = {static_cast<int>(label->As<std::int64_t>()[i]),
                confidence->As<float>()[i],
                *topology::TierFromName(tiers[i]),
                stages[i],
                degraded->View().bytes[i] != std::byte{0},
                true,
                "",
                ids[i],
                0};
    if (row.best.degraded) row.best.reason = "above";
    row.step = row.cascade.OnAnswer(row.best.label, row.best.confidence, now);
  }
  return {};
}

void Flow::Finish() {
  bool any = false;
  Reason reason = Reason::kNone;
  for (Row& row : rows_) {
    if (row.step.kind == Step::Kind::kFail) {
      row.best.label = -1;
      reason = row.step.answer.reason;
      row.best.reason = std::string(cascade::Name(reason));
      row.best.degraded = true;
    } else {
      any = true;
      if (row.step.answer.degraded) {
        row.best.degraded = true;
        row.best.reason = std::string(cascade::Name(row.step.answer.reason));
      }
    }
    result_.rows.push_back(std::move(row.best));
  }
  if (!any) {
    const Duration limit = plan_.deadline - plan_.begin;
    switch (reason) {
      case Reason::kDeadline:
        result_.status =
            Status(Code::kDeadlineExceeded,
                   fmt::format("deadline {:.3g}ms passed before any stage answered{}", Milliseconds(limit),
                               local_ > plan_.first_stage
                                   ? fmt::format("; the cheapest usually takes {:.3g}ms",
                                                 Milliseconds(plan_.served->stages[plan_.first_stage].runner->usual()))
                                   : ""));
        break;
      case Reason::kForbidden:
        result_.status =
            FailedPrecondition(fmt::format("{}: no stage here, and privacy {} keeps it from going up",
                                           plan_.served->name, Name(plan_.served->decision->config().privacy)));
        break;
      case Reason::kOverload:
        result_.status = ResourceExhausted(plan_.served->name + ": the queue is full");
        break;
      default:
        result_.status = failure_.ok() ? Unavailable(plan_.served->name + ": nobody could answer") : failure_;
    }
  }
  const auto done = std::move(done_);
  done(std::move(result_));
}

}  // namespace ganglion::node
