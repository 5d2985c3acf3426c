#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/data.h"
#include "node/decision_file.h"
#include "terminal.h"
#include "training/training.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;

// The rows of Fashion-MNIST's 60,000 that train; the rest is held out for calibration and seen by nothing else here.
constexpr std::int64_t kTrainRows = 50'000;
// Of these, the last are for the display of accuracy while training. They train too: nothing is chosen by them.
constexpr std::int64_t kShownRows = 2'000;

struct Options {
  std::string model;
  std::string data;
  std::string rows;
  std::string valid;
  std::string out;
  std::string optimiser = "adam";
  double rate = 1e-3;
  double momentum = 0;
  double weight_decay = 0;
  std::int64_t batch = 128;
  std::int64_t epochs = 10;
  std::uint64_t seed = 1;
  int threads = 2;
  bool mirror = false;
  bool resume = false;
  bool quiet = false;
  bool json = false;
};

std::string Shown(double loss, double accuracy) {
  std::string text;
  if (loss > 0) text += fmt::format("  loss {:.4f}", loss);
  if (accuracy >= 0) text += fmt::format("  accuracy {:.4f}", accuracy);
  return text;
}

Status TrainOne(Context& context, const Options& o) {
  if (o.data.empty()) return InvalidArgument("--data is missing: what should " + o.model + " learn from?");
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(o.model, limits::kMaxModelBytes));
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(fs::path(o.model).filename(), std::move(bytes)));
  const auto kind = optimizer::KindFromName(o.optimiser);
  if (!kind) return InvalidArgument("optimiser \"" + o.optimiser + "\" is unknown; sgd or adam");
  data::LoadOptions load;
  RETURN_IF_ERROR(ParseRows(o.rows, &load.begin, &load.end));
  ASSIGN_OR_RETURN(const auto dataset, data::LoadDataset(o.data, load));
  std::optional<data::Dataset> valid;
  if (!o.valid.empty()) {
    ASSIGN_OR_RETURN(valid, data::LoadDataset(o.valid));
  }
  const std::int64_t classes =
      model.signature().outputs[0].shape.empty() ? 0 : model.signature().outputs[0].shape.back();
  ASSIGN_OR_RETURN(const auto examples, training::LabelledExamples::Create(
                                            dataset, std::max(classes, training::CountClasses(dataset)), o.mirror));
  const fs::path out = o.out.empty() ? fs::path(o.model).replace_extension(".trained.onnx") : fs::path(o.out);
  training::TrainOptions options;
  options.optimizer = {.kind = *kind, .rate = o.rate, .momentum = o.momentum, .weight_decay = o.weight_decay};
  options.batch = o.batch;
  options.epochs = o.epochs;
  options.seed = o.seed;
  options.checkpoint = out.string() + ".checkpoint";
  options.resume = o.resume;
  std::optional<training::Trained> trained;
  {
    ProgressBar bar(o.quiet);
    auto result =
        training::Train(context.engine, model, *examples, valid ? &*valid : nullptr, options, context.stop,
                        [&](const training::Progress& p) {
                          bar.Show(p.done, fmt::format("epoch {}/{}", p.epoch, p.epochs) + Shown(p.loss, p.accuracy));
                        });
    if (!result.ok()) return result.status();
    trained = std::move(*result);
  }
  const auto trained_bytes = trained->model.bytes();
  RETURN_IF_ERROR(
      data::WriteFileAtomically(out, {reinterpret_cast<const char*>(trained_bytes.data()), trained_bytes.size()}));
  std::error_code ignored;
  fs::remove(options.checkpoint, ignored);
  const auto& last = trained->history.back();
  if (o.json) {
    wire::Json j;
    j["model"] = out.string();
    j["sha256"] = trained->model.digest().Hex();
    j["loss"] = last.loss;
    if (last.accuracy >= 0) j["accuracy"] = last.accuracy;
    std::fputs(wire::WriteJson(j).c_str(), stdout);
  } else {
    fmt::print("wrote {} ({}){}\n", out.string(), trained->model.digest().Short(), Shown(last.loss, last.accuracy));
  }
  return {};
}

}  // namespace

Status TrainFashionLadder(Context& context, const LadderSettings& settings) {
  const fs::path& data = settings.data;
  const fs::path& dir = settings.dir;
  data::LoadOptions rows;
  rows.end = kTrainRows;
  ASSIGN_OR_RETURN(const auto train, data::LoadDataset((data / "train").string(), rows));
  ASSIGN_OR_RETURN(const auto shown,
                   data::LoadDataset((data / "train").string(), {.begin = kTrainRows - kShownRows, .end = kTrainRows}));
  RETURN_IF_ERROR(data::MakeDirectories(dir));
  training::LadderOptions options;
  options.seed = settings.seed;
  options.threads = settings.threads;
  options.dir = dir;
  options.resume = settings.resume;
  options.scale = settings.effort;
  {
    ProgressBar bar(settings.quiet);
    const auto rungs = training::TrainLadder(
        context.engine, train, shown, options, context.stop,
        [&](const training::LadderProgress& p) { bar.Show(p.done, p.doing + Shown(p.loss, p.accuracy)); });
    if (!rungs.ok()) return rungs.status();
  }
  RETURN_IF_ERROR(data::WriteFileAtomically(
      dir / "labels.txt", "T-shirt\ntrouser\npullover\ndress\ncoat\nsandal\nshirt\nsneaker\nbag\nankle boot\n"));
  node::DecisionConfig config;
  config.name = "fashion";
  config.inputs = {{"image", tensor::DataType::kFp32, {-1, train.features()}}};
  config.labels = {"from labels.txt"};
  for (const auto& [tier, models] : std::vector<std::pair<topology::Tier, std::vector<std::string>>>{
           {topology::Tier::kDevice, {"device.onnx"}},
           {topology::Tier::kEdge, {"edge.onnx"}},
           {topology::Tier::kRegion, {"region.onnx"}},
           {topology::Tier::kGlobal, {"global-a.onnx", "global-b.onnx", "global-c.onnx"}}}) {
    node::StageConfig stage;
    stage.tier = tier;
    stage.models = models;
    config.stages.push_back(std::move(stage));
  }
  return data::WriteFileAtomically(dir / "decision.yaml", node::WriteDecisionFile(config));
}

void AddTrain(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand(
      "train", "Train an ONNX model where its data are; without a model, the four-tier ladder of Fashion-MNIST");
  verb->add_option("model", o->model, "an ONNX model with its starting parameters; none: train the ladder");
  verb->add_option("--data", o->data,
                   "what to learn from: idx prefix, .npz or .csv (the ladder: the folder of Fashion-MNIST)");
  verb->add_option("--rows", o->rows, "only rows BEGIN:END of --data");
  verb->add_option("--valid", o->valid, "rows to show accuracy on");
  verb->add_option("-o,--out", o->out, "the trained model (the ladder: its folder, default out/fashion)");
  verb->add_option("--optimiser,--optimizer", o->optimiser, "sgd or adam")->capture_default_str();
  verb->add_option("--rate", o->rate, "peak learning rate; it warms up, then falls to zero along a cosine")
      ->capture_default_str();
  verb->add_option("--momentum", o->momentum, "of sgd")->capture_default_str();
  verb->add_option("--weight-decay", o->weight_decay)->capture_default_str();
  verb->add_option("--batch", o->batch)
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  verb->add_option("--epochs", o->epochs)
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  verb->add_option("--seed", o->seed, "the same seed gives the same bytes")->capture_default_str();
  verb->add_option("--threads", o->threads, "models of the ladder trained at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  verb->add_flag("--mirror", o->mirror, "mirror images left to right at random");
  verb->add_flag("--resume", o->resume, "continue from the checkpoint that an interrupted run left");
  verb->add_flag("--quiet", o->quiet, "no progress bar");
  verb->add_flag("--json", o->json, "the result as JSON");
  verb->callback([&context, &exit_code, o, verb] {
    context.stops_gracefully = true;
    Status status;
    std::string wrong;  // options that the other kind of training would heed
    for (const char* name : {"--rows", "--valid", "--optimiser", "--rate", "--momentum", "--weight-decay", "--batch",
                             "--epochs", "--mirror", "--json"}) {
      if (o->model.empty() && verb->count(name) > 0) wrong += std::string(" ") + name;
    }
    if (!o->model.empty() && verb->count("--threads") > 0) wrong += " --threads";
    if (!wrong.empty()) {
      status = InvalidArgument(
          (o->model.empty() ? "the ladder's recipe is fixed; it does not take" : "one model does not take") + wrong);
    } else if (o->model.empty()) {
      const fs::path dir = o->out.empty() ? "out/fashion" : o->out;
      status = TrainFashionLadder(
          context, {o->data.empty() ? kFashion : o->data, dir, o->seed, o->threads, 1, o->resume, o->quiet});
      if (status.ok())
        fmt::print("wrote {}/decision.yaml and six models; next: ganglion calibrate {} --data {}/train --rows {}:\n",
                   dir.string(), dir.string(), o->data.empty() ? kFashion : o->data, kTrainRows);
    } else {
      status = TrainOne(context, *o);
    }
    if (status.code() == Code::kCancelled) status = Cancelled(status.message() + "; --resume continues there");
    if (!status.ok()) exit_code = Fail("train", status);
  });
}

}  // namespace ganglion::app
