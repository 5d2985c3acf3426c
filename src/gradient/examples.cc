#include "gradient/examples.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using tensor::Shape;
using Ints = std::vector<std::int64_t>;

// A node with what is known of its inputs.
struct View {
  const onnx::NodeProto& n;
  const Shapes& shapes;
  const ExampleMap& map;
  std::int64_t batch;

  bool has(int i) const { return i < n.input_size() && !n.input(i).empty(); }
  const Examples* in(int i) const { return has(i) ? map.Find(n.input(i)) : nullptr; }
  const Shape& shape(int i) const { return shapes.shape.at(n.input(i)); }
  const Shape& out() const {  // empty where nobody reads the first output
    static const Shape kNone;
    const auto at = shapes.shape.find(n.output(0));
    return at == shapes.shape.end() ? kNone : at->second;
  }
  std::size_t rank(int i) const { return shape(i).size(); }
  const Ints* ints(int i) const {
    if (!has(i)) return nullptr;
    const auto at = shapes.ints.find(n.input(i));
    return at == shapes.ints.end() ? nullptr : &at->second;
  }
  // Whether no input but the first holds examples.
  bool others_are_constant() const {
    for (int i = 1; i < n.input_size(); ++i) {
      if (in(i) != nullptr) return false;
    }
    return true;
  }
};

// Nothing: mixed, or not known. (Nodes without examples in any input do not come here.)
using Found = std::optional<Examples>;

std::optional<std::size_t> AxisOf(std::int64_t axis, std::size_t rank) {
  const auto a = Axis(axis, rank);
  if (!a.ok()) return std::nullopt;
  return static_cast<std::size_t>(*a);
}

// All inputs aligned from the right, as broadcasting does.
Found Elementwise(const View& v) {
  Found found;
  const std::size_t rank = v.out().size();
  for (int i = 0; i < v.n.input_size(); ++i) {
    const Examples* e = v.in(i);
    if (e == nullptr) continue;
    if (v.rank(i) > rank) return std::nullopt;
    const Examples here{e->axis + rank - v.rank(i), e->per};
    if (found && *found != here) return std::nullopt;
    found = here;
  }
  return found;
}

Found LeavesBatchAlone(const View& v) {
  if (!v.others_are_constant()) return std::nullopt;
  return *v.in(0);
}

// [batch, ...] to [batch, ...], whatever becomes of the rest.
Found FirstAxis(const View& v) {
  if (!v.others_are_constant() || v.in(0)->axis != 0) return std::nullopt;
  if (v.out().empty() || v.shape(0)[0] != v.out()[0]) return std::nullopt;
  return *v.in(0);
}

// Softmax and others along one axis.
Found AlongAxis(const View& v) {
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", -1), v.rank(0));
  if (!axis || *axis == v.in(0)->axis) return std::nullopt;
  return LeavesBatchAlone(v);
}

// LayerNormalization: over all axes from one on.
Found FromAxisOn(const View& v) {
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", -1), v.rank(0));
  if (!axis || *axis <= v.in(0)->axis) return std::nullopt;
  return LeavesBatchAlone(v);
}

Found CumSum(const View& v) {
  const Ints* given = v.ints(1);
  const auto axis = given == nullptr || given->size() != 1 ? std::nullopt : AxisOf((*given)[0], v.rank(0));
  if (!axis || *axis == v.in(0)->axis) return std::nullopt;
  return LeavesBatchAlone(v);
}

// Axes taken away, or left with a size of 1.
Found Without(const View& v, std::set<std::size_t> axes, bool keep) {
  Examples e = *v.in(0);
  if (axes.empty() || axes.contains(e.axis)) return std::nullopt;
  if (!keep) e.axis -= static_cast<std::size_t>(std::distance(axes.begin(), axes.lower_bound(e.axis)));
  return e;
}

Found Reduce(const View& v) {
  Ints given;
  if (const auto a = graph::IntsAttribute(v.n, "axes")) given = *a;
  if (const Ints* a = v.ints(1)) given = *a;
  if (given.empty() && graph::IntAttribute(v.n, "noop_with_empty_axes", 0) != 0) return *v.in(0);
  std::set<std::size_t> axes;
  for (const auto a : given) {
    const auto axis = AxisOf(a, v.rank(0));
    if (!axis) return std::nullopt;
    axes.insert(*axis);
  }
  return Without(v, axes, graph::IntAttribute(v.n, "keepdims", 1) != 0);
}

Found ArgReduce(const View& v) {
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", 0), v.rank(0));
  if (!axis) return std::nullopt;
  return Without(v, {*axis}, graph::IntAttribute(v.n, "keepdims", 1) != 0);
}

Found Transpose(const View& v) {
  Ints perm(v.rank(0));
  for (std::size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<std::int64_t>(perm.size() - 1 - i);
  perm = graph::IntsAttribute(v.n, "perm").value_or(perm);
  const auto at = std::find(perm.begin(), perm.end(), static_cast<std::int64_t>(v.in(0)->axis));
  return Examples{static_cast<std::size_t>(at - perm.begin()), v.in(0)->per};
}

// An example's numbers lie `block` in a row, `before` times. They still do where an axis of the new shape has as many
// numbers before it, and its block divides.
Found Reshape(const View& v) {
  const Examples& e = *v.in(0);
  const Shape& from = v.shape(0);
  const Shape& to = v.out();
  const std::int64_t before = Product(from, 0, e.axis);
  const std::int64_t after = Product(from, e.axis + 1, from.size());
  if (before < 1 || after < 1) return std::nullopt;
  const std::int64_t block = e.per * after;
  for (std::size_t k = 0; k < to.size(); ++k) {
    const std::int64_t rest = Product(to, k + 1, to.size());
    if (Product(to, 0, k) != before || rest < 1 || block % rest != 0) continue;
    const std::int64_t per = block / rest;
    if (v.batch < 0 ? to[k] < 0 : to[k] == v.batch * per) return Examples{k, per};
  }
  return std::nullopt;
}

Found MatMul(const View& v) {
  const std::size_t rank = v.out().size();
  if (v.rank(0) < 2 || v.rank(1) < 2 || rank < 2) return std::nullopt;
  Found found;
  for (const int i : {0, 1}) {
    const Examples* e = v.in(i);
    if (e == nullptr) continue;
    const std::size_t contracted = i == 0 ? v.rank(0) - 1 : v.rank(1) - 2;
    const bool other_has = v.in(1 - i) != nullptr;
    const bool leading = e->axis + 2 < v.rank(i);
    if (e->axis == contracted || (other_has && !leading)) return std::nullopt;
    const Examples here{e->axis + rank - v.rank(i), e->per};
    if (found && *found != here) return std::nullopt;
    found = here;
  }
  return found;
}

Found Gemm(const View& v) {
  if (v.in(0) != nullptr && v.in(1) != nullptr) return std::nullopt;
  const std::size_t rows = graph::IntAttribute(v.n, "transA", 0) != 0 ? 1 : 0;
  const std::size_t columns = graph::IntAttribute(v.n, "transB", 0) != 0 ? 0 : 1;
  Found found;
  if (v.in(0) != nullptr) {
    if (v.in(0)->axis != rows) return std::nullopt;
    found = Examples{0, v.in(0)->per};
  }
  if (v.in(1) != nullptr) {
    if (v.in(1)->axis != columns) return std::nullopt;
    found = Examples{1, v.in(1)->per};
  }
  if (v.in(2) != nullptr) {
    const Examples here{v.in(2)->axis + 2 - v.rank(2), v.in(2)->per};
    if (found && *found != here) return std::nullopt;
    found = here;
  }
  return found;
}

Found Concat(const View& v) {
  const auto found = Elementwise(v);
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", 0), v.out().size());
  if (!found || !axis || *axis == found->axis) return std::nullopt;
  return found;
}

Found Split(const View& v) {
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", 0), v.rank(0));
  if (!axis || *axis == v.in(0)->axis) return std::nullopt;
  return *v.in(0);
}

Found Slice(const View& v) {
  const Ints* starts = v.ints(1);
  const Ints* axes = v.ints(3);
  if (starts == nullptr || (v.has(3) && (axes == nullptr || axes->size() != starts->size()))) return std::nullopt;
  for (std::size_t i = 0; i < starts->size(); ++i) {
    const auto axis = AxisOf(axes == nullptr ? static_cast<std::int64_t>(i) : (*axes)[i], v.rank(0));
    if (!axis || *axis == v.in(0)->axis) return std::nullopt;
  }
  return LeavesBatchAlone(v);
}

Found Pad(const View& v) {
  const Ints* pads = v.ints(1);
  const std::size_t axis = v.in(0)->axis;
  if (pads == nullptr || pads->size() != 2 * v.rank(0) || (*pads)[axis] != 0 || (*pads)[axis + v.rank(0)] != 0)
    return std::nullopt;
  return LeavesBatchAlone(v);
}

Found Tile(const View& v) {
  const Ints* repeats = v.ints(1);
  if (repeats == nullptr || repeats->size() != v.rank(0) || (*repeats)[v.in(0)->axis] != 1) return std::nullopt;
  return LeavesBatchAlone(v);
}

Found Gather(const View& v) {
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", 0), v.rank(0));
  if (!axis || (v.in(0) != nullptr && v.in(1) != nullptr)) return std::nullopt;
  if (v.in(0) == nullptr) return Examples{*axis + v.in(1)->axis, v.in(1)->per};
  Examples e = *v.in(0);
  if (e.axis == *axis) return std::nullopt;
  if (e.axis > *axis) e.axis += v.rank(1) - 1;
  return e;
}

// One position of the data for each of the indices, which are as the data but for one axis.
Found GatherElements(const View& v) {
  const auto axis = AxisOf(graph::IntAttribute(v.n, "axis", 0), v.rank(0));
  const Examples* e = v.in(0);
  if (!axis || *axis == e->axis || (v.in(1) != nullptr && *v.in(1) != *e)) return std::nullopt;
  if (v.out().size() != v.rank(0) || v.out()[e->axis] != v.shape(0)[e->axis]) return std::nullopt;
  return *e;
}

Found Trilu(const View& v) { return v.in(0)->axis + 2 < v.rank(0) ? LeavesBatchAlone(v) : std::nullopt; }

// X and the states [., batch, .]; the last states are so, too, and Y has directions before.
Found Recurrent(const View& v) {
  for (int i = 0; i < v.n.input_size(); ++i) {
    if (v.in(i) != nullptr && (*v.in(i) != Examples{1, 1} || (i != 0 && i != 5 && i != 6))) return std::nullopt;
  }
  return Examples{1, 1};
}

using Follow = Found (*)(const View&);

struct Row {
  Follow follow;
  bool any_input;  // examples may be in any input, not in the first alone
};

// Operators by what they do to the axis of examples. BatchNormalization comes here with frozen statistics only;
// otherwise it is refused before.
const std::map<std::string, Row>& Table() {
  static const std::map<std::string, Row> table = [] {
    std::map<std::string, Row> t;
    const auto add = [&](Row row, const std::string& ops) {
      std::istringstream names(ops);
      for (std::string name; names >> name;) t[name] = row;
    };
    add({Elementwise, true},
        "Abs Acos Acosh Add And Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Div Dropout Elu Equal Erf Exp "
        "Expand "
        "Floor Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max "
        "Mean Min Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt "
        "Sub Sum Tan Tanh ThresholdedRelu Where Xor");
    add({FirstAxis, false},
        "AveragePool BatchNormalization Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalMaxPool "
        "InstanceNormalization LRN LpPool MaxPool Resize SpaceToDepth");
    add({AlongAxis, false}, "Hardmax LogSoftmax LpNormalization Softmax");
    add({FromAxisOn, false}, "LayerNormalization");
    add({CumSum, false}, "CumSum");
    add({Reduce, false},
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare");
    add({ArgReduce, false}, "ArgMax ArgMin");
    add({Transpose, false}, "Transpose");
    add({Reshape, false}, "Flatten Reshape Squeeze Unsqueeze");
    add({MatMul, true}, "MatMul");
    add({Gemm, true}, "Gemm");
    add({Concat, true}, "Concat");
    add({Split, false}, "Split");
    add({Slice, false}, "Slice");
    add({Pad, false}, "Pad");
    add({Tile, false}, "Tile");
    add({Trilu, false}, "Trilu");
    add({Gather, true}, "Gather");
    add({GatherElements, false}, "GatherElements");
    add({Recurrent, true}, "GRU LSTM RNN");
    return t;
  }();
  return table;
}

}  // namespace

void ExampleMap::Input(const std::string& name, const Shape& shape) {
  if (!shape.empty() && shape[0] == batch_) at_[name] = {};
}

const Examples* ExampleMap::Find(const std::string& value) const {
  const auto at = at_.find(value);
  return at == at_.end() ? nullptr : &at->second;
}

Status ExampleMap::Add(const onnx::NodeProto& n, const Shapes& shapes) {
  const View v{n, shapes, *this, batch_};
  const bool some =
      std::any_of(n.input().begin(), n.input().end(), [&](const auto& in) { return Find(in) != nullptr; });
  if (n.op_type() == "Shape" || n.op_type() == "Size") return {};
  if (!some) {
    // A value that is repeated for every example.
    if (n.op_type() != "Expand" || batch_ >= 0) return {};
    const Shape& y = v.out();
    const Shape& x = v.shape(0);
    const auto at = std::find(y.begin(), y.end(), -1);
    const bool one =
        at != y.end() && std::count(y.begin(), y.end(), -1) == 1 && std::count(x.begin(), x.end(), -1) == 0;
    if (one) at_[n.output(0)] = {static_cast<std::size_t>(at - y.begin()), 1};
    return {};
  }
  const auto row = Table().find(n.op_type());
  const bool known = row != Table().end() && (row->second.any_input || v.in(0) != nullptr);
  const Found found = known ? row->second.follow(v) : std::nullopt;
  if (!found) return Unimplemented(n.op_type() + " mixes examples, or it is not known that it does not");
  for (const auto& o : n.output()) {
    if (!o.empty() && shapes.shape.contains(o)) at_[o] = *found;
  }
  if (row->second.follow == Recurrent && !n.output(0).empty()) at_[n.output(0)] = {2, 1};
  return {};
}

}  // namespace ganglion::gradient
