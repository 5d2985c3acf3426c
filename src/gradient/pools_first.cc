#include "gradient/pools_first.h"

#include <algorithm>
#include <map>
#include <string>

#include "graph/onnx.pb.h"

namespace ganglion::gradient {

void PoolsFirst(onnx::GraphProto* graph) {
  std::map<std::string, int> readers;
  std::map<std::string, int> maker;
  for (const auto& o : graph->output()) ++readers[o.name()];
  for (int i = 0; i < graph->node_size(); ++i) {
    const auto& n = graph->node(i);
    for (const auto& in : n.input()) ++readers[in];
    for (const auto& o : n.output()) maker[o] = i;
    // A graph inside might read any value.
    if (std::any_of(n.attribute().begin(), n.attribute().end(), [](const auto& a) { return a.has_g(); })) return;
  }
  for (int i = 0; i < graph->node_size(); ++i) {
    auto* pool = graph->mutable_node(i);
    if (pool->op_type() != "MaxPool" || !pool->domain().empty() || pool->input_size() != 1 || pool->output_size() != 1)
      continue;
    const auto made = maker.find(pool->input(0));
    if (made == maker.end() || readers[pool->input(0)] != 1) continue;
    auto* relu = graph->mutable_node(made->second);
    if (relu->op_type() != "Relu" || !relu->domain().empty() || relu->input_size() != 1) continue;
    relu->mutable_op_type()->swap(*pool->mutable_op_type());
    relu->mutable_name()->swap(*pool->mutable_name());
    relu->mutable_attribute()->Swap(pool->mutable_attribute());
  }
}

}  // namespace ganglion::gradient
