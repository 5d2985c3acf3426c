// node.yaml and tokens.yaml. What is read is written, and what is written is read as the same.
#include "node/node_file.h"

#include <cstdlib>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  (void)ganglion::node::ParseTokensFile(text, "tokens.yaml");
  // "/" is the one directory that is everywhere, so that some files are without a mistake.
  const auto config = ganglion::node::ParseNodeFile(text, "/", "node.yaml");
  if (!config.ok()) return 0;
  const auto back = ganglion::node::ParseNodeFile(ganglion::node::WriteNodeFile(*config), "/", "node.yaml");
  if (!back.ok() || !(*back == *config)) std::abort();
  return 0;
}

std::vector<std::string> Seeds() {
  const std::string head = "node: n\ntier: edge\nrepository: .\n";
  return {head +
              "labels: {a: b}\nlisten: {http: \"127.0.0.1:0\", grpc: off, metrics: \"[::1]:9\", unix: s.sock}\n"
              "parents:\n  - {url: \"grpcs://e:1\", name: p, tier: region, model: m, version: \"3\", inputs: {x: y}, "
              "output: o,"
              " headers: {H: v}, stream: never, emulate: {delay: 2ms, jitter: 1us, loss: 0.5}}\n",
          head +
              "insecure: true\nbreaker: {keep: 0.8, trip: 0.4, open_for: 2s, probes: 2, slow: 1s}\n"
              "balance: {retries: 0.2, hedge: 20ms}\nbatching: {max_rows: 8, max_delay: 1ms}\n"
              "cache: {memory: 1.5MiB, ttl: 1m}\nlimits: {memory: 64MB, threads: 2, uplink: 64KB/s, request: 1MB, "
              "connections: 9, in_flight: 8, models: 7, idle: 6s}\n"
              "log: {level: debug, format: json}\ntrace: {otlp: \"http://h/v1\", sample: 0.1}\ndrain: 3s\n",
          "tier: device\ndecisions: [./d]\nmodels: [a.onnx, {name: b, file: c.onnx}]\ncache: off\n"
          "tls: {cert: c, key: k, ca: a, require_client: true}\nauth: {tokens: t}\nstate: {}\n",
          "- {token_sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, role: infer, name: a}\n"};
}
