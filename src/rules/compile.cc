// From rules as written to steps with positions: every name is looked up here, and every mistake found.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>
#include <utility>

#include "base/limits.h"
#include "rules/rules.h"

namespace ganglion::rules {
namespace {

using tensor::DataType;
using tensor::Spec;

constexpr std::size_t kMaxMistakes = 50;          // shown; a wrong input name may make thousands
constexpr double kMaxWhole = 9007199254740991.0;  // 2^53 - 1

std::string NumberText(double v) {
  std::array<char, 32> buffer;
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), v);
  return error == std::errc() ? std::string(buffer.data(), end) : std::string("?");
}

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// All of `text` is a whole number from 0.
std::optional<std::int64_t> WholeNumber(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// `c` rounded to a binary format of so many significand bits, ties to even, whose smallest step is 2^smallest. What
// would lie beyond `largest` stays as it is: it compares rightly with every number of the format.
double RoundTo(double c, int bits, int smallest, double largest) {
  if (c == 0) return c;
  int exponent = 0;
  std::frexp(c, &exponent);
  const int step = std::max(exponent - bits, smallest);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(c, -step)), step);
  return std::fabs(rounded) > largest ? c : rounded;
}

double AsStored(double c, DataType type) {
  switch (type) {
    case DataType::kFp16:
      return RoundTo(c, 11, -24, 65504);
    case DataType::kBf16:
      return RoundTo(c, 8, -133, 0x1.fep127);
    case DataType::kFp32:
      return RoundTo(c, 24, -149, std::numeric_limits<float>::max());
    default:
      return c;
  }
}

const char* OpName(Op op) {
  switch (op) {
    case Op::kLess:
      return "below";
    case Op::kLessOrEqual:
      return "at_most";
    case Op::kGreater:
      return "above";
    case Op::kGreaterOrEqual:
      return "at_least";
    case Op::kEqual:
      return "equals";
    case Op::kNotEqual:
      return "not_equals";
  }
  return "";
}

bool IsComparison(const Condition& c) {
  return c.kind == Condition::Kind::kCompare || c.kind == Condition::Kind::kBetween || c.kind == Condition::Kind::kIn;
}

// As a rules file calls it.
std::string TestName(const Condition& c) {
  if (c.kind == Condition::Kind::kBetween) return "between";
  if (c.kind == Condition::Kind::kIn) return "in";
  return OpName(c.op);
}

// "x[0,0] to x[1,2]"; just "x" where a row is one element without an index
std::string ElementRange(const Spec& spec) {
  if (spec.shape.size() == 1) return spec.name;
  std::string first;
  std::string last;
  for (std::size_t d = 1; d < spec.shape.size(); ++d) {
    first += (d > 1 ? ",0" : "0");
    last += (d > 1 ? "," : "") + std::to_string(spec.shape[d] - 1);
  }
  return spec.name + "[" + first + "] to " + spec.name + "[" + last + "]";
}

std::string Aggregates(const std::string& name) {
  return "mean(" + name + "), min(" + name + "), max(" + name + ") or sum(" + name + ")";
}

}  // namespace

class Compiler {
 public:
  Compiler(std::span<const Spec> inputs, std::span<const std::string> labels) : inputs_(inputs), labels_(labels) {}

  Result<RuleSet> Compile(RuleSetSpec spec) {
    CheckInputs();
    if (spec.rules.empty()) Mistake("there are no rules; write one, or leave the stage out");
    if (spec.rules.size() > kMaxRules) {
      Mistake("there are " + std::to_string(spec.rules.size()) + " rules, limit " + std::to_string(kMaxRules) +
              "; join conditions of the same answer with any");
    }
    if (mistakes_ > 0) return InvalidArgument(message_);
    std::map<std::string, std::size_t> names;
    for (std::size_t i = 0; i < spec.rules.size(); ++i) {
      Rule& rule = spec.rules[i];
      at_ = (rule.place.empty() ? "" : rule.place + " ") + "rules[" + std::to_string(i) + "]" +
            (rule.name.empty() ? "" : " " + Quoted(rule.name)) + ": ";
      if (!rule.name.empty()) {
        const auto [known, is_new] = names.emplace(rule.name, i);
        if (!is_new) Mistake("rules[" + std::to_string(known->second) + "] has this name too; give another");
      }
      set_.answers_.push_back(Answer(rule, i));
      if (!Sound(rule.when, 1)) {
        set_.names_.push_back(std::move(rule.name));
        continue;
      }
      const auto next = static_cast<std::uint32_t>(set_.steps_.size() + Comparisons(rule.when));
      Emit(rule.when, RuleSet::kAnswer + static_cast<std::uint32_t>(i),
           i + 1 < spec.rules.size() ? next : RuleSet::kNone);
      set_.names_.push_back(std::move(rule.name));
    }
    if (mistakes_ > kMaxMistakes) message_ += "\nand " + std::to_string(mistakes_ - kMaxMistakes) + " more";
    if (mistakes_ > 0) return InvalidArgument(message_);
    set_.inputs_ = inputs_.size();
    return std::move(set_);
  }

 private:
  using Feature = RuleSet::Feature;
  using Step = RuleSet::Step;
  using Test = RuleSet::Test;

  void Mistake(const std::string& what) {
    if (++mistakes_ > kMaxMistakes) return;
    message_ += (message_.empty() ? "" : "\n") + at_ + what;
  }

  void CheckInputs() {
    for (const Spec& spec : inputs_) {
      if (spec.shape.empty()) {
        Mistake("input " + Quoted(spec.name) + " " + spec.Text() + " has no rows; its shape must begin with -1");
        continue;
      }
      const auto row = std::span(spec.shape).subspan(1);
      if (std::find(row.begin(), row.end(), -1) != row.end()) continue;
      if (const auto n = tensor::ElementCount(row); !n.ok())
        Mistake("input " + Quoted(spec.name) + ": " + n.status().message());
    }
  }

  // Whether a condition has the parts of its kind, within the limits. Only such ones are gone into.
  bool Sound(const Condition& c, int depth) {
    if (++conditions_ > kMaxConditions) {
      if (conditions_ == kMaxConditions + 1)
        Mistake("this and the rules before it have more than " + std::to_string(kMaxConditions) +
                " conditions, the limit; a set (in) or a range (between) counts as one");
      return false;
    }
    if (depth > kMaxDepth) {
      Mistake("conditions lie more than " + std::to_string(kMaxDepth) + " deep, the limit; make several rules of it");
      return false;
    }
    const std::size_t n = c.values.size();
    switch (c.kind) {
      case Condition::Kind::kCompare:
        if (n == 1) return true;
        Mistake("feature " + Quoted(c.feature) + ": " + OpName(c.op) + " takes one value, got " + std::to_string(n));
        return false;
      case Condition::Kind::kBetween:
        if (n == 2) return true;
        Mistake("feature " + Quoted(c.feature) + ": between takes two numbers, got " + std::to_string(n));
        return false;
      case Condition::Kind::kIn:
        if (n == 0)
          Mistake("feature " + Quoted(c.feature) + ": in lists no value, so it never holds; list at least one");
        set_values_ += n;
        if (set_values_ > kMaxSetValues && set_values_ - n <= kMaxSetValues)
          Mistake("this and the rules before it list more than " + std::to_string(kMaxSetValues) +
                  " values in sets, the limit; a model may do better here");
        return n > 0 && set_values_ <= kMaxSetValues;
      case Condition::Kind::kAll:
      case Condition::Kind::kAny:
        if (c.children.empty()) {
          Mistake(std::string(c.kind == Condition::Kind::kAll ? "all" : "any") +
                  " joins no conditions; list at least one");
          return false;
        }
        break;
      case Condition::Kind::kNot:
        if (c.children.size() != 1) {
          Mistake("not takes one condition, got " + std::to_string(c.children.size()) + "; join them with all or any");
          return false;
        }
        break;
    }
    bool sound = true;
    for (const Condition& child : c.children) sound = Sound(child, depth + 1) && sound;
    return sound;
  }

  static std::size_t Comparisons(const Condition& c) {
    if (IsComparison(c)) return 1;
    std::size_t n = 0;
    for (const Condition& child : c.children) n += Comparisons(child);
    return n;
  }

  // Appends the steps of c; they lead to `yes` when it holds and to `no` when it does not.
  void Emit(Condition& c, std::uint32_t yes, std::uint32_t no) {
    if (IsComparison(c)) {
      Step step;
      step.yes = yes;
      step.no = no;
      if (Resolve(c.feature, &step.feature)) {
        if (step.feature.kind == Feature::Kind::kText) {
          TakeTexts(c, &step);
        } else {
          TakeNumbers(c, &step);
        }
      }
      set_.steps_.push_back(step);
      return;
    }
    if (c.kind == Condition::Kind::kNot) return Emit(c.children[0], no, yes);
    const bool all = c.kind == Condition::Kind::kAll;
    for (std::size_t i = 0; i < c.children.size(); ++i) {
      const bool last = i + 1 == c.children.size();
      const auto next = static_cast<std::uint32_t>(set_.steps_.size() + Comparisons(c.children[i]));
      Emit(c.children[i], all && !last ? next : yes, !all && !last ? next : no);
    }
  }

  const Spec* Find(std::string_view name) const {
    for (const Spec& spec : inputs_) {
      if (spec.name == name) return &spec;
    }
    return nullptr;
  }

  static bool IsOpen(const Spec& spec) {
    return std::find(spec.shape.begin() + 1, spec.shape.end(), -1) != spec.shape.end();
  }

  bool Resolve(const std::string& name, Feature* f) {
    const std::string feature = "feature " + Quoted(name);
    if (const Spec* spec = Find(name)) return ResolveWhole(*spec, feature, f);
    const std::string_view text = name;
    const auto open = text.rfind('[');
    if (open != std::string_view::npos && text.back() == ']') {
      if (const Spec* spec = Find(Trim(text.substr(0, open))))
        return ResolveElement(*spec, feature, text.substr(open + 1, text.size() - open - 2), f);
    }
    constexpr std::array<std::pair<std::string_view, Feature::Kind>, 4> kAggregates{{
        {"mean(", Feature::Kind::kMean},
        {"min(", Feature::Kind::kMin},
        {"max(", Feature::Kind::kMax},
        {"sum(", Feature::Kind::kSum},
    }};
    for (const auto& [prefix, kind] : kAggregates) {
      if (text.substr(0, prefix.size()) != prefix || text.back() != ')') continue;
      const Spec* spec = Find(Trim(text.substr(prefix.size(), text.size() - prefix.size() - 1)));
      if (spec == nullptr) break;
      f->kind = kind;
      return ResolveAggregate(*spec, feature, f);
    }
    std::string there_are;
    for (const Spec& spec : inputs_) there_are += (there_are.empty() ? "" : ", ") + spec.name + " " + spec.Text();
    Mistake(feature + " names no input; there are: " + (there_are.empty() ? "none" : there_are) +
            "; write one of them, an element as x[0], or mean(x), min(x), max(x), sum(x)");
    return false;
  }

  void Place(const Spec& spec, Feature* f) const {
    f->input = static_cast<std::uint32_t>(&spec - inputs_.data());
    f->type = spec.type;
  }

  bool ResolveWhole(const Spec& spec, const std::string& feature, Feature* f) {
    const bool texts = spec.type == DataType::kBytes;
    if (IsOpen(spec)) {
      Mistake(feature + " is " + spec.Text() + ", any number of elements a row; " +
              (texts ? "" : "write " + Aggregates(spec.name) + ", or ") + "fix its shape in the decision");
      return false;
    }
    const std::int64_t n = *tensor::ElementCount(std::span(spec.shape).subspan(1));
    if (n != 1) {
      Mistake(feature + " is " + spec.Text() + ", " + std::to_string(n) + " elements a row; " +
              (n == 0 ? "there is nothing to compare"
                      : "write one of them, " + ElementRange(spec) + (texts ? "" : ", or " + Aggregates(spec.name))));
      return false;
    }
    Place(spec, f);
    f->kind = texts ? Feature::Kind::kText : Feature::Kind::kNumber;
    f->row_elements = 1;
    return true;
  }

  bool ResolveElement(const Spec& spec, const std::string& feature, std::string_view inside, Feature* f) {
    if (IsOpen(spec)) {
      Mistake(feature + ": " + spec.name + " is " + spec.Text() +
              ", of no fixed size, so elements have no fixed place; " + "fix its shape in the decision");
      return false;
    }
    if (*tensor::ElementCount(std::span(spec.shape).subspan(1)) == 0) {
      Mistake(feature + ": " + spec.name + " is " + spec.Text() + ", 0 elements a row; there is nothing to compare");
      return false;
    }
    std::vector<std::int64_t> indices;
    for (std::size_t at = 0; at <= inside.size();) {
      const std::size_t comma = std::min(inside.find(',', at), inside.size());
      const auto index = WholeNumber(Trim(inside.substr(at, comma - at)));
      if (!index) {
        Mistake(feature + " has no whole number from 0 at place " + std::to_string(indices.size()) +
                " of its brackets; write " + ElementRange(spec));
        return false;
      }
      indices.push_back(*index);
      at = comma + 1;
    }
    tensor::Shape row(spec.shape.begin() + 1, spec.shape.end());
    if (row.empty()) row.push_back(1);  // x[0] of a shape [-1]
    if (indices.size() != row.size()) {
      Mistake(feature + " has " + std::to_string(indices.size()) + (indices.size() == 1 ? " index; " : " indices; ") +
              spec.name + " is " + spec.Text() + " and takes " + std::to_string(row.size()) + "; write " +
              ElementRange(spec));
      return false;
    }
    std::int64_t element = 0;
    for (std::size_t d = 0; d < row.size(); ++d) {
      if (indices[d] >= row[d]) {
        Mistake(feature + " lies outside " + spec.name + " " + spec.Text() + "; index " + std::to_string(d) +
                " goes from 0 to " + std::to_string(row[d] - 1));
        return false;
      }
      element = element * row[d] + indices[d];
    }
    Place(spec, f);
    f->kind = spec.type == DataType::kBytes ? Feature::Kind::kText : Feature::Kind::kNumber;
    f->row_elements = *tensor::ElementCount(row);
    f->element = element;
    return true;
  }

  bool ResolveAggregate(const Spec& spec, const std::string& feature, Feature* f) {
    if (spec.type == DataType::kBytes) {
      Mistake(feature + ": " + spec.name + " is " + spec.Text() +
              ", and texts have no mean, min, max or sum; compare an element with equals, not_equals or in");
      return false;
    }
    Place(spec, f);
    const auto [slot, is_new] = summaries_.emplace(f->input, static_cast<std::uint32_t>(summaries_.size()));
    f->summary = slot->second;
    if (is_new && summaries_.size() == kMaxAggregatedInputs + 1) {
      Mistake(feature + ": aggregates are taken of more than " + std::to_string(kMaxAggregatedInputs) +
              " inputs, the limit; put these numbers into one input");
    }
    return summaries_.size() <= kMaxAggregatedInputs;
  }

  void TakeTexts(Condition& c, Step* step) {
    const std::string feature = "feature " + Quoted(c.feature) + " is BYTES";
    const bool ordered = c.kind == Condition::Kind::kBetween ||
                         (c.kind == Condition::Kind::kCompare && c.op != Op::kEqual && c.op != Op::kNotEqual);
    if (ordered) return Mistake(feature + ", and " + TestName(c) + " takes numbers; use equals, not_equals or in");
    step->test = c.kind == Condition::Kind::kIn ? Test::kIn : static_cast<Test>(c.op);
    step->first = static_cast<std::uint32_t>(set_.texts_.size());
    step->count = static_cast<std::uint32_t>(c.values.size());
    for (Value& value : c.values) {
      if (const double* number = std::get_if<double>(&value))
        return Mistake(feature + " and compares with texts; put " + NumberText(*number) + " in quotes");
      set_.texts_.push_back(std::move(std::get<std::string>(value)));
    }
    std::sort(set_.texts_.begin() + step->first, set_.texts_.end());
  }

  void TakeNumbers(const Condition& c, Step* step) {
    const Feature& f = step->feature;
    const bool stored =
        f.kind == Feature::Kind::kNumber || f.kind == Feature::Kind::kMin || f.kind == Feature::Kind::kMax;
    const std::string feature = "feature " + Quoted(c.feature) + " is " +
                                (stored ? std::string(tensor::Name(f.type)) : std::string("a number"));
    std::vector<double> raw;
    std::vector<double> numbers;
    for (const Value& value : c.values) {
      double v = 0;
      if (const std::string* text = std::get_if<std::string>(&value)) {
        const bool truth = f.type == DataType::kBool && stored && (*text == "true" || *text == "false");
        if (!truth)
          return Mistake(feature + " and compares with numbers" +
                         (f.type == DataType::kBool && stored ? ", true or false" : "") + "; " + Quoted(*text) +
                         " is none");
        v = *text == "true" ? 1 : 0;
      } else {
        v = std::get<double>(value);
      }
      if (!std::isfinite(v))
        return Mistake(feature + " and compares with finite numbers; " + NumberText(v) + " is none");
      const bool wide = f.type == DataType::kInt64 || f.type == DataType::kUint64;
      if (stored && wide && std::fabs(v) > kMaxWhole) {
        return Mistake(feature + "; " + NumberText(v) +
                       " lies beyond 9007199254740991, up to which whole numbers compare exactly; send numbers like "
                       "these as BYTES");
      }
      raw.push_back(v);
      numbers.push_back(stored ? AsStored(v, f.type) : v);
    }
    if (c.kind == Condition::Kind::kCompare) {
      step->test = static_cast<Test>(c.op);
      step->low = numbers[0];
    } else if (c.kind == Condition::Kind::kBetween) {
      step->test = Test::kBetween;
      step->low = numbers[0];
      step->high = numbers[1];
      if (raw[0] > raw[1]) {
        Mistake("feature " + Quoted(c.feature) + ": between [" + NumberText(raw[0]) + ", " + NumberText(raw[1]) +
                "] never holds; write the lower number first");
      }
    } else {
      step->test = Test::kIn;
      step->first = static_cast<std::uint32_t>(set_.numbers_.size());
      step->count = static_cast<std::uint32_t>(numbers.size());
      set_.numbers_.insert(set_.numbers_.end(), numbers.begin(), numbers.end());
      std::sort(set_.numbers_.begin() + step->first, set_.numbers_.end());
    }
  }

  RuleAnswer Answer(const Rule& rule, std::size_t index) {
    RuleAnswer answer;
    answer.rule = index;
    answer.label = Label(rule.answer);
    answer.confidence = static_cast<float>(rule.confidence);
    if (!(rule.confidence >= 0 && rule.confidence <= 1))
      Mistake("confidence must be from 0 to 1, got " + NumberText(rule.confidence));
    set_.highest_label_ = std::max(set_.highest_label_, answer.label);
    return answer;
  }

  // A name goes first: labels may be called "0" and "1".
  int Label(const std::string& answer) {
    const auto named = std::find(labels_.begin(), labels_.end(), answer);
    if (named != labels_.end()) return static_cast<int>(named - labels_.begin());
    const auto number = WholeNumber(answer);
    const auto classes = labels_.empty() ? limits::kMaxClasses : static_cast<std::int64_t>(labels_.size());
    if (number && *number < classes) return static_cast<int>(*number);
    std::string names;
    for (std::size_t i = 0; i < labels_.size() && i < 20; ++i) names += (i > 0 ? ", " : "") + labels_[i];
    Mistake("answer " + Quoted(answer) +
            (labels_.empty()
                 ? " is no class number, and the decision has no labels; write a number from 0 to "
                 : " is no label (there are " + std::to_string(labels_.size()) + ": " + names +
                       (labels_.size() > 20 ? ", ..." : "") + "); write one of them or a number from 0 to ") +
            std::to_string(classes - 1));
    return -1;
  }

  std::span<const Spec> inputs_;
  std::span<const std::string> labels_;
  RuleSet set_;
  std::map<std::uint32_t, std::uint32_t> summaries_;
  std::size_t conditions_ = 0;
  std::size_t set_values_ = 0;
  std::string at_;
  std::string message_;
  std::size_t mistakes_ = 0;
};

Result<RuleSet> RuleSet::Compile(RuleSetSpec spec, std::span<const Spec> inputs, std::span<const std::string> labels) {
  return Compiler(inputs, labels).Compile(std::move(spec));
}

}  // namespace ganglion::rules
