// A warm decision allocates nothing beyond what ONNX Runtime does for a bare run of the same model. Allocations are
// counted by standing in for malloc in this program.
#include <gtest/gtest.h>
#include <onnxruntime_c_api.h>
#include <stdlib.h>

#include <array>
#include <filesystem>

#include "data/file.h"
#include "ganglion/decider.h"
#include "node/node.h"
#include "tests/allocation_counter.h"
#include "training/perceptron.h"

namespace ganglion {
namespace {

namespace fs = std::filesystem;

TEST(Allocation, NothingBeyondTheBareRun) {
  std::string name = (fs::temp_directory_path() / "ganglion-allocation.XXXXXX").string();
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  const fs::path dir = name;
  const std::string model = training::MakePerceptron({64, 32, 10}, 1);
  ASSERT_TRUE(data::WriteFileAtomically(dir / "m.onnx", model).ok());
  ASSERT_TRUE(
      data::WriteFileAtomically(
          dir / "decision.yaml",
          "decision: a\ninput: {x: \"FP32[-1,64]\"}\npromise: {disagreement_at_most: 0.5, delta: 0.5}\nstages:\n"
          "  - {tier: device, model: m.onnx}\n  - {tier: global, model: m.onnx}\n")
          .ok());
  {
    const auto engine = runtime::Engine::Create().value();
    const auto decision = node::Decision::Open(engine, dir, {.with_lock = false}).value();
    const auto x = tensor::Tensor::Zeros(tensor::DataType::kFp32, {32, 64}).value();
    const tensor::View view = x.View();
    node::CalibrateOptions options;
    options.promise = decision->config().promise;
    auto calibrated = node::Calibrate(*decision, {&view, 1}, {}, "", options).value();
    calibrated.lock.stages[0].threshold = 0;
    ASSERT_TRUE(data::WriteFileAtomically(dir / "decision.lock", node::WriteLock(calibrated.lock)).ok());
  }
  std::string error;
  const auto decider = Decider::Open(dir.string(), {}, &error);
  ASSERT_NE(decider, nullptr) << error;

  const OrtApi& api = *OrtGetApiBase()->GetApi(ORT_API_VERSION);
  OrtEnv* env = nullptr;
  OrtSessionOptions* options = nullptr;
  OrtSession* session = nullptr;
  OrtMemoryInfo* memory = nullptr;
  std::array<OrtValue*, 2> values{};
  std::vector<float> x(64, .5f);
  std::vector<float> y(10);
  const std::array<std::int64_t, 2> in{1, 64};
  const std::array<std::int64_t, 2> out{1, 10};
  ASSERT_EQ(api.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bare", &env), nullptr);
  ASSERT_EQ(api.CreateSessionOptions(&options), nullptr);
  ASSERT_EQ(api.SetIntraOpNumThreads(options, 1), nullptr);
  ASSERT_EQ(api.CreateSessionFromArray(env, model.data(), model.size(), options, &session), nullptr);
  ASSERT_EQ(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), nullptr);
  ASSERT_EQ(api.CreateTensorWithDataAsOrtValue(memory, x.data(), 256, in.data(), 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                               &values[0]),
            nullptr);
  ASSERT_EQ(api.CreateTensorWithDataAsOrtValue(memory, y.data(), 40, out.data(), 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                               &values[1]),
            nullptr);
  const char* const x_name = "x";
  const char* const y_name = "logits";

  Answer answer;
  long bare = 0;
  long decide = 0;
  for (int i = 0; i < 300; ++i) {
    const long a = allocations;
    ASSERT_EQ(api.Run(session, nullptr, &x_name, &values[0], 1, &y_name, 1, &values[1]), nullptr);
    const long b = allocations;
    ASSERT_TRUE(decider->Decide(x, &answer, &error)) << error;
    const long c = allocations;
    if (i < 50) continue;  // warm-up
    bare += b - a;
    decide += c - b;
  }
  EXPECT_EQ(answer.kind, Answer::Kind::kAccepted);
  EXPECT_GT(bare, 0) << "the counter counts nothing";
  EXPECT_EQ(decide, bare);
  for (auto* v : values) api.ReleaseValue(v);
  api.ReleaseMemoryInfo(memory);
  api.ReleaseSession(session);
  api.ReleaseSessionOptions(options);
  api.ReleaseEnv(env);
  fs::remove_all(dir);
}

}  // namespace
}  // namespace ganglion
