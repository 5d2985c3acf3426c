// The real population that benchmarks draw from: the demo's ladder on the 10,000 held-out and the 10,000 test images of
// Fashion-MNIST, which no training has seen. Trained by `ganglion demo` when out/fashion is not there yet.
#pragma once

#include <vector>

#include "node/decision.h"

namespace ganglion::bench {

inline constexpr char kFashion[] = "/usr/share/datasets/fashion-mnist";
inline constexpr char kDemoDir[] = "out/fashion";

// Runs the demo if it has not been run, so that out/fashion holds the ladder and its lock.
Status EnsureDemo();

struct Population {
  std::vector<node::Stage::Scores> stages;
  std::vector<int> labels;
  std::size_t classes = 0;
};
// Scores of held-out rows, then test rows.
Result<Population> LoadPopulation(const node::Decision& decision);

}  // namespace ganglion::bench
