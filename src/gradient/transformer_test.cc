// Attention, built of what exporters build it of, against golden numbers: tests/golden/transformer.txt, written by
// tests/golden/transformer.py with PyTorch 1.13 in double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "gradient/cases_test.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;
using List = std::vector<std::int64_t>;

constexpr std::int64_t kVocabulary = 11, kWidth = 8, kHeads = 2, kLength = 5, kHidden = 16, kLayers = 2, kRows = 3;

// ids INT64 [-1, T] to logits FP32 [-1, T, V]; parameters in the order of the Python program.
class Transformer {
 public:
  Transformer() : g_(&model_) {
    g_.Input({"ids", DataType::kInt64, {-1, kLength}});
    std::string h = g_.Node("Gather", {Fill("embedding", {kVocabulary, kWidth}, 1), "ids"});
    h = Add(h, Fill("positions", {kLength, kWidth}, .5));
    for (std::int64_t l = 0; l < kLayers; ++l) h = Layer(std::to_string(l) + ".", h);
    g_.Rename(Linear("out", h, kWidth, kVocabulary), "y");
    g_.Output({"y", DataType::kFp32, {-1, kLength, kVocabulary}});
  }
  const onnx::ModelProto& model() const { return model_; }

 private:
  std::string Fill(const std::string& name, const Shape& shape, double scale, double shift = 0) {
    Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
    for (std::size_t i = 0; i < t.As<float>().size(); ++i)
      t.As<float>()[i] = static_cast<float>(std::sin(.37 * static_cast<double>(i) + .5 + filled_) * scale + shift);
    ++filled_;
    g_.Initializer(name, t);
    return name;
  }
  std::string Add(const std::string& a, const std::string& b) { return g_.Node("Add", {a, b}); }
  std::string Linear(const std::string& name, const std::string& x, std::int64_t in, std::int64_t out) {
    const std::string w = Fill(name + ".w", {in, out}, 1 / std::sqrt(static_cast<double>(in)));
    return Add(g_.Node("MatMul", {x, w}), Fill(name + ".b", {out}, .1));
  }
  std::string Norm(const std::string& name, const std::string& x) {
    const std::string scale = Fill(name + ".scale", {kWidth}, .2, 1);
    return g_.Node("LayerNormalization", {x, scale, Fill(name + ".bias", {kWidth}, .1)},
                   {{"axis", std::int64_t{-1}}, {"epsilon", 1e-5f}});
  }
  std::string Gelu(const std::string& x) {
    const std::string erf = g_.Node("Erf", {g_.Node("Div", {x, g_.Scalar("root_two", std::sqrt(2.f))})});
    return g_.Node("Mul", {g_.Node("Mul", {x, Add(erf, g_.Scalar("one", 1))}), g_.Scalar("half", .5f)});
  }
  // -1e4 above the diagonal, as exporters make it.
  std::string Mask() {
    const std::string full = g_.Node("ConstantOfShape", {g_.Ints("square", {kLength, kLength})});
    const std::string filled = Add(full, g_.Scalar("far", -1e4f));
    const long one = 1;
    return g_.Node("Trilu", {filled, g_.Constant("k", Tensor::From<long>({}, {&one, 1}).value())});
  }
  std::string Heads(const std::string& x, const List& perm) {
    const std::string apart = g_.Node("Reshape", {x, g_.Ints("heads", {0, kLength, kHeads, kWidth / kHeads})});
    return g_.Node("Transpose", {apart}, {{"perm", perm}});
  }
  std::string Attention(const std::string& layer, const std::string& h) {
    const std::string q = Heads(Linear(layer + "q", h, kWidth, kWidth), {0, 2, 1, 3});
    const std::string k = Heads(Linear(layer + "k", h, kWidth, kWidth), {0, 2, 3, 1});
    const std::string v = Heads(Linear(layer + "v", h, kWidth, kWidth), {0, 2, 1, 3});
    const std::string root = g_.Scalar("root", std::sqrt(static_cast<float>(kWidth / kHeads)));
    const std::string scores = Add(g_.Node("Div", {g_.Node("MatMul", {q, k}), root}), Mask());
    const std::string mixed = g_.Node("MatMul", {g_.Node("Softmax", {scores}, {{"axis", std::int64_t{-1}}}), v});
    const std::string back = g_.Node("Transpose", {mixed}, {{"perm", List{0, 2, 1, 3}}});
    return g_.Node("Reshape", {back, g_.Ints("joined", {0, 0, -1})});
  }
  std::string Layer(const std::string& layer, const std::string& h) {
    const std::string attended = Linear(layer + "o", Attention(layer, h), kWidth, kWidth);
    const std::string a = Norm(layer + "norm1", Add(h, attended));
    const std::string f = Linear(layer + "f2", Gelu(Linear(layer + "f1", a, kWidth, kHidden)), kHidden, kWidth);
    return Norm(layer + "norm2", Add(a, f));
  }

  onnx::ModelProto model_;
  GraphBuilder g_;
  int filled_ = 0;
};

TEST(Transformer, HasPyTorchsGradients) {
  const Transformer transformer;
  onnx::ModelProto step;
  const auto parts = Differentiate(transformer.model(), {}, &step);
  ASSERT_TRUE(parts.ok()) << parts.status().message();
  std::vector<long> ids;
  std::vector<long> target;
  for (long b = 0; b < kRows; ++b) {
    for (long t = 0; t < kLength; ++t) {
      ids.push_back((3 * b + 2 * t * t + t) % kVocabulary);
      target.push_back((5 * b + t + 1) % kVocabulary);
    }
  }
  const std::vector<float> weights(kRows, 1.f / kRows);
  std::vector<Feed> feeds{{"ids", Tensor::From<long>({kRows, kLength}, ids).value()},
                          {"target", Tensor::From<long>({kRows, kLength}, target).value()},
                          {"row_weight", Tensor::From<float>({kRows}, weights).value()}};
  for (const auto& t : transformer.model().graph().initializer())
    feeds.push_back({t.name(), graph::ToTensor(t).value()});
  const auto out = RunModel(step, feeds);
  ASSERT_EQ(out.count("loss"), 1u);

  std::ifstream file(GANGLION_SOURCE_DIR "/tests/golden/transformer.txt");
  ASSERT_TRUE(file.good());
  std::string name;
  double expected_loss = 0;
  file >> name >> expected_loss;
  EXPECT_NEAR(out.at("loss").As<float>()[0], expected_loss, 1e-5 * expected_loss);
  std::size_t checked = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    double norm = 0;
    double sum = 0;
    if (!(in >> name >> norm >> sum)) continue;
    ASSERT_EQ(out.count("grad." + name), 1u) << name;
    ++checked;
    const auto gradient = out.at("grad." + name).As<float>();
    double squares = 0;
    double total = 0;
    for (const float v : gradient) {
      squares += static_cast<double>(v) * v;
      total += v;
    }
    // The gradient of a key's bias is 0: it shifts all scores of a query alike.
    const double scale = std::max(norm, 1e-3);
    EXPECT_NEAR(std::sqrt(squares), norm, 1e-4 * scale) << name;
    EXPECT_NEAR(total, sum, 1e-4 * scale * std::sqrt(static_cast<double>(gradient.size()))) << name;
    std::size_t at = 0;
    for (double expected = 0; in >> at >> expected;) EXPECT_NEAR(gradient[at], expected, 1e-4 * scale) << line;
  }
  EXPECT_EQ(checked, parts->parameters.size());
}

}  // namespace
}  // namespace ganglion::gradient
