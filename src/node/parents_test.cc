// Which parent is asked, how often, and which never.
#include "node/parents.h"

#include <future>

#include "node/serving_test.h"

namespace ganglion::node {
namespace {

using namespace fixture;  // NOLINT: a test
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Two stages, device and `upper`, for decisions of every privacy.
class ParentsOfANode : public ServingDir {
 protected:
  void Decide(const std::string& upper, const std::string& lines = "") {
    WriteThreeTiers("  - {tier: device, model: device.onnx}\n  - {tier: " + upper + ", model: a.onnx}\n");
    CalibrateInPlace(3000);
    Write("decision.yaml", data::ReadFile(dir_ / "decision.yaml").value() + lines);
  }
  static Row Hard(int i) { return {.001f + 1e-5f * static_cast<float>(i), -.001f}; }
  static wire::InferResponse AskOne(const Client& client, const Row& row, int deadline_ms = 5000) {
    auto request = Ask({row});
    request.parameters.push_back({"deadline_ms", std::int64_t{deadline_ms}});
    const auto r = client.Rest(request);
    EXPECT_TRUE(r.ok()) << r.status().message();
    return r.ok() ? *r : wire::InferResponse{};
  }
  // "global", or why it is degraded.
  static std::string Outcome(const Client& client, const Row& row, int deadline_ms = 5000) {
    const auto p = AskOne(client, row, deadline_ms).parameters;
    return TextOf(p, "degraded") == "true" ? TextOf(p, "reason") : TextOf(p, "tier");
  }
  static double Count(const Client& client, const std::string& parent, const std::string& outcome) {
    return Metric(client.Metrics(), "ganglion_parent_requests_total", {{"parent", parent}, {"outcome", outcome}});
  }
  static double Retries(const Client& client) { return Metric(client.Metrics(), "ganglion_retries_total"); }
};

TEST_F(ParentsOfANode, OneThatRefusesIsLeftAloneAfterSevenFailures) {
  Decide("global");
  const Hole nobody(false);
  const auto device = StartAlone("{url: " + nobody.Url() + ", name: up}");
  const Client client(*device);
  for (int i = 0; i < 25; ++i) {
    const auto began = steady_clock::now();
    EXPECT_EQ(Outcome(client, Hard(i), 20'000), "unreachable");
    EXPECT_LT(steady_clock::now() - began, std::chrono::seconds(10));  // not by its deadline: at once
  }
  EXPECT_EQ(Count(client, "up", "error"), 7);
  EXPECT_EQ(Count(client, "up", "timeout"), 0);
  const auto parent = client.StatusDocument().at("parents").at(0);
  EXPECT_EQ(parent.at("breaker"), "open");
  EXPECT_GT(parent.at("average"), .5);
  EXPECT_GT(parent.at("probe_in_ms"), 0);
  EXPECT_NE(parent.at("last_error"), "");
  EXPECT_EQ(Metric(client.Metrics(), "ganglion_breaker_state", {{"target", "up"}}), 2);
  EXPECT_EQ(Metric(client.Metrics(), "ganglion_breaker_trips_total", {{"target", "up"}}), 1);
  EXPECT_EQ(client.Get("/v2/health/ready").first, 200);  // it has a stage of its own
}

TEST_F(ParentsOfANode, OneThatIsBackIsAskedAgainWithinTheBreakersPeriod) {
  Decide("global");
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(3);
  const int port = parent.port();
  const auto device = StartDevice("{url: " + parent.Url() + ", name: up}", "breaker: {open_for: 300ms}\n");
  const Client client(*device);
  int i = 0;
  ASSERT_TRUE(Eventually([&] { return Outcome(client, Hard(++i)) == "global"; }));
  parent.Stop();
  ASSERT_TRUE(Eventually([&] {
    (void)AskOne(client, Hard(++i));
    return device->parents().Look()[0].breaker == "open";
  }));
  // While it is open nobody calls but the probes, one each time it has been open for its time.
  const double before = Count(client, "up", "error");
  const auto began = steady_clock::now();
  for (int n = 0; n < 50; ++n) EXPECT_EQ(Outcome(client, Hard(++i)), "unreachable");
  const double periods = Milliseconds(steady_clock::now() - began) / 300;
  EXPECT_LE(Count(client, "up", "error") - before, periods + 1);
  parent.Listen(port);
  parent.AnswerAsNode(2);
  ASSERT_TRUE(Eventually([&] { return Outcome(client, Hard(++i)) == "global"; }));
  EXPECT_TRUE(Eventually([&] { return device->parents().Look()[0].breaker == "closed"; }));
  EXPECT_EQ(Labels(AskOne(client, Hard(++i)))[0], 2);
}

TEST_F(ParentsOfANode, TwoShareTheLoad) {
  Decide("global");
  FakeParent a(kTellsGlobal);
  FakeParent b(kTellsGlobal);
  a.Hold();
  b.Hold();
  const auto device = StartDevice("{url: " + a.Url() + "}, {url: " + b.Url() + "}");
  std::vector<std::future<std::string>> asking;
  for (int i = 0; i < 12; ++i)
    asking.push_back(std::async(std::launch::async, [&, i] { return Outcome(Client(*device), Hard(i), 30'000); }));
  ASSERT_TRUE(Eventually([&] { return a.held() + b.held() == 12; }));
  EXPECT_GE(a.held(), 3u);  // two are drawn and the one with fewer under way is asked: six each
  EXPECT_GE(b.held(), 3u);
  for (FakeParent* parent : {&a, &b}) {
    for (auto& call : parent->TakeHeld()) {
      auto answer = FakeParent::NodeAnswer(*call, 1);
      call->Finish(std::move(answer));
    }
  }
  for (auto& one : asking) EXPECT_EQ(one.get(), "global");
}

TEST_F(ParentsOfANode, WhatOneFailsTheOtherAnswers) {
  Decide("global");
  FakeParent good(kTellsGlobal);
  good.AnswerAsNode(2);
  FakeParent bad(kTellsGlobal);
  bad.OnInfer([](std::unique_ptr<net::InferCall> call) { call->Finish(Unavailable("out of order")); });
  const auto device =
      StartDevice("{url: " + good.Url() + ", name: good}, {url: " + bad.Url() + ", name: bad}", "cache: off\n");
  const Client client(*device);
  for (int i = 0; i < 40; ++i) EXPECT_EQ(Outcome(client, Hard(i)), "global");
  EXPECT_EQ(good.asked(), 40u);
  EXPECT_LE(bad.asked(), 7u);  // a failure counts as slow, seven of them as down
  EXPECT_EQ(Retries(client), static_cast<double>(bad.asked()));
  // The good one is gone, too: the requests under way and those to come still end.
  good.Stop();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Outcome(client, Hard(i)), "unreachable");
}

TEST_F(ParentsOfANode, RetriesStayWithinTheirBudget) {
  Decide("global");
  FakeParent a(kTellsGlobal);
  FakeParent b(kTellsGlobal);
  for (FakeParent* parent : {&a, &b})
    parent->OnInfer([](std::unique_ptr<net::InferCall> call) { call->Finish(Unavailable("out of order")); });
  const std::string both = "{url: " + a.Url() + "}, {url: " + b.Url() + "}";
  {
    const auto device = StartDevice(both, "breaker: {trip: 0.9999}\nbalance: {retries: 0.1}\n");
    const Client client(*device);
    for (int i = 0; i < 60; ++i) EXPECT_EQ(Outcome(client, Hard(i)), "unreachable");
    const double asked = static_cast<double>(a.asked() + b.asked());
    EXPECT_LE(asked, 60 + 10 + 6);  // ten are saved up at the start, then a tenth
    EXPECT_GE(asked, 60 + 10);
    EXPECT_EQ(Retries(client), asked - 60);
  }
  // What the parent says about the request is an answer, not a failure: nobody is asked again, nothing trips.
  a.OnInfer([](std::unique_ptr<net::InferCall> call) { call->Finish(InvalidArgument("no")); });
  b.OnInfer([](std::unique_ptr<net::InferCall> call) { call->Finish(InvalidArgument("no")); });
  const auto device = StartDevice(both);
  const Client client(*device);
  for (int i = 0; i < 20; ++i) (void)Outcome(client, Hard(i));
  for (const auto& parent : device->parents().Look()) EXPECT_EQ(parent.breaker, "closed");
}

TEST_F(ParentsOfANode, ASlowOneIsJoinedByAnotherWhereHedgingIsOn) {
  Decide("global");
  FakeParent slow(kTellsGlobal);
  FakeParent quick(kTellsGlobal);
  const auto device =
      StartDevice("{url: " + slow.Url() + "}, {url: " + quick.Url() + "}", "balance: {hedge: 20ms, retries: 1}\n");
  const Client client(*device);
  slow.Hold();
  quick.AnswerAsNode(1);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Outcome(client, Hard(i), 20'000), "global");
  EXPECT_EQ(quick.asked(), 10u);
}

// ---- Privacy -------------------------------------------------------------------------------------------------------

TEST_F(ParentsOfANode, NobodyAboveHisReachSeesASensitiveInput) {
  Decide("region", "privacy: sensitive\naudit: 100%\n");
  const std::vector<std::pair<std::string, std::vector<std::string>>> parents{
      {"", kTellsGlobal},               // says that it is global
      {"", {}},                         // says nothing: anybody's
      {", model: big, output: z", {}},  // configured as foreign
      {", tier: global", kTellsEdge},   // said to be global here
      {"", {"ganglion.tier=moon"}},     // a tier that does not exist yet
  };
  for (const auto& [more, extensions] : parents) {
    FakeParent parent(extensions);
    parent.AnswerAsNode(3);
    const auto device = StartAlone("{url: " + parent.Url() + more + ", name: up}");
    const Client client(*device);
    const auto began_as = Outcome(client, Hard(0));  // before it has said who it is
    EXPECT_EQ(began_as, "forbidden");
    ASSERT_TRUE(Eventually([&] { return ParentUp(*device); }));
    for (int i = 1; i < 5; ++i) {
      const auto r = AskOne(client, Hard(i));
      EXPECT_EQ(TextOf(r.parameters, "reason"), "forbidden");
      EXPECT_EQ(TextOf(r.parameters, "tier"), "device");
    }
    (void)AskOne(client, kEasy);  // its audit is not sent either
    EXPECT_EQ(Metric(client.Metrics(), "ganglion_forbidden_escalations_total", {{"decision", "plane"}}), 5);
    EXPECT_EQ(parent.asked(), 0u) << more;
  }
}

TEST_F(ParentsOfANode, WhoMaySeeASensitiveInputIsAsked) {
  Decide("region", "privacy: sensitive\n");
  FakeParent global(kTellsGlobal);
  FakeParent edge(kTellsEdge);
  global.AnswerAsNode(3, "global");
  edge.AnswerAsNode(2, "region");
  const auto device = StartDevice("{url: " + global.Url() + "}, {url: " + edge.Url() + "}");
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return ParentUp(*device, 0) && ParentUp(*device, 1); }));
  ASSERT_TRUE(Eventually([&] { return Outcome(client, Hard(0)) == "region"; }));
  for (int i = 1; i < 20; ++i) EXPECT_EQ(Outcome(client, Hard(i)), "region");
  // Not even when the other is gone.
  edge.Stop();
  for (int i = 20; i < 40; ++i) EXPECT_NE(Outcome(client, Hard(i)), "global");
  EXPECT_EQ(global.asked(), 0u);
}

TEST_F(ParentsOfANode, AnotherServerAtTheSameAddressIsNotTrustedForItsPredecessor) {
  Decide("region", "privacy: sensitive\n");
  auto edge = std::make_unique<FakeParent>(kTellsEdge);
  edge->AnswerAsNode(2, "region");
  const int port = edge->port();
  const auto device = StartDevice("{url: " + edge->Url() + "}", "breaker: {open_for: 50ms}\n");
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return Outcome(client, Hard(0)) == "region"; }));
  edge.reset();
  FakeParent other({}, port);
  other.AnswerAsNode(3);
  ASSERT_TRUE(Eventually([&] { return device->parents().Look()[0].foreign && ParentUp(*device); }));
  const std::size_t before = other.asked();
  EXPECT_EQ(Outcome(client, Hard(1)), "forbidden");
  EXPECT_EQ(other.asked(), before);
}

TEST_F(ParentsOfANode, ANodeAboveTheReachOfADecisionDoesNotServeIt) {
  Decide("edge", "privacy: regulated\n");
  EXPECT_NE(Start("tier: edge\ndecisions: [.]\n"), nullptr);
  const auto refused = TryStart("tier: region\ndecisions: [.]\n");
  EXPECT_EQ(refused.status().message(),
            "plane: privacy regulated ends at edge; a node of tier region may not see its input");
}

// ---- Audit ---------------------------------------------------------------------------------------------------------

TEST_F(ParentsOfANode, AcceptedAnswersAreCheckedByTheTopAfterTheCallerHasHis) {
  Decide("global", "audit: 100%\n");
  FakeParent parent(kTellsGlobal);
  parent.Hold();
  const auto device = StartDevice("{url: " + parent.Url() + "}", "cache: off\n");
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return ParentUp(*device); }));
  // The parent keeps them all, and yet the answers are here.
  auto batch = Ask({kEasy, {-3, 2}});
  batch.parameters.push_back({"deadline_ms", std::int64_t{60'000}});
  const auto began = steady_clock::now();
  const auto answer = client.Rest(batch);
  EXPECT_LT(steady_clock::now() - began, std::chrono::seconds(10));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(TextOf(answer->parameters, "degraded"), "false");
  ASSERT_TRUE(Eventually([&] { return parent.held() == 2; }));
  for (const auto& seen : parent.seen()) {
    EXPECT_EQ(seen.rows, 1);
    EXPECT_EQ(TextOf(seen.parameters, "require_tier"), "global");
    EXPECT_EQ(TextOf(seen.parameters, "above_tier"), "(none)");
    EXPECT_EQ(NumberOf(seen.parameters, "hop"), 1);
  }
  const auto calls = parent.TakeHeld();
  std::size_t n = 0;
  for (const auto& call : calls) {
    auto right = FakeParent::NodeAnswer(*call, Labels(*answer).at(call->request.inputs[0].View().As<float>()[0] < 0));
    auto wrong = FakeParent::NodeAnswer(*call, 3);
    call->Finish(n++ == 0 ? std::move(right) : std::move(wrong));
  }
  const auto audits = [&](const std::string& outcome) {
    return Metric(client.Metrics(), "ganglion_audits_total", {{"decision", "plane"}, {"outcome", outcome}});
  };
  EXPECT_TRUE(Eventually([&] { return audits("agreed") == 1 && audits("differed") == 1; }));
  // What goes up anyway is not asked twice, nor what another asked for; what fails counts as failed.
  parent.AnswerAsNode(1);
  const std::size_t before = parent.asked();
  EXPECT_EQ(Outcome(client, Hard(1)), "global");
  auto passed_on = Ask({kEasy});
  passed_on.parameters.push_back({"hop", std::int64_t{1}});
  ASSERT_TRUE(client.Rest(passed_on).ok());
  EXPECT_EQ(parent.asked(), before + 1);
  parent.OnInfer([](std::unique_ptr<net::InferCall> call) { call->Finish(Unavailable("not now")); });
  (void)AskOne(client, kEasy);
  EXPECT_TRUE(Eventually([&] { return audits("failed") == 1; }));
}

TEST_F(ParentsOfANode, AuditsGoAllTheWayUpThroughNodesBetween) {
  WriteThreeTiers();
  CalibrateInPlace();
  Write("decision.yaml", data::ReadFile(dir_ / "decision.yaml").value() + "audit: 100%\n");
  const auto global = Start("tier: global\ndecisions: [.]\n");
  const auto edge = Start("tier: edge\ndecisions: [.]\nparents: [{url: " + Url(*global) + "}]\n");
  ASSERT_TRUE(Eventually([&] { return ParentUp(*edge); }));
  const auto device = StartDevice("{url: " + Url(*edge) + "}");
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return ParentUp(*device); }));
  (void)AskOne(client, kEasy);
  EXPECT_TRUE(Eventually([&] {
    return Metric(client.Metrics(), "ganglion_audits_total", {{"decision", "plane"}, {"outcome", "agreed"}}) == 1;
  }));
  const auto decided = [](const Server& node, const std::string& tier, const std::string& stage) {
    return Metric(Client(node).Metrics(), "ganglion_requests_total",
                  {{"decision", "plane"}, {"tier", tier}, {"stage", stage}, {"outcome", "accepted"}});
  };
  EXPECT_EQ(decided(*global, "global", "ensemble"), 1);
  EXPECT_EQ(decided(*edge, "edge", "edge"), -1);  // did not stop there
}

// ---- The uplink ----------------------------------------------------------------------------------------------------

TEST_F(ParentsOfANode, AnUplinkThatIsSpentCarriesNoMore) {
  Decide("global");
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(3);
  const auto device = StartDevice("{url: " + parent.Url() + "}", "limits: {uplink: 1KB/s}\n");
  const Client client(*device);
  ASSERT_TRUE(Eventually([&] { return ParentUp(*device); }));
  const auto began = steady_clock::now();
  int up = 0;
  for (int i = 0; i < 30; ++i) {
    const std::string outcome = Outcome(client, Hard(i));
    up += outcome == "global" ? 1 : 0;
    EXPECT_TRUE(outcome == "global" || outcome == "unreachable") << outcome;
  }
  const double seconds = Milliseconds(steady_clock::now() - began) / 1000;
  EXPECT_GE(up, 3);  // about 330 bytes each of a thousand saved up
  EXPECT_LE(up, 3 + static_cast<int>(seconds * 1000 / 300) + 1);
  EXPECT_EQ(parent.asked(), static_cast<std::size_t>(up));
  EXPECT_EQ(device->parents().Look()[0].breaker, "closed");
  EXPECT_TRUE(Eventually([&] { return Outcome(client, Hard(100)) == "global"; }));  // it fills up again
}

TEST_F(ParentsOfANode, AnEmulatedLinkDelaysAndLosesAsItIsTold) {
  Decide("global");
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(3);
  {
    const auto device = StartDevice("{url: " + parent.Url() + ", emulate: {delay: 60ms}}", "cache: off\n");
    const Client client(*device);
    (void)Outcome(client, Hard(0));  // the connection
    for (int i = 1; i < 4; ++i) {
      const auto began = steady_clock::now();
      EXPECT_EQ(Outcome(client, Hard(i)), "global");
      EXPECT_GE(steady_clock::now() - began, milliseconds(60));  // there and back
    }
  }
  const auto device = StartDevice("{url: " + parent.Url() + ", emulate: {loss: 0.99}}", "breaker: {trip: 0.999}\n");
  const Client client(*device);
  int lost = 0;
  for (int i = 0; i < 12; ++i) lost += Outcome(client, Hard(i), 40) == "deadline" ? 1 : 0;
  EXPECT_GE(lost, 8);
}

}  // namespace
}  // namespace ganglion::node
