#include "gradient/gradient.h"

#include <algorithm>
#include <array>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "gradient/rules.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;

constexpr std::array<std::pair<Loss, std::string_view>, 3> kLosses{{
    {Loss::kSoftmaxCrossEntropy, "softmax_cross_entropy"},
    {Loss::kSoftmaxCrossEntropyDense, "softmax_cross_entropy_dense"},
    {Loss::kSquaredError, "squared_error"},
}};

bool IsSoftmaxLoss(Loss loss) { return loss != Loss::kSquaredError; }

// The value the loss is taken on: the model's first output, or what its final (Log)Softmax reads.
std::string Head(const onnx::GraphProto& g, Loss loss) {
  const std::string& out = g.output(0).name();
  if (!IsSoftmaxLoss(loss)) return out;
  for (int i = 0; i < g.node_size(); ++i) {
    const auto& n = g.node(i);
    const bool softmax = n.op_type() == "Softmax" || n.op_type() == "LogSoftmax";
    const std::int64_t axis = graph::IntAttribute(n, "axis", -1);  // over the classes, of [rows, classes]
    if (softmax && n.output_size() > 0 && n.input_size() > 0 && n.output(0) == out && (axis == -1 || axis == 1))
      return n.input(0);
  }
  return out;
}

// Nodes that `value` depends on, in graph order.
std::vector<int> Ancestors(const onnx::GraphProto& g, const std::string& value) {
  std::unordered_set<std::string> needed{value};
  std::vector<int> nodes;
  for (int i = g.node_size() - 1; i >= 0; --i) {
    const auto& n = g.node(i);
    if (std::none_of(n.output().begin(), n.output().end(), [&](const auto& o) { return needed.contains(o); })) continue;
    nodes.push_back(i);
    needed.insert(n.input().begin(), n.input().end());
  }
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

std::vector<std::int64_t> Integers(const tensor::Tensor& t) {
  if (t.type() != DataType::kInt64) return {};
  const auto v = t.As<long>();
  return {v.begin(), v.end()};
}

struct LossNodes {
  std::string loss;
  std::string d_head;
};

// The loss on `head` [rows, K] and its gradient.
LossNodes AppendLoss(GraphBuilder& g, Loss loss, const std::string& head, std::int64_t classes) {
  const std::string w = g.Node("Unsqueeze", {"row_weight", g.Ints("axis", {1})});  // [rows, 1]
  const auto total = [&](const std::string& per_row) {                             // per_row [rows, 1]
    return g.Node("ReduceSum", {g.Node("Mul", {per_row, w})}, {{"keepdims", std::int64_t{0}}}, "loss");
  };
  if (loss == Loss::kSquaredError) {
    const std::string error = g.Node("Sub", {head, "target"});
    const std::string mean =
        g.Node("ReduceMean", {g.Node("Mul", {error, error})}, {{"axes", std::vector<std::int64_t>{1}}});
    const std::string scale = g.Node("Mul", {w, g.Scalar("two_over_k", 2.f / static_cast<float>(classes))});
    return {total(mean), g.Node("Mul", {error, scale})};
  }
  const std::string log_p = g.Node("LogSoftmax", {head}, {{"axis", std::int64_t{-1}}});
  const std::string p = g.Node("Exp", {log_p});
  if (loss == Loss::kSoftmaxCrossEntropyDense) {
    const std::string sum = g.Node("ReduceSum", {g.Node("Mul", {"target", log_p}), g.Ints("axis", {1})});
    // d = w (p sum(t) - t); targets are probabilities, but need not sum to exactly one
    const std::string mass = g.Node("ReduceSum", {"target", g.Ints("axis", {1})});
    const std::string d = g.Node("Mul", {g.Node("Sub", {g.Node("Mul", {p, mass}), "target"}), w});
    return {total(g.Node("Neg", {sum})), d};
  }
  const std::string index = g.Node("Unsqueeze", {"target", g.Ints("axis", {1})});
  const std::string picked = g.Node("GatherElements", {log_p, index}, {{"axis", std::int64_t{1}}});
  const std::string d = g.Node("Mul", {p, w});
  // d = w (p - onehot(t)): -w is added at the true class; a class out of range is the runtime's error.
  const std::string minus = g.Node("Neg", {w});
  const std::string scattered =
      g.Node("ScatterElements", {d, index, minus}, {{"axis", std::int64_t{1}}, {"reduction", std::string("add")}});
  return {total(g.Node("Neg", {picked})), scattered};
}

}  // namespace

std::string_view Name(Loss loss) { return kLosses[static_cast<std::size_t>(loss)].second; }

std::optional<Loss> LossFromName(std::string_view name) {
  for (const auto& [loss, text] : kLosses) {
    if (text == name) return loss;
  }
  return std::nullopt;
}

std::vector<std::string> SupportedOperators() {
  std::vector<std::string> names;
  for (const Rule& rule : Rules()) names.emplace_back(rule.op);
  return names;
}

Result<std::vector<Segment>> Differentiate(const onnx::ModelProto& model, const Options& options,
                                           onnx::ModelProto* step) {
  RETURN_IF_ERROR(graph::Validate(model));
  const auto opset = graph::OpsetVersion(model);
  if (opset < 13 || opset > graph::kOpset) {
    return Unimplemented("the model is of operator set " + std::to_string(opset) +
                         ", training takes 13 to 17; convert it, or export it again");
  }
  const onnx::GraphProto& g = model.graph();
  const std::string head = Head(g, options.loss);
  const std::vector<int> forward = Ancestors(g, head);

  // Every operator without a rule, all at once.
  std::string missing;
  for (const int i : forward) {
    const auto& n = g.node(i);
    if (n.output_size() == 0 || n.output(0).empty())
      return InvalidArgument(graph::Describe(n, i) + " has no first output");
    if (n.op_type() != "Constant" && (FindRule(n.op_type()) == nullptr || !n.domain().empty())) {
      missing += (missing.empty() ? "" : ", ") + graph::Describe(n, i);
    }
  }
  if (!missing.empty()) {
    std::string known;
    for (const auto& name : SupportedOperators()) known += " " + name;
    return Unimplemented("no gradient rule for " + missing + "; there is one for:" + known);
  }

  // The forward part, its constants, and the shapes of everything.
  onnx::ModelProto out;
  GraphBuilder builder(&out);
  out.mutable_opset_import(0)->set_version(std::max<std::int64_t>(opset, 16));
  out.set_doc_string(std::string("training step, loss ") + std::string(Name(options.loss)));
  Shapes shapes;
  std::unordered_set<std::string> reserved{"target", "row_weight", "loss"};
  ASSIGN_OR_RETURN(const auto inputs, graph::InputSpecs(model));
  const auto check_name = [&](const std::string& name) -> Status {
    if (!reserved.contains(name) && !name.starts_with("grad.")) return {};
    return InvalidArgument("the model has a tensor \"" + name +
                           "\", a name that the training step gives to its own; rename it");
  };
  for (const auto& t : g.initializer()) RETURN_IF_ERROR(check_name(t.name()));
  for (const auto& n : g.node()) {
    for (const auto& name : n.output()) RETURN_IF_ERROR(check_name(name));
  }
  for (const auto& spec : inputs) {
    RETURN_IF_ERROR(check_name(spec.name));
    shapes.shape[spec.name] = spec.shape;
  }
  const std::set<std::string> frozen(options.frozen.begin(), options.frozen.end());
  std::vector<Segment> segments;
  std::unordered_set<std::string> needs_gradient;
  std::unordered_set<std::string> read;
  for (const int i : forward) read.insert(g.node(i).input().begin(), g.node(i).input().end());
  for (const auto& t : g.initializer()) {
    if (!read.contains(t.name())) continue;
    ASSIGN_OR_RETURN(const tensor::Tensor value, graph::ToTensor(t));
    shapes.shape[t.name()] = value.shape();
    shapes.ints[t.name()] = Integers(value);
    if (value.type() != DataType::kFp32 || value.shape().empty() || frozen.contains(t.name())) {
      *out.mutable_graph()->add_initializer() = t;
      continue;
    }
    Segment segment{t.name(), value.shape(), segments.empty() ? 0 : segments.back().offset + segments.back().size,
                    static_cast<std::int64_t>(value.As<float>().size())};
    segments.push_back(std::move(segment));
    needs_gradient.insert(t.name());
  }
  for (const auto& name : frozen) {
    if (!shapes.shape.contains(name)) return InvalidArgument("frozen parameter \"" + name + "\" is not in the model");
  }
  if (segments.empty())
    return FailedPrecondition(
        "the model has no trainable parameters (FP32 initializers of rank >= 1 that are not frozen)");
  for (const int i : forward) {
    const auto& n = g.node(i);
    if (n.op_type() == "Constant") {
      const auto* value = graph::FindAttribute(n, "value");
      if (value == nullptr || !value->has_t()) return Unimplemented(graph::Describe(n, i) + " has no tensor \"value\"");
      ASSIGN_OR_RETURN(const tensor::Tensor t, graph::ToTensor(value->t()));
      shapes.shape[n.output(0)] = t.shape();
      shapes.ints[n.output(0)] = Integers(t);
    } else {
      const Rule& rule = *FindRule(n.op_type());
      for (int in = 0; in < std::max(rule.inputs, n.input_size()); ++in) {
        const bool given = in < n.input_size() && !n.input(in).empty();
        if (in < rule.inputs && !given)
          return InvalidArgument(graph::Describe(n, i) + " has " + std::to_string(n.input_size()) + " inputs, needs " +
                                 std::to_string(rule.inputs));
        if (given && !shapes.shape.contains(n.input(in)))
          return Unimplemented(graph::Describe(n, i) + " reads \"" + n.input(in) + "\", whose shape is not known");
      }
      auto shape = rule.infer(n, shapes);
      if (!shape.ok()) return shape.status().Within(graph::Describe(n, i));
      shapes.shape[n.output(0)] = std::move(*shape);
    }
    *out.mutable_graph()->add_node() = n;
    if (std::any_of(n.input().begin(), n.input().end(), [&](const auto& in) { return needs_gradient.contains(in); })) {
      needs_gradient.insert(n.output(0));
    }
  }
  const Shape head_shape = shapes.shape.at(head);
  if (head_shape.size() != 2 || head_shape[1] < 1) {
    return InvalidArgument("the loss takes an output of shape [rows, K], \"" + head + "\" is " +
                           tensor::ShapeText(head_shape));
  }

  // The step's inputs, the loss, and then backwards.
  GraphBuilder b(&out);
  for (const auto& spec : inputs) {
    if (read.contains(spec.name)) b.Input(spec);
  }
  b.Input({"target", options.loss == Loss::kSoftmaxCrossEntropy ? DataType::kInt64 : DataType::kFp32,
           options.loss == Loss::kSoftmaxCrossEntropy ? Shape{-1} : Shape{-1, head_shape[1]}});
  b.Input({"row_weight", DataType::kFp32, {-1}});
  for (const auto& s : segments) b.Input({s.name, DataType::kFp32, s.shape});
  const LossNodes loss = AppendLoss(b, options.loss, head, head_shape[1]);

  std::unordered_map<std::string, std::vector<std::string>> gradients{{head, {loss.d_head}}};
  const auto total = [&](const std::string& value) -> std::string {
    const auto at = gradients.find(value);
    if (at == gradients.end()) return "";
    std::string sum = at->second[0];
    for (std::size_t k = 1; k < at->second.size(); ++k) sum = b.Node("Add", {sum, at->second[k]});
    return sum;
  };
  for (auto at = forward.rbegin(); at != forward.rend(); ++at) {
    const auto& n = g.node(*at);
    if (n.op_type() == "Constant" || !needs_gradient.contains(n.output(0))) continue;
    const std::string dy = total(n.output(0));
    if (dy.empty()) continue;
    Backward backward(n, shapes, dy, &b);
    std::vector<bool> wanted;
    for (const auto& in : n.input()) wanted.push_back(needs_gradient.contains(in));
    backward.Want(wanted);
    if (auto s = FindRule(n.op_type())->gradient(backward); !s.ok()) return s.Within(graph::Describe(n, *at));
    for (const auto& [i, gradient] : backward.given()) {
      if (wanted[static_cast<std::size_t>(i)]) gradients[n.input(i)].push_back(gradient);
    }
  }

  b.Output({"loss", DataType::kFp32, {}});
  std::unordered_map<std::string, std::string> owner;  // of a gradient that has been renamed
  for (const auto& s : segments) {
    const std::string sum = total(s.name);
    if (sum.empty()) return Internal("parameter \"" + s.name + "\" got no gradient");
    // The node that makes the sum makes the output; a copy is needed only where two parameters share one gradient.
    if (const auto [first, fresh] = owner.emplace(sum, s.name); fresh) {
      b.Rename(sum, "grad." + s.name);
    } else {
      b.Node("Identity", {"grad." + first->second}, {}, "grad." + s.name);
    }
    b.Output({"grad." + s.name, DataType::kFp32, s.shape});
  }
  if (auto s = graph::Validate(out); !s.ok()) return s.Within("training step");
  *step = std::move(out);
  return segments;
}

}  // namespace ganglion::gradient
