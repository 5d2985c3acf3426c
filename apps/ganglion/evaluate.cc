#include "evaluate.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "calibrate.h"
#include "data/data.h"
#include "evaluation/report.h"
#include "node/node.h"
#include "terminal.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string name;
  std::string data;
  std::string rows;
  std::string links;
  std::string json;
  std::string html;
  std::uint64_t seed = 1;
};

std::string Times(double x) { return x <= 0 ? "-" : x < 10 ? fmt::format("{:.1f}x", x) : fmt::format("{:.0f}x", x); }

Status Run(Context& context, const Options& o) {
  ASSIGN_OR_RETURN(const auto decision,
                   node::Decision::Open(context.engine, o.name, {.connect = node::ConnectRemoteStage}));
  data::LoadOptions load;
  load.want_labels = decision->lock().promise.kind != calibration::PromiseKind::kDisagreement;
  RETURN_IF_ERROR(ParseRows(o.rows, &load.begin, &load.end));
  ASSIGN_OR_RETURN(const auto dataset, data::LoadDataset(o.data, load));
  if (const auto remark = PromiseRemark(*decision); !remark.empty()) fmt::print(stderr, "evaluate: {}\n", remark);
  evaluation::Options options;
  options.seed = o.seed;
  if (!o.links.empty()) {
    ASSIGN_OR_RETURN(options.topology, node::LoadTopologyFile(o.links));
  }
  ASSIGN_OR_RETURN(const auto report, EvaluateOn(*decision, dataset, options));
  if (!o.html.empty()) RETURN_IF_ERROR(data::WriteFileAtomically(o.html, evaluation::ToHtml(report)));
  if (o.json == "-") {
    std::fputs(evaluation::ToJson(report).c_str(), stdout);
    return {};
  }
  if (!o.json.empty()) RETURN_IF_ERROR(data::WriteFileAtomically(o.json, evaluation::ToJson(report)));
  std::fputs(ToText(report, ColourOut()).c_str(), stdout);
  return {};
}

}  // namespace

Result<evaluation::Report> EvaluateOn(const node::Decision& decision, const data::Dataset& dataset,
                                      const evaluation::Options& options) {
  const auto& config = decision.config();
  if (config.inputs.size() != 1)
    return Unimplemented("evaluation from files takes decisions with one input; this one has " +
                         std::to_string(config.inputs.size()));
  tensor::Shape shape;
  ASSIGN_OR_RETURN(const auto view, AsInput(dataset, config.inputs[0], &shape));
  ASSIGN_OR_RETURN(const auto scores, decision.ScoreAll({&view, 1}));
  return evaluation::Evaluate(decision, scores, dataset.labels, options);
}

std::string ToText(const evaluation::Report& r, bool colour) {
  using evaluation::Way;
  const auto n = static_cast<double>(r.rows);
  const std::string measure(calibration::RiskName(r.promise.kind));
  const char* accuracy = r.labelled ? "accuracy" : "agreement";
  std::string text = Paint(fmt::format("{}: {} decisions, {}_at_most {:g} with probability {:g}", r.decision,
                                       Thousands(r.rows), measure, r.promise.limit, 1 - r.promise.delta),
                           Colour::kBold, colour);
  text += r.tiers.size() == 1 ? std::string("; one stage answers everything, nothing to certify\n\n")
          : r.certified       ? fmt::format(", certified on {} rows\n\n", Thousands(r.certifying_rows))
                              : Paint(" NOT certified: nothing is accepted below the top\n\n", Colour::kYellow, colour);
  Table tiers({"tier", "decided", "share", "error", "certified", "p50", "p99", "sent up", "cost"});
  for (const auto& t : r.tiers) {
    const bool top = t.stage + 1 == r.tiers.size();
    tiers.Row({std::string(topology::Name(t.tier)), Thousands(t.decided), Percent(static_cast<double>(t.decided) / n),
               t.decided > 0 ? Percent(t.error, 2) : "-",
               top || t.decided == 0 ? "-" : "<= " + Percent(t.error_bound, 2), Millis(t.latency_ms.p50),
               Millis(t.latency_ms.p99), Bytes(t.uplink_bytes), Dollars(t.cost)});
  }
  text += tiers.Text(colour);
  text +=
      Paint("(upper tiers see only the hard rows; certified: holds for all tiers together)\n", Colour::kDim, colour);
  text += fmt::format("\n{} measured {}, promised <= {}; {} decided below region\n", measure,
                      Percent(r.cascade.risk, 2), Percent(r.promise.limit, 2), Percent(r.below_region));
  if (r.cascade.risk > r.promise.limit) {
    const bool chance = r.breach_p_value > .01;
    text +=
        Paint(fmt::format("that is above the promise: {} of {} where {:.0f} are allowed on average, p = {:.2g}. {}\n",
                          Thousands(r.cascade.broken), Thousands(r.cascade.trials),
                          r.promise.limit * static_cast<double>(r.cascade.trials), r.breach_p_value,
                          chance ? "Chance may explain it"
                                 : "These rows are not like those it was calibrated on; calibrate on rows like these"),
              chance ? Colour::kYellow : Colour::kRed, colour);
  }
  text += "\n";

  Table ways({"way to decide", accuracy, measure, "mean", "p99", "sent up", "all hops", "cost/request", "latency",
              "bytes", "hops", "cost"});
  const auto row = [&](const Way& w, Colour c) {
    const auto ratio = evaluation::AgainstCloud(w, r.cloud);
    ways.Row({w.name, Percent(w.accuracy, 2), Percent(w.risk, 2), Millis(w.latency_ms.mean), Millis(w.latency_ms.p99),
              Bytes(w.uplink_bytes), Bytes(w.hop_bytes), Dollars(w.cost / n), Times(ratio.latency),
              Times(ratio.uplink_bytes), Times(ratio.hop_bytes), Times(ratio.cost)},
             c);
  };
  row(r.cascade, Colour::kGreen);
  row(r.cloud, Colour::kPlain);
  row(r.device, Colour::kPlain);
  row(r.plug_in, Colour::kPlain);
  text += ways.Text(colour);
  text += Paint("(the last four columns: how many times lower than everything in the cloud)\n\n", Colour::kDim, colour);

  Table outage(
      {"link to region down for the middle third", "answered", "degraded", "lost", accuracy, "p99", "slowest"});
  for (const Way* w : {&r.outage, &r.outage_cloud}) {
    outage.Row({w->name, Thousands(w->answered), Thousands(w->degraded), Thousands(w->lost), Percent(w->accuracy, 2),
                Millis(w->latency_ms.p99), Millis(w->latency_ms.max)},
               w == &r.outage ? Colour::kGreen : Colour::kPlain);
  }
  text += outage.Text(colour);
  const auto ratio = evaluation::AgainstCloud(r.cascade, r.cloud);
  text +=
      "\n" +
      Paint(fmt::format(
                "against everything in the cloud: {} {:+.2f} points, latency {} lower, bytes {} fewer, cost {} lower",
                accuracy, 100 * ratio.accuracy_difference, Times(ratio.latency), Times(ratio.uplink_bytes),
                Times(ratio.cost)),
            Colour::kBold, colour) +
      "\n";
  return text;
}

void AddEvaluate(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand(
      "evaluate", "Run a calibrated decision over labelled rows on a virtual clock, against other ways to decide");
  verb->add_option("name", o->name, "the decision's directory")->required();
  verb->add_option("--data", o->data, "rows that neither trained nor calibrated: idx prefix, .npz or .csv")->required();
  verb->add_option("--rows", o->rows, "only rows BEGIN:END of --data");
  verb->add_option("--links", o->links, "latencies and prices of the tiers (YAML); default: the built-in table");
  verb->add_option("--seed", o->seed, "of the round trips")->capture_default_str();
  verb->add_option("--json", o->json,
                   "write the result as JSON to this file; - for standard output, without the table");
  verb->add_option("--html", o->html, "write a self-contained page");
  verb->callback([&context, &exit_code, o] {
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("evaluate", s);
  });
}

}  // namespace ganglion::app
