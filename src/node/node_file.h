// node.yaml: what one node serves, where it listens, whom it asks, and how much it may use. One file a node; decisions
// themselves are in decision.yaml, the same on every tier.
//
//   node: gw-0417                          # default: the host's name
//   tier: device                           # device, edge, region, global
//   labels: {site: lyon, ring: canary}
//   decisions: [./fashion]                 # directories with a decision.yaml
//   models: [./linear.onnx, {name: big, file: big.onnx}]   # plain models, called after the file unless named
//   repository: ./models                   # a Triton model repository (model_repository.h)
//   listen: {http: "127.0.0.1:8000", grpc: "127.0.0.1:8001", metrics: "127.0.0.1:8002", unix: /run/ganglion.sock,
//            mailbox: /run/ganglion.mailbox}
//   insecure: false
//   parents:
//     - url: grpcs://edge.lyon:8001        # or grpc://
//       name: lyon-edge                    # default HOST:PORT
//       tier: edge                         # default: the parent says it
//       model: big                         # model, version, inputs, output: for a server that is no Ganglion
//       version: "3"
//       inputs: {image: INPUT__0}          # ours: theirs
//       output: OUTPUT__0                  # which output holds the scores; default its first
//       headers: {Host: big.example}     # Host: the name that the server goes by
//       stream: auto                       # auto, always, never: ModelStreamInfer
//       emulate: {delay: 20ms, jitter: 5ms, loss: 0.01}
//       token: "${PARENT_TOKEN}"
//       ca: edge-ca.pem                  # grpcs: who signed its certificate, where that is not tls.ca
//   breaker: {keep: 0.9, trip: 0.5, open_for: 30s, probes: 1, slow: 1s}
//   balance: {retries: 0.1, hedge: 20ms}   # hedge: off, the default
//   batching: {max_rows: 64, max_delay: 0ms}
//   cache: {memory: 64MB, ttl: 60s}        # or off
//   tls: {cert: node.pem, key: node.key, ca: ca.pem, require_client: true}
//   auth: {tokens: tokens.yaml}
//   limits: {memory: 128MB, threads: 2, uplink: 64KB/s, request: 64MB, connections: 1024, in_flight: 256, models: 64,
//            idle: 60s}
//   log: {level: info, format: text}       # or json
//   trace: {otlp: "http://127.0.0.1:4318/v1/traces", sample: 0.01}
//   drain: 10s
//
// Needed are tier and one of decisions, models, repository; everything else has the default of the structs below. Files
// are relative to the folder of node.yaml and must exist. "off" switches an address off, port 0 takes any free port.
// What is sent in the clear stays on the machine: an address beyond loopback needs tls, and a token goes to a parent
// beyond loopback by grpcs only, unless `insecure: true` allows both on a lab network.
// Secrets are not in the file: a parent's token is named by an environment variable, and tokens.yaml holds SHA-256s.
// Errors: every mistake at once, a line each, with file and line; those of tokens.yaml too. Values; no threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "crypto/crypto.h"
#include "node/notation.h"
#include "topology/topology.h"

namespace ganglion::node {

enum class Role { kInfer, kOperate };  // operate includes infer

// Who may do what: whoever shows a token with this SHA-256 is `name` and has `role`.
struct TokenRule {
  crypto::Digest digest;
  Role role = Role::kInfer;
  std::string name;
  bool operator==(const TokenRule&) const = default;
};

struct ModelFile {
  std::string name;
  std::string file;  // as written
  bool operator==(const ModelFile&) const = default;
};

struct ListenConfig {
  std::optional<Address> http = Address{"127.0.0.1", 8000};  // nothing: off
  std::optional<Address> grpc = Address{"127.0.0.1", 8001};
  std::optional<Address> metrics = Address{"127.0.0.1", 8002};
  std::string unix_path;     // HTTP on a Unix socket; as written; empty: off
  std::string mailbox_path;  // REST through shared memory (net/mailbox.h)
  bool operator==(const ListenConfig&) const = default;
};

// A link for tests and demos, in front of the real one: each message waits for delay give or take jitter, and is lost
// with probability loss.
struct EmulateConfig {
  Duration delay{};
  Duration jitter{};
  double loss = 0;
  bool operator==(const EmulateConfig&) const = default;
};

enum class Stream { kAuto, kAlways, kNever };

struct ParentConfig {
  std::string url;  // as written
  bool tls = false;
  Address address;
  std::string name;
  std::optional<topology::Tier> tier;  // nothing: ask the parent; one that is no Ganglion counts as global
  std::string model;                   // empty: the decision's name
  std::string version;                 // empty: the parent's choice
  std::map<std::string, std::string> inputs;
  std::string output;  // empty: the first
  std::map<std::string, std::string> headers;
  Stream stream = Stream::kAuto;
  EmulateConfig emulate;
  std::string ca;              // who signed its certificate, PEM; empty: tls.ca, or the system's authorities
  std::string token_variable;  // empty: no token
  std::string token;           // what the variable held when the file was read; never written or logged
  bool operator==(const ParentConfig&) const = default;
};

struct BreakerConfig {
  double keep = 0.9;  // weight of the past in the average of failures, [0, 1)
  double trip = 0.5;  // opens above this average of failures, [0, 1)
  Duration open_for = std::chrono::seconds(30);
  int probes = 1;                           // how many must succeed to close it again
  Duration slow = std::chrono::seconds(1);  // an answer later than this counts as a failure
  bool operator==(const BreakerConfig&) const = default;
};

struct BalanceConfig {
  double retries = 0.1;           // second tries, as a share of first ones, [0, 1]
  std::optional<Duration> hedge;  // ask a second parent after this long; nothing: never
  bool operator==(const BalanceConfig&) const = default;
};

struct BatchingConfig {
  int max_rows = 64;
  Duration max_delay{};
  bool operator==(const BatchingConfig&) const = default;
};

struct CacheConfig {
  std::int64_t memory_bytes = 64'000'000;
  Duration ttl = std::chrono::seconds(60);
  bool operator==(const CacheConfig&) const = default;
};

struct TlsConfig {
  std::string cert;  // files as written; PEM
  std::string key;
  std::string ca;  // empty: the system's authorities
  bool require_client = false;
  bool operator==(const TlsConfig&) const = default;
};

struct AuthConfig {
  std::string tokens;  // the file as written
  std::vector<TokenRule> rules;
  bool operator==(const AuthConfig&) const = default;
};

struct LimitsConfig {
  std::optional<std::int64_t> memory_bytes;        // nothing: no limit of our own
  std::optional<int> threads;                      // nothing: one for each core
  std::optional<std::int64_t> uplink_bytes_per_s;  // to all parents together; nothing: no limit
  std::int64_t request_bytes = 64'000'000;
  int connections = 1024;
  int in_flight = 256;
  int models = 64;
  Duration idle = std::chrono::seconds(60);
  bool operator==(const LimitsConfig&) const = default;
};

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogConfig {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  bool operator==(const LogConfig&) const = default;
};

struct TraceConfig {
  std::string otlp;      // a URL of OTLP over HTTP
  double sample = 0.01;  // share of requests, [0, 1]
  bool operator==(const TraceConfig&) const = default;
};

struct NodeConfig {
  std::string name;
  topology::Tier tier = topology::Tier::kDevice;
  std::filesystem::path dir;  // of node.yaml
  std::map<std::string, std::string> labels;
  std::vector<std::string> decisions;  // as written
  std::vector<ModelFile> models;
  std::string repository;  // as written; empty: none
  ListenConfig listen;
  bool insecure = false;
  std::vector<ParentConfig> parents;
  BreakerConfig breaker;
  BalanceConfig balance;
  BatchingConfig batching;
  std::optional<CacheConfig> cache = CacheConfig{};  // nothing: off
  std::optional<TlsConfig> tls;
  std::optional<AuthConfig> auth;  // nothing: whoever reaches the node may do everything
  LimitsConfig limits;
  LogConfig log;
  std::optional<TraceConfig> trace;
  Duration drain = std::chrono::seconds(10);

  // A file of this configuration, as it was written, from where the process stands.
  std::filesystem::path Path(const std::string& file) const { return dir / file; }
  bool operator==(const NodeConfig&) const = default;
};

// `host_name` names a node whose file does not.
Result<NodeConfig> LoadNodeFile(const std::filesystem::path& path, const std::string& host_name = "node");
// The same from text; `dir` is where its files are, `shown_as` what messages call it.
Result<NodeConfig> ParseNodeFile(const std::string& text, const std::filesystem::path& dir, const std::string& shown_as,
                                 const std::string& host_name = "node");

// The list of tokens.yaml: {token_sha256: 64 hexadecimal digits, role: infer or operate, name: who}.
Result<std::vector<TokenRule>> ParseTokensFile(const std::string& text, const std::string& shown_as);

// A node.yaml that reads back as `config`: what is not the default, with a word on each key. `ganglion init` writes it.
std::string WriteNodeFile(const NodeConfig& config);

std::string_view Name(Role role);         // "infer", "operate"
std::string_view Name(Stream stream);     // "auto", "always", "never"
std::string_view Name(LogLevel level);    // "debug", "info", "warning", "error"
std::string_view Name(LogFormat format);  // "text", "json"

}  // namespace ganglion::node
