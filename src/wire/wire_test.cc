#include "wire/wire.h"

#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>

namespace ganglion::wire {
namespace {

TEST(ParseJson, BoundsDepthAndSaysWhereItFails) {
  Json j;
  EXPECT_TRUE(ParseJson(R"({"a": [1, "]]]]"]})", &j).ok());
  EXPECT_FALSE(ParseJson(std::string(100'000, '['), &j).ok());
  EXPECT_TRUE(ParseJson("\"" + std::string(1000, '[') + "\"", &j).ok());
  EXPECT_NE(ParseJson("{\"a\":\n tru}", &j).message().find("line 2"), std::string::npos);
  for (const char* bad : {"", "{", "[1,]", "nan", "{\"a\":1}x", "\"\\u12\""})
    EXPECT_FALSE(ParseJson(bad, &j).ok()) << bad;
}

TEST(Get, NamesTheKeyThatIsMissingOrOfAnotherType) {
  Json j;
  ASSERT_TRUE(ParseJson(R"({"n": 1.5, "s": "x", "i": 3})", &j).ok());
  EXPECT_EQ(GetNumber(j, "n").value(), 1.5);
  EXPECT_EQ(GetInteger(j, "i").value(), 3);
  EXPECT_EQ(GetString(j, "s").value(), "x");
  EXPECT_EQ(GetString(j, "n").status().message(), "\"n\" is no string");
  EXPECT_EQ(GetNumber(j, "m").status().message(), "\"m\" is missing");
  EXPECT_FALSE(GetArray(Json(3), "m").ok());
}

TEST(WriteJson, GivesNumbersThatReadTheSame) {
  Json j;
  j["x"] = 0.1 + 0.2;
  Json back;
  ASSERT_TRUE(ParseJson(WriteJson(j), &back).ok());
  EXPECT_EQ(back["x"].get<double>(), 0.1 + 0.2);
}

TEST(EncodeInferRequest, PutsTheBytesAfterTheHead) {
  const std::array<float, 2> x{1, 2};
  const tensor::Shape shape{1, 2};
  const NamedTensor in{"image", {tensor::DataType::kFp32, shape, std::as_bytes(std::span(x))}};
  const auto r = EncodeInferRequest("7", {&in, 1});
  EXPECT_EQ(r.body.size(), r.json_bytes + 8);
  EXPECT_EQ(
      r.body.substr(0, r.json_bytes),
      R"({"id":"7","inputs":[{"name":"image","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]})");
}

}  // namespace
}  // namespace ganglion::wire
