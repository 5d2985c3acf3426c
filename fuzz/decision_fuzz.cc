// decision.yaml.
#include "node/decision_file.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)ganglion::node::ParseDecisionFile(std::string(reinterpret_cast<const char*>(data), size), "/nonexistent",
                                          "decision.yaml");
  return 0;
}

std::vector<std::string> Seeds() {
  return {
      "decision: f\ninput: {x: \"FP32[-1,2]\"}\npromise: {loss_at_most: 0.01, delta: 0.1}\ndeadline: 1s\nstages:\n  - "
      "{tier: device, model: a.onnx, confidence: margin}\n"
      "  - {tier: global, ensemble: [b.onnx, c.onnx], pre: p.onnx}\n"};
}
