// decide() that answers at the first stage, against the bare ONNX Runtime run of the same model (make bench-local).
//
// Both in one process, alternating, so that whatever else the machine does falls on both. The bare run is the runtime's
// C interface with preallocated input and output values (the faster of that and IoBinding), and nothing else: no check
// of the input, no confidence, no clock. decide() is the public Decider.
// Heap allocations are counted by standing in for malloc in this program.
#include <fmt/format.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "base/random.h"
#include "data/file.h"
#include "figures.h"
#include "ganglion/decider.h"
#include "model/model.h"
#include "node/node.h"
#include "tests/allocation_counter.h"
#include "training/perceptron.h"

namespace ganglion::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

const OrtApi& Api() { return *OrtGetApiBase()->GetApi(ORT_API_VERSION); }
void Check(OrtStatus* s) {
  if (s == nullptr) return;
  std::fprintf(stderr, "%s\n", Api().GetErrorMessage(s));
  std::exit(1);
}

// The bare run: one session, one thread, fixed memory.
class Bare {
 public:
  Bare(const std::string& model, std::int64_t features, std::int64_t classes)
      : x(static_cast<std::size_t>(features)), y(static_cast<std::size_t>(classes)) {
    Check(Api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bare", &env_));
    OrtSessionOptions* o = nullptr;
    Check(Api().CreateSessionOptions(&o));
    Check(Api().SetIntraOpNumThreads(o, 1));
    Check(Api().CreateSessionFromArray(env_, model.data(), model.size(), o, &session_));
    Api().ReleaseSessionOptions(o);
    OrtMemoryInfo* memory = nullptr;
    Check(Api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    const std::array<std::int64_t, 2> in{1, features};
    const std::array<std::int64_t, 2> out{1, classes};
    Check(Api().CreateTensorWithDataAsOrtValue(memory, x.data(), x.size() * 4, in.data(), 2,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &x_));
    Check(Api().CreateTensorWithDataAsOrtValue(memory, y.data(), y.size() * 4, out.data(), 2,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &y_));
    Check(Api().CreateIoBinding(session_, &binding_));
    Check(Api().BindInput(binding_, "x", x_));
    Check(Api().BindOutput(binding_, "logits", y_));
    Api().ReleaseMemoryInfo(memory);
  }
  void Run() {
    const char* in = "x";
    const char* out = "logits";
    Check(Api().Run(session_, nullptr, &in, &x_, 1, &out, 1, &y_));
  }
  void RunBound() { Check(Api().RunWithBinding(session_, nullptr, binding_)); }

  std::vector<float> x;
  std::vector<float> y;

 private:
  OrtEnv* env_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtValue* x_ = nullptr;
  OrtValue* y_ = nullptr;
  OrtIoBinding* binding_ = nullptr;
};

double Median(std::vector<double>& v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// A decision directory whose only thresholds accept everything at the device.
void WriteDecision(const fs::path& dir, const std::string& model, std::int64_t features) {
  fs::create_directories(dir);
  (void)data::WriteFileAtomically(dir / "m.onnx", model);
  (void)data::WriteFileAtomically(dir / "top.onnx", model);
  (void)data::WriteFileAtomically(
      dir / "decision.yaml",
      fmt::format(
          "decision: local\ninput: {{x: \"FP32[-1,{}]\"}}\npromise: {{loss_at_most: 0.5, delta: 0.5}}\nstages:\n"
          "  - {{tier: device, model: m.onnx}}\n  - {{tier: global, model: top.onnx}}\n",
          features));
  const auto engine = runtime::Engine::Create().value();
  const auto decision = node::Decision::Open(engine, dir, {.with_lock = false}).value();
  Random random(1);
  tensor::Tensor x = tensor::Tensor::Zeros(tensor::DataType::kFp32, {64, features}).value();
  for (float& v : x.As<float>()) v = static_cast<float>(random.Uniform());
  const tensor::View view = x.View();
  node::CalibrateOptions options;
  options.promise = {calibration::PromiseKind::kDisagreement, .5, .5};
  auto calibrated = node::Calibrate(*decision, {&view, 1}, {}, "none", options).value();
  calibrated.lock.stages[0].threshold = 0;
  (void)data::WriteFileAtomically(dir / "decision.lock", node::WriteLock(calibrated.lock));
}

void Measure(const std::vector<std::int64_t>& sizes, const std::string& name, const std::string& goal,
             bool goal_is_ratio, Figures& figures) {
  const std::string model = training::MakePerceptron(sizes, 1);
  const fs::path dir = fs::temp_directory_path() / fmt::format("ganglion-bench-local-{}", getpid());
  WriteDecision(dir, model, sizes.front());
  std::string error;
  const auto decider = Decider::Open(dir.string(), {}, &error);
  if (decider == nullptr) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::exit(1);
  }
  Bare bare(model, sizes.front(), sizes.back());
  Random random(2);
  for (float& v : bare.x) v = static_cast<float>(random.Uniform());
  const std::vector<float> input = bare.x;
  Answer answer;
  const auto time = [](const auto& f) {
    const auto begin = Clock::now();
    f();
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
  };
  constexpr int kWarm = 2'000;
  constexpr int kRuns = 40'000;
  std::vector<double> plain;
  std::vector<double> bound;
  std::vector<double> decide;
  for (auto* v : {&plain, &bound, &decide}) v->reserve(kRuns);
  long plain_allocations = 0;
  long decide_allocations = 0;
  for (int i = 0; i < kWarm + kRuns; ++i) {
    long before = allocations;
    const double a = time([&] { bare.Run(); });
    const long plain_count = allocations - before;
    const double b = time([&] { bare.RunBound(); });
    before = allocations;
    const double c = time([&] {
      if (!decider->Decide(input, &answer, &error) || answer.kind != Answer::Kind::kAccepted) std::exit(1);
    });
    const long decide_count = allocations - before;
    if (i < kWarm) continue;
    plain.push_back(a);
    bound.push_back(b);
    decide.push_back(c);
    plain_allocations += plain_count;
    decide_allocations += decide_count;
  }
  fs::remove_all(dir);
  const double fastest_bare = std::min(Median(plain), Median(bound));
  const double p50 = Median(decide);
  figures.Add(
      {fmt::format("{}: decide() p50 over the bare run's", name), p50, "us", fastest_bare, goal_is_ratio ? goal : ""});
  figures.Add({fmt::format("{}: overhead of decide(), p50", name), p50 - fastest_bare, "us", std::nullopt,
               goal_is_ratio ? "" : goal});
  figures.Add({fmt::format("{}: heap allocations a decision beyond the bare run's", name),
               static_cast<double>(decide_allocations - plain_allocations) / kRuns, "count", std::nullopt, "<= 0"});
  figures.Add({fmt::format("{}: heap allocations of the bare run", name),
               static_cast<double>(plain_allocations) / kRuns, "count", std::nullopt, ""});
}

}  // namespace
}  // namespace ganglion::bench

int main() {
  ganglion::bench::Figures figures("local");
  ganglion::bench::Measure({784, 128, 10}, "784-128-10", "<= 1.5", false, figures);
  ganglion::bench::Measure({64, 10}, "64-10", "<= 2x", true, figures);
  return figures.Finish();
}
