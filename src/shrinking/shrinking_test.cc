#include "shrinking/shrinking.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"
#include "base/scratch_test.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/progressive.h"
#include "shrink/slim.h"
#include "shrinking/measure.h"
#include "shrinking/slim_training.h"
#include "training/perceptron.h"
#include "training/trainer.h"

namespace ganglion::shrinking {
namespace {

// Four clouds of points, wide enough apart to be learnt and close enough to be missed sometimes.
data::Dataset Clouds(std::int64_t rows, std::uint64_t seed) {
  Random random(seed);
  data::Dataset d;
  d.x = tensor::Tensor::Zeros(tensor::DataType::kFp32, {rows, 16}).value();
  d.row_shape = {4, 4};
  for (std::int64_t i = 0; i < rows; ++i) {
    const int label = static_cast<int>(random.Below(4));
    d.labels.push_back(label);
    auto row = d.x.As<float>().subspan(static_cast<std::size_t>(i) * 16, 16);
    for (std::size_t j = 0; j < 16; ++j)
      row[j] = static_cast<float>(random.Normal() * .9 + std::cos(static_cast<double>(j) * (label + 1)));
  }
  return d;
}

class Shrinking : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    const auto untrained = model::Model::FromBytes("net.onnx", training::MakePerceptron({16, 32, 24, 4}, 3)).value();
    const auto examples = training::LabelledExamples::Create(train_, 4, false).value();
    training::TrainOptions o;
    o.optimizer.rate = .005;
    o.batch = 32;
    o.epochs = 6;
    trained_.push_back(training::Train(engine_, untrained, *examples, nullptr, o, {}, {}).value().model);
  }
  const model::Model& net() const { return trained_[0]; }
  ShrinkOptions Options() const {
    ShrinkOptions o;
    o.batch = 32;
    o.epochs = 4;
    o.rate = .003;
    o.dir = dir_ / "work";
    return o;
  }
  Result<Shrunk> Run(const ShrinkOptions& o, const std::vector<model::Model>& teachers = {},
                     const std::stop_token& stop = {}, const std::function<void(const ShrinkProgress&)>& report = {}) {
    return Shrink(engine_, net(), train_, valid_, teachers, o, stop, report);
  }
  static const ShrinkRow& Find(const Shrunk& s, const std::string& name) {
    for (const auto& row : s.rows) {
      if (row.measured.name == name) return row;
    }
    ADD_FAILURE() << "no candidate " << name;
    return s.rows[0];
  }

  std::shared_ptr<runtime::Engine> engine_ = runtime::Engine::Create().value();
  data::Dataset train_ = Clouds(1200, 1);
  data::Dataset valid_ = Clouds(800, 2);
  std::vector<model::Model> trained_;
};

TEST_F(Shrinking, TriesEveryWayAndMeasuresEach) {
  auto o = Options();
  o.budget.accuracy_loss = .05;
  std::vector<double> done;
  const auto s = Run(o, {}, {}, [&](const ShrinkProgress& p) { done.push_back(p.done); });
  ASSERT_TRUE(s.ok()) << s.status().message();
  const double given = s->rows[0].measured.accuracy;
  EXPECT_GT(given, .8);
  for (const char* name : {"int8 min-max", "int8 percentile", "int8 dynamic", "pruned 50%", "cut to 50%", "cut to 25%",
                           "slim 25%", "slim 50%", "slim 100%"}) {
    const auto& row = Find(*s, name);
    EXPECT_EQ(row.measured.failed, "") << name;
    EXPECT_GT(row.measured.accuracy, given - .08) << name;
    EXPECT_GT(row.measured.p99_ms, 0) << name;
    EXPECT_GE(row.measured.p99_ms, row.measured.p50_ms) << name;
  }
  EXPECT_LT(Find(*s, "cut to 50%").measured.bytes, s->rows[0].measured.bytes * 7 / 10);
  EXPECT_LT(Find(*s, "slim 25%").measured.bytes, Find(*s, "slim 50%").measured.bytes);
  ASSERT_GE(s->chosen, 0);
  EXPECT_EQ(s->rows[static_cast<std::size_t>(s->chosen)].verdict.why, "chosen");
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_NEAR(done.back(), 1, 1e-9);
  // The widths are one file.
  onnx::ModelProto narrow;
  int level = -1;
  ASSERT_TRUE(shrink::LoadPrefix(std::as_bytes(std::span(s->slim_file)), 0, &narrow, &level).ok());
  EXPECT_EQ(graph::Serialize(narrow), Find(*s, "slim 25%").model);
}

TEST_F(Shrinking, PrunedWeightsAreZeroAfterFineTuning) {
  auto o = Options();
  o.rules.clear();
  o.dynamic = false;
  o.cuts.clear();
  o.widths.clear();
  o.sparsities = {.75};
  const auto s = Run(o);
  ASSERT_TRUE(s.ok()) << s.status().message();
  onnx::ModelProto model;
  const auto& bytes = Find(*s, "pruned 75%").model;
  ASSERT_TRUE(graph::Parse(std::as_bytes(std::span(bytes)), &model).ok());
  std::int64_t zeros = 0;
  std::int64_t all = 0;
  for (const auto& t : model.graph().initializer()) {
    if (t.name()[0] != 'w') continue;
    const auto w = graph::ToTensor(t).value();
    for (const float v : w.As<float>()) zeros += v == 0;
    all += static_cast<std::int64_t>(w.As<float>().size());
  }
  EXPECT_EQ(zeros, all * 3 / 4);
}

TEST_F(Shrinking, ContinuesAfterAStopAndGivesTheSameModels) {
  auto o = Options();
  o.dir = dir_ / "whole";
  const auto whole = Run(o);
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  o.dir = dir_ / "stopped";
  o.resume = true;
  // Stopped again and again: while pruning, while cutting, while training widths.
  for (const char* where : {"pruned 50%: epoch 2", "cut to 50%: epoch 1", "widths: epoch 3"}) {
    std::stop_source stop;
    const auto s = Run(o, {}, stop.get_token(), [&](const ShrinkProgress& p) {
      if (p.doing.rfind(where, 0) == 0) stop.request_stop();
    });
    ASSERT_FALSE(s.ok()) << where;
    EXPECT_EQ(s.status().code(), Code::kCancelled) << s.status().message();
  }
  const auto rest = Run(o);
  ASSERT_TRUE(rest.ok()) << rest.status().message();
  ASSERT_EQ(rest->rows.size(), whole->rows.size());
  for (std::size_t i = 0; i < rest->rows.size(); ++i)
    EXPECT_EQ(rest->rows[i].model, whole->rows[i].model) << rest->rows[i].measured.name;
  EXPECT_EQ(rest->slim_file, whole->slim_file);
}

TEST_F(Shrinking, FinishedCandidatesOfOtherOptionsAreNotUsed) {
  auto o = Options();
  o.rules.clear();
  o.dynamic = false;
  o.widths.clear();
  o.sparsities.clear();
  o.cuts = {.5};
  const auto first = Run(o);
  o.resume = true;
  o.rate = .02;
  const auto second = Run(o);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(Find(*first, "cut to 50%").model, Find(*second, "cut to 50%").model);
}

TEST_F(Shrinking, WhatCannotBeMadeIsARowThatSaysWhy) {
  // One layer: nothing to cut.
  const auto single = model::Model::FromBytes("single.onnx", training::MakePerceptron({16, 4}, 3)).value();
  const auto s = Shrink(engine_, single, train_, valid_, {}, Options(), {}, {});
  ASSERT_TRUE(s.ok()) << s.status().message();
  EXPECT_NE(Find(*s, "cut to 50%").measured.failed.find("no channels can be cut"), std::string::npos);
  EXPECT_NE(Find(*s, "slim 25%").measured.failed.find("no channels that could be cut"), std::string::npos);
  EXPECT_EQ(Find(*s, "int8 min-max").measured.failed, "");
  EXPECT_TRUE(s->slim_file.empty());
  EXPECT_GE(s->chosen, 0);
}

TEST_F(Shrinking, AStudentLearnsFromItsTeachers) {
  const auto student = model::Model::FromBytes("student.onnx", training::MakePerceptron({16, 8, 4}, 9)).value();
  auto o = Options();
  o.rules.clear();
  o.dynamic = false;
  o.widths.clear();
  o.sparsities.clear();
  o.cuts.clear();
  const auto s = Shrink(engine_, student, train_, valid_, trained_, o, {}, {});
  ASSERT_TRUE(s.ok()) << s.status().message();
  EXPECT_EQ(s->reference, 1);
  EXPECT_GT(Find(*s, "distilled").measured.accuracy, s->rows[0].measured.accuracy + .2);
}

TEST_F(Shrinking, TargetsOfDistillationTakeAShareOfTheLabels) {
  const auto session = runtime::Session::Create(engine_, net()).value();
  Random unused(1);
  std::vector<float> x(16);
  std::vector<float> soft(4);
  std::vector<float> target(4);
  training::DistilledExamples::Options o{.slices = 1, .mirror = false, .seed = 5, .mixtures = 0};
  const auto answers = training::DistilledExamples::Create(train_, {session.get()}, o, {}, [](double) {}).value();
  o.label_share = .25;
  const auto both = training::DistilledExamples::Create(train_, {session.get()}, o, {}, [](double) {}).value();
  EXPECT_NE(answers->Fingerprint(), both->Fingerprint());
  for (std::int64_t i = 0; i < 50; ++i) {
    answers->Fill(i, 0, unused, x, soft);
    EXPECT_TRUE(std::equal(x.begin(), x.end(), train_.Row(i).begin())) << "a mixture";
    both->Fill(i, 0, unused, x, target);
    for (int k = 0; k < 4; ++k) {
      const double label = train_.labels[static_cast<std::size_t>(i)] == k ? .25 : 0;
      EXPECT_NEAR(target[static_cast<std::size_t>(k)], .75 * soft[static_cast<std::size_t>(k)] + label, 1e-6);
    }
  }
  // Of two rows mixed, both labels in the same shares.
  o.mixtures = 1;
  o.label_share = 1;
  const auto mixed = training::DistilledExamples::Create(train_, {session.get()}, o, {}, [](double) {}).value();
  bool two = false;
  for (std::int64_t i = 0; i < 50; ++i) {
    mixed->Fill(i, 0, unused, x, target);
    EXPECT_NEAR(target[0] + target[1] + target[2] + target[3], 1, 1e-5);
    two |= std::count_if(target.begin(), target.end(), [](float t) { return t > 0; }) == 2;
  }
  EXPECT_TRUE(two);
  for (const double wrong : {-.1, 1.1, std::nan("")}) {
    o.label_share = wrong;
    EXPECT_FALSE(training::DistilledExamples::Create(train_, {session.get()}, o, {}, [](double) {}).ok());
  }
}

TEST_F(Shrinking, RefusesWhatDoesNotFitTogether) {
  auto o = Options();
  const auto message = [&](const Result<Shrunk>& r) { return r.ok() ? "" : r.status().message(); };
  o.sparsities = {1};
  EXPECT_NE(message(Run(o)).find("a sparsity must be above 0 and below 1"), std::string::npos);
  o = Options();
  o.widths = {.5};
  EXPECT_NE(message(Run(o)).find("the last width is 1"), std::string::npos);
  o = Options();
  o.budget.accuracy_loss = -1;
  EXPECT_FALSE(Run(o).ok());
  const auto other = model::Model::FromBytes("other.onnx", training::MakePerceptron({15, 4}, 3)).value();
  EXPECT_NE(message(Shrink(engine_, other, train_, valid_, {}, Options(), {}, {})).find("16 numbers a row"),
            std::string::npos);
  const auto fewer = model::Model::FromBytes("fewer.onnx", training::MakePerceptron({16, 3}, 3)).value();
  EXPECT_NE(message(Shrink(engine_, fewer, train_, valid_, {}, Options(), {}, {})).find("label 3 is out of range"),
            std::string::npos);
  EXPECT_NE(message(Run(Options(), {fewer})).find("gives 3 classes"), std::string::npos);
  train_.labels.clear();
  EXPECT_NE(message(Run(Options())).find("no labels"), std::string::npos);
}

TEST_F(Shrinking, AModelWhoseNumbersAreNotFiniteIsRefused) {
  onnx::ModelProto broken;
  ASSERT_TRUE(graph::Parse(net().bytes(), &broken).ok());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (auto& t : *broken.mutable_graph()->mutable_initializer()) {
    if (t.name() == "w0") t.mutable_raw_data()->replace(0, 4, reinterpret_cast<const char*>(&nan), 4);
  }
  const auto model = model::Model::FromBytes("broken.onnx", graph::Serialize(broken)).value();
  const auto s = Shrink(engine_, model, train_, valid_, {}, Options(), {}, {});
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.status().message().find("not finite"), std::string::npos) << s.status().message();
}

TEST_F(Shrinking, TheSandwichTeachesNarrowWidthsWhatCuttingDoesNot) {
  onnx::ModelProto wide;
  ASSERT_TRUE(graph::Parse(net().bytes(), &wide).ok());
  const auto accuracy = [&](const onnx::ModelProto& proto) {
    const auto model = model::Model::FromBytes("m", graph::Serialize(proto)).value();
    const auto session = runtime::Session::Create(engine_, model).value();
    return MeasureAccuracy(*session, valid_, true, {}).value();
  };
  onnx::ModelProto cut;
  ASSERT_TRUE(shrink::ExtractWidth(wide, .25, 1, &cut).ok());
  const auto examples = training::LabelledExamples::Create(train_, 4, false).value();
  SlimOptions o;
  o.optimizer.rate = .005;
  o.batch = 32;
  o.epochs = 6;
  const auto models = TrainSlim(engine_, net(), *examples, train_, o, {}, {});
  ASSERT_TRUE(models.ok()) << models.status().message();
  ASSERT_EQ(models->size(), 3u);
  onnx::ModelProto narrow;
  ASSERT_TRUE(graph::Parse((*models)[0].bytes(), &narrow).ok());
  EXPECT_GT(accuracy(narrow), accuracy(cut) + .05);
  // The narrow net is a corner of the wide one.
  onnx::ModelProto widest;
  onnx::ModelProto corner;
  ASSERT_TRUE(graph::Parse((*models)[2].bytes(), &widest).ok());
  ASSERT_TRUE(shrink::ExtractWidth(widest, .25, 1, &corner).ok());
  EXPECT_LT(Difference(engine_, narrow, corner, valid_, 100).value(), 1e-5);
}

TEST_F(Shrinking, StatisticsOfNormalisationsAreMeasuredOneAfterTheOther) {
  // A norm in the middle: after measuring, what it gives has mean 0 and variance 1 on the rows.
  onnx::ModelProto model;
  graph::GraphBuilder g(&model);
  Random random(4);
  const auto parameter = [&](const std::string& name, tensor::Shape shape, bool ones) {
    auto t = tensor::Tensor::Zeros(tensor::DataType::kFp32, std::move(shape)).value();
    for (float& v : t.As<float>()) v = ones ? 1.f : static_cast<float>(random.Normal());
    g.Initializer(name, t);
  };
  g.Input({"x", tensor::DataType::kFp32, {-1, 16}});
  std::string h = "x";
  for (const std::string layer : {"a", "b"}) {
    parameter(layer + ".w", {layer == "a" ? 16 : 6, 6}, false);
    parameter(layer + ".scale", {6}, true);
    for (const char* zero : {".shift", ".mean", ".variance"})
      g.Initializer(layer + zero, tensor::Tensor::Zeros(tensor::DataType::kFp32, {6}).value());
    h = g.Node("BatchNormalization", {g.Node("Gemm", {h, layer + ".w"}), layer + ".scale", layer + ".shift",
                                      layer + ".mean", layer + ".variance"});
    if (layer == "a") h = g.Node("Relu", {h});
  }
  g.Output({h, tensor::DataType::kFp32, {-1, 6}});
  ASSERT_TRUE(MeasureNorms(engine_, train_, 1000, {}, &model).ok());
  const auto made = model::Model::FromBytes("m", graph::Serialize(model)).value();
  const auto session = runtime::Session::Create(engine_, made).value();
  tensor::Shape shape;
  const auto view = tensor::Rows(train_.x.View(), 0, 1000, &shape);
  const auto out = session->Run({&view, 1}).value();
  for (std::size_t c = 0; c < 6; ++c) {
    double sum = 0;
    double squares = 0;
    for (std::size_t i = 0; i < 1000; ++i) {
      const double v = out[0].As<float>()[i * 6 + c];
      sum += v;
      squares += v * v;
    }
    EXPECT_NEAR(sum / 1000, 0, 1e-3);
    EXPECT_NEAR(squares / 1000, 1, 1e-2);
  }
}

}  // namespace
}  // namespace ganglion::shrinking
