#include "gradient/gradient.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "gradient/clip.h"
#include "gradient/known.h"
#include "gradient/losses.h"
#include "gradient/pools_first.h"
#include "gradient/rules.h"
#include "gradient/upgrade.h"
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

Status CheckOutput(const onnx::GraphProto& g, const std::string& output) {
  std::string have;
  for (const auto& v : g.output()) {
    if (output.empty() || v.name() == output) return {};
    have += " " + v.name();
  }
  return InvalidArgument("the model has no output \"" + output + "\"; it has:" + have);
}

// One differentiation, in the order of its steps.
class Differentiation {
 public:
  Differentiation(const onnx::ModelProto& model, const Options& options)
      : model_(model),
        options_(options),
        head_(Head(model.graph(), options.loss, options.output)),
        forward_(Ancestors(model.graph(), head_)) {
    shapes_.usual_batch = options.usual_batch;
    shapes_.one_thread = options.one_thread;
  }

  Result<StepModel> Run(onnx::ModelProto* step) {
    RETURN_IF_ERROR(CheckLoss(options_));
    RETURN_IF_ERROR(CheckOperators());
    RETURN_IF_ERROR(CheckClipping());
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

  // Not "": why one pass cannot clip example by example, where nothing else was wrong.
  const std::string& inseparable() const { return inseparable_; }

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
    return Unimplemented("no gradient rule for " + missing + Hint(missing) + "; there is one for:" + known);
  }

  // What to do about it.
  static std::string Hint(const std::string& missing) {
    std::string hint;
    if (missing.find("(Einsum)") != std::string::npos) hint += "; write Einsum as MatMul and Transpose";
    if (missing.find("(If)") != std::string::npos)
      hint += "; an If goes away where its condition follows from fixed inputs and sizes (--fix, --shape)";
    return hint;
  }

  Status CheckName(const std::string& name) const {
    static const std::unordered_set<std::string> kReserved{"target", "row_weight", "loss", "label", "norms"};
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
      Know(t.name(), value, &shapes_);
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
          "the model has no trainable parameters (FP32 initializers of rank >= 1 that are not frozen; weights in "
          "Constant nodes become such by Prepare)");
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
      if (auto s = LearnConstant(n, &shapes_); !s.ok()) return s.Within(graph::Describe(n, index));
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
    return options_.clip_norm ? FollowExamples(head[0]) : Status();
  }

  // There is no gradient of one example where the others decide how it is normalised.
  Status CheckClipping() const {
    if (!options_.clip_norm || options_.freeze_statistics) return {};
    for (const int i : forward_) {
      const auto& n = model_.graph().node(i);
      if (n.op_type() == "BatchNormalization")
        return FailedPrecondition(graph::Describe(n, i) +
                                  " mixes the examples of a batch, so none has a gradient to clip; freeze its "
                                  "statistics (--freeze-statistics), or normalise within examples");
    }
    return {};
  }

  // Where the examples are in every value. What one pass cannot tell apart is not an error: `inseparable_`.
  Status FollowExamples(std::int64_t batch) {
    clip_.emplace(b(), shapes_, *options_.clip_norm, batch);
    for (const auto& spec : inputs_) clip_->Input(spec);
    for (const auto& [n, index] : nodes_) {
      if (auto s = clip_->Follow(n); !s.ok()) return Inseparable(s.Within(graph::Describe(n, index)));
    }
    return clip_->IsRows(head_) ? Status()
                                : Inseparable(Unimplemented("the rows of \"" + head_ + "\" are not the examples"));
  }
  Status Inseparable(Status why) {
    inseparable_ = why.message();
    return why;
  }

  // Pushes the gradients of a node's outputs to its inputs; with clipping, what is the same for all examples is owed.
  Status PassBack(const onnx::NodeProto& n, int index) {
    const Rule& rule = *FindRule(n.op_type());
    std::vector<std::string> dys;
    bool any = false;
    bool differs = false;
    for (const auto& o : n.output()) {
      dys.push_back(needs_gradient_.contains(o) ? Total(o) : "");
      any |= !dys.back().empty();
      differs |= !dys.back().empty() && clip_ && clip_->Differs(o);
      if (!dys.back().empty() && dys.size() > 1 && !rule.many_outputs)
        return Unimplemented(graph::Describe(n, index) + ": no gradient rule for its output " +
                             std::to_string(dys.size() - 1));
    }
    if (!any) return {};
    std::vector<bool> wanted;
    for (int i = 0; i < n.input_size(); ++i) {
      const bool needed = needs_gradient_.contains(n.input(i));
      const bool owed = needed && differs && !clip_->Differs(n.input(i));
      if (owed) clip_->Owe({&n, i, dys});
      wanted.push_back(needed && !owed);
    }
    if (std::none_of(wanted.begin(), wanted.end(), [](bool w) { return w; })) return {};
    Backward backward(n, shapes_, std::move(dys), &b());
    backward.Want(wanted);
    backward.notes = clip_ ? &clip_->notes() : nullptr;
    if (auto s = rule.gradient(backward); !s.ok()) return s.Within(graph::Describe(n, index));
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i] && !backward.given().contains(static_cast<int>(i)))
        return Unimplemented(graph::Describe(n, index) + ": no gradient rule for its input " + std::to_string(i) +
                             " (\"" + n.input(static_cast<int>(i)) + "\")");
    }
    for (const auto& [i, gradient] : backward.given()) {
      if (wanted[static_cast<std::size_t>(i)]) gradients_[n.input(i)].push_back(gradient);
    }
    return {};
  }

  // Nodes from the last to the first. With clipping, those that have examples come first, then, with what these owe,
  // the others.
  Status PassBackThrough(bool examples) {
    for (auto at = nodes_.rbegin(); at != nodes_.rend(); ++at) {
      const auto& [n, index] = *at;
      if (n.op_type() == "Constant" || FindRule(n.op_type())->gradient == nullptr) continue;
      const bool differs =
          clip_ && std::any_of(n.output().begin(), n.output().end(), [&](const auto& o) { return clip_->Differs(o); });
      if (clip_ && differs != examples) continue;
      RETURN_IF_ERROR(PassBack(n, index));
    }
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
    RETURN_IF_ERROR(PassBackThrough(true));
    if (!clip_) return {};
    auto settled = clip_->Settle();
    if (!settled.ok()) return Inseparable(settled.status());
    for (auto& [value, gradient] : *settled) gradients_[value].push_back(std::move(gradient));
    return PassBackThrough(false);
  }

  Status NameOutputs() {
    std::unordered_map<std::string, std::string> owner;  // of a gradient that has been renamed
    std::string loss = "loss";
    std::vector<std::string> sums;
    for (const auto& s : result_.parameters) {
      std::string sum = Total(s.name);
      if (options_.proximal > 0) AppendProximal(b(), options_.proximal, s, &sum, &loss);
      // A parameter that the loss does not depend on (a branch that a constant condition cuts, say): no change.
      if (sum.empty()) sum = b().Node("Mul", {s.name, b().Scalar("zero", 0)});
      sums.push_back(sum);
    }
    if (loss != "loss") {
      b().Rename("loss", "loss.of_data");
      b().Rename(loss, "loss");
    }
    b().Output({"loss", DataType::kFp32, {}});
    if (clip_) b().Output({"norms", DataType::kFp32, {shapes_.shape.at(head_)[0]}});
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
  std::optional<Clipping> clip_;
  std::string inseparable_;
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
  RETURN_IF_ERROR(CheckOutput(model.graph(), options.output));
  const auto opset = graph::OpsetVersion(model);
  if (opset < kOldestOpset || opset > graph::kOpset) {
    return Unimplemented("the model is of operator set " + std::to_string(opset) + ", training takes " +
                         std::to_string(kOldestOpset) + " to " + std::to_string(graph::kOpset) +
                         "; export it again with opset_version=" + std::to_string(graph::kOpset));
  }
  onnx::ModelProto rearranged = model;
  if (opset < kPlainOpset) RETURN_IF_ERROR(Upgrade(&rearranged));
  PoolsFirst(rearranged.mutable_graph());
  Differentiation differentiation(rearranged, options);
  auto made = differentiation.Run(step);
  if (made.ok() || differentiation.inseparable().empty()) return made;
  return ClipOneByOne(rearranged, options, differentiation.inseparable(), step);
}

}  // namespace ganglion::gradient
