// decision.yaml: what is decided, from what, by whom, and under which promise. One file, the same on every tier.
//
//   decision: fashion
//   input: {image: "FP32[-1,784]"}
//   labels: labels.txt                       # optional: a name a line; classes are numbers otherwise
//   promise: {loss_at_most: 0.01, delta: 0.1}
//   deadline: 1s                             # default 1s
//   when_late: answer                        # best so far, degraded; or: fail
//   privacy: public                          # who may see the input: public any tier, sensitive up to region,
//                                            # regulated up to edge
//   audit: 0.5%                              # of what is accepted below the top, checked by the top
//   stages:                                  # cheapest first, one after the other up the tiers
//     - {tier: device, rules: rules.yaml}
//     - {tier: device, online: clicks.gol}              # a model of `ganglion learn`; learns from outcomes beside it
//     - {tier: device, model: small.onnx, confidence: margin}
//     - {tier: edge, model: medium.onnx, pre: resize.onnx}
//     - {tier: global, ensemble: [a.onnx, b.onnx]}     # or: server: "grpc://triton:8001/big"
//
// confidence: auto (default: the measure that ranks wrong answers lowest on the tuning half), max_probability, margin,
// entropy, or {output: NAME}, an output of the model (or of post) that says it, in [0, 1].
// All mistakes are reported at once, a line each, with file and line.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "calibration/calibration.h"
#include "cascade/cascade.h"
#include "tensor/tensor.h"
#include "topology/topology.h"

namespace ganglion::node {

// How far up an input may travel. The requirement's table: public data any cloud, sensitive data the private one,
// regulated data the own premises.
enum class Privacy { kPublic, kSensitive, kRegulated };
std::string_view Name(Privacy privacy);  // "public", "sensitive", "regulated"
topology::Tier HighestTier(Privacy privacy);

struct StageConfig {
  topology::Tier tier = topology::Tier::kDevice;
  std::vector<std::string> models;  // one, or the members of an ensemble; none: rules
  std::string pre;                  // empty: none
  std::string post;
  std::optional<calibration::Measure> measure;  // nothing: auto
  std::string confidence_output;                // empty: from the logits
  std::string rules;                            // a rules file (rules_file.h) instead of models
  std::string online;                           // or a model of `ganglion learn` (online_stage.h)
  std::string server;                           // or another server's model: grpc://HOST:PORT/MODEL (remote_stage.h)
};

struct DecisionConfig {
  std::string name;
  std::filesystem::path dir;
  std::vector<tensor::Spec> inputs;
  std::vector<std::string> labels;
  calibration::Promise promise;
  Duration deadline = std::chrono::seconds(1);
  cascade::WhenLate when_late = cascade::WhenLate::kAnswer;
  Privacy privacy = Privacy::kPublic;
  double audit = 0;  // share, [0, 1]
  std::vector<StageConfig> stages;

  // labels[label], or the number.
  std::string LabelText(int label) const;
};

// Reads DIR/decision.yaml and its labels file. Model files are not opened.
Result<DecisionConfig> LoadDecisionFile(const std::filesystem::path& dir);
// The same from text; `dir` is where its files would be.
Result<DecisionConfig> ParseDecisionFile(const std::string& text, const std::filesystem::path& dir,
                                         const std::string& shown_as);

// A decision.yaml for the given stages: what `ganglion init` writes.
std::string WriteDecisionFile(const DecisionConfig& config);

}  // namespace ganglion::node
