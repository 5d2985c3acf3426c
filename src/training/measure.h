// How good a model is on rows: the loss it was trained on, and, where the target is a class, the share that is right.
//
// The loss is computed on what the model gives when it is used (running statistics, no dropout), in double precision,
// by the same definitions as in gradient.h. A row's loss is the mean over its positions; all rows count the same.
//   accuracy of classes and distributions   the largest output is the label (the largest target), a share of positions
//   accuracy of sigmoid_cross_entropy       the output is on the target's side of one half, a share of numbers
//   squared_error, huber                    none
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "data/dataset.h"
#include "gradient/gradient.h"
#include "model/model.h"
#include "runtime/runtime.h"
#include "training/source.h"

namespace ganglion::training {

struct Measured {
  double loss = -1;      // -1: not measured
  double accuracy = -1;  // -1: the loss has none
};

// Of `model` on all examples of `source` (make one that does not shuffle: the order costs time and changes nothing).
Result<Measured> Measure(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model, Source& source,
                         const gradient::Options& loss, std::int64_t batch = 256);

// The share of rows whose largest output is their label.
Result<double> Accuracy(const runtime::Session& session, const data::Dataset& dataset);

}  // namespace ganglion::training
