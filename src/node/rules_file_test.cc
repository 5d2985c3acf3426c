#include "node/rules_file.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/scratch_test.h"
#include "data/file.h"

namespace ganglion::node {
namespace {

using rules::Condition;
using rules::Op;
using rules::Value;

rules::RuleSetSpec Read(const std::string& text) {
  auto spec = ParseRulesFile(text, "rules.yaml");
  EXPECT_TRUE(spec.ok()) << spec.status().message();
  return spec.ok() ? std::move(spec).value() : rules::RuleSetSpec{};
}
Condition ReadIf(const std::string& condition) {
  auto spec = Read("rules: [{if: " + condition + ", then: 0}]");
  return spec.rules.empty() ? Condition{} : spec.rules[0].when;
}
std::string Mistakes(const std::string& text) {
  const auto spec = ParseRulesFile(text, "rules.yaml");
  return spec.ok() ? "OK" : spec.status().message();
}
std::string MistakesOfIf(const std::string& condition) { return Mistakes("rules: [{if: " + condition + ", then: 0}]"); }

TEST(RulesFile, ReadsTheExampleOfItsHeader) {
  const auto spec = Read(R"(rules:
  - name: blank picture                    # optional; shown with the answer
    if: {feature: mean(image), below: 0.01}
    then: bag                              # a label's name or a class number
  - if:
      all:
        - {feature: age, at_least: 18}
        - any:
            - {feature: country, in: [FR, DE]}
            - not: {feature: risk, above: .5}
    then: {answer: 3, confidence: .99}
)");
  ASSERT_EQ(spec.rules.size(), 2u);
  const auto& blank = spec.rules[0];
  EXPECT_EQ(blank.name, "blank picture");
  EXPECT_EQ(blank.place, "rules.yaml:2");
  EXPECT_EQ(blank.answer, "bag");
  EXPECT_EQ(blank.confidence, 1);
  EXPECT_EQ(blank.when.kind, Condition::Kind::kCompare);
  EXPECT_EQ(blank.when.feature, "mean(image)");
  EXPECT_EQ(blank.when.op, Op::kLess);
  EXPECT_EQ(blank.when.values, std::vector<Value>{.01});
  const auto& rule = spec.rules[1];
  EXPECT_EQ(rule.name, "");
  EXPECT_EQ(rule.place, "rules.yaml:5");
  EXPECT_EQ(rule.answer, "3");
  EXPECT_EQ(rule.confidence, .99);
  ASSERT_EQ(rule.when.kind, Condition::Kind::kAll);
  ASSERT_EQ(rule.when.children.size(), 2u);
  EXPECT_EQ(rule.when.children[0].op, Op::kGreaterOrEqual);
  const Condition& any = rule.when.children[1];
  ASSERT_EQ(any.kind, Condition::Kind::kAny);
  ASSERT_EQ(any.children.size(), 2u);
  EXPECT_EQ(any.children[0].kind, Condition::Kind::kIn);
  EXPECT_EQ(any.children[0].values, (std::vector<Value>{"FR", "DE"}));
  ASSERT_EQ(any.children[1].kind, Condition::Kind::kNot);
  ASSERT_EQ(any.children[1].children.size(), 1u);
  EXPECT_EQ(any.children[1].children[0].op, Op::kGreater);
  EXPECT_EQ(any.children[1].children[0].values, std::vector<Value>{.5});
}

TEST(RulesFile, KnowsEveryOperator) {
  const std::vector<std::pair<const char*, Op>> operators{{"equals", Op::kEqual},  {"not_equals", Op::kNotEqual},
                                                          {"above", Op::kGreater}, {"at_least", Op::kGreaterOrEqual},
                                                          {"below", Op::kLess},    {"at_most", Op::kLessOrEqual}};
  for (const auto& [key, op] : operators) {
    const Condition c = ReadIf("{feature: x, " + std::string(key) + ": -2e1}");
    EXPECT_EQ(c.kind, Condition::Kind::kCompare) << key;
    EXPECT_EQ(c.op, op) << key;
    EXPECT_EQ(c.values, std::vector<Value>{-20.}) << key;
  }
  const Condition between = ReadIf("{feature: x, between: [-1, .5]}");
  EXPECT_EQ(between.kind, Condition::Kind::kBetween);
  EXPECT_EQ(between.values, (std::vector<Value>{-1., .5}));
  const Condition in = ReadIf("{feature: x, in: [1, two, \"3\"]}");
  EXPECT_EQ(in.kind, Condition::Kind::kIn);
  EXPECT_EQ(in.values, (std::vector<Value>{1., "two", "3"}));
}

TEST(RulesFile, TakesWhatReadsAsANumberForOneUnlessItIsQuoted) {
  const auto value = [](const std::string& text) { return ReadIf("{feature: x, equals: " + text + "}").values.at(0); };
  EXPECT_EQ(value("7"), Value(7.));
  EXPECT_EQ(value("'7'"), Value("7"));
  EXPECT_EQ(value("\"7\""), Value("7"));
  EXPECT_EQ(value("!!str 7"), Value("7"));
  EXPECT_EQ(value("7a"), Value("7a"));
  EXPECT_EQ(value("\"\""), Value(""));
  for (const char* word : {"NO", "true", "nan", "inf", "1e999"}) EXPECT_EQ(value(word), Value(word)) << word;
}

TEST(RulesFile, TakesElementsBareInBlocksAndQuotedWithinBraces) {
  EXPECT_EQ(Read("rules:\n  - if:\n      feature: x[2,3]\n      above: 1\n    then: 0\n").rules.at(0).when.feature,
            "x[2,3]");
  EXPECT_EQ(ReadIf("{feature: \"x[2,3]\", above: 1}").feature, "x[2,3]");
  EXPECT_EQ(MistakesOfIf("{feature: x[2,3], above: 1}"),
            "rules.yaml:1 end of map flow not found; within { } write names with brackets in quotes: {feature: "
            "\"x[17]\", above: 1}");
}

TEST(RulesFile, ReportsAllMistakesAtOnceWithTheirLines) {
  EXPECT_EQ(Mistakes(R"(rules:
  - nam: a
    if: {feature: x, above: high}
    then: {answer: 1, confidence: 1.5, sure: yes}
  - then: 0
  - if: {feature: x, above: 1}
  - 7
  - if: {all: [{feature: x, over: 1}, {above: 1}]}
    then: [1]
other: 1
)"),
            R"(rules.yaml:2 rules[0].nam is unknown; known here: name, if, then
rules.yaml:3 rules[0].if.above "high" is no number
rules.yaml:4 rules[0].then.sure is unknown; known here: answer, confidence
rules.yaml:4 rules[0].then.confidence must be from 0 to 1, got 1.5
rules.yaml:5 rules[1].if is missing; a rule answers only where a condition holds
rules.yaml:6 rules[2].then is missing
rules.yaml:7 rules[3] must be a mapping, for example {if: {feature: age, below: 18}, then: 0}
rules.yaml:8 rules[4].if.all[0].over is unknown; known here: feature, equals, not_equals, above, at_least, below, )"
            R"(at_most, between, in, all, any, not
rules.yaml:8 rules[4].if.all[0] has no operator; one of equals, not_equals, above, at_least, below, at_most, between, in
rules.yaml:8 rules[4].if.all[1].feature is missing
rules.yaml:9 rules[4].then must be a single value
rules.yaml:10 other is unknown; known here: rules)");
}

TEST(RulesFile, ExplainsConditionsItCannotRead) {
  const std::string at = "rules.yaml:1 rules[0].if";
  EXPECT_EQ(MistakesOfIf("{feature: x, above: 1, below: 2}"),
            at + " takes one operator, there are above, below; write all: [..] with a condition for each");
  EXPECT_EQ(MistakesOfIf("{feature: x}"),
            at + " has no operator; one of equals, not_equals, above, at_least, below, at_most, between, in");
  EXPECT_EQ(MistakesOfIf("{feature: x, above: }"), at + ".above is missing");
  EXPECT_EQ(MistakesOfIf("{feature: x, above: [1]}"), at + ".above must be a single value");
  const std::string value = " must be a number or a text; quote what YAML reads otherwise";
  EXPECT_EQ(MistakesOfIf("{feature: x, equals: }"), at + ".equals" + value);
  EXPECT_EQ(MistakesOfIf("{feature: x, not_equals: [1]}"), at + ".not_equals" + value);
  EXPECT_EQ(MistakesOfIf("{feature: x, in: [1, null]}"), at + ".in[1]" + value);
  for (const char* set : {"[]", "FR", "{a: 1}", ""}) {
    EXPECT_EQ(MistakesOfIf("{feature: x, in: " + std::string(set) + "}"),
              at + ".in must list at least one number or text, for example [FR, DE]");
  }
  for (const char* range : {"[1]", "[1, 2, 3]", "[2, 1]", "[a, b]", "[nan, 1]", "1", "[[1], 2]"}) {
    EXPECT_EQ(MistakesOfIf("{feature: x, between: " + std::string(range) + "}"),
              at + ".between must be two numbers, the lower first, for example [0, 0.5]");
  }
  EXPECT_EQ(MistakesOfIf("{all: [{feature: x, above: 1}], feature: y, above: 1}"),
            at + " takes one of all, any, not, and nothing beside it; several go into all: [..]");
  EXPECT_EQ(MistakesOfIf("{all: []}"), at + ".all must list at least one condition");
  EXPECT_EQ(MistakesOfIf("{any: {feature: x, above: 1}}"), at + ".any must list at least one condition");
  EXPECT_EQ(MistakesOfIf("{not: [{feature: x, above: 1}]}"),
            at + ".not must be a mapping, for example {feature: age, at_least: 18}");
  EXPECT_EQ(MistakesOfIf("x > 1"), at + " must be a mapping, for example {feature: age, at_least: 18}");
  EXPECT_EQ(MistakesOfIf("{feature: x, above: 1, above: 2}"), at + ".above is given twice");
}

TEST(RulesFile, NeedsAListOfRules) {
  EXPECT_EQ(Mistakes(""), "rules.yaml is no mapping of keys to values");
  EXPECT_EQ(Mistakes("a: 1"),
            "rules.yaml:1 a is unknown; known here: rules\nrules.yaml:1 rules must list 1 to 1000 rules, got no list");
  EXPECT_EQ(Mistakes("rules: 3"), "rules.yaml:1 rules must list 1 to 1000 rules, got no list");
  EXPECT_EQ(Mistakes("rules: []"), "rules.yaml:1 rules must list 1 to 1000 rules, got 0");
  std::string text = "rules:\n";
  for (std::size_t i = 0; i < rules::kMaxRules; ++i) text += "  - {if: {feature: x, above: 1}, then: 0}\n";
  EXPECT_EQ(Mistakes(text), "OK");
  EXPECT_EQ(Mistakes(text + "  - {if: {feature: x, above: 1}, then: 0}\n"),
            "rules.yaml:2 rules must list 1 to 1000 rules, got 1001");
}

TEST(RulesFile, KeepsItsLimitsAgainstAnchorsToo) {
  std::string deep = "{feature: x, above: 1}";
  for (int i = 1; i < rules::kMaxDepth; ++i) deep = "{not: " + deep + "}";
  EXPECT_EQ(MistakesOfIf(deep), "OK");
  const std::string too_deep = MistakesOfIf("{not: " + deep + "}");
  EXPECT_EQ(too_deep.substr(too_deep.find(" lies")), " lies more than 16 deep, the limit; make several rules of it");
  const std::string endless = MistakesOfIf("&a {all: [*a, *a]}");
  EXPECT_EQ(endless.substr(endless.find(" lies")), " lies more than 16 deep, the limit; make several rules of it");

  std::string ten = "{any: [&a {feature: x, above: 1}, *a, *a, *a, *a, *a, *a, *a, *a, *a]}";
  for (const char* name : {"b", "c", "d"}) {
    const std::string n = name;
    ten = "{any: [&" + n + " " + ten;
    for (int i = 0; i < 9; ++i) ten += ", *" + n;
    ten += "]}";
  }
  const std::string many = MistakesOfIf(ten);
  EXPECT_EQ(
      many.substr(many.find(": with")),
      ": with this there are more than 10000 conditions, the limit; a set (in) or a range (between) counts as one");

  std::string set = "[1";
  for (int i = 1; i < 1000; ++i) set += ",1";
  std::string sets = "{any: [&a {feature: x, in: " + set + "]}";
  for (int i = 0; i < 99; ++i) sets += ", *a";
  EXPECT_EQ(MistakesOfIf(sets + "]}"), "OK");
  const std::string more = MistakesOfIf(sets + ", *a, *a]}");
  EXPECT_EQ(more,
            "rules.yaml:1 rules[0].if.any[100].in: with this the sets list more than 100000 values, the limit; a "
            "model may do better here");

  std::string keys = "{feature: x, above: 1";
  for (int i = 0; i < 40; ++i) keys += ", k" + std::to_string(i) + ": 1";
  EXPECT_EQ(MistakesOfIf(keys + "}"), "rules.yaml:1 rules[0].if has 42 keys, limit 32");
}

TEST(RulesFile, CompilesWithTheLineOfTheRuleInMessages) {
  const auto spec =
      Read("rules:\n  - {if: {feature: x, above: 1}, then: 0}\n  - {if: {feature: z, above: 1}, then: 0}\n");
  const std::vector<tensor::Spec> inputs{{"x", tensor::DataType::kFp32, {-1}}};
  const auto compiled = rules::RuleSet::Compile(spec, inputs, {});
  ASSERT_FALSE(compiled.ok());
  EXPECT_EQ(compiled.status().message().rfind("rules.yaml:3 rules[1]: feature \"z\" names no input", 0), 0u)
      << compiled.status().message();
}

using RulesFileOnDisk = ScratchDir;

TEST_F(RulesFileOnDisk, IsReadWithItsPathInMessages) {
  const auto path = dir_ / "rules.yaml";
  const auto none = LoadRulesFile(path);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().code(), Code::kNotFound);
  EXPECT_EQ(none.status().message(), path.string() + " does not exist; write one, or leave the stage out");
  ASSERT_TRUE(data::WriteFileAtomically(path, "rules: [{if: {feature: x, above: 1}, then: 2}]").ok());
  const auto spec = LoadRulesFile(path);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->rules.at(0).answer, "2");
  EXPECT_EQ(spec->rules.at(0).place, path.string() + ":1");
  ASSERT_TRUE(data::WriteFileAtomically(path, std::string(std::size_t{1} << 21, ' ')).ok());
  EXPECT_FALSE(LoadRulesFile(path).ok()) << "larger than a configuration file may be";
}

}  // namespace
}  // namespace ganglion::node
