#include "wire/rest_json.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>

namespace ganglion::wire {
namespace {

// Texts up to here use the thread's parser, which keeps its memory (about 6 bytes for each of the text); larger ones
// take a parser that goes when they are done.
constexpr std::size_t kKeptBytes = std::size_t{1} << 19;

bool IsSyntax(char c) { return std::string_view("{}[]:,\"").find(c) != std::string_view::npos; }

}  // namespace

Status JsonText::Open(std::string_view text, std::size_t readable, std::size_t max_bytes) {
  if (text.size() > max_bytes) {
    return InvalidArgument("the JSON has " + std::to_string(text.size()) + " bytes, limit " +
                           std::to_string(max_bytes) + "; send tensors as bytes, or fewer rows");
  }
  thread_local Scratch kept;
  const bool fits = text.size() <= kKeptBytes;
  if (!fits) own_ = std::make_unique<Scratch>();
  Scratch& scratch = fits ? kept : *own_;
  const bool roomy = readable >= text.size() + simdjson::SIMDJSON_PADDING;
  text_ = text;
  if (!roomy || IsSyntax(*(text.data() + text.size()))) {
    const std::size_t wanted = text.size() + simdjson::SIMDJSON_PADDING;
    if (scratch.padded_bytes < wanted) {
      scratch.padded_bytes = std::max<std::size_t>(std::bit_ceil(wanted), 4096);
      scratch.padded.reset(new char[scratch.padded_bytes]);
    }
    std::memcpy(scratch.padded.get(), text.data(), text.size());
    std::memset(scratch.padded.get() + text.size(), 0, simdjson::SIMDJSON_PADDING);
    text_ = {scratch.padded.get(), text.size()};
  }
  return Start(scratch);
}

Status JsonText::OpenPadded(std::string_view text) {
  text_ = text;
  own_ = std::make_unique<Scratch>();
  return Start(*own_);
}

Status JsonText::Start(Scratch& scratch) {
  auto& parser = scratch.parser;
  // simdjson grows to exactly what it needs now; a power of two does not grow again for the next byte.
  if (parser.capacity() < text_.size()) {
    const std::size_t capacity =
        std::max<std::size_t>(text_.size() <= kKeptBytes ? std::bit_ceil(text_.size()) : text_.size(), 4096);
    if (const auto e = parser.allocate(capacity, parser.max_depth()))
      return ResourceExhausted(std::string("no memory to read JSON: ") + simdjson::error_message(e));
  }
  const auto e = parser.iterate(text_.data(), text_.size(), text_.size() + simdjson::SIMDJSON_PADDING).get(document_);
  if (e) return InvalidArgument(std::string("the body is not JSON: ") + simdjson::error_message(e));
  return {};
}

Status JsonText::Root(JsonObject* object) {
  const auto e = document_.get_object().get(*object);
  if (e == simdjson::INCORRECT_TYPE) return InvalidArgument("the body is no JSON object; want {\"inputs\":[...]}");
  return e ? Broken(e) : Status();
}

Status JsonText::Root(JsonArray* array) {
  const auto e = document_.get_array().get(*array);
  return e ? Broken(e) : Status();
}

Status JsonText::End() {
  const char* here = nullptr;
  if (document_.current_location().get(here)) return {};  // out of bounds: nothing is left
  return InvalidArgument("the body is not JSON: something follows its end, at byte " +
                         std::to_string(here - text_.data()));
}

Status JsonText::Broken(simdjson::error_code error) const {
  const char* here = nullptr;
  std::string where;
  if (!document_.current_location().get(here)) where = " near byte " + std::to_string(here - text_.data());
  return InvalidArgument("the body is not JSON" + where + ": " + simdjson::error_message(error));
}

Status JsonText::Want(std::string_view what, JsonValue& value, const char* wanted) const {
  return InvalidArgument(std::string(what) + " is " + Token(value) + ", want " + wanted);
}

std::string JsonText::Token(JsonValue& value) {
  std::string_view token = value.raw_json_token();
  while (!token.empty() &&
         (token.back() == ' ' || token.back() == '\n' || token.back() == '\r' || token.back() == '\t'))
    token.remove_suffix(1);
  if (token == "[") return "a list";
  if (token == "{") return "an object";
  constexpr std::size_t kShown = 40;
  return token.size() <= kShown ? std::string(token) : std::string(token.substr(0, kShown)) + "...";
}

Status JsonText::String(JsonValue& value, const char* what, std::size_t max_bytes, std::string* out) const {
  std::string_view text;
  if (const auto e = value.get_string().get(text))
    return e == simdjson::INCORRECT_TYPE ? Want("\"" + std::string(what) + "\"", value, "a string") : Broken(e);
  if (text.size() > max_bytes) {
    return InvalidArgument("\"" + std::string(what) + "\" has " + std::to_string(text.size()) + " bytes, limit " +
                           std::to_string(max_bytes) + "; shorten it");
  }
  out->assign(text);
  return {};
}

Status JsonText::Scalar(JsonValue& value, const std::string& name, ParameterValue* out) const {
  const auto refuse = [&](const char* wanted) { return Want("parameter \"" + name + "\"", value, wanted); };
  switch (Kind(value)) {
    case '"': {
      std::string text;
      RETURN_IF_ERROR(String(value, "parameters", std::numeric_limits<std::size_t>::max(), &text));
      *out = std::move(text);
      return {};
    }
    case 't':
    case 'f': {
      bool truth = false;
      if (value.get_bool().get(truth)) return refuse("true or false");
      *out = truth;
      return {};
    }
    case '{':
    case '[':
    case 'n':
      return refuse("a string, a number, true or false");
    default: {
      simdjson::ondemand::number number;
      if (value.get_number().get(number)) return refuse("a string, a number, true or false");
      if (number.is_uint64()) return refuse("a number of at most 9223372036854775807; send it as a string");
      if (number.is_int64()) {
        *out = number.get_int64();
      } else {
        *out = number.get_double();
      }
      return {};
    }
  }
}

Status JsonText::Skip(JsonValue& value, int depth) const {
  const char kind = Kind(value);
  if ((kind == '{' || kind == '[') && depth <= 0)
    return InvalidArgument("the JSON nests too deep; the limit is counted from its root, leave the extra member out");
  switch (kind) {
    case '{': {
      JsonObject object;
      if (const auto e = value.get_object().get(object)) return Broken(e);
      return Fields(object, [&](std::string_view, JsonValue& member) { return Skip(member, depth - 1); });
    }
    case '[': {
      JsonArray array;
      if (const auto e = value.get_array().get(array)) return Broken(e);
      for (auto item : array) {
        JsonValue element;
        if (const auto e = item.get(element)) return Broken(e);
        RETURN_IF_ERROR(Skip(element, depth - 1));
      }
      return {};
    }
    case '"': {
      std::string_view text;
      const auto e = value.get_string().get(text);
      return e ? Broken(e) : Status();
    }
    case 't':
    case 'f': {
      bool truth = false;
      const auto e = value.get_bool().get(truth);
      return e ? Broken(e) : Status();
    }
    case 'n': {
      bool is_null = false;
      const auto e = value.is_null().get(is_null);
      return e ? Broken(e) : Status();
    }
    default: {
      double number = 0;
      const auto e = value.get_double().get(number);
      return e ? Broken(e) : Status();
    }
  }
}

}  // namespace ganglion::wire
