#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "calibrate.h"
#include "data/data.h"
#include "evaluate.h"
#include "evaluation/report.h"
#include "node/node.h"
#include "terminal.h"
#include "training/ladder.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string data = kFashion;
  std::string out = "out";
  std::string json;
  std::uint64_t seed = 7;
  int threads = 2;
  double effort = 1;
  bool quiet = false;
};

// The main job on real images: 50,000 rows train (once), 10,000 others calibrate, the 10,000 test rows are decided.
Status Run(Context& context, const Options& o) {
  const fs::path dir = fs::path(o.out) / "fashion";
  if (!training::LadderIsTrained(dir, o.seed, o.effort)) {
    fmt::print("training the ladder on 50,000 images, once (about a minute on two cores); Ctrl-C keeps what is done\n");
    std::fflush(stdout);
    RETURN_IF_ERROR(TrainFashionLadder(context, {o.data, dir, o.seed, o.threads, o.effort, true, o.quiet}));
  }
  {
    ASSIGN_OR_RETURN(const auto open, node::Decision::Open(context.engine, dir, {.with_lock = false}));
    ASSIGN_OR_RETURN(const auto held_out,
                     data::LoadDataset((fs::path(o.data) / "train").string(), {.begin = 50'000, .end = 60'000}));
    node::CalibrateOptions options;
    options.promise = open->config().promise;
    options.seed = o.seed;
    ASSIGN_OR_RETURN(const auto calibrated, CalibrateTo(*open, held_out, dir, options));
    fmt::print("calibrated on 10,000 held-out images: {}\n\n", Summary(calibrated.lock));
    for (const auto& remark : calibrated.remarks) fmt::print("{}\n", Paint(remark, Colour::kYellow, ColourOut()));
  }
  ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(context.engine, dir));
  ASSIGN_OR_RETURN(const auto test, data::LoadDataset((fs::path(o.data) / "t10k").string()));
  ASSIGN_OR_RETURN(const auto report, EvaluateOn(*decision, test, {}));
  std::fputs(ToText(report, ColourOut()).c_str(), stdout);
  const fs::path json = o.json.empty() ? fs::path(o.out) / "demo.json" : fs::path(o.json);
  const fs::path html = fs::path(o.out) / "demo.html";
  RETURN_IF_ERROR(data::WriteFileAtomically(json, evaluation::ToJson(report)));
  RETURN_IF_ERROR(data::WriteFileAtomically(html, evaluation::ToHtml(report)));
  fmt::print("\nwrote {} and {}\n", json.string(), html.string());
  return {};
}

}  // namespace

void AddDemo(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand(
      "demo", "Decide 10,000 real images by a certified four-tier cascade, against everything in the cloud");
  verb->add_option("--data", o->data, "the folder of Fashion-MNIST")->capture_default_str();
  verb->add_option("--out", o->out, "where models and reports go")->capture_default_str();
  verb->add_option("--json", o->json, "default OUT/demo.json");
  verb->add_option("--seed", o->seed, "of the training and of the calibration's split")->capture_default_str();
  verb->add_option("--threads", o->threads, "models trained at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  verb->add_option("--effort", o->effort, "share of the recipe's epochs, for a quick look at lower accuracy")
      ->capture_default_str()
      ->check(CLI::Range(.01, 1.));
  verb->add_flag("--quiet", o->quiet, "no progress bar");
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    auto s = Run(context, *o);
    if (s.code() == Code::kCancelled) s = Cancelled(s.message() + "; the next run goes on there");
    if (!s.ok()) exit_code = Fail("demo", s);
  });
}

}  // namespace ganglion::app
