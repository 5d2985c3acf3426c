// One function a verb, each in the file of its name. They return the exit code: 0 done, 1 failed, 2 usage or
// configuration (this one mostly decided by CLI11 before they run).
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "runtime/runtime.h"

namespace CLI {
class App;
}

namespace ganglion::app {

// What main builds once and hands to whichever verb runs.
struct Context {
  std::shared_ptr<runtime::Engine> engine;
  std::stop_token stop;                 // Ctrl-C, SIGTERM
  std::atomic<bool>& stops_gracefully;  // set by a verb that heeds `stop`; else a signal ends the program
};

// Prints "verb: message" to standard error. 2 for INVALID_ARGUMENT and UNIMPLEMENTED (usage, configuration, files that
// are not what they should be), else 1.
int Fail(const std::string& verb, const Status& status);

// Each registers its options and returns its command to run it by.
void AddTrain(CLI::App& app, Context& context, int& exit_code);
void AddCalibrate(CLI::App& app, Context& context, int& exit_code);
void AddEvaluate(CLI::App& app, Context& context, int& exit_code);
void AddDemo(CLI::App& app, Context& context, int& exit_code);
void AddInit(CLI::App& app, Context& context, int& exit_code);
void AddInfer(CLI::App& app, Context& context, int& exit_code);
void AddGradient(CLI::App& app, Context& context, int& exit_code);
void AddLearn(CLI::App& app, Context& context, int& exit_code);
void AddServe(CLI::App& app, Context& context, int& exit_code);
void AddShrink(CLI::App& app, Context& context, int& exit_code);
void AddCheck(CLI::App& app, Context& context, int& exit_code);
void AddStatus(CLI::App& app, Context& context, int& exit_code);

inline constexpr char kFashion[] = "/usr/share/datasets/fashion-mnist";

struct LadderSettings {
  std::filesystem::path data = kFashion;
  std::filesystem::path dir;
  std::uint64_t seed = 1;
  int threads = 2;
  double effort = 1;  // share of the recipe's epochs
  bool resume = false;
  bool quiet = false;
  bool convolutional = false;  // which recipe
};
// Trains the ladder of Fashion-MNIST into settings.dir with a progress bar: models, labels.txt and decision.yaml.
Status TrainFashionLadder(Context& context, const LadderSettings& settings);

// "100:200" into rows; "" is all.
Status ParseRows(const std::string& text, std::int64_t* begin, std::int64_t* end);

}  // namespace ganglion::app
