// Bodies of REST: whatever parses is written again as a request and as a response that echoes its inputs, and must come
// back equal. The first byte says how the rest is given: where the JSON ends, and what lies behind it in memory.
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "target.h"
#include "wire/outcome.h"
#include "wire/rest.h"

namespace {

using ganglion::tensor::DataType;
using ganglion::tensor::Tensor;
using ganglion::tensor::View;
namespace wire = ganglion::wire;

bool Same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

// JSON keeps integers and finite numbers; BOOL becomes 0 or 1, NaN null, and BYTES may get U+FFFD.
bool JsonKeeps(const View& view) {
  if (view.type == DataType::kBool || view.type == DataType::kBytes) return false;
  return ganglion::tensor::CheckFinite("", view).ok();
}

void Echo(const wire::InferRequest& request) {
  for (const bool binary : {false, true}) {
    const auto body = wire::WriteInferRequest(request, binary);
    const auto back = wire::ParseInferRequest(body.body, body.json_bytes);
    GANGLION_CHECK(back.ok());
    GANGLION_CHECK(back->id == request.id && back->binary_output == request.binary_output);
    GANGLION_CHECK(back->inputs.size() == request.inputs.size() && back->outputs.size() == request.outputs.size());
    for (std::size_t p = 0; p < request.parameters.size(); ++p)
      GANGLION_CHECK(back->parameters[p].value == request.parameters[p].value);
    for (std::size_t i = 0; i < request.inputs.size(); ++i) {
      const auto &in = request.inputs[i], &out = back->inputs[i];
      GANGLION_CHECK(in.name == out.name && in.type == out.type && in.shape == out.shape);
      GANGLION_CHECK(in.shared.has_value() == out.shared.has_value() && Same(in.bytes, out.bytes));
    }
    for (std::size_t i = 0; i < request.outputs.size(); ++i)
      GANGLION_CHECK(back->outputs[i].binary == request.outputs[i].binary);

    wire::InferResponse response{"model", "1", request.id, request.parameters, {}};
    for (const auto& in : request.inputs) {
      if (in.shared) continue;
      auto tensor = Tensor::FromBytes(in.type, in.shape, in.bytes);
      GANGLION_CHECK(tensor.ok());
      response.outputs.push_back({in.name, *std::move(tensor), {}});
    }
    wire::InferRequest asked;
    asked.outputs = request.outputs;
    asked.binary_output = binary;
    const auto answer = wire::WriteInferResponse(response, asked);
    const auto read = wire::ParseInferResponse(answer.body, answer.json_bytes);
    GANGLION_CHECK(read.ok());
    GANGLION_CHECK(read->id == response.id && read->outputs.size() == response.outputs.size());
    for (std::size_t i = 0; i < response.outputs.size(); ++i) {
      const View in = response.outputs[i].tensor.View(), out = read->outputs[i].tensor.View();
      GANGLION_CHECK(in.type == out.type &&
                     std::equal(in.shape.begin(), in.shape.end(), out.shape.begin(), out.shape.end()));
      GANGLION_CHECK(!JsonKeeps(in) || Same(in.bytes, out.bytes));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const std::size_t said = data[1] + 256u * data[2];
  const std::string_view text(reinterpret_cast<const char*>(data) + 3, size - 3);
  std::optional<std::size_t> json_bytes;
  if (data[0] % 2 == 1) json_bytes = said;
  // Memory that ends where it must, or with room behind the body that is full of one byte.
  const char fill = static_cast<char>(data[0] / 4);
  const std::size_t room = data[0] % 4 < 2 ? 0 : 64;
  std::vector<char> memory(text.begin(), text.end());
  memory.resize(text.size() + room, fill);
  memory.shrink_to_fit();
  const std::string_view body(memory.data(), text.size());
  const auto request = wire::ParseInferRequest(body, json_bytes, {}, memory.size());
  if (request.ok() && !request->inputs.empty()) Echo(*request);
  (void)wire::ParseInferResponse(body, json_bytes, {}, memory.size());
  const ganglion::tensor::Spec spec{
      "x", static_cast<DataType>(data[0] % 14), {-1, static_cast<std::int64_t>(said % 5), -1}};
  (void)wire::RawInferRequest(body, {&spec, 1});
  (void)wire::ParseModelMetadata(body);
  (void)wire::ParseServerMetadata(body);
  (void)wire::ParseRepositoryIndexRequest(body);
  (void)wire::ParseSharedMemoryRegister("r", body);
  (void)wire::ParseOutcome(body);
  return 0;
}

std::vector<std::string> Seeds() {
  const auto seed = [](char how, const std::string& json, const std::string& tail = "") {
    return std::string{how, static_cast<char>(json.size() % 256), static_cast<char>(json.size() / 256)} + json + tail;
  };
  const std::string binary =
      R"({"parameters":{"binary_data_output":true,"n":-1},"inputs":[{"name":"x","shape":[2],"datatype":"FP32",)"
      R"("parameters":{"binary_data_size":8}},{"name":"s","shape":[1],"datatype":"BYTES",)"
      R"("parameters":{"binary_data_size":5}}]})";
  const std::string json =
      R"({"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP64","data":[[1,-2.5],[3e2,0.1]]},)"
      R"({"data":["a\u00e9",""],"name":"s","shape":[2],"datatype":"BYTES"},{"name":"b","shape":[2],"datatype":"BOOL",)"
      R"("data":[true,0]},{"name":"u","shape":[],"datatype":"UINT64","data":[18446744073709551615]}],)"
      R"("outputs":[{"name":"x","parameters":{"binary_data":true,"classification":2}}],"extra":[{},[],null]})";
  return {
      seed(0, json),
      seed(2, json),
      seed(static_cast<char>(2 + 4 * 31), json),
      seed(1, binary, std::string("12345678\1\0\0\0z", 13)),
      seed(3, binary, std::string("12345678\1\0\0\0z", 13)),
      seed(0, R"({"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,null]},)"
              R"({"name":"z","datatype":"INT8","shape":[4],"parameters":{"shared_memory_region":"r",)"
              R"("shared_memory_offset":8,"shared_memory_byte_size":4}}]})"),
      seed(0, R"({"name":"m","platform":"p","versions":["1"],"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],)"
              R"("outputs":[]})"),
      seed(0, R"({"key":"/k","offset":0,"byte_size":64,"ready":true})")};
}
