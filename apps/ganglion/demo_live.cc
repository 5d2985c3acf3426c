#include "demo_live.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "child.h"
#include "data/data.h"
#include "live_load.h"
#include "net/http_client.h"
#include "node/node.h"
#include "node/node_file.h"
#include "stats/summary.h"
#include "terminal.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;
using topology::Tier;

constexpr Duration kOpenFor = std::chrono::seconds(3);
constexpr Duration kDeadline = std::chrono::seconds(1);
constexpr Duration kStartPatience = std::chrono::seconds(8);
constexpr Duration kDrainPatience = std::chrono::seconds(12);  // a node's own is 10

// Shares of the run; the rest of it is starting and ending.
constexpr double kAllUp = 8. / 60;
constexpr double kDown = 5. / 60;
constexpr double kBack = 9. / 60;
constexpr double kDrained = 6. / 60;

TimePoint Now() { return std::chrono::steady_clock::now(); }
std::string NameOf(Tier tier) { return std::string(topology::Name(tier)); }

struct Phase {
  std::string name;
  TimePoint begin{};
};

// What happened in one phase: to the requests that ended in it.
struct Tally {
  std::size_t answered = 0, lost = 0, hung = 0, unlabelled = 0;
  std::array<std::size_t, topology::kTierCount> by_tier{};
  std::size_t accepted = 0, accepted_right = 0, degraded = 0, degraded_right = 0;
  std::map<std::string, std::size_t> reasons;  // of degraded answers
  std::map<std::string, std::size_t> errors;   // of lost requests
  std::vector<double> ms;                      // of answers

  std::size_t sent() const { return answered + lost + hung; }
  void Add(const LiveSample& s) {
    switch (s.end) {
      case LiveSample::End::kHung:
        ++hung;
        return;
      case LiveSample::End::kLost:
        ++lost;
        ++errors[s.why];
        return;
      case LiveSample::End::kAnswered:
        break;
    }
    ++answered;
    unlabelled += s.labelled ? 0 : 1;
    ++by_tier[static_cast<std::size_t>(s.tier)];
    ms.push_back(s.ms);
    if (s.degraded) {
      ++degraded;
      degraded_right += s.right ? 1 : 0;
      ++reasons[s.why];
    } else {
      ++accepted;
      accepted_right += s.right ? 1 : 0;
    }
  }
};

struct Recovery {
  Tier tier = Tier::kDevice;
  double start_s = 0;               // until it was ready
  std::optional<double> decides_s;  // from then until the first answer that it accepted; nothing: not in its phase
};

class Live {
 public:
  Live(Context& context, const LiveSettings& settings) : context_(context), settings_(settings) {}

  Status Run();

 private:
  struct Node {
    Tier tier = Tier::kDevice;
    std::string url;
    fs::path file;
    fs::path log;
    std::optional<Child> child;
  };
  Node& at(Tier tier) { return nodes_[static_cast<std::size_t>(tier)]; }

  Status WriteFiles();
  Status Start(Node& node);
  Status Waited(Node& node);
  Status Play(LiveLoad& load);
  Status KillAndRestart(LiveLoad& load, Tier tier);
  Status Drain(Tier tier);
  void EndAll();
  void Begin(const std::string& name);
  Status Pause(Duration d);
  Duration Share(double share) const { return FromMilliseconds(1000 * settings_.seconds * share); }
  std::vector<Tally> Count(const std::vector<LiveSample>& samples) const;
  void Print(const std::vector<Tally>& tallies) const;
  std::string Figures(const std::vector<Tally>& tallies, TimePoint end) const;

  Context& context_;
  const LiveSettings settings_;
  TimePoint begin_{};
  std::array<Node, topology::kTierCount> nodes_;
  std::vector<Phase> phases_;
  std::vector<Recovery> recoveries_;
  Tier drained_ = Tier::kEdge;
  std::optional<int> drain_code_;
  double drain_s_ = 0;
};

// OK when the time has passed, CANCELLED on Ctrl-C.
Status Live::Pause(Duration d) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait_for(lock, context_.stop, d, [] { return false; });
  return context_.stop.stop_requested() ? Cancelled("stopped; the nodes are ended") : Status();
}

void Live::Begin(const std::string& name) {
  phases_.push_back({name, Now()});
  fmt::print("{:5.1f}s  {}\n", Milliseconds(Now() - begin_) / 1000, name);
  std::fflush(stdout);
}

Status Live::WriteFiles() {
  std::error_code error;
  fs::create_directories(settings_.dir, error);
  if (error) return Unavailable(settings_.dir.string() + ": " + error.message());
  ASSIGN_OR_RETURN(const auto ports, FreePorts(3 * nodes_.size()));
  const auto topology = topology::Topology::Default();
  for (const Tier tier : topology::kTiers) {
    const auto i = static_cast<std::size_t>(tier);
    Node& node = nodes_[i];
    node.tier = tier;
    node.url = fmt::format("http://127.0.0.1:{}", ports[3 * i]);
    node.file = settings_.dir / ("node." + NameOf(tier) + ".yaml");
    node.log = settings_.dir / (NameOf(tier) + ".log");
    fs::remove(node.log, error);

    node::NodeConfig c;
    c.name = NameOf(tier);
    c.tier = tier;
    c.decisions = {fs::relative(settings_.decision, settings_.dir, error).string()};
    if (error) return Unavailable(settings_.decision.string() + ": " + error.message());
    c.listen.http = node::Address{"127.0.0.1", ports[3 * i]};
    c.listen.grpc = node::Address{"127.0.0.1", ports[3 * i + 1]};
    c.listen.metrics = node::Address{"127.0.0.1", ports[3 * i + 2]};
    c.breaker.open_for = kOpenFor;
    c.cache.reset();
    if (i + 1 < nodes_.size()) {
      const auto& link = topology.at(topology::kTiers[i + 1]);
      node::ParentConfig parent;
      parent.address = node::Address{"127.0.0.1", ports[3 * (i + 1) + 1]};
      parent.url = "grpc://" + parent.address.Text();
      parent.name = NameOf(topology::kTiers[i + 1]);
      parent.emulate.delay = link.MeanRoundTrip();
      parent.emulate.jitter = (link.round_trip_max - link.round_trip_min) / 2;
      c.parents.push_back(std::move(parent));
    }
    RETURN_IF_ERROR(data::WriteFileAtomically(node.file, node::WriteNodeFile(c)));
  }
  return {};
}

// Starts the node and waits until it is ready.
Status Live::Start(Node& node) {
  // Itself, even if the file was replaced meanwhile.
  ASSIGN_OR_RETURN(auto child, Child::Start({"/proc/self/exe", "serve", node.file.string()}, node.log));
  node.child = std::move(child);
  return Waited(node);
}

Status Live::Waited(Node& node) {
  net::HttpQuestion ready;
  ready.url = node.url + "/v2/health/ready";
  for (const TimePoint end = Now() + kStartPatience; Now() < end;) {
    if (const auto code = node.child->Ended())
      return Unavailable(
          fmt::format("the {} node ended with {}; {} says why", NameOf(node.tier), *code, node.log.string()));
    const auto answer = net::Ask(ready, std::chrono::seconds(1));
    if (answer.ok() && answer->status == 200) return {};
    RETURN_IF_ERROR(Pause(std::chrono::milliseconds(10)));
  }
  return Unavailable(fmt::format("the {} node was not ready within {:.0f} s; see {}", NameOf(node.tier),
                                 Milliseconds(kStartPatience) / 1000, node.log.string()));
}

Status Live::KillAndRestart(LiveLoad& load, Tier tier) {
  Node& node = at(tier);
  Begin("kill -9 " + NameOf(tier));
  node.child->Kill();
  RETURN_IF_ERROR(Pause(Share(kDown)));
  Begin(NameOf(tier) + " back");
  const TimePoint began = Now();
  RETURN_IF_ERROR(Start(node));
  const TimePoint ready = Now();
  Recovery r{tier, Milliseconds(ready - began) / 1000, {}};
  while (Now() < began + Share(kBack)) {
    if (!r.decides_s) {
      if (const auto accepted = load.Accepted(tier, began))
        r.decides_s = std::max(0., Milliseconds(*accepted - ready) / 1000);
    }
    RETURN_IF_ERROR(Pause(std::chrono::milliseconds(50)));
  }
  recoveries_.push_back(r);
  return {};
}

Status Live::Drain(Tier tier) {
  Node& node = at(tier);
  drained_ = tier;
  Begin("SIGTERM " + NameOf(tier));
  const TimePoint began = Now();
  node.child->Signal(SIGTERM);
  while (!drain_code_ && Now() < began + kDrainPatience) {
    RETURN_IF_ERROR(Pause(std::chrono::milliseconds(5)));
    drain_code_ = node.child->Ended();
  }
  drain_s_ = Milliseconds(Now() - began) / 1000;
  const Duration left = began + Share(kDrained) - Now();
  return left > Duration::zero() ? Pause(left) : Status();
}

Status Live::Play(LiveLoad& load) {
  Begin("all up");
  RETURN_IF_ERROR(Pause(Share(kAllUp)));
  for (const Tier tier : {Tier::kGlobal, Tier::kRegion, Tier::kEdge}) RETURN_IF_ERROR(KillAndRestart(load, tier));
  return Drain(Tier::kEdge);
}

// In good order where they heed it; what is left then is killed.
void Live::EndAll() {
  for (Node& node : nodes_) {
    if (node.child) node.child->Signal(SIGTERM);
  }
  for (Node& node : nodes_) {
    if (node.child) node.child->Wait(std::chrono::seconds(1));
    node.child.reset();
  }
}

std::vector<Tally> Live::Count(const std::vector<LiveSample>& samples) const {
  std::vector<Tally> tallies(phases_.size());
  for (const LiveSample& s : samples) {
    std::size_t i = phases_.size() - 1;
    while (i > 0 && s.at < phases_[i].begin) --i;
    tallies[i].Add(s);
  }
  return tallies;
}

std::string ReasonsText(const std::map<std::string, std::size_t>& reasons) {
  std::string text;
  for (const auto& [reason, n] : reasons) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", n, reason);
  return text.empty() ? "-" : text;
}

void Live::Print(const std::vector<Tally>& tallies) const {
  Table table({"phase", "sent", "answered", "lost", "hung", "device", "edge", "region", "global", "accepted", "right",
               "degraded", "p50", "p99"});
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    const Tally& t = tallies[i];
    const auto ms = stats::Summarize(t.ms);
    std::vector<std::string> cells{phases_[i].name};
    for (const std::size_t n :
         {t.sent(), t.answered, t.lost, t.hung, t.by_tier[0], t.by_tier[1], t.by_tier[2], t.by_tier[3], t.accepted})
      cells.push_back(Thousands(static_cast<long long>(n)));
    cells.push_back(t.accepted == 0 ? "-"
                                    : Percent(static_cast<double>(t.accepted_right) / static_cast<double>(t.accepted)));
    cells.push_back(ReasonsText(t.reasons));
    cells.push_back(Millis(ms.p50));
    cells.push_back(Millis(ms.p99));
    table.Row(std::move(cells), t.lost + t.hung + t.unlabelled > 0 ? Colour::kRed
                                : t.degraded > 0                   ? Colour::kYellow
                                                                   : Colour::kGreen);
  }
  fmt::print("\n{}\n", table.Text(ColourOut()));
  fmt::print(
      "each request in the phase in which it ended; right: what was accepted, against the labels of the test images\n"
      "degraded: the best answer below, because the next tier was unreachable, or had itself nobody above\n\n");
  std::string back;
  for (const Recovery& r : recoveries_) {
    back += fmt::format("{}{} {}", back.empty() ? "" : ", ", NameOf(r.tier),
                        r.decides_s ? fmt::format("{:.1f} s", *r.decides_s) : "not in its phase");
  }
  fmt::print("from ready to deciding again: {} (breakers stay open for {:.0f} s; then a hard image has to come)\n",
             back, Milliseconds(kOpenFor) / 1000);
  fmt::print("SIGTERM: {} {}\n", NameOf(drained_),
             drain_code_ ? fmt::format("finished what it had and ended with {} after {:.2f} s", *drain_code_, drain_s_)
                         : fmt::format("had not ended after {:.0f} s", drain_s_));
}

std::string Live::Figures(const std::vector<Tally>& tallies, TimePoint end) const {
  wire::Json phases = wire::Json::array();
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    const Tally& t = tallies[i];
    const auto ms = stats::Summarize(t.ms);
    const TimePoint until = i + 1 < phases_.size() ? phases_[i + 1].begin : end;
    wire::Json tiers;
    for (const Tier tier : topology::kTiers) tiers[NameOf(tier)] = t.by_tier[static_cast<std::size_t>(tier)];
    phases.push_back({{"name", phases_[i].name},
                      {"seconds", Milliseconds(until - phases_[i].begin) / 1000},
                      {"sent", t.sent()},
                      {"answered", t.answered},
                      {"lost", t.lost},
                      {"hung", t.hung},
                      {"unlabelled", t.unlabelled},
                      {"by_tier", tiers},
                      {"accepted", t.accepted},
                      {"accepted_right", t.accepted_right},
                      {"degraded", t.degraded},
                      {"degraded_right", t.degraded_right},
                      {"reasons", wire::Json(t.reasons)},
                      {"errors", wire::Json(t.errors)},
                      {"p50_ms", ms.p50},
                      {"p99_ms", ms.p99},
                      {"max_ms", ms.max}});
  }
  wire::Json recoveries = wire::Json::array();
  for (const Recovery& r : recoveries_) {
    recoveries.push_back({{"tier", NameOf(r.tier)}, {"start_s", r.start_s}, {"decides_s", nullptr}});
    if (r.decides_s) recoveries.back()["decides_s"] = *r.decides_s;
  }
  wire::Json drain{{"tier", NameOf(drained_)}, {"seconds", drain_s_}, {"exit_code", nullptr}};
  if (drain_code_) drain["exit_code"] = *drain_code_;
  return wire::WriteJson({{"rate_per_s", settings_.rate_per_s},
                          {"deadline_ms", Milliseconds(kDeadline)},
                          {"breaker_open_for_s", Milliseconds(kOpenFor) / 1000},
                          {"phases", phases},
                          {"recoveries", recoveries},
                          {"drain", drain}});
}

Status Live::Run() {
  LiveLoadOptions load_options;
  {
    ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(context_.engine, settings_.decision));
    load_options.model = decision->config().name;
    load_options.input = decision->config().inputs[0].name;
  }
  ASSIGN_OR_RETURN(const auto rows, data::LoadDataset((settings_.data / "t10k").string()));
  begin_ = Now();
  RETURN_IF_ERROR(WriteFiles());
  for (const Tier tier : {Tier::kGlobal, Tier::kRegion, Tier::kEdge, Tier::kDevice}) RETURN_IF_ERROR(Start(at(tier)));
  load_options.url = at(Tier::kDevice).url;
  load_options.rate_per_s = settings_.rate_per_s;
  load_options.deadline = kDeadline;
  std::string ids;
  for (const Node& node : nodes_) ids += fmt::format(", {} {}", NameOf(node.tier), node.child->pid());
  fmt::print(
      "four nodes on this machine (processes{}); round trips of 5-20, 20-100 and 100-500 ms between them,\n"
      "{:g} test images a second to {}, each with a deadline of {:g} ms; {} has their files and logs\n\n",
      ids.substr(1), settings_.rate_per_s, load_options.url, Milliseconds(kDeadline), settings_.dir.string());
  LiveLoad load(load_options, rows);
  const Status played = Play(load);
  if (!played.ok()) EndAll();  // so that what is under way fails at once
  load.Stop();
  const TimePoint end = Now();
  EndAll();
  RETURN_IF_ERROR(played);

  const auto tallies = Count(load.Samples());
  Print(tallies);
  RETURN_IF_ERROR(data::WriteFileAtomically(settings_.json, Figures(tallies, end)));
  fmt::print("wrote {}\n\n", settings_.json.string());
  std::size_t hung = 0;
  std::size_t lost = 0;
  std::size_t unlabelled = 0;
  for (const Tally& t : tallies) {
    hung += t.hung;
    lost += t.lost;
    unlabelled += t.unlabelled;
  }
  fmt::print("{} hung, {} lost, {}\n", hung, lost,
             unlabelled == 0 ? "every answer labelled" : fmt::format("{} answers without a label", unlabelled));
  if (hung + lost + unlabelled > 0) return Unavailable("not every request was answered as promised");
  for (const Recovery& r : recoveries_) {
    if (!r.decides_s) return Unavailable(NameOf(r.tier) + " came back and did not decide again");
  }
  if (drain_code_ != 0) return Unavailable(NameOf(drained_) + " did not end well on SIGTERM");
  return {};
}

}  // namespace

Status RunLive(Context& context, const LiveSettings& settings) { return Live(context, settings).Run(); }

}  // namespace ganglion::app
