// Training steps of convolutional nets against PyTorch, paired (make bench-train). One thread each.
#include <fmt/format.h>

#include "base/random.h"
#include "train_rows.h"
#include "training/convnet.h"
#include "training/training.h"

namespace ganglion::bench {

bool ConvolutionRows(TrainBench& bench) {
  struct Case {
    const char* name;
    const char* peer;  // the net in bench/peers/torch_step.py
    training::ConvNetSpec net;
    std::int64_t batch;
    int steps;  // in a turn
    const char* goal;
  };
  const training::ConvNetSpec fedavg{.blocks = {{32}, {64}}, .kernel = 5, .dense = {512}};
  const training::ConvNetSpec normalised{.blocks = {{32, 32}, {64, 64}}, .dense = {128}, .normalise = true};
  Figures figures("train-conv");
  for (const Case& c : {Case{"FedAvg's convolutional net", "conv_net", fedavg, 1, 50, ">= 1.1x"},
                        Case{"FedAvg's convolutional net", "conv_net", fedavg, 10, 15, ">= 0.85x"},
                        Case{"FedAvg's convolutional net", "conv_net", fedavg, 32, 8, ">= 0.72x"},
                        Case{"4 convolutions with BatchNormalization", "conv_net_normalised", normalised, 32, 5, ""}}) {
    const auto bytes = training::MakeConvNet(c.net, 1).value();
    const auto model = model::Model::FromBytes("conv.onnx", bytes).value();
    const auto step =
        training::Step::Create(bench.engine, model, gradient::Loss::kSoftmaxCrossEntropy, c.batch).value();
    auto optimiser =
        optimizer::Optimizer::Create({.kind = optimizer::Kind::kSgd, .rate = .01}, step->parameters().size()).value();
    Random random(1);
    for (float& v : step->x()) v = static_cast<float>(random.Uniform());
    for (long& y : step->target().As<long>()) y = static_cast<long>(random.Below(10));
    const auto times = TakeTurns(
        [&] {
          if (!step->Run().ok()) return false;
          optimiser.Step(step->parameters(), step->gradients());
          return true;
        },
        bench.torch.get(), fmt::format("{} {} {} sgd", c.peer, c.batch, c.steps), 15, c.steps);
    if (!times) return false;
    AddPaired(figures, fmt::format("{}, sgd, batch {}", c.name, c.batch), *times, c.goal);
  }
  return figures.Finish() == 0;
}

}  // namespace ganglion::bench
