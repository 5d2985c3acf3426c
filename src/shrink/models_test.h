// For tests: small models with random parameters, and running them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "runtime/runtime.h"

namespace ganglion::shrink {

inline tensor::Tensor RandomTensor(Random& random, tensor::Shape shape, double spread = 1, double middle = 0) {
  auto t = tensor::Tensor::Zeros(tensor::DataType::kFp32, std::move(shape)).value();
  for (float& v : t.As<float>()) v = static_cast<float>(middle + spread * random.Normal());
  return t;
}

// Writes layers with random parameters.
class Net {
 public:
  explicit Net(std::uint64_t seed) : random_(seed), g_(&model_) {}

  std::string Input(tensor::Shape shape) {
    g_.Input({"x", tensor::DataType::kFp32, std::move(shape)});
    return "x";
  }
  std::string Conv(const std::string& x, const std::string& name, tensor::Shape w, std::int64_t group = 1,
                   std::int64_t stride = 1) {
    Parameter(name + ".w", w, 1 / std::sqrt(static_cast<double>(w[1] * w[2] * w[3])));
    Parameter(name + ".b", {w[0]}, .1);
    const std::int64_t pad = w[2] / 2;
    return g_.Node("Conv", {x, name + ".w", name + ".b"},
                   {{"pads", std::vector<std::int64_t>{pad, pad, pad, pad}},
                    {"strides", std::vector<std::int64_t>{stride, stride}},
                    {"group", group}},
                   name);
  }
  std::string Norm(const std::string& x, const std::string& name, std::int64_t channels) {
    Parameter(name + ".scale", {channels}, .3, 1);
    Parameter(name + ".shift", {channels}, .3);
    Parameter(name + ".mean", {channels}, .2);
    Positive(name + ".variance", channels);
    return g_.Node("BatchNormalization", {x, name + ".scale", name + ".shift", name + ".mean", name + ".variance"}, {},
                   name);
  }
  std::string Gemm(const std::string& x, const std::string& name, std::int64_t in, std::int64_t out,
                   bool transposed = false) {
    Parameter(name + ".w", transposed ? tensor::Shape{out, in} : tensor::Shape{in, out},
              1.4 / std::sqrt(static_cast<double>(in)));
    Parameter(name + ".b", {out}, .1);
    return g_.Node("Gemm", {x, name + ".w", name + ".b"}, {{"transB", std::int64_t{transposed}}}, name);
  }
  std::string MatMul(const std::string& x, const std::string& name, std::int64_t in, std::int64_t out) {
    Parameter(name + ".w", {in, out}, 1.4 / std::sqrt(static_cast<double>(in)));
    Parameter(name + ".b", {out}, .1);
    return g_.Node("Add", {g_.Node("MatMul", {x, name + ".w"}), name + ".b"}, {}, name);
  }
  std::string Op(const std::string& op, const std::vector<std::string>& x,
                 const std::vector<graph::Attribute>& attributes = {}, const std::string& name = "") {
    return g_.Node(op, x, attributes, name);
  }
  std::string Pool(const std::string& x) {
    return g_.Node("MaxPool", {x},
                   {{"kernel_shape", std::vector<std::int64_t>{2, 2}}, {"strides", std::vector<std::int64_t>{2, 2}}});
  }
  void Output(const std::string& y, tensor::Shape shape) { g_.Output({y, tensor::DataType::kFp32, std::move(shape)}); }
  void Parameter(const std::string& name, const tensor::Shape& shape, double spread, double middle = 0) {
    g_.Initializer(name, RandomTensor(random_, shape, spread, middle));
  }
  graph::GraphBuilder& builder() { return g_; }
  const onnx::ModelProto& model() const { return model_; }

 private:
  void Positive(const std::string& name, std::int64_t channels) {
    auto t = tensor::Tensor::Zeros(tensor::DataType::kFp32, {channels}).value();
    for (float& v : t.As<float>()) v = static_cast<float>(random_.Uniform(.5, 2));
    g_.Initializer(name, t);
  }
  Random random_;
  onnx::ModelProto model_;
  graph::GraphBuilder g_;
};

// A convolutional net with everything that channels can meet: normalisation, a depthwise convolution, a residual sum, a
// pool, Flatten, and linear layers both ways round. x [-1, 2, 8, 8] -> [-1, 4].
inline onnx::ModelProto ConvNet(std::uint64_t seed) {
  Net net(seed);
  std::string h = net.Op("Relu", {net.Norm(net.Conv(net.Input({-1, 2, 8, 8}), "c1", {6, 2, 3, 3}), "n1", 6)});
  const std::string d = net.Op("Relu", {net.Conv(h, "depthwise", {6, 1, 3, 3}, 6)});
  const std::string c = net.Norm(net.Conv(d, "c2", {6, 6, 1, 1}), "n2", 6);
  h = net.Op("Relu", {net.Op("Add", {h, c})});
  h = net.Op("Flatten", {net.Pool(h)});
  h = net.Op("Relu", {net.Gemm(h, "f1", 96, 10, true)});
  net.Output(net.Gemm(h, "f2", 10, 4), {-1, 4});
  return net.model();
}

inline onnx::ModelProto Perceptron(std::uint64_t seed, const std::vector<std::int64_t>& sizes) {
  Net net(seed);
  std::string h = net.Input({-1, sizes[0]});
  for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
    h = net.Gemm(h, "f" + std::to_string(l), sizes[l], sizes[l + 1]);
    if (l + 2 < sizes.size()) h = net.Op("Relu", {h});
  }
  net.Output(h, {-1, sizes.back()});
  return net.model();
}

// The model's outputs for one input.
class Runner {
 public:
  using Optimise = runtime::SessionOptions::Optimise;

  std::vector<tensor::Tensor> All(const onnx::ModelProto& model, const tensor::Tensor& x,
                                  Optimise optimise = Optimise::kAll) {
    const auto made = model::Model::FromBytes("m.onnx", graph::Serialize(model));
    EXPECT_TRUE(made.ok()) << made.status().message();
    if (!made.ok()) return {};
    const auto session = runtime::Session::Create(engine_, *made, {.optimise = optimise});
    EXPECT_TRUE(session.ok()) << session.status().message();
    if (!session.ok()) return {};
    const tensor::View view = x.View();
    auto out = (*session)->Run({&view, 1});
    EXPECT_TRUE(out.ok()) << out.status().message();
    return out.ok() ? std::move(*out) : std::vector<tensor::Tensor>{};
  }
  std::vector<float> First(const onnx::ModelProto& model, const tensor::Tensor& x, Optimise optimise = Optimise::kAll) {
    const auto out = All(model, x, optimise);
    return out.empty() ? std::vector<float>{}
                       : std::vector<float>(out[0].As<float>().begin(), out[0].As<float>().end());
  }

 private:
  std::shared_ptr<runtime::Engine> engine_ = runtime::Engine::Create().value();
};

inline double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = a.size() == b.size() && !a.empty() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, static_cast<double>(std::fabs(a[i] - b[i])));
  return most;
}

inline const onnx::TensorProto& Parameter(const onnx::ModelProto& model, const std::string& name) {
  for (const auto& t : model.graph().initializer()) {
    if (t.name() == name) return t;
  }
  ADD_FAILURE() << "no parameter " << name;
  return model.graph().initializer(0);
}

}  // namespace ganglion::shrink
