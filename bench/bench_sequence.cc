// Training steps of sequence nets against PyTorch, paired, and of steps whose examples are clipped against plain ones
// (make bench-train): out/bench/train-sequence.json. One thread each; medians over all turns.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "base/random.h"
#include "figures.h"
#include "runtime/runtime.h"
#include "sequence_nets.h"
#include "torch_peer.h"
#include "training/convnet.h"
#include "training/perceptron.h"
#include "training/step.h"

namespace ganglion::bench {
namespace {

// A step and its update, on random rows.
class Training {
 public:
  Training(const std::shared_ptr<runtime::Engine>& engine, const std::string& model, training::StepOptions options,
           optimizer::Kind kind)
      : step_(training::Step::Create(engine, model::Model::FromBytes("net.onnx", model).value(), options).value()),
        optimiser_(optimizer::Optimizer::Create({.kind = kind, .rate = .001}, step_->parameters().size()).value()) {
    Random random(1);
    const auto input = step_->input(0);
    if (input.type == tensor::DataType::kInt64) {
      for (long& v : input.As<long>()) v = static_cast<long>(random.Below(1000));
    } else {
      for (float& v : input.As<float>()) v = static_cast<float>(random.Uniform());
    }
    for (long& y : step_->target().As<long>()) y = static_cast<long>(random.Below(10));
  }

  bool operator()() {
    if (!step_->Run().ok()) return false;
    optimiser_.Step(step_->parameters(), step_->gradients());
    return true;
  }

 private:
  std::unique_ptr<training::Step> step_;
  optimizer::Optimizer optimiser_;
};

struct Bench {
  Figures figures{"train-sequence"};
  std::unique_ptr<TorchPeer> torch;
  std::shared_ptr<runtime::Engine> engine;
};

bool AgainstTorch(Bench& bench) {
  struct Case {
    std::string net, model, title;
    std::int64_t batch;
    std::string goal;
  };
  const SequenceSpec spec;
  const std::string gru = MakeGruClassifier(spec, 1);
  const std::string transformer = MakeTransformerClassifier(spec, 1);
  for (const Case& c :
       {Case{"gru", gru, "GRU e64 h64 T=20", 10, ">= 2.5x"}, Case{"gru", gru, "GRU e64 h64 T=20", 32, ""},
        Case{"transformer", transformer, "transformer 2 layers d64 T=20", 10, ">= 1.4x"},
        Case{"transformer", transformer, "transformer 2 layers d64 T=20", 32, ""}}) {
    Training step(bench.engine, c.model, {.batch = c.batch}, optimizer::Kind::kSgd);
    const auto times =
        TakeTurns(std::ref(step), bench.torch.get(), fmt::format("{} {} 50 sgd", c.net, c.batch), 15, 50);
    if (!times) return false;
    AddPaired(bench.figures, fmt::format("{}, SGD, batch {}", c.title, c.batch), *times, c.goal);
  }
  return true;
}

// Medians of single steps that take turns: plain, clipped.
std::optional<std::pair<double, double>> InTurns(Training& plain, Training& clipped, int steps) {
  std::vector<double> times[2];
  for (int i = 0; i < steps; ++i) {
    for (const int which : {0, 1}) {
      const auto begin = std::chrono::steady_clock::now();
      if (!(which == 0 ? plain : clipped)()) return std::nullopt;
      const double t = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
      if (i >= steps / 10) times[which].push_back(t);
    }
  }
  return std::pair{Median(times[0]), Median(times[1])};
}

bool Clipped(Bench& bench) {
  struct Case {
    std::string model, title;
    std::int64_t batch;
    int steps;
    std::string goal;
  };
  const SequenceSpec spec;
  const std::string perceptron = training::MakePerceptron({784, 200, 200, 10}, 1);
  const auto conv = training::MakeConvNet({.blocks = {{32}, {64}}, .kernel = 5, .dense = {512}}, 1);
  if (!conv.ok()) return false;
  const std::string transformer = MakeTransformerClassifier(spec, 1);
  const std::string gru = MakeGruClassifier(spec, 1);
  for (const Case& c :
       {Case{perceptron, "784-200-200-10", 10, 3000, "<= 1.2x"},
        Case{perceptron, "784-200-200-10", 32, 2000, "<= 1.2x"},
        Case{*conv, "FedAvg's convolutional net", 10, 150, "<= 1.1x"},
        Case{*conv, "FedAvg's convolutional net", 32, 60, ""},
        Case{transformer, "transformer 2 layers d64 T=20", 10, 600, ""}, Case{gru, "GRU e64 h64 T=20", 10, 600, ""}}) {
    training::StepOptions options{.batch = c.batch};
    Training plain(bench.engine, c.model, options, optimizer::Kind::kSgd);
    options.gradient.clip_norm = 1.f;
    Training clipped(bench.engine, c.model, options, optimizer::Kind::kSgd);
    const auto times = InTurns(plain, clipped, c.steps);
    if (!times) return false;
    bench.figures.Add({fmt::format("{}, batch {}: clipped step over the plain one", c.title, c.batch), times->second,
                       "ms", times->first, c.goal});
  }
  return true;
}

int Run() {
  Bench bench;
  bench.torch = TorchPeer::Start(GANGLION_SOURCE_DIR "/bench/peers/torch_step.py");
  bench.engine = runtime::Engine::Create().value();
  if (!AgainstTorch(bench) || !Clipped(bench)) return 1;
  return bench.figures.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main() { return ganglion::bench::Run(); }
