#include "data/formats.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/check.h"
#include "base/limits.h"

namespace ganglion::data {
namespace {

using tensor::DataType;
using tensor::Tensor;

std::uint32_t BigEndian32(const std::byte* p) {
  std::uint32_t v = 0;
  for (int i = 0; i < 4; ++i) v = v << 8 | static_cast<std::uint32_t>(p[i]);
  return v;
}

float HalfToFloat(std::uint16_t h) {
  const int exponent = h >> 10 & 31;
  const int fraction = h & 1023;
  const float sign = h >> 15 ? -1.f : 1.f;
  if (exponent == 31) return fraction != 0 ? std::nanf("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

template <typename T>
void WidenAs(const tensor::View& from, std::span<float> to) {
  const auto* p = reinterpret_cast<const T*>(from.bytes.data());
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<float>(p[i]);
}

}  // namespace

void SwapBytes(std::span<std::byte> bytes, std::size_t element) {
  for (std::size_t i = 0; i < bytes.size(); i += element) {
    for (std::size_t j = 0; j < element / 2; ++j) std::swap(bytes[i + j], bytes[i + element - 1 - j]);
  }
}

namespace {

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

}  // namespace

// "" inside quotes is one quote.
std::vector<std::string> CsvFields(std::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  for (auto& f : fields) f = Trim(f);
  return fields;
}

bool ParseNumber(std::string_view s, float* out) {
  if (!s.empty() && s.front() == '+') s.remove_prefix(1);
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), *out);
  return error == std::errc() && end == s.data() + s.size();
}

Result<ArrayHeader> ReadIdxHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < 4)
    return InvalidArgument("not an idx file: " + std::to_string(bytes.size()) + " bytes, the header takes at least 4");
  const auto type_code = static_cast<int>(bytes[2]);
  const auto rank = static_cast<std::size_t>(bytes[3]);
  static const std::map<int, DataType> kTypes{{0x08, DataType::kUint8}, {0x09, DataType::kInt8},
                                              {0x0B, DataType::kInt16}, {0x0C, DataType::kInt32},
                                              {0x0D, DataType::kFp32},  {0x0E, DataType::kFp64}};
  const auto type = kTypes.find(type_code);
  if (bytes[0] != std::byte{0} || bytes[1] != std::byte{0} || type == kTypes.end())
    return InvalidArgument("not an idx file: its first four bytes are no idx magic number");
  if (rank == 0 || rank > static_cast<std::size_t>(limits::kMaxTensorRank)) {
    return InvalidArgument("idx file claims " + std::to_string(rank) + " dimensions, 1 to " +
                           std::to_string(limits::kMaxTensorRank) + " are possible");
  }
  if (bytes.size() < 4 + 4 * rank) return InvalidArgument("idx file is cut short inside its header");
  ArrayHeader header{type->second, {}, 4 + 4 * rank, tensor::SizeOf(type->second) > 1};
  header.shape.reserve(rank);
  for (std::size_t i = 0; i < rank; ++i) header.shape.push_back(BigEndian32(bytes.data() + 4 + 4 * i));
  return header;
}

Result<Tensor> ParseIdx(std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(ArrayHeader header, ReadIdxHeader(bytes));
  ASSIGN_OR_RETURN(const auto count, tensor::ElementCount(header.shape));
  const auto body = bytes.subspan(header.offset);
  const std::size_t element = tensor::SizeOf(header.type);
  const std::size_t want = static_cast<std::size_t>(count) * element;
  if (body.size() != want) {
    return InvalidArgument("idx file of shape " + tensor::ShapeText(header.shape) + " holds " + std::to_string(want) +
                           " bytes of numbers, this one has " + std::to_string(body.size()) +
                           (body.size() < want ? "; it is cut short" : ""));
  }
  ASSIGN_OR_RETURN(Tensor t, Tensor::FromBytes(header.type, std::move(header.shape), body));
  if (header.big_endian) SwapBytes(t.Mutable().bytes, element);
  return t;
}

Result<Table> ParseCsv(std::string_view text) {
  Table table;
  std::vector<float> values;
  std::size_t columns = 0;
  std::int64_t rows = 0;
  int line_number = 0;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark, as spreadsheets write it
  while (!text.empty()) {
    const auto end = text.find('\n');
    const std::string_view line = Trim(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++line_number;
    if (line.empty()) continue;
    const auto fields = CsvFields(line);
    if (columns == 0) {
      columns = fields.size();
      float ignored = 0;
      if (std::none_of(fields.begin(), fields.end(), [&](const auto& f) { return ParseNumber(f, &ignored); })) {
        table.columns = fields;
        continue;
      }
    }
    if (fields.size() != columns) {
      return InvalidArgument("line " + std::to_string(line_number) + " has " + std::to_string(fields.size()) +
                             " fields, the first has " + std::to_string(columns));
    }
    for (std::size_t i = 0; i < columns; ++i) {
      float v = 0;
      if (!ParseNumber(fields[i], &v)) {
        return InvalidArgument("line " + std::to_string(line_number) + " field " + std::to_string(i + 1) + " \"" +
                               fields[i].substr(0, 40) + "\" is no number");
      }
      values.push_back(v);
    }
    ++rows;
  }
  if (rows == 0) return InvalidArgument("CSV file has no rows of numbers");
  ASSIGN_OR_RETURN(table.values, Tensor::From<float>({rows, static_cast<std::int64_t>(columns)}, values));
  return table;
}

namespace {
Status RefuseNpy(const std::string& why) { return InvalidArgument("not a usable npy file: " + why); }
}  // namespace

Result<ArrayHeader> ReadNpyHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0) return RefuseNpy("no NumPy magic");
  const int major = static_cast<int>(bytes[6]);
  if (major < 1 || major > 3) return RefuseNpy("format version " + std::to_string(major) + ", 1 to 3 are known");
  const std::size_t prefix = major == 1 ? 10 : 12;
  if (bytes.size() < prefix) return RefuseNpy("cut short inside its header");
  std::size_t length = 0;
  for (std::size_t i = 0; i < prefix - 8; ++i) length |= static_cast<std::size_t>(bytes[8 + i]) << (8 * i);
  if (bytes.size() - prefix < length) return RefuseNpy("cut short inside its header");
  const std::string header(reinterpret_cast<const char*>(bytes.data()) + prefix, length);
  const auto value_of = [&](const std::string& key) -> std::string_view {
    auto at = header.find("'" + key + "'");
    if (at == std::string::npos) return {};
    at = header.find(':', at);
    return at == std::string::npos ? std::string_view() : Trim(std::string_view(header).substr(at + 1));
  };
  const std::string_view descr = value_of("descr");
  if (descr.size() < 5 || descr.front() != '\'')
    return RefuseNpy("no simple dtype in its header (structured arrays are not supported)");
  const std::string dtype(descr.substr(1, descr.find('\'', 1) - 1));
  static const std::map<std::string, DataType> kTypes{
      {"|b1", DataType::kBool},  {"|u1", DataType::kUint8},  {"|i1", DataType::kInt8},  {"<u2", DataType::kUint16},
      {"<i2", DataType::kInt16}, {"<u4", DataType::kUint32}, {"<i4", DataType::kInt32}, {"<u8", DataType::kUint64},
      {"<i8", DataType::kInt64}, {"<f2", DataType::kFp16},   {"<f4", DataType::kFp32},  {"<f8", DataType::kFp64}};
  const auto type = kTypes.find(dtype);
  if (type == kTypes.end())
    return RefuseNpy("dtype \"" + dtype.substr(0, 20) + "\" is not supported; convert with astype");
  if (value_of("fortran_order").rfind("False", 0) != 0)
    return RefuseNpy("Fortran order; save numpy.ascontiguousarray(x)");
  const std::string_view dims = value_of("shape");
  if (dims.empty() || dims.front() != '(') return RefuseNpy("no shape in its header");
  tensor::Shape shape;
  const char* p = dims.data() + 1;
  const char* const end = dims.data() + dims.size();
  while (p < end && *p != ')') {
    if (*p == ' ' || *p == ',') {
      ++p;
      continue;
    }
    std::int64_t d = 0;
    const auto [next, error] = std::from_chars(p, end, d);
    if (error != std::errc() || shape.size() > static_cast<std::size_t>(limits::kMaxTensorRank))
      return RefuseNpy("bad shape in its header");
    shape.push_back(d);
    p = next;
  }
  return ArrayHeader{type->second, std::move(shape), prefix + length, false};
}

Result<Tensor> ParseNpy(std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(ArrayHeader header, ReadNpyHeader(bytes));
  auto t = Tensor::FromBytes(header.type, std::move(header.shape), bytes.subspan(header.offset));
  if (!t.ok()) return RefuseNpy(t.status().message());
  return t;
}

std::optional<std::size_t> NamedLabelColumn(const Table& table) {
  for (const char* name : {"label", "y", "class"}) {
    const auto at = std::find(table.columns.begin(), table.columns.end(), name);
    if (at != table.columns.end()) return static_cast<std::size_t>(at - table.columns.begin());
  }
  return std::nullopt;
}

Result<Tensor> FromFp32(const Tensor& t, DataType type) {
  if (type == DataType::kFp32) return t;
  ASSIGN_OR_RETURN(Tensor out, Tensor::Zeros(type, t.shape()));
  const auto from = t.As<float>();
  const auto convert = [&]<typename T>(T*) -> Status {
    auto* to = reinterpret_cast<T*>(out.Mutable().bytes.data());
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (std::is_integral_v<T> &&
          (from[i] != std::floor(from[i]) || std::fabs(from[i]) > 16777216.f ||
           static_cast<double>(from[i]) < static_cast<double>(std::numeric_limits<T>::lowest()) ||
           static_cast<double>(from[i]) > static_cast<double>(std::numeric_limits<T>::max()))) {
        return InvalidArgument("number " + std::to_string(i) + ", " + std::to_string(from[i]) + ", is no " +
                               std::string(tensor::Name(type)));
      }
      to[i] = static_cast<T>(from[i]);
    }
    return {};
  };
  Status status;
  switch (type) {
    case DataType::kFp64:
      status = convert(static_cast<double*>(nullptr));
      break;
    case DataType::kBool:
    case DataType::kUint8:
      status = convert(static_cast<std::uint8_t*>(nullptr));
      break;
    case DataType::kInt8:
      status = convert(static_cast<std::int8_t*>(nullptr));
      break;
    case DataType::kUint16:
      status = convert(static_cast<std::uint16_t*>(nullptr));
      break;
    case DataType::kInt16:
      status = convert(static_cast<std::int16_t*>(nullptr));
      break;
    case DataType::kUint32:
      status = convert(static_cast<std::uint32_t*>(nullptr));
      break;
    case DataType::kInt32:
      status = convert(static_cast<std::int32_t*>(nullptr));
      break;
    case DataType::kUint64:
      status = convert(static_cast<std::uint64_t*>(nullptr));
      break;
    case DataType::kInt64:
      status = convert(static_cast<std::int64_t*>(nullptr));
      break;
    default:
      return Unimplemented("numbers cannot be turned into " + std::string(tensor::Name(type)));
  }
  RETURN_IF_ERROR(status);
  return out;
}

std::string WriteNpy(const tensor::View& view) {
  static const std::map<DataType, std::string> kNames{
      {DataType::kBool, "|b1"},  {DataType::kUint8, "|u1"},  {DataType::kInt8, "|i1"},  {DataType::kUint16, "<u2"},
      {DataType::kInt16, "<i2"}, {DataType::kUint32, "<u4"}, {DataType::kInt32, "<i4"}, {DataType::kUint64, "<u8"},
      {DataType::kInt64, "<i8"}, {DataType::kFp16, "<f2"},   {DataType::kFp32, "<f4"},  {DataType::kFp64, "<f8"}};
  const auto name = kNames.find(view.type);
  GANGLION_CHECK(name != kNames.end());
  std::string header = "{'descr': '" + name->second + "', 'fortran_order': False, 'shape': (";
  for (const auto d : view.shape) header += std::to_string(d) + ",";
  header += "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 255);
  out += static_cast<char>(header.size() >> 8);
  out += header;
  out.append(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
  return out;
}

void Widen(const tensor::View& from, std::span<float> to) {
  GANGLION_CHECK(from.bytes.size() == to.size() * tensor::SizeOf(from.type));
  switch (from.type) {
    case DataType::kFp32:
      std::memcpy(to.data(), from.bytes.data(), from.bytes.size());
      break;
    case DataType::kFp64:
      WidenAs<double>(from, to);
      break;
    case DataType::kBool:
    case DataType::kUint8:
      WidenAs<std::uint8_t>(from, to);
      break;
    case DataType::kInt8:
      WidenAs<std::int8_t>(from, to);
      break;
    case DataType::kUint16:
      WidenAs<std::uint16_t>(from, to);
      break;
    case DataType::kInt16:
      WidenAs<std::int16_t>(from, to);
      break;
    case DataType::kUint32:
      WidenAs<std::uint32_t>(from, to);
      break;
    case DataType::kInt32:
      WidenAs<std::int32_t>(from, to);
      break;
    case DataType::kUint64:
      WidenAs<std::uint64_t>(from, to);
      break;
    case DataType::kInt64:
      WidenAs<std::int64_t>(from, to);
      break;
    case DataType::kFp16: {
      const auto* p = reinterpret_cast<const std::uint16_t*>(from.bytes.data());
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = HalfToFloat(p[i]);
      break;
    }
    case DataType::kBf16: {
      const auto* p = reinterpret_cast<const std::uint16_t*>(from.bytes.data());
      for (std::size_t i = 0; i < to.size(); ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(p[i]) << 16;
        std::memcpy(&to[i], &bits, 4);
      }
      break;
    }
    case DataType::kBytes:
      GANGLION_CHECK(false);
  }
}

Result<Tensor> ToFp32(const Tensor& t) {
  if (t.type() == DataType::kFp32) return t;
  if (t.type() == DataType::kBytes) return InvalidArgument("BYTES are no numbers");
  ASSIGN_OR_RETURN(Tensor out, Tensor::Zeros(DataType::kFp32, t.shape()));
  Widen(t.View(), out.As<float>());
  return out;
}

}  // namespace ganglion::data
