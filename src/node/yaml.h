// Reads YAML with yaml-cpp and gathers every mistake with its line, so that a user sees all of them at once.
#pragma once

#include <yaml-cpp/yaml.h>

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::node {

class YamlReader {
 public:
  // Parses `text`; a syntax error is the one mistake then. `file` is for messages.
  YamlReader(std::string file, const std::string& text);

  const YAML::Node& root() const { return root_; }
  void Error(const YAML::Node& at, const std::string& what);
  // OK, or INVALID_ARGUMENT with one line for each mistake.
  Status Finish() const;
  bool ok() const { return errors_.empty(); }

  // Records a mistake for every key of `map` that is not in `known` (unless `any` is allowed) or is there twice.
  void KnownKeys(const YAML::Node& map, const std::string& where, const std::vector<std::string>& known,
                 bool any = false);
  // A scalar under `key`, or nothing; a mistake when it is there and not of the type.
  std::optional<std::string> Text(const YAML::Node& map, const std::string& where, const std::string& key,
                                  bool required = false);
  std::optional<double> Number(const YAML::Node& map, const std::string& where, const std::string& key,
                               bool required = false);
  std::optional<Duration> Time(const YAML::Node& map, const std::string& where, const std::string& key);

 private:
  std::string file_;
  YAML::Node root_;
  std::vector<std::pair<int, std::string>> errors_;
};

// "150ms", "2s", "500us", "1m". Refuses negative and nonsensical ones.
Result<Duration> ParseDuration(const std::string& text);

}  // namespace ganglion::node
