// What goes up to a parent, and what comes back.
#include <cmath>
#include <future>
#include <limits>
#include <set>

#include "node/serving_test.h"

namespace ganglion::node {
namespace {

using namespace fixture;  // NOLINT: a test
using std::chrono::milliseconds;
using topology::Tier;

const std::vector<std::string> kAskAll{"label",          "confidence",        "ganglion.tier",
                                       "ganglion.stage", "ganglion.degraded", "ganglion.decision_id"};

class Escalation : public ServingDir {
 protected:
  void SetUp() override {
    ServingDir::SetUp();
    WriteThreeTiers();
    CalibrateInPlace();
  }
  // Lines of decision.yaml beside those of WriteThreeTiers.
  void AddToDecision(const std::string& lines) {
    Write("decision.yaml", data::ReadFile(dir_ / "decision.yaml").value() + lines);
  }
  // A row which no other test of this process asked, hard for the device.
  Row Hard() {
    ++hard_;
    return {.001f + 1e-6f * static_cast<float>(hard_), -.001f};
  }
  static wire::InferRequest With(wire::InferRequest request, const std::string& name, wire::ParameterValue value) {
    request.parameters.push_back({name, std::move(value)});
    return request;
  }
  static double Count(const Client& client, const std::string& parent, const std::string& outcome) {
    return Metric(client.Metrics(), "ganglion_parent_requests_total", {{"parent", parent}, {"outcome", outcome}});
  }
  // Asks one hard row and says what came of it: "global", or "device degraded unreachable".
  std::string Outcome(const Client& client, int deadline_ms = 2000) {
    const auto r = client.Rest(With(Ask({Hard()}), "deadline_ms", std::int64_t{deadline_ms}));
    if (!r.ok()) return r.status().message();
    const auto& p = r->parameters;
    return TextOf(p, "tier") + (TextOf(p, "degraded") == "true" ? " degraded " + TextOf(p, "reason") : "");
  }
  int hard_ = 0;
};

TEST_F(Escalation, EachRowComesBackFromTheTierThatDecidesIt) {
  const auto global = Start("tier: global\ndecisions: [.]\n");
  const auto edge = Start("tier: edge\ndecisions: [.]\nparents: [{url: " + Url(*global) + "}]\n");
  const auto device = StartDevice("{url: " + Url(*edge) + "}");
  ASSERT_TRUE(Eventually([&] { return ParentUp(*edge) && ParentUp(*device); }));
  const Client client(*device);
  const auto decision = Decision::Open(engine_, dir_).value();
  const SteadyClock clock;
  const auto points = MakePoints(120, 21);
  std::vector<Row> rows;
  std::vector<std::int64_t> labels;
  std::vector<std::string> tiers;
  for (std::int64_t r = 0; r < 120; ++r) {
    tensor::Shape shape;
    const auto view = tensor::Rows(points.x.View(), r, r + 1, &shape);
    const auto d = decision->Decide({&view, 1}, clock, clock.Now() + kPatience).value();
    rows.push_back({view.As<float>()[0], view.As<float>()[1]});
    labels.push_back(d.label);
    tiers.emplace_back(topology::Name(d.tier));
  }
  ASSERT_EQ((std::set<std::string>(tiers.begin(), tiers.end()).size()), 3u);
  for (const bool by_grpc : {false, true}) {
    const auto request = With(Ask(rows, kAskAll), "deadline_ms", std::int64_t{20'000});
    const auto batch = by_grpc ? client.Grpc(request) : client.Rest(request);
    ASSERT_TRUE(batch.ok()) << batch.status().message();
    EXPECT_EQ(Labels(*batch), labels);
    EXPECT_EQ(Texts(*batch, "ganglion.tier"), tiers);
    EXPECT_EQ(TextOf(batch->parameters, "degraded"), "false");
    const auto ids = Texts(*batch, "ganglion.decision_id");
    EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), rows.size());
  }
  for (std::size_t r = 0; r < rows.size(); r += 7) {
    const auto one = client.Grpc(With(Ask({rows[r]}, kAskAll), "deadline_ms", std::int64_t{20'000}));
    ASSERT_TRUE(one.ok()) << one.status().message();
    EXPECT_EQ(Labels(*one)[0], labels[r]);
    EXPECT_EQ(TextOf(one->parameters, "tier"), tiers[r]);
  }
}

TEST_F(Escalation, TheParentHearsWhatItNeedsAndOnlyOfOpenRows) {
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(3);
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  const Client client(*device);
  const std::string trace = "0af7651916cd43dd8448eb211c80319c";
  auto request = Ask({kEasy, kHard, kEasy, {-.002f, .001f}}, kAskAll);
  request.parameters = {{"deadline_ms", std::int64_t{5000}},
                        {"unit", std::string("u-7")},
                        {"traceparent", "00-" + trace + "-b7ad6b7169203331-01"}};
  const auto r = client.Grpc(request);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Labels(*r), (std::vector<std::int64_t>{0, 3, 0, 3}));
  EXPECT_EQ(Texts(*r, "ganglion.tier"), (std::vector<std::string>{"device", "global", "device", "global"}));
  EXPECT_EQ(Texts(*r, "ganglion.stage"), (std::vector<std::string>{"device", "fake", "device", "fake"}));
  EXPECT_EQ(Texts(*r, "ganglion.decision_id")[1], "from-above");
  EXPECT_EQ(Numbers<float>(*r, "confidence")[3], .875f);
  ASSERT_EQ(parent.asked(), 1u);
  const auto seen = parent.seen()[0];
  EXPECT_EQ(seen.model, "plane");
  EXPECT_EQ(seen.inputs, std::vector<std::string>{"point"});
  EXPECT_EQ(seen.numbers, (std::vector<float>{kHard[0], kHard[1], -.002f, .001f}));
  EXPECT_FALSE(seen.unary);  // over the stream
  EXPECT_EQ(TextOf(seen.parameters, "above_tier"), "device");
  EXPECT_EQ(TextOf(seen.parameters, "require_tier"), "(none)");
  EXPECT_EQ(TextOf(seen.parameters, "unit"), "u-7");
  EXPECT_EQ(NumberOf(seen.parameters, "hop"), 1);
  EXPECT_GT(NumberOf(seen.parameters, "deadline_ms"), 0);
  EXPECT_LT(NumberOf(seen.parameters, "deadline_ms"), 5000);
  const std::string traceparent = TextOf(seen.parameters, "traceparent");
  EXPECT_EQ(traceparent.substr(0, 36), "00-" + trace + "-");
  EXPECT_NE(traceparent.substr(36, 16), "b7ad6b7169203331");
  // Easy rows never leave the device; a hop counts on.
  ASSERT_TRUE(client.Rest(Ask({kEasy, {-3, 2}})).ok());
  EXPECT_EQ(parent.asked(), 1u);
  ASSERT_TRUE(client.Rest(With(Ask({Hard()}), "hop", std::int64_t{4})).ok());
  EXPECT_EQ(NumberOf(parent.seen()[1].parameters, "hop"), 5);
}

TEST_F(Escalation, ARequiredTierIsPassedOnAsItWasAskedFor) {
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(1, "edge");
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  const Client client(*device);
  const auto r = client.Rest(With(Ask({kEasy}), "require_tier", std::string("edge")));
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(TextOf(r->parameters, "tier"), "edge");
  ASSERT_EQ(parent.asked(), 1u);
  EXPECT_EQ(TextOf(parent.seen()[0].parameters, "require_tier"), "edge");
  // A node between them does not let its own answer, which was too unsure, be computed again above.
  const auto edge = Start("tier: edge\ndecisions: [.]\nparents: [{url: " + parent.Url() + "}]\n");
  const Client middle(*edge);
  ASSERT_TRUE(middle.Rest(With(Ask({kHard}), "require_tier", std::string("edge"))).ok());
  ASSERT_EQ(parent.asked(), 2u);
  EXPECT_EQ(TextOf(parent.seen()[1].parameters, "require_tier"), "global");
}

// A server of the protocol that is no Ganglion: other names, plain scores, no parameters of ours.
TEST_F(Escalation, AnyServerOfTheProtocolCanBeTheParent) {
  for (const bool stream : {true, false}) {
    FakeParent parent({"binary_tensor_data"});
    parent.OnInfer([](std::unique_ptr<net::InferCall> call) {
      wire::InferResponse r;
      const auto rows = static_cast<std::int64_t>(FakeParent::RowsOf(*call));
      std::vector<float> z;
      for (std::int64_t i = 0; i < rows; ++i) z.insert(z.end(), {0, 1, std::log(16.f), 1});
      r.outputs.push_back({"OTHER", Tensor::From<float>({1}, std::vector<float>{7}).value(), {}});
      r.outputs.push_back({"OUTPUT__0", Tensor::From<float>({rows, 4}, z).value(), {}});
      call->Finish(std::move(r));
    });
    const auto device = StartDevice("{url: " + parent.Url() +
                                    ", name: triton, model: big, version: \"3\", inputs: {point: INPUT__0}, output: "
                                    "OUTPUT__0, stream: " +
                                    (stream ? "always" : "never") + "}");
    const Client client(*device);
    const auto r = client.Rest(With(Ask({kHard, kEasy, Hard()}, kAskAll), "unit", std::string("secret")));
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(Labels(*r), (std::vector<std::int64_t>{2, 0, 2}));
    EXPECT_EQ(Texts(*r, "ganglion.tier"), (std::vector<std::string>{"global", "device", "global"}));
    EXPECT_EQ(Texts(*r, "ganglion.stage")[0], "triton");
    EXPECT_EQ(TextOf(r->parameters, "degraded"), "false");
    EXPECT_NEAR(Numbers<float>(*r, "confidence")[0], 16 / (17 + 2 * std::exp(1.f)), 1e-5);
    ASSERT_EQ(parent.asked(), 1u);
    const auto seen = parent.seen()[0];
    EXPECT_EQ(seen.model, "big");
    EXPECT_EQ(seen.version, "3");
    EXPECT_EQ(seen.inputs, std::vector<std::string>{"INPUT__0"});
    EXPECT_EQ(seen.outputs, std::vector<std::string>{"OUTPUT__0"});
    EXPECT_EQ(seen.rows, 2);
    EXPECT_EQ(seen.unary, !stream);
    ASSERT_EQ(seen.parameters.size(), 1u);  // Triton's form of a deadline, and nothing of ours
    EXPECT_GT(NumberOf(seen.parameters, "timeout"), 0);
    EXPECT_LT(NumberOf(seen.parameters, "timeout"), 2e6);
  }
}

TEST_F(Escalation, AForeignServerIsRecognisedByWhatItDoesNotSay) {
  FakeParent parent({});
  parent.OnInfer([](std::unique_ptr<net::InferCall> call) {
    if (!call->request.outputs.empty()) return call->Finish(InvalidArgument("unexpected output"));
    wire::InferResponse r;
    r.outputs.push_back(
        {"probabilities", Tensor::From<float>({1, 4}, std::vector<float>{.1f, .6f, .2f, .1f}).value(), {}});
    call->Finish(std::move(r));
  });
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return device->parents().Look()[0].foreign; }));
  const auto r = client.Rest(Ask({Hard()}));
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Labels(*r)[0], 1);
  EXPECT_EQ(TextOf(r->parameters, "tier"), "global");
  EXPECT_FLOAT_EQ(Numbers<float>(*r, "confidence")[0], .6f);  // probabilities are taken as they are
}

// A parent that takes connections and never says a word, and one that takes requests and never answers.
TEST_F(Escalation, WithASilentParentEveryRequestEndsByItsDeadline) {
  const Hole hole(true);
  FakeParent holding(kTellsGlobal);
  holding.Hold();
  for (const std::string& url : {hole.Url(), holding.Url()}) {
    const auto device = StartAlone("{url: " + url + "}");
    constexpr int kRequests = 24;
    constexpr int kDeadlineMs = 300;
    std::vector<std::future<void>> asking;
    for (int i = 0; i < kRequests; ++i) {
      asking.push_back(std::async(std::launch::async, [&, i] {
        const Client client(*device);
        const Row hard{.001f + 1e-5f * static_cast<float>(i), -.001f};
        const auto request = With(Ask({kEasy, hard}, kAskAll), "deadline_ms", std::int64_t{kDeadlineMs});
        const auto began = std::chrono::steady_clock::now();
        const auto r = i % 2 == 0 ? client.Rest(request) : client.Grpc(request);
        const Duration took = std::chrono::steady_clock::now() - began;
        ASSERT_TRUE(r.ok()) << r.status().message();
        EXPECT_LT(took, milliseconds(kDeadlineMs) + std::chrono::seconds(3));
        EXPECT_EQ(Texts(*r, "ganglion.tier"), (std::vector<std::string>{"device", "device"}));
        EXPECT_EQ(Flags(*r, "ganglion.degraded"), (std::vector<bool>{false, true}));
        EXPECT_EQ(Labels(*r)[1], 1);  // the device's own
        const std::string reason = TextOf(r->parameters, "reason");
        EXPECT_TRUE(reason == "deadline" || reason == "unreachable") << reason;
      }));
    }
    for (auto& a : asking) a.get();
    const Client client(*device);
    const std::string name = device->parents().Look()[0].name;
    EXPECT_GT(Count(client, name, "timeout") + Count(client, name, "error"), 0);
    // Sooner or later it is left alone: the answer does not wait for the deadline any more.
    EXPECT_TRUE(
        Eventually([&] { return device->parents().Look()[0].breaker == "open" || Outcome(client, 100).empty(); }));
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(Outcome(client, 20'000), "device degraded unreachable");
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10));
    // Answers that come after all harm nobody.
    for (auto& call : holding.TakeHeld()) {
      auto answer = FakeParent::NodeAnswer(*call, 3);
      call->Finish(std::move(answer));
    }
    EXPECT_TRUE(client.Rest(Ask({kEasy})).ok());
  }
}

TEST_F(Escalation, WhenLateFailSaysSoInsteadOfGuessing) {
  AddToDecision("when_late: fail\n");
  FakeParent parent(kTellsGlobal);
  parent.Hold();
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  const Client client(*device);
  const auto r = client.Rest(With(Ask({kHard}), "deadline_ms", std::int64_t{100}));
  EXPECT_EQ(r.status().code(), Code::kDeadlineExceeded);
  EXPECT_NE(r.status().message().find("deadline 100ms passed"), std::string::npos) << r.status().message();
  EXPECT_TRUE(client.Rest(Ask({kEasy})).ok());
  // Of a batch, the rows that nobody could answer have label -1.
  const auto batch = client.Rest(With(Ask({kEasy, Hard()}, kAskAll), "deadline_ms", std::int64_t{100}));
  ASSERT_TRUE(batch.ok()) << batch.status().message();
  EXPECT_EQ(Labels(*batch), (std::vector<std::int64_t>{0, -1}));
  EXPECT_EQ(Flags(*batch, "ganglion.degraded"), (std::vector<bool>{false, true}));
}

// One asks, the others wait for its answer.
TEST_F(Escalation, EqualRequestsUnderWayAskTheParentOnce) {
  FakeParent parent(kTellsGlobal);
  parent.Hold();
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  const Client watching(*device);
  std::vector<std::future<Result<wire::InferResponse>>> asking;
  for (int i = 0; i < 6; ++i) {
    asking.push_back(std::async(std::launch::async, [&, i] {
      const Client client(*device);
      auto request = With(Ask({kHard}, kAskAll), "deadline_ms", std::int64_t{20'000});
      request.id = std::to_string(i);
      return i % 2 == 0 ? client.Rest(request) : client.Grpc(request);
    }));
  }
  ASSERT_TRUE(Eventually([&] { return Metric(watching.Metrics(), "ganglion_cache_waits_total") == 5; }));
  ASSERT_TRUE(Eventually([&] { return parent.held() == 1; }));
  for (auto& call : parent.TakeHeld()) {
    auto answer = FakeParent::NodeAnswer(*call, 3);
    call->Finish(std::move(answer));
  }
  std::set<std::string> ids;
  for (int i = 0; i < 6; ++i) {
    const auto r = asking[static_cast<std::size_t>(i)].get();
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(r->id, std::to_string(i));
    EXPECT_EQ(Labels(*r)[0], 3);
    ids.insert(TextOf(r->parameters, "decision_id"));
  }
  EXPECT_EQ(ids.size(), 6u);
  EXPECT_EQ(parent.asked(), 1u);
}

TEST_F(Escalation, WhoWaitsForAnothersAnswerStillEndsByHisOwnDeadlineWithAnAnswer) {
  FakeParent parent(kTellsGlobal);
  parent.Hold();
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  auto patient = std::async(std::launch::async, [&] {
    return Client(*device).Rest(With(Ask({kHard}, kAskAll), "deadline_ms", std::int64_t{20'000}));
  });
  ASSERT_TRUE(Eventually([&] { return parent.held() == 1; }));
  const auto hasty = Client(*device).Rest(With(Ask({kHard}, kAskAll), "deadline_ms", std::int64_t{200}));
  ASSERT_TRUE(hasty.ok()) << hasty.status().message();
  EXPECT_EQ(TextOf(hasty->parameters, "degraded"), "true");
  EXPECT_EQ(TextOf(hasty->parameters, "tier"), "device");
  for (auto& call : parent.TakeHeld()) {
    auto answer = FakeParent::NodeAnswer(*call, 3);
    call->Finish(std::move(answer));
  }
  EXPECT_EQ(Labels(patient.get().value())[0], 3);
}

TEST_F(Escalation, DegradedAnswersAreNotKeptForOthers) {
  FakeParent parent(kTellsGlobal);
  parent.OnInfer([](std::unique_ptr<net::InferCall> call) { call->Finish(Unavailable("not now")); });
  const auto device = StartDevice("{url: " + parent.Url() + "}");
  const Client client(*device);
  EXPECT_EQ(TextOf(client.Rest(Ask({kHard}))->parameters, "degraded"), "true");
  parent.AnswerAsNode(3);
  const auto r = client.Rest(Ask({kHard})).value();
  EXPECT_EQ(TextOf(r.parameters, "degraded"), "false");
  EXPECT_EQ(TextOf(r.parameters, "cached"), "(none)");
  EXPECT_EQ(Labels(r)[0], 3);
}

// What a node of a newer model set, or a broken one, might say.
TEST_F(Escalation, AnswersThatDoNotFitAreFailures) {
  using Change = std::function<void(wire::InferResponse*)>;
  const auto replace = [](const std::string& name, Tensor with) -> Change {
    return [name, with](wire::InferResponse* r) {
      for (auto& o : r->outputs) {
        if (o.name == name) o.tensor = with;
      }
    };
  };
  const std::vector<std::pair<std::string, Change>> changes{
      {"label out of range", replace("label", Tensor::From<std::int64_t>({1}, std::vector<std::int64_t>{4}).value())},
      {"label below", replace("label", Tensor::From<std::int64_t>({1}, std::vector<std::int64_t>{-1}).value())},
      {"label of two rows", replace("label", Tensor::From<std::int64_t>({2}, std::vector<std::int64_t>{1, 1}).value())},
      {"label of floats", replace("label", Tensor::From<float>({1}, std::vector<float>{1}).value())},
      {"no such tier", replace("ganglion.tier", TextTensor({"moon"}))},
      {"not sure at all", replace("confidence", Tensor::From<float>({1}, std::vector<float>{NAN}).value())},
      {"nothing", [](wire::InferResponse* r) { r->outputs.clear(); }},
      {"no label", [](wire::InferResponse* r) { r->outputs.erase(r->outputs.begin()); }},
      {"no tier", [](wire::InferResponse* r) { r->outputs.erase(r->outputs.begin() + 2); }},
      {"elsewhere", [](wire::InferResponse* r) { r->outputs[0].shared = wire::SharedMemory{"region", 0, 8}; }},
  };
  FakeParent parent(kTellsGlobal);
  const auto device = StartDevice("{url: " + parent.Url() + "}", "breaker: {open_for: 50ms}\ncache: off\n");
  const Client client(*device);
  for (const auto& [what, change] : changes) {
    parent.OnInfer([&change = change](std::unique_ptr<net::InferCall> call) {
      auto answer = FakeParent::NodeAnswer(*call, 3);
      change(&answer);
      call->Finish(std::move(answer));
    });
    const auto r = client.Rest(Ask({kHard}));
    ASSERT_TRUE(r.ok()) << what << ": " << r.status().message();
    EXPECT_EQ(TextOf(r->parameters, "degraded"), "true") << what;
    EXPECT_EQ(TextOf(r->parameters, "tier"), "device") << what;
    EXPECT_EQ(Labels(*r)[0], 1) << what;
    parent.AnswerAsNode(3);
    ASSERT_TRUE(Eventually([&] { return Outcome(client) == "global"; })) << what;
  }
}

TEST_F(Escalation, ARowThatTheParentCouldNotDecideDoesNotTakeTheOthersWithIt) {
  FakeParent parent(kTellsGlobal);
  parent.OnInfer([](std::unique_ptr<net::InferCall> call) {
    auto answer = FakeParent::NodeAnswer(*call, 3);
    for (auto& o : answer.outputs) {
      if (o.name == "label") o.tensor = Tensor::From<std::int64_t>({2}, std::vector<std::int64_t>{-1, 3}).value();
    }
    call->Finish(std::move(answer));
  });
  const auto device = StartDevice("{url: " + parent.Url() + "}", "cache: off\n");
  const auto r = Client(*device).Rest(Ask({kHard, kHard})).value();
  EXPECT_EQ(Labels(r)[0], 1);  // the device's own, degraded
  EXPECT_EQ(Labels(r)[1], 3);
}

TEST_F(Escalation, ScoresThatDoNotFitAreFailures) {
  std::vector<std::pair<std::string, Tensor>> outputs;
  outputs.emplace_back("three classes", Tensor::From<float>({1, 3}, std::vector<float>{1, 2, 3}).value());
  outputs.emplace_back("NaN", Tensor::From<float>({1, 4}, std::vector<float>{1, NAN, 3, 4}).value());
  outputs.emplace_back("integers", Tensor::From<std::int64_t>({1, 4}, std::vector<std::int64_t>{1, 2, 3, 4}).value());
  outputs.emplace_back("no numbers", Tensor::From<float>({0, 4}, std::vector<float>{}).value());
  outputs.emplace_back("other name", Tensor::From<float>({1, 4}, std::vector<float>{1, 2, 3, 4}).value());
  for (const auto& [what, scores] : outputs) {
    FakeParent parent({});
    parent.OnInfer([&what = what, &scores = scores](std::unique_ptr<net::InferCall> call) {
      wire::InferResponse r;
      r.outputs.push_back({what == "other name" ? "y" : "z", scores, {}});
      call->Finish(std::move(r));
    });
    const auto device = StartDevice("{url: " + parent.Url() + ", model: big, output: z}");
    const auto r = Client(*device).Rest(Ask({kHard}));
    ASSERT_TRUE(r.ok()) << what << ": " << r.status().message();
    EXPECT_EQ(TextOf(r->parameters, "degraded"), "true") << what;
    EXPECT_EQ(TextOf(r->parameters, "reason"), "failed") << what;
    EXPECT_EQ(Labels(*r)[0], 1) << what;
  }
}

TEST_F(Escalation, ParentsInACircleEndWithAnAnswer) {
  for (const std::string cache : {"cache: off\n", ""}) {
    Hole reserved(false);
    const std::string second = "127.0.0.1:" + std::to_string(reserved.port());
    const std::string tail = "}]\nbreaker: {open_for: 100ms}\n" + cache;
    const auto a = Start("tier: edge\ndecisions: [.]\nparents: [{url: \"grpc://" + second + "\"" + tail);
    reserved.Close();
    const auto b = Start("tier: edge\ndecisions: [.]\nparents: [{url: " + Url(*a) + tail, second);
    ASSERT_NE(b, nullptr);
    const Client client(*a);
    const auto requests = [](const Server& node) {
      return Client(node).StatusDocument().at("models").at(0).at("requests").get<int>();
    };
    int before = 0;
    ASSERT_TRUE(Eventually([&] {  // until the connections stand
      before = requests(*a) + requests(*b);
      EXPECT_EQ(Outcome(client, 400).substr(0, 14), "edge degraded ");
      return requests(*b) > 0;
    }));
    EXPECT_LE(requests(*a) + requests(*b) - before, 10);  // eight hops
  }
}

}  // namespace
}  // namespace ganglion::node
