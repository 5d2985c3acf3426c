#include "tensor/tensor.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/limits.h"

namespace ganglion::tensor {
namespace {

struct TypeRow {
  DataType type;
  std::string_view name;
  std::size_t size;
};
constexpr std::array<TypeRow, 14> kTypes{{
    {DataType::kBool, "BOOL", 1},
    {DataType::kUint8, "UINT8", 1},
    {DataType::kUint16, "UINT16", 2},
    {DataType::kUint32, "UINT32", 4},
    {DataType::kUint64, "UINT64", 8},
    {DataType::kInt8, "INT8", 1},
    {DataType::kInt16, "INT16", 2},
    {DataType::kInt32, "INT32", 4},
    {DataType::kInt64, "INT64", 8},
    {DataType::kFp16, "FP16", 2},
    {DataType::kBf16, "BF16", 2},
    {DataType::kFp32, "FP32", 4},
    {DataType::kFp64, "FP64", 8},
    {DataType::kBytes, "BYTES", 0},
}};

// BYTES: the lengths must add up to exactly the buffer, and there must be `count` of them.
Status CheckBytesEncoding(std::span<const std::byte> bytes, std::int64_t count) {
  std::size_t at = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t length = 0;
    if (bytes.size() - at < 4)
      return InvalidArgument("BYTES element " + std::to_string(i) + " has no length; data are cut short");
    std::memcpy(&length, bytes.data() + at, 4);
    at += 4;
    if (bytes.size() - at < length) {
      return InvalidArgument("BYTES element " + std::to_string(i) + " claims " + std::to_string(length) + " bytes, " +
                             std::to_string(bytes.size() - at) + " are left");
    }
    at += length;
  }
  if (at != bytes.size())
    return InvalidArgument(std::to_string(bytes.size() - at) + " bytes follow the last BYTES element");
  return {};
}

template <typename U, U kExponent>
std::int64_t FirstNotFinite(std::span<const std::byte> bytes) {
  const auto* p = reinterpret_cast<const U*>(bytes.data());
  const std::size_t n = bytes.size() / sizeof(U);
  U bad = 0;
  for (std::size_t i = 0; i < n; ++i) bad |= static_cast<U>((p[i] & kExponent) == kExponent);
  if (bad == 0) return -1;
  for (std::size_t i = 0; i < n; ++i) {
    if ((p[i] & kExponent) == kExponent) return static_cast<std::int64_t>(i);
  }
  return -1;
}

}  // namespace

std::string_view Name(DataType type) { return kTypes[static_cast<std::size_t>(type)].name; }

std::optional<DataType> DataTypeFromName(std::string_view name) {
  for (const auto& row : kTypes) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

std::size_t SizeOf(DataType type) { return kTypes[static_cast<std::size_t>(type)].size; }

Result<std::int64_t> ElementCount(std::span<const std::int64_t> shape) {
  if (shape.size() > static_cast<std::size_t>(limits::kMaxTensorRank)) {
    return InvalidArgument("tensor has " + std::to_string(shape.size()) + " dimensions, limit " +
                           std::to_string(limits::kMaxTensorRank));
  }
  std::int64_t count = 1;
  bool empty = false;
  for (const std::int64_t d : shape) {
    if (d < 0) return InvalidArgument("negative dimension in " + ShapeText(shape));
    if (d == 0) {
      empty = true;
    } else if (count > limits::kMaxTensorElements / d) {
      return InvalidArgument("tensor " + ShapeText(shape) + " has more than " +
                             std::to_string(limits::kMaxTensorElements) + " elements");
    } else {
      count *= d;
    }
  }
  return empty ? 0 : count;
}

std::string ShapeText(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ',';
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

Result<Tensor> Tensor::Zeros(DataType type, Shape shape) {
  ASSIGN_OR_RETURN(const std::int64_t count, ElementCount(shape));
  if (type == DataType::kBytes) return InvalidArgument("a BYTES tensor has no zero; give its elements");
  Tensor t;
  t.type_ = type;
  t.shape_ = std::move(shape);
  t.bytes_.resize(static_cast<std::size_t>(count) * SizeOf(type));
  return t;
}

Status CheckBytes(DataType type, std::span<const std::int64_t> shape, std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(const std::int64_t count, ElementCount(shape));
  if (type == DataType::kBytes) return CheckBytesEncoding(bytes, count);
  if (bytes.size() != static_cast<std::size_t>(count) * SizeOf(type)) {
    return InvalidArgument(std::string(Name(type)) + ShapeText(shape) + " takes " +
                           std::to_string(static_cast<std::size_t>(count) * SizeOf(type)) + " bytes, got " +
                           std::to_string(bytes.size()));
  }
  return {};
}

Result<Tensor> Tensor::FromBytes(DataType type, Shape shape, std::span<const std::byte> bytes) {
  RETURN_IF_ERROR(CheckBytes(type, shape, bytes));
  Tensor t;
  t.type_ = type;
  t.shape_ = std::move(shape);
  t.bytes_.assign(bytes.begin(), bytes.end());
  return t;
}

std::string Spec::Text() const { return std::string(Name(type)) + ShapeText(shape); }

Result<Spec> ParseSpec(const std::string& text) {
  const auto refuse = [&](const std::string& why) {
    return InvalidArgument("\"" + text + "\" is no tensor type: " + why + "; write for example FP32[-1,784]");
  };
  const auto open = text.find('[');
  if (open == std::string::npos || text.back() != ']') return refuse("no shape in brackets");
  Spec spec;
  const auto type = DataTypeFromName(text.substr(0, open));
  if (!type) return refuse("unknown datatype \"" + text.substr(0, open) + "\"");
  spec.type = *type;
  const char* p = text.data() + open + 1;
  const char* const end = text.data() + text.size() - 1;
  while (p < end) {
    std::int64_t d = 0;
    const auto [next, error] = std::from_chars(p, end, d);
    if (error != std::errc() || d < -1 || (next != end && *next != ',') || next + 1 == end)
      return refuse("bad dimension");
    spec.shape.push_back(d);
    p = next == end ? end : next + 1;
  }
  if (spec.shape.size() > static_cast<std::size_t>(limits::kMaxTensorRank)) return refuse("too many dimensions");
  return spec;
}

Status Matches(const Spec& spec, const View& view) {
  bool same = spec.type == view.type && spec.shape.size() == view.shape.size();
  for (std::size_t i = 0; same && i < spec.shape.size(); ++i)
    same = spec.shape[i] == -1 || spec.shape[i] == view.shape[i];
  if (same) return {};
  std::string way_out = spec.type != view.type ? "convert it" : "reshape";
  return InvalidArgument("input \"" + spec.name + "\" is " + std::string(Name(view.type)) + ShapeText(view.shape) +
                         ", want " + spec.Text() + "; " + way_out + ", or set pre");
}

Status CheckFinite(const std::string& name, const View& view) {
  std::int64_t at = -1;
  if (view.type == DataType::kFp32) {
    at = FirstNotFinite<std::uint32_t, 0x7f800000u>(view.bytes);
  } else if (view.type == DataType::kFp64) {
    at = FirstNotFinite<std::uint64_t, 0x7ff0000000000000u>(view.bytes);
  }
  if (at < 0) return {};
  const double value = view.type == DataType::kFp32 ? view.As<float>()[static_cast<std::size_t>(at)]
                                                    : view.As<double>()[static_cast<std::size_t>(at)];
  return InvalidArgument("input \"" + name + "\" has " + (std::isnan(value) ? "NaN" : "an infinity") + " at element " +
                         std::to_string(at) + "; every number must be finite");
}

View Rows(const View& view, std::int64_t begin, std::int64_t end, Shape* shape) {
  GANGLION_CHECK(!view.shape.empty() && 0 <= begin && begin <= end && end <= view.shape[0]);
  GANGLION_CHECK(view.type != DataType::kBytes);
  shape->assign(view.shape.begin(), view.shape.end());
  const std::size_t row = view.shape[0] == 0 ? 0 : view.bytes.size() / static_cast<std::size_t>(view.shape[0]);
  (*shape)[0] = end - begin;
  return {view.type, *shape,
          view.bytes.subspan(static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(end - begin) * row)};
}

}  // namespace ganglion::tensor
