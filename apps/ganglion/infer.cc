#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "calibrate.h"
#include "node/input_file.h"
#include "node/node.h"
#include "node/yaml.h"
#include "terminal.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string name;
  std::string file;
  std::string deadline;
  std::string highest_tier;
  std::string rows;
  bool json = false;
};

const char* KindName(node::Decided::Kind kind) {
  switch (kind) {
    case node::Decided::Kind::kAccepted:
      return "accepted";
    case node::Decided::Kind::kDegraded:
      return "degraded";
    case node::Decided::Kind::kDeferred:
      return "deferred";
  }
  return "";
}

Status Run(Context& context, const Options& o) {
  node::OpenOptions open;
  if (!o.highest_tier.empty()) {
    open.highest_tier = topology::TierFromName(o.highest_tier);
    if (!open.highest_tier)
      return InvalidArgument("--up-to \"" + o.highest_tier + "\" is no tier; one of device, edge, region, global");
  }
  ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(context.engine, o.name, open));
  if (const auto remark = PromiseRemark(*decision); !remark.empty()) fmt::print(stderr, "infer: {}\n", remark);
  const auto& config = decision->config();
  Duration deadline = config.deadline;
  if (!o.deadline.empty()) {
    ASSIGN_OR_RETURN(deadline, node::ParseDuration(o.deadline));
  }
  ASSIGN_OR_RETURN(const auto inputs, node::LoadInputs(config, o.file));
  std::int64_t begin = 0;
  std::int64_t end = -1;
  RETURN_IF_ERROR(ParseRows(o.rows, &begin, &end));
  const std::int64_t rows = inputs[0].shape()[0];
  if (end < 0) end = rows;
  if (begin >= end || end > rows)
    return InvalidArgument(fmt::format("rows {}:{} of a file that has {}", begin, end, rows));
  const SteadyClock clock;
  wire::Json all = wire::Json::array();
  for (std::int64_t row = begin; row < end && !context.stop.stop_requested(); ++row) {
    std::vector<tensor::Shape> shapes(inputs.size());
    std::vector<tensor::View> views;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      views.push_back(tensor::Rows(inputs[i].View(), row, row + 1, &shapes[i]));
    auto decided = decision->Decide(views, clock, clock.Now() + deadline);
    if (!decided.ok()) return rows > 1 ? decided.status().Within(fmt::format("row {}", row)) : decided.status();
    const auto& d = *decided;
    const std::string file = d.label < 0 ? "" : decision->stage(d.stage).files().back().file;
    if (o.json) {
      all.push_back({{"label", d.label},
                     {"text", config.LabelText(d.label)},
                     {"confidence", d.confidence},
                     {"tier", std::string(topology::Name(d.tier))},
                     {"stage", d.stage},
                     {"kind", KindName(d.kind)},
                     {"reason", std::string(cascade::Name(d.reason))},
                     {"took_ms", Milliseconds(d.took)}});
      continue;
    }
    std::string line =
        fmt::format("{} {:.2f} {}/{} {}", config.LabelText(d.label), d.confidence, topology::Name(d.tier),
                    std::filesystem::path(file).stem().string(), Millis(Milliseconds(d.took)));
    if (d.kind == node::Decided::Kind::kDegraded)
      line += Paint(fmt::format(" degraded ({})", cascade::Name(d.reason)), Colour::kYellow, ColourOut());
    if (d.kind == node::Decided::Kind::kDeferred)
      line += Paint(" deferred: a tier above decides", Colour::kYellow, ColourOut());
    fmt::print("{}\n", line);
  }
  if (o.json) std::fputs(wire::WriteJson(all).c_str(), stdout);
  if (context.stop.stop_requested()) return Cancelled("stopped");
  return {};
}

}  // namespace

void AddInfer(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("infer", "Decide one input or a batch from a file, in this process");
  verb->add_option("name", o->name, "the decision's directory")->required();
  verb->add_option("file", o->file, ".npy, .npz, .csv, .json, .png or .jpg")->required();
  verb->add_option("--rows", o->rows, "only rows BEGIN:END");
  verb->add_option("--deadline", o->deadline, "for each row, for example 50ms; default: decision.yaml's");
  verb->add_option("--up-to", o->highest_tier,
                   "use only stages up to this tier; what would go higher is shown as deferred");
  verb->add_flag("--json", o->json, "all answers as a JSON list");
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("infer", s);
  });
}

}  // namespace ganglion::app
