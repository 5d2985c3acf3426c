#include "wire/rest_reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "wire/rest_data.h"

namespace ganglion::wire {
namespace {

using tensor::DataType;

std::string Number(std::uint64_t n) { return std::to_string(n); }
std::string Quoted(std::string_view name) { return "\"" + std::string(name) + "\""; }

// A member that we know may be there once.
class Members {
 public:
  Status Once(unsigned bit, std::string_view key) {
    if (Has(bit)) return InvalidArgument(Quoted(key) + " is there twice");
    seen_ |= bit;
    return {};
  }
  bool Has(unsigned bit) const { return (seen_ & bit) != 0; }

 private:
  unsigned seen_ = 0;
};

std::string Where(const std::string& name, const char* one, std::size_t index) {
  return std::string(one) + " " + (name.empty() ? std::to_string(index) : Quoted(name));
}

Status Twice(std::string_view key) { return InvalidArgument("parameter " + Quoted(key) + " is there twice"); }

Status CheckSize(const TensorText& t, std::uint64_t size, const char* said_by) {
  const auto want = static_cast<std::uint64_t>(t.count) * tensor::SizeOf(t.type);
  if (t.type == DataType::kBytes || size == want) return {};
  return InvalidArgument(std::string(tensor::Name(t.type)) + tensor::ShapeText(t.shape) + " takes " + Number(want) +
                         " bytes, " + said_by + " is " + Number(size));
}

Result<std::optional<SharedMemory>> Shared(Transport& t) {
  if (!t.region && !t.offset && !t.shared_size) return std::optional<SharedMemory>();
  if (!t.region || t.region->empty() || !t.shared_size)
    return InvalidArgument("shared memory takes shared_memory_region and shared_memory_byte_size; give both");
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  const std::uint64_t offset = t.offset.value_or(0);
  if (offset > kMax || *t.shared_size > kMax - offset) {
    return InvalidArgument("shared_memory_offset " + Number(offset) + " and shared_memory_byte_size " +
                           Number(*t.shared_size) + " add up to more than " + Number(kMax));
  }
  return std::optional<SharedMemory>(SharedMemory{std::move(*t.region), offset, *t.shared_size});
}

}  // namespace

Status RestReader::Request(JsonObject object, InferRequest* request, std::vector<TensorText>* inputs) {
  enum : unsigned { kId = 1, kParameters = 2, kInputs = 4, kOutputs = 8 };
  Transport transport;
  std::vector<std::optional<bool>> binary;
  Members members;
  const auto read = [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "inputs") {
      RETURN_IF_ERROR(members.Once(kInputs, key));
      return Tensors(value, "inputs", "input", inputs);
    }
    if (key == "id") {
      RETURN_IF_ERROR(members.Once(kId, key));
      return json_.String(value, "id", limits_.max_name_bytes, &request->id);
    }
    if (key == "parameters") {
      RETURN_IF_ERROR(members.Once(kParameters, key));
      return ReadParameters(value, Place::kMessage, &transport);
    }
    if (key == "outputs") {
      RETURN_IF_ERROR(members.Once(kOutputs, key));
      return RequestedOutputs(value, request, &binary);
    }
    return json_.Skip(value, limits_.max_depth - 1);
  };
  RETURN_IF_ERROR(json_.Fields(object, read));
  if (inputs->empty()) return InvalidArgument("\"inputs\" is missing or empty; a request lists its tensors there");
  request->parameters = std::move(transport.rest);
  request->binary_output = transport.binary.value_or(false);
  for (std::size_t i = 0; i < binary.size(); ++i)
    request->outputs[i].binary = binary[i].value_or(request->binary_output);
  return {};
}

Status RestReader::Response(JsonObject object, InferResponse* response, std::vector<TensorText>* outputs) {
  enum : unsigned { kId = 1, kParameters = 2, kOutputs = 4, kModel = 8, kVersion = 16 };
  Transport transport;
  Members members;
  const auto read = [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "outputs") {
      RETURN_IF_ERROR(members.Once(kOutputs, key));
      return Tensors(value, "outputs", "output", outputs);
    }
    if (key == "model_name") {
      RETURN_IF_ERROR(members.Once(kModel, key));
      return json_.String(value, "model_name", limits_.max_name_bytes, &response->model);
    }
    if (key == "model_version") {
      RETURN_IF_ERROR(members.Once(kVersion, key));
      return json_.String(value, "model_version", limits_.max_name_bytes, &response->version);
    }
    if (key == "id") {
      RETURN_IF_ERROR(members.Once(kId, key));
      return json_.String(value, "id", limits_.max_name_bytes, &response->id);
    }
    if (key == "parameters") {
      RETURN_IF_ERROR(members.Once(kParameters, key));
      return ReadParameters(value, Place::kMessage, &transport);
    }
    return json_.Skip(value, limits_.max_depth - 1);
  };
  RETURN_IF_ERROR(json_.Fields(object, read));
  if (!members.Has(kOutputs)) return InvalidArgument("\"outputs\" is missing; a response lists its tensors there");
  response->parameters = std::move(transport.rest);
  return {};
}

// `list` is the member's name, `one` is what an entry is called in refusals.
Status RestReader::Tensors(JsonValue& value, const char* list, const char* one, std::vector<TensorText>* tensors) {
  return json_.Objects(value, list, limits_.max_tensors, [&](JsonObject object) -> Status {
    TensorText t;
    const Status status = Tensor(object, &t);
    if (!status.ok()) return status.Within(Where(t.name, one, tensors->size()));
    for (const auto& other : *tensors) {
      if (other.name == t.name) return InvalidArgument(std::string(one) + " " + Quoted(t.name) + " is there twice");
    }
    tensors->push_back(std::move(t));
    return {};
  });
}

Status RestReader::Tensor(JsonObject object, TensorText* t) {
  enum : unsigned { kName = 1, kShape = 2, kType = 4, kParameters = 8, kData = 16 };
  Members members;
  std::string_view late;
  const auto read = [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "name") {
      RETURN_IF_ERROR(members.Once(kName, key));
      return json_.String(value, "name", limits_.max_name_bytes, &t->name);
    }
    if (key == "shape") {
      RETURN_IF_ERROR(members.Once(kShape, key));
      return Shape(value, t);
    }
    if (key == "datatype") {
      RETURN_IF_ERROR(members.Once(kType, key));
      return Type(value, &t->type);
    }
    if (key == "parameters") {
      RETURN_IF_ERROR(members.Once(kParameters, key));
      return ReadParameters(value, Place::kTensor, &t->transport);
    }
    if (key != "data") return json_.Skip(value, limits_.max_depth - 3);
    RETURN_IF_ERROR(members.Once(kData, key));
    JsonArray array;
    if (value.get_array().get(array)) return json_.Want("\"data\"", value, "a list");
    if (members.Has(kShape) && members.Has(kType)) return Data(json_, array, t);
    const auto e = array.raw_json().get(late);
    return e ? json_.Broken(e) : Status();
  };
  RETURN_IF_ERROR(json_.Fields(object, read));
  if (!members.Has(kName) || t->name.empty()) return InvalidArgument("\"name\" is missing or empty");
  if (!members.Has(kType)) return InvalidArgument("\"datatype\" is missing; for example \"FP32\"");
  if (!members.Has(kShape)) return InvalidArgument("\"shape\" is missing; for example [1,784]");
  if (!late.empty()) {  // data came before what says how to read them: a text of their own
    JsonText text;
    JsonArray array;
    RETURN_IF_ERROR(text.OpenPadded(late));
    RETURN_IF_ERROR(text.Root(&array));
    RETURN_IF_ERROR(Data(text, array, t));
    RETURN_IF_ERROR(text.End());
  }
  ASSIGN_OR_RETURN(t->shared, Shared(t->transport));
  const int ways = (t->data ? 1 : 0) + (t->transport.binary_size ? 1 : 0) + (t->shared ? 1 : 0);
  if (ways != 1) {
    return InvalidArgument(std::string(ways == 0 ? "has none of" : "has more than one of") +
                           " data, binary_data_size and shared_memory_region; give one");
  }
  if (t->transport.binary_size) RETURN_IF_ERROR(CheckSize(*t, *t->transport.binary_size, "binary_data_size"));
  if (t->shared) RETURN_IF_ERROR(CheckSize(*t, t->shared->bytes, "shared_memory_byte_size"));
  return {};
}

Status RestReader::Type(JsonValue& value, DataType* type) {
  std::string text;
  RETURN_IF_ERROR(json_.String(value, "datatype", limits_.max_name_bytes, &text));
  const auto known = tensor::DataTypeFromName(text);
  if (!known) {
    return InvalidArgument("datatype " + Quoted(text) +
                           " is unknown; one of BOOL, UINT8 to UINT64, INT8 to INT64, FP16, BF16, FP32, FP64, BYTES");
  }
  *type = *known;
  return {};
}

Status RestReader::Shape(JsonValue& value, TensorText* t) {
  JsonArray array;
  if (value.get_array().get(array)) return json_.Want("\"shape\"", value, "a list of dimensions");
  for (auto item : array) {
    JsonValue dimension;
    std::int64_t d = 0;
    if (const auto e = item.get(dimension)) return json_.Broken(e);
    if (dimension.get_int64().get(d)) return json_.Want("a dimension of shape", dimension, "an integer >= 0");
    if (t->shape.size() == static_cast<std::size_t>(limits::kMaxTensorRank)) {
      return InvalidArgument("shape has more than " + std::to_string(limits::kMaxTensorRank) +
                             " dimensions, the limit; flatten some");
    }
    t->shape.push_back(d);
  }
  const auto count = tensor::ElementCount(t->shape);
  if (!count.ok())
    return InvalidArgument("shape is refused: " + count.status().message() + "; give the sizes of this tensor");
  t->count = *count;
  return {};
}

Status RestReader::Data(JsonText& json, JsonArray array, TensorText* t) {
  // n elements take n characters and n - 1 commas at the least, so a shape that claims more is a lie, and no memory is
  // taken for it. A smaller lie ends the reading: at most one tensor takes more memory than its numbers need.
  if (static_cast<std::uint64_t>(t->count) > json_.size() / 2) {
    return InvalidArgument("shape " + tensor::ShapeText(t->shape) + " takes " + std::to_string(t->count) +
                           " elements, more than JSON of " + Number(json_.size()) + " bytes can hold");
  }
  ASSIGN_OR_RETURN(t->data, ReadData(json, array, t->type, t->shape, t->count, null_is_nan_));
  return {};
}

Status RestReader::RequestedOutputs(JsonValue& value, InferRequest* request, std::vector<std::optional<bool>>* binary) {
  return json_.Objects(value, "outputs", limits_.max_tensors, [&](JsonObject object) -> Status {
    RequestedOutput output;
    const Status status = OneOutput(object, &output, &binary->emplace_back());
    if (!status.ok()) return status.Within(Where(output.name, "output", request->outputs.size()));
    for (const auto& other : request->outputs) {
      if (other.name == output.name) return InvalidArgument("output " + Quoted(output.name) + " is there twice");
    }
    request->outputs.push_back(std::move(output));
    return {};
  });
}

Status RestReader::OneOutput(JsonObject object, RequestedOutput* output, std::optional<bool>* binary) {
  enum : unsigned { kName = 1, kParameters = 2 };
  Transport transport;
  Members members;
  const auto read = [&](std::string_view key, JsonValue& value) -> Status {
    if (key == "name") {
      RETURN_IF_ERROR(members.Once(kName, key));
      return json_.String(value, "name", limits_.max_name_bytes, &output->name);
    }
    if (key == "parameters") {
      RETURN_IF_ERROR(members.Once(kParameters, key));
      return ReadParameters(value, Place::kRequestedOutput, &transport);
    }
    return json_.Skip(value, limits_.max_depth - 3);
  };
  RETURN_IF_ERROR(json_.Fields(object, read));
  if (output->name.empty()) return InvalidArgument("\"name\" is missing or empty");
  ASSIGN_OR_RETURN(output->shared, Shared(transport));
  output->classification = transport.classification;
  output->parameters = std::move(transport.rest);
  *binary = transport.binary;
  return {};
}

Status RestReader::ReadParameters(JsonValue& value, Place place, Transport* transport) {
  JsonObject object;
  if (value.get_object().get(object)) return json_.Want("\"parameters\"", value, "an object");
  return json_.Fields(object, [&](std::string_view key, JsonValue& member) -> Status {
    return OneParameter(key, member, place, transport);
  });
}

Status RestReader::OneParameter(std::string_view key, JsonValue& value, Place place, Transport* transport) {
  if (place != Place::kMessage) {
    if (key == "shared_memory_region") {
      if (transport->region) return Twice(key);
      return json_.String(value, "shared_memory_region", limits_.max_name_bytes, &transport->region.emplace());
    }
    if (key == "shared_memory_offset") return Size(key, value, &transport->offset);
    if (key == "shared_memory_byte_size") return Size(key, value, &transport->shared_size);
  }
  if (place == Place::kTensor && key == "binary_data_size") return Size(key, value, &transport->binary_size);
  if ((place == Place::kMessage && key == "binary_data_output") ||
      (place == Place::kRequestedOutput && key == "binary_data")) {
    bool binary = false;
    if (transport->binary) return Twice(key);
    if (value.get_bool().get(binary)) return json_.Want("parameter " + Quoted(key), value, "true or false");
    transport->binary = binary;
    return {};
  }
  if (place == Place::kRequestedOutput && key == "classification") {
    std::optional<std::uint64_t> top;
    if (transport->classification != 0) return Twice(key);
    RETURN_IF_ERROR(Size(key, value, &top));
    if (*top > static_cast<std::uint64_t>(limits::kMaxClasses)) {
      return InvalidArgument("parameter \"classification\" is " + Number(*top) + ", limit " +
                             std::to_string(limits::kMaxClasses));
    }
    transport->classification = static_cast<std::int64_t>(*top);
    return {};
  }
  if (key.empty() || key.size() > limits_.max_name_bytes) {
    return InvalidArgument("a parameter's name has " + Number(key.size()) + " bytes, want 1 to " +
                           Number(limits_.max_name_bytes));
  }
  if (Find(transport->rest, key) != nullptr) return Twice(key);
  if (transport->rest.size() == limits_.max_parameters) {
    return InvalidArgument("\"parameters\" has more than " + Number(limits_.max_parameters) +
                           " entries, the limit; leave some out");
  }
  Parameter parameter{std::string(key), false};
  RETURN_IF_ERROR(json_.Scalar(value, parameter.name, &parameter.value));
  transport->rest.push_back(std::move(parameter));
  return {};
}

Status RestReader::Size(std::string_view key, JsonValue& value, std::optional<std::uint64_t>* out) {
  std::uint64_t number = 0;
  if (*out) return Twice(key);
  if (value.get_uint64().get(number)) return json_.Want("parameter " + Quoted(key), value, "an integer >= 0");
  *out = number;
  return {};
}

}  // namespace ganglion::wire
