// Overload, expiry, reloads and memory: one node and more or other work than it likes.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "data/file.h"
#include "life.h"
#include "live_node.h"
#include "small_decision.h"

namespace ganglion::bench {
namespace {

using std::chrono::seconds;
using topology::Tier;

TimePoint Now() { return std::chrono::steady_clock::now(); }
double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

constexpr double kOverloadDeadlineMs = 100;

struct Flooded {
  double capacity = 0;  // the mean of before and after: the machine is not the same all the time
  std::uint64_t sent = 0, full = 0, degraded = 0, refused = 0, expired = 0, other = 0;
  std::uint64_t runs = 0;  // in the queue: of the dear model
  std::uint64_t late = 0;  // 200 later than deadline and a run, from sending
  std::vector<double> answered_ms;
  LoadResult load;
  double per_s(std::uint64_t n) const { return static_cast<double>(n) / Seconds(load.took); }
};

// Twice what it can do for `lasts`.
Result<Flooded> Flood(const LifeOptions& o, LiveNode* node, const std::string& model, int hard, Duration run,
                      bool decision) {
  Flooded f;
  const Duration warm = o.smoke ? Duration(std::chrono::milliseconds(700)) : Duration(seconds(8));
  // Two workers, and one request waiting behind each.
  const auto capacity = [&] {
    return Capacity(node->http(), PointShots(model, {hard}, "\"deadline_ms\":5000"), 4, warm);
  };
  ASSIGN_OR_RETURN(const double before, capacity());
  LoadOptions load;
  load.port = node->http();
  load.shots = PointShots(model, {hard}, fmt::format("\"deadline_ms\":{}", kOverloadDeadlineMs));
  load.connections = 800;
  load.rate_per_s = 2 * before;
  load.poisson = true;
  load.lasts = o.overload;
  const Duration deadline = FromMilliseconds(kOverloadDeadlineMs);
  load.on_reply = [&](const Reply& r) {
    if (r.status == 200) {
      f.answered_ms.push_back(Milliseconds(r.latency()));
      if (r.received - r.sent > deadline + run) ++f.late;
      const bool cut = decision && ReadDecision(r.body).degraded;
      if (cut)
        ++f.degraded;
      else if (r.latency() <= deadline)
        ++f.full;
    } else if (r.status == 429) {
      ++f.refused;
    } else if (r.status == 504) {
      ++f.expired;
    } else {
      ++f.other;
    }
  };
  const auto runs = [&] { return node->Metric("ganglion_batch_rows_count"); };
  const double ran_before = runs();
  ASSIGN_OR_RETURN(f.load, RunLoad(load));
  f.runs = static_cast<std::uint64_t>(runs() - ran_before);
  f.sent = f.load.sent;
  ASSIGN_OR_RETURN(const double after, capacity());
  f.capacity = (before + after) / 2;
  return f;
}

void Tell(const std::string& what, const Flooded& f, Report* report) {
  auto answered = f.answered_ms;
  report->Add({what + ": goodput, full answers in time, over capacity", f.per_s(f.full), "1/s", f.capacity, ">= 0.9x"});
  report->Add({what + ": p99 of what is answered 200", Quantile(&answered, .99), "ms", std::nullopt,
               fmt::format("<= {}", kOverloadDeadlineMs)});
  report->Add(
      {what + ": answered later than deadline and a run", static_cast<double>(f.late), "", std::nullopt, "<= 0"});
  const double sent = static_cast<double>(f.sent);
  report->Add({what + ": requests sent", sent, "", std::nullopt, ""});
  report->Add({what + ": refused 429, share", static_cast<double>(f.refused) / sent, "", std::nullopt, ""});
  report->Add({what + ": expired 504, share", static_cast<double>(f.expired) / sent, "", std::nullopt, ""});
  report->Add({what + ": runs whose answer came too late, share of runs",
               1 - static_cast<double>(f.full) / static_cast<double>(std::max<std::uint64_t>(f.runs, 1)), "",
               std::nullopt, ""});
  report->Add({what + ": client sent more than 1 ms late, share", static_cast<double>(f.load.late_sends) / sent, "",
               std::nullopt, ""});
  report->Must(f.other + f.load.lost + f.load.hung == 0,
               fmt::format("{}: {} of other statuses, {} lost, {} hung", what, f.other, f.load.lost, f.load.hung));
}

}  // namespace

Result<double> Capacity(int port, std::vector<Shot> shots, int connections, Duration lasts) {
  LoadOptions load;
  load.port = port;
  load.shots = std::move(shots);
  load.connections = connections;
  load.lasts = lasts;
  const TimePoint begin = Now();
  std::uint64_t good = 0;
  load.on_reply = [&](const Reply& r) { good += r.status == 200 && r.received - begin < lasts; };
  RETURN_IF_ERROR(RunLoad(load).status());
  if (good == 0) return Internal("no request of the capacity run was answered");
  return static_cast<double>(good) / Seconds(lasts);
}

Status MeasureOverload(const LifeOptions& o, Report* report) {
  constexpr int kWork = 60;  // about 3 ms
  {
    const Scratch scratch;
    RETURN_IF_ERROR(data::WriteFileAtomically(scratch.dir() / "slow.onnx", StageModel(9, kWork)));
    ASSIGN_OR_RETURN(const auto node, LiveNode::Start(scratch.dir(), "flooded",
                                                      "tier: device\nmodels: [./slow.onnx]\ncache: off\n"
                                                      "batching: {max_rows: 1}\nlimits: {threads: 2}\n"));
    ASSIGN_OR_RETURN(const double alone,
                     Capacity(node->http(), PointShots("slow", {1}, ""), 1, std::chrono::milliseconds(500)));
    const Duration run = FromMilliseconds(1000 / alone);
    report->Add({"overload, model: one run, alone", Milliseconds(run), "ms", std::nullopt, ""});
    ASSIGN_OR_RETURN(const auto f, Flood(o, node.get(), "slow", 1, 2 * run, false));
    Tell("overload 2x, model", f, report);
  }
  const Scratch scratch;
  RETURN_IF_ERROR(WriteSmallDecision(o.engine, scratch.dir() / "two", "two",
                                     {{Tier::kDevice, 0, 0}, {Tier::kDevice, 9, kWork}}, "deadline: 5s\n"));
  ASSIGN_OR_RETURN(const auto node, LiveNode::Start(scratch.dir(), "flooded",
                                                    "tier: device\ndecisions: [./two]\ncache: off\n"
                                                    "batching: {max_rows: 1}\nlimits: {threads: 2}\n"));
  ASSIGN_OR_RETURN(const double alone,
                   Capacity(node->http(), PointShots("two", {1}, ""), 1, std::chrono::milliseconds(500)));
  const std::string what = "overload 2x, decision of a cheap and a dear stage";
  ASSIGN_OR_RETURN(const auto f, Flood(o, node.get(), "two", 1, FromMilliseconds(2000 / alone), true));
  Tell(what, f, report);
  report->Add({what + ": degraded in place of refused, share",
               static_cast<double>(f.degraded) / static_cast<double>(f.sent), "", std::nullopt, ""});
  report->Add({what + ": answered at all, share",
               static_cast<double>(f.answered_ms.size()) / static_cast<double>(f.sent), "", std::nullopt, ">= 0.99"});
  return {};
}

Status MeasureExpiry(const LifeOptions& o, Report* report) {
  constexpr double kDeadlineMs = 20;
  const Scratch scratch;
  RETURN_IF_ERROR(data::WriteFileAtomically(scratch.dir() / "long.onnx", StageModel(9, 2000)));
  RETURN_IF_ERROR(data::WriteFileAtomically(scratch.dir() / "middling.onnx", StageModel(9, 60)));
  RETURN_IF_ERROR(WriteSmallDecision(o.engine, scratch.dir() / "two", "two",
                                     {{Tier::kDevice, 0, 0}, {Tier::kDevice, 9, 60}}, "deadline: 5s\n"));
  // One worker on two cores: while it computes, one core is idle.
  ASSIGN_OR_RETURN(const auto node,
                   LiveNode::Start(scratch.dir(), "busy",
                                   "tier: device\nmodels: [./long.onnx, ./middling.onnx]\ndecisions: [./two]\n"
                                   "cache: off\nbatching: {max_rows: 1}\nlimits: {threads: 1}\n"));
  const TimePoint end = Now() + (o.smoke ? seconds(2) : seconds(30));
  double long_ms = 0;
  // Keeps the worker busy: one runs, one waits.
  std::thread busy([&] {
    LoadOptions load;
    load.port = node->http();
    load.shots = PointShots("long", {1}, "\"deadline_ms\":60000");
    load.connections = 2;
    load.lasts = end - Now();
    std::vector<double> took;
    load.on_reply = [&](const Reply& r) {
      if (r.status == 200) took.push_back(Milliseconds(r.latency()));
    };
    (void)RunLoad(load);
    long_ms = Quantile(&took, .5) / 2;
  });
  // Answers in time, as most are on a node in use: if all were late, admission would refuse all but a few at once, and
  // nothing would be left to expire.
  std::thread easy([&] {
    LoadOptions load;
    load.port = node->http();
    load.shots = PointShots("two", {0}, "");
    load.connections = 8;
    load.rate_per_s = 1000;
    load.seed = 2;
    load.lasts = end - Now();
    (void)RunLoad(load);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  LoadOptions load;
  load.port = node->http();
  const std::string parameters = fmt::format("\"deadline_ms\":{}", kDeadlineMs);
  load.shots = PointShots("middling", {1}, parameters);
  for (auto& shot : PointShots("two", {1}, parameters)) load.shots.push_back(std::move(shot));
  load.connections = 32;
  load.rate_per_s = 40;
  load.poisson = true;
  load.lasts = end - Now() - std::chrono::milliseconds(300);
  std::vector<double> late_ms;
  std::uint64_t expired = 0, degraded = 0, in_time = 0, at_once = 0, other = 0;
  load.on_reply = [&](const Reply& r) {
    const double past = Milliseconds(r.received - r.sent) - kDeadlineMs;
    const bool cut = r.status == 504 || (r.status == 200 && ReadDecision(r.body).degraded);
    if (r.status != 200 && r.status != 429 && r.status != 504) {
      ++other;
    } else if (r.status == 429 || (cut && r.body.find("overload") != std::string_view::npos)) {
      ++at_once;
    } else if (!cut) {
      ++in_time;
    } else {
      ++(r.status == 504 ? expired : degraded);
      late_ms.push_back(past);
    }
  };
  const auto result = RunLoad(load);
  busy.join();
  easy.join();
  RETURN_IF_ERROR(result.status());
  const double sent = static_cast<double>(result->sent);
  report->Add({"expiry: one run of those that keep the worker busy", long_ms, "ms", std::nullopt, ""});
  report->Add({"expiry: answered expired or degraded, past a deadline of 20 ms, p99", Quantile(&late_ms, .99), "ms",
               std::nullopt, "<= 1"});
  report->Add({"expiry: the same, p50", Quantile(&late_ms, .5), "ms", std::nullopt, ""});
  report->Add({"expiry: requests sent", sent, "", std::nullopt, ""});
  report->Add({"expiry: DEADLINE_EXCEEDED, share", static_cast<double>(expired) / sent, "", std::nullopt, ""});
  report->Add({"expiry: degraded, share", static_cast<double>(degraded) / sent, "", std::nullopt, ""});
  report->Add({"expiry: in time, share", static_cast<double>(in_time) / sent, "", std::nullopt, ""});
  report->Add(
      {"expiry: refused or degraded at once, share", static_cast<double>(at_once) / sent, "", std::nullopt, ""});
  report->Must(other + result->lost + result->hung == 0,
               fmt::format("expiry: {} of other statuses, {} lost, {} hung", other, result->lost, result->hung));
  report->Must(!late_ms.empty(), "expiry: nothing expired");
  return {};
}

}  // namespace ganglion::bench
