// A training step (gradients and update) against PyTorch, paired (make bench-train). One thread each; medians over all
// turns. Where PyTorch is not there, the figures are recorded without a ratio and the goals are not judged.
#include <fmt/format.h>

#include "base/random.h"
#include "train_rows.h"
#include "training/training.h"

namespace ganglion::bench {

bool PerceptronRows(TrainBench& bench) {
  const auto model =
      model::Model::FromBytes("perceptron.onnx", training::MakePerceptron({784, 200, 200, 10}, 1)).value();
  struct Case {
    int batch;
    optimizer::Kind kind;
    const char* goal;
  };
  for (const Case& c : {Case{10, optimizer::Kind::kSgd, ">= 2.2x"}, Case{32, optimizer::Kind::kSgd, ">= 1.3x"},
                        Case{10, optimizer::Kind::kAdam, ">= 3.5x"}, Case{32, optimizer::Kind::kAdam, ""}}) {
    const auto step =
        training::Step::Create(bench.engine, model, gradient::Loss::kSoftmaxCrossEntropy, c.batch).value();
    auto optimiser =
        optimizer::Optimizer::Create({.kind = c.kind, .rate = c.kind == optimizer::Kind::kSgd ? .01 : .001},
                                     step->parameters().size())
            .value();
    Random random(1);
    for (float& v : step->x()) v = static_cast<float>(random.Uniform());
    for (long& y : step->target().As<long>()) y = static_cast<long>(random.Below(10));
    const std::string kind(optimizer::Name(c.kind));
    const auto times = TakeTurns(
        [&] {
          if (!step->Run().ok()) return false;
          optimiser.Step(step->parameters(), step->gradients());
          return true;
        },
        bench.torch.get(), fmt::format("perceptron {} 100 {}", c.batch, kind));
    if (!times) return false;
    AddPaired(bench.figures, fmt::format("784-200-200-10 {}, batch {}", kind, c.batch), *times, c.goal);
  }
  return true;
}

namespace {

int Run() {
  TrainBench bench;
  bench.torch = TorchPeer::Start(GANGLION_SOURCE_DIR "/bench/peers/torch_step.py");
  bench.engine = runtime::Engine::Create().value();
  if (!PerceptronRows(bench)) return 1;
  const bool convolution = ConvolutionRows(bench);
  return bench.figures.Finish() == 0 && convolution ? 0 : 1;
}

}  // namespace
}  // namespace ganglion::bench

int main() { return ganglion::bench::Run(); }
