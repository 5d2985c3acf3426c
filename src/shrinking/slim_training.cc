#include "shrinking/slim_training.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "base/random.h"
#include "crypto/crypto.h"
#include "data/file.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "optimizer/schedule.h"
#include "shrink/slim.h"
#include "shrinking/measure.h"
#include "training/checkpoint.h"
#include "training/source.h"
#include "training/step.h"

namespace ganglion::shrinking {
namespace {

using training::Step;

// One width's net, its training step, and where its parameters lie in the widest's.
struct Width {
  std::unique_ptr<Step> step;
  shrink::Nested nested;
};

std::string Fingerprint(const model::Model& wide, const training::Examples& examples, const SlimOptions& o) {
  std::string text = "slim " + wide.digest().Hex() + " " + examples.Fingerprint() + " " +
                     std::string(optimizer::Name(o.optimizer.kind)) + " " + std::to_string(o.batch) + " " +
                     std::to_string(o.epochs) + " " + std::to_string(o.seed) + " " + std::to_string(o.between) + " " +
                     std::to_string(o.multiple);
  std::vector<double> numbers{o.optimizer.rate,    o.optimizer.momentum,     o.optimizer.beta1, o.optimizer.beta2,
                              o.optimizer.epsilon, o.optimizer.weight_decay, o.warmup};
  numbers.insert(numbers.end(), o.widths.begin(), o.widths.end());
  for (const double v : numbers) {
    char exact[40];
    std::snprintf(exact, sizeof exact, " %a", v);
    text += exact;
  }
  return crypto::Sha256(text).Hex();
}

Status Check(const SlimOptions& o) {
  if (o.epochs < 1) return InvalidArgument("epochs must be at least 1, got " + std::to_string(o.epochs));
  if (o.batch < 1) return InvalidArgument("batch must be at least 1, got " + std::to_string(o.batch));
  if (o.between < 0) return InvalidArgument("between must be at least 0, got " + std::to_string(o.between));
  if (o.widths.empty() || o.widths.back() != 1) return InvalidArgument("the last width is 1");
  for (std::size_t i = 0; i < o.widths.size(); ++i) {
    if (!(o.widths[i] > 0) || (i > 0 && !(o.widths[i] > o.widths[i - 1])))
      return InvalidArgument("widths rise from above 0 to 1, got " + std::to_string(o.widths[i]));
  }
  return {};
}

// The nets that a step asks: the narrowest, some between, the widest.
std::vector<std::size_t> Sandwich(std::size_t widths, int between, Random& random) {
  std::vector<std::size_t> middle;
  for (std::size_t i = 1; i + 1 < widths; ++i) middle.push_back(i);
  random.Shuffle(middle);
  middle.resize(std::min(middle.size(), static_cast<std::size_t>(between)));
  std::vector<std::size_t> asked{0};
  asked.insert(asked.end(), middle.begin(), middle.end());
  if (widths > 1) asked.push_back(widths - 1);
  std::sort(asked.begin(), asked.end());
  return asked;
}

void CopyBytes(const tensor::View& from, const tensor::MutableView& to) {
  std::memcpy(to.bytes.data(), from.bytes.data(), from.bytes.size());
}

class Trainer {
 public:
  Trainer(const SlimOptions& options, training::ExamplesSource& source) : o_(options), source_(source) {}

  Status Prepare(const std::shared_ptr<runtime::Engine>& engine, const model::Model& wide) {
    onnx::ModelProto proto;
    RETURN_IF_ERROR(graph::Parse(wide.bytes(), &proto));
    batch_ = std::min(o_.batch, source_.count());
    if (batch_ < 1) return InvalidArgument("there are no examples to train on");
    std::vector<std::string> known;
    for (const auto& t : proto.graph().initializer()) known.push_back(t.name());
    for (const double width : o_.widths) {
      onnx::ModelProto narrow;
      RETURN_IF_ERROR(shrink::ExtractWidth(proto, width, o_.multiple, &narrow));
      training::StepOptions step;
      step.gradient.loss = gradient::Loss::kSoftmaxCrossEntropyDense;
      step.batch = batch_;
      // What the given file held as Constant nodes stays constant.
      for (const auto& t : narrow.graph().initializer()) {
        const bool trains = t.data_type() == onnx::TensorProto::FLOAT && t.dims_size() > 0;
        if (trains && std::find(known.begin(), known.end(), t.name()) == known.end())
          step.gradient.frozen.push_back(t.name());
      }
      ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(wide.name(), graph::Serialize(narrow)));
      Width w;
      ASSIGN_OR_RETURN(w.step, Step::Create(engine, model, step));
      widths_.push_back(std::move(w));
    }
    for (Width& w : widths_) {
      ASSIGN_OR_RETURN(w.nested, shrink::Nested::Create(Widest().segments(), w.step->segments()));
    }
    training::Wanted wanted;
    wanted.inputs = Widest().input_specs();
    wanted.target = Widest().target_spec();
    wanted.loss = gradient::Loss::kSoftmaxCrossEntropyDense;
    wanted.classes = Widest().classes();
    if (auto s = source_.Prepare(wanted); !s.ok()) return s.Within(wide.name());
    const auto start = Widest().parameters();
    parameters_.assign(start.begin(), start.end());
    gradients_.assign(start.size(), 0);
    return {};
  }

  // One batch; the loss of the widest net.
  Result<double> Batch(std::int64_t epoch, std::int64_t begin, Random& random) {
    const std::int64_t rows = std::min(batch_, source_.count() - begin);
    Step& widest = Widest();
    RETURN_IF_ERROR(source_.Fill({o_.seed, epoch}, begin, rows, {{widest.input(0)}, widest.target(), {}}));
    const auto asked = Sandwich(widths_.size(), o_.between, random);
    std::fill(gradients_.begin(), gradients_.end(), 0.f);
    for (const std::size_t i : asked) {
      Step& step = *widths_[i].step;
      if (&step != &widest) {
        CopyBytes(widest.input(0), step.input(0));
        CopyBytes(widest.target(), step.target());
      }
      widths_[i].nested.Gather(parameters_, step.parameters());
      RETURN_IF_ERROR(step.Weigh(rows, 1.f / static_cast<float>(rows)));
      if (step.has_noise()) step.DrawNoise(random.Fork(i + 1));
      RETURN_IF_ERROR(step.Run());
      if (!std::isfinite(step.loss())) {
        return FailedPrecondition("the loss at width " + std::to_string(o_.widths[i]) +
                                  " is no longer finite in epoch " + std::to_string(epoch + 1) + "; lower the rate");
      }
      step.KeepStatistics();
      widths_[i].nested.Add(step.gradients(), 1.f / static_cast<float>(asked.size()), gradients_);
    }
    return widest.loss();
  }

  std::vector<float>& parameters() { return parameters_; }
  const std::vector<float>& gradients() const { return gradients_; }
  std::int64_t steps() const { return (source_.count() + batch_ - 1) / batch_; }
  Step& Widest() { return *widths_.back().step; }

  std::vector<float> Statistics() const {
    std::vector<float> all;
    for (const Width& w : widths_) {
      const auto s = w.step->statistics();
      all.insert(all.end(), s.begin(), s.end());
    }
    return all;
  }
  void Restore(const std::vector<float>& statistics) {
    auto from = statistics.begin();
    for (Width& w : widths_) {
      const auto s = w.step->statistics();
      std::copy_n(from, s.size(), s.begin());
      from += static_cast<std::ptrdiff_t>(s.size());
    }
  }
  Result<model::Model> Snapshot(std::size_t i, const std::string& name) {
    widths_[i].nested.Gather(parameters_, widths_[i].step->parameters());
    return widths_[i].step->Snapshot(name);
  }

 private:
  const SlimOptions& o_;
  training::ExamplesSource& source_;
  std::int64_t batch_ = 0;
  std::vector<Width> widths_;
  std::vector<float> parameters_;  // of the widest net
  std::vector<float> gradients_;
};

}  // namespace

Result<std::vector<model::Model>> TrainSlim(const std::shared_ptr<runtime::Engine>& engine, const model::Model& wide,
                                            const training::Examples& examples, const data::Dataset& rows,
                                            const SlimOptions& o, const std::stop_token& stop,
                                            const std::function<void(const SlimProgress&)>& on_progress) {
  RETURN_IF_ERROR(Check(o));
  training::ExamplesSource source(examples);
  Trainer trainer(o, source);
  RETURN_IF_ERROR(trainer.Prepare(engine, wide));
  ASSIGN_OR_RETURN(auto optimiser, optimizer::Optimizer::Create(o.optimizer, trainer.parameters().size(),
                                                                trainer.Widest().undecayed()));
  const std::string fingerprint = Fingerprint(wide, examples, o);
  training::Checkpoint at;
  std::error_code ignored;
  if (o.resume && !o.checkpoint.empty() && std::filesystem::exists(o.checkpoint, ignored)) {
    ASSIGN_OR_RETURN(const std::string file, data::ReadFile(o.checkpoint));
    auto decoded =
        training::DecodeCheckpoint(file, fingerprint, trainer.parameters().size(), trainer.Statistics().size());
    if (!decoded.ok()) return decoded.status().Within(o.checkpoint.string());
    at = std::move(*decoded);
    trainer.parameters() = at.parameters;
    trainer.Restore(at.statistics);
    RETURN_IF_ERROR(optimiser.Restore(at.optimizer));
  }
  const std::int64_t steps = trainer.steps();
  const optimizer::Schedule schedule{.warmup = o.warmup};
  RETURN_IF_ERROR(optimizer::Check(schedule));
  for (std::int64_t epoch = at.epoch; epoch < o.epochs; ++epoch) {
    Random random = Random(o.seed).Fork(static_cast<std::uint64_t>(epoch) + 1).Fork(7);
    double loss = 0;
    for (std::int64_t s = 0; s < steps; ++s) {
      if (stop.stop_requested()) return Cancelled("stopped while training widths");
      ASSIGN_OR_RETURN(const double step_loss, trainer.Batch(epoch, s * std::min(o.batch, source.count()), random));
      loss += step_loss;
      optimiser.Step(trainer.parameters(), trainer.gradients(),
                     optimizer::RateAt(schedule, epoch * steps + s, o.epochs * steps, steps));
      if (on_progress && s % std::max<std::int64_t>(1, steps / 20) == 0) {
        on_progress({static_cast<double>(epoch * steps + s + 1) / static_cast<double>(o.epochs * steps), epoch + 1,
                     loss / static_cast<double>(s + 1)});
      }
    }
    if (!o.checkpoint.empty()) {
      at.epoch = epoch + 1;
      at.parameters = trainer.parameters();
      at.statistics = trainer.Statistics();
      at.optimizer = optimiser.state();
      RETURN_IF_ERROR(data::WriteFileAtomically(o.checkpoint, training::EncodeCheckpoint(at, fingerprint)));
    }
  }
  std::vector<model::Model> models;
  for (std::size_t i = 0; i < o.widths.size(); ++i) {
    ASSIGN_OR_RETURN(const auto snapshot, trainer.Snapshot(i, wide.name()));
    onnx::ModelProto proto;
    RETURN_IF_ERROR(graph::Parse(snapshot.bytes(), &proto));
    RETURN_IF_ERROR(MeasureNorms(engine, rows, o.statistics_rows, stop, &proto));
    ASSIGN_OR_RETURN(auto model, model::Model::FromBytes(wide.name(), graph::Serialize(proto)));
    models.push_back(std::move(model));
  }
  return models;
}

}  // namespace ganglion::shrinking
