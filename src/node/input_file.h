// One input or a batch from a file, in the shape a decision wants.
//
//   .npy           rows, or one row without the batch dimension
//   .npz           an array for each input by name (for a decision with one input also "x")
//   .csv           a row a line; a column named label, y or class is left out
//   .json          numbers in nested lists, or an Open Inference request: {"inputs": [{"name", "shape", "datatype",
//   "data"}]} .png .jpg      one image, grey or RGB as the input's size says
// Numbers are converted to the input's datatype; UINT8 features (images too) are scaled to 0..1 where FP32 is wanted.
// Errors say what the file holds and what the decision wants.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "node/decision_file.h"
#include "tensor/tensor.h"

namespace ganglion::node {

// In the order of config.inputs; all with the same number of rows.
Result<std::vector<tensor::Tensor>> LoadInputs(const DecisionConfig& config, const std::string& path);

// The same from the bytes of a JSON document.
Result<std::vector<tensor::Tensor>> ParseJsonInputs(const DecisionConfig& config, const std::string& text);

}  // namespace ganglion::node
