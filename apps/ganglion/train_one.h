// ganglion train MODEL: one model of anyone's, on data of any size.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "train_workers.h"

namespace CLI {
class App;
}

namespace ganglion::app {

struct Context;

// What the command line says about one model.
struct TrainOneOptions {
  std::string model;
  std::string data;
  std::string rows;
  std::string valid;
  std::string valid_rows;
  std::string out;
  // The loss.
  std::string loss = "softmax_cross_entropy";
  double huber_delta = 1;
  double temperature = 1;
  double hard_share = 0;
  std::vector<std::string> frozen;
  bool freeze_statistics = false;
  // The optimiser.
  std::string optimiser = "adam";
  std::optional<double> rate;
  std::optional<double> momentum;
  std::optional<double> weight_decay;
  bool decoupled = false;
  bool decay_all = false;
  std::string schedule = "cosine";
  double warmup = .03;
  std::optional<double> clip;
  std::optional<double> clip_value;
  // The run.
  std::int64_t batch = 128;
  std::int64_t epochs = 10;
  std::uint64_t seed = 1;
  std::string early_stop;
  std::int64_t validate_every = 0;
  std::int64_t checkpoint_steps = 0;
  double checkpoint_seconds = 60;
  bool resume = false;
  // The data.
  std::string memory = "1GB";
  std::vector<std::string> targets;
  std::string text;
  std::int64_t length = 0;
  std::string vocabulary;
  bool grey = false;
  bool mirror = false;
  bool quiet = false;
  bool json = false;
  // Several processes.
  WorkersOptions workers;
};

// The options that only one model takes (not --data, --out, --seed, --resume, --quiet, which the ladder takes, too).
void AddTrainOneOptions(CLI::App& verb, TrainOneOptions& options);
// Their names.
const std::vector<std::string>& TrainOneOptionNames();

Status TrainOne(Context& context, const TrainOneOptions& options);

}  // namespace ganglion::app
