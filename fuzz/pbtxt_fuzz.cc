// config.pbtxt of a Triton model repository.
#include <cstdlib>

#include "node/model_repository.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto model = ganglion::node::ReadModelConfig("m", std::string(reinterpret_cast<const char*>(data), size));
  // Without a problem, every tensor can be asked for.
  for (const auto* specs : {&model.inputs, &model.outputs}) {
    for (const auto& spec : *specs) {
      if (spec.name.empty() || spec.shape.empty()) std::abort();
    }
  }
  return 0;
}

std::vector<std::string> Seeds() {
  return {
      "name: \"m\" platform: \"onnxruntime_onnx\" # c\nmax_batch_size: 8\ninput [ { name: \"x\" data_type: TYPE_FP32 "
      "dims: [ 28, -1 ] } ]\noutput { name: 'y' data_type: 11 dims: 10 label_filename: \"l\\x41\\101\\u00e9\" }\n",
      "version_policy: { specific { versions: [1,3] }}; dynamic_batching < preferred_batch_size: 4 "
      "max_queue_delay_microseconds: 100 >\ndefault_model_filename: \"n.onnx\"\n",
      "version_policy { latest { num_versions: 2 } } instance_group [ { count: 1 } ] parameters { key: \"a\" \"b\" }"};
}
