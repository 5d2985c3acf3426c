// What a node answers: the outputs and parameters of a decision or a model as the protocol carries them, and its status
// as JSON.
//
// A decision's outputs: label INT64[n], label_name BYTES[n], confidence FP32[n]; on request ganglion.tier and
// ganglion.stage BYTES[n], ganglion.confidence and ganglion.propensity FP32[n], ganglion.decision_id BYTES[n],
// ganglion.degraded BOOL[n]. A row of a batch that nobody could answer has label -1.
// Pure, apart from PlaceInSharedMemory.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "node/flow.h"
#include "node/online_stage.h"
#include "node/parents.h"
#include "node/prediction_cache.h"
#include "node/served.h"
#include "node/shared_memory.h"
#include "wire/inference.h"

namespace ganglion::node {

// Refuses outputs that are not there, or that cannot be classified, before anything is computed.
Status CheckOutputs(const Served& served, const wire::InferRequest& request);

// `new_id` gives a decision id for each row that has none from above.
wire::InferResponse DecisionAnswer(const Served& served, const wire::InferRequest& request,
                                   const std::vector<RowAnswer>& rows, const std::function<std::string()>& new_id);
// An answer out of the cache gets decision ids of its own.
void RenewIds(wire::InferResponse* response, const std::function<std::string()>& new_id);

Result<wire::InferResponse> ModelAnswer(const Served& served, const wire::InferRequest& request,
                                        std::vector<tensor::Tensor> outputs);

Status PlaceInSharedMemory(const wire::InferRequest& request, const SharedRegions& regions,
                           wire::InferResponse* response);

struct NodeStatus {
  struct Stage {
    std::string name;
    Duration usual{};
    std::size_t queued = 0;
  };
  struct Model {
    std::string name, version, state, reason;
    bool decision = false;
    std::uint64_t requests = 0;
    std::uint64_t failed = 0;
    std::optional<OnlineStage::Report> learning;  // of the stage that learns, where there is one
    std::vector<Stage> stages;
  };
  std::string node, tier, version;
  bool ready = false;
  bool draining = false;
  Duration up{};
  int in_flight = 0;
  int limit = 0;
  int waiting_above = 0;
  std::size_t connections = 0;
  PredictionCache::Stats cache;
  std::vector<Model> models;
  std::vector<Parents::View> parents;
};
std::string WriteStatus(const NodeStatus& status);

}  // namespace ganglion::node
