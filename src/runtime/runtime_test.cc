#include "runtime/runtime.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::runtime {
namespace {

using tensor::DataType;

model::Model Linear(const std::string& op = "MatMul") {
  onnx::ModelProto proto;
  graph::GraphBuilder g(&proto);
  g.Input({"x", DataType::kFp32, {-1, 2}});
  const std::array<float, 4> w{1, 2, 3, 4};
  g.Initializer("w", tensor::Tensor::From<float>({2, 2}, w).value());
  g.Node(op, {"x", "w"}, {}, "y");
  g.Output({"y", DataType::kFp32, {-1, 2}});
  return model::Model::FromBytes("linear.onnx", graph::Serialize(proto)).value();
}

TEST(Session, RunsAnyBatch) {
  const auto engine = Engine::Create().value();
  const auto session = Session::Create(engine, Linear()).value();
  const std::array<float, 4> x{1, 0, 1, 1};
  for (const std::int64_t rows : {1, 2}) {
    const tensor::Shape shape{rows, 2};
    const tensor::View view{DataType::kFp32, shape,
                            std::as_bytes(std::span(x.data(), static_cast<std::size_t>(rows) * 2))};
    const auto out = session->Run({&view, 1});
    ASSERT_TRUE(out.ok()) << out.status().message();
    EXPECT_EQ((*out)[0].shape()[0], rows);
    EXPECT_EQ((*out)[0].As<float>()[1], 2);
  }
}

TEST(Session, RefusesTheWrongShapeDatatypeAndCount) {
  const auto engine = Engine::Create().value();
  const auto session = Session::Create(engine, Linear()).value();
  const std::array<float, 3> x{1, 2, 3};
  const tensor::Shape shape{1, 3};
  const tensor::View wide{DataType::kFp32, shape, std::as_bytes(std::span(x))};
  EXPECT_EQ(session->Run({&wide, 1}).status().message(),
            "linear.onnx: input \"x\" is FP32[1,3], want FP32[-1,2]; reshape, or set pre");
  EXPECT_FALSE(session->Run({}).ok());
}

TEST(Session, SaysWhichModelTheRuntimeRefuses) {
  const auto engine = Engine::Create().value();
  const auto refused = Session::Create(engine, Linear("NoSuchOperator"));
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("linear.onnx: "), std::string::npos);
  EXPECT_NE(refused.status().message().find("NoSuchOperator"), std::string::npos) << refused.status().message();
}

TEST(Binding, ReadsAndWritesTheMemoryItWasGiven) {
  const auto engine = Engine::Create().value();
  const auto session = Session::Create(engine, Linear()).value();
  std::array<float, 2> x{1, 1};
  std::array<float, 2> y{};
  const tensor::Shape shape{1, 2};
  const tensor::View in{DataType::kFp32, shape, std::as_bytes(std::span(x))};
  const tensor::MutableView out{DataType::kFp32, shape, std::as_writable_bytes(std::span(y))};
  auto binding = session->Bind({{"x", in}}, {{"y", out}});
  ASSERT_TRUE(binding.ok()) << binding.status().message();
  ASSERT_TRUE(binding->Run().ok());
  EXPECT_EQ(y[1], 6);
  x[0] = 10;
  ASSERT_TRUE(binding->Run().ok());
  EXPECT_EQ(y[0], 13);
  EXPECT_FALSE(session->Bind({{"z", in}}, {{"y", out}}).ok());
  EXPECT_FALSE(session->Bind({{"x", in}}, {{"z", out}}).ok());
}

TEST(Session, IsSharedByThreads) {
  const auto engine = Engine::Create().value();
  const auto session = Session::Create(engine, Linear()).value();
  std::array<int, 4> wrong{};
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 200; ++i) {
          const std::array<float, 2> x{static_cast<float>(i), static_cast<float>(t)};
          const tensor::Shape shape{1, 2};
          const tensor::View view{DataType::kFp32, shape, std::as_bytes(std::span(x))};
          const auto out = session->Run({&view, 1});
          if (!out.ok() || (*out)[0].As<float>()[0] != x[0] + 3 * x[1]) ++wrong[t];
        }
      });
    }
  }
  for (const int w : wrong) EXPECT_EQ(w, 0);
}

}  // namespace
}  // namespace ganglion::runtime
