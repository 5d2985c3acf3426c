// The learning curve of a run: as JSON for programs, and as a page for people.
//
// The page is one file of HTML with everything in it (SVG, styles, a few lines of script that show numbers under the
// pointer); it loads nothing and opens from a disk without a network. Charts: training and validation loss, accuracy
// where there is one, the norm of the gradient, the learning rate. A scale is logarithmic where the values span more
// than a factor of 30 (never that of the rate).
// JSON: {"model", "loss", "steps", "best_step", "points": [{"step", "epoch", "loss", "valid_loss", "accuracy"}],
// "trace": [{"step", "loss", "gradient_norm", "rate"}]}; what was not measured is null.
// Pure; thread-safe.
#pragma once

#include <string>

#include "training/trainer.h"

namespace ganglion::training {

std::string CurveJson(const Trained& trained, const std::string& loss);
std::string CurvePage(const Trained& trained, const std::string& loss);

}  // namespace ganglion::training
