// Random rules on random rows: the compiled steps against a walk over the tree as it is written.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/random.h"
#include "rules/rules.h"

namespace ganglion::rules {
namespace {

using tensor::DataType;
using tensor::Spec;
using tensor::Tensor;
using tensor::View;

// A row in plain C++. Numbers are small quarters, so that sums are exact and equality happens.
struct PlainRow {
  float risk = 0;
  std::vector<float> image;          // 11
  std::vector<std::int64_t> counts;  // 2 x 3
  std::vector<std::uint8_t> bytes;   // 2
  std::vector<std::string> words;    // 2
  bool member = false;
};
constexpr std::size_t kImage = 11;

struct PlainFeature {
  std::string text;
  std::function<double(const PlainRow&)> number;  // one of the two
  std::function<std::string(const PlainRow&)> word;
};

const float kNan = std::numeric_limits<float>::quiet_NaN();

double MeanOf(const std::vector<float>& v) {
  return std::accumulate(v.begin(), v.end(), 0.) / static_cast<double>(v.size());
}
double Least(const std::vector<float>& v, float sign) {
  double least = std::numeric_limits<double>::infinity();
  for (const float x : v) {
    if (std::isnan(x)) return kNan;
    least = std::min(least, static_cast<double>(sign * x));
  }
  return static_cast<double>(sign) * least;
}

const std::vector<PlainFeature>& Features() {
  static const std::vector<PlainFeature> features{
      {"risk", [](const PlainRow& r) { return r.risk; }, {}},
      {"image[0]", [](const PlainRow& r) { return r.image[0]; }, {}},
      {"image[10]", [](const PlainRow& r) { return r.image[10]; }, {}},
      {"mean(image)", [](const PlainRow& r) { return MeanOf(r.image); }, {}},
      {"sum(image)", [](const PlainRow& r) { return std::accumulate(r.image.begin(), r.image.end(), 0.); }, {}},
      {"min(image)", [](const PlainRow& r) { return Least(r.image, 1); }, {}},
      {"max(image)", [](const PlainRow& r) { return Least(r.image, -1); }, {}},
      {"counts[0,2]", [](const PlainRow& r) { return static_cast<double>(r.counts[2]); }, {}},
      {"counts[1,1]", [](const PlainRow& r) { return static_cast<double>(r.counts[4]); }, {}},
      {"max(counts)",
       [](const PlainRow& r) { return static_cast<double>(*std::max_element(r.counts.begin(), r.counts.end())); },
       {}},
      {"bytes[1]", [](const PlainRow& r) { return r.bytes[1]; }, {}},
      {"mean(bytes)", [](const PlainRow& r) { return (r.bytes[0] + r.bytes[1]) / 2.; }, {}},
      {"member", [](const PlainRow& r) { return r.member ? 1. : 0.; }, {}},
      {"words[0]", {}, [](const PlainRow& r) { return r.words[0]; }},
      {"words[1]", {}, [](const PlainRow& r) { return r.words[1]; }},
  };
  return features;
}

bool Naive(const Condition& c, const PlainRow& row) {
  switch (c.kind) {
    case Condition::Kind::kAll:
      return std::all_of(c.children.begin(), c.children.end(), [&](const auto& x) { return Naive(x, row); });
    case Condition::Kind::kAny:
      return std::any_of(c.children.begin(), c.children.end(), [&](const auto& x) { return Naive(x, row); });
    case Condition::Kind::kNot:
      return !Naive(c.children[0], row);
    default:
      break;
  }
  const auto feature =
      std::find_if(Features().begin(), Features().end(), [&](const auto& f) { return f.text == c.feature; });
  if (feature->word) {
    const bool found = std::find(c.values.begin(), c.values.end(), Value(feature->word(row))) != c.values.end();
    return c.kind == Condition::Kind::kCompare && c.op == Op::kNotEqual ? !found : found;
  }
  const double v = feature->number(row);
  if (std::isnan(v)) return false;
  const auto value = [&](std::size_t i) { return std::get<double>(c.values[i]); };
  if (c.kind == Condition::Kind::kBetween) return !(v < value(0)) && !(v > value(1));
  if (c.kind == Condition::Kind::kIn) return std::find(c.values.begin(), c.values.end(), Value(v)) != c.values.end();
  switch (c.op) {
    case Op::kLess:
      return v < value(0);
    case Op::kLessOrEqual:
      return v <= value(0);
    case Op::kGreater:
      return v > value(0);
    case Op::kGreaterOrEqual:
      return v >= value(0);
    case Op::kEqual:
      return v == value(0);
    case Op::kNotEqual:
      return v != value(0);
  }
  return false;
}

double AnyNumber(Random& random) { return (static_cast<double>(random.Below(17)) - 8) / 4; }
std::string AnyWord(Random& random) { return std::string(random.Below(3), random.Below(2) == 0 ? 'a' : 'b'); }

Condition AnyCondition(Random& random, int deepest) {
  Condition c;
  const auto kind = random.Below(deepest > 1 ? 6 : 3);
  if (kind >= 3) {
    c.kind = kind == 3 ? Condition::Kind::kAll : kind == 4 ? Condition::Kind::kAny : Condition::Kind::kNot;
    const auto n = c.kind == Condition::Kind::kNot ? 1 : 1 + random.Below(4);
    for (std::uint64_t i = 0; i < n; ++i) c.children.push_back(AnyCondition(random, deepest - 1));
    return c;
  }
  const PlainFeature& feature = Features()[random.Below(Features().size())];
  c.feature = feature.text;
  const auto any_value = [&]() -> Value {
    if (feature.word) return AnyWord(random);
    return AnyNumber(random);
  };
  if (kind == 0) {
    c.kind = Condition::Kind::kIn;
    for (std::uint64_t n = 1 + random.Below(5); n > 0; --n) c.values.push_back(any_value());
  } else if (kind == 1 && !feature.word) {
    c.kind = Condition::Kind::kBetween;
    const double low = AnyNumber(random);
    c.values = {low, low + static_cast<double>(random.Below(5)) / 4};
  } else {
    c.op = feature.word ? (random.Below(2) == 0 ? Op::kEqual : Op::kNotEqual) : static_cast<Op>(random.Below(6));
    c.values = {any_value()};
  }
  return c;
}

PlainRow AnyRow(Random& random) {
  PlainRow row;
  const auto number = [&] { return random.Below(60) == 0 ? kNan : static_cast<float>(AnyNumber(random)); };
  row.risk = number();
  for (std::size_t i = 0; i < kImage; ++i) row.image.push_back(number());
  for (int i = 0; i < 6; ++i) row.counts.push_back(static_cast<std::int64_t>(random.Below(5)) - 2);
  for (int i = 0; i < 2; ++i) row.bytes.push_back(static_cast<std::uint8_t>(random.Below(4)));
  for (int i = 0; i < 2; ++i) row.words.push_back(AnyWord(random));
  row.member = random.Below(2) == 0;
  return row;
}

class Batch {
 public:
  explicit Batch(const std::vector<PlainRow>& rows) {
    std::vector<float> risk;
    std::vector<float> image;
    std::vector<std::int64_t> counts;
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint8_t> member;
    std::vector<char> words;
    for (const PlainRow& r : rows) {
      risk.push_back(r.risk);
      image.insert(image.end(), r.image.begin(), r.image.end());
      counts.insert(counts.end(), r.counts.begin(), r.counts.end());
      bytes.insert(bytes.end(), r.bytes.begin(), r.bytes.end());
      member.push_back(r.member ? 1 : 0);
      for (const std::string& word : r.words) {
        words.insert(words.end(), {static_cast<char>(word.size()), 0, 0, 0});
        words.insert(words.end(), word.begin(), word.end());
      }
    }
    const auto n = static_cast<std::int64_t>(rows.size());
    Add("words", DataType::kBytes, {n, 2}, std::as_bytes(std::span(words)));
    Add("risk", DataType::kFp32, {n, 1}, std::as_bytes(std::span(risk)));
    Add("image", DataType::kFp32, {n, static_cast<std::int64_t>(kImage)}, std::as_bytes(std::span(image)));
    Add("counts", DataType::kInt64, {n, 2, 3}, std::as_bytes(std::span(counts)));
    Add("bytes", DataType::kUint8, {n, 2}, std::as_bytes(std::span(bytes)));
    Add("member", DataType::kBool, {n}, std::as_bytes(std::span(member)));
    for (const Tensor& t : tensors_) views_.push_back(t.View());
  }
  const std::vector<Spec>& specs() const { return specs_; }
  const std::vector<View>& views() const { return views_; }

 private:
  void Add(const std::string& name, DataType type, tensor::Shape shape, std::span<const std::byte> data) {
    tensors_.push_back(std::move(Tensor::FromBytes(type, shape, data)).value());
    shape[0] = -1;
    specs_.push_back({name, type, shape});
  }
  std::vector<Spec> specs_;
  std::vector<Tensor> tensors_;
  std::vector<View> views_;
};

TEST(RuleSetProperty, AnswersAsAWalkOverTheTreeDoes) {
  constexpr std::uint64_t kSeed = 20240611;
  constexpr std::size_t kRows = 40;
  int answered = 0;
  int silent = 0;
  for (std::uint64_t round = 0; round < 1500; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + " round " + std::to_string(round));
    Random random = Random(kSeed).Fork(round);
    RuleSetSpec spec;
    const auto count = 1 + random.Below(6);
    for (std::uint64_t i = 0; i < count; ++i) {
      spec.rules.push_back({"", AnyCondition(random, 1 + static_cast<int>(random.Below(6))),
                            std::to_string(random.Below(10)), random.Uniform(), ""});
    }
    std::vector<PlainRow> rows;
    for (std::size_t i = 0; i < kRows; ++i) rows.push_back(AnyRow(random));
    const Batch batch(rows);
    const auto rules = RuleSet::Compile(spec, batch.specs(), {});
    ASSERT_TRUE(rules.ok()) << rules.status().message();
    const auto all = rules->EvaluateAll(batch.views());
    ASSERT_EQ(all.size(), kRows);
    for (std::size_t i = 0; i < kRows; ++i) {
      const auto want = std::find_if(spec.rules.begin(), spec.rules.end(),
                                     [&](const Rule& rule) { return Naive(rule.when, rows[i]); });
      for (const auto& got : {all[i], rules->Evaluate(batch.views(), static_cast<std::int64_t>(i))}) {
        ASSERT_EQ(got.has_value(), want != spec.rules.end()) << "row " << i;
        if (!got) continue;
        ASSERT_EQ(got->rule, static_cast<std::size_t>(want - spec.rules.begin())) << "row " << i;
        ASSERT_EQ(got->label, std::stoi(want->answer)) << "row " << i;
        ASSERT_EQ(got->confidence, static_cast<float>(want->confidence)) << "row " << i;
      }
      ++(all[i] ? answered : silent);
    }
  }
  EXPECT_GT(answered, 5000) << "both ends are tried";
  EXPECT_GT(silent, 5000);
}

// The formats by their definition: a half from its fields, and the nearest half to a double by looking at all of them.
TEST(RuleSetProperty, RoundsToTheNearestHalf) {
  std::vector<std::pair<double, std::uint16_t>> halves;  // ascending
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const int exponent = static_cast<int>(bits >> 10);
    const double value = exponent == 0 ? std::ldexp(bits & 1023, -24) : std::ldexp(1024 + (bits & 1023), exponent - 25);
    halves.emplace_back(value, static_cast<std::uint16_t>(bits));
  }
  constexpr std::uint64_t kSeed = 5;
  Random random(kSeed);
  const std::vector<Spec> specs{{"x", DataType::kFp16, {-1}}};
  for (int i = 0; i < 2000; ++i) {
    const double c = std::ldexp(1 + random.Uniform(), static_cast<int>(random.Below(42)) - 27);
    const auto above = std::lower_bound(halves.begin(), halves.end(), std::pair(c, std::uint16_t{0}));
    if (above == halves.begin() || above == halves.end()) continue;
    const auto below = above - 1;
    const double to_above = above->first - c;
    const double to_below = c - below->first;
    const bool up = to_above < to_below || (to_above == to_below && above->second % 2 == 0);
    const std::uint16_t nearest = (up ? above : below)->second;
    const std::uint16_t other = (up ? below : above)->second;
    const auto rules =
        RuleSet::Compile({{{"", {Condition::Kind::kCompare, "x", Op::kEqual, {c}, {}}, "0", 1, ""}}}, specs, {});
    ASSERT_TRUE(rules.ok());
    const std::vector<std::uint16_t> x{nearest, other};
    const auto t = Tensor::FromBytes(DataType::kFp16, {2}, std::as_bytes(std::span(x)));
    const std::vector<View> views{t->View()};
    ASSERT_TRUE(rules->Evaluate(views, 0)) << c << ", seed " << kSeed;
    ASSERT_FALSE(rules->Evaluate(views, 1)) << c << ", seed " << kSeed;
  }
}

}  // namespace
}  // namespace ganglion::rules
