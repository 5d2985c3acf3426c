#include "node/node_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <set>

#include "base/limits.h"
#include "data/file.h"
#include "node/section.h"
#include "node/yaml.h"

namespace ganglion::node {
namespace {

using topology::Tier;

constexpr std::size_t kMaxEntries = 256;   // of any list or mapping in the file
constexpr std::size_t kMaxUnixPath = 107;  // sockaddr_un
constexpr std::int64_t kMaxSize = std::int64_t{1} << 50;

class NodeFile {
 public:
  NodeFile(YamlReader* y, const std::filesystem::path& dir) : y_(*y), root_(y->root()) { c_.dir = dir; }

  NodeConfig Read(const std::string& host_name) {
    y_.KnownKeys(root_, "", {"node",     "tier",    "labels",  "decisions", "models",   "repository", "listen",
                             "insecure", "parents", "breaker", "balance",   "batching", "cache",      "tls",
                             "auth",     "limits",  "log",     "trace",     "drain",    "state",      "audit"});
    for (const char* later : {"state", "audit"}) {
      if (Given(root_, later)) y_.Error(root_[later], std::string(later) + " is not in this version yet; leave it out");
    }
    Section top(&y_, root_, "");
    ReadWho(top, host_name);
    ReadServed(top);
    top.Flag("insecure", &c_.insecure);
    ReadTls();
    ReadListen();
    ReadParents();
    ReadTuning();
    ReadAuth();
    ReadRest(top);
    return std::move(c_);
  }
  // The mistakes of tokens.yaml, which has its own lines.
  const Status& tokens_status() const { return tokens_status_; }

 private:
  void ReadWho(Section& top, const std::string& host_name) {
    c_.name = host_name;
    if (const std::string name = top.Text("node"); !name.empty()) {
      c_.name = name;
      if (!IsPlainName(name)) top.Mistake("node", "\"" + name + "\" is no name; at most 128 letters, digits, - _ .");
    }
    ReadTier(top, &c_.tier, /*required=*/true);
    c_.labels = ReadTexts(root_, "", "labels", "{site: lyon, ring: canary}");
    for (const auto& [key, value] : c_.labels) {
      if (!IsPlainName(key))
        y_.Error(root_["labels"], "labels has a key \"" + key + "\" with more than letters, digits, - _ .");
    }
  }

  bool ReadTier(Section& s, Tier* tier, bool required) {
    const std::string text = s.Text("tier", required);
    if (text.empty()) return false;
    const auto t = topology::TierFromName(text);
    if (!t) {
      s.Mistake("tier", "\"" + text + "\" is no tier; one of device, edge, region, global");
      return false;
    }
    *tier = *t;
    return true;
  }

  // A mapping of text to text.
  std::map<std::string, std::string> ReadTexts(const YAML::Node& parent, const std::string& where,
                                               const std::string& key, const std::string& example) {
    std::map<std::string, std::string> texts;
    const auto section = Section::Open(&y_, parent, where, key, {}, example, /*any=*/true);
    if (!section) return texts;
    if (section->map().size() > kMaxEntries)
      y_.Error(section->map(), fmt::format("{}{} has more entries than the limit of {}", where, key, kMaxEntries));
    for (const auto& pair : section->map()) {
      if (!pair.first.IsScalar() || pair.first.Scalar().empty() || !pair.second.IsScalar()) {
        y_.Error(pair.first, where + key + " must hold one text for each name, for example " + example);
      } else {
        texts[pair.first.Scalar()] = pair.second.Scalar();
      }
    }
    return texts;
  }

  void Exists(const YAML::Node& at, const std::string& what, const std::string& file, bool directory) {
    std::error_code error;
    const auto path = c_.Path(file);
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) {
      y_.Error(at, what + " " + path.string() + " does not exist");
    } else if (directory != std::filesystem::is_directory(status) ||
               (!directory && !std::filesystem::is_regular_file(status))) {
      y_.Error(at, what + " " + path.string() + (directory ? " is no directory" : " is no file"));
    }
  }

  // Nothing when the key is absent or no list.
  std::optional<YAML::Node> List(const std::string& key, const std::string& example) {
    if (!Given(root_, key)) return std::nullopt;
    const YAML::Node list = root_[key];
    if (!list.IsSequence() || list.size() == 0 || list.size() > kMaxEntries) {
      y_.Error(list, fmt::format("{} must list 1 to {} entries, for example {}", key, kMaxEntries, example));
      return std::nullopt;
    }
    return list;
  }

  void ReadServed(Section& top) {
    if (const auto list = List("decisions", "[./fashion]")) {
      for (std::size_t i = 0; i < list->size(); ++i) {
        const YAML::Node entry = (*list)[i];
        const std::string where = fmt::format("decisions[{}]", i);
        if (!entry.IsScalar() || entry.Scalar().empty()) {
          y_.Error(entry, where + " must be a directory");
          continue;
        }
        const std::string& dir = entry.Scalar();
        if (std::find(c_.decisions.begin(), c_.decisions.end(), dir) != c_.decisions.end())
          y_.Error(entry, where + " " + dir + " is listed twice");
        std::error_code error;
        const bool is_dir = std::filesystem::is_directory(c_.Path(dir), error);
        if (is_dir && !std::filesystem::exists(c_.Path(dir) / "decision.yaml", error)) {
          y_.Error(entry, where + " " + c_.Path(dir).string() + " has no decision.yaml; `ganglion init` makes one");
        } else if (!is_dir) {
          Exists(entry, where, dir, true);
        }
        c_.decisions.push_back(dir);
      }
    }
    const std::string model_example = "[linear.onnx, {name: big, file: big.onnx}]";
    if (const auto list = List("models", model_example)) {
      for (std::size_t i = 0; i < list->size(); ++i) ReadModel((*list)[i], fmt::format("models[{}]", i), model_example);
    }
    c_.repository = top.Text("repository");
    if (!c_.repository.empty()) Exists(root_["repository"], "repository", c_.repository, true);
    if (!Given(root_, "decisions") && !Given(root_, "models") && !Given(root_, "repository"))
      y_.Error(root_, "there is nothing to serve; give one of decisions, models, repository");
  }

  void ReadModel(const YAML::Node& entry, const std::string& where, const std::string& example) {
    ModelFile model;
    if (entry.IsScalar() && !entry.Scalar().empty()) {
      model.file = entry.Scalar();
    } else if (entry.IsMap()) {
      y_.KnownKeys(entry, where + ".", {"name", "file"});
      Section s(&y_, entry, where + ".");
      model.name = s.Text("name");
      model.file = s.Text("file", true);
    } else {
      return y_.Error(entry, where + " must be a file or a mapping, for example " + example);
    }
    if (model.file.empty()) return;
    if (model.name.empty()) model.name = std::filesystem::path(model.file).stem().string();
    if (!IsPlainName(model.name)) {
      y_.Error(entry, where + " is called \"" + model.name +
                          "\", which is no name; give it one of letters, digits, "
                          "- _ . with {name: NAME, file: FILE}");
    }
    for (const auto& other : c_.models) {
      if (other.name == model.name)
        y_.Error(entry, where + " is called " + model.name + " as " + other.file + " is; name one of them");
    }
    Exists(entry, where, model.file, false);
    c_.models.push_back(std::move(model));
  }

  void ReadTls() {
    auto s = Section::Open(&y_, root_, "", "tls", {"cert", "key", "ca", "require_client"},
                           "{cert: node.pem, key: node.key}");
    if (!s) return;
    c_.tls.emplace();
    c_.tls->cert = s->Text("cert", true);
    c_.tls->key = s->Text("key", true);
    c_.tls->ca = s->Text("ca");
    for (const auto& [key, file] : {std::pair{"cert", c_.tls->cert}, {"key", c_.tls->key}, {"ca", c_.tls->ca}}) {
      if (!file.empty()) Exists(s->map()[key], std::string("tls.") + key, file, false);
    }
    s->Flag("require_client", &c_.tls->require_client);
    if (c_.tls->require_client && c_.tls->ca.empty())
      s->Mistake("require_client", "needs tls.ca, the authority whose clients are let in");
  }

  void ReadListen() {
    auto s = Section::Open(&y_, root_, "", "listen", {"http", "grpc", "metrics", "unix", "mailbox"},
                           "{http: \"127.0.0.1:8000\", grpc: \"off\"}");
    if (!s) return;
    const std::array<std::pair<const char*, std::optional<Address>*>, 3> addresses{
        {{"http", &c_.listen.http}, {"grpc", &c_.listen.grpc}, {"metrics", &c_.listen.metrics}}};
    for (const auto& [key, address] : addresses) {
      const std::string text = s->Text(key);
      if (text.empty()) continue;
      if (text == "off") {
        address->reset();
        continue;
      }
      auto parsed = ParseAddress(text);
      if (!parsed.ok()) {
        s->Mistake(key, parsed.status().message());
        continue;
      }
      *address = std::move(*parsed);
      // A tls section that is wrong is a mistake of its own, not a second one here.
      if (!(*address)->IsLoopback() && !Given(root_, "tls") && !c_.insecure) {
        s->Mistake(key, (*address)->Text() + " without tls refused; set tls, or insecure: true on a lab network.");
      }
    }
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      for (std::size_t j = i + 1; j < addresses.size(); ++j) {
        const auto& a = *addresses[i].second;
        const auto& b = *addresses[j].second;
        if (!a || !b || a->port == 0 || a->port != b->port) continue;
        if (a->host == b->host || a->IsWildcard() || b->IsWildcard())
          s->Mistake(addresses[j].first,
                     fmt::format("{} is taken by listen.{} {}", b->Text(), addresses[i].first, a->Text()));
      }
    }
    if (const std::string path = s->Text("mailbox"); !path.empty() && path != "off") {
      c_.listen.mailbox_path = path;
      if (c_.Path(path).string().size() > 100)
        s->Mistake("mailbox", "is a path of more than 100 characters, which a socket cannot have");
    }
    if (const std::string path = s->Text("unix"); !path.empty() && path != "off") {
      c_.listen.unix_path = path;
      const std::string full = c_.Path(path).string();
      if (full.size() > kMaxUnixPath)
        s->Mistake("unix",
                   fmt::format("{} has {} bytes; a socket's path has at most {}", full, full.size(), kMaxUnixPath));
    }
    if (!c_.listen.http && !c_.listen.grpc && c_.listen.unix_path.empty() && c_.listen.mailbox_path.empty())
      y_.Error(s->map(), "listen leaves nobody a way in; leave one of http, grpc, unix, mailbox on");
  }

  void ReadParents() {
    const auto list = List("parents", "[{url: \"grpcs://edge.lyon:8001\"}]");
    if (!list) return;
    for (std::size_t i = 0; i < list->size(); ++i) {
      const std::string where = fmt::format("parents[{}]", i);
      const YAML::Node node = (*list)[i];
      if (!node.IsMap()) {
        y_.Error(node, where + " must be a mapping, for example {url: \"grpcs://edge.lyon:8001\"}");
        continue;
      }
      ParentConfig p = ReadParent(node, where + ".");
      for (const auto& other : c_.parents) {
        if (!p.name.empty() && other.name == p.name)
          y_.Error(node, where + " is called " + p.name + " as another parent is; give it a name of its own");
      }
      c_.parents.push_back(std::move(p));
    }
  }

  ParentConfig ReadParent(const YAML::Node& node, const std::string& where) {
    ParentConfig p;
    y_.KnownKeys(
        node, where,
        {"url", "name", "tier", "model", "version", "inputs", "output", "headers", "stream", "emulate", "token", "ca"});
    Section s(&y_, node, where);
    if (p.url = s.Text("url", true); !p.url.empty()) {
      auto url = ParseUrl(p.url, {"grpc", "grpcs"});
      if (!url.ok()) {
        s.Mistake("url", url.status().message());
      } else if (!url->path.empty() && url->path != "/") {
        s.Mistake("url", "\"" + p.url + "\" has a path, which gRPC has not; write " + url->scheme + "://" +
                             url->address.Text());
      } else {
        p.tls = url->scheme == "grpcs";
        p.address = url->address;
        p.name = p.address.Text();
      }
    }
    if (const std::string name = s.Text("name"); !name.empty()) {
      p.name = name;
      if (!IsPlainName(name)) s.Mistake("name", "\"" + name + "\" is no name; at most 128 letters, digits, - _ .");
    }
    Tier tier{};
    if (ReadTier(s, &tier, false)) {
      p.tier = tier;
      if (tier < c_.tier)
        s.Mistake("tier",
                  fmt::format("{} lies below this node's own, {}", topology::Name(tier), topology::Name(c_.tier)));
    }
    p.model = s.Text("model");
    p.version = s.Text("version");
    p.output = s.Text("output");
    p.inputs = ReadTexts(node, where, "inputs", "{image: INPUT__0}");
    std::set<std::string> theirs;
    for (const auto& [ours, their] : p.inputs) {
      if (!theirs.insert(their).second)
        s.Mistake("inputs", "gives the parent's input " + their + " twice; each of ours has its own");
    }
    p.headers = ReadTexts(node, where, "headers", "{Host: big.example}");
    CheckHeaders(s, p.headers);
    s.Choice("stream", {Stream::kAuto, Stream::kAlways, Stream::kNever}, &p.stream);
    p.ca = s.Text("ca");
    if (!p.ca.empty()) Exists(s.map()["ca"], "parents.ca", p.ca, false);
    if (!p.ca.empty() && !p.tls) s.Mistake("ca", "goes with grpcs://; the url is in the clear");
    if (auto e = Section::Open(&y_, node, where, "emulate", {"delay", "jitter", "loss"}, "{delay: 20ms, loss: 0.01}")) {
      e->Time("delay", &p.emulate.delay, true);
      e->Time("jitter", &p.emulate.jitter, true);
      e->Share("loss", &p.emulate.loss, false);
    }
    ReadToken(s, &p);
    return p;
  }

  void CheckHeaders(Section& s, const std::map<std::string, std::string>& headers) {
    std::set<std::string> seen;
    for (const auto& [name, value] : headers) {
      std::string lower;
      for (const char c : name) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (!seen.insert(lower).second) s.Mistake("headers", "has " + name + " twice");
      if (!IsPlainName(name) ||
          std::any_of(value.begin(), value.end(), [](unsigned char c) { return c < ' ' || c > '~'; }))
        s.Mistake("headers", "has \"" + name + "\", which is no header of plain ASCII");
      if (lower == "authorization")
        s.Mistake("headers", "has " + name + ", a secret in a file; leave it out and write token: \"${NAME}\"");
      if (lower.starts_with("grpc-") || lower == "te" || lower == "content-type")
        s.Mistake("headers", "has " + name + ", which gRPC sets itself");
    }
  }

  // Never quotes a literal: what was meant to be secret does not belong into a log either.
  void ReadToken(Section& s, ParentConfig* p) {
    const std::string text = s.Text("token");
    if (text.empty()) return;
    const bool reference = text.size() > 3 && text.starts_with("${") && text.back() == '}';
    const std::string name = reference ? text.substr(2, text.size() - 3) : "";
    if (!reference || std::isdigit(static_cast<unsigned char>(name[0])) ||
        !std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '_'; })) {
      return s.Mistake("token",
                       "must name a variable of the environment, for example \"${PARENT_TOKEN}\"; a token itself "
                       "does not belong into a file");
    }
    p->token_variable = name;
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') {
      s.Mistake("token", "needs the variable " + name + " of the environment, which is not set");
    } else {
      p->token = value;
      if (std::any_of(p->token.begin(), p->token.end(), [](unsigned char c) { return c <= ' ' || c > '~'; }))
        s.Mistake("token", "has blanks or characters beyond ASCII in the variable " + name);
    }
    if (!p->url.empty() && !p->address.host.empty() && !p->tls && !p->address.IsLoopback() && !c_.insecure)
      s.Mistake("token", "would travel in the clear; use grpcs://" + p->address.Text() +
                             ", or insecure: true on a lab network.");
  }

  void ReadTuning() {
    if (auto s = Section::Open(&y_, root_, "", "breaker", {"keep", "trip", "open_for", "probes", "slow"},
                               "{trip: 0.5, open_for: 30s}")) {
      s->Share("keep", &c_.breaker.keep, false);
      s->Share("trip", &c_.breaker.trip, false);
      s->Time("open_for", &c_.breaker.open_for, false);
      s->Integer("probes", &c_.breaker.probes, 1, 1000);
      s->Time("slow", &c_.breaker.slow, false);
    }
    if (auto s = Section::Open(&y_, root_, "", "balance", {"retries", "hedge"}, "{retries: 0.1, hedge: 20ms}")) {
      s->Share("retries", &c_.balance.retries, true);
      if (const std::string hedge_text = s->Text("hedge"); !hedge_text.empty() && hedge_text != "off") {
        Duration hedge{};
        s->Time("hedge", &hedge, false);
        if (hedge > Duration::zero()) c_.balance.hedge = hedge;
      }
    }
    if (auto s =
            Section::Open(&y_, root_, "", "batching", {"max_rows", "max_delay"}, "{max_rows: 64, max_delay: 2ms}")) {
      s->Integer("max_rows", &c_.batching.max_rows, 1, 65536);
      s->Time("max_delay", &c_.batching.max_delay, true);
    }
    if (Given(root_, "cache") && root_["cache"].IsScalar() && root_["cache"].Scalar() == "off") {
      c_.cache.reset();
    } else if (auto s = Section::Open(&y_, root_, "", "cache", {"memory", "ttl"}, "{memory: 64MB, ttl: 60s}, or off")) {
      s->Size("memory", &c_.cache->memory_bytes, 1000, kMaxSize);
      s->Time("ttl", &c_.cache->ttl, false);
    }
    if (auto s = Section::Open(&y_, root_, "", "limits",
                               {"memory", "threads", "uplink", "request", "connections", "in_flight", "models", "idle"},
                               "{memory: 128MB, threads: 2}")) {
      std::int64_t memory = 0;
      s->Size("memory", &memory, 1'000'000, kMaxSize);
      if (memory > 0) c_.limits.memory_bytes = memory;
      int threads = 0;
      s->Integer("threads", &threads, 1, 1024);
      if (threads > 0) c_.limits.threads = threads;
      std::int64_t uplink = 0;
      s->Size("uplink", &uplink, 1, kMaxSize, /*rate=*/true);
      if (uplink > 0) c_.limits.uplink_bytes_per_s = uplink;
      s->Size("request", &c_.limits.request_bytes, 1000, 2'000'000'000);
      s->Integer("connections", &c_.limits.connections, 1, 1'000'000);
      s->Integer("in_flight", &c_.limits.in_flight, 1, 1'000'000);
      s->Integer("models", &c_.limits.models, 1, 100'000);
      s->Time("idle", &c_.limits.idle, false);
    }
  }

  void ReadAuth() {
    auto s = Section::Open(&y_, root_, "", "auth", {"tokens"}, "{tokens: tokens.yaml}");
    if (!s) return;
    c_.auth.emplace();
    c_.auth->tokens = s->Text("tokens", true);
    if (c_.auth->tokens.empty()) return;
    const auto path = c_.Path(c_.auth->tokens);
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error))  // a pipe would keep us waiting
      return Exists(s->map()["tokens"], "auth.tokens", c_.auth->tokens, false);
    const auto text = data::ReadFile(path, limits::kMaxConfigBytes);
    if (!text.ok()) return s->Mistake("tokens", text.status().message());
    auto rules = ParseTokensFile(*text, path.string());
    if (rules.ok()) {
      c_.auth->rules = std::move(*rules);
    } else {
      tokens_status_ = rules.status();
    }
  }

  void ReadRest(Section& top) {
    if (auto s = Section::Open(&y_, root_, "", "log", {"level", "format"}, "{level: info, format: json}")) {
      s->Choice("level", {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}, &c_.log.level);
      s->Choice("format", {LogFormat::kText, LogFormat::kJson}, &c_.log.format);
    }
    if (auto s =
            Section::Open(&y_, root_, "", "trace", {"otlp", "sample"}, "{otlp: \"http://127.0.0.1:4318/v1/traces\"}")) {
      c_.trace.emplace();
      c_.trace->otlp = s->Text("otlp", true);
      if (!c_.trace->otlp.empty()) {
        if (const auto url = ParseUrl(c_.trace->otlp, {"http", "https"}); !url.ok())
          s->Mistake("otlp", url.status().message());
      }
      s->Share("sample", &c_.trace->sample, true);
    }
    top.Time("drain", &c_.drain, true);
  }

  YamlReader& y_;
  const YAML::Node root_;
  NodeConfig c_;
  Status tokens_status_;
};

}  // namespace

Result<NodeConfig> ParseNodeFile(const std::string& text, const std::filesystem::path& dir, const std::string& shown_as,
                                 const std::string& host_name) {
  YamlReader y(shown_as, text);
  if (!y.ok() || !y.root().IsMap()) return y.Finish();
  NodeFile file(&y, dir);
  NodeConfig config = file.Read(host_name);
  const Status here = y.Finish();
  if (here.ok() && file.tokens_status().ok()) return config;
  if (here.ok() || file.tokens_status().ok()) return here.ok() ? file.tokens_status() : here;
  return InvalidArgument(here.message() + "\n" + file.tokens_status().message());
}

Result<NodeConfig> LoadNodeFile(const std::filesystem::path& path, const std::string& host_name) {
  auto text = data::ReadFile(path, limits::kMaxConfigBytes);
  if (!text.ok()) {
    return text.status().code() == Code::kNotFound
               ? NotFound(path.string() + " does not exist; `ganglion init` makes one")
               : text.status();
  }
  return ParseNodeFile(*text, path.parent_path(), path.string(), host_name);
}

}  // namespace ganglion::node
