#include "shrinking/shrinking.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>

#include "base/limits.h"
#include "crypto/crypto.h"
#include "data/file.h"
#include "gradient/gradient.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/channels.h"
#include "shrink/progressive.h"
#include "shrink/prune.h"
#include "shrink/quantise.h"
#include "shrink/slim.h"
#include "shrinking/measure.h"
#include "shrinking/slim_training.h"
#include "training/examples.h"
#include "training/trainer.h"

namespace ganglion::shrinking {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSlices = 8;        // versions of the rows that teachers label
constexpr std::int64_t kInputRows = 4000;  // that say how much the inputs of layers vary
constexpr double kSameFunction = 1e-3;     // relative; what float sums in another order may differ by
constexpr int kLatencyRounds = 2000;
constexpr double kLatencySeconds = 10;
constexpr char kRecipe[] = "recipe.txt";
constexpr char kDynamic[] = "int8 dynamic";

std::string Percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g%%", share * 100);
  return text;
}

std::string Slug(const std::string& name) {
  std::string slug;
  for (const char c : name) {
    if (c == '%' || c == '+') continue;
    if (c == ' ' && !slug.empty() && slug.back() == '-') continue;
    slug += c == ' ' || c == '/' ? '-' : c;
  }
  return slug;
}

std::string Recipe(const model::Model& model, const data::Dataset& train, const data::Dataset& valid,
                   const std::vector<model::Model>& teachers, const ShrinkOptions& o) {
  std::string text =
      "shrink 1 " + model.digest().Hex() + " " + data::DigestOf(train).Hex() + " " + data::DigestOf(valid).Hex();
  for (const auto& t : teachers) text += " teacher " + t.digest().Hex();
  for (const std::int64_t v : {o.multiple, o.calibration_rows, o.batch, o.epochs, static_cast<std::int64_t>(o.seed),
                               std::int64_t{o.seven_bit_weights}, std::int64_t{o.mirror}}) {
    text += " " + std::to_string(v);
  }
  std::vector<double> numbers{o.rate, o.percentile};
  numbers.insert(numbers.end(), o.widths.begin(), o.widths.end());  // the slim net depends on all of its widths
  for (const double v : numbers) {
    char exact[40];
    std::snprintf(exact, sizeof exact, " %a", v);
    text += exact;
  }
  return crypto::Sha256(text).Hex() + "\n";
}

Status Check(const ShrinkOptions& o) {
  const auto share = [](const char* name, double v, bool one) {
    const bool fits = v > 0 && (one ? v <= 1 : v < 1);
    return fits ? Status()
                : InvalidArgument(std::string(name) + " must be above 0 and " + (one ? "at most" : "below") +
                                  " 1, got " + std::to_string(v));
  };
  for (const double v : o.sparsities) RETURN_IF_ERROR(share("a sparsity", v, false));
  for (const double v : o.cuts) RETURN_IF_ERROR(share("a share of channels", v, false));
  for (std::size_t i = 0; i < o.widths.size(); ++i) {
    RETURN_IF_ERROR(share("a width", o.widths[i], true));
    if (i > 0 && !(o.widths[i] > o.widths[i - 1])) return InvalidArgument("widths must rise");
  }
  if (!o.widths.empty() && o.widths.back() != 1) return InvalidArgument("the last width is 1");
  if (!(o.percentile > .5 && o.percentile <= 1))
    return InvalidArgument("percentile must be above .5 and at most 1, got " + std::to_string(o.percentile));
  if (o.calibration_rows < 1 || o.epochs < 1 || o.batch < 1 || o.multiple < 1)
    return InvalidArgument("calibration rows, epochs, batch and multiple must be at least 1");
  if (o.budget.accuracy_loss && !(*o.budget.accuracy_loss >= 0 && *o.budget.accuracy_loss <= 1))
    return InvalidArgument("the budget of accuracy is a loss from 0 to 1, got " +
                           std::to_string(*o.budget.accuracy_loss));
  if (o.budget.latency_ms && !(*o.budget.latency_ms > 0))
    return InvalidArgument("the budget of latency must be above 0, got " + std::to_string(*o.budget.latency_ms) +
                           " ms");
  if (o.dir.empty()) return InvalidArgument("a directory for finished candidates is needed");
  return {};
}

struct Made {
  onnx::ModelProto model;
  std::string about;
};

class Workshop {
 public:
  Workshop(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model, const data::Dataset& train,
           const data::Dataset& valid, const std::vector<model::Model>& teachers, const ShrinkOptions& options,
           std::stop_token stop, const std::function<void(const ShrinkProgress&)>& on_progress)
      : engine_(engine),
        given_(model),
        train_(train),
        valid_(valid),
        teachers_(teachers),
        o_(options),
        stop_(std::move(stop)),
        on_progress_(on_progress) {}

  Result<Shrunk> Run() {
    RETURN_IF_ERROR(Open());
    Count();
    RETURN_IF_ERROR(Add("as given", -1, 0, [&](double) { return AsGiven(); }));
    if (!shrunk_.rows[0].measured.failed.empty()) return InvalidArgument(shrunk_.rows[0].measured.failed);
    int base = 0;
    if (!teachers_.empty()) {
      RETURN_IF_ERROR(Add("distilled", -1, Work(1), [&](double work) { return Distil(work); }));
      const auto& d = shrunk_.rows[1].measured;
      if (d.failed.empty() && d.accuracy > shrunk_.rows[0].measured.accuracy) base = 1;
    }
    shrunk_.reference = base;
    shrink::RangeRule best = o_.rules.empty() ? shrink::RangeRule::kMinMax : o_.rules[0];
    double best_accuracy = -1;
    for (const auto rule : o_.rules) {
      RETURN_IF_ERROR(AddEightBits(base, "", rule));
      const auto& c = shrunk_.rows.back().measured;
      if (c.failed.empty() && c.accuracy > best_accuracy) {
        best_accuracy = c.accuracy;
        best = rule;
      }
    }
    if (o_.dynamic) {
      RETURN_IF_ERROR(Add(kDynamic, base, 0, [&](double) { return Dynamic(base); }));
    }
    for (const double sparsity : o_.sparsities) {
      RETURN_IF_ERROR(
          Add("pruned " + Percent(sparsity), -1, Work(.5), [&](double work) { return Prune(base, sparsity, work); }));
    }
    for (const double share : o_.cuts) {
      const std::string name = "cut to " + Percent(share);
      RETURN_IF_ERROR(Add(name, -1, Work(.5 * share), [&](double work) { return Cut(base, share, work); }));
      const int at = static_cast<int>(shrunk_.rows.size()) - 1;
      if (!o_.rules.empty()) RETURN_IF_ERROR(AddEightBits(at, name + " + ", best));
    }
    if (!o_.widths.empty()) RETURN_IF_ERROR(AddSlim(base, best));
    RETURN_IF_ERROR(Time());
    std::vector<shrink::Candidate> candidates;
    candidates.reserve(shrunk_.rows.size());
    for (const auto& row : shrunk_.rows) candidates.push_back(row.measured);
    const auto choice = shrink::Choose(candidates, o_.budget, shrunk_.reference);
    for (std::size_t i = 0; i < shrunk_.rows.size(); ++i) shrunk_.rows[i].verdict = choice.verdicts[i];
    shrunk_.chosen = choice.chosen;
    return std::move(shrunk_);
  }

 private:
  // The directory of finished candidates: kept when it is of this recipe, emptied of ours otherwise.
  Status Open() {
    RETURN_IF_ERROR(data::MakeDirectories(o_.dir));
    const std::string recipe = Recipe(given_, train_, valid_, teachers_, o_);
    const auto there = data::ReadFile(o_.dir / kRecipe, limits::kMaxConfigBytes);
    if (!o_.resume || !there.ok() || *there != recipe) {
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator(o_.dir, ignored)) {
        const auto extension = entry.path().extension();
        if (extension == ".onnx" || extension == ".checkpoint" || extension == ".about")
          fs::remove(entry.path(), ignored);
      }
    }
    return data::WriteFileAtomically(o_.dir / kRecipe, recipe);
  }

  // Training's work, in passes over the data with the given model.
  double Work(double share) const { return share * static_cast<double>(o_.epochs); }
  void Count() {
    total_ = teachers_.empty() ? 1 : Work(1) + 2;
    total_ += Work(.5) * static_cast<double>(o_.sparsities.size());
    for (const double c : o_.cuts) total_ += Work(.5 * c);
    for (const double w : o_.widths) total_ += Work(w);
  }
  void Show(double work, const std::string& doing) {
    if (on_progress_) on_progress_({std::min((done_ + work) / total_, 1.), doing});
  }

  // Makes a candidate, or takes it from the directory; measures it. A refusal becomes its row; only a stop (and a disk
  // that takes nothing) ends the run.
  template <typename F>
  Status Add(const std::string& name, int made_of, double work, const F& make) {
    ShrinkRow row;
    row.measured.name = name;
    row.measured.made_of = made_of;
    row.measured.last_resort = name == kDynamic;
    Show(0, name);
    Status status = Make(name, work, make, &row);
    if (status.code() == Code::kCancelled || status.code() == Code::kUnavailable ||
        status.code() == Code::kResourceExhausted) {
      return status;
    }
    if (!status.ok()) {
      row.measured.failed = status.message();
      row.model.clear();
    }
    done_ += work;
    shrunk_.rows.push_back(std::move(row));
    return {};
  }

  template <typename F>
  Status Make(const std::string& name, double work, const F& make, ShrinkRow* row) {
    const fs::path file = o_.dir / (Slug(name) + ".onnx");
    const fs::path about = o_.dir / (Slug(name) + ".about");
    auto there = data::ReadFile(file, limits::kMaxModelBytes);
    auto said = data::ReadFile(about, limits::kMaxConfigBytes);
    if (there.ok() && said.ok()) {
      row->model = std::move(*there);
      row->about = std::move(*said);
    } else {
      ASSIGN_OR_RETURN(const Made made, make(work));
      row->model = name == "as given"
                       ? std::string(reinterpret_cast<const char*>(given_.bytes().data()), given_.bytes().size())
                       : graph::Serialize(made.model);
      row->about = made.about;
      // The model last: it says that the candidate is whole.
      if (auto s = data::WriteFileAtomically(about, row->about); !s.ok()) return Unavailable(s.message());
      if (auto s = data::WriteFileAtomically(file, row->model); !s.ok()) return Unavailable(s.message());
    }
    std::error_code ignored;
    fs::remove(Checkpoint(name), ignored);
    row->measured.bytes = row->model.size();
    ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(name, row->model));
    RETURN_IF_ERROR(CheckShape(model, train_.features()));
    ASSIGN_OR_RETURN(const auto session, runtime::Session::Create(engine_, model));
    const bool together = !row->measured.last_resort;
    ASSIGN_OR_RETURN(row->measured.accuracy, MeasureAccuracy(*session, valid_, together, stop_));
    return {};
  }

  fs::path Checkpoint(const std::string& name) const { return o_.dir / (Slug(name) + ".checkpoint"); }

  Result<onnx::ModelProto> Proto(int row) const {
    const auto& r = shrunk_.rows[static_cast<std::size_t>(row)];
    if (r.model.empty()) return FailedPrecondition(r.measured.name + " could not be made");
    onnx::ModelProto proto;
    RETURN_IF_ERROR(graph::Parse(std::as_bytes(std::span(r.model)), &proto));
    return proto;
  }

  static std::string Layers(const shrink::QuantiseReport& report) {
    const std::size_t all = report.quantised.size() + report.left_float.size();
    std::string text = std::to_string(report.quantised.size()) + " of " + std::to_string(all) + " layers in 8 bits";
    for (const auto& why : report.left_float) text += "; " + why;
    return text;
  }

  // What training learns from: the teachers' answers, or the labels. Made when first asked for.
  Result<const training::Examples*> Examples() {
    if (examples_) return examples_.get();
    const std::int64_t classes = given_.signature().outputs[0].shape[1];
    if (teachers_.empty()) {
      ASSIGN_OR_RETURN(examples_, training::LabelledExamples::Create(train_, classes, o_.mirror));
      return examples_.get();
    }
    std::vector<const runtime::Session*> pointers;
    for (const auto& t : teachers_) {
      ASSIGN_OR_RETURN(auto session, runtime::Session::Create(engine_, t));
      pointers.push_back(session.get());
      sessions_.push_back(std::move(session));
    }
    // Without mirroring every version of a row is the same.
    const training::DistilledExamples::Options options{.slices = o_.mirror ? std::min(kSlices, o_.epochs) : 1,
                                                       .mirror = o_.mirror,
                                                       .seed = o_.seed,
                                                       .threads = o_.threads,
                                                       .mixtures = 0,
                                                       .label_share = train_.labels.empty() ? 0 : .5};
    ASSIGN_OR_RETURN(examples_,
                     training::DistilledExamples::Create(train_, pointers, options, stop_, [&](double share) {
                       Show(2 * share, "the teachers label the rows");
                     }));
    done_ += 2;
    return examples_.get();
  }

  Result<onnx::ModelProto> FineTune(const std::string& name, const onnx::ModelProto& start, std::int64_t epochs,
                                    double work, const shrink::MaskProjection* masks) {
    ASSIGN_OR_RETURN(const training::Examples* examples, Examples());
    ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(name, graph::Serialize(start)));
    training::TrainOptions options;
    options.optimizer.rate = o_.rate;
    options.batch = o_.batch;
    options.epochs = epochs;
    options.seed = o_.seed;
    options.checkpoint = Checkpoint(name);
    options.resume = o_.resume;
    options.gradient.frozen = WasConstant(start);
    if (masks != nullptr) {
      options.after_step = [masks](std::span<float> parameters, std::int64_t) { masks->Apply(parameters); };
    }
    ASSIGN_OR_RETURN(const auto trained,
                     training::Train(engine_, model, *examples, nullptr, options, stop_, [&](const auto& p) {
                       char text[80];
                       std::snprintf(text, sizeof text, ": epoch %d/%d  loss %.4f", static_cast<int>(p.epoch),
                                     static_cast<int>(p.epochs), p.loss);
                       Show(work * p.done, name + text);
                     }));
    onnx::ModelProto out;
    RETURN_IF_ERROR(graph::Parse(trained.model.bytes(), &out));
    return out;
  }

  // What the given file held as Constant nodes stays constant.
  std::vector<std::string> WasConstant(const onnx::ModelProto& model) const {
    onnx::ModelProto given;
    std::vector<std::string> constants;
    if (!graph::Parse(given_.bytes(), &given).ok()) return constants;
    std::vector<std::string> made;  // by Constant nodes
    for (const auto& n : given.graph().node()) {
      if (n.op_type() == "Constant") made.insert(made.end(), n.output().begin(), n.output().end());
    }
    for (const auto& t : model.graph().initializer()) {
      if (std::find(made.begin(), made.end(), t.name()) != made.end()) constants.push_back(t.name());
    }
    return constants;
  }

  std::int64_t HalfOfTheEpochs() const { return std::max<std::int64_t>(1, o_.epochs / 2); }

  Result<Made> AsGiven() const {
    Made made;
    RETURN_IF_ERROR(graph::Parse(given_.bytes(), &made.model));
    return made;
  }

  Result<Made> Dynamic(int of) const {
    ASSIGN_OR_RETURN(const auto proto, Proto(of));
    Made made;
    const shrink::QuantiseOptions options{.seven_bit_weights = o_.seven_bit_weights};
    ASSIGN_OR_RETURN(const auto report, shrink::QuantiseDynamic(proto, options, &made.model));
    made.about = Layers(report) + ", rows of a batch depend on each other";
    return made;
  }

  Result<Made> Distil(double work) {
    ASSIGN_OR_RETURN(const auto start, Proto(0));
    Made made;
    ASSIGN_OR_RETURN(made.model, FineTune("distilled", start, o_.epochs, work, nullptr));
    made.about = "taught by " + std::to_string(teachers_.size()) + (teachers_.size() == 1 ? " model" : " models");
    return made;
  }

  Status AddEightBits(int of, const std::string& prefix, shrink::RangeRule rule) {
    return Add(prefix + "int8 " + std::string(Name(rule)), of, 0, [&](double) { return EightBits(of, rule); });
  }

  Result<Made> EightBits(int of, shrink::RangeRule rule) {
    ASSIGN_OR_RETURN(const auto proto, Proto(of));
    const shrink::QuantiseOptions options{.seven_bit_weights = o_.seven_bit_weights};
    if (observed_ != of) {
      ASSIGN_OR_RETURN(observers_, Observe(engine_, proto, options, train_, o_.calibration_rows, stop_));
      observed_ = of;
    }
    ASSIGN_OR_RETURN(const auto ranges, FindRanges(observers_, rule, o_.percentile));
    Made made;
    ASSIGN_OR_RETURN(const auto report, shrink::QuantiseStatic(proto, ranges, options, &made.model));
    made.about = Layers(report);
    return made;
  }

  Result<Made> Prune(int of, double sparsity, double work) {
    ASSIGN_OR_RETURN(auto proto, Proto(of));
    ASSIGN_OR_RETURN(const auto inputs, MeasureInputs(engine_, proto, train_, kInputRows, stop_));
    ASSIGN_OR_RETURN(const auto masks, shrink::MagnitudeMasks(proto, sparsity, shrink::Scope::kGlobal, inputs));
    RETURN_IF_ERROR(shrink::ShiftBiases(masks, inputs, &proto));
    RETURN_IF_ERROR(shrink::ApplyMasks(masks, &proto));
    onnx::ModelProto step;
    gradient::Options options{.loss = gradient::Loss::kSoftmaxCrossEntropyDense};
    options.frozen = WasConstant(proto);
    ASSIGN_OR_RETURN(const auto parts, gradient::Differentiate(proto, options, &step));
    ASSIGN_OR_RETURN(const auto projection, shrink::MaskProjection::Create(masks, parts.parameters));
    Made made;
    ASSIGN_OR_RETURN(made.model, FineTune("pruned " + Percent(sparsity), proto, HalfOfTheEpochs(), work, &projection));
    made.about = Percent(shrink::Sparsity(masks)) + " of the weights are 0; the file is smaller only when compressed";
    return made;
  }

  Result<Made> Cut(int of, double share, double work) {
    ASSIGN_OR_RETURN(const auto proto, Proto(of));
    ASSIGN_OR_RETURN(const auto report, shrink::FindChannels(proto));
    if (report.groups.empty()) {
      std::string why;
      for (const auto& f : report.fixed) why += (why.empty() ? ": " : "; ") + f;
      return FailedPrecondition("no channels can be cut" + why);
    }
    const auto keep = shrink::MostImportant(report.groups, share, o_.multiple);
    onnx::ModelProto cut;
    onnx::ModelProto masked;
    RETURN_IF_ERROR(shrink::KeepChannels(proto, keep, &cut));
    RETURN_IF_ERROR(shrink::MaskChannels(proto, keep, &masked));
    ASSIGN_OR_RETURN(const double difference, Difference(engine_, cut, masked, valid_, 64));
    if (!(difference < kSameFunction)) {
      return FailedPrecondition("without its channels the model differs from the one that masks them by " +
                                std::to_string(difference) + "; a Reshape may deal channels out to rows");
    }
    Made made;
    ASSIGN_OR_RETURN(made.model, FineTune("cut to " + Percent(share), cut, HalfOfTheEpochs(), work, nullptr));
    for (std::size_t g = 0; g < keep.size(); ++g) {
      made.about +=
          (g == 0 ? "" : ", ") + std::to_string(keep[g].size()) + " of " + std::to_string(report.groups[g].channels);
    }
    made.about = "channels: " + made.about;
    return made;
  }

  Status AddSlim(int of, shrink::RangeRule rule) {
    double work = 0;
    for (const double w : o_.widths) work += Work(w);
    std::vector<model::Model> models;
    Status failure;
    const auto name = [](double width) { return "slim " + Percent(width); };
    for (std::size_t i = 0; i < o_.widths.size(); ++i) {
      // The first that is not there makes all.
      const auto make = [&](double) -> Result<Made> {
        if (models.empty() && failure.ok()) {
          auto trained = TrainWidths(of, work);
          if (trained.ok()) {
            models = std::move(*trained);
          } else {
            failure = trained.status();
          }
        }
        RETURN_IF_ERROR(failure);
        Made made;
        RETURN_IF_ERROR(graph::Parse(models[i].bytes(), &made.model));
        made.about = "one of " + std::to_string(models.size()) + " widths in one file";
        return made;
      };
      Status added = Add(name(o_.widths[i]), -1, i == 0 ? work : 0, make);
      if (!added.ok()) return added;
    }
    const auto first = shrunk_.rows.size() - o_.widths.size();
    std::vector<onnx::ModelProto> protos;
    std::vector<const onnx::ModelProto*> pointers;
    for (std::size_t i = 0; i < o_.widths.size(); ++i) {
      auto proto = Proto(static_cast<int>(first + i));
      if (proto.ok()) protos.push_back(std::move(*proto));
    }
    if (protos.size() == o_.widths.size()) {
      pointers.reserve(protos.size());
      for (const auto& p : protos) pointers.push_back(&p);
      ASSIGN_OR_RETURN(shrunk_.slim_file, shrink::WriteProgressive(pointers, o_.widths));
    }
    for (std::size_t i = 0; i + 1 < o_.widths.size() && !o_.rules.empty(); ++i)
      RETURN_IF_ERROR(AddEightBits(static_cast<int>(first + i), name(o_.widths[i]) + " + ", rule));
    return {};
  }

  Result<std::vector<model::Model>> TrainWidths(int of, double work) {
    ASSIGN_OR_RETURN(const auto proto, Proto(of));
    onnx::ModelProto sorted;
    RETURN_IF_ERROR(shrink::SortByImportance(proto, &sorted));
    ASSIGN_OR_RETURN(const double difference, Difference(engine_, proto, sorted, valid_, 64));
    if (!(difference < kSameFunction))
      return FailedPrecondition("sorting its channels changes the model; a Reshape may deal channels out to rows");
    ASSIGN_OR_RETURN(const training::Examples* examples, Examples());
    ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes("slim", graph::Serialize(sorted)));
    SlimOptions options;
    options.widths = o_.widths;
    options.multiple = o_.multiple;
    options.optimizer.rate = o_.rate;
    options.batch = o_.batch;
    options.epochs = o_.epochs;
    options.seed = o_.seed;
    options.checkpoint = o_.dir / "slim.checkpoint";
    options.resume = o_.resume;
    auto models = TrainSlim(engine_, model, *examples, train_, options, stop_, [&](const SlimProgress& p) {
      char text[80];
      std::snprintf(text, sizeof text, "widths: epoch %d/%d  loss %.4f", static_cast<int>(p.epoch),
                    static_cast<int>(o_.epochs), p.loss);
      Show(work * p.done, text);
    });
    return models;
  }

  Status Time() {
    Show(0, "latencies");
    std::vector<std::unique_ptr<runtime::Session>> sessions;
    std::vector<const runtime::Session*> pointers;
    std::vector<std::size_t> rows;
    for (std::size_t i = 0; i < shrunk_.rows.size(); ++i) {
      if (!shrunk_.rows[i].measured.failed.empty()) continue;
      ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(shrunk_.rows[i].measured.name, shrunk_.rows[i].model));
      ASSIGN_OR_RETURN(auto session, runtime::Session::Create(engine_, model));
      pointers.push_back(session.get());
      sessions.push_back(std::move(session));
      rows.push_back(i);
    }
    ASSIGN_OR_RETURN(const auto times, MeasureLatencies(pointers, valid_, kLatencyRounds, kLatencySeconds, stop_));
    for (std::size_t k = 0; k < rows.size(); ++k) {
      shrunk_.rows[rows[k]].measured.p50_ms = times[k].p50;
      shrunk_.rows[rows[k]].measured.p99_ms = times[k].p99;
    }
    Show(total_, "done");
    return {};
  }

  const std::shared_ptr<runtime::Engine>& engine_;
  const model::Model& given_;
  const data::Dataset& train_;
  const data::Dataset& valid_;
  const std::vector<model::Model>& teachers_;
  const ShrinkOptions& o_;
  const std::stop_token stop_;
  const std::function<void(const ShrinkProgress&)>& on_progress_;

  Shrunk shrunk_;
  std::unique_ptr<training::Examples> examples_;
  std::vector<std::unique_ptr<runtime::Session>> sessions_;
  std::map<std::string, shrink::RangeObserver> observers_;
  int observed_ = -1;  // whose observers these are
  double total_ = 1;
  double done_ = 0;
};

}  // namespace

Result<Shrunk> Shrink(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                      const data::Dataset& train, const data::Dataset& valid, const std::vector<model::Model>& teachers,
                      const ShrinkOptions& options, std::stop_token stop,
                      const std::function<void(const ShrinkProgress&)>& on_progress) {
  RETURN_IF_ERROR(Check(options));
  if (train.rows() < 1 || valid.rows() < 1) return InvalidArgument("there are no rows to shrink with");
  if (train.labels.empty() && teachers.empty())
    return InvalidArgument("the training rows have no labels; give labels or a teacher");
  if (valid.labels.empty()) return InvalidArgument("the validation rows have no labels");
  if (valid.features() != train.features()) {
    return InvalidArgument("the validation rows have " + std::to_string(valid.features()) +
                           " features, the training rows " + std::to_string(train.features()));
  }
  RETURN_IF_ERROR(CheckShape(model, train.features()));
  const std::int64_t classes = model.signature().outputs[0].shape[1];
  for (const auto& t : teachers) {
    RETURN_IF_ERROR(CheckShape(t, train.features()));
    if (t.signature().outputs[0].shape[1] != classes) {
      return InvalidArgument(t.name() + " gives " + std::to_string(t.signature().outputs[0].shape[1]) + " classes, " +
                             model.name() + " " + std::to_string(classes));
    }
  }
  if (training::CountClasses(valid) > classes || training::CountClasses(train) > classes) {
    return InvalidArgument("label " +
                           std::to_string(std::max(training::CountClasses(valid), training::CountClasses(train)) - 1) +
                           " is out of range: " + model.name() + " has " + std::to_string(classes) + " classes");
  }
  return Workshop(engine, model, train, valid, teachers, options, std::move(stop), on_progress).Run();
}

}  // namespace ganglion::shrinking
