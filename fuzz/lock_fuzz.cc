// decision.lock.
#include "node/lock.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto lock = ganglion::node::ParseLock(std::string(reinterpret_cast<const char*>(data), size));
  if (lock.ok()) (void)ganglion::node::WriteLock(*lock);
  return 0;
}

std::vector<std::string> Seeds() {
  ganglion::node::Lock lock;
  lock.decision = "d";
  lock.holds = true;
  lock.stages.resize(2);
  lock.stages[0].files = {{"a.onnx", "model", {}}};
  lock.stages[0].threshold = .5;
  lock.inputs = {{"x", ganglion::tensor::DataType::kFp32, {-1, 2}}};
  lock.certifying_rows = 100;
  lock.path = {{{.5}, 10, 1}};
  lock.plug_in = {.4};
  return {ganglion::node::WriteLock(lock)};
}
