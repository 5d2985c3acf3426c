// The values of the Open Inference Protocol v2, apart from how they travel: REST, gRPC and shared memory all carry
// these.
//
// An InferRequest borrows: its tensors point into the transport's buffer, into shared memory, or into `owned` where
// numbers had to be converted on the way in. Whoever holds the request keeps that buffer.
// Every input's bytes fit its shape and datatype and are aligned for it: readers refuse or copy otherwise.
// Parameters keep their order and are few, so they are looked up one by one.
// Source: Open Inference Protocol v2 ("Inference Protocol", KServe) with Triton's extensions for binary tensors,
// classification, statistics, model repository, and system shared memory.
// All are values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::wire {

using ParameterValue = std::variant<bool, std::int64_t, double, std::string>;
struct Parameter {
  std::string name;
  ParameterValue value;
};
using Parameters = std::vector<Parameter>;

// Nullptr when there is none of that name.
const ParameterValue* Find(const Parameters& parameters, std::string_view name);
void Set(Parameters* parameters, std::string_view name, ParameterValue value);
// Absent is nullopt; of another type is a refusal that names the parameter. An integer is also a number; a string that
// holds nothing but a number is too, because gRPC's parameters have no fractions.
Result<std::optional<std::string>> FindString(const Parameters& parameters, std::string_view name);
Result<std::optional<double>> FindNumber(const Parameters& parameters, std::string_view name);
Result<std::optional<bool>> FindBool(const Parameters& parameters, std::string_view name);

// A tensor that lies in a registered region instead of the message.
struct SharedMemory {
  std::string region;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

struct InferInput {
  std::string name;
  tensor::DataType type = tensor::DataType::kFp32;
  tensor::Shape shape;
  std::span<const std::byte> bytes;     // borrowed; empty while `shared` is not resolved
  std::optional<tensor::Tensor> owned;  // where bytes point when the message had other forms or alignment
  std::optional<SharedMemory> shared;
  Parameters parameters;  // without those of the transport (binary_data_size, shared_memory_*)

  tensor::View View() const { return {type, shape, bytes}; }
};

struct RequestedOutput {
  std::string name;
  bool binary = false;              // REST: bytes after the JSON
  std::int64_t classification = 0;  // > 0: the top so many as "value:index:label" strings
  std::optional<SharedMemory> shared;
  Parameters parameters;
};

struct InferRequest {
  std::string model;
  std::string version;  // empty: the node's choice
  std::string id;
  Parameters parameters;
  std::vector<InferInput> inputs;
  std::vector<RequestedOutput> outputs;  // empty: all of the model's own
  bool binary_output = false;            // REST: what is not asked for otherwise comes binary
};

struct InferOutput {
  std::string name;
  tensor::Tensor tensor;
  std::optional<SharedMemory> shared;  // written there, not into the message; tensor keeps datatype and shape
};

struct InferResponse {
  std::string model;
  std::string version;
  std::string id;
  Parameters parameters;
  std::vector<InferOutput> outputs;
};

struct ServerMetadata {
  std::string name;
  std::string version;
  std::vector<std::string> extensions;
};

struct ModelMetadata {
  std::string name;
  std::vector<std::string> versions;
  std::string platform;
  std::vector<tensor::Spec> inputs;
  std::vector<tensor::Spec> outputs;
};

struct ModelConfig {
  std::string name;
  std::string platform;
  std::string backend;
  std::int64_t max_batch_size = 0;  // as Triton: > 0 leaves the batch dimension out of the shapes
  std::vector<tensor::Spec> inputs;
  std::vector<tensor::Spec> outputs;
};

struct DurationStatistic {
  std::uint64_t count = 0;
  std::uint64_t nanoseconds = 0;
};

struct ModelStatistics {
  std::string name;
  std::string version;
  std::uint64_t last_inference_ms = 0;  // since 1970
  std::uint64_t inference_count = 0;    // rows
  std::uint64_t execution_count = 0;    // runs: fewer where requests were batched
  DurationStatistic success, fail, queue, compute_input, compute_infer, compute_output, cache_hit, cache_miss;
};

struct RepositoryEntry {
  std::string name;
  std::string version;
  std::string state;  // "READY", "UNAVAILABLE", "LOADING", "UNLOADING"
  std::string reason;
};

struct SharedMemoryRegion {
  std::string name;
  std::string key;  // of shm_open, such as "/region"
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

}  // namespace ganglion::wire
