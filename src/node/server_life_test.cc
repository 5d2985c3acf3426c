// How a node lives: who may ask it, how much, models that come and go under load, and its end.
#include <algorithm>
#include <atomic>
#include <cctype>
#include <future>
#include <map>
#include <set>
#include <sstream>

#include "crypto/crypto.h"
#include "node/serving_test.h"

namespace ganglion::node {
namespace {

using namespace fixture;  // NOLINT: a test
using topology::Tier;

class NodeLife : public ServingDir {
 protected:
  void SetUp() override {
    ServingDir::SetUp();
    WriteThreeTiers();
    CalibrateInPlace();
  }
  static std::string VersionOf(const Client& client, const std::string& model) {
    const auto metadata = client.grpc().ModelMetadata(model, "", kPatience);
    return metadata.ok() && !metadata->versions.empty() ? metadata->versions.back() : metadata.status().message();
  }
  static bool Has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
};

TEST_F(NodeLife, LetsInWhoHasATokenAndOperateOnlyWhoMay) {
  Write("tokens.yaml", "- {token_sha256: " + crypto::Sha256("reader-secret").Hex() + ", role: infer, name: reader}\n" +
                           "- {token_sha256: " + crypto::Sha256("keeper-secret").Hex() +
                           ", role: operate, name: keeper}\n");
  const auto node = Start("tier: global\ndecisions: [.]\nmodels: [edge.onnx]\nauth: {tokens: tokens.yaml}\n");
  ASSERT_NE(node, nullptr);
  const Client stranger(*node);
  const Client liar(*node, "other-secret");
  const Client reader(*node, "reader-secret");
  const Client keeper(*node, "keeper-secret");
  for (const Client* c : {&stranger, &liar}) {
    EXPECT_EQ(c->Get("/v2/health/ready").first, 200);  // probes of orchestrators carry none
    EXPECT_EQ(c->Get("/v2").first, 401);
    EXPECT_EQ(c->Get("/v2/models/plane").first, 401);
    EXPECT_EQ(c->Get("/v2/systemsharedmemory/status").first, 401);
    EXPECT_EQ(c->Post("/v2/repository/models/edge/unload").first, 401);
    EXPECT_EQ(c->Rest(Ask({kEasy})).status().code(), Code::kUnauthenticated);
    EXPECT_EQ(c->Grpc(Ask({kEasy})).status().code(), Code::kUnauthenticated);
    EXPECT_EQ(c->grpc().Load("edge", kPatience).code(), Code::kUnauthenticated);
    EXPECT_TRUE(Has(c->Metrics(), "error"));
  }
  EXPECT_EQ(stranger.Http("GET", "/v2")->Header("www-authenticate"), "Bearer");
  EXPECT_TRUE(reader.Rest(Ask({kEasy})).ok());
  EXPECT_TRUE(reader.Grpc(Ask({kEasy})).ok());
  const auto [status, text] = reader.Post("/v2/repository/models/edge/unload");
  EXPECT_EQ(status, 403);
  EXPECT_TRUE(Has(text, "reader may infer, not operate")) << text;
  EXPECT_EQ(reader.grpc().Load("edge", kPatience).code(), Code::kPermissionDenied);
  EXPECT_TRUE(keeper.Grpc(Ask({kEasy})).ok());
  EXPECT_EQ(keeper.Post("/v2/repository/models/edge/load").first, 200);
  EXPECT_TRUE(keeper.grpc().Load("edge", kPatience).ok());
}

// A big request that waits for company makes the node as full as the test wants it.
TEST_F(NodeLife, AFullNodeAnswersFromItsCheapestStageBeforeItRefuses) {
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(3);
  const auto node =
      StartDevice("{url: " + parent.Url() + "}",
                  "models: [edge.onnx]\nlimits: {in_flight: 1}\nbatching: {max_rows: 65536, max_delay: 2s}\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  auto big = Ask(std::vector<Row>(4000, kEasy), {"label", "ganglion.degraded"});
  big.parameters.push_back({"deadline_ms", std::int64_t{30'000}});
  auto waiting = std::async(std::launch::async, [&] { return client.Rest(big); });
  ASSERT_TRUE(Eventually([&] { return client.StatusDocument().at("in_flight") == 1; }));

  const auto easy = client.Rest(Ask({{3.5f, .5f}}));
  ASSERT_TRUE(easy.ok()) << easy.status().message();
  EXPECT_EQ(TextOf(easy->parameters, "degraded"), "false");  // the device would have decided it anyway
  const auto hard = client.Rest(Ask({{.002f, -.001f}}));
  ASSERT_TRUE(hard.ok()) << hard.status().message();
  EXPECT_EQ(TextOf(hard->parameters, "degraded"), "true");
  EXPECT_EQ(TextOf(hard->parameters, "reason"), "overload");
  EXPECT_EQ(TextOf(hard->parameters, "tier"), "device");
  EXPECT_EQ(parent.asked(), 0u);
  const wire::RestBody body = wire::WriteInferRequest(Ask({kEasy}, {}, "edge", "x"), false);
  const auto refused = client.Http("POST", "/v2/models/edge/infer", body.body);
  ASSERT_TRUE(refused.ok());
  ASSERT_EQ(refused->status, 429);
  EXPECT_TRUE(Has(refused->body, "1 in flight, limit 1; no cheaper stage. Retry after ")) << refused->body;
  EXPECT_GE(std::stoi(std::string(refused->Header("retry-after"))), 1);
  EXPECT_GE(std::stoi(std::string(refused->Header("retry-after-ms"))), 1);
  EXPECT_EQ(client.Grpc(Ask({kEasy}, {}, "edge", "x")).status().code(), Code::kResourceExhausted);
  EXPECT_EQ(Metric(client.Metrics(), "ganglion_refused_total", {{"decision", "edge"}, {"reason", "overload"}}), 2);

  const auto r = waiting.get();
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Labels(*r), std::vector<std::int64_t>(4000, 0));
  EXPECT_EQ(Flags(*r, "ganglion.degraded"), std::vector<bool>(4000, false));
  EXPECT_TRUE(Eventually([&] { return client.Rest(Ask({kEasy}, {}, "edge", "x")).ok(); }));
}

// Who waits for a parent computes nothing here, and takes no place from those who would.
TEST_F(NodeLife, WhatWaitsForAParentLeavesRoomForOthers) {
  FakeParent parent(kTellsGlobal);
  parent.Hold();
  const auto node = StartDevice("{url: " + parent.Url() + "}", "models: [edge.onnx]\nlimits: {in_flight: 1}\n");
  ASSERT_NE(node, nullptr);
  std::vector<std::future<Result<wire::InferResponse>>> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.push_back(std::async(std::launch::async, [&, i] {
      auto request = Ask({{.001f + 1e-4f * static_cast<float>(i), -.001f}});
      request.parameters.push_back({"deadline_ms", std::int64_t{30'000}});
      return Client(*node).Rest(request);
    }));
    ASSERT_TRUE(Eventually([&] { return parent.held() == static_cast<std::size_t>(i) + 1; }));
  }
  const Client client(*node);
  EXPECT_EQ(client.StatusDocument().at("in_flight"), 0);
  EXPECT_TRUE(client.Rest(Ask({kEasy}, {}, "edge", "x")).ok());
  for (auto& call : parent.TakeHeld()) {
    auto answer = FakeParent::NodeAnswer(*call, 3);
    call->Finish(std::move(answer));
  }
  for (auto& one : waiting) EXPECT_EQ(TextOf(one.get().value().parameters, "degraded"), "false");
}

TEST_F(NodeLife, BoundsRequestsAndModels) {
  const auto node = Start("tier: global\ndecisions: [.]\nlimits: {request: 4KB}\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  const std::vector<Row> many(2000, kEasy);
  const auto big = client.Http("POST", "/v2/models/plane/infer", wire::WriteInferRequest(Ask(many), false).body);
  ASSERT_TRUE(big.ok()) << big.status().message();
  EXPECT_EQ(big->status, 413);
  EXPECT_EQ(client.Grpc(Ask(many)).status().code(), Code::kResourceExhausted);
  EXPECT_TRUE(client.Rest(Ask({kEasy})).ok());
  EXPECT_TRUE(client.Grpc(Ask({kEasy})).ok());
  const auto crowded = TryStart("tier: global\ndecisions: [.]\nmodels: [edge.onnx]\nlimits: {models: 1}\n");
  EXPECT_EQ(crowded.status().message(), "2 models, limit 1; raise limits.models");
}

TEST_F(NodeLife, SaysEverythingThatItCannotServe) {
  Write("broken.onnx", "no model");
  const auto node = TryStart("tier: global\nmodels: [broken.onnx, {name: worse, file: labels.txt}, edge.onnx]\n");
  ASSERT_FALSE(node.ok());
  EXPECT_TRUE(Has(node.status().message(), "broken.onnx")) << node.status().message();
  EXPECT_TRUE(Has(node.status().message(), "labels.txt")) << node.status().message();
}

TEST_F(NodeLife, IsReadyWhileEveryDecisionHasAStageHereOrALiveParent) {
  WriteThreeTiers("  - {tier: edge, model: edge.onnx}\n  - {tier: global, model: a.onnx}\n");
  CalibrateInPlace(2000);
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(2);
  const int port = parent.port();
  parent.Stop();
  const auto node =
      StartAlone("{url: \"grpc://127.0.0.1:" + std::to_string(port) + "\"}", "breaker: {open_for: 100ms}\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  EXPECT_EQ(client.Get("/v2/health/live").first, 200);
  EXPECT_EQ(client.Get("/v2/health/ready").first, 503);
  EXPECT_FALSE(client.grpc().ServerReady(kPatience).value());
  EXPECT_EQ(Metric(client.Metrics(), "ganglion_ready"), 0);
  EXPECT_EQ(client.Rest(Ask({kEasy})).status().code(), Code::kUnavailable);
  parent.Listen(port);
  EXPECT_TRUE(Eventually([&] { return client.Get("/v2/health/ready").first == 200; }));
  EXPECT_TRUE(Eventually([&] { return client.Rest(Ask({kEasy})).ok(); }));
  parent.Stop();
  EXPECT_TRUE(Eventually([&] { return client.Get("/v2/health/ready").first == 503; }));
}

TEST_F(NodeLife, ComesAndGoesModelByModel) {
  const auto node = Start("tier: global\ndecisions: [.]\nmodels: [edge.onnx]\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  ASSERT_TRUE(client.grpc().Unload("edge", kPatience).ok());
  EXPECT_EQ(client.Get("/v2/models/edge/ready").first, 400);
  const auto gone = client.Rest(Ask({kEasy}, {}, "edge", "x"));
  EXPECT_EQ(gone.status().code(), Code::kNotFound);
  EXPECT_TRUE(Has(gone.status().message(), "is not loaded: unloaded")) << gone.status().message();
  EXPECT_TRUE(Has(client.Post("/v2/repository/index").second, "UNAVAILABLE"));
  EXPECT_FALSE(Has(client.Post("/v2/repository/index", R"({"ready":true})").second, "edge"));
  EXPECT_TRUE(client.Rest(Ask({kEasy})).ok());
  ASSERT_EQ(client.Post("/v2/repository/models/edge/load").first, 200);
  EXPECT_TRUE(client.Rest(Ask({kEasy}, {}, "edge", "x")).ok());
  EXPECT_EQ(client.Post("/v2/repository/models/nobody/load").first, 404);
  EXPECT_EQ(client.Post("/v2/repository/models/nobody/unload").first, 404);
}

TEST_F(NodeLife, ABrokenNewFileLeavesTheOldVersionServing) {
  const auto node = Start("tier: global\ndecisions: [.]\nmodels: [edge.onnx]\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  const std::string model = VersionOf(client, "edge");
  const std::string decision = VersionOf(client, "plane");
  Write("edge.onnx", "half a mod");
  const auto [status, text] = client.Post("/v2/repository/models/edge/load");
  EXPECT_EQ(status, 400);
  EXPECT_TRUE(Has(text, "edge.onnx") && Has(text, "Still serving " + model)) << text;
  const auto [decision_status, decision_text] = client.Post("/v2/repository/models/plane/load");
  EXPECT_EQ(decision_status, 400);
  EXPECT_TRUE(Has(decision_text, "Still serving " + decision)) << decision_text;
  Write("edge.onnx", LinearModel(Quadrants(3, .31f)));  // a good model that nobody certified
  const auto uncertified = client.grpc().Load("plane", kPatience);
  EXPECT_TRUE(Has(uncertified.message(), "decision.lock certifies")) << uncertified.message();
  EXPECT_TRUE(Has(uncertified.message(), "Still serving " + decision)) << uncertified.message();
  EXPECT_EQ(client.Rest(Ask({kEasy}, {}, "edge", "x"))->version, model);
  EXPECT_EQ(client.Rest(Ask({kHard}))->version, decision);
  EXPECT_EQ(client.Get("/v2/health/ready").first, 200);
  EXPECT_EQ(client.Post("/v2/repository/models/edge/load").first, 200);
  EXPECT_NE(VersionOf(client, "edge"), model);
}

// Two versions of a decision and of a model take turns while clients ask. Every answer is the one of the version that
// it names, none fails, and the node is ready throughout.
TEST_F(NodeLife, ReloadsUnderLoadWithoutAFailedOrAWrongAnswer) {
  const std::vector<Row> rows = [] {
    std::vector<Row> r;
    const auto points = MakePoints(64, 3);
    const auto x = points.x.As<float>();
    for (std::size_t i = 0; i < 64; ++i) r.push_back({x[2 * i], x[2 * i + 1]});
    return r;
  }();
  struct Version {
    std::string device, lock, plain;  // bytes of files
    std::vector<std::int64_t> labels;
    std::vector<std::string> tiers;
    std::array<float, 8> w;
  };
  std::array<Version, 2> sets;
  const SteadyClock clock;
  for (std::size_t v = 0; v < 2; ++v) {
    Version& s = sets[v];
    s.device = LinearModel(Quadrants(2, v == 0 ? .8f : .5f));
    s.w = Quadrants(v == 0 ? 3.f : -3.f, .3f);
    s.plain = LinearModel(s.w);
    Write("device.onnx", s.device);
    CalibrateInPlace(2000 + 500 * static_cast<std::int64_t>(v));
    s.lock = data::ReadFile(dir_ / "decision.lock").value();
    const auto decision = Decision::Open(engine_, dir_).value();
    for (const Row& row : rows) {
      const tensor::Shape shape{1, 2};
      const tensor::View view{DataType::kFp32, shape, std::as_bytes(std::span(row))};
      const auto d = decision->Decide({&view, 1}, clock, clock.Now() + kPatience).value();
      s.labels.push_back(d.label);
      s.tiers.emplace_back(topology::Name(d.tier));
    }
  }
  ASSERT_NE(sets[0].tiers, sets[1].tiers);
  const auto install = [&](const Version& s) {
    Write("device.onnx", s.device);
    Write("decision.lock", s.lock);
    Write("plain.onnx", s.plain);
  };
  install(sets[0]);
  const auto node = Start("tier: global\ndecisions: [.]\nmodels: [plain.onnx]\nlimits: {threads: 2}\ndrain: 10s\n");
  ASSERT_NE(node, nullptr);
  const Client operating(*node);
  std::map<std::string, std::size_t> set_of;  // by version
  for (const std::size_t v : {1u, 0u}) {
    install(sets[v]);
    ASSERT_TRUE(operating.grpc().Load("plane", kPatience).ok());
    ASSERT_TRUE(operating.grpc().Load("plain", kPatience).ok());
    set_of[VersionOf(operating, "plane")] = v;
    set_of[VersionOf(operating, "plain")] = v;
  }
  ASSERT_EQ(set_of.size(), 4u);

  std::atomic<bool> over{false};
  std::atomic<int> answered{0}, failed{0}, wrong{0}, not_ready{0};
  std::atomic<int> of_version[2] = {0, 0};
  const auto check = [&](const Result<wire::InferResponse>& r, bool decision, const std::vector<Row>& asked,
                         std::size_t first) {
    ++answered;
    if (!r.ok()) {
      ADD_FAILURE() << r.status().message();
      ++failed;
      return;
    }
    const auto known = set_of.find(r->version);
    if (known == set_of.end()) {
      ++wrong;
      return;
    }
    const Version& s = sets[known->second];
    ++of_version[known->second];
    if (decision) {
      const auto labels = Labels(*r);
      const auto tiers = Texts(*r, "ganglion.tier");
      bool same = labels.size() == asked.size() && tiers.size() == asked.size();
      for (std::size_t i = 0; same && i < asked.size(); ++i)
        same = labels[i] == s.labels[first + i] && tiers[i] == s.tiers[first + i];
      wrong += same ? 0 : 1;
    } else {
      const auto z = Numbers<float>(*r, "logits");
      bool same = z.size() == 4 * asked.size();
      for (std::size_t i = 0; same && i < z.size(); ++i)
        same = std::abs(z[i] - (asked[i / 4][0] * s.w[i % 4] + asked[i / 4][1] * s.w[4 + i % 4])) < 1e-3;
      wrong += same ? 0 : 1;
    }
  };
  std::vector<std::jthread> clients;
  for (int t = 0; t < 6; ++t) {
    clients.emplace_back([&, t] {
      const Client client(*node);
      Random random(static_cast<std::uint64_t>(t) + 1);
      while (!over) {
        const bool all = random.Below(2) == 0;  // many rows queue for a worker, one runs at once
        const std::size_t first = all ? 0 : random.Below(rows.size());
        const std::vector<Row> asked = all ? rows : std::vector<Row>{rows[first]};
        const bool decision = random.Below(2) == 0;
        const auto request = decision ? Ask(asked, {"label", "ganglion.tier"}) : Ask(asked, {}, "plain", "x");
        check(t % 3 == 0 ? client.Rest(request) : client.Grpc(request), decision, asked, first);
      }
    });
  }
  clients.emplace_back([&] {
    const Client client(*node);
    while (!over) not_ready += client.Get("/v2/health/ready").first == 200 ? 0 : 1;
  });
  for (int i = 0; i < 30; ++i) {
    const std::size_t v = i % 2 == 0 ? 1 : 0;
    install(sets[v]);
    EXPECT_TRUE(operating.grpc().Load("plane", kPatience).ok());
    EXPECT_TRUE(operating.grpc().Load("plain", kPatience).ok());
    // Whoever asks after the load has the new one, the cache notwithstanding.
    EXPECT_EQ(set_of[operating.Grpc(Ask({kEasy}))->version], v);
    EXPECT_EQ(set_of[operating.Rest(Ask({kEasy}, {}, "plain", "x"))->version], v);
  }
  over = true;
  clients.clear();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(not_ready, 0);
  EXPECT_GT(of_version[0], 0);
  EXPECT_GT(of_version[1], 0);
  EXPECT_GT(answered, 100);
}

TEST_F(NodeLife, DrainsWhatIsUnderWayAndTakesNothingNew) {
  FakeParent parent(kTellsGlobal);
  parent.Hold();
  const auto node = StartDevice("{url: " + parent.Url() + "}", "drain: 20s\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  auto slow = Ask({kHard}, {"label", "ganglion.tier"});
  slow.parameters.push_back({"deadline_ms", std::int64_t{30'000}});
  auto by_rest = std::async(std::launch::async, [&] { return client.Rest(slow); });
  auto by_grpc = std::async(std::launch::async, [&] {
    auto other = Ask({{.002f, -.002f}}, {"label", "ganglion.tier"});
    other.parameters = slow.parameters;
    return client.Grpc(other);
  });
  ASSERT_TRUE(Eventually([&] { return parent.held() == 2; }));
  auto drained = std::async(std::launch::async, [&] { return node->Drain(); });
  ASSERT_TRUE(Eventually([&] { return !node->Ready(); }));
  EXPECT_TRUE(Eventually([&] { return !client.Rest(Ask({kEasy})).ok(); }));
  EXPECT_EQ(drained.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  for (auto& call : parent.TakeHeld()) {
    auto answer = FakeParent::NodeAnswer(*call, 1);
    call->Finish(std::move(answer));
  }
  for (auto* one : {&by_rest, &by_grpc}) {
    const auto r = one->get();
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(Labels(*r)[0], 1);
  }
  EXPECT_EQ(drained.get(), 0u);
}

TEST_F(NodeLife, ServesATritonRepositoryAsItIs) {
  const auto config = [](const std::string& more) {
    return "name: \"net\"\nbackend: \"onnxruntime\"\nmax_batch_size: 4\n"
           "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 2 ] } ]\n"
           "output [ { name: \"logits\" data_type: TYPE_FP32 dims: [ 4 ] label_filename: \"labels.txt\" } ]\n" +
           more;
  };
  for (const char* dir : {"models/net/1", "models/net/3", "models/odd/1"})
    std::filesystem::create_directories(dir_ / dir);
  Write("models/net/config.pbtxt", config("version_policy: { all: {} }\n"));
  Write("models/net/labels.txt", "ne\nse\nnw\nsw\n");
  Write("models/net/1/model.onnx", LinearModel(Quadrants(1)));
  Write("models/net/3/model.onnx", LinearModel(Quadrants(-1)));
  Write("models/odd/config.pbtxt", "name: \"odd\"\nbackend: \"tensorflow\"\n");
  const auto node = Start("tier: global\nrepository: models\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  const auto metadata = client.grpc().ModelMetadata("net", "", kPatience);
  ASSERT_TRUE(metadata.ok()) << metadata.status().message();
  EXPECT_EQ(metadata->versions, (std::vector<std::string>{"1", "3"}));
  EXPECT_TRUE(Has(client.Get("/v2/models/net/config").second, "\"max_batch_size\":4"));
  auto request = Ask({kEasy}, {"logits"}, "net", "x");
  request.outputs[0].classification = 1;
  const auto best = [&](const std::string& version) {
    request.version = version;
    const auto by_rest = client.Rest(request);
    const auto by_grpc = client.Grpc(request);
    if (!by_rest.ok() || !by_grpc.ok()) return by_rest.status().message() + by_grpc.status().message();
    EXPECT_EQ(by_grpc->version, version.empty() ? "3" : version);
    EXPECT_EQ(Texts(*by_rest, "logits"), Texts(*by_grpc, "logits"));
    const std::string text = Texts(*by_rest, "logits").at(0);
    return text.substr(text.find(':'));
  };
  EXPECT_EQ(best("1"), ":0:ne");
  EXPECT_EQ(best("3"), ":3:sw");
  EXPECT_EQ(best(""), ":3:sw");  // the newest
  request.version = "2";
  EXPECT_EQ(client.Rest(request).status().code(), Code::kNotFound);
  const auto many = client.Rest(Ask(std::vector<Row>(5, kEasy), {}, "net", "x"));
  EXPECT_TRUE(Has(many.status().message(), "5 rows, max_batch_size of net is 4")) << many.status().message();
  const std::string index = client.Post("/v2/repository/index").second;
  EXPECT_TRUE(Has(index, "\"odd\"") && Has(index, "tensorflow")) << index;
  EXPECT_EQ(client.Get("/v2/health/ready").first, 200);
  // A version that appears is there after a load; so is a whole model.
  std::filesystem::create_directories(dir_ / "models/net/12");
  Write("models/net/12/model.onnx", LinearModel(Quadrants(2)));
  ASSERT_EQ(client.Post("/v2/repository/models/net/load").first, 200);
  EXPECT_EQ(client.Rest(Ask({kEasy}, {}, "net", "x"))->version, "12");
  std::filesystem::create_directories(dir_ / "models/late/1");
  Write("models/late/1/model.onnx", LinearModel(Quadrants(2)));
  EXPECT_EQ(client.Get("/v2/models/late").first, 404);
  ASSERT_EQ(client.Post("/v2/repository/models/late/load").first, 200);
  EXPECT_TRUE(client.Rest(Ask({kEasy}, {}, "late", "x")).ok());
  EXPECT_EQ(client.Post("/v2/repository/models/..%2Fnet/load").first, 404);
}

TEST_F(NodeLife, StatusAndMetricsTellWhatHappened) {
  FakeParent parent(kTellsGlobal);
  parent.AnswerAsNode(1);
  const auto node = StartDevice("{url: " + parent.Url() + ", name: above}", "node: gw-7\nmodels: [edge.onnx]\n");
  ASSERT_NE(node, nullptr);
  const Client client(*node);
  ASSERT_TRUE(Eventually([&] { return ParentUp(*node); }));
  ASSERT_TRUE(client.Rest(Ask({kEasy, kEasy, kHard})).ok());
  ASSERT_FALSE(client.Rest(Ask({kEasy}, {}, "plane", "wrong")).ok());
  const wire::Json s = client.StatusDocument();
  EXPECT_EQ(s.at("node"), "gw-7");
  EXPECT_EQ(s.at("tier"), "device");
  EXPECT_EQ(s.at("ready"), true);
  EXPECT_EQ(s.at("draining"), false);
  EXPECT_EQ(s.at("in_flight"), 0);
  EXPECT_GT(s.at("concurrency_limit"), 0);
  ASSERT_EQ(s.at("models").size(), 2u);
  const auto& plane = s.at("models").at(1);
  EXPECT_EQ(plane.at("name"), "plane");
  EXPECT_EQ(plane.at("kind"), "decision");
  EXPECT_EQ(plane.at("state"), "READY");
  EXPECT_EQ(plane.at("requests"), 2);
  EXPECT_EQ(plane.at("failed"), 1);
  EXPECT_EQ(plane.at("stages").at(0).at("name"), "device");
  const auto& above = s.at("parents").at(0);
  EXPECT_EQ(above.at("name"), "above");
  EXPECT_EQ(above.at("tier"), "global");
  EXPECT_EQ(above.at("foreign"), false);
  EXPECT_EQ(above.at("up"), true);
  EXPECT_EQ(above.at("breaker"), "closed");
  EXPECT_EQ(above.at("in_flight"), 0);

  const std::string metrics = client.Metrics();
  const auto requests = [&](const std::string& tier, const std::string& stage, const std::string& outcome) {
    return Metric(metrics, "ganglion_requests_total",
                  {{"decision", "plane"}, {"tier", tier}, {"stage", stage}, {"outcome", outcome}});
  };
  EXPECT_EQ(requests("device", "device", "accepted"), 2) << metrics;
  EXPECT_EQ(requests("global", "fake", "accepted"), 1);
  EXPECT_EQ(requests("device", "", "failed"), 1);
  EXPECT_EQ(Metric(metrics, "ganglion_request_seconds_count", {{"decision", "plane"}}), 2);
  EXPECT_EQ(Metric(metrics, "ganglion_parent_requests_total", {{"parent", "above"}, {"outcome", "ok"}}), 1);
  EXPECT_GT(Metric(metrics, "ganglion_uplink_bytes_total", {{"parent", "above"}, {"direction", "up"}}), 0);
  EXPECT_EQ(Metric(metrics, "ganglion_parent_up", {{"parent", "above"}}), 1);
  EXPECT_EQ(Metric(metrics, "ganglion_breaker_state", {{"target", "above"}}), 0);
  EXPECT_EQ(Metric(metrics, "ganglion_ready"), 1);
  EXPECT_EQ(Metric(metrics, "ganglion_in_flight"), 0);
  EXPECT_NEAR(Metric(metrics, "ganglion_cost_dollars_total", {{"tier", "global"}}), .1, 1e-9);
  // Every line is a comment or a series with a number, and every family says what it is, once.
  std::set<std::string> families;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      EXPECT_TRUE(families.insert(line.substr(7, line.find(' ', 7) - 7)).second) << line;
    }
    if (line.empty() || line[0] == '#') continue;
    const auto space = line.rfind(' ');
    ASSERT_NE(space, std::string::npos) << line;
    char* end = nullptr;
    (void)std::strtod(line.c_str() + space + 1, &end);
    EXPECT_EQ(*end, '\0') << line;
    EXPECT_TRUE(line.starts_with("ganglion_")) << line;
  }
  EXPECT_EQ(client.Get("/metrics").first, 404);  // on its own port only
}

}  // namespace
}  // namespace ganglion::node
