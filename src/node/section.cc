#include "node/section.h"

#include "node/notation.h"

namespace ganglion::node {
namespace {

constexpr Duration kMaxTime = std::chrono::hours(24);

}  // namespace

bool Given(const YAML::Node& map, const std::string& key) {
  return map.IsMap() && map[key].IsDefined() && !map[key].IsNull();
}

std::optional<Section> Section::Open(YamlReader* y, const YAML::Node& parent, const std::string& where,
                                     const std::string& key, const std::vector<std::string>& known,
                                     const std::string& example, bool any) {
  if (!Given(parent, key)) return std::nullopt;
  const YAML::Node map = parent[key];
  if (!map.IsMap()) {
    y->Error(map, where + key + " must be a mapping, for example " + example);
    return std::nullopt;
  }
  y->KnownKeys(map, where + key + ".", known, any);
  return Section(y, map, where + key + ".");
}

void Section::Mistake(const std::string& key, const std::string& what) {
  y_->Error(Given(map_, key) ? map_[key] : map_, where_ + key + " " + what);
}

std::string Section::Text(const std::string& key, bool required) {
  return y_->Text(map_, where_, key, required).value_or("");
}

void Section::Flag(const std::string& key, bool* value) {
  const std::string text = Text(key);
  if (text.empty()) return;
  if (text != "true" && text != "false") return Mistake(key, "\"" + text + "\" is neither true nor false");
  *value = text == "true";
}

void Section::Share(const std::string& key, double* value, bool with_one) {
  const auto v = y_->Number(map_, where_, key);
  if (!v) return;
  if (*v < 0 || *v > 1 || (*v == 1 && !with_one))
    return Mistake(key, fmt::format("must be at least 0 and {} 1, got {}", with_one ? "at most" : "below", *v));
  *value = *v;
}

void Section::Time(const std::string& key, Duration* value, bool zero_allowed) {
  const auto v = y_->Time(map_, where_, key);
  if (!v) return;
  if (*v > kMaxTime || (*v == Duration::zero() && !zero_allowed)) {
    return Mistake(key, "must be " + std::string(zero_allowed ? "at most 24h" : "longer than 0 and at most 24h") +
                            ", got " + DurationText(*v));
  }
  *value = *v;
}

void Section::Size(const std::string& key, std::int64_t* value, std::int64_t low, std::int64_t high, bool rate) {
  const std::string text = Text(key);
  if (text.empty()) return;
  const auto v = rate ? ParseRate(text) : ParseByteSize(text);
  if (!v.ok()) return Mistake(key, v.status().message());
  if (*v < low || *v > high) {
    return Mistake(key, fmt::format("must be from {} to {}{}, got {}", ByteSizeText(low), ByteSizeText(high),
                                    rate ? " a second" : "", text));
  }
  *value = *v;
}

}  // namespace ganglion::node
