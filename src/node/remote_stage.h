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

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"
#include "wire/inference.h"

namespace ganglion::net {
class GrpcClient;
}

namespace ganglion::node {

struct RemoteUrl {
  bool tls = false;
  std::string target;  // "triton:8001"
  std::string model;
  std::string version;  // empty: the server's choice
};
Result<RemoteUrl> ParseRemoteUrl(const std::string& url);

class RemoteStage {
 public:
  // Asks the server what the model takes and gives; refuses what does not fit the decision's inputs.
  static Result<std::unique_ptr<RemoteStage>> Connect(const std::string& url, std::span<const tensor::Spec> inputs);
  ~RemoteStage();

  const wire::ModelMetadata& metadata() const { return metadata_; }
  // The server's name for the decision's input i.
  const std::string& input(std::size_t i) const { return names_[i]; }
  const std::string& output() const { return output_; }
  // "grpc://triton:8001/big@3"
  std::string Pinned() const;

  // Logits [rows, n] of any number of rows; the number of classes is the size over the rows.
  Result<std::vector<float>> Score(std::span<const tensor::View> inputs) const;

 private:
  RemoteStage();
  std::string url_;
  RemoteUrl parts_;
  wire::ModelMetadata metadata_;
  std::vector<std::string> names_;
  std::string output_;
  std::unique_ptr<net::GrpcClient> client_;
};

}  // namespace ganglion::node
