// A planted race in the request path: two threads decide, and count their answers in one plain integer. Built only
// under ThreadSanitizer, whose report the test expects; if the settings of `make tsan` ever hid such a race, this would
// fail.
#include <array>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <vector>

#include "data/file.h"
#include "node/node.h"
#include "training/perceptron.h"

int main() {
  using namespace ganglion;
  namespace fs = std::filesystem;
  const fs::path dir = fs::temp_directory_path() / ("ganglion-race-" + std::to_string(::getpid()));
  fs::create_directories(dir);
  (void)data::WriteFileAtomically(dir / "m.onnx", training::MakePerceptron({4, 3}, 1));
  (void)data::WriteFileAtomically(
      dir / "decision.yaml",
      "decision: r\ninput: {x: \"FP32[-1,4]\"}\npromise: {disagreement_at_most: 0.5, delta: 0.5}\nstages:\n"
      "  - {tier: device, model: m.onnx}\n  - {tier: global, model: m.onnx}\n");
  const auto engine = runtime::Engine::Create().value();
  {
    const auto decision = node::Decision::Open(engine, dir, {.with_lock = false}).value();
    const auto x = tensor::Tensor::Zeros(tensor::DataType::kFp32, {32, 4}).value();
    const tensor::View view = x.View();
    node::CalibrateOptions options;
    options.promise = decision->config().promise;
    const auto calibrated = node::Calibrate(*decision, {&view, 1}, {}, "", options).value();
    (void)data::WriteFileAtomically(dir / "decision.lock", node::WriteLock(calibrated.lock));
  }
  const auto decision = node::Decision::Open(engine, dir).value();
  long answers = 0;  // the race
  std::vector<std::jthread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      const std::array<float, 4> row{1, 2, 3, 4};
      const tensor::Shape shape{1, 4};
      const tensor::View view{tensor::DataType::kFp32, shape, std::as_bytes(std::span(row))};
      const SteadyClock clock;
      for (int i = 0; i < 500; ++i)
        answers += decision->Decide({&view, 1}, clock, clock.Now() + std::chrono::seconds(5)).ok();
    });
  }
  threads.clear();
  std::printf("%ld answers\n", answers);
  fs::remove_all(dir);
  return 0;
}
