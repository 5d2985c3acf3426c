#include "wire/json.h"

#include <nlohmann/json.hpp>

#include "base/limits.h"

namespace ganglion::wire {
namespace {

Result<const Json*> Get(const Json& object, const std::string& key, bool (Json::*is)() const noexcept,
                        const char* type) {
  if (!object.is_object()) return InvalidArgument("expected an object with \"" + key + "\"");
  const auto at = object.find(key);
  if (at == object.end()) return InvalidArgument("\"" + key + "\" is missing");
  if (!((*at).*is)()) return InvalidArgument("\"" + key + "\" is no " + type);
  return &*at;
}

}  // namespace

Status ParseJson(std::string_view text, Json* json) {
  if (text.size() > limits::kMaxJsonBytes) {
    return ResourceExhausted("JSON of " + std::to_string(text.size()) + " bytes, limit " +
                             std::to_string(limits::kMaxJsonBytes));
  }
  // Depth first, before anything is built: brackets outside strings.
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limits::kMaxJsonDepth)
        return InvalidArgument("JSON nested deeper than " + std::to_string(limits::kMaxJsonDepth));
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  try {
    *json = Json::parse(text);
  } catch (const Json::exception& e) {
    return InvalidArgument(std::string("no JSON: ") + e.what());
  }
  return {};
}

std::string WriteJson(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

Result<std::string> GetString(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* v, Get(object, key, &Json::is_string, "string"));
  return v->get_ref<const std::string&>();
}
Result<double> GetNumber(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* v, Get(object, key, &Json::is_number, "number"));
  return v->get<double>();
}
Result<std::int64_t> GetInteger(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* v, Get(object, key, &Json::is_number_integer, "integer"));
  return v->get<std::int64_t>();
}
Result<bool> GetBool(const Json& object, const std::string& key) {
  ASSIGN_OR_RETURN(const Json* v, Get(object, key, &Json::is_boolean, "boolean"));
  return v->get<bool>();
}
Result<const Json*> GetArray(const Json& object, const std::string& key) {
  return Get(object, key, &Json::is_array, "array");
}
Result<const Json*> GetObject(const Json& object, const std::string& key) {
  return Get(object, key, &Json::is_object, "object");
}

}  // namespace ganglion::wire
