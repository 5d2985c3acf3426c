// Features and places against VW 9.11.9 (PyPI vowpalwabbit), which printed the numbers below with --audit:
//   python -c "from vowpalwabbit import pyvw; pyvw.Workspace('-d t.txt --loss_function logistic -q ab --audit')"
#include "online/vw_text.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "online/csv_text.h"
#include "online/hash.h"
#include "online/inputs.h"

namespace ganglion::online {
namespace {

using Features = std::vector<Feature>;

Features Sorted(Features f) {
  std::sort(f.begin(), f.end(), [](const Feature& a, const Feature& b) {
    return std::pair(a.index, a.value) < std::pair(b.index, b.value);
  });
  return f;
}

Example Parsed(const std::string& line, std::vector<std::string> pairs = {}, std::uint32_t classes = 1) {
  LearnerOptions o;
  o.interactions = std::move(pairs);
  if (classes > 1) {
    o.task = Task::kSoftmax;
    o.classes = classes;
  }
  auto text = VwText::Create(o);
  EXPECT_TRUE(text.ok());
  Example e;
  const Status s = text->Parse(line, &e);
  EXPECT_TRUE(s.ok()) << s.message();
  return e;
}

Status Refusal(const std::string& line) {
  auto text = VwText::Create(LearnerOptions{});
  Example e;
  return text->Parse(line, &e);
}

TEST(Murmur3, MatchesItsAuthorsVerificationValue) {
  // SMHasher's: keys {}, {0}, {0,1} ... hashed with seeds 256 - i, then the hashes hashed.
  std::string key;
  std::string hashes;
  for (std::uint32_t i = 0; i < 256; ++i) {
    const std::uint32_t h = Murmur3(key, 256 - i);
    for (int byte = 0; byte < 4; ++byte) hashes += static_cast<char>(h >> (8 * byte));
    key += static_cast<char>(i);
  }
  EXPECT_EQ(Murmur3(hashes, 0), 0xb0f57ee3u);
}

TEST(VwText, PutsFeaturesWhereVwDoes) {
  const Example e = Parsed("1 |a x:2 12 foo |b bar:0.5 baz");
  EXPECT_EQ(Sorted(e.features), Sorted({{55432, 2}, {92606, 1}, {100784, 1}, {234703, .5f}, {240127, 1}, {116060, 1}}));
  EXPECT_TRUE(e.labelled);
  EXPECT_EQ(e.label, 1);
  EXPECT_EQ(e.weight, 1);
}

TEST(VwText, PutsPairsWhereVwDoes) {
  const Example ab = Parsed("1 |a x:2 12 foo |b bar:0.5 baz", {"ab"});
  EXPECT_EQ(Sorted(ab.features), Sorted({{55432, 2},
                                         {92606, 1},
                                         {100784, 1},
                                         {234703, .5f},
                                         {240127, 1},
                                         {116060, 1},
                                         {215767, 1},
                                         {227303, 2},
                                         {189141, .5f},
                                         {188389, 1},
                                         {21727, .5f},
                                         {27119, 1}}));
  const Example aa = Parsed("1 |a x:2 12 foo |b bar:0.5 baz", {"aa"});
  EXPECT_EQ(Sorted(aa.features), Sorted({{55432, 2},
                                         {92606, 1},
                                         {100784, 1},
                                         {234703, .5f},
                                         {240127, 1},
                                         {116060, 1},
                                         {1680, 4},
                                         {112550, 2},
                                         {87976, 2},
                                         {8100, 1},
                                         {65450, 1},
                                         {149920, 1}}));
  const Example yx = Parsed("1 |x a |x b |y c", {"yx"});
  EXPECT_EQ(Sorted(yx.features),
            Sorted({{167017, 1}, {162468, 1}, {173048, 1}, {116060, 1}, {168705, 1}, {157132, 1}}));
}

TEST(VwText, CountsFeaturesWithoutNamesUpAndLeavesZerosOut) {
  const Example e = Parsed("-1 2.0 'tag1 |a x:1 y |bb:2 bar |cde 7 :3 :4");
  EXPECT_EQ(Sorted(e.features),
            Sorted({{116060, 1}, {55432, 1}, {42847, 1}, {114770, 2}, {219321, 1}, {219314, 3}, {219315, 4}}));
  EXPECT_EQ(e.tag, "tag1");
  EXPECT_EQ(e.weight, 2);
  EXPECT_EQ(e.label, -1);
  const Example zeros = Parsed("1 |x :0 :3 :4");
  EXPECT_EQ(Sorted(zeros.features), Sorted({{170780, 3}, {170781, 4}, {116060, 1}}));
  const Example scaled = Parsed("1 |x:2 a b:3 c:0");
  EXPECT_EQ(Sorted(scaled.features), Sorted({{167017, 2}, {162468, 6}, {116060, 1}}));
}

TEST(VwText, TakesAWordAtTheBarAsTagAndALineWithoutLabel) {
  const Example touching = Parsed("-1 tag2|a x x y:2 z:0 |b q");
  EXPECT_EQ(touching.tag, "tag2");
  EXPECT_EQ(touching.label, -1);
  EXPECT_EQ(touching.features.size(), 5u);
  const Example only = Parsed("1|x a");
  EXPECT_EQ(only.tag, "1");
  EXPECT_FALSE(only.labelled);
  EXPECT_EQ(Parsed("| a\tb").features.size(), 3u);
  EXPECT_EQ(Parsed("1 |\r\n").features.size(), 1u);
  const Example odd = Parsed("1 1 |  lonely:1e-3 \xc3\xa9:2");
  EXPECT_EQ(Sorted(odd.features), Sorted({{116060, 1}, {208710, 1e-3f}, {67463, 2}}));
}

TEST(VwText, CountsClassesFromOneAsVwAndFromZeroInside) {
  EXPECT_EQ(Parsed("3 |a x", {}, 5).label, 2);
  LearnerOptions o;
  o.task = Task::kOneAgainstAll;
  o.classes = 5;
  Example e;
  EXPECT_EQ(VwText::Create(o)->Parse("0 |a x", &e).message(), "column 1: class \"0\" is none; classes count from 1");
  EXPECT_FALSE(VwText::Create(o)->Parse("1.5 |a x", &e).ok());
}

TEST(VwText, RefusesWhatIsNoExampleAndSaysWhere) {
  EXPECT_EQ(Refusal("1 |a x:red").message(), "column 8: value \"red\" of \"x\" is no finite number");
  for (const char* line :
       {"", "1 a b", "1 |a x:nan", "1 |a x:inf", "1 |a x:1e400", "1 |a x:1:2", "1 |a x: y", "x |a b", "1 -2 |a b",
        "1 nan |a b", "1 1 .5 |a b", "1 2 3 4 5 |a b", "1 |a:b c", "1 |:2 c", "inf |a b"})
    EXPECT_FALSE(Refusal(line).ok()) << line;
  EXPECT_TRUE(Refusal("1 |a x:1e-400 y:+.5 z:-1E2").ok());
}

TEST(VwText, RefusesPairsBeyondAllNumbers) {
  LearnerOptions o;
  o.interactions = {"ab"};
  Example e;
  EXPECT_EQ(VwText::Create(o)->Parse("1 |a x:1e30 |b y:1e30", &e).code(), Code::kInvalidArgument);
}

TEST(VwText, BoundsWhatPairsCanMake) {
  std::string line = "1 |a";
  for (int i = 0; i < 2000; ++i) line += " x" + std::to_string(i);
  LearnerOptions o;
  o.interactions = {"aa"};
  Example e;
  EXPECT_EQ(VwText::Create(o)->Parse(line, &e).code(), Code::kResourceExhausted);
  EXPECT_LE(e.features.size(), kMaxFeatures);
}

TEST(Interactions, OfAnyNamespaceMakeEachPairOfGroupsOnce) {
  const Example all = Parsed("1 |b x |a y |a z", {"::"});
  // aa: y*y, y*z, z*z; ab: y*x, z*x; bb: x*x; and the four of the line itself.
  EXPECT_EQ(all.features.size(), 10u);
  EXPECT_EQ(Sorted(Parsed("1 |b x |a y |a z", {"::", "ab", "a:"}).features), Sorted(all.features));
  EXPECT_FALSE(Interactions::OfLetters({"abc"}).ok());
}

TEST(CsvText, MakesTheExampleOfTheEqualLineInVwsFormat) {
  LearnerOptions o;
  o.interactions = {"size,colour"};
  auto csv = CsvText::Create(o, {}, "label,size,colour,empty");
  ASSERT_TRUE(csv.ok()) << csv.status().message();
  Example row;
  ASSERT_TRUE(csv->Parse("1, .5 ,\"red\",", &row).ok());
  const Example line = Parsed("1 |size :.5 |colour red", {"sc"});
  EXPECT_EQ(Sorted(row.features), Sorted(line.features));
  EXPECT_EQ(row.label, 1);
}

TEST(CsvText, ReadsQuotesCategoriesWeightsAndNothing) {
  CsvColumns columns;
  columns.label = "out";
  columns.weight = "w";
  columns.categorical = {"day"};
  columns.ignored = {"id"};
  auto csv = CsvText::Create(LearnerOptions{}, columns, "\xef\xbb\xbfid,w,day,\"a \"\"b\"\"\",out\r\n");
  ASSERT_TRUE(csv.ok()) << csv.status().message();
  EXPECT_EQ(csv->columns()[3], "a \"b\"");
  Example e;
  ASSERT_TRUE(csv->Parse("x17,2.5,7,\"3\",-1\r\n", &e).ok());
  EXPECT_EQ(e.weight, 2.5f);
  EXPECT_EQ(e.label, -1);
  const auto mask = (1u << 18) - 1;
  EXPECT_EQ(Sorted(e.features),
            Sorted({{HashName("7", HashName("day", 0)) & mask, 1}, {HashName("a \"b\"", 0) & mask, 3}, {116060, 1}}));
  ASSERT_TRUE(csv->Parse("x17,1,7,3,", &e).ok());
  EXPECT_FALSE(e.labelled);
}

TEST(CsvText, RefusesRowsThatDoNotFit) {
  auto csv = CsvText::Create(LearnerOptions{}, {}, "y,a");
  Example e;
  for (const char* line : {"1", "1,2,3", "x,1", "1,\"open", "1,\"a\"b", "nan,1", "inf,1"})
    EXPECT_FALSE(csv->Parse(line, &e).ok()) << line;
  EXPECT_FALSE(CsvText::Create(LearnerOptions{}, {}, "a,b").ok());
  EXPECT_FALSE(CsvText::Create(LearnerOptions{}, {}, "y,a,a").ok());
  CsvColumns columns;
  columns.categorical = {"nowhere"};
  EXPECT_EQ(CsvText::Create(LearnerOptions{}, columns, "y,a").status().message(),
            "there is no column \"nowhere\"; there are: y, a");
}

TEST(InputFeatures, MakeTheExampleOfTheEqualLine) {
  LearnerOptions o;
  o.interactions = {"sc"};
  auto inputs = InputFeatures::Create(o, {"size", "colour"});
  ASSERT_TRUE(inputs.ok());
  Example e;
  inputs->Begin(&e);
  const std::vector<float> numbers{.5f, 0, 2};
  inputs->Numbers(0, numbers);
  inputs->Text(1, "red");
  ASSERT_TRUE(inputs->Finish().ok());
  EXPECT_EQ(Sorted(e.features), Sorted(Parsed("|size 0:.5 2:2 |colour red", {"sc"}).features));
}

}  // namespace
}  // namespace ganglion::online
