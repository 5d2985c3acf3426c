#include "small_decision.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "base/random.h"
#include "crypto/crypto.h"
#include "data/file.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "node/node.h"

namespace ganglion::bench {
namespace {

using tensor::DataType;
using tensor::Tensor;

constexpr std::int64_t kWidth = 192;

}  // namespace

std::string StageModel(int level, int work) {
  onnx::ModelProto model;
  graph::GraphBuilder g(&model);
  g.Input({"point", DataType::kFp32, {-1, 3}});
  g.Initializer("quadrants", Tensor::From<float>({3, 4}, std::array<float, 12>{2, 2, -2, -2,  //
                                                                               2, -2, 2, -2,  //
                                                                               0, 0, 0, 0})
                                 .value());
  g.Initializer("third", Tensor::From<float>({3, 1}, std::array<float, 3>{0, 0, 1}).value());
  const std::string room =
      g.Node("Sub", {g.Scalar("level", static_cast<float>(level) + .5f), g.Node("MatMul", {"point", "third"})});
  g.Node("Sigmoid", {g.Node("Mul", {room, g.Scalar("four", 4)})}, {}, "sure");
  const std::string gate = g.Node("Tanh", {g.Node("Mul", {room, g.Scalar("eight", 8)})});
  std::string logits = g.Node("Mul", {g.Node("MatMul", {"point", "quadrants"}), gate});
  if (work > 0) {
    Random random(7);
    const auto noise = [&random](tensor::Shape shape) {
      auto t = Tensor::Zeros(DataType::kFp32, std::move(shape)).value();
      for (float& v : t.As<float>()) v = static_cast<float>(random.Normal() / std::sqrt(kWidth));
      return t;
    };
    g.Initializer("spread", noise({3, kWidth}));
    g.Initializer("matrix", noise({kWidth, kWidth}));
    const std::string column =
        g.Node("Reshape", {g.Node("MatMul", {"point", "spread"}), g.Ints("column", {-1, kWidth, 1})});
    std::string h = g.Node("Mul", {column, "matrix"});  // [-1, width, width]
    for (int i = 0; i < work; ++i) h = g.Node("MatMul", {h, "matrix"});
    h = g.Node("ReduceMean", {h}, {{"axes", std::vector<std::int64_t>{2}}, {"keepdims", std::int64_t{0}}});
    g.Initializer("nothing", Tensor::From<float>({kWidth, 4}, std::vector<float>(kWidth * 4, 1e-20f)).value());
    logits = g.Node("Add", {logits, g.Node("MatMul", {h, "nothing"})});
  }
  g.Node("Identity", {logits}, {}, "logits");
  g.Output({"logits", DataType::kFp32, {-1, 4}});
  g.Output({"sure", DataType::kFp32, {-1, 1}});
  return graph::Serialize(model);
}

Status WriteSmallDecision(const std::shared_ptr<runtime::Engine>& engine, const std::filesystem::path& dir,
                          const std::string& name, const std::vector<SmallStage>& stages, const std::string& settings) {
  RETURN_IF_ERROR(data::MakeDirectories(dir));
  std::string yaml = fmt::format(
      "decision: {}\ninput: {{point: \"FP32[-1,3]\"}}\nlabels: labels.txt\npromise: {{error_at_most: 0.02, delta: "
      "0.1}}\n"
      "{}stages:\n",
      name, settings);
  int hardest = 0;
  const auto file = [](std::size_t i) { return fmt::format("stage{}.onnx", i); };
  for (std::size_t i = 0; i < stages.size(); ++i) {
    yaml += fmt::format("  - {{tier: {}, model: {}, confidence: {{output: sure}}}}\n", topology::Name(stages[i].tier),
                        file(i));
    RETURN_IF_ERROR(data::WriteFileAtomically(dir / file(i), StageModel(stages[i].level, 0)));
    if (i + 1 < stages.size()) hardest = stages[i].level + 1;
  }
  RETURN_IF_ERROR(data::WriteFileAtomically(dir / "labels.txt", "ne\nse\nnw\nsw\n"));
  RETURN_IF_ERROR(data::WriteFileAtomically(dir / "decision.yaml", yaml));

  constexpr std::int64_t kRows = 4000;
  Random random(11);
  auto x = Tensor::Zeros(DataType::kFp32, {kRows, 3}).value();
  std::vector<int> labels;
  for (std::int64_t r = 0; r < kRows; ++r) {
    auto row = x.As<float>().subspan(static_cast<std::size_t>(r) * 3, 3);
    row[0] = static_cast<float>(random.Normal());
    row[1] = static_cast<float>(random.Normal());
    row[2] = static_cast<float>(random.Below(static_cast<std::uint64_t>(hardest) + 1));
    labels.push_back(QuadrantOf(row[0], row[1]));
  }
  ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(engine, dir, {.with_lock = false}));
  const tensor::View view = x.View();
  node::CalibrateOptions options;
  options.promise = decision->config().promise;
  ASSIGN_OR_RETURN(auto calibrated, node::Calibrate(*decision, {&view, 1}, labels, "points", options));
  // Calibrated without the work, which changes no answer: a thousand times as fast. Now the files that are served.
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const std::string bytes = StageModel(stages[i].level, stages[i].work);
    RETURN_IF_ERROR(data::WriteFileAtomically(dir / file(i), bytes));
    calibrated.lock.stages[i].files[0].digest = crypto::Sha256(bytes);
  }
  return data::WriteFileAtomically(dir / "decision.lock", node::WriteLock(calibrated.lock));
}

}  // namespace ganglion::bench
