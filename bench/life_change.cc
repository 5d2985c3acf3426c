// Reloads under load, and ten million requests: a node that changes, and a node that lasts.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "data/file.h"
#include "life.h"
#include "live_node.h"
#include "small_decision.h"
#include "training/training.h"

namespace ganglion::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using topology::Tier;

TimePoint Now() { return std::chrono::steady_clock::now(); }
double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// A picture's worth of numbers.
std::vector<float> Picture() {
  std::vector<float> x(784);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) / 17;
  return x;
}

// What the file answers to the row: the bytes of its outputs.
Result<std::string> AnswerOf(const std::shared_ptr<runtime::Engine>& engine, const std::string& bytes,
                             const std::vector<float>& x) {
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes("changing.onnx", bytes));
  ASSIGN_OR_RETURN(const auto session, runtime::Session::Create(engine, model));
  const std::array<std::int64_t, 2> shape{1, static_cast<std::int64_t>(x.size())};
  const tensor::View view{tensor::DataType::kFp32, shape, std::as_bytes(std::span(x))};
  ASSIGN_OR_RETURN(const auto out, session->Run({&view, 1}));
  std::string answer;
  for (const auto& t : out) answer.append(reinterpret_cast<const char*>(t.View().bytes.data()), t.size_bytes());
  return answer;
}

}  // namespace

Status MeasureReloads(const LifeOptions& o, Report* report) {
  const Scratch scratch;
  // Two names that change: "short" runs where its requests arrive, "queued" takes longer and goes by the queue and its
  // workers. Two files for each, told apart by their answers. And a neighbour that stays.
  struct Changing {
    std::string name;
    std::array<std::string, 2> files;
    std::array<std::string, 2> answers;
    std::array<std::uint64_t, 2> seen{};
  };
  std::array<Changing, 2> changing = {
      Changing{"short",
               {training::MakePerceptron({784, 200, 200, 10}, 1), training::MakePerceptron({784, 200, 200, 10}, 2)},
               {},
               {}},
      Changing{"queued", {StageModel(9, 8), StageModel(0, 8)}, {}, {}}};
  ASSIGN_OR_RETURN(const auto perceptron, model::Model::FromBytes("perceptron.onnx", changing[0].files[0]));
  const std::string input = perceptron.signature().inputs[0].name;
  const std::vector<float> point = {1, 1, 5};
  for (auto& c : changing) {
    for (std::size_t i = 0; i < 2; ++i) {
      ASSIGN_OR_RETURN(c.answers[i], AnswerOf(o.engine, c.files[i], c.name == "short" ? Picture() : point));
    }
    RETURN_IF_ERROR(data::WriteFileAtomically(scratch.dir() / (c.name + ".onnx"), c.files[0]));
  }
  RETURN_IF_ERROR(data::WriteFileAtomically(scratch.dir() / "neighbour.onnx", changing[0].files[0]));
  ASSIGN_OR_RETURN(const auto node,
                   LiveNode::Start(scratch.dir(), "changing",
                                   "tier: device\nmodels: [./short.onnx, ./queued.onnx, ./neighbour.onnx]\n"
                                   "cache: off\nlimits: {threads: 2}\n"));
  // Alike in number. In JSON a float would lose its last bits: answers are compared byte by byte.
  const std::vector<Shot> shots = {InferShot({"short", input, Picture(), "", true, false}),
                                   InferShot({"queued", "point", point, "", true, false}),
                                   InferShot({"neighbour", input, Picture(), "", true, false})};
  ASSIGN_OR_RETURN(const double capacity,
                   Capacity(node->http(), shots, 8, o.smoke ? Duration(milliseconds(500)) : Duration(seconds(5))));
  report->Add({"reloads: capacity of the node", capacity, "1/s", std::nullopt, ""});

  const Duration window = o.smoke ? Duration(milliseconds(500)) : Duration(seconds(5));
  const int per_window = static_cast<int>(Seconds(window) * 10);
  const int windows = std::max(1, o.reloads / per_window);
  const TimePoint begin = Now();
  const auto reloading = [&](TimePoint t) { return (t - begin) / window % 2 == 1; };
  const Duration lasts = 2 * windows * window;

  std::uint64_t failed = 0, wrong = 0, refused = 0;
  std::string first_failure;
  std::array<std::array<std::vector<double>, 2>, 3> us;  // [shot][without, with reloads]
  LoadResult result;
  Status load_status;
  std::thread client([&] {
    LoadOptions load;
    load.port = node->http();
    load.shots = shots;
    load.connections = 64;
    load.rate_per_s = .3 * capacity;
    load.poisson = true;
    load.lasts = lasts;
    load.on_reply = [&](const Reply& r) {
      us[r.shot][reloading(r.intended) ? 1 : 0].push_back(1000 * Milliseconds(r.latency()));
      if (r.status == 429) {
        ++refused;
      } else if (r.status != 200) {
        if (failed++ == 0) first_failure = fmt::format("{} {}", r.status, r.body.substr(0, 200));
      } else if (r.shot == 2) {
        wrong += !r.body.ends_with(changing[0].answers[0]);
      } else {
        Changing& c = changing[r.shot];
        if (r.body.ends_with(c.answers[0])) {
          ++c.seen[0];
        } else if (r.body.ends_with(c.answers[1])) {
          ++c.seen[1];
        } else {
          ++wrong;
        }
      }
    };
    auto done = RunLoad(load);
    if (done.ok()) {
      result = *done;
    } else {
      load_status = done.status();
    }
  });
  int reloads = 0;
  std::vector<double> reload_ms;
  Status loaded;
  for (TimePoint next = begin; next < begin + lasts && loaded.ok(); next += milliseconds(100)) {
    std::this_thread::sleep_until(next);
    if (!reloading(next)) continue;
    const std::size_t n = static_cast<std::size_t>(reloads++);
    const Changing& c = changing[n % 2];
    loaded = data::WriteFileAtomically(scratch.dir() / (c.name + ".onnx"), c.files[n / 2 % 2 == 0 ? 1 : 0]);
    const TimePoint asked = Now();
    if (loaded.ok()) loaded = node->Load(c.name);
    reload_ms.push_back(Milliseconds(Now() - asked));
  }
  client.join();
  RETURN_IF_ERROR(loaded);
  RETURN_IF_ERROR(load_status);
  const std::string what = fmt::format("{} reloads, 10/s, at 30 % of capacity", reloads);
  const auto pair = [&](const std::string& id, std::size_t shot, double q, const std::string& goal) {
    report->Add({what + ": " + id, Quantile(&us[shot][1], q), "us", Quantile(&us[shot][0], q), goal});
  };
  report->Add({what + ": requests", static_cast<double>(result.sent), "", std::nullopt, ""});
  report->Add({what + ": failed", static_cast<double>(failed), "", std::nullopt, "<= 0"});
  // By admission, when something held up the machine and more came together than it lets in. Not by the reload.
  report->Add({what + ": refused 429", static_cast<double>(refused), "", std::nullopt, "<= 0"});
  report->Add({what + ": wrong", static_cast<double>(wrong), "", std::nullopt, "<= 0"});
  pair("the other model's p99, against without reloads", 2, .99, "<= 1.2x");
  pair("the other model's p50", 2, .5, "");
  pair("p99 of the reloaded model that runs at once", 0, .99, "");
  pair("p99 of the reloaded model that is queued", 1, .99, "");
  report->Add({what + ": one reload, p50", Quantile(&reload_ms, .5), "ms", std::nullopt, ""});
  report->Add({what + ": one reload, p99", Quantile(&reload_ms, .99), "ms", std::nullopt, ""});
  report->Add({what + ": client sent more than 1 ms late, share",
               static_cast<double>(result.late_sends) / static_cast<double>(result.sent), "", std::nullopt, ""});
  report->Must(failed == 0 && wrong == 0 && result.lost == 0 && result.hung == 0,
               fmt::format("{}: {} failed (first: {}), {} wrong, {} lost, {} hung", what, failed, first_failure, wrong,
                           result.lost, result.hung));
  for (const Changing& c : changing)
    report->Must(c.seen[0] > 0 && c.seen[1] > 0,
                 fmt::format("{}: {} answered {} times by its one file and {} by its other", what, c.name, c.seen[0],
                             c.seen[1]));
  report->Must(node->running(), what + ": the node has ended");
  return {};
}

Status MeasureMemory(const LifeOptions& o, Report* report) {
  const Scratch scratch;
  RETURN_IF_ERROR(data::WriteFileAtomically(scratch.dir() / "linear.onnx", StageModel(9, 0)));
  RETURN_IF_ERROR(
      WriteSmallDecision(o.engine, scratch.dir() / "two", "two", {{Tier::kDevice, 0, 0}, {Tier::kDevice, 9, 0}}, ""));
  ASSIGN_OR_RETURN(const auto node, LiveNode::Start(scratch.dir(), "lasting",
                                                    "tier: device\nmodels: [./linear.onnx]\ndecisions: [./two]\n"
                                                    "limits: {threads: 2}\ncache: {memory: 8MB, ttl: 60s}\n"));
  // Of 20 requests: 8 to the model and 4 to the decision that nobody asked before, 3 and 2 that were, 3 that are wrong.
  LoadOptions load;
  load.port = node->http();
  const auto point = [](float x) { return std::vector<float>{x, 1, 1}; };
  const auto add = [&load](const Shot& shot, int times) {
    for (int i = 0; i < times; ++i) load.shots.push_back(shot);
  };
  add(InferShot({"linear", "point", point(1), "", true, true}), 8);
  add(InferShot({"two", "point", point(1), "", true, true}), 4);
  add(InferShot({"linear", "point", point(-1), "", true, false}), 3);
  add(InferShot({"two", "point", point(-1), "", true, false}), 2);
  const std::size_t first_wrong = load.shots.size();
  add(InferShot({"nothing", "point", point(1), "", false, false}), 1);                        // 404
  add(Post("/v2/models/two/infer", R"({"inputs":[{"name":"point","shape":[1,3],"data)"), 1);  // 400
  add(InferShot({"two", "point", point(1), R"("deadline_ms":0)", false, false}), 1);          // 504
  constexpr std::array<int, 3> kWrong = {404, 400, 504};
  load.connections = 32;
  load.depth = 4;
  load.count = o.requests;
  load.patience = seconds(30);
  std::uint64_t seen = 0;
  std::uint64_t other = 0, refused = 0;
  std::atomic<std::uint64_t> so_far{0};
  load.on_reply = [&](const Reply& r) {
    const int want = r.shot < first_wrong ? 200 : kWrong[r.shot - first_wrong];
    refused += r.status == 429;
    other += r.status != want && r.status != 429;
    if ((++seen & 1023) == 0) so_far.store(seen, std::memory_order_relaxed);
  };
  LoadResult result;
  Status load_status;
  std::atomic<bool> done{false};
  std::thread client([&] {
    auto ended = RunLoad(load);
    if (ended.ok())
      result = *ended;
    else
      load_status = ended.status();
    done = true;
  });
  std::array<double, 10> rss{};  // after each tenth
  std::size_t tenths = 0;
  while (!done) {
    std::this_thread::sleep_for(milliseconds(20));
    while (tenths < 9 && so_far.load(std::memory_order_relaxed) >= (tenths + 1) * (o.requests / 10))
      rss[tenths++] = static_cast<double>(node->rss_bytes());
  }
  client.join();
  RETURN_IF_ERROR(load_status);
  const double end = static_cast<double>(node->rss_bytes());
  const std::string what = fmt::format("{} requests over 32 connections", result.sent);
  const double mb = 1 << 20;
  report->Add({what + ": VmRSS at the end against after a tenth", end / mb, "MiB", rss[0] / mb, "<= 1.02x"});
  report->Add({what + ": VmRSS at the end against after a half", end / mb, "MiB", rss[4] / mb, ""});
  report->Add({what + ": rate", static_cast<double>(result.answered) / Seconds(result.took), "1/s", std::nullopt, ""});
  report->Add({what + ": refused 429", static_cast<double>(refused), "", std::nullopt, "<= 0"});
  report->Add({what + ": cache hits", node->Metric("ganglion_cache_hits_total"), "", std::nullopt, ""});
  report->Add({what + ": cache misses", node->Metric("ganglion_cache_misses_total"), "", std::nullopt, ""});
  report->Must(other == 0 && result.lost == 0 && result.hung == 0,
               fmt::format("{}: {} of another status than they should, {} lost, {} hung", what, other, result.lost,
                           result.hung));
  report->Must(node->running(), what + ": the node has ended");
  return {};
}

}  // namespace ganglion::bench
