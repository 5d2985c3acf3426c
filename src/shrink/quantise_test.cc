#include "shrink/quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "shrink/fold.h"
#include "shrink/models_test.h"

namespace ganglion::shrink {
namespace {

using Optimise = runtime::SessionOptions::Optimise;

// --- A simulation in double precision, written from the definition in quantise.h and not from the code. ---

struct Array {
  std::vector<std::int64_t> shape;
  std::vector<double> v;
};

Array FromProto(const onnx::TensorProto& t) {
  const auto read = graph::ToTensor(t).value();
  return {read.shape(), {read.As<float>().begin(), read.As<float>().end()}};
}

void OnRuler(Array* a, Range r) {  // uint8
  const double low = std::min(0.f, r.low);
  const double high = std::max(0.f, r.high);
  const double s = static_cast<float>((high - low) / 255);
  const double z = std::clamp(std::nearbyint(-low / s), 0., 255.);
  for (double& x : a->v) x = (std::clamp(std::nearbyint(x / s) + z, 0., 255.) - z) * s;
}

double InputScale(Range r) {
  return static_cast<float>((static_cast<double>(std::max(0.f, r.high)) - std::min(0.f, r.low)) / 255);
}

// Weights and bias rounded, channels along `axis`.
void RoundParameters(Array* w, Array* b, std::size_t axis, double input_scale) {
  const auto channels = static_cast<std::size_t>(w->shape[axis]);
  std::size_t inner = 1;
  for (std::size_t d = axis + 1; d < w->shape.size(); ++d) inner *= static_cast<std::size_t>(w->shape[d]);
  for (std::size_t c = 0; c < channels; ++c) {
    double top = 0;
    for (std::size_t i = 0; i < w->v.size(); ++i) {
      if (i / inner % channels == c) top = std::max(top, std::fabs(w->v[i]));
    }
    const double s = static_cast<float>(top / 127);
    for (std::size_t i = 0; i < w->v.size(); ++i) {
      if (i / inner % channels == c) w->v[i] = std::nearbyint(w->v[i] / s) * s;
    }
    const double both = static_cast<float>(input_scale * s);
    b->v[c] = std::nearbyint(b->v[c] / both) * both;
  }
}

Array Convolve(const Array& x, const Array& w, const Array& b, std::int64_t group) {
  const auto [n, c, h, width] = std::tuple(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
  const auto [m, per, kh, kw] = std::tuple(w.shape[0], w.shape[1], w.shape[2], w.shape[3]);
  Array y{{n, m, h, width}, {}};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t o = 0; o < m; ++o) {
      for (std::int64_t r = 0; r < h; ++r) {
        for (std::int64_t q = 0; q < width; ++q) {
          double sum = b.v[static_cast<std::size_t>(o)];
          for (std::int64_t k = 0; k < per; ++k) {
            const std::int64_t from = o / (m / group) * per + k;
            for (std::int64_t a = 0; a < kh; ++a) {
              for (std::int64_t e = 0; e < kw; ++e) {
                const std::int64_t rr = r + a - kh / 2;
                const std::int64_t qq = q + e - kw / 2;
                if (rr < 0 || rr >= h || qq < 0 || qq >= width) continue;
                sum += x.v[static_cast<std::size_t>(((i * c + from) * h + rr) * width + qq)] *
                       w.v[static_cast<std::size_t>(((o * per + k) * kh + a) * kw + e)];
              }
            }
          }
          y.v.push_back(sum);
        }
      }
    }
  }
  return y;
}

Array Multiply(const Array& x, const Array& w, const Array& b, bool transposed) {
  const std::int64_t rows = x.shape[0];
  const std::int64_t in = x.shape[1];
  const std::int64_t out = w.shape[transposed ? 0 : 1];
  Array y{{rows, out}, {}};
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = b.v[static_cast<std::size_t>(o)];
      for (std::int64_t k = 0; k < in; ++k)
        sum += x.v[static_cast<std::size_t>(i * in + k)] *
               w.v[static_cast<std::size_t>(transposed ? o * in + k : k * out + o)];
      y.v.push_back(sum);
    }
  }
  return y;
}

void Relu(Array* a) {
  for (double& x : a->v) x = std::max(x, 0.);
}

Array Pool(const Array& x) {
  Array y{{x.shape[0], x.shape[1], x.shape[2] / 2, x.shape[3] / 2}, {}};
  for (std::int64_t i = 0; i < x.shape[0] * x.shape[1]; ++i) {
    for (std::int64_t r = 0; r < x.shape[2]; r += 2) {
      for (std::int64_t q = 0; q < x.shape[3]; q += 2) {
        double top = -INFINITY;
        for (const auto& [a, e] : {std::pair(0, 0), {0, 1}, {1, 0}, {1, 1}})
          top = std::max(top, x.v[static_cast<std::size_t>((i * x.shape[2] + r + a) * x.shape[3] + q + e)]);
        y.v.push_back(top);
      }
    }
  }
  return y;
}

class Quantise : public ::testing::Test {
 protected:
  std::map<std::string, Range> Calibrate(const onnx::ModelProto& model, const QuantiseOptions& options,
                                         const tensor::Tensor& rows) {
    onnx::ModelProto observed;
    const auto names = PlanCalibration(model, options, &observed).value();
    const auto seen = run_.All(observed, rows, Optimise::kBasic);
    std::map<std::string, Range> ranges;
    for (std::size_t i = 0; i < names.size(); ++i) {
      RangeObserver o;
      o.Observe(seen[i].As<float>());
      ranges[names[i]] = o.Find(RangeRule::kMinMax, 1, names[i]).value();
    }
    return ranges;
  }

  Runner run_;
  Random random_{7};
};

TEST_F(Quantise, ConvolutionsAreTheSimulationInDoublePrecision) {
  Net net(3);
  std::string h = net.Op("Relu", {net.Conv(net.Input({-1, 2, 8, 8}), "c1", {6, 2, 3, 3})}, {}, "a1");
  h = net.Conv(h, "c2", {6, 1, 3, 3}, 6);
  h = net.Op("Flatten", {net.Pool(h)});
  h = net.Op("Relu", {net.Gemm(h, "f1", 96, 10, true)}, {}, "a2");
  net.Output(net.Gemm(h, "f2", 10, 4), {-1, 4});
  const auto& model = net.model();
  const auto x = RandomTensor(random_, {200, 2, 8, 8});
  const auto ranges = Calibrate(model, {}, x);
  ASSERT_EQ(ranges.size(), 4u);  // x, a1, c2, a2: what Flatten and the pool give keeps c2's ruler
  onnx::ModelProto quantised;
  const auto report = QuantiseStatic(model, ranges, {}, &quantised);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->quantised.size(), 4u);

  Array a{x.shape(), {x.As<float>().begin(), x.As<float>().end()}};
  const auto parameters = [&](const std::string& layer, std::size_t axis, Range input) {
    std::pair<Array, Array> p{FromProto(Parameter(model, layer + ".w")), FromProto(Parameter(model, layer + ".b"))};
    RoundParameters(&p.first, &p.second, axis, InputScale(input));
    return p;
  };
  OnRuler(&a, ranges.at("x"));
  auto p = parameters("c1", 0, ranges.at("x"));
  a = Convolve(a, p.first, p.second, 1);
  Relu(&a);
  OnRuler(&a, ranges.at("a1"));
  p = parameters("c2", 0, ranges.at("a1"));
  a = Convolve(a, p.first, p.second, 6);
  OnRuler(&a, ranges.at("c2"));
  a = Pool(a);
  a.shape = {200, 96};
  p = parameters("f1", 0, ranges.at("c2"));
  a = Multiply(a, p.first, p.second, true);
  Relu(&a);
  OnRuler(&a, ranges.at("a2"));
  p = parameters("f2", 1, ranges.at("a2"));
  a = Multiply(a, p.first, p.second, false);

  const auto exact = run_.First(model, x);
  double rounding = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) rounding = std::max(rounding, std::fabs(exact[i] - a.v[i]));
  for (const Optimise optimise : {Optimise::kBasic, Optimise::kAll}) {
    const auto y = run_.First(quantised, x, optimise);
    ASSERT_EQ(y.size(), a.v.size());
    // A sum that lies half way between two steps may go either way in float; then a row differs by about a step.
    std::size_t same = 0;
    double most = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double d = std::fabs(y[i] - a.v[i]);
      same += d < 1e-4;
      most = std::max(most, d);
    }
    EXPECT_GE(same, y.size() * 95 / 100);
    EXPECT_LT(most, .05);
    EXPECT_GT(rounding, 1e-3) << "the test could not tell a model that is not quantised";
  }
}

TEST_F(Quantise, KeepsWhatAConvNetSays) {
  const auto model = ConvNet(5);
  const auto x = RandomTensor(random_, {400, 2, 8, 8});
  for (const bool is_signed : {false, true}) {
    const QuantiseOptions options{.signed_activations = is_signed};
    onnx::ModelProto quantised;
    const auto report = QuantiseStatic(model, Calibrate(model, options, x), options, &quantised);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_EQ(report->quantised.size(), 5u);
    EXPECT_TRUE(report->left_float.empty());
    const auto want = run_.First(model, x);
    const auto got = run_.First(quantised, x);
    double error = 0;
    double power = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      power += want[i] * want[i];
    }
    EXPECT_LT(error / power, .002);
    EXPECT_GT(error, 0);
  }
}

TEST_F(Quantise, GivesEveryOutputChannelItsOwnScale) {
  auto model = Perceptron(1, {5, 3, 2});
  auto* w = model.mutable_graph()->mutable_initializer(0);
  auto t = graph::ToTensor(*w).value();
  for (std::size_t i = 0; i < 15; ++i) t.As<float>()[i] *= i % 3 == 1 ? 1000.f : 1.f;  // channel 1 of 3
  w->Clear();
  graph::FromTensor("f0.w", t.View(), w);
  const auto x = RandomTensor(random_, {50, 5});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseStatic(model, Calibrate(model, {}, x), {}, &quantised).ok());
  const auto scale = graph::ToTensor(Parameter(quantised, "f0.w.scale")).value();
  ASSERT_EQ(scale.shape(), tensor::Shape{3});
  for (std::size_t c = 0; c < 3; ++c) {
    float top = 0;
    for (std::size_t i = 0; i < 5; ++i) top = std::max(top, std::fabs(t.As<float>()[i * 3 + c]));
    EXPECT_FLOAT_EQ(scale.As<float>()[c], top / 127);
  }
  const auto& q = Parameter(quantised, "f0.w.q");
  EXPECT_EQ(q.data_type(), onnx::TensorProto::INT8);
  EXPECT_EQ(q.raw_data().size(), 15u);
  for (const auto& i : quantised.graph().initializer())
    EXPECT_NE(i.name(), "f0.w") << "the float weights are still there";
}

TEST_F(Quantise, ABiasThatDwarfsTheWeightsStillFits) {
  auto model = Perceptron(1, {4, 2});
  for (auto& t : *model.mutable_graph()->mutable_initializer()) {
    const float tiny = t.name() == "f0.w" ? 1e-9f : 1000.f;
    auto v = graph::ToTensor(t).value();
    for (float& a : v.As<float>()) a = tiny;
    const std::string name = t.name();
    t.Clear();
    graph::FromTensor(name, v.View(), &t);
  }
  const auto x = RandomTensor(random_, {20, 4});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseStatic(model, Calibrate(model, {}, x), {}, &quantised).ok());
  for (const float y : run_.First(quantised, x)) EXPECT_NEAR(y, 1000, 1e-2);
}

TEST_F(Quantise, DynamicKeepsWhatTheModelSays) {
  for (const bool transposed : {false, true}) {
    Net net(9);
    const std::string h = net.Op("Relu", {net.Gemm(net.Input({-1, 12}), "f1", 12, 16, transposed)});
    net.Output(net.MatMul(h, "f2", 16, 5), {-1, 5});
    const auto x = RandomTensor(random_, {1, 12});
    onnx::ModelProto quantised;
    const auto report = QuantiseDynamic(net.model(), {}, &quantised);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_EQ(report->quantised.size(), 2u);
    for (const Optimise o : {Optimise::kBasic, Optimise::kAll})
      EXPECT_LT(LargestDifference(run_.First(net.model(), x), run_.First(quantised, x, o)), .08);
  }
}

TEST_F(Quantise, DynamicTakesConvolutions) {
  const auto model = ConvNet(5);
  const auto x = RandomTensor(random_, {1, 2, 8, 8});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseDynamic(model, {}, &quantised).ok());
  EXPECT_LT(LargestDifference(run_.First(model, x), run_.First(quantised, x)), .15);
}

TEST_F(Quantise, DynamicMakesRowsDependOnEachOther) {  // as the documents say
  const auto model = Perceptron(2, {6, 8, 3});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseDynamic(model, {}, &quantised).ok());
  auto x = RandomTensor(random_, {2, 6});
  const auto before = run_.First(quantised, x);
  for (std::size_t i = 6; i < 12; ++i) x.As<float>()[i] *= 50;  // the second row alone
  const auto after = run_.First(quantised, x);
  EXPECT_NE(std::vector<float>(before.begin(), before.begin() + 3),
            std::vector<float>(after.begin(), after.begin() + 3));
}

TEST_F(Quantise, LeavesTheFirstAndLastLayerFloatWhenAsked) {
  const auto model = ConvNet(1);
  const auto x = RandomTensor(random_, {20, 2, 8, 8});
  const QuantiseOptions options{.float_first = true, .float_last = true};
  onnx::ModelProto quantised;
  const auto report = QuantiseStatic(model, Calibrate(model, options, x), options, &quantised);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->quantised.size(), 3u);
  ASSERT_EQ(report->left_float.size(), 2u);
  EXPECT_NE(report->left_float[0].find("the first stays float"), std::string::npos);
  EXPECT_NE(report->left_float[1].find("the last stays float"), std::string::npos);
}

TEST_F(Quantise, ShrinksTheFileToAQuarter) {
  const auto model = Perceptron(4, {784, 128, 10});
  const auto x = RandomTensor(random_, {20, 784});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseStatic(model, Calibrate(model, {}, x), {}, &quantised).ok());
  EXPECT_LT(static_cast<double>(quantised.ByteSizeLong()), .3 * static_cast<double>(model.ByteSizeLong()));
}

TEST_F(Quantise, NamesEveryLayerItCannotTake) {
  Net net(1);
  const std::string x = net.Input({-1, 3});
  net.Op("MatMul", {x, net.Op("Transpose", {x})}, {}, "y");
  net.Output("y", {-1, -1});
  onnx::ModelProto out;
  const auto report = QuantiseDynamic(net.model(), {}, &out);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("node 1 (MatMul): its weights are computed"), std::string::npos)
      << report.status().message();
}

TEST_F(Quantise, RefusesWeightsThatAreNotFiniteAndRangesThatAreNone) {
  auto model = Perceptron(1, {3, 2});
  onnx::ModelProto out;
  auto s = QuantiseStatic(model, {}, {}, &out).status();
  EXPECT_NE(s.message().find("no calibrated range for tensor \"x\""), std::string::npos) << s.message();
  EXPECT_FALSE(QuantiseStatic(model, {{"x", {0, INFINITY}}}, {}, &out).ok());
  EXPECT_FALSE(QuantiseStatic(model, {{"x", {2, 1}}}, {}, &out).ok());
  auto* w = model.mutable_graph()->mutable_initializer(0);
  const float nan = NAN;
  w->mutable_raw_data()->replace(0, 4, reinterpret_cast<const char*>(&nan), 4);
  s = QuantiseStatic(model, {{"x", {-1, 1}}}, {}, &out).status();
  EXPECT_NE(s.message().find("(Gemm)"), std::string::npos) << s.message();
  model.mutable_opset_import(0)->set_version(18);
  EXPECT_EQ(QuantiseDynamic(model, {}, &out).status().code(), Code::kUnimplemented);
}

// The operators of a model, sorted.
std::vector<std::string> Operators(const onnx::ModelProto& model) {
  std::vector<std::string> ops;
  for (const auto& n : model.graph().node()) ops.push_back(n.op_type());
  std::sort(ops.begin(), ops.end());
  return ops;
}

TEST_F(Quantise, AMatrixTimesWeightsPlusABiasIsOneGemmFirst) {
  Net net(2);
  std::string h = net.Op("Relu", {net.MatMul(net.Input({-1, 6}), "a", 6, 8)}, {}, "hidden");
  net.Output(net.MatMul(h, "b", 8, 3), {-1, 3});
  const auto x = RandomTensor(random_, {50, 6});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseStatic(net.model(), Calibrate(net.model(), {}, x), {}, &quantised).ok());
  const auto ops = Operators(quantised);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "Gemm"), 2);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "MatMul"), 0);
  EXPECT_LT(LargestDifference(run_.First(net.model(), x), run_.First(quantised, x)), .2);
}

TEST_F(Quantise, MatMulOverATimeAxisGetsARulerBehindIt) {
  Net net(2);
  std::string h = net.Op("Relu", {net.MatMul(net.Input({-1, 5, 6}), "a", 6, 8)}, {}, "hidden");
  net.Output(net.MatMul(h, "b", 8, 3), {-1, 5, 3});
  const auto x = RandomTensor(random_, {20, 5, 6});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseStatic(net.model(), Calibrate(net.model(), {}, x), {}, &quantised).ok());
  const auto ops = Operators(quantised);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "MatMul"), 2);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "QuantizeLinear"), 4);
  EXPECT_LT(LargestDifference(run_.First(net.model(), x), run_.First(quantised, x)), .2);
}

TEST_F(Quantise, ARulerBehindAReluBeginsAtZero) {
  Net net(2);
  net.Output(net.Gemm(net.Op("Relu", {net.Gemm(net.Input({-1, 6}), "a", 6, 8)}, {}, "hidden"), "b", 8, 3), {-1, 3});
  onnx::ModelProto quantised;
  ASSERT_TRUE(QuantiseStatic(net.model(), {{"x", {-3, 3}}, {"hidden", {-1, 4}}}, {}, &quantised).ok());
  EXPECT_EQ(Parameter(quantised, "hidden.zero_point").raw_data(), std::string(1, '\0'));
  const auto scale = graph::ToTensor(Parameter(quantised, "hidden.scale")).value();
  EXPECT_FLOAT_EQ(scale.As<float>()[0], 4.f / 255);
}

TEST_F(Quantise, FoldingANormalisationChangesNothing) {
  const auto model = ConvNet(8);
  onnx::ModelProto folded;
  int count = 0;
  ASSERT_TRUE(FoldBatchNorm(model, &folded, &count).ok());
  EXPECT_EQ(count, 2);
  for (const auto& n : folded.graph().node()) EXPECT_NE(n.op_type(), "BatchNormalization");
  const auto x = RandomTensor(random_, {30, 2, 8, 8});
  EXPECT_LT(LargestDifference(run_.First(model, x, Optimise::kBasic), run_.First(folded, x, Optimise::kBasic)), 1e-4);
}

}  // namespace
}  // namespace ganglion::shrink
