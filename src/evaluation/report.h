// A Report for programs and for people: JSON, and one HTML page that needs nothing but itself.
#pragma once

#include <string>

#include "evaluation/evaluation.h"

namespace ganglion::evaluation {

// Ratios are "everything in the cloud" divided by the cascade: 10 means ten times lower.
struct Ratios {
  double latency = 0;
  double uplink_bytes = 0;
  double hop_bytes = 0;
  double cost = 0;
  double accuracy_difference = 0;  // cascade minus cloud
};
Ratios AgainstCloud(const Way& way, const Way& cloud);

std::string ToJson(const Report& report);

// The risk-coverage curve with its certified bound, the share by tier and the latency histogram, as inline SVG; light
// and dark; no script, no outside resource.
std::string ToHtml(const Report& report);

}  // namespace ganglion::evaluation
