// A RemoteStage is a stage of a decision that another server computes: a Triton or KServe that somebody already runs.
//
// Calibration and evaluation send it rows and take its scores, as if it were a model here; a running node does not use
// it: there the server is a parent (parents.h). Asked over gRPC, in batches, one at a time.
// The stage is written as a URL: grpc://HOST:PORT/MODEL or grpc://HOST:PORT/MODEL/VERSION (grpcs for TLS). Its name in
// the lock is that URL with the version that the server says it serves.
// A decision's input goes to the server's input of the same name, or to its only one. The first FP32 output holds the
// scores: probabilities when all rows add up to 1, else logits.
// A service.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::node {

// An interface, so that who embeds decisions without servers need not link gRPC.
class RemoteStage {
 public:
  virtual ~RemoteStage() = default;

  // The server's name for the decision's input i, and of the output that holds the scores.
  virtual const std::string& input(std::size_t i) const = 0;
  virtual const std::string& output() const = 0;
  // "grpc://triton:8001/big@3"
  virtual std::string Pinned() const = 0;

  // Logits [rows, n] of any number of rows; the number of classes is the size over the rows.
  virtual Result<std::vector<float>> Score(std::span<const tensor::View> inputs) const = 0;
};

using RemoteConnect =
    std::function<Result<std::unique_ptr<RemoteStage>>(const std::string& url, std::span<const tensor::Spec> inputs)>;
// Asks the server what the model takes and gives; refuses what does not fit the decision's inputs.
Result<std::unique_ptr<RemoteStage>> ConnectRemoteStage(const std::string& url, std::span<const tensor::Spec> inputs);

}  // namespace ganglion::node
