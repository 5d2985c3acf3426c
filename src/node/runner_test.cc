#include "node/runner.h"

#include <gtest/gtest.h>

#include <future>

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Tensor;

class Echo final : public Runner {
 public:
  Result<std::vector<Tensor>> Run(std::span<const tensor::View> inputs) const override {
    std::vector<Tensor> out;
    for (const auto& in : inputs)
      out.push_back(Tensor::FromBytes(in.type, tensor::Shape(in.shape.begin(), in.shape.end()), in.bytes).value());
    return out;
  }
  bool together() const override { return true; }
};

// What a reload takes away: its runner and queue end with the last request that holds it.
struct Model {
  explicit Model(Executor* executor)
      : queue(&runner, executor, batching::Batcher::Create({}).value(), [](std::int64_t) {}) {}
  Echo runner;
  BatchQueue queue;
};

class LastRequest final : public Waiting {
 public:
  explicit LastRequest(std::shared_ptr<Model> model) : model_(std::move(model)) {
    types = {DataType::kFp32};
    shapes = {{1, 1}};
    deadline = TimePoint::max();
  }
  bool Collect(std::vector<std::vector<std::byte>>* into) override {
    into->resize(1);
    (*into)[0].resize(4);
    return true;
  }
  void Deliver(Result<std::vector<Tensor>>, Duration) override {
    const std::weak_ptr<Model> model = model_;
    model_.reset();
    still_there.set_value(!model.expired());
  }
  void Expire() override { still_there.set_value(false); }

  std::promise<bool> still_there;

 private:
  std::shared_ptr<Model> model_;
};

TEST(BatchQueue, OutlivesTheRequestThatHeldItsModelLast) {
  Executor executor(1);
  auto model = std::make_shared<Model>(&executor);
  auto last = std::make_shared<LastRequest>(model);
  std::weak_ptr<Model> gone = model;
  ASSERT_TRUE(model->queue.Enqueue(last, model));
  model.reset();  // the reload
  EXPECT_TRUE(last->still_there.get_future().get()) << "the worker is still inside the queue";
  executor.Stop();
  EXPECT_TRUE(gone.expired()) << "nothing is left of it afterwards";
}

}  // namespace
}  // namespace ganglion::node
