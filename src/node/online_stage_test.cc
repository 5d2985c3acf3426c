// A stage that is an online model: calibrated and locked like a model, and learning beside it from reported outcomes.
#include "node/online_stage.h"

#include "node/serving_test.h"
#include "online/inputs.h"
#include "online/snapshot.h"

namespace ganglion::node {
namespace {

using namespace fixture;  // NOLINT: a test

constexpr char kStages[] = R"(  - {tier: device, online: quadrants.gol}
  - {tier: global, ensemble: [a.onnx, b.onnx]}
)";

class OnlineStageTest : public ServingDir {
 protected:
  void SetUp() override {
    ServingDir::SetUp();
    WriteThreeTiers(kStages);
    Write("quadrants.gol", Taught(1500));
  }
  static online::LearnerOptions FourClasses() {
    online::LearnerOptions o;
    o.task = online::Task::kSoftmax;
    o.classes = 4;
    o.bits = 8;
    return o;
  }
  static std::string Taught(std::int64_t rows) {
    auto learner = online::Learner::Create(FourClasses()).value();
    auto features = online::InputFeatures::Create(FourClasses(), {"point"}).value();
    const Points p = MakePoints(rows, 3);
    online::Example e;
    for (std::size_t i = 0; i < p.labels.size(); ++i) {
      features.Begin(&e);
      features.Numbers(0, p.x.As<float>().subspan(2 * i, 2));
      EXPECT_TRUE(features.Finish().ok());
      e.labelled = true;
      e.label = static_cast<float>(p.labels[i]);
      EXPECT_TRUE(learner.Learn(e, 0).ok());
    }
    return online::Snapshot(learner);
  }
  static std::string Report(const std::string& id, const std::string& label) {
    return R"({"decision_id": ")" + id + R"(", "label": )" + label + "}";
  }
};

TEST_F(OnlineStageTest, IsCalibratedLockedAndDecidesLikeAModel) {
  CalibrateInPlace();
  const Lock lock = LoadLock(dir_).value();
  ASSERT_EQ(lock.stages[0].files.size(), 1u);
  EXPECT_EQ(lock.stages[0].files[0].file, "quadrants.gol");
  EXPECT_EQ(lock.stages[0].files[0].role, "online");
  EXPECT_TRUE(lock.holds);
  EXPECT_GT(lock.stages[0].accepted, 0);
  const auto decision = Decision::Open(engine_, dir_).value();
  const SteadyClock clock;
  const tensor::Shape shape{1, 2};
  for (const Row row : {Row{3, 3}, Row{3, -3}, Row{-3, 3}, Row{-3, -3}}) {
    const tensor::View view{DataType::kFp32, shape, std::as_bytes(std::span(row))};
    const auto d = decision->Decide({&view, 1}, clock, clock.Now() + kPatience);
    ASSERT_TRUE(d.ok()) << d.status().message();
    EXPECT_EQ(d->stage, 0u);
    EXPECT_EQ(d->label, QuadrantOf(row[0], row[1]));
  }
  Write("quadrants.gol", Taught(1600));
  EXPECT_FALSE(Decision::Open(engine_, dir_).ok()) << "another model than the lock certifies";
}

TEST_F(OnlineStageTest, LearnsFromReportedOutcomesBesideTheModelThatAnswers) {
  Write("quadrants.gol", Taught(20));  // knows little: there is something to learn
  CalibrateInPlace();
  const auto node = Start("tier: global\ndecisions: [.]\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  const Points p = MakePoints(200, 5, 0);
  std::string names[] = {"\"ne\"", "\"se\"", "\"nw\"", "3"};
  const auto x = p.x.As<float>();
  const auto first = client.Rest(Ask({kEasy}, {"confidence", "label"}));
  ASSERT_TRUE(first.ok()) << first.status().message();
  for (std::size_t i = 0; i < 200; i += 2) {
    const auto answer =
        client.Rest(Ask({{x[2 * i], x[2 * i + 1]}, {x[2 * i + 2], x[2 * i + 3]}}, {"ganglion.decision_id"}));
    ASSERT_TRUE(answer.ok()) << answer.status().message();
    const auto ids = Texts(*answer, "ganglion.decision_id");
    ASSERT_EQ(ids.size(), 2u);
    for (const std::size_t row : {std::size_t{1}, std::size_t{0}}) {
      const auto told =
          client.Post("/v2/models/plane/outcome", Report(ids[row], names[static_cast<std::size_t>(p.labels[i + row])]));
      EXPECT_EQ(told.first, 200) << told.second;
    }
  }
  const wire::Json status = client.StatusDocument();
  const wire::Json& learning = status["models"][0]["learning"];
  EXPECT_EQ(learning["outcomes"], 200);
  EXPECT_LT(learning["learned_loss"].get<double>(), learning["certified_loss"].get<double>());
  EXPECT_EQ(Metric(client.Metrics(), "ganglion_outcomes_total", {{"decision", "plane"}, {"result", "learned"}}), 200);
  const auto learned = online::Restore(client.Get("/v2/models/plane/learned").second);
  ASSERT_TRUE(learned.ok()) << learned.status().message();
  EXPECT_EQ(learned->progress().examples, 220u);
  // What answers is still the model that was certified.
  const auto last = client.Rest(Ask({kEasy}, {"confidence", "label"}));
  EXPECT_EQ(Numbers<float>(*first, "confidence"), Numbers<float>(*last, "confidence"));
}

TEST_F(OnlineStageTest, RefusesOutcomesThatFitNothing) {
  CalibrateInPlace();
  const auto node = Start("tier: global\ndecisions: [.]\nmodels: [{file: a.onnx, name: plain}]\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  const auto answer = client.Grpc(Ask({kEasy}));
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  const std::string id = TextOf(answer->parameters, "decision_id");
  const auto report = [&](const std::string& body, const std::string& model = "plane") {
    return client.Post("/v2/models/" + model + "/outcome", body).first;
  };
  for (const char* body :
       {"", "{}", "[]", R"({"decision_id": "", "label": 1})", R"({"decision_id": 5, "label": 1})",
        R"({"decision_id": "x"})", R"({"decision_id": "x", "label": -1})", R"({"decision_id": "x", "label": 1.5})",
        R"({"decision_id": "x", "label": 1, "weight": -1})", R"({"decision_id": "x", "label": 1, "weight": 1e300})"})
    EXPECT_EQ(report(body), 400) << body;
  EXPECT_EQ(report(Report(id, "\"north\"")), 400);
  EXPECT_EQ(report(Report(id, "4")), 400) << "not used up by it:";
  EXPECT_EQ(report(Report("never", "1")), 404);
  EXPECT_EQ(report(Report(id, "0")), 200);
  EXPECT_EQ(report(Report(id, "0")), 404) << "twice";
  EXPECT_EQ(report(Report(id, "0"), "plain"), 400);
  EXPECT_EQ(report(Report(id, "0"), "nowhere"), 404);
  EXPECT_EQ(client.Get("/v2/models/plane/outcome").first, 405);
  EXPECT_EQ(client.Get("/v2/models/plain/learned").first, 400);
}

TEST_F(OnlineStageTest, ReadsTextsAndNumbersOfABatch) {
  online::LearnerOptions o;
  o.task = online::Task::kBinary;
  o.bits = 10;
  auto learner = online::Learner::Create(o).value();
  const std::vector<tensor::Spec> inputs{{"size", DataType::kFp32, {-1, 1}}, {"colour", DataType::kBytes, {-1}}};
  auto features = online::InputFeatures::Create(o, {"size", "colour"}).value();
  online::Example e;
  const auto make = [&](float size, const std::string& colour) {
    features.Begin(&e);
    features.Numbers(0, {&size, 1});
    features.Text(1, colour);
    EXPECT_TRUE(features.Finish().ok());
  };
  for (int i = 0; i < 50; ++i) {
    make(1, i % 2 == 0 ? "red" : "blue");
    e.labelled = true;
    e.label = i % 2 == 0 ? 1 : -1;
    ASSERT_TRUE(learner.Learn(e, 0).ok());
  }
  const auto stage = OnlineStage::Create(online::Snapshot(learner), inputs);
  ASSERT_TRUE(stage.ok()) << stage.status().message();
  EXPECT_EQ((*stage)->classes(), 2u);
  const Tensor sizes = Tensor::From<float>({3, 1}, std::vector<float>{1, 1, 1}).value();
  const Tensor colours = TextTensor({"blue", "red", "blue"});
  const std::vector<tensor::View> views{sizes.View(), colours.View()};
  auto scratch = (*stage)->MakeScratch();
  std::vector<float> z(2);
  for (std::size_t row = 0; row < 3; ++row) {
    ASSERT_TRUE((*stage)->Score(views, row, &scratch, z).ok());
    EXPECT_EQ(z[1] > z[0], row == 1) << row;
    make(1, row == 1 ? "red" : "blue");
    float score = 0;
    learner.Predict(e.features, {&score, 1});
    EXPECT_EQ(z[1], score);
  }
  o.task = online::Task::kRegression;
  EXPECT_FALSE(OnlineStage::Create(online::Snapshot(online::Learner::Create(o).value()), inputs).ok());
  const std::vector<tensor::Spec> whole{{"x", DataType::kInt64, {-1, 1}}};
  EXPECT_FALSE(OnlineStage::Create(online::Snapshot(learner), whole).ok());
}

TEST_F(OnlineStageTest, IsWrittenAndReadInADecisionFile) {
  const auto config = LoadDecisionFile(dir_).value();
  EXPECT_EQ(config.stages[0].online, "quadrants.gol");
  const auto again = ParseDecisionFile(WriteDecisionFile(config), dir_, "decision.yaml");
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(again->stages[0].online, "quadrants.gol");
  for (const std::string stages :
       {"  - {tier: device, online: a.gol, model: device.onnx}\n", "  - {tier: device, online: a.gol, pre: p.onnx}\n",
        "  - {tier: device, online: a.gol}\n  - {tier: edge, online: b.gol}\n"}) {
    WriteThreeTiers(stages);
    EXPECT_FALSE(LoadDecisionFile(dir_).ok()) << stages;
  }
}

}  // namespace
}  // namespace ganglion::node
