// The members of an infer request or response in JSON, as values; what lies behind the JSON is the caller's.
//
// Members may come in any order: `data` before `datatype` and `shape` are kept as text and read once both are known.
// Every limit and every agreement that the JSON alone can show is checked here: shape and data, shape and the size that
// a tensor says its bytes have. Errors name the tensor.
// Thread-compatible; one for each message. Internal to `wire`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"
#include "wire/inference.h"
#include "wire/rest.h"
#include "wire/rest_json.h"

namespace ganglion::wire {

// The parameters that say how a tensor or an answer travels, and the rest.
struct Transport {
  std::optional<std::uint64_t> binary_size;
  std::optional<bool> binary;
  std::int64_t classification = 0;
  std::optional<std::string> region;
  std::optional<std::uint64_t> offset;
  std::optional<std::uint64_t> shared_size;
  Parameters rest;
};

// Exactly one of `data`, `transport.binary_size` and `shared` is there.
struct TensorText {
  std::string name;
  tensor::DataType type = tensor::DataType::kFp32;
  tensor::Shape shape;
  std::int64_t count = 0;
  Transport transport;
  std::optional<SharedMemory> shared;
  std::optional<tensor::Tensor> data;
};

class RestReader {
 public:
  // Both must outlive the reader.
  RestReader(const RestLimits& limits, JsonText& json, bool null_is_nan)
      : limits_(limits), json_(json), null_is_nan_(null_is_nan) {}

  Status Request(JsonObject object, InferRequest* request, std::vector<TensorText>* inputs);
  Status Response(JsonObject object, InferResponse* response, std::vector<TensorText>* outputs);

 private:
  enum class Place { kTensor, kRequestedOutput, kMessage };

  Status Tensors(JsonValue& value, const char* list, const char* one, std::vector<TensorText>* tensors);
  Status Tensor(JsonObject object, TensorText* t);
  Status Type(JsonValue& value, tensor::DataType* type);
  Status Shape(JsonValue& value, TensorText* t);
  Status Data(JsonText& json, JsonArray array, TensorText* t);
  Status RequestedOutputs(JsonValue& value, InferRequest* request, std::vector<std::optional<bool>>* binary);
  Status OneOutput(JsonObject object, RequestedOutput* output, std::optional<bool>* binary);
  Status ReadParameters(JsonValue& value, Place place, Transport* transport);
  Status OneParameter(std::string_view key, JsonValue& value, Place place, Transport* transport);
  Status Size(std::string_view key, JsonValue& value, std::optional<std::uint64_t>* out);

  const RestLimits& limits_;
  JsonText& json_;
  const bool null_is_nan_;
};

}  // namespace ganglion::wire
