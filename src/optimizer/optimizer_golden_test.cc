// Against PyTorch 1.13: tests/golden/optimizers.txt, written by tests/golden/optimizers.py in double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "optimizer/clip.h"
#include "optimizer/optimizer.h"
#include "optimizer/schedule.h"

namespace ganglion::optimizer {
namespace {

constexpr std::size_t kNumbers = 8;
constexpr int kSteps = 6;

float Start(std::size_t i) { return static_cast<float>(std::sin(.7 * static_cast<double>(i) + .3)); }
float Gradient(std::size_t i, int t) {
  return static_cast<float>(std::cos(1.3 * static_cast<double>(i) + .9 * t) * (t == 3 ? 5. : 1.));
}

// Calls `each` with the rest of every line that begins with `what`; returns how many there were.
template <typename F>
int Lines(const std::string& what, F&& each) {
  std::ifstream file(GANGLION_SOURCE_DIR "/tests/golden/optimizers.txt");
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string first;
    in >> first;
    if (first != what) continue;
    ++count;
    each(in);
    EXPECT_FALSE(in.fail()) << line;
  }
  return count;
}

TEST(OptimizerGolden, EveryKindStepsAsPyTorchDoes) {
  EXPECT_EQ(Lines("optimizer",
                  [](std::istream& in) {
                    std::string name;
                    Options o;
                    in >> name >> o.rate >> o.momentum >> o.beta1 >> o.beta2 >> o.epsilon >> o.weight_decay >>
                        o.initial_second;
                    o.kind = KindFromName(name).value();
                    std::vector<float> p(kNumbers);
                    for (std::size_t i = 0; i < kNumbers; ++i) p[i] = Start(i);
                    auto optimizer = Optimizer::Create(o, kNumbers).value();
                    for (int t = 1; t <= kSteps; ++t) {
                      std::vector<float> g(kNumbers);
                      for (std::size_t i = 0; i < kNumbers; ++i) g[i] = Gradient(i, t);
                      optimizer.Step(p, g);
                    }
                    for (std::size_t i = 0; i < kNumbers; ++i) {
                      double expected = 0;
                      in >> expected;
                      EXPECT_NEAR(p[i], expected, 2e-6) << name << " decay " << o.weight_decay << " number " << i;
                    }
                  }),
            12);
}

TEST(ScheduleGolden, EveryScheduleFollowsPyTorchs) {
  EXPECT_EQ(Lines("schedule",
                  [](std::istream& in) {
                    std::string text;
                    std::int64_t steps = 0;
                    std::int64_t epoch_steps = 0;
                    in >> text >> steps >> epoch_steps;
                    const auto schedule = ParseSchedule(text);
                    ASSERT_TRUE(schedule.ok()) << schedule.status().message();
                    for (std::int64_t s = 0; s < steps; ++s) {
                      double expected = 0;
                      in >> expected;
                      EXPECT_NEAR(RateAt(*schedule, s, steps, epoch_steps), expected, 1e-10) << text << " step " << s;
                    }
                  }),
            7);
}

TEST(PlateauGolden, ScalesWhenPyTorchDoes) {
  EXPECT_EQ(Lines("plateau",
                  [](std::istream& in) {
                    std::string text;
                    std::size_t n = 0;
                    in >> text >> n;
                    std::vector<double> losses(n);
                    for (double& loss : losses) in >> loss;
                    Plateau plateau(ParseSchedule(text).value());
                    for (std::size_t i = 0; i < n; ++i) {
                      double expected = 0;
                      in >> expected;
                      plateau.Observe(losses[i]);
                      EXPECT_NEAR(plateau.scale(), expected, 1e-12) << text << " observation " << i;
                    }
                  }),
            2);
}

TEST(ClipGolden, ScalesAsPyTorchDoes) {
  EXPECT_EQ(Lines("clip",
                  [](std::istream& in) {
                    double limit = 0;
                    double norm = 0;
                    in >> limit >> norm;
                    std::vector<float> g(kNumbers);
                    for (std::size_t i = 0; i < kNumbers; ++i) g[i] = Gradient(i, 3);
                    EXPECT_NEAR(ClipByNorm(g, limit), norm, 1e-5);
                    for (std::size_t i = 0; i < kNumbers; ++i) {
                      double expected = 0;
                      in >> expected;
                      EXPECT_NEAR(g[i], expected, 2e-6) << limit << ' ' << i;
                    }
                  }),
            3);
}

}  // namespace
}  // namespace ganglion::optimizer
