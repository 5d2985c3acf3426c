#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace ganglion::tensor {
namespace {

TEST(DataType, NamesRoundTrip) {
  for (const char* name : {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
                           "BF16", "FP32", "FP64", "BYTES"}) {
    ASSERT_TRUE(DataTypeFromName(name)) << name;
    EXPECT_EQ(Name(*DataTypeFromName(name)), name);
  }
  EXPECT_FALSE(DataTypeFromName("FP8"));
  EXPECT_EQ(SizeOf(DataType::kFp64), 8u);
}

TEST(Tensor, RefusesShapesBeyondTheLimits) {
  EXPECT_FALSE(Tensor::Zeros(DataType::kFp32, {-1, 3}).ok());
  EXPECT_FALSE(Tensor::Zeros(DataType::kFp32, Shape(17, 1)).ok());
  // The product overflows 64 bits: it must be refused, not wrapped.
  EXPECT_FALSE(Tensor::Zeros(DataType::kFp32, {std::int64_t{1} << 32, std::int64_t{1} << 32}).ok());
  EXPECT_EQ(ElementCount(Shape{0, 5}).value(), 0);
  EXPECT_EQ(ElementCount(Shape{}).value(), 1);
}

TEST(Tensor, RefusesACountThatDoesNotMatchItsShape) {
  const std::array<float, 3> x{1, 2, 3};
  EXPECT_FALSE(Tensor::From<float>({2, 2}, x).ok());
  const auto t = Tensor::From<float>({1, 3}, x);
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->As<float>()[2], 3);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t->View().bytes.data()) % 64, 0u);
}

TEST(Tensor, ChecksTheEncodingOfBytes) {
  const std::array<unsigned char, 6> two{2, 0, 0, 0, 'h', 'i'};
  EXPECT_TRUE(Tensor::FromBytes(DataType::kBytes, {1}, std::as_bytes(std::span(two))).ok());
  EXPECT_FALSE(Tensor::FromBytes(DataType::kBytes, {2}, std::as_bytes(std::span(two))).ok());
  const std::array<unsigned char, 5> lies{255, 255, 255, 255, 'h'};
  EXPECT_FALSE(Tensor::FromBytes(DataType::kBytes, {1}, std::as_bytes(std::span(lies))).ok());
}

TEST(Spec, ReadsAndWritesItsText) {
  EXPECT_EQ(ParseSpec("FP32[-1,784]")->Text(), "FP32[-1,784]");
  EXPECT_EQ(ParseSpec("INT64[]")->Text(), "INT64[]");
  for (const char* bad :
       {"", "FP32", "FP32[", "FP32[a]", "FP32[1,]", "FP32[1 2]", "FP8[1]", "FP32[-2]", "FP32[99999999999999999999]"}) {
    EXPECT_FALSE(ParseSpec(bad).ok()) << bad;
  }
}

TEST(Spec, SaysWhatATensorIsAndWhatWasWanted) {
  Spec want = *ParseSpec("FP32[-1,784]");
  want.name = "image";
  const Shape shape{1, 28, 28};
  EXPECT_EQ(Matches(want, View{DataType::kFp32, shape, {}}).message(),
            "input \"image\" is FP32[1,28,28], want FP32[-1,784]; reshape, or set pre");
  const Shape good{5, 784};
  EXPECT_TRUE(Matches(want, View{DataType::kFp32, good, {}}).ok());
  EXPECT_FALSE(Matches(want, View{DataType::kFp64, good, {}}).ok());
}

TEST(CheckFinite, NamesTheFirstNumberThatIsNot) {
  std::vector<float> x(100, 1.5f);
  const Shape shape{100};
  const View view{DataType::kFp32, shape, std::as_bytes(std::span(x))};
  EXPECT_TRUE(CheckFinite("x", view).ok());
  x[57] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(CheckFinite("x", view).message(), "input \"x\" has an infinity at element 57; every number must be finite");
  x[3] = std::nanf("");
  EXPECT_EQ(CheckFinite("x", view).message(), "input \"x\" has NaN at element 3; every number must be finite");
}

TEST(Rows, BorrowsARangeOfTheFirstDimension) {
  const std::array<float, 6> x{1, 2, 3, 4, 5, 6};
  const auto t = Tensor::From<float>({3, 2}, x);
  Shape shape;
  const View rows = Rows(t->View(), 1, 3, &shape);
  EXPECT_EQ(ShapeText(rows.shape), "[2,2]");
  EXPECT_EQ(rows.As<float>()[0], 3);
}

}  // namespace
}  // namespace ganglion::tensor
