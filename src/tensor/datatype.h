// The datatypes of the Open Inference Protocol v2, with their names on the wire ("FP32") and sizes in bytes.
// Source: Open Inference Protocol, "Tensor Data Types". BYTES elements have no fixed size; on the wire each is a
// 4-byte little-endian length and that many bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace ganglion::tensor {

enum class DataType {
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes
};

std::string_view Name(DataType type);
std::optional<DataType> DataTypeFromName(std::string_view name);
std::size_t SizeOf(DataType type);  // 0 for kBytes

template <typename T>
struct DataTypeOf;
template <>
struct DataTypeOf<float> {
  static constexpr DataType value = DataType::kFp32;
};
template <>
struct DataTypeOf<double> {
  static constexpr DataType value = DataType::kFp64;
};
template <>
struct DataTypeOf<long> {
  static constexpr DataType value = DataType::kInt64;
};
template <>
struct DataTypeOf<int> {
  static constexpr DataType value = DataType::kInt32;
};
template <>
struct DataTypeOf<unsigned char> {
  static constexpr DataType value = DataType::kUint8;
};

}  // namespace ganglion::tensor
