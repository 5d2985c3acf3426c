// What a model does on this device: how often it is right, how long it takes, which numbers its tensors take.
//
// Accuracy is the share of rows whose largest output is their label. Rows go in together unless `together` says
// otherwise: dynamically quantised models answer a row differently when it has company, and are scored one by one, as a
// node does. Latency is of one row on one thread, after a warm-up, with the models taking turns run by run: a machine
// that is busy for a while is busy for all of them, so that their ratios mean something even where their times do not.
// Rows are reshaped to what the model takes. Functions; thread-safe but for MeasureLatencies, which wants the machine
// quiet.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "model/model.h"
#include "runtime/runtime.h"
#include "shrink/prune.h"
#include "shrink/quantise.h"
#include "shrink/ranges.h"
#include "stats/summary.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrinking {

// Refuses models that do not take one FP32 input with a free first dimension and `features` numbers a row, or whose
// first output is not FP32 [-1, classes].
Status CheckShape(const model::Model& model, std::int64_t features);

Result<double> MeasureAccuracy(const runtime::Session& session, const data::Dataset& rows, bool together,
                               const std::stop_token& stop);

// Milliseconds of each session, in their order. `rounds` runs of each at most, and about `seconds` in all.
Result<std::vector<stats::Summary>> MeasureLatencies(const std::vector<const runtime::Session*>& sessions,
                                                     const data::Dataset& rows, int rounds, double seconds,
                                                     const std::stop_token& stop);

// The observers of the tensors that a static quantisation of `model` needs, after the first `count` rows.
Result<std::map<std::string, shrink::RangeObserver>> Observe(const std::shared_ptr<runtime::Engine>& engine,
                                                             const onnx::ModelProto& model,
                                                             const shrink::QuantiseOptions& options,
                                                             const data::Dataset& rows, std::int64_t count,
                                                             const std::stop_token& stop);
Result<std::map<std::string, shrink::Range>> FindRanges(const std::map<std::string, shrink::RangeObserver>& observers,
                                                        shrink::RangeRule rule, double percentile);

// Replaces the statistics of every BatchNormalization by what the first `count` rows give: norms in graph order, each
// with those before it already replaced. A model without norms stays as it is.
Status MeasureNorms(const std::shared_ptr<runtime::Engine>& engine, const data::Dataset& rows, std::int64_t count,
                    const std::stop_token& stop, onnx::ModelProto* model);

// Mean and deviation of what enters each layer, on the first `count` rows.
Result<std::vector<shrink::LayerInputs>> MeasureInputs(const std::shared_ptr<runtime::Engine>& engine,
                                                       const onnx::ModelProto& model, const data::Dataset& rows,
                                                       std::int64_t count, const std::stop_token& stop);

// The largest difference between two models' first outputs on the first `count` rows, over the largest output.
Result<double> Difference(const std::shared_ptr<runtime::Engine>& engine, const onnx::ModelProto& a,
                          const onnx::ModelProto& b, const data::Dataset& rows, std::int64_t count);

}  // namespace ganglion::shrinking
