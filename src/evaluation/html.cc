#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "evaluation/report.h"

namespace ganglion::evaluation {
namespace {

constexpr const char* kStyle = R"(
:root{--bg:#fbfaf7;--fg:#1d2129;--dim:#667085;--line:#d9d6cd;--card:#fff;
--a:#0f766e;--b:#c2410c;--c:#6d28d9;--t0:#0f766e;--t1:#65a30d;--t2:#d97706;--t3:#be123c}

@media(prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e6e8ec;--dim:#98a2b3;--line:#313743;--card:#1b1f26;
--a:#2dd4bf;--b:#fb923c;--c:#a78bfa;--t0:#2dd4bf;--t1:#a3e635;--t2:#fbbf24;--t3:#fb7185}
}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}

main{max-width:1060px;margin:0 auto;padding:32px 20px 48px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:16px;margin:0 0 8px}p{margin:4px 0 12px;color:var(--dim)}
.big{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.big div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.big b{display:block;font-size:24px;line-height:1.2}.big span{color:var(--dim);font-size:13px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px 18px;margin:14px 0;overflow-x:auto}

.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:14px}.two .card{margin:0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 8px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:500;font-size:13px}th:first-child,td:first-child{text-align:left}
tr:last-child td{border-bottom:0}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font-size:12px}.two table{font-size:13px}.two th,.two td{padding:5px 4px}

td.files{white-space:normal;text-align:left;min-width:120px}th.files{text-align:left}.axis{stroke:var(--line)}
)";

struct Plot {
  double x0 = 52, y0 = 14, width = 400, height = 210;
  double X(double u) const { return x0 + u * width; }
  double Y(double v) const { return y0 + (1 - v) * height; }
};

// Names come from files: nothing in them may be taken for markup.
std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Line(const std::vector<std::pair<double, double>>& points, const Plot& p, const std::string& style) {
  std::string d;
  for (const auto& [u, v] : points) d += fmt::format("{}{:.1f},{:.1f}", d.empty() ? "" : " ", p.X(u), p.Y(v));
  return fmt::format("<polyline fill=\"none\" points=\"{}\" {}/>", d, style);
}

// A round number of which a few make up `top`.
double NiceStep(double top) {
  const double raw = top / 4;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double m : {1., 2., 2.5, 5., 10.}) {
    if (raw <= m * power) return m * power;
  }
  return 10 * power;
}

// Horizontal lines from 0 to `top`, with their values in percent.
std::string PercentGrid(const Plot& p, double top) {
  const double step = NiceStep(top);
  std::string svg;
  for (int i = 0; i * step <= top * 1.0001; ++i) {
    const double y = p.Y(i * step / top);
    svg += fmt::format("<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", p.X(0), p.X(1), y, y);
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:g}%</text>", p.X(0) - 6, y + 4,
                       std::round(i * step * 1e5) / 1e3);
  }
  return svg;
}

std::string RiskCoverage(const Report& r) {
  const Plot p;
  const double top = std::max(r.promise.limit * 3, r.chosen_risk * 1.5);
  // The flat part on the left says little: begin where the risk begins to rise.
  double left = 0;
  for (const auto& c : r.curve) {
    if (c.risk < r.promise.limit / 20) left = std::max(left, c.coverage);
  }
  left = std::clamp(std::floor(left * 10 - 1) / 10, 0., .9);
  const auto across = [&](double coverage) { return (coverage - left) / (1 - left); };
  std::string svg = "<svg viewBox=\"0 0 480 268\" role=\"img\" aria-label=\"risk against coverage\">";
  svg += PercentGrid(p, top);
  for (const double u : {0., .25, .5, .75, 1.}) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:g}%</text>", p.X(u), p.Y(0) + 18,
                       std::round((left + u * (1 - left)) * 1e3) / 10);
  }
  svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">accepted below the top</text>", p.X(.5),
                     p.Y(0) + 36);
  std::vector<std::pair<double, double>> risk;
  std::vector<std::pair<double, double>> bound;
  for (const auto& c : r.curve) {
    if (c.coverage < left) continue;
    if (c.risk <= top) risk.emplace_back(across(c.coverage), c.risk / top);
    if (c.bound <= top) bound.emplace_back(across(c.coverage), c.bound / top);
  }
  svg += Line({{0, r.promise.limit / top}, {1, r.promise.limit / top}}, p,
              "stroke=\"var(--b)\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\"");
  svg += Line(bound, p, "stroke=\"var(--c)\" stroke-width=\"1.5\"");
  svg += Line(risk, p, "stroke=\"var(--a)\" stroke-width=\"2.5\"");
  svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\" fill=\"var(--a)\"/>",
                     p.X(std::clamp(across(r.chosen_coverage), 0., 1.)), p.Y(std::min(1., r.chosen_risk / top)));
  svg += fmt::format(
      "<g><rect x=\"66\" y=\"20\" width=\"12\" height=\"3\" fill=\"var(--a)\"/><text x=\"84\" y=\"26\">measured on "
      "these rows (dot: the certified point)</text>"
      "<rect x=\"66\" y=\"37\" width=\"12\" height=\"3\" fill=\"var(--c)\"/><text x=\"84\" y=\"43\">upper bound from "
      "the certifying rows, delta {:g}</text>"
      "<rect x=\"66\" y=\"54\" width=\"12\" height=\"3\" fill=\"var(--b)\"/><text x=\"84\" y=\"60\">the promise, "
      "{:g}%</text></g></svg>",
      r.promise.delta, r.promise.limit * 100);
  return svg;
}

std::string Shares(const Report& r) {
  std::string svg =
      fmt::format("<svg viewBox=\"0 0 480 {}\" role=\"img\" aria-label=\"share by tier\">", 30 + 44 * r.tiers.size());
  double y = 10;
  for (const auto& t : r.tiers) {
    const double share = static_cast<double>(t.decided) / static_cast<double>(std::max<std::int64_t>(1, r.rows));
    svg += fmt::format(
        "<text x=\"0\" y=\"{:.0f}\" style=\"fill:var(--fg);font-size:13px\">{}</text>"
        "<rect x=\"70\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"22\" rx=\"3\" fill=\"var(--t{})\"/>"
        "<text x=\"{:.1f}\" y=\"{:.0f}\">{:.1f}%  ({})</text>",
        y + 16, topology::Name(t.tier), y, std::max(1.5, share * 300), static_cast<int>(t.tier), 78 + share * 300,
        y + 16, share * 100, t.decided);
    y += 44;
  }
  return svg + "</svg>";
}

std::string Histogram(const Report& r) {
  const Plot p;
  // Logarithmic bins from 0.5 ms to 1000 ms.
  constexpr int kBins = 44;
  const double low = std::log(.5);
  const double high = std::log(1000.);
  const auto fill = [&](const std::vector<double>& ms) {
    std::vector<double> bins(kBins);
    for (const double v : ms) {
      const int b = static_cast<int>((std::log(std::max(v, .5)) - low) / (high - low) * kBins);
      bins[static_cast<std::size_t>(std::clamp(b, 0, kBins - 1))] += 1. / static_cast<double>(ms.size());
    }
    return bins;
  };
  const auto cascade = fill(r.cascade_latency_ms);
  const auto cloud = fill(r.cloud_latency_ms);
  double top = 1e-9;
  for (const auto* bins : {&cascade, &cloud}) top = std::max(top, *std::max_element(bins->begin(), bins->end()));
  std::string svg = "<svg viewBox=\"0 0 480 268\" role=\"img\" aria-label=\"latency histogram\">";
  svg += PercentGrid(p, top);
  for (const double ms : {1., 3., 10., 30., 100., 300., 1000.}) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:g}</text>",
                       p.X((std::log(ms) - low) / (high - low)), p.Y(0) + 18, ms);
  }
  svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">latency, ms (logarithmic)</text>", p.X(.5),
                     p.Y(0) + 36);
  const double w = p.width / kBins;
  for (int b = 0; b < kBins; ++b) {
    const auto bar = [&](double share, const char* colour, double offset) {
      if (share <= 0) return std::string();
      return fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"var({})\" opacity=\".85\"/>",
          p.X(static_cast<double>(b) / kBins) + offset, p.Y(share / top), w / 2 - .5, p.Y(0) - p.Y(share / top),
          colour);
    };
    svg += bar(cascade[static_cast<std::size_t>(b)], "--a", 0) + bar(cloud[static_cast<std::size_t>(b)], "--b", w / 2);
  }
  svg +=
      "<g><rect x=\"170\" y=\"18\" width=\"10\" height=\"10\" fill=\"var(--a)\"/><text x=\"186\" "
      "y=\"27\">cascade</text>"
      "<rect x=\"170\" y=\"36\" width=\"10\" height=\"10\" fill=\"var(--b)\"/><text x=\"186\" y=\"45\">everything in "
      "the cloud</text></g></svg>";
  return svg;
}

std::string WayRow(const Way& w, const Way& cloud, std::int64_t rows) {
  const Ratios r = AgainstCloud(w, cloud);
  const auto times = [](double x) { return x > 0 ? fmt::format("{:.1f}x", x) : std::string("-"); };
  return fmt::format(
      "<tr><td>{}</td><td>{:.2f}%</td><td>{:.2f}%</td><td>{:.1f}</td><td>{:.0f}</td><td>{:.2f}</td><td>${:.5f}</"
      "td><td>{}</td><td>{}</td><td>{}</td></tr>",
      w.name, w.accuracy * 100, w.risk * 100, w.latency_ms.mean, w.latency_ms.p99, w.uplink_bytes / 1e6,
      w.cost / static_cast<double>(rows), times(r.latency), times(r.uplink_bytes), times(r.cost));
}

}  // namespace

std::string ToHtml(const Report& r) {
  const Ratios ratio = AgainstCloud(r.cascade, r.cloud);
  const std::string promise = fmt::format("{} {:g} with probability {:g}", calibration::Name(r.promise.kind),
                                          r.promise.limit, 1 - r.promise.delta);
  const std::string measure(calibration::RiskName(r.promise.kind));
  std::string h = fmt::format(
      "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>Ganglion: {}</title><style>{}</style><main>",
      Escape(r.decision), kStyle);
  h += fmt::format(
      "<h1>{}: {} decisions</h1><p>{}{}. Deadline {:g} ms. Round trips drawn from the topology on a virtual clock; "
      "answers are the models' own.</p>",
      Escape(r.decision), r.rows,
      r.certified ? "Certified on " + std::to_string(r.certifying_rows) + " rows: "
                  : "Not certified, nothing is accepted below the top: ",
      promise, r.deadline_ms);
  const auto big = [&](const std::string& value, const std::string& what) {
    h += fmt::format("<div><b>{}</b><span>{}</span></div>", value, what);
  };
  h += "<div class=\"big\">";
  big(fmt::format("{:.1f}%", 100 * r.below_region), "decided below region");
  big(fmt::format("{:.2f}%", 100 * r.cascade.risk),
      fmt::format("{} measured, promised at most {:g}%", measure, 100 * r.promise.limit));
  big(fmt::format("{:.0f}x", ratio.latency), "lower mean latency than the cloud");
  big(fmt::format("{:.0f}x", ratio.uplink_bytes), "fewer bytes on the uplink");
  big(fmt::format("{:.0f}x", ratio.cost), "lower cost");
  big(fmt::format("{:+.2f}", 100 * ratio.accuracy_difference),
      r.labelled ? "points of accuracy against the cloud" : "points of agreement with the top");
  h += "</div><div class=\"card\"><h2>By tier</h2><table><tr><th>tier</th><th class=\"files\">models</th><th>accuracy "
       "alone</th><th>decided</th><th>share</th><th>error</th><th>certified at "
       "most</th><th>p50 ms</th><th>p99 ms</th><th>MB up</th><th>cost</th></tr>";
  for (const auto& t : r.tiers) {
    const bool top = t.stage + 1 == r.tiers.size();
    h += fmt::format(
        "<tr><td>{}</td><td "
        "class=\"files\">{}</td><td>{:.2f}%</td><td>{}</td><td>{:.1f}%</td><td>{}</td><td>{}</td><td>{:.1f}</"
        "td><td>{:.1f}</td><td>{:.2f}</td><td>${:.2f}</td></tr>",
        topology::Name(t.tier), Escape(t.files), t.alone * 100, t.decided,
        100. * static_cast<double>(t.decided) / static_cast<double>(r.rows),
        t.decided > 0 ? fmt::format("{:.2f}%", t.error * 100) : "-",
        top || t.decided == 0 ? "-" : fmt::format("{:.2f}%", t.error_bound * 100), t.latency_ms.p50, t.latency_ms.p99,
        t.uplink_bytes / 1e6, t.cost);
  }
  h += "</table><p>Upper tiers see only what the lower ones would not answer: the hard rows, so their errors are "
       "higher.</p></div><div class=\"two\">";
  h += fmt::format("<div class=\"card\"><h2>Risk ({}) against coverage</h2>{}</div>", measure, RiskCoverage(r));
  h += fmt::format("<div class=\"card\"><h2>Latency</h2>{}</div>", Histogram(r));
  h += fmt::format("<div class=\"card\"><h2>Share by tier</h2>{}</div>", Shares(r));
  h += fmt::format(
      "<div class=\"card\"><h2>Link to the region down for the middle "
      "third</h2><table><tr><th></th><th>answered</th><th>degraded</th><th>lost</th><th>accuracy</th><th>p99 "
      "ms</th></tr>"
      "<tr><td>cascade</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}%</td><td>{:.0f}</td></tr><tr><td>everything in "
      "the cloud</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}%</td><td>{:.0f}</td></tr></table>"
      "<p>{} of the requests came while the link was down. Degraded answers are the best so far, outside the promise, "
      "and marked.</p></div>",
      r.outage.answered, r.outage.degraded, r.outage.lost, r.outage.accuracy * 100, r.outage.latency_ms.p99,
      r.outage_cloud.answered, r.outage_cloud.degraded, r.outage_cloud.lost, r.outage_cloud.accuracy * 100,
      r.outage_cloud.latency_ms.p99, r.outage_rows);
  h += fmt::format(
      "</div><div class=\"card\"><h2>Against other ways to "
      "decide</h2><table><tr><th>way</th><th>{}</th><th>{}</th><th>mean ms</th><th>p99 ms</th><th>MB up</th><th>cost a "
      "request</th><th>latency</th><th>bytes</th><th>cost</th></tr>",
      r.labelled ? "accuracy" : "agreement", measure);
  for (const Way* w : {&r.cascade, &r.cloud, &r.device, &r.plug_in}) h += WayRow(*w, r.cloud, r.rows);
  h += "</table><p>The last three columns say how many times lower than everything in the cloud. Plug-in thresholds "
       "looked right on the calibration rows and promise nothing.</p></div></main></html>\n";
  return h;
}

}  // namespace ganglion::evaluation
