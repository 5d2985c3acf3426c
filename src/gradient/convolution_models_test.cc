// Whole convolutional networks against golden gradients: tests/golden/convolution.txt, written by
// tests/golden/convolution.py with PyTorch 1.13 in double precision. Weights and inputs are a hash of their place, the
// same in both.
#include <cmath>
#include <fstream>
#include <functional>
#include <sstream>

#include "gradient/cases_test.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;
using L = std::vector<std::int64_t>;

Tensor Noise(const Shape& shape, std::uint64_t k, double scale = 1, double offset = 0) {
  Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
  std::uint64_t i = 0;
  for (float& v : t.As<float>()) {
    std::uint64_t h = (i++ * 2654435761 + k * 2246822519) & 0xffffffff;
    h ^= h >> 15;
    h = h * 2246822519 & 0xffffffff;
    h ^= h >> 13;
    v = static_cast<float>((static_cast<double>(h) / 2147483648. - 1) * scale + offset);
  }
  return t;
}

// Builds a network the way PyTorch's exporter does. Spatial sizes are not tracked, channels are.
struct Net {
  onnx::ModelProto model;
  graph::GraphBuilder g{&model};
  std::uint64_t params = 0;

  std::string Param(const Shape& shape, double scale, double offset = 0) {
    const std::string name = "p" + std::to_string(++params);
    g.Initializer(name, Noise(shape, params, scale, offset));
    return name;
  }

  std::string Conv(const std::string& x, std::int64_t in, std::int64_t out, std::int64_t k, bool bias,
                   std::int64_t stride, std::int64_t padding, std::int64_t groups = 1, std::int64_t dilation = 1) {
    std::vector<std::string> inputs{
        x, Param({out, in / groups, k, k}, std::sqrt(6. / static_cast<double>(in / groups * k * k)))};
    if (bias) inputs.push_back(Param({out}, .1));
    return g.Node("Conv", inputs,
                  {{"kernel_shape", L{k, k}},
                   {"strides", L{stride, stride}},
                   {"pads", L(4, padding)},
                   {"group", groups},
                   {"dilations", L{dilation, dilation}}});
  }

  std::string Norm(const std::string& x, std::int64_t channels) {
    const std::string scale = Param({channels}, .3, 1);
    const std::string bias = Param({channels}, .2);
    const std::string mean = scale + ".mean";
    const std::string variance = scale + ".variance";
    g.Initializer(mean, Noise({channels}, 5));
    g.Initializer(variance, Noise({channels}, 6, .5, 1));
    return g.Node("BatchNormalization", {x, scale, bias, mean, variance});
  }

  std::string Linear(const std::string& x, std::int64_t in, std::int64_t out) {
    const std::string w = Param({in, out}, std::sqrt(3. / static_cast<double>(in)));
    return g.Node("Gemm", {x, w, Param({out}, .1)});
  }

  std::string Relu(const std::string& x) { return g.Node("Relu", {x}); }
  std::string Relu6(const std::string& x) { return g.Node("Clip", {x, g.Scalar("least", 0), g.Scalar("most", 6)}); }
  std::string Head(const std::string& x, std::int64_t channels) {
    return Linear(g.Node("Flatten", {g.Node("GlobalAveragePool", {x})}), channels, 10);
  }
};

std::string FedAvg(Net& n) {
  const std::vector<Attribute> pool{{"kernel_shape", L{2, 2}}, {"strides", L{2, 2}}};
  std::string h = n.g.Node("MaxPool", {n.Relu(n.Conv("x", 1, 32, 5, true, 1, 2))}, pool);
  h = n.g.Node("MaxPool", {n.Relu(n.Conv(h, 32, 64, 5, true, 1, 2))}, pool);
  return n.Linear(n.Relu(n.Linear(n.g.Node("Flatten", {h}), 3136, 512)), 512, 10);
}

std::string ResNet(Net& n) {
  std::string x = n.Relu(n.Norm(n.Conv("x", 3, 8, 7, false, 2, 3), 8));
  x = n.g.Node("MaxPool", {x}, {{"kernel_shape", L{3, 3}}, {"strides", L{2, 2}}, {"pads", L(4, 1)}});
  std::int64_t in = 8;
  for (const auto& [out, stride] :
       {std::pair<std::int64_t, std::int64_t>{8, 1}, {8, 1}, {16, 2}, {16, 1}, {32, 2}, {32, 1}}) {
    std::string h = n.Relu(n.Norm(n.Conv(x, in, out, 3, false, stride, 1), out));
    h = n.Norm(n.Conv(h, out, out, 3, false, 1, 1), out);
    if (stride != 1) x = n.Norm(n.Conv(x, in, out, 1, false, stride, 0), out);
    x = n.Relu(n.g.Node("Add", {h, x}));
    in = out;
  }
  return n.Head(x, in);
}

std::string MobileNet(Net& n) {
  std::string x = n.Relu6(n.Norm(n.Conv("x", 3, 8, 3, false, 2, 1), 8));
  std::int64_t in = 8;
  for (const auto& [out, stride] : {std::pair<std::int64_t, std::int64_t>{16, 1}, {24, 2}, {24, 1}, {56, 1}, {56, 2}}) {
    x = n.Relu6(n.Norm(n.Conv(x, in, in, 3, false, stride, 1, in), in));
    x = n.Relu6(n.Norm(n.Conv(x, in, out, 1, false, 1, 0), out));
    in = out;
  }
  return n.Head(x, in);
}

// As PyTorch exports GroupNorm below operator set 18.
std::string GroupNorm(Net& n, const std::string& x, std::int64_t channels, std::int64_t groups) {
  const auto all = [&](float value) {
    const std::vector<float> v(static_cast<std::size_t>(groups), value);
    const std::string name = n.g.Constant("of_groups", Tensor::From<float>({groups}, v).value());
    return n.g.Node("Identity", {name});  // not a parameter that trains: see the frozen list below
  };
  const std::string split = n.g.Node("Reshape", {x, n.g.Ints("groups", {0, groups, -1})});
  const std::string h = n.g.Node("InstanceNormalization", {split, all(1), all(0)});
  const std::string back = n.g.Node("Reshape", {h, n.g.Node("Shape", {x})});
  const std::string scale = n.Param({channels, 1, 1}, .3, 1);
  return n.g.Node("Add", {n.g.Node("Mul", {back, scale}), n.Param({channels, 1, 1}, .2)});
}

std::string Autoencoder(Net& n) {
  std::string x = n.Relu(GroupNorm(n, n.Conv("x", 1, 8, 3, true, 2, 1), 8, 2));
  x = n.g.Node("AveragePool", {x}, {{"kernel_shape", L{3, 3}}, {"strides", L{2, 2}}, {"pads", L(4, 1)}});
  x = n.Relu(GroupNorm(n, n.Conv(x, 8, 12, 3, false, 1, 2, 1, 2), 12, 3));
  const std::string w = n.Param({12, 8, 3, 3}, .3);
  x = n.Relu(n.g.Node("ConvTranspose", {x, w, n.Param({8}, .1)},
                      {{"strides", L{2, 2}}, {"pads", L(4, 1)}, {"output_padding", L{1, 1}}}));
  const std::string w2 = n.Param({8, 1, 2, 2}, .5);
  x = n.g.Node("ConvTranspose", {x, w2, n.Param({2}, .1)}, {{"strides", L{2, 2}}, {"group", std::int64_t{2}}});
  return n.g.Node("Flatten", {x});
}

struct Spec {
  Shape row;
  std::string (*make)(Net&);
};
const std::map<std::string, Spec> kNets{{"fedavg", {{1, 28, 28}, FedAvg}},
                                        {"resnet", {{3, 35, 33}, ResNet}},
                                        {"mobilenet", {{3, 33, 31}, MobileNet}},
                                        {"autoencoder", {{}, Autoencoder}}};

struct Golden {
  std::string name;
  std::int64_t batch = 0;
  double loss = 0;
  std::vector<std::string> lines;  // a parameter each
};
std::vector<Golden> ReadGolden() {
  std::ifstream file(GANGLION_SOURCE_DIR "/tests/golden/convolution.txt");
  std::vector<Golden> cases;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string word;
    in >> word;
    if (word == "case") {
      Golden& c = cases.emplace_back();
      in >> c.name >> c.batch >> c.loss;
    } else if (!cases.empty()) {
      cases.back().lines.push_back(line);
    }
  }
  return cases;
}

void ExpectGolden(const Golden& golden, std::int64_t usual_batch) {
  SCOPED_TRACE(golden.name + ", batch " + std::to_string(golden.batch) + ", for " + std::to_string(usual_batch));
  const bool values = golden.name == "autoencoder";
  Shape row = kNets.at(golden.name).row;
  if (row.empty()) row = golden.batch == 2 ? Shape{1, 16, 24} : Shape{1, 20, 16};
  Net net;
  Shape open{-1};
  open.insert(open.end(), row.begin(), row.end());
  net.g.Input({"x", DataType::kFp32, open});
  net.g.Rename(kNets.at(golden.name).make(net), "y");
  const std::int64_t k = values ? 2 * row[1] * row[2] : 10;
  net.g.Output({"y", DataType::kFp32, {-1, k}});
  Options options;
  options.loss = values ? Loss::kSquaredError : Loss::kSoftmaxCrossEntropy;
  options.usual_batch = usual_batch;
  for (const auto& t : net.model.graph().initializer()) {
    if (t.name().rfind("of_groups", 0) == 0) options.frozen.push_back(t.name());
  }
  onnx::ModelProto step;
  const auto parts = Differentiate(net.model, options, &step);
  ASSERT_TRUE(parts.ok()) << parts.status().message();
  EXPECT_EQ(parts->parameters.size(), golden.lines.size());
  open[0] = golden.batch;
  std::vector<long> classes;
  for (std::int64_t i = 0; i < golden.batch; ++i) classes.push_back(i % 10);
  const std::vector<float> w(static_cast<std::size_t>(golden.batch), 1.f / static_cast<float>(golden.batch));
  std::vector<Feed> feeds{
      {"x", Noise(open, 1000)},
      {"row_weight", Tensor::From<float>({golden.batch}, w).value()},
      {"target", values ? Noise({golden.batch, k}, 2000) : Tensor::From<long>({golden.batch}, classes).value()}};
  for (const auto& t : net.model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
  auto out = RunModel(step, feeds);
  ASSERT_EQ(out.count("loss"), 1u);
  EXPECT_NEAR(out["loss"].As<float>()[0], golden.loss, 1e-5 * golden.loss);
  double worst = 0;
  for (const auto& line : golden.lines) {
    std::istringstream in(line);
    std::string name;
    in >> name;
    ASSERT_EQ(out.count("grad." + name), 1u) << name;
    SCOPED_TRACE(line);
    worst = std::max(worst, ExpectGoldenGradient(in, out["grad." + name].As<float>()));
  }
  RecordForm("whole model", golden.name + ", batch " + std::to_string(golden.batch), worst);
}

TEST(ConvolutionalNetworks, MatchPyTorch) {
  const auto cases = ReadGolden();
  ASSERT_EQ(cases.size(), 6u);
  for (const auto& golden : cases) {
    for (const std::int64_t usual_batch : {1, 32, 1 << 20}) ExpectGolden(golden, usual_batch);
  }
}

}  // namespace
}  // namespace ganglion::gradient
