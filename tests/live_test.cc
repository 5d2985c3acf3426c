// Four `ganglion serve` processes on one machine: asked, killed, restarted, drained; and the verbs that look at them.
#include <signal.h>

#include <array>
#include <future>

#include "child.h"
#include "node/serving_test.h"

namespace ganglion {
namespace {

using app::Child;
using node::fixture::Client;
using node::fixture::Eventually;
using node::fixture::kEasy;
using node::fixture::kHard;
using node::fixture::Row;
using topology::Tier;

constexpr Duration kLong = std::chrono::seconds(30);  // for what takes far less unless the machine is very busy

std::string NameOf(Tier tier) { return std::string(topology::Name(tier)); }

class LiveNodes : public node::fixture::DecisionDir {
 protected:
  void SetUp() override {
    DecisionDir::SetUp();
    Write("region.onnx", node::fixture::LinearModel(node::fixture::Quadrants(3, .15f)));
    WriteThreeTiers(R"(  - {tier: device, model: device.onnx}
  - {tier: edge, model: edge.onnx, confidence: margin}
  - {tier: region, model: region.onnx, confidence: margin}
  - {tier: global, ensemble: [a.onnx, b.onnx]}
)");
    CalibrateInPlace();
    const auto ports = app::FreePorts(12);
    ASSERT_TRUE(ports.ok()) << ports.status().message();
    for (std::size_t i = 0; i < 4; ++i) ports_[i] = {(*ports)[3 * i], (*ports)[3 * i + 1], (*ports)[3 * i + 2]};
  }
  void TearDown() override {
    for (auto& child : nodes_) child.reset();  // before their files go
    DecisionDir::TearDown();
  }

  node::Server::Ports PortsOf(Tier tier) const { return ports_[static_cast<std::size_t>(tier)]; }
  std::optional<Child>& At(Tier tier) { return nodes_[static_cast<std::size_t>(tier)]; }
  std::string Http(Tier tier) const { return "http://127.0.0.1:" + std::to_string(PortsOf(tier).http); }
  std::string Grpc(Tier tier) const { return "grpc://127.0.0.1:" + std::to_string(PortsOf(tier).grpc); }
  std::string Metrics(Tier tier) const { return "http://127.0.0.1:" + std::to_string(PortsOf(tier).metrics); }
  std::filesystem::path FileOf(Tier tier) const { return dir_ / ("node." + NameOf(tier) + ".yaml"); }

  // `emulate` is the link of each node to its parent.
  void WriteNodeFiles(const std::string& emulate = "") {
    for (const Tier tier : topology::kTiers) {
      const auto p = PortsOf(tier);
      std::string text = "node: " + NameOf(tier) + "\ntier: " + NameOf(tier) + "\ndecisions: [.]\nlisten: {http: \"" +
                         Http(tier).substr(7) + "\", grpc: \"" + Grpc(tier).substr(7) +
                         "\", metrics: \"127.0.0.1:" + std::to_string(p.metrics) +
                         "\"}\nbreaker: {open_for: 300ms}\ncache: \"off\"\n";
      if (tier != Tier::kGlobal) {
        const Tier above = topology::kTiers[static_cast<std::size_t>(tier) + 1];
        text += "parents: [{url: \"" + Grpc(above) + "\", name: " + NameOf(above) +
                (emulate.empty() ? "" : ", emulate: " + emulate) + "}]\n";
      }
      Write("node." + NameOf(tier) + ".yaml", text);
    }
  }
  void Start(Tier tier) {
    auto child =
        Child::Start({GANGLION_BIN "/ganglion", "serve", FileOf(tier).string()}, dir_ / (NameOf(tier) + ".log"));
    ASSERT_TRUE(child.ok()) << child.status().message();
    At(tier) = std::move(*child);
    const Client client(PortsOf(tier));
    ASSERT_TRUE(Eventually([&] { return At(tier)->Ended().has_value() || client.Get("/v2/health/ready").first == 200; },
                           kLong));
    ASSERT_FALSE(At(tier)->Ended().has_value()) << Read(NameOf(tier) + ".log");
  }
  void StartAll() {
    for (const Tier tier : {Tier::kGlobal, Tier::kRegion, Tier::kEdge, Tier::kDevice}) Start(tier);
  }
  std::string Read(const std::string& file) const {
    const auto text = data::ReadFile(dir_ / file);
    return text.ok() ? *text : "";
  }
  // Runs a verb to its end: exit code and all that it printed.
  std::pair<int, std::string> Verb(std::vector<std::string> words) {
    words.insert(words.begin(), GANGLION_BIN "/ganglion");
    const std::string file = "verb-" + std::to_string(++verbs_) + ".txt";
    auto child = Child::Start(words, dir_ / file);
    if (!child.ok()) return {-1, child.status().message()};
    const auto code = child->Wait(kLong);
    return {code.value_or(-1000), Read(file)};
  }

  // What one request came to: "global", "device degraded unreachable", or what went wrong.
  std::string Outcome(const Row& row, int deadline_ms = 10'000) const {
    auto request = node::fixture::Ask({row});
    request.parameters.push_back({"deadline_ms", std::int64_t{deadline_ms}});
    const auto r = Client(PortsOf(Tier::kDevice)).Rest(request);
    if (!r.ok()) return "error: " + r.status().message();
    const auto& p = r->parameters;
    using node::fixture::TextOf;
    if (node::fixture::Labels(*r).size() != 1 || node::fixture::Labels(*r)[0] < 0 || TextOf(p, "stage") == "(none)" ||
        TextOf(p, "decision_id") == "(none)")
      return "error: not labelled";
    return TextOf(p, "tier") + (TextOf(p, "degraded") == "true" ? " degraded " + TextOf(p, "reason") : "");
  }
  int WaitingAbove(Tier tier) const { return Client(PortsOf(tier)).StatusDocument().value("waiting_above", -1); }

  std::array<node::Server::Ports, 4> ports_;
  std::array<std::optional<Child>, 4> nodes_;
  int verbs_ = 0;
};

TEST_F(LiveNodes, AnswerWithoutTheEdgeWhenItIsKilledAndByTheTopWhenItIsBack) {
  WriteNodeFiles();
  StartAll();
  EXPECT_EQ(Outcome(kEasy), "device");
  EXPECT_EQ(Outcome(kHard), "global");

  At(Tier::kEdge)->Kill();
  for (int i = 0; i < 20; ++i) {  // before and after the breaker has opened
    EXPECT_EQ(Outcome(kEasy), "device");
    EXPECT_EQ(Outcome(kHard), "device degraded unreachable") << i;
  }
  // A probe is not spent on a connection that is known not to stand: it would keep the breaker open for longer.
  const auto breaker = [this] {
    return Client(PortsOf(Tier::kDevice)).StatusDocument()["parents"][0]["breaker"].get<std::string>();
  };
  EXPECT_TRUE(Eventually([&] { return breaker() == "half-open"; }, kLong));
  EXPECT_EQ(Outcome(kHard), "device degraded unreachable");
  EXPECT_EQ(breaker(), "half-open");

  Start(Tier::kEdge);
  std::string outcome;
  EXPECT_TRUE(Eventually(
      [&] {
        outcome = Outcome(kHard);
        return outcome == "global" || outcome.starts_with("error");
      },
      kLong));
  EXPECT_EQ(outcome, "global");

  // A tier in the middle is gone: the edge answers, and says that this is not what was promised.
  At(Tier::kRegion)->Kill();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Outcome(kHard), "edge degraded above") << i;
}

TEST_F(LiveNodes, FinishWhatTheyHaveOnSigtermAndEnd) {
  WriteNodeFiles("{delay: 800ms}");  // so that there is time to end the edge while it waits
  StartAll();
  auto asked = std::async(std::launch::async, [this] { return Outcome(kHard, 20'000); });
  ASSERT_TRUE(Eventually([&] { return WaitingAbove(Tier::kEdge) == 1; }, kLong));
  At(Tier::kEdge)->Signal(SIGTERM);
  // Its child's stream stays open for ever unless the edge ends it: then it would end after `drain`, 10 s, alone.
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(At(Tier::kEdge)->Wait(kLong), 0) << Read("edge.log");
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(9));
  EXPECT_EQ(asked.get(), "global");
  EXPECT_EQ(Outcome(kHard, 20'000), "device degraded unreachable");
  for (const Tier tier : {Tier::kDevice, Tier::kRegion, Tier::kGlobal}) {
    At(tier)->Signal(SIGTERM);
    EXPECT_EQ(At(tier)->Wait(kLong), 0) << Read(NameOf(tier) + ".log");
  }
}

TEST_F(LiveNodes, AreSeenByTheVerbs) {
  WriteNodeFiles();
  auto [code, said] = Verb({"check", FileOf(Tier::kDevice).string(), "--online"});
  EXPECT_EQ(code, 1);
  EXPECT_NE(said.find("parent edge: " + Grpc(Tier::kEdge) + " does not answer"), std::string::npos) << said;
  StartAll();
  std::tie(code, said) = Verb({"check", FileOf(Tier::kDevice).string()});
  EXPECT_EQ(code, 0) << said;
  EXPECT_NE(said.find("ok: 1 decision, plane@"), std::string::npos) << said;
  std::tie(code, said) = Verb({"check", FileOf(Tier::kDevice).string(), "--online"});
  EXPECT_EQ(code, 0) << said;
  EXPECT_NE(said.find("parent edge (edge) "), std::string::npos) << said;

  Write("hard.json", "[0.001, -0.001]");
  for (const std::string& url : {Http(Tier::kDevice), Grpc(Tier::kDevice)}) {
    std::tie(code, said) = Verb({"infer", "plane", (dir_ / "hard.json").string(), "--url", url});
    EXPECT_EQ(code, 0) << said;
    EXPECT_NE(said.find(" global/ensemble "), std::string::npos) << said;
    EXPECT_NE(said.find(" id="), std::string::npos) << said;
  }
  std::tie(code, said) = Verb({"infer", "plane", (dir_ / "hard.json").string(), "--url", Http(Tier::kEdge), "--json"});
  wire::Json j;
  ASSERT_TRUE(wire::ParseJson(said, &j).ok()) << said;
  EXPECT_EQ(j[0]["tier"], "global");
  EXPECT_EQ(j[0]["degraded"], false);

  std::tie(code, said) = Verb({"status", "--url", Metrics(Tier::kDevice)});
  EXPECT_EQ(code, 0) << said;
  for (const char* word : {"device (device, ganglion ", "ready", "plane", "edge", "closed"})
    EXPECT_NE(said.find(word), std::string::npos) << word << ": " << said;
  std::tie(code, said) = Verb({"status", "--url", Metrics(Tier::kDevice), "--json"});
  ASSERT_TRUE(wire::ParseJson(said, &j).ok()) << said;
  EXPECT_EQ(j["node"], "device");
  EXPECT_EQ(j["parents"][0]["up"], true);
}

TEST_F(LiveNodes, SayWhatIsWrongBeforeTheyServe) {
  Write("node.yaml", R"(tier: moon
decisions: [./nowhere]
listen: {http: "0.0.0.0:8000"}
parents:
  - url: edge:8001
colour: red
)");
  for (const char* verb : {"serve", "check"}) {
    const auto [code, said] = Verb({verb, (dir_ / "node.yaml").string()});
    EXPECT_EQ(code, 2) << said;
    for (const char* mistake : {"node.yaml:1 tier \"moon\" is no tier", "node.yaml:2 decisions[0] ",
                                "nowhere does not exist", "node.yaml:3 listen.http 0.0.0.0:8000 without tls refused",
                                "node.yaml:5 parents[0].url \"edge:8001\"", "node.yaml:6 colour is unknown"})
      EXPECT_NE(said.find(mistake), std::string::npos) << verb << ": " << mistake << ": " << said;
  }

  WriteNodeFiles();
  Start(Tier::kGlobal);
  const std::string file = FileOf(Tier::kGlobal).string();
  auto [code, said] = Verb({"serve", file});
  EXPECT_EQ(code, 1) << said;
  EXPECT_NE(said.find("serve: cannot listen on " + Http(Tier::kGlobal).substr(7) + ": Address already in use\n"),
            std::string::npos)
      << said;
  std::tie(code, said) = Verb({"serve", file, "--http", "127.0.0.1:0"});
  EXPECT_EQ(code, 1) << said;
  EXPECT_NE(said.find("serve: cannot listen on " + Grpc(Tier::kGlobal).substr(7) + " for gRPC: in use"),
            std::string::npos)
      << said;
  std::tie(code, said) = Verb({"serve", (dir_ / "none.yaml").string()});
  EXPECT_EQ(code, 1) << said;
  EXPECT_NE(said.find("none.yaml does not exist"), std::string::npos) << said;
}

}  // namespace
}  // namespace ganglion
