#include <fmt/compile.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "wire/rest.h"

namespace ganglion::wire {
namespace {

using tensor::DataType;

// Length of the UTF-8 sequence that `text` begins with, 0 when it is none. REQUIRES: the first byte is no ASCII.
// Source: RFC 3629, section 4 (no overlong forms, no surrogates, nothing beyond U+10FFFF).
std::size_t SequenceLength(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](std::size_t i) { return i < text.size() && (at(i) & 0xC0u) == 0x80u; };
  const unsigned first = at(0);
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!follows(1) || !follows(2)) return 0;
    const bool overlong = first == 0xE0 && at(1) < 0xA0;
    const bool surrogate = first == 0xED && at(1) > 0x9F;
    return overlong || surrogate ? 0 : 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    const bool overlong = first == 0xF0 && at(1) < 0x90;
    const bool beyond = first == 0xF4 && at(1) > 0x8F;
    return overlong || beyond ? 0 : 4;
  }
  return 0;
}

// Bytes that are no UTF-8 become U+FFFD, one each.
void AppendString(std::string_view text, std::string* out) {
  out->push_back('"');
  std::size_t plain = 0;  // begin of what goes over as it is
  std::size_t i = 0;
  const auto flush = [&] { out->append(text.substr(plain, i - plain)); };
  while (i < text.size()) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
      ++i;
      continue;
    }
    const std::size_t length = c >= 0x80 ? SequenceLength(text.substr(i)) : 0;
    if (length > 0) {
      i += length;
      continue;
    }
    flush();
    if (c >= 0x80) {
      out->append("\xEF\xBF\xBD");
    } else if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out->append("\\n");
    } else {
      fmt::format_to(std::back_inserter(*out), "\\u{:04x}", c);
    }
    plain = ++i;
  }
  flush();
  out->push_back('"');
}

bool IsUtf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = static_cast<unsigned char>(text[i]) < 0x80 ? 1 : SequenceLength(text.substr(i));
    if (length == 0) return false;
    i += length;
  }
  return true;
}

// visit(element) for each of BYTES. Stops where the framing would leave the buffer; tensors were checked before.
template <typename Visit>
void ForEachString(std::span<const std::byte> bytes, Visit visit) {
  while (bytes.size() >= 4) {
    std::uint32_t length = 0;
    std::memcpy(&length, bytes.data(), 4);
    bytes = bytes.subspan(4);
    if (length > bytes.size()) return;
    visit(std::string_view(reinterpret_cast<const char*>(bytes.data()), length));
    bytes = bytes.subspan(length);
  }
}

template <typename T>
char* WriteNumber(char* at, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) return std::copy_n("null", 4, at);
    return fmt::format_to(at, FMT_COMPILE("{}"), value);
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? std::copy_n("true", 4, at) : std::copy_n("false", 5, at);
  } else {
    const fmt::format_int text(value);
    return std::copy_n(text.data(), text.size(), at);
  }
}

template <typename T>
void AppendNumbers(std::span<const std::byte> bytes, std::string* out) {
  constexpr std::size_t kLongest = 32;  // of any number and its comma: -1.2345678901234567e-308, 20 digits
  constexpr std::size_t kChunk = 128;
  // BOOL is read as a byte: any but 0 is true, and a bool of 2 would be undefined.
  using Stored = std::conditional_t<std::is_same_v<T, bool>, std::uint8_t, T>;
  const std::size_t n = bytes.size() / sizeof(Stored);
  for (std::size_t i = 0; i < n;) {
    const std::size_t stop = std::min(n, i + kChunk);
    const std::size_t before = out->size();
    out->resize(before + kChunk * kLongest);
    char* at = out->data() + before;
    for (; i < stop; ++i) {
      Stored value;
      std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
      if constexpr (std::is_same_v<T, bool>) {
        at = WriteNumber(at, value != 0);
      } else if constexpr (sizeof(T) < 4) {
        at = WriteNumber(at, static_cast<int>(value));
      } else {
        at = WriteNumber(at, value);
      }
      *at++ = ',';
    }
    out->resize(static_cast<std::size_t>(at - out->data()));
  }
  if (n > 0) out->pop_back();
}

void AppendData(const tensor::View& view, std::string* out) {
  out->push_back('[');
  switch (view.type) {
    case DataType::kBool:
      AppendNumbers<bool>(view.bytes, out);
      break;
    case DataType::kUint8:
      AppendNumbers<std::uint8_t>(view.bytes, out);
      break;
    case DataType::kUint16:
      AppendNumbers<std::uint16_t>(view.bytes, out);
      break;
    case DataType::kUint32:
      AppendNumbers<std::uint32_t>(view.bytes, out);
      break;
    case DataType::kUint64:
      AppendNumbers<std::uint64_t>(view.bytes, out);
      break;
    case DataType::kInt8:
      AppendNumbers<std::int8_t>(view.bytes, out);
      break;
    case DataType::kInt16:
      AppendNumbers<std::int16_t>(view.bytes, out);
      break;
    case DataType::kInt32:
      AppendNumbers<std::int32_t>(view.bytes, out);
      break;
    case DataType::kInt64:
      AppendNumbers<std::int64_t>(view.bytes, out);
      break;
    case DataType::kFp32:
      AppendNumbers<float>(view.bytes, out);
      break;
    case DataType::kFp64:
      AppendNumbers<double>(view.bytes, out);
      break;
    case DataType::kBytes: {
      bool first = true;
      ForEachString(view.bytes, [&](std::string_view text) {
        if (!std::exchange(first, false)) out->push_back(',');
        AppendString(text, out);
      });
      break;
    }
    case DataType::kFp16:
    case DataType::kBf16:
      break;  // always as bytes
  }
  out->push_back(']');
}

bool HasJsonForm(DataType type) { return type != DataType::kFp16 && type != DataType::kBf16; }

// Whether reading the JSON would give the same bytes.
bool SurvivesJson(const tensor::View& view) {
  switch (view.type) {
    case DataType::kFp16:
    case DataType::kBf16:
      return false;
    case DataType::kFp32:
    case DataType::kFp64:
      return tensor::CheckFinite("", view).ok();
    case DataType::kBool:
      return std::all_of(view.bytes.begin(), view.bytes.end(), [](std::byte b) { return b <= std::byte{1}; });
    case DataType::kBytes: {
      bool utf8 = true;
      ForEachString(view.bytes, [&](std::string_view text) { utf8 = utf8 && IsUtf8(text); });
      return utf8;
    }
    default:
      return true;
  }
}

// Writes "name":value members, with commas between them.
class Members {
 public:
  explicit Members(std::string* out) : out_(out) { out_->push_back('{'); }
  void Key(std::string_view name) {
    if (!std::exchange(first_, false)) out_->push_back(',');
    AppendString(name, out_);
    out_->push_back(':');
  }
  void Text(std::string_view name, std::string_view value) {
    Key(name);
    AppendString(value, out_);
  }
  void Integer(std::string_view name, std::uint64_t value) {
    Key(name);
    out_->append(std::to_string(value));
  }
  void Bool(std::string_view name, bool value) {
    Key(name);
    out_->append(value ? "true" : "false");
  }
  void Raw(std::string_view name, const std::string& json) {
    Key(name);
    out_->append(json);
  }
  void End() { out_->push_back('}'); }
  bool empty() const { return first_; }

 private:
  std::string* out_;
  bool first_ = true;
};

void AppendParameters(const Parameters& parameters, Members* members) {
  for (const auto& p : parameters) {
    if (const auto* truth = std::get_if<bool>(&p.value)) {
      members->Bool(p.name, *truth);
    } else if (const auto* integer = std::get_if<std::int64_t>(&p.value)) {
      members->Raw(p.name, std::to_string(*integer));
    } else if (const auto* number = std::get_if<double>(&p.value)) {
      // JSON has no infinities: as text, which is a parameter too. A fraction keeps 5.0 from coming back as an integer.
      std::string text = fmt::format("{}", *number);
      if (!std::isfinite(*number)) {
        members->Text(p.name, text);
      } else {
        if (text.find_first_of(".e") == std::string::npos) text += ".0";
        members->Raw(p.name, text);
      }
    } else {
      members->Text(p.name, std::get<std::string>(p.value));
    }
  }
}

void AppendShared(const SharedMemory& shared, Members* members) {
  members->Text("shared_memory_region", shared.region);
  members->Integer("shared_memory_offset", shared.offset);
  members->Integer("shared_memory_byte_size", shared.bytes);
}

// One tensor of a request or a response. `binary` ones add their bytes to `tail`.
void AppendTensor(const std::string& name, const tensor::View& view, const std::optional<SharedMemory>& shared,
                  const Parameters& parameters, bool binary, std::string* out,
                  std::vector<std::span<const std::byte>>* tail) {
  Members t(out);
  t.Text("name", name);
  t.Raw("shape", tensor::ShapeText(view.shape));
  t.Text("datatype", tensor::Name(view.type));
  if (shared || binary || !parameters.empty()) {
    t.Key("parameters");
    Members p(out);
    if (shared) {
      AppendShared(*shared, &p);
    } else if (binary) {
      p.Integer("binary_data_size", view.bytes.size());
    }
    AppendParameters(parameters, &p);
    p.End();
  }
  if (!shared && binary) tail->push_back(view.bytes);
  if (!shared && !binary) {
    t.Key("data");
    AppendData(view, out);
  }
  t.End();
}

RestBody Join(std::string json, const std::vector<std::span<const std::byte>>& tail) {
  RestBody body{std::move(json), std::nullopt};
  if (tail.empty()) return body;
  body.json_bytes = body.body.size();
  std::size_t size = body.body.size();
  for (const auto& bytes : tail) size += bytes.size();
  body.body.reserve(size);
  for (const auto& bytes : tail) body.body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return body;
}

}  // namespace

RestBody WriteInferResponse(const InferResponse& response, const InferRequest& asked) {
  std::string json;
  std::vector<std::span<const std::byte>> tail;
  Members m(&json);
  m.Text("model_name", response.model);
  if (!response.version.empty()) m.Text("model_version", response.version);
  if (!response.id.empty()) m.Text("id", response.id);
  if (!response.parameters.empty()) {
    m.Key("parameters");
    Members p(&json);
    AppendParameters(response.parameters, &p);
    p.End();
  }
  m.Key("outputs");
  json.push_back('[');
  for (const auto& output : response.outputs) {
    if (&output != response.outputs.data()) json.push_back(',');
    const auto it = std::find_if(asked.outputs.begin(), asked.outputs.end(),
                                 [&](const RequestedOutput& r) { return r.name == output.name; });
    const bool wanted = it == asked.outputs.end() ? asked.binary_output : it->binary;
    AppendTensor(output.name, output.tensor.View(), output.shared, {}, wanted || !HasJsonForm(output.tensor.type()),
                 &json, &tail);
  }
  json.push_back(']');
  m.End();
  return Join(std::move(json), tail);
}

RestBody WriteInferRequest(const InferRequest& request, bool binary) {
  std::string json;
  std::vector<std::span<const std::byte>> tail;
  Members m(&json);
  if (!request.id.empty()) m.Text("id", request.id);
  if (!request.parameters.empty() || request.binary_output) {
    m.Key("parameters");
    Members p(&json);
    if (request.binary_output) p.Bool("binary_data_output", true);
    AppendParameters(request.parameters, &p);
    p.End();
  }
  m.Key("inputs");
  json.push_back('[');
  for (const auto& input : request.inputs) {
    if (&input != request.inputs.data()) json.push_back(',');
    AppendTensor(input.name, input.View(), input.shared, input.parameters, binary || !SurvivesJson(input.View()), &json,
                 &tail);
  }
  json.push_back(']');
  if (!request.outputs.empty()) {
    m.Key("outputs");
    json.push_back('[');
    for (const auto& output : request.outputs) {
      if (&output != request.outputs.data()) json.push_back(',');
      Members o(&json);
      o.Text("name", output.name);
      std::string parameters;
      Members p(&parameters);
      if (output.shared) AppendShared(*output.shared, &p);
      if (output.binary || request.binary_output) p.Bool("binary_data", output.binary);
      if (output.classification > 0) p.Integer("classification", static_cast<std::uint64_t>(output.classification));
      AppendParameters(output.parameters, &p);
      p.End();
      if (!p.empty()) o.Raw("parameters", parameters);
      o.End();
    }
    json.push_back(']');
  }
  m.End();
  return Join(std::move(json), tail);
}

}  // namespace ganglion::wire
