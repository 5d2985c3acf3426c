// A JSON text from outside, read front to back by simdjson's on-demand parser behind Status.
//
// Why not wire/json.h: that builds a document of nodes, which for a request of numbers costs ten times the reading.
// What on-demand leaves to its user is done here: values nobody asked for are checked all the same (Skip), the text
// must end where its root ends (End), and lists must be lists. A string is read once only: the parser's buffer is made
// for that.
// Padding: simdjson looks up to 64 bytes behind the text. They count for nothing, except that a text with a bracket
// missing goes on reading there: so a text followed by a byte of JSON's own syntax is copied, as is one without room.
// One JsonText a thread at a time may be open by Open (it uses the thread's parser); OpenPadded takes one of its own.
// Thread-compatible. Internal to `wire`: this header brings simdjson along.
#pragma once

#ifndef SIMDJSON_EXCEPTIONS
#define SIMDJSON_EXCEPTIONS 0
#endif
#include <simdjson.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "wire/inference.h"

namespace ganglion::wire {

using JsonValue = simdjson::ondemand::value;
using JsonArray = simdjson::ondemand::array;
using JsonObject = simdjson::ondemand::object;

class JsonText {
 public:
  JsonText() = default;
  JsonText(const JsonText&) = delete;  // values point into it
  JsonText& operator=(const JsonText&) = delete;

  // `readable` bytes from text.data() on may be read. The text must live as long as this.
  Status Open(std::string_view text, std::size_t readable, std::size_t max_bytes);
  // A part of another open text: there is room behind it.
  Status OpenPadded(std::string_view text);
  Status Root(JsonObject* object);
  Status Root(JsonArray* array);
  // OK when nothing follows the root.
  Status End();
  std::size_t size() const { return text_.size(); }

  // "the body is not JSON near byte 17: ..."
  Status Broken(simdjson::error_code error) const;
  // "inputs is null, want a list"
  Status Want(std::string_view what, JsonValue& value, const char* wanted) const;
  // The text of a value, shortened, for messages; and its first character, which says what it is.
  static std::string Token(JsonValue& value);
  static char Kind(JsonValue& value) { return *value.raw_json_token().data(); }

  Status String(JsonValue& value, const char* what, std::size_t max_bytes, std::string* out) const;
  // A value of a parameter. Refuses null, lists, objects, and integers beyond 64 bits signed.
  Status Scalar(JsonValue& value, const std::string& name, ParameterValue* out) const;
  // Checks a value that nobody wants, `depth` levels deep at most.
  Status Skip(JsonValue& value, int depth) const;

  // read(key, value) for each member.
  template <typename Read>
  Status Fields(JsonObject& object, Read&& read) const {
    for (auto field : object) {
      std::string_view key;
      JsonValue value;
      if (const auto e = field.unescaped_key().get(key)) return Broken(e);
      if (const auto e = field.value().get(value)) return Broken(e);
      RETURN_IF_ERROR(read(key, value));
    }
    return {};
  }
  // read(object) for each of a list of at most `max` objects.
  template <typename Read>
  Status Objects(JsonValue& value, const char* what, std::size_t max, Read&& read) const {
    JsonArray array;
    if (value.get_array().get(array)) return Want("\"" + std::string(what) + "\"", value, "a list of objects");
    std::size_t n = 0;
    for (auto item : array) {
      JsonValue element;
      JsonObject object;
      if (const auto e = item.get(element)) return Broken(e);
      if (++n > max) {
        return InvalidArgument("\"" + std::string(what) + "\" has more than " + std::to_string(max) +
                               " entries, the limit; send less at once");
      }
      if (element.get_object().get(object))
        return Want("an entry of \"" + std::string(what) + "\"", element, "an object");
      RETURN_IF_ERROR(read(object));
    }
    return {};
  }

 private:
  struct Scratch {
    simdjson::ondemand::parser parser;
    std::unique_ptr<char[]> padded;
    std::size_t padded_bytes = 0;
  };
  Status Start(Scratch& scratch);

  std::string_view text_;
  std::unique_ptr<Scratch> own_;
  mutable simdjson::ondemand::document document_;
};

}  // namespace ganglion::wire
