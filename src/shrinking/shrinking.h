// shrinking: makes a model smaller by every way of module shrink, measures each on this device, and chooses.
//
//   measure.h        accuracy, latency and calibrated ranges of a model on rows
//   slim_training.h  one set of parameters trained at several widths
//   shrinking.h      this: the candidates, and the choice under a budget
//
// Intuition: what eight bits or half of the channels cost in accuracy, and whether they are any faster here, depends on
// the model, the data and the processor. So nothing is assumed: all are made, all are measured side by side, and the
// table says which are worth keeping. Eight bits that are slower on this device are said to be so, and the float model
// stays.
//
// Candidates, in this order, N being the best float model of the given architecture (as given or distilled):
//   as given                the model itself
//   distilled               trained on the teachers' answers (with teachers only)
//   int8 RULE               N, static, one for each rule of ranges (shrink/ranges.h)
//   int8 dynamic            N
//   pruned S                N, the S of its weights that matter least zero, trained on
//   cut C [+ int8]          N with the C most important share of its channels, trained on
//   slim W [+ int8]         width W of N trained at all widths together
// Training uses the mean of the teachers' answers and the label, half and half, if there are teachers (their answers
// alone where the rows have no labels), else the labels. A way that cannot be gone (no gradient rule, nothing to cut)
// is a row of the table that says why, and the others go on.
//
// Resume: every finished candidate is a file in `dir`, and training has its checkpoints there. With `resume` they are
// used when they are of the same model, data and options. The same seed gives the same models on the same machine;
// latencies vary. What is chosen was chosen on the validation rows: its accuracy there is a little too good.
// Needs: one FP32 input [-1, ...] of the data's size a row, a first output [-1, classes], labels.
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
#include "shrink/pareto.h"
#include "shrink/ranges.h"

namespace ganglion::shrinking {

struct ShrinkOptions {
  shrink::Budget budget;
  std::vector<shrink::RangeRule> rules{shrink::RangeRule::kMinMax, shrink::RangeRule::kPercentile};
  double percentile = .9999;  // of RangeRule::kPercentile
  bool dynamic = true;
  std::vector<double> sparsities{.5};      // of pruning; empty: none
  std::vector<double> cuts{.5, .25};       // shares of channels that stay; empty: none
  std::vector<double> widths{.25, .5, 1};  // of the slim net, rising; empty: none
  std::int64_t multiple = 4;               // channels are kept in multiples of this
  bool seven_bit_weights = false;          // for processors without 8-bit dot products
  std::int64_t calibration_rows = 512;     // the first of the training rows
  double rate = 1e-3;                      // of Adam, peak; fine-tuning takes it too
  std::int64_t batch = 128;
  std::int64_t epochs = 10;  // of distilling and of the slim net; pruned and cut nets take half
  bool mirror = false;       // rows are images, mirrored at random while training
  int threads = 1;           // that label rows by the teachers
  std::uint64_t seed = 1;
  std::filesystem::path dir;  // for finished candidates and checkpoints
  bool resume = false;
};

struct ShrinkProgress {
  double done = 0;    // share of the work
  std::string doing;  // "cut 50%: epoch 3/10"
};

struct ShrinkRow {
  shrink::Candidate measured;
  shrink::Verdict verdict;
  std::string about;  // "2 of 3 layers in eight bits", "202,000 of 101,000 weights are zero"
  std::string model;  // serialised; empty where it failed
};

struct Shrunk {
  std::vector<ShrinkRow> rows;
  int reference = 0;
  int chosen = -1;
  std::string slim_file;  // all widths in one progressive file; empty without a slim net
};

Result<Shrunk> Shrink(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                      const data::Dataset& train, const data::Dataset& valid, const std::vector<model::Model>& teachers,
                      const ShrinkOptions& options, std::stop_token stop,
                      const std::function<void(const ShrinkProgress&)>& on_progress);

}  // namespace ganglion::shrinking
