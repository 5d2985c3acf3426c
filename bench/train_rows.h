// The rows of make bench-train, a function for each family of networks, each in a file of its own. bench_train.cc calls
// them in turn; a new family adds its declaration here and its call there.
#pragma once

#include <memory>

#include "figures.h"
#include "runtime/runtime.h"
#include "torch_peer.h"

namespace ganglion::bench {

struct TrainBench {
  Figures figures{"train"};
  std::unique_ptr<TorchPeer> torch;  // null where there is no PyTorch
  std::shared_ptr<runtime::Engine> engine;
};

// The 784-200-200-10 perceptron. False when a step failed.
bool PerceptronRows(TrainBench& bench);
// FedAvg's convolutional net, and others for the record; a file of their own, out/bench/train-conv.json. False when a
// step failed or a goal does not hold.
bool ConvolutionRows(TrainBench& bench);

}  // namespace ganglion::bench
