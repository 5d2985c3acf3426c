// Clipped steps against a loop over steps of one example, clipped one by one.
#include "gradient/clip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <span>

#include "gradient/cases_test.h"
#include "gradient/prepare.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

using Ints = std::vector<std::int64_t>;
const Attribute kTransB{"transB", std::int64_t{1}};

// Row i of a feed whose first axis is the batch.
Tensor RowOf(const Tensor& t, std::int64_t i) {
  Shape shape;
  const tensor::View row = tensor::Rows(t.View(), i, i + 1, &shape);
  return Tensor::FromBytes(t.type(), shape, row.bytes).value();
}

struct Expected {
  std::vector<double> norms;
  std::map<std::string, std::vector<double>> gradients;
};

// Steps of one example each with weight one; the sum of their gradients with the factors of `norm` (0: its median).
Expected Loop(const onnx::ModelProto& model, const Options& options, const std::vector<Feed>& rows,
              const std::vector<float>& weights, float* norm) {
  Options plain = options;
  plain.clip_norm.reset();
  onnx::ModelProto step;
  const auto parts = Differentiate(model, plain, &step);
  EXPECT_TRUE(parts.ok()) << parts.status().message();
  Expected expected;
  if (!parts.ok()) return expected;
  std::vector<std::map<std::string, Tensor>> of;
  const float one[1] = {1};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    std::vector<Feed> feeds{{"row_weight", Tensor::From<float>({1}, one).value()}};
    for (const auto& f : rows) feeds.push_back({f.name, RowOf(f.value, static_cast<std::int64_t>(i))});
    for (const auto& t : model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
    of.push_back(RunModel(step, feeds));
    double squares = 0;
    for (const auto& p : parts->parameters) {
      for (const float v : of.back().at("grad." + p.name).As<float>()) squares += static_cast<double>(v) * v;
    }
    expected.norms.push_back(std::sqrt(squares));
  }
  if (*norm == 0) {
    auto sorted = expected.norms;
    std::sort(sorted.begin(), sorted.end());
    *norm = static_cast<float>(sorted[sorted.size() / 2]) * 1.01f;
    EXPECT_GT(sorted.back(), *norm) << "no example is clipped";
  }
  for (const auto& p : parts->parameters) {
    auto& sum = expected.gradients[p.name];
    sum.resize(static_cast<std::size_t>(p.size));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto gradient = of[i].at("grad." + p.name).As<float>();
      const double factor = weights[i] * std::min(1., static_cast<double>(*norm) / expected.norms[i]);
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += factor * gradient[k];
    }
  }
  return expected;
}

const std::vector<float> kWeights{.3f, 0.f, .2f, .5f, 1.f};

// `rows`: everything whose first axis is the batch, of kWeights.size() examples. Gives the step's description.
StepModel ExpectClipped(const onnx::ModelProto& model, Options options, const std::vector<Feed>& rows,
                        double tolerance = 1e-5) {
  float norm = options.clip_norm.value_or(0);
  const Expected expected = Loop(model, options, rows, kWeights, &norm);
  options.clip_norm = norm;
  onnx::ModelProto step;
  const auto parts = Differentiate(model, options, &step);
  EXPECT_TRUE(parts.ok()) << parts.status().message();
  if (!parts.ok()) return {};
  std::vector<Feed> feeds = rows;
  feeds.push_back({"row_weight", Tensor::From<float>({static_cast<std::int64_t>(kWeights.size())}, kWeights).value()});
  for (const auto& t : model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
  auto out = RunModel(step, feeds);
  EXPECT_EQ(out.count("norms"), 1u);
  if (out.count("norms") == 0) return *parts;
  const auto norms = out["norms"].As<float>();
  EXPECT_EQ(norms.size(), kWeights.size());
  for (std::size_t i = 0; i < norms.size(); ++i)
    EXPECT_NEAR(norms[i], expected.norms[i], tolerance * expected.norms[i]) << "norm of example " << i;
  double of_all = 0;  // a gradient that is zero but for rounding is held to the others
  for (const auto& [name, gradient] : expected.gradients) {
    for (const double v : gradient) of_all = std::max(of_all, std::fabs(v));
  }
  for (const auto& p : parts->parameters) {
    const auto gradient = out["grad." + p.name].As<float>();
    EXPECT_EQ(out["grad." + p.name].shape(), p.shape);
    const auto& want = expected.gradients.at(p.name);
    double largest = 1e-2 * of_all;
    for (const double v : want) largest = std::max(largest, std::fabs(v));
    for (std::size_t k = 0; k < want.size(); ++k)
      EXPECT_NEAR(gradient[k], want[k], tolerance * largest) << p.name << '[' << k << ']';
  }
  // The loss is that of the plain step.
  Options plain = options;
  plain.clip_norm.reset();
  onnx::ModelProto unclipped;
  EXPECT_TRUE(Differentiate(model, plain, &unclipped).ok());
  EXPECT_FLOAT_EQ(out["loss"].As<float>()[0], RunModel(unclipped, feeds)["loss"].As<float>()[0]);
  return *parts;
}

Tensor Classes(const Shape& shape, std::int64_t classes, Random& random) {
  Tensor t = Tensor::Zeros(DataType::kInt64, shape).value();
  for (long& v : t.As<long>()) v = static_cast<long>(random.Below(static_cast<std::uint64_t>(classes)));
  return t;
}

constexpr std::int64_t kRows = 5;

// What the models here are built from. Examples are [5, ...]; those of later rows are larger, so that norms differ.
struct Fixture {
  onnx::ModelProto model;
  GraphBuilder g{&model};
  Random random{11};
  std::vector<Feed> rows;

  std::string Parameter(const std::string& name, const Shape& shape, double scale = .7) {
    g.Initializer(name, RandomTensor(shape, random, -scale, scale));
    return name;
  }
  std::string Input(const std::string& name, Shape shape) {
    shape.insert(shape.begin(), kRows);
    Tensor t = RandomTensor(shape, random);
    auto v = t.As<float>();
    for (std::size_t i = 0; i < v.size(); ++i) v[i] *= .3f + static_cast<float>(i * kRows / v.size());
    rows.push_back({name, t});
    shape[0] = -1;
    g.Input({name, DataType::kFp32, shape});
    return name;
  }
  std::string Tokens(const std::string& name, std::int64_t times, std::int64_t vocabulary) {
    rows.push_back({name, Classes({kRows, times}, vocabulary, random)});
    g.Input({name, DataType::kInt64, {-1, times}});
    return name;
  }
  std::string Linear(const std::string& x, const std::string& name, std::int64_t in, std::int64_t out) {
    return g.Node("Gemm", {x, Parameter(name + ".w", {out, in}), Parameter(name + ".b", {out})}, {kTransB});
  }
  // Ends the model, and its target are classes.
  void Classify(const std::string& head, Shape positions, std::int64_t classes) {
    Shape shape = positions;
    shape.insert(shape.begin(), kRows);
    rows.push_back({"target", Classes(shape, classes, random)});
    g.Rename(head, "y");
    shape[0] = -1;
    shape.push_back(classes);
    g.Output({"y", DataType::kFp32, shape});
  }
};

TEST(Clip, OfAPerceptronIsALoopOverExamples) {
  Fixture f;
  const std::string h = f.g.Node("Relu", {f.Linear(f.Input("x", {6}), "first", 6, 8)});
  f.Classify(f.Linear(h, "second", 8, 3), {}, 3);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

TEST(Clip, OfProductsScalesAndBiasesIsALoopOverExamples) {
  Fixture f;
  std::string h = f.g.Node("MatMul", {f.Input("x", {6}), f.Parameter("w", {6, 4})});
  h = f.g.Node("Add", {h, f.Parameter("b", {4})});
  h = f.g.Node("Mul", {f.Parameter("scale", {1, 4}), h});
  h = f.g.Node("Sub", {f.Parameter("from", {4}), h});
  h = f.g.Node("Div", {h, f.Parameter("by", {1})});
  h = f.g.Node("PRelu", {h, f.Parameter("slope", {4})});
  f.Classify(
      f.g.Node("Gemm", {h, f.Parameter("out", {4, 3}), f.Parameter("c", {1, 3})}, {{"alpha", .5f}, {"beta", 2.f}}), {},
      3);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

// Products over many positions make the gradients by example, over few only norms: both forms are here.
TEST(Clip, OfLayersAtManyPositionsIsALoopOverExamples) {
  for (const std::int64_t times : {2, 60}) {
    Fixture f;
    std::string h = f.g.Node("MatMul", {f.Input("x", {times, 3}), f.Parameter("w", {3, 4})});
    h = f.g.Node("Tanh", {f.g.Node("Add", {h, f.Parameter("b", {4})})});
    h = f.g.Node("Add", {h, f.Parameter("place", {times, 4})});
    const std::string flat = f.g.Node("Reshape", {h, f.g.Ints("rows", {-1, 4})});  // positions are rows
    h = f.g.Node("Mul", {f.g.Node("Tanh", {f.Linear(flat, "inner", 4, 5)}), f.Parameter("scale", {5})});
    h = f.g.Node("Reshape", {f.Linear(h, "outer", 5, 3), f.g.Ints("back", {-1, times, 3})});
    f.Classify(h, {times}, 3);
    EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "") << times;
  }
}

// The batch moves to the second axis and back.
TEST(Clip, FollowsExamplesThroughTransposes) {
  Fixture f;
  std::string h = f.g.Node("Transpose", {f.Input("x", {4, 3})}, {{"perm", Ints{1, 0, 2}}});
  h = f.g.Node("Add", {f.g.Node("MatMul", {h, f.Parameter("w", {3, 4})}), f.Parameter("place", {4, 1, 1})});
  h = f.g.Node("ReduceMean", {f.g.Node("Tanh", {h})}, {{"axes", Ints{0}}, {"keepdims", std::int64_t{0}}});
  f.Classify(f.Linear(h, "out", 4, 3), {}, 3);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

onnx::ModelProto ConvolutionalNet(Fixture& f, bool norm) {
  std::string h = f.g.Node("Conv", {f.Input("x", {2, 9, 7}), f.Parameter("c1", {4, 2, 3, 3}), f.Parameter("c1b", {4})},
                           {{"pads", Ints{1, 1, 1, 1}}});
  if (norm) {
    h = f.g.Node("BatchNormalization",
                 {h, f.Parameter("scale", {4}), f.Parameter("shift", {4}), f.Parameter("mean", {4}), "variance"});
    f.g.Initializer("variance", RandomTensor({4}, f.random, .5, 2));
  }
  h = f.g.Node("MaxPool", {f.g.Node("Relu", {h})}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  h = f.g.Node("Conv", {h, f.Parameter("c2", {6, 2, 2, 2})}, {{"group", std::int64_t{2}}, {"strides", Ints{2, 1}}});
  h = f.g.Node("ConvTranspose", {f.g.Node("Tanh", {h}), f.Parameter("c3", {6, 3, 2, 2}), f.Parameter("c3b", {3})});
  f.Classify(f.Linear(f.g.Node("Flatten", {h}), "out", 27, 3), {}, 3);
  return f.model;
}

TEST(Clip, OfAConvolutionalNetIsALoopOverExamples) {
  Fixture f;
  ConvolutionalNet(f, false);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

TEST(Clip, OfBatchNormalizationNeedsFrozenStatistics) {
  Fixture f;
  ConvolutionalNet(f, true);
  onnx::ModelProto step;
  const auto refused = Differentiate(f.model, {.clip_norm = 1.f}, &step).status();
  EXPECT_NE(refused.message().find("--freeze-statistics"), std::string::npos) << refused.message();
  EXPECT_EQ(ExpectClipped(f.model, {.freeze_statistics = true}, f.rows).one_by_one, "");
}

// A layer of attention over [batch, times, d], as an exporter writes it.
std::string Attention(Fixture& f, const std::string& x, std::int64_t times, std::int64_t d, std::int64_t heads) {
  const auto project = [&](const std::string& v, const std::string& name) {
    return f.g.Node("Add", {f.g.Node("MatMul", {v, f.Parameter(name + ".w", {d, d})}), f.Parameter(name + ".b", {d})});
  };
  const auto split = [&](const std::string& v, const Ints& perm) {
    const std::string s = f.g.Node("Reshape", {v, f.g.Ints("heads", {0, times, heads, d / heads})});
    return f.g.Node("Transpose", {s}, {{"perm", perm}});
  };
  const std::string q = split(project(x, "q"), {0, 2, 1, 3});
  const std::string k = split(project(x, "k"), {0, 2, 3, 1});
  const std::string v = split(project(x, "v"), {0, 2, 1, 3});
  const std::string scores = f.g.Node("Mul", {f.g.Node("MatMul", {q, k}), f.g.Scalar("scale", .5f)});
  const std::string mixed = f.g.Node("MatMul", {f.g.Node("Softmax", {scores}, {{"axis", std::int64_t{-1}}}), v});
  const std::string joined = f.g.Node(
      "Reshape", {f.g.Node("Transpose", {mixed}, {{"perm", Ints{0, 2, 1, 3}}}), f.g.Ints("joined", {0, times, d})});
  const std::string sum = f.g.Node("Add", {x, project(joined, "o")});
  return f.g.Node("LayerNormalization", {sum, f.Parameter("norm.scale", {d}), f.Parameter("norm.bias", {d})});
}

TEST(Clip, OfATransformerIsALoopOverExamples) {
  Fixture f;
  const std::string words = f.g.Node("Gather", {f.Parameter("words", {7, 8}), f.Tokens("tokens", 5, 7)});
  std::string h = Attention(f, f.g.Node("Add", {words, f.Parameter("places", {5, 8})}), 5, 8, 2);
  h = f.g.Node("ReduceMean", {h}, {{"axes", Ints{1}}, {"keepdims", std::int64_t{0}}});
  f.Classify(f.Linear(h, "out", 8, 3), {}, 3);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows, 2e-5).one_by_one, "");
}

TEST(Clip, OfSharedWeightsTakesTheNormOfTheirSum) {
  Fixture f;  // the embedding is the output layer, too, and one matrix is used twice
  const std::string words = f.g.Node("Gather", {f.Parameter("words", {7, 4}), f.Tokens("tokens", 6, 7)});
  f.Parameter("w", {4, 4});
  std::string h = f.g.Node("Tanh", {f.g.Node("MatMul", {words, "w"})});
  h = f.g.Node("Tanh", {f.g.Node("MatMul", {h, "w"})});
  h = f.g.Node("ReduceMean", {h}, {{"axes", Ints{1}}, {"keepdims", std::int64_t{0}}});
  const std::string turned = f.g.Node("Transpose", {"words"}, {{"perm", Ints{1, 0}}});
  f.Classify(f.g.Node("MatMul", {h, turned}), {}, 7);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

// A transposed matrix, and a part of a table of positions, are parameters still.
TEST(Clip, FindsParametersBehindWhatOnlyMovesThem) {
  Fixture f;
  const std::string turned = f.g.Node("Transpose", {f.Parameter("w", {4, 3})}, {{"perm", Ints{1, 0}}});
  const std::string places = f.g.Node(
      "Slice", {f.Parameter("places", {9, 4}), f.g.Ints("starts", {2}), f.g.Ints("ends", {7}), f.g.Ints("axes", {0})});
  std::string h = f.g.Node("Add", {f.g.Node("MatMul", {f.Input("x", {5, 3}), turned}), places});
  h = f.g.Node("ReduceMean", {f.g.Node("Tanh", {h})}, {{"axes", Ints{1}}, {"keepdims", std::int64_t{0}}});
  f.Classify(f.Linear(h, "out", 4, 3), {}, 3);
  EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

struct RecurrentCase {
  std::string op;
  std::int64_t times;
  std::vector<Attribute> attributes;
  std::int64_t directions = 1;
};

// The weights may go through Tanh before they are used.
void RecurrentClassifier(Fixture& f, const RecurrentCase& c, bool through = false) {
  const std::int64_t gates = c.op == "RNN" ? 4 : c.op == "GRU" ? 12 : 16;
  const std::int64_t d = c.directions;
  const std::string words = f.g.Node("Gather", {f.Parameter("words", {7, 3}), f.Tokens("tokens", c.times, 7)});
  const std::string x = f.g.Node("Transpose", {words}, {{"perm", Ints{1, 0, 2}}});
  std::vector<Attribute> attributes = c.attributes;
  attributes.push_back({"hidden_size", std::int64_t{4}});
  std::string w = f.Parameter("w", {d, gates, 3});
  if (through) w = f.g.Node("Tanh", {w});
  const auto y =
      f.g.Nodes(c.op, {x, w, f.Parameter("r", {d, gates, 4}), f.Parameter("b", {d, 2 * gates})}, 2, attributes);
  const std::string last = f.g.Node("Transpose", {y[1]}, {{"perm", Ints{1, 0, 2}}});
  const std::string flat = f.g.Node("Reshape", {last, f.g.Ints("flat", {-1, 4 * d})});
  f.Classify(f.Linear(flat, "out", 4 * d, 3), {}, 3);
}

const Attribute kAfter{"linear_before_reset", std::int64_t{1}};
const Attribute kBoth{"direction", std::string("bidirectional")};

TEST(Clip, OfRecurrentLayersIsALoopOverExamples) {
  for (const auto& c : std::vector<RecurrentCase>{{"GRU", 5, {}},
                                                  {"GRU", 5, {kAfter}},
                                                  {"GRU", 4, {kAfter, kBoth}, 2},
                                                  {"GRU", 1, {kBoth}, 2},
                                                  {"GRU", 40, {}},
                                                  {"LSTM", 5, {}},
                                                  {"LSTM", 3, {kBoth}, 2},
                                                  {"RNN", 5, {{"direction", std::string("reverse")}}}}) {
    Fixture f;
    RecurrentClassifier(f, c);
    EXPECT_EQ(ExpectClipped(f.model, {}, f.rows).one_by_one, "") << c.op << c.times;
    EXPECT_EQ(ExpectClipped(f.model, {.frozen = {"w", "r", "b"}}, f.rows).one_by_one, "");
    EXPECT_EQ(ExpectClipped(f.model, {.frozen = {"words", "w"}}, f.rows).one_by_one, "");
  }
}

// The step of one example has a Scan over its times, which then is inside of the Scan over examples.
TEST(Clip, GoesOneAtATimeThroughRecurrentLayers) {
  Fixture f;
  RecurrentClassifier(f, {"GRU", 5, {kAfter}}, true);
  EXPECT_NE(ExpectClipped(f.model, {}, f.rows).one_by_one, "");
}

// Every other loss, and what has no form (a parameter that is changed before it is used), goes one at a time.
TEST(Clip, GoesOneAtATimeWhereExamplesCannotBeToldApart) {
  Fixture f;
  const std::string w = f.g.Node("Tanh", {f.Parameter("w", {6, 3})});
  f.Classify(f.g.Node("MatMul", {f.Input("x", {6}), w}), {}, 3);
  EXPECT_NE(ExpectClipped(f.model, {}, f.rows).one_by_one.find("goes through Tanh"), std::string::npos);
}

TEST(Clip, KeepsTheProximalTermOutside) {
  for (const bool apart : {true, false}) {
    Fixture f;
    std::string w = f.Parameter("w", {4, 3});
    if (!apart) w = f.g.Node("Tanh", {w});
    f.Classify(f.g.Node("MatMul", {f.Input("x", {4}), w}), {}, 3);
    std::vector<Feed> feeds = f.rows;
    feeds.push_back({"row_weight", Tensor::From<float>({kRows}, kWeights).value()});
    for (const auto& t : f.model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
    feeds.push_back({"anchor.w", RandomTensor({4, 3}, f.random)});
    onnx::ModelProto with;
    onnx::ModelProto without;
    ASSERT_TRUE(Differentiate(f.model, {.proximal = .5f, .clip_norm = .1f}, &with).ok());
    ASSERT_TRUE(Differentiate(f.model, {.clip_norm = .1f}, &without).ok());
    auto a = RunModel(with, feeds);
    auto b = RunModel(without, feeds);
    const auto anchor = feeds.back().value.As<float>();
    const Tensor parameter = graph::ToTensor(f.model.graph().initializer(0)).value();
    double loss = b["loss"].As<float>()[0];
    for (std::size_t i = 0; i < anchor.size(); ++i) {
      const double distance = parameter.As<float>()[i] - anchor[i];
      loss += .25 * distance * distance;
      EXPECT_NEAR(a["grad.w"].As<float>()[i], b["grad.w"].As<float>()[i] + .5 * distance, 1e-6);
    }
    EXPECT_NEAR(a["loss"].As<float>()[0], loss, 1e-5);
  }
}

// However large an example is, it moves the sum by no more than its weight times the norm.
TEST(Clip, BoundsAPlantedExample) {
  Fixture f;
  const std::string h = f.g.Node("Relu", {f.Linear(f.Input("x", {6}), "first", 6, 8)});
  f.Classify(f.Linear(h, "second", 8, 3), {}, 3);
  const auto run = [&](float size, float weight) {
    onnx::ModelProto step;
    const auto parts = Differentiate(f.model, {.loss = Loss::kSquaredError, .clip_norm = .5f}, &step).value();
    std::vector<float> weights(kRows, 1.f);
    weights[2] = weight;
    std::vector<Feed> feeds{{"row_weight", Tensor::From<float>({kRows}, weights).value()},
                            {"target", Tensor::Zeros(DataType::kFp32, {kRows, 3}).value()}};
    Tensor x = f.rows[0].value;
    for (std::size_t i = 12; i < 18; ++i) x.As<float>()[i] *= size;
    feeds.push_back({"x", x});
    for (const auto& t : f.model.graph().initializer()) feeds.push_back({t.name(), graph::ToTensor(t).value()});
    auto out = RunModel(step, feeds);
    std::vector<double> all;
    for (const auto& p : parts.parameters) {
      for (const float v : out["grad." + p.name].As<float>()) all.push_back(v);
    }
    return all;
  };
  const auto without = run(1, 0);
  for (const float size : {1e3f, 1e6f, 1e8f}) {
    const auto with = run(size, 1);
    double squares = 0;
    for (std::size_t i = 0; i < with.size(); ++i) squares += std::pow(with[i] - without[i], 2);
    EXPECT_LE(std::sqrt(squares), .5 * 1.0001) << size;
    EXPECT_GT(std::sqrt(squares), .5 * .999) << size;
  }
}

TEST(Clip, RefusesANormThatIsNoBound) {
  Fixture f;
  f.Classify(f.Linear(f.Input("x", {6}), "out", 6, 3), {}, 3);
  onnx::ModelProto step;
  for (const float norm : {0.f, -1.f, NAN}) {
    EXPECT_NE(Differentiate(f.model, {.clip_norm = norm}, &step).status().message().find("clip_norm must be > 0"),
              std::string::npos);
  }
}

TEST(Clip, WorksOnAFixedBatchInOnePassAndRefusesOneAtATime) {
  for (const bool apart : {true, false}) {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    Random random(3);
    g.Input({"x", DataType::kFp32, {kRows, 4}});
    g.Initializer("w", RandomTensor({4, 3}, random));
    g.Node("MatMul", {"x", apart ? "w" : g.Node("Tanh", {"w"})}, {}, "y");
    g.Output({"y", DataType::kFp32, {kRows, 3}});
    onnx::ModelProto step;
    const auto made = Differentiate(model, {.clip_norm = 1.f}, &step);
    EXPECT_EQ(made.ok(), apart) << made.status().message();
    if (!apart) {
      EXPECT_NE(made.status().message().find("fixed batch of 5"), std::string::npos);
    }
  }
}

// PaddleOCR's angle classifier: depthwise convolutions, squeeze and excitation, normalisation with frozen statistics.
TEST(Clip, OfAReadyModelIsALoopOverExamples) {
  std::ifstream file(GANGLION_SOURCE_DIR "/out/ready-models/ch_ppocr_mobile_v2.0_cls_infer.onnx", std::ios::binary);
  if (!file.good()) GTEST_SKIP() << "the classifier is not in out/ready-models: make ready-models";
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  onnx::ModelProto model;
  ASSERT_TRUE(graph::Parse(std::as_bytes(std::span(bytes)), &model).ok());
  ASSERT_TRUE(Prepare({.shapes = {{"x", {-1, 3, 48, 64}}}}, &model).ok());
  Random random(5);
  const std::vector<Feed> rows{{"x", RandomTensor({kRows, 3, 48, 64}, random)},
                               {"target", Classes({kRows}, 2, random)}};
  EXPECT_EQ(ExpectClipped(model, {.freeze_statistics = true}, rows, 1e-4).one_by_one, "");
}

TEST(Clip, MixedExamplesAreSeen) {
  const auto examples = [](const std::string& op, const std::vector<Attribute>& attributes, const Shape& shape) {
    onnx::ModelProto model;
    GraphBuilder g(&model);
    g.Input({"x", DataType::kFp32, shape});
    g.Node(op, {"x"}, attributes, "y");
    Shapes shapes;
    shapes.shape = {{"x", shape}, {"y", shape}};
    ExampleMap map(-1);
    map.Input("x", shape);
    return map.Add(model.graph().node(0), shapes).ok();
  };
  EXPECT_TRUE(examples("Softmax", {{"axis", std::int64_t{1}}}, {-1, 3}));
  EXPECT_FALSE(examples("Softmax", {{"axis", std::int64_t{0}}}, {-1, 3}));
  EXPECT_FALSE(examples("ReduceMean", {{"axes", Ints{0}}}, {-1, 3}));
  EXPECT_FALSE(examples("LayerNormalization", {{"axis", std::int64_t{0}}}, {-1, 3}));
  EXPECT_FALSE(examples("SomethingNew", {}, {-1, 3}));
  EXPECT_TRUE(examples("Transpose", {{"perm", Ints{1, 0}}}, {-1, 3}));
}

}  // namespace
}  // namespace ganglion::gradient
