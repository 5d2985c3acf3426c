#include "gradient/clip.h"

#include <algorithm>
#include <set>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {

using Ints = std::vector<std::int64_t>;
using tensor::Shape;

Status Clipping::Follow(const onnx::NodeProto& n) {
  if (auto s = map_.Add(n, shapes_); !s.ok()) return s;
  for (const auto& o : n.output()) {
    if (!o.empty() && !Differs(o)) makers_[o] = &n;
  }
  return {};
}

bool Clipping::IsRows(const std::string& value) const {
  const Examples* at = map_.Find(value);
  return at != nullptr && *at == Examples{0, 1};
}

// Operators that give each number of their first input one place, so that a gradient keeps its norm on the way back.
// A Slice leaves some out, whose gradient is zero.
Result<Clipping::Way> Clipping::WayOf(const std::string& value) const {
  static const std::set<std::string> kMoves{"Flatten", "Identity",  "Reshape",  "Slice",
                                            "Squeeze", "Transpose", "Unsqueeze"};
  Way way{value, {}};
  for (auto at = makers_.find(value); at != makers_.end(); at = makers_.find(way.parameter)) {
    const onnx::NodeProto& n = *at->second;
    if (!kMoves.contains(n.op_type()))
      return Unimplemented("a parameter goes through " + n.op_type() + " before it meets the examples");
    way.nodes.push_back(&n);
    way.parameter = n.input(0);
  }
  return way;
}

// Gradients [batch, ...] of the value that the way leads from, as [batch, numbers] in the parameter's order.
Result<std::string> Clipping::OnTheWay(const std::string& gradients, const Way& way) {
  std::string v = gradients;
  for (const auto* n : way.nodes) {
    if (n->op_type() == "Slice") return Unimplemented("a parameter is read in parts, and several times");
    if (n->op_type() != "Transpose") continue;
    const Shape& y = shapes_.shape.at(n->output(0));
    Ints shape = y;
    shape.insert(shape.begin(), -1);
    v = g_.Node("Reshape", {v, g_.Ints("shape", shape)});
    const auto perm = graph::IntsAttribute(*n, "perm");
    Ints back(y.size() + 1, 0);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t from = perm ? static_cast<std::size_t>((*perm)[i]) : y.size() - 1 - i;
      back[from + 1] = static_cast<std::int64_t>(i + 1);
    }
    v = g_.Node("Transpose", {v}, {{"perm", back}});
  }
  const Shape& p = shapes_.shape.at(way.parameter);
  return g_.Node("Reshape", {v, g_.Ints("numbers", {-1, Product(p, 0, p.size())})});
}

// Several nodes read the parameter: the norm of the sum of what each gives.
Result<PerExample> Clipping::OfShared(ClipContext& c, const std::vector<std::pair<const Owed*, Way>>& owed) {
  std::vector<std::string> parts;
  parts.reserve(owed.size());
  for (const auto& [o, way] : owed) {
    ASSIGN_OR_RETURN(const PerExample part, ByExample(c, *o, true));
    ASSIGN_OR_RETURN(parts.emplace_back(), OnTheWay(part.gradients, way));
  }
  return PerExample{"", g_.Node("Sum", parts), nullptr};
}

void Clipping::AppendFactors(const std::vector<std::string>& squares) {
  g_.Node("Sqrt", {squares.size() == 1 ? squares[0] : g_.Node("Sum", squares)}, {}, "norms");
  // A norm of 0 gives infinity, and so a factor of 1.
  const std::string over = g_.Node("Div", {g_.Scalar("clip_norm", norm_), "norms"});
  factors_ = g_.Node("Mul", {g_.Node("Min", {over, g_.Scalar("one", 1)}), "row_weight"});
}

// The factors in a shape that broadcasts over a value of this rank.
std::string Clipping::Column(const Examples& at, std::size_t rank) {
  const std::size_t after = rank - at.axis - 1;
  std::string& made = columns_[std::to_string(at.per) + " " + std::to_string(after)];
  if (!made.empty()) return made;
  std::string v = factors_;
  if (at.per > 1) {
    const std::string column = g_.Node("Unsqueeze", {v, g_.Ints("axis", {1})});
    v = g_.Node("Expand", {column, g_.Ints("positions", {1, at.per})});
  }
  Ints shape(after + 1, 1);
  shape[0] = -1;
  made = g_.Node("Reshape", {v, g_.Ints("column", shape)});
  return made;
}

std::string Clipping::WeightedSum(const PerExample& of, const Shape& shape) {
  std::string& row = columns_["row"];
  if (row.empty()) row = g_.Node("Unsqueeze", {factors_, g_.Ints("axis", {0})});
  const std::int64_t numbers = Product(shape, 0, shape.size());
  const std::string flat = g_.Node("Reshape", {of.gradients, g_.Ints("numbers", {-1, numbers})});
  const std::string sum = g_.Node("MatMul", {row, flat});
  return of.finish ? of.finish(sum) : g_.Node("Reshape", {sum, g_.Ints("shape", shape)});
}

// The operator's own rule, on gradients that are scaled: the sum over examples is as fast as without clipping.
Status Clipping::Scaled(const onnx::NodeProto& n, const std::vector<const Owed*>& owed, Gradients* gradients) {
  std::vector<std::string> dys = owed[0]->dys;
  for (std::size_t k = 0; k < dys.size(); ++k) {
    if (dys[k].empty()) continue;
    const std::string& y = n.output(static_cast<int>(k));
    const std::string column = Column(*map_.Find(y), shapes_.shape.at(y).size());
    std::string& made = scaled_[dys[k] + " " + column];
    if (made.empty()) made = g_.Node("Mul", {dys[k], column});
    dys[k] = made;
  }
  Backward b(n, shapes_, std::move(dys), &g_);
  std::vector<bool> wanted(static_cast<std::size_t>(n.input_size()));
  for (const auto* o : owed) wanted[static_cast<std::size_t>(o->input)] = true;
  b.Want(wanted);
  RETURN_IF_ERROR(FindRule(n.op_type())->gradient(b));
  for (const auto* o : owed) {
    const auto given = b.given().find(o->input);
    if (given == b.given().end()) return Unimplemented("no gradient of " + n.op_type() + " by " + n.input(o->input));
    gradients->emplace_back(n.input(o->input), given->second);
  }
  return {};
}

Result<Clipping::Gradients> Clipping::Settle() {
  std::map<std::string, std::vector<std::pair<const Owed*, Way>>> by_parameter;
  for (const Owed& o : owed_) {
    ASSIGN_OR_RETURN(Way way, WayOf(o.node->input(o.input)));
    const std::string parameter = way.parameter;
    by_parameter[parameter].emplace_back(&o, std::move(way));
  }
  if (by_parameter.empty()) return Unimplemented("no parameter meets the examples");
  ClipContext c{g_, shapes_, map_, notes_};
  std::vector<std::string> squares;
  std::vector<std::pair<std::string, PerExample>> made;  // by what they are the gradients of
  std::map<const onnx::NodeProto*, std::vector<const Owed*>> put_off;
  std::vector<const onnx::NodeProto*> order;
  for (const auto& [parameter, owed] : by_parameter) {
    const bool shared = owed.size() > 1;
    auto of = shared ? OfShared(c, owed) : ByExample(c, *owed[0].first, false);
    if (!of.ok()) return of.status();
    const Owed& first = *owed[0].first;
    if (of->gradients.empty()) {
      squares.push_back(of->squares);
      if (of->scaled) {
        made.emplace_back(first.node->input(first.input), std::move(*of));
        continue;
      }
      auto& later = put_off[first.node];
      if (later.empty()) order.push_back(first.node);
      later.push_back(&first);
      continue;
    }
    const std::string& value = shared ? parameter : first.node->input(first.input);
    const Shape& shape = shapes_.shape.at(value);
    const std::string flat =
        g_.Node("Reshape", {of->gradients, g_.Ints("numbers", {-1, Product(shape, 0, shape.size())})});
    squares.push_back(c.Squares(flat, 2));
    made.emplace_back(value, std::move(*of));
  }
  AppendFactors(squares);
  Gradients gradients;
  gradients.reserve(owed_.size());
  for (const auto& [value, of] : made)
    gradients.emplace_back(value, of.scaled ? of.scaled(factors_) : WeightedSum(of, shapes_.shape.at(value)));
  for (const auto* n : order) RETURN_IF_ERROR(Scaled(*n, put_off.at(n), &gradients));
  return gradients;
}

}  // namespace ganglion::gradient
