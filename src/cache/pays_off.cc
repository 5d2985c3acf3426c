#include "cache/pays_off.h"

#include <algorithm>

namespace ganglion::cache {
namespace {

constexpr int kMostNeeded = 64;

}  // namespace

void PaysOff::Observe(const Traffic& traffic) {
  window_.lookups += traffic.lookups;
  window_.hits += traffic.hits;
  window_.computed += traffic.computed;
  window_.compute_seconds += traffic.compute_seconds;
  window_.timed += traffic.timed;
  window_.cost_seconds += traffic.cost_seconds;
  if (window_.lookups >= (on_ ? options_.window : options_.sampled_window)) EndWindow();
}

void PaysOff::EndWindow() {
  const Traffic w = window_;
  window_ = Traffic{};
  if (w.computed > 0) compute_mean_ = w.compute_seconds / static_cast<double>(w.computed);
  if (w.timed > 0) cost_mean_ = w.cost_seconds / static_cast<double>(w.timed);
  const double saved = static_cast<double>(w.hits) * compute_mean_;
  const double cost = static_cast<double>(w.lookups) * cost_mean_;
  if (on_) {
    if (saved >= cost) {
      bad_ = 0;
      needed_ = 1;
    } else if (++bad_ >= options_.patience) {
      on_ = false;
      good_ = 0;
    }
    return;
  }
  good_ = saved > options_.margin * cost ? good_ + 1 : 0;
  if (good_ >= needed_) {
    on_ = true;
    bad_ = 0;
    needed_ = std::min(kMostNeeded, needed_ * 2);  // until a window shows that it was right
  }
}

}  // namespace ganglion::cache
