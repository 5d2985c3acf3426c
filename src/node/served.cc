#include "node/served.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/file.h"

namespace ganglion::node {
namespace {

Result<LocalStage> MakeStage(const ServedContext& context, const std::string& model, std::string name,
                             std::unique_ptr<Runner> runner, std::optional<Duration> delay) {
  LocalStage stage;
  stage.name = std::move(name);
  stage.runner = std::move(runner);
  const NodeConfig& node = *context.node;
  ASSIGN_OR_RETURN(auto batcher, batching::Batcher::Create({.max_rows = node.batching.max_rows,
                                                            .max_delay = delay.value_or(node.batching.max_delay)}));
  auto& rows =
      context.registry->AddHistogram("ganglion_batch_rows", "Rows of a run",
                                     {{"decision", model}, {"stage", stage.name}}, telemetry::PowersOfTwo(1024));
  stage.queue = std::make_unique<BatchQueue>(stage.runner.get(), context.executor, std::move(batcher),
                                             [&rows](std::int64_t n) { rows.Observe(n); });
  ASSIGN_OR_RETURN(auto breaker,
                   breaker::CircuitBreaker::Create({node.breaker.keep, node.breaker.trip, node.breaker.open_for,
                                                    node.breaker.probes, node.breaker.slow}));
  stage.breaker = std::make_unique<Guarded<breaker::CircuitBreaker>>(std::move(breaker));
  stage.seconds = &context.registry->AddHistogram("ganglion_stage_seconds", "Time of a stage's run, queueing left out",
                                                  {{"decision", model}, {"stage", stage.name}});
  return stage;
}

std::string StageName(const StageConfig& config) {
  if (!config.rules.empty()) return "rules";
  if (!config.server.empty()) return "server";
  if (!config.online.empty()) return std::filesystem::path(config.online).stem().string();
  if (config.models.size() > 1) return "ensemble";
  return std::filesystem::path(config.models[0]).stem().string();
}

}  // namespace

std::size_t Served::InputIndex(const std::string& input) const {
  for (std::size_t i = 0; i < metadata.inputs.size(); ++i) {
    if (metadata.inputs[i].name == input) return i;
  }
  return kNoInput;
}

Result<std::shared_ptr<const Served>> ServeDecision(const ServedContext& context, const std::filesystem::path& dir) {
  auto served = std::make_shared<Served>();
  Served& s = *served;
  OpenOptions options;
  options.highest_tier = context.node->tier;
  options.connect = ConnectRemoteStage;
  options.without_stages = true;  // a relay between tiers has none of its own
  ASSIGN_OR_RETURN(s.decision, Decision::Open(context.engine, dir, options));
  const DecisionConfig& c = s.decision->config();
  for (std::size_t i = 0; i < s.decision->loaded_stages(); ++i) {
    if (s.decision->stage(i).online() != nullptr) s.learns = s.decision->stage(i).online();
  }
  if (context.node->tier > HighestTier(c.privacy)) {
    return FailedPrecondition(fmt::format("{}: privacy {} ends at {}; a node of tier {} may not see its input", c.name,
                                          Name(c.privacy), topology::Name(HighestTier(c.privacy)),
                                          topology::Name(context.node->tier)));
  }
  s.name = c.name;
  ASSIGN_OR_RETURN(const std::string file, data::ReadFile(dir / "decision.yaml", limits::kMaxConfigBytes));
  ASSIGN_OR_RETURN(const std::string lock, data::ReadFile(dir / "decision.lock", limits::kMaxJsonBytes));
  const crypto::Digest digest = crypto::Sha256(file + lock);
  s.version = digest.Hex().substr(0, 12);
  s.digest = digest.Hex();
  s.metadata.name = s.config.name = s.name;
  s.metadata.platform = s.config.platform = "ganglion_decision";
  s.config.backend = "ganglion";
  s.metadata.inputs = s.config.inputs = c.inputs;
  s.metadata.outputs = {{"label", tensor::DataType::kInt64, {-1}},
                        {"label_name", tensor::DataType::kBytes, {-1}},
                        {"confidence", tensor::DataType::kFp32, {-1}}};
  s.config.outputs = s.metadata.outputs;
  s.output_labels.resize(3);
  for (std::size_t i = 0; i < s.decision->loaded_stages(); ++i) {
    ASSIGN_OR_RETURN(auto stage, MakeStage(context, s.name, StageName(c.stages[i]),
                                           std::make_unique<StageRunner>(s.decision->stage(i)), std::nullopt));
    // A first run on zeros: from here on it is known about how long one takes.
    std::vector<tensor::Tensor> zeros;
    std::vector<tensor::View> views;
    for (const auto& spec : c.inputs) {
      tensor::Shape shape = spec.shape;
      for (auto& d : shape) d = d == -1 ? 1 : d;
      auto t = tensor::Tensor::Zeros(spec.type, shape);
      if (t.ok()) zeros.push_back(std::move(*t));
    }
    if (zeros.size() == c.inputs.size()) {
      for (const auto& t : zeros) views.push_back(t.View());
      for (int n = 0; n < 3; ++n) {
        const TimePoint began = std::chrono::steady_clock::now();
        const auto ran = stage.runner->Run(views);
        const TimePoint end = std::chrono::steady_clock::now();
        if (ran.ok() && n > 0) stage.runner->Observe(end - began, 1, end);
      }
    }
    stage.runner->ForgetCounts();
    s.stages.push_back(std::move(stage));
  }
  s.seconds = &context.registry->AddHistogram(
      "ganglion_request_seconds", "Time of a request, from its arrival to its answer", {{"decision", s.name}});
  s.metadata.versions = {s.version};
  return std::shared_ptr<const Served>(std::move(served));
}

Result<std::shared_ptr<const Served>> ServeModel(const ServedContext& context, const PlainModel& plain) {
  auto served = std::make_shared<Served>();
  Served& s = *served;
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(plain.file, limits::kMaxModelBytes));
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(plain.file.filename().string(), std::move(bytes)));
  ASSIGN_OR_RETURN(auto session, runtime::Session::Create(context.engine, model));
  const model::Signature signature = session->signature();
  const auto find = [](const std::vector<tensor::Spec>& specs, const std::string& name) {
    return std::find_if(specs.begin(), specs.end(), [&](const auto& spec) { return spec.name == name; });
  };
  for (const auto& [wanted, has, what] : {std::tuple(&plain.inputs, &signature.inputs, "input"),
                                          std::tuple(&plain.outputs, &signature.outputs, "output")}) {
    for (const auto& spec : *wanted) {
      const auto it = find(*has, spec.name);
      if (it == has->end())
        return InvalidArgument(fmt::format("{}: config.pbtxt names {} \"{}\", the model has: {}", plain.name, what,
                                           spec.name, signature.Text()));
      if (it->type != spec.type)
        return InvalidArgument(fmt::format("{}: config.pbtxt says {} \"{}\" is {}, the model says {}", plain.name, what,
                                           spec.name, spec.Text(), it->Text()));
    }
  }
  s.name = plain.name;
  s.digest = model.digest().Hex();
  s.version = plain.version.empty() ? model.digest().Hex().substr(0, 12) : plain.version;
  s.metadata.name = s.config.name = s.name;
  s.metadata.platform = s.config.platform = "onnxruntime_onnx";
  s.config.backend = "onnxruntime";
  s.config.max_batch_size = plain.max_batch_size;
  s.metadata.inputs = signature.inputs;
  s.metadata.outputs = signature.outputs;
  const auto without_batch = [&](std::vector<tensor::Spec> specs) {
    for (auto& spec : specs) {
      if (plain.max_batch_size > 0 && !spec.shape.empty()) spec.shape.erase(spec.shape.begin());
    }
    return specs;
  };
  s.config.inputs = without_batch(signature.inputs);
  s.config.outputs = without_batch(signature.outputs);
  s.output_labels = plain.output_labels;
  s.output_labels.resize(signature.outputs.size());
  ASSIGN_OR_RETURN(auto stage, MakeStage(context, s.name, "model", std::make_unique<ModelRunner>(std::move(session)),
                                         plain.batch_delay));
  stage.runner->ForgetCounts();
  s.stages.push_back(std::move(stage));
  s.seconds = &context.registry->AddHistogram(
      "ganglion_request_seconds", "Time of a request, from its arrival to its answer", {{"decision", s.name}});
  s.metadata.versions = {s.version};
  return std::shared_ptr<const Served>(std::move(served));
}

}  // namespace ganglion::node
