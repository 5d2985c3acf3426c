// The ladder's accuracy, and the cascade against everything in the cloud (make bench-demo, bench-demo-conv).
//
// Runs `ganglion demo` and reads its JSON; softmax regression, which the ladder does not need, is trained here on the
// same 50,000 rows. Wall times are recorded without a goal in the file's sense (a busy machine would fail them).
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/data.h"
#include "figures.h"
#include "population.h"
#include "training/training.h"
#include "wire/json.h"

namespace ganglion::bench {
namespace {

constexpr std::uint64_t kSeed = 1;               // of the demo
constexpr std::uint64_t kConvolutionalSeed = 7;  // of make demo-conv

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The cascade against everything in the cloud; goals are those of the demo of perceptrons.
void AddCascade(Figures& figures, const wire::Json& j, bool with_goals) {
  const auto goal = [&](const char* g) { return std::string(with_goals ? g : ""); };
  const auto& c = j["cascade"];
  const auto& cloud = j["cloud"];
  const auto against = [&](const char* id, double cloud_value, double value, const char* unit,
                           const std::string& wanted) {
    figures.Add({fmt::format("cloud over cascade: {}", id), cloud_value, unit, value, wanted});
  };
  against("mean latency", cloud["latency_ms"]["mean"].get<double>(), c["latency_ms"]["mean"].get<double>(), "ms",
          goal(">= 10x"));
  against("bytes on the device's uplink", cloud["uplink_bytes"].get<double>(), c["uplink_bytes"].get<double>(), "bytes",
          goal(">= 10x"));
  against("bytes over all hops (the cloud counted as one)", cloud["hop_bytes"].get<double>(),
          c["hop_bytes"].get<double>(), "bytes", goal(">= 6x"));
  against("cost a request", cloud["cost_per_request"].get<double>(), c["cost_per_request"].get<double>(), "dollars",
          goal(">= 10x"));
  figures.Add({"accuracy, cascade minus cloud", c["accuracy_minus_cloud"].get<double>(), "share", std::nullopt,
               goal(">= -0.01")});
  figures.Add(
      {"link to region down: lost", j["outage"]["cascade"]["lost"].get<double>(), "requests", std::nullopt, "<= 0"});
  figures.Add({"link to region down: degraded", j["outage"]["cascade"]["degraded"].get<double>(), "requests",
               std::nullopt, ""});
  figures.Add({"link to region down: slowest answer", j["outage"]["cascade"]["latency_ms"]["max"].get<double>(), "ms",
               std::nullopt, fmt::format("<= {:g}", j["deadline_ms"].get<double>())});
}

// The demo whose region and global tiers are convolutional.
Status RunConvolutional(Figures& figures) {
  const bool trained_before =
      training::LadderIsTrained("out/fashion-conv", training::LadderKind::kConvolutional, kConvolutionalSeed, 1);
  const auto begin = std::chrono::steady_clock::now();
  const std::string binary = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "ganglion").string();
  if (std::system((binary + " demo --conv --seed 7 --json out/demo-conv.json > out/bench-demo-conv.txt").c_str()) != 0)
    return Internal("ganglion demo --conv failed");
  // Of all six models, and the demo itself.
  if (!trained_before)
    figures.Add({"wall time: demo --conv with training", SecondsSince(begin), "s", std::nullopt, "<= 900"});
  ASSIGN_OR_RETURN(const auto engine, runtime::Engine::Create());
  ASSIGN_OR_RETURN(const auto test, data::LoadDataset(std::string(kFashion) + "/t10k"));
  double worst = 1;
  for (const char* name : {"global-a.onnx", "global-b.onnx", "global-c.onnx"}) {
    ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(std::filesystem::path("out/fashion-conv") / name));
    ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(name, std::move(bytes)));
    ASSIGN_OR_RETURN(const auto session, runtime::Session::Create(engine, model));
    ASSIGN_OR_RETURN(const double accuracy, training::Accuracy(*session, test));
    worst = std::min(worst, accuracy);
  }
  figures.Add({"test accuracy: the worst of three convolutional nets", worst, "share", std::nullopt, ">= 0.92"});
  ASSIGN_OR_RETURN(const std::string text, data::ReadFile("out/demo-conv.json"));
  wire::Json j;
  RETURN_IF_ERROR(wire::ParseJson(text, &j));
  figures.Add(
      {"test accuracy: their ensemble", j["cloud"]["accuracy"].get<double>(), "share", std::nullopt, ">= 0.93"});
  for (const auto& t : j["tiers"]) {
    if (t["tier"] == "global") continue;
    figures.Add({fmt::format("test accuracy: {}", t["tier"].get<std::string>()), t["accuracy_alone"].get<double>(),
                 "share", std::nullopt, ""});
  }
  figures.Add({"share decided below region, loss_at_most .01, delta .1", j["share_below_region"].get<double>(), "share",
               std::nullopt, ""});
  figures.Add({"loss measured on the test images", j["cascade"]["risk"].get<double>(), "share", std::nullopt, ""});
  AddCascade(figures, j, false);
  return {};
}

Status Run(Figures& figures) {
  const bool trained_before = training::LadderIsTrained(kDemoDir, training::LadderKind::kPerceptrons, kSeed, 1);
  auto begin = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(EnsureDemo());
  if (!trained_before)
    figures.Add({"wall time: demo with training the ladder", SecondsSince(begin), "s", std::nullopt, "<= 190"});
  begin = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(EnsureDemo());
  figures.Add({"wall time: demo", SecondsSince(begin), "s", std::nullopt, "<= 10"});

  ASSIGN_OR_RETURN(const auto engine, runtime::Engine::Create());
  ASSIGN_OR_RETURN(const auto train, data::LoadDataset(std::string(kFashion) + "/train", {.end = 50'000}));
  ASSIGN_OR_RETURN(const auto test, data::LoadDataset(std::string(kFashion) + "/t10k"));
  ASSIGN_OR_RETURN(const auto examples, training::LabelledExamples::Create(train, 10, false));
  ASSIGN_OR_RETURN(
      const auto regression,
      model::Model::FromBytes("regression.onnx",
                              training::MakePerceptron({784, 10}, 1, training::ScaleOf(train.x.As<float>()))));
  ASSIGN_OR_RETURN(const auto trained, training::Train(engine, regression, *examples, &test, {.epochs = 10}, {}, {}));
  figures.Add({"test accuracy: softmax regression", trained.history.back().accuracy, "share", std::nullopt, ">= 0.84"});

  ASSIGN_OR_RETURN(const std::string text, data::ReadFile("out/demo.json"));
  wire::Json j;
  RETURN_IF_ERROR(wire::ParseJson(text, &j));
  double best = 0;
  for (const auto& t : j["tiers"]) {
    if (t["tier"] != "global") best = std::max(best, t["accuracy_alone"].get<double>());
  }
  figures.Add({"test accuracy: best perceptron below the top", best, "share", std::nullopt, ">= 0.885"});
  figures.Add(
      {"test accuracy: global ensemble", j["cloud"]["accuracy"].get<double>(), "share", std::nullopt, ">= 0.895"});
  figures.Add({"share decided below region, loss_at_most .01, delta .1", j["share_below_region"].get<double>(), "share",
               std::nullopt, ">= 0.9"});
  figures.Add({"loss measured on the test images", j["cascade"]["risk"].get<double>(), "share", std::nullopt, ""});
  AddCascade(figures, j, true);
  return {};
}

}  // namespace
}  // namespace ganglion::bench

int main(int argc, char** argv) {
  const bool convolutional = argc > 1 && std::string_view(argv[1]) == "conv";
  ganglion::bench::Figures figures(convolutional ? "demo-conv" : "demo");
  std::filesystem::create_directories("out");
  const auto s = convolutional ? ganglion::bench::RunConvolutional(figures) : ganglion::bench::Run(figures);
  if (!s.ok()) {
    std::fprintf(stderr, "bench-demo: %s\n", s.message().c_str());
    return 1;
  }
  return figures.Finish();
}
