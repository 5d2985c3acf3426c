#include "runtime/runtime.h"

#include <onnxruntime_c_api.h>
#include <onnxruntime_session_options_config_keys.h>
#include <stdlib.h>

#include "base/check.h"

namespace ganglion::runtime {
namespace {

using tensor::DataType;

const OrtApi& Api() {
  static const OrtApi* const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  GANGLION_CHECK(api != nullptr);
  return *api;
}

Status Convert(OrtStatus* status, const std::string& where) {
  if (status == nullptr) return {};
  const OrtErrorCode code = Api().GetErrorCode(status);
  std::string message = Api().GetErrorMessage(status);
  Api().ReleaseStatus(status);
  Code ours = Code::kInternal;
  switch (code) {
    case ORT_INVALID_ARGUMENT:
    case ORT_INVALID_PROTOBUF:
    case ORT_INVALID_GRAPH:
      ours = Code::kInvalidArgument;
      break;
    case ORT_NOT_IMPLEMENTED:
      ours = Code::kUnimplemented;
      break;
    case ORT_NO_SUCHFILE:
      ours = Code::kNotFound;
      break;
    default:
      break;
  }
  return Status(ours, message).Within(where);
}

ONNXTensorElementDataType ToOrt(DataType type) {
  switch (type) {
    case DataType::kBool:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
    case DataType::kUint8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case DataType::kUint16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16;
    case DataType::kUint32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32;
    case DataType::kUint64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64;
    case DataType::kInt8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    case DataType::kInt16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    case DataType::kInt32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case DataType::kInt64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    case DataType::kFp16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case DataType::kBf16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case DataType::kFp32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case DataType::kFp64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
    case DataType::kBytes:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

std::optional<DataType> FromOrt(ONNXTensorElementDataType type) {
  for (int i = 0; i <= static_cast<int>(DataType::kBytes); ++i) {
    if (ToOrt(static_cast<DataType>(i)) == type) return static_cast<DataType>(i);
  }
  return std::nullopt;
}

// Owns OrtValues until the end of a scope.
struct Values {
  std::vector<OrtValue*> list;
  Values() = default;
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  ~Values() {
    for (auto* v : list) {
      if (v != nullptr) Api().ReleaseValue(v);
    }
  }
};

struct MemoryInfo {
  OrtMemoryInfo* info = nullptr;
  MemoryInfo() { GANGLION_CHECK(Api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &info) == nullptr); }
  ~MemoryInfo() { Api().ReleaseMemoryInfo(info); }
  MemoryInfo(const MemoryInfo&) = delete;
  MemoryInfo& operator=(const MemoryInfo&) = delete;
};

Result<OrtValue*> Wrap(const tensor::View& view, const std::string& where) {
  if (view.type == DataType::kBytes) return Unimplemented(where + ": BYTES tensors cannot be run in place");
  MemoryInfo memory;
  OrtValue* value = nullptr;
  RETURN_IF_ERROR(Convert(
      Api().CreateTensorWithDataAsOrtValue(memory.info, const_cast<std::byte*>(view.bytes.data()), view.bytes.size(),
                                           view.shape.data(), view.shape.size(), ToOrt(view.type), &value),
      where));
  return value;
}

Result<tensor::Tensor> Copy(OrtValue* value, const std::string& where) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  RETURN_IF_ERROR(Convert(Api().GetTensorTypeAndShape(value, &info), where));
  ONNXTensorElementDataType type{};
  std::size_t rank = 0;
  Status status = Convert(Api().GetTensorElementType(info, &type), where);
  if (status.ok()) status = Convert(Api().GetDimensionsCount(info, &rank), where);
  tensor::Shape shape(rank);
  if (status.ok()) status = Convert(Api().GetDimensions(info, shape.data(), rank), where);
  Api().ReleaseTensorTypeAndShapeInfo(info);
  RETURN_IF_ERROR(status);
  const auto ours = FromOrt(type);
  if (!ours || *ours == DataType::kBytes) return Unimplemented(where + ": output datatype not supported");
  void* data = nullptr;
  RETURN_IF_ERROR(Convert(Api().GetTensorMutableData(value, &data), where));
  ASSIGN_OR_RETURN(const auto count, tensor::ElementCount(shape));
  return tensor::Tensor::FromBytes(
      *ours, shape, {static_cast<const std::byte*>(data), static_cast<std::size_t>(count) * tensor::SizeOf(*ours)});
}

}  // namespace

std::string Engine::Version() { return OrtGetApiBase()->GetVersionString(); }

Result<std::shared_ptr<Engine>> Engine::Create() {
  if (OrtGetApiBase()->GetApi(ORT_API_VERSION) == nullptr) {
    return FailedPrecondition("ONNX Runtime " + Version() + " is older than its headers (API " +
                              std::to_string(ORT_API_VERSION) + ")");
  }
  // The official builds since 1.30 carry a telemetry client that starts with the environment: it reads the machine's
  // id, keeps a database in the user's cache and would report to its makers. Nothing of ours leaves a machine unasked,
  // so it is switched off before it starts; DisableTelemetryEvents alone comes too late for that.
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  std::shared_ptr<Engine> engine(new Engine);
  RETURN_IF_ERROR(Convert(Api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "ganglion", &engine->env_), "ONNX Runtime"));
  RETURN_IF_ERROR(Convert(Api().DisableTelemetryEvents(engine->env_), "ONNX Runtime"));
  return engine;
}

Engine::~Engine() {
  if (env_ != nullptr) Api().ReleaseEnv(env_);
}

Result<std::unique_ptr<Session>> Session::Create(std::shared_ptr<Engine> engine, const model::Model& model,
                                                 SessionOptions options) {
  std::unique_ptr<Session> session(new Session);
  session->engine_ = std::move(engine);
  session->signature_ = model.signature();
  session->name_ = model.name();
  OrtSessionOptions* o = nullptr;
  RETURN_IF_ERROR(Convert(Api().CreateSessionOptions(&o), model.name()));
  const auto level = options.optimise == SessionOptions::Optimise::kAll ? ORT_ENABLE_ALL : ORT_ENABLE_BASIC;
  Status status = Convert(Api().SetIntraOpNumThreads(o, options.threads), model.name());
  if (status.ok()) status = Convert(Api().SetInterOpNumThreads(o, 1), model.name());
  if (status.ok()) status = Convert(Api().SetSessionGraphOptimizationLevel(o, level), model.name());
  if (status.ok())
    status = Convert(Api().AddSessionConfigEntry(o, kOrtSessionOptionsConfigAllowIntraOpSpinning, "0"), model.name());
  if (status.ok()) {
    status = Convert(Api().CreateSessionFromArray(session->engine_->env_, model.bytes().data(), model.bytes().size(), o,
                                                  &session->session_),
                     model.name());
  }
  Api().ReleaseSessionOptions(o);
  RETURN_IF_ERROR(status);
  return session;
}

Session::~Session() {
  if (session_ != nullptr) Api().ReleaseSession(session_);
}

Result<std::vector<tensor::Tensor>> Session::Run(std::span<const tensor::View> inputs) const {
  if (inputs.size() != signature_.inputs.size()) {
    return InvalidArgument(name_ + " takes " + std::to_string(signature_.inputs.size()) + " inputs, got " +
                           std::to_string(inputs.size()));
  }
  Values in;
  Values out;
  std::vector<const char*> in_names;
  std::vector<const char*> out_names;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    RETURN_IF_ERROR(tensor::Matches(signature_.inputs[i], inputs[i]).Within(name_));
    in_names.push_back(signature_.inputs[i].name.c_str());
    ASSIGN_OR_RETURN(OrtValue * value, Wrap(inputs[i], name_));
    in.list.push_back(value);
  }
  for (const auto& spec : signature_.outputs) out_names.push_back(spec.name.c_str());
  out.list.assign(out_names.size(), nullptr);
  RETURN_IF_ERROR(Convert(Api().Run(session_, nullptr, in_names.data(), in.list.data(), in.list.size(),
                                    out_names.data(), out_names.size(), out.list.data()),
                          name_));
  std::vector<tensor::Tensor> outputs;
  for (auto* value : out.list) {
    ASSIGN_OR_RETURN(auto t, Copy(value, name_));
    outputs.push_back(std::move(t));
  }
  return outputs;
}

struct Binding::Impl {
  OrtSession* session = nullptr;
  std::string model_name;
  std::vector<std::string> names;  // inputs, then outputs
  std::vector<const char*> in_names;
  std::vector<const char*> out_names;
  Values in;
  Values out;
};

Binding::Binding(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Binding::Binding(Binding&&) noexcept = default;
Binding& Binding::operator=(Binding&&) noexcept = default;
Binding::~Binding() = default;

Status Binding::Run() {
  Impl& b = *impl_;
  OrtStatus* status = Api().Run(b.session, nullptr, b.in_names.data(), b.in.list.data(), b.in.list.size(),
                                b.out_names.data(), b.out_names.size(), b.out.list.data());
  if (status == nullptr) [[likely]]
    return {};
  return Convert(status, b.model_name);
}

Result<Binding> Session::Bind(const std::vector<NamedView>& inputs,
                              const std::vector<NamedMutableView>& outputs) const {
  auto impl = std::make_unique<Binding::Impl>();
  impl->session = session_;
  impl->model_name = name_;
  const auto find = [&](const std::vector<tensor::Spec>& specs, const std::string& name) -> const tensor::Spec* {
    for (const auto& s : specs) {
      if (s.name == name) return &s;
    }
    return nullptr;
  };
  impl->names.reserve(inputs.size() + outputs.size());
  for (const auto& [name, view] : inputs) {
    const auto* spec = find(signature_.inputs, name);
    if (spec == nullptr) return InvalidArgument(name_ + " has no input \"" + name + "\"");
    RETURN_IF_ERROR(tensor::Matches(*spec, view).Within(name_));
    impl->names.push_back(name);
    impl->in_names.push_back(impl->names.back().c_str());
    ASSIGN_OR_RETURN(OrtValue * value, Wrap(view, name_));
    impl->in.list.push_back(value);
  }
  for (const auto& [name, view] : outputs) {
    if (find(signature_.outputs, name) == nullptr) return InvalidArgument(name_ + " has no output \"" + name + "\"");
    impl->names.push_back(name);
    impl->out_names.push_back(impl->names.back().c_str());
    ASSIGN_OR_RETURN(OrtValue * value, Wrap(view, name_));
    impl->out.list.push_back(value);
  }
  return Binding(std::move(impl));
}

}  // namespace ganglion::runtime
