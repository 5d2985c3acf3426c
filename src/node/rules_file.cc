#include "node/rules_file.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "data/file.h"
#include "node/yaml.h"

namespace ganglion::node {
namespace {

using rules::Condition;
using rules::Op;

// Far more keys than a rule has. Looking for unknown and doubled keys is quadratic, and anchors can repeat a mapping.
constexpr std::size_t kMaxKeys = 32;

struct Operator {
  const char* key;
  Op op;
};
constexpr std::array<Operator, 6> kComparisons{{{"equals", Op::kEqual},
                                                {"not_equals", Op::kNotEqual},
                                                {"above", Op::kGreater},
                                                {"at_least", Op::kGreaterOrEqual},
                                                {"below", Op::kLess},
                                                {"at_most", Op::kLessOrEqual}}};
constexpr const char* kOperators = "equals, not_equals, above, at_least, below, at_most, between, in";

std::optional<double> AsNumber(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

class RulesReader {
 public:
  RulesReader(YamlReader* y, const std::string& file) : y_(y), file_(file) {}

  rules::RuleSetSpec Read(const YAML::Node& root) {
    rules::RuleSetSpec spec;
    y_->KnownKeys(root, "", {"rules"});
    const YAML::Node list = root["rules"];
    if (!list.IsDefined() || !list.IsSequence() || list.size() == 0 || list.size() > rules::kMaxRules) {
      y_->Error(list.IsDefined() ? list : root,
                fmt::format("rules must list 1 to {} rules, got {}", rules::kMaxRules,
                            list.IsDefined() && list.IsSequence() ? std::to_string(list.size()) : "no list"));
      return spec;
    }
    for (std::size_t i = 0; i < list.size() && !full_; ++i)
      spec.rules.push_back(ReadRule(list[i], fmt::format("rules[{}]", i)));
    return spec;
  }

 private:
  rules::Rule ReadRule(const YAML::Node& node, const std::string& where) {
    rules::Rule rule;
    rule.place = fmt::format("{}:{}", file_, node.Mark().line + 1);
    if (!IsSmallMap(node, where, "{if: {feature: age, below: 18}, then: 0}")) return rule;
    y_->KnownKeys(node, where + ".", {"name", "if", "then"});
    rule.name = y_->Text(node, where + ".", "name").value_or("");
    if (!node["if"].IsDefined()) {
      y_->Error(node, where + ".if is missing; a rule answers only where a condition holds");
    } else {
      rule.when = ReadCondition(node["if"], where + ".if", 1);
    }
    const YAML::Node then = node["then"];
    if (!then.IsDefined() || !then.IsMap()) {
      rule.answer = y_->Text(node, where + ".", "then", true).value_or("");
    } else if (IsSmallMap(then, where + ".then", "")) {
      y_->KnownKeys(then, where + ".then.", {"answer", "confidence"});
      rule.answer = y_->Text(then, where + ".then.", "answer", true).value_or("");
      rule.confidence = y_->Number(then, where + ".then.", "confidence").value_or(1);
      if (rule.confidence < 0 || rule.confidence > 1) {
        y_->Error(then["confidence"],
                  fmt::format("{}.then.confidence must be from 0 to 1, got {}", where, rule.confidence));
      }
    }
    return rule;
  }

  Condition ReadCondition(const YAML::Node& node, const std::string& where, int depth) {
    Condition c;
    if (full_) return c;
    if (++conditions_ > rules::kMaxConditions) {
      full_ = true;
      y_->Error(node, fmt::format("{}: with this there are more than {} conditions, the limit; a set (in) or a range "
                                  "(between) counts as one",
                                  where, rules::kMaxConditions));
      return c;
    }
    if (depth > rules::kMaxDepth) {
      full_ = true;
      y_->Error(node,
                fmt::format("{} lies more than {} deep, the limit; make several rules of it", where, rules::kMaxDepth));
      return c;
    }
    if (!IsSmallMap(node, where, "{feature: age, at_least: 18}")) return c;
    const std::string at = where + ".";
    const bool all = node["all"].IsDefined();
    const bool any = node["any"].IsDefined();
    const bool negated = node["not"].IsDefined();
    if (all || any || negated) {
      if (node.size() > 1) {
        y_->Error(node, where + " takes one of all, any, not, and nothing beside it; several go into all: [..]");
      } else if (negated) {
        c.kind = Condition::Kind::kNot;
        c.children.push_back(ReadCondition(node["not"], at + "not", depth + 1));
      } else {
        c.kind = all ? Condition::Kind::kAll : Condition::Kind::kAny;
        const std::string list_at = at + (all ? "all" : "any");
        const YAML::Node list = node[all ? "all" : "any"];
        if (!list.IsSequence() || list.size() == 0) {
          y_->Error(list, list_at + " must list at least one condition");
        } else {
          for (std::size_t i = 0; i < list.size() && !full_; ++i)
            c.children.push_back(ReadCondition(list[i], fmt::format("{}[{}]", list_at, i), depth + 1));
        }
      }
      return c;
    }
    ReadComparison(node, where, &c);
    return c;
  }

  void ReadComparison(const YAML::Node& node, const std::string& where, Condition* c) {
    const std::string at = where + ".";
    y_->KnownKeys(node, at,
                  {"feature", "equals", "not_equals", "above", "at_least", "below", "at_most", "between", "in", "all",
                   "any", "not"});
    c->feature = y_->Text(node, at, "feature", true).value_or("");
    std::string there;
    int operators = 0;
    const auto has = [&](const char* key) {
      if (!node[key].IsDefined()) return false;
      there += (operators++ > 0 ? ", " : "") + std::string(key);
      return true;
    };
    for (const auto& [key, op] : kComparisons) {
      if (!has(key)) continue;
      c->kind = Condition::Kind::kCompare;
      c->op = op;
      if (op == Op::kEqual || op == Op::kNotEqual) {
        ReadValue(node[key], at + key, c);
      } else if (const auto number = y_->Number(node, at, key, true)) {
        c->values.emplace_back(*number);
      }
    }
    if (has("between")) {
      c->kind = Condition::Kind::kBetween;
      ReadRange(node["between"], at + "between", c);
    }
    if (has("in")) {
      c->kind = Condition::Kind::kIn;
      ReadSet(node["in"], at + "in", c);
    }
    if (operators == 0) {
      y_->Error(node, fmt::format("{} has no operator; one of {}", where, kOperators));
    } else if (operators > 1) {
      y_->Error(node, fmt::format("{} takes one operator, there are {}; write all: [..] with a condition for each",
                                  where, there));
    }
  }

  void ReadValue(const YAML::Node& node, const std::string& where, Condition* c) {
    if (!node.IsScalar())
      return y_->Error(node, where + " must be a number or a text; quote what YAML reads otherwise");
    const std::string& text = node.Scalar();
    const bool plain = node.Tag() == "?";
    const auto number = plain ? AsNumber(text) : std::nullopt;
    if (number) {
      c->values.emplace_back(*number);
    } else {
      c->values.emplace_back(text);
    }
  }

  void ReadRange(const YAML::Node& node, const std::string& where, Condition* c) {
    const bool pair = node.IsSequence() && node.size() == 2 && node[0].IsScalar() && node[1].IsScalar();
    const auto low = pair ? AsNumber(node[0].Scalar()) : std::nullopt;
    const auto high = pair ? AsNumber(node[1].Scalar()) : std::nullopt;
    if (!low || !high || *low > *high)
      return y_->Error(node, where + " must be two numbers, the lower first, for example [0, 0.5]");
    c->values = {*low, *high};
  }

  void ReadSet(const YAML::Node& node, const std::string& where, Condition* c) {
    if (!node.IsSequence() || node.size() == 0)
      return y_->Error(node, where + " must list at least one number or text, for example [FR, DE]");
    set_values_ += node.size();
    if (set_values_ > rules::kMaxSetValues) {
      full_ = true;
      return y_->Error(node, fmt::format("{}: with this the sets list more than {} values, the limit; a model may do "
                                         "better here",
                                         where, rules::kMaxSetValues));
    }
    for (std::size_t i = 0; i < node.size(); ++i) ReadValue(node[i], fmt::format("{}[{}]", where, i), c);
  }

  bool IsSmallMap(const YAML::Node& node, const std::string& where, const char* example) {
    if (!node.IsMap()) {
      y_->Error(node, fmt::format("{} must be a mapping, for example {}", where, example));
      return false;
    }
    if (node.size() > kMaxKeys) {
      y_->Error(node, fmt::format("{} has {} keys, limit {}", where, node.size(), kMaxKeys));
      return false;
    }
    return true;
  }

  YamlReader* y_;
  const std::string& file_;
  std::size_t conditions_ = 0;
  std::size_t set_values_ = 0;
  bool full_ = false;  // a limit is reached: what follows is not read
};

}  // namespace

Result<rules::RuleSetSpec> ParseRulesFile(const std::string& text, const std::string& shown_as) {
  YamlReader y(shown_as, text);
  if (const Status s = y.Finish(); !s.ok()) {
    if (s.message().find("flow") == std::string::npos) return s;
    // The commonest slip by far: YAML ends a plain word within { } at the first bracket or comma.
    return InvalidArgument(s.message() +
                           "; within { } write names with brackets in quotes: {feature: \"x[17]\", above: 1}");
  }
  rules::RuleSetSpec spec = RulesReader(&y, shown_as).Read(y.root());
  RETURN_IF_ERROR(y.Finish());
  return spec;
}

Result<rules::RuleSetSpec> LoadRulesFile(const std::filesystem::path& path) {
  auto text = data::ReadFile(path, limits::kMaxConfigBytes);
  if (!text.ok()) {
    return text.status().code() == Code::kNotFound
               ? NotFound(path.string() + " does not exist; write one, or leave the stage out")
               : text.status();
  }
  return ParseRulesFile(*text, path.string());
}

}  // namespace ganglion::node
