// What Compile refuses, and in which words.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "rules/conditions_test.h"
#include "rules/rules.h"

namespace ganglion::rules {
namespace {

using tensor::DataType;
using tensor::Spec;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

std::string Mistake(RuleSetSpec spec, const std::vector<std::string>& labels = {"shirt", "bag"}) {
  const auto rules = RuleSet::Compile(std::move(spec), Inputs(), labels);
  return rules.ok() ? "OK" : rules.status().message();
}
std::string Mistake(Condition when) { return Mistake({{Then(std::move(when))}}); }

TEST(RuleSet, ExplainsFeaturesThatAreNotThere) {
  const auto ask = [](const char* feature) { return Mistake(Is(feature, Op::kEqual, 1.)); };
  const std::string there =
      " names no input; there are: image FP32[-1,784], age INT64[-1], x FP64[-1,2,3], country BYTES[-1,1], tags "
      "BYTES[-1,3], open FP32[-1,-1], words BYTES[-1,-1], empty FP32[-1,0], member BOOL[-1]; write one of them, an "
      "element as x[0], or mean(x), min(x), max(x), sum(x)";
  for (const std::string feature : {"imagee", "", "mean(imagee)", "median(image)", "imagee[3]", "mean(image[3])", "["})
    EXPECT_EQ(ask(feature.c_str()), "rules[0]: feature \"" + feature + "\"" + there);
  EXPECT_EQ(ask("image"),
            "rules[0]: feature \"image\" is FP32[-1,784], 784 elements a row; write one of them, image[0] to "
            "image[783], or mean(image), min(image), max(image) or sum(image)");
  EXPECT_EQ(ask("x"),
            "rules[0]: feature \"x\" is FP64[-1,2,3], 6 elements a row; write one of them, x[0,0] to x[1,2], or "
            "mean(x), min(x), max(x) or sum(x)");
  EXPECT_EQ(ask("tags"),
            "rules[0]: feature \"tags\" is BYTES[-1,3], 3 elements a row; write one of them, tags[0] to tags[2]");
  EXPECT_EQ(ask("empty"), "rules[0]: feature \"empty\" is FP32[-1,0], 0 elements a row; there is nothing to compare");
  EXPECT_EQ(ask("open"),
            "rules[0]: feature \"open\" is FP32[-1,-1], any number of elements a row; write mean(open), min(open), "
            "max(open) or sum(open), or fix its shape in the decision");
  EXPECT_EQ(ask("words"),
            "rules[0]: feature \"words\" is BYTES[-1,-1], any number of elements a row; fix its shape in the decision");
  EXPECT_EQ(ask("open[3]"),
            "rules[0]: feature \"open[3]\": open is FP32[-1,-1], of no fixed size, so elements have no fixed place; "
            "fix its shape in the decision");
  for (const std::string feature : {"image[]", "image[-1]", "image[a]", "image[1.5]", "image[99999999999999999999]"}) {
    EXPECT_EQ(ask(feature.c_str()), "rules[0]: feature \"" + feature +
                                        "\" has no whole number from 0 at place 0 of its brackets; write "
                                        "image[0] to image[783]");
  }
  EXPECT_EQ(ask("x[1,]"),
            "rules[0]: feature \"x[1,]\" has no whole number from 0 at place 1 of its brackets; write "
            "x[0,0] to x[1,2]");
  EXPECT_EQ(ask("image[784]"),
            "rules[0]: feature \"image[784]\" lies outside image FP32[-1,784]; index 0 goes from 0 to 783");
  EXPECT_EQ(ask("x[1,3]"), "rules[0]: feature \"x[1,3]\" lies outside x FP64[-1,2,3]; index 1 goes from 0 to 2");
  EXPECT_EQ(ask("x[5]"),
            "rules[0]: feature \"x[5]\" has 1 index; x is FP64[-1,2,3] and takes 2; write x[0,0] to x[1,2]");
  EXPECT_EQ(ask("image[0,5]"),
            "rules[0]: feature \"image[0,5]\" has 2 indices; image is FP32[-1,784] and takes 1; write image[0] to "
            "image[783]");
  EXPECT_EQ(ask("age[1,1]"), "rules[0]: feature \"age[1,1]\" has 2 indices; age is INT64[-1] and takes 1; write age");
  EXPECT_EQ(ask("empty[0]"),
            "rules[0]: feature \"empty[0]\": empty is FP32[-1,0], 0 elements a row; there is nothing to compare");
  EXPECT_EQ(ask("mean(country)"),
            "rules[0]: feature \"mean(country)\": country is BYTES[-1,1], and texts have no mean, min, max or sum; "
            "compare an element with equals, not_equals or in");
}

TEST(RuleSet, ExplainsValuesThatDoNotFit) {
  EXPECT_EQ(Mistake(Is("age", Op::kEqual, "old")),
            "rules[0]: feature \"age\" is INT64 and compares with numbers; \"old\" is none");
  EXPECT_EQ(Mistake(Is("member", Op::kEqual, "yes")),
            "rules[0]: feature \"member\" is BOOL and compares with numbers, true or false; \"yes\" is none");
  EXPECT_EQ(Mistake(Is("mean(member)", Op::kEqual, "true")),
            "rules[0]: feature \"mean(member)\" is a number and compares with numbers; \"true\" is none");
  EXPECT_EQ(Mistake(In("country", {"FR", 7.})),
            "rules[0]: feature \"country\" is BYTES and compares with texts; put 7 in quotes");
  EXPECT_EQ(Mistake(Is("country", Op::kLess, "FR")),
            "rules[0]: feature \"country\" is BYTES, and below takes numbers; use equals, not_equals or in");
  EXPECT_EQ(Mistake(Between("country", 1, 2)),
            "rules[0]: feature \"country\" is BYTES, and between takes numbers; use equals, not_equals or in");
  EXPECT_EQ(Mistake(Is("age", Op::kLess, kNan)),
            "rules[0]: feature \"age\" is INT64 and compares with finite numbers; nan is none");
  EXPECT_EQ(Mistake(Between("age", -kInf, 2)),
            "rules[0]: feature \"age\" is INT64 and compares with finite numbers; -inf is none");
  EXPECT_EQ(Mistake(Is("age", Op::kEqual, 9007199254740992.)),
            "rules[0]: feature \"age\" is INT64; 9007199254740992 lies beyond 9007199254740991, up to which whole "
            "numbers compare exactly; send numbers like these as BYTES");
  EXPECT_EQ(Mistake(Is("sum(age)", Op::kEqual, 9007199254740992.)), "OK");
  EXPECT_EQ(Mistake(Between("image[0]", .2, .1)),
            "rules[0]: feature \"image[0]\": between [0.2, 0.1] never holds; write the lower number first");
  EXPECT_EQ(Mistake(In("age", {})),
            "rules[0]: feature \"age\": in lists no value, so it never holds; list at least one");
  Condition c = Is("age", Op::kGreaterOrEqual, 1.);
  c.values.clear();
  EXPECT_EQ(Mistake(c), "rules[0]: feature \"age\": at_least takes one value, got 0");
  c.kind = Condition::Kind::kBetween;
  EXPECT_EQ(Mistake(c), "rules[0]: feature \"age\": between takes two numbers, got 0");
  EXPECT_EQ(Mistake(All({})), "rules[0]: all joins no conditions; list at least one");
  EXPECT_EQ(Mistake(Any({})), "rules[0]: any joins no conditions; list at least one");
  c = Not(Is("age", Op::kEqual, 1.));
  c.children.push_back(Is("age", Op::kEqual, 2.));
  EXPECT_EQ(Mistake(c), "rules[0]: not takes one condition, got 2; join them with all or any");
}

TEST(RuleSet, ExplainsAnswersThatAreNotThere) {
  const auto answer = [](const char* text, const std::vector<std::string>& labels) {
    return Mistake({{Then(Is("age", Op::kEqual, 1.), text)}}, labels);
  };
  EXPECT_EQ(
      answer("bagg", {"shirt", "bag"}),
      "rules[0]: answer \"bagg\" is no label (there are 2: shirt, bag); write one of them or a number from 0 to 1");
  EXPECT_EQ(answer("2", {"shirt", "bag"}),
            "rules[0]: answer \"2\" is no label (there are 2: shirt, bag); write one of them or a number from 0 to 1");
  EXPECT_EQ(
      answer("bag", {}),
      "rules[0]: answer \"bag\" is no class number, and the decision has no labels; write a number from 0 to 99999");
  std::string many;
  for (int i = 0; i < 20; ++i) many += "c" + std::to_string(i) + ", ";
  std::vector<std::string> labels;
  for (int i = 0; i < 21; ++i) labels.push_back("c" + std::to_string(i));
  EXPECT_EQ(answer("-1", labels), "rules[0]: answer \"-1\" is no label (there are 21: " + many +
                                      "...); write one of them or a number from 0 to 20");
  const std::vector<std::pair<double, std::string>> confidences{{-.25, "-0.25"}, {1.5, "1.5"}, {kNan, "nan"}};
  for (const auto& [confidence, shown] : confidences) {
    Rule rule = Then(Is("age", Op::kEqual, 1.));
    rule.confidence = confidence;
    EXPECT_EQ(Mistake({{rule}}), "rules[0]: confidence must be from 0 to 1, got " + shown);
  }
}

TEST(RuleSet, ReportsAllMistakesAtOnceWithTheirRules) {
  RuleSetSpec spec;
  spec.rules.push_back({"one", Is("aeg", Op::kEqual, "x"), "hat", 1, "rules.yaml:2"});
  spec.rules.push_back({"one", All({Is("country", Op::kEqual, 1.), Is("age", Op::kEqual, "x")}), "0", 2, ""});
  const std::string message = Mistake(spec);
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 5) << message;
  EXPECT_EQ(message.rfind("rules.yaml:2 rules[0] \"one\": answer \"hat\" is no label", 0), 0u) << message;
  for (const char* part :
       {"rules.yaml:2 rules[0] \"one\": feature \"aeg\" names no input",
        "rules[1] \"one\": rules[0] has this name too; give another",
        "rules[1] \"one\": confidence must be from 0 to 1, got 2", "rules[1] \"one\": feature \"country\" is BYTES",
        "rules[1] \"one\": feature \"age\" is INT64"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << "\n" << message;
  }
  spec.rules.assign(70, Then(Is("age", Op::kEqual, "x")));
  const std::string many = Mistake(spec);
  EXPECT_EQ(std::count(many.begin(), many.end(), '\n'), 50);
  EXPECT_EQ(many.substr(many.rfind('\n')), "\nand 20 more");
}

TEST(RuleSet, RefusesInputsWithoutRows) {
  const std::vector<Spec> scalar{{"s", DataType::kFp32, {}}};
  const auto rules = RuleSet::Compile({{Then(Is("s", Op::kEqual, 1.))}}, scalar, {});
  ASSERT_FALSE(rules.ok());
  EXPECT_EQ(rules.status().message(), "input \"s\" FP32[] has no rows; its shape must begin with -1");
  const std::vector<Spec> huge{{"h", DataType::kFp32, {-1, 1 << 20, 1 << 20}}};
  const auto too_large = RuleSet::Compile({{Then(Is("h[0,0]", Op::kEqual, 1.))}}, huge, {});
  ASSERT_FALSE(too_large.ok());
  EXPECT_EQ(too_large.status().message(), "input \"h\": tensor [1048576,1048576] has more than 2147483648 elements");
}

TEST(RuleSet, KeepsItsLimits) {
  const Condition age = Is("age", Op::kEqual, 1.);
  EXPECT_EQ(Mistake(RuleSetSpec{}), "there are no rules; write one, or leave the stage out");
  RuleSetSpec spec;
  spec.rules.assign(kMaxRules, Then(age));
  EXPECT_EQ(Mistake(spec), "OK");
  spec.rules.push_back(Then(age));
  EXPECT_EQ(Mistake(spec), "there are 1001 rules, limit 1000; join conditions of the same answer with any");

  Condition deep = age;
  for (int i = 1; i < kMaxDepth; ++i) deep = Not(std::move(deep));
  EXPECT_EQ(Mistake(deep), "OK");
  EXPECT_EQ(Mistake(Not(deep)), "rules[0]: conditions lie more than 16 deep, the limit; make several rules of it");

  Condition wide = Any(std::vector<Condition>(kMaxConditions - 1, age));  // the any counts as well
  EXPECT_EQ(Mistake(wide), "OK");
  EXPECT_EQ(Mistake({{Then(wide), Then(age), Then(age)}}),
            "rules[1]: this and the rules before it have more than 10000 conditions, the limit; a set (in) or a range "
            "(between) counts as one");

  Condition set = In("age", std::vector<Value>(kMaxSetValues, 1.));
  EXPECT_EQ(Mistake(set), "OK");
  EXPECT_EQ(Mistake({{Then(set), Then(In("age", {1.})), Then(In("age", {1.}))}}),
            "rules[1]: this and the rules before it list more than 100000 values in sets, the limit; a model may do "
            "better here");

  std::vector<Spec> inputs;
  std::vector<Condition> means;
  for (std::size_t i = 0; i <= kMaxAggregatedInputs + 1; ++i) {
    inputs.push_back({"x" + std::to_string(i), DataType::kFp32, {-1, 2}});
    if (i < kMaxAggregatedInputs) {
      for (const char* aggregate : {"mean(x", "sum(x"})
        means.push_back(Is(aggregate + std::to_string(i) + ")", Op::kEqual, 1.));
    }
  }
  EXPECT_TRUE(RuleSet::Compile({{Then(Any(means))}}, inputs, {}).ok());
  means.push_back(Is("min(x32)", Op::kEqual, 1.));
  means.push_back(Is("min(x33)", Op::kEqual, 1.));
  EXPECT_EQ(RuleSet::Compile({{Then(Any(means))}}, inputs, {}).status().message(),
            "rules[0]: feature \"min(x32)\": aggregates are taken of more than 32 inputs, the limit; put these numbers "
            "into one input");
}

}  // namespace
}  // namespace ganglion::rules
