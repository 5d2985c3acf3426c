// What a REST server must refuse, and the words it must say.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "wire/json.h"
#include "wire/rest.h"

namespace ganglion::wire {
namespace {

constexpr const char* kValid =
    R"({"id":"a1","parameters":{"deadline_ms":50,"ratio":0.5,"note":"x\u00e9","fast":true},)"
    R"("inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"unit":"px"},"data":[[1,-2.5],[3e2,0.1]]},)"
    R"({"name":"label","shape":[2],"datatype":"BYTES","data":["cat","d\"g"]}],)"
    R"("outputs":[{"name":"y","parameters":{"classification":3}},{"name":"z"}],"extra":{"deep":[1,null,{"a":[]}]}})";

struct Bad {
  std::string body;
  std::string words;
  std::string tail;
  bool binary = false;
};

std::string One(const std::string& members) { return "{\"inputs\":[{" + members + "}]}"; }
std::string Data(const std::string& type, const std::string& shape, const std::string& data) {
  return One("\"name\":\"x\",\"datatype\":\"" + type + "\",\"shape\":" + shape + ",\"data\":" + data);
}
std::string Sized(const std::string& type, const std::string& shape, const std::string& size) {
  return One("\"name\":\"x\",\"datatype\":\"" + type + "\",\"shape\":" + shape +
             ",\"parameters\":{\"binary_data_size\":" + size + "}");
}
std::string TwoSized(const std::string& a, const std::string& b) {
  const auto one = [](const std::string& name, const std::string& size) {
    return "{\"name\":\"" + name + "\",\"datatype\":\"UINT8\",\"shape\":[" + size +
           "],\"parameters\":{\"binary_data_size\":" + size + "}}";
  };
  return "{\"inputs\":[" + one("a", a) + "," + one("b", b) + "]}";
}
std::string Repeat(const std::string& s, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += s;
  return all;
}

TEST(ParseInferRequest, RefusesAValidRequestCutAnywhere) {
  const std::string whole = kValid;
  ASSERT_TRUE(ParseInferRequest(whole, std::nullopt).ok());
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const std::string cut = whole.substr(0, n);
    EXPECT_EQ(ParseInferRequest(cut, std::nullopt).status().code(), Code::kInvalidArgument) << n;
    // What follows in memory counts for nothing, whatever it looks like.
    for (const char c : {'}', ']', ',', '"', ':', '{', ' ', '0'}) {
      const std::string memory = cut + std::string(100, c);
      EXPECT_FALSE(ParseInferRequest({memory.data(), n}, std::nullopt, {}, memory.size()).ok()) << n << c;
    }
    EXPECT_FALSE(ParseInferRequest({whole.data(), n}, std::nullopt, {}, whole.size()).ok()) << n;
  }
  const std::string json = Sized("FP32", "[2]", "8");
  const std::string with_bytes = json + "12345678";
  ASSERT_TRUE(ParseInferRequest(with_bytes, json.size()).ok());
  for (std::size_t n = 1; n < with_bytes.size(); ++n)
    EXPECT_FALSE(ParseInferRequest(with_bytes.substr(0, n), json.size()).ok()) << n;
}

TEST(ParseInferRequest, RefusesNullInEveryPlace) {
  // Each value of the valid request, one after the other, becomes null; so do the entries of its lists.
  Json valid;
  ASSERT_TRUE(ParseJson(kValid, &valid).ok());
  valid.erase("extra");  // the one place where null is nobody's business
  const Json flat = valid.flatten();
  int tried = 0;
  for (const auto& [pointer, value] : flat.items()) {
    // Every prefix of the pointer names a value too.
    for (std::size_t at = pointer.find('/', 1); true; at = pointer.find('/', at + 1)) {
      Json changed = valid;
      changed[Json::json_pointer(pointer.substr(0, at))] = nullptr;
      const auto r = ParseInferRequest(changed.dump(), std::nullopt);
      EXPECT_FALSE(r.ok()) << changed.dump();
      EXPECT_NE(r.status().message().find("is null, w"), std::string::npos) << r.status().message();
      ++tried;
      if (at == std::string::npos) break;
    }
  }
  EXPECT_GT(tried, 40);
}

std::vector<Bad> Malformed() {
  const std::string shared = R"("name":"x","datatype":"FP32","shape":[1],"parameters":)";
  const std::string good = R"("inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}])";
  std::string many_inputs, many_parameters;
  for (int i = 0; i < 65; ++i) {
    many_inputs += (i > 0 ? ",{\"name\":\"" : "{\"name\":\"") + std::to_string(i) +
                   R"(","datatype":"UINT8","shape":[1],"data":[1]})";
    many_parameters += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":1";
  }
  return {
      // No JSON, or no object.
      {"", "the body is empty"},
      {" ", "the body is not JSON"},
      {"[]", "no JSON object"},
      {"7", "no JSON object"},
      {"{}", "\"inputs\" is missing or empty"},
      {"{\"inputs\":[]}", "\"inputs\" is missing or empty"},
      {"{" + good + "}x", "the body is not JSON"},
      {"{" + good + "}{}", "something follows its end"},
      {"{" + good + "},", "the body is not JSON"},
      {"{" + good + ",}", "the body is not JSON near byte"},
      {"{" + good + "\"id\":\"1\"}", "the body is not JSON near byte"},
      {"{" + good + ",\"extra\":[1 2]}", "the body is not JSON near byte"},
      {"{" + good + ",\"extra\":01}", "the body is not JSON near byte"},
      {"{" + good + ",\"extra\":tru}", "the body is not JSON near byte"},
      {"{" + good + ",\"extra\":nul}", "the body is not JSON near byte"},
      {"{" + good + ",\"extra\":\"\\x\"}", "the body is not JSON near byte"},
      {"{" + good + ",\"extra\":\"\xff\"}", "not valid UTF-8"},
      {"{" + good + ",\"extra\":{}", "the body is not JSON"},
      {"{" + good + ",\"extra\":[{}", "the body is not JSON"},
      {"{" + good + ",\"extra\":" + Repeat("[", 1000) + Repeat("]", 1000) + "}", "nests too deep"},
      {"{" + good + ",\"extra\":" + Repeat("{\"a\":", 64) + "{}" + Repeat("}", 64) + "}", "nests too deep"},
      {"{" + good + "," + good + "}", "\"inputs\" is there twice"},
      {"{" + good + ",\"id\":\"1\",\"id\":\"1\"}", "\"id\" is there twice"},
      {"{" + good + ",\"id\":7}", "\"id\" is 7, want a string"},
      {"{" + good + ",\"id\":\"" + std::string(257, 'i') + "\"}", "\"id\" has 257 bytes, limit 256"},
      {"{\"inputs\":{}}", "\"inputs\" is an object, want a list"},
      {"{\"inputs\":[7]}", "an entry of \"inputs\" is 7, want an object"},
      {"{\"inputs\":[" + many_inputs + "]}", "\"inputs\" has more than 64 entries"},
      {"{\"inputs\":[{\"name\":\"a\",\"datatype\":\"UINT8\",\"shape\":[1],\"data\":[1]},"
       "{\"name\":\"a\",\"datatype\":\"UINT8\",\"shape\":[1],\"data\":[1]}]}",
       "input \"a\" is there twice"},
      // Parameters.
      {"{" + good + ",\"parameters\":[]}", "\"parameters\" is a list, want an object"},
      {"{" + good + ",\"parameters\":{\"a\":[1]}}", "parameter \"a\" is a list, want a string"},
      {"{" + good + ",\"parameters\":{\"a\":{}}}", "parameter \"a\" is an object, want a string"},
      {"{" + good + ",\"parameters\":{\"a\":9223372036854775808}}", "parameter \"a\" is 9223372036854775808"},
      {"{" + good + ",\"parameters\":{\"a\":1e999}}", "parameter \"a\" is 1e999"},
      {"{" + good + ",\"parameters\":{\"a\":1,\"a\":2}}", "parameter \"a\" is there twice"},
      {"{" + good + ",\"parameters\":{\"\":1}}", "name has 0 bytes"},
      {"{" + good + ",\"parameters\":{\"" + std::string(257, 'p') + "\":1}}", "name has 257 bytes"},
      {"{" + good + ",\"parameters\":{" + many_parameters + "}}", "more than 64 entries"},
      {"{" + good + ",\"parameters\":{\"binary_data_output\":1}}", "\"binary_data_output\" is 1, want true or false"},
      // Outputs.
      {"{" + good + ",\"outputs\":[{}]}", "output 0: \"name\" is missing"},
      {"{" + good + ",\"outputs\":[{\"name\":\"y\"},{\"name\":\"y\"}]}", "output \"y\" is there twice"},
      {"{" + good + R"(,"outputs":[{"name":"y","parameters":{"binary_data":"yes"}}]})", "\"binary_data\" is \"yes\""},
      {"{" + good + R"(,"outputs":[{"name":"y","parameters":{"classification":-1}}]})", "\"classification\" is -1"},
      {"{" + good + R"(,"outputs":[{"name":"y","parameters":{"classification":100001}}]})", "100001, limit 100000"},
      {"{" + good + R"(,"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]})",
       "output \"y\": shared memory takes"},
      // Names, datatypes, shapes.
      {One(R"("datatype":"FP32","shape":[1],"data":[1])"), "input 0: \"name\" is missing"},
      {One(R"("name":"","datatype":"FP32","shape":[1],"data":[1])"), "input 0: \"name\" is missing or empty"},
      {One(R"("name":")" + std::string(257, 'n') + R"(","datatype":"FP32","shape":[1],"data":[1])"),
       "\"name\" has 257 bytes, limit 256"},
      {One(R"("name":"x","shape":[1],"data":[1])"), "input \"x\": \"datatype\" is missing"},
      {One(R"("name":"x","datatype":"FP32","data":[1])"), "input \"x\": \"shape\" is missing"},
      {One(R"("name":"x","datatype":"FP32","shape":[1])"), "has none of data, binary_data_size"},
      {One(R"("name":"x","datatype":"FP32","shape":[1],"data":[1],"data":[1])"), "\"data\" is there twice"},
      {One(R"("name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{"binary_data_size":4})"),
       "has more than one of data, binary_data_size"},
      {Data("FP33", "[1]", "[1]"), "datatype \"FP33\" is unknown; one of BOOL"},
      {Data("fp32", "[1]", "[1]"), "datatype \"fp32\" is unknown"},
      {Data("", "[1]", "[1]"), "datatype \"\" is unknown"},
      {Data("FP32", "7", "[1]"), "\"shape\" is 7, want a list"},
      {Data("FP32", "[1.5]", "[1]"), "a dimension of shape is 1.5, want an integer"},
      {Data("FP32", "[\"1\"]", "[1]"), "a dimension of shape is \"1\", want an integer"},
      {Data("FP32", "[[1]]", "[1]"), "a dimension of shape is a list, want an integer"},
      {Data("FP32", "[-1]", "[1]"), "negative dimension in [-1]"},
      {Data("FP32", "[2,-3]", "[1]"), "negative dimension in [2,-3]"},
      {Data("FP32", "[0,-3]", "[]"), "negative dimension in [0,-3]"},
      {Data("FP32", "[-9223372036854775808]", "[1]"), "negative dimension in [-9223372036854775808]"},
      {Data("FP32", "[9223372036854775808]", "[1]"), "a dimension of shape is 9223372036854775808"},
      {Data("FP32", "[9223372036854775807]", "[1]"), "more than 2147483648 elements"},
      {Data("FP32", "[4294967296,4294967296]", "[1]"), "more than 2147483648 elements"},
      {Data("FP32", "[65536,65536,65536,65536]", "[1]"), "more than 2147483648 elements"},
      {Data("FP32", "[3,3037000500,3037000500]", "[1]"), "more than 2147483648 elements"},
      {Data("FP32", "[" + Repeat("1,", 16) + "1]", "[1]"), "more than 16 dimensions"},
      {Data("FP32", "[1000000000]", "[1]"), "takes 1000000000 elements, more than JSON of"},
      {One(R"("name":"x","data":[1],"datatype":"FP64","shape":[1000000000])"), "takes 1000000000 elements"},
      // Data.
      {Data("FP32", "[2,2]", "7"), "\"data\" is 7, want a list"},
      {Data("FP32", "[2,2]", "{}"), "\"data\" is an object, want a list"},
      {Data("FP32", "[2,2]", "[1,2,3]"), "data has 3 elements, shape [2,2] takes 4"},
      {Data("FP32", "[2,2]", "[]"), "data has 0 elements, shape [2,2] takes 4"},
      {Data("FP32", "[2,2]", "[1,2,3,4,5]"), "data has more than the 4 elements of shape [2,2]"},
      {Data("FP32", "[2,2]", "[[1,2,3],[4]]"), "data has a list of more than 2 where dimension 1 of shape [2,2] has 2"},
      {Data("FP32", "[2,2]", "[[1,2],[3]]"), "data has a list of 1 where dimension 1"},
      {Data("FP32", "[2,2]", "[[1,2]]"), "data has a list of 1 where dimension 0"},
      {Data("FP32", "[2,2]", "[[1,2],[3,4],[5,6]]"), "data has a list of more than 2 where dimension 0"},
      {Data("FP32", "[2,2]", "[[1,2],3]"), "element 2 of data is 3, which nests otherwise"},
      {Data("FP32", "[2,2]", "[1,[2,3,4]]"), "element 1 of data is a list, which nests otherwise"},
      {Data("FP32", "[4]", "[[1,2,3,4]]"), "element 0 of data is a list, which nests otherwise than shape [4]"},
      {Data("FP32", "[1,1]", "[[[1]]]"), "element 0 of data is a list"},
      {Data("FP32", "[1,1]", Repeat("[", 5000) + "1" + Repeat("]", 5000)), "element 0 of data is a list"},
      {Data("FP32", "[2]", "[1,\"2\"]"), "element 1 of data is \"2\", want a number"},
      {Data("FP32", "[2]", "[1,null]"), "element 1 of data is null, want a number"},
      {Data("FP32", "[2]", "[1,true]"), "element 1 of data is true, want a number"},
      {Data("FP32", "[2]", "[1,NaN]"), "element 1 of data is NaN, want a number"},
      {Data("FP32", "[2]", "[1,{}]"), "element 1 of data is an object, want a number"},
      {Data("FP32", "[2]", "[1,+2]"), "element 1 of data is +2, want a number"},
      {Data("FP32", "[2]", "[1,.5]"), "element 1 of data is .5, want a number"},
      {Data("FP32", "[2]", "[1,1.]"), "element 1 of data is 1., want a number"},
      {Data("FP32", "[2]", "[1,01]"), "element 1 of data is 01, want a number"},
      {Data("FP32", "[2]", "[1,3.4028235677973367e38]"),
       "element 1 of data is 3.4028235677973367e38, want a number of at"},
      {Data("FP32", "[2]", "[-1e39,1]"), "element 0 of data is -1e39, want"},
      {Data("FP64", "[2]", "[1,1e309]"), "element 1 of data is 1e309, want a number"},
      {Data("INT8", "[2]", "[1,128]"), "element 1 of data is 128, want an integer from -128 to 127 for INT8"},
      {Data("INT8", "[2]", "[1,-129]"), "element 1 of data is -129, want"},
      {Data("UINT8", "[2]", "[1,-1]"), "element 1 of data is -1, want an integer from 0 to 255 for UINT8"},
      {Data("UINT8", "[2]", "[1,256]"), "element 1 of data is 256"},
      {Data("INT16", "[1]", "[32768]"), "32768, want an integer from -32768 to 32767 for INT16"},
      {Data("UINT16", "[1]", "[65536]"), "65536, want an integer from 0 to 65535 for UINT16"},
      {Data("INT32", "[1]", "[2147483648]"), "2147483648, want an integer"},
      {Data("UINT32", "[1]", "[4294967296]"), "4294967296, want an integer"},
      {Data("INT64", "[1]", "[9223372036854775808]"), "9223372036854775808, want an integer"},
      {Data("UINT64", "[1]", "[18446744073709551616]"), "18446744073709551616, want an integer"},
      {Data("UINT64", "[1]", "[-1]"), "-1, want an integer from 0"},
      {Data("INT32", "[1]", "[1.0]"), "1.0, want an integer"},
      {Data("INT32", "[1]", "[1e2]"), "1e2, want an integer"},
      {Data("BOOL", "[1]", "[2]"), "2, want true, false, 1 or 0"},
      {Data("BOOL", "[1]", "[\"true\"]"), "\"true\", want true, false"},
      {Data("BYTES", "[1]", "[7]"), "7, want a string for BYTES"},
      {Data("BYTES", "[1]", "[\"\\ud800\"]"), "want a string for BYTES"},
      {Data("FP16", "[1]", "[1]"), "FP16 has no JSON form; send it as bytes with binary_data_size"},
      {Data("BF16", "[1]", "[1]"), "BF16 has no JSON form"},
      // Bytes that lie.
      {Sized("FP32", "[2]", "-8"), "\"binary_data_size\" is -8, want an integer >= 0", "12345678", true},
      {Sized("FP32", "[2]", "9223372036854775808"), "binary_data_size is 9223372036854775808", "12345678", true},
      {Sized("FP32", "[2]", "18446744073709551616"), "\"binary_data_size\" is 18446744073709551616", "12345678", true},
      {Sized("FP32", "[2]", "8.0"), "\"binary_data_size\" is 8.0", "12345678", true},
      {Sized("FP32", "[2]", "\"8\""), "\"binary_data_size\" is \"8\"", "12345678", true},
      {Sized("FP32", "[2]", "4"), "FP32[2] takes 8 bytes, binary_data_size is 4", "1234", true},
      {Sized("FP32", "[2]", "12"), "FP32[2] takes 8 bytes, binary_data_size is 12", "123456789012", true},
      {Sized("FP32", "[2]", "8"), "binary_data_size is 8, 7 bytes are left after the JSON", "1234567", true},
      {Sized("FP32", "[2]", "8"), "binary_data_size is 8, 0 bytes are left after the JSON", "", true},
      {Sized("FP32", "[2]", "8"), "the header Inference-Header-Content-Length must say where it ends", "", false},
      {Sized("FP32", "[2]", "8"), "9 bytes follow the JSON, the sizes in binary_data_size add up to 8", "123456789",
       true},
      {Sized("FP32", "[1000000000]", "4000000000"), "binary_data_size is 4000000000, 8 bytes are left", "12345678",
       true},
      {Data("FP32", "[1]", "[1]"), "4 bytes follow the JSON, the sizes in binary_data_size add up to 0", "1234", true},
      {TwoSized("4", "5"), "input \"b\": binary_data_size is 5, 4 bytes are left", "12345678", true},
      {TwoSized("9", "1"), "input \"a\": binary_data_size is 9, 8 bytes are left", "12345678", true},
      {TwoSized("3", "4"), "8 bytes follow the JSON, the sizes in binary_data_size add up to 7", "12345678", true},
      {TwoSized("9223372036854775807", "9223372036854775807"), "more than 2147483648 elements", "12345678", true},
      {Sized("BYTES", "[1]", "9223372036854775807"), "binary_data_size is 9223372036854775807, 8 bytes", "12345678",
       true},
      {Sized("BYTES", "[1]", "8"), "BYTES element 0 claims 5 bytes, 4 are left", std::string("\5\0\0\0abcd", 8), true},
      {Sized("BYTES", "[1]", "8"), "BYTES element 0 claims 4294967295 bytes",
       "\xff\xff\xff\xff"
       "abcd",
       true},
      {Sized("BYTES", "[1]", "8"), "1 bytes follow the last BYTES element", std::string("\3\0\0\0abcd", 8), true},
      {Sized("BYTES", "[2]", "8"), "BYTES element 1 has no length", std::string("\4\0\0\0abcd", 8), true},
      {Sized("BYTES", "[2147483648]", "8"), "BYTES element 1 has no length", std::string("\4\0\0\0abcd", 8), true},
      {Sized("BYTES", "[0]", "8"), "8 bytes follow the last BYTES element", std::string("\4\0\0\0abcd", 8), true},
      // Shared memory.
      {One(shared + R"({"shared_memory_region":"r"})"), "give both"},
      {One(shared + R"({"shared_memory_byte_size":4})"), "give both"},
      {One(shared + R"({"shared_memory_region":"","shared_memory_byte_size":4})"), "give both"},
      {One(shared + R"({"shared_memory_region":7,"shared_memory_byte_size":4})"), "\"shared_memory_region\" is 7"},
      {One(shared + R"({"shared_memory_region":"r","shared_memory_byte_size":5})"),
       "FP32[1] takes 4 bytes, shared_memory_byte_size is 5"},
      {One(shared + R"({"shared_memory_region":"r","shared_memory_byte_size":-4})"), "is -4, want an integer >= 0"},
      {One(shared +
           R"({"shared_memory_region":"r","shared_memory_byte_size":4,"shared_memory_offset":9223372036854775807})"),
       "add up to more than"},
      {One(shared + R"({"shared_memory_region":"r","shared_memory_byte_size":4},"data":[1])"), "has more than one of"},
  };
}

TEST(ParseInferRequest, RefusesWhatIsMalformedAndSaysWhy) {
  for (const Bad& bad : Malformed()) {
    const std::string body = bad.body + bad.tail;
    const std::optional<std::size_t> json_bytes = bad.binary ? std::optional(bad.body.size()) : std::nullopt;
    const auto r = ParseInferRequest(body, json_bytes);
    EXPECT_EQ(r.status().code(), Code::kInvalidArgument) << bad.body.substr(0, 300);
    EXPECT_NE(r.status().message().find(bad.words), std::string::npos)
        << bad.body.substr(0, 300) << "\n  said: " << r.status().message() << "\n  want: " << bad.words;
    EXPECT_LT(r.status().message().size(), 700u) << bad.body.substr(0, 300);
  }
}

TEST(ParseInferRequest, RefusesAHeaderThatPointsBehindTheBody) {
  const auto r = ParseInferRequest("{}", 3);
  EXPECT_EQ(r.status().message(), "Inference-Header-Content-Length is 3, the body has 2 bytes");
}

TEST(ParseInferRequest, RefusesMoreJsonThanTheLimit) {
  RestLimits limits;
  limits.max_json_bytes = 100;
  EXPECT_NE(ParseInferRequest(kValid, std::nullopt, limits).status().message().find("limit 100"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::wire
