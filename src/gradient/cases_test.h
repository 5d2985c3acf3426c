// For tests only: a Case is one form of one operator. `EveryRule` builds a model around each, and holds every gradient
// of it to central differences of the reference in double precision.
//
// Each file of cases adds its own:
//   const std::vector<Case> kCases{Case("Add", "bias", {P({2, 3}), P({3})}), ...};
//   INSTANTIATE_TEST_SUITE_P(Arithmetic, EveryRule, ::testing::ValuesIn(kCases), CaseName);
// docs/operators.md is made of what EveryRule reports (`make operators-table`); a test that is not a Case can report a
// form by RecordForm.
#pragma once

#include <gtest/gtest.h>

#include <cctype>
#include <istream>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/random.h"
#include "gradient/gradient.h"
#include "gradient/reference_test.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "runtime/runtime.h"
#include "tensor/tensor.h"

namespace ganglion::gradient {

inline tensor::Tensor RandomTensor(const tensor::Shape& shape, Random& random, double low = -1, double high = 1) {
  tensor::Tensor t = tensor::Tensor::Zeros(tensor::DataType::kFp32, shape).value();
  for (float& v : t.As<float>()) v = static_cast<float>(random.Uniform(low, high));
  return t;
}

// An input of the operator under test.
struct Operand {
  enum class Kind { kParameter, kConstant, kInts, kBools, kAbsent } kind = Kind::kParameter;
  tensor::Shape shape;
  std::vector<double> values;  // none: random in the case's range
};
// A parameter, which is differentiated; `values` where the numbers matter (ties, signs).
inline Operand P(tensor::Shape shape, std::vector<double> values = {}) {
  return {Operand::Kind::kParameter, std::move(shape), std::move(values)};
}
// An FP32 constant.
inline Operand C(tensor::Shape shape, std::vector<double> values = {}) {
  return {Operand::Kind::kConstant, std::move(shape), std::move(values)};
}
// An INT64 constant: a list (axes, a shape), or a tensor of any shape (indices).
inline Operand I(std::vector<double> values) {
  return {Operand::Kind::kInts, {static_cast<std::int64_t>(values.size())}, std::move(values)};
}
inline Operand I(tensor::Shape shape, std::vector<double> values) {
  return {Operand::Kind::kInts, std::move(shape), std::move(values)};
}
// A BOOL constant.
inline Operand B(tensor::Shape shape, std::vector<double> values) {
  return {Operand::Kind::kBools, std::move(shape), std::move(values)};
}
// An optional input that is left out.
inline Operand Absent() { return {Operand::Kind::kAbsent, {}, {}}; }

struct Case {
  Case(std::string o, std::string f, std::vector<Operand> in, std::vector<graph::Attribute> a = {})
      : op(std::move(o)), form(std::move(f)), inputs(std::move(in)), attributes(std::move(a)) {}

  // Random numbers are drawn from [low, high].
  Case In(double l, double h) const {
    Case c = *this;
    c.low = l;
    c.high = h;
    return c;
  }
  // Which outputs the loss reads, by output; the others are left out of the node.
  Case Reads(std::vector<bool> outputs) const {
    Case c = *this;
    c.reads = std::move(outputs);
    return c;
  }
  // Also with a symbolic batch as the first axis of the first input (and of the output), run with 1 and 3 rows.
  Case Batched() const {
    Case c = *this;
    c.batched = true;
    return c;
  }
  // Operators that the reference does not have of itself.
  Case With(const reference::Operators& (*operators)()) const {
    Case c = *this;
    c.more = operators;
    return c;
  }
  Case Under(Options o) const {
    Case c = *this;
    c.options = std::move(o);
    return c;
  }

  std::string op;
  std::string form;  // as the table names it
  std::vector<Operand> inputs;
  std::vector<graph::Attribute> attributes;
  double low = -1;
  double high = 1.5;
  std::vector<bool> reads{true};
  bool batched = false;
  const reference::Operators& (*more)() = nullptr;
  Options options;
};

// "Add_BothWays": operator, underscore, form.
inline std::string NameOf(const Case& c) {
  std::string name = c.op + "_";
  bool up = true;
  for (std::size_t i = 0; i < c.form.size(); ++i) {
    const char ch = c.form[i];
    const auto u = static_cast<unsigned char>(ch);
    const bool digit_follows = i + 1 < c.form.size() && std::isdigit(static_cast<unsigned char>(c.form[i + 1])) != 0;
    if (ch == '-' && digit_follows) name += "Minus";
    if (std::isalnum(u) != 0) name += up ? static_cast<char>(std::toupper(u)) : ch;
    up = std::isalnum(u) == 0;
  }
  return name;
}
inline std::string CaseName(const ::testing::TestParamInfo<Case>& test) { return NameOf(test.param); }
inline void PrintTo(const Case& c, std::ostream* out) { *out << c.op << ", " << c.form; }

class EveryRule : public ::testing::TestWithParam<Case> {};

struct Feed {
  std::string name;
  tensor::Tensor value;
};

const std::shared_ptr<runtime::Engine>& SharedEngine();
// Runs a model on the runtime: outputs by name. Feeds that the model does not take are left out.
std::map<std::string, tensor::Tensor> RunModel(const onnx::ModelProto& model, const std::vector<Feed>& feeds);

// Holds the step model's loss and every gradient entry to central differences of the double-precision reference, which
// is evaluated on the model as it is. Noise inputs that `feeds` lack get uniform numbers, in both.
// Returns the largest error of an entry, relative to the largest entry of its parameter.
double ExpectCentralDifferences(const onnx::ModelProto& model, const Options& options, const std::vector<Feed>& feeds,
                                const reference::Operators& more = {}, double tolerance = 1e-4);

// Holds a gradient to a line of golden numbers, "norm sum (index value)..." read from `in`, to 1e-4 of the norm.
// Returns the largest error relative to the norm.
double ExpectGoldenGradient(std::istream& in, std::span<const float> gradient);

// Reports a form to the table of docs/operators.md.
inline void RecordForm(const std::string& op, const std::string& form, double error) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", error);
  ::testing::Test::RecordProperty("operator", op);
  ::testing::Test::RecordProperty("form", form);
  ::testing::Test::RecordProperty("error", text);
}

}  // namespace ganglion::gradient
