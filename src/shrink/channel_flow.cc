#include "shrink/channel_flow.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "graph/graph.h"
#include "shrink/edit.h"

namespace ganglion::shrink {
namespace {

using Role = ChannelUse::Role;
constexpr std::int64_t kUnknown = -1;

// Where a value's channels lie.
struct Flow {
  int group = 0;
  int from_end = 1;         // the axis, counted from the last (1)
  std::int64_t repeat = 1;  // places a channel; kUnknown after a Flatten
  bool second = true;       // whether that axis is known to be axis 1
};

const std::set<std::string>& Unary() {
  static const std::set<std::string> kOps{
      "Relu",        "LeakyRelu", "Elu",     "Selu", "Celu",       "ThresholdedRelu",
      "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Softplus",   "Exp",
      "Log",         "Softsign",  "Sqrt",    "Erf",  "Abs",        "Neg",
      "Sin",         "Cos",       "Ceil",    "Sign", "Reciprocal", "Floor",
      "Round",       "Identity",  "Dropout", "Clip", "Cast"};
  return kOps;
}
const std::set<std::string>& Elementwise() {
  static const std::set<std::string> kOps{"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "PRelu", "Sum", "Mean"};
  return kOps;
}
const std::set<std::string>& Pools() {
  static const std::set<std::string> kOps{"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"};
  return kOps;
}

bool Reads(const onnx::NodeProto& n, int input) { return input < n.input_size() && !n.input(input).empty(); }

class Tracer {
 public:
  explicit Tracer(const onnx::GraphProto& g) : g_(g), links_(g) {}

  std::vector<TracedGroup> Run() {
    for (int i = 0; i < g_.node_size(); ++i) {
      std::unordered_set<std::string> captured;
      AddSubgraphReads(g_.node(i), &captured);
      for (const auto& name : captured) Fix(name, graph::Describe(g_.node(i), i) + " reads them in a subgraph");
      if (captured.empty() && Node(i)) continue;
      for (const auto& name : g_.node(i).input()) Fix(name, graph::Describe(g_.node(i), i) + " reads them");
    }
    for (const auto& v : g_.output()) Fix(v.name(), "they are an output of the model");
    std::vector<TracedGroup> roots;
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (parent_[i] != static_cast<int>(i)) continue;
      TracedGroup& group = groups_[i];
      if (group.fixed.empty() && std::none_of(group.uses.begin(), group.uses.end(),
                                              [](const ChannelUse& u) { return u.role == Role::kReads; })) {
        group.fixed = "nothing reads them";
      }
      roots.push_back(std::move(group));
    }
    return roots;
  }

 private:
  int Root(int group) const {
    while (parent_[static_cast<std::size_t>(group)] != group) group = parent_[static_cast<std::size_t>(group)];
    return group;
  }
  TracedGroup& At(int group) { return groups_[static_cast<std::size_t>(Root(group))]; }

  std::optional<Flow> Find(const std::string& value) const {
    const auto at = flows_.find(value);
    if (at == flows_.end()) return std::nullopt;
    return at->second;
  }

  void Fix(const std::string& value, const std::string& why) {
    if (const auto flow = Find(value); flow && At(flow->group).fixed.empty()) At(flow->group).fixed = why;
  }

  int NewGroup(const std::string& name, std::int64_t channels) {
    groups_.push_back({name, channels, {}, {}, ""});
    parent_.push_back(static_cast<int>(parent_.size()));
    return parent_.back();
  }

  void Join(int a, int b) {
    const int first = std::min(Root(a), Root(b));
    const int second = std::max(Root(a), Root(b));
    if (first == second) return;
    auto& into = groups_[static_cast<std::size_t>(first)];
    auto& from = groups_[static_cast<std::size_t>(second)];
    into.uses.insert(into.uses.end(), from.uses.begin(), from.uses.end());
    into.depthwise.insert(into.depthwise.end(), from.depthwise.begin(), from.depthwise.end());
    if (into.fixed.empty()) into.fixed = from.fixed;
    parent_[static_cast<std::size_t>(second)] = first;
  }

  void Use(int group, Role role, const std::string& parameter, int axis, std::int64_t repeat = 1) {
    TracedGroup& at = At(group);
    at.uses.push_back({role, parameter, axis, repeat});
    int reads = 0;
    for (const int i : links_.Readers(parameter)) {
      const auto& inputs = g_.node(i).input();
      reads += static_cast<int>(std::count(inputs.begin(), inputs.end(), parameter));
    }
    if (!at.fixed.empty()) return;
    const auto* t = links_.Constant(parameter);
    if (reads != 1 || links_.IsOutput(parameter)) {
      at.fixed = "parameter \"" + parameter + "\" is shared";
    } else if (role != Role::kSize && (axis >= t->dims_size() || t->dims(axis) != at.channels * repeat)) {
      at.fixed = "parameter \"" + parameter + "\" has another number of channels";
    }
  }

  const onnx::TensorProto* FloatConstant(const onnx::NodeProto& n, int input) const {
    const auto* t = Reads(n, input) ? links_.Constant(n.input(input)) : nullptr;
    return t != nullptr && t->data_type() == onnx::TensorProto::FLOAT ? t : nullptr;
  }

  // An INT64 vector that is a constant.
  std::optional<std::vector<std::int64_t>> Integers(const onnx::NodeProto& n, int input) const {
    const auto* t = Reads(n, input) ? links_.Constant(n.input(input)) : nullptr;
    if (t == nullptr || t->data_type() != onnx::TensorProto::INT64 || t->dims_size() != 1) return std::nullopt;
    const auto read = graph::ToTensor(*t);
    if (!read.ok()) return std::nullopt;
    const auto v = read->As<long>();
    return std::vector<std::int64_t>(v.begin(), v.end());
  }

  // The rules below return false where channels can't be followed: all of the node's inputs are then fixed.
  bool Node(int i) {
    const auto& n = g_.node(i);
    if (!n.domain().empty() || n.output_size() < 1 || n.output(0).empty()) return false;
    for (int k = 1; k < n.output_size(); ++k) {
      if (!n.output(k).empty()) return false;
    }
    const std::string& op = n.op_type();
    if (op == "Conv") return Conv(n, i);
    if (op == "Gemm" || op == "MatMul") return Linear(n, i);
    if (Elementwise().contains(op)) return Together(n);
    if (!Reads(n, 0)) return true;
    const auto flow = Find(n.input(0));
    if (!flow) return std::none_of(n.input().begin(), n.input().end(), [&](const auto& x) { return Find(x); });
    if (Unary().contains(op)) return Carry(n, *flow);
    if (op == "BatchNormalization") return Normalise(n, *flow);
    if (Pools().contains(op)) return flow->second && flow->from_end > 1 && flow->repeat == 1 && Carry(n, *flow);
    if (op == "Flatten") return Flatten(n, *flow);
    if (op == "Reshape") return Reshape(n, *flow);
    if (op == "ReduceMean" || op == "ReduceMax" || op == "ReduceSum") return Reduce(n, *flow);
    if (op == "Squeeze" || op == "Unsqueeze") return Squeeze(n, *flow);
    return false;
  }

  bool Carry(const onnx::NodeProto& n, const Flow& flow) {
    flows_[n.output(0)] = flow;
    return true;
  }

  bool Conv(const onnx::NodeProto& n, int i) {
    const auto* w = FloatConstant(n, 1);
    if (w == nullptr || w->dims_size() < 3 || (Reads(n, 2) && links_.Constant(n.input(2)) == nullptr)) return false;
    const auto flow = Find(n.input(0));
    const int from_end = w->dims_size() - 1;
    const std::int64_t group = graph::IntAttribute(n, "group", 1);
    const bool fits = flow && flow->from_end == from_end && flow->repeat == 1;
    const auto bias = [&](int to) {
      if (Reads(n, 2)) Use(to, Role::kCarries, n.input(2), 0);
    };
    if (group != 1) {  // depthwise: each channel by itself; in other groupings channels meet
      if (!flow) return true;
      if (!fits || w->dims(0) != group || w->dims(1) != 1 || At(flow->group).channels != group) return false;
      Use(flow->group, Role::kCarries, n.input(1), 0);
      bias(flow->group);
      At(flow->group).depthwise.push_back(i);
      return Carry(n, *flow);
    }
    if (flow && (!fits || At(flow->group).channels != w->dims(1))) return false;
    if (flow) Use(flow->group, Role::kReads, n.input(1), 1);
    const int made = NewGroup(graph::Describe(n, i), w->dims(0));
    Use(made, Role::kMakes, n.input(1), 0);
    bias(made);
    return Carry(n, {made, from_end, 1, true});
  }

  bool Linear(const onnx::NodeProto& n, int i) {
    const bool gemm = n.op_type() == "Gemm";
    const auto* w = FloatConstant(n, 1);
    if (w == nullptr || w->dims_size() != 2 || (gemm && graph::IntAttribute(n, "transA", 0) != 0)) return false;
    const int out = gemm && graph::IntAttribute(n, "transB", 0) != 0 ? 0 : 1;
    const auto* b = gemm && Reads(n, 2) ? links_.Constant(n.input(2)) : nullptr;
    if (gemm && Reads(n, 2) && b == nullptr) return false;
    if (const auto flow = Find(n.input(0))) {
      const std::int64_t rows = w->dims(1 - out);
      const std::int64_t channels = At(flow->group).channels;
      const std::int64_t repeat = flow->repeat == kUnknown && channels > 0 ? rows / channels : flow->repeat;
      if (flow->from_end != 1 || repeat < 1 || repeat * channels != rows) return false;
      Use(flow->group, Role::kReads, n.input(1), 1 - out, repeat);
    }
    const int made = NewGroup(graph::Describe(n, i), w->dims(out));
    Use(made, Role::kMakes, n.input(1), out);
    if (b != nullptr && b->dims_size() > 0 && b->dims(b->dims_size() - 1) != 1) {
      if (b->dims(b->dims_size() - 1) != w->dims(out)) At(made).fixed = "its bias is no vector over the channels";
      Use(made, Role::kCarries, n.input(2), b->dims_size() - 1);
    }
    return Carry(n, {made, 1, 1, gemm});
  }

  bool Together(const onnx::NodeProto& n) {
    std::optional<Flow> flow;
    bool others = false;  // values whose channels are not known
    for (const auto& x : n.input()) {
      const auto f = Find(x);
      others |= !f && links_.Constant(x) == nullptr;
      if (!f) continue;
      if (flow && (flow->from_end != f->from_end || flow->repeat != f->repeat ||
                   At(flow->group).channels != At(f->group).channels)) {
        return false;
      }
      if (!flow) flow = f;
      flow->second = flow->second && f->second;
    }
    if (!flow) return true;
    if (others) return false;
    const std::int64_t places = flow->repeat == kUnknown ? kUnknown : At(flow->group).channels * flow->repeat;
    for (const auto& x : n.input()) {
      if (Find(x)) continue;
      const auto* c = links_.Constant(x);
      const int axis = c->dims_size() - flow->from_end;
      if (axis >= 0 && c->dims(axis) != 1 && c->dims(axis) != places) return false;
    }
    for (const auto& x : n.input()) {
      if (const auto f = Find(x)) {
        Join(flow->group, f->group);
        continue;
      }
      const auto* c = links_.Constant(x);
      const int axis = c->dims_size() - flow->from_end;
      if (axis >= 0 && c->dims(axis) != 1) Use(flow->group, Role::kCarries, x, axis, flow->repeat);
    }
    return Carry(n, *flow);
  }

  bool Normalise(const onnx::NodeProto& n, const Flow& flow) {
    const std::int64_t channels = At(flow.group).channels;
    if (!flow.second || flow.repeat != 1 || n.input_size() != 5) return false;
    for (int k = 1; k < 5; ++k) {
      const auto* t = FloatConstant(n, k);
      if (t == nullptr || t->dims_size() != 1 || t->dims(0) != channels) return false;
    }
    for (int k = 1; k < 5; ++k) Use(flow.group, k == 1 ? Role::kNormScale : Role::kCarries, n.input(k), 0);
    return Carry(n, flow);
  }

  bool Flatten(const onnx::NodeProto& n, const Flow& flow) {
    if (graph::IntAttribute(n, "axis", 1) != 1 || !flow.second) return false;
    return Carry(n, flow.from_end == 1 ? flow : Flow{flow.group, 1, kUnknown, true});
  }

  // To two dimensions: a Flatten by another name. Whoever cuts should try the result (module shrinking does): a Reshape
  // that deals the channels of one row out to several rows cannot be told from one that does not without knowing sizes.
  bool Reshape(const onnx::NodeProto& n, const Flow& flow) {
    const auto shape = Integers(n, 1);
    if (!shape || shape->size() != 2 || !flow.second || (flow.from_end == 1 && flow.repeat == kUnknown)) return false;
    const std::int64_t to = (*shape)[1];
    const std::int64_t channels = At(flow.group).channels;
    const std::int64_t known = flow.from_end == 1 ? flow.repeat : kUnknown;
    if (to == -1) return Carry(n, {flow.group, 1, known, true});
    if (to < 1 || channels < 1 || to % channels != 0 || (known != kUnknown && known * channels != to)) return false;
    Use(flow.group, Role::kSize, n.input(1), 1, to / channels);
    return Carry(n, {flow.group, 1, to / channels, true});
  }

  // Over all axes behind the channels.
  bool Reduce(const onnx::NodeProto& n, const Flow& flow) {
    auto axes = graph::IntsAttribute(n, "axes");
    if (!axes) axes = Integers(n, 1);
    if (!axes || !flow.second || flow.repeat != 1 || flow.from_end < 2) return false;
    const int rank = flow.from_end + 1;
    std::set<std::int64_t> reduced;
    for (const auto a : *axes) reduced.insert(a < 0 ? a + rank : a);
    if (reduced.size() != static_cast<std::size_t>(rank - 2) || *reduced.begin() != 2 || *reduced.rbegin() != rank - 1)
      return false;
    const bool keeps = graph::IntAttribute(n, "keepdims", 1) != 0;
    return Carry(n, {flow.group, keeps ? flow.from_end : 1, 1, true});
  }

  // Of axes behind the channels.
  bool Squeeze(const onnx::NodeProto& n, const Flow& flow) {
    const auto axes = Integers(n, 1);
    if (!axes || !flow.second || flow.repeat != 1) return false;
    const int more = static_cast<int>(axes->size()) * (n.op_type() == "Squeeze" ? -1 : 1);
    const int rank = flow.from_end + 1 + std::max(more, 0);
    for (const auto a : *axes) {
      if ((a < 0 ? a + rank : a) < 2) return false;
    }
    if (flow.from_end + more < 1) return false;
    return Carry(n, {flow.group, flow.from_end + more, 1, true});
  }

  const onnx::GraphProto& g_;
  const Links links_;
  std::unordered_map<std::string, Flow> flows_;
  std::vector<TracedGroup> groups_;
  std::vector<int> parent_;
};

}  // namespace

Result<ChannelFlow> TraceChannels(const onnx::ModelProto& model) {
  ChannelFlow flow;
  RETURN_IF_ERROR(Prepare(model, &flow.model));
  flow.groups = Tracer(flow.model.graph()).Run();
  return flow;
}

}  // namespace ganglion::shrink
