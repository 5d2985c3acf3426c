#include "node/model_repository.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"
#include "node/pbtxt.h"

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Spec;
namespace fs = std::filesystem;

TEST(Pbtxt, ReadsFieldsInEveryForm) {
  const auto r = ParsePbtxt(R"(# a comment with { " '
a: 1, b: -2; c : "x" 'y'  # adjacent strings are one
  "z"
d { e: TYPE_FP32 f <g: [ 1, 2 ,3 ]> }
h [ {i: true}, {} ]
j: {k: 1.5e-3}
l: [] [some.extension]: 0x1F m:"\n\t\\\"\101\x41\u00e9\U0001F600"
n: - 7)");
  ASSERT_TRUE(r.ok()) << r.status().message();
  std::string shown;
  const std::function<void(const std::vector<PbtxtField>&)> show = [&](const auto& fields) {
    for (const auto& f : fields) {
      shown += f.name + "@" + std::to_string(f.line) + "=";
      if (f.kind == PbtxtField::Kind::kMessage) {
        shown += "{";
        show(f.message);
        shown += "} ";
      } else {
        shown += f.kind == PbtxtField::Kind::kString ? "'" + f.text + "' " : f.text + " ";
      }
    }
  };
  show(*r);
  EXPECT_EQ(
      shown,
      "a@2=1 b@2=-2 c@2='xyz' d@4={e@4=TYPE_FP32 f@4={g@4=1 g@4=2 g@4=3 } } h@5={i@5=true } h@5={} j@6={k@6=1.5e-3 } "
      "[some.extension]@7=0x1F m@7='\n\t\\\"AA\xc3\xa9\xf0\x9f\x98\x80' n@8=-7 ");
}

TEST(Pbtxt, RefusesWhatIsNoTextFormatWithItsLine) {
  for (const auto& [text, line] : std::vector<std::pair<std::string, int>>{{"a", 1},
                                                                           {"a 1", 1},
                                                                           {"\n a:", 2},
                                                                           {"a: {", 1},
                                                                           {"a {\n b: 1 >", 2},
                                                                           {"}", 1},
                                                                           {"a: \"x", 1},
                                                                           {"a: \"x\ny\"", 1},
                                                                           {"a: \"\\q\"", 1},
                                                                           {"a: \"\\x\"", 1},
                                                                           {"a: \"\\u12\"", 1},
                                                                           {"a: \"\\ud800\"", 1},
                                                                           {"a: \"\\U00110000\"", 1},
                                                                           {"a: [1 2]", 1},
                                                                           {"a: [1,]", 1},
                                                                           {"a: [1", 1},
                                                                           {"a [1]", 1},
                                                                           {"[x: 1", 1},
                                                                           {"1: 1", 1},
                                                                           {"a: --1", 1},
                                                                           {std::string("a: \0", 4), 1},
                                                                           {"\xff", 1}}) {
    const auto r = ParsePbtxt(text);
    ASSERT_FALSE(r.ok()) << text;
    EXPECT_TRUE(r.status().message().starts_with("line " + std::to_string(line) + ": ")) << r.status().message();
  }
}

TEST(Pbtxt, BoundsDepthAndSize) {
  const auto nested = [](int depth) {
    std::string text;
    for (int i = 0; i < depth; ++i) text += "a{";
    return text + std::string(static_cast<std::size_t>(depth), '}');
  };
  EXPECT_TRUE(ParsePbtxt(nested(kMaxPbtxtDepth)).ok());
  EXPECT_FALSE(ParsePbtxt(nested(kMaxPbtxtDepth + 1)).ok());
  EXPECT_FALSE(ParsePbtxt(nested(100'000)).ok());
  std::string list = "a: [1";
  for (int i = 1; i < kMaxPbtxtFields; ++i) list += ",1";
  EXPECT_TRUE(ParsePbtxt(list + "]").ok());
  EXPECT_FALSE(ParsePbtxt(list + ",1]").ok());
  EXPECT_FALSE(ParsePbtxt(std::string(2 << 20, ' ')).ok());
}

TEST(Pbtxt, ReadsNumbersAsTheyAreMeant) {
  const auto integer = [](const std::string& word) {
    const auto fields = ParsePbtxt("a: " + word);
    return fields.ok() ? PbtxtInteger(fields->at(0)) : Result<std::int64_t>(fields.status());
  };
  for (const auto& [word, value] : std::vector<std::pair<std::string, std::int64_t>>{
           {"0", 0}, {"-1", -1}, {"784", 784}, {"010", 8}, {"0x1f", 31}, {"9223372036854775807", INT64_MAX}})
    EXPECT_EQ(integer(word).value(), value) << word;
  for (const char* bad : {"1.5", "x", "\"1\"", "9223372036854775808", "0x", "08", "1e3", "{}", "-"})
    EXPECT_FALSE(integer(bad).ok()) << bad;
}

const char* const kFull = R"(name: "digits"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_FP32 format: FORMAT_NONE dims: [ 28, 28 ] },
        {name: "scale", data_type: 10, dims: -1} ]
output { name: "scores" data_type: TYPE_FP64 dims: [ 10 ] label_filename: "labels.txt" }
output { name: "text" data_type: TYPE_STRING dims: 1 }
version_policy: { latest { num_versions: 2 } }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters { key: "k" value: { string_value: "v" } }
)";

TEST(ModelConfig, ReadsWhatTritonWrites) {
  const auto m = ReadModelConfig("digits", kFull);
  EXPECT_EQ(m.problem, "");
  EXPECT_EQ(m.max_batch_size, 8);
  EXPECT_EQ(m.inputs,
            (std::vector<Spec>{{"image", DataType::kFp32, {-1, 28, 28}}, {"scale", DataType::kFp16, {-1, -1}}}));
  EXPECT_EQ(m.outputs, (std::vector<Spec>{{"scores", DataType::kFp64, {-1, 10}}, {"text", DataType::kBytes, {-1, 1}}}));
  EXPECT_EQ(m.label_files, (std::map<std::string, std::string>{{"scores", "labels.txt"}}));
  EXPECT_EQ(m.version_policy, (VersionPolicy{VersionPolicy::Kind::kLatest, 2, {}}));
  EXPECT_EQ(m.dynamic_batching, (DynamicBatching{{4, 8}, std::chrono::microseconds(100)}));
  EXPECT_EQ(m.model_filename, "model.onnx");
}

TEST(ModelConfig, AddsTheBatchDimensionOnlyToModelsThatBatch) {
  const std::string tensor = "input { name: \"x\" data_type: TYPE_INT64 dims: [ 4 ] }";
  EXPECT_EQ(ReadModelConfig("m", tensor).inputs[0].Text(), "INT64[4]");
  EXPECT_EQ(ReadModelConfig("m", "max_batch_size: 0 " + tensor).inputs[0].Text(), "INT64[4]");
  EXPECT_EQ(ReadModelConfig("m", tensor + " max_batch_size: 1").inputs[0].Text(), "INT64[-1,4]");
}

TEST(ModelConfig, TakesEverythingFromTheModelWhenItSaysNothing) {
  const auto m = ReadModelConfig("m", "");
  EXPECT_EQ(m.problem, "");
  EXPECT_EQ(m.max_batch_size, 0);
  EXPECT_TRUE(m.inputs.empty() && m.outputs.empty() && !m.dynamic_batching);
  EXPECT_EQ(m.version_policy, VersionPolicy());
}

TEST(ModelConfig, SaysWhyAModelCannotBeServed) {
  const std::string in = "input { name: \"x\" data_type: TYPE_FP32 dims: 1 ";
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"name: \"other\"", "names the model \"other\", but its directory is called m"},
           {"platform: \"tensorrt_plan\"", "is for platform tensorrt_plan; only ONNX"},
           {"backend: \"python\"", "is for backend python; only ONNX"},
           {"platform: \"ensemble\" ensemble_scheduling {}", "line 1: ensemble_scheduling is not done here"},
           {"backend: \"onnxruntime\"\nsequence_batching {}", "line 2: sequence_batching is not done here"},
           {"model_transaction_policy { decoupled: true }", "decoupled is not done here"},
           {in + "reshape { shape: [ ] } }", "input x has reshape, which is not done here"},
           {in + "allow_ragged_batch: true }", "input x has allow_ragged_batch"},
           {in + "} " + in + "}", "input x is there twice"},
           {"input { data_type: TYPE_FP32 dims: 1 }", "input has no name"},
           {"input { name: \"x\" dims: 1 }", "input x has no data_type"},
           {"input { name: \"x\" data_type: TYPE_FP8 dims: 1 }", "data_type TYPE_FP8 is not known here"},
           {"output { name: \"y\" data_type: TYPE_FP32 }", "output y has no dims"},
           {"output { name: \"y\" data_type: TYPE_FP32 dims: [ 0 ] }",
            "dims must be -1 or from 1 to 2147483648, got 0"},
           {"output { name: \"y\" data_type: TYPE_FP32 dims: \"1\" }", "line 1: dims must be an integer"},
           {"output: 3", "output must be a message"},
           {"max_batch_size: -1", "max_batch_size must be from 0 to 1000000, got -1"},
           {"max_batch_size: 1\nmax_batch_size: 2", "line 2: max_batch_size is there twice, first in line 1"},
           {"max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
            "preferred_batch_size 8 is more than max_batch"},
           {"version_policy { all {} latest {} }", "version_policy takes one of latest, all, specific"},
           {"version_policy { specific {} }", "specific names no version"},
           {"version_policy { latest { num_versions: 0 } }", "num_versions must be from 1 to"},
           {"default_model_filename: \"../x.onnx\"", "\"../x.onnx\" is no plain file name"},
           {"name: \"m", "line 1: a string does not end on its line"}}) {
    const auto m = ReadModelConfig("m", text);
    EXPECT_NE(m.problem.find(expected), std::string::npos)
        << text << "\nmissing: " << expected << "\nin: " << m.problem;
    EXPECT_TRUE(m.problem.starts_with("config.pbtxt: ")) << m.problem;
  }
}

TEST(ModelConfig, TellsSeveralMistakesAtOnceButNotEndlessly) {
  const auto m = ReadModelConfig("m", "max_batch_size: x\nbackend: \"python\"");
  EXPECT_NE(m.problem.find("line 1: max_batch_size must be an integer, got x; it is for backend python"),
            std::string::npos)
      << m.problem;
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "input { }\n";
  EXPECT_LT(ReadModelConfig("m", text.substr(0, 9990)).problem.size(), 3000u);
}

TEST(VersionPolicy, SelectsAsASimpleModelDoes) {
  const std::uint64_t seed = 3;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::int64_t> existing;
    for (std::int64_t v = 1; v < 12; ++v) {
      if (random.Below(2) == 0) existing.push_back(v);
    }
    VersionPolicy policy{
        static_cast<VersionPolicy::Kind>(random.Below(3)), static_cast<std::int64_t>(1 + random.Below(5)), {}};
    for (std::uint64_t n = random.Below(5); n > 0; --n)
      policy.specific.push_back(static_cast<std::int64_t>(1 + random.Below(12)));
    std::vector<std::int64_t> expected = existing;
    if (policy.kind == VersionPolicy::Kind::kLatest) {
      while (expected.size() > static_cast<std::size_t>(policy.latest)) expected.erase(expected.begin());
    } else if (policy.kind == VersionPolicy::Kind::kSpecific) {
      expected.clear();
      for (const auto v : existing) {
        if (std::count(policy.specific.begin(), policy.specific.end(), v) > 0) expected.push_back(v);
      }
    }
    ASSERT_EQ(policy.Select(existing), expected);
  }
}

class ModelRepository : public ScratchDir {
 protected:
  void Put(const std::string& file, const std::string& text = "onnx") {
    ASSERT_TRUE(data::MakeDirectories((dir_ / file).parent_path()).ok());
    ASSERT_TRUE(data::WriteFileAtomically(dir_ / file, text).ok());
  }
  RepositoryModel Only(const std::string& name) {
    const auto models = ReadModelRepository(dir_);
    EXPECT_TRUE(models.ok()) << models.status().message();
    for (const auto& m : models.ok() ? *models : std::vector<RepositoryModel>()) {
      if (m.name == name) return m;
    }
    ADD_FAILURE() << "no model " << name;
    return {};
  }
  static std::string Versions(const RepositoryModel& m) {
    std::string text;
    for (const auto& v : m.versions) text += (text.empty() ? "" : " ") + std::to_string(v.version);
    return text;
  }
};

TEST_F(ModelRepository, ReadsModelsWithAndWithoutConfiguration) {
  Put("digits/config.pbtxt", kFull);
  Put("digits/labels.txt", "zero\r\none\n\nthree\n");
  Put("digits/1/model.onnx");
  Put("digits/3/model.onnx");
  Put("digits/10/model.onnx");
  Put("plain/7/model.onnx");
  Put("README.md");
  Put(".cache/1/model.onnx");
  const auto models = ReadModelRepository(dir_);
  ASSERT_TRUE(models.ok()) << models.status().message();
  ASSERT_EQ(models->size(), 2u);
  const auto& digits = models->at(0);
  EXPECT_EQ(digits.problem, "");
  EXPECT_EQ(digits.name, "digits");
  EXPECT_EQ(Versions(digits), "3 10");
  EXPECT_EQ(digits.versions[1].file, dir_ / "digits" / "10" / "model.onnx");
  EXPECT_EQ(digits.labels.at("scores"), (std::vector<std::string>{"zero", "one", "", "three"}));
  const auto& plain = models->at(1);
  EXPECT_EQ(plain.problem, "");
  EXPECT_EQ(Versions(plain), "7");
  EXPECT_TRUE(plain.inputs.empty());
}

TEST_F(ModelRepository, ServesTheLatestVersionUnlessToldOtherwise) {
  for (const char* v : {"1", "2", "9", "10", "0", "011", "v3", "2b", "-4", "99999999999999999999"})
    Put("m/" + std::string(v) + "/model.onnx");
  Put("m/11");  // a file
  EXPECT_EQ(Versions(Only("m")), "10");
  Put("m/config.pbtxt", "version_policy: { all { }}");
  EXPECT_EQ(Versions(Only("m")), "1 2 9 10");
  Put("m/config.pbtxt", "version_policy: { specific { versions: [ 9, 1, 5 ] }}");
  EXPECT_EQ(Versions(Only("m")), "1 9");
  Put("m/config.pbtxt", "version_policy: { latest { num_versions: 3 }}");
  EXPECT_EQ(Versions(Only("m")), "2 9 10");
  Put("m/config.pbtxt", "version_policy: { specific { versions: 5 }}");
  EXPECT_EQ(Only("m").problem, "none of the versions that its version_policy names is there");
}

TEST_F(ModelRepository, KeepsAModelWithAProblemBesideTheOthers) {
  Put("empty/notes.txt");
  Put("half/1/model.onnx");
  Put("half/2/other.bin");
  Put("labelled/config.pbtxt", "output { name: \"y\" data_type: TYPE_FP32 dims: 2 label_filename: \"none.txt\" }");
  Put("labelled/1/model.onnx");
  Put("outside/config.pbtxt", "output { name: \"y\" data_type: TYPE_FP32 dims: 2 label_filename: \"a/../../x\" }");
  Put("outside/1/model.onnx");
  Put("tf/config.pbtxt", "platform: \"tensorflow_savedmodel\"");
  Put("well/config.pbtxt", "default_model_filename: \"net.onnx\"");
  Put("well/1/net.onnx");
  EXPECT_EQ(Only("empty").problem, "it has no version: a directory named 1 or higher that holds model.onnx");
  EXPECT_EQ(Only("half").problem, "version 2 has no file model.onnx");
  EXPECT_NE(Only("labelled").problem.find("none.txt does not exist"), std::string::npos);
  EXPECT_NE(Only("outside").problem.find("lies outside the model's directory"), std::string::npos);
  EXPECT_NE(Only("tf").problem.find("platform tensorflow_savedmodel"), std::string::npos);
  EXPECT_EQ(Only("well").problem, "");
  EXPECT_EQ(Versions(Only("well")), "1");
}

TEST_F(ModelRepository, RefusesADirectoryThatIsNotThere) {
  EXPECT_FALSE(ReadModelRepository(dir_ / "none").ok());
  EXPECT_TRUE(ReadModelRepository(dir_).ok());
}

}  // namespace
}  // namespace ganglion::node
