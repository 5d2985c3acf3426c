#include "gradient/losses.h"

#include <algorithm>
#include <array>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;

constexpr std::array<std::pair<Loss, std::string_view>, 6> kLosses{{
    {Loss::kSoftmaxCrossEntropy, "softmax_cross_entropy"},
    {Loss::kSoftmaxCrossEntropyDense, "softmax_cross_entropy_dense"},
    {Loss::kSquaredError, "squared_error"},
    {Loss::kSigmoidCrossEntropy, "sigmoid_cross_entropy"},
    {Loss::kHuber, "huber"},
    {Loss::kDistillation, "distillation"},
}};

bool IsSoftmaxLoss(Loss loss) {
  return loss == Loss::kSoftmaxCrossEntropy || loss == Loss::kSoftmaxCrossEntropyDense || loss == Loss::kDistillation;
}

// Everything a loss is written in: rows are the positions of all examples, [positions, K].
struct Rows {
  GraphBuilder& g;
  std::string head;
  std::string w;  // FP32[positions, 1]
  std::int64_t classes;

  std::string Sum(const std::string& v) const {  // over the classes
    return g.Node("ReduceSum", {v, g.Ints("axis", {1})});
  }
  std::string Mean(const std::string& v) const {
    return g.Node("ReduceMean", {v}, {{"axes", std::vector<std::int64_t>{1}}});
  }
  std::string Mul(const std::string& a, const std::string& b) const { return g.Node("Mul", {a, b}); }
  std::string Mul(const std::string& a, float b) const { return Mul(a, g.Scalar("factor", b)); }
  std::string Sub(const std::string& a, const std::string& b) const { return g.Node("Sub", {a, b}); }
  std::string Neg(const std::string& a) const { return g.Node("Neg", {a}); }
  // w / K: the weight of each number where a row's loss is the mean over its numbers.
  std::string WeightOfEach(float factor = 1) const { return Mul(w, factor / static_cast<float>(classes)); }
  std::string LogSoftmax(const std::string& v) const { return g.Node("LogSoftmax", {v}, {{"axis", std::int64_t{-1}}}); }
};

// The loss of each row [positions, 1], not yet weighted, and the weighted gradient.
struct PerRow {
  std::string loss;
  std::string d_head;
};

// d = w (p - onehot(t)): -w is added at the true class; a class out of range is the runtime's error.
PerRow CrossEntropy(const Rows& r, const std::string& classes, const std::string& w) {
  const std::string log_p = r.LogSoftmax(r.head);
  const std::string index = r.g.Node("Reshape", {classes, r.g.Ints("column", {-1, 1})});
  const std::string picked = r.g.Node("GatherElements", {log_p, index}, {{"axis", std::int64_t{1}}});
  const std::string d = r.Mul(r.g.Node("Exp", {log_p}), w);
  const std::string scattered =
      r.g.Node("ScatterElements", {d, index, r.Neg(w)}, {{"axis", std::int64_t{1}}, {"reduction", std::string("add")}});
  return {r.Neg(picked), scattered};
}

// d = w (p sum(t) - t); targets are probabilities, but need not sum to exactly one.
PerRow DenseCrossEntropy(const Rows& r, const std::string& target) {
  const std::string log_p = r.LogSoftmax(r.head);
  const std::string sum = r.Sum(r.Mul(target, log_p));
  const std::string d = r.Sub(r.Mul(r.g.Node("Exp", {log_p}), r.Sum(target)), target);
  return {r.Neg(sum), r.Mul(d, r.w)};
}

PerRow SquaredError(const Rows& r, const std::string& target) {
  const std::string error = r.Sub(r.head, target);
  return {r.Mean(r.Mul(error, error)), r.Mul(error, r.WeightOfEach(2))};
}

// l = softplus(y) - t y, which neither overflows nor loses digits; d = sigmoid(y) - t.
PerRow SigmoidCrossEntropy(const Rows& r, const std::string& target) {
  // softplus(y) = max(y, 0) + log(1 + exp(-|y|)): the runtime's Softplus rounds away small values.
  const std::string small = r.g.Node("Exp", {r.Neg(r.g.Node("Abs", {r.head}))});
  const std::string log1p = r.g.Node("Log", {r.g.Node("Add", {small, r.g.Scalar("one", 1)})});
  const std::string softplus = r.g.Node("Add", {r.g.Node("Relu", {r.head}), log1p});
  const std::string d = r.Sub(r.g.Node("Sigmoid", {r.head}), target);
  return {r.Mean(r.Sub(softplus, r.Mul(target, r.head))), r.Mul(d, r.WeightOfEach())};
}

// With c = clip(e, -delta, delta): h(e) = c (e - c / 2), and h' = c.
PerRow Huber(const Rows& r, const std::string& target, float delta) {
  const std::string error = r.Sub(r.head, target);
  const std::string clipped = r.g.Node("Clip", {error, r.g.Scalar("low", -delta), r.g.Scalar("high", delta)});
  return {r.Mean(r.Mul(clipped, r.Sub(error, r.Mul(clipped, .5f)))), r.Mul(clipped, r.WeightOfEach())};
}

// d of the soft part: w (1 - h) T (softmax(y/T) - softmax(z/T)).
PerRow Distillation(const Rows& r, const std::string& target, float temperature, float hard) {
  const std::string log_q = r.LogSoftmax(r.Mul(r.head, 1 / temperature));
  const std::string log_p = r.LogSoftmax(r.Mul(target, 1 / temperature));
  const std::string p = r.g.Node("Exp", {log_p});
  const std::string kl = r.Sum(r.Mul(p, r.Sub(log_p, log_q)));
  const std::string d = r.Mul(r.Sub(r.g.Node("Exp", {log_q}), p), r.Mul(r.w, (1 - hard) * temperature));
  PerRow soft{r.Mul(kl, (1 - hard) * temperature * temperature), d};
  if (hard == 0) return soft;
  const PerRow labels = CrossEntropy(r, "label", r.Mul(r.w, hard));
  return {r.g.Node("Add", {soft.loss, r.Mul(labels.loss, hard)}), r.g.Node("Add", {soft.d_head, labels.d_head})};
}

}  // namespace

std::string_view Name(Loss loss) { return kLosses[static_cast<std::size_t>(loss)].second; }

std::optional<Loss> LossFromName(std::string_view name) {
  for (const auto& [loss, text] : kLosses) {
    if (text == name) return loss;
  }
  return std::nullopt;
}

std::vector<std::string> LossNames() {
  std::vector<std::string> names;
  names.reserve(kLosses.size());
  for (const auto& [loss, text] : kLosses) names.emplace_back(text);
  return names;
}

std::string Head(const onnx::GraphProto& g, Loss loss, const std::string& output) {
  const auto* out = &g.output(0);
  for (const auto& v : g.output()) {
    if (v.name() == output) out = &v;
  }
  std::string made = out->name();  // by what, through copies
  for (int i = g.node_size() - 1; i >= 0; --i) {
    const auto& n = g.node(i);
    if (n.output_size() == 0 || n.input_size() == 0 || n.output(0) != made) continue;
    if (n.op_type() == "Identity") {
      made = n.input(0);
      continue;
    }
    const std::int64_t axis = graph::IntAttribute(n, "axis", -1);
    const bool softmax = n.op_type() == "Softmax" || n.op_type() == "LogSoftmax";
    const bool over_classes = axis == -1 || axis + 1 == out->type().tensor_type().shape().dim_size();
    if (IsSoftmaxLoss(loss) && softmax && over_classes) return n.input(0);
    if (loss == Loss::kSigmoidCrossEntropy && n.op_type() == "Sigmoid") return n.input(0);
    break;
  }
  return out->name();
}

Status CheckLoss(const Options& o) {
  const auto refuse = [](const std::string& what, float value, const std::string& want) {
    return InvalidArgument(what + " must be " + want + ", got " + std::to_string(value));
  };
  if (!(o.huber_delta > 0)) return refuse("huber_delta", o.huber_delta, "> 0");
  if (!(o.temperature > 0)) return refuse("temperature", o.temperature, "> 0");
  if (!(o.hard_share >= 0 && o.hard_share <= 1)) return refuse("hard_share", o.hard_share, "in [0, 1]");
  if (!(o.proximal >= 0)) return refuse("proximal", o.proximal, ">= 0");
  if (o.clip_norm && !(*o.clip_norm > 0)) return refuse("clip_norm", *o.clip_norm, "> 0");
  return {};
}

tensor::Spec TargetSpec(Loss loss, const Shape& head) {
  if (loss == Loss::kSoftmaxCrossEntropy) return {"target", DataType::kInt64, Shape(head.begin(), head.end() - 1)};
  return {"target", DataType::kFp32, head};
}

Result<LossNodes> AppendLoss(GraphBuilder& g, const Options& options, const std::string& head, const Shape& shape) {
  // Clipping scales examples later, when their norms are known.
  const std::string ones = options.clip_norm ? g.Node("Pow", {"row_weight", g.Scalar("zero", 0)}) : "row_weight";
  const auto column = [&](const std::string& v) { return g.Node("Unsqueeze", {v, g.Ints("axis", {1})}); };
  Rows r{g, head, column(ones), shape.back()};
  std::string weight = options.clip_norm ? column("row_weight") : r.w;
  std::string target = "target";
  const bool flat = shape.size() == 2;
  if (!flat) {  // every position is a row of its own, with its share of the example's weight
    std::int64_t positions = 1;
    for (std::size_t i = 1; i + 1 < shape.size(); ++i) {
      if (shape[i] < 1)
        return Unimplemented("a loss on " + tensor::ShapeText(shape) +
                             ": sizes between batch and classes must be fixed");
      positions *= shape[i];
    }
    const auto spread = [&](const std::string& v) {
      const std::string share = r.Mul(v, 1 / static_cast<float>(positions));
      const std::string repeated = g.Node("Tile", {share, g.Ints("repeats", {1, positions})});
      return g.Node("Reshape", {repeated, g.Ints("column", {-1, 1})});
    };
    const bool same = weight == r.w;
    r.w = spread(r.w);
    weight = same ? r.w : spread(weight);
    r.head = g.Node("Reshape", {head, g.Ints("rows", {-1, shape.back()})});
    if (options.loss != Loss::kSoftmaxCrossEntropy)
      target = g.Node("Reshape", {target, g.Ints("rows", {-1, shape.back()})});
  }
  PerRow per_row;
  switch (options.loss) {
    case Loss::kSoftmaxCrossEntropy:
      per_row = CrossEntropy(r, target, r.w);
      break;
    case Loss::kSoftmaxCrossEntropyDense:
      per_row = DenseCrossEntropy(r, target);
      break;
    case Loss::kSquaredError:
      per_row = SquaredError(r, target);
      break;
    case Loss::kSigmoidCrossEntropy:
      per_row = SigmoidCrossEntropy(r, target);
      break;
    case Loss::kHuber:
      per_row = Huber(r, target, options.huber_delta);
      break;
    case Loss::kDistillation:
      per_row = Distillation(r, target, options.temperature, options.hard_share);
      break;
  }
  const std::string loss = g.Node("ReduceSum", {r.Mul(per_row.loss, weight)}, {{"keepdims", std::int64_t{0}}}, "loss");
  std::string d = per_row.d_head;
  if (!flat) d = g.Node("Reshape", {d, g.Ints("shape", shape)});
  return LossNodes{loss, d};
}

void AppendProximal(GraphBuilder& g, float mu, const Segment& p, std::string* gradient, std::string* loss) {
  const std::string anchor = "anchor." + p.name;
  g.Input({anchor, DataType::kFp32, p.shape});
  const std::string apart = g.Node("Sub", {p.name, anchor});
  const std::string pull = g.Node("Mul", {apart, g.Scalar("mu", mu)});
  *gradient = gradient->empty() ? pull : g.Node("Add", {*gradient, pull});
  const std::string square = g.Node("ReduceSum", {g.Node("Mul", {apart, pull})}, {{"keepdims", std::int64_t{0}}});
  *loss = g.Node("Add", {*loss, g.Node("Mul", {square, g.Scalar("half", .5f)})});
}

}  // namespace ganglion::gradient
