// One list of checks over every code, and what each promises about its bytes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/random.h"
#include "compress/compress.h"
#include "compress/power_sgd.h"
#include "compress/quantize.h"
#include "compress/top_k.h"

namespace ganglion::compress {
namespace {

constexpr std::size_t kSize = 3000;
// Two matrices with vectors before, between and after them, and one that is too small for rank 2.
const std::vector<Segment> kSegments = {{7, 30, 50}, {1600, 40, 20}, {2500, 3, 4}};

std::vector<float> Gradient(Random& random, std::size_t size = kSize) {
  std::vector<float> g(size);
  for (float& v : g) v = static_cast<float>(random.Normal() * std::exp(random.Normal()));
  return g;
}

double Norm(std::span<const float> v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.)); }

class EveryCode : public ::testing::TestWithParam<const char*> {
 protected:
  static std::unique_ptr<Compressor> Make(std::size_t size = kSize) {
    return Create(ParseOptions(GetParam()).value(), size, size == kSize ? kSegments : std::vector<Segment>{}).value();
  }
};

TEST_P(EveryCode, DeliversEverythingUpToItsResidual) {
  Random random(3);
  const auto code = Make();
  std::vector<double> sent(kSize);
  std::vector<float> received(kSize);
  for (int step = 0; step < 40; ++step) {
    const auto g = Gradient(random);
    std::string bytes;
    ASSERT_TRUE(code->Encode(g, &bytes).ok());
    ASSERT_TRUE(code->Accumulate(bytes, received).ok());
    for (std::size_t i = 0; i < kSize; ++i) sent[i] += g[i];
  }
  for (std::size_t i = 0; i < kSize; ++i)
    ASSERT_NEAR(received[i] + code->residual()[i], sent[i], 2e-3) << GetParam() << " number " << i;
}

TEST_P(EveryCode, KeepsItsResidualBoundedWhileGradientsGoOn) {
  Random random(4);
  const auto g = Gradient(random);  // the same direction again and again: what is left out must not pile up
  const auto code = Make();
  std::string bytes;
  double last = 0;
  for (int step = 1; step <= 1200; ++step) {
    ASSERT_TRUE(code->Encode(g, &bytes).ok());
    if (step == 600) last = Norm(code->residual());
  }
  EXPECT_LE(Norm(code->residual()), 1.5 * last + 1e-3) << GetParam();
}

TEST_P(EveryCode, GivesTheSameBytesForTheSameGradients) {
  const auto a = Make();
  const auto b = Make();
  Random random(5);
  for (int step = 0; step < 3; ++step) {
    const auto g = Gradient(random);
    std::string left;
    std::string right;
    ASSERT_TRUE(a->Encode(g, &left).ok());
    ASSERT_TRUE(b->Encode(g, &right).ok());
    EXPECT_EQ(left, right);
  }
}

TEST_P(EveryCode, AddsToWhatIsThere) {
  Random random(6);
  const auto code = Make();
  std::string bytes;
  ASSERT_TRUE(code->Encode(Gradient(random), &bytes).ok());
  std::vector<float> once(kSize);
  std::vector<float> onto(kSize, 1.F);
  ASSERT_TRUE(code->Accumulate(bytes, once).ok());
  ASSERT_TRUE(code->Accumulate(bytes, onto).ok());
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_NEAR(onto[i], once[i] + 1, 1e-4);
}

TEST_P(EveryCode, RefusesWhatIsNotFiniteAndStaysAsItWas) {
  Random random(7);
  const auto code = Make();
  const auto twin = Make();
  const auto g = Gradient(random);
  std::string bytes;
  std::string same;
  ASSERT_TRUE(code->Encode(g, &bytes).ok());
  ASSERT_TRUE(twin->Encode(g, &same).ok());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    auto broken = g;
    broken[1234] = bad;
    const auto s = code->Encode(broken, &bytes);
    ASSERT_EQ(s.code(), ganglion::Code::kInvalidArgument);
    EXPECT_NE(s.message().find("number 1234"), std::string::npos) << s.message();
  }
  ASSERT_TRUE(code->Encode(g, &bytes).ok());
  ASSERT_TRUE(twin->Encode(g, &same).ok());
  EXPECT_EQ(bytes, same);
}

TEST_P(EveryCode, RefusesBytesOfAnotherLengthAndChangesNothing) {
  Random random(8);
  const auto code = Make();
  std::string bytes;
  ASSERT_TRUE(code->Encode(Gradient(random), &bytes).ok());
  const std::vector<float> before(kSize, 2.F);
  auto out = before;
  for (std::size_t n = 0; n < bytes.size(); n += 1 + n / 7) {
    EXPECT_EQ(code->Accumulate(bytes.substr(0, n), out).code(), ganglion::Code::kDataLoss) << n;
  }
  EXPECT_EQ(code->Accumulate(bytes + "x", out).code(), ganglion::Code::kDataLoss);
  auto other = bytes;
  other[1] = 'x';
  EXPECT_EQ(code->Accumulate(other, out).code(), ganglion::Code::kDataLoss);
  std::vector<float> small(kSize - 1);
  EXPECT_EQ(Make(kSize - 1)->Accumulate(bytes, small).code(), ganglion::Code::kDataLoss);
  EXPECT_EQ(out, before);
}

TEST_P(EveryCode, SendsZerosAsZeros) {
  const auto code = Make();
  const std::vector<float> zeros(kSize);
  std::string bytes;
  for (int step = 0; step < 2; ++step) {
    ASSERT_TRUE(code->Encode(zeros, &bytes).ok());
    std::vector<float> out(kSize);
    ASSERT_TRUE(code->Accumulate(bytes, out).ok());
    EXPECT_EQ(out, zeros);
  }
  // And goes on with what comes then: nothing has died.
  Random random(9);
  const auto g = Gradient(random);
  ASSERT_TRUE(code->Encode(g, &bytes).ok());
  EXPECT_LT(Norm(code->residual()), Norm(g));
}

TEST_P(EveryCode, TakesOneNumber) {
  const auto code = Make(1);
  std::string bytes;
  const float one = -3.5F;
  float out = 0;
  ASSERT_TRUE(code->Encode({&one, 1}, &bytes).ok());
  ASSERT_TRUE(code->Accumulate(bytes, {&out, 1}).ok());
  EXPECT_NEAR(out, one, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Compress, EveryCode,
                         ::testing::Values("8bit", "topk:0.01", "topk:1", "powersgd:1", "powersgd:4"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

TEST(EightBit, TakesAQuarterOfTheBytesAndMissesByHalfALevel) {
  Random random(1);
  EightBit code(100'000);
  const auto g = Gradient(random, 100'000);
  std::string bytes;
  ASSERT_TRUE(code.Encode(g, &bytes).ok());
  EXPECT_EQ(bytes.size(), EightBit::Bytes(100'000));
  EXPECT_GE(400'000. / static_cast<double>(bytes.size()), 3.9);
  for (std::size_t block = 0; block < g.size(); block += EightBit::kBlock) {
    const auto part = std::span(g).subspan(block, std::min(EightBit::kBlock, g.size() - block));
    float top = 0;
    for (const float v : part) top = std::max(top, std::fabs(v));
    for (std::size_t i = 0; i < part.size(); ++i)
      ASSERT_LE(std::fabs(code.residual()[block + i]), top / 127 * .5001F) << block + i;
  }
}

TEST(EightBit, RefusesLevelsAndScalesThatNobodyWrites) {
  EightBit code(10);
  std::string bytes;
  ASSERT_TRUE(code.Encode(std::vector<float>(10, 1.F), &bytes).ok());
  std::vector<float> out(10);
  auto level = bytes;
  level[12] = static_cast<char>(-128);
  EXPECT_EQ(code.Accumulate(level, out).code(), ganglion::Code::kDataLoss);
  for (const float scale : {-1.F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    auto other = bytes;
    std::memcpy(other.data() + 8, &scale, 4);
    EXPECT_EQ(code.Accumulate(other, out).code(), ganglion::Code::kDataLoss) << scale;
  }
  EXPECT_EQ(out, std::vector<float>(10));
}

TEST(TopK, SendsExactlyTheLargest) {
  Random random(2);
  TopK code(5000, .02);
  const auto g = Gradient(random, 5000);
  std::string bytes;
  ASSERT_TRUE(code.Encode(g, &bytes).ok());
  std::vector<float> out(5000);
  ASSERT_TRUE(code.Accumulate(bytes, out).ok());
  std::vector<std::size_t> order(5000);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return std::fabs(g[a]) > std::fabs(g[b]); });
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i < 100) {
      ASSERT_NEAR(out[order[i]], g[order[i]], std::fabs(g[order[0]]) / 127 * .5001F) << i;
    } else {
      ASSERT_EQ(out[order[i]], 0) << i;
    }
  }
}

TEST(TopK, TakesTheFirstOfEqualMagnitudes) {
  TopK code(8, .25);
  std::string bytes;
  ASSERT_TRUE(code.Encode(std::vector<float>{1, -2, 2, 2, -2, 0, 1, 2}, &bytes).ok());
  std::vector<float> out(8);
  ASSERT_TRUE(code.Accumulate(bytes, out).ok());
  const std::vector<float> want{0, -2, 2, 0, 0, 0, 0, 0};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(out[i], want[i], 1e-6) << i;
}

TEST(TopK, AtThreePercentIsSixtyTimesSmaller) {
  Random random(2);
  TopK code(160'000, .03);
  std::string bytes;
  for (int step = 0; step < 3; ++step) {
    ASSERT_TRUE(code.Encode(Gradient(random, 160'000), &bytes).ok());
    EXPECT_GE(640'000. / static_cast<double>(bytes.size()), 60);
  }
}

TEST(PowerSgd, FindsAMatrixOfItsRankExactlyOnceWarm) {
  Random random(2);
  constexpr std::size_t kRows = 40;
  constexpr std::size_t kColumns = 60;
  std::vector<float> g(kRows * kColumns);
  for (int k = 0; k < 2; ++k) {
    const auto p = Gradient(random, kRows);
    const auto q = Gradient(random, kColumns);
    for (std::size_t i = 0; i < kRows; ++i) {
      for (std::size_t j = 0; j < kColumns; ++j) g[i * kColumns + j] += p[i] * q[j];
    }
  }
  const std::vector<Segment> whole = {{0, kRows, kColumns}};
  PowerSgd code(g.size(), whole, 2, 1);
  std::string bytes;
  ASSERT_TRUE(code.Encode(g, &bytes).ok());
  EXPECT_EQ(bytes.size(), 8 + 4 * 2 * (kRows + kColumns));
  EXPECT_LT(Norm(code.residual()), 1e-4 * Norm(g));
}

TEST(PowerSgd, OfManyWorkersAddsUpToTheirSum) {
  Random random(6);
  constexpr int kWorkers = 3;
  std::vector<PowerSgd> workers;
  for (int w = 0; w < kWorkers; ++w) workers.emplace_back(kSize, kSegments, 2, 1);
  std::vector<double> sent(kSize);
  std::vector<double> received(kSize);
  for (int step = 0; step < 15; ++step) {
    const auto add = [](std::vector<std::span<float>>& parts) {  // an all-reduce
      for (std::size_t i = 0; i < parts[0].size(); ++i) {
        float sum = 0;
        for (const auto& p : parts) sum += p[i];
        for (const auto& p : parts) p[i] = sum;
      }
    };
    std::vector<std::span<float>> parts;
    for (auto& w : workers) {
      const auto g = Gradient(random);
      for (std::size_t i = 0; i < kSize; ++i) sent[i] += g[i];
      parts.push_back(w.Left(g).value());
    }
    add(parts);
    parts.clear();
    for (auto& w : workers) parts.push_back(w.Right());
    add(parts);
    std::vector<float> first;
    for (auto& w : workers) {
      std::vector<float> out(kSize);
      w.Finish(out);
      if (first.empty()) {
        first = out;
        for (std::size_t i = 0; i < kSize; ++i) received[i] += out[i];
      }
      EXPECT_EQ(out, first);  // every worker sees the same
    }
  }
  for (std::size_t i = 0; i < kSize; ++i) {
    double left = 0;
    for (const auto& w : workers) left += w.residual()[i];
    ASSERT_NEAR(received[i] + left, sent[i], 3e-3) << i;
  }
}

TEST(CompressOptions, AreReadAndWritten) {
  for (const char* text : {"none", "8bit", "topk:0.01", "powersgd:4"})
    EXPECT_EQ(Name(ParseOptions(text).value()), text);
  EXPECT_EQ(Name(ParseOptions("topk").value()), "topk:0.03");
  for (const char* text : {"", "7bit", "topk:", "topk:0", "topk:1.5", "topk:nan", "topk:0.1:1",
                           "topk:0.1:", "topk:0.1:-1", "powersgd:0", "powersgd:65", "powersgd:2x", "8bit:3", "none:"})
    EXPECT_EQ(ParseOptions(text).status().code(), ganglion::Code::kInvalidArgument) << text;
}

TEST(CompressOptions, RefuseSegmentsThatDoNotFit) {
  const Options o = ParseOptions("powersgd:1").value();
  for (const std::vector<Segment>& bad :
       {std::vector<Segment>{{0, 11, 10}}, std::vector<Segment>{{95, 2, 3}},
        std::vector<Segment>{{0, 5, 10}, {49, 5, 5}}, std::vector<Segment>{{0, 0, 1}},
        std::vector<Segment>{{101, 1, 1}}, std::vector<Segment>{{4, std::size_t{1} << 62, 8}}}) {
    EXPECT_FALSE(Create(o, 100, bad).ok());
  }
  EXPECT_FALSE(Create(o, 0).ok());
  EXPECT_FALSE(Create({}, 10).ok());
}

}  // namespace
}  // namespace ganglion::compress
