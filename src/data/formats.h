// Parsers from bytes to tensors. Each refuses a file whose sizes do not add up, and allocates only what the bytes at
// hand can fill: a header that claims more is refused before memory is asked for.
//
//   ParseIdx    the MNIST family's format: big-endian dimensions, then numbers (Y. LeCun's page "THE IDX FILE FORMAT")
//   ParseCsv    RFC 4180 without embedded line breaks; numbers only, a header when the first row is not numeric
//   ParseNpy    NumPy's format 1.0 to 3.0 (NEP 1), C order, little-endian; f2 stays FP16, f4, f8, integers, bool
//   ParseNpz    a zip of npy files, stored or deflated
//   ParseImage  PNG and JPEG, by libpng and libjpeg; 8-bit grey or RGB, [height, width, channels] UINT8
//
// Pure, thread-safe.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::data {

Result<tensor::Tensor> ParseIdx(std::span<const std::byte> bytes);

struct Table {
  std::vector<std::string> columns;  // empty when the file has no header
  tensor::Tensor values;             // FP32 [rows, columns]
};
Result<Table> ParseCsv(std::string_view text);

Result<tensor::Tensor> ParseNpy(std::span<const std::byte> bytes);
Result<std::map<std::string, tensor::Tensor>> ParseNpz(std::span<const std::byte> bytes);
// `channels`: 1 for grey, 3 for RGB; colours are converted.
Result<tensor::Tensor> ParseImage(std::span<const std::byte> bytes, int channels);

// Any numeric tensor as FP32, element by element. Refuses BYTES and FP16/BF16 beyond FP16 (BF16 is widened too).
Result<tensor::Tensor> ToFp32(const tensor::Tensor& t);

// A .npy file of version 1.0.
std::string WriteNpy(const tensor::View& view);

}  // namespace ganglion::data
