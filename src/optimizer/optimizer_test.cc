#include "optimizer/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ganglion::optimizer {
namespace {

// Plain loops in double precision, written from the definitions in the header.
std::vector<double> Reference(const Options& o, std::vector<double> p, const std::vector<double>& g, int steps) {
  std::vector<double> m(p.size());
  std::vector<double> v(p.size());
  for (int t = 1; t <= steps; ++t) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double d = g[i] * t + o.weight_decay * p[i];
      if (o.kind == Kind::kSgd) {
        m[i] = o.momentum * m[i] + d;
        p[i] -= o.rate * m[i];
      } else {
        m[i] = o.beta1 * m[i] + (1 - o.beta1) * d;
        v[i] = o.beta2 * v[i] + (1 - o.beta2) * d * d;
        p[i] -=
            o.rate * (m[i] / (1 - std::pow(o.beta1, t))) / (std::sqrt(v[i] / (1 - std::pow(o.beta2, t))) + o.epsilon);
      }
    }
  }
  return p;
}

TEST(Optimizer, FollowsItsDefinition) {
  for (const Options& o :
       {Options{.rate = .1}, Options{.rate = .1, .momentum = .9},
        Options{.rate = .1, .momentum = .5, .weight_decay = .01}, Options{.kind = Kind::kAdam, .rate = .01},
        Options{.kind = Kind::kAdam, .rate = .01, .weight_decay = .1}}) {
    std::vector<float> p(37);
    std::vector<double> p0(37);
    std::vector<double> g0(37);
    for (std::size_t i = 0; i < 37; ++i) {
      p[i] = static_cast<float>(std::sin(static_cast<double>(i)));
      p0[i] = p[i];
      g0[i] = static_cast<float>(std::cos(3. * static_cast<double>(i)));
    }
    auto optimizer = Optimizer::Create(o, 37).value();
    for (int t = 1; t <= 5; ++t) {
      std::vector<float> g(37);
      for (std::size_t i = 0; i < 37; ++i) g[i] = static_cast<float>(g0[i] * t);
      optimizer.Step(p, g);
    }
    const auto expected = Reference(o, p0, g0, 5);
    for (std::size_t i = 0; i < 37; ++i) EXPECT_NEAR(p[i], expected[i], 2e-6) << Name(o.kind) << ' ' << i;
  }
}

TEST(Optimizer, ContinuesFromARestoredStateToTheBit) {
  const Options o{.kind = Kind::kAdam, .rate = .01};
  std::vector<float> a(10, 1);
  const std::vector<float> g(10, .3f);
  auto first = Optimizer::Create(o, 10).value();
  first.Step(a, g);
  auto b = a;
  auto second = Optimizer::Create(o, 10).value();
  ASSERT_TRUE(second.Restore(first.state()).ok());
  first.Step(a, g);
  second.Step(b, g);
  EXPECT_EQ(a, b);
  EXPECT_FALSE(Optimizer::Create(o, 9)->Restore(first.state()).ok());
}

TEST(Optimizer, RefusesOptionsOutOfRange) {
  EXPECT_EQ(Optimizer::Create({.rate = -1}, 1).status().message(), "rate must be > 0 and finite, got -1.000000");
  EXPECT_FALSE(Optimizer::Create({.rate = std::nan("")}, 1).ok());
  EXPECT_FALSE(Optimizer::Create({.momentum = 1}, 1).ok());
  EXPECT_FALSE(Optimizer::Create({.kind = Kind::kAdam, .beta2 = 1.5}, 1).ok());
  EXPECT_FALSE(Optimizer::Create({.epsilon = 0}, 1).ok());
  EXPECT_FALSE(Optimizer::Create({.weight_decay = -1}, 1).ok());
}

TEST(CosineSchedule, RisesThenFallsToZero) {
  EXPECT_LT(CosineSchedule(0, 1000, .1), .01);
  EXPECT_NEAR(CosineSchedule(100, 1000, .1), 1, 1e-3);
  EXPECT_LT(CosineSchedule(999, 1000, .1), 1e-4);
  EXPECT_NEAR(CosineSchedule(0, 1, 0), .5, 1e-12);
}

}  // namespace
}  // namespace ganglion::optimizer
