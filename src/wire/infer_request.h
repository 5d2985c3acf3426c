// An infer request of the Open Inference Protocol v2 as the bytes of its REST body with the binary tensor extension: a
// JSON head whose inputs carry "binary_data_size", then the tensors' bytes in order.
// Source: Open Inference Protocol v2 (KServe, "Inference Protocol"), and Triton's binary tensor data extension.
// Pure, thread-safe.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace ganglion::wire {

struct NamedTensor {
  std::string name;
  tensor::View view;
};

struct EncodedRequest {
  std::string body;
  std::size_t json_bytes = 0;  // what the header Inference-Header-Content-Length says
};

EncodedRequest EncodeInferRequest(const std::string& id, std::span<const NamedTensor> inputs);

}  // namespace ganglion::wire
