#include "gradient/cases_test.h"

#include <algorithm>
#include <cmath>

#include "gradient/reference_loss_test.h"
#include "gradient/rules.h"

namespace ganglion::gradient {

using graph::GraphBuilder;
using reference::Array;
using reference::Values;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

const std::shared_ptr<runtime::Engine>& SharedEngine() {
  static const auto engine = runtime::Engine::Create().value();
  return engine;
}

std::map<std::string, Tensor> RunModel(const onnx::ModelProto& proto, const std::vector<Feed>& feeds) {
  std::map<std::string, Tensor> named;
  const auto model = model::Model::FromBytes("step.onnx", graph::Serialize(proto));
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (!model.ok()) return named;
  const auto session =
      runtime::Session::Create(SharedEngine(), *model, {.optimise = runtime::SessionOptions::Optimise::kBasic});
  EXPECT_TRUE(session.ok()) << session.status().message();
  if (!session.ok()) return named;
  std::vector<tensor::View> inputs;
  for (const auto& spec : (*session)->signature().inputs) {
    for (const auto& f : feeds) {
      if (f.name == spec.name) inputs.push_back(f.value.View());
    }
  }
  auto out = (*session)->Run(inputs);
  EXPECT_TRUE(out.ok()) << out.status().message();
  if (!out.ok()) return named;
  for (std::size_t i = 0; i < out->size(); ++i) named[(*session)->signature().outputs[i].name] = std::move((*out)[i]);
  return named;
}

namespace {

// The loss of the model in double precision, as a function of its parameters.
class ReferenceLoss {
 public:
  ReferenceLoss(const onnx::ModelProto& model, const Options& options, const reference::Operators& more)
      : model_(model), options_(options), more_(more) {}

  double operator()(Values v) const {
    reference::Evaluate(model_.graph(), v, more_);
    const auto& g = model_.graph();
    const Array y = reference::BeforeTheTail(options_, g.node(g.node_size() - 1).op_type(), v.at(g.output(0).name()));
    double loss = reference::LossOf(options_, y, v["target"], v["label"], v["row_weight"]);
    for (const auto& [name, anchor] : v) {
      if (name.rfind("anchor.", 0) != 0) continue;
      const Array& p = v.at(name.substr(7));
      for (std::size_t i = 0; i < p.size(); ++i) loss += options_.proximal / 2 * std::pow(p.v[i] - anchor.v[i], 2);
    }
    return loss;
  }

 private:
  const onnx::ModelProto& model_;
  const Options& options_;
  const reference::Operators& more_;
};

}  // namespace

double ExpectCentralDifferences(const onnx::ModelProto& model, const Options& options, const std::vector<Feed>& feeds,
                                const reference::Operators& more, double tolerance) {
  onnx::ModelProto step;
  const auto parts = Differentiate(model, options, &step);
  EXPECT_TRUE(parts.ok()) << parts.status().message();
  if (!parts.ok()) return INFINITY;
  std::vector<Feed> all = feeds;
  for (const auto& t : model.graph().initializer()) all.push_back({t.name(), graph::ToTensor(t).value()});
  Random random(31);
  for (const auto& spec : parts->noise) {
    if (std::any_of(feeds.begin(), feeds.end(), [&](const Feed& f) { return f.name == spec.name; })) continue;
    all.push_back({spec.name, RandomTensor(spec.shape, random, 0, 1)});
  }
  Values values;
  for (const auto& f : all) values[f.name] = reference::FromTensor(f.value);
  const ReferenceLoss evaluate(model, options, more);
  auto out = RunModel(step, all);
  EXPECT_EQ(out.count("loss"), 1u);
  if (out.count("loss") == 0) return INFINITY;
  const double expected_loss = evaluate(values);
  EXPECT_NEAR(out["loss"].As<float>()[0], expected_loss, 1e-5 * std::max(1., std::fabs(expected_loss)));
  double worst = 0;
  for (const auto& s : parts->parameters) {
    const auto gradient = out["grad." + s.name].As<float>();
    EXPECT_EQ(out["grad." + s.name].shape(), s.shape);
    std::vector<double> numeric;
    double largest = 1e-3;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      Values up = values;
      Values down = values;
      constexpr double h = 1e-5;
      up[s.name].v[i] += h;
      down[s.name].v[i] -= h;
      numeric.push_back((evaluate(up) - evaluate(down)) / (2 * h));
      largest = std::max(largest, std::fabs(numeric.back()));
    }
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      EXPECT_NEAR(gradient[i], numeric[i], tolerance * largest) << s.name << '[' << i << ']';
      worst = std::max(worst, std::fabs(gradient[i] - numeric[i]) / largest);
    }
  }
  return worst;
}

double ExpectGoldenGradient(std::istream& in, std::span<const float> gradient) {
  double norm = 0;
  double sum = 0;
  EXPECT_TRUE(in >> norm >> sum);
  double squares = 0;
  double total = 0;
  for (const float v : gradient) {
    squares += static_cast<double>(v) * v;
    total += v;
  }
  EXPECT_NEAR(std::sqrt(squares), norm, 1e-4 * norm);
  EXPECT_NEAR(total, sum, 1e-4 * norm * std::sqrt(static_cast<double>(gradient.size())));
  double worst = std::fabs(std::sqrt(squares) / norm - 1);
  std::size_t at = 0;
  double expected = 0;
  while (in >> at >> expected) {
    EXPECT_LT(at, gradient.size());
    if (at >= gradient.size()) break;
    EXPECT_NEAR(gradient[at], expected, 1e-4 * norm);
    worst = std::max(worst, std::fabs(gradient[at] - expected) / norm);
  }
  return worst;
}

namespace {

Tensor NumbersOf(const Operand& operand, Random& random, double low, double high) {
  if (operand.kind == Operand::Kind::kInts) {
    const std::vector<long> ints(operand.values.begin(), operand.values.end());
    return Tensor::From<long>(operand.shape, ints).value();
  }
  if (operand.kind == Operand::Kind::kBools) {
    std::vector<std::byte> bools;
    for (const double v : operand.values) bools.push_back(v != 0 ? std::byte{1} : std::byte{0});
    return Tensor::FromBytes(DataType::kBool, operand.shape, bools).value();
  }
  Tensor t = RandomTensor(operand.shape, random, low, high);
  const auto numbers = t.As<float>();
  // A single row of an operand has its first values alone.
  for (std::size_t i = 0; i < std::min(numbers.size(), operand.values.size()); ++i)
    numbers[i] = static_cast<float>(operand.values[i]);
  return t;
}

// The operator of a case in a model that is not finished: everything up to its outputs.
class CaseModel {
 public:
  CaseModel(const Case& c, bool batched) : case_(c), options_(c.options), batched_(batched), g_(&model_) {
    options_.loss = Loss::kSquaredError;
    Shape x{-1, 1};
    if (batched) {
      x = c.inputs[0].shape;
      x[0] = -1;
    }
    g_.Input({"x", DataType::kFp32, x});
    std::vector<std::string> in;
    for (std::size_t i = 0; i < c.inputs.size(); ++i) in.push_back(Input(i));
    g_.Node(c.op, in, c.attributes, "y0");
    auto* node = model_.mutable_graph()->mutable_node(model_.graph().node_size() - 1);
    if (!c.reads[0]) node->set_output(0, "");
    for (std::size_t i = 1; i < c.reads.size(); ++i) node->add_output(c.reads[i] ? "y" + std::to_string(i) : "");
  }

  // Everything flattened to [rows, K] and, with `rows` of it, compared with random targets.
  double Check(std::int64_t rows) {
    std::vector<std::string> flat;
    const auto flatten = [&](const std::string& y) {
      return batched_ ? g_.Node("Flatten", {y}) : g_.Node("Reshape", {y, g_.Ints("flat", {1, -1})});
    };
    for (std::size_t i = 0; i < case_.reads.size(); ++i) {
      if (case_.reads[i]) flat.push_back(flatten("y" + std::to_string(i)));
    }
    std::string all = flat.size() == 1 ? flat[0] : g_.Node("Concat", flat, {{"axis", std::int64_t{1}}});
    if (!batched_) all = g_.Node("Add", {g_.Node("Mul", {"x", g_.Scalar("zero", 0)}), all});  // [rows, K]
    const Tensor x = Rows(rows);
    Values values;
    for (const auto& t : model_.graph().initializer())
      values[t.name()] = reference::FromTensor(graph::ToTensor(t).value());
    values["x"] = reference::FromTensor(x);
    reference::Evaluate(model_.graph(), values, More());
    const std::int64_t k = values[all].size() == 0 ? 0 : values[all].shape[1];
    g_.Rename(all, "out");
    g_.Output({"out", DataType::kFp32, {-1, k}});
    Tensor w = Tensor::Zeros(DataType::kFp32, {rows}).value();
    for (std::size_t i = 0; i < w.As<float>().size(); ++i) w.As<float>()[i] = .3f + .4f * static_cast<float>(i);
    return ExpectCentralDifferences(
        model_, options_, {{"x", x}, {"target", RandomTensor({rows, k}, random_)}, {"row_weight", w}}, More());
  }

 private:
  reference::Operators More() const { return case_.more == nullptr ? reference::Operators{} : case_.more(); }

  Tensor Rows(std::int64_t rows) {
    if (!batched_) return Tensor::Zeros(DataType::kFp32, {rows, 1}).value();
    Shape shape = case_.inputs[0].shape;
    shape[0] = rows;
    return RandomTensor(shape, random_, case_.low / 2, case_.high / 2);
  }

  std::string Input(std::size_t i) {
    const Operand& operand = case_.inputs[i];
    if (operand.kind == Operand::Kind::kAbsent) return "";
    const std::string name = "p" + std::to_string(i);
    const bool adds = batched_ && i == 0;  // a parameter in the shape of one row, added to the rows of x
    Operand of_row = operand;
    if (adds) of_row.shape[0] = 1;
    const double share = adds ? .5 : 1;
    g_.Initializer(name, NumbersOf(of_row, random_, case_.low * share, case_.high * share));
    if (operand.kind == Operand::Kind::kConstant && !operand.shape.empty()) options_.frozen.push_back(name);
    return adds ? g_.Node("Add", {"x", name}) : name;
  }

  const Case& case_;
  Options options_;
  const bool batched_;
  Random random_{20};
  onnx::ModelProto model_;
  GraphBuilder g_;
};

}  // namespace

TEST_P(EveryRule, MatchesCentralDifferencesInDoublePrecision) {
  const Case& c = GetParam();
  double worst = CaseModel(c, false).Check(2);
  if (c.batched) {
    for (const std::int64_t rows : {1, 3}) worst = std::max(worst, CaseModel(c, true).Check(rows));
  }
  RecordForm(c.op, c.form, worst);
}

}  // namespace ganglion::gradient
