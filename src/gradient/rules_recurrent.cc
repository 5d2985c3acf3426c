// Recurrent layers: RNN, GRU, LSTM.
//
// Forward is the runtime's own operator. Backward makes the gates again, of all times at once, from X and the states
// that the operator gave; what is left to do step by step is linear in the gradient, a product with factors that are
// known and one with R, and runs in a Scan against time (gradient/scan.h). Weights' gradients are products over all
// times at once again. Each direction is a layer of its own.
//
// In ONNX's letters: X [T, B, I]; W [D, G H, I], R [D, G H, H], B [D, 2 G H] with G gates; Y [T, D, B, H].
#include <algorithm>

#include "gradient/recurrent.h"
#include "gradient/rules.h"
#include "gradient/scan.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using Ints = std::vector<std::int64_t>;
using Node = onnx::NodeProto;
using tensor::Shape;

std::string Text(const Node& n, std::string_view attribute, const std::string& otherwise) {
  const auto* a = graph::FindAttribute(n, attribute);
  return a == nullptr ? otherwise : a->s();
}

std::int64_t Gates(const Node& n) { return n.op_type() == "RNN" ? 1 : n.op_type() == "GRU" ? 3 : 4; }
bool Given(const Node& n, int i) { return i < n.input_size() && !n.input(i).empty(); }

// What each gate goes through, in the operator's order, for all directions.
std::vector<std::string> Activations(const Node& n, std::size_t directions) {
  std::vector<std::string> all;
  if (const auto* a = graph::FindAttribute(n, "activations")) all.assign(a->strings().begin(), a->strings().end());
  if (!all.empty()) return all;
  const std::vector<std::string> one = n.op_type() == "RNN"   ? std::vector<std::string>{"Tanh"}
                                       : n.op_type() == "GRU" ? std::vector<std::string>{"Sigmoid", "Tanh"}
                                                              : std::vector<std::string>{"Sigmoid", "Tanh", "Tanh"};
  for (std::size_t d = 0; d < directions; ++d) all.insert(all.end(), one.begin(), one.end());
  return all;
}

Status CheckActivations(const Node& n, std::size_t directions) {
  const std::vector<std::string> usual = [&] {
    Node plain = n;
    plain.clear_attribute();
    return Activations(plain, directions);
  }();
  const auto all = Activations(n, directions);
  if (n.op_type() != "RNN" && all != usual)
    return Unimplemented("other activations than Sigmoid for gates and Tanh; leave the attribute out");
  const bool known = std::all_of(all.begin(), all.end(),
                                 [](const std::string& a) { return a == "Tanh" || a == "Relu" || a == "Sigmoid"; });
  if (all.size() != usual.size() || !known) return Unimplemented("an activation other than Tanh, Relu or Sigmoid");
  return {};
}

// What has no rule here, each with its own sentence.
Status CheckForm(const Node& n, std::size_t directions) {
  if (graph::IntAttribute(n, "layout", 0) != 0)
    return Unimplemented("layout 1 (batch first), which the runtime has not either; transpose X and Y instead");
  if (Given(n, 4))
    return Unimplemented("sequence_lens; pad the sequences to one length, and mask or gather the outputs");
  if (graph::FindAttribute(n, "clip") != nullptr) return Unimplemented("the attribute clip; leave it out to train");
  if (n.op_type() == "LSTM" && Given(n, 7)) return Unimplemented("peepholes (input P)");
  if (graph::IntAttribute(n, "input_forget", 0) != 0) return Unimplemented("input_forget");
  return CheckActivations(n, directions);
}

Status Expect(const Node& n, const Shapes& s, int i, const std::string& name, const Shape& want) {
  if (!Given(n, i)) return {};
  const Shape& got = In(n, s, i);
  bool fits = got.size() == want.size();
  for (std::size_t d = 0; fits && d < got.size(); ++d) fits = got[d] == want[d] || got[d] < 0 || want[d] < 0;
  if (fits) return {};
  return InvalidArgument(name + " should be " + tensor::ShapeText(want) + ", is " + tensor::ShapeText(got));
}

Inferred InferRecurrent(const Node& n, Shapes& s) {
  const Shape x = In(n, s, 0);
  const Shape r = In(n, s, 2);
  const std::string direction = Text(n, "direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
    return InvalidArgument("direction \"" + direction + "\"");
  const std::int64_t directions = direction == "bidirectional" ? 2 : 1;
  RETURN_IF_ERROR(CheckForm(n, static_cast<std::size_t>(directions)));
  if (x.size() != 3) return InvalidArgument("X should be [time, batch, features], is " + tensor::ShapeText(x));
  if (r.size() != 3 || r[2] < 1)
    return InvalidArgument("R should be [directions, gates, hidden], is " + tensor::ShapeText(r));
  const std::int64_t h = r[2];
  const std::int64_t g = Gates(n) * h;
  if (graph::IntAttribute(n, "hidden_size", h) != h)
    return InvalidArgument("hidden_size is not that of R " + tensor::ShapeText(r));
  RETURN_IF_ERROR(Expect(n, s, 1, "W", {directions, g, x[2]}));
  RETURN_IF_ERROR(Expect(n, s, 2, "R", {directions, g, h}));
  RETURN_IF_ERROR(Expect(n, s, 3, "B", {directions, 2 * g}));
  RETURN_IF_ERROR(Expect(n, s, 5, "initial_h", {directions, x[1], h}));
  if (n.op_type() == "LSTM") RETURN_IF_ERROR(Expect(n, s, 6, "initial_c", {directions, x[1], h}));
  const Shape last{directions, x[1], h};
  return std::vector<Shape>{{x[0], directions, x[1], h}, last, last};
}

// The gradient reads the states of all times, also where the model reads only the last.
Status ForwardRecurrent(Forward& f) {
  if (!f.needs_gradient || !f.n->output(0).empty()) return {};
  ASSIGN_OR_RETURN(const auto shapes, InferRecurrent(*f.n, f.shapes));
  f.n->set_output(0, f.g.Fresh("Y"));
  f.shapes.shape[f.n->output(0)] = shapes[0];
  return {};
}

// Short names for what the formulas are made of.
struct Formula {
  GraphBuilder& g;
  std::string Mul(const std::string& a, const std::string& b) const { return g.Node("Mul", {a, b}); }
  std::string Add(const std::string& a, const std::string& b) const { return g.Node("Add", {a, b}); }
  std::string Sub(const std::string& a, const std::string& b) const { return g.Node("Sub", {a, b}); }
  std::string Concat(const std::vector<std::string>& parts, std::int64_t axis) const {
    return parts.size() == 1 ? parts[0] : g.Node("Concat", parts, {{"axis", axis}});
  }
  std::vector<std::string> Split(const std::string& a, const Ints& sizes) const {
    return g.Nodes("Split", {a, g.Ints("sizes", sizes)}, sizes.size(), {{"axis", std::int64_t{1}}});
  }
  std::string OneLess(const std::string& a) const { return Sub(g.Scalar("one", 1), a); }  // 1 - a
  // The slope of an activation, from its value.
  std::string SlopeOfSigmoid(const std::string& y) const { return Sub(y, Mul(y, y)); }
  std::string SlopeOfTanh(const std::string& y) const { return OneLess(Mul(y, y)); }
  std::string SlopeOfRelu(const std::string& y) const {
    return g.Node("HardSigmoid", {y}, {{"alpha", 1e38f}, {"beta", 0.f}});
  }
  // a b' + c, c being "" for none.
  std::string Gemm(const std::string& a, const std::string& b, const std::string& c) const {
    std::vector<std::string> in{a, b};
    if (!c.empty()) in.push_back(c);
    return g.Node("Gemm", in, {{"transB", std::int64_t{1}}});
  }
  // a' b
  std::string TransposedTimes(const std::string& a, const std::string& b) const {
    return g.Node("MatMul", {g.Node("Transpose", {a}, {{"perm", Ints{1, 0}}}), b});
  }
  std::string SumOfRows(const std::string& a) const { return gradient::SumOfRows(g, a); }
};

// What one direction works on. "Rows" are all times of all examples: [T B, ...].
struct Layer {
  std::int64_t hidden = 0;
  bool reverse = false;
  std::string activation;   // of RNN
  std::string w, r;         // [G H, I], [G H, H]
  std::string wb, rb;       // [G H], "" for none
  std::string x;            // rows of X
  std::string h, h_before;  // rows of the states after and before each time
  std::string h0, c0;       // [1, B, H], "" for zeros
  std::string dy;           // [T, B, H], "" where nothing reads Y
  std::string dh, dc;       // [B, H] of the last states
};

class Recurrent {
 public:
  explicit Recurrent(Backward& b)
      : b_(b),
        f_{b.g},
        directions_(b.ShapeOfInput(2)[0]),
        hidden_(b.ShapeOfInput(2)[2]),
        time_(b.ShapeOfInput(0)[0]),
        batch_(b.ShapeOfInput(0)[1]) {}

  // By direction.
  std::vector<RecurrentProducts> Products() {
    std::vector<RecurrentProducts> products;
    if (b_.notes != nullptr) {
      if (const auto at = b_.notes->find(b_.y()); at != b_.notes->end()) return Read(at->second);
    }
    const bool alone = Text(b_.n, "direction", "forward") == "reverse";
    x_ = XAsRows();
    products.reserve(static_cast<std::size_t>(directions_));
    for (std::int64_t d = 0; d < directions_; ++d) {
      const Layer l = Take(d, alone || d == 1);
      products.push_back(b_.n.op_type() == "RNN" ? Rnn(l) : b_.n.op_type() == "GRU" ? Gru(l) : Lstm(l));
    }
    if (b_.notes != nullptr) (*b_.notes)[b_.y()] = Write(products);
    return products;
  }

  Status Run() {
    const auto products = Products();
    std::vector<std::string> dx, dw, dr, db, dh0, dc0;
    const std::string x = b_.wanted(1) ? XAsRows() : "";
    const auto as_direction = [&](const std::string& v) { return g().Node("Unsqueeze", {v, g().Ints("axis", {0})}); };
    for (std::int64_t d = 0; d < directions_; ++d) {
      const RecurrentProducts& p = products[static_cast<std::size_t>(d)];
      if (b_.wanted(0)) dx.push_back(g().Node("MatMul", {p.of_x, Of(b_.x(1), d, 0)}));
      if (b_.wanted(1)) dw.push_back(as_direction(f_.TransposedTimes(p.of_x, x)));
      if (b_.wanted(2)) {
        std::vector<std::string> parts;
        for (const auto& r : p.of_r) parts.push_back(f_.TransposedTimes(r.d, r.a));
        dr.push_back(as_direction(f_.Concat(parts, 0)));
      }
      if (b_.wanted(3)) {
        const std::string dwb = f_.SumOfRows(p.of_x);
        db.push_back(as_direction(f_.Concat({dwb, p.of_rb == p.of_x ? dwb : f_.SumOfRows(p.of_rb)}, 0)));
      }
      if (b_.wanted(5)) dh0.push_back(as_direction(p.dh0));
      if (b_.wanted(6)) dc0.push_back(as_direction(p.dc0));
    }
    if (b_.wanted(0)) b_.Give(0, b_.ReshapeLikeInput(dx.size() == 1 ? dx[0] : f_.Add(dx[0], dx[1]), 0));
    if (b_.wanted(1)) b_.Give(1, f_.Concat(dw, 0));
    if (b_.wanted(2)) b_.Give(2, f_.Concat(dr, 0));
    if (b_.wanted(3)) b_.Give(3, f_.Concat(db, 0));
    if (b_.wanted(5)) b_.Give(5, f_.Concat(dh0, 0));
    if (b_.wanted(6)) b_.Give(6, f_.Concat(dc0, 0));
    return {};
  }

 private:
  GraphBuilder& g() { return b_.g; }
  std::string XAsRows() { return g().Node("Reshape", {b_.x(0), g().Ints("rows", {-1, b_.ShapeOfInput(0)[2]})}); }

  // Notes are names: of_x, of_rb, dh0, dc0, then d and a of each product, for every direction.
  bool TwoProducts() const {
    return b_.n.op_type() == "GRU" && graph::IntAttribute(b_.n, "linear_before_reset", 0) == 0;
  }
  std::vector<std::string> Write(const std::vector<RecurrentProducts>& products) const {
    std::vector<std::string> names;
    for (const auto& p : products) {
      names.insert(names.end(), {p.of_x, p.of_rb, p.dh0, p.dc0});
      for (const auto& r : p.of_r) names.insert(names.end(), {r.d, r.a});
    }
    return names;
  }
  std::vector<RecurrentProducts> Read(const std::vector<std::string>& names) const {
    std::vector<RecurrentProducts> products(static_cast<std::size_t>(directions_));
    auto at = names.begin();
    for (auto& p : products) {
      p.of_x = *at++;
      p.of_rb = *at++;
      p.dh0 = *at++;
      p.dc0 = *at++;
      p.of_r = OfR(at[0], at[1]);
      at += 2;
      if (!TwoProducts()) continue;
      p.of_r = OfR(at[-2], at[-1], at[0], at[1]);
      at += 2;
    }
    return products;
  }
  // One product for all gates; or one for the first two gates and one for the third.
  std::vector<RecurrentProducts::Product> OfR(const std::string& d, const std::string& a) const {
    return {{d, a, Gates(b_.n) * hidden_, hidden_}};
  }
  std::vector<RecurrentProducts::Product> OfR(const std::string& d, const std::string& a, const std::string& d_third,
                                              const std::string& a_third) const {
    return {{d, a, 2 * hidden_, hidden_}, {d_third, a_third, hidden_, hidden_}};
  }

  // Direction `d` of a value that has directions along `axis`.
  std::string Of(const std::string& value, std::int64_t d, std::int64_t axis) {
    if (directions_ == 1) return g().Node("Squeeze", {value, g().Ints("axis", {axis})});
    const std::string index =
        g().Constant("direction", tensor::Tensor::From<long>({}, std::vector<long>{static_cast<long>(d)}).value());
    return g().Node("Gather", {value, index}, {{"axis", axis}});
  }
  // The same, the axis kept with a size of 1.
  std::string OneOf(const std::string& value, std::int64_t d) {
    if (directions_ == 1) return value;
    return g().Node("Gather", {value, g().Ints("direction", {d})}, {{"axis", std::int64_t{0}}});
  }
  std::string Upstream(std::size_t output) const { return output < b_.dys.size() ? b_.dys[output] : ""; }

  Layer Take(std::int64_t d, bool reverse) {
    Layer l;
    l.hidden = hidden_;
    l.reverse = reverse;
    l.activation = Activations(b_.n, static_cast<std::size_t>(directions_))[static_cast<std::size_t>(d)];
    l.w = Of(b_.x(1), d, 0);
    l.r = Of(b_.x(2), d, 0);
    if (b_.has(3)) {
      const std::string both = g().Node("Reshape", {Of(b_.x(3), d, 0), g().Ints("halves", {2, Gates(b_.n) * hidden_})});
      const auto halves = g().Nodes("Split", {both, g().Ints("sizes", {1, 1})}, 2, {{"axis", std::int64_t{0}}});
      l.wb = g().Node("Squeeze", {halves[0], g().Ints("axis", {0})});
      l.rb = g().Node("Squeeze", {halves[1], g().Ints("axis", {0})});
    }
    l.x = x_;
    if (b_.has(5)) l.h0 = OneOf(b_.x(5), d);
    if (b_.has(6)) l.c0 = OneOf(b_.x(6), d);
    const std::string y = Of(b_.y(), d, 1);  // [T, B, H]
    l.h = Rows(y, 1);
    l.h_before = Rows(Before(y, l.h0, reverse), 1);
    state_shape_ = g().Node("Shape", {y}, {{"start", std::int64_t{1}}});
    if (!Upstream(0).empty()) l.dy = Of(Upstream(0), d, 1);
    l.dh = LastOf(1, d);
    if (b_.n.op_type() == "LSTM") l.dc = LastOf(2, d);
    return l;
  }

  // The gradient of the last state [B, H]; zeros where nothing reads it.
  std::string LastOf(std::size_t output, std::int64_t d) {
    return Upstream(output).empty() ? Zeros() : Of(Upstream(output), d, 0);
  }
  std::string Zeros() { return g().Node("ConstantOfShape", {state_shape_}); }

  // [T, B, k H] as rows, and back.
  std::string Rows(const std::string& value, std::int64_t widths) {
    return g().Node("Reshape", {value, g().Ints("rows", {-1, widths * hidden_})});
  }
  std::string OverTime(const std::string& rows, std::int64_t widths) {
    const std::int64_t width = widths * hidden_;
    if (time_ >= 0) return g().Node("Reshape", {rows, g().Ints("times", {time_, -1, width})});
    if (batch_ >= 0) return g().Node("Reshape", {rows, g().Ints("times", {-1, batch_, width})});
    const std::string sizes = g().Node("Shape", {b_.x(0)}, {{"end", std::int64_t{2}}});
    return g().Node("Reshape", {rows, f_.Concat({sizes, g().Ints("width", {width})}, 0)});
  }

  // The states [T, B, H] moved one step on: what each step began with.
  std::string Before(const std::string& states, const std::string& initial, bool reverse) {
    if (initial.empty()) {  // a border of one zero state on one side, one state less on the other
      const Ints pads = reverse ? Ints{-1, 0, 0, 1, 0, 0} : Ints{1, 0, 0, -1, 0, 0};
      return g().Node("Pad", {states, g().Ints("pads", pads)});
    }
    const std::string others = g().Node("Slice", {states, g().Ints("starts", {reverse ? 1 : 0}),
                                                  g().Ints("ends", {reverse ? INT64_MAX : -1}), g().Ints("axes", {0})});
    return reverse ? f_.Concat({others, initial}, 0) : f_.Concat({initial, others}, 0);
  }

  Shape State() const { return {batch_, hidden_}; }
  Shape Wide(std::int64_t widths) const { return {batch_, widths * hidden_}; }
  // dy of a step and what comes from later.
  static std::string Arriving(ScanBody& s, const Layer& l, const std::string& later, const Shape& shape) {
    return l.dy.empty() ? later : s.Node("Add", {s.Sequence(l.dy, shape), later});
  }
  static std::string Repeat(ScanBody& s, const std::vector<std::string>& parts) {
    return s.Node("Concat", parts, {{"axis", std::int64_t{1}}});
  }

  // H' = f(a), a = X W' + H R' + b:   da = dH f',  dH_before = da R.
  RecurrentProducts Rnn(const Layer& l) {
    const std::string slope = l.activation == "Tanh"   ? f_.SlopeOfTanh(l.h)
                              : l.activation == "Relu" ? f_.SlopeOfRelu(l.h)
                                                       : f_.SlopeOfSigmoid(l.h);
    ScanBody s(g());
    const std::string later = s.State(l.dh, State());
    const std::string dh = Arriving(s, l, later, State());
    const std::string da = s.Node("Mul", {dh, s.Sequence(OverTime(slope, 1), State())});
    s.Carry(s.Node("MatMul", {da, l.r}));
    s.Emit(da, State());
    const auto out = s.Append(!l.reverse);
    return OneProduct(l, Rows(out[1], 1), out[0]);
  }

  // W and R are used alike: dR = da' H_before, both biases get the sum.
  RecurrentProducts OneProduct(const Layer& l, const std::string& da, const std::string& dh0) {
    return {da, OfR(da, l.h_before), da, dh0, ""};
  }

  // z, r = sigmoid(X W' + H R' + b); n = tanh(.); H' = (1 - z) n + z H.
  RecurrentProducts Gru(const Layer& l) {
    return graph::IntAttribute(b_.n, "linear_before_reset", 0) != 0 ? GruResetAfter(l) : GruResetBefore(l);
  }

  // n = tanh(X Wn' + bw + r q), q = H Rn' + br. Everything that goes through R is one product:
  //   [dz dr dq] = [dH dH dH] * [Pz Pr Pq],  dH_before = dH z + [dz dr dq] R.
  RecurrentProducts GruResetAfter(const Layer& l) {
    const Ints gates{2 * hidden_, hidden_};
    const auto of_x = f_.Split(f_.Gemm(l.x, l.w, l.wb), gates);
    const auto of_h = f_.Split(f_.Gemm(l.h_before, l.r, l.rb), gates);
    const auto zr = f_.Split(g().Node("Sigmoid", {f_.Add(of_x[0], of_h[0])}), {hidden_, hidden_});
    const std::string& z = zr[0];
    const std::string& r = zr[1];
    const std::string n = g().Node("Tanh", {f_.Add(of_x[1], f_.Mul(r, of_h[1]))});
    const std::string pz = f_.Mul(f_.Sub(l.h_before, n), f_.SlopeOfSigmoid(z));
    const std::string pn = f_.Mul(f_.OneLess(z), f_.SlopeOfTanh(n));
    const std::string pr = f_.Mul(f_.Mul(pn, of_h[1]), f_.SlopeOfSigmoid(r));
    const std::string pq = f_.Mul(pn, r);
    ScanBody s(g());
    const std::string later = s.State(l.dh, State());
    const std::string dh = Arriving(s, l, later, State());
    const std::string factors = s.Sequence(OverTime(f_.Concat({pz, pr, pq}, 1), 3), Wide(3));
    const std::string d = s.Node("Mul", {Repeat(s, {dh, dh, dh}), factors});
    const std::string kept = s.Node("Mul", {dh, s.Sequence(OverTime(z, 1), State())});
    s.Carry(s.Node("Gemm", {d, l.r, kept}));
    s.Emit(d, Wide(3));
    s.Emit(l.dy.empty() ? s.Node("Identity", {dh}) : dh, State());
    const auto out = s.Append(!l.reverse);
    const std::string dgates = Rows(out[1], 3);
    const std::string dn = f_.Mul(Rows(out[2], 1), pn);
    return {f_.Concat({f_.Split(dgates, gates)[0], dn}, 1), OfR(dgates, l.h_before), dgates, out[0], ""};
  }

  // n = tanh(X Wn' + (r H) Rn' + b):
  //   dn = dH Pn, q = dn Rn, dr = q Pr;  dH_before = dH z + q r + [dz dr] [Rz Rr].
  RecurrentProducts GruResetBefore(const Layer& l) {
    const Ints gates{2 * hidden_, hidden_};
    const auto weights = g().Nodes("Split", {l.r, g().Ints("sizes", gates)}, 2, {{"axis", std::int64_t{0}}});
    std::vector<std::string> biases{"", ""};
    if (!l.rb.empty()) biases = g().Nodes("Split", {l.rb, g().Ints("sizes", gates)}, 2, {{"axis", std::int64_t{0}}});
    const auto of_x = f_.Split(f_.Gemm(l.x, l.w, l.wb), gates);
    const auto zr = f_.Split(g().Node("Sigmoid", {f_.Add(of_x[0], f_.Gemm(l.h_before, weights[0], biases[0]))}),
                             {hidden_, hidden_});
    const std::string& z = zr[0];
    const std::string& r = zr[1];
    const std::string reset = f_.Mul(r, l.h_before);
    const std::string n = g().Node("Tanh", {f_.Add(of_x[1], f_.Gemm(reset, weights[1], biases[1]))});
    const std::string pz = f_.Mul(f_.Sub(l.h_before, n), f_.SlopeOfSigmoid(z));
    const std::string pn = f_.Mul(f_.OneLess(z), f_.SlopeOfTanh(n));
    const std::string pr = f_.Mul(l.h_before, f_.SlopeOfSigmoid(r));
    ScanBody s(g());
    const std::string later = s.State(l.dh, State());
    const std::string dh = Arriving(s, l, later, State());
    const auto at = [&](const std::string& rows) { return s.Sequence(OverTime(rows, 1), State()); };
    const std::string dn = s.Node("Mul", {dh, at(pn)});
    const std::string q = s.Node("MatMul", {dn, weights[1]});
    const std::string dzr = Repeat(s, {s.Node("Mul", {dh, at(pz)}), s.Node("Mul", {q, at(pr)})});
    const std::string kept = s.Node("Add", {s.Node("Mul", {dh, at(z)}), s.Node("Mul", {q, at(r)})});
    s.Carry(s.Node("Gemm", {dzr, weights[0], kept}));
    s.Emit(dzr, Wide(2));
    s.Emit(dn, State());
    const auto out = s.Append(!l.reverse);
    const std::string dzr_rows = Rows(out[1], 2);
    const std::string dn_rows = Rows(out[2], 1);
    const std::string da = f_.Concat({dzr_rows, dn_rows}, 1);
    return {da, OfR(dzr_rows, l.h_before, dn_rows, reset), da, out[0], ""};
  }

  // i, o, f = sigmoid(.), u = tanh(.); C' = f C + i u; H' = o tanh(C'). The operator does not give C of every time: a
  // Scan of one product and one sum makes it again.
  //   dC = dC_later + dH o (1 - tanh(C)^2);  [di do df du] = [dC dH dC dC] * factors.
  RecurrentProducts Lstm(const Layer& l) {
    const std::string bias = l.wb.empty() ? "" : f_.Add(l.wb, l.rb);
    const std::string a = f_.Gemm(l.h_before, l.r, f_.Gemm(l.x, l.w, bias));
    const auto parts = f_.Split(a, {3 * hidden_, hidden_});
    const auto iof = f_.Split(g().Node("Sigmoid", {parts[0]}), {hidden_, hidden_, hidden_});
    const std::string u = g().Node("Tanh", {parts[1]});
    const std::string cells = Cells(l, iof[2], f_.Mul(iof[0], u));  // [T, B, H]
    const std::string t = g().Node("Tanh", {Rows(cells, 1)});
    const std::string c_before = Rows(Before(cells, l.c0, l.reverse), 1);
    const std::string through = f_.Mul(iof[1], f_.SlopeOfTanh(t));
    const std::string slopes =
        f_.Mul(f_.SlopeOfSigmoid(g().Node("Concat", {iof[0], iof[1], iof[2]}, {{"axis", std::int64_t{1}}})),
               f_.Concat({u, t, c_before}, 1));
    const std::string factors = f_.Concat({slopes, f_.Mul(iof[0], f_.SlopeOfTanh(u))}, 1);
    ScanBody s(g());
    const std::string later_h = s.State(l.dh, State());
    const std::string later_c = s.State(l.dc, State());
    const std::string dh = Arriving(s, l, later_h, State());
    const auto at = [&](const std::string& rows) { return s.Sequence(OverTime(rows, 1), State()); };
    const std::string dc = s.Node("Add", {later_c, s.Node("Mul", {dh, at(through)})});
    const std::string d = s.Node("Mul", {Repeat(s, {dc, dh, dc, dc}), s.Sequence(OverTime(factors, 4), Wide(4))});
    s.Carry(s.Node("MatMul", {d, l.r}));
    s.Carry(s.Node("Mul", {dc, at(iof[2])}));
    s.Emit(d, Wide(4));
    const auto out = s.Append(!l.reverse);
    RecurrentProducts products = OneProduct(l, Rows(out[2], 4), out[0]);
    products.dc0 = out[1];
    return products;
  }

  // C' = f C + add, of all times.
  std::string Cells(const Layer& l, const std::string& forget, const std::string& add) {
    ScanBody s(g());
    const std::string c = s.State(l.c0.empty() ? Zeros() : g().Node("Squeeze", {l.c0, g().Ints("axis", {0})}), State());
    const std::string kept = s.Node("Mul", {c, s.Sequence(OverTime(forget, 1), State())});
    const std::string next = s.Node("Add", {kept, s.Sequence(OverTime(add, 1), State())});
    s.Carry(next);
    s.Emit(s.Node("Identity", {next}), State());
    return s.Append(l.reverse)[1];
  }

  Backward& b_;
  const Formula f_;
  const std::int64_t directions_, hidden_, time_, batch_;
  std::string x_;
  std::string state_shape_;  // of [B, H], as a value
};

Status GradRecurrent(Backward& b) { return Recurrent(b).Run(); }

}  // namespace

std::vector<RecurrentProducts> ProductsOf(Backward& b) { return Recurrent(b).Products(); }

std::vector<Rule> RecurrentRules() {
  return {
      {"GRU", 3, InferRecurrent, GradRecurrent, ForwardRecurrent, true},
      {"LSTM", 3, InferRecurrent, GradRecurrent, ForwardRecurrent, true},
      {"RNN", 3, InferRecurrent, GradRecurrent, ForwardRecurrent, true},
  };
}

}  // namespace ganglion::gradient
