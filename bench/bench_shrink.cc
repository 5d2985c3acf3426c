// Shrinking on Fashion-MNIST (make bench-shrink): a distilled student against the same net trained alone, over three
// seeds; eight bits against float; pruned, cut and slimmable nets.
//
// The teacher is the ladder's ensemble in out/fashion (trained first where it is not there). Students have the ladder's
// device net (784-128-10) and recipe; both kinds see the same 50,000 rows, mirrored at random, for as many epochs at
// the same rate, and start from the same parameters; only their targets differ. Accuracies are on the 10,000 test
// images, which nothing was trained on or chosen by; ranges are calibrated on 512 training rows. GANGLION_BENCH_SCALE
// shortens training: below 1 the figures are a trial.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "data/data.h"
#include "figures.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/shrink.h"
#include "shrinking/measure.h"
#include "shrinking/shrinking.h"
#include "stats/stats.h"
#include "training/convnet.h"
#include "training/examples.h"
#include "training/ladder.h"
#include "training/perceptron.h"
#include "training/trainer.h"

namespace ganglion::bench {
namespace {

namespace fs = std::filesystem;
using training::DistilledExamples;
using training::LabelledExamples;

constexpr char kData[] = "/usr/share/datasets/fashion-mnist";
constexpr char kLadder[] = "out/fashion";
constexpr int kSeeds = 3;
double g_scale = 1;

std::int64_t Epochs(std::int64_t full) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::llround(static_cast<double>(full) * g_scale)));
}

struct Bench {
  std::shared_ptr<runtime::Engine> engine;
  data::Dataset train;
  data::Dataset test;
  std::vector<model::Model> teachers;
  double teacher_accuracy = 0;
  double teacher_bytes = 0;

  Result<std::unique_ptr<runtime::Session>> Open(const model::Model& model) const {
    return runtime::Session::Create(engine, model);
  }
  Result<double> TestAccuracy(const model::Model& model, bool together = true) const {
    ASSIGN_OR_RETURN(const auto session, Open(model));
    return shrinking::MeasureAccuracy(*session, test, together, {});
  }
};

Result<Bench> Load() {
  Bench b;
  ASSIGN_OR_RETURN(b.engine, runtime::Engine::Create());
  ASSIGN_OR_RETURN(b.train, data::LoadDataset(std::string(kData) + "/train", {.begin = 0, .end = 50'000}));
  ASSIGN_OR_RETURN(b.test, data::LoadDataset(std::string(kData) + "/t10k"));
  std::error_code ignored;
  if (!fs::exists(fs::path(kLadder) / "global-c.onnx", ignored)) {
    fmt::print("the ladder is not there; training it into {}\n", kLadder);
    training::LadderOptions o;
    o.seed = 7;
    o.threads = 1;
    o.dir = kLadder;
    o.resume = true;
    ASSIGN_OR_RETURN(const auto rungs, training::TrainLadder(b.engine, b.train, b.test, o, {}, {}));
    (void)rungs;
  }
  for (const char* name : {"global-a.onnx", "global-b.onnx", "global-c.onnx"}) {
    ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(fs::path(kLadder) / name));
    b.teacher_bytes += static_cast<double>(bytes.size());
    ASSIGN_OR_RETURN(auto model, model::Model::FromBytes(name, std::move(bytes)));
    b.teachers.push_back(std::move(model));
  }
  // The ensemble answers with the mean of its members' softmax.
  std::vector<float> mean(static_cast<std::size_t>(b.test.rows()) * 10, 0.f);
  const tensor::View all = b.test.x.View();
  for (const auto& t : b.teachers) {
    ASSIGN_OR_RETURN(const auto session, b.Open(t));
    ASSIGN_OR_RETURN(const auto out, session->Run({&all, 1}));
    const auto z = out[0].As<float>();
    for (std::size_t i = 0; i < mean.size(); i += 10)
      stats::AddSoftmax(z.subspan(i, 10), 1.f / 3, std::span(mean).subspan(i, 10));
  }
  for (std::size_t i = 0; i < b.test.labels.size(); ++i) {
    const auto row = mean.begin() + static_cast<std::ptrdiff_t>(i * 10);
    b.teacher_accuracy += std::max_element(row, row + 10) - row == b.test.labels[i];
  }
  b.teacher_accuracy /= static_cast<double>(b.test.rows());
  return b;
}

Result<model::Model> TrainStudent(const Bench& b, const training::Examples& examples, std::uint64_t seed,
                                  const std::string& name) {
  const auto scale = training::ScaleOf(b.train.x.As<float>());
  ASSIGN_OR_RETURN(const auto initial,
                   model::Model::FromBytes(name, training::MakePerceptron({784, 128, 10}, seed, scale)));
  training::TrainOptions o;
  o.optimizer.rate = 3e-3;
  o.epochs = Epochs(40);
  o.seed = seed;
  ASSIGN_OR_RETURN(auto trained, training::Train(b.engine, initial, examples, nullptr, o, {}, {}));
  return std::move(trained.model);
}

struct Students {
  std::vector<model::Model> distilled;
  std::vector<double> accuracy;
};

Result<Students> Distil(const Bench& b, Figures& figures) {
  std::vector<std::unique_ptr<runtime::Session>> sessions;
  std::vector<const runtime::Session*> pointers;
  for (const auto& t : b.teachers) {
    ASSIGN_OR_RETURN(auto session, b.Open(t));
    pointers.push_back(session.get());
    sessions.push_back(std::move(session));
  }
  ASSIGN_OR_RETURN(const auto labelled, LabelledExamples::Create(b.train, 10, true));
  Students students;
  std::vector<double> gains;
  std::vector<double> alone;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    DistilledExamples::Options options;
    options.slices = std::min<std::int64_t>(8, Epochs(40));
    options.seed = seed;
    options.mixtures = 0;  // accuracy is asked for here, not agreement
    options.label_share = .5;
    ASSIGN_OR_RETURN(const auto answers, DistilledExamples::Create(b.train, pointers, options, {}, [](double) {}));
    ASSIGN_OR_RETURN(auto taught, TrainStudent(b, *answers, seed, "distilled"));
    ASSIGN_OR_RETURN(const auto single, TrainStudent(b, *labelled, seed, "alone"));
    ASSIGN_OR_RETURN(const double taught_accuracy, b.TestAccuracy(taught));
    ASSIGN_OR_RETURN(const double single_accuracy, b.TestAccuracy(single));
    fmt::print("seed {}: distilled {:.4f}, alone {:.4f}\n", seed, taught_accuracy, single_accuracy);
    students.accuracy.push_back(taught_accuracy);
    alone.push_back(single_accuracy);
    gains.push_back(taught_accuracy - single_accuracy);
    students.distilled.push_back(std::move(taught));
  }
  const auto mean = [](const std::vector<double>& v) {
    return std::accumulate(v.begin(), v.end(), 0.) / static_cast<double>(v.size());
  };
  const double bytes = static_cast<double>(students.distilled[0].bytes().size());
  figures.Add({"teacher: ensemble of three, test accuracy", b.teacher_accuracy, "share", std::nullopt, ""});
  figures.Add({"student trained alone, mean of 3 seeds", mean(alone), "share", std::nullopt, ""});
  figures.Add({"student distilled, mean of 3 seeds", mean(students.accuracy), "share", std::nullopt, ""});
  figures.Add({"distilled minus alone, mean of 3 seeds", mean(gains), "share", std::nullopt, ">= 0.0001"});
  figures.Add({"distilled minus alone, worst of 3 seeds", *std::min_element(gains.begin(), gains.end()), "share",
               std::nullopt, ""});
  figures.Add({"distilled minus teacher, worst of 3 seeds",
               *std::min_element(students.accuracy.begin(), students.accuracy.end()) - b.teacher_accuracy, "share",
               std::nullopt, ">= -0.015"});
  figures.Add({"student over teacher: size", bytes, "bytes", b.teacher_bytes, "<= 0.1x"});
  return students;
}

Result<model::Model> Quantise(const Bench& b, const model::Model& model, shrink::RangeRule rule) {
  onnx::ModelProto proto;
  onnx::ModelProto out;
  RETURN_IF_ERROR(graph::Parse(model.bytes(), &proto));
  ASSIGN_OR_RETURN(const auto observers, shrinking::Observe(b.engine, proto, {}, b.train, 512, {}));
  ASSIGN_OR_RETURN(const auto ranges, shrinking::FindRanges(observers, rule, .9999));
  ASSIGN_OR_RETURN(const auto report, shrink::QuantiseStatic(proto, ranges, {}, &out));
  (void)report;
  return model::Model::FromBytes("int8", graph::Serialize(out));
}

// Size, accuracy and latency in eight bits against float; `what` names the net.
Status EightBits(const Bench& b, const std::string& what, const std::vector<model::Model>& models, Figures& figures) {
  std::vector<double> losses[2];
  std::optional<model::Model> first;
  for (const auto& m : models) {
    ASSIGN_OR_RETURN(const double before, b.TestAccuracy(m));
    int k = 0;
    for (const auto rule : {shrink::RangeRule::kMinMax, shrink::RangeRule::kEntropy}) {
      ASSIGN_OR_RETURN(auto quantised, Quantise(b, m, rule));
      ASSIGN_OR_RETURN(const double after, b.TestAccuracy(quantised));
      losses[k++].push_back(after - before);
      if (!first) first = std::move(quantised);
    }
  }
  onnx::ModelProto proto;
  onnx::ModelProto out;
  RETURN_IF_ERROR(graph::Parse(models[0].bytes(), &proto));
  ASSIGN_OR_RETURN(const auto report, shrink::QuantiseDynamic(proto, {}, &out));
  (void)report;
  ASSIGN_OR_RETURN(const auto dynamic, model::Model::FromBytes("dynamic", graph::Serialize(out)));
  ASSIGN_OR_RETURN(const double before, b.TestAccuracy(models[0]));
  ASSIGN_OR_RETURN(const double dynamic_accuracy, b.TestAccuracy(dynamic, false));
  figures.Add({what + ", int8 over float: size", static_cast<double>(first->bytes().size()), "bytes",
               static_cast<double>(models[0].bytes().size()), "<= 0.3x"});
  const auto worst = [](const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); };
  const std::string of = models.size() > 1 ? fmt::format(", worst of {} seeds", models.size()) : "";
  figures.Add({what + ", int8 minus float: accuracy" + of, worst(losses[0]), "share", std::nullopt, ">= -0.005"});
  figures.Add({what + ", the same with ranges by entropy" + of, worst(losses[1]), "share", std::nullopt, ""});
  figures.Add({what + ", dynamic int8 minus float: accuracy", dynamic_accuracy - before, "share", std::nullopt, ""});
  ASSIGN_OR_RETURN(const auto a, b.Open(models[0]));
  ASSIGN_OR_RETURN(const auto q, b.Open(*first));
  ASSIGN_OR_RETURN(const auto d, b.Open(dynamic));
  ASSIGN_OR_RETURN(const auto times, shrinking::MeasureLatencies({a.get(), q.get(), d.get()}, b.test, 4000, 5, {}));
  figures.Add({what + ", float: one row, median", times[0].p50 * 1000, "us", std::nullopt, ""});
  figures.Add({what + ", int8 over float: one row, median", times[1].p50 * 1000, "us", times[0].p50 * 1000, ""});
  figures.Add({what + ", int8 over float: one row, 99 %", times[1].p99 * 1000, "us", times[0].p99 * 1000, ""});
  figures.Add({what + ", dynamic int8 over float: one row", times[2].p50 * 1000, "us", times[0].p50 * 1000, ""});
  return {};
}

// A small convolutional net with normalisation, taught by the same teacher.
Result<model::Model> TrainConvNet(const Bench& b) {
  training::ConvNetSpec spec;
  spec.blocks = {{16}, {32}};
  spec.dense = {64};
  spec.normalise = true;
  spec.scale = training::ScaleOf(b.train.x.As<float>());
  ASSIGN_OR_RETURN(std::string bytes, training::MakeConvNet(spec, 1));
  ASSIGN_OR_RETURN(const auto initial, model::Model::FromBytes("conv", std::move(bytes)));
  ASSIGN_OR_RETURN(const auto labelled, LabelledExamples::Create(b.train, 10, true));
  training::TrainOptions o;
  o.optimizer.rate = 2e-3;
  o.epochs = Epochs(4);
  ASSIGN_OR_RETURN(auto trained, training::Train(b.engine, initial, *labelled, nullptr, o, {}, {}));
  return std::move(trained.model);
}

// Everything that `ganglion shrink` tries, on the student of the first seed.
Status Ways(const Bench& b, const model::Model& student, Figures& figures) {
  shrinking::ShrinkOptions o;
  o.rules = {shrink::RangeRule::kMinMax};
  o.dynamic = false;
  o.sparsities = {.5, .8};
  o.epochs = Epochs(20);
  o.mirror = true;
  o.budget.accuracy_loss = .005;
  o.dir = "out/bench-shrink";
  ASSIGN_OR_RETURN(const auto shrunk, shrinking::Shrink(b.engine, student, b.train, b.test, b.teachers, o, {}, {}));
  std::error_code ignored;
  fs::remove_all(o.dir, ignored);
  const auto& float_row = shrunk.rows[static_cast<std::size_t>(shrunk.reference)].measured;
  for (const auto& row : shrunk.rows) {
    const auto& c = row.measured;
    fmt::print("  {:<28} {:>8} bytes  {:.4f}  {}\n", c.name, c.bytes, c.accuracy, row.verdict.why);
    const bool shown = c.name.rfind("pruned", 0) == 0 || c.name.rfind("cut", 0) == 0 || c.name.rfind("slim", 0) == 0;
    if (!shown) continue;
    if (!c.failed.empty()) return FailedPrecondition(c.name + ": " + c.failed);
    figures.Add({c.name + " minus float: accuracy", c.accuracy - float_row.accuracy, "share", std::nullopt, ""});
    if (c.name.rfind("pruned", 0) == 0) continue;
    figures.Add({c.name + " over float: size", static_cast<double>(c.bytes), "bytes",
                 static_cast<double>(float_row.bytes), ""});
    figures.Add({c.name + " over float: one row, median", c.p50_ms * 1000, "us", float_row.p50_ms * 1000, ""});
  }
  double widths = 0;
  for (const auto& row : shrunk.rows) {
    const std::string& name = row.measured.name;
    if (name == "slim 25%" || name == "slim 50%" || name == "slim 100%")
      widths += static_cast<double>(row.model.size());
  }
  figures.Add({"widths in one file over separate files: size", static_cast<double>(shrunk.slim_file.size()), "bytes",
               widths, ""});
  return {};
}

Status Measure(Figures& figures) {
  ASSIGN_OR_RETURN(const Bench b, Load());
  ASSIGN_OR_RETURN(const Students students, Distil(b, figures));
  RETURN_IF_ERROR(EightBits(b, "perceptron 784-128-10", students.distilled, figures));
  ASSIGN_OR_RETURN(const auto conv, TrainConvNet(b));
  ASSIGN_OR_RETURN(const double accuracy, b.TestAccuracy(conv));
  figures.Add({"convolutional net 16-32-64, float: test accuracy", accuracy, "share", std::nullopt, ""});
  RETURN_IF_ERROR(EightBits(b, "convolutional net 16-32-64", {conv}, figures));
  return Ways(b, students.distilled[0], figures);
}

int Run() {
  if (const char* scale = std::getenv("GANGLION_BENCH_SCALE")) g_scale = std::strtod(scale, nullptr);
  Figures figures("shrink");
  if (const auto s = Measure(figures); !s.ok()) {
    fmt::print(stderr, "bench-shrink: {}\n", s.message());
    return 1;
  }
  return figures.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main() { return ganglion::bench::Run(); }
