#include "gradient/gradient.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "gradient/known.h"
#include "gradient/losses.h"
#include "gradient/pools_first.h"
#include "gradient/rules.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;

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

void Know(Shapes* shapes, const std::string& name, const tensor::Tensor& t) {
  shapes->shape[name] = t.shape();
  if (t.type() == DataType::kInt64) {
    const auto v = t.As<long>();
    shapes->ints[name].assign(v.begin(), v.end());
  }
  if (t.type() == DataType::kInt32) {
    const auto v = t.As<int>();
    shapes->ints[name].assign(v.begin(), v.end());
  }
  if (t.type() == DataType::kBool) {
    for (const std::byte b : t.View().bytes) shapes->ints[name].push_back(b == std::byte{0} ? 0 : 1);
  }
  if (t.type() == DataType::kFp32 && t.As<float>().size() <= kKnownNumbers) {
    const auto v = t.As<float>();
    shapes->floats[name].assign(v.begin(), v.end());
  }
}

std::int64_t End(const std::vector<Segment>& segments) {
  return segments.empty() ? 0 : segments.back().offset + segments.back().size;
}

// Inputs that are part of the architecture and not parameters, even as FP32 lists: bounds, scales, ratios.
bool IsSetting(const std::string& op, int input) {
  static const std::map<std::string, int> kFrom{{"Clip", 1}, {"Dropout", 1}, {"OneHot", 1},
                                                {"Pad", 2},  {"Range", 0},   {"Resize", 1}};
  const auto at = kFrom.find(op);
  return at != kFrom.end() && input >= at->second;
}

// One differentiation, in the order of its steps.
class Differentiation {
 public:
  Differentiation(const onnx::ModelProto& model, const Options& options)
      : model_(model),
        options_(options),
        head_(Head(model.graph(), options.loss)),
        forward_(Ancestors(model.graph(), head_)) {
    shapes_.usual_batch = options.usual_batch;
  }

  Result<StepModel> Run(onnx::ModelProto* step) {
    RETURN_IF_ERROR(CheckLoss(options_));
    RETURN_IF_ERROR(CheckOperators());
    builder_.emplace(&out_);
    builder_->Avoid(model_.graph());
    out_.mutable_opset_import(0)->set_version(std::max<std::int64_t>(graph::OpsetVersion(model_), 16));
    out_.set_doc_string(std::string("training step, loss ") + std::string(Name(options_.loss)));
    RETURN_IF_ERROR(TakeInputs());
    RETURN_IF_ERROR(TakeInitializers());
    for (const int i : forward_) {
      if (auto s = AppendForward(model_.graph().node(i), i); !s.ok()) return s;
    }
    RETURN_IF_ERROR(AppendTheLoss());
    RETURN_IF_ERROR(AppendBackward());
    RETURN_IF_ERROR(NameOutputs());
    if (auto s = graph::Validate(out_); !s.ok()) return s.Within("training step");
    *step = std::move(out_);
    return std::move(result_);
  }

 private:
  GraphBuilder& b() { return *builder_; }

  // Every operator without a rule, all at once.
  Status CheckOperators() const {
    std::string missing;
    for (const int i : forward_) {
      const auto& n = model_.graph().node(i);
      if (std::all_of(n.output().begin(), n.output().end(), [](const auto& o) { return o.empty(); }))
        return InvalidArgument(graph::Describe(n, i) + " has no output");
      if (n.op_type() != "Constant" && (FindRule(n.op_type()) == nullptr || !n.domain().empty()))
        missing += (missing.empty() ? "" : ", ") + graph::Describe(n, i);
    }
    if (missing.empty()) return {};
    std::string known;
    for (const auto& name : SupportedOperators()) known += " " + name;
    const char* hint = missing.find("Einsum") == std::string::npos ? "" : " (write Einsum as MatMul and Transpose)";
    return Unimplemented("no gradient rule for " + missing + hint + "; there is one for:" + known);
  }

  Status CheckName(const std::string& name) const {
    static const std::unordered_set<std::string> kReserved{"target", "row_weight", "loss", "label"};
    static const std::vector<std::string> kPrefixes{"grad.", "next.", "noise.", "anchor."};
    const bool prefixed =
        std::any_of(kPrefixes.begin(), kPrefixes.end(), [&](const std::string& p) { return name.rfind(p, 0) == 0; });
    if (!kReserved.contains(name) && !prefixed) return {};
    return InvalidArgument("the model has a tensor \"" + name +
                           "\", a name that the training step gives to its own; rename it");
  }

  Status TakeInputs() {
    const onnx::GraphProto& g = model_.graph();
    for (const auto& t : g.initializer()) RETURN_IF_ERROR(CheckName(t.name()));
    for (const auto& n : g.node()) {
      for (const auto& name : n.output()) RETURN_IF_ERROR(CheckName(name));
    }
    ASSIGN_OR_RETURN(inputs_, graph::InputSpecs(model_));
    for (const auto& spec : inputs_) {
      RETURN_IF_ERROR(CheckName(spec.name));
      shapes_.shape[spec.name] = spec.shape;
    }
    for (const int i : forward_) {
      const auto& n = g.node(i);
      for (int in = 0; in < n.input_size(); ++in) {
        read_.insert(n.input(in));
        if (!IsSetting(n.op_type(), in)) trainable_.insert(n.input(in));
      }
    }
    return {};
  }

  // Parameters and statistics become inputs of the step, everything else stays a constant of it.
  Status TakeInitializers() {
    const std::set<std::string> frozen(options_.frozen.begin(), options_.frozen.end());
    std::unordered_set<std::string> statistics;
    for (const int i : forward_) {
      const auto& n = model_.graph().node(i);
      if (n.op_type() == "BatchNormalization" && n.input_size() == 5) statistics.insert({n.input(3), n.input(4)});
    }
    for (const auto& t : model_.graph().initializer()) {
      if (!read_.contains(t.name())) continue;
      ASSIGN_OR_RETURN(const tensor::Tensor value, graph::ToTensor(t));
      Know(&shapes_, t.name(), value);
      const bool statistic = statistics.contains(t.name());
      const bool constant = value.type() != DataType::kFp32 || value.shape().empty() || frozen.contains(t.name()) ||
                            !trainable_.contains(t.name());
      if (constant || (statistic && options_.freeze_statistics)) {
        *out_.mutable_graph()->add_initializer() = t;
        continue;
      }
      auto& segments = statistic ? result_.statistics : result_.parameters;
      segments.push_back({t.name(), value.shape(), End(segments), static_cast<std::int64_t>(value.As<float>().size())});
      shapes_.floats.erase(t.name());
      if (!statistic) needs_gradient_.insert(t.name());
    }
    for (const auto& name : frozen) {
      if (!shapes_.shape.contains(name))
        return InvalidArgument("frozen parameter \"" + name + "\" is not in the model");
    }
    if (result_.parameters.empty())
      return FailedPrecondition(
          "the model has no trainable parameters (FP32 initializers of rank >= 1 that are not frozen)");
    return {};
  }

  Status CheckInputs(const onnx::NodeProto& n, int index, const Rule& rule) const {
    for (int in = 0; in < std::max(rule.inputs, n.input_size()); ++in) {
      const bool given = in < n.input_size() && !n.input(in).empty();
      if (in < rule.inputs && !given)
        return InvalidArgument(graph::Describe(n, index) + " has " + std::to_string(n.input_size()) +
                               " inputs, needs " + std::to_string(rule.inputs));
      if (given && !shapes_.shape.contains(n.input(in)))
        return Unimplemented(graph::Describe(n, index) + " reads \"" + n.input(in) + "\", whose shape is not known");
    }
    return {};
  }

  Status AppendForward(onnx::NodeProto n, int index) {
    if (n.op_type() == "Constant") {
      RETURN_IF_ERROR(TakeConstant(n, index));
      *out_.mutable_graph()->add_node() = n;
      nodes_.push_back({std::move(n), index});
      return {};
    }
    const Rule& rule = *FindRule(n.op_type());
    RETURN_IF_ERROR(CheckInputs(n, index, rule));
    auto shapes = rule.infer(n, shapes_);
    if (!shapes.ok()) return shapes.status().Within(graph::Describe(n, index));
    for (int i = 0; i < n.output_size() && i < static_cast<int>(shapes->size()); ++i) {
      if (!n.output(i).empty()) shapes_.shape[n.output(i)] = (*shapes)[static_cast<std::size_t>(i)];
    }
    bool needs = rule.gradient != nullptr && std::any_of(n.input().begin(), n.input().end(),
                                                         [&](const auto& in) { return needs_gradient_.contains(in); });
    bool replaced = false;
    if (rule.forward != nullptr) {
      Forward f{&n, b(), shapes_, options_, needs, false, {}, {}};
      if (auto s = rule.forward(f); !s.ok()) return s.Within(graph::Describe(n, index));
      replaced = f.replaced;
      needs = f.needs_gradient;
      for (auto& [name, next] : f.statistics) next_.emplace_back(std::move(name), std::move(next));
      for (auto& spec : f.noise) result_.noise.push_back(std::move(spec));
    }
    if (needs) {
      for (const auto& o : n.output()) {
        if (!o.empty()) needs_gradient_.insert(o);
      }
    }
    Learn(n, shapes_);
    if (!replaced) *out_.mutable_graph()->add_node() = n;
    nodes_.push_back({std::move(n), index});
    return {};
  }

  Status TakeConstant(const onnx::NodeProto& n, int index) {
    const std::string& name = n.output(0);
    for (const auto& a : n.attribute()) {
      if (a.name() == "value" && a.has_t()) {
        ASSIGN_OR_RETURN(const tensor::Tensor t, graph::ToTensor(a.t()));
        Know(&shapes_, name, t);
      } else if (a.name() == "value_int") {
        shapes_.shape[name] = {};
        shapes_.ints[name] = {a.i()};
      } else if (a.name() == "value_ints") {
        shapes_.shape[name] = {a.ints_size()};
        shapes_.ints[name].assign(a.ints().begin(), a.ints().end());
      } else if (a.name() == "value_float") {
        shapes_.shape[name] = {};
        shapes_.floats[name] = {a.f()};
      } else if (a.name() == "value_floats") {
        shapes_.shape[name] = {a.floats_size()};
        shapes_.floats[name].assign(a.floats().begin(), a.floats().end());
      }
    }
    if (!shapes_.shape.contains(name)) return Unimplemented(graph::Describe(n, index) + " has no numbers as its value");
    return {};
  }

  Status AppendTheLoss() {
    const Shape head = shapes_.shape.at(head_);
    if (head.size() < 2 || head.back() < 1) {
      return InvalidArgument("the loss takes an output of shape [rows, K] or [rows, ..., K], \"" + head_ + "\" is " +
                             tensor::ShapeText(head));
    }
    for (const auto& spec : inputs_) {
      if (read_.contains(spec.name)) b().Input(spec);
    }
    result_.target = TargetSpec(options_.loss, head);
    // The batch is the head's; a model whose batch is fixed has a target of that size.
    b().Input(result_.target);
    if (options_.loss == Loss::kDistillation && options_.hard_share > 0)
      b().Input({"label", DataType::kInt64, Shape(head.begin(), head.end() - 1)});
    b().Input({"row_weight", DataType::kFp32, {head[0]}});
    for (const auto& spec : result_.noise) b().Input(spec);
    for (const auto& s : result_.parameters) b().Input({s.name, DataType::kFp32, s.shape});
    for (const auto& s : result_.statistics) b().Input({s.name, DataType::kFp32, s.shape});
    ASSIGN_OR_RETURN(const LossNodes loss, AppendLoss(b(), options_, head_, head));
    gradients_[head_] = {loss.d_head};
    return {};
  }

  // The gradient of a value: the sum of what its readers gave; "" when nothing depends on it.
  std::string Total(const std::string& value) {
    const auto at = gradients_.find(value);
    if (at == gradients_.end()) return "";
    std::string sum = at->second[0];
    for (std::size_t k = 1; k < at->second.size(); ++k) sum = b().Node("Add", {sum, at->second[k]});
    at->second = {sum};
    return sum;
  }

  Status AppendBackward() {
    for (auto at = nodes_.rbegin(); at != nodes_.rend(); ++at) {
      const auto& [n, index] = *at;
      if (n.op_type() == "Constant") continue;
      const Rule& rule = *FindRule(n.op_type());
      if (rule.gradient == nullptr) continue;
      std::vector<std::string> dys;
      bool any = false;
      for (const auto& o : n.output()) {
        dys.push_back(needs_gradient_.contains(o) ? Total(o) : "");
        any |= !dys.back().empty();
        if (!dys.back().empty() && dys.size() > 1 && !rule.many_outputs)
          return Unimplemented(graph::Describe(n, index) + ": no gradient rule for its output " +
                               std::to_string(dys.size() - 1));
      }
      if (!any) continue;
      Backward backward(n, shapes_, std::move(dys), &b());
      std::vector<bool> wanted;
      for (const auto& in : n.input()) wanted.push_back(needs_gradient_.contains(in));
      backward.Want(wanted);
      if (auto s = rule.gradient(backward); !s.ok()) return s.Within(graph::Describe(n, index));
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (wanted[i] && !backward.given().contains(static_cast<int>(i)))
          return Unimplemented(graph::Describe(n, index) + ": no gradient rule for its input " + std::to_string(i) +
                               " (\"" + n.input(static_cast<int>(i)) + "\")");
      }
      for (const auto& [i, gradient] : backward.given()) {
        if (wanted[static_cast<std::size_t>(i)]) gradients_[n.input(i)].push_back(gradient);
      }
    }
    return {};
  }

  // mu/2 ||theta - anchor||^2 and its gradient.
  void AppendProximal(const Segment& s, std::string* sum, std::string* loss) {
    const std::string anchor = "anchor." + s.name;
    b().Input({anchor, DataType::kFp32, s.shape});
    const std::string apart = b().Node("Sub", {s.name, anchor});
    const std::string pull = b().Node("Mul", {apart, b().Scalar("mu", options_.proximal)});
    *sum = sum->empty() ? pull : b().Node("Add", {*sum, pull});
    const std::string square = b().Node("ReduceSum", {b().Node("Mul", {apart, pull})}, {KeepDims(false)});
    *loss = b().Node("Add", {*loss, b().Node("Mul", {square, b().Scalar("half", .5f)})});
  }

  Status NameOutputs() {
    std::unordered_map<std::string, std::string> owner;  // of a gradient that has been renamed
    std::string loss = "loss";
    std::vector<std::string> sums;
    for (const auto& s : result_.parameters) {
      std::string sum = Total(s.name);
      if (options_.proximal > 0) AppendProximal(s, &sum, &loss);
      // A parameter that the loss does not depend on (a branch that a constant condition cuts, say): no change.
      if (sum.empty()) sum = b().Node("Mul", {s.name, b().Scalar("zero", 0)});
      sums.push_back(sum);
    }
    if (loss != "loss") {
      b().Rename("loss", "loss.of_data");
      b().Rename(loss, "loss");
    }
    b().Output({"loss", DataType::kFp32, {}});
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const Segment& s = result_.parameters[i];
      // The node that makes the sum makes the output; a copy is needed only where two parameters share one gradient.
      if (const auto [first, fresh] = owner.emplace(sums[i], s.name); fresh) {
        b().Rename(sums[i], "grad." + s.name);
      } else {
        b().Node("Identity", {"grad." + first->second}, {}, "grad." + s.name);
      }
      b().Output({"grad." + s.name, DataType::kFp32, s.shape});
    }
    for (const auto& s : result_.statistics) {
      const auto at = std::find_if(next_.begin(), next_.end(), [&](const auto& n) { return n.first == s.name; });
      const std::string next = at == next_.end() ? s.name : at->second;
      b().Node("Identity", {next}, {}, "next." + s.name);
      b().Output({"next." + s.name, DataType::kFp32, s.shape});
    }
    return {};
  }

  struct Placed {
    onnx::NodeProto node;  // as it is in the step
    int index;             // in the model
  };

  const onnx::ModelProto& model_;
  const Options& options_;
  const std::string head_;
  const std::vector<int> forward_;
  onnx::ModelProto out_;
  std::optional<GraphBuilder> builder_;
  Shapes shapes_;
  std::vector<tensor::Spec> inputs_;
  std::unordered_set<std::string> read_;
  std::unordered_set<std::string> trainable_;  // read where a parameter can be
  std::unordered_set<std::string> needs_gradient_;
  std::vector<Placed> nodes_;
  std::vector<std::pair<std::string, std::string>> next_;  // statistics and the values that replace them
  std::unordered_map<std::string, std::vector<std::string>> gradients_;
  StepModel result_;
};

}  // namespace

std::vector<std::string> SupportedOperators() {
  std::vector<std::string> names;
  names.reserve(Rules().size());
  for (const Rule& rule : Rules()) names.emplace_back(rule.op);
  return names;
}

Result<StepModel> Differentiate(const onnx::ModelProto& model, const Options& options, onnx::ModelProto* step) {
  RETURN_IF_ERROR(graph::Validate(model));
  const auto opset = graph::OpsetVersion(model);
  if (opset < 13 || opset > graph::kOpset) {
    return Unimplemented("the model is of operator set " + std::to_string(opset) +
                         ", training takes 13 to 17; convert it, or export it again");
  }
  onnx::ModelProto rearranged = model;
  PoolsFirst(rearranged.mutable_graph());
  return Differentiation(rearranged, options).Run(step);
}

}  // namespace ganglion::gradient
