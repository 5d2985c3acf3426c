// A Checkpoint is the whole state of a training run between two steps, and its form as a file.
//
// The file: a line that says what it is, the SHA-256 of the rest, the fingerprint of the run (model, data and every
// option that numbers depend on), then the state in the byte order of the machine. A file that is cut short, changed or
// of another run is refused. Memory and size: about 4 to 6 times the parameters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "optimizer/early_stopping.h"
#include "optimizer/optimizer.h"
#include "optimizer/schedule.h"
#include "training/trainer.h"

namespace ganglion::training {

struct Checkpoint {
  std::int64_t epoch = 0;     // whole epochs done
  std::int64_t step = 0;      // steps of the next one done
  std::int64_t observed = 0;  // steps since the last point of the trace
  bool ended = false;         // by early stopping
  double loss_sum = 0;        // over those steps of the epoch
  double trace_loss = 0;      // sums since the last point of the trace
  double trace_norm = 0;
  std::vector<float> parameters;
  std::vector<float> statistics;
  optimizer::State optimizer;
  optimizer::Plateau::State plateau;
  optimizer::EarlyStopping::State stopping;
  std::vector<float> best_parameters;  // of early stopping; empty before the first
  std::vector<float> best_statistics;
  std::vector<CurvePoint> history;
  std::vector<TracePoint> trace;
};

std::string EncodeCheckpoint(const Checkpoint& checkpoint, const std::string& fingerprint);
// `parameters` and `statistics`: how many numbers the model has of each.
Result<Checkpoint> DecodeCheckpoint(std::string_view file, const std::string& fingerprint, std::size_t parameters,
                                    std::size_t statistics);

}  // namespace ganglion::training
