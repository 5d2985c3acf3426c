#include "training/curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace ganglion::training {
namespace {

constexpr const char* kStyle = R"(
:root{--bg:#fbfaf7;--fg:#1d2129;--dim:#667085;--line:#d9d6cd;--card:#fff;--a:#0f766e;--b:#c2410c}
@media(prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e6e8ec;--dim:#98a2b3;--line:#313743;--card:#1b1f26;
--a:#2dd4bf;--b:#fb923c}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1060px;margin:0 auto;padding:32px 20px 48px}h1{font-size:26px;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 8px}p{margin:4px 0 12px;color:var(--dim)}
.big{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.big div,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.big b{display:block;font-size:24px;line-height:1.2}.big span{color:var(--dim);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:14px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font-size:12px}
.axis{stroke:var(--line)}.now{stroke:var(--dim);stroke-dasharray:3 3;visibility:hidden}
.read{color:var(--dim);font-size:13px;min-height:20px;font-variant-numeric:tabular-nums}
.key i{display:inline-block;width:14px;height:3px;margin:0 5px 4px 12px;vertical-align:middle}
.key{font-size:13px;color:var(--dim)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid var(--line)}th{color:var(--dim);font-weight:500;font-size:13px}
tr:last-child td{border-bottom:0}.charts+.card{margin-top:14px}.card{overflow-x:auto}
)";

// The values nearest to the pointer, under each chart.
constexpr const char* kScript = R"(
for(const svg of document.querySelectorAll('svg[data-series]')){
  const series=JSON.parse(svg.dataset.series),x0=+svg.dataset.x0,x1=+svg.dataset.x1,last=+svg.dataset.last;
  const line=svg.querySelector('.now'),read=svg.parentNode.querySelector('.read');
  svg.addEventListener('pointermove',e=>{
    const p=new DOMPoint(e.clientX,e.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const step=Math.max(0,Math.min(last,(p.x-x0)/(x1-x0)*last));
    const at=x0+step/last*(x1-x0);line.setAttribute('x1',at);line.setAttribute('x2',at);line.style.visibility='visible';
    read.textContent=series.map(s=>{let best=0;
      s.x.forEach((v,i)=>{if(Math.abs(v-step)<Math.abs(s.x[best]-step))best=i});
      return s.name+' at '+s.x[best]+': '+s.y[best].toPrecision(5)}).join('   ')});
  svg.addEventListener('pointerleave',()=>{line.style.visibility='hidden';read.textContent='\u00a0'});
}
)";

constexpr const char* kRateTitle = "Learning rate";  // it falls to zero: no scale for a logarithm

using Points = std::vector<std::pair<double, double>>;  // step, value

struct Series {
  std::string name;
  std::string colour;
  Points points;
  bool dots = false;
};

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string JsonText(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Number(double v) { return std::isfinite(v) ? fmt::format("{:.9g}", v) : "null"; }
std::string Measurement(double v) { return v < 0 ? "null" : Number(v); }

double NiceStep(double span) {
  const double power = std::pow(10, std::floor(std::log10(span / 4)));
  for (const double m : {1., 2., 2.5, 5., 10.}) {
    if (span / 4 <= m * power) return m * power;
  }
  return 10 * power;
}

// From values to a share of the height.
struct Scale {
  bool logarithmic = false;
  double low = 0;
  double high = 1;
  double At(double v) const {
    return logarithmic ? (std::log(v) - std::log(low)) / (std::log(high) - std::log(low)) : (v - low) / (high - low);
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    if (logarithmic) {
      // One, two and five of each power of ten; powers alone, or some of them, where these are too many.
      const double powers = std::log10(high / low);
      const int every = std::max(1, static_cast<int>(std::ceil(powers / 7)));
      int number = 0;
      for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10, ++number) {
        for (const double m : {1., 2., 5.}) {
          const bool wanted = m == 1 ? number % every == 0 : powers < 2.5;
          if (wanted && m * power >= low * .999 && m * power <= high * 1.001) ticks.push_back(m * power);
        }
      }
      return ticks;
    }
    const double step = NiceStep(high - low);
    for (double v = std::ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step)
      ticks.push_back(std::fabs(v) < step * 1e-9 ? 0 : v);
    return ticks;
  }
};

Scale ScaleOf(const std::vector<Series>& series, bool may_be_logarithmic) {
  double low = INFINITY;
  double high = -INFINITY;
  for (const auto& s : series) {
    for (const auto& p : s.points) {
      low = std::min(low, p.second);
      high = std::max(high, p.second);
    }
  }
  if (may_be_logarithmic && low > 0 && high > 30 * low) return {true, low / 1.1, high * 1.1};
  if (high > low) {
    const double margin = (high - low) * .05;
    return {false, low >= 0 ? std::max(0., low - margin) : low - margin, high + margin};
  }
  return {false, low - std::max(std::fabs(low) * .1, 1e-6), high + std::max(std::fabs(high) * .1, 1e-6)};
}

std::string Chart(const std::string& title, std::vector<Series> series, double last_step, double mark) {
  series.erase(std::remove_if(series.begin(), series.end(), [](const Series& s) { return s.points.empty(); }),
               series.end());
  if (series.empty()) return "";
  constexpr double kLeft = 58;
  constexpr double kRight = 468;
  constexpr double kTop = 10;
  constexpr double kBottom = 216;
  const Scale scale = ScaleOf(series, title != kRateTitle);
  const auto x = [&](double step) { return kLeft + step / last_step * (kRight - kLeft); };
  const auto y = [&](double v) { return kBottom - scale.At(v) * (kBottom - kTop); };
  std::string data = "[";
  std::string key;
  std::string lines;
  for (const auto& s : series) {
    std::string xs;
    std::string ys;
    std::string d;
    for (const auto& [step, v] : s.points) {
      xs += (xs.empty() ? "" : ",") + Number(step);
      ys += (ys.empty() ? "" : ",") + Number(v);
      d += fmt::format("{}{:.1f},{:.1f}", d.empty() ? "" : " ", x(step), y(v));
      if (s.dots)
        lines += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>", x(step), y(v), s.colour);
    }
    data += fmt::format("{}{{\"name\":{},\"x\":[{}],\"y\":[{}]}}", data == "[" ? "" : ",", JsonText(s.name), xs, ys);
    key += fmt::format("<i style=\"background:{}\"></i>{}", s.colour, s.name);
    lines += fmt::format("<polyline fill=\"none\" points=\"{}\" stroke=\"{}\" stroke-width=\"2\"/>", d, s.colour);
  }
  std::string svg = fmt::format(
      "<div class=\"card\"><h2>{}<span class=\"key\">{}</span></h2><svg viewBox=\"0 0 480 256\" role=\"img\" "
      "aria-label=\"{}\" data-x0=\"{}\" data-x1=\"{}\" data-last=\"{}\" data-series=\"{}\">",
      title, series.size() > 1 ? key : "", title, kLeft, kRight, last_step, Escape(data + "]"));
  for (const double t : scale.Ticks()) {
    svg += fmt::format("<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft, kRight, y(t),
                       y(t));
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.4g}</text>", kLeft - 6, y(t) + 4, t);
  }
  const double step = std::max(1., NiceStep(last_step));
  for (double t = 0; t <= last_step; t += step) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"{}\">{:.6g}</text>", x(t), kBottom + 18,
                       x(t) > kRight - 16 ? "end" : "middle", t);
  }
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">steps</text>", kRight, kBottom + 33);
  if (mark >= 0) {
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"var(--b)\" stroke-dasharray=\"5 4\"/>",
        x(mark), kTop, kBottom);
  }
  svg += lines;
  svg += fmt::format("<line class=\"now\" y1=\"{}\" y2=\"{}\"/></svg><div class=\"read\">&nbsp;</div></div>", kTop,
                     kBottom);
  return svg;
}

Points OfTrace(const Trained& trained, float TracePoint::*value) {
  Points points;
  points.reserve(trained.trace.size());
  for (const auto& t : trained.trace) points.emplace_back(static_cast<double>(t.step), static_cast<double>(t.*value));
  return points;
}

Points OfHistory(const Trained& trained, double CurvePoint::*value) {
  Points points;
  for (const auto& p : trained.history) {
    if (p.*value >= 0) points.emplace_back(static_cast<double>(p.step), p.*value);
  }
  return points;
}

std::string Tile(const std::string& value, const std::string& what) {
  return "<div><b>" + value + "</b><span>" + what + "</span></div>";
}

}  // namespace

std::string CurveJson(const Trained& trained, const std::string& loss) {
  std::string json = fmt::format("{{\"model\":{},\"loss\":{},\"steps\":{},\"best_step\":{},\"points\":[",
                                 JsonText(trained.model.name()), JsonText(loss), trained.steps,
                                 trained.best_step < 0 ? "null" : std::to_string(trained.best_step));
  for (const auto& p : trained.history) {
    json += fmt::format("{}\n{{\"step\":{},\"epoch\":{},\"loss\":{},\"valid_loss\":{},\"accuracy\":{}}}",
                        &p == &trained.history.front() ? "" : ",", p.step, Number(p.epoch), Number(p.loss),
                        Measurement(p.valid_loss), Measurement(p.accuracy));
  }
  json += "],\n\"trace\":[";
  for (const auto& t : trained.trace) {
    json += fmt::format("{}\n{{\"step\":{},\"loss\":{},\"gradient_norm\":{},\"rate\":{}}}",
                        &t == &trained.trace.front() ? "" : ",", t.step, Number(t.loss), Number(t.gradient_norm),
                        Number(t.rate));
  }
  return json + "]}\n";
}

std::string CurvePage(const Trained& trained, const std::string& loss) {
  const auto last = static_cast<double>(std::max<std::int64_t>(1, trained.steps));
  const auto mark = static_cast<double>(trained.best_step);
  std::string tiles = Tile(std::to_string(trained.steps), "steps");
  if (!trained.history.empty()) {
    const CurvePoint* shown = &trained.history.back();
    for (const auto& p : trained.history) {
      if (trained.best_step >= 0 && p.step == trained.best_step) shown = &p;
    }
    tiles += Tile(fmt::format("{:.4f}", shown->loss), "training loss");
    if (shown->valid_loss >= 0) tiles += Tile(fmt::format("{:.4f}", shown->valid_loss), "validation loss");
    if (shown->accuracy >= 0) tiles += Tile(fmt::format("{:.2f} %", 100 * shown->accuracy), "validation accuracy");
    if (trained.best_step >= 0) tiles += Tile(std::to_string(trained.best_step), "best step (kept)");
  }
  std::string rows;
  for (const auto& p : trained.history) {
    const auto cell = [](double v) { return v < 0 ? std::string("&ndash;") : fmt::format("{:.5f}", v); };
    rows += fmt::format("<tr><td>{}</td><td>{:.6g}</td><td>{:.5f}</td><td>{}</td><td>{}</td></tr>", p.step, p.epoch,
                        p.loss, cell(p.valid_loss), cell(p.accuracy));
  }
  const std::string name = Escape(trained.model.name());
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width,initial-scale=1\"><title>" +
         name + " learns</title><style>" + kStyle + "</style></head><body><main><h1>" + name +
         "</h1><p>loss: " + Escape(loss) +
         (trained.best_step >= 0 ? "; the dashed line is the step whose parameters were kept" : "") +
         "</p><div class=\"big\">" + tiles + "</div><div class=\"charts\">" +
         Chart("Loss",
               {{"training", "var(--a)", OfTrace(trained, &TracePoint::loss)},
                {"validation", "var(--b)", OfHistory(trained, &CurvePoint::valid_loss), true}},
               last, mark) +
         Chart("Accuracy on validation rows",
               {{"accuracy", "var(--a)", OfHistory(trained, &CurvePoint::accuracy), true}}, last, mark) +
         Chart("Norm of the gradient", {{"norm", "var(--a)", OfTrace(trained, &TracePoint::gradient_norm)}}, last, -1) +
         Chart(kRateTitle, {{"rate", "var(--a)", OfTrace(trained, &TracePoint::rate)}}, last, -1) +
         "</div><div class=\"card\"><table><tr><th>step</th><th>epoch</th><th>training loss</th><th>validation "
         "loss</th><th>accuracy</th></tr>" +
         rows + "</table></div></main><script>" + kScript + "</script></body></html>\n";
}

}  // namespace ganglion::training
