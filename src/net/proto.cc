#include "net/proto.h"

#include <fmt/format.h>

#include <limits>

#include "net/inference.pb.h"
#include "wire/rest.h"

namespace ganglion::net {
namespace {

using tensor::DataType;
using tensor::Tensor;
using ParameterMap = google::protobuf::Map<std::string, inference::InferParameter>;

constexpr int kMaxTensors = 64;
constexpr std::size_t kMaxParameters = 64;

Result<wire::ParameterValue> ValueOf(const std::string& name, const inference::InferParameter& p) {
  switch (p.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return wire::ParameterValue(p.bool_param());
    case inference::InferParameter::kInt64Param:
      return wire::ParameterValue(static_cast<std::int64_t>(p.int64_param()));
    case inference::InferParameter::kUint64Param:
      if (p.uint64_param() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return InvalidArgument(fmt::format("parameter \"{}\" {} is larger than 2^63 - 1", name, p.uint64_param()));
      return wire::ParameterValue(static_cast<std::int64_t>(p.uint64_param()));
    case inference::InferParameter::kDoubleParam:
      return wire::ParameterValue(p.double_param());
    case inference::InferParameter::kStringParam:
      return wire::ParameterValue(p.string_param());
    case inference::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return InvalidArgument("parameter \"" + name + "\" has no value");
}

// The transport's own go to `shared` and `classification`, the others to `rest`.
Status ReadParameters(const ParameterMap& map, wire::Parameters* rest, std::optional<wire::SharedMemory>* shared,
                      std::int64_t* classification) {
  if (map.size() > kMaxParameters)
    return InvalidArgument(fmt::format("{} parameters, limit {}", map.size(), kMaxParameters));
  std::int64_t offset = 0;
  std::int64_t bytes = -1;
  const std::string* region = nullptr;
  for (const auto& entry : map) {
    const std::string& name = entry.first;
    const auto& parameter = entry.second;
    ASSIGN_OR_RETURN(auto value, ValueOf(name, parameter));
    const auto count = [&name, &value](std::int64_t* into) -> Status {
      const auto* v = std::get_if<std::int64_t>(&value);
      if (v == nullptr || *v < 0) return InvalidArgument("parameter \"" + name + "\" must be an integer >= 0");
      *into = *v;
      return {};
    };
    if (shared != nullptr && name == "shared_memory_region") {
      if (parameter.string_param().empty()) return InvalidArgument("parameter \"shared_memory_region\" must be a name");
      region = &parameter.string_param();
    } else if (shared != nullptr && name == "shared_memory_offset") {
      RETURN_IF_ERROR(count(&offset));
    } else if (shared != nullptr && name == "shared_memory_byte_size") {
      RETURN_IF_ERROR(count(&bytes));
    } else if (classification != nullptr && name == "classification") {
      RETURN_IF_ERROR(count(classification));
    } else if (name != "binary_data" && name != "binary_data_size") {  // REST's, harmless here
      rest->push_back({name, std::move(value)});
    }
  }
  if (region != nullptr) {
    if (bytes < 0) return InvalidArgument("shared_memory_region without shared_memory_byte_size");
    shared->emplace(wire::SharedMemory{*region, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(bytes)});
  }
  return {};
}

bool HasContents(const inference::InferTensorContents& c) {
  return c.bool_contents_size() + c.int_contents_size() + c.int64_contents_size() + c.uint_contents_size() +
             c.uint64_contents_size() + c.fp32_contents_size() + c.fp64_contents_size() + c.bytes_contents_size() >
         0;
}

template <typename T, typename Field>
Result<Tensor> Convert(DataType type, tensor::Shape shape, const Field& field, const char* field_name) {
  ASSIGN_OR_RETURN(const std::int64_t count, tensor::ElementCount(shape));
  if (count != field.size()) {
    return InvalidArgument(fmt::format("{}{} takes {} elements, {} has {}", tensor::Name(type),
                                       tensor::ShapeText(shape), count, field_name, field.size()));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(count) * sizeof(T));
  std::size_t at = 0;
  for (const auto v : field) {
    const T t = static_cast<T>(v);
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (static_cast<std::int64_t>(t) != static_cast<std::int64_t>(v))
        return InvalidArgument(fmt::format("{} does not fit {}", v, tensor::Name(type)));
    }
    std::memcpy(bytes.data() + at, &t, sizeof t);
    at += sizeof t;
  }
  return Tensor::FromBytes(type, std::move(shape), bytes);
}

Result<Tensor> FromContents(DataType type, tensor::Shape shape, const inference::InferTensorContents& c) {
  switch (type) {
    case DataType::kBool:
      return Convert<bool>(type, std::move(shape), c.bool_contents(), "bool_contents");
    case DataType::kInt8:
      return Convert<std::int8_t>(type, std::move(shape), c.int_contents(), "int_contents");
    case DataType::kInt16:
      return Convert<std::int16_t>(type, std::move(shape), c.int_contents(), "int_contents");
    case DataType::kInt32:
      return Convert<std::int32_t>(type, std::move(shape), c.int_contents(), "int_contents");
    case DataType::kInt64:
      return Convert<std::int64_t>(type, std::move(shape), c.int64_contents(), "int64_contents");
    case DataType::kUint8:
      return Convert<std::uint8_t>(type, std::move(shape), c.uint_contents(), "uint_contents");
    case DataType::kUint16:
      return Convert<std::uint16_t>(type, std::move(shape), c.uint_contents(), "uint_contents");
    case DataType::kUint32:
      return Convert<std::uint32_t>(type, std::move(shape), c.uint_contents(), "uint_contents");
    case DataType::kUint64:
      return Convert<std::uint64_t>(type, std::move(shape), c.uint64_contents(), "uint64_contents");
    case DataType::kFp32:
      return Convert<float>(type, std::move(shape), c.fp32_contents(), "fp32_contents");
    case DataType::kFp64:
      return Convert<double>(type, std::move(shape), c.fp64_contents(), "fp64_contents");
    case DataType::kBytes: {
      std::string bytes;
      for (const auto& element : c.bytes_contents()) {
        const auto length = static_cast<std::uint32_t>(element.size());
        bytes.append(reinterpret_cast<const char*>(&length), sizeof length).append(element);
      }
      return Tensor::FromBytes(type, std::move(shape), std::as_bytes(std::span(bytes)));
    }
    case DataType::kFp16:
    case DataType::kBf16:
      break;
  }
  return InvalidArgument(fmt::format("{} has no typed contents; send it in raw_input_contents", tensor::Name(type)));
}

void Write(const wire::Parameter& p, ParameterMap* map) {
  inference::InferParameter& out = (*map)[p.name];
  if (const auto* b = std::get_if<bool>(&p.value)) {
    out.set_bool_param(*b);
  } else if (const auto* i = std::get_if<std::int64_t>(&p.value)) {
    out.set_int64_param(*i);
  } else if (const auto* d = std::get_if<double>(&p.value)) {
    out.set_string_param(fmt::format("{}", *d));
  } else {
    out.set_string_param(std::get<std::string>(p.value));
  }
}

void WriteShared(const wire::SharedMemory& shared, ParameterMap* map) {
  (*map)["shared_memory_region"].set_string_param(shared.region);
  (*map)["shared_memory_offset"].set_int64_param(static_cast<std::int64_t>(shared.offset));
  (*map)["shared_memory_byte_size"].set_int64_param(static_cast<std::int64_t>(shared.bytes));
}

// Datatype, shape and bytes of one tensor of a message, from raw or typed contents.
template <typename Input>
Status ReadTensor(const Input& in, const std::string* raw, wire::InferInput* out) {
  const auto type = tensor::DataTypeFromName(in.datatype());
  if (!type) return InvalidArgument(fmt::format("tensor \"{}\" has unknown datatype \"{}\"", in.name(), in.datatype()));
  out->name = in.name();
  out->type = *type;
  out->shape.assign(in.shape().begin(), in.shape().end());
  Status status;
  if (raw != nullptr) {
    const auto bytes = std::as_bytes(std::span(*raw));
    status = tensor::CheckBytes(*type, out->shape, bytes);
    if (status.ok()) {
      const std::size_t size = std::max<std::size_t>(tensor::SizeOf(*type), 1);
      if (reinterpret_cast<std::uintptr_t>(bytes.data()) % size == 0) {
        out->bytes = bytes;
      } else {
        ASSIGN_OR_RETURN(out->owned, Tensor::FromBytes(*type, out->shape, bytes));
      }
    }
  } else {
    auto converted = FromContents(*type, out->shape, in.contents());
    status = converted.status();
    if (converted.ok()) out->owned = std::move(*converted);
  }
  if (!status.ok()) return status.Within("tensor \"" + in.name() + "\"");
  if (out->owned) out->bytes = out->owned->View().bytes;
  return {};
}

// As many as the tensor's bytes, out of what all tensors of a message may claim.
template <typename Output>
Result<std::string> SharedZeros(const Output& out, std::size_t* left) {
  const auto type = tensor::DataTypeFromName(out.datatype());
  if (!type)
    return InvalidArgument(fmt::format("tensor \"{}\" has unknown datatype \"{}\"", out.name(), out.datatype()));
  const auto count = tensor::ElementCount(tensor::Shape(out.shape().begin(), out.shape().end()));
  if (!count.ok()) return count.status().Within("tensor \"" + out.name() + "\"");
  // An element of BYTES is at least its length: zeros are empty strings.
  const std::size_t each = *type == DataType::kBytes ? 4 : tensor::SizeOf(*type);
  const std::size_t size = static_cast<std::size_t>(*count) * each;
  if (size > *left)
    return InvalidArgument(fmt::format("tensor \"{}\" claims {} bytes in shared memory, all may claim {}", out.name(),
                                       size, wire::kMaxSharedZeroBytes));
  *left -= size;
  return std::string(size, '\0');
}

inference::DataType ConfigType(DataType type) {
  inference::DataType t = inference::TYPE_INVALID;
  const std::string name = type == DataType::kBytes ? "TYPE_STRING" : "TYPE_" + std::string(tensor::Name(type));
  return inference::DataType_Parse(name, &t) ? t : inference::TYPE_INVALID;
}

}  // namespace

Result<wire::InferRequest> FromProto(const inference::ModelInferRequest& m) {
  wire::InferRequest r;
  r.model = m.model_name();
  r.version = m.model_version();
  r.id = m.id();
  if (m.inputs_size() > kMaxTensors || m.outputs_size() > kMaxTensors)
    return InvalidArgument(
        fmt::format("{} inputs and {} outputs, limit {} each", m.inputs_size(), m.outputs_size(), kMaxTensors));
  RETURN_IF_ERROR(ReadParameters(m.parameters(), &r.parameters, nullptr, nullptr));
  if (m.inputs_size() == 0) return InvalidArgument("the request has no inputs");
  const bool raw = m.raw_input_contents_size() > 0;
  int next_raw = 0;
  r.inputs.resize(static_cast<std::size_t>(m.inputs_size()));
  for (int i = 0; i < m.inputs_size(); ++i) {
    const auto& in = m.inputs(i);
    wire::InferInput& out = r.inputs[static_cast<std::size_t>(i)];
    RETURN_IF_ERROR(ReadParameters(in.parameters(), &out.parameters, &out.shared, nullptr));
    const bool contents = HasContents(in.contents());
    if (out.shared) {
      if (contents)
        return InvalidArgument("input \"" + in.name() + "\" has contents and a shared memory region; send one");
      const auto type = tensor::DataTypeFromName(in.datatype());
      if (!type)
        return InvalidArgument(fmt::format("input \"{}\" has unknown datatype \"{}\"", in.name(), in.datatype()));
      out.name = in.name();
      out.type = *type;
      out.shape.assign(in.shape().begin(), in.shape().end());
      continue;
    }
    if (raw && contents)
      return InvalidArgument(
          "input \"" + in.name() +
          "\" has contents beside raw_input_contents; with raw_input_contents, contents must be empty");
    if (raw && next_raw == m.raw_input_contents_size())
      return InvalidArgument(fmt::format("raw_input_contents has {} entries, there are more inputs", next_raw));
    RETURN_IF_ERROR(ReadTensor(in, raw ? &m.raw_input_contents(next_raw++) : nullptr, &out));
  }
  if (next_raw != m.raw_input_contents_size())
    return InvalidArgument(
        fmt::format("raw_input_contents has {} entries for {} inputs", m.raw_input_contents_size(), next_raw));
  r.outputs.resize(static_cast<std::size_t>(m.outputs_size()));
  for (int i = 0; i < m.outputs_size(); ++i) {
    wire::RequestedOutput& out = r.outputs[static_cast<std::size_t>(i)];
    out.name = m.outputs(i).name();
    RETURN_IF_ERROR(ReadParameters(m.outputs(i).parameters(), &out.parameters, &out.shared, &out.classification));
  }
  return r;
}

void ToProto(const wire::InferRequest& r, inference::ModelInferRequest* m) {
  m->set_model_name(r.model);
  m->set_model_version(r.version);
  m->set_id(r.id);
  for (const auto& p : r.parameters) Write(p, m->mutable_parameters());
  for (const auto& in : r.inputs) {
    auto* out = m->add_inputs();
    out->set_name(in.name);
    out->set_datatype(std::string(tensor::Name(in.type)));
    out->mutable_shape()->Assign(in.shape.begin(), in.shape.end());
    for (const auto& p : in.parameters) Write(p, out->mutable_parameters());
    if (in.shared) {
      WriteShared(*in.shared, out->mutable_parameters());
    } else {
      m->add_raw_input_contents(reinterpret_cast<const char*>(in.bytes.data()), in.bytes.size());
    }
  }
  for (const auto& asked : r.outputs) {
    auto* out = m->add_outputs();
    out->set_name(asked.name);
    for (const auto& p : asked.parameters) Write(p, out->mutable_parameters());
    if (asked.classification > 0) (*out->mutable_parameters())["classification"].set_int64_param(asked.classification);
    if (asked.shared) WriteShared(*asked.shared, out->mutable_parameters());
  }
}

Result<wire::InferResponse> FromProto(const inference::ModelInferResponse& m) {
  wire::InferResponse r;
  r.model = m.model_name();
  r.version = m.model_version();
  r.id = m.id();
  RETURN_IF_ERROR(ReadParameters(m.parameters(), &r.parameters, nullptr, nullptr));
  const bool raw = m.raw_output_contents_size() > 0;
  int next_raw = 0;
  std::size_t zeros_left = wire::kMaxSharedZeroBytes;
  for (const auto& out : m.outputs()) {
    wire::InferInput read;
    std::optional<wire::SharedMemory> shared;
    RETURN_IF_ERROR(ReadParameters(out.parameters(), &read.parameters, &shared, nullptr));
    if (raw && next_raw == m.raw_output_contents_size())
      return InvalidArgument(fmt::format("raw_output_contents has {} entries, there are more outputs", next_raw));
    const std::string* contents = raw ? &m.raw_output_contents(next_raw++) : nullptr;
    std::string zeros;
    if (shared) {  // the region has the numbers; the tensor keeps datatype and shape, as in REST
      ASSIGN_OR_RETURN(zeros, SharedZeros(out, &zeros_left));
      contents = &zeros;
    }
    RETURN_IF_ERROR(ReadTensor(out, contents, &read));
    wire::InferOutput o;
    o.name = out.name();
    o.shared = std::move(shared);
    if (read.owned) {
      o.tensor = std::move(*read.owned);
    } else {
      ASSIGN_OR_RETURN(o.tensor, Tensor::FromBytes(read.type, read.shape, read.bytes));
    }
    r.outputs.push_back(std::move(o));
  }
  return r;
}

void ToProto(const wire::InferResponse& r, inference::ModelInferResponse* m) {
  m->set_model_name(r.model);
  m->set_model_version(r.version);
  m->set_id(r.id);
  for (const auto& p : r.parameters) Write(p, m->mutable_parameters());
  for (const auto& o : r.outputs) {
    auto* out = m->add_outputs();
    out->set_name(o.name);
    out->set_datatype(std::string(tensor::Name(o.tensor.type())));
    out->mutable_shape()->Assign(o.tensor.shape().begin(), o.tensor.shape().end());
    if (o.shared) {
      WriteShared(*o.shared, out->mutable_parameters());
      m->add_raw_output_contents();  // an empty one keeps the order
    } else {
      const auto bytes = o.tensor.View().bytes;
      m->add_raw_output_contents(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
  }
}

void ToProto(const wire::ModelMetadata& metadata, inference::ModelMetadataResponse* m) {
  m->set_name(metadata.name);
  m->set_platform(metadata.platform);
  for (const auto& v : metadata.versions) m->add_versions(v);
  const auto write = [](const tensor::Spec& spec, inference::ModelMetadataResponse::TensorMetadata* out) {
    out->set_name(spec.name);
    out->set_datatype(std::string(tensor::Name(spec.type)));
    out->mutable_shape()->Assign(spec.shape.begin(), spec.shape.end());
  };
  for (const auto& spec : metadata.inputs) write(spec, m->add_inputs());
  for (const auto& spec : metadata.outputs) write(spec, m->add_outputs());
}

wire::ModelMetadata FromProto(const inference::ModelMetadataResponse& m) {
  wire::ModelMetadata metadata;
  metadata.name = m.name();
  metadata.platform = m.platform();
  metadata.versions.assign(m.versions().begin(), m.versions().end());
  const auto read = [](const inference::ModelMetadataResponse::TensorMetadata& in, std::vector<tensor::Spec>* out) {
    tensor::Spec spec;
    spec.name = in.name();
    // A datatype that we do not know is left as BYTES: no input of ours will match it.
    spec.type = tensor::DataTypeFromName(in.datatype()).value_or(DataType::kBytes);
    spec.shape.assign(in.shape().begin(), in.shape().end());
    out->push_back(std::move(spec));
  };
  for (const auto& in : m.inputs()) read(in, &metadata.inputs);
  for (const auto& out : m.outputs()) read(out, &metadata.outputs);
  return metadata;
}

void ToProto(const wire::ModelConfig& config, inference::ModelConfig* m) {
  m->set_name(config.name);
  m->set_platform(config.platform);
  m->set_backend(config.backend);
  m->set_max_batch_size(static_cast<std::int32_t>(config.max_batch_size));
  const auto write = [](const tensor::Spec& spec, auto* out) {
    out->set_name(spec.name);
    out->set_data_type(ConfigType(spec.type));
    out->mutable_dims()->Assign(spec.shape.begin(), spec.shape.end());
  };
  for (const auto& spec : config.inputs) write(spec, m->add_input());
  for (const auto& spec : config.outputs) write(spec, m->add_output());
}

void ToProto(const wire::ModelStatistics& s, inference::ModelStatisticsResponse* response) {
  auto* m = response->add_model_stats();
  m->set_name(s.name);
  m->set_version(s.version);
  m->set_last_inference(s.last_inference_ms);
  m->set_inference_count(s.inference_count);
  m->set_execution_count(s.execution_count);
  const auto write = [](const wire::DurationStatistic& d, inference::StatisticDuration* out) {
    out->set_count(d.count);
    out->set_ns(d.nanoseconds);
  };
  auto* stats = m->mutable_inference_stats();
  write(s.success, stats->mutable_success());
  write(s.fail, stats->mutable_fail());
  write(s.queue, stats->mutable_queue());
  write(s.compute_input, stats->mutable_compute_input());
  write(s.compute_infer, stats->mutable_compute_infer());
  write(s.compute_output, stats->mutable_compute_output());
  write(s.cache_hit, stats->mutable_cache_hit());
  write(s.cache_miss, stats->mutable_cache_miss());
}

}  // namespace ganglion::net
