// The REST form of the Open Inference Protocol v2: JSON bodies, with or without tensors as bytes after the JSON.
//
// Intuition: a request is a JSON text that names its tensors. The numbers stand in the JSON (`data`, flat or nested as
// the shape says), behind it (`binary_data_size`, the buffers in the order of the inputs), or in shared memory. The
// header Inference-Header-Content-Length says where the JSON ends; here that is `json_bytes`, nothing when the whole
// body is JSON.
//
// Borrowed or owned: inputs borrow their bytes from the body where they are aligned for their datatype, else `owned`
// holds a copy. The body must outlive the request.
// Padding: the JSON reader looks up to 64 bytes past the text (and ignores them). `readable` says how many bytes from
// body.data() on may be read, body.size() or more; when that is not enough, the JSON is copied once.
//
// What is taken and what is refused, beyond the text of the protocol:
//   members not known           ignored, but they must be JSON; the same name twice is refused wherever we know it
//   null                        refused: what is optional is left out
//   nested data                 must nest exactly as the shape says; ragged lists are refused
//   FP32                        the nearest; beyond the largest is refused
//   FP16, BF16                  have no JSON form here: they come as bytes
//   BOOL                        true, false, 1, 0; as bytes whatever they are
//   unequal sizes               refused, naming both: shape and data, shape and bytes, bytes and the rest of the body
//   a shape that claims much    refused before memory is taken for it: a JSON tensor cannot have more elements than
//                               half the JSON's bytes. Memory stays below about 16 times the body.
// Ours in JSON: numbers are the shortest text that reads the same; NaN and infinities, which JSON has not, are null
// (ask for binary to keep them; the client side reads null as NaN); text that is not UTF-8 gets U+FFFD; FP16 and BF16
// outputs always come as bytes.
// Errors: INVALID_ARGUMENT, one sentence with the value and what was wanted.
// Threads: pure functions, callable from any thread; each thread keeps a reader of at most a few MiB for the next call.
// Cost: 784 FP32 in JSON (8 KB) are read in about 12 us and written in about 13 us; with tensors as bytes half a us.
// Source: Open Inference Protocol v2 (KServe, "Inference Protocol"); Triton's extensions for binary tensors,
// classification, parameters, statistics, model repository, model configuration and system shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "base/status.h"
#include "wire/inference.h"

namespace ganglion::wire {

struct RestLimits {
  std::size_t max_json_bytes = limits::kMaxJsonBytes;
  std::size_t max_tensors = 64;     // inputs, and outputs
  std::size_t max_parameters = 64;  // of the request, and of each tensor, beside those of the transport
  std::size_t max_name_bytes = 256;
  int max_depth = limits::kMaxJsonDepth;
};

struct RestBody {
  std::string body;
  std::optional<std::size_t> json_bytes;  // set when bytes follow the JSON: the header must say so
};

// The server's side. `model` and `version` stand in the URL and stay empty.
// json_bytes == 0 means that the body is nothing but the bytes of the one input: the request comes without inputs, and
// RawInferRequest makes the whole of it once the model is known.
Result<InferRequest> ParseInferRequest(std::string_view body, std::optional<std::size_t> json_bytes,
                                       const RestLimits& limits = {}, std::size_t readable = 0);
// For models with one input. A -1 in its shape comes from the size of the body; with two of them the first is the
// batch, and 1. BYTES: the body is the one element.
Result<InferRequest> RawInferRequest(std::string_view body, std::span<const tensor::Spec> model_inputs);
// An output that `asked` names comes binary when it says so there; others when the request says so for all.
// Those in shared memory come without data. The id is echoed if there is one.
RestBody WriteInferResponse(const InferResponse& response, const InferRequest& asked);

// The client's side. `binary` puts every tensor behind the JSON; without it those do that JSON would change: FP16,
// BF16, NaN and infinities, BYTES that are not UTF-8. `model` and `version` are for the URL.
RestBody WriteInferRequest(const InferRequest& request, bool binary);
// Tensors in shared memory come with datatype, shape and zeros, up to kMaxSharedZeroBytes: the region has the numbers.
inline constexpr std::size_t kMaxSharedZeroBytes = std::size_t{64} << 20;
Result<InferResponse> ParseInferResponse(std::string_view body, std::optional<std::size_t> json_bytes,
                                         const RestLimits& limits = {}, std::size_t readable = 0);

// The other documents.
std::string WriteServerMetadata(const ServerMetadata& metadata);
std::string WriteModelMetadata(const ModelMetadata& metadata);
// Triton's JSON. The shapes are written as they are given: without the batch when max_batch_size > 0.
std::string WriteModelConfig(const ModelConfig& config);
std::string WriteModelStatistics(std::span<const ModelStatistics> statistics);
std::string WriteRepositoryIndex(std::span<const RepositoryEntry> entries);
std::string WriteSharedMemoryStatus(std::span<const SharedMemoryRegion> regions);
// {"error":"..."}
std::string WriteError(const Status& status);

struct RepositoryIndexRequest {
  bool ready = false;  // only models that are
};
// An empty body asks for everything.
Result<RepositoryIndexRequest> ParseRepositoryIndexRequest(std::string_view body);
// {"key":"/region","offset":0,"byte_size":3136}; the offset may be left out. `name` is the URL's.
Result<SharedMemoryRegion> ParseSharedMemoryRegister(std::string_view name, std::string_view body);
Result<ServerMetadata> ParseServerMetadata(std::string_view body);
Result<ModelMetadata> ParseModelMetadata(std::string_view body);

// INVALID_ARGUMENT is 400 and so on; FAILED_PRECONDITION is 400 too, as Triton has it.
int HttpStatus(Code code);
Code CodeFromHttp(int status);

}  // namespace ganglion::wire
