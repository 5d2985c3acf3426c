// For tests: small decisions on disk, made of real ONNX models. Classes are the quadrants of the plane; the device sees
// them noisily, the tiers above more and more sharply.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "node/node.h"

namespace ganglion::node::fixture {

using tensor::DataType;
using tensor::Tensor;

// logits = x W + b over x FP32[-1,2]; W is 2 x 4.
inline std::string LinearModel(const std::array<float, 8>& w, const std::string& input = "x", bool softmax = false,
                               const std::string& extra_output = "") {
  onnx::ModelProto model;
  graph::GraphBuilder g(&model);
  g.Input({input, DataType::kFp32, {-1, 2}});
  g.Initializer("w", Tensor::From<float>({2, 4}, w).value());
  g.Node("MatMul", {input, "w"}, {}, "logits");
  if (softmax) g.Node("Softmax", {"logits"}, {}, "p");
  g.Output({softmax ? "p" : "logits", DataType::kFp32, {-1, 4}});
  if (!extra_output.empty()) {  // a confidence of its own: sigmoid of the largest logit's absolute sum
    const std::string axes = g.Ints("axes", {1});
    const std::string sum =
        g.Node("ReduceSum", {g.Node("Mul", {"logits", "logits"}), axes}, {{"keepdims", std::int64_t{1}}});
    g.Node("Tanh", {sum}, {}, extra_output);
    g.Output({extra_output, DataType::kFp32, {-1, 1}});
  }
  return graph::Serialize(model);
}

// Scores of the four quadrants (++, +-, -+, --), `gain` times sharper, with the axes mixed by `blur`.
inline std::array<float, 8> Quadrants(float gain, float blur = 0) {
  return {gain, gain * (1 - blur), -gain * (1 - blur), -gain, gain, -gain * (1 + blur), gain * (1 + blur), -gain};
}

inline int QuadrantOf(float x, float y) { return x >= 0 ? (y >= 0 ? 0 : 1) : (y >= 0 ? 2 : 3); }

struct Points {
  Tensor x;
  std::vector<int> labels;
};
// Labels are right but for `noise` of the rows.
inline Points MakePoints(std::int64_t rows, std::uint64_t seed, double noise = .02) {
  Random random(seed);
  Points p{Tensor::Zeros(DataType::kFp32, {rows, 2}).value(), {}};
  auto x = p.x.As<float>();
  for (std::int64_t i = 0; i < rows; ++i) {
    auto* row = &x[static_cast<std::size_t>(i) * 2];
    row[0] = static_cast<float>(random.Normal());
    row[1] = static_cast<float>(random.Normal());
    int label = QuadrantOf(row[0], row[1]);
    if (random.Uniform() < noise) label = static_cast<int>(random.Below(4));
    p.labels.push_back(label);
  }
  return p;
}

class DecisionDir : public ScratchDir {
 protected:
  void Write(const std::string& file, const std::string& bytes) {
    ASSERT_TRUE(data::WriteFileAtomically(dir_ / file, bytes).ok());
  }

  // device (blurred), edge, and an ensemble at the top.
  void WriteThreeTiers(const std::string& stages = "") {
    Write("device.onnx", LinearModel(Quadrants(2, .8f)));
    Write("edge.onnx", LinearModel(Quadrants(3, .3f)));
    Write("a.onnx", LinearModel(Quadrants(4)));
    Write("b.onnx", LinearModel(Quadrants(5, .05f), "x", true));
    Write("labels.txt", "ne\nse\nnw\nsw\n");
    Write("decision.yaml", R"(decision: plane
input: {point: "FP32[-1,2]"}
labels: labels.txt
promise: {loss_at_most: 0.05, delta: 0.1}
deadline: 2s
stages:
)" + (stages.empty() ? R"(  - {tier: device, model: device.onnx}
  - {tier: edge, model: edge.onnx, confidence: margin}
  - {tier: global, ensemble: [a.onnx, b.onnx]}
)"
                     : stages));
  }

  Result<Calibrated> Calibrate(const Decision& decision, const Points& p, const calibration::Promise& promise,
                               std::uint64_t seed = 1) {
    const tensor::View view = p.x.View();
    CalibrateOptions options;
    options.promise = promise;
    options.seed = seed;
    return node::Calibrate(decision, {&view, 1}, p.labels, "digest", options);
  }

  void CalibrateInPlace(std::int64_t rows = 4000) {
    const auto decision = Decision::Open(engine_, dir_, {.with_lock = false});
    ASSERT_TRUE(decision.ok()) << decision.status().message();
    const auto calibrated = Calibrate(**decision, MakePoints(rows, 1), (*decision)->config().promise);
    ASSERT_TRUE(calibrated.ok()) << calibrated.status().message();
    Write("decision.lock", WriteLock(calibrated->lock));
  }

  std::shared_ptr<runtime::Engine> engine_ = runtime::Engine::Create().value();
};

}  // namespace ganglion::node::fixture
