#include "wire/rest.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/random.h"
#include "wire/infer_request.h"

namespace ganglion::wire {
namespace {

using tensor::DataType;
using tensor::Tensor;

constexpr const char* kValid =
    R"({"id":"a1","parameters":{"deadline_ms":50,"ratio":0.5,"note":"x\u00e9","fast":true},)"
    R"("inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"unit":"px"},"data":[[1,-2.5],[3e2,0.1]]},)"
    R"({"name":"label","shape":[2],"datatype":"BYTES","data":["cat","d\"g"]}],)"
    R"("outputs":[{"name":"y","parameters":{"classification":3}},{"name":"z"}],"extra":{"deep":[1,null,{"a":[]}]}})";

template <typename T>
std::vector<T> Values(std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

std::string AsText(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

// A request with one input as bytes, and the bytes.
RestBody Binary(const std::string& inputs, const std::string& tail) {
  const std::string json = "{\"inputs\":[" + inputs + "]}";
  return {json + tail, json.size()};
}

std::string Framed(const std::vector<std::string>& strings) {
  std::string bytes;
  for (const auto& s : strings) {
    const auto n = static_cast<std::uint32_t>(s.size());
    bytes.append(reinterpret_cast<const char*>(&n), 4).append(s);
  }
  return bytes;
}

InferOutput Output(const std::string& name, std::vector<float> values) {
  return {name, *Tensor::From<float>({1, static_cast<std::int64_t>(values.size())}, values), {}};
}

TEST(ParseInferRequest, ReadsEveryMember) {
  const auto r = ParseInferRequest(kValid, std::nullopt);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->id, "a1");
  EXPECT_EQ(FindNumber(r->parameters, "deadline_ms").value(), 50.0);
  EXPECT_EQ(FindNumber(r->parameters, "ratio").value(), 0.5);
  EXPECT_EQ(FindString(r->parameters, "note").value(), "x\xC3\xA9");
  EXPECT_EQ(FindBool(r->parameters, "fast").value(), true);
  EXPECT_EQ(r->parameters[0].value, ParameterValue(std::int64_t{50}));
  ASSERT_EQ(r->inputs.size(), 2u);
  EXPECT_EQ(r->inputs[0].name, "x");
  EXPECT_EQ(r->inputs[0].shape, (tensor::Shape{2, 2}));
  EXPECT_EQ(Values<float>(r->inputs[0].bytes), (std::vector<float>{1, -2.5f, 300, 0.1f}));
  EXPECT_EQ(FindString(r->inputs[0].parameters, "unit").value(), "px");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(r->inputs[1].bytes.data()), r->inputs[1].bytes.size()),
            Framed({"cat", "d\"g"}));
  ASSERT_EQ(r->outputs.size(), 2u);
  EXPECT_EQ(r->outputs[0].classification, 3);
  EXPECT_FALSE(r->outputs[1].binary);
}

TEST(ParseInferRequest, ReadsMembersInAnyOrder) {
  const auto r = ParseInferRequest(R"({"inputs":[{"data":[[1,2],[3,4]] ,"datatype":"INT16","name":"x","shape":[2,2]},)"
                                   R"({"data":["a"],"shape":[1],"datatype":"BYTES","name":"y"}]})",
                                   std::nullopt);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Values<std::int16_t>(r->inputs[0].bytes), (std::vector<std::int16_t>{1, 2, 3, 4}));
  EXPECT_EQ(r->inputs[1].bytes.size(), 5u);
}

TEST(ParseInferRequest, TakesEveryDatatypeToItsLimits) {
  struct Row {
    const char *type, *data;
    std::string bytes;
  };
  const auto text = [](auto... values) {
    std::string s;
    (s.append(reinterpret_cast<const char*>(&values), sizeof(values)), ...);
    return s;
  };
  for (const Row& row : {
           Row{"BOOL", "[true,false,1,0]", std::string("\1\0\1\0", 4)},
           Row{"UINT8", "[0,255,1,2]", std::string("\0\xff\1\2", 4)},
           Row{"INT8", "[-128,127,-1,0]", std::string("\x80\x7f\xff\0", 4)},
           Row{"UINT16", "[0,65535,1,2]",
               text(std::uint16_t{0}, std::uint16_t{65535}, std::uint16_t{1}, std::uint16_t{2})},
           Row{"INT16", "[-32768,32767,1,2]",
               text(std::int16_t{-32768}, std::int16_t{32767}, std::int16_t{1}, std::int16_t{2})},
           Row{"UINT32", "[0,4294967295,1,2]", text(0u, 4294967295u, 1u, 2u)},
           Row{"INT32", "[-2147483648,2147483647,1,2]", text(std::numeric_limits<int>::min(), 2147483647, 1, 2)},
           Row{"UINT64", "[0,18446744073709551615,1,2]", text(0ul, 18446744073709551615ul, 1ul, 2ul)},
           Row{"INT64", "[-9223372036854775808,9223372036854775807,1,2]",
               text(std::numeric_limits<long>::min(), std::numeric_limits<long>::max(), 1l, 2l)},
           Row{"FP32", "[3.4028235e38,-3.4028235677973362e38,-0.0,1e-45]",
               text(std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest(), -0.0f,
                    std::numeric_limits<float>::denorm_min())},
           Row{"FP64", "[1.7976931348623157e308,5e-324,-0,1e-400]",
               text(std::numeric_limits<double>::max(), std::numeric_limits<double>::denorm_min(), -0.0, 0.0)},
       }) {
    const std::string body = std::string(R"({"inputs":[{"name":"x","datatype":")") + row.type +
                             R"(","shape":[4],"data":)" + row.data + "}]}";
    const auto r = ParseInferRequest(body, std::nullopt);
    ASSERT_TRUE(r.ok()) << row.type << ": " << r.status().message();
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(r->inputs[0].bytes.data()), r->inputs[0].bytes.size()),
              row.bytes)
        << row.type;
  }
}

TEST(ParseInferRequest, RoundsToTheNearestFp32Once) {
  // The first is the one FP32 whose shortest text, rounded to FP64 and then to FP32, is another; the next two lie just
  // beside half ways that FP64 cannot tell from them.
  const auto r = ParseInferRequest(
      R"({"inputs":[{"name":"x","datatype":"FP32","shape":[6],"data":[7.038531e-26,16777217.00000000001,)"
      R"(-1.00000017881393432617187499,16777217,1.1754943e-38 ,1e-60]}]})",
      std::nullopt);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Values<float>(r->inputs[0].bytes),
            (std::vector<float>{7.038531e-26f, 16777218, -1.00000011920928955078125f, 16777216, 1.1754943e-38f, 0}));
}

TEST(ParseInferRequest, ReadsBodiesLargerThanWhatAThreadKeeps) {
  std::string data;
  for (int i = 0; i < 200'000; ++i) data += (i > 0 ? "," : "") + std::to_string(i);
  const std::string large = R"({"inputs":[{"name":"x","datatype":"INT32","shape":[200,1000],"data":[)" + data + "]}]}";
  ASSERT_GT(large.size(), std::size_t{1} << 20);
  for (const std::size_t room : {0, 64}) {
    const std::string memory = large + std::string(room, 'x');
    const auto r = ParseInferRequest({memory.data(), large.size()}, std::nullopt, {}, memory.size());
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(Values<int>(r->inputs[0].bytes)[199'999], 199'999);
    EXPECT_TRUE(ParseInferRequest(kValid, std::nullopt).ok());
  }
}

TEST(ParseInferRequest, TakesScalarsAndEmptyTensors) {
  for (const auto& [shape, data, bytes] : {std::tuple{"[]", "[7]", 4},
                                           {"[0]", "[]", 0},
                                           {"[0,4]", "[]", 0},
                                           {"[2,0]", "[[],[]]", 0},
                                           {"[1,1,1]", "[[[7]]]", 4},
                                           {"[2,2]", "[1,2,3,4]", 16}}) {
    const auto r = ParseInferRequest(
        std::string(R"({"inputs":[{"name":"x","datatype":"FP32","shape":)") + shape + R"(,"data":)" + data + "}]}",
        std::nullopt);
    ASSERT_TRUE(r.ok()) << shape << data << ": " << r.status().message();
    EXPECT_EQ(r->inputs[0].bytes.size(), static_cast<std::size_t>(bytes)) << shape;
  }
}

TEST(ParseInferRequest, BorrowsAlignedBytesAndCopiesOthers) {
  const std::vector<float> numbers{1, 2, 3, 4};
  for (std::size_t shift = 0; shift < 4; ++shift) {
    // Spaces before the first brace move the buffer, in memory whose alignment is known.
    std::string json =
        R"({"inputs":[{"name":"x","shape":[4],"datatype":"FP32","parameters":{"binary_data_size":16}}]})";
    json.insert(1, std::string((4 - json.size() % 4) % 4 + shift, ' '));
    std::vector<float> memory(256);
    char* const at = reinterpret_cast<char*>(memory.data());
    std::memcpy(at, json.data(), json.size());
    std::memcpy(at + json.size(), numbers.data(), 16);
    const auto r = ParseInferRequest({at, json.size() + 16}, json.size(), {}, 1024);
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(Values<float>(r->inputs[0].bytes), numbers);
    EXPECT_EQ(r->inputs[0].owned.has_value(), shift != 0);
    if (shift == 0) {
      EXPECT_EQ(static_cast<const void*>(r->inputs[0].bytes.data()), at + json.size());
    }
  }
}

TEST(ParseInferRequest, TakesBuffersInTheOrderOfTheInputsThatHaveThem) {
  const auto b = Binary(R"({"name":"a","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}},)"
                        R"({"name":"b","shape":[1],"datatype":"FP32","data":[9]},)"
                        R"({"name":"c","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}},)"
                        R"({"name":"d","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}})",
                        AsText(std::vector<float>{5}) + Framed({"", "abc"}) + "\x01\x3c");
  const auto r = ParseInferRequest(b.body, b.json_bytes);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Values<float>(r->inputs[0].bytes)[0], 5);
  EXPECT_EQ(Values<float>(r->inputs[1].bytes)[0], 9);
  EXPECT_EQ(r->inputs[2].bytes.size(), 11u);
  EXPECT_EQ(Values<std::uint16_t>(r->inputs[3].bytes)[0], 0x3c01);
}

TEST(ParseInferRequest, KeepsSharedMemoryForTheCaller) {
  const auto r = ParseInferRequest(
      R"({"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"shared_memory_region":"in",)"
      R"("shared_memory_offset":64,"shared_memory_byte_size":16}}],"outputs":[{"name":"y","parameters":)"
      R"({"shared_memory_region":"out","shared_memory_byte_size":40}}]})",
      std::nullopt);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->inputs[0].shared->region, "in");
  EXPECT_EQ(r->inputs[0].shared->offset, 64u);
  EXPECT_EQ(r->inputs[0].shared->bytes, 16u);
  EXPECT_TRUE(r->inputs[0].bytes.empty());
  EXPECT_EQ(r->outputs[0].shared->offset, 0u);
  EXPECT_EQ(r->outputs[0].shared->bytes, 40u);
}

TEST(ParseInferRequest, LetsAnOutputOverrideWhatTheRequestSaysOfBinary) {
  const auto r = ParseInferRequest(
      R"({"parameters":{"binary_data_output":true},"outputs":[{"name":"a","parameters":{"binary_data":false}},)"
      R"({"name":"b"}],"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[1]}]})",
      std::nullopt);
  ASSERT_TRUE(r.ok());
  EXPECT_TRUE(r->binary_output);
  EXPECT_FALSE(r->outputs[0].binary);
  EXPECT_TRUE(r->outputs[1].binary);
  EXPECT_TRUE(r->parameters.empty());
}

TEST(RawInferRequest, TakesTheShapeFromTheModelAndTheSize) {
  struct Row {
    tensor::Spec spec;
    std::size_t bytes;
    tensor::Shape shape;
  };
  for (const Row& row :
       {Row{{"x", DataType::kFp32, {-1, 4}}, 16, {1, 4}}, Row{{"x", DataType::kFp32, {-1, 4}}, 48, {3, 4}},
        Row{{"x", DataType::kFp32, {-1, -1}}, 20, {1, 5}}, Row{{"x", DataType::kFp32, {4}}, 16, {4}},
        Row{{"x", DataType::kFp32, {-1}}, 16, {4}}, Row{{"x", DataType::kUint8, {-1, 2, -1}}, 6, {1, 2, 3}}}) {
    std::vector<double> memory(100);
    const auto r = RawInferRequest({reinterpret_cast<const char*>(memory.data()), row.bytes}, {&row.spec, 1});
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(r->inputs[0].shape, row.shape) << row.spec.Text();
    EXPECT_EQ(r->inputs[0].bytes.size(), row.bytes);
    EXPECT_FALSE(r->inputs[0].owned.has_value());
  }
  const tensor::Spec bytes{"x", DataType::kBytes, {-1, 1}};
  const auto r = RawInferRequest("hello", {&bytes, 1});
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->inputs[0].shape, (tensor::Shape{1, 1}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(r->inputs[0].bytes.data()), r->inputs[0].bytes.size()),
            Framed({"hello"}));
}

TEST(RawInferRequest, FollowsAHeaderOfZero) {
  const auto r = ParseInferRequest("\x01\x02", 0);
  ASSERT_TRUE(r.ok());
  EXPECT_TRUE(r->inputs.empty());
}

TEST(RawInferRequest, RefusesWhatDoesNotFit) {
  const std::vector<tensor::Spec> two{{"x", DataType::kFp32, {1}}, {"y", DataType::kFp32, {1}}};
  EXPECT_NE(RawInferRequest("1234", two).status().message().find("this one has 2"), std::string::npos);
  struct Row {
    tensor::Spec spec;
    std::string body, words;
  };
  for (const Row& row : {Row{{"x", DataType::kFp32, {-1, 4}}, "12345", "16 bytes or a multiple"},
                         Row{{"x", DataType::kFp32, {4}}, "12345", "it takes 16 bytes"},
                         Row{{"x", DataType::kFp32, {4}}, std::string(32, 'a'), "it takes 16 bytes"},
                         Row{{"x", DataType::kFp32, {4}}, "", "the body is empty"},
                         Row{{"x", DataType::kFp32, {-1, -1, -1}}, "1234", "more than one dimension is open"},
                         Row{{"x", DataType::kFp32, {2, -1, -1}}, "1234", "more than one dimension is open"},
                         Row{{"x", DataType::kFp32, {-1, 0}}, "1234", "it takes 0 bytes"},
                         Row{{"x", DataType::kBytes, {-1, 2}}, "1234", "one element"}}) {
    const auto r = RawInferRequest(row.body, {&row.spec, 1});
    EXPECT_EQ(r.status().code(), Code::kInvalidArgument);
    EXPECT_NE(r.status().message().find(row.words), std::string::npos) << r.status().message();
  }
}

TEST(WriteInferResponse, WritesJsonUnlessBinaryIsAskedFor) {
  InferResponse response{"m", "3", "id\n\"1\"", {}, {}};
  response.parameters = {{"tier", std::string("edge")}, {"n", std::int64_t{-4}}, {"share", 5.0}, {"ok", true}};
  response.outputs.push_back(Output("a", {1, -0.5f, 1e20f}));
  response.outputs.push_back(Output("b", {2}));
  InferRequest asked;
  auto body = WriteInferResponse(response, asked);
  EXPECT_FALSE(body.json_bytes.has_value());
  EXPECT_EQ(body.body, R"({"model_name":"m","model_version":"3","id":"id\n\"1\"",)"
                       R"("parameters":{"tier":"edge","n":-4,"share":5.0,"ok":true},"outputs":[)"
                       R"({"name":"a","shape":[1,3],"datatype":"FP32","data":[1,-0.5,1e+20]},)"
                       R"({"name":"b","shape":[1,1],"datatype":"FP32","data":[2]}]})");
  asked.outputs = {{"b", true}, {"a", false}};
  body = WriteInferResponse(response, asked);
  ASSERT_TRUE(body.json_bytes.has_value());
  EXPECT_EQ(body.body.size(), *body.json_bytes + 4);
  EXPECT_NE(body.body.find(R"("data":[1,-0.5,1e+20])"), std::string::npos);
  EXPECT_NE(body.body.find(R"("datatype":"FP32","parameters":{"binary_data_size":4}})"), std::string::npos);
  asked.outputs.clear();
  asked.binary_output = true;
  body = WriteInferResponse(response, asked);
  EXPECT_EQ(body.body.size(), *body.json_bytes + 16);
}

TEST(WriteInferResponse, LeavesTensorsInSharedMemoryWhereTheyAre) {
  InferResponse response{"m", "", "", {}, {}};
  response.outputs.push_back(Output("a", {1, 2}));
  response.outputs[0].shared = SharedMemory{"out", 8, 8};
  InferRequest asked;
  asked.binary_output = true;
  const auto body = WriteInferResponse(response, asked);
  EXPECT_FALSE(body.json_bytes.has_value());
  EXPECT_EQ(body.body, R"({"model_name":"m","outputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":)"
                       R"({"shared_memory_region":"out","shared_memory_offset":8,"shared_memory_byte_size":8}}]})");
  const auto back = ParseInferResponse(body.body, body.json_bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->outputs[0].shared->region, "out");
  EXPECT_EQ(back->outputs[0].tensor.shape(), (tensor::Shape{1, 2}));
}

TEST(WriteInferResponse, WritesNullForNanAndReplacesWhatIsNoUtf8) {
  InferResponse response{"m", "", "", {}, {}};
  const float inf = std::numeric_limits<float>::infinity();
  response.outputs.push_back(Output("a", {1, NAN, -inf}));
  const std::string strings = Framed({"a\xff\n", "\xC3\xA9\x01"});
  response.outputs.push_back({"s", *Tensor::FromBytes(DataType::kBytes, {2}, std::as_bytes(std::span(strings))), {}});
  const auto body = WriteInferResponse(response, {});
  EXPECT_NE(body.body.find("\"data\":[1,null,null]"), std::string::npos) << body.body;
  EXPECT_NE(body.body.find("[\"a\xEF\xBF\xBD\\n\",\"\xC3\xA9\\u0001\"]"), std::string::npos) << body.body;
  const auto back = ParseInferResponse(body.body, body.json_bytes);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_TRUE(std::isnan(back->outputs[0].tensor.As<float>()[1]));
}

TEST(WriteInferResponse, SendsHalfPrecisionAsBytesBecauseJsonHasNoFormForIt) {
  InferResponse response{"m", "", "", {}, {}};
  response.outputs.push_back({"h", *Tensor::Zeros(DataType::kBf16, {3}), {}});
  const auto body = WriteInferResponse(response, {});
  EXPECT_EQ(body.body.size(), body.json_bytes.value() + 6);
}

TEST(WriteInferRequest, GivesTheSameBytesAsTheEncoderOfBinaryRequests) {
  const std::vector<float> x{1, 2, 3};
  const tensor::Shape shape{1, 3};
  InferRequest request;
  request.id = "7";
  request.inputs.push_back({"image", DataType::kFp32, shape, std::as_bytes(std::span(x)), {}, {}, {}});
  const NamedTensor in{"image", request.inputs[0].View()};
  for (const char* id : {"7", ""}) {
    request.id = id;
    const auto ours = WriteInferRequest(request, true);
    const auto theirs = EncodeInferRequest(id, {&in, 1});
    EXPECT_EQ(ours.body, theirs.body);
    EXPECT_EQ(ours.json_bytes, theirs.json_bytes);
  }
}

// Random requests of every datatype, in JSON and in bytes, come back as they were.
TEST(WriteInferRequest, LosesNothingOnTheWay) {
  const std::uint64_t seed = 20240229;
  SCOPED_TRACE(seed);
  Random random(seed);
  for (int round = 0; round < 400; ++round) {
    InferRequest request;
    request.id = round % 2 == 0 ? "" : "r\\\"\x7f\xE2\x82\xAC" + std::to_string(round);
    request.binary_output = random.Below(2) == 0;
    Set(&request.parameters, "whole", std::int64_t{-7});
    Set(&request.parameters, "big", 1e300);
    Set(&request.parameters, "round", 3.0);
    Set(&request.parameters, "s", std::string("\t"));
    std::vector<std::string> memory;
    const auto n = 1 + random.Below(4);
    for (std::uint64_t i = 0; i < n; ++i) {
      InferInput input;
      input.name = "in" + std::to_string(i);
      input.type = static_cast<DataType>(random.Below(14));
      const auto rank = random.Below(4);
      std::int64_t count = 1;
      for (std::uint64_t d = 0; d < rank; ++d) {
        input.shape.push_back(static_cast<std::int64_t>(random.Below(4)));
        count *= input.shape.back();
      }
      std::string bytes;
      for (std::int64_t e = 0; e < count; ++e) {
        const std::size_t size = input.type == DataType::kBytes ? random.Below(6) : tensor::SizeOf(input.type);
        std::string element;
        for (std::size_t b = 0; b < size; ++b)
          element += static_cast<char>(random.Below(random.Below(2) == 0 ? 128 : 256));
        if (input.type == DataType::kBool) element[0] = static_cast<char>(element[0] & 1);
        bytes += input.type == DataType::kBytes ? Framed({element}) : element;
      }
      input.owned = *Tensor::FromBytes(input.type, input.shape, std::as_bytes(std::span(bytes)));
      input.bytes = input.owned->View().bytes;
      if (random.Below(3) == 0) input.parameters = {{"p", false}};
      request.inputs.push_back(std::move(input));
    }
    request.outputs = {{"y", random.Below(2) == 0, 5}, {"z", random.Below(2) == 0}};
    for (const bool binary : {false, true}) {
      const auto body = WriteInferRequest(request, binary);
      const auto back = ParseInferRequest(body.body, body.json_bytes);
      ASSERT_TRUE(back.ok()) << back.status().message() << "\n" << body.body;
      EXPECT_EQ(back->id, request.id);
      EXPECT_EQ(back->binary_output, request.binary_output);
      ASSERT_EQ(back->parameters.size(), request.parameters.size());
      for (std::size_t p = 0; p < back->parameters.size(); ++p)
        EXPECT_EQ(back->parameters[p].value, request.parameters[p].value) << p;
      ASSERT_EQ(back->inputs.size(), n);
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_EQ(back->inputs[i].name, request.inputs[i].name);
        EXPECT_EQ(back->inputs[i].type, request.inputs[i].type);
        EXPECT_EQ(back->inputs[i].shape, request.inputs[i].shape);
        EXPECT_TRUE(std::equal(back->inputs[i].bytes.begin(), back->inputs[i].bytes.end(),
                               request.inputs[i].bytes.begin(), request.inputs[i].bytes.end()))
            << body.body;
        EXPECT_EQ(back->inputs[i].parameters.size(), request.inputs[i].parameters.size());
      }
      EXPECT_EQ(back->outputs[0].binary, request.outputs[0].binary);
      EXPECT_EQ(back->outputs[1].binary, request.outputs[1].binary);
      EXPECT_EQ(back->outputs[0].classification, 5);
    }
  }
}

TEST(ParseInferResponse, ReadsWhatServersSend) {
  const auto r = ParseInferResponse(
      R"({"model_name":"m","extra":1,"outputs":[{"name":"y","datatype":"INT64","shape":[1,2],"data":[[3,4]]}]})",
      std::nullopt);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->model, "m");
  EXPECT_EQ(r->outputs[0].tensor.As<long>()[1], 4);
  EXPECT_FALSE(ParseInferResponse("{}", std::nullopt).ok());
  EXPECT_FALSE(ParseInferResponse("", std::nullopt).ok());
  EXPECT_FALSE(ParseInferResponse("", 0).ok());
}

TEST(ParseInferResponse, TakesNoMemoryForAShapeInSharedMemoryThatIsTooLarge) {
  const auto r = ParseInferResponse(
      R"({"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2000000000],"parameters":)"
      R"({"shared_memory_region":"r","shared_memory_byte_size":8000000000}}]})",
      std::nullopt);
  EXPECT_NE(r.status().message().find("claims 8000000000 bytes"), std::string::npos) << r.status().message();
}

}  // namespace
}  // namespace ganglion::wire
