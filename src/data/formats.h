// Parsers from bytes to tensors. Each refuses a file whose sizes do not add up, and allocates only what the bytes at
// hand can fill: a header that claims more is refused before memory is asked for.
//
//   ParseIdx    the MNIST family's format: big-endian dimensions, then numbers (Y. LeCun's page "THE IDX FILE FORMAT")
//   ParseCsv    RFC 4180 without embedded line breaks; numbers only, a header when no field of the first row is one
//   ParseNpy    NumPy's format 1.0 to 3.0 (NEP 1), C order, little-endian; f2 stays FP16, f4, f8, integers, bool
//   ParseNpz    a zip of npy files, stored or deflated
//   ParseImage  PNG and JPEG, by libpng and libjpeg; 8-bit grey or RGB, [height, width, channels] UINT8
//
// Pure, thread-safe.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::data {

Result<tensor::Tensor> ParseIdx(std::span<const std::byte> bytes);

// What an idx or npy file says of itself before its numbers. The whole may be larger than a Tensor can be.
struct ArrayHeader {
  tensor::DataType type = tensor::DataType::kFp32;
  tensor::Shape shape;
  std::size_t offset = 0;   // where the numbers begin
  bool big_endian = false;  // of numbers wider than a byte
};
// From the first bytes of a file; 66,000 are enough for every header that anyone writes.
Result<ArrayHeader> ReadIdxHeader(std::span<const std::byte> begin);
Result<ArrayHeader> ReadNpyHeader(std::span<const std::byte> begin);

// Numbers of `element` bytes each into the other byte order. REQUIRES: whole numbers of them.
void SwapBytes(std::span<std::byte> bytes, std::size_t element);

// The fields of one line of CSV: quotes taken off, white space around them trimmed.
std::vector<std::string> CsvFields(std::string_view line);
// The whole of `text` as a number.
bool ParseNumber(std::string_view text, float* out);

struct Table {
  std::vector<std::string> columns;  // empty when the file has no header
  tensor::Tensor values;             // FP32 [rows, columns]
};
Result<Table> ParseCsv(std::string_view text);
// The column called label, y or class, whichever comes first in this order.
std::optional<std::size_t> NamedLabelColumn(const Table& table);

Result<tensor::Tensor> ParseNpy(std::span<const std::byte> bytes);
struct Npz {
  std::map<std::string, tensor::Tensor> arrays;
  std::map<std::string, std::string> unreadable;  // why, by name: text arrays and the like, which nobody may need
};
Result<Npz> ParseNpz(std::span<const std::byte> bytes);
// The array called `name`, or why there is none.
Result<tensor::Tensor> Take(Npz& npz, const std::string& name);
// `channels`: 1 for grey, 3 for RGB; colours are converted.
Result<tensor::Tensor> ParseImage(std::span<const std::byte> bytes, int channels);

// Numbers of any datatype as FP32, element by element. REQUIRES: not BYTES; as many of one as of the other.
void Widen(const tensor::View& from, std::span<float> to);
// Any numeric tensor as FP32, element by element. Refuses BYTES and FP16/BF16 beyond FP16 (BF16 is widened too).
Result<tensor::Tensor> ToFp32(const tensor::Tensor& t);

// FP32 numbers as another numeric datatype; integers must be whole and in range (and at most 2^24, where FP32 is
// exact).
Result<tensor::Tensor> FromFp32(const tensor::Tensor& t, tensor::DataType type);

// A .npy file of version 1.0.
std::string WriteNpy(const tensor::View& view);

}  // namespace ganglion::data
