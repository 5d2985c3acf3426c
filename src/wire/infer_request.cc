#include "wire/infer_request.h"

#include <nlohmann/json.hpp>

#include "wire/json.h"

namespace ganglion::wire {

EncodedRequest EncodeInferRequest(const std::string& id, std::span<const NamedTensor> inputs) {
  Json head;
  if (!id.empty()) head["id"] = id;
  head["inputs"] = Json::array();
  for (const auto& in : inputs) {
    Json one;
    one["name"] = in.name;
    one["shape"] = std::vector<std::int64_t>(in.view.shape.begin(), in.view.shape.end());
    one["datatype"] = std::string(tensor::Name(in.view.type));
    one["parameters"]["binary_data_size"] = in.view.bytes.size();
    head["inputs"].push_back(std::move(one));
  }
  EncodedRequest request;
  request.body = head.dump();
  request.json_bytes = request.body.size();
  for (const auto& in : inputs)
    request.body.append(reinterpret_cast<const char*>(in.view.bytes.data()), in.view.bytes.size());
  return request;
}

}  // namespace ganglion::wire
