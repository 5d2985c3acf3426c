#include "figures.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/file.h"
#include "runtime/runtime.h"
#include "wire/json.h"

namespace ganglion::bench {
namespace {

std::string Machine() {
  std::ifstream cpu("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(cpu, line);) {
    if (line.rfind("model name", 0) == 0) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  return fmt::format("{}, {} cores, ONNX Runtime {}", model, std::thread::hardware_concurrency(),
                     runtime::Engine::Version());
}

std::string Commit() {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen("git describe --always --dirty 2>/dev/null", "r"), pclose);
  std::array<char, 64> line{};
  if (!pipe || std::fgets(line.data(), line.size(), pipe.get()) == nullptr) return "unknown";
  std::string text = line.data();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// ">= 0.9" or "<= 2x": comparison, number, and whether it is about the ratio.
bool Holds(const std::string& goal, double value, std::optional<double> ratio) {
  const bool at_least = goal.rfind(">=", 0) == 0;
  const double limit = std::stod(goal.substr(2));
  const bool about_ratio = goal.back() == 'x';
  if (about_ratio && !ratio) return false;
  const double v = about_ratio ? *ratio : value;
  return at_least ? v >= limit : v <= limit;
}

}  // namespace

int Figures::Finish() const {
  wire::Json j;
  j["name"] = name_;
  j["machine"] = Machine();
  j["commit"] = Commit();
  j["figures"] = wire::Json::array();
  bool all = true;
  for (const Figure& f : figures_) {
    std::optional<double> ratio;
    if (f.baseline && *f.baseline != 0) ratio = f.value / *f.baseline;
    wire::Json one = {{"id", f.id}, {"value", f.value}, {"unit", f.unit}};
    one["baseline"] = f.baseline ? wire::Json(*f.baseline) : wire::Json(nullptr);
    one["ratio"] = ratio ? wire::Json(*ratio) : wire::Json(nullptr);
    one["goal"] = f.goal.empty() ? wire::Json(nullptr) : wire::Json(f.goal);
    const bool holds = f.goal.empty() || Holds(f.goal, f.value, ratio);
    one["holds"] = f.goal.empty() ? wire::Json(nullptr) : wire::Json(holds);
    all &= holds;
    fmt::print("{:<58} {:>12.5g} {:<12} {:>9} {:>9}  {}\n", f.id, f.value, f.unit,
               ratio ? fmt::format("{:.2f}x", *ratio) : "", f.goal,
               f.goal.empty() ? ""
               : holds        ? "holds"
                              : "MISSED");
    j["figures"].push_back(std::move(one));
  }
  const std::string path = "out/bench/" + name_ + ".json";
  if (const auto s = data::WriteFileAtomically(path, wire::WriteJson(j)); !s.ok()) {
    fmt::print(stderr, "{}\n", s.message());
    return 1;
  }
  fmt::print("wrote {}\n", path);
  return all ? 0 : 1;
}

}  // namespace ganglion::bench
