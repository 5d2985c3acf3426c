#include "gradient/known.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using Ints = std::vector<std::int64_t>;
using Floats = std::vector<float>;
using Node = onnx::NodeProto;
using tensor::Shape;

template <typename T>
using Lists = std::vector<std::vector<T>>;  // the numbers of each input

const Ints* FindInts(const Shapes& s, const std::string& name) {
  const auto at = s.ints.find(name);
  return at == s.ints.end() ? nullptr : &at->second;
}
const Floats* FindFloats(const Shapes& s, const std::string& name) {
  const auto at = s.floats.find(name);
  return at == s.floats.end() ? nullptr : &at->second;
}

std::int64_t SizeOrBatch(std::int64_t d) { return d < 0 ? kOfBatch : d; }

// Shape of x, from `start` to `end`.
std::optional<Ints> ShapeOf(const Node& n, const Shapes& s) {
  const Shape& x = In(n, s, 0);
  const auto rank = static_cast<std::int64_t>(x.size());
  const auto place = [&](const char* name, std::int64_t otherwise) {
    const std::int64_t at = graph::IntAttribute(n, name, otherwise);
    return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  Ints y;
  for (std::int64_t i = place("start", 0); i < place("end", rank); ++i)
    y.push_back(SizeOrBatch(x[static_cast<std::size_t>(i)]));
  return y;
}

// ---- numbers by themselves -----------------------------------------------------------------------------------------

// f of each pair, where both inputs have the same count or one of them a single number.
template <typename T, typename R>
std::optional<std::vector<R>> Pairs(const std::vector<T>& a, const std::vector<T>& b,
                                    const std::function<std::optional<R>(T, T)>& f) {
  const std::size_t count = a.empty() || b.empty() ? 0 : std::max(a.size(), b.size());
  if ((a.size() != count && a.size() != 1) || (b.size() != count && b.size() != 1)) return std::nullopt;
  std::vector<R> y;
  for (std::size_t i = 0; i < count; ++i) {
    const std::optional<R> v = f(a[i % a.size()], b[i % b.size()]);
    if (!v) return std::nullopt;
    y.push_back(*v);
  }
  return y;
}

// Integer arithmetic; what involves the batch is "of the batch" again. Nothing where it overflows.
std::optional<std::int64_t> Calculate(const std::string& op, std::int64_t a, std::int64_t b) {
  const bool batch = a == kOfBatch || b == kOfBatch;
  std::int64_t y = 0;
  if (op == "Mul") {
    if (a == 0 || b == 0) return 0;
    if (batch) return kOfBatch;
    if (__builtin_mul_overflow(a, b, &y)) return std::nullopt;
    return y;
  }
  if (op == "Min" || op == "Max") {
    if (batch) return std::nullopt;
    return op == "Min" ? std::min(a, b) : std::max(a, b);
  }
  if (batch) return kOfBatch;
  if (op == "Add") return __builtin_add_overflow(a, b, &y) ? std::nullopt : std::optional(y);
  if (op == "Sub") return __builtin_sub_overflow(a, b, &y) ? std::nullopt : std::optional(y);
  if (b == 0 || b == -1) return b == 0 ? std::nullopt : std::optional(op == "Div" ? -a : 0);
  if (op == "Div") return a / b;
  return op == "Mod" ? std::optional(((a % b) + b) % b) : std::nullopt;
}

std::optional<float> CalculateFloat(const std::string& op, float a, float b) {
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Div") return a / b;
  if (op == "Min") return std::min(a, b);
  if (op == "Max") return std::max(a, b);
  return op == "Pow" ? std::optional(std::pow(a, b)) : std::nullopt;
}

// Truths about the batch: it equals itself, and is no number below 1.
std::optional<std::int64_t> CompareInts(const std::string& op, std::int64_t a, std::int64_t b) {
  if (a == kOfBatch || b == kOfBatch) {
    if (op != "Equal") return std::nullopt;
    if (a == b) return 1;
    return (a == kOfBatch ? b : a) < 1 ? std::optional<std::int64_t>(0) : std::nullopt;
  }
  if (op == "Equal") return a == b;
  if (op == "Greater") return a > b;
  if (op == "GreaterOrEqual") return a >= b;
  if (op == "Less") return a < b;
  if (op == "LessOrEqual") return a <= b;
  if (op == "And") return (a != 0) && (b != 0);
  if (op == "Or") return (a != 0) || (b != 0);
  return op == "Xor" ? std::optional<std::int64_t>((a != 0) != (b != 0)) : std::nullopt;
}

std::optional<std::int64_t> CompareFloats(const std::string& op, float a, float b) {
  if (op == "Equal") return a == b;
  if (op == "Greater") return a > b;
  if (op == "GreaterOrEqual") return a >= b;
  if (op == "Less") return a < b;
  return op == "LessOrEqual" ? std::optional<std::int64_t>(a <= b) : std::nullopt;
}

std::optional<float> OfOneFloat(const std::string& op, float x) {
  if (op == "Neg") return -x;
  if (op == "Floor") return std::floor(x);
  if (op == "Ceil") return std::ceil(x);
  if (op == "Round") return std::nearbyint(x);
  return op == "Sqrt" ? std::optional(std::sqrt(x)) : std::nullopt;
}

std::optional<std::int64_t> OfOneInt(const std::string& op, std::int64_t x) {
  if (x == kOfBatch) return std::nullopt;
  if (op == "Neg") return -x;
  if (op == "Abs") return std::abs(x);
  return op == "Not" ? std::optional<std::int64_t>(x == 0) : std::nullopt;
}

// ---- lists ---------------------------------------------------------------------------------------------------------

template <typename T>
std::optional<std::vector<T>> PickFrom(const Node& n, const Shapes& s, const std::vector<T>& x) {
  const Ints* index = FindInts(s, n.input(1));
  if (index == nullptr || In(n, s, 0).size() != 1) return std::nullopt;
  std::vector<T> y;
  for (auto i : *index) {
    i += i < 0 ? static_cast<std::int64_t>(x.size()) : 0;
    if (i < 0 || i >= static_cast<std::int64_t>(x.size())) return std::nullopt;
    y.push_back(x[static_cast<std::size_t>(i)]);
  }
  return y;
}

// x [shape], read by positions: the number at `from(position)` for each position of `y`.
template <typename T>
std::vector<T> Rearranged(const std::vector<T>& x, const Shape& shape, const Shape& y,
                          const std::function<void(const Shape& at, Shape* from)>& from) {
  std::vector<T> out;
  const std::int64_t count = Product(y, 0, y.size());
  out.reserve(static_cast<std::size_t>(count));
  for (std::int64_t flat = 0; flat < count; ++flat) {
    Shape at(y.size());
    std::int64_t rest = flat;
    for (std::size_t i = y.size(); i-- > 0;) {
      at[i] = rest % y[i];
      rest /= y[i];
    }
    Shape there(shape.size());
    from(at, &there);
    std::int64_t index = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) index = index * shape[i] + there[i];
    out.push_back(x[static_cast<std::size_t>(index)]);
  }
  return out;
}

template <typename T>
std::optional<std::vector<T>> PartOf(const Node& n, const Shapes& s, const std::vector<T>& x) {
  const auto cuts = CutsOf(n, s);
  if (!cuts.ok()) return std::nullopt;
  return Rearranged<T>(x, In(n, s, 0), s.shape.at(n.output(0)), [&](const Shape& at, Shape* from) {
    *from = at;
    for (const Cut& c : *cuts) (*from)[c.axis] = c.start + at[c.axis] * c.step;
  });
}

template <typename T>
std::vector<T> Transposed(const Node& n, const Shapes& s, const std::vector<T>& x) {
  const Ints perm = Permutation(n, In(n, s, 0).size());
  return Rearranged<T>(x, In(n, s, 0), s.shape.at(n.output(0)), [&](const Shape& at, Shape* from) {
    for (std::size_t i = 0; i < perm.size(); ++i) (*from)[static_cast<std::size_t>(perm[i])] = at[i];
  });
}

template <typename T>
std::optional<std::vector<T>> Choose(const Ints* condition, const std::vector<T>& a, const std::vector<T>& b) {
  if (condition == nullptr) return std::nullopt;
  const std::size_t count = std::max({condition->size(), a.size(), b.size()});
  const auto fits = [&](std::size_t k) { return k == count || k == 1; };
  if (!fits(condition->size()) || !fits(a.size()) || !fits(b.size())) return std::nullopt;
  std::vector<T> y;
  for (std::size_t i = 0; i < count; ++i)
    y.push_back((*condition)[i % condition->size()] != 0 ? a[i % a.size()] : b[i % b.size()]);
  return y;
}

// What does not depend on the kind of number. `in` are the inputs, all known.
template <typename T>
std::optional<std::vector<T>> Moved(const Node& n, const Shapes& s, const Lists<T>& in) {
  const std::string& op = n.op_type();
  if (op == "Identity" || op == "Reshape" || op == "Squeeze" || op == "Unsqueeze" || op == "Flatten") return in[0];
  if (op == "Gather") return PickFrom(n, s, in[0]);
  if (op == "Slice") return PartOf(n, s, in[0]);
  if (op == "Transpose") return Transposed(n, s, in[0]);
  if (op == "Expand" && in[0].size() == 1) {
    const std::int64_t count = Product(s.shape.at(n.output(0)), 0, s.shape.at(n.output(0)).size());
    if (count >= 0 && count <= static_cast<std::int64_t>(kKnownNumbers))
      return std::vector<T>(static_cast<std::size_t>(count), in[0][0]);
  }
  return std::nullopt;
}

template <typename T>
std::optional<std::vector<T>> Joined(const Node& n, const std::map<std::string, std::vector<T>>& known) {
  std::vector<T> y;
  for (const auto& name : n.input()) {
    const auto at = known.find(name);
    if (at == known.end()) return std::nullopt;
    y.insert(y.end(), at->second.begin(), at->second.end());
  }
  return y;
}

std::optional<Ints> LearnInts(const Node& n, Shapes& s) {
  const std::string& op = n.op_type();
  if (op == "Shape") return ShapeOf(n, s);
  if (op == "Size") return Ints{SizeOrBatch(Product(In(n, s, 0), 0, In(n, s, 0).size()))};
  if (op == "Concat" && s.shape.at(n.output(0)).size() == 1) return Joined(n, s.ints);
  const Ints* a = n.input_size() > 0 ? FindInts(s, n.input(0)) : nullptr;
  const Ints* b = n.input_size() > 1 ? FindInts(s, n.input(1)) : nullptr;
  if (op == "Where" && n.input_size() == 3) {
    const Ints* c = FindInts(s, n.input(2));
    return b != nullptr && c != nullptr ? Choose(a, *b, *c) : std::nullopt;
  }
  if (op == "Cast") {
    if (a != nullptr) return *a;
    const Floats* f = FindFloats(s, n.input(0));
    const auto fits = [](float v) { return std::fabs(v) < 1e15f; };
    if (f == nullptr || !std::all_of(f->begin(), f->end(), fits)) return std::nullopt;
    return Ints(f->begin(), f->end());
  }
  if (op == "Range" && n.input_size() == 3 && a != nullptr && b != nullptr) {
    const Ints* step = FindInts(s, n.input(2));
    const std::int64_t count = s.shape.at(n.output(0)).empty() ? -1 : s.shape.at(n.output(0))[0];
    if (step == nullptr || step->size() != 1 || a->size() != 1) return std::nullopt;
    if (count < 0 || count > static_cast<std::int64_t>(kKnownNumbers)) return std::nullopt;
    Ints y;
    for (std::int64_t i = 0; i < count; ++i) y.push_back((*a)[0] + i * (*step)[0]);  // below the limit, see Range
    return y;
  }
  if (const Floats* f = n.input_size() == 2 ? FindFloats(s, n.input(0)) : nullptr; f != nullptr) {
    const Floats* g = FindFloats(s, n.input(1));
    if (g == nullptr) return std::nullopt;
    return Pairs<float, std::int64_t>(*f, *g, [&](float x, float y) { return CompareFloats(op, x, y); });
  }
  if (a == nullptr) return std::nullopt;
  if (op == "ReduceProd" && s.shape.at(n.output(0)).size() <= 1 &&
      Product(s.shape.at(n.output(0)), 0, s.shape.at(n.output(0)).size()) == 1) {
    std::int64_t y = 1;
    for (const auto v : *a) {
      const auto next = Calculate("Mul", y, v);
      if (!next) return std::nullopt;
      y = *next;
    }
    return Ints{y};
  }
  if (auto moved = Moved<std::int64_t>(n, s, {*a})) return moved;
  if (n.input_size() == 1) {
    Ints y;
    for (const auto v : *a) {
      const auto one = OfOneInt(op, v);
      if (!one) return std::nullopt;
      y.push_back(*one);
    }
    return y;
  }
  if (b == nullptr || n.input_size() != 2) return std::nullopt;
  if (auto truths = Pairs<std::int64_t, std::int64_t>(
          *a, *b, [&](std::int64_t x, std::int64_t y) { return CompareInts(op, x, y); }))
    return truths;
  static const std::vector<std::string> kArithmetic{"Add", "Sub", "Mul", "Div", "Mod", "Min", "Max"};
  if (std::find(kArithmetic.begin(), kArithmetic.end(), op) == kArithmetic.end()) return std::nullopt;
  return Pairs<std::int64_t, std::int64_t>(*a, *b, [&](std::int64_t x, std::int64_t y) { return Calculate(op, x, y); });
}

std::optional<Floats> LearnFloats(const Node& n, Shapes& s) {
  const std::string& op = n.op_type();
  if (op == "Concat" && s.shape.at(n.output(0)).size() == 1) return Joined(n, s.floats);
  const Floats* a = n.input_size() > 0 ? FindFloats(s, n.input(0)) : nullptr;
  const Floats* b = n.input_size() > 1 ? FindFloats(s, n.input(1)) : nullptr;
  if (op == "Where" && n.input_size() == 3) {
    const Floats* c = FindFloats(s, n.input(2));
    return b != nullptr && c != nullptr ? Choose(FindInts(s, n.input(0)), *b, *c) : std::nullopt;
  }
  if (op == "Cast") {
    if (a != nullptr) return *a;
    const Ints* i = FindInts(s, n.input(0));
    if (i == nullptr || std::count(i->begin(), i->end(), kOfBatch) > 0) return std::nullopt;
    return Floats(i->begin(), i->end());
  }
  if (a == nullptr) return std::nullopt;
  if (auto moved = Moved<float>(n, s, {*a})) return moved;
  if (n.input_size() == 1) {
    Floats y;
    for (const float v : *a) {
      const auto one = OfOneFloat(op, v);
      if (!one) return std::nullopt;
      y.push_back(*one);
    }
    return y;
  }
  if (b == nullptr || n.input_size() != 2) return std::nullopt;
  return Pairs<float, float>(*a, *b, [&](float x, float y) { return CalculateFloat(op, x, y); });
}

// A constant of a known shape: its numbers are what `value` says, zeros by default.
void LearnConstantOfShape(const Node& n, Shapes& s) {
  const Shape& y = s.shape.at(n.output(0));
  const std::int64_t count = Product(y, 0, y.size());
  if (count < 0 || count > static_cast<std::int64_t>(kKnownNumbers)) return;
  const auto* value = graph::FindAttribute(n, "value");
  if (value == nullptr) {
    s.floats[n.output(0)] = Floats(static_cast<std::size_t>(count), 0.f);
    return;
  }
  const auto fill = graph::ToTensor(value->t());
  if (!fill.ok()) return;
  if (fill->type() == tensor::DataType::kFp32 && fill->As<float>().size() == 1)
    s.floats[n.output(0)] = Floats(static_cast<std::size_t>(count), fill->As<float>()[0]);
  if (fill->type() == tensor::DataType::kInt64 && fill->As<long>().size() == 1)
    s.ints[n.output(0)] = Ints(static_cast<std::size_t>(count), fill->As<long>()[0]);
}

}  // namespace

void Know(const std::string& name, const tensor::Tensor& t, Shapes* shapes) {
  using tensor::DataType;
  shapes->shape[name] = t.shape();
  if (t.type() == DataType::kInt64) {
    const auto v = t.As<long>();
    shapes->ints[name].assign(v.begin(), v.end());
  } else if (t.type() == DataType::kInt32) {
    const auto v = t.As<int>();
    shapes->ints[name].assign(v.begin(), v.end());
  } else if (t.type() == DataType::kBool) {
    Ints truths;
    for (const std::byte b : t.View().bytes) truths.push_back(b == std::byte{0} ? 0 : 1);
    shapes->ints[name] = std::move(truths);
  } else if (t.type() == DataType::kFp32 && t.As<float>().size() <= kKnownNumbers) {
    const auto v = t.As<float>();
    shapes->floats[name].assign(v.begin(), v.end());
  }
}

Status LearnConstant(const Node& n, Shapes* shapes) {
  const std::string& name = n.output(0);
  for (const auto& a : n.attribute()) {
    if (a.name() == "value" && a.has_t()) {
      ASSIGN_OR_RETURN(const tensor::Tensor t, graph::ToTensor(a.t()));
      Know(name, t, shapes);
    } else if (a.name() == "value_int") {
      shapes->shape[name] = {};
      shapes->ints[name] = {a.i()};
    } else if (a.name() == "value_ints") {
      shapes->shape[name] = {a.ints_size()};
      shapes->ints[name].assign(a.ints().begin(), a.ints().end());
    } else if (a.name() == "value_float") {
      shapes->shape[name] = {};
      shapes->floats[name] = {a.f()};
    } else if (a.name() == "value_floats") {
      shapes->shape[name] = {a.floats_size()};
      shapes->floats[name].assign(a.floats().begin(), a.floats().end());
    }
  }
  return shapes->shape.contains(name) ? Status() : Unimplemented("has no numbers as its value");
}

void Learn(const Node& n, Shapes& s) {
  if (n.output_size() == 0 || n.output(0).empty() || !s.shape.contains(n.output(0))) return;
  if (n.op_type() == "ConstantOfShape") return LearnConstantOfShape(n, s);
  const bool to_float = n.op_type() == "Cast" && graph::IntAttribute(n, "to", 0) == onnx::TensorProto::FLOAT;
  const bool to_int = n.op_type() == "Cast" && !to_float;
  const Shape& shape = s.shape.at(n.output(0));
  const std::int64_t count = Product(shape, 0, shape.size());
  if (count < 0 || count > static_cast<std::int64_t>(kKnownNumbers)) return;
  const auto whole = [&](const auto& y) { return y && y->size() == static_cast<std::size_t>(count); };
  if (!to_float) {
    if (auto y = LearnInts(n, s); whole(y)) s.ints[n.output(0)] = std::move(*y);
  }
  if (!to_int) {
    if (auto y = LearnFloats(n, s); whole(y)) s.floats[n.output(0)] = std::move(*y);
  }
}

}  // namespace ganglion::gradient
