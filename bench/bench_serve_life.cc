// A node under stress, as real processes on loopback: overload, reloads, dead parents, killed tiers, ten million
// requests, work that expires (the second half of make bench-serve; the first is bench_serve).
//
//   bench_serve_life [--smoke] [NAME ...]     NAME: overload reloads parents kills memory expiry; default all
//
// --smoke: all of it in half a minute, nothing written: what must never happen is checked, times are not.
// GANGLION_LIFE_SECONDS, GANGLION_LIFE_RELOADS, GANGLION_LIFE_REQUESTS make a run shorter; figures say what was done.
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "life.h"
#include "small_decision.h"

namespace ganglion::bench {

void Report::Add(Figure figure) {
  if (smoke_) {
    fmt::print("  {:<72} {:>12.5g} {}\n", figure.id, figure.value, figure.unit);
  } else {
    fmt::print("  {:<72} {:>12.5g} {}{}\n", figure.id, figure.value, figure.unit,
               figure.baseline ? fmt::format(" against {:.5g}", *figure.baseline) : "");
  }
  std::fflush(stdout);
  figures_.Add(std::move(figure));
}

void Report::Must(bool so, const std::string& what) {
  if (so) return;
  ++broken_;
  fmt::print("BROKEN: {}\n", what);
  std::fflush(stdout);
}

int Report::Finish() const {
  const int missed = smoke_ ? 0 : figures_.Finish();
  return broken_ > 0 ? 1 : missed;
}

Told ReadDecision(std::string_view body) {
  // What follows "name": as its text, without quotes.
  const auto value = [body](std::string_view name) -> std::string_view {
    const std::size_t at = body.find(name);
    if (at == std::string_view::npos) return {};
    std::string_view rest = body.substr(at + name.size());
    if (!rest.empty() && rest[0] == '"') {
      rest.remove_prefix(1);
      return rest.substr(0, rest.find('"'));
    }
    return rest.substr(0, rest.find_first_of(",}]"));
  };
  Told t;
  t.tier = value("\"tier\":");
  t.stage = value("\"stage\":");
  const auto degraded = value("\"degraded\":");
  t.degraded = degraded == "true";
  t.labelled = !t.tier.empty() && !t.stage.empty() && !degraded.empty() && !value("\"decision_id\":").empty() &&
               !value("\"confidence\":").empty();
  const std::size_t output = body.find("\"name\":\"label\"");
  if (output != std::string_view::npos) {
    const std::size_t data = body.find("\"data\":[", output);
    if (data != std::string_view::npos) t.label = std::atoi(std::string(body.substr(data + 8, 12)).c_str());
  }
  return t;
}

Shot PointShot(const std::string& model, float x, float y, int hard, const std::string& parameters, bool unique) {
  return InferShot({model, "point", {x, y, static_cast<float>(hard)}, parameters, false, unique});
}

std::vector<Shot> PointShots(const std::string& model, const std::vector<int>& hard, const std::string& parameters,
                             std::vector<std::pair<int, int>>* answers) {
  std::vector<Shot> shots;
  for (const int h : hard) {
    for (const auto& [x, y] :
         {std::pair(1.f, .7f), std::pair(.8f, -1.f), std::pair(-1.f, .9f), std::pair(-.6f, -1.f)}) {
      shots.push_back(PointShot(model, x, y, h, parameters));
      if (answers != nullptr) answers->emplace_back(QuadrantOf(x, y), h);
    }
  }
  return shots;
}

namespace {

struct Part {
  const char* name;
  Status (*run)(const LifeOptions&, Report*);
};
constexpr std::array<Part, 6> kParts = {Part{"expiry", MeasureExpiry},   Part{"overload", MeasureOverload},
                                        Part{"reloads", MeasureReloads}, Part{"parents", MeasureDeadParent},
                                        Part{"kills", MeasureKills},     Part{"memory", MeasureMemory}};

// Seconds of processor time: of all the machine's processes, and of this one with those that it has ended.
struct Processor {
  double all = 0;
  double ours = 0;
};
Processor Used() {
  Processor p;
  std::ifstream stat("/proc/stat");
  std::string word;
  double user = 0, nice = 0, system = 0;
  stat >> word >> user >> nice >> system;
  p.all = (user + nice + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage u{};
    ::getrusage(who, &u);
    for (const timeval& t : {u.ru_utime, u.ru_stime})
      p.ours += static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  }
  return p;
}

std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

int Run(int argc, char** argv) {
  LifeOptions options;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool known = std::any_of(kParts.begin(), kParts.end(), [&](const Part& p) { return word == p.name; });
    if (word == "--smoke") {
      options.smoke = true;
    } else if (known) {
      wanted.push_back(word);
    } else {
      fmt::print(stderr, "usage: bench_serve_life [--smoke] [overload|reloads|parents|kills|memory|expiry ...]\n");
      return 2;
    }
  }
  options.overload = std::chrono::seconds(FromEnvironment("GANGLION_LIFE_SECONDS", options.smoke ? 1 : 30));
  options.reloads = static_cast<int>(FromEnvironment("GANGLION_LIFE_RELOADS", options.smoke ? 20 : 1000));
  options.requests = FromEnvironment("GANGLION_LIFE_REQUESTS", options.smoke ? 20'000 : 10'000'000);
  options.engine = runtime::Engine::Create().value();
  ::signal(SIGPIPE, SIG_IGN);
  Report report(options.smoke);
  for (const Part& part : kParts) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), part.name) == wanted.end()) continue;
    fmt::print("{}\n", part.name);
    std::fflush(stdout);
    const Processor before = Used();
    const TimePoint began = std::chrono::steady_clock::now();
    if (const Status s = part.run(options, &report); !s.ok())
      report.Must(false, std::string(part.name) + ": " + s.message());
    // What the times are worth: they mean little where others kept the machine busy.
    const Processor after = Used();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    report.Add({std::string(part.name) + ": processors that others used meanwhile",
                std::max(0., (after.all - before.all) - (after.ours - before.ours)) / took, "cores", std::nullopt, ""});
  }
  return report.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main(int argc, char** argv) { return ganglion::bench::Run(argc, argv); }
