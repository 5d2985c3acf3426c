#include "rules/rules.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rules/conditions_test.h"

namespace {
long allocations = 0;
}
// Not inlined, or gcc takes the halves of the pair for strangers.
[[gnu::noinline]] void* operator new(std::size_t n) {
  ++allocations;
  void* p = std::malloc(n);
  if (p == nullptr) std::abort();
  return p;
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return operator new(n); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace ganglion::rules {
namespace {

using tensor::DataType;
using tensor::Spec;
using tensor::Tensor;
using tensor::View;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

template <typename T>
Tensor Raw(DataType type, tensor::Shape shape, const std::vector<T>& values) {
  auto t = Tensor::FromBytes(type, std::move(shape), std::as_bytes(std::span(values)));
  EXPECT_TRUE(t.ok()) << t.status().message();
  return std::move(t).value();
}
Tensor Texts(tensor::Shape shape, const std::vector<std::string>& texts) {
  std::vector<char> bytes;
  for (const std::string& text : texts) {
    const auto n = static_cast<std::uint32_t>(text.size());
    bytes.insert(bytes.end(), reinterpret_cast<const char*>(&n), reinterpret_cast<const char*>(&n) + 4);
    bytes.insert(bytes.end(), text.begin(), text.end());
  }
  return Raw(DataType::kBytes, std::move(shape), bytes);
}

// Whether `when` holds for row `row` of the only input.
bool Holds(const Condition& when, const Spec& spec, const Tensor& tensor, std::int64_t row = 0) {
  const std::vector<std::string> labels{"no", "yes"};
  const std::vector<Spec> specs{spec};
  const auto rules = RuleSet::Compile({{Then(when, "yes")}}, specs, labels);
  EXPECT_TRUE(rules.ok()) << rules.status().message();
  if (!rules.ok()) return false;
  const std::vector<View> views{tensor.View()};
  const auto answer = rules->Evaluate(views, row);
  const auto all = rules->EvaluateAll(views);
  EXPECT_EQ(answer.has_value(), all[static_cast<std::size_t>(row)].has_value());
  return answer && answer->label == 1;
}
bool Holds(const Condition& when, float x) {
  return Holds(when, {"x", DataType::kFp32, {-1}}, Raw<float>(DataType::kFp32, {1}, {x}));
}

TEST(RuleSet, GivesTheAnswerOfTheFirstRuleThatHolds) {
  const std::vector<Spec> specs{{"age", DataType::kInt64, {-1}}};
  const std::vector<std::string> labels{"child", "adult", "old"};
  const auto rules = RuleSet::Compile({{{"young", Is("age", Op::kLess, 18.), "child", 1, ""},
                                        {"", Is("age", Op::kGreater, 90.), "2", .75, ""},
                                        {"", Is("age", Op::kGreater, 80.), "1", .5, ""}}},
                                      specs, labels);
  ASSERT_TRUE(rules.ok()) << rules.status().message();
  const Tensor ages = Raw<std::int64_t>(DataType::kInt64, {4}, {17, 91, 81, 40});
  const std::vector<View> views{ages.View()};
  const auto all = rules->EvaluateAll(views);
  const std::vector<RuleAnswer> want{{0, 1, 0}, {2, .75f, 1}, {1, .5f, 2}};
  for (std::size_t r = 0; r < 3; ++r) {
    for (const auto& got : {rules->Evaluate(views, static_cast<std::int64_t>(r)), all[r]}) {
      ASSERT_TRUE(got) << r;
      EXPECT_EQ(got->label, want[r].label) << r;
      EXPECT_EQ(got->confidence, want[r].confidence) << r;
      EXPECT_EQ(got->rule, want[r].rule) << r;
    }
  }
  EXPECT_FALSE(rules->Evaluate(views, 3)) << "no rule holds: the cascade goes on";
  EXPECT_FALSE(all[3]);
  EXPECT_EQ(rules->size(), 3u);
  EXPECT_EQ(rules->name(0), "young");
  EXPECT_EQ(rules->name(1), "");
  EXPECT_EQ(rules->highest_label(), 2);
}

TEST(RuleSet, TakesClassNumbersWhereThereAreNoLabels) {
  const auto rules = RuleSet::Compile({{Then(Is("age", Op::kLess, 1.), "42")}}, Inputs(), {});
  ASSERT_TRUE(rules.ok()) << rules.status().message();
  EXPECT_EQ(rules->highest_label(), 42);
}

TEST(RuleSet, PrefersALabelsNameToANumber) {
  const std::vector<std::string> digits{"7", "1", "0"};
  const auto rules = RuleSet::Compile({{Then(Is("age", Op::kLess, 1.), "7")}}, Inputs(), digits);
  ASSERT_TRUE(rules.ok()) << rules.status().message();
  EXPECT_EQ(rules->highest_label(), 0);
}

TEST(RuleSet, Compares) {
  const std::vector<std::pair<Op, std::vector<bool>>> cases{
      {Op::kLess, {true, false, false}},    {Op::kLessOrEqual, {true, true, false}},
      {Op::kGreater, {false, false, true}}, {Op::kGreaterOrEqual, {false, true, true}},
      {Op::kEqual, {false, true, false}},   {Op::kNotEqual, {true, false, true}},
  };
  for (const auto& [op, want] : cases) {
    for (std::size_t i = 0; i < 3; ++i)
      EXPECT_EQ(Holds(Is("x", op, 2.), static_cast<float>(i + 1)), want[i]) << static_cast<int>(op) << " " << i + 1;
  }
}

TEST(RuleSet, CountsBothEndsOfARangeIn) {
  for (const float x : {1.f, 1.5f, 2.f}) EXPECT_TRUE(Holds(Between("x", 1, 2), x)) << x;
  for (const float x : {.99f, 2.01f}) EXPECT_FALSE(Holds(Between("x", 1, 2), x)) << x;
}

TEST(RuleSet, FindsNumbersInASetWhateverItsOrder) {
  for (const float x : {3.f, -1.f, 2.f}) EXPECT_TRUE(Holds(In("x", {3., -1., 2.}), x)) << x;
  for (const float x : {0.f, 4.f, 2.5f}) EXPECT_FALSE(Holds(In("x", {3., -1., 2.}), x)) << x;
}

TEST(RuleSet, JoinsConditionsWithAllAnyAndNot) {
  const auto above = [](double v) { return Is("x", Op::kGreater, v); };
  EXPECT_TRUE(Holds(All({above(1), above(2)}), 3));
  EXPECT_FALSE(Holds(All({above(1), above(2)}), 2));
  EXPECT_TRUE(Holds(Any({above(2), above(1)}), 2));
  EXPECT_FALSE(Holds(Any({above(2), above(1)}), 1));
  EXPECT_TRUE(Holds(Not(above(1)), 1));
  EXPECT_FALSE(Holds(Not(Not(All({above(1), Not(Any({above(5), above(2)}))}))), 3));
  EXPECT_TRUE(Holds(Not(Not(All({above(1), Not(Any({above(5), above(2)}))}))), 2));
}

TEST(RuleSet, HasNoComparisonThatNanSatisfies) {
  const auto nan = static_cast<float>(kNan);
  for (const Op op : {Op::kLess, Op::kLessOrEqual, Op::kGreater, Op::kGreaterOrEqual, Op::kEqual, Op::kNotEqual})
    EXPECT_FALSE(Holds(Is("x", op, 2.), nan)) << static_cast<int>(op);
  EXPECT_FALSE(Holds(Between("x", -1e30, 1e30), nan));
  EXPECT_FALSE(Holds(In("x", {1., 2.}), nan));
  EXPECT_TRUE(Holds(Not(Is("x", Op::kGreater, 2.)), nan)) << "not turns a comparison round, whatever it was over";
}

TEST(RuleSet, ReadsEveryDatatypeOfNumbers) {
  const auto check = [](const Tensor& t, double value) {
    const Spec spec{"x", t.type(), {-1}};
    EXPECT_TRUE(Holds(Is("x", Op::kEqual, value), spec, t, 1)) << spec.Text();
    EXPECT_FALSE(Holds(Is("x", Op::kEqual, value), spec, t, 0)) << spec.Text();
  };
  check(Raw<std::uint8_t>(DataType::kBool, {2}, {0, 1}), 1);
  check(Raw<std::uint8_t>(DataType::kUint8, {2}, {0, 255}), 255);
  check(Raw<std::uint16_t>(DataType::kUint16, {2}, {0, 65535}), 65535);
  check(Raw<std::uint32_t>(DataType::kUint32, {2}, {0, 4294967295u}), 4294967295.);
  check(Raw<std::uint64_t>(DataType::kUint64, {2}, {0, 9007199254740991u}), 9007199254740991.);
  check(Raw<std::int8_t>(DataType::kInt8, {2}, {0, -128}), -128);
  check(Raw<std::int16_t>(DataType::kInt16, {2}, {0, -32768}), -32768);
  check(Raw<std::int32_t>(DataType::kInt32, {2}, {0, -2147483647}), -2147483647.);
  check(Raw<std::int64_t>(DataType::kInt64, {2}, {0, -9007199254740991}), -9007199254740991.);
  check(Raw<float>(DataType::kFp32, {2}, {0, 1.5f}), 1.5);
  check(Raw<double>(DataType::kFp64, {2}, {0, .1}), .1);
  // IEEE 754 binary16: 1, -2, 65504 the largest, 2^-24 the smallest, 2^-14 the smallest normal, 1/3 rounded.
  const std::vector<std::pair<std::uint16_t, double>> halves{
      {0x3c00, 1},        {0xc000, -2},      {0x7bff, 65504},      {0x0001, 0x1p-24},
      {0x8001, -0x1p-24}, {0x0400, 0x1p-14}, {0x3555, 0.33325195}, {0x3555, 1. / 3}};
  for (const auto& [bits, value] : halves) check(Raw<std::uint16_t>(DataType::kFp16, {2}, {0, bits}), value);
  check(Raw<std::uint16_t>(DataType::kBf16, {2}, {0, 0xc049}), -3.140625);
  check(Raw<std::uint16_t>(DataType::kBf16, {2}, {0, 0x0001}), 0x1p-133);
  const Spec half{"x", DataType::kFp16, {-1}};
  EXPECT_TRUE(Holds(Is("x", Op::kGreater, 1e300), half, Raw<std::uint16_t>(DataType::kFp16, {1}, {0x7c00})));
  EXPECT_FALSE(Holds(Is("x", Op::kNotEqual, 0.), half, Raw<std::uint16_t>(DataType::kFp16, {1}, {0x7e00}))) << "NaN";
}

TEST(RuleSet, RoundsWhatItComparesWithToTheFeaturesDatatype) {
  EXPECT_TRUE(Holds(Is("x", Op::kEqual, .1), .1f));
  EXPECT_FALSE(Holds(Is("x", Op::kGreater, .1), .1f));
  EXPECT_TRUE(Holds(Is("x", Op::kGreaterOrEqual, .7), .7f));
  EXPECT_TRUE(Holds(In("x", {.7}), .7f));
  EXPECT_TRUE(Holds(Between("x", .7, .7), .7f));
  EXPECT_TRUE(Holds(Is("max(x)", Op::kEqual, .7), .7f));
  EXPECT_FALSE(Holds(Is("sum(x)", Op::kEqual, .7), .7f)) << "sums are doubles";
  EXPECT_TRUE(Holds(Is("x", Op::kLess, 1e300), std::numeric_limits<float>::max()));
  EXPECT_FALSE(Holds(Is("x", Op::kLessOrEqual, 1e300), std::numeric_limits<float>::infinity()));
}

TEST(RuleSet, ComparesWideIntegersExactly) {
  const Spec spec{"x", DataType::kInt64, {-1}};
  const auto x = Raw<std::int64_t>(DataType::kInt64, {2}, {9007199254740992, 9007199254740993});
  for (const std::int64_t row : {0, 1}) {
    EXPECT_FALSE(Holds(Is("x", Op::kEqual, 9007199254740991.), spec, x, row));
    EXPECT_TRUE(Holds(Is("x", Op::kGreater, 9007199254740991.), spec, x, row));
  }
}

TEST(RuleSet, FindsElementsRowByRow) {
  const Spec spec{"x", DataType::kInt32, {-1, 2, 3}};
  std::vector<std::int32_t> numbers(12);
  for (std::size_t i = 0; i < 12; ++i) numbers[i] = static_cast<std::int32_t>(i);
  const Tensor x = Raw(DataType::kInt32, {2, 2, 3}, numbers);
  EXPECT_TRUE(Holds(Is("x[0,0]", Op::kEqual, 0.), spec, x, 0));
  EXPECT_TRUE(Holds(Is("x[1,0]", Op::kEqual, 3.), spec, x, 0));
  EXPECT_TRUE(Holds(Is("x [ 1, 2 ]", Op::kEqual, 11.), spec, x, 1));
  const Tensor one = Raw<std::int32_t>(DataType::kInt32, {1}, {5});
  EXPECT_TRUE(Holds(Is("x[0]", Op::kEqual, 5.), {"x", DataType::kInt32, {-1}}, one)) << "a row is one element";
  EXPECT_TRUE(Holds(Is("x[1]", Op::kEqual, 5.), {"x[1]", DataType::kInt32, {-1}}, one)) << "an input's name goes first";
}

TEST(RuleSet, TakesAggregatesOfARow) {
  const Spec spec{"x", DataType::kFp32, {-1, -1}};  // of any size
  std::vector<float> numbers;
  for (int i = 0; i < 19; ++i) numbers.push_back(100);       // row 0 is another one
  for (int i = 0; i < 19; ++i) numbers.push_back(i - 4.5f);  // -4.5 to 13.5, mean 4.5: not a multiple of eight
  const Tensor x = Raw(DataType::kFp32, {2, 19}, numbers);
  EXPECT_TRUE(Holds(Is("mean(x)", Op::kEqual, 4.5), spec, x, 1));
  EXPECT_TRUE(Holds(Is("sum(x)", Op::kEqual, 85.5), spec, x, 1));
  EXPECT_TRUE(Holds(Is("min(x)", Op::kEqual, -4.5), spec, x, 1));
  EXPECT_TRUE(Holds(Is("max( x )", Op::kEqual, 13.5), spec, x, 1));
  EXPECT_TRUE(Holds(All({Is("min(x)", Op::kEqual, 100.), Is("max(x)", Op::kEqual, 100.)}), spec, x, 0));
}

TEST(RuleSet, HasNanForAggregatesOverNanAndOfNothing) {
  for (std::size_t at = 0; at < 11; ++at) {
    std::vector<float> numbers(11, 1);
    numbers[at] = static_cast<float>(kNan);
    for (const char* feature : {"mean(x)", "min(x)", "max(x)", "sum(x)"}) {
      EXPECT_FALSE(Holds(Is(feature, Op::kNotEqual, 7.), {"x", DataType::kFp32, {-1, 11}},
                         Raw(DataType::kFp32, {1, 11}, numbers)))
          << feature << at;
    }
  }
  const Spec open{"x", DataType::kFp64, {-1, -1}};
  const auto none = Raw<double>(DataType::kFp64, {1, 0}, {});
  for (const char* feature : {"mean(x)", "min(x)", "max(x)"})
    EXPECT_FALSE(Holds(Is(feature, Op::kNotEqual, 7.), open, none)) << feature;
  EXPECT_TRUE(Holds(Is("sum(x)", Op::kEqual, 0.), open, none));
  const auto both = Raw<double>(DataType::kFp64, {1, 2}, {kInf, -kInf});
  EXPECT_TRUE(Holds(All({Is("min(x)", Op::kLess, 0.), Is("max(x)", Op::kGreater, 0.)}), open, both));
  EXPECT_FALSE(Holds(Is("sum(x)", Op::kNotEqual, 7.), open, both));
}

TEST(RuleSet, ComparesTexts) {
  const Spec spec{"t", DataType::kBytes, {-1, 2}};
  const Tensor t = Texts({2, 2}, {"FR", "", "DE", std::string("a\0b", 3)});
  EXPECT_TRUE(Holds(Is("t[0]", Op::kEqual, "FR"), spec, t, 0));
  EXPECT_FALSE(Holds(Is("t[0]", Op::kEqual, "F"), spec, t, 0));
  EXPECT_TRUE(Holds(Is("t[1]", Op::kEqual, ""), spec, t, 0));
  EXPECT_TRUE(Holds(Is("t[0]", Op::kNotEqual, "FR"), spec, t, 1));
  EXPECT_FALSE(Holds(Is("t[0]", Op::kNotEqual, "DE"), spec, t, 1));
  EXPECT_TRUE(Holds(In("t[0]", {"FR", "DE", "AT"}), spec, t, 1));
  EXPECT_FALSE(Holds(In("t[0]", {"US", "AT"}), spec, t, 1));
  EXPECT_TRUE(Holds(Is("t[1]", Op::kEqual, std::string("a\0b", 3)), spec, t, 1));
}

TEST(RuleSet, HasNoComparisonThatATextCutShortSatisfies) {
  const std::vector<Spec> specs{{"t", DataType::kBytes, {-1}}};
  const std::vector<std::string> labels{"a"};
  const auto rules = RuleSet::Compile({{Then(Is("t", Op::kNotEqual, "x"))}}, specs, labels);
  ASSERT_TRUE(rules.ok());
  const tensor::Shape shape{2};
  const Tensor whole = Texts({2}, {"long", "text"});
  for (std::size_t n = 0; n <= whole.size_bytes(); ++n) {
    const std::vector<std::byte> cut(whole.View().bytes.begin(), whole.View().bytes.begin() + static_cast<long>(n));
    const std::vector<View> views{{DataType::kBytes, shape, cut}};
    EXPECT_EQ(rules->Evaluate(views, 0).has_value(), n >= 8) << n;
    EXPECT_EQ(rules->Evaluate(views, 1).has_value(), n == 16) << n;
    const auto all = rules->EvaluateAll(views);
    EXPECT_EQ(all[0].has_value(), n >= 8) << n;
    EXPECT_EQ(all[1].has_value(), n == 16) << n;
  }
}

TEST(RuleSet, TakesTrueAndFalseForBool) {
  const Spec spec{"m", DataType::kBool, {-1}};
  const auto m = Raw<std::uint8_t>(DataType::kBool, {2}, {0, 1});
  EXPECT_TRUE(Holds(Is("m", Op::kEqual, "true"), spec, m, 1));
  EXPECT_FALSE(Holds(Is("m", Op::kEqual, "true"), spec, m, 0));
  EXPECT_TRUE(Holds(In("m", {"false"}), spec, m, 0));
  EXPECT_TRUE(Holds(Is("m", Op::kNotEqual, 1.), spec, m, 0));
}

TEST(RuleSet, AllocatesNothingToEvaluate) {
  const auto rules =
      RuleSet::Compile({{Then(All({Is("mean(image)", Op::kLess, -1.), In("country", {"FR", "DE"})})),
                         Then(Any({Is("x[1,2]", Op::kGreater, 5.), Is("tags[2]", Op::kEqual, "c")}), "bag")}},
                       Inputs(), std::vector<std::string>{"shirt", "bag"});
  ASSERT_TRUE(rules.ok()) << rules.status().message();
  const std::vector<Tensor> tensors{Raw(DataType::kFp32, {1, 784}, std::vector<float>(784, -2)),
                                    Raw<std::int64_t>(DataType::kInt64, {1}, {4}),
                                    Raw(DataType::kFp64, {1, 2, 3}, std::vector<double>(6)),
                                    Texts({1, 1}, {"US"}),
                                    Texts({1, 3}, {"a", "b", "a text too long for the small buffer of a string"}),
                                    Raw<float>(DataType::kFp32, {1, 1}, {0}),
                                    Texts({1, 1}, {""}),
                                    Raw<float>(DataType::kFp32, {1, 0}, {}),
                                    Raw<std::uint8_t>(DataType::kBool, {1}, {0})};
  std::vector<View> views;
  for (const Tensor& t : tensors) views.push_back(t.View());
  const long before = allocations;
  const auto answer = rules->Evaluate(views, 0);
  EXPECT_EQ(allocations, before);
  EXPECT_FALSE(answer);
  EXPECT_GT(allocations, 0) << "the counter counts";
}

}  // namespace
}  // namespace ganglion::rules
