// Inputs of a decision as JSON.
#include "node/input_file.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ganglion::node::DecisionConfig config = [] {
    ganglion::node::DecisionConfig c;
    c.name = "d";
    c.inputs = {{"x", ganglion::tensor::DataType::kFp32, {-1, 2}}};
    return c;
  }();
  (void)ganglion::node::ParseJsonInputs(config, std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}

std::vector<std::string> Seeds() {
  return {"[[1,2],[3.5,-4e2]]", R"({"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]}]})"};
}
