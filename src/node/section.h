// A Section is one mapping of a configuration file, say `breaker`, and the typed values in it.
//
// A value that is absent leaves the default alone; one that is wrong becomes a mistake of the file, with its line, and
// leaves the default alone too, so that one reading finds every mistake.
// Ranges and errors: each reader says what it allows; messages name the key, the value and the limit.
// Thread-compatible; borrows the YamlReader.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "node/yaml.h"

namespace ganglion::node {

// Whether `map` has a value under `key`; null is none.
bool Given(const YAML::Node& map, const std::string& key);

class Section {
 public:
  // `where` stands before every key in messages: "breaker.".
  Section(YamlReader* y, const YAML::Node& map, std::string where) : y_(y), map_(map), where_(std::move(where)) {}
  // The mapping under `key` of `parent`, its keys checked against `known` (unless `any` is allowed). Nothing when it is
  // absent, or when it is no mapping: a mistake that shows `example`.
  static std::optional<Section> Open(YamlReader* y, const YAML::Node& parent, const std::string& where,
                                     const std::string& key, const std::vector<std::string>& known,
                                     const std::string& example, bool any = false);

  const YAML::Node& map() const { return map_; }
  // A mistake at `key`, or at the mapping when it has no such key.
  void Mistake(const std::string& key, const std::string& what);

  std::string Text(const std::string& key, bool required = false);  // empty: absent or wrong
  void Flag(const std::string& key, bool* value);
  void Share(const std::string& key, double* value, bool with_one);       // [0, 1], or [0, 1)
  void Time(const std::string& key, Duration* value, bool zero_allowed);  // at most a day
  // Bytes in [low, high]; a rate is bytes a second.
  void Size(const std::string& key, std::int64_t* value, std::int64_t low, std::int64_t high, bool rate = false);

  template <typename Int>
  void Integer(const std::string& key, Int* value, Int low, Int high) {
    const std::string text = Text(key);
    if (text.empty()) return;
    Int v = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (error != std::errc() || end != text.data() + text.size() || v < low || v > high)
      return Mistake(key, fmt::format("must be a whole number from {} to {}, got {}", low, high, text));
    *value = v;
  }

  // One of an enum that has a Name.
  template <typename Enum>
  void Choice(const std::string& key, const std::vector<Enum>& choices, Enum* value, bool required = false) {
    const std::string text = Text(key, required);
    if (text.empty()) return;
    std::string all;
    for (const Enum c : choices) {
      if (Name(c) == text) {
        *value = c;
        return;
      }
      all += (all.empty() ? "" : ", ") + std::string(Name(c));
    }
    Mistake(key, "\"" + text + "\" is unknown; one of " + all);
  }

 private:
  YamlReader* y_;
  const YAML::Node map_;  // const: looking for a key must not make one
  std::string where_;
};

}  // namespace ganglion::node
