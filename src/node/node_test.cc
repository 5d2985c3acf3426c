#include "node/node.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>

#include "data/formats.h"
#include "node/fixture_test.h"
#include "node/input_file.h"
#include "node/yaml.h"

namespace ganglion::node {
namespace {

using fixture::DecisionDir;
using fixture::LinearModel;
using fixture::MakePoints;
using fixture::Quadrants;
using tensor::DataType;
using tensor::Tensor;

TEST(DecisionFile, ReadsEverythingItWrites) {
  DecisionConfig c;
  c.name = "plane";
  c.inputs = {{"point", DataType::kFp32, {-1, 2}}};
  c.promise = {calibration::PromiseKind::kError, .05, .2};
  c.deadline = std::chrono::milliseconds(150);
  c.when_late = cascade::WhenLate::kFail;
  c.stages = {{topology::Tier::kDevice, {"s.onnx"}, "pre.onnx", "", calibration::Measure::kEntropy, ""},
              {topology::Tier::kEdge, {"m.onnx"}, "", "post.onnx", std::nullopt, "sure"},
              {topology::Tier::kGlobal, {"a.onnx", "b.onnx"}, "", "", std::nullopt, ""}};
  const auto back = ParseDecisionFile(WriteDecisionFile(c), ".", "decision.yaml");
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->inputs, c.inputs);
  EXPECT_EQ(back->promise.kind, c.promise.kind);
  EXPECT_EQ(back->promise.limit, .05);
  EXPECT_EQ(back->deadline, c.deadline);
  EXPECT_EQ(back->when_late, c.when_late);
  EXPECT_EQ(back->stages[0].measure, c.stages[0].measure);
  EXPECT_EQ(back->stages[1].confidence_output, "sure");
  EXPECT_EQ(back->stages[2].models, c.stages[2].models);
}

TEST(DecisionFile, ReportsAllMistakesAtOnceWithTheirLines) {
  const auto r = ParseDecisionFile(R"(decision: my/decision
input: {image: "FP32[1,784]", other: "FP33[-1]"}
promise: {loss_at_most: 2, error_at_most: .1}
deadline: soon
when_late: whenever
audit: often
privacy: secret
colour: red
stages:
  - {tier: cloud, model: a.onnx}
  - {tier: region, model: b.onnx, ensemble: [c.onnx, d.onnx]}
  - {tier: device, ensemble: [one.onnx]}
  - {tier: global, model: e.onnx, confidence: vibes}
  - just text
)",
                                   ".", "decision.yaml");
  ASSERT_FALSE(r.ok());
  const std::string& m = r.status().message();
  for (const char* expected :
       {"decision.yaml:1 decision \"my/decision\" has a character",
        "decision.yaml:2 input.image FP32[1,784] must begin with -1", "decision.yaml:2 input.other \"FP33[-1]\"",
        "decision.yaml:3 promise takes exactly one", "decision.yaml:4 deadline \"soon\" is no time",
        "decision.yaml:5 when_late \"whenever\"", "decision.yaml:6 audit \"often\" is no share",
        "decision.yaml:7 privacy \"secret\" is unknown; one of public, sensitive, regulated",
        "decision.yaml:8 colour is unknown",
        "decision.yaml:10 stages[0].tier \"cloud\" is no tier; one of device, edge, region, global",
        "decision.yaml:11 stages[1] takes one of rules, online, model, ensemble and server",
        "decision.yaml:12 stages[2].ensemble must list 2", "decision.yaml:13 stages[3].confidence \"vibes\"",
        "decision.yaml:14 stages[4] must be a mapping"}) {
    EXPECT_NE(m.find(expected), std::string::npos) << "missing: " << expected << "\nin:\n" << m;
  }
}

TEST(DecisionFile, SurvivesWhatIsNoYamlOrNoMapping) {
  for (const char* text : {"", "just text", "- a\n- b", "decision: [", "a: &a [*a]", "stages: 3",
                           "decision: x\ninput: 7\nstages: []", "promise: 4", "\t"}) {
    EXPECT_FALSE(ParseDecisionFile(text, ".", "d").ok()) << text;
  }
}

TEST(Duration, ReadsTheUsualUnits) {
  EXPECT_EQ(ParseDuration("150ms").value(), std::chrono::milliseconds(150));
  EXPECT_EQ(ParseDuration("2.5s").value(), std::chrono::milliseconds(2500));
  EXPECT_EQ(ParseDuration("500us").value(), std::chrono::microseconds(500));
  for (const char* bad : {"", "5", "ms", "-1s", "1e300s", "5 ms", "nan s", "infs"})
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
}

class Node : public DecisionDir {
 protected:
  Result<Decided> DecideRow(const Decision& d, float x, float y, Duration deadline = std::chrono::seconds(5)) {
    const std::array<float, 2> row{x, y};
    const tensor::Shape shape{1, 2};
    const tensor::View view{DataType::kFp32, shape, std::as_bytes(std::span(row))};
    const SteadyClock clock;
    return d.Decide({&view, 1}, clock, clock.Now() + deadline);
  }
};

TEST_F(Node, AcceptsEasyRowsBelowAndEscalatesHardOnes) {
  WriteThreeTiers();
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_);
  ASSERT_TRUE(d.ok()) << d.status().message();
  const auto easy = DecideRow(**d, 3, .5f);
  ASSERT_TRUE(easy.ok()) << easy.status().message();
  EXPECT_EQ(easy->kind, Decided::Kind::kAccepted);
  EXPECT_EQ(easy->tier, topology::Tier::kDevice);
  EXPECT_EQ((*d)->config().LabelText(easy->label), "ne");
  const auto hard = DecideRow(**d, .001f, -.001f);
  ASSERT_TRUE(hard.ok());
  EXPECT_EQ(hard->kind, Decided::Kind::kAccepted);
  EXPECT_EQ(hard->tier, topology::Tier::kGlobal);
}

TEST_F(Node, DecidesOneRowAsItScoresMany) {
  WriteThreeTiers();
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_).value();
  const auto p = MakePoints(300, 5);
  const tensor::View view = p.x.View();
  const auto scores = d->ScoreAll({&view, 1}).value();
  for (std::size_t r = 0; r < 300; ++r) {
    const auto one = DecideRow(*d, p.x.As<float>()[2 * r], p.x.As<float>()[2 * r + 1]).value();
    const auto expected = d->Judge(one.stage, std::span(scores[one.stage].z).subspan(r * 4, 4), std::nullopt);
    EXPECT_EQ(one.label, expected.label);
    EXPECT_NEAR(one.confidence, expected.confidence, 1e-5);
  }
}

TEST_F(Node, DefersToATierThatIsNotLoaded) {
  WriteThreeTiers();
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_, {.highest_tier = topology::Tier::kDevice}).value();
  EXPECT_EQ(d->loaded_stages(), 1u);
  EXPECT_EQ(DecideRow(*d, 3, .5f)->kind, Decided::Kind::kAccepted);
  const auto hard = DecideRow(*d, .001f, -.001f).value();
  EXPECT_EQ(hard.kind, Decided::Kind::kDeferred);
  EXPECT_GE(hard.label, 0);
}

TEST_F(Node, AnswersByItsDeadlineOrSaysItPassed) {
  WriteThreeTiers();
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_).value();
  const auto late = DecideRow(*d, 2, 2, Duration(0));
  EXPECT_EQ(late.status().code(), Code::kDeadlineExceeded);
}

TEST_F(Node, RefusesInputsThatAreNotFiniteOrNotTheRightShape) {
  WriteThreeTiers();
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_).value();
  EXPECT_NE(DecideRow(*d, std::nanf(""), 1).status().message().find("input \"point\" has NaN at element 0"),
            std::string::npos);
  EXPECT_FALSE(DecideRow(*d, 1, std::numeric_limits<float>::infinity()).ok());
  const std::array<float, 3> row{1, 2, 3};
  const tensor::Shape shape{1, 3};
  const tensor::View view{DataType::kFp32, shape, std::as_bytes(std::span(row))};
  const SteadyClock clock;
  EXPECT_EQ(d->Decide({&view, 1}, clock, clock.Now()).status().message(),
            "input \"point\" is FP32[1,3], want FP32[-1,2]; reshape, or set pre");
  EXPECT_FALSE(d->Decide({}, clock, clock.Now()).ok());
}

TEST_F(Node, ServesOnlyTheModelsItsLockCertifies) {
  WriteThreeTiers();
  EXPECT_NE(Decision::Open(engine_, dir_).status().message().find("is not calibrated; run ganglion calibrate"),
            std::string::npos);
  CalibrateInPlace();
  ASSERT_TRUE(Decision::Open(engine_, dir_).ok());
  Write("edge.onnx", LinearModel(Quadrants(3, .31f)));
  const auto refused = Decision::Open(engine_, dir_);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("plane: edge.onnx is "), std::string::npos) << refused.status().message();
  EXPECT_NE(refused.status().message().find(", decision.lock certifies "), std::string::npos);
  // A device that does not load the edge does not care.
  EXPECT_TRUE(Decision::Open(engine_, dir_, {.highest_tier = topology::Tier::kDevice}).ok());
}

TEST_F(Node, LockReadsWhatItWritesAndRefusesDamage) {
  WriteThreeTiers();
  CalibrateInPlace();
  const std::string text = data::ReadFile(dir_ / "decision.lock").value();
  const auto lock = ParseLock(text);
  ASSERT_TRUE(lock.ok()) << lock.status().message();
  EXPECT_TRUE(lock->holds);
  EXPECT_EQ(WriteLock(*lock), text);
  EXPECT_EQ(lock->stages.size(), 3u);
  EXPECT_LT(lock->stages[0].threshold, 1.0);
  EXPECT_EQ(lock->stages[2].threshold, calibration::kNever);
  for (std::size_t cut : {std::size_t{0}, std::size_t{1}, text.size() / 2, text.size() - 3})
    EXPECT_FALSE(ParseLock(text.substr(0, cut)).ok()) << cut;
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"\"ganglion_lock\": 1", "\"ganglion_lock\": 2"},
                                                        {"\"threshold\": ", "\"threshold\": -"},
                                                        {"\"loss_at_most\"", "\"luck\""},
                                                        {"\"tier\": \"edge\"", "\"tier\": \"moon\""},
                                                        {"\"confidence\": \"margin\"", "\"confidence\": \"vibes\""}}) {
    std::string bad = text;
    bad.replace(bad.find(from), from.size(), to);
    EXPECT_FALSE(ParseLock(bad).ok()) << to;
  }
}

TEST_F(Node, CalibrationRefusesSetsTooSmallToCertifyAnything) {
  WriteThreeTiers();
  const auto d = Decision::Open(engine_, dir_, {.with_lock = false}).value();
  const auto small = Calibrate(*d, MakePoints(300, 1), {calibration::PromiseKind::kLoss, .01, .1});
  ASSERT_FALSE(small.ok());
  EXPECT_EQ(small.status().message(),
            "loss_at_most 0.01 at 90% needs >= 230 certifying rows, all right; half of 300 are 150. Add rows (at least "
            "460 in all), or raise loss_at_most or delta.");
  auto unlabelled = MakePoints(1000, 1);
  unlabelled.labels.clear();
  EXPECT_NE(
      Calibrate(*d, unlabelled, {calibration::PromiseKind::kLoss, .05, .1}).status().message().find("needs labels"),
      std::string::npos);
  EXPECT_TRUE(Calibrate(*d, unlabelled, {calibration::PromiseKind::kDisagreement, .05, .1}).ok());
  auto wrong = MakePoints(1000, 1);
  wrong.labels[7] = 4;
  EXPECT_NE(Calibrate(*d, wrong, {calibration::PromiseKind::kLoss, .05, .1})
                .status()
                .message()
                .find("label 4 of row 7 is out of range"),
            std::string::npos);
}

TEST_F(Node, AcceptsNothingAndSaysSoWhereNoThresholdKeepsThePromise) {
  WriteThreeTiers();
  Write("device.onnx", LinearModel({-2, 2, 2, -2, 1, 1, 1, 1}));  // wrong nearly everywhere, with confidence
  Write("edge.onnx", LinearModel({-2, 2, 2, -2, 1, 1, 1, 1}));
  const auto d = Decision::Open(engine_, dir_, {.with_lock = false}).value();
  const auto c = Calibrate(*d, MakePoints(2000, 1), {calibration::PromiseKind::kError, .01, .1}).value();
  EXPECT_FALSE(c.lock.holds);
  ASSERT_FALSE(c.remarks.empty());
  EXPECT_NE(c.remarks[0].find("nothing is accepted below global"), std::string::npos) << c.remarks[0];
  Write("decision.lock", WriteLock(c.lock));
  const auto locked = Decision::Open(engine_, dir_).value();
  EXPECT_EQ(DecideRow(*locked, 3, 3)->tier, topology::Tier::kGlobal);
}

TEST_F(Node, ADecisionWithOneStageHasNothingToCertifyAndSaysSo) {
  WriteThreeTiers("  - {tier: device, model: device.onnx}\n");
  const auto d = Decision::Open(engine_, dir_, {.with_lock = false}).value();
  const auto c = Calibrate(*d, MakePoints(1000, 1), {calibration::PromiseKind::kLoss, .05, .1}).value();
  ASSERT_EQ(c.remarks.size(), 1u);
  EXPECT_EQ(c.remarks[0], "plane has one stage: it answers every request, and there is nothing to certify.");
  Write("decision.lock", WriteLock(c.lock));
  const auto locked = Decision::Open(engine_, dir_);
  ASSERT_TRUE(locked.ok()) << locked.status().message();
  EXPECT_EQ(DecideRow(**locked, 3, .5f)->kind, Decided::Kind::kAccepted);
}

TEST_F(Node, CalibrationIsAFunctionOfItsSeed) {
  WriteThreeTiers();
  const auto d = Decision::Open(engine_, dir_, {.with_lock = false}).value();
  const auto p = MakePoints(2000, 3);
  const calibration::Promise promise{calibration::PromiseKind::kLoss, .05, .1};
  EXPECT_EQ(WriteLock(Calibrate(*d, p, promise, 7)->lock), WriteLock(Calibrate(*d, p, promise, 7)->lock));
  EXPECT_NE(WriteLock(Calibrate(*d, p, promise, 7)->lock), WriteLock(Calibrate(*d, p, promise, 8)->lock));
}

TEST_F(Node, StagesMayHavePreAndPostGraphsAndTheirOwnConfidence) {
  // pre doubles the point and renames it; post turns the logits around, so labels come out mirrored.
  onnx::ModelProto pre;
  graph::GraphBuilder g(&pre);
  g.Input({"raw", DataType::kFp32, {-1, 2}});
  g.Node("Mul", {"raw", g.Scalar("two", 2)}, {}, "x");
  g.Output({"x", DataType::kFp32, {-1, 2}});
  onnx::ModelProto post;
  graph::GraphBuilder q(&post);
  q.Input({"z", DataType::kFp32, {-1, 4}});
  q.Node("Neg", {"z"}, {}, "flipped");
  q.Output({"flipped", DataType::kFp32, {-1, 4}});
  WriteThreeTiers(R"(  - {tier: device, model: own.onnx, pre: pre.onnx, post: post.onnx, confidence: {output: sure}}
  - {tier: global, model: a.onnx}
)");
  Write("pre.onnx", graph::Serialize(pre));
  Write("post.onnx", graph::Serialize(post));
  Write("own.onnx", LinearModel(Quadrants(-1), "x", false, "sure"));
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_);
  ASSERT_TRUE(d.ok()) << d.status().message();
  EXPECT_EQ((*d)->lock().stages[0].confidence_output, "sure");
  const auto easy = DecideRow(**d, 2, 2).value();
  EXPECT_EQ(easy.label, 0);
  EXPECT_EQ(easy.tier, topology::Tier::kDevice);
  EXPECT_NEAR(easy.confidence, 1, 1e-4);
}

TEST_F(Node, SaysWhatDoesNotFitTogether) {
  const auto refusal = [&](const std::string& stages) {
    WriteThreeTiers(stages);
    return Decision::Open(engine_, dir_, {.with_lock = false}).status().message();
  };
  Write("wide.onnx", [] {
    onnx::ModelProto m;
    graph::GraphBuilder g(&m);
    g.Input({"x", DataType::kFp32, {-1, 3}});
    g.Node("Identity", {"x"}, {}, "y");
    g.Output({"y", DataType::kFp32, {-1, 3}});
    return graph::Serialize(m);
  }());
  EXPECT_NE(refusal("  - {tier: device, model: wide.onnx}\n")
                .find("plane stages[0]: wide.onnx: input \"x\" is FP32[1,2], want FP32[-1,3]"),
            std::string::npos);
  EXPECT_NE(refusal("  - {tier: device, model: missing.onnx}\n").find("missing.onnx"), std::string::npos);
  EXPECT_NE(refusal("  - {tier: device, model: a.onnx, confidence: {output: nope}}\n").find("no output \"nope\""),
            std::string::npos);
  Write("junk.onnx", "this is no model");
  EXPECT_NE(refusal("  - {tier: device, model: junk.onnx}\n").find("junk.onnx: not an ONNX file"), std::string::npos);
}

TEST_F(Node, FixedBatchModelsAreScoredRowByRow) {
  onnx::ModelProto m;
  graph::GraphBuilder g(&m);
  g.Input({"x", DataType::kFp32, {1, 2}});
  g.Initializer("w", Tensor::From<float>({2, 4}, Quadrants(2)).value());
  g.Node("MatMul", {"x", "w"}, {}, "y");
  g.Output({"y", DataType::kFp32, {1, 4}});
  WriteThreeTiers("  - {tier: device, model: one.onnx}\n  - {tier: global, model: a.onnx}\n");
  Write("one.onnx", graph::Serialize(m));
  CalibrateInPlace(1000);
  const auto d = Decision::Open(engine_, dir_);
  ASSERT_TRUE(d.ok()) << d.status().message();
  EXPECT_EQ(DecideRow(**d, -2, 2)->label, 2);
}

// log(x) of a negative number: the stage is broken for that row. It is passed over, not taken for an answer.
TEST_F(Node, AStageThatGivesNanHasFailed) {
  onnx::ModelProto m;
  graph::GraphBuilder g(&m);
  g.Input({"x", DataType::kFp32, {-1, 2}});
  g.Initializer("w", Tensor::From<float>({2, 4}, Quadrants(2)).value());
  g.Node("Log", {g.Node("MatMul", {"x", "w"})}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 4}});
  WriteThreeTiers(
      "  - {tier: device, model: nan.onnx}\n  - {tier: edge, model: nan.onnx}\n  - {tier: global, model: a.onnx}\n");
  Write("nan.onnx", graph::Serialize(m));
  CalibrateInPlace(2000);
  const auto opened = Decision::Open(engine_, dir_);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const auto& d = *opened;
  const auto decided = DecideRow(*d, 1, 2).value();
  EXPECT_EQ(decided.kind, Decided::Kind::kAccepted);
  EXPECT_EQ(decided.tier, topology::Tier::kGlobal);
  // At the top it is refused when calibrating: the top must answer everything.
  WriteThreeTiers("  - {tier: device, model: device.onnx}\n  - {tier: global, model: nan.onnx}\n");
  const auto top = Decision::Open(engine_, dir_, {.with_lock = false}).value();
  EXPECT_NE(Calibrate(*top, MakePoints(1000, 1), {calibration::PromiseKind::kDisagreement, .5, .1})
                .status()
                .message()
                .find("not finite"),
            std::string::npos);
}

// Rows of this model depend on each other in a batch (the batch's mean is taken off): a certificate must be about
// single rows, which is how requests come.
TEST_F(Node, ModelsThatMixTheRowsOfABatchAreScoredRowByRow) {
  onnx::ModelProto m;
  graph::GraphBuilder g(&m);
  g.Input({"x", DataType::kFp32, {-1, 2}});
  g.Initializer("w", Tensor::From<float>({2, 4}, Quadrants(2)).value());
  const std::string y = g.Node("MatMul", {"x", "w"});
  const std::string largest = g.Node("ReduceMax", {g.Node("Abs", {"x"})}, {{"keepdims", std::int64_t{0}}});
  g.Node("Div", {y, largest}, {}, "scaled");
  g.Output({"scaled", DataType::kFp32, {-1, 4}});
  WriteThreeTiers("  - {tier: device, model: mixes.onnx}\n  - {tier: global, model: a.onnx}\n");
  Write("mixes.onnx", graph::Serialize(m));
  CalibrateInPlace(1000);
  const auto d = Decision::Open(engine_, dir_).value();
  const auto p = MakePoints(50, 5);
  const tensor::View view = p.x.View();
  const auto scores = d->ScoreAll({&view, 1}).value();
  for (std::int64_t r = 0; r < 50; ++r) {
    tensor::Shape shape;
    const tensor::View row = tensor::Rows(p.x.View(), r, r + 1, &shape);
    const auto alone = d->stage(0).Score({&row, 1}).value();
    for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ(alone.z[k], scores[0].z[static_cast<std::size_t>(r) * 4 + k]);
  }
}

// What fits one row need not fit a batch.
TEST_F(Node, RefusesOutputsThatLackARowForEachRow) {
  onnx::ModelProto m;
  graph::GraphBuilder g(&m);
  g.Input({"x", DataType::kFp32, {-1, 2}});
  g.Initializer("w", Tensor::From<float>({2, 4}, Quadrants(2)).value());
  g.Node("MatMul", {"x", "w"}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 4}});
  g.Node("ReduceMax", {g.Node("Sigmoid", {"y"})}, {}, "sure");  // [1,1] whatever the batch
  g.Output({"sure", DataType::kFp32, {-1, 1}});
  g.Node("NonZero", {"x"}, {}, "debris");  // of a size that depends on the data; nobody reads it
  g.Output({"debris", DataType::kInt64, {2, -1}});
  WriteThreeTiers(
      "  - {tier: device, model: odd.onnx, confidence: {output: sure}}\n  - {tier: global, model: a.onnx}\n");
  Write("odd.onnx", graph::Serialize(m));
  // Row by row the confidence is right, so it can be calibrated and served that way.
  CalibrateInPlace(1000);
  const auto d = Decision::Open(engine_, dir_);
  ASSERT_TRUE(d.ok()) << d.status().message();
  const auto decided = DecideRow(**d, 3, .5f);
  ASSERT_TRUE(decided.ok()) << decided.status().message();
  EXPECT_EQ(decided->tier, topology::Tier::kDevice);
}

TEST_F(Node, LocksBindRolesAndInputsToo) {
  WriteThreeTiers("  - {tier: device, model: device.onnx, post: post.onnx}\n  - {tier: global, model: a.onnx}\n");
  onnx::ModelProto post;
  graph::GraphBuilder q(&post);
  q.Input({"x", DataType::kFp32, {-1, -1}});
  q.Node("Identity", {"x"}, {}, "y");
  q.Output({"y", DataType::kFp32, {-1, -1}});
  Write("post.onnx", graph::Serialize(post));
  CalibrateInPlace(1000);
  ASSERT_TRUE(Decision::Open(engine_, dir_).ok());
  const std::string yaml = data::ReadFile(dir_ / "decision.yaml").value();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = yaml;
    text.replace(text.find(from), from.size(), to);
    Write("decision.yaml", text);
    return Decision::Open(engine_, dir_).status().message();
  };
  EXPECT_NE(with("input: {point:", "input: {other:").find("other inputs"), std::string::npos);
  EXPECT_NE(with("model: device.onnx, post: post.onnx", "model: post.onnx, pre: device.onnx").find("stages[0]"),
            std::string::npos);
}

TEST(DecisionFile, RefusesInputsGivenTwiceAndRowsBeyondTheLimit) {
  const auto r = ParseDecisionFile(
      "decision: d\ninput: {a: \"FP32[-1,2]\", a: \"FP32[-1,2]\", [1,2]: x, b: \"FP32[-1,2000000000]\"}\nstages:\n  - "
      "{tier: device, model: m}\n",
      ".", "f");
  ASSERT_FALSE(r.ok());
  for (const char* e : {"input.a is given twice", "a key that is no name", "more numbers a row than the limit"}) {
    EXPECT_NE(r.status().message().find(e), std::string::npos) << r.status().message();
  }
}

TEST(DecisionFile, QuotesNamesThatNeedIt) {
  DecisionConfig c;
  c.name = "d";
  c.inputs = {{"my input", DataType::kFp32, {-1, 2}}};
  c.stages = {{topology::Tier::kDevice, {"my net: #1 \"x\".onnx"}, "", "", std::nullopt, ""}};
  const auto back = ParseDecisionFile(WriteDecisionFile(c), ".", "f");
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->stages[0].models, c.stages[0].models);
  EXPECT_EQ(back->inputs, c.inputs);
}

TEST_F(Node, ManyThreadsGetTheSameAnswers) {
  WriteThreeTiers();
  CalibrateInPlace();
  const auto d = Decision::Open(engine_, dir_).value();
  const auto p = MakePoints(100, 9);
  std::vector<int> expected;
  for (std::size_t r = 0; r < 100; ++r)
    expected.push_back(DecideRow(*d, p.x.As<float>()[2 * r], p.x.As<float>()[2 * r + 1])->label);
  std::array<int, 4> wrong{};
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t r = 0; r < 100; ++r)
          wrong[t] += DecideRow(*d, p.x.As<float>()[2 * r], p.x.As<float>()[2 * r + 1])->label != expected[r];
      });
    }
  }
  for (const int w : wrong) EXPECT_EQ(w, 0);
}

TEST_F(Node, InputsComeFromFiles) {
  DecisionConfig c;
  c.name = "d";
  c.inputs = {{"point", DataType::kFp32, {-1, 2}}};
  const auto load = [&](const std::string& name, const std::string& bytes) {
    Write(name, bytes);
    return LoadInputs(c, (dir_ / name).string());
  };
  EXPECT_EQ(load("a.csv", "1,2\n3,4\n")->at(0).shape(), (tensor::Shape{2, 2}));
  EXPECT_EQ(load("b.csv", "label,u,v\n1,2,3\n")->at(0).As<float>()[0], 2);
  EXPECT_EQ(load("a.json", "[[1,2],[3,4],[5,6]]")->at(0).shape()[0], 3);
  EXPECT_EQ(load("one.json", "[1,2]")->at(0).shape(), (tensor::Shape{1, 2}));
  EXPECT_EQ(load("v2.json", R"({"inputs":[{"name":"point","shape":[1,2],"datatype":"FP32","data":[5,6]}]})")
                ->at(0)
                .As<float>()[1],
            6);
  const std::array<double, 4> x{1, 2, 3, 4};
  EXPECT_EQ(load("a.npy", data::WriteNpy(Tensor::From<double>({2, 2}, x)->View()))->at(0).type(), DataType::kFp32);
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, std::string>>{
           {"bad.csv", "1,2,3\n"},
           {"ragged.json", "[[1,2],[3]]"},
           {"deep.json", "[[1,2],3]"},
           {"text.json", "[\"a\"]"},
           {"big.json", "[1e300,1]"},
           {"other.json", R"({"inputs":[{"name":"q","data":[1,2]}]})"},
           {"shape.json", R"({"inputs":[{"name":"point","shape":[9,9],"data":[1,2]}]})"},
           {"what.txt", "1,2"},
           {"not.png", "\x89PNG\r\n\x1a\n"},
           {"empty.npy", ""}}) {
    const auto r = load(name, bytes);
    EXPECT_FALSE(r.ok()) << name;
    EXPECT_TRUE(r.ok() || r.status().message().find(name) != std::string::npos) << r.status().message();
  }
}

TEST_F(Node, TopologyFileOverridesTheTable) {
  Write("links.yaml", "edge: {latency: [1ms, 3ms], price: 0.5}\n");
  const auto t = LoadTopologyFile(dir_ / "links.yaml");
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->at(topology::Tier::kEdge).MeanRoundTrip(), std::chrono::milliseconds(2));
  EXPECT_EQ(t->at(topology::Tier::kRegion).price, .01);
  Write("bad.yaml", "edge: {latency: [3ms, 1ms], price: -1, availability: 2}\nmoon: {}\nregion: 3\n");
  const std::string m = LoadTopologyFile(dir_ / "bad.yaml").status().message();
  for (const char* e : {"edge.latency must be two times", "edge.price must be at least 0", "edge.availability",
                        "moon is unknown", "region must be a mapping"})
    EXPECT_NE(m.find(e), std::string::npos) << m;
}

}  // namespace
}  // namespace ganglion::node
