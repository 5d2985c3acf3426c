// What calibrate, evaluate and demo share: from a data set to a lock, and a lock in one line.
#pragma once

#include <filesystem>
#include <string>

#include "data/dataset.h"
#include "node/calibrate.h"

namespace ganglion::app {

// Calibrates and writes dir/decision.lock.
Result<node::Calibrated> CalibrateTo(const node::Decision& decision, const data::Dataset& dataset,
                                     const std::filesystem::path& dir, const node::CalibrateOptions& options);

// A data set's rows in the shape of an input. `shape` must outlive the view.
Result<tensor::View> AsInput(const data::Dataset& dataset, const tensor::Spec& spec, tensor::Shape* shape);

// Where decision.yaml asks for another promise than decision.lock certifies (it was edited, or calibrate was given
// one): a sentence that says so, else empty.
std::string PromiseRemark(const node::Decision& decision);

// "device 94.1% | edge 1.4% | region 1.9% | global 2.6%; loss 0.0066, certified <= 0.01 at 90%"
std::string Summary(const node::Lock& lock);

}  // namespace ganglion::app
