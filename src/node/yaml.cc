#include "node/yaml.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace ganglion::node {

YamlReader::YamlReader(std::string file, const std::string& text) : file_(std::move(file)) {
  try {
    root_ = YAML::Load(text);
    if (!root_.IsMap()) Error(root_, "is no mapping of keys to values");
  } catch (const YAML::Exception& e) {
    errors_.emplace_back(e.mark.line + 1, e.msg);
    root_ = YAML::Node(YAML::NodeType::Map);
  }
}

void YamlReader::Error(const YAML::Node& at, const std::string& what) {
  errors_.emplace_back(at.Mark().line + 1, what);
}

Status YamlReader::Finish() const {
  if (errors_.empty()) return {};
  auto sorted = errors_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string message;
  for (const auto& [line, what] : sorted) {
    message += (message.empty() ? "" : "\n") + file_ + (line > 0 ? ":" + std::to_string(line) : "") + " " + what;
  }
  return InvalidArgument(message);
}

void YamlReader::KnownKeys(const YAML::Node& map, const std::string& where, const std::vector<std::string>& known,
                           bool any) {
  if (!map.IsMap()) return;
  std::vector<std::string> seen;
  for (const auto& pair : map) {
    const std::string key = pair.first.IsScalar() ? pair.first.Scalar() : "?";
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) Error(pair.first, where + key + " is given twice");
    seen.push_back(key);
    if (any || std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string all;
    for (const auto& k : known) all += (all.empty() ? "" : ", ") + k;
    Error(pair.first, where + key + " is unknown; known here: " + all);
  }
}

std::optional<std::string> YamlReader::Text(const YAML::Node& map, const std::string& where, const std::string& key,
                                            bool required) {
  const YAML::Node v = map.IsMap() ? map[key] : YAML::Node(YAML::NodeType::Undefined);
  if (!v.IsDefined() || v.IsNull()) {
    if (required) Error(map, where + key + " is missing");
    return std::nullopt;
  }
  if (!v.IsScalar() || v.Scalar().empty()) {
    Error(v, where + key + " must be a single value");
    return std::nullopt;
  }
  return v.Scalar();
}

std::optional<double> YamlReader::Number(const YAML::Node& map, const std::string& where, const std::string& key,
                                         bool required) {
  const auto text = Text(map, where, key, required);
  if (!text) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || !std::isfinite(value)) {
    Error(map[key], where + key + " \"" + *text + "\" is no number");
    return std::nullopt;
  }
  return value;
}

std::optional<Duration> YamlReader::Time(const YAML::Node& map, const std::string& where, const std::string& key) {
  const auto text = Text(map, where, key);
  if (!text) return std::nullopt;
  const auto d = ParseDuration(*text);
  if (!d.ok()) {
    Error(map[key], where + key + " " + d.status().message());
    return std::nullopt;
  }
  return *d;
}

Result<Duration> ParseDuration(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string unit(end, text.data() + text.size());
  const double ns = unit == "ns"   ? 1
                    : unit == "us" ? 1e3
                    : unit == "ms" ? 1e6
                    : unit == "s"  ? 1e9
                    : unit == "m"  ? 60e9
                    : unit == "h"  ? 3600e9
                                   : 0;
  if (error != std::errc() || ns == 0 || !(value >= 0) || value * ns > 9e18) {
    return InvalidArgument("\"" + text + "\" is no time; write for example 150ms, 2s or 500us");
  }
  return Duration(static_cast<std::int64_t>(std::llround(value * ns)));
}

}  // namespace ganglion::node
