// What evaluate and demo share: a data set through a decision, and the report as text.
#pragma once

#include <string>

#include "data/dataset.h"
#include "evaluation/evaluation.h"
#include "node/decision.h"

namespace ganglion::app {

Result<evaluation::Report> EvaluateOn(const node::Decision& decision, const data::Dataset& dataset,
                                      const evaluation::Options& options);
std::string ToText(const evaluation::Report& report, bool colour);

}  // namespace ganglion::app
