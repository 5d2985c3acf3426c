#include <fmt/format.h>

#include <array>

#include "node/node_file.h"

namespace ganglion::node {
namespace {

// "{a: b, c: d}"
std::string Mapping(const std::map<std::string, std::string>& texts) {
  std::string text;
  for (const auto& [key, value] : texts) text += (text.empty() ? "" : ", ") + QuoteYaml(key) + ": " + QuoteYaml(value);
  return "{" + text + "}";
}

std::string ListText(const std::vector<std::string>& entries) {
  std::string text;
  for (const auto& e : entries) text += (text.empty() ? "" : ", ") + e;
  return "[" + text + "]";
}

// Collects "key: value" of what is not the default, for one mapping.
class Changed {
 public:
  void Add(const std::string& key, bool changed, const std::string& value) {
    if (changed) text_ += (text_.empty() ? "" : ", ") + key + ": " + value;
  }
  bool empty() const { return text_.empty(); }
  std::string Text() const { return "{" + text_ + "}"; }
  // A line of the file, or nothing.
  std::string Line(const std::string& key, const std::string& comment) const {
    return empty() ? "" : key + ": " + Text() + "  # " + comment + "\n";
  }

 private:
  std::string text_;
};

std::string AddressText(const std::optional<Address>& a) { return a ? "\"" + a->Text() + "\"" : "\"off\""; }

std::string ListenText(const ListenConfig& listen) {
  const ListenConfig defaults;
  Changed c;
  c.Add("http", listen.http != defaults.http, AddressText(listen.http));
  c.Add("grpc", listen.grpc != defaults.grpc, AddressText(listen.grpc));
  c.Add("metrics", listen.metrics != defaults.metrics, AddressText(listen.metrics));
  c.Add("unix", !listen.unix_path.empty(), QuoteYaml(listen.unix_path));
  c.Add("mailbox", !listen.mailbox_path.empty(), QuoteYaml(listen.mailbox_path));
  return c.Line("listen", "\"off\" switches one off; port 0 takes any free one");
}

std::string ParentText(const ParentConfig& p) {
  std::string text = "  - url: " + QuoteYaml(p.url) + "\n";
  const auto add = [&text](const std::string& key, bool given, const std::string& value) {
    if (given) text += "    " + key + ": " + value + "\n";
  };
  add("name", p.name != p.address.Text(), QuoteYaml(p.name));
  add("tier", p.tier.has_value(), std::string(topology::Name(p.tier.value_or(topology::Tier::kGlobal))));
  add("model", !p.model.empty(), QuoteYaml(p.model));
  add("version", !p.version.empty(), QuoteYaml(p.version));
  add("inputs", !p.inputs.empty(), Mapping(p.inputs));
  add("output", !p.output.empty(), QuoteYaml(p.output));
  add("headers", !p.headers.empty(), Mapping(p.headers));
  add("stream", p.stream != Stream::kAuto, std::string(Name(p.stream)));
  Changed e;
  e.Add("delay", p.emulate.delay != Duration::zero(), DurationText(p.emulate.delay));
  e.Add("jitter", p.emulate.jitter != Duration::zero(), DurationText(p.emulate.jitter));
  e.Add("loss", p.emulate.loss != 0, fmt::format("{}", p.emulate.loss));
  add("emulate", !e.empty(), e.Text());
  add("ca", !p.ca.empty(), QuoteYaml(p.ca));
  add("token", !p.token_variable.empty(), "\"${" + p.token_variable + "}\"  # of the environment");
  return text;
}

std::string TuningText(const NodeConfig& config) {
  const NodeConfig defaults;
  std::string text;
  Changed breaker;
  const auto& b = config.breaker;
  breaker.Add("keep", b.keep != defaults.breaker.keep, fmt::format("{}", b.keep));
  breaker.Add("trip", b.trip != defaults.breaker.trip, fmt::format("{}", b.trip));
  breaker.Add("open_for", b.open_for != defaults.breaker.open_for, DurationText(b.open_for));
  breaker.Add("probes", b.probes != defaults.breaker.probes, std::to_string(b.probes));
  breaker.Add("slow", b.slow != defaults.breaker.slow, DurationText(b.slow));
  text += breaker.Line("breaker", "when a parent that fails is left alone");
  Changed balance;
  balance.Add("retries", config.balance.retries != defaults.balance.retries, fmt::format("{}", config.balance.retries));
  balance.Add("hedge", config.balance.hedge.has_value(), DurationText(config.balance.hedge.value_or(Duration::zero())));
  text += balance.Line("balance", "second tries");
  Changed batching;
  batching.Add("max_rows", config.batching.max_rows != defaults.batching.max_rows,
               std::to_string(config.batching.max_rows));
  batching.Add("max_delay", config.batching.max_delay != defaults.batching.max_delay,
               DurationText(config.batching.max_delay));
  text += batching.Line("batching", "requests that run together");
  Changed cache;
  if (config.cache) {
    cache.Add("memory", config.cache->memory_bytes != defaults.cache->memory_bytes,
              ByteSizeText(config.cache->memory_bytes));
    cache.Add("ttl", config.cache->ttl != defaults.cache->ttl, DurationText(config.cache->ttl));
  }
  text += config.cache ? cache.Line("cache", "answers kept; or: off") : "cache: \"off\"\n";
  return text;
}

std::string LimitsText(const LimitsConfig& limits) {
  const LimitsConfig defaults;
  Changed c;
  c.Add("memory", limits.memory_bytes.has_value(), ByteSizeText(limits.memory_bytes.value_or(0)));
  c.Add("threads", limits.threads.has_value(), std::to_string(limits.threads.value_or(0)));
  c.Add("uplink", limits.uplink_bytes_per_s.has_value(), ByteSizeText(limits.uplink_bytes_per_s.value_or(0)) + "/s");
  c.Add("request", limits.request_bytes != defaults.request_bytes, ByteSizeText(limits.request_bytes));
  c.Add("connections", limits.connections != defaults.connections, std::to_string(limits.connections));
  c.Add("in_flight", limits.in_flight != defaults.in_flight, std::to_string(limits.in_flight));
  c.Add("models", limits.models != defaults.models, std::to_string(limits.models));
  c.Add("idle", limits.idle != defaults.idle, DurationText(limits.idle));
  return c.Line("limits", "what is more is refused");
}

std::string SecurityText(const NodeConfig& config) {
  std::string text;
  if (config.insecure) text += "insecure: true  # a lab network: no tls beyond loopback\n";
  if (config.tls) {
    Changed tls;
    tls.Add("cert", true, QuoteYaml(config.tls->cert));
    tls.Add("key", true, QuoteYaml(config.tls->key));
    tls.Add("ca", !config.tls->ca.empty(), QuoteYaml(config.tls->ca));
    tls.Add("require_client", config.tls->require_client, "true");
    text += tls.Line("tls", "PEM files");
  }
  if (config.auth) text += "auth: {tokens: " + QuoteYaml(config.auth->tokens) + "}\n";
  return text;
}

}  // namespace

std::string_view Name(Role role) { return role == Role::kInfer ? "infer" : "operate"; }

std::string_view Name(Stream stream) {
  return stream == Stream::kAuto ? "auto" : stream == Stream::kAlways ? "always" : "never";
}

std::string_view Name(LogLevel level) {
  constexpr std::array<std::string_view, 4> kNames{"debug", "info", "warning", "error"};
  return kNames[static_cast<std::size_t>(level)];
}

std::string_view Name(LogFormat format) { return format == LogFormat::kText ? "text" : "json"; }

std::string WriteNodeFile(const NodeConfig& c) {
  std::string text;
  if (!c.name.empty()) text += "node: " + QuoteYaml(c.name) + "\n";
  text += fmt::format("tier: {}  # device, edge, region, global\n", topology::Name(c.tier));
  if (!c.labels.empty()) text += "labels: " + Mapping(c.labels) + "\n";
  if (!c.decisions.empty()) {
    std::vector<std::string> entries;
    for (const auto& d : c.decisions) entries.push_back(QuoteYaml(d));
    text += "decisions: " + ListText(entries) + "  # directories with a decision.yaml\n";
  }
  if (!c.models.empty()) {
    std::vector<std::string> entries;
    for (const auto& m : c.models) {
      const bool named = m.name != std::filesystem::path(m.file).stem().string();
      entries.push_back(named ? "{name: " + QuoteYaml(m.name) + ", file: " + QuoteYaml(m.file) + "}"
                              : QuoteYaml(m.file));
    }
    text += "models: " + ListText(entries) + "  # served as they are\n";
  }
  if (!c.repository.empty()) text += "repository: " + QuoteYaml(c.repository) + "  # a Triton model repository\n";
  text += ListenText(c.listen) + SecurityText(c);
  if (!c.parents.empty()) text += "parents:  # who is asked when this tier may not answer\n";
  for (const auto& p : c.parents) text += ParentText(p);
  text += TuningText(c) + LimitsText(c.limits);
  Changed log;
  log.Add("level", c.log.level != LogLevel::kInfo, std::string(Name(c.log.level)));
  log.Add("format", c.log.format != LogFormat::kText, std::string(Name(c.log.format)));
  text += log.Line("log", "debug, info, warning, error; text or json");
  if (c.trace) text += fmt::format("trace: {{otlp: {}, sample: {}}}\n", QuoteYaml(c.trace->otlp), c.trace->sample);
  if (c.drain != NodeConfig{}.drain)
    text += "drain: " + DurationText(c.drain) + "  # how long a stop waits for answers\n";
  return text;
}

}  // namespace ganglion::node
