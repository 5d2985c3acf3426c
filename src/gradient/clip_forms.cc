#include "gradient/clip_forms.h"

#include <algorithm>
#include <numeric>

#include "gradient/convolution.h"
#include "gradient/recurrent.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using Ints = std::vector<std::int64_t>;
using tensor::Shape;

// How many multiplications of a product cost as much as a number that is made, squared and summed. Measured on
// transformers of width 64: by positions is faster up to T = 30 (T^2 (m + n) = 28 m n), slower from T = 45 on (63 m n).
constexpr std::int64_t kProductsPerNumber = 45;

Status No(const Owed& o, const std::string& why) {
  return Unimplemented(o.node->op_type() + " by its input " + std::to_string(o.input) + " (\"" +
                       o.node->input(o.input) + "\"): " + why);
}

Ints Range(std::size_t from, std::size_t to) {
  Ints axes(to - from);
  std::iota(axes.begin(), axes.end(), static_cast<std::int64_t>(from));
  return axes;
}

std::string Reshape(GraphBuilder& g, const std::string& v, const Ints& shape) {
  return g.Node("Reshape", {v, g.Ints("shape", shape)});
}

std::string Swapped(GraphBuilder& g, const std::string& v, std::size_t rank) {
  Ints perm = Range(0, rank);
  std::swap(perm[rank - 1], perm[rank - 2]);
  return g.Node("Transpose", {v}, {{"perm", perm}});
}

std::string SumOver(GraphBuilder& g, const std::string& v, const Ints& axes) {
  return axes.empty() ? v : g.Node("ReduceSum", {v, g.Ints("axes", axes)}, {KeepDims(false)});
}

// a_i [T, m] and d_i [T, n] of a linear layer, after any leading axes that are the same in both.
struct Pair {
  std::string a, d;
  std::size_t rank = 3;  // of both; 2 where T = 1
  std::int64_t t = 1, m = 1, n = 1;
};

// Whether the norm by products between positions is cheaper than the gradients themselves.
bool ByPositions(const Pair& p) { return p.t > 0 && p.t * p.t * (p.m + p.n) <= kProductsPerNumber * p.m * p.n; }

// sum over t, u of (a a')_tu (d d')_tu
std::string SquaresByPositions(ClipContext& c, const Pair& p) {
  const std::string aa = c.g.Node("MatMul", {p.a, Swapped(c.g, p.a, p.rank)});
  const std::string dd = c.g.Node("MatMul", {p.d, Swapped(c.g, p.d, p.rank)});
  return SumOver(c.g, c.g.Node("Mul", {aa, dd}), Range(1, p.rank));
}

// Gradients as [batch, m, n], or [batch, n, m] where `d_first`, times alpha.
PerExample OfProduct(ClipContext& c, const Pair& p, bool d_first, float alpha, bool whole) {
  GraphBuilder& g = c.g;
  const auto times = [&](const std::string& v, float factor) {
    return factor == 1 ? v : g.Node("Mul", {v, g.Scalar("alpha", factor)});
  };
  if (!whole && p.rank == 2)
    return {times(g.Node("Mul", {c.Squares(p.a, 2), c.Squares(p.d, 2)}), alpha * alpha), "", nullptr};
  if (!whole && ByPositions(p)) return {times(SquaresByPositions(c, p), alpha * alpha), "", nullptr};
  const std::string& left = d_first ? p.d : p.a;
  const std::string& right = d_first ? p.a : p.d;
  if (p.rank == 2) {
    const std::string column = g.Node("Unsqueeze", {left, g.Ints("axis", {2})});
    const std::string row = g.Node("Unsqueeze", {right, g.Ints("axis", {1})});
    return {"", times(g.Node("MatMul", {column, row}), alpha), nullptr};
  }
  return {"", times(g.Node("MatMul", {Swapped(g, left, p.rank), right}), alpha), nullptr};
}

Result<Pair> OfLinear(ClipContext& c, const Owed& o, const Shape& weights, bool transposed) {
  Pair p;
  std::int64_t t = 1;
  if (c.map.Find(o.node->input(0)) == nullptr) return No(o, "its rows are the same for every example");
  ASSIGN_OR_RETURN(p.a, c.Positions(o.node->input(0), 1, &p.t));
  ASSIGN_OR_RETURN(p.d, c.Positions(o.dys[0], c.ShapeOf(o.node->output(0)), *c.map.Find(o.node->output(0)), 1, &t));
  if (p.t != t) return No(o, "positions of input and output differ");
  p.m = weights[transposed ? 1 : 0];
  p.n = weights[transposed ? 0 : 1];
  p.rank = t == 1 ? 2 : 3;
  return p;
}

// A parameter that broadcasting repeats for every example. To the operator's own rule it is shown as one that has
// examples already, so that what the rule sums over leaves them apart.
Result<PerExample> Repeated(ClipContext& c, const Owed& o, bool whole) {
  static const std::vector<std::string> kRead{"Div", "Max", "Min", "Pow"};  // rules that read the parameter for this
  GraphBuilder& g = c.g;
  const std::string& value = o.node->input(o.input);
  const Shape& y = c.ShapeOf(o.node->output(0));
  const Examples at = *c.map.Find(o.node->output(0));
  const Shape& p = c.ShapeOf(value);
  Shape shown(y.size(), 1);
  std::copy(p.begin(), p.end(), shown.end() - static_cast<std::ptrdiff_t>(p.size()));
  if (shown[at.axis] != 1) return No(o, "it has a size of its own along the batch");
  const bool read = std::find(kRead.begin(), kRead.end(), o.node->op_type()) != kRead.end();
  const std::string name = read ? Reshape(g, value, shown) : g.Fresh("shown");
  shown[at.axis] = y[at.axis];
  c.shapes.shape[name] = shown;
  onnx::NodeProto n = *o.node;
  n.set_input(o.input, name);
  Backward b(n, c.shapes, o.dys, &g);
  std::vector<bool> wanted(static_cast<std::size_t>(n.input_size()));
  wanted[static_cast<std::size_t>(o.input)] = true;
  b.Want(wanted);
  RETURN_IF_ERROR(FindRule(n.op_type())->gradient(b));
  const auto given = b.given().find(o.input);
  if (given == b.given().end()) return No(o, "no gradient");
  std::int64_t t = 1;
  ASSIGN_OR_RETURN(std::string rows, c.Positions(given->second, shown, at, y.size() - at.axis - 1, &t));
  if (t != 1) {  // positions are summed; what lies before the batch are numbers of the parameter
    const std::int64_t before = Product(shown, 0, at.axis);
    const std::int64_t after = Product(shown, at.axis + 1, shown.size());
    if (before < 1) return No(o, "sizes that are not known");
    if (at.per > 1) rows = SumOver(g, Reshape(g, rows, {-1, at.per, before, after}), {1});
    rows = Reshape(g, rows, {-1, before * after});
  }
  if (!whole && given->second == o.dys[0] && t == 1) return PerExample{c.Squares(rows, 2), "", nullptr};
  return PerExample{"", rows, nullptr};
}

Result<PerExample> OfGemm(ClipContext& c, const Owed& o, bool whole) {
  if (o.input == 2) return Repeated(c, o, whole);
  if (o.input != 1 || graph::IntAttribute(*o.node, "transA", 0) != 0)
    return No(o, "only the right matrix of a product has a form here");
  const bool transposed = graph::IntAttribute(*o.node, "transB", 0) != 0;
  ASSIGN_OR_RETURN(const Pair p, OfLinear(c, o, c.ShapeOf(o.node->input(1)), transposed));
  return OfProduct(c, p, transposed, graph::FloatAttribute(*o.node, "alpha", 1), whole);
}

Result<PerExample> OfMatMul(ClipContext& c, const Owed& o, bool whole) {
  const Shape& weights = c.ShapeOf(o.node->input(o.input));
  if (o.input != 1 || weights.size() != 2 || c.ShapeOf(o.node->input(0)).size() < 2)
    return No(o, "only one matrix on the right has a form here");
  ASSIGN_OR_RETURN(const Pair p, OfLinear(c, o, weights, false));
  return OfProduct(c, p, false, 1, whole);
}

// Two positions' gradients meet where they read the same row.
Result<PerExample> OfGather(ClipContext& c, const Owed& o, bool whole) {
  GraphBuilder& g = c.g;
  const Shape& table = c.ShapeOf(o.node->input(0));
  const std::int64_t axis = graph::IntAttribute(*o.node, "axis", 0);
  if (o.input != 0 || (axis != 0 && axis != -static_cast<std::int64_t>(table.size())))
    return No(o, "only rows of an embedding have a form here");
  if (c.map.Find(o.node->input(1)) == nullptr) return No(o, "its rows are the same for every example");
  std::int64_t t = 1;
  ASSIGN_OR_RETURN(const std::string d, c.Positions(o.dys[0], c.ShapeOf(o.node->output(0)),
                                                    *c.map.Find(o.node->output(0)), table.size() - 1, &t));
  if (t == 1 && !whole) return PerExample{c.Squares(d, 2), "", nullptr};
  ASSIGN_OR_RETURN(std::string rows, c.Positions(o.node->input(1), 0, &t));
  rows = g.Node("Cast", {rows}, {{"to", std::int64_t{onnx::TensorProto::INT64}}});
  rows = g.Node("Mod", {rows, g.Ints("rows", {table[0]})});  // -1 is the last row, too
  if (!whole) {
    const std::string same = g.Node(
        "Equal", {g.Node("Unsqueeze", {rows, g.Ints("axis", {2})}), g.Node("Unsqueeze", {rows, g.Ints("axis", {1})})});
    const std::string ones = g.Node("Cast", {same}, {{"to", std::int64_t{onnx::TensorProto::FLOAT}}});
    const std::string dd = g.Node("MatMul", {d, Swapped(g, d, 3)});
    return PerExample{SumOver(g, g.Node("Mul", {ones, dd}), {1, 2}), "", nullptr};
  }
  const float values[2] = {0, 1};
  const std::string hot = g.Node("OneHot", {rows, g.Ints("rows", {table[0]}),
                                            g.Constant("values", tensor::Tensor::From<float>({2}, values).value())});
  Pair p{hot, d, t == 1 ? std::size_t{2} : std::size_t{3}, t, table[0], Product(table, 1, table.size())};
  return OfProduct(c, p, false, 1, true);
}

// What a convolution and its transpose share: a_i are patches, d_i rows.
PerExample OfPatches(ClipContext& c, const Convolution& conv, const std::string& image, const std::string& gradient,
                     bool whole) {
  GraphBuilder& g = c.g;
  const std::string patches = InputPatches(g, conv, image);  // [N, G, m, T]
  Pair p{"",
         OutputRows(g, conv, gradient),
         4,
         conv.window.positions(),
         conv.in_group() * conv.window.taps(),
         conv.out_group()};
  if (!whole && ByPositions(p)) {
    p.a = Swapped(g, patches, 4);
    return {SquaresByPositions(c, p), "", nullptr};
  }
  const std::string product = g.Node("MatMul", {patches, p.d});
  if (whole) return {"", AsWeights(g, conv, product, true), nullptr};
  const Ints shape{conv.groups, p.m, p.n};
  return {"", product,
          [&g, conv, shape](const std::string& sum) { return AsWeights(g, conv, Reshape(g, sum, shape), false); }};
}

// [N, C, ...] summed by channel.
std::string ByChannel(ClipContext& c, const std::string& v, std::size_t rank) {
  return SumOver(c.g, v, Range(2, rank));
}

Result<PerExample> OfConv(ClipContext& c, const Owed& o, bool whole) {
  const std::string& x = o.node->input(0);
  if (c.map.Find(x) == nullptr || c.map.Find(x)->per != 1) return No(o, "several images for each example");
  if (o.input == 2) return PerExample{"", ByChannel(c, o.dys[0], c.ShapeOf(x).size()), nullptr};
  if (o.node->op_type() == "Conv") {
    ASSIGN_OR_RETURN(const Convolution conv, ReadConvolution(*o.node, c.ShapeOf(x), c.ShapeOf(o.node->input(1))));
    return OfPatches(c, conv, x, o.dys[0], whole);
  }
  ASSIGN_OR_RETURN(const Convolution conv,
                   ReadTransposedConvolution(*o.node, c.ShapeOf(x), c.ShapeOf(o.node->input(1))));
  return OfPatches(c, conv, o.dys[0], x, whole);
}

// With frozen statistics: y = scale (x - mean) / deviation + bias.
Result<PerExample> OfBatchNormalization(ClipContext& c, const Owed& o, bool) {
  GraphBuilder& g = c.g;
  const std::size_t rank = c.ShapeOf(o.node->input(0)).size();
  const Examples* at = c.map.Find(o.node->input(0));
  if (at == nullptr || at->per != 1 || o.input > 2) return No(o, "several rows for each example");
  if (o.input == 2) return PerExample{"", ByChannel(c, o.dys[0], rank), nullptr};
  Ints channels(rank - 1, 1);
  channels[0] = -1;
  const std::string apart = g.Node("Sub", {o.node->input(0), Reshape(g, o.node->input(3), channels)});
  const std::string variance =
      g.Node("Add", {o.node->input(4), g.Scalar("epsilon", graph::FloatAttribute(*o.node, "epsilon", 1e-5f))});
  const std::string sums = ByChannel(c, g.Node("Mul", {o.dys[0], apart}), rank);
  return PerExample{"", g.Node("Div", {sums, g.Node("Sqrt", {variance})}), nullptr};
}

// A recurrent layer is linear layers at T positions, once what goes through time is known. Its rows are used again for
// the clipped sum, so that the Scan against time runs once.
class RecurrentForm {
 public:
  RecurrentForm(ClipContext& c, const Owed& o) : g_(c.g), c_(c), o_(o), x_(c.ShapeOf(o.node->input(0))) {
    Backward b(*o.node, c.shapes, o.dys, &c.g);
    b.notes = &c.notes;
    products_ = ProductsOf(b);
  }

  Result<PerExample> Run() {
    if (o_.input == 3) return PerExample{"", Biases()};
    std::vector<std::string> squares;
    for (const auto& direction : Products()) {
      for (const auto& p : direction) squares.push_back(SquaresOf(p));
    }
    PerExample made;
    made.squares = squares.size() == 1 ? squares[0] : g_.Node("Sum", squares);
    made.scaled = [this_form = *this](const std::string& factors) { return this_form.ClippedSum(factors); };
    return made;
  }

 private:
  using Product = RecurrentProducts::Product;

  // Those of W or R, by direction.
  std::vector<std::vector<Product>> Products() const {
    std::vector<std::vector<Product>> products;
    products.reserve(products_.size());
    for (const auto& p : products_) {
      const std::int64_t n = c_.ShapeOf(o_.node->input(1))[1];
      const std::vector<Product> of_w{{p.of_x, Reshape(g_, o_.node->input(0), {-1, x_[2]}), n, x_[2]}};
      products.push_back(o_.input == 1 ? of_w : p.of_r);
    }
    return products;
  }

  // Rows [T B, n] as [batch, T, n], or [batch, n] where T is 1.
  std::string ByExample(const std::string& rows, std::int64_t n) const {
    if (x_[0] == 1) return rows;
    return g_.Node("Transpose", {Reshape(g_, rows, {x_[0], -1, n})}, {{"perm", Ints{1, 0, 2}}});
  }

  std::string SquaresOf(const Product& p) {
    const Pair pair{
        ByExample(p.a, p.m), ByExample(p.d, p.n), x_[0] == 1 ? std::size_t{2} : std::size_t{3}, x_[0], p.m, p.n};
    const PerExample of = OfProduct(c_, pair, true, 1, false);
    return of.gradients.empty() ? of.squares : c_.Squares(Reshape(g_, of.gradients, {-1, p.m * p.n}), 2);
  }

  // [batch, directions 2 G H]: sums over the times.
  std::string Biases() const {
    std::vector<std::string> parts;
    const std::int64_t n = c_.ShapeOf(o_.node->input(1))[1];
    for (const auto& p : products_) {
      for (const auto& rows : {p.of_x, p.of_rb}) parts.push_back(SumOver(g_, Reshape(g_, rows, {x_[0], -1, n}), {0}));
    }
    return g_.Node("Concat", parts, {{"axis", std::int64_t{1}}});
  }

  std::string ClippedSum(const std::string& factors) const {
    const std::string column = Reshape(g_, factors, {-1, 1});
    std::vector<std::string> directions;
    for (const auto& direction : Products()) {
      std::vector<std::string> parts;
      for (const auto& p : direction) {
        const std::string scaled = g_.Node("Mul", {Reshape(g_, p.d, {x_[0], -1, p.n}), column});
        parts.push_back(g_.Node("MatMul", {Swapped(g_, Reshape(g_, scaled, {-1, p.n}), 2), p.a}));
      }
      directions.push_back(Joined(parts));
    }
    return Reshape(g_, Joined(directions), c_.ShapeOf(o_.node->input(o_.input)));
  }

  std::string Joined(const std::vector<std::string>& parts) const {
    return parts.size() == 1 ? parts[0] : g_.Node("Concat", parts, {{"axis", std::int64_t{0}}});
  }

  GraphBuilder& g_;
  ClipContext& c_;
  const Owed& o_;
  const Shape& x_;  // of X [T, B, I]
  std::vector<RecurrentProducts> products_;
};

Result<PerExample> OfRecurrent(ClipContext& c, const Owed& o, bool whole) {
  const Examples* at = c.map.Find(o.node->input(0));
  if (whole || o.input > 3 || at == nullptr || *at != Examples{1, 1}) return No(o, "no form by example");
  if (c.ShapeOf(o.node->input(0))[0] < 1) return No(o, "the number of times is not known");
  return RecurrentForm(c, o).Run();
}

using Form = Result<PerExample> (*)(ClipContext&, const Owed&, bool);

const std::map<std::string, Form>& Forms() {
  static const std::map<std::string, Form> forms{
      {"Add", Repeated},    {"BatchNormalization", OfBatchNormalization},
      {"Conv", OfConv},     {"ConvTranspose", OfConv},
      {"Div", Repeated},    {"Expand", Repeated},
      {"Gather", OfGather}, {"GRU", OfRecurrent},
      {"Gemm", OfGemm},     {"LSTM", OfRecurrent},
      {"RNN", OfRecurrent}, {"LayerNormalization", Repeated},
      {"MatMul", OfMatMul}, {"Max", Repeated},
      {"Mean", Repeated},   {"Min", Repeated},
      {"Mul", Repeated},    {"PRelu", Repeated},
      {"Pow", Repeated},    {"Sub", Repeated},
      {"Sum", Repeated},    {"Where", Repeated},
  };
  return forms;
}

}  // namespace

Result<std::string> ClipContext::Positions(const std::string& value, std::size_t tail, std::int64_t* t) {
  return Positions(value, ShapeOf(value), *map.Find(value), tail, t);
}

Result<std::string> ClipContext::Positions(const std::string& value, const Shape& shape, const Examples& at,
                                           std::size_t tail, std::int64_t* t) {
  if (at.axis + tail >= shape.size()) return Unimplemented("examples lie inside of what a position is");
  std::string v = value;
  Ints perm = Range(0, shape.size());
  if (at.axis != 0) {
    std::rotate(perm.begin(), perm.begin() + static_cast<std::ptrdiff_t>(at.axis),
                perm.begin() + static_cast<std::ptrdiff_t>(at.axis) + 1);
    v = g.Node("Transpose", {v}, {{"perm", perm}});
  }
  Shape moved;
  for (const auto p : perm) moved.push_back(shape[static_cast<std::size_t>(p)]);
  const std::size_t split = moved.size() - tail;
  const std::int64_t others = Product(moved, 1, split);
  const std::int64_t numbers = Product(moved, split, moved.size());
  if (numbers < 1) return Unimplemented("sizes that are not known");
  *t = others < 0 ? -1 : others * at.per;
  if (*t < 0) {
    if (at.per != 1 || split != 2 || tail > 1) return Unimplemented("positions whose number is not known");
    return v;
  }
  Ints wanted{-1};
  if (*t != 1) wanted.push_back(*t);
  if (tail > 0 || *t == 1) wanted.push_back(numbers);
  const bool is_so =
      at.per == 1 && wanted.size() == moved.size() && std::equal(wanted.begin() + 1, wanted.end(), moved.begin() + 1);
  return is_so ? v : Reshape(g, v, wanted);
}

std::string ClipContext::Squares(const std::string& value, std::size_t rank) {
  std::string& made = squares[value];
  if (made.empty()) made = g.Node("ReduceSumSquare", {value}, {{"axes", Range(1, rank)}, KeepDims(false)});
  return made;
}

Result<PerExample> ByExample(ClipContext& c, const Owed& owed, bool whole) {
  const std::string& y = owed.node->output(0);
  if (y.empty() || c.map.Find(y) == nullptr) return No(owed, "its gradient comes by another output");
  const auto form = Forms().find(owed.node->op_type());
  if (form == Forms().end()) return No(owed, "no form by example");
  return form->second(c, owed, whole);
}

}  // namespace ganglion::gradient
