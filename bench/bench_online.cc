// Online learning: updates a second, progressive loss against VW on the same streams, predictions while learning, and
// what is forgotten (make bench-online).
//
// Streams: clicks, ten million examples of twelve features and one pair (click_stream.h, seed 1), and three million
// flights in the order of time (bench/peers/flights.mjs). Each goes through logistic gradient steps (VW's defaults) and
// FTRL, once here and once through VW (PyPI vowpalwabbit, bench/peers/vw_stream.py), which reads the very same file.
// Losses are progressive: each example predicted, then learned.
//
// Times are processor seconds of the thread that works, so that what else the machine does is not counted; parsing and
// learning take turns, ten thousand lines each. VW's are its process's, parsing and learning together.
// GANGLION_BENCH_SCALE (0 to 1) shortens the streams. Where VW or the flights cannot be had, a line says so, and their
// figures are left out.
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "click_stream.h"
#include "data/file.h"
#include "figures.h"
#include "learning/learning.h"
#include "online/online.h"
#include "online/returning_test.h"
#include "wire/json.h"

namespace ganglion::bench {
namespace {

namespace fs = std::filesystem;
using online::Example;
using online::LearnerOptions;

constexpr char kPython[] = "out/peers/bin/python";
constexpr char kVw[] = "bench/peers/vw_stream.py";
constexpr char kFlights[] = "bench/peers/flights.mjs";
constexpr char kModules[] = "out/peers/node";
constexpr char kClicks[] = "out/bench/clicks.vw";
constexpr char kFlightLines[] = "out/bench/flights.vw";
constexpr std::size_t kTurn = 10'000;

double ThreadSeconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double Scale() {
  const char* text = std::getenv("GANGLION_BENCH_SCALE");
  const double scale = text == nullptr ? 1 : std::atof(text);
  return scale > 0 && scale <= 1 ? scale : 1;
}

std::optional<std::string> FirstLine(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string line(4096, '\0');
  if (!pipe || std::fgets(line.data(), static_cast<int>(line.size()), pipe.get()) == nullptr) return std::nullopt;
  line.resize(line.find('\n'));
  return line;
}

struct Peer {
  double loss = 0;
  double updates_per_s = 0;
};

std::optional<Peer> RunVw(const std::string& file, const std::string& options) {
  if (!fs::exists(kPython)) return std::nullopt;
  const auto line = FirstLine(fmt::format("{} {} {} {} 2>/dev/null", kPython, kVw, file, options));
  wire::Json j;
  if (!line || !wire::ParseJson(*line, &j).ok()) return std::nullopt;
  return Peer{j["loss"].get<double>(), j["examples"].get<double>() / j["cpu_seconds"].get<double>()};
}

struct Ours {
  double loss = 0;
  double learned_per_s = 0;  // parsed beforehand
  double read_per_s = 0;     // parsing included
  std::uint64_t examples = 0;
};

Result<Ours> RunHere(const std::string& file, const LearnerOptions& options) {
  ASSIGN_OR_RETURN(auto lines, learning::LineReader::Open(file));
  ASSIGN_OR_RETURN(auto text, online::VwText::Create(options));
  ASSIGN_OR_RETURN(auto learner, online::Learner::Create(options));
  std::vector<Example> examples(kTurn);
  double parsing = 0;
  double learning = 0;
  for (bool more = true; more;) {
    std::size_t n = 0;
    const double begin = ThreadSeconds();
    for (; n < kTurn; ++n) {
      ASSIGN_OR_RETURN(const auto line, lines.Next({}));
      more = line.has_value();
      if (!more) break;
      RETURN_IF_ERROR(text.Parse(line->text, &examples[n]));
    }
    const double parsed = ThreadSeconds();
    for (std::size_t i = 0; i < n; ++i) {
      const auto outcome = learner.Learn(examples[i], 0);
      if (!outcome.ok()) return outcome.status();
    }
    parsing += parsed - begin;
    learning += ThreadSeconds() - parsed;
  }
  Ours ours;
  ours.examples = learner.progress().examples;
  ours.loss = learner.progress().mean_loss();
  ours.learned_per_s = static_cast<double>(ours.examples) / learning;
  ours.read_per_s = static_cast<double>(ours.examples) / (learning + parsing);
  return ours;
}

struct Way {
  std::string name;
  std::string vw;
  LearnerOptions options;
};

std::vector<Way> Ways(int bits, const std::string& pair) {
  LearnerOptions o;
  o.task = online::Task::kBinary;
  o.bits = bits;
  o.interactions = {pair};
  const std::string common = fmt::format("--loss_function logistic -b {} -q {}", bits, pair);
  std::vector<Way> ways{{"logistic", common, o}};
  o.update = online::Update::kFtrl;
  o.alpha = .1;
  o.beta = 1;
  o.l1 = .5;
  o.l2 = 1;
  ways.push_back({"FTRL", common + " --ftrl --ftrl_alpha .1 --ftrl_beta 1 --l1 .5 --l2 1", o});
  return ways;
}

Status Compare(const std::string& stream, const std::string& file, int bits, const std::string& pair, bool speed_goal,
               Figures* figures) {
  for (const Way& way : Ways(bits, pair)) {
    ASSIGN_OR_RETURN(const Ours ours, RunHere(file, way.options));
    const auto peer = RunVw(file, way.vw);
    const std::string id = stream + ", " + way.name;
    std::optional<double> vw_speed;
    if (peer) vw_speed = peer->updates_per_s;
    figures->Add({id + ": updates, lines parsed too", ours.read_per_s, "1/s", vw_speed, speed_goal ? ">= 500000" : ""});
    figures->Add(
        {id + ": updates, parsed before", ours.learned_per_s, "1/s", std::nullopt, speed_goal ? ">= 500000" : ""});
    if (peer) {
      figures->Add({id + ": progressive loss, against VW's", ours.loss, "", peer->loss, ""});
      figures->Add(
          {id + ": loss, distance from VW's", 100 * std::abs(ours.loss / peer->loss - 1), "%", std::nullopt, "<= 1"});
    } else {
      figures->Add({id + ": progressive loss", ours.loss, "", std::nullopt, ""});
      fmt::print("skipped: VW on {} (make bench-online installs it in out/peers, where PyPI can be reached)\n", id);
    }
  }
  return {};
}

Status WriteClicks(std::uint64_t n) {
  std::ofstream out(kClicks, std::ios::binary);
  ClickStream stream(1);
  std::string text;
  for (std::uint64_t i = 0; i < n; ++i) {
    stream.Append(&text);
    if (text.size() > 1 << 20 || i + 1 == n) {
      out << text;
      text.clear();
    }
  }
  return out.flush() ? Status() : Unavailable(std::string(kClicks) + " cannot be written");
}

// One thread learns as fast as it can, another predicts; every prediction is timed.
Status WhileLearning(double scale, Figures* figures) {
  const Way way = Ways(20, "ef")[0];
  ASSIGN_OR_RETURN(auto text, online::VwText::Create(way.options));
  std::vector<Example> examples(200'000);
  ClickStream stream(2);
  for (Example& e : examples) {
    std::string line;
    stream.Append(&line);
    RETURN_IF_ERROR(text.Parse(line, &e));
  }
  ASSIGN_OR_RETURN(auto learner, learning::SharedLearner::Create(way.options));
  std::atomic<bool> ready = false;
  std::atomic<bool> done = false;
  double speed = 0;
  std::thread teacher([&] {
    std::uint64_t learned = 0;
    const double begin = ThreadSeconds();
    while (!done) {
      for (std::size_t i = 0; i < 1000; ++i) (void)learner.Learn(examples[learned++ % examples.size()], 0).ok();
      if (learned >= examples.size()) ready = true;
    }
    speed = static_cast<double>(learned) / (ThreadSeconds() - begin);
  });
  while (!ready) std::this_thread::yield();
  const auto n = static_cast<std::size_t>(std::max(1e5, 2e6 * scale));
  std::vector<float> us;
  us.reserve(n);
  float score = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    learner.Predict(examples[(i * 7919) % examples.size()].features, {&score, 1});
    us.push_back(std::chrono::duration<float, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  done = true;
  teacher.join();
  std::sort(us.begin(), us.end());
  figures->Add({"predict while learning at full speed: p50", us[n / 2], "us", std::nullopt, ""});
  figures->Add({"predict while learning at full speed: p99", us[n * 99 / 100], "us", std::nullopt, "<= 10"});
  figures->Add({"predict while learning at full speed: p99.9", us[n * 999 / 1000], "us", std::nullopt, ""});
  figures->Add({"updates while another thread predicts", speed, "1/s", std::nullopt, ">= 500000"});
  return {};
}

void Forgotten(Figures* figures) {
  const auto mean = [](const LearnerOptions& o) {
    online::Forgetting sum;
    for (const std::uint64_t seed : {11, 12, 13, 14, 15}) {
      const auto f = online::MeasureForgetting(o, seed, 20'000);
      sum.before += f.before / 5;
      sum.returned += f.returned / 5;
      sum.winter += f.winter / 5;
    }
    return sum;
  };
  for (const bool ftrl : {false, true}) {
    LearnerOptions o;
    o.update = ftrl ? online::Update::kFtrl : online::Update::kGradient;
    const std::string way = ftrl ? "FTRL" : "logistic";
    const online::Forgetting plain = mean(o);
    figures->Add({"forgotten by " + way + ", unprotected: loss", plain.forgotten(), "", std::nullopt, ""});
    figures->Add({"  and its loss on the new concept", plain.winter, "", std::nullopt, ""});
    o.replay = 5000;
    const online::Forgetting replayed = mean(o);
    figures->Add({"forgotten by " + way + ", replay 5000", replayed.forgotten(), "", plain.forgotten(), "<= 0.5x"});
    figures->Add({"  and its loss on the new concept, replay", replayed.winter, "", plain.winter, "<= 1.1x"});
    o.replay = 0;
    o.anchor = .003;
    const online::Forgetting anchored = mean(o);
    figures->Add({"forgotten by " + way + ", anchor .003", anchored.forgotten(), "", plain.forgotten(), "<= 0.5x"});
    figures->Add({"  and its loss on the new concept, anchor", anchored.winter, "", plain.winter, "<= 1.25x"});
  }
}

int Main() {
  const double scale = Scale();
  Figures figures("online");
  const auto must = [](const Status& s) {
    if (!s.ok()) fmt::print(stderr, "bench_online: {}\n", s.message());
    return s.ok();
  };
  if (!must(data::MakeDirectories("out/bench"))) return 1;
  const auto clicks = static_cast<std::uint64_t>(std::max(1e5, 1e7 * scale));
  fmt::print("writing {} lines of clicks\n", clicks);
  if (!must(WriteClicks(clicks)) || !must(Compare("clicks", kClicks, 20, "ef", true, &figures))) return 1;
  fs::remove(kClicks);

  const bool modules = fs::exists(std::string(kModules) + "/node_modules/hyparquet");
  const auto flights =
      modules ? FirstLine(fmt::format("node {} {} {}", kFlights, kModules, kFlightLines)) : std::nullopt;
  if (flights) {
    if (scale < 1) {  // the first of them, in their order
      FirstLine(fmt::format("head -n {} {} > {}.part && mv {}.part {}", static_cast<std::uint64_t>(3e6 * scale),
                            kFlightLines, kFlightLines, kFlightLines, kFlightLines));
    }
    if (!must(Compare("flights in time order", kFlightLines, 18, "ot", false, &figures))) return 1;
    fs::remove(kFlightLines);
  } else {
    fmt::print("skipped: flights (make bench-online installs npm's hyparquet and vega-datasets in {})\n", kModules);
  }
  if (!must(WhileLearning(scale, &figures))) return 1;
  Forgotten(&figures);
  return figures.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main() { return ganglion::bench::Main(); }
