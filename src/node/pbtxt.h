// pbtxt reads protobuf's text format without a schema: what is written becomes a tree of named fields.
//
// Intuition: `input [ { name: "x" dims: [ 2, 3 ] } ]` becomes a field `input` that holds the fields name, dims and
// dims. A list is its elements one after the other under the same name, as in the format itself; `{}` and `<>`, an
// optional colon before them, commas and semicolons between fields, comments, adjacent strings and all escapes are
// understood. Why not protobuf's own TextFormat: it needs the full library and descriptors where ours links the lite
// one, and it refuses a file for one field that it does not know, where a repository written for a newer Triton should
// still load. Ranges: at most limits::kMaxConfigBytes of text, kMaxPbtxtDepth messages inside each other,
// kMaxPbtxtFields fields. Errors: INVALID_ARGUMENT with the line and what stands there. Values; cost linear in the
// text. Source: Protocol Buffers, "Text Format Language Specification". Differs: floats are not told from identifiers
// before a caller asks for a number, and a name in brackets (an extension, an Any) is kept as text with its brackets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::node {

inline constexpr int kMaxPbtxtDepth = 32;
inline constexpr int kMaxPbtxtFields = 100'000;

struct PbtxtField {
  enum class Kind { kWord, kString, kMessage };  // a word is a number, an enum's name, true or false

  std::string name;
  Kind kind = Kind::kWord;
  int line = 0;
  std::string text;                 // of a word ("-1", "TYPE_FP32") or a string, escapes resolved
  std::vector<PbtxtField> message;  // of a message
};

Result<std::vector<PbtxtField>> ParsePbtxt(std::string_view text);

// The value of a field, or a refusal that names its line.
Result<std::int64_t> PbtxtInteger(const PbtxtField& field);  // decimal, octal, hexadecimal
Result<bool> PbtxtBool(const PbtxtField& field);
Result<std::string> PbtxtString(const PbtxtField& field);

}  // namespace ganglion::node
