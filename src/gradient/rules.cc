#include "gradient/rules.h"

#include <algorithm>
#include <numeric>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {

using Ints = std::vector<std::int64_t>;
using tensor::Shape;

const std::vector<Rule>& Rules() {
  static const std::vector<Rule> rules = [] {
    std::vector<Rule> all;
    for (const auto part : {ArithmeticRules, ShapeRules, ReductionRules, PieceRules, MatrixRules, ConvolutionRules,
                            PoolRules, NormalisationRules, RecurrentRules}) {
      const auto more = part();
      all.insert(all.end(), more.begin(), more.end());
    }
    std::sort(all.begin(), all.end(), [](const Rule& a, const Rule& b) { return a.op < b.op; });
    return all;
  }();
  return rules;
}

const Rule* FindRule(std::string_view op) {
  for (const Rule& rule : Rules()) {
    if (rule.op == op) return &rule;
  }
  return nullptr;
}

const Shape& In(const onnx::NodeProto& n, const Shapes& s, int i) { return s.shape.at(n.input(i)); }

Result<std::int64_t> Axis(std::int64_t axis, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  if (axis < -r || axis >= r)
    return InvalidArgument("axis " + std::to_string(axis) + " of a tensor with " + std::to_string(rank) +
                           " dimensions");
  return axis < 0 ? axis + r : axis;
}

Ints Permutation(const onnx::NodeProto& n, std::size_t rank) {
  if (auto perm = graph::IntsAttribute(n, "perm")) return *perm;
  Ints perm(rank);
  for (std::size_t i = 0; i < rank; ++i) perm[i] = static_cast<std::int64_t>(rank - 1 - i);
  return perm;
}

Result<Ints> KnownInts(const onnx::NodeProto& n, const Shapes& s, int i) {
  if (i >= n.input_size() || n.input(i).empty()) return InvalidArgument("input " + std::to_string(i) + " is missing");
  const auto known = s.ints.find(n.input(i));
  if (known == s.ints.end())
    return Unimplemented("input " + std::to_string(i) + " (\"" + n.input(i) + "\") is computed while running");
  return known->second;
}

std::int64_t Product(const Shape& s, std::size_t from, std::size_t to) {
  std::int64_t p = 1;
  for (std::size_t i = from; i < to; ++i) {
    if (s[i] < 0 || __builtin_mul_overflow(p, s[i], &p)) return -1;
  }
  return p;
}

graph::Attribute KeepDims(bool keep) { return {"keepdims", std::int64_t{keep}}; }

Result<Shape> SameAsInput(const onnx::NodeProto& n, const Shapes& s) { return In(n, s, 0); }
Result<Shape> BroadcastInputs(const onnx::NodeProto& n, const Shapes& s) { return Broadcast(In(n, s, 0), In(n, s, 1)); }

Result<Shape> Broadcast(const Shape& a, const Shape& b) {
  Shape y(std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::int64_t da = i < a.size() ? a[a.size() - 1 - i] : 1;
    const std::int64_t db = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (da != db && da != 1 && db != 1 && da >= 0 && db >= 0) {
      return InvalidArgument(tensor::ShapeText(a) + " and " + tensor::ShapeText(b) + " do not broadcast");
    }
    y[y.size() - 1 - i] = da == 1 ? db : db == 1 ? da : std::max(da, db);
  }
  return y;
}

std::string Backward::x(int i) const { return n.input(i); }
std::string Backward::y(int i) const { return n.output(i); }
bool Backward::has(int i) const { return i < n.input_size() && !n.input(i).empty(); }

std::string SumOfRows(graph::GraphBuilder& g, const std::string& v, std::int64_t rows) {
  constexpr std::int64_t kStored = 4096;
  std::string ones;
  if (rows > 0 && rows <= kStored) {
    const std::vector<float> values(static_cast<std::size_t>(rows), 1.f);
    ones = g.Constant("ones", tensor::Tensor::From<float>({rows}, values).value());
  } else {
    ones = g.Node("Expand", {g.Scalar("one", 1), g.Node("Shape", {v}, {{"end", std::int64_t{1}}})});
  }
  return g.Node("MatMul", {ones, v});
}

std::string Backward::SumTo(const std::string& value, const Shape& from, const Shape& to) {
  const std::size_t extra = from.size() - to.size();
  // All but some last axes are summed: these are the columns of a matrix.
  std::size_t kept = 0;
  while (kept < to.size() && to[to.size() - 1 - kept] == from[from.size() - 1 - kept]) ++kept;
  const std::int64_t columns = Product(from, from.size() - kept, from.size());
  const bool rest_is_one =
      std::all_of(to.begin(), to.end() - static_cast<std::ptrdiff_t>(kept), [](std::int64_t d) { return d == 1; });
  if (rest_is_one && kept < from.size() && columns > 1) {
    const bool matrix = kept == 1 && from.size() == 2;
    const std::string rows = matrix ? value : g.Node("Reshape", {value, g.Ints("rows", {-1, columns})});
    const std::string sum = SumOfRows(g, rows, Product(from, 0, from.size() - kept));
    return kept == 1 && to.size() == 1 ? sum : g.Node("Reshape", {sum, g.Ints("shape", to)});
  }
  Ints leading(extra);
  std::iota(leading.begin(), leading.end(), 0);
  std::string v = value;
  if (extra > 0) v = g.Node("ReduceSum", {v, g.Ints("axes", leading)}, {KeepDims(false)});
  Ints inner;
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 1 && from[extra + i] != 1) inner.push_back(static_cast<std::int64_t>(i));
  }
  if (!inner.empty()) v = g.Node("ReduceSum", {v, g.Ints("axes", inner)}, {KeepDims(true)});
  return v;
}

std::string Backward::ReshapeLikeInput(const std::string& value, int i) {
  const Shape& shape = ShapeOfInput(i);
  const bool fixed = std::count(shape.begin(), shape.end(), -1) <= 1 && std::count(shape.begin(), shape.end(), 0) == 0;
  return g.Node("Reshape", {value, fixed ? g.Ints("shape", shape) : g.Node("Shape", {x(i)})});
}

std::string Backward::SwapLast(const std::string& value, std::size_t rank) {
  Ints perm(rank);
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm[rank - 1], perm[rank - 2]);
  return g.Node("Transpose", {value}, {{"perm", perm}});
}

std::string Forward::Name(const std::string& hint) const { return n->output(0) + "." + hint; }

}  // namespace ganglion::gradient
