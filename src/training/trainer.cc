#include "training/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "crypto/crypto.h"
#include "data/file.h"
#include "optimizer/clip.h"
#include "training/checkpoint.h"
#include "training/exchange.h"

namespace ganglion::training {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kTracePoints = 200;

// What a checkpoint is bound to: another model, data or option must not continue from it.
std::string Fingerprint(const model::Model& model, const Source& source, const TrainOptions& o) {
  std::string text = model.digest().Hex() + " " + source.Fingerprint() + " " +
                     std::string(optimizer::Name(o.optimizer.kind)) + " " +
                     std::string(gradient::Name(o.gradient.loss)) + " " + optimizer::Text(o.schedule);
  const auto add = [&](double v) {
    char exact[40];
    std::snprintf(exact, sizeof exact, " %a", v);
    text += exact;
  };
  for (const double v :
       {o.optimizer.rate, o.optimizer.momentum, o.optimizer.beta1, o.optimizer.beta2, o.optimizer.epsilon,
        o.optimizer.weight_decay, o.optimizer.initial_second, static_cast<double>(o.gradient.huber_delta),
        static_cast<double>(o.gradient.temperature), static_cast<double>(o.gradient.hard_share),
        static_cast<double>(o.gradient.proximal), static_cast<double>(o.gradient.clip_norm.value_or(-1)),
        o.clip_norm.value_or(-1), o.clip_value.value_or(-1), o.early_stopping ? o.early_stopping->min_delta : -1.}) {
    add(v);
  }
  for (const std::int64_t v :
       {o.batch, o.epochs, static_cast<std::int64_t>(o.seed), std::int64_t{o.optimizer.decoupled},
        std::int64_t{o.decay_all}, std::int64_t{o.gradient.freeze_statistics}, o.validate_every,
        o.early_stopping ? o.early_stopping->patience : -1,
        o.exchange != nullptr ? std::int64_t{o.exchange->size()} : 1}) {
    text += " " + std::to_string(v);
  }
  for (const auto& name : o.gradient.frozen) text += " frozen " + name;
  text += " output " + o.gradient.output;
  return crypto::Sha256(text).Hex();
}

Status CheckOptions(const TrainOptions& o, bool validates) {
  const auto refuse = [](const char* what, const char* want, double v) {
    return InvalidArgument(std::string(what) + " must be " + want + ", got " + std::to_string(v));
  };
  if (o.epochs < 1) return InvalidArgument("epochs must be at least 1, got " + std::to_string(o.epochs));
  if (o.batch < 1) return InvalidArgument("batch must be at least 1, got " + std::to_string(o.batch));
  if (o.clip_norm && !(*o.clip_norm > 0)) return refuse("clip_norm", "> 0", *o.clip_norm);
  if (o.clip_value && !(*o.clip_value > 0)) return refuse("clip_value", "> 0", *o.clip_value);
  if (o.validate_every < 0) return refuse("validate_every", ">= 0", static_cast<double>(o.validate_every));
  if (o.checkpoint_steps < 0) return refuse("checkpoint_steps", ">= 0", static_cast<double>(o.checkpoint_steps));
  if (!(o.checkpoint_seconds >= 0)) return refuse("checkpoint_seconds", ">= 0", o.checkpoint_seconds);
  if (o.early_stopping && !validates) return InvalidArgument("early stopping watches validation rows; there are none");
  return optimizer::Check(o.schedule);
}

// One run: what is fixed about it, and the state between two of its steps.
class Run {
 public:
  Run(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model, Source& source,
      const Validation& validation, const TrainOptions& options,
      const std::function<void(const Progress&)>& on_progress)
      : engine_(engine),
        model_(model),
        source_(source),
        validation_(validation),
        o_(options),
        on_progress_(on_progress),
        plateau_(options.schedule) {}

  Status Prepare() {
    RETURN_IF_ERROR(CheckOptions(o_, validation_ != nullptr));
    ranks_ = o_.exchange != nullptr ? o_.exchange->size() : 1;
    rank_ = o_.exchange != nullptr ? o_.exchange->rank() : 0;
    batch_ = std::min(o_.batch, source_.count());
    epoch_steps_ = (source_.count() + batch_ - 1) / batch_;  // the last may be shorter
    total_steps_ = epoch_steps_ * o_.epochs;
    trace_every_ = std::max<std::int64_t>(1, total_steps_ / kTracePoints);

    StepOptions step;
    step.gradient = o_.gradient;
    ASSIGN_OR_RETURN(const auto names, ParameterNames(model_));
    ASSIGN_OR_RETURN(step.gradient.frozen, MatchNames(o_.gradient.frozen, names));
    step.batch = (batch_ + ranks_ - 1) / ranks_;
    ASSIGN_OR_RETURN(step.row_shapes, source_.RowShapes(model_.signature().inputs));
    ASSIGN_OR_RETURN(step_, Step::Create(engine_, model_, step));
    Wanted wanted{step_->input_specs(), step_->target_spec(), step_->has_label(), o_.gradient.loss, step_->classes()};
    if (auto s = source_.Prepare(wanted); !s.ok()) return s.Within(model_.name());
    for (std::size_t i = 0; i < step_->input_specs().size(); ++i) buffers_.inputs.push_back(step_->input(i));
    buffers_.target = step_->target();
    if (step_->has_label()) buffers_.label = step_->label();

    ASSIGN_OR_RETURN(optimizer_,
                     optimizer::Optimizer::Create(o_.optimizer, step_->parameters().size(),
                                                  o_.decay_all ? std::vector<optimizer::Range>() : step_->undecayed()));
    if (o_.early_stopping) {
      ASSIGN_OR_RETURN(stopping_, optimizer::EarlyStopping::Create(*o_.early_stopping));
    }
    fingerprint_ = Fingerprint(model_, source_, o_);
    saved_ = Clock::now();
    return Resume();
  }

  Result<Trained> Go(const std::stop_token& stop) {
    if (o_.exchange != nullptr) RETURN_IF_ERROR(o_.exchange->Start(step_->parameters(), step_->segments()));
    while (at_.epoch < o_.epochs && !ended_) {
      RETURN_IF_ERROR(Epoch(stop));
    }
    RETURN_IF_ERROR(CheckParameters());
    if (o_.exchange != nullptr) RETURN_IF_ERROR(o_.exchange->Finish(step_->parameters()));
    if (!at_.best_parameters.empty()) {
      std::copy(at_.best_parameters.begin(), at_.best_parameters.end(), step_->parameters().begin());
      std::copy(at_.best_statistics.begin(), at_.best_statistics.end(), step_->statistics().begin());
    }
    ASSIGN_OR_RETURN(auto trained, step_->Snapshot(model_.name()));
    return Trained{std::move(trained), std::move(at_.history), std::move(at_.trace), optimizer_->state().steps,
                   stopping_ ? stopping_->state().best_step : -1};
  }

 private:
  std::int64_t GlobalStep() const { return at_.epoch * epoch_steps_ + at_.step; }  // steps made

  Status Epoch(const std::stop_token& stop) {
    while (at_.step < epoch_steps_) {
      if (stop.stop_requested()) return Stopped();
      RETURN_IF_ERROR(OneStep());
      if (ended_) return {};
      const bool last = at_.step == epoch_steps_;
      const bool validate =
          o_.validate_every > 0 ? GlobalStep() % o_.validate_every == 0 || GlobalStep() == total_steps_ : last;
      if (validate) RETURN_IF_ERROR(Point());
      if (ended_) break;
      if (!last) RETURN_IF_ERROR(SaveWithin());
      if (on_progress_ && (at_.step - 1) % std::max<std::int64_t>(1, epoch_steps_ / 20) == 0) Report();
    }
    if (on_progress_) Report();
    if (!ended_) {
      ++at_.epoch;
      at_.step = 0;
      at_.loss_sum = 0;
    }
    return o_.checkpoint.empty() ? Status() : Save();
  }

  Status OneStep() {
    const std::int64_t begin = at_.step * batch_;
    const std::int64_t rows = std::min(batch_, source_.count() - begin);
    const std::int64_t mine = begin + rows * rank_ / ranks_;
    const std::int64_t count = begin + rows * (rank_ + 1) / ranks_ - mine;
    const std::int64_t number = GlobalStep();
    const bool wanted = o_.exchange == nullptr || o_.exchange->Wanted();
    float loss = 0;
    if (wanted) {
      RETURN_IF_ERROR(source_.Fill({o_.seed, at_.epoch}, mine, count, buffers_));
      RETURN_IF_ERROR(step_->Weigh(count, 1.f / static_cast<float>(rows)));
      if (step_->has_noise()) step_->DrawNoise(NoiseOf(number));
      if (auto s = step_->Run(); !s.ok()) return s.Within(Place());
      loss = step_->loss();
    }
    const bool bad = !std::isfinite(loss);
    if (o_.exchange != nullptr) {
      if (auto s = o_.exchange->Average(step_->gradients(), &loss); !s.ok()) {
        if (bad) return NotFinite("loss");
        ended_ = s.code() == Code::kCancelled;  // rank 0 has ended and needs no more
        return ended_ ? Status() : s;
      }
    }
    if (bad || !std::isfinite(loss)) return NotFinite("loss");
    const auto gradients = step_->gradients();
    const double norm = optimizer::Norm(gradients);
    if (!std::isfinite(norm)) return NotFinite("gradient");
    if (o_.clip_value) optimizer::ClipByValue(gradients, static_cast<float>(*o_.clip_value));
    if (o_.clip_norm) {
      optimizer::ScaleToNorm(gradients, o_.clip_value ? optimizer::Norm(gradients) : norm, *o_.clip_norm);
    }
    if (wanted) step_->KeepStatistics();
    const double rate = optimizer::RateAt(o_.schedule, number, total_steps_, epoch_steps_) * plateau_.scale();
    optimizer_->Step(step_->parameters(), gradients, rate);
    if (o_.after_step) o_.after_step(step_->parameters(), number);
    if (o_.exchange != nullptr) RETURN_IF_ERROR(o_.exchange->AfterStep(step_->parameters(), number));
    at_.loss_sum += loss;
    at_.trace_loss += loss;
    at_.trace_norm += norm;
    ++at_.step;
    if (++at_.observed == trace_every_ || number + 1 == total_steps_) {
      const auto n = static_cast<double>(at_.observed);
      at_.trace.push_back({number + 1, static_cast<float>(at_.trace_loss / n), static_cast<float>(at_.trace_norm / n),
                           static_cast<float>(rate * o_.optimizer.rate)});
      at_.observed = 0;
      at_.trace_loss = at_.trace_norm = 0;
    }
    return {};
  }

  // Of the step's number alone, so that a run resumed anywhere draws the same.
  Random NoiseOf(std::int64_t number) const {
    return Random(o_.seed ^ 0x6e6f697365ull).Fork(static_cast<std::uint64_t>(number * ranks_ + rank_) + 1);
  }

  // Validation, and what follows from it.
  Status Point() {
    CurvePoint point;
    point.step = GlobalStep();
    point.epoch = static_cast<double>(point.step) / static_cast<double>(epoch_steps_);
    point.loss = at_.loss_sum / static_cast<double>(std::max<std::int64_t>(1, at_.step));
    if (validation_) {
      RETURN_IF_ERROR(CheckParameters());
      ASSIGN_OR_RETURN(const auto snapshot, step_->Snapshot(model_.name()));
      ASSIGN_OR_RETURN(const Measured measured, validation_(snapshot));
      point.accuracy = measured.accuracy;
      point.valid_loss = measured.loss;
    }
    at_.history.push_back(point);
    // Where only an accuracy is measured, its complement is what should fall.
    const double watched = !validation_ ? point.loss : point.valid_loss >= 0 ? point.valid_loss : 1 - point.accuracy;
    if (o_.schedule.kind == optimizer::Schedule::Kind::kPlateau) plateau_.Observe(watched);
    if (!stopping_) return {};
    switch (stopping_->Observe(point.step, watched)) {
      case optimizer::EarlyStopping::Verdict::kImproved:
        at_.best_parameters.assign(step_->parameters().begin(), step_->parameters().end());
        at_.best_statistics.assign(step_->statistics().begin(), step_->statistics().end());
        break;
      case optimizer::EarlyStopping::Verdict::kWait:
        break;
      case optimizer::EarlyStopping::Verdict::kStop:
        ended_ = true;
        break;
    }
    return {};
  }

  void Report() const {
    Progress p;
    p.epoch = at_.epoch + 1;
    p.epochs = o_.epochs;
    p.done = ended_ ? 1 : static_cast<double>(GlobalStep()) / static_cast<double>(total_steps_);
    p.loss = at_.loss_sum / static_cast<double>(std::max<std::int64_t>(1, at_.step));
    if (!at_.history.empty()) {
      p.accuracy = at_.history.back().accuracy;
      p.valid_loss = at_.history.back().valid_loss;
    }
    on_progress_(p);
  }

  std::string Place() const {
    return model_.name() + ": epoch " + std::to_string(at_.epoch + 1) + " step " + std::to_string(at_.step + 1);
  }

  Status NotFinite(const std::string& what) {
    std::error_code ignored;
    const bool kept = !o_.checkpoint.empty() && std::filesystem::exists(o_.checkpoint, ignored);
    return FailedPrecondition(Place() + ": the " + what + " is no longer finite: " + step_->WhatIsNotFinite(engine_) +
                              ". Lower the rate, warm up longer or clip the gradient" +
                              (kept ? "; the checkpoint before it is kept in " + o_.checkpoint.string() : ""));
  }
  // Parameters can become infinite in the last step, after all gradients were finite.
  Status CheckParameters() {
    if (tensor::CheckFinite("parameters", {tensor::DataType::kFp32, {}, std::as_bytes(step_->parameters())}).ok())
      return {};
    return NotFinite("model");
  }

  Status SaveWithin() {
    if (o_.checkpoint.empty()) return {};
    const bool by_steps = o_.checkpoint_steps > 0 && at_.step % o_.checkpoint_steps == 0;
    const bool by_time = o_.checkpoint_seconds > 0 &&
                         std::chrono::duration<double>(Clock::now() - saved_).count() >= o_.checkpoint_seconds;
    return by_steps || by_time ? Save() : Status();
  }
  Status Save() {
    RETURN_IF_ERROR(CheckParameters());
    at_.parameters.assign(step_->parameters().begin(), step_->parameters().end());
    at_.statistics.assign(step_->statistics().begin(), step_->statistics().end());
    at_.optimizer = optimizer_->state();
    at_.plateau = plateau_.state();
    if (stopping_) at_.stopping = stopping_->state();
    at_.ended = ended_;
    RETURN_IF_ERROR(data::WriteFileAtomically(o_.checkpoint, EncodeCheckpoint(at_, fingerprint_)));
    saved_ = Clock::now();
    return {};
  }
  Status Stopped() {
    if (o_.checkpoint.empty()) return Cancelled("stopped; nothing is kept without a checkpoint");
    if (GlobalStep() == 0) return Cancelled("stopped before the first step");
    RETURN_IF_ERROR(Save());
    return Cancelled("stopped; " + o_.checkpoint.string() + " holds epoch " + std::to_string(at_.epoch) +
                     (at_.step > 0 ? " and " + std::to_string(at_.step) + " steps of the next" : ""));
  }
  Status Resume() {
    std::error_code ignored;
    if (!o_.resume || o_.checkpoint.empty() || !std::filesystem::exists(o_.checkpoint, ignored)) return {};
    ASSIGN_OR_RETURN(const std::string file, data::ReadFile(o_.checkpoint));
    auto decoded = DecodeCheckpoint(file, fingerprint_, step_->parameters().size(), step_->statistics().size());
    if (!decoded.ok()) return decoded.status().Within(o_.checkpoint.string());
    at_ = std::move(*decoded);
    std::copy(at_.parameters.begin(), at_.parameters.end(), step_->parameters().begin());
    std::copy(at_.statistics.begin(), at_.statistics.end(), step_->statistics().begin());
    plateau_.Restore(at_.plateau);
    if (stopping_) stopping_->Restore(at_.stopping);
    ended_ = at_.ended;
    return optimizer_->Restore(at_.optimizer);
  }

  const std::shared_ptr<runtime::Engine>& engine_;
  const model::Model& model_;
  Source& source_;
  const Validation& validation_;
  const TrainOptions& o_;
  const std::function<void(const Progress&)>& on_progress_;
  optimizer::Plateau plateau_;

  std::int64_t ranks_ = 1;
  std::int64_t rank_ = 0;
  std::int64_t batch_ = 0;
  std::int64_t epoch_steps_ = 0;
  std::int64_t total_steps_ = 0;
  std::int64_t trace_every_ = 1;
  std::unique_ptr<Step> step_;
  Batch buffers_;
  std::optional<optimizer::Optimizer> optimizer_;
  std::optional<optimizer::EarlyStopping> stopping_;
  std::string fingerprint_;
  Checkpoint at_;
  bool ended_ = false;  // by early stopping, or by rank 0
  Clock::time_point saved_;
};

}  // namespace

Result<Trained> Train(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model, Source& source,
                      const Validation& validation, const TrainOptions& options, const std::stop_token& stop,
                      const std::function<void(const Progress&)>& on_progress) {
  Run run(engine, model, source, validation, options, on_progress);
  RETURN_IF_ERROR(run.Prepare());
  return run.Go(stop);
}

Result<Trained> Train(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                      const Examples& examples, const data::Dataset* valid, const TrainOptions& options,
                      const std::stop_token& stop, const std::function<void(const Progress&)>& on_progress) {
  if (valid != nullptr && valid->features() != examples.features()) {
    return InvalidArgument("the validation rows have " + std::to_string(valid->features()) +
                           " features, the training rows " + std::to_string(examples.features()));
  }
  Validation validation;
  if (valid != nullptr) {
    validation = [&](const model::Model& snapshot) -> Result<Measured> {
      ASSIGN_OR_RETURN(const auto session, runtime::Session::Create(engine, snapshot));
      ASSIGN_OR_RETURN(const double accuracy, Accuracy(*session, *valid));
      return Measured{-1, accuracy};
    };
  }
  ExamplesSource source(examples);
  return Train(engine, model, source, validation, options, stop, on_progress);
}

}  // namespace ganglion::training
