// ganglion learn: an online model from a stream of examples, in one pass.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "crypto/crypto.h"
#include "data/file.h"
#include "learning/lines.h"
#include "online/online.h"
#include "terminal.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

using online::LearnerOptions;

struct Options {
  std::string input = "-";
  std::string format;
  std::string model;
  std::string initial;
  std::string predictions;
  std::string loss;
  std::string writer;
  std::string base;
  std::vector<std::string> merge;
  online::CsvColumns columns;
  std::uint64_t epoch = 0;
  std::uint64_t save_every = 0;
  bool resume = false;
  bool test = false;
  bool strict = false;
  bool probability = false;
  bool quiet = false;
  bool json = false;
  bool ftrl = false;
  bool plain_decay = false, unscaled = false, plain_step = false, no_constant = false;
  LearnerOptions learner;
};

// Options that make the model what it is: how each is written into LearnerOptions. A resumed model keeps its own, and
// what is given must agree.
struct Setting {
  const char* flag;
  std::function<void(const Options&, LearnerOptions*)> apply;
};

const std::vector<Setting>& Settings() {
  static const std::vector<Setting> settings = {
      {"--bits", [](const Options& o, LearnerOptions* l) { l->bits = o.learner.bits; }},
      {"--classes",
       [](const Options& o, LearnerOptions* l) {
         l->classes = o.learner.classes;
         l->task = o.loss == "softmax" ? online::Task::kSoftmax : online::Task::kOneAgainstAll;
       }},
      {"--loss",
       [](const Options& o, LearnerOptions* l) {
         const bool several = l->classes > 1;
         l->task = o.loss == "softmax"    ? online::Task::kSoftmax
                   : several              ? online::Task::kOneAgainstAll
                   : o.loss == "logistic" ? online::Task::kBinary
                                          : online::Task::kRegression;
       }},
      {"--ftrl", [](const Options& o,
                    LearnerOptions* l) { l->update = o.ftrl ? online::Update::kFtrl : online::Update::kGradient; }},
      {"--rate", [](const Options& o, LearnerOptions* l) { l->rate = o.learner.rate; }},
      {"--power-t", [](const Options& o, LearnerOptions* l) { l->power_t = o.learner.power_t; }},
      {"--no-adaptive", [](const Options& o, LearnerOptions* l) { l->adaptive = !o.plain_decay; }},
      {"--no-normalised", [](const Options& o, LearnerOptions* l) { l->normalised = !o.unscaled; }},
      {"--no-invariant", [](const Options& o, LearnerOptions* l) { l->invariant = !o.plain_step; }},
      {"--ftrl-alpha", [](const Options& o, LearnerOptions* l) { l->alpha = o.learner.alpha; }},
      {"--ftrl-beta", [](const Options& o, LearnerOptions* l) { l->beta = o.learner.beta; }},
      {"--l1", [](const Options& o, LearnerOptions* l) { l->l1 = o.learner.l1; }},
      {"--l2", [](const Options& o, LearnerOptions* l) { l->l2 = o.learner.l2; }},
      {"--fm", [](const Options& o, LearnerOptions* l) { l->factors = o.learner.factors; }},
      {"--fm-rate", [](const Options& o, LearnerOptions* l) { l->factor_rate = o.learner.factor_rate; }},
      {"--replay", [](const Options& o, LearnerOptions* l) { l->replay = o.learner.replay; }},
      {"--replays", [](const Options& o, LearnerOptions* l) { l->replays = o.learner.replays; }},
      {"--seed", [](const Options& o, LearnerOptions* l) { l->seed = o.learner.seed; }},
      {"--no-constant", [](const Options& o, LearnerOptions* l) { l->constant = !o.no_constant; }},
      {"-q", [](const Options& o, LearnerOptions* l) { l->interactions = o.learner.interactions; }},
  };
  return settings;
}

Result<online::Learner> Load(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(path));
  auto learner = online::Restore(bytes);
  if (!learner.ok()) return learner.status().Within(path);
  return learner;
}

// The model to go on with, or a new one.
Result<online::Learner> Begin(const Options& o, const CLI::App& verb) {
  std::string from = o.initial;
  if (from.empty() && (o.resume || o.test)) from = o.model;
  if (from.empty() && o.test) return InvalidArgument("--test needs a model to predict with; name it with -m");
  if (from.empty() && o.resume) return InvalidArgument("--resume needs the model to go on with; name it with -m");
  if (from.empty()) {
    LearnerOptions options;
    for (const Setting& s : Settings()) {
      if (verb.count(s.flag) > 0) s.apply(o, &options);
    }
    options.anchor = o.learner.anchor;
    options.anchor_every = o.learner.anchor_every;
    ASSIGN_OR_RETURN(online::Learner learner, online::Learner::Create(options));
    learner.origin() = {o.writer, o.epoch, false};
    return learner;
  }
  ASSIGN_OR_RETURN(online::Learner learner, Load(from));
  std::string other;
  for (const Setting& s : Settings()) {
    if (verb.count(s.flag) == 0) continue;
    LearnerOptions wanted = learner.options();
    s.apply(o, &wanted);
    if (!(wanted == learner.options())) other += std::string(" ") + s.flag;
  }
  if (!other.empty()) return InvalidArgument(from + " was made with another" + other + "; leave it out, or start anew");
  if (verb.count("--anchor") > 0) {
    LearnerOptions wanted = learner.options();
    wanted.anchor = o.learner.anchor;
    RETURN_IF_ERROR(online::Check(wanted));
    learner.SetAnchor(o.learner.anchor, o.learner.anchor_every);
    if (o.learner.anchor > 0) learner.PlaceAnchor();
  }
  if (verb.count("--writer") > 0) learner.origin().writer = o.writer;
  if (verb.count("--epoch") > 0) learner.origin().epoch = o.epoch;
  return learner;
}

class Run {
 public:
  Run(const Options& o, online::Learner learner, const std::stop_token& stop)
      : o_(o),
        learner_(std::move(learner)),
        stop_(stop),
        several_(learner_.outputs() > 1),
        scores_(learner_.outputs()) {}

  Status Everything() {
    ASSIGN_OR_RETURN(auto lines, learning::LineReader::Open(o_.input));
    place_ = o_.input == "-" ? "standard input" : o_.input;
    const std::string extension = std::filesystem::path(o_.input).extension();
    const bool csv = o_.format == "csv" || (o_.format.empty() && extension == ".csv");
    first_class_ = csv ? 0 : 1;
    if (!o_.predictions.empty()) {
      predictions_.reset(o_.predictions == "-" ? fdopen(dup(1), "w") : std::fopen(o_.predictions.c_str(), "w"));
      if (!predictions_) return Unavailable(o_.predictions + " cannot be written: " + std::strerror(errno));
    }
    if (!o_.quiet && !o_.json) {
      std::fputs(
          "average  since         example        example        current        current  current\n"
          "loss     last          counter         weight          label        predict features\n",
          stderr);
    }
    RETURN_IF_ERROR(Stream(&lines, csv));
    if (predictions_ && (std::fflush(predictions_.get()) != 0 || std::ferror(predictions_.get()) != 0))
      return Unavailable(o_.predictions + " could not be written: " + std::strerror(errno));
    if (examples_ == 0) return InvalidArgument(place_ + " holds no example" + (bad_ > 0 ? " that could be read" : ""));
    if (!o_.model.empty() && !o_.test) RETURN_IF_ERROR(Save());
    Report();
    return {};
  }

 private:
  struct Close {
    void operator()(FILE* f) const { std::fclose(f); }
  };

  Status Stream(learning::LineReader* lines, bool csv) {
    std::optional<online::CsvText> rows;
    ASSIGN_OR_RETURN(online::VwText text, csv ? Result<online::VwText>(online::VwText::Create(LearnerOptions{}))
                                              : online::VwText::Create(learner_.options()));
    online::Example example;
    for (;;) {
      const auto next = lines->Next(stop_);
      if (!next.ok() && next.status().code() == Code::kCancelled) {
        stopped_ = true;
        return {};
      }
      if (!next.ok()) return next.status();
      if (!*next) return {};
      const learning::Line& line = **next;
      if (line.too_long) {
        RETURN_IF_ERROR(Bad(line.number, fmt::format("the line is longer than {} bytes", learning::kMaxLineBytes)));
        continue;
      }
      if (line.text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      if (csv && !rows) {
        auto created = online::CsvText::Create(learner_.options(), o_.columns, line.text);
        if (!created.ok()) return created.status().Within(fmt::format("{}:{}", place_, line.number));
        rows = std::move(*created);
        continue;
      }
      Status status = csv ? rows->Parse(line.text, &example) : text.Parse(line.text, &example);
      if (status.ok()) status = One(example);
      if (!status.ok()) RETURN_IF_ERROR(Bad(line.number, status.message()));
      if (o_.save_every > 0 && !o_.test && !o_.model.empty() && examples_ % o_.save_every == 0 && status.ok())
        RETURN_IF_ERROR(Save());
    }
  }

  Status Bad(std::uint64_t line, const std::string& why) {
    const std::string told = fmt::format("{}:{}: {}", place_, line, why);
    if (o_.strict) return InvalidArgument(told);
    constexpr std::uint64_t kTold = 10;
    if (++bad_ == 1) first_bad_ = told;
    if (!o_.quiet && bad_ <= kTold) fmt::print(stderr, "learn: {}; passed over\n", told);
    if (!o_.quiet && bad_ == kTold) std::fputs("learn: further bad lines are counted, not shown\n", stderr);
    return {};
  }

  Status One(const online::Example& example) {
    float prediction = 0;
    if (o_.test || !example.labelled) {
      online::Example checked = example;
      if (!checked.labelled) checked.label = several_ ? 0 : 1;
      checked.labelled = true;
      RETURN_IF_ERROR(learner_.Check(checked));
      learner_.Predict(example.features, scores_);
      prediction = several_ ? static_cast<float>(Best()) : scores_[0];
      if (example.labelled) Count(example, learner_.Loss(scores_, example.label), prediction);
    } else {
      ASSIGN_OR_RETURN(const online::Outcome outcome, learner_.Learn(example, online::StepBits(learner_.state())));
      prediction = outcome.prediction;
      Count(example, outcome.loss, prediction);
    }
    ++examples_;
    if (predictions_) {
      double shown = prediction;
      if (several_) shown += first_class_;
      if (o_.probability && !several_) shown = 1 / (1 + std::exp(-shown));
      fmt::print(predictions_.get(), "{:.{}f}", shown, several_ ? 0 : 6);
      fmt::print(predictions_.get(), "{}{}\n", example.tag.empty() ? "" : " ", example.tag);
    }
    return {};
  }

  std::size_t Best() const {
    return static_cast<std::size_t>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
  }

  void Count(const online::Example& example, double loss, float prediction) {
    ++labelled_;
    weight_ += example.weight;
    loss_ += loss * example.weight;
    right_ += several_ ? prediction == example.label : (prediction > 0) == (example.label > 0);
    if (weight_ < next_line_) return;
    while (next_line_ <= weight_) next_line_ *= 2;
    if (!o_.quiet && !o_.json) {
      const int shift = several_ ? first_class_ : 0;
      fmt::print(stderr, "{:<8.6f} {:<8.6f} {:>12} {:>14.1f} {:>14.4f} {:>14.4f} {:>8}\n", loss_ / weight_,
                 weight_ > last_weight_ ? (loss_ - last_loss_) / (weight_ - last_weight_) : 0., labelled_, weight_,
                 example.label + shift, prediction + shift, example.features.size());
    }
    last_weight_ = weight_;
    last_loss_ = loss_;
  }

  Status Save() {
    const std::string bytes = online::Snapshot(learner_);
    RETURN_IF_ERROR(data::WriteFileAtomically(o_.model, bytes));
    digest_ = crypto::Sha256(bytes);
    return {};
  }

  void Report() const {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const double mean = weight_ > 0 ? loss_ / weight_ : 0;
    const double accuracy = labelled_ > 0 ? static_cast<double>(right_) / static_cast<double>(labelled_) : 0;
    const bool decides = learner_.options().task != online::Task::kRegression;
    if (o_.json) {
      wire::Json j;
      if (digest_) {
        j["model"] = o_.model;
        j["sha256"] = digest_->Hex();
      }
      j["task"] = online::Name(learner_.options().task);
      j["examples"] = examples_;
      j["labelled"] = labelled_;
      j["weight"] = weight_;
      j["loss"] = mean;
      if (decides) j["accuracy"] = accuracy;
      j["examples_ever"] = learner_.progress().examples;
      j["bad_lines"] = bad_;
      if (bad_ > 0) j["first_bad_line"] = first_bad_;
      j["stopped"] = stopped_;
      j["seconds"] = seconds;
      std::fputs(wire::WriteJson(j).c_str(), stdout);
      return;
    }
    FILE* out = o_.predictions == "-" ? stderr : stdout;
    if (stopped_) fmt::print(out, "stopped; ");
    if (digest_) fmt::print(out, "wrote {} ({})  ", o_.model, digest_->Short());
    fmt::print(out, "{} examples  loss {:.6f}", Thousands(static_cast<long long>(examples_)), mean);
    if (decides) fmt::print(out, "  accuracy {:.4f}", accuracy);
    fmt::print(out, "  {} examples/s",
               Thousands(std::llround(static_cast<double>(examples_) / std::max(seconds, 1e-9))));
    if (bad_ > 0) fmt::print(out, "  {} bad lines passed over", Thousands(static_cast<long long>(bad_)));
    fmt::print(out, "\n");
  }

  const Options& o_;
  online::Learner learner_;
  const std::stop_token stop_;
  const bool several_;
  std::vector<float> scores_;
  std::string place_;
  int first_class_ = 0;
  std::unique_ptr<FILE, Close> predictions_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::uint64_t examples_ = 0, labelled_ = 0, right_ = 0, bad_ = 0;
  double weight_ = 0, loss_ = 0, last_weight_ = 0, last_loss_ = 0, next_line_ = 1;
  std::string first_bad_;
  bool stopped_ = false;
  std::optional<crypto::Digest> digest_;
};

Status Merge(const Options& o) {
  if (o.model.empty()) return InvalidArgument("--merge needs -m: where should the merged model go?");
  online::Contributions all;
  for (const std::string& path : o.merge) {
    ASSIGN_OR_RETURN(const online::Learner learner, Load(path));
    if (const Status s = all.Add(learner); !s.ok()) return s.Within(path);
  }
  std::optional<online::Learner> base;
  if (!o.base.empty()) {
    ASSIGN_OR_RETURN(base, Load(o.base));
  }
  ASSIGN_OR_RETURN(const online::Learner merged, all.Combine(base ? &base->state() : nullptr));
  const std::string bytes = online::Snapshot(merged);
  RETURN_IF_ERROR(data::WriteFileAtomically(o.model, bytes));
  const crypto::Digest digest = crypto::Sha256(bytes);
  if (o.json) {
    wire::Json j;
    j["model"] = o.model;
    j["sha256"] = digest.Hex();
    j["contributions"] = all.size();
    j["examples_ever"] = merged.progress().examples;
    std::fputs(wire::WriteJson(j).c_str(), stdout);
  } else {
    fmt::print("wrote {} ({})  {} contributions out of {} files, {} examples\n", o.model, digest.Short(), all.size(),
               o.merge.size(), Thousands(static_cast<long long>(merged.progress().examples)));
  }
  return {};
}

Status Learn(const Options& o, const CLI::App& verb, const std::stop_token& stop) {
  if (!o.merge.empty()) return Merge(o);
  if (verb.count("--base") > 0) return InvalidArgument("--base goes with --merge");
  if (!o.loss.empty() && o.loss != "squared" && o.loss != "logistic" && o.loss != "softmax")
    return InvalidArgument("--loss " + o.loss + " is unknown; squared, logistic or softmax");
  if (o.loss == "squared" && verb.count("--classes") > 0)
    return InvalidArgument("--classes learns by logistic (one against all) or softmax, not squared");
  if (!o.format.empty() && o.format != "vw" && o.format != "csv")
    return InvalidArgument("--format " + o.format + " is unknown; vw or csv");
  ASSIGN_OR_RETURN(online::Learner learner, Begin(o, verb));
  return Run(o, std::move(learner), stop).Everything();
}

void AddOptions(CLI::App* verb, Options* o) {
  verb->add_option("input", o->input, "examples: a file, or - for standard input")->capture_default_str();
  verb->add_option("--format", o->format, "vw or csv; otherwise a file that ends in .csv is CSV, all else VW's text");
  verb->add_option("-m,--model", o->model, "where the model goes; with --resume or --test, where it comes from too");
  verb->add_option("-i,--initial", o->initial, "begin with this model");
  verb->add_flag("--resume", o->resume, "go on with the model at -m");
  verb->add_flag("-t,--test", o->test, "predict only; nothing is learned or written");
  verb->add_option("-p,--predictions", o->predictions, "a prediction a line, made before the example was learned");
  verb->add_flag("--probability", o->probability, "in -p, of two classes: the probability of 1, not its log odds");
  verb->add_option("--loss", o->loss, "squared (numbers, the default), logistic (-1 and 1) or softmax (--classes)");
  verb->add_option("--classes", o->learner.classes, "so many classes, one against all; with --loss softmax, together");
  verb->add_option("-b,--bits", o->learner.bits, "the table has 2^bits places")->capture_default_str();
  verb->add_option(
          "-q,--interactions", o->learner.interactions,
          "pairs of namespaces by first letters, as ab or a: or ::, or of CSV columns, as one,other; repeatable")
      ->allow_extra_args(false);
  verb->add_flag("--no-constant", o->no_constant, "no constant feature");
  verb->add_option("-l,--rate", o->learner.rate, "learning rate")->capture_default_str();
  verb->add_option("--power-t", o->learner.power_t, "how fast it decays")->capture_default_str();
  verb->add_flag("--no-adaptive", o->plain_decay, "decay with time, not with each weight's gradients");
  verb->add_flag("--no-normalised,--no-normalized", o->unscaled, "features are scaled already");
  verb->add_flag("--no-invariant", o->plain_step, "plain gradient steps");
  verb->add_flag("--ftrl", o->ftrl, "FTRL-Proximal in place of gradient steps");
  verb->add_option("--ftrl-alpha", o->learner.alpha)->capture_default_str();
  verb->add_option("--ftrl-beta", o->learner.beta)->capture_default_str();
  verb->add_option("--l1", o->learner.l1, "pull weights to exactly zero")->capture_default_str();
  verb->add_option("--l2", o->learner.l2, "pull weights towards zero")->capture_default_str();
  verb->add_option("--fm", o->learner.factors, "a factorisation machine of this rank");
  verb->add_option("--fm-rate", o->learner.factor_rate, "learning rate of its factors")->capture_default_str();
  verb->add_option("--replay", o->learner.replay, "keep a fair sample of so many examples and learn it again");
  verb->add_option("--replays", o->learner.replays, "so many of these with each new one")->capture_default_str();
  verb->add_option("--anchor", o->learner.anchor, "hold weights at the model resumed from, by its evidence");
  verb->add_option("--anchor-every", o->learner.anchor_every, "move the anchor after so many examples; 0: never")
      ->capture_default_str();
  verb->add_option("--seed", o->learner.seed, "of factors and replay")->capture_default_str();
  verb->add_option("--label", o->columns.label, "CSV: the column to learn (label, else y, else class)");
  verb->add_option("--weight-column", o->columns.weight, "CSV: the column of the examples' weights");
  verb->add_option("--categorical", o->columns.categorical, "CSV: columns whose numbers are names")->delimiter(',');
  verb->add_option("--ignore", o->columns.ignored, "CSV: columns to leave out")->delimiter(',');
  verb->get_option("--categorical")->allow_extra_args(false);
  verb->get_option("--ignore")->allow_extra_args(false);
  verb->add_option("--save-every", o->save_every, "write the model after so many examples too; 0: at the end alone")
      ->capture_default_str();
  verb->add_option("--writer", o->writer, "who learns, for merging");
  verb->add_option("--epoch", o->epoch, "a writer that lost its model begins another")->capture_default_str();
  verb->add_option("--merge", o->merge, "merge these models, learned apart, into -m");
  verb->add_option("--base", o->base, "with --merge: the model that all of them began with");
  verb->add_flag("--strict", o->strict, "end at the first bad line");
  verb->add_flag("--quiet", o->quiet, "no progress lines, no bad lines");
  verb->add_flag("--json", o->json, "the result as JSON");
}

}  // namespace

void AddLearn(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("learn", "Learn online from a stream of examples: linear, logistic, multiclass");
  AddOptions(verb, o.get());
  verb->callback([&context, &exit_code, o, verb] {
    context.stops_gracefully = true;
    const Status status = Learn(*o, *verb, context.stop);
    if (!status.ok()) exit_code = Fail("learn", status);
  });
}

}  // namespace ganglion::app
