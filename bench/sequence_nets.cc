#include "sequence_nets.h"

#include <cmath>
#include <vector>

#include "base/random.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::bench {
namespace {

using Ints = std::vector<std::int64_t>;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

class Net {
 public:
  Net(const SequenceSpec& spec, std::uint64_t seed) : s_(spec), g_(&model_), random_(seed) {
    g_.Input({"tokens", DataType::kInt64, {-1, s_.times}});
  }

  std::string Gru() {
    const std::int64_t d = s_.width;
    const std::string x = g_.Node("Transpose", {g_.Node("Gather", {Weights("words", {s_.vocabulary, d}, 1), "tokens"})},
                                  {{"perm", Ints{1, 0, 2}}});
    const auto y = g_.Nodes(
        "GRU",
        {x, Weights("gru.w", {1, 3 * d, d}, d), Weights("gru.r", {1, 3 * d, d}, d), Weights("gru.b", {1, 6 * d}, d)}, 2,
        {{"hidden_size", d}, {"linear_before_reset", std::int64_t{1}}});
    return Finish(g_.Node("Squeeze", {y[1], g_.Ints("axis", {0})}));
  }

  std::string Transformer() {
    const std::string words = g_.Node("Gather", {Weights("words", {s_.vocabulary, s_.width}, 1), "tokens"});
    std::string h = g_.Node("Add", {words, Weights("places", {s_.times, s_.width}, 1)});
    for (std::int64_t l = 0; l < s_.layers; ++l) {
      const std::string name = "layer" + std::to_string(l);
      h = Norm(g_.Node("Add", {h, Attention(h, name)}), name + ".norm1");
      const std::string inner = Linear(h, name + ".inner", s_.width, s_.inner);
      h = Norm(g_.Node("Add", {h, Linear(Gelu(inner), name + ".outer", s_.inner, s_.width)}), name + ".norm2");
    }
    return Finish(g_.Node("ReduceMean", {h}, {{"axes", Ints{1}}, {"keepdims", std::int64_t{0}}}));
  }

 private:
  // Uniform within 1 / sqrt(fan_in).
  std::string Weights(const std::string& name, const Shape& shape, std::int64_t fan_in) {
    Tensor t = Tensor::Zeros(DataType::kFp32, shape).value();
    const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
    for (float& v : t.As<float>()) v = static_cast<float>(random_.Uniform(-bound, bound));
    g_.Initializer(name, t);
    return name;
  }

  std::string Linear(const std::string& x, const std::string& name, std::int64_t in, std::int64_t out) {
    const std::string y = g_.Node("MatMul", {x, Weights(name + ".w", {in, out}, in)});
    return g_.Node("Add", {y, Weights(name + ".b", {out}, in)});
  }

  std::string Norm(const std::string& x, const std::string& name) {
    return g_.Node("LayerNormalization",
                   {x, Weights(name + ".scale", {s_.width}, 1), Weights(name + ".bias", {s_.width}, 1)});
  }

  // x / 2 (1 + erf(x / sqrt(2)))
  std::string Gelu(const std::string& x) {
    const std::string erf = g_.Node("Erf", {g_.Node("Div", {x, g_.Scalar("root", std::sqrt(2.f))})});
    const std::string twice = g_.Node("Mul", {x, g_.Node("Add", {erf, g_.Scalar("one", 1)})});
    return g_.Node("Mul", {twice, g_.Scalar("half", .5f)});
  }

  std::string Attention(const std::string& x, const std::string& name) {
    const std::int64_t d = s_.width;
    const auto qkv = g_.Nodes("Split", {Linear(x, name + ".in", d, 3 * d), g_.Ints("thirds", {d, d, d})}, 3,
                              {{"axis", std::int64_t{-1}}});
    const auto heads = [&](const std::string& v, const Ints& perm) {
      const std::string split = g_.Node("Reshape", {v, g_.Ints("heads", {0, s_.times, s_.heads, d / s_.heads})});
      return g_.Node("Transpose", {split}, {{"perm", perm}});
    };
    const float scale = 1 / std::sqrt(static_cast<float>(d / s_.heads));
    const std::string q = g_.Node("Mul", {heads(qkv[0], {0, 2, 1, 3}), g_.Scalar("scale", scale)});
    const std::string scores = g_.Node("MatMul", {q, heads(qkv[1], {0, 2, 3, 1})});
    const std::string mixed =
        g_.Node("MatMul", {g_.Node("Softmax", {scores}, {{"axis", std::int64_t{-1}}}), heads(qkv[2], {0, 2, 1, 3})});
    const std::string together = g_.Node("Transpose", {mixed}, {{"perm", Ints{0, 2, 1, 3}}});
    return Linear(g_.Node("Reshape", {together, g_.Ints("joined", {0, s_.times, d})}), name + ".out", d, d);
  }

  std::string Finish(const std::string& h) {
    g_.Node("Gemm", {h, Weights("head.w", {s_.width, 10}, s_.width), Weights("head.b", {10}, s_.width)}, {}, "logits");
    g_.Output({"logits", DataType::kFp32, {-1, 10}});
    return graph::Serialize(model_);
  }

  const SequenceSpec& s_;
  onnx::ModelProto model_;
  graph::GraphBuilder g_;
  Random random_;
};

}  // namespace

std::string MakeGruClassifier(const SequenceSpec& spec, std::uint64_t seed) { return Net(spec, seed).Gru(); }
std::string MakeTransformerClassifier(const SequenceSpec& spec, std::uint64_t seed) {
  return Net(spec, seed).Transformer();
}

}  // namespace ganglion::bench
