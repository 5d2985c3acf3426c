// The ladder's accuracy, and the cascade against everything in the cloud (make bench-demo).
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

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Status Run(Figures& figures) {
  const bool trained_before = training::LadderIsTrained(kDemoDir, training::LadderKind::kPerceptrons, 7, 1);
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
  const auto& c = j["cascade"];
  const auto& cloud = j["cloud"];
  const auto against = [&](const char* id, double cloud_value, double value, const char* unit, const char* goal) {
    figures.Add({fmt::format("cloud over cascade: {}", id), cloud_value, unit, value, goal});
  };
  against("mean latency", cloud["latency_ms"]["mean"].get<double>(), c["latency_ms"]["mean"].get<double>(), "ms",
          ">= 10x");
  against("bytes on the device's uplink", cloud["uplink_bytes"].get<double>(), c["uplink_bytes"].get<double>(), "bytes",
          ">= 10x");
  against("bytes over all hops (the cloud counted as one)", cloud["hop_bytes"].get<double>(),
          c["hop_bytes"].get<double>(), "bytes", ">= 6x");
  against("cost a request", cloud["cost_per_request"].get<double>(), c["cost_per_request"].get<double>(), "dollars",
          ">= 10x");
  figures.Add(
      {"accuracy, cascade minus cloud", c["accuracy_minus_cloud"].get<double>(), "share", std::nullopt, ">= -0.01"});
  figures.Add(
      {"link to region down: lost", j["outage"]["cascade"]["lost"].get<double>(), "requests", std::nullopt, "<= 0"});
  figures.Add({"link to region down: degraded", j["outage"]["cascade"]["degraded"].get<double>(), "requests",
               std::nullopt, ""});
  figures.Add({"link to region down: slowest answer", j["outage"]["cascade"]["latency_ms"]["max"].get<double>(), "ms",
               std::nullopt, fmt::format("<= {:g}", j["deadline_ms"].get<double>())});
  return {};
}

}  // namespace
}  // namespace ganglion::bench

int main() {
  ganglion::bench::Figures figures("demo");
  std::filesystem::create_directories("out");
  if (const auto s = ganglion::bench::Run(figures); !s.ok()) {
    std::fprintf(stderr, "bench-demo: %s\n", s.message().c_str());
    return 1;
  }
  return figures.Finish();
}
