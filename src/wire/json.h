// JSON documents by nlohmann/json, behind Status: nothing throws, depth and size are bounded.
//
// Source files that look into a document include <nlohmann/json.hpp>; this header stays light.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace ganglion::wire {

// Keys keep the order in which they were set: files are for people too.
using Json = nlohmann::ordered_json;

// Refuses what is no JSON (with the position), deeper than limits::kMaxJsonDepth or larger than limits::kMaxJsonBytes.
Status ParseJson(std::string_view text, Json* json);

// Indented, with a line feed at the end. Numbers are written so that reading gives the same number.
std::string WriteJson(const Json& json);

// A member of an object, or a refusal that names the key: absent, or of another type.
Result<std::string> GetString(const Json& object, const std::string& key);
Result<double> GetNumber(const Json& object, const std::string& key);
Result<std::int64_t> GetInteger(const Json& object, const std::string& key);
Result<bool> GetBool(const Json& object, const std::string& key);
Result<const Json*> GetArray(const Json& object, const std::string& key);
Result<const Json*> GetObject(const Json& object, const std::string& key);

}  // namespace ganglion::wire
