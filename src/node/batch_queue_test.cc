// The queue in front of a runner: whose rows share a run, and whose are never computed.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "base/guarded.h"
#include "base/random.h"
#include "node/fixture_test.h"
#include "node/runner.h"

namespace ganglion::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using tensor::DataType;
using tensor::Tensor;

constexpr auto kPatience = std::chrono::seconds(20);

template <typename F>
bool Eventually(F&& so) {
  const auto end = steady_clock::now() + kPatience;
  while (!so()) {
    if (steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

// Doubles its input. Stands still while it is closed.
class Doubling final : public Runner {
 public:
  explicit Doubling(bool together = true) : together_(together) {}
  Result<std::vector<Tensor>> Run(std::span<const tensor::View> inputs) const override {
    {
      std::unique_lock lock(mutex_);
      shapes_.emplace_back(inputs[0].shape.begin(), inputs[0].shape.end());
      changed_.notify_all();
      changed_.wait(lock, [this] { return !closed_; });
      if (!failure_.ok()) return failure_;
    }
    auto out = Tensor::Zeros(DataType::kFp32, {inputs[0].shape.begin(), inputs[0].shape.end()}).value();
    const auto in = inputs[0].As<float>();
    for (std::size_t i = 0; i < in.size(); ++i) out.As<float>()[i] = 2 * in[i];
    std::vector<Tensor> outputs;
    outputs.push_back(std::move(out));
    return outputs;
  }
  bool together() const override { return together_; }

  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  void Open() {
    std::lock_guard lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void FailWith(Status status) {
    std::lock_guard lock(mutex_);
    failure_ = std::move(status);
  }
  // Shapes of the runs that have begun.
  std::vector<tensor::Shape> runs() const {
    std::lock_guard lock(mutex_);
    return shapes_;
  }

 private:
  const bool together_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::vector<tensor::Shape> shapes_;
  bool closed_ = false;
  Status failure_;
};

// A request of some rows.
class Request final : public Waiting {
 public:
  explicit Request(std::vector<float> values, std::int64_t width = 1, TimePoint until = TimePoint::max())
      : values_(std::move(values)) {
    types = {DataType::kFp32};
    shapes = {{static_cast<std::int64_t>(values_.size()) / width, width}};
    deadline = until;
  }
  bool Collect(std::vector<std::vector<std::byte>>* into) override {
    ++collected;
    if (gone) return false;
    into->resize(1);
    const auto bytes = std::as_bytes(std::span(values_));
    (*into)[0].insert((*into)[0].end(), bytes.begin(), bytes.end());
    return true;
  }
  void Deliver(Result<std::vector<Tensor>> outputs, Duration waited) override {
    queued = waited;
    if (outputs.ok()) {
      const auto got = (*outputs)[0].As<float>();
      right = got.size() == values_.size() && (*outputs)[0].shape() == shapes[0];
      for (std::size_t i = 0; right && i < got.size(); ++i) right = got[i] == 2 * values_[i];
    } else {
      status = outputs.status();
    }
    ++delivered;
  }
  void Expire() override { ++expired; }
  bool ended() const { return delivered + expired > 0; }

  std::atomic<bool> gone{false};
  std::atomic<int> collected{0}, delivered{0}, expired{0};
  // Once delivered.
  bool right = false;
  Status status;
  Duration queued{};

 private:
  const std::vector<float> values_;
};

struct Bench {
  explicit Bench(batching::BatchOptions options = {}, int workers = 1, bool together = true)
      : runner(together), executor(workers) {
    queue = std::make_shared<BatchQueue>(&runner, &executor, batching::Batcher::Create(options).value(),
                                         [this](std::int64_t rows) { batched += rows; });
  }
  ~Bench() {
    runner.Open();
    executor.Stop();
  }
  std::shared_ptr<Request> Add(std::vector<float> values, std::int64_t width = 1, TimePoint until = TimePoint::max()) {
    auto request = std::make_shared<Request>(std::move(values), width, until);
    EXPECT_TRUE(Put(request));
    return request;
  }
  bool Put(const std::shared_ptr<Request>& request) { return queue->Enqueue(request, queue); }
  // A request in a run that does not end before Open: what comes now gathers.
  std::shared_ptr<Request> Occupy() {
    runner.Close();
    auto first = Add({1});
    EXPECT_TRUE(Eventually([&] { return runner.runs().size() == 1; }));
    return first;
  }

  Doubling runner;
  std::atomic<std::int64_t> batched{0};
  std::shared_ptr<BatchQueue> queue;
  Executor executor;
};

TEST(BatchQueueOfARunner, ALoneRequestRunsAtOnceAndAlone) {
  Bench bench;
  const auto request = bench.Add({1, 2, 3});
  ASSERT_TRUE(Eventually([&] { return request->ended(); }));
  EXPECT_TRUE(request->right);
  EXPECT_EQ(request->collected, 1);
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{3, 1}}));
  EXPECT_EQ(bench.queue->depth(), 0u);
  EXPECT_EQ(bench.batched, 3);
}

TEST(BatchQueueOfARunner, RequestsGatherWhileWorkersAreBusyAndShareARun) {
  Bench bench;
  const auto first = bench.Occupy();
  std::vector<std::shared_ptr<Request>> others;
  for (int i = 0; i < 5; ++i) others.push_back(bench.Add({static_cast<float>(i), static_cast<float>(10 * i)}));
  EXPECT_EQ(bench.queue->depth(), 5u);
  bench.runner.Open();
  for (const auto& r : others) {
    ASSERT_TRUE(Eventually([&] { return r->ended(); }));
    EXPECT_TRUE(r->right);
    EXPECT_GT(r->queued, Duration::zero());
  }
  EXPECT_TRUE(first->right);
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{1, 1}, {10, 1}}));
}

TEST(BatchQueueOfARunner, ARunHasAtMostItsRowsInTheOrderOfTheirComing) {
  Bench bench({.max_rows = 4});
  (void)bench.Occupy();
  std::vector<std::shared_ptr<Request>> others;
  for (const int rows : {3, 1, 2, 9, 1})
    others.push_back(bench.Add(std::vector<float>(static_cast<std::size_t>(rows), static_cast<float>(rows))));
  bench.runner.Open();
  for (const auto& r : others) {
    ASSERT_TRUE(Eventually([&] { return r->ended(); }));
    EXPECT_TRUE(r->right);
  }
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{1, 1}, {4, 1}, {2, 1}, {9, 1}, {1, 1}}));
}

TEST(BatchQueueOfARunner, RowsOfDifferentShapesRunApart) {
  Bench bench;
  (void)bench.Occupy();
  const auto narrow = bench.Add({1, 2});
  const auto wide = bench.Add({1, 2, 3, 4, 5, 6}, 3);
  const auto narrow_too = bench.Add({5});
  bench.runner.Open();
  for (const auto& r : {narrow, wide, narrow_too}) {
    ASSERT_TRUE(Eventually([&] { return r->ended(); }));
    EXPECT_TRUE(r->right);
  }
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{1, 1}, {3, 1}, {2, 3}}));
}

TEST(BatchQueueOfARunner, RowsOfAModelThatMixesThemRunApart) {
  Bench bench({}, 1, /*together=*/false);
  (void)bench.Occupy();
  const auto a = bench.Add({1, 2});
  const auto b = bench.Add({3});
  bench.runner.Open();
  for (const auto& r : {a, b}) {
    ASSERT_TRUE(Eventually([&] { return r->ended(); }));
    EXPECT_TRUE(r->right);
  }
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{1, 1}, {2, 1}, {1, 1}}));
}

TEST(BatchQueueOfARunner, WhatHasExpiredIsNeverComputed) {
  Bench bench;
  (void)bench.Occupy();
  const auto soon = steady_clock::now() + milliseconds(5);
  const auto late = bench.Add({7}, 1, soon);
  const auto patient = bench.Add({8});
  ASSERT_TRUE(Eventually([&] { return steady_clock::now() > soon; }));
  bench.runner.Open();
  ASSERT_TRUE(Eventually([&] { return late->ended() && patient->ended(); }));
  EXPECT_EQ(late->expired, 1);
  EXPECT_EQ(late->collected, 0);
  EXPECT_EQ(late->delivered, 0);
  EXPECT_TRUE(patient->right);
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{1, 1}, {1, 1}}));
  EXPECT_EQ(bench.queue->depth(), 0u);
}

TEST(BatchQueueOfARunner, WhoGaveUpIsLeftOut) {
  Bench bench;
  (void)bench.Occupy();
  const auto gone = bench.Add({1, 1, 1});
  const auto there = bench.Add({2});
  gone->gone = true;
  bench.runner.Open();
  ASSERT_TRUE(Eventually([&] { return there->ended(); }));
  EXPECT_TRUE(there->right);
  EXPECT_EQ(gone->collected, 1);
  EXPECT_FALSE(gone->ended());
  EXPECT_EQ(bench.runner.runs().back(), (tensor::Shape{1, 1}));
  // With nobody left there is no run at all.
  bench.runner.Close();
  const auto busy = bench.Add({1});
  ASSERT_TRUE(Eventually([&] { return bench.runner.runs().size() == 3; }));
  const auto last = bench.Add({4});
  last->gone = true;
  bench.runner.Open();
  ASSERT_TRUE(Eventually([&] { return busy->ended() && last->collected == 1; }));
  bench.executor.Stop();
  EXPECT_EQ(bench.runner.runs().size(), 3u);
  EXPECT_FALSE(last->ended());
}

TEST(BatchQueueOfARunner, AFailureIsToldToEachOfTheRun) {
  Bench bench;
  (void)bench.Occupy();
  const auto a = bench.Add({1});
  const auto b = bench.Add({2});
  bench.runner.FailWith(Internal("out of order"));
  bench.runner.Open();
  for (const auto& r : {a, b}) {
    ASSERT_TRUE(Eventually([&] { return r->ended(); }));
    EXPECT_EQ(r->status.message(), "out of order");
  }
  bench.runner.FailWith({});
  const auto next = bench.Add({3});
  ASSERT_TRUE(Eventually([&] { return next->ended(); }));
  EXPECT_TRUE(next->right);
}

TEST(BatchQueueOfARunner, AFullQueueSaysSo) {
  Bench bench({.max_queue = 2});
  (void)bench.Occupy();
  (void)bench.Add({1});
  (void)bench.Add({2});
  const auto third = std::make_shared<Request>(std::vector<float>{3});
  EXPECT_FALSE(bench.Put(third));
  EXPECT_EQ(bench.queue->depth(), 2u);
  bench.runner.Open();
  EXPECT_TRUE(Eventually([&] { return bench.queue->depth() == 0; }));
  EXPECT_EQ(third->collected, 0);
}

TEST(BatchQueueOfARunner, WithADelayIdleWorkersWaitForCompany) {
  Bench bench({.max_rows = 3, .max_delay = std::chrono::seconds(5)}, 2);
  const auto began = steady_clock::now();
  const auto a = bench.Add({1});
  const auto b = bench.Add({2});
  const auto c = bench.Add({3});  // full: nobody waits any longer
  for (const auto& r : {a, b, c}) ASSERT_TRUE(Eventually([&] { return r->ended(); }));
  EXPECT_LT(steady_clock::now() - began, std::chrono::seconds(5));
  EXPECT_EQ(bench.runner.runs(), (std::vector<tensor::Shape>{{3, 1}}));
}

TEST(BatchQueueOfARunner, ALoneRequestWaitsNoLongerThanTheDelay) {
  Bench bench({.max_rows = 3, .max_delay = milliseconds(20)}, 2);
  const auto began = steady_clock::now();
  const auto alone = bench.Add({1});
  ASSERT_TRUE(Eventually([&] { return alone->ended(); }));
  EXPECT_GE(steady_clock::now() - began, milliseconds(20));
  EXPECT_TRUE(alone->right);
  // A nearer deadline calls earlier: half of what can be spared at most.
  const auto hasty = bench.Add({2}, 1, steady_clock::now() + std::chrono::seconds(10));
  ASSERT_TRUE(Eventually([&] { return hasty->ended(); }));
  EXPECT_EQ(hasty->delivered, 1);
}

// Against the simplest model: each request gets twice its own numbers, once.
TEST(BatchQueueOfARunner, UnderLoadEveryRequestGetsItsOwnAnswerOnce) {
  constexpr int kThreads = 4;
  constexpr int kEach = 200;
  Bench bench({.max_rows = 16, .max_queue = 100'000}, 2);
  std::vector<std::vector<std::shared_ptr<Request>>> all(kThreads);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Random random(t + 1);
        for (int i = 0; i < kEach; ++i) {
          const auto width = static_cast<std::int64_t>(random.Below(3) + 1);
          std::vector<float> values;
          for (std::int64_t n = static_cast<std::int64_t>(random.Below(5) + 1) * width; n > 0; --n)
            values.push_back(static_cast<float>(random.Uniform()));
          all[t].push_back(bench.Add(std::move(values), width));
        }
      });
    }
  }
  std::int64_t rows = 0;
  for (const auto& each : all) {
    for (const auto& r : each) {
      ASSERT_TRUE(Eventually([&] { return r->ended(); }));
      rows += r->rows();
    }
  }
  bench.executor.Stop();
  for (const auto& each : all) {
    for (const auto& r : each) {
      EXPECT_TRUE(r->right);
      EXPECT_EQ(r->delivered, 1);
      EXPECT_EQ(r->expired, 0);
    }
  }
  EXPECT_EQ(bench.batched, rows);
  EXPECT_EQ(bench.queue->depth(), 0u);
}

// ---- Real models ---------------------------------------------------------------------------------------------------

class RunnerOfAModel : public fixture::DecisionDir {
 protected:
  std::unique_ptr<ModelRunner> Load(const std::string& bytes) {
    auto model = model::Model::FromBytes("m.onnx", bytes).value();
    return std::make_unique<ModelRunner>(runtime::Session::Create(engine_, model).value());
  }
  // y = x W / (the largest |x| of the whole batch): what a dynamically quantised model does to its rows.
  static std::string Mixing() {
    onnx::ModelProto m;
    graph::GraphBuilder g(&m);
    g.Input({"x", DataType::kFp32, {-1, 2}});
    g.Initializer("w", Tensor::From<float>({2, 4}, fixture::Quadrants(2)).value());
    const std::string y = g.Node("MatMul", {"x", "w"});
    const std::string largest = g.Node("ReduceMax", {g.Node("Abs", {"x"})}, {{"keepdims", std::int64_t{0}}});
    g.Node("Div", {y, largest}, {}, "scaled");
    g.Output({"scaled", DataType::kFp32, {-1, 4}});
    return graph::Serialize(m);
  }
};

TEST_F(RunnerOfAModel, FindsOutWhetherRowsMayShareARun) {
  const auto linear = Load(fixture::LinearModel(fixture::Quadrants(1)));
  EXPECT_TRUE(linear->together());
  EXPECT_GT(linear->usual(), Duration::zero());  // it has been tried
  EXPECT_GE(linear->usual(), linear->fastest(std::chrono::steady_clock::now()));
  EXPECT_FALSE(Load(Mixing())->together());
  onnx::ModelProto fixed;  // no batch dimension to share
  graph::GraphBuilder g(&fixed);
  g.Input({"x", DataType::kFp32, {1, 2}});
  g.Node("Relu", {"x"}, {}, "y");
  g.Output({"y", DataType::kFp32, {1, 2}});
  EXPECT_FALSE(Load(graph::Serialize(fixed))->together());
}

TEST_F(RunnerOfAModel, AStageThatMixesRowsAnswersABatchRowByRow) {
  WriteThreeTiers("  - {tier: device, model: mixes.onnx}\n  - {tier: global, model: a.onnx}\n");
  Write("mixes.onnx", Mixing());
  CalibrateInPlace(1000);
  const auto decision = Decision::Open(engine_, dir_).value();
  const StageRunner mixing(decision->stage(0));
  const StageRunner plain(decision->stage(1));
  EXPECT_FALSE(mixing.together());
  EXPECT_TRUE(plain.together());
  const auto points = fixture::MakePoints(20, 4);
  const tensor::View all = points.x.View();
  for (const StageRunner* runner : {&mixing, &plain}) {
    const auto batch = runner->Run({&all, 1}).value();
    ASSERT_EQ(batch[0].shape(), (tensor::Shape{20, 4}));
    for (std::int64_t r = 0; r < 20; ++r) {
      tensor::Shape shape;
      const auto row = tensor::Rows(all, r, r + 1, &shape);
      const auto alone = runner->Run({&row, 1}).value();
      for (std::size_t k = 0; k < 4; ++k)
        EXPECT_NEAR(alone[0].As<float>()[k], batch[0].As<float>()[static_cast<std::size_t>(r) * 4 + k], 1e-4);
    }
  }
}

}  // namespace
}  // namespace ganglion::node
