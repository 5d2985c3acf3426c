#include "training/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "data/file.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::training {
namespace {

using tensor::DataType;
using tensor::Tensor;

constexpr char kMagic[] = "ganglion checkpoint 1\n";

// What a checkpoint is bound to: another model, data or option must not continue from it.
std::string Fingerprint(const model::Model& model, const Examples& examples, const TrainOptions& o) {
  std::string text = model.digest().Hex() + " " + examples.Fingerprint() + " " +
                     std::string(optimizer::Name(o.optimizer.kind)) + " " + std::to_string(o.batch) + " " +
                     std::to_string(o.epochs) + " " + std::to_string(o.seed);
  for (const double v : {o.optimizer.rate, o.optimizer.momentum, o.optimizer.beta1, o.optimizer.beta2,
                         o.optimizer.epsilon, o.optimizer.weight_decay, o.warmup}) {
    char exact[40];
    std::snprintf(exact, sizeof exact, " %a", v);
    text += exact;
  }
  return crypto::Sha256(text).Hex();
}

struct Checkpoint {
  std::int64_t epoch = 0;
  std::vector<float> parameters;
  optimizer::State state;
  std::vector<EpochRecord> history;
};

template <typename T>
void Append(std::string& out, std::span<const T> v) {
  const std::uint64_t n = v.size();
  out.append(reinterpret_cast<const char*>(&n), 8);
  out.append(reinterpret_cast<const char*>(v.data()), v.size_bytes());
}

template <typename T>
bool Take(std::string_view& in, std::vector<T>* v) {
  std::uint64_t n = 0;
  if (in.size() < 8) return false;
  std::memcpy(&n, in.data(), 8);
  in.remove_prefix(8);
  if (n > in.size() / sizeof(T)) return false;
  v->resize(n);
  std::memcpy(v->data(), in.data(), n * sizeof(T));
  in.remove_prefix(n * sizeof(T));
  return true;
}

std::string Encode(const Checkpoint& c, const std::string& fingerprint) {
  std::string body = fingerprint;
  const std::int64_t counters[2] = {c.epoch, c.state.steps};
  Append<std::int64_t>(body, counters);
  Append<float>(body, c.parameters);
  Append<float>(body, c.state.first);
  Append<float>(body, c.state.second);
  Append<EpochRecord>(body, c.history);
  return kMagic + crypto::Sha256(body).Hex() + body;
}

Result<Checkpoint> Decode(std::string_view file, const std::string& fingerprint, std::size_t parameters) {
  const std::size_t magic = sizeof(kMagic) - 1;
  if (file.size() < magic + 128 || file.substr(0, magic) != kMagic)
    return DataLoss("not a checkpoint; delete it to start again");
  const std::string_view digest = file.substr(magic, 64);
  std::string_view body = file.substr(magic + 64);
  if (crypto::Sha256(body).Hex() != digest) return DataLoss("the checkpoint is damaged; delete it to start again");
  if (body.substr(0, 64) != fingerprint) {
    return FailedPrecondition("the checkpoint is of another model, data set or setting; delete it to start again");
  }
  body.remove_prefix(64);
  Checkpoint c;
  std::vector<std::int64_t> counters;
  if (!Take(body, &counters) || counters.size() != 2 || !Take(body, &c.parameters) ||
      c.parameters.size() != parameters || !Take(body, &c.state.first) || !Take(body, &c.state.second) ||
      !Take(body, &c.history)) {
    return DataLoss("the checkpoint is damaged; delete it to start again");
  }
  c.epoch = counters[0];
  c.state.steps = counters[1];
  return c;
}

}  // namespace

Result<std::unique_ptr<Step>> Step::Create(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                                           gradient::Loss loss, std::int64_t batch) {
  const auto& sig = model.signature();
  if (sig.inputs.size() != 1 || sig.inputs[0].type != DataType::kFp32 || sig.inputs[0].shape.size() != 2 ||
      sig.inputs[0].shape[1] < 1 || sig.inputs[0].shape[0] != -1) {
    return InvalidArgument(model.name() + ": training takes models with one input FP32[-1,features], this one has " +
                           sig.Text());
  }
  if (sig.outputs[0].shape.size() != 2 || sig.outputs[0].shape[1] < 1) {
    return InvalidArgument(
        model.name() + ": training takes models whose first output is FP32[-1,classes], this one has " + sig.Text());
  }
  if (batch < 1) return InvalidArgument("batch must be at least 1, got " + std::to_string(batch));
  std::unique_ptr<Step> step(new Step);
  step->model_bytes_.assign(reinterpret_cast<const char*>(model.bytes().data()), model.bytes().size());
  onnx::ModelProto proto;
  RETURN_IF_ERROR(graph::Parse(model.bytes(), &proto));
  onnx::ModelProto step_proto;
  auto segments = gradient::Differentiate(proto, {.loss = loss}, &step_proto);
  if (!segments.ok()) return segments.status().Within(model.name());
  step->segments_ = std::move(*segments);
  ASSIGN_OR_RETURN(const auto step_model,
                   model::Model::FromBytes(model.name() + " (training step)", graph::Serialize(step_proto)));
  ASSIGN_OR_RETURN(step->session_, runtime::Session::Create(engine, step_model,
                                                            {.optimise = runtime::SessionOptions::Optimise::kBasic}));

  const std::int64_t size = step->segments_.back().offset + step->segments_.back().size;
  const std::int64_t classes = sig.outputs[0].shape[1];
  ASSIGN_OR_RETURN(step->x_, Tensor::Zeros(DataType::kFp32, {batch, sig.inputs[0].shape[1]}));
  if (loss == gradient::Loss::kSoftmaxCrossEntropy) {
    ASSIGN_OR_RETURN(step->target_, Tensor::Zeros(DataType::kInt64, {batch}));
  } else {
    ASSIGN_OR_RETURN(step->target_, Tensor::Zeros(DataType::kFp32, {batch, classes}));
  }
  ASSIGN_OR_RETURN(step->weight_, Tensor::Zeros(DataType::kFp32, {batch}));
  std::fill(step->weight().begin(), step->weight().end(), 1.f / static_cast<float>(batch));
  ASSIGN_OR_RETURN(step->parameters_, Tensor::Zeros(DataType::kFp32, {size}));
  ASSIGN_OR_RETURN(step->gradients_, Tensor::Zeros(DataType::kFp32, {size}));
  ASSIGN_OR_RETURN(step->loss_, Tensor::Zeros(DataType::kFp32, {}));
  std::vector<runtime::NamedView> inputs{
      {sig.inputs[0].name, step->x_.View()}, {"target", step->target_.View()}, {"row_weight", step->weight_.View()}};
  std::vector<runtime::NamedMutableView> outputs{{"loss", step->loss_.Mutable()}};
  for (const auto& s : step->segments_) {
    const auto part = [&](Tensor& flat) {
      return tensor::MutableView{
          DataType::kFp32, s.shape,
          flat.Mutable().bytes.subspan(static_cast<std::size_t>(s.offset) * 4, static_cast<std::size_t>(s.size) * 4)};
    };
    const auto value = part(step->parameters_);
    for (const auto& t : proto.graph().initializer()) {
      if (t.name() != s.name) continue;
      ASSIGN_OR_RETURN(const Tensor initial, graph::ToTensor(t));
      std::memcpy(value.bytes.data(), initial.View().bytes.data(), value.bytes.size());
    }
    inputs.push_back({s.name, value});
    outputs.push_back({"grad." + s.name, part(step->gradients_)});
  }
  ASSIGN_OR_RETURN(auto binding, step->session_->Bind(inputs, outputs));
  step->binding_ = std::make_unique<runtime::Binding>(std::move(binding));
  return step;
}

Result<model::Model> Step::Snapshot(const std::string& name) const {
  onnx::ModelProto proto;
  RETURN_IF_ERROR(graph::Parse(std::as_bytes(std::span(model_bytes_)), &proto));
  for (auto& t : *proto.mutable_graph()->mutable_initializer()) {
    for (const auto& s : segments_) {
      if (s.name != t.name()) continue;
      const auto bytes = parameters_.View().bytes.subspan(static_cast<std::size_t>(s.offset) * 4,
                                                          static_cast<std::size_t>(s.size) * 4);
      onnx::TensorProto fresh;
      graph::FromTensor(s.name, {DataType::kFp32, s.shape, bytes}, &fresh);
      t = std::move(fresh);
    }
  }
  return model::Model::FromBytes(name, graph::Serialize(proto));
}

Result<double> Accuracy(const runtime::Session& session, const data::Dataset& dataset) {
  if (dataset.labels.empty()) return InvalidArgument("accuracy needs labels");
  constexpr std::int64_t kBatch = 500;
  std::int64_t right = 0;
  for (std::int64_t begin = 0; begin < dataset.rows(); begin += kBatch) {
    tensor::Shape shape;
    const auto view = tensor::Rows(dataset.x.View(), begin, std::min(begin + kBatch, dataset.rows()), &shape);
    ASSIGN_OR_RETURN(const auto out, session.Run({&view, 1}));
    const auto y = out[0].As<float>();
    const auto k = y.size() / static_cast<std::size_t>(shape[0]);
    for (std::size_t i = 0; i < static_cast<std::size_t>(shape[0]); ++i) {
      const auto row = y.subspan(i * k, k);
      right +=
          std::max_element(row.begin(), row.end()) - row.begin() == dataset.labels[static_cast<std::size_t>(begin) + i];
    }
  }
  return static_cast<double>(right) / static_cast<double>(dataset.rows());
}

Result<Trained> Train(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                      const Examples& examples, const data::Dataset* valid, const TrainOptions& o,
                      const std::stop_token& stop, const std::function<void(const Progress&)>& on_progress) {
  if (o.epochs < 1) return InvalidArgument("epochs must be at least 1, got " + std::to_string(o.epochs));
  const std::int64_t batch = std::min(o.batch, examples.count());
  ASSIGN_OR_RETURN(const auto step, Step::Create(engine, model, gradient::Loss::kSoftmaxCrossEntropyDense, batch));
  const auto features = static_cast<std::size_t>(examples.features());
  const auto classes = static_cast<std::size_t>(examples.classes());
  if (step->x().size() != features * static_cast<std::size_t>(batch) ||
      step->target().bytes.size() != classes * static_cast<std::size_t>(batch) * 4) {
    return InvalidArgument(model.name() + " is " + model.signature().Text() + ", the data have " +
                           std::to_string(features) + " features and " + std::to_string(classes) + " classes");
  }
  if (valid != nullptr && valid->features() != examples.features()) {
    return InvalidArgument("the validation rows have " + std::to_string(valid->features()) +
                           " features, the training rows " + std::to_string(examples.features()));
  }
  ASSIGN_OR_RETURN(auto optimiser, optimizer::Optimizer::Create(o.optimizer, step->parameters().size()));
  const std::string fingerprint = Fingerprint(model, examples, o);
  Checkpoint at;
  std::error_code ignored;
  if (o.resume && !o.checkpoint.empty() && std::filesystem::exists(o.checkpoint, ignored)) {
    ASSIGN_OR_RETURN(const std::string file, data::ReadFile(o.checkpoint));
    auto decoded = Decode(file, fingerprint, step->parameters().size());
    if (!decoded.ok()) return decoded.status().Within(o.checkpoint.string());
    at = std::move(*decoded);
    std::copy(at.parameters.begin(), at.parameters.end(), step->parameters().begin());
    RETURN_IF_ERROR(optimiser.Restore(at.state));
  }

  const std::int64_t steps = (examples.count() + batch - 1) / batch;  // an epoch; the last may be shorter
  std::vector<std::int64_t> order(static_cast<std::size_t>(examples.count()));
  for (std::int64_t epoch = at.epoch; epoch < o.epochs; ++epoch) {
    Random random = Random(o.seed).Fork(static_cast<std::uint64_t>(epoch) + 1);
    std::iota(order.begin(), order.end(), 0);
    random.Shuffle(order);
    double loss_sum = 0;
    for (std::int64_t s = 0; s < steps; ++s) {
      if (stop.stop_requested()) {
        return Cancelled(o.checkpoint.empty() || epoch == 0
                             ? "stopped before the first whole epoch"
                             : "stopped; " + o.checkpoint.string() + " holds epoch " + std::to_string(epoch) + "");
      }
      const std::int64_t begin = s * batch;
      const auto rows = static_cast<std::size_t>(std::min(batch, examples.count() - begin));
      const auto targets = step->target().As<float>();
      for (std::size_t r = 0; r < rows; ++r) {
        examples.Fill(order[static_cast<std::size_t>(begin) + r], epoch, random,
                      step->x().subspan(r * features, features), targets.subspan(r * classes, classes));
      }
      for (std::size_t r = 0; r < static_cast<std::size_t>(batch); ++r)
        step->weight()[r] = r < rows ? 1.f / static_cast<float>(rows) : 0.f;
      RETURN_IF_ERROR(step->Run());
      if (!std::isfinite(step->loss())) {
        return FailedPrecondition(
            model.name() + ": the loss is no longer finite at epoch " + std::to_string(epoch + 1) + " step " +
            std::to_string(s + 1) + "; lower the rate" +
            (o.checkpoint.empty() || epoch == 0 ? "" : ". The checkpoint of the epoch before is kept"));
      }
      loss_sum += step->loss();
      optimiser.Step(step->parameters(), step->gradients(),
                     optimizer::CosineSchedule(epoch * steps + s, o.epochs * steps, o.warmup));
      if (on_progress && (s % std::max<std::int64_t>(1, steps / 20) == 0)) {
        on_progress({epoch + 1, o.epochs,
                     static_cast<double>(epoch * steps + s + 1) / static_cast<double>(o.epochs * steps),
                     loss_sum / static_cast<double>(s + 1), at.history.empty() ? -1 : at.history.back().accuracy});
      }
    }
    EpochRecord record{loss_sum / static_cast<double>(steps), -1};
    if (valid != nullptr) {
      ASSIGN_OR_RETURN(const auto snapshot, step->Snapshot(model.name()));
      ASSIGN_OR_RETURN(const auto session, runtime::Session::Create(engine, snapshot));
      ASSIGN_OR_RETURN(record.accuracy, Accuracy(*session, *valid));
    }
    at.history.push_back(record);
    if (on_progress)
      on_progress({epoch + 1, o.epochs, static_cast<double>(epoch + 1) / static_cast<double>(o.epochs), record.loss,
                   record.accuracy});
    if (!o.checkpoint.empty()) {
      at.epoch = epoch + 1;
      at.parameters.assign(step->parameters().begin(), step->parameters().end());
      at.state = optimiser.state();
      RETURN_IF_ERROR(data::WriteFileAtomically(o.checkpoint, Encode(at, fingerprint)));
    }
  }
  ASSIGN_OR_RETURN(auto trained, step->Snapshot(model.name()));
  return Trained{std::move(trained), std::move(at.history)};
}

}  // namespace ganglion::training
