// Small models and decisions whose right answers are known for each request, and whose cost is chosen.
//
// A request is a point of the plane and how hard it is: point FP32[-1,3] = (x, y, hard). The class is the quadrant of
// (x, y). A stage of level L answers right, and is sure of it, where hard <= L, and wrong and unsure above: so a
// request of hard = 2 is decided by the first stage of level 2 or more, and whoever asks knows by whom and what.
// `work` is how many products of two 192 x 192 matrices a row costs beside that; they change nothing of the answer.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/runtime.h"
#include "topology/topology.h"

namespace ganglion::bench {

// An ONNX file. Outputs: logits FP32[-1,4], sure FP32[-1,1].
std::string StageModel(int level, int work);

struct SmallStage {
  topology::Tier tier;
  int level = 0;
  int work = 0;
};
// DIR/decision.yaml, decision.lock (calibrated, error at most 2 %) and models. `settings`: more lines of decision.yaml.
Status WriteSmallDecision(const std::shared_ptr<runtime::Engine>& engine, const std::filesystem::path& dir,
                          const std::string& name, const std::vector<SmallStage>& stages, const std::string& settings);

inline int QuadrantOf(float x, float y) { return x >= 0 ? (y >= 0 ? 0 : 1) : (y >= 0 ? 2 : 3); }

}  // namespace ganglion::bench
