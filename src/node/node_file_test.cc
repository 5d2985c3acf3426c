#include "node/node_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"

namespace ganglion::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using topology::Tier;

class NodeFile : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    ASSERT_TRUE(data::MakeDirectories(dir_ / "fashion").ok());
    ASSERT_TRUE(data::MakeDirectories(dir_ / "repo").ok());
    for (const char* f : {"fashion/decision.yaml", "linear.onnx", "big.onnx", "node.pem", "node.key", "ca.pem"}) Put(f);
    Put("tokens.yaml", "- {token_sha256: " + crypto::Sha256("open").Hex() + ", role: infer, name: camera}\n" +
                           "- {token_sha256: " + crypto::Sha256("sesame").Hex() + ", role: operate, name: ops}\n");
    ::setenv("GANGLION_TEST_TOKEN", "secret-of-the-parent", 1);
    ::unsetenv("GANGLION_TEST_UNSET");
  }
  void TearDown() override {
    ::unsetenv("GANGLION_TEST_TOKEN");
    ScratchDir::TearDown();
  }
  void Put(const std::string& file, const std::string& text = "x") {
    ASSERT_TRUE(data::WriteFileAtomically(dir_ / file, text).ok());
  }
  Result<NodeConfig> Parse(const std::string& text) { return ParseNodeFile(text, dir_, "node.yaml", "the-host"); }
  // The mistakes of a file that would be right without `lines`.
  std::string Mistakes(const std::string& lines) {
    const auto r = Parse("tier: edge\nmodels: [linear.onnx]\n" + lines);
    return r.ok() ? "" : r.status().message();
  }
  void ExpectEach(const std::string& message, const std::vector<std::string>& expected) {
    for (const auto& e : expected)
      EXPECT_NE(message.find(e), std::string::npos) << "missing: " << e << "\nin:\n" << message;
  }
};

TEST_F(NodeFile, NeedsOnlyATierAndSomethingToServe) {
  const auto c = Parse("tier: device\ndecisions: [./fashion]\n");
  ASSERT_TRUE(c.ok()) << c.status().message();
  NodeConfig expected;
  expected.name = "the-host";
  expected.dir = dir_;
  expected.decisions = {"./fashion"};
  EXPECT_EQ(*c, expected);
  EXPECT_EQ(c->listen.http->Text(), "127.0.0.1:8000");
  EXPECT_EQ(c->listen.grpc->port, 8001);
  EXPECT_EQ(c->listen.metrics->port, 8002);
  EXPECT_EQ(c->cache->memory_bytes, 64'000'000);
  EXPECT_EQ(c->Path("a.onnx"), dir_ / "a.onnx");
}

const char* const kEverything = R"(node: gw-0417
tier: device
labels: {site: lyon, ring: canary}
decisions: [./fashion]
models: [./linear.onnx, {name: huge, file: big.onnx}]
repository: ./repo
listen: {http: "0.0.0.0:8100", grpc: "off", metrics: "[::1]:0", unix: /run/ganglion.sock}
insecure: false
parents:
  - url: grpcs://edge.lyon:8001
    name: lyon-edge
    tier: edge
    model: big
    version: "3"
    inputs: {image: INPUT__0}
    output: OUTPUT__0
    headers: {Host: big.example}
    stream: always
    emulate: {delay: 20ms, jitter: 5ms, loss: 0.01}
    token: "${GANGLION_TEST_TOKEN}"
  - {url: "grpc://[::1]:9001"}
breaker: {keep: 0.8, trip: 0.4, open_for: 20s, probes: 2, slow: 2s}
balance: {retries: 0.2, hedge: 20ms}
batching: {max_rows: 32, max_delay: 1ms}
cache: {memory: 32MB, ttl: 30s}
tls: {cert: node.pem, key: node.key, ca: ca.pem, require_client: true}
auth: {tokens: tokens.yaml}
limits: {memory: 128MB, threads: 2, uplink: 64KB/s, request: 1MiB, connections: 10, in_flight: 11, models: 12,
         idle: 13s}
log: {level: warning, format: json}
trace: {otlp: "http://127.0.0.1:4318/v1/traces", sample: 0.25}
drain: 3s
)";

TEST_F(NodeFile, ReadsEveryKey) {
  const auto c = Parse(kEverything);
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_EQ(c->name, "gw-0417");
  EXPECT_EQ(c->labels, (std::map<std::string, std::string>{{"site", "lyon"}, {"ring", "canary"}}));
  EXPECT_EQ(c->models, (std::vector<ModelFile>{{"linear", "./linear.onnx"}, {"huge", "big.onnx"}}));
  EXPECT_EQ(c->repository, "./repo");
  EXPECT_EQ(c->listen.http, (Address{"0.0.0.0", 8100}));
  EXPECT_FALSE(c->listen.grpc);
  EXPECT_EQ(c->listen.metrics, (Address{"::1", 0}));
  EXPECT_EQ(c->listen.unix_path, "/run/ganglion.sock");
  ASSERT_EQ(c->parents.size(), 2u);
  const auto& p = c->parents[0];
  EXPECT_TRUE(p.tls);
  EXPECT_EQ(p.address, (Address{"edge.lyon", 8001}));
  EXPECT_EQ(p.name, "lyon-edge");
  EXPECT_EQ(p.tier, Tier::kEdge);
  EXPECT_EQ(p.model + p.version + p.output, "big3OUTPUT__0");
  EXPECT_EQ(p.inputs.at("image"), "INPUT__0");
  EXPECT_EQ(p.headers.at("Host"), "big.example");
  EXPECT_EQ(p.stream, Stream::kAlways);
  EXPECT_EQ(p.emulate, (EmulateConfig{milliseconds(20), milliseconds(5), 0.01}));
  EXPECT_EQ(p.token_variable, "GANGLION_TEST_TOKEN");
  EXPECT_EQ(p.token, "secret-of-the-parent");
  EXPECT_FALSE(c->parents[1].tls);
  EXPECT_EQ(c->parents[1].name, "[::1]:9001");
  EXPECT_FALSE(c->parents[1].tier);
  EXPECT_EQ(c->breaker, (BreakerConfig{0.8, 0.4, seconds(20), 2, seconds(2)}));
  EXPECT_EQ(c->balance, (BalanceConfig{0.2, milliseconds(20)}));
  EXPECT_EQ(c->batching, (BatchingConfig{32, milliseconds(1)}));
  EXPECT_EQ(c->cache, (CacheConfig{32'000'000, seconds(30)}));
  EXPECT_EQ(c->tls, (TlsConfig{"node.pem", "node.key", "ca.pem", true}));
  ASSERT_EQ(c->auth->rules.size(), 2u);
  EXPECT_EQ(c->auth->rules[1], (TokenRule{crypto::Sha256("sesame"), Role::kOperate, "ops"}));
  EXPECT_EQ(c->limits, (LimitsConfig{128'000'000, 2, 64'000, 1 << 20, 10, 11, 12, seconds(13)}));
  EXPECT_EQ(c->log, (LogConfig{LogLevel::kWarning, LogFormat::kJson}));
  EXPECT_EQ(c->trace, (TraceConfig{"http://127.0.0.1:4318/v1/traces", 0.25}));
  EXPECT_EQ(c->drain, seconds(3));
}

TEST_F(NodeFile, ReadsBackWhatItWrites) {
  const auto c = Parse(kEverything);
  ASSERT_TRUE(c.ok()) << c.status().message();
  const std::string written = WriteNodeFile(*c);
  const auto back = Parse(written);
  ASSERT_TRUE(back.ok()) << back.status().message() << "\n" << written;
  EXPECT_EQ(*back, *c) << written;
  EXPECT_EQ(written.find("secret-of-the-parent"), std::string::npos);
  NodeConfig plain;
  plain.name = "n";
  plain.tier = Tier::kGlobal;
  plain.models = {{"linear", "linear.onnx"}};
  EXPECT_EQ(WriteNodeFile(plain),
            "node: n\ntier: global  # device, edge, region, global\nmodels: [linear.onnx]  # served as they are\n");
}

TEST_F(NodeFile, ReadsBackWhateverItWrites) {
  const std::uint64_t seed = 7;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  const auto some_time = [&] { return Duration(1 + static_cast<std::int64_t>(random.Below(86'400'000'000'000))); };
  const auto some_text = [&] {
    std::string text;
    for (std::uint64_t n = 1 + random.Below(8); n > 0; --n) text += static_cast<char>(' ' + random.Below(95));
    return text;
  };
  for (int i = 0; i < 500; ++i) {
    NodeConfig c;
    c.name = "n" + std::to_string(random.Below(100));
    c.dir = dir_;
    c.tier = topology::kTiers[random.Below(3)];
    c.models = {{random.Below(2) == 0 ? "linear" : "null", "linear.onnx"}};
    for (std::uint64_t n = random.Below(3); n > 0; --n) c.labels["k" + std::to_string(n)] = some_text();
    if (random.Below(2) == 0) c.listen.http = Address{"127.1.2.3", static_cast<int>(random.Below(65536))};
    if (random.Below(2) == 0) c.listen.metrics.reset();
    if (random.Below(2) == 0) c.listen.unix_path = "s" + some_text();
    c.insecure = random.Below(2) == 0;
    for (std::uint64_t n = random.Below(3); n > 0; --n) {
      ParentConfig p;
      p.address = {"h" + std::to_string(n), static_cast<int>(1 + random.Below(65535))};
      p.tls = random.Below(2) == 0;
      p.url = (p.tls ? "grpcs://" : "grpc://") + p.address.Text();
      p.name = random.Below(2) == 0 ? p.address.Text() : "p" + std::to_string(n);
      if (random.Below(2) == 0) p.tier = Tier::kGlobal;
      p.model = some_text();
      p.inputs[some_text()] = some_text();
      p.output = random.Below(2) == 0 ? "" : some_text();
      p.headers["H-" + std::to_string(n)] = some_text();
      p.emulate = {some_time(), some_time(), random.Uniform()};
      p.stream = static_cast<Stream>(random.Below(3));
      c.parents.push_back(p);
    }
    c.breaker = {random.Uniform(), .001 + random.Uniform() / 2, some_time(), static_cast<int>(1 + random.Below(9)),
                 some_time()};
    c.balance.retries = random.Uniform();
    if (random.Below(2) == 0) c.balance.hedge = some_time();
    c.batching = {static_cast<int>(1 + random.Below(1000)), some_time()};
    if (random.Below(2) == 0) {
      c.cache.reset();
    } else {
      c.cache = {static_cast<std::int64_t>(1000 + random.Below(std::uint64_t{1} << 45)), some_time()};
    }
    if (random.Below(2) == 0) c.limits.memory_bytes = static_cast<std::int64_t>((1 + random.Below(1000)) << 20);
    if (random.Below(2) == 0) c.limits.uplink_bytes_per_s = static_cast<std::int64_t>(1 + random.Below(10'000'000));
    if (random.Below(2) == 0) c.trace = TraceConfig{"https://collector/v1", random.Uniform()};
    c.drain = some_time();
    const std::string written = WriteNodeFile(c);
    const auto back = Parse(written);
    ASSERT_TRUE(back.ok()) << back.status().message() << "\n" << written;
    ASSERT_EQ(*back, c) << written << "\nread and written again:\n" << WriteNodeFile(*back);
  }
}

TEST_F(NodeFile, ReportsAllMistakesAtOnceWithTheirLines) {
  Put("bad.yaml", "- {token_sha256: abc, role: infer, name: a}\n- {role: boss, name: b}\n");
  const auto r = Parse(R"(node: my/node
tier: cloud
labels: [a]
decisions: [./nowhere, ./repo, ./linear.onnx]
models: [none.onnx, {file: linear.onnx, colour: red}, ./linear.onnx]
repository: ./none
listen: {http: "8000", grpc: "localhost:70000", metrics: "::1:8002"}
insecure: perhaps
parents:
  - url: edge:8001
  - {url: "http://edge:8001", tier: cloud, stream: sometimes}
  - just text
  - {url: "grpc://a:1", emulate: {loss: 1}, token: hunter2}
  - {url: "grpc://b:1", token: "${GANGLION_TEST_UNSET}"}
breaker: {keep: 1, trip: 1, open_for: 0s, probes: 0, slow: soon}
balance: {retries: 2, hedge: maybe}
batching: {max_rows: 1.5, max_delay: 25h}
cache: {memory: 64, ttl: 0s}
tls: {cert: none.pem, require_client: true}
auth: {tokens: bad.yaml}
limits: {memory: 1KB, threads: 0, uplink: 64KB, request: 3GB, connections: x, idle: 0s}
log: {level: chatty, format: xml}
trace: {otlp: "127.0.0.1:4318", sample: 2}
drain: never
state: {dir: /var/lib/ganglion}
audit: 0.5%
colour: red
)");
  ASSERT_FALSE(r.ok());
  const std::string at = dir_.string();
  const std::string& m = r.status().message();
  ExpectEach(m, {"node.yaml:1 node \"my/node\" is no name",
                 "node.yaml:2 tier \"cloud\" is no tier; one of device, edge, region, global",
                 "node.yaml:3 labels must be a mapping",
                 "node.yaml:4 decisions[0] " + at + "/./nowhere does not exist",
                 "node.yaml:4 decisions[1] " + at + "/./repo has no decision.yaml; `ganglion init` makes one",
                 "node.yaml:4 decisions[2] " + at + "/./linear.onnx is no directory",
                 "node.yaml:5 models[0] " + at + "/none.onnx does not exist",
                 "node.yaml:5 models[1].colour is unknown",
                 "node.yaml:5 models[2] is called linear as linear.onnx is; name one of them",
                 "node.yaml:6 repository " + at + "/./none does not exist",
                 "node.yaml:7 listen.http \"8000\" has no port; write 127.0.0.1:8000",
                 "node.yaml:7 listen.grpc \"localhost:70000\" has no valid port",
                 "node.yaml:7 listen.metrics \"::1:8002\" needs brackets around an IPv6 address",
                 "node.yaml:8 insecure \"perhaps\" is neither true nor false",
                 "node.yaml:10 parents[0].url \"edge:8001\" has no scheme; write grpc://edge:8001",
                 "node.yaml:11 parents[1].url \"http://edge:8001\" begins with http://, which is not spoken here",
                 "node.yaml:11 parents[1].tier \"cloud\"",
                 "node.yaml:11 parents[1].stream \"sometimes\" is unknown",
                 "node.yaml:12 parents[2] must be a mapping",
                 "node.yaml:13 parents[3].emulate.loss must be at least 0",
                 "node.yaml:13 parents[3].token must name a variable of the environment",
                 "node.yaml:14 parents[4].token needs the variable GANGLION_TEST_UNSET",
                 "node.yaml:14 parents[4].token would travel in the clear; use grpcs://b:1",
                 "node.yaml:15 breaker.keep must be at least 0 and below 1, got 1",
                 "node.yaml:15 breaker.trip must be at least 0 and below 1, got 1",
                 "node.yaml:15 breaker.open_for must be longer than 0",
                 "node.yaml:15 breaker.probes must be a whole number from 1 to 1000, got 0",
                 "node.yaml:15 breaker.slow \"soon\" is no time",
                 "node.yaml:16 balance.retries must be at least 0 and at",
                 "node.yaml:16 balance.hedge \"maybe\" is no time",
                 "node.yaml:17 batching.max_rows must be a whole number",
                 "node.yaml:17 batching.max_delay must be at most 24h",
                 "node.yaml:18 cache.memory \"64\" is no size",
                 "node.yaml:18 cache.ttl must be longer than 0",
                 "node.yaml:19 tls.key is missing",
                 "node.yaml:19 tls.cert " + at + "/none.pem does not exist",
                 "node.yaml:19 tls.require_client needs tls.ca",
                 "node.yaml:21 limits.memory must be from 1MB to",
                 "node.yaml:21 limits.threads must be a whole number",
                 "node.yaml:21 limits.uplink \"64KB\" is no rate; write for example 64KB/s",
                 "node.yaml:21 limits.request must be from 1KB to 2GB, got 3GB",
                 "node.yaml:21 limits.connections must be a whole number",
                 "node.yaml:21 limits.idle must be longer",
                 "node.yaml:22 log.level \"chatty\" is unknown; one of debug, info, warning, error",
                 "node.yaml:22 log.format \"xml\" is unknown; one of text, json",
                 "node.yaml:23 trace.otlp \"127.0.0.1:4318\" has no scheme; write http://127.0.0.1:4318",
                 "node.yaml:23 trace.sample must be at least 0 and at most 1, got 2",
                 "node.yaml:24 drain \"never\"",
                 "node.yaml:25 state is not in this version yet; leave it out",
                 "node.yaml:26 audit is not in this version yet; leave it out",
                 "node.yaml:27 colour is unknown",
                 at + "/bad.yaml:1 token 0 token_sha256 is no SHA-256",
                 at + "/bad.yaml:2 token 1 token_sha256 is missing",
                 at + "/bad.yaml:2 token 1 role \"boss\" is unknown; one of infer, operate"});
  EXPECT_EQ(m.find("hunter2"), std::string::npos) << "a secret is in the message";
}

TEST_F(NodeFile, KeepsWhatIsInTheClearOnTheMachine) {
  EXPECT_EQ(Mistakes("listen: {http: \"0.0.0.0:8000\"}\n"),
            "node.yaml:3 listen.http 0.0.0.0:8000 without tls refused; set tls, or insecure: true on a lab network.");
  for (const char* local : {"127.0.0.1:1", "127.255.0.9:1", "[::1]:1", "localhost:1"})
    EXPECT_EQ(Mistakes("listen: {grpc: \"" + std::string(local) + "\"}\n"), "") << local;
  for (const char* open :
       {"10.0.0.1:1", "[::]:1", "gateway:1", "127.evil.example:1", "128.0.0.1:1", "[::ffff:1.2.3.4]:1"})
    ExpectEach(Mistakes("listen: {metrics: \"" + std::string(open) + "\"}\n"), {"without tls refused"});
  EXPECT_EQ(Mistakes("listen: {http: \"0.0.0.0:8000\"}\ninsecure: true\n"), "");
  EXPECT_EQ(Mistakes("listen: {http: \"0.0.0.0:8000\"}\ntls: {cert: node.pem, key: node.key}\n"), "");
  const std::string token = ", token: \"${GANGLION_TEST_TOKEN}\"}]\n";
  ExpectEach(Mistakes("parents: [{url: \"grpc://edge:8001\"" + token), {"would travel in the clear"});
  EXPECT_EQ(Mistakes("parents: [{url: \"grpcs://edge:8001\"" + token), "");
  EXPECT_EQ(Mistakes("parents: [{url: \"grpc://127.0.0.1:8001\"" + token), "");
  EXPECT_EQ(Mistakes("insecure: true\nparents: [{url: \"grpc://edge:8001\"" + token), "");
  ExpectEach(Mistakes("parents: [{url: \"grpcs://e:1\", headers: {Authorization: Bearer x}}]\n"),
             {"a secret in a file"});
}

TEST_F(NodeFile, RefusesAddressesThatCollideOrLeaveNobodyAWayIn) {
  ExpectEach(Mistakes("listen: {grpc: \"127.0.0.1:8000\"}\n"), {"listen.grpc 127.0.0.1:8000 is taken by listen.http"});
  EXPECT_EQ(Mistakes("listen: {http: \"127.0.0.1:0\", grpc: \"127.0.0.1:0\"}\n"), "");
  EXPECT_EQ(Mistakes("listen: {http: \"127.0.0.2:8001\"}\n"), "");
  ExpectEach(Mistakes("listen: {http: off, grpc: off}\n"), {"listen leaves nobody a way in"});
  EXPECT_EQ(Mistakes("listen: {http: off, grpc: off, unix: s.sock}\n"), "");
  ExpectEach(Mistakes("listen: {unix: /" + std::string(120, 'x') + "}\n"), {"a socket's path has at most 107"});
}

TEST_F(NodeFile, RefusesParentsThatCannotBeMeant) {
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:1\"}, {url: \"grpcs://a:1\"}]\n"),
             {"called a:1 as another parent is"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:1\", tier: device}]\n"), {"device lies below this node's own, edge"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a\"}]\n"), {"has no port; write for example grpc://a:8001"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:0\"}]\n"), {"has port 0"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:1/v2\"}]\n"), {"has a path, which gRPC has not; write grpc://a:1"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://u:p@a:1\"}]\n"), {"holds a user before its host"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:1\", inputs: {x: i, y: i}}]\n"), {"the parent's input i twice"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:1\", headers: {grpc-timeout: 1S}}]\n"), {"which gRPC sets itself"});
  ExpectEach(Mistakes("parents: [{url: \"grpc://a:1\", headers: {\"X Y\": z}}]\n"), {"no header of plain ASCII"});
}

TEST_F(NodeFile, RefusesTokenFilesThatSayNothingOrTooMuch) {
  const std::string hex = crypto::Sha256("t").Hex();
  for (const std::string& bad :
       {std::string(""), std::string("a: b"), std::string("[]"), std::string("- x"), std::string("- {"),
        "- {token_sha256: " + hex + ", role: infer}", "- {token_sha256: " + hex + ", role: infer, name: a, more: b}",
        "- {token_sha256: " + hex + ", role: infer, name: a}\n- {token_sha256: " + hex + ", role: operate, name: b}"}) {
    const auto r = ParseTokensFile(bad, "tokens.yaml");
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_TRUE(r.status().message().starts_with("tokens.yaml")) << r.status().message();
  }
  const auto good =
      ParseTokensFile("---\n# rotated in May\n[{token_sha256: " + hex + ", role: operate, name: a}]\n", "t");
  ASSERT_TRUE(good.ok()) << good.status().message();
  EXPECT_EQ(good->at(0).role, Role::kOperate);
}

TEST_F(NodeFile, SurvivesWhatIsNoYamlOrNoMapping) {
  for (const char* text :
       {"", "just text", "- a\n- b", "tier: [", "a: &a [*a]", "\t", "tier: edge\nmodels: 3", "tier: {}",
        "tier: edge\nmodels: [[]]\nlisten: 4\nparents: {}\ncache: [off]\ntls: x\nauth: []", "? [a]\n: b",
        "tier: ~\nparents: [~]"}) {
    EXPECT_FALSE(Parse(text).ok()) << text;
  }
}

TEST_F(NodeFile, IsLoadedFromItsFolder) {
  Put("node.yaml", "tier: edge\nmodels: [linear.onnx]\n");
  const auto c = LoadNodeFile(dir_ / "node.yaml", "h");
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_EQ(c->dir, dir_);
  EXPECT_EQ(c->name, "h");
  EXPECT_EQ(LoadNodeFile(dir_ / "none.yaml").status().code(), Code::kNotFound);
}

TEST(Notation, ReadsAndWritesSizes) {
  const std::vector<std::pair<const char*, std::int64_t>> sizes{
      {"128MB", 128'000'000}, {"64KiB", 65536}, {"1.5GB", 1'500'000'000}, {"0B", 0}, {"7B", 7}, {"1kB", 1000}};
  for (const auto& [text, bytes] : sizes) EXPECT_EQ(ParseByteSize(text).value(), bytes) << text;
  for (const char* bad : {"", "64", "MB", "-1MB", "64 MB", "64mb", "nanMB", "infMB", "1e30TB", "0.5B", "64MB/s"})
    EXPECT_FALSE(ParseByteSize(bad).ok()) << bad;
  EXPECT_EQ(ByteSizeText(64'000'000), "64MB");
  EXPECT_EQ(ByteSizeText(1 << 20), "1MiB");
  EXPECT_EQ(ByteSizeText(1001), "1001B");
  EXPECT_EQ(ParseRate("64KB/s").value(), 64'000);
  for (const char* bad : {"64KB", "/s", "64/s", "64KB/h"}) EXPECT_FALSE(ParseRate(bad).ok()) << bad;
}

TEST(Notation, ReadsAddresses) {
  EXPECT_EQ(ParseAddress("127.0.0.1:0").value(), (Address{"127.0.0.1", 0}));
  EXPECT_EQ(ParseAddress("[fe80::1]:65535").value().Text(), "[fe80::1]:65535");
  EXPECT_TRUE(ParseAddress("0.0.0.0:1").value().IsWildcard());
  for (const char* bad : {"", ":", ":80", "a:", "a:-1", "a:+1", "a:65536", "a:1x", "300.1.1.1:1", "1.2.3:1", "a b:1",
                          "[::1]", "[::1]x:1", "[1.2.3.4]:1", "[:1", "::1:80", "a:1:2"}) {
    EXPECT_FALSE(ParseAddress(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace ganglion::node
