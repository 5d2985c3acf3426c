#include "shrink/pareto.h"

#include <cmath>
#include <cstdio>

#include "base/check.h"

namespace ganglion::shrink {
namespace {

std::string Number(const char* format, double v) {
  char text[64];
  std::snprintf(text, sizeof text, format, v);
  return text;
}

std::string OverBudget(const Candidate& c, const Budget& budget, double reference) {
  if (!c.failed.empty()) return c.failed;
  if (!std::isfinite(c.accuracy) || !std::isfinite(c.p50_ms)) return "could not be measured";
  if (budget.bytes && c.bytes > *budget.bytes)
    return std::to_string(c.bytes) + " bytes, budget " + std::to_string(*budget.bytes);
  if (budget.latency_ms && c.p99_ms > *budget.latency_ms)
    return Number("p99 %.3g ms", c.p99_ms) + Number(", budget %.3g ms", *budget.latency_ms);
  if (budget.accuracy_loss && c.accuracy < reference - *budget.accuracy_loss - 1e-12)
    return Number("accuracy %+.4f", c.accuracy - reference) + Number(", budget -%.4g", *budget.accuracy_loss);
  return "";
}

bool Dominates(const Candidate& a, const Candidate& b) {
  if (a.last_resort && !b.last_resort) return false;
  if (a.bytes > b.bytes || a.p50_ms > b.p50_ms || a.accuracy < b.accuracy) return false;
  return a.bytes < b.bytes || a.p50_ms < b.p50_ms || a.accuracy > b.accuracy;
}

bool Better(const Candidate& a, const Candidate& b, bool by_size) {
  if (a.last_resort != b.last_resort) return b.last_resort;
  if (by_size && a.bytes != b.bytes) return a.bytes < b.bytes;
  if (a.accuracy != b.accuracy) return a.accuracy > b.accuracy;
  return a.p50_ms < b.p50_ms;
}

}  // namespace

Choice Choose(const std::vector<Candidate>& candidates, const Budget& budget, int reference) {
  GANGLION_CHECK(reference >= 0 && reference < static_cast<int>(candidates.size()));
  Choice choice;
  choice.verdicts.resize(candidates.size());
  const double accuracy = candidates[static_cast<std::size_t>(reference)].accuracy;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    auto& v = choice.verdicts[i];
    v.why = OverBudget(candidates[i], budget, accuracy);
    v.kept = v.why.empty();
  }
  std::vector<bool> fits;
  fits.reserve(candidates.size());
  for (const auto& v : choice.verdicts) fits.push_back(v.kept);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const int of = candidates[i].made_of;
    if (!fits[i] || of < 0 || !fits[static_cast<std::size_t>(of)]) continue;
    const Candidate& base = candidates[static_cast<std::size_t>(of)];
    if (candidates[i].p50_ms <= base.p50_ms * kSlower) continue;
    choice.verdicts[i] = {false, Number("%.2fx as slow as ", candidates[i].p50_ms / base.p50_ms) + base.name +
                                     " on this device: the float model is kept"};
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) fits[i] = choice.verdicts[i].kept;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    for (std::size_t j = 0; fits[i] && j < candidates.size(); ++j) {
      if (i == j || !fits[j] || !Dominates(candidates[j], candidates[i])) continue;
      choice.verdicts[i] = {false, "no better in anything than " + candidates[j].name};
      break;
    }
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (!choice.verdicts[i].kept) continue;
    if (choice.chosen < 0 ||
        Better(candidates[i], candidates[static_cast<std::size_t>(choice.chosen)], budget.accuracy_loss.has_value())) {
      choice.chosen = static_cast<int>(i);
    }
  }
  if (choice.chosen >= 0) choice.verdicts[static_cast<std::size_t>(choice.chosen)].why = "chosen";
  return choice;
}

}  // namespace ganglion::shrink
