// The member `data` of a tensor in JSON, into memory.
//
// Flat, or nested exactly as the shape says; which of both shows in the first element. REQUIRES: `count` is the shape's
// element count, and the caller has made sure that the JSON can hold so many: memory for all is taken at once.
// Errors name the element, its value, the datatype and its range; or both sizes. Recursion ends at the shape's rank.
// Cost: about 15 ns for a number of 9 digits. Internal to `wire`: this header brings simdjson along.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tensor/tensor.h"
#include "wire/rest_json.h"

namespace ganglion::wire {

// `null_is_nan`: for FP32 and FP64 (a response has it where JSON has no number).
Result<tensor::Tensor> ReadData(JsonText& json, JsonArray array, tensor::DataType type, const tensor::Shape& shape,
                                std::int64_t count, bool null_is_nan);

}  // namespace ganglion::wire
