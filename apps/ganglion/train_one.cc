#include "train_one.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/data.h"
#include "data/records.h"
#include "node/notation.h"
#include "terminal.h"
#include "training/training.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;
using training::RecordSource;

std::string Shown(const training::Progress& p) {
  std::string text = fmt::format("epoch {}/{}", p.epoch, p.epochs);
  if (p.loss > 0) text += fmt::format("  loss {:.4f}", p.loss);
  if (p.valid_loss >= 0) text += fmt::format("  valid {:.4f}", p.valid_loss);
  if (p.accuracy >= 0) text += fmt::format("  accuracy {:.4f}", p.accuracy);
  return text;
}

Result<optimizer::Options> ReadOptimiser(const TrainOneOptions& o) {
  // PyTorch has no optimiser of this name, but everybody calls it so.
  const bool momentum = o.optimiser == "momentum";
  const auto kind = momentum ? optimizer::Kind::kSgd : optimizer::KindFromName(o.optimiser);
  if (!kind) {
    return InvalidArgument("optimiser \"" + o.optimiser + "\" is unknown; momentum, " + optimizer::KindNames() +
                           " are there");
  }
  optimizer::Options options = optimizer::Recommended(*kind);
  if (momentum) options.momentum = .9;
  if (o.rate) options.rate = *o.rate;
  if (o.momentum) options.momentum = *o.momentum;
  if (o.weight_decay) options.weight_decay = *o.weight_decay;
  options.decoupled = options.decoupled || o.decoupled;
  return options;
}

// "5" or "5:0.001".
Result<optimizer::EarlyStopping::Options> ReadEarlyStop(const std::string& text) {
  optimizer::EarlyStopping::Options options;
  const auto colon = text.find(':');
  const std::string count = text.substr(0, colon);
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), options.patience);
  bool good = error == std::errc() && end == count.data() + count.size() && !count.empty();
  if (good && colon != std::string::npos) {
    const char* const first = text.data() + colon + 1;
    const auto [stop, wrong] = std::from_chars(first, text.data() + text.size(), options.min_delta);
    good = wrong == std::errc() && stop == text.data() + text.size();
  }
  if (!good) {
    return InvalidArgument("--early-stop \"" + text +
                           "\" is no patience; write for example 5, or 5:0.001 with the least improvement that counts");
  }
  return options;
}

Result<training::TrainOptions> ReadOptions(const TrainOneOptions& o) {
  training::TrainOptions t;
  const auto loss = gradient::LossFromName(o.loss);
  if (!loss)
    return InvalidArgument(
        fmt::format("loss \"{}\" is unknown; {} are there", o.loss, fmt::join(gradient::LossNames(), ", ")));
  t.gradient.loss = *loss;
  t.gradient.huber_delta = static_cast<float>(o.huber_delta);
  t.gradient.temperature = static_cast<float>(o.temperature);
  t.gradient.hard_share = static_cast<float>(o.hard_share);
  t.gradient.frozen = o.frozen;
  t.gradient.freeze_statistics = o.freeze_statistics;
  ASSIGN_OR_RETURN(t.optimizer, ReadOptimiser(o));
  ASSIGN_OR_RETURN(t.schedule, optimizer::ParseSchedule(o.schedule));
  t.schedule.warmup = t.schedule.kind == optimizer::Schedule::Kind::kOneCycle ? 0 : o.warmup;
  t.clip_norm = o.clip;
  t.clip_value = o.clip_value;
  t.decay_all = o.decay_all;
  t.batch = o.batch;
  t.epochs = o.epochs;
  t.seed = o.seed;
  t.validate_every = o.validate_every;
  if (!o.early_stop.empty()) {
    ASSIGN_OR_RETURN(t.early_stopping, ReadEarlyStop(o.early_stop));
  }
  t.checkpoint_steps = o.checkpoint_steps;
  t.checkpoint_seconds = o.checkpoint_seconds;
  t.resume = o.resume;
  return t;
}

// How the files are to be read follows from the model where the command line does not say it.
Result<data::RecordOptions> ReadRecordOptions(const TrainOneOptions& o, const model::Model& model,
                                              gradient::Loss loss) {
  data::RecordOptions r;
  r.targets = o.targets;
  r.vocabulary = o.vocabulary;
  r.length = o.length;
  const auto& in = model.signature().inputs[0].shape;
  const auto& out = model.signature().outputs[0].shape;
  if (r.length == 0 && in.size() == 2 && in[1] > 0) r.length = in[1];
  const bool positions = loss == gradient::Loss::kSoftmaxCrossEntropy && out.size() == 3;
  if (o.text == "language" || (o.text.empty() && positions)) {
    r.text = data::RecordOptions::Text::kLanguage;
  } else if (!o.text.empty() && o.text != "labels") {
    return InvalidArgument("--text \"" + o.text + "\" is neither labels nor language");
  }
  const auto is_channels = [](std::int64_t d) { return d == 1 || d == 3; };
  if (in.size() == 4 && is_channels(in[1])) {
    r.channels = static_cast<int>(in[1]);
  } else if (in.size() == 4 && is_channels(in[3])) {
    r.channels = static_cast<int>(in[3]);
    r.channels_last = true;
  }
  if (o.grey) r.channels = 1;
  return r;
}

Result<std::unique_ptr<RecordSource>> OpenSource(const std::string& path, const std::string& rows,
                                                 const data::RecordOptions& records,
                                                 training::RecordSourceOptions options) {
  RETURN_IF_ERROR(ParseRows(rows, &options.begin, &options.end));
  ASSIGN_OR_RETURN(auto opened, data::OpenRecords(path, records));
  return RecordSource::Create(std::move(opened), options);
}

Status WriteResult(const TrainOneOptions& o, const training::Trained& trained, const fs::path& out,
                   const std::string& curve, const Crew* crew) {
  const auto bytes = trained.model.bytes();
  RETURN_IF_ERROR(data::WriteFileAtomically(out, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  RETURN_IF_ERROR(data::WriteFileAtomically(curve + ".json", training::CurveJson(trained, o.loss)));
  RETURN_IF_ERROR(data::WriteFileAtomically(curve + ".html", training::CurvePage(trained, o.loss)));
  training::CurvePoint last = trained.history.empty() ? training::CurvePoint{} : trained.history.back();
  for (const auto& p : trained.history) {
    if (trained.best_step >= 0 && p.step == trained.best_step) last = p;
  }
  if (o.json) {
    wire::Json j;
    j["model"] = out.string();
    j["sha256"] = trained.model.digest().Hex();
    j["loss"] = last.loss;
    if (last.valid_loss >= 0) j["valid_loss"] = last.valid_loss;
    if (last.accuracy >= 0) j["accuracy"] = last.accuracy;
    j["steps"] = trained.steps;
    if (crew != nullptr) {
      j["ranks"] = crew->size();
      j["sent_bytes"] = crew->sent_bytes();
      j["lost"] = crew->lost();
    }
    if (trained.best_step >= 0) j["best_step"] = trained.best_step;
    j["curve"] = curve + ".json";
    std::fputs(wire::WriteJson(j).c_str(), stdout);
    return {};
  }
  std::string text = fmt::format("  loss {:.4f}", last.loss);
  if (last.valid_loss >= 0) text += fmt::format("  valid {:.4f}", last.valid_loss);
  if (last.accuracy >= 0) text += fmt::format("  accuracy {:.4f}", last.accuracy);
  if (trained.best_step >= 0) text += fmt::format("  (best of {} steps: {})", trained.steps, trained.best_step);
  fmt::print("wrote {} ({}){}\nthe curve is in {}.html\n", out.string(), trained.model.digest().Short(), text, curve);
  if (crew != nullptr && !crew->lost().empty())
    fmt::print("ranks that were lost on the way: {}\n", fmt::join(crew->lost(), ", "));
  return {};
}

// What this run is about: every rank that trains with it must say the same.
std::string About(const TrainOneOptions& o, const model::Model& model, const training::Source& source) {
  std::string numbers;
  for (const double v :
       {o.huber_delta, o.temperature, o.hard_share, o.warmup, o.rate.value_or(-1), o.momentum.value_or(-1),
        o.weight_decay.value_or(-1), o.clip.value_or(-1), o.clip_value.value_or(-1), o.decoupled ? 1. : 0.,
        o.decay_all ? 1. : 0., o.freeze_statistics ? 1. : 0.}) {
    numbers += fmt::format(" {}", v);
  }
  return fmt::format(
      "train model {}, data {} of {} rows, batch {}, {} epochs, seed {}, {}, {}, {}, {}, settings{}, frozen {}",
      model.digest().Hex().substr(0, 12), crypto::Sha256(source.Fingerprint()).Hex().substr(0, 12), source.count(),
      o.batch, o.epochs, o.seed, o.loss, o.optimiser, o.schedule,
      o.early_stop.empty() ? "to the end" : "early stop " + o.early_stop, numbers, fmt::join(o.frozen, " "));
}

}  // namespace

const std::vector<std::string>& TrainOneOptionNames() {
  static const std::vector<std::string> kNames{"--workers",
                                               "--rank",
                                               "--size",
                                               "--rendezvous",
                                               "--host",
                                               "--exchange",
                                               "--compress",
                                               "--timeout",
                                               "--rows",
                                               "--valid",
                                               "--valid-rows",
                                               "--loss",
                                               "--huber-delta",
                                               "--temperature",
                                               "--hard-share",
                                               "--freeze",
                                               "--freeze-statistics",
                                               "--optimiser",
                                               "--rate",
                                               "--momentum",
                                               "--weight-decay",
                                               "--decoupled",
                                               "--decay-all",
                                               "--schedule",
                                               "--warmup",
                                               "--clip",
                                               "--clip-value",
                                               "--batch",
                                               "--epochs",
                                               "--early-stop",
                                               "--val-every",
                                               "--checkpoint-steps",
                                               "--checkpoint-seconds",
                                               "--memory",
                                               "--target",
                                               "--text",
                                               "--length",
                                               "--vocabulary",
                                               "--grey",
                                               "--mirror",
                                               "--json"};
  return kNames;
}

void AddTrainOneOptions(CLI::App& verb, TrainOneOptions& o) {
  const auto counts = CLI::Range(std::int64_t{1}, std::int64_t{1} << 20);
  verb.add_option("--rows", o.rows, "only rows BEGIN:END of --data");
  verb.add_option("--valid", o.valid, "rows to measure loss and accuracy on");
  verb.add_option("--valid-rows", o.valid_rows, "only rows BEGIN:END of --valid");
  verb.add_option("--loss", o.loss, fmt::format("{}", fmt::join(gradient::LossNames(), ", ")))->capture_default_str();
  verb.add_option("--huber-delta", o.huber_delta, "of huber: where it turns from a square into a line")
      ->capture_default_str();
  verb.add_option("--temperature", o.temperature, "of distillation")->capture_default_str();
  verb.add_option("--hard-share", o.hard_share, "of distillation: the share of the true labels in the loss")
      ->capture_default_str();
  verb.add_option("--freeze", o.frozen, "parameters that keep their value: names, or patterns with *");
  verb.add_flag("--freeze-statistics", o.freeze_statistics, "BatchNormalization keeps the means it has");
  verb.add_option("--optimiser,--optimizer", o.optimiser, "momentum, " + optimizer::KindNames())->capture_default_str();
  verb.add_option("--rate", o.rate, "the peak learning rate (default: what suits the optimiser, .001 for adam)");
  verb.add_option("--momentum", o.momentum, "of sgd and nesterov");
  verb.add_option("--weight-decay", o.weight_decay, "not on biases and norm parameters (default 0; adamw .01)");
  verb.add_flag("--decoupled", o.decoupled, "weight decay beside the gradient, as adamw does, for any optimiser");
  verb.add_flag("--decay-all", o.decay_all, "weight decay on biases and norm parameters, too");
  verb.add_option("--schedule", o.schedule,
                  "of the rate: constant, linear[:FINAL], cosine[:FINAL], step:EPOCHS[:FACTOR], exponential:FACTOR, "
                  "onecycle[:PEAK], plateau[:PATIENCE[:FACTOR]]")
      ->capture_default_str();
  verb.add_option("--warmup", o.warmup, "share of the steps in which the rate rises from zero")->capture_default_str();
  verb.add_option("--clip", o.clip, "the longest that the gradient may be (its norm)");
  verb.add_option("--clip-value", o.clip_value, "the largest that a number of the gradient may be");
  verb.add_option("--batch", o.batch)->capture_default_str()->check(counts);
  verb.add_option("--epochs", o.epochs)->capture_default_str()->check(counts);
  verb.add_option(
      "--early-stop", o.early_stop,
      "PATIENCE[:DELTA]: ends when validation has not improved (by DELTA) so many times, and keeps the best");
  verb.add_option("--val-every", o.validate_every, "steps between validations (default: an epoch)")->check(counts);
  verb.add_option("--checkpoint-steps", o.checkpoint_steps, "a checkpoint every so many steps, too")->check(counts);
  verb.add_option("--checkpoint-seconds", o.checkpoint_seconds,
                  "a checkpoint every so many seconds; 0: after epochs only")
      ->capture_default_str();
  verb.add_option("--memory", o.memory, "rows of --data in memory at a time; more is read in blocks")
      ->capture_default_str();
  verb.add_option("--target", o.targets, "CSV: the columns to learn; npz: the array");
  verb.add_option("--text", o.text, "labels (a line is a label and its text) or language (what comes next)");
  verb.add_option("--length", o.length, "tokens a row, where the model leaves it open")->check(counts);
  verb.add_option("--vocabulary", o.vocabulary, "a file of words, one a line; without it tokens are bytes");
  verb.add_flag("--grey", o.grey, "images of one channel");
  verb.add_flag("--mirror", o.mirror, "mirror images left to right at random");
  verb.add_flag("--json", o.json, "the result as JSON");
  AddWorkersOptions(verb, o.workers);
}

Status TrainOne(Context& context, const TrainOneOptions& o) {
  if (o.data.empty()) return InvalidArgument("--data is missing: what should " + o.model + " learn from?");
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(o.model, limits::kMaxModelBytes));
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(fs::path(o.model).filename(), std::move(bytes)));
  if (model.signature().inputs.empty() || model.signature().outputs.empty())
    return InvalidArgument(o.model + " has no inputs or no outputs: " + model.signature().Text());
  ASSIGN_OR_RETURN(training::TrainOptions options, ReadOptions(o));
  ASSIGN_OR_RETURN(const auto records, ReadRecordOptions(o, model, options.gradient.loss));
  training::RecordSourceOptions rows;
  ASSIGN_OR_RETURN(rows.memory, node::ParseByteSize(o.memory));
  rows.mirror = o.mirror;
  ASSIGN_OR_RETURN(const auto source, OpenSource(o.data, o.rows, records, rows));
  std::unique_ptr<RecordSource> valid;
  training::Validation validation;
  if (!o.valid.empty()) {
    training::RecordSourceOptions in_order;
    in_order.memory = std::max<std::int64_t>(1, rows.memory / 4);
    in_order.shuffle = false;
    ASSIGN_OR_RETURN(valid, OpenSource(o.valid, o.valid_rows, records, in_order));
    // Better now than after an epoch.
    if (const auto shapes = valid->RowShapes(model.signature().inputs); !shapes.ok())
      return shapes.status().Within("--valid");
    validation = [&](const model::Model& snapshot) {
      return training::Measure(context.engine, snapshot, *valid, options.gradient);
    };
  } else if (!o.valid_rows.empty()) {
    return InvalidArgument("--valid-rows without --valid");
  }
  const fs::path out = o.out.empty() ? fs::path(o.model).replace_extension(".trained.onnx") : fs::path(o.out);
  const std::string curve = fs::path(out).replace_extension(".curve").string();
  options.checkpoint = out.string() + ".checkpoint";
  ASSIGN_OR_RETURN(const auto crew, Crew::Start(o.workers, About(o, model, *source)));
  if (crew) {
    options.exchange = crew->exchange();
    ASSIGN_OR_RETURN(options.checkpoint, crew->ShareCheckpoint(options.checkpoint, options.resume));
    // All must come to the same decisions; where none hang on validation, one measures for all.
    if (!crew->first() && !options.early_stopping && options.schedule.kind != optimizer::Schedule::Kind::kPlateau)
      validation = nullptr;
  }
  std::optional<training::Trained> trained;
  {
    ProgressBar bar(o.quiet);
    auto result = training::Train(context.engine, model, *source, validation, options, context.stop,
                                  [&](const training::Progress& p) { bar.Show(p.done, Shown(p)); });
    Status ended = crew ? crew->Ended(result.status()) : result.status();
    if (!ended.ok()) return ended;
    trained = std::move(*result);
  }
  if (crew && !crew->first()) return {};  // rank 0 writes for all
  RETURN_IF_ERROR(WriteResult(o, *trained, out, curve, crew.get()));
  std::error_code ignored;
  fs::remove(options.checkpoint, ignored);
  return {};
}

}  // namespace ganglion::app
