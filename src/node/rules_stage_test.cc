// A stage made of rules, inside a decision: calibrated, locked, decided and served with the others.
#include <cmath>

#include "node/serving_test.h"

namespace ganglion::node {
namespace {

using namespace fixture;  // NOLINT: a test
using topology::Tier;

// Far out in a quadrant a rule knows the answer; nearer the axes the models are asked.
constexpr char kRules[] = R"(rules:
  - name: far north east
    if: {all: [{feature: "point[0]", above: 1}, {feature: "point[1]", above: 1}]}
    then: ne
  - name: far south west
    if: {all: [{feature: "point[0]", below: -1}, {feature: "point[1]", below: -1}]}
    then: {answer: sw, confidence: .9}
)";
constexpr char kStages[] = R"(  - {tier: device, rules: rules.yaml}
  - {tier: device, model: device.onnx}
  - {tier: global, ensemble: [a.onnx, b.onnx]}
)";
constexpr Row kFarOut{1.5f, 1.25f};
constexpr Row kFarOther{-1.5f, -1.25f};

class RulesStage : public ServingDir {
 protected:
  void SetUp() override {
    ServingDir::SetUp();
    WriteThreeTiers(kStages);
    Write("rules.yaml", kRules);
  }
  static Result<Decided> DecideRow(const Decision& decision, const Row& row) {
    const tensor::Shape shape{1, 2};
    const tensor::View view{DataType::kFp32, shape, std::as_bytes(std::span(row))};
    const SteadyClock clock;
    return decision.Decide({&view, 1}, clock, clock.Now() + kPatience);
  }
};

TEST_F(RulesStage, AnswersFromARuleWhereOneHoldsAndGoesOnWhereNoneDoes) {
  CalibrateInPlace();
  const auto decision = Decision::Open(engine_, dir_);
  ASSERT_TRUE(decision.ok()) << decision.status().message();
  for (const auto& [row, label] : {std::pair(kFarOut, 0), std::pair(kFarOther, 3)}) {
    const auto d = DecideRow(**decision, row);
    ASSERT_TRUE(d.ok()) << d.status().message();
    EXPECT_EQ(d->kind, Decided::Kind::kAccepted);
    EXPECT_EQ(d->stage, 0u);
    EXPECT_EQ(d->label, label);
    EXPECT_EQ(d->confidence, 1);  // a rule that may answer answers: the certificate is for all of them together
  }
  const auto by_model = DecideRow(**decision, kEasy).value();
  EXPECT_EQ(by_model.stage, 1u);
  EXPECT_EQ(by_model.label, 0);
  EXPECT_EQ(DecideRow(**decision, kHard)->stage, 2u);
}

TEST_F(RulesStage, TheLockNamesTheRulesAndHoldsThemToTheirDigest) {
  CalibrateInPlace();
  const Lock lock = LoadLock(dir_).value();
  ASSERT_EQ(lock.stages.size(), 3u);
  ASSERT_EQ(lock.stages[0].files.size(), 1u);
  EXPECT_EQ(lock.stages[0].files[0].file, "rules.yaml");
  EXPECT_EQ(lock.stages[0].files[0].role, "rules");
  EXPECT_EQ(lock.stages[0].files[0].digest, crypto::Sha256(kRules));
  EXPECT_TRUE(lock.holds);
  EXPECT_GT(lock.stages[0].accepted, 0);
  EXPECT_GT(lock.stages[1].accepted, 0);
  EXPECT_EQ(WriteLock(ParseLock(WriteLock(lock)).value()), WriteLock(lock));
  std::string changed = kRules;
  changed.replace(changed.find("above: 1"), 8, "above: 2");
  Write("rules.yaml", changed);
  const auto refused = Decision::Open(engine_, dir_);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("plane: rules.yaml is "), std::string::npos) << refused.status().message();
}

// What rules get wrong uses up the promise, and no threshold can stop them: the lock says that it does not hold.
TEST_F(RulesStage, RulesThatAreWrongLeaveNothingToCertify) {
  Write("rules.yaml", "rules:\n  - if: {feature: \"point[0]\", above: -100}\n    then: nw\n");
  const auto decision = Decision::Open(engine_, dir_, {.with_lock = false}).value();
  const auto calibrated = Calibrate(*decision, MakePoints(4000, 1), {calibration::PromiseKind::kLoss, .05, .1});
  ASSERT_TRUE(calibrated.ok()) << calibrated.status().message();
  EXPECT_FALSE(calibrated->lock.holds);
  std::string remarks;
  for (const auto& remark : calibrated->remarks) remarks += remark + "\n";
  EXPECT_NE(remarks.find("narrower"), std::string::npos) << remarks;
}

TEST_F(RulesStage, IsServedWithItsRowsInABatch) {
  CalibrateInPlace();
  const auto node = Start("tier: global\ndecisions: [.]\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  const auto request = Ask({kFarOut, kEasy, kHard, kFarOther}, {"label", "ganglion.stage", "ganglion.confidence"});
  for (const auto& r : {client.Rest(request), client.Rest(request, false), client.Grpc(request)}) {
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(Texts(*r, "ganglion.stage"), (std::vector<std::string>{"rules", "device", "ensemble", "rules"}));
    EXPECT_EQ(Labels(*r)[0], 0);
    EXPECT_EQ(Labels(*r)[3], 3);
    for (const float c : Numbers<float>(*r, "ganglion.confidence")) EXPECT_TRUE(c > 0 && c <= 1) << c;
  }
}

// A device with nothing but rules: it answers what they cover, and asks for the rest.
TEST_F(RulesStage, ADeviceOfRulesAloneAsksItsParentForTheRest) {
  WriteThreeTiers("  - {tier: device, rules: rules.yaml}\n  - {tier: global, model: a.onnx}\n");
  CalibrateInPlace(2000);
  const auto global = Start("tier: global\ndecisions: [.]\n");
  const auto device = StartDevice("{url: " + Url(*global) + "}");
  ASSERT_NE(device, nullptr);
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return ParentUp(*device); }));
  const auto r = client.Rest(Ask({kFarOut, kEasy, kFarOther}, {"label", "ganglion.tier", "ganglion.stage"}));
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Labels(*r), (std::vector<std::int64_t>{0, 0, 3}));
  EXPECT_EQ(Texts(*r, "ganglion.tier"), (std::vector<std::string>{"device", "global", "device"}));
}

TEST_F(RulesStage, RulesThatNameWhatIsNotThereAreRefusedWithTheirLine) {
  Write("rules.yaml",
        "rules:\n  - if: {feature: \"point[2]\", above: 1}\n    then: ne\n  - if: {feature: age, above: 1}\n    then: "
        "up\n");
  const auto refused = Decision::Open(engine_, dir_, {.with_lock = false});
  ASSERT_FALSE(refused.ok());
  for (const char* part : {"rules.yaml:2", "rules.yaml:4", "age", "up"})
    EXPECT_NE(refused.status().message().find(part), std::string::npos) << refused.status().message();
}

}  // namespace
}  // namespace ganglion::node
