#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/data.h"
#include "node/decision_file.h"
#include "terminal.h"
#include "train_one.h"
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
  TrainOneOptions one;
  int threads = 2;
};

std::string Shown(double loss, double accuracy) {
  std::string text;
  if (loss > 0) text += fmt::format("  loss {:.4f}", loss);
  if (accuracy >= 0) text += fmt::format("  accuracy {:.4f}", accuracy);
  return text;
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
  if (settings.convolutional) options.kind = training::LadderKind::kConvolutional;
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
  verb->add_option("model", o->one.model, "an ONNX model with its starting parameters; none: train the ladder");
  verb->add_option("--data", o->one.data,
                   "what to learn from: idx prefix, .npz, .npy, .csv, .txt, a folder of arrays or of folders of images "
                   "(the ladder: the folder of Fashion-MNIST)");
  verb->add_option("-o,--out", o->one.out, "the trained model (the ladder: its folder, default out/fashion)");
  AddTrainOneOptions(*verb, o->one);
  verb->add_option("--seed", o->one.seed, "the same seed gives the same bytes")->capture_default_str();
  verb->add_option("--threads", o->threads, "models of the ladder trained at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  verb->add_flag("--resume", o->one.resume, "continue from the checkpoint that an interrupted run left");
  verb->add_flag("--quiet", o->one.quiet, "no progress bar");
  verb->callback([&context, &exit_code, o, verb] {
    context.stops_gracefully = true;
    Status status;
    std::string wrong;  // options that the other kind of training would heed
    for (const auto& name : TrainOneOptionNames()) {
      if (o->one.model.empty() && verb->count(name) > 0) wrong += " " + name;
    }
    if (!o->one.model.empty() && verb->count("--threads") > 0) wrong += " --threads";
    if (!wrong.empty()) {
      status = InvalidArgument(
          (o->one.model.empty() ? "the ladder's recipe is fixed; it does not take" : "one model does not take") +
          wrong);
    } else if (o->one.model.empty()) {
      const fs::path dir = o->one.out.empty() ? "out/fashion" : o->one.out;
      LadderSettings settings;
      settings.data = o->one.data.empty() ? kFashion : o->one.data;
      settings.dir = dir;
      settings.seed = o->one.seed;
      settings.threads = o->threads;
      settings.resume = o->one.resume;
      settings.quiet = o->one.quiet;
      status = TrainFashionLadder(context, settings);
      if (status.ok())
        fmt::print("wrote {}/decision.yaml and six models; next: ganglion calibrate {} --data {}/train --rows {}:\n",
                   dir.string(), dir.string(), o->one.data.empty() ? kFashion : o->one.data, kTrainRows);
    } else {
      status = TrainOne(context, o->one);
    }
    if (status.code() == Code::kCancelled) status = Cancelled(status.message() + "; --resume continues there");
    if (!status.ok()) exit_code = Fail("train", status);
  });
}

}  // namespace ganglion::app
