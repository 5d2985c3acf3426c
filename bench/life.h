// The life of a node under stress: what bench_serve_life.cc measures, a function each, on real processes.
//
// Each adds its figures to a Report; what must never happen (a wrong answer, a lost one) is a Must, which holds in a
// smoke run too, where times mean nothing.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "figures.h"
#include "load.h"
#include "runtime/runtime.h"

namespace ganglion::bench {

struct LifeOptions {
  bool smoke = false;
  Duration overload = std::chrono::seconds(30);
  int reloads = 1000;
  std::uint64_t requests = 10'000'000;  // of the memory run
  std::shared_ptr<runtime::Engine> engine;
};

class Report {
 public:
  explicit Report(bool smoke) : smoke_(smoke), figures_("serve-life") {}
  void Add(Figure figure);
  // Says `what` and lets the run fail where it is not so.
  void Must(bool so, const std::string& what);
  int Finish() const;

 private:
  bool smoke_;
  int broken_ = 0;
  Figures figures_;
};

// What a decision's answer says, read from its JSON.
struct Told {
  int label = -1;
  std::string tier;
  std::string stage;
  bool degraded = false;
  bool labelled = false;  // tier, stage, confidence, degraded and decision id are all there
};
Told ReadDecision(std::string_view body);

// A point whose class is `QuadrantOf` of it, as hard as `hard`, for a decision or a stage's model.
Shot PointShot(const std::string& model, float x, float y, int hard, const std::string& parameters = "",
               bool unique = false);
// The four quadrants at each of these grades of difficulty; `answers` [shot] gets what is right.
std::vector<Shot> PointShots(const std::string& model, const std::vector<int>& hard, const std::string& parameters,
                             std::vector<std::pair<int, int>>* answers = nullptr);  // (quadrant, hard)

// Good answers a second of a closed loop of so many connections: with enough of them, what the node can do.
Result<double> Capacity(int port, std::vector<Shot> shots, int connections, Duration lasts);

Status MeasureOverload(const LifeOptions& options, Report* report);
Status MeasureReloads(const LifeOptions& options, Report* report);
Status MeasureDeadParent(const LifeOptions& options, Report* report);
Status MeasureKills(const LifeOptions& options, Report* report);
Status MeasureMemory(const LifeOptions& options, Report* report);
Status MeasureExpiry(const LifeOptions& options, Report* report);

}  // namespace ganglion::bench
