// The ladder of the demo: models of rising size for the four tiers, trained from one labelled image set.
//
//   global  an ensemble of three models, each trained on the labels (rows mirrored at random)
//   region, edge, device  smaller models distilled from the ensemble, so that they agree with it where they can
//
// There are two: perceptrons throughout, trained in a minute; and one whose global and region tiers are convolutional
// nets, trained in a quarter of an hour. Figures of the recipes, and what was tried and left, are in
// docs/adr/0005-the-demo-ladder.md. A recipe is fixed; a seed gives bit-identical models on one machine, on any number
// of threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "model/model.h"
#include "runtime/runtime.h"

namespace ganglion::training {

enum class LadderKind { kPerceptrons, kConvolutional };

struct LadderOptions {
  LadderKind kind = LadderKind::kPerceptrons;
  std::uint64_t seed = 1;
  int threads = 2;
  std::filesystem::path dir;  // models go here, checkpoints into dir/checkpoints
  bool resume = false;        // finished models are kept and started ones continued
  double scale = 1;           // multiplies the epochs: below 1 for a quick look and for tests
};

struct LadderProgress {
  double done = 0;    // share of all work
  std::string doing;  // "global-b.onnx"
  double loss = 0;
  double accuracy = -1;  // validation, -1 while unknown
};

struct Rung {
  std::string file;      // "device.onnx"
  double accuracy = -1;  // on the validation rows
};

// Writes global-a.onnx, global-b.onnx, global-c.onnx, region.onnx, edge.onnx and device.onnx into options.dir.
// `valid` is for the display alone: nothing is chosen by it.
Result<std::vector<Rung>> TrainLadder(const std::shared_ptr<runtime::Engine>& engine, const data::Dataset& train,
                                      const data::Dataset& valid, const LadderOptions& options, std::stop_token stop,
                                      const std::function<void(const LadderProgress&)>& on_progress);

// What the recipe is, in one line. TrainLadder writes it to dir/recipe.txt; what another recipe, seed or scale left in
// the directory is removed first, with `resume` too.
std::string LadderRecipe(LadderKind kind, std::uint64_t seed, double scale);
// Whether dir holds the whole ladder of this recipe.
bool LadderIsTrained(const std::filesystem::path& dir, LadderKind kind, std::uint64_t seed, double scale);

}  // namespace ganglion::training
