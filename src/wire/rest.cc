#include "wire/rest.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>
#include <utility>

#include "wire/rest_json.h"
#include "wire/rest_reader.h"

namespace ganglion::wire {
namespace {

using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

static_assert(std::endian::native == std::endian::little, "tensors as bytes are little-endian on the wire");
// Inputs point into their own `owned`: a vector that grows must move them.
static_assert(std::is_nothrow_move_constructible_v<InferInput>);

std::string Number(std::uint64_t n) { return std::to_string(n); }

// Reads the JSON part of a body by `read(RestReader&, JsonObject)`.
template <typename Read>
Status ParseMessage(std::string_view body, std::optional<std::size_t> json_bytes, const RestLimits& limits,
                    std::size_t readable, bool null_is_nan, Read read) {
  const std::size_t size = json_bytes.value_or(body.size());
  if (size > body.size()) {
    return InvalidArgument("Inference-Header-Content-Length is " + Number(size) + ", the body has " +
                           Number(body.size()) + " bytes");
  }
  if (size == 0) return InvalidArgument("the body is empty; want a JSON object");
  JsonText json;
  JsonObject root;
  RETURN_IF_ERROR(json.Open(body.substr(0, size), std::max(readable, body.size()), limits.max_json_bytes));
  RETURN_IF_ERROR(json.Root(&root));
  RestReader reader(limits, json, null_is_nan);
  RETURN_IF_ERROR(read(reader, root));
  return json.End();
}

// Takes each binary tensor's bytes off the rest of the body, in order.
class Buffers {
 public:
  Buffers(std::string_view body, std::optional<std::size_t> json_bytes)
      : rest_(std::as_bytes(std::span(body)).subspan(json_bytes.value_or(body.size()))),
        all_(rest_.size()),
        said_(json_bytes.has_value()) {}

  Result<std::span<const std::byte>> Take(std::uint64_t size, DataType type, const Shape& shape) {
    if (size > rest_.size()) {
      return InvalidArgument("binary_data_size is " + Number(size) + ", " + Number(rest_.size()) +
                             " bytes are left after the JSON" +
                             (said_ ? "" : "; the header Inference-Header-Content-Length must say where it ends"));
    }
    const auto bytes = rest_.first(size);
    rest_ = rest_.subspan(size);
    RETURN_IF_ERROR(tensor::CheckBytes(type, shape, bytes));
    return bytes;
  }
  Status End() const {
    if (rest_.empty()) return {};
    return InvalidArgument(Number(all_) + " bytes follow the JSON, the sizes in binary_data_size add up to " +
                           Number(all_ - rest_.size()));
  }

 private:
  std::span<const std::byte> rest_;
  std::size_t all_;
  bool said_;
};

bool IsAligned(DataType type, std::span<const std::byte> bytes) {
  const std::size_t size = std::max<std::size_t>(1, tensor::SizeOf(type));
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % size == 0;
}

// Borrows when it may. The shape is checked already.
Status Borrow(std::span<const std::byte> bytes, InferInput* input) {
  input->bytes = bytes;
  if (IsAligned(input->type, bytes)) return {};
  ASSIGN_OR_RETURN(input->owned, Tensor::FromBytes(input->type, input->shape, bytes));
  input->bytes = input->owned->View().bytes;
  return {};
}

}  // namespace

Result<InferRequest> ParseInferRequest(std::string_view body, std::optional<std::size_t> json_bytes,
                                       const RestLimits& limits, std::size_t readable) {
  InferRequest request;
  if (json_bytes && *json_bytes == 0) return request;
  std::vector<TensorText> tensors;
  RETURN_IF_ERROR(ParseMessage(body, json_bytes, limits, readable, false, [&](RestReader& reader, JsonObject root) {
    return reader.Request(root, &request, &tensors);
  }));
  Buffers buffers(body, json_bytes);
  request.inputs.reserve(tensors.size());
  for (auto& t : tensors) {
    InferInput& input = request.inputs.emplace_back();
    input.name = std::move(t.name);
    input.type = t.type;
    input.shape = std::move(t.shape);
    input.parameters = std::move(t.transport.rest);
    input.shared = std::move(t.shared);
    if (t.data) {
      input.owned = std::move(t.data);
      input.bytes = input.owned->View().bytes;
    } else if (t.transport.binary_size) {
      const auto bytes = buffers.Take(*t.transport.binary_size, input.type, input.shape);
      if (!bytes.ok()) return bytes.status().Within("input \"" + input.name + "\"");
      RETURN_IF_ERROR(Borrow(*bytes, &input));
    }
  }
  RETURN_IF_ERROR(buffers.End());
  return request;
}

Result<InferRequest> RawInferRequest(std::string_view body, std::span<const tensor::Spec> model_inputs) {
  if (model_inputs.size() != 1) {
    return InvalidArgument("a body without JSON is for models with one input, this one has " +
                           Number(model_inputs.size()) + "; send a JSON object with inputs");
  }
  if (body.empty())
    return InvalidArgument("the body is empty; want the bytes of input \"" + model_inputs[0].name + "\"");
  const tensor::Spec& spec = model_inputs[0];
  const auto bytes = std::as_bytes(std::span(body));
  const auto refuse = [&](const std::string& why) {
    return InvalidArgument("a body of " + Number(body.size()) + " bytes is no " + spec.Text() + " for input \"" +
                           spec.name + "\": " + why + "; send a JSON object with inputs and their shapes");
  };
  InferRequest request;
  InferInput& input = request.inputs.emplace_back();
  input.name = spec.name;
  input.type = spec.type;
  input.shape = spec.shape;
  if (spec.type == DataType::kBytes) {
    for (auto& d : input.shape) d = d == -1 ? 1 : d;
    const auto count = tensor::ElementCount(input.shape);
    if (!count.ok() || *count != 1) return refuse("the body is one element, the shape takes others");
    if (body.size() > std::numeric_limits<std::uint32_t>::max()) return refuse("an element has less than 4 GiB");
    const auto length = static_cast<std::uint32_t>(body.size());
    std::string framed(reinterpret_cast<const char*>(&length), 4);
    framed += body;
    ASSIGN_OR_RETURN(input.owned, Tensor::FromBytes(input.type, input.shape, std::as_bytes(std::span(framed))));
    input.bytes = input.owned->View().bytes;
    return request;
  }
  const auto free = std::count(input.shape.begin(), input.shape.end(), -1);
  if (free > 1 && input.shape[0] == -1) input.shape[0] = 1;
  if (free > 2 || (free == 2 && spec.shape[0] != -1)) return refuse("more than one dimension is open");
  // With 1 for the open dimension the count is what one step of it takes.
  const auto open = std::find(input.shape.begin(), input.shape.end(), -1);
  if (open != input.shape.end()) *open = 1;
  ASSIGN_OR_RETURN(const std::int64_t count, tensor::ElementCount(input.shape));
  const std::uint64_t step = static_cast<std::uint64_t>(count) * tensor::SizeOf(spec.type);
  if (step == 0 || body.size() % step != 0 || (open == input.shape.end() && body.size() != step))
    return refuse("it takes " + Number(step) + " bytes" + (open == input.shape.end() ? "" : " or a multiple"));
  if (open != input.shape.end()) *open = static_cast<std::int64_t>(body.size() / step);
  RETURN_IF_ERROR(tensor::CheckBytes(input.type, input.shape, bytes));
  RETURN_IF_ERROR(Borrow(bytes, &input));
  return request;
}

Result<InferResponse> ParseInferResponse(std::string_view body, std::optional<std::size_t> json_bytes,
                                         const RestLimits& limits, std::size_t readable) {
  InferResponse response;
  std::vector<TensorText> tensors;
  RETURN_IF_ERROR(ParseMessage(body, json_bytes, limits, readable, true, [&](RestReader& reader, JsonObject root) {
    return reader.Response(root, &response, &tensors);
  }));
  Buffers buffers(body, json_bytes);
  response.outputs.reserve(tensors.size());
  std::size_t zeros_left = kMaxSharedZeroBytes;
  for (auto& t : tensors) {
    InferOutput& output = response.outputs.emplace_back();
    output.name = std::move(t.name);
    if (t.data) {
      output.tensor = *std::move(t.data);
    } else if (t.transport.binary_size) {
      const auto bytes = buffers.Take(*t.transport.binary_size, t.type, t.shape);
      if (!bytes.ok()) return bytes.status().Within("output \"" + output.name + "\"");
      ASSIGN_OR_RETURN(output.tensor, Tensor::FromBytes(t.type, std::move(t.shape), *bytes));
    } else {
      output.shared = std::move(t.shared);
      // An element of BYTES is at least its length: zeros are empty strings.
      const std::size_t each = t.type == DataType::kBytes ? 4 : tensor::SizeOf(t.type);
      const std::size_t size = static_cast<std::size_t>(t.count) * each;
      if (size > zeros_left) {
        return InvalidArgument("output \"" + output.name + "\" claims " + Number(size) +
                               " bytes in shared memory, all may claim " + Number(kMaxSharedZeroBytes));
      }
      zeros_left -= size;
      const std::vector<std::byte> zeros(size);
      ASSIGN_OR_RETURN(output.tensor, Tensor::FromBytes(t.type, std::move(t.shape), zeros));
    }
  }
  RETURN_IF_ERROR(buffers.End());
  return response;
}

}  // namespace ganglion::wire
