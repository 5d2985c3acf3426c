#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "wire/json.h"
#include "wire/rest.h"

namespace ganglion::wire {
namespace {

constexpr std::size_t kMaxListed = 10'000;  // extensions, versions, tensors of one model

// In one line; text that is no UTF-8 gets U+FFFD.
std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json Specs(std::span<const tensor::Spec> specs) {
  Json list = Json::array();
  for (const auto& spec : specs) {
    Json one;
    one["name"] = spec.name;
    one["datatype"] = std::string(tensor::Name(spec.type));
    one["shape"] = spec.shape;
    list.push_back(std::move(one));
  }
  return list;
}

// Triton's configuration has its own names for datatypes.
Json ConfigSpecs(std::span<const tensor::Spec> specs) {
  Json list = Json::array();
  for (const auto& spec : specs) {
    Json one;
    one["name"] = spec.name;
    one["data_type"] = spec.type == tensor::DataType::kBytes ? std::string("TYPE_STRING")
                                                             : "TYPE_" + std::string(tensor::Name(spec.type));
    one["dims"] = spec.shape;
    list.push_back(std::move(one));
  }
  return list;
}

Result<std::vector<std::string>> Strings(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* list, GetArray(object, key));
  if (list->size() > kMaxListed) {
    return InvalidArgument("\"" + key + "\" has " + std::to_string(list->size()) + " entries, limit " +
                           std::to_string(kMaxListed));
  }
  std::vector<std::string> strings;
  for (const auto& entry : *list) {
    if (!entry.is_string()) return InvalidArgument("\"" + key + "\" has an entry that is no string");
    strings.push_back(entry.get<std::string>());
  }
  return strings;
}

Result<tensor::Spec> ParseTensorSpec(const Json& entry) {
  tensor::Spec spec;
  ASSIGN_OR_RETURN(spec.name, GetString(entry, "name"));
  ASSIGN_OR_RETURN(const std::string type, GetString(entry, "datatype"));
  const auto known = tensor::DataTypeFromName(type);
  if (!known) return InvalidArgument("datatype \"" + type + "\" of \"" + spec.name + "\" is unknown");
  spec.type = *known;
  ASSIGN_OR_RETURN(const Json* shape, GetArray(entry, "shape"));
  if (shape->size() > static_cast<std::size_t>(limits::kMaxTensorRank)) {
    return InvalidArgument("shape of \"" + spec.name + "\" has " + std::to_string(shape->size()) +
                           " dimensions, limit " + std::to_string(limits::kMaxTensorRank));
  }
  for (const auto& d : *shape) {
    // What is beyond 64 bits signed is unsigned here, and no dimension either.
    const bool fits =
        d.is_number_integer() &&
        (!d.is_number_unsigned() || d.get<std::uint64_t>() <= static_cast<std::uint64_t>(limits::kMaxTensorElements));
    if (!fits || d.get<std::int64_t>() < -1)
      return InvalidArgument("shape of \"" + spec.name + "\" has " + Dump(d).substr(0, 40) +
                             ", want integers from -1 (any) to " + std::to_string(limits::kMaxTensorElements));
    spec.shape.push_back(d.get<std::int64_t>());
  }
  return spec;
}

Result<std::vector<tensor::Spec>> ParseSpecs(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* list, GetArray(object, key));
  if (list->size() > kMaxListed) {
    return InvalidArgument("\"" + key + "\" has " + std::to_string(list->size()) + " entries, limit " +
                           std::to_string(kMaxListed));
  }
  std::vector<tensor::Spec> specs;
  for (const auto& entry : *list) {
    auto spec = ParseTensorSpec(entry);
    if (!spec.ok()) return spec.status().Within(key);
    specs.push_back(*std::move(spec));
  }
  return specs;
}

Status ParseObject(std::string_view body, Json* json) {
  if (body.size() > limits::kMaxConfigBytes) {
    return InvalidArgument("the body has " + std::to_string(body.size()) + " bytes, limit " +
                           std::to_string(limits::kMaxConfigBytes));
  }
  RETURN_IF_ERROR(ParseJson(body, json));
  return json->is_object() ? Status() : InvalidArgument("the body is no JSON object");
}

// A number of bytes, absent means `otherwise`.
Result<std::uint64_t> Bytes(const Json& object, const char* key, std::optional<std::uint64_t> otherwise) {
  const auto it = object.find(key);
  if (it == object.end() && otherwise) return *otherwise;
  if (it == object.end()) return InvalidArgument("\"" + std::string(key) + "\" is missing");
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  if (!it->is_number_unsigned() || it->get<std::uint64_t>() > kMax) {
    return InvalidArgument("\"" + std::string(key) + "\" is " + Dump(*it).substr(0, 40) +
                           ", want an integer from 0 to " + std::to_string(kMax));
  }
  return it->get<std::uint64_t>();
}

Json Duration(const DurationStatistic& d) {
  Json json;
  json["count"] = d.count;
  json["ns"] = d.nanoseconds;
  return json;
}

}  // namespace

std::string WriteServerMetadata(const ServerMetadata& metadata) {
  Json json;
  json["name"] = metadata.name;
  json["version"] = metadata.version;
  json["extensions"] = metadata.extensions;
  return Dump(json);
}

std::string WriteModelMetadata(const ModelMetadata& metadata) {
  Json json;
  json["name"] = metadata.name;
  json["versions"] = metadata.versions;
  json["platform"] = metadata.platform;
  json["inputs"] = Specs(metadata.inputs);
  json["outputs"] = Specs(metadata.outputs);
  return Dump(json);
}

std::string WriteModelConfig(const ModelConfig& config) {
  Json json;
  json["name"] = config.name;
  json["platform"] = config.platform;
  json["backend"] = config.backend;
  json["max_batch_size"] = config.max_batch_size;
  json["input"] = ConfigSpecs(config.inputs);
  json["output"] = ConfigSpecs(config.outputs);
  return Dump(json);
}

std::string WriteModelStatistics(std::span<const ModelStatistics> statistics) {
  Json json;
  json["model_stats"] = Json::array();
  for (const auto& s : statistics) {
    Json one;
    one["name"] = s.name;
    one["version"] = s.version;
    one["last_inference"] = s.last_inference_ms;
    one["inference_count"] = s.inference_count;
    one["execution_count"] = s.execution_count;
    Json& inference = one["inference_stats"];
    inference["success"] = Duration(s.success);
    inference["fail"] = Duration(s.fail);
    inference["queue"] = Duration(s.queue);
    inference["compute_input"] = Duration(s.compute_input);
    inference["compute_infer"] = Duration(s.compute_infer);
    inference["compute_output"] = Duration(s.compute_output);
    inference["cache_hit"] = Duration(s.cache_hit);
    inference["cache_miss"] = Duration(s.cache_miss);
    one["batch_stats"] = Json::array();
    json["model_stats"].push_back(std::move(one));
  }
  return Dump(json);
}

std::string WriteRepositoryIndex(std::span<const RepositoryEntry> entries) {
  Json json = Json::array();
  for (const auto& e : entries) {
    Json one;
    one["name"] = e.name;
    if (!e.version.empty()) one["version"] = e.version;
    one["state"] = e.state;
    one["reason"] = e.reason;
    json.push_back(std::move(one));
  }
  return Dump(json);
}

std::string WriteSharedMemoryStatus(std::span<const SharedMemoryRegion> regions) {
  Json json = Json::array();
  for (const auto& r : regions) {
    Json one;
    one["name"] = r.name;
    one["key"] = r.key;
    one["offset"] = r.offset;
    one["byte_size"] = r.bytes;
    json.push_back(std::move(one));
  }
  return Dump(json);
}

std::string WriteError(const Status& status) {
  Json json;
  json["error"] = status.message();
  return Dump(json);
}

Result<RepositoryIndexRequest> ParseRepositoryIndexRequest(std::string_view body) {
  RepositoryIndexRequest request;
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) return request;
  Json json;
  RETURN_IF_ERROR(ParseObject(body, &json));
  if (json.contains("ready")) {
    ASSIGN_OR_RETURN(request.ready, GetBool(json, "ready"));
  }
  return request;
}

Result<SharedMemoryRegion> ParseSharedMemoryRegister(std::string_view name, std::string_view body) {
  constexpr std::size_t kMaxKeyBytes = 255;  // NAME_MAX, what shm_open takes
  constexpr std::size_t kMaxNameBytes = 256;
  SharedMemoryRegion region;
  region.name = name;
  if (name.empty() || name.size() > kMaxNameBytes) {
    return InvalidArgument("the region's name has " + std::to_string(name.size()) + " bytes, want 1 to " +
                           std::to_string(kMaxNameBytes));
  }
  Json json;
  RETURN_IF_ERROR(ParseObject(body, &json));
  ASSIGN_OR_RETURN(region.key, GetString(json, "key"));
  // A key is the name of one object of shared memory, never a path to elsewhere.
  const std::string_view bare = std::string_view(region.key).substr(region.key.rfind('/', 0) == 0 ? 1 : 0);
  if (bare.empty() || region.key.size() > kMaxKeyBytes || bare.find('/') != std::string_view::npos ||
      bare.find('\0') != std::string_view::npos || bare == "." || bare == "..") {
    return InvalidArgument("\"key\" is " + Dump(region.key).substr(0, 80) +
                           ", want the name of shared memory such as \"/region\", of at most " +
                           std::to_string(kMaxKeyBytes) + " bytes and without another slash");
  }
  ASSIGN_OR_RETURN(region.offset, Bytes(json, "offset", 0));
  ASSIGN_OR_RETURN(region.bytes, Bytes(json, "byte_size", std::nullopt));
  if (region.bytes == 0) return InvalidArgument("\"byte_size\" is 0, want the size of the region in bytes");
  if (region.bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) - region.offset) {
    return InvalidArgument("\"offset\" " + std::to_string(region.offset) + " and \"byte_size\" " +
                           std::to_string(region.bytes) + " add up to more than 2^63 - 1");
  }
  return region;
}

Result<ServerMetadata> ParseServerMetadata(std::string_view body) {
  Json json;
  ServerMetadata metadata;
  RETURN_IF_ERROR(ParseObject(body, &json));
  ASSIGN_OR_RETURN(metadata.name, GetString(json, "name"));
  ASSIGN_OR_RETURN(metadata.version, GetString(json, "version"));
  if (json.contains("extensions")) {
    ASSIGN_OR_RETURN(metadata.extensions, Strings(json, "extensions"));
  }
  return metadata;
}

Result<ModelMetadata> ParseModelMetadata(std::string_view body) {
  Json json;
  ModelMetadata metadata;
  RETURN_IF_ERROR(ParseObject(body, &json));
  ASSIGN_OR_RETURN(metadata.name, GetString(json, "name"));
  if (json.contains("versions")) {
    ASSIGN_OR_RETURN(metadata.versions, Strings(json, "versions"));
  }
  ASSIGN_OR_RETURN(metadata.platform, GetString(json, "platform"));
  ASSIGN_OR_RETURN(metadata.inputs, ParseSpecs(json, "inputs"));
  ASSIGN_OR_RETURN(metadata.outputs, ParseSpecs(json, "outputs"));
  return metadata;
}

int HttpStatus(Code code) {
  switch (code) {
    case Code::kOk:
      return 200;
    case Code::kInvalidArgument:
    case Code::kFailedPrecondition:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
      return 409;
    case Code::kResourceExhausted:
      return 429;
    case Code::kCancelled:
      return 499;  // nginx's "client closed request", which Triton and gRPC's gateways use as well
    case Code::kUnimplemented:
      return 501;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
      return 500;
  }
  return 500;
}

Code CodeFromHttp(int status) {
  if (status >= 200 && status < 300) return Code::kOk;
  switch (status) {
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 408:
    case 504:
      return Code::kDeadlineExceeded;
    case 409:
      return Code::kAlreadyExists;
    case 412:
      return Code::kFailedPrecondition;
    case 429:
      return Code::kResourceExhausted;
    case 499:
      return Code::kCancelled;
    case 501:
      return Code::kUnimplemented;
    case 502:
    case 503:
      return Code::kUnavailable;
    default:
      break;
  }
  if (status >= 400 && status < 500) return Code::kInvalidArgument;
  return status >= 500 && status < 600 ? Code::kInternal : Code::kUnknown;
}

}  // namespace ganglion::wire
