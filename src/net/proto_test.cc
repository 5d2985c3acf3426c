#include "net/proto.h"

#include <gtest/gtest.h>

#include <cstring>

#include "net/inference.pb.h"

namespace ganglion::net {
namespace {

using tensor::DataType;

inference::ModelInferRequest OneInput(const std::string& datatype, std::vector<std::int64_t> shape) {
  inference::ModelInferRequest m;
  m.set_model_name("m");
  auto* in = m.add_inputs();
  in->set_name("x");
  in->set_datatype(datatype);
  in->mutable_shape()->Assign(shape.begin(), shape.end());
  return m;
}
inference::InferTensorContents* Contents(inference::ModelInferRequest* m) {
  return m->mutable_inputs(0)->mutable_contents();
}

// The input's numbers as bytes, or what was refused.
std::string BytesOf(const inference::ModelInferRequest& m) {
  const auto r = FromProto(m);
  if (!r.ok()) return "refused: " + r.status().message();
  const auto bytes = r->inputs[0].bytes;
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
template <typename T>
std::string Raw(std::initializer_list<T> values) {
  std::string bytes;
  for (const T v : values) bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
  return bytes;
}

TEST(Proto, ReadsTypedContentsOfEveryDatatype) {
  auto m = OneInput("BOOL", {2});
  Contents(&m)->add_bool_contents(true);
  Contents(&m)->add_bool_contents(false);
  EXPECT_EQ(BytesOf(m), Raw<char>({1, 0}));

  const auto of_ints = [](const char* type, std::initializer_list<std::int32_t> values) {
    auto q = OneInput(type, {static_cast<std::int64_t>(values.size())});
    for (const auto v : values) Contents(&q)->add_int_contents(v);
    return BytesOf(q);
  };
  EXPECT_EQ(of_ints("INT8", {-128, 127}), Raw<std::int8_t>({-128, 127}));
  EXPECT_EQ(of_ints("INT16", {-32768, 32767}), Raw<std::int16_t>({-32768, 32767}));
  EXPECT_EQ(of_ints("INT32", {-2147483647, 7}), Raw<std::int32_t>({-2147483647, 7}));
  const auto of_uints = [](const char* type, std::initializer_list<std::uint32_t> values) {
    auto q = OneInput(type, {static_cast<std::int64_t>(values.size())});
    for (const auto v : values) Contents(&q)->add_uint_contents(v);
    return BytesOf(q);
  };
  EXPECT_EQ(of_uints("UINT8", {0, 255}), Raw<std::uint8_t>({0, 255}));
  EXPECT_EQ(of_uints("UINT16", {65535}), Raw<std::uint16_t>({65535}));
  EXPECT_EQ(of_uints("UINT32", {4294967295u}), Raw<std::uint32_t>({4294967295u}));

  m = OneInput("INT64", {1});
  Contents(&m)->add_int64_contents(-(std::int64_t{1} << 62));
  EXPECT_EQ(BytesOf(m), Raw<std::int64_t>({-(std::int64_t{1} << 62)}));
  m = OneInput("UINT64", {1});
  Contents(&m)->add_uint64_contents(~std::uint64_t{0});
  EXPECT_EQ(BytesOf(m), Raw<std::uint64_t>({~std::uint64_t{0}}));
  m = OneInput("FP32", {2, 1});
  Contents(&m)->add_fp32_contents(1.5f);
  Contents(&m)->add_fp32_contents(-2.0f);
  EXPECT_EQ(BytesOf(m), Raw<float>({1.5f, -2.0f}));
  m = OneInput("FP64", {1});
  Contents(&m)->add_fp64_contents(0.1);
  EXPECT_EQ(BytesOf(m), Raw<double>({0.1}));
  m = OneInput("BYTES", {2});
  Contents(&m)->add_bytes_contents("hi");
  Contents(&m)->add_bytes_contents("");
  EXPECT_EQ(BytesOf(m), std::string("\x02\0\0\0hi\0\0\0\0", 10));
}

TEST(Proto, RefusesNumbersThatDoNotFitTheirDatatype) {
  auto m = OneInput("INT8", {1});
  Contents(&m)->add_int_contents(128);
  EXPECT_NE(BytesOf(m).find("128 does not fit INT8"), std::string::npos) << BytesOf(m);
  m = OneInput("UINT16", {1});
  Contents(&m)->add_uint_contents(65536);
  EXPECT_NE(BytesOf(m).find("65536 does not fit UINT16"), std::string::npos) << BytesOf(m);
}

TEST(Proto, RefusesHalfPrecisionInTypedContents) {
  for (const char* type : {"FP16", "BF16"}) {
    auto m = OneInput(type, {1});
    Contents(&m)->add_fp32_contents(1);
    EXPECT_NE(BytesOf(m).find("raw_input_contents"), std::string::npos) << BytesOf(m);
    m.mutable_inputs(0)->clear_contents();
    m.add_raw_input_contents("ab");
    EXPECT_EQ(BytesOf(m), "ab");
  }
}

TEST(Proto, RefusesContentsBesideRawContents) {
  auto m = OneInput("FP32", {1});
  Contents(&m)->add_fp32_contents(1);
  m.add_raw_input_contents(Raw<float>({1}));
  EXPECT_NE(BytesOf(m).find("contents must be empty"), std::string::npos) << BytesOf(m);
}

TEST(Proto, RefusesWhatDoesNotFitTogether) {
  auto m = OneInput("FP32", {2});
  EXPECT_NE(BytesOf(m).find("refused"), std::string::npos);  // no numbers at all
  Contents(&m)->add_fp32_contents(1);
  EXPECT_NE(BytesOf(m).find("takes 2 elements, fp32_contents has 1"), std::string::npos) << BytesOf(m);
  m = OneInput("FP32", {1});
  Contents(&m)->add_fp64_contents(1);  // of another datatype
  EXPECT_NE(BytesOf(m).find("refused"), std::string::npos);
  m = OneInput("FP32", {2});
  m.add_raw_input_contents("1234567");
  EXPECT_NE(BytesOf(m).find("refused"), std::string::npos);
  m = OneInput("FP32", {1});
  m.add_raw_input_contents("1234");
  m.add_raw_input_contents("5678");
  EXPECT_NE(BytesOf(m).find("2 entries for 1 inputs"), std::string::npos) << BytesOf(m);
  m.clear_raw_input_contents();
  m.add_raw_input_contents("1234");
  *m.add_inputs() = m.inputs(0);
  EXPECT_NE(BytesOf(m).find("there are more inputs"), std::string::npos) << BytesOf(m);
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{-1},
                                                 {std::int64_t{1} << 32, std::int64_t{1} << 32},
                                                 {std::int64_t{1} << 62, 4},
                                                 std::vector<std::int64_t>(40, 1)}) {
    for (const char* type : {"FP32", "BYTES", "INT8"}) {
      m = OneInput(type, shape);
      EXPECT_NE(BytesOf(m).find("refused"), std::string::npos);
      m.add_raw_input_contents("1234");
      EXPECT_NE(BytesOf(m).find("refused"), std::string::npos);
    }
  }
  m = OneInput("FP31", {1});
  EXPECT_NE(BytesOf(m).find("unknown datatype \"FP31\""), std::string::npos) << BytesOf(m);
  m = OneInput("BYTES", {1});
  m.add_raw_input_contents(std::string("\xff\0\0\0a", 5));
  EXPECT_NE(BytesOf(m).find("refused"), std::string::npos);
  EXPECT_FALSE(FromProto(inference::ModelInferRequest()).ok());
}

TEST(Proto, BoundsTensorsAndParameters) {
  inference::ModelInferRequest m;
  for (int i = 0; i < 65; ++i) m.add_inputs()->set_datatype("FP32");
  EXPECT_NE(BytesOf(m).find("limit 64"), std::string::npos) << BytesOf(m);
  m = OneInput("FP32", {0});
  for (int i = 0; i < 65; ++i) (*m.mutable_parameters())[std::to_string(i)].set_bool_param(true);
  EXPECT_NE(BytesOf(m).find("limit 64"), std::string::npos) << BytesOf(m);
  m = OneInput("FP32", {0});
  for (int i = 0; i < 65; ++i) (*m.mutable_inputs(0)->mutable_parameters())[std::to_string(i)].set_bool_param(true);
  EXPECT_NE(BytesOf(m).find("limit 64"), std::string::npos) << BytesOf(m);
}

TEST(Proto, ReadsParametersOfEveryKind) {
  auto m = OneInput("FP32", {0});
  (*m.mutable_parameters())["b"].set_bool_param(true);
  (*m.mutable_parameters())["i"].set_int64_param(-5);
  (*m.mutable_parameters())["u"].set_uint64_param(5);
  (*m.mutable_parameters())["d"].set_double_param(0.25);
  (*m.mutable_parameters())["s"].set_string_param("0.5");
  auto r = FromProto(m);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(*wire::Find(r->parameters, "b"), wire::ParameterValue(true));
  EXPECT_EQ(*wire::Find(r->parameters, "i"), wire::ParameterValue(std::int64_t{-5}));
  EXPECT_EQ(*wire::Find(r->parameters, "u"), wire::ParameterValue(std::int64_t{5}));
  EXPECT_EQ(*wire::Find(r->parameters, "d"), wire::ParameterValue(0.25));
  EXPECT_EQ(**wire::FindNumber(r->parameters, "s"), 0.5);
  (*m.mutable_parameters())["u"].set_uint64_param(~std::uint64_t{0});
  EXPECT_FALSE(FromProto(m).ok());
  (*m.mutable_parameters())["u"].Clear();
  EXPECT_FALSE(FromProto(m).ok());
}

TEST(Proto, ReadsSharedMemoryAndClassification) {
  auto m = OneInput("FP32", {2});
  auto& in = *m.mutable_inputs(0)->mutable_parameters();
  in["shared_memory_region"].set_string_param("r");
  in["shared_memory_offset"].set_int64_param(16);
  in["shared_memory_byte_size"].set_int64_param(8);
  auto* second = m.add_inputs();
  second->set_name("y");
  second->set_datatype("UINT8");
  second->add_shape(2);
  m.add_raw_input_contents("ab");  // of the second: what lies in shared memory takes none
  auto* out = m.add_outputs();
  out->set_name("z");
  (*out->mutable_parameters())["classification"].set_int64_param(3);
  (*out->mutable_parameters())["shared_memory_region"].set_string_param("o");
  (*out->mutable_parameters())["shared_memory_byte_size"].set_int64_param(4);
  const auto r = FromProto(m);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->inputs[0].shared->region, "r");
  EXPECT_EQ(r->inputs[0].shared->offset, 16u);
  EXPECT_EQ(r->inputs[0].shared->bytes, 8u);
  EXPECT_EQ(r->inputs[1].bytes.size(), 2u);
  EXPECT_EQ(r->outputs[0].classification, 3);
  EXPECT_EQ(r->outputs[0].shared->region, "o");

  inference::ModelInferRequest back;
  ToProto(*r, &back);
  EXPECT_EQ(back.raw_input_contents_size(), 1);
  const auto again = FromProto(back);
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(again->inputs[0].shared->offset, 16u);
  EXPECT_EQ(again->outputs[0].classification, 3);
  EXPECT_EQ(again->outputs[0].shared->bytes, 4u);

  in["shared_memory_offset"].set_int64_param(-1);
  EXPECT_FALSE(FromProto(m).ok());
  in["shared_memory_offset"].set_int64_param(0);
  in.erase("shared_memory_byte_size");
  EXPECT_FALSE(FromProto(m).ok());
  in["shared_memory_byte_size"].set_int64_param(8);
  Contents(&m)->add_fp32_contents(1);
  EXPECT_FALSE(FromProto(m).ok());
}

TEST(Proto, AlignsRawContentsForTheirDatatype) {
  // Strings of a message may begin anywhere; numbers that a model reads may not.
  for (int i = 0; i < 8; ++i) {
    auto m = OneInput("FP64", {1});
    m.add_raw_input_contents(Raw<double>({0.75}));
    const auto r = FromProto(m);
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(r->inputs[0].bytes.data()) % 8, 0u);
    EXPECT_EQ(r->inputs[0].View().As<double>()[0], 0.75);
  }
}

TEST(Proto, CarriesAResponseThereAndBack) {
  wire::InferResponse response{"m", "2", "id", {}, {}};
  wire::Set(&response.parameters, "confidence", 0.973);
  wire::Set(&response.parameters, "degraded", true);
  const float values[] = {1, 2};
  response.outputs.push_back({"y", *tensor::Tensor::From<float>({1, 2}, values), {}});
  response.outputs.push_back({"none", *tensor::Tensor::Zeros(DataType::kInt64, {0, 4}), {}});
  inference::ModelInferResponse m;
  ToProto(response, &m);
  EXPECT_EQ(m.raw_output_contents_size(), 2);
  EXPECT_FALSE(m.outputs(0).has_contents());
  EXPECT_EQ(m.parameters().at("confidence").string_param(), "0.973");
  const auto back = FromProto(m);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->model, "m");
  EXPECT_EQ(back->version, "2");
  EXPECT_EQ(back->id, "id");
  EXPECT_EQ(**wire::FindNumber(back->parameters, "confidence"), 0.973);
  EXPECT_EQ(back->outputs[0].tensor.As<float>()[1], 2.0f);
  EXPECT_EQ(back->outputs[1].tensor.shape(), (tensor::Shape{0, 4}));
}

TEST(Proto, ReadsAResponseWithTypedContents) {
  inference::ModelInferResponse m;
  auto* out = m.add_outputs();
  out->set_name("y");
  out->set_datatype("INT64");
  out->add_shape(2);
  out->mutable_contents()->add_int64_contents(3);
  out->mutable_contents()->add_int64_contents(4);
  const auto r = FromProto(m);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->outputs[0].tensor.As<std::int64_t>()[1], 4);
  m.add_raw_output_contents("short");
  EXPECT_FALSE(FromProto(m).ok());
}

TEST(Proto, ReadsAResponseWhoseOutputsLieInSharedMemory) {
  wire::InferResponse response{"m", "1", "", {}, {}};
  const float values[] = {1, 2};
  response.outputs.push_back({"y", *tensor::Tensor::From<float>({2}, values), wire::SharedMemory{"r", 8, 8}});
  response.outputs.push_back({"z", *tensor::Tensor::From<float>({2}, values), {}});
  inference::ModelInferResponse m;
  ToProto(response, &m);
  EXPECT_EQ(m.raw_output_contents(0), "");
  const auto r = FromProto(m);
  ASSERT_TRUE(r.ok()) << r.status().message();
  ASSERT_TRUE(r->outputs[0].shared.has_value());
  EXPECT_EQ(r->outputs[0].shared->offset, 8u);
  EXPECT_EQ(r->outputs[0].tensor.shape(), (tensor::Shape{2}));
  EXPECT_EQ(r->outputs[1].tensor.As<float>()[1], 2.0f);
}

TEST(Proto, CarriesMetadataConfigurationAndStatistics) {
  const wire::ModelMetadata metadata{
      "m", {"1", "2"}, "p", {{"x", DataType::kBf16, {-1, 3}}}, {{"y", DataType::kBytes, {-1}}}};
  inference::ModelMetadataResponse m;
  ToProto(metadata, &m);
  EXPECT_EQ(m.inputs(0).datatype(), "BF16");
  const wire::ModelMetadata back = FromProto(m);
  EXPECT_EQ(back.name, "m");
  EXPECT_EQ(back.versions, metadata.versions);
  EXPECT_EQ(back.inputs, metadata.inputs);
  EXPECT_EQ(back.outputs, metadata.outputs);
  m.mutable_inputs(0)->set_datatype("FP4");
  EXPECT_EQ(FromProto(m).inputs[0].type, DataType::kBytes);

  inference::ModelConfig config;
  ToProto(wire::ModelConfig{"m", "p", "onnxruntime", 8, metadata.inputs, metadata.outputs}, &config);
  EXPECT_EQ(config.max_batch_size(), 8);
  EXPECT_EQ(config.input(0).data_type(), inference::TYPE_BF16);
  EXPECT_EQ(config.output(0).data_type(), inference::TYPE_STRING);
  EXPECT_EQ(config.backend(), "onnxruntime");

  wire::ModelStatistics s;
  s.name = "m";
  s.inference_count = 4;
  s.queue = {2, 99};
  s.cache_hit = {1, 7};
  inference::ModelStatisticsResponse all;
  ToProto(s, &all);
  ToProto(s, &all);
  ASSERT_EQ(all.model_stats_size(), 2);
  EXPECT_EQ(all.model_stats(1).inference_count(), 4u);
  EXPECT_EQ(all.model_stats(1).inference_stats().queue().ns(), 99u);
  EXPECT_EQ(all.model_stats(1).inference_stats().cache_hit().count(), 1u);
}

}  // namespace
}  // namespace ganglion::net
