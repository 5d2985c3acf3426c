// Does a certificate keep its promise? (make bench-certify)
//
// Real: the demo's model outputs on 20,000 images are the population. For each promise and size, 1,000 calibration sets
// are drawn from it with replacement and certified exactly as `ganglion calibrate` does (node::Tune,
// calibration::Walk); the risk of each result is then known exactly, by counting over the population. More violations
// than the .999 quantile of Bin(1000, delta) are a failure. The plug-in rule runs beside it and must exceed that limit.
//
// Synthetic: a population whose risk lies just above the promise at every point of the path, so that any acceptance is
// a violation. The procedure must stay within the limit; three mutants of it must not, or the check could not bite:
//   delta doubled; the tail off by one (k - 1 instead of k); the tuning rows used to certify.
#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <thread>

#include "base/random.h"
#include "figures.h"
#include "node/calibrate.h"
#include "population.h"
#include "stats/binomial.h"

namespace ganglion::bench {
namespace {

using calibration::Certificate;
using calibration::Counts;
using calibration::Evidence;
using calibration::Promise;
using calibration::PromiseKind;

constexpr int kSets = 1000;
constexpr double kDelta = .1;

double Risk(PromiseKind kind, const Counts& c) {
  const auto n = static_cast<double>(calibration::Trials(kind, c));
  return n == 0 ? 0 : static_cast<double>(c.broken) / n;
}

// Runs f(0 .. n-1) on all cores.
void Parallel(int n, const std::function<void(int)>& f) {
  std::atomic<int> next = 0;
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < std::max(1u, std::thread::hardware_concurrency()); ++t) {
    threads.emplace_back([&] {
      for (int i = next++; i < n; i = next++) f(i);
    });
  }
}

struct Tally {
  std::atomic<int> violations = 0;
  std::atomic<int> plug_in_violations = 0;
  std::atomic<int> nothing = 0;
  std::vector<double> accepted = std::vector<double>(kSets);
  std::vector<double> risk = std::vector<double>(kSets);
};

void RunReal(const node::Decision& decision, const Population& population, Figures& figures) {
  const auto cost = node::CostOf(decision.config().stages, topology::Topology::Default());
  const std::vector<std::optional<calibration::Measure>> fixed(population.stages.size());
  const std::size_t rows = population.labels.size();
  std::vector<std::size_t> everything(rows);
  std::iota(everything.begin(), everything.end(), 0);
  const auto limit = stats::BinomialQuantile(.999, kSets, kDelta);

  for (const Promise promise : {Promise{PromiseKind::kLoss, .01, kDelta}, Promise{PromiseKind::kError, .05, kDelta},
                                Promise{PromiseKind::kDisagreement, .02, kDelta}}) {
    const std::string name = fmt::format("{} {:g}", calibration::Name(promise.kind), promise.limit);
    node::Scored whole{population.stages, population.classes, population.labels};
    // The oracle knows the population: the loosest point of the path drawn on it whose exact risk keeps the promise.
    const auto oracle = node::Tune(whole, promise, fixed, cost, everything);
    double oracle_accepts = 0;
    for (const auto& t : oracle.path) {
      const Counts c = calibration::Count(oracle.evidence, t);
      if (Risk(promise.kind, c) <= promise.limit)
        oracle_accepts = std::max(oracle_accepts, static_cast<double>(c.accepted) / static_cast<double>(c.rows));
    }
    for (const std::size_t n : {std::size_t{500}, std::size_t{2000}, std::size_t{5000}}) {
      Tally tally;
      Parallel(kSets, [&](int set) {
        Random random = Random(20261124).Fork(static_cast<std::uint64_t>(set) * 16 + n * 1'000'003 +
                                              static_cast<std::uint64_t>(promise.kind));
        std::vector<std::size_t> drawn(n);
        for (auto& d : drawn) d = random.Below(rows);
        const std::size_t k = population.classes;
        node::Scored sample;
        sample.classes = k;
        for (const auto& stage : population.stages) {
          node::Stage::Scores s;
          s.rows = n;
          s.z.reserve(n * k);
          for (const std::size_t d : drawn)
            s.z.insert(s.z.end(), stage.z.begin() + static_cast<std::ptrdiff_t>(d * k),
                       stage.z.begin() + static_cast<std::ptrdiff_t>((d + 1) * k));
          sample.stages.push_back(std::move(s));
        }
        for (const std::size_t d : drawn) sample.labels.push_back(population.labels[d]);
        std::vector<std::size_t> order(n);
        std::iota(order.begin(), order.end(), 0);  // drawn at random already
        const auto tuning_rows = std::span(order).first(n / 2);
        const auto certify_rows = std::span(order).subspan(n / 2);
        const auto tuning = node::Tune(sample, promise, fixed, cost, tuning_rows);
        const auto certificate =
            calibration::Walk(promise, tuning.evidence.Select(certify_rows), tuning.path, tuning.start);
        // The exact risk: the population judged with the temperatures and measures of this calibration.
        Evidence exact;
        exact.rows = rows;
        exact.breaks = oracle.evidence.breaks;
        for (std::size_t s = 0; s + 1 < population.stages.size(); ++s) {
          std::vector<float> c(rows);
          for (std::size_t r = 0; r < rows; ++r) {
            c[r] = calibration::Judge(std::span(population.stages[s].z).subspan(r * k, k), tuning.temperature[s],
                                      tuning.measure[s])
                       .confidence;
          }
          exact.confidence.push_back(std::move(c));
        }
        const Counts truth = calibration::Count(exact, certificate.thresholds);
        const auto i = static_cast<std::size_t>(set);
        tally.accepted[i] = static_cast<double>(truth.accepted) / static_cast<double>(rows);
        tally.risk[i] = Risk(promise.kind, truth);
        tally.violations += tally.risk[i] > promise.limit;
        tally.nothing += !certificate.holds;
        const auto plug_in = tuning.path[calibration::PlugIn(promise, tuning.evidence, tuning.path)];
        tally.plug_in_violations += Risk(promise.kind, calibration::Count(exact, plug_in)) > promise.limit;
      });
      const double accepted = std::accumulate(tally.accepted.begin(), tally.accepted.end(), 0.) / kSets;
      const double risk = std::accumulate(tally.risk.begin(), tally.risk.end(), 0.) / kSets;
      figures.Add({fmt::format("{}, n={}: violations in 1000", name, n), static_cast<double>(tally.violations), "sets",
                   std::nullopt, fmt::format("<= {}", limit)});
      figures.Add({fmt::format("{}, n={}: plug-in violations in 1000", name, n),
                   static_cast<double>(tally.plug_in_violations), "sets", std::nullopt,
                   fmt::format(">= {}", limit + 1)});
      figures.Add({fmt::format("{}, n={}: accepted share over oracle's", name, n), accepted, "share", oracle_accepts,
                   n == 5000 ? ">= 0.8x" : ""});
      figures.Add({fmt::format("{}, n={}: mean exact risk", name, n), risk, "share", promise.limit, ""});
      figures.Add({fmt::format("{}, n={}: nothing certified", name, n), static_cast<double>(tally.nothing), "sets",
                   std::nullopt, ""});
      std::fflush(stdout);
    }
  }
}

enum class Mutant { kNone, kDeltaDoubled, kTailOffByOne, kTuningCertifies };

// Two stages whose every acceptance breaks the promise with a probability just above the limit, whatever the
// confidence.
Evidence DrawAbove(std::size_t rows, double risk, Random& random) {
  Evidence e;
  e.rows = rows;
  e.confidence.resize(2);
  e.breaks.resize(2);
  for (std::size_t s = 0; s < 2; ++s) {
    for (std::size_t i = 0; i < rows; ++i) {
      e.confidence[s].push_back(static_cast<float>(random.Uniform()));
      e.breaks[s].push_back(random.Uniform() < risk);
    }
  }
  return e;
}

// error_at_most, because there every point of the path has the same risk: the share among the accepted.
// Few rows make the off-by-one visible, many make the level of the exact test come close to delta.
int Violations(Mutant mutant, std::size_t rows, int sets) {
  const Promise promise{PromiseKind::kError, .1, kDelta};
  std::atomic<int> accepted = 0;
  Parallel(sets, [&](int set) {
    Random random = Random(7).Fork(static_cast<std::uint64_t>(set) * 8 + static_cast<std::uint64_t>(mutant));
    const Evidence tuning = DrawAbove(rows, .1001, random);
    const Evidence certifying = mutant == Mutant::kTuningCertifies ? tuning : DrawAbove(rows, .1001, random);
    const auto path = calibration::BuildPath(tuning, {.01, .1, 1});
    const std::size_t start = calibration::ChooseStart(promise, tuning, path);
    bool holds = false;
    if (mutant == Mutant::kDeltaDoubled) {
      Promise looser = promise;
      looser.delta *= 2;
      holds = calibration::Walk(looser, certifying, path, start).holds;
    } else if (mutant == Mutant::kTailOffByOne) {
      const Counts c = calibration::Count(certifying, path[start]);
      holds = stats::BinomialCdf(c.broken - 1, calibration::Trials(promise.kind, c), promise.limit) <= promise.delta;
    } else {
      holds = calibration::Walk(promise, certifying, path, start).holds;
    }
    accepted += holds;
  });
  return accepted;
}

void RunSynthetic(Figures& figures) {
  const auto limit = stats::BinomialQuantile(.999, kSets, kDelta);
  const auto add = [&](const std::string& id, Mutant mutant, std::size_t rows) {
    figures.Add({fmt::format("{}, {} rows: violations in 1000", id, rows),
                 static_cast<double>(Violations(mutant, rows, kSets)), "sets", std::nullopt,
                 mutant == Mutant::kNone ? fmt::format("<= {}", limit) : fmt::format(">= {}", limit + 1)});
  };
  add("risk just above the promise", Mutant::kNone, 200);
  add("risk just above the promise", Mutant::kNone, 2000);
  add("mutant, delta doubled", Mutant::kDeltaDoubled, 2000);
  add("mutant, tail off by one", Mutant::kTailOffByOne, 200);
  add("mutant, tuning data certify", Mutant::kTuningCertifies, 200);
}

Status Run(Figures& figures) {
  RunSynthetic(figures);
  RETURN_IF_ERROR(EnsureDemo());
  ASSIGN_OR_RETURN(const auto engine, runtime::Engine::Create());
  ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(engine, kDemoDir));
  ASSIGN_OR_RETURN(const auto population, LoadPopulation(*decision));
  RunReal(*decision, population, figures);
  return {};
}

}  // namespace
}  // namespace ganglion::bench

int main() {
  ganglion::bench::Figures figures("certify");
  if (const auto s = ganglion::bench::Run(figures); !s.ok()) {
    std::fprintf(stderr, "bench-certify: %s\n", s.message().c_str());
    return 1;
  }
  return figures.Finish();
}
