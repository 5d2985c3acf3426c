#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "wire/rest.h"

namespace ganglion::wire {
namespace {

using tensor::DataType;

TEST(Documents, HaveTheMembersThatClientsRead) {
  EXPECT_EQ(WriteServerMetadata({"g", "1", {"binary_tensor_data"}}),
            R"({"name":"g","version":"1","extensions":["binary_tensor_data"]})");
  EXPECT_EQ(WriteServerMetadata({"g", "1", {}}), R"({"name":"g","version":"1","extensions":[]})");
  const tensor::Spec in{"x", DataType::kFp32, {-1, 784}}, out{"s", DataType::kBytes, {}};
  EXPECT_EQ(WriteModelMetadata({"m", {"1"}, "p", {in}, {out}}),
            R"({"name":"m","versions":["1"],"platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,784]}],)"
            R"("outputs":[{"name":"s","datatype":"BYTES","shape":[]}]})");
  EXPECT_EQ(WriteModelConfig({"m", "p", "b", 8, {{"x", DataType::kFp32, {784}}}, {{"s", DataType::kBytes, {1}}}}),
            R"({"name":"m","platform":"p","backend":"b","max_batch_size":8,)"
            R"("input":[{"name":"x","data_type":"TYPE_FP32","dims":[784]}],)"
            R"("output":[{"name":"s","data_type":"TYPE_STRING","dims":[1]}]})");
  ModelStatistics s{"m", "1", 5, 7, 6};
  s.success = {2, 30};
  s.cache_miss = {1, std::numeric_limits<std::uint64_t>::max()};
  EXPECT_EQ(
      WriteModelStatistics({&s, 1}),
      R"({"model_stats":[{"name":"m","version":"1","last_inference":5,"inference_count":7,"execution_count":6,)"
      R"("inference_stats":{"success":{"count":2,"ns":30},"fail":{"count":0,"ns":0},"queue":{"count":0,"ns":0},)"
      R"("compute_input":{"count":0,"ns":0},"compute_infer":{"count":0,"ns":0},"compute_output":{"count":0,"ns":0},)"
      R"("cache_hit":{"count":0,"ns":0},"cache_miss":{"count":1,"ns":18446744073709551615}},"batch_stats":[]}]})");
  EXPECT_EQ(WriteModelStatistics({}), R"({"model_stats":[]})");
  const std::vector<RepositoryEntry> entries{{"m", "1", "READY", ""}, {"n", "", "UNAVAILABLE", "unloaded"}};
  EXPECT_EQ(WriteRepositoryIndex(entries), R"([{"name":"m","version":"1","state":"READY","reason":""},)"
                                           R"({"name":"n","state":"UNAVAILABLE","reason":"unloaded"}])");
  EXPECT_EQ(WriteRepositoryIndex({}), "[]");
  const SharedMemoryRegion region{"r", "/k", 8, 16};
  EXPECT_EQ(WriteSharedMemoryStatus({&region, 1}), R"([{"name":"r","key":"/k","offset":8,"byte_size":16}])");
  EXPECT_EQ(WriteError(InvalidArgument("no \"x\" \xff")), "{\"error\":\"no \\\"x\\\" \xEF\xBF\xBD\"}");
}

TEST(Documents, ComeBackAsTheyWere) {
  const ModelMetadata m{"m", {"1", "2"}, "p", {{"x", DataType::kFp32, {-1, 784}}}, {{"s", DataType::kBytes, {}}}};
  const auto back = ParseModelMetadata(WriteModelMetadata(m));
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->inputs, m.inputs);
  EXPECT_EQ(back->outputs, m.outputs);
  EXPECT_EQ(back->versions, m.versions);
  const auto server = ParseServerMetadata(WriteServerMetadata({"g", "1", {"a", "b"}}));
  ASSERT_TRUE(server.ok());
  EXPECT_EQ(server->extensions.size(), 2u);
}

TEST(Documents, RefuseWhatIsMalformed) {
  const auto with_input = [](const std::string& input) {
    return R"({"name":"m","platform":"p","outputs":[],"inputs":[)" + input + "]}";
  };
  ASSERT_TRUE(ParseModelMetadata(with_input(R"({"name":"x","datatype":"FP32","shape":[-1]})")).ok());
  for (const std::string& bad :
       {std::string(), std::string("[]"), std::string("{}"), with_input("7"), with_input("{}"),
        with_input(R"({"name":"x","datatype":"FP33","shape":[]})"),
        with_input(R"({"name":"x","datatype":"FP32","shape":[-2]})"),
        with_input(R"({"name":"x","datatype":"FP32","shape":[1.5]})"),
        with_input(R"({"name":"x","datatype":"FP32","shape":[9223372036854775808]})"),
        with_input(R"({"name":"x","datatype":"FP32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]})"),
        std::string(R"({"name":"m","platform":"p","versions":[1],"inputs":[],"outputs":[]})"),
        std::string(R"({"name":"m","platform":"p","inputs":[],"outputs":7})")}) {
    EXPECT_EQ(ParseModelMetadata(bad).status().code(), Code::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(ParseServerMetadata("{\"name\":1,\"version\":\"\"}").ok());
}

TEST(ParseRepositoryIndexRequest, TakesNothingForEverything) {
  EXPECT_FALSE(ParseRepositoryIndexRequest("").value().ready);
  EXPECT_FALSE(ParseRepositoryIndexRequest(" \n").value().ready);
  EXPECT_FALSE(ParseRepositoryIndexRequest("{}").value().ready);
  EXPECT_TRUE(ParseRepositoryIndexRequest("{\"ready\":true}").value().ready);
  for (const char* bad : {"[]", "{", "{\"ready\":1}"}) EXPECT_FALSE(ParseRepositoryIndexRequest(bad).ok()) << bad;
}

TEST(ParseSharedMemoryRegister, TakesARegionAndNoPath) {
  const auto r = ParseSharedMemoryRegister("in", R"({"key":"/k","offset":64,"byte_size":128})");
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->name, "in");
  EXPECT_EQ(r->key, "/k");
  EXPECT_EQ(r->offset, 64u);
  EXPECT_EQ(r->bytes, 128u);
  EXPECT_EQ(ParseSharedMemoryRegister("in", R"({"key":"k","byte_size":1})").value().offset, 0u);
  for (const char* bad :
       {"", "{}", R"({"key":"/k"})", R"({"key":"","byte_size":1})", R"({"key":"/","byte_size":1})",
        R"({"key":"/a/b","byte_size":1})", R"({"key":"..","byte_size":1})", R"({"key":"a\u0000b","byte_size":1})",
        R"({"key":"/k","byte_size":0})", R"({"key":"/k","byte_size":-1})", R"({"key":"/k","byte_size":1.5})",
        R"({"key":"/k","byte_size":9223372036854775808})", R"({"key":"/k","byte_size":2,"offset":9223372036854775807})",
        R"({"key":7,"byte_size":1})"}) {
    EXPECT_EQ(ParseSharedMemoryRegister("in", bad).status().code(), Code::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(ParseSharedMemoryRegister("", R"({"key":"k","byte_size":1})").ok());
}

TEST(HttpStatus, GivesEveryCodeAStatusThatAClientUnderstands) {
  EXPECT_EQ(HttpStatus(Code::kOk), 200);
  EXPECT_EQ(HttpStatus(Code::kFailedPrecondition), 400);
  EXPECT_EQ(HttpStatus(Code::kUnknown), 500);
  EXPECT_EQ(HttpStatus(Code::kDataLoss), 500);
  for (const Code code : {Code::kOk, Code::kCancelled, Code::kInvalidArgument, Code::kDeadlineExceeded, Code::kNotFound,
                          Code::kAlreadyExists, Code::kPermissionDenied, Code::kResourceExhausted, Code::kUnimplemented,
                          Code::kInternal, Code::kUnavailable, Code::kUnauthenticated}) {
    EXPECT_EQ(CodeFromHttp(HttpStatus(code)), code) << CodeName(code);
  }
  EXPECT_EQ(CodeFromHttp(413), Code::kInvalidArgument);
  EXPECT_EQ(CodeFromHttp(502), Code::kUnavailable);
  EXPECT_EQ(CodeFromHttp(0), Code::kUnknown);
}

TEST(Parameters, AreFoundByNameAndType) {
  Parameters p;
  Set(&p, "a", std::int64_t{2});
  Set(&p, "a", std::int64_t{3});
  Set(&p, "t", std::string("0.25"));
  Set(&p, "w", std::string("0.25s"));
  Set(&p, "b", true);
  EXPECT_EQ(p.size(), 4u);
  EXPECT_EQ(Find(p, "none"), nullptr);
  EXPECT_EQ(FindNumber(p, "a").value(), 3.0);
  EXPECT_EQ(FindNumber(p, "t").value(), 0.25);
  EXPECT_EQ(FindNumber(p, "none").value(), std::nullopt);
  EXPECT_EQ(FindBool(p, "b").value(), true);
  EXPECT_EQ(FindString(p, "t").value(), "0.25");
  EXPECT_EQ(FindNumber(p, "w").status().message(), "parameter \"w\" is \"0.25s\", want a number");
  EXPECT_EQ(FindNumber(p, "b").status().message(), "parameter \"b\" is a boolean, want a number");
  EXPECT_EQ(FindString(p, "a").status().message(), "parameter \"a\" is an integer, want a string");
  EXPECT_EQ(FindBool(p, "a").status().message(), "parameter \"a\" is an integer, want true or false");
  for (const char* no_number : {"", "nan", "inf", "1 ", " 1", "0x1"}) {
    Set(&p, "n", std::string(no_number));
    EXPECT_FALSE(FindNumber(p, "n").ok()) << no_number;
  }
}

}  // namespace
}  // namespace ganglion::wire
