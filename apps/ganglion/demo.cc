#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "calibrate.h"
#include "data/data.h"
#include "demo_live.h"
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
  std::uint64_t seed = 1;
  int threads = 2;
  double effort = 1;
  bool quiet = false;
  bool live = false;
  bool convolutional = false;
  double seconds = 60;
  double rate = 200;
};

fs::path Dir(const Options& o) { return fs::path(o.out) / (o.convolutional ? "fashion-conv" : "fashion"); }

// Of the real images 50,000 rows train (once) and 10,000 others calibrate.
Status Train(Context& context, const Options& o) {
  const fs::path dir = Dir(o);
  const auto kind = o.convolutional ? training::LadderKind::kConvolutional : training::LadderKind::kPerceptrons;
  if (!training::LadderIsTrained(dir, kind, o.seed, o.effort)) {
    fmt::print("training the ladder on 50,000 images, once (about {} on two cores); Ctrl-C keeps what is done\n",
               o.convolutional ? "a quarter of an hour" : "a minute");
    std::fflush(stdout);
    Status s = TrainFashionLadder(context, {.data = o.data,
                                            .dir = dir,
                                            .seed = o.seed,
                                            .threads = o.threads,
                                            .effort = o.effort,
                                            .resume = true,
                                            .quiet = o.quiet,
                                            .convolutional = o.convolutional});
    if (s.code() == Code::kCancelled) return Cancelled(s.message() + "; the next run goes on there");
    return s;
  }
  return {};
}

Status Calibrate(Context& context, const Options& o) {
  const fs::path dir = Dir(o);
  ASSIGN_OR_RETURN(const auto open, node::Decision::Open(context.engine, dir,
                                                         {.with_lock = false, .connect = node::ConnectRemoteStage}));
  ASSIGN_OR_RETURN(const auto held_out,
                   data::LoadDataset((fs::path(o.data) / "train").string(), {.begin = 50'000, .end = 60'000}));
  node::CalibrateOptions options;
  options.promise = open->config().promise;
  options.seed = o.seed;
  ASSIGN_OR_RETURN(const auto calibrated, CalibrateTo(*open, held_out, dir, options));
  fmt::print("calibrated on 10,000 held-out images: {}\n\n", Summary(calibrated.lock));
  for (const auto& remark : calibrated.remarks) fmt::print("{}\n", Paint(remark, Colour::kYellow, ColourOut()));
  return {};
}

// The main job on real images: the 10,000 test rows are decided on a virtual clock.
Status Run(Context& context, const Options& o) {
  const fs::path dir = Dir(o);
  RETURN_IF_ERROR(Train(context, o));
  RETURN_IF_ERROR(Calibrate(context, o));
  ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(context.engine, dir));
  ASSIGN_OR_RETURN(const auto test, data::LoadDataset((fs::path(o.data) / "t10k").string()));
  ASSIGN_OR_RETURN(const auto report, EvaluateOn(*decision, test, {}));
  std::fputs(ToText(report, ColourOut()).c_str(), stdout);
  const std::string name = o.convolutional ? "demo-conv" : "demo";
  const fs::path json = o.json.empty() ? fs::path(o.out) / (name + ".json") : fs::path(o.json);
  const fs::path html = fs::path(o.out) / (name + ".html");
  RETURN_IF_ERROR(data::WriteFileAtomically(json, evaluation::ToJson(report)));
  RETURN_IF_ERROR(data::WriteFileAtomically(html, evaluation::ToHtml(report)));
  fmt::print("\nwrote {} and {}\n", json.string(), html.string());
  return {};
}

// The same ladder behind four running nodes. What is trained and calibrated is not done again.
Status RunLive(Context& context, const Options& o) {
  const fs::path dir = Dir(o);
  RETURN_IF_ERROR(Train(context, o));
  if (!node::Decision::Open(context.engine, dir).ok()) RETURN_IF_ERROR(Calibrate(context, o));
  const fs::path out = o.out;
  return app::RunLive(
      context, {dir, o.data, out / "live", o.json.empty() ? out / "live.json" : fs::path(o.json), o.seconds, o.rate});
}

}  // namespace

void AddDemo(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand(
      "demo", "Decide 10,000 real images by a certified four-tier cascade, against everything in the cloud");
  verb->add_option("--data", o->data, "the folder of Fashion-MNIST")->capture_default_str();
  verb->add_option("--out", o->out, "where models and reports go")->capture_default_str();
  verb->add_option("--json", o->json, "default OUT/demo.json, with --live OUT/live.json");
  verb->add_option("--seed", o->seed, "of the training and of the calibration's split")->capture_default_str();
  verb->add_option("--threads", o->threads, "models trained at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  verb->add_option("--effort", o->effort, "share of the recipe's epochs, for a quick look at lower accuracy")
      ->capture_default_str()
      ->check(CLI::Range(.01, 1.));
  verb->add_flag("--conv", o->convolutional, "global and region are convolutional nets (training takes longer)");
  verb->add_flag("--quiet", o->quiet, "no progress bar");
  auto* live = verb->add_flag("--live", o->live,
                              "four running nodes instead: kill the upper three one by one, and bring them back");
  verb->add_option("--seconds", o->seconds, "with --live: how long, in all")
      ->capture_default_str()
      ->check(CLI::Range(45., 85.))
      ->needs(live);
  verb->add_option("--rate", o->rate, "with --live: images a second")
      ->capture_default_str()
      ->check(CLI::Range(20., 1000.))
      ->needs(live);
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    if (const auto s = o->live ? RunLive(context, *o) : Run(context, *o); !s.ok()) exit_code = Fail("demo", s);
  });
}

}  // namespace ganglion::app
