// Bytes as a ModelInferRequest: what is accepted is written again and must come back equal. As a response: the same.
// Doubles of parameters become strings on the way, because the plain protocol has no fractions.
#include <google/protobuf/stubs/logging.h>

#include <cstring>

#include "base/check.h"
#include "net/inference.pb.h"
#include "net/proto.h"
#include "target.h"

namespace {

namespace net = ganglion::net;
namespace wire = ganglion::wire;

bool Same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

bool Same(const wire::Parameters& a, const wire::Parameters& b) {
  if (a.size() != b.size()) return false;
  for (const auto& p : a) {
    const auto* other = wire::Find(b, p.name);
    if (other == nullptr) return false;
    if (const auto* number = std::get_if<double>(&p.value)) {
      const auto read = wire::FindNumber(b, p.name);
      if (!std::holds_alternative<std::string>(*other)) return false;
      if (read.ok() && !(*read == *number)) return false;  // NaN and infinity are no numbers there
    } else if (!(p.value == *other)) {
      return false;
    }
  }
  return true;
}

bool Same(const std::optional<wire::SharedMemory>& a, const std::optional<wire::SharedMemory>& b) {
  if (a.has_value() != b.has_value()) return false;
  return !a || (a->region == b->region && a->offset == b->offset && a->bytes == b->bytes);
}

void Request(const std::string& bytes) {
  inference::ModelInferRequest message;
  (void)message.ParseFromString(bytes);  // of what is no message, as much as was read
  const auto request = net::FromProto(message);
  if (!request.ok()) return;
  inference::ModelInferRequest written;
  net::ToProto(*request, &written);
  const auto back = net::FromProto(written);
  GANGLION_CHECK(back.ok());
  GANGLION_CHECK(back->model == request->model && back->version == request->version && back->id == request->id);
  GANGLION_CHECK(Same(request->parameters, back->parameters));
  GANGLION_CHECK(back->inputs.size() == request->inputs.size() && back->outputs.size() == request->outputs.size());
  for (std::size_t i = 0; i < request->inputs.size(); ++i) {
    const auto &a = request->inputs[i], &b = back->inputs[i];
    GANGLION_CHECK(a.name == b.name && a.type == b.type && a.shape == b.shape && Same(a.bytes, b.bytes));
    GANGLION_CHECK(Same(a.shared, b.shared) && Same(a.parameters, b.parameters));
    if (a.shared) continue;
    GANGLION_CHECK(ganglion::tensor::CheckBytes(a.type, a.shape, a.bytes).ok());
    const std::size_t size = ganglion::tensor::SizeOf(a.type);
    GANGLION_CHECK(size == 0 || reinterpret_cast<std::uintptr_t>(a.bytes.data()) % size == 0);
  }
  for (std::size_t i = 0; i < request->outputs.size(); ++i) {
    const auto &a = request->outputs[i], &b = back->outputs[i];
    GANGLION_CHECK(a.name == b.name && a.classification == b.classification);
    GANGLION_CHECK(Same(a.shared, b.shared) && Same(a.parameters, b.parameters));
  }
}

void Response(const std::string& bytes) {
  inference::ModelInferResponse message;
  (void)message.ParseFromString(bytes);
  const auto response = net::FromProto(message);
  if (!response.ok()) return;
  inference::ModelInferResponse written;
  net::ToProto(*response, &written);
  const auto back = net::FromProto(written);
  GANGLION_CHECK(back.ok());
  GANGLION_CHECK(back->model == response->model && back->version == response->version && back->id == response->id);
  GANGLION_CHECK(Same(response->parameters, back->parameters) && back->outputs.size() == response->outputs.size());
  for (std::size_t i = 0; i < response->outputs.size(); ++i) {
    const auto &a = response->outputs[i], &b = back->outputs[i];
    GANGLION_CHECK(a.name == b.name && a.tensor.type() == b.tensor.type() && a.tensor.shape() == b.tensor.shape());
    GANGLION_CHECK(Same(a.shared, b.shared) && Same(a.tensor.View().bytes, b.tensor.View().bytes));
  }
}

inference::ModelInferRequest Raw() {
  inference::ModelInferRequest m;
  m.set_model_name("m");
  m.set_model_version("1");
  m.set_id("7");
  (*m.mutable_parameters())["deadline_ms"].set_int64_param(20);
  (*m.mutable_parameters())["share"].set_double_param(0.25);
  (*m.mutable_parameters())["flag"].set_bool_param(true);
  const auto add = [&m](const char* name, const char* type, std::initializer_list<std::int64_t> shape) {
    auto* in = m.add_inputs();
    in->set_name(name);
    in->set_datatype(type);
    in->mutable_shape()->Add(shape.begin(), shape.end());
    return in;
  };
  add("x", "FP32", {1, 2});
  add("s", "BYTES", {2});
  auto* shared = add("r", "UINT8", {4});
  (*shared->mutable_parameters())["shared_memory_region"].set_string_param("r");
  (*shared->mutable_parameters())["shared_memory_offset"].set_int64_param(4);
  (*shared->mutable_parameters())["shared_memory_byte_size"].set_int64_param(4);
  m.add_raw_input_contents("12345678");
  m.add_raw_input_contents(std::string("\1\0\0\0a\0\0\0\0", 9));
  auto* out = m.add_outputs();
  out->set_name("y");
  (*out->mutable_parameters())["classification"].set_int64_param(3);
  return m;
}

inference::ModelInferRequest Typed() {
  inference::ModelInferRequest m;
  const auto add = [&m](const char* type, std::int64_t count) {
    auto* in = m.add_inputs();
    in->set_name(type);
    in->set_datatype(type);
    in->add_shape(count);
    return in->mutable_contents();
  };
  add("BOOL", 1)->add_bool_contents(true);
  add("INT8", 1)->add_int_contents(-5);
  add("INT64", 1)->add_int64_contents(1);
  add("UINT16", 1)->add_uint_contents(7);
  add("UINT64", 1)->add_uint64_contents(~std::uint64_t{0});
  add("FP32", 1)->add_fp32_contents(1.5f);
  add("FP64", 1)->add_fp64_contents(-2.5);
  add("BYTES", 1)->add_bytes_contents("hi");
  return m;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto loud = google::protobuf::SetLogHandler(nullptr);  // a line for each text that is not UTF-8
  (void)loud;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  Request(bytes);
  Response(bytes);
  return 0;
}

std::vector<std::string> Seeds() {
  inference::ModelInferResponse response;
  response.set_model_name("m");
  (*response.mutable_parameters())["confidence"].set_string_param("0.9");
  auto* out = response.add_outputs();
  out->set_name("y");
  out->set_datatype("FP32");
  out->add_shape(2);
  response.add_raw_output_contents("12345678");
  out = response.add_outputs();
  out->set_name("z");
  out->set_datatype("INT8");
  out->add_shape(2);
  (*out->mutable_parameters())["shared_memory_region"].set_string_param("r");
  (*out->mutable_parameters())["shared_memory_byte_size"].set_int64_param(2);
  response.add_raw_output_contents();
  return {Raw().SerializeAsString(), Typed().SerializeAsString(), response.SerializeAsString()};
}
