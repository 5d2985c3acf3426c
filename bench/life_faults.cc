// Parents that are dead, and tiers that are killed: a node whose world fails.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "life.h"
#include "live_node.h"
#include "small_decision.h"

namespace ganglion::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using topology::Tier;

TimePoint Now() { return std::chrono::steady_clock::now(); }

// A listener that takes connections and whatever comes over them, and never answers.
class Swallower {
 public:
  Swallower() {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t n = sizeof at;
    ::bind(fd_, reinterpret_cast<const sockaddr*>(&at), n);
    ::listen(fd_, 128);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &n);
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] { Swallow(); });
  }
  ~Swallower() {
    over_ = true;
    thread_.join();
    ::close(fd_);
  }
  int port() const { return port_; }
  int connections() const { return connections_; }

 private:
  void Swallow() {
    std::vector<pollfd> all = {{fd_, POLLIN, 0}};
    while (!over_) {
      if (::poll(all.data(), all.size(), 50) <= 0) continue;
      for (std::size_t i = all.size(); i-- > 1;) {
        char block[4096];
        if (all[i].revents != 0 && ::recv(all[i].fd, block, sizeof block, 0) <= 0) {
          ::close(all[i].fd);
          all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
        }
      }
      if ((all[0].revents & POLLIN) == 0) continue;
      const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++connections_;
      all.push_back({fd, POLLIN, 0});
    }
    for (std::size_t i = 1; i < all.size(); ++i) ::close(all[i].fd);
  }
  int fd_ = -1;
  int port_ = 0;
  std::atomic<bool> over_{false};
  std::atomic<int> connections_{0};
  std::thread thread_;
};

// A port of loopback where nobody listens: bound, so that nobody else takes it either.
class ClosedPort {
 public:
  ClosedPort() {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t n = sizeof at;
    ::bind(fd_, reinterpret_cast<const sockaddr*>(&at), n);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &n);
    port_ = ntohs(at.sin_port);
  }
  ~ClosedPort() { ::close(fd_); }
  int port() const { return port_; }

 private:
  int fd_ = -1;
  int port_ = 0;
};

// In a smoke run there may be many others on the machine.
double DeadlineMs(const LifeOptions& o) { return o.smoke ? 500 : 100; }

// Answers of one node under an even load.
struct Watched {
  std::vector<double> all_ms;
  std::uint64_t errors = 0, unlabelled = 0, wrong = 0;
  LoadResult load;
};
// `dead`: nobody above answers, so what the device may not decide alone is degraded.
Result<Watched> Watch(int port, double deadline_ms, double rate, Duration lasts, std::uint64_t seed, bool dead = true) {
  Watched w;
  std::vector<std::pair<int, int>> answers;
  LoadOptions load;
  load.port = port;
  load.shots = PointShots("pair", {0, 1}, fmt::format("\"deadline_ms\":{}", deadline_ms), &answers);
  load.connections = 64;
  load.rate_per_s = rate;
  load.poisson = true;
  load.seed = seed;
  load.lasts = lasts;
  load.on_reply = [&](const Reply& r) {
    w.all_ms.push_back(Milliseconds(r.latency()));
    if (r.status != 200) {
      ++w.errors;
      return;
    }
    const Told t = ReadDecision(r.body);
    w.unlabelled += !t.labelled;
    const auto& [quadrant, hard] = answers[r.shot];
    const bool cut = dead && hard > 0;
    w.wrong += t.degraded != cut || (!cut && t.label != quadrant);
  };
  ASSIGN_OR_RETURN(w.load, RunLoad(load));
  return w;
}

double CallsTo(const LiveNode& node) { return node.Metric("ganglion_parent_requests_total"); }

}  // namespace

Status MeasureDeadParent(const LifeOptions& o, Report* report) {
  const double deadline_ms = DeadlineMs(o);
  const Scratch scratch;
  RETURN_IF_ERROR(WriteSmallDecision(o.engine, scratch.dir() / "pair", "pair",
                                     {{Tier::kDevice, 0, 0}, {Tier::kGlobal, 9, 0}}, "deadline: 1s\n"));
  const ClosedPort closed;
  const Swallower swallower;
  const std::string common = "tier: device\ndecisions: [./pair]\ncache: off\nlimits: {threads: 2}\n";
  const auto parent = [](int port) {
    return fmt::format("parents: [{{url: \"grpc://127.0.0.1:{}\", tier: global}}]\n", port);
  };
  // Two ways of swallowing: a listener with which no connection ever comes about, and a node that has been stopped, to
  // which the connection stands. The second is the worse one: nothing but time tells that it is dead.
  ASSIGN_OR_RETURN(const auto top, LiveNode::Start(scratch.dir(), "top", "tier: global\ndecisions: [./pair]\n"));
  constexpr const char* kNames[] = {"none", "refuses", "swallows", "stopped"};
  const std::array<std::string, 4> parents = {"", parent(closed.port()), parent(swallower.port()), parent(top->grpc())};
  std::array<std::unique_ptr<LiveNode>, 4> nodes;
  for (std::size_t i = 0; i < 4; ++i) {
    ASSIGN_OR_RETURN(nodes[i], LiveNode::Start(scratch.dir(), kNames[i], common + parents[i]));
  }
  {
    // Before the trip: a breaker that does not trip leaves the stopped parent in the way of every hard request. Not
    // longer than gRPC's keepalive takes to give the connection up: from then on it fails at once.
    ASSIGN_OR_RETURN(const auto node, LiveNode::Start(scratch.dir(), "before",
                                                      common + parents[3] + "breaker: {keep: 0.99999, trip: 0.9}\n"));
    const auto warm = Watch(node->http(), deadline_ms, 200, milliseconds(500), 4, false);
    RETURN_IF_ERROR(warm.status());
    report->Must(warm->errors == 0 && node->Metric("ganglion_parent_requests_total", {"outcome=\"ok\""}) > 0,
                 "before the trip: the parent did not answer while it lived");
    top->Pause();
    ASSIGN_OR_RETURN(auto w,
                     Watch(node->http(), deadline_ms, o.smoke ? 60 : 400, o.smoke ? seconds(1) : seconds(10), 5));
    const std::string what = "a parent that swallows packets, before the trip";
    report->Add({what + fmt::format(": p99 at a deadline of {} ms", deadline_ms), Quantile(&w.all_ms, .99), "ms",
                 std::nullopt, fmt::format("<= {}", deadline_ms + 5)});
    report->Add({what + ": p50 of those that ask it (the 75th of a hundred)", Quantile(&w.all_ms, .75), "ms",
                 std::nullopt, ""});
    report->Add({what + ": errors", static_cast<double>(w.errors), "", std::nullopt, "<= 0"});
    report->Add({what + ": requests", static_cast<double>(w.load.sent), "", std::nullopt, ""});
    report->Must(w.errors + w.unlabelled + w.wrong == 0,
                 fmt::format("{}: {} errors, {} unlabelled, {} wrong", what, w.errors, w.unlabelled, w.wrong));
    report->Must(node->Metric("ganglion_breaker_trips_total") == 0, what + ": it has tripped");
    const double timeouts = node->Metric("ganglion_parent_requests_total", {"outcome=\"timeout\""});
    report->Must(timeouts > static_cast<double>(w.load.sent) / 4,
                 fmt::format("{}: only {} of {} requests ran into it", what, timeouts, w.load.sent));
  }
  // After it: all at the same time under the same load, with the breaker as it is by default (open for 30 s).
  for (std::size_t i = 1; i < 4; ++i) {
    for (int n = 0; n < 40 && nodes[i]->Metric("ganglion_breaker_trips_total") < 1; ++n)
      RETURN_IF_ERROR(Watch(nodes[i]->http(), deadline_ms, 100, milliseconds(250), 3).status());
    report->Must(nodes[i]->Metric("ganglion_breaker_trips_total") >= 1,
                 fmt::format("parent {}: the breaker never tripped", kNames[i]));
  }
  const Duration lasts = o.smoke ? seconds(2) : seconds(66);
  std::array<double, 4> calls{};
  const int connections = swallower.connections();
  for (std::size_t i = 1; i < 4; ++i) calls[i] = CallsTo(*nodes[i]);
  std::vector<Result<Watched>> watched(4, Internal("not run"));
  std::vector<std::thread> clients;
  for (std::size_t i = 0; i < 4; ++i)
    clients.emplace_back(
        [&, i] { watched[i] = Watch(nodes[i]->http(), deadline_ms, o.smoke ? 60 : 250, lasts, 20 + i); });
  for (auto& c : clients) c.join();
  for (std::size_t i = 0; i < 4; ++i) {
    RETURN_IF_ERROR(watched[i].status());
    const Watched& w = *watched[i];
    report->Must(w.errors + w.unlabelled + w.wrong + w.load.hung + w.load.lost == 0,
                 fmt::format("parent {}: {} errors, {} unlabelled, {} wrong, {} hung, {} lost", kNames[i], w.errors,
                             w.unlabelled, w.wrong, w.load.hung, w.load.lost));
  }
  const double alone = Quantile(&watched[0]->all_ms, .99);
  constexpr const char* kWhat[] = {"", "a parent that refuses", "a parent that swallows packets",
                                   "a parent that is stopped"};
  for (std::size_t i = 1; i < 4; ++i) {
    const std::string what = fmt::format("{}, after the trip", kWhat[i]);
    report->Add(
        {what + ": p99 against the fallback alone", Quantile(&watched[i]->all_ms, .99), "ms", alone, "<= 1.2x"});
    const double minutes = std::max(1., std::chrono::duration<double>(lasts).count() / 60);
    report->Add({what + ": calls a minute", (CallsTo(*nodes[i]) - calls[i]) / minutes, "1/min", std::nullopt, "<= 5"});
    report->Add({what + ": errors", static_cast<double>(watched[i]->errors), "", std::nullopt, "<= 0"});
    report->Add({what + ": requests", static_cast<double>(watched[i]->load.sent), "", std::nullopt, ""});
  }
  report->Add(
      {"a parent that swallows packets, after the trip: connections tried, by probes of its health, a minute",
       static_cast<double>(swallower.connections() - connections) / (std::chrono::duration<double>(lasts).count() / 60),
       "1/min", std::nullopt, ""});
  return {};
}

namespace {

// A reply of the whole run, for looking at afterwards.
struct Seen {
  TimePoint intended;
  TimePoint received;
  int status = 0;
  int hard = 0;
  bool right = false;
  Told told;
};

constexpr std::array<Tier, 4> kTiers = {Tier::kDevice, Tier::kEdge, Tier::kRegion, Tier::kGlobal};

}  // namespace

Status MeasureKills(const LifeOptions& o, Report* report) {
  const double open_for_s = o.smoke ? 1 : 3;
  const double deadline_ms = o.smoke ? 2000 : 300;
  const Scratch scratch;
  std::vector<SmallStage> stages;
  for (std::size_t i = 0; i < 4; ++i) stages.push_back({kTiers[i], static_cast<int>(i), 0});
  stages.back().level = 9;
  RETURN_IF_ERROR(WriteSmallDecision(o.engine, scratch.dir() / "four", "four", stages, "deadline: 2s\n"));
  std::array<std::unique_ptr<LiveNode>, 4> nodes;
  for (std::size_t i = 4; i-- > 0;) {
    std::string yaml =
        fmt::format("tier: {}\ndecisions: [./four]\ncache: off\nlimits: {{threads: 2}}\nbreaker: {{open_for: {}s}}\n",
                    topology::Name(kTiers[i]), open_for_s);
    if (i < 3) yaml += fmt::format("parents: [{{url: \"grpc://127.0.0.1:{}\"}}]\n", nodes[i + 1]->grpc());
    ASSIGN_OR_RETURN(nodes[i], LiveNode::Start(scratch.dir(), std::string(topology::Name(kTiers[i])), yaml));
  }
  const Duration steady = o.smoke ? milliseconds(500) : milliseconds(3000);
  const Duration back = o.smoke ? milliseconds(4000) : milliseconds(9000);
  std::uint64_t hung = 0, lost = 0, failed = 0, unlabelled = 0, wrong = 0, sent = 0;
  // Down for less than the breakers' period, so that it has to end first, and for more.
  struct Case {
    std::size_t victim;
    Duration down;
  };
  std::vector<Case> cases;
  for (std::size_t victim = 1; victim < 4; ++victim) {
    if (o.smoke && victim == 2) continue;
    cases.push_back({victim, milliseconds(500)});
    if (!o.smoke) cases.push_back({victim, milliseconds(5000)});
  }
  for (const auto& [victim_of_case, dead] : cases) {
    const std::size_t victim = victim_of_case;  // lambdas take no structured bindings
    const Duration lasts = steady + dead + back;
    const std::string tier(topology::Name(kTiers[victim]));
    std::vector<Seen> seen;
    LoadResult result;
    Status load_status;
    std::thread client([&] {
      std::vector<std::pair<int, int>> answers;
      LoadOptions load;
      load.port = nodes[0]->http();
      load.shots = PointShots("four", {0, 1, 2, 3}, fmt::format("\"deadline_ms\":{}", deadline_ms), &answers);
      load.connections = 128;
      load.rate_per_s = o.smoke ? 100 : 300;
      load.poisson = true;
      load.seed = victim;
      load.lasts = lasts;
      load.patience = seconds(3);
      load.on_reply = [&](const Reply& r) {
        Seen s;
        s.intended = r.intended;
        s.received = r.received;
        s.status = r.status;
        s.hard = answers[r.shot].second;
        s.told = ReadDecision(r.body);
        s.right = s.told.label == answers[r.shot].first;
        seen.push_back(std::move(s));
      };
      auto ended = RunLoad(load);
      if (ended.ok())
        result = *ended;
      else
        load_status = ended.status();
    });
    std::this_thread::sleep_for(steady);
    const TimePoint killed = Now();
    nodes[victim]->Kill();
    std::this_thread::sleep_for(dead);
    const Status again = nodes[victim]->Restart();
    const TimePoint ready = Now();
    client.join();
    RETURN_IF_ERROR(again);
    RETURN_IF_ERROR(load_status);
    sent += result.sent;
    lost += result.lost;
    hung += result.hung;
    // Back: when the last answer of those that need the tier, or one above it, was degraded; and the first was not.
    TimePoint last_cut = ready;
    TimePoint first_whole = TimePoint::max();
    std::uint64_t cut_before = 0;
    std::vector<double> dead_ms, steady_ms;
    for (const Seen& s : seen) {
      failed += s.status != 200;
      if (s.status != 200) continue;
      unlabelled += !s.told.labelled;
      wrong += !s.told.degraded && !s.right;
      hung += s.received - s.intended > FromMilliseconds(deadline_ms) + seconds(1);
      const bool needs = s.hard >= static_cast<int>(victim);
      if (s.intended < killed - milliseconds(100)) cut_before += s.told.degraded;
      (s.intended < killed ? steady_ms : dead_ms).push_back(Milliseconds(s.received - s.intended));
      if (!needs || s.intended < ready) continue;
      if (s.told.degraded)
        last_cut = std::max(last_cut, s.intended);
      else
        first_whole = std::min(first_whole, s.intended);
    }
    const std::string what = fmt::format("kill -9 of {}, down {:g} s", tier, Milliseconds(dead) / 1000);
    report->Add({what + fmt::format(": last degraded answer after it is back, breaker {} s", open_for_s),
                 std::chrono::duration<double>(last_cut - ready).count(), "s", std::nullopt,
                 fmt::format("<= {}", open_for_s + 2)});
    report->Add({what + ": first whole answer after it is back",
                 first_whole == TimePoint::max() ? 1e9 : std::chrono::duration<double>(first_whole - ready).count(),
                 "s", std::nullopt, ""});
    report->Add({what + ": p99 from the kill on", Quantile(&dead_ms, .99), "ms", Quantile(&steady_ms, .99), ""});
    report->Must(first_whole != TimePoint::max(), what + ": it was never asked again");
    report->Must(cut_before == 0, fmt::format("{}: {} degraded before the kill", what, cut_before));
  }
  const std::string what = fmt::format("kill -9 of each upper tier, {} requests", sent);
  report->Add({what + ": hung", static_cast<double>(hung), "", std::nullopt, "<= 0"});
  report->Add({what + ": lost or failed", static_cast<double>(lost + failed), "", std::nullopt, "<= 0"});
  report->Add({what + ": not labelled", static_cast<double>(unlabelled), "", std::nullopt, "<= 0"});
  report->Add({what + ": wrong and not degraded", static_cast<double>(wrong), "", std::nullopt, "<= 0"});
  report->Must(hung + lost + failed + unlabelled + wrong == 0,
               fmt::format("{}: {} hung, {} lost, {} failed, {} unlabelled, {} wrong", what, hung, lost, failed,
                           unlabelled, wrong));
  return {};
}

}  // namespace ganglion::bench
