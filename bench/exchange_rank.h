// One rank of a training run that the benchmark of exchanges measures: a process of its own, told what to do by words
// on its command line, answering with a JSON file.
//
// It trains the perceptron 784-200-200-10 on Fashion-MNIST by training::Train, as `ganglion train` does. What a machine
// can do to it is done here: slow_rank computes its gradients slow_ms later than it could, kill_rank kills itself in
// its step kill_step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace ganglion::bench {

struct Job {
  std::string way = "allreduce";
  std::string compress = "none";
  int ranks = 1;
  std::int64_t batch = 128;
  std::int64_t rows = 60'000;
  std::int64_t epochs = 1;
  std::string optimizer = "sgd";
  double rate = .05;
  double momentum = .9;  // of sgd
  std::uint64_t seed = 1;
  bool valid = false;  // accuracy on the test images at the end
  int slow_rank = -1;
  int slow_ms = 0;
  int kill_rank = -1;
  int kill_step = 0;
  double timeout_s = 60;
};

struct Outcome {
  std::string error;   // empty: it trained to the end
  double step_ms = 0;  // median, after the first ten
  double mean_step_ms = 0;
  double fast_step_ms = 0;  // a tenth of the steps are faster
  std::int64_t steps = 0;
  double accuracy = -1;
  double sent_bytes = 0;       // by this rank, a step
  std::vector<double> losses;  // of the trace
  std::vector<int> lost;
  double died_at = 0;   // on the machine's steady clock, seconds: kill_rank's last moment
  double ended_at = 0;  // and the end of this rank
};

// Runs all ranks of `job` as processes, in a directory of their own, and gives their outcomes; that of a killed rank is
// "killed". Refuses when a rank cannot be started or has nothing to say.
Result<std::vector<Outcome>> RunRanks(const Job& job);

// What a process started by RunRanks does: argv[1] is "rank". Returns the exit code.
int RankMain(int argc, char** argv);

}  // namespace ganglion::bench
