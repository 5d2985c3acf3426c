#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibrate.h"
#include "data/data.h"
#include "node/node.h"
#include "terminal.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string name;
  std::string data;
  std::string rows;
  std::string promise;
  std::string links;
  std::optional<double> delta;
  std::uint64_t seed = 1;
  bool unlabelled = false;
  bool json = false;
};

// "loss_at_most=.01"
Status ParsePromise(const std::string& text, calibration::Promise* promise) {
  const auto equals = text.find('=');
  const auto kind = calibration::PromiseFromName(text.substr(0, equals));
  double limit = 0;
  const std::string number = equals == std::string::npos ? "" : text.substr(equals + 1);
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), limit);
  if (!kind || number.empty() || error != std::errc() || end != number.data() + number.size()) {
    return InvalidArgument(
        "promise \"" + text +
        "\" is none; write for example loss_at_most=0.01, error_at_most=0.05 or disagreement_at_most=0.02");
  }
  promise->kind = *kind;
  promise->limit = limit;
  return {};
}

Status Run(Context& context, const Options& o) {
  ASSIGN_OR_RETURN(
      const auto decision,
      node::Decision::Open(context.engine, o.name, {.with_lock = false, .connect = node::ConnectRemoteStage}));
  node::CalibrateOptions options;
  options.promise = decision->config().promise;
  if (!o.promise.empty()) RETURN_IF_ERROR(ParsePromise(o.promise, &options.promise));
  if (o.delta) options.promise.delta = *o.delta;
  options.seed = o.seed;
  if (!o.links.empty()) {
    ASSIGN_OR_RETURN(options.topology, node::LoadTopologyFile(o.links));
  }
  data::LoadOptions load;
  RETURN_IF_ERROR(ParseRows(o.rows, &load.begin, &load.end));
  load.want_labels = options.promise.kind != calibration::PromiseKind::kDisagreement;
  ASSIGN_OR_RETURN(auto dataset, data::LoadDataset(o.data, load));
  if (o.unlabelled) dataset.labels.clear();
  ASSIGN_OR_RETURN(const auto calibrated, CalibrateTo(*decision, dataset, o.name, options));
  const node::Lock& lock = calibrated.lock;
  if (o.json) {
    std::fputs(node::WriteLock(lock).c_str(), stdout);
  } else {
    fmt::print("{}\n", Summary(lock));
    for (const auto& remark : calibrated.remarks) fmt::print("{}\n", Paint(remark, Colour::kYellow, ColourOut()));
    fmt::print("wrote {}/decision.lock, certified on {} rows of {} (seed {})\n", o.name, lock.certifying_rows, o.data,
               o.seed);
  }
  return {};
}

}  // namespace

Result<node::Calibrated> CalibrateTo(const node::Decision& decision, const data::Dataset& dataset,
                                     const std::filesystem::path& dir, const node::CalibrateOptions& options) {
  const auto& config = decision.config();
  if (config.inputs.size() != 1)
    return Unimplemented("calibration from files takes decisions with one input; this one has " +
                         std::to_string(config.inputs.size()));
  tensor::Shape shape = config.inputs[0].shape;
  ASSIGN_OR_RETURN(const auto view, AsInput(dataset, config.inputs[0], &shape));
  ASSIGN_OR_RETURN(auto calibrated,
                   node::Calibrate(decision, {&view, 1}, dataset.labels, data::DigestOf(dataset).Hex(), options));
  RETURN_IF_ERROR(data::WriteFileAtomically(dir / "decision.lock", node::WriteLock(calibrated.lock)));
  return calibrated;
}

Result<tensor::View> AsInput(const data::Dataset& dataset, const tensor::Spec& spec, tensor::Shape* shape) {
  if (spec.type != tensor::DataType::kFp32) {
    return Unimplemented("data sets are FP32, input \"" + spec.name + "\" wants " + spec.Text() +
                         "; begin with a pre graph that takes FP32");
  }
  *shape = spec.shape;
  (*shape)[0] = dataset.rows();
  const auto count = tensor::ElementCount(*shape);
  if (!count.ok() || *count != dataset.rows() * dataset.features()) {
    return InvalidArgument("the data have " + std::to_string(dataset.features()) + " features a row, input \"" +
                           spec.name + "\" wants " + spec.Text());
  }
  return tensor::View{tensor::DataType::kFp32, *shape, dataset.x.View().bytes};
}

std::string PromiseRemark(const node::Decision& decision) {
  const auto& asked = decision.config().promise;
  const auto& certified = decision.lock().promise;
  if (asked.kind == certified.kind && asked.limit == certified.limit && asked.delta == certified.delta) return "";
  return fmt::format(
      "decision.yaml asks for {} {:g} (delta {:g}), decision.lock certifies {} {:g} (delta {:g}); that is what holds",
      calibration::Name(asked.kind), asked.limit, asked.delta, calibration::Name(certified.kind), certified.limit,
      certified.delta);
}

std::string Summary(const node::Lock& lock) {
  const auto n = static_cast<double>(lock.certifying_rows);
  std::string text;
  std::int64_t below = 0;
  for (std::size_t s = 0; s < lock.stages.size(); ++s) {
    const bool top = s + 1 == lock.stages.size();
    const double share = top ? 1 - static_cast<double>(below) / n : static_cast<double>(lock.stages[s].accepted) / n;
    below += lock.stages[s].accepted;
    text += fmt::format("{}{} {:.1f}%", s > 0 ? " | " : "", topology::Name(lock.stages[s].tier), 100 * share);
  }
  const std::string measure(calibration::RiskName(lock.promise.kind));
  const double trials = lock.promise.kind == calibration::PromiseKind::kError ? static_cast<double>(lock.accepted) : n;
  if (lock.stages.size() == 1) return text;
  if (!lock.holds) return text + fmt::format("; {} not certified", measure);
  return text + fmt::format("; {} {:.4f}, certified <= {:g} at {:g}%", measure,
                            static_cast<double>(lock.broken) / std::max(trials, 1.), lock.promise.limit,
                            100 * (1 - lock.promise.delta));
}

void AddCalibrate(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb =
      app.add_subcommand("calibrate", "Choose and certify the thresholds of a decision; writes NAME/decision.lock");
  verb->add_option("name", o->name, "the decision's directory")->required();
  verb->add_option("--data", o->data, "rows that no model was trained on: idx prefix, .npz or .csv")->required();
  verb->add_option("--rows", o->rows, "only rows BEGIN:END of --data");
  verb->add_option("--promise", o->promise,
                   "loss_at_most=, error_at_most= or disagreement_at_most=; default: decision.yaml's");
  verb->add_option("--delta", o->delta, "the promise may fail with this probability; default: decision.yaml's");
  verb->add_option("--links", o->links, "latencies and prices of the tiers (YAML); default: the built-in table");
  verb->add_option("--seed", o->seed, "of the split into tuning and certifying rows")->capture_default_str();
  verb->add_flag("--unlabelled", o->unlabelled, "ignore the labels");
  verb->add_flag("--json", o->json, "print the lock");
  verb->callback([&context, &exit_code, o] {
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("calibrate", s);
  });
}

}  // namespace ganglion::app
