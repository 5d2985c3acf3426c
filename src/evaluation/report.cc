#include "evaluation/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "wire/json.h"

namespace ganglion::evaluation {
namespace {

using wire::Json;

double Ratio(double cloud, double way) { return way > 0 ? cloud / way : 0; }

Json WayJson(const Way& w, const Way& cloud, std::int64_t rows) {
  const auto n = static_cast<double>(rows);
  Json j;
  j["answered"] = w.answered;
  j["degraded"] = w.degraded;
  j["lost"] = w.lost;
  j["accuracy"] = w.accuracy;
  j["risk"] = w.risk;
  j["latency_ms"] = {
      {"mean", w.latency_ms.mean}, {"p50", w.latency_ms.p50}, {"p99", w.latency_ms.p99}, {"max", w.latency_ms.max}};
  j["uplink_bytes"] = w.uplink_bytes;
  j["hop_bytes"] = w.hop_bytes;
  j["cost_per_request"] = w.cost / n;
  const Ratios r = AgainstCloud(w, cloud);
  j["cloud_over_this"] = {
      {"latency", r.latency}, {"uplink_bytes", r.uplink_bytes}, {"hop_bytes", r.hop_bytes}, {"cost", r.cost}};
  j["accuracy_minus_cloud"] = r.accuracy_difference;
  return j;
}

}  // namespace

Ratios AgainstCloud(const Way& way, const Way& cloud) {
  return {Ratio(cloud.latency_ms.mean, way.latency_ms.mean), Ratio(cloud.uplink_bytes, way.uplink_bytes),
          Ratio(cloud.hop_bytes, way.hop_bytes), Ratio(cloud.cost, way.cost), way.accuracy - cloud.accuracy};
}

std::string ToJson(const Report& r) {
  Json j;
  j["decision"] = r.decision;
  j["rows"] = r.rows;
  j["labelled"] = r.labelled;
  j["promise"][std::string(calibration::Name(r.promise.kind))] = r.promise.limit;
  j["promise"]["delta"] = r.promise.delta;
  j["certified"] = r.certified;
  j["certifying_rows"] = r.certifying_rows;
  j["deadline_ms"] = r.deadline_ms;
  j["request_bytes"] = r.request_bytes;
  j["share_below_region"] = r.below_region;
  j["breach_p_value"] = r.breach_p_value;
  j["tiers"] = Json::array();
  for (const auto& t : r.tiers) {
    Json one;
    one["tier"] = std::string(topology::Name(t.tier));
    one["files"] = t.files;
    one["accuracy_alone"] = t.alone;
    one["decided"] = t.decided;
    one["share"] = static_cast<double>(t.decided) / static_cast<double>(r.rows);
    one["error"] = t.error;
    one["error_at_most"] = t.error_bound;
    one["latency_ms"] = {{"p50", t.latency_ms.p50}, {"p99", t.latency_ms.p99}};
    one["uplink_bytes"] = t.uplink_bytes;
    one["cost"] = t.cost;
    j["tiers"].push_back(std::move(one));
  }
  j["cascade"] = WayJson(r.cascade, r.cloud, r.rows);
  j["cloud"] = WayJson(r.cloud, r.cloud, r.rows);
  j["device"] = WayJson(r.device, r.cloud, r.rows);
  j["plug_in"] = WayJson(r.plug_in, r.cloud, r.rows);
  j["outage"] = {{"rows_with_link_down", r.outage_rows},
                 {"cascade", WayJson(r.outage, r.outage_cloud, r.rows)},
                 {"cloud", WayJson(r.outage_cloud, r.outage_cloud, r.rows)}};
  j["curve"] = Json::array();
  for (const auto& p : r.curve) j["curve"].push_back({{"coverage", p.coverage}, {"risk", p.risk}, {"bound", p.bound}});
  return wire::WriteJson(j);
}

}  // namespace ganglion::evaluation
