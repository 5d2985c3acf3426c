// Every route of the REST front, through real sockets, against a service that records what it was asked.
#include "net/rest_front.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "net/service_test.h"
#include "net/socket_test.h"
#include "wire/json.h"

namespace ganglion::net {
namespace {

using wire::Json;

std::string Floats(std::initializer_list<float> values) {
  std::string bytes;
  for (const float v : values) bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
  return bytes;
}

const char kInfer[] = R"({"id":"42","parameters":{"deadline_ms":20},"inputs":[{"name":"x","shape":[1,2],)"
                      R"("datatype":"FP32","data":[1.5,-2]}]})";

class RestFront : public ::testing::Test {
 protected:
  void SetUp() override {
    HttpServerOptions options;
    options.address = "127.0.0.1:0";
    auto server = HttpServer::Start(options, MakeRestFront(&service_));
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
  }

  // With Content-Length unless the body is nothing.
  RawAnswer Ask(const std::string& method, const std::string& target, const std::string& body = "",
                const std::string& fields = "") {
    RawClient c = RawClient::Tcp(server_->port());
    std::string request = method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + fields;
    if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    EXPECT_TRUE(c.Send(request + "\r\n" + body));
    const auto answer = c.Read(method == "HEAD");
    EXPECT_TRUE(answer.has_value()) << "no answer to " << method << " " << target;
    return answer.value_or(RawAnswer());
  }
  static Json Document(const RawAnswer& answer) {
    Json json;
    EXPECT_TRUE(wire::ParseJson(answer.body, &json).ok()) << answer.body;
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
    return json;
  }
  Json Get(const std::string& target) {
    const RawAnswer answer = Ask("GET", target);
    EXPECT_EQ(answer.status, 200) << target << " " << answer.body;
    return Document(answer);
  }
  std::string ErrorOf(const RawAnswer& answer, int status) {
    EXPECT_EQ(answer.status, status) << answer.body;
    const Json json = Document(answer);
    EXPECT_EQ(json.size(), 1u) << answer.body;
    const auto error = wire::GetString(json, "error");
    EXPECT_TRUE(error.ok()) << answer.body;
    return error.ok() ? *error : "";
  }

  RecordingService service_;
  std::unique_ptr<HttpServer> server_;  // before the service
};

TEST_F(RestFront, TellsTheServersMetadata) {
  for (const char* target : {"/v2", "/v2/", "/v2?x=1"}) {
    const Json json = Get(target);
    EXPECT_EQ(json["name"], "recorder");
    EXPECT_EQ(json["version"], "7");
    EXPECT_EQ(json["extensions"].size(), 2u);
  }
}

TEST_F(RestFront, TellsHealthByStatusAlone) {
  EXPECT_EQ(Ask("GET", "/v2/health/live").status, 200);
  EXPECT_EQ(Ask("GET", "/v2/health/ready").status, 200);
  EXPECT_EQ(Ask("HEAD", "/v2/health/ready").status, 200);
  service_.SetReady(true, false);
  EXPECT_EQ(Ask("GET", "/v2/health/live").status, 200);
  ErrorOf(Ask("GET", "/v2/health/ready"), 503);
  EXPECT_EQ(Ask("HEAD", "/v2/health/ready").status, 503);
  service_.SetReady(false, false);
  ErrorOf(Ask("GET", "/v2/health/live"), 503);
  ErrorOf(Ask("GET", "/v2/health"), 404);
  ErrorOf(Ask("GET", "/v2/health/other"), 404);
}

TEST_F(RestFront, TellsAboutAModelAndOfItsVersions) {
  const Json metadata = Get("/v2/models/m/versions/3");
  EXPECT_EQ(metadata["name"], "m");
  EXPECT_EQ(metadata["platform"], "onnxruntime_onnx");
  EXPECT_EQ(metadata["inputs"][0]["name"], "x");
  EXPECT_EQ(metadata["inputs"][0]["datatype"], "FP32");
  EXPECT_EQ(metadata["inputs"][0]["shape"].dump(), "[-1,2]");
  EXPECT_EQ(Get("/v2/models/m")["name"], "m");
  EXPECT_EQ(Get("/v2/models/m/config")["max_batch_size"], 8);
  EXPECT_EQ(Get("/v2/models/m/versions/3/config")["name"], "m");
  EXPECT_EQ(Get("/v2/models/m/stats")["model_stats"][0]["inference_count"], 5);
  EXPECT_EQ(Get("/v2/models/m/versions/3/stats")["model_stats"][0]["name"], "m");
  EXPECT_EQ(Get("/v2/models/stats")["model_stats"][0]["inference_stats"]["success"]["ns"], 1234);
  EXPECT_EQ(Ask("GET", "/v2/models/m/ready").status, 200);
  EXPECT_EQ(Ask("GET", "/v2/models/m/versions/3/ready").status, 200);
  const std::vector<std::string> asked{"metadata m 3", "metadata m ", "config m ", "config m 3", "stats m ",
                                       "stats m 3",    "stats  ",     "ready m ",  "ready m 3"};
  EXPECT_EQ(service_.asked(), asked);
}

TEST_F(RestFront, SaysWhichModelIsNotThere) {
  for (const char* what : {"", "/config", "/stats"})
    EXPECT_EQ(ErrorOf(Ask("GET", std::string("/v2/models/absent") + what), 404), "no model \"absent\"");
  EXPECT_NE(ErrorOf(Ask("GET", "/v2/models/absent/ready"), 400).find("absent"), std::string::npos);
}

TEST_F(RestFront, ReadsNamesWithPercentSigns) {
  EXPECT_EQ(Get("/v2/models/a%20b%2fc%C3%A9%22")["name"], "a b/c\u00e9\"");
  EXPECT_EQ(Get("/v2/models/m/versions/%31")["name"], "m");
  EXPECT_EQ(service_.asked().back(), "metadata m 1");
  for (const char* wrong : {"/v2/models/a%", "/v2/models/a%2", "/v2/models/a%zz", "/v2/models/%%30", "*", "v2"})
    ErrorOf(Ask("GET", wrong), 400);
}

// What a client sent comes back in messages; it must not break the JSON around it.
TEST_F(RestFront, EscapesWhatItRepeats) {
  const std::string name = "/v2/models/absent%22%5C%0A%00%01%7F%FF%C3";
  service_.FailWith(NotFound("no model \"quoted\"\n\t\x01\\ \xff"));
  ErrorOf(Ask("POST", "/v2/models/m/infer", kInfer), 404);
  EXPECT_NE(ErrorOf(Ask("GET", name), 404).find("absent\"\\\n"), std::string::npos);
  EXPECT_NE(ErrorOf(Ask("GET", name + "/ready"), 400).find("absent\"\\\n"), std::string::npos);
  EXPECT_NE(ErrorOf(Ask("GET", "/nothing/\"\\{}\xff"), 404).find("/nothing/\"\\{}"), std::string::npos);
  EXPECT_NE(ErrorOf(Ask("POST", "/v2/models/m/infer", kInfer, "Content-Encoding: \"gz\\ip\"\r\n"), 415).find("gz\\ip"),
            std::string::npos);
  EXPECT_NE(ErrorOf(Ask("GET\"X", "/v2"), 400), "");
  ErrorOf(Ask("POST", "/v2/models/m/infer", kInfer, "Inference-Header-Content-Length: \"\\\xfe\r\n"), 400);
}

TEST_F(RestFront, EchoesAnInferenceInJsonWithItsId) {
  const RawAnswer answer = Ask("POST", "/v2/models/m/infer", kInfer);  // no Content-Type, as stock clients
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json json = Document(answer);
  EXPECT_EQ(json["id"], "42");
  EXPECT_EQ(json["model_name"], "m");
  EXPECT_EQ(json["outputs"][0]["name"], "x");
  EXPECT_EQ(json["outputs"][0]["data"].dump(), "[1.5,-2]");
  EXPECT_EQ(answer.headers.count("inference-header-content-length"), 0u);
  const SeenRequest seen = service_.last();
  EXPECT_EQ(seen.model, "m");
  EXPECT_EQ(seen.version, "");
  EXPECT_EQ(seen.context.front, Front::kHttp);
  EXPECT_TRUE(seen.context.may_run_here);
  EXPECT_FALSE(seen.context.deadline.has_value());
  EXPECT_GT(seen.context.received, TimePoint{});
  EXPECT_EQ(*wire::FindNumber(seen.parameters, "deadline_ms"), 20.0);
  Ask("POST", "/v2/models/a%20b/versions/9/infer", kInfer, "Content-Type: text/plain\r\n");
  EXPECT_EQ(service_.last().model, "a b");
  EXPECT_EQ(service_.last().version, "9");
}

TEST_F(RestFront, ReadsAndWritesTensorsBehindTheJsonWhateverTheCaseOfTheHeader) {
  const std::string json =
      R"({"id":"b","parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32",)"
      R"("parameters":{"binary_data_size":8}},{"name":"s","shape":[2],"datatype":"BYTES",)"
      R"("parameters":{"binary_data_size":11}}]})";
  const std::string tail = Floats({3, 4}) + std::string("\x02\0\0\0hi\x01\0\0\0z", 11);
  for (const char* name : {"Inference-Header-Content-Length", "inference-header-content-length",
                           "INFERENCE-HEADER-CONTENT-LENGTH", "InFeReNcE-hEaDeR-cOnTeNt-LeNgTh"}) {
    const RawAnswer answer =
        Ask("POST", "/v2/models/m/infer", json + tail, name + (": " + std::to_string(json.size())) + "\r\n");
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.headers.at("content-type"), "application/octet-stream");
    const auto json_bytes = std::stoul(answer.headers.at("inference-header-content-length"));
    EXPECT_EQ(answer.body.substr(json_bytes), tail);
    Json out;
    ASSERT_TRUE(wire::ParseJson(answer.body.substr(0, json_bytes), &out).ok());
    EXPECT_EQ(out["id"], "b");
    EXPECT_EQ(out["outputs"][0]["parameters"]["binary_data_size"], 8);
    EXPECT_EQ(out["outputs"][1]["parameters"]["binary_data_size"], 11);
  }
}

TEST_F(RestFront, TakesABodyOfNothingButBytesForAModelWithOneInput) {
  const char* const zero = "Inference-Header-Content-Length: 0\r\n";
  const RawAnswer answer = Ask("POST", "/v2/models/m/infer", Floats({1, 2, 3, 4}), zero);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const SeenRequest seen = service_.last();
  ASSERT_EQ(seen.inputs.size(), 1u);
  EXPECT_EQ(seen.inputs[0].name, "x");
  EXPECT_EQ(seen.inputs[0].tensor.shape(), (tensor::Shape{2, 2}));
  EXPECT_EQ(seen.inputs[0].tensor.As<float>()[3], 4.0f);
  ErrorOf(Ask("POST", "/v2/models/m/infer", Floats({1, 2, 3}), zero), 400);
  ErrorOf(Ask("POST", "/v2/models/two/infer", Floats({1, 2}), zero), 400);
  ErrorOf(Ask("POST", "/v2/models/absent/infer", Floats({1, 2}), zero), 404);
}

TEST_F(RestFront, RefusesInferencesThatAreNotRight) {
  const std::string target = "/v2/models/m/infer";
  const struct {
    const char* what;
    std::string body;
    std::string fields;
  } cases[] = {
      {"nothing", "", ""},
      {"half a JSON", std::string(kInfer).substr(0, 60), ""},
      {"too few numbers", R"({"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1]}]})", ""},
      {"negative shape", R"({"inputs":[{"name":"x","shape":[-1,3],"datatype":"FP32","data":[1]}]})", ""},
      {"overflowing shape", R"({"inputs":[{"name":"x","shape":[4294967296,4294967296],"datatype":"FP32","data":[1]}]})",
       ""},
      {"unknown datatype", R"({"inputs":[{"name":"x","shape":[1],"datatype":"FP31","data":[1]}]})", ""},
      {"deep JSON", std::string(100'000, '['), ""},
      {"header beyond the body", kInfer, "Inference-Header-Content-Length: 100000\r\n"},
      {"header no number", kInfer, "Inference-Header-Content-Length: 1x\r\n"},
      {"header negative", kInfer, "Inference-Header-Content-Length: -1\r\n"},
      {"header beyond 64 bits", kInfer, "Inference-Header-Content-Length: 99999999999999999999999\r\n"},
      {"binary size that lies",
       R"({"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]})",
       "Inference-Header-Content-Length: 89\r\n"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    ErrorOf(Ask("POST", target, c.body, c.fields), 400);
  }
  EXPECT_TRUE(service_.seen().empty());
  EXPECT_EQ(Ask("POST", target, kInfer).status, 200);
  ErrorOf(Ask("POST", target, kInfer, "Content-Encoding: gzip\r\n"), 415);
  EXPECT_EQ(Ask("POST", target, kInfer, "Content-Encoding: identity\r\n").status, 200);
}

TEST_F(RestFront, PassesOnTraceContextAndToken) {
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  Ask("POST", "/v2/models/m/infer", kInfer, "TraceParent: " + trace + "\r\nAuthorization: Bearer s3cret\r\n");
  EXPECT_EQ(service_.last().context.traceparent, trace);
  EXPECT_EQ(service_.last().context.token, "s3cret");
  EXPECT_FALSE(service_.last().context.peer_verified);
  Ask("POST", "/v2/models/m/infer", kInfer, "authorization: bearer other\r\n");
  EXPECT_EQ(service_.last().context.token, "other");
  for (const char* none :
       {"", "Authorization: Basic abc\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer \r\n"}) {
    Ask("POST", "/v2/models/m/infer", kInfer, none);
    EXPECT_EQ(service_.last().context.token, "") << none;
    EXPECT_EQ(service_.last().context.traceparent, "");
  }
}

TEST_F(RestFront, TellsRefusalsWithTheirStatusAndWhenToComeBack) {
  const std::string target = "/v2/models/m/infer";
  service_.FailWith(ResourceExhausted("64 in flight, limit 64"), std::chrono::milliseconds(1400));
  RawAnswer answer = Ask("POST", target, kInfer);
  EXPECT_EQ(ErrorOf(answer, 429), "64 in flight, limit 64");
  EXPECT_EQ(answer.headers.at("retry-after"), "2");
  EXPECT_EQ(answer.headers.at("retry-after-ms"), "1400");
  service_.FailWith(ResourceExhausted("full"), Duration(1));  // never "come back in 0 seconds"
  answer = Ask("POST", target, kInfer);
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
  EXPECT_EQ(answer.headers.at("retry-after-ms"), "1");
  const std::pair<Status, int> cases[] = {{InvalidArgument("a"), 400}, {NotFound("b"), 404},
                                          {Unauthenticated("c"), 401}, {PermissionDenied("d"), 403},
                                          {Unavailable("e"), 503},     {{Code::kDeadlineExceeded, "f"}, 504},
                                          {Internal("g"), 500},        {Unimplemented("h"), 501}};
  for (const auto& [status, http] : cases) {
    service_.FailWith(status);
    answer = Ask("POST", target, kInfer);
    EXPECT_EQ(ErrorOf(answer, http), status.message());
    EXPECT_EQ(answer.headers.count("retry-after"), 0u);
  }
}

TEST_F(RestFront, AnswersFromAnotherThreadAndWhenACallIsDropped) {
  service_.SetMode(RecordingService::Mode::kEchoLater);
  EXPECT_EQ(Document(Ask("POST", "/v2/models/m/infer", kInfer))["id"], "42");
  service_.SetMode(RecordingService::Mode::kDrop);
  ErrorOf(Ask("POST", "/v2/models/m/infer", kInfer), 500);
}

TEST_F(RestFront, ListsTheRepositoryWithoutABodyOrALength) {
  const RawAnswer answer = Ask("POST", "/v2/repository/index");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json json = Document(answer);
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["name"], "m");
  EXPECT_EQ(json[0]["state"], "READY");
  EXPECT_EQ(json[1]["reason"], "no file \"model.onnx\"");
  EXPECT_EQ(Document(Ask("POST", "/v2/repository/index", R"({"ready":true})")).size(), 1u);
  EXPECT_EQ(Document(Ask("POST", "/v2/repository/index", "{}")).size(), 2u);
  ErrorOf(Ask("POST", "/v2/repository/index", "{"), 400);
  ErrorOf(Ask("GET", "/v2/repository/index"), 405);
}

TEST_F(RestFront, LoadsAndUnloadsModels) {
  EXPECT_EQ(Ask("POST", "/v2/repository/models/m/load").status, 200);
  EXPECT_EQ(Ask("POST", "/v2/repository/models/a%2Fb/unload", "{}").status, 200);
  EXPECT_EQ(service_.asked(), (std::vector<std::string>{"load m", "unload a/b"}));
  EXPECT_EQ(ErrorOf(Ask("POST", "/v2/repository/models/absent/load"), 404), "no model \"absent\"");
  ErrorOf(Ask("GET", "/v2/repository/models/m/load"), 405);
  ErrorOf(Ask("POST", "/v2/repository/models/m/reload"), 404);
  ErrorOf(Ask("POST", "/v2/repository"), 404);
}

TEST_F(RestFront, RegistersSharedMemory) {
  const std::string base = "/v2/systemsharedmemory";
  EXPECT_EQ(Document(Ask("GET", base + "/status")).size(), 0u);
  const std::string body = R"({"key":"/k","offset":8,"byte_size":64})";
  EXPECT_EQ(Ask("POST", base + "/region/r/register", body).status, 200);
  EXPECT_EQ(Ask("POST", base + "/region/r%202/register", R"({"key":"/k2","byte_size":1})").status, 200);
  ErrorOf(Ask("POST", base + "/region/r/register", body), 409);
  ErrorOf(Ask("POST", base + "/region/q/register", "{}"), 400);
  Json json = Get(base + "/region/r/status");
  ASSERT_EQ(json.size(), 1u);
  EXPECT_EQ(json[0]["key"], "/k");
  EXPECT_EQ(json[0]["offset"], 8);
  EXPECT_EQ(json[0]["byte_size"], 64);
  EXPECT_EQ(Get(base + "/status").size(), 2u);
  ErrorOf(Ask("GET", base + "/region/none/status"), 404);
  EXPECT_EQ(Ask("POST", base + "/region/r/unregister").status, 200);
  EXPECT_EQ(Get(base + "/status").size(), 1u);
  EXPECT_EQ(Ask("POST", base + "/unregister").status, 200);
  EXPECT_EQ(Get(base + "/status").size(), 0u);
  ErrorOf(Ask("POST", base + "/register", body), 404);
  ErrorOf(Ask("GET", base + "/region/r/register"), 405);
  ErrorOf(Ask("POST", base + "/status"), 405);
  ErrorOf(Ask("GET", base), 404);
}

TEST_F(RestFront, PassesOnTensorsInSharedMemory) {
  const char body[] =
      R"({"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"shared_memory_region":"r",)"
      R"("shared_memory_offset":16,"shared_memory_byte_size":8}}],"outputs":[{"name":"x","parameters":)"
      R"({"shared_memory_region":"out","shared_memory_byte_size":8}}]})";
  ASSERT_EQ(Ask("POST", "/v2/models/m/infer", body).status, 200);
  const SeenRequest seen = service_.last();
  ASSERT_TRUE(seen.inputs[0].shared.has_value());
  EXPECT_EQ(seen.inputs[0].shared->region, "r");
  EXPECT_EQ(seen.inputs[0].shared->offset, 16u);
  EXPECT_EQ(seen.inputs[0].shared->bytes, 8u);
  ASSERT_TRUE(seen.outputs[0].shared.has_value());
  EXPECT_EQ(seen.outputs[0].shared->region, "out");
}

TEST_F(RestFront, SaysWhatIsNotThereAndWhatIsNotAllowed) {
  for (const char* target : {"/", "/v1", "/v2/nothing", "/v2/models", "/v2/models/m/nothing", "/v2/models/m/infer/x",
                             "/v2/models/m/versions", "/v2/models/m/versions/1/nothing",
                             "/v2/models/m/versions/1/infer/x", "/metrics", "/status"})
    ErrorOf(Ask("GET", target), 404);
  const std::pair<const char*, const char*> wrong[] = {{"POST", "/v2"},
                                                       {"DELETE", "/v2/models/m"},
                                                       {"PUT", "/v2/models/m/infer"},
                                                       {"GET", "/v2/models/m/infer"},
                                                       {"BREW", "/v2/health/live"},
                                                       {"POST", "/v2/models/stats"}};
  for (const auto& [method, target] : wrong) {
    const RawAnswer answer = Ask(method, target);
    ErrorOf(answer, 405);
    EXPECT_EQ(answer.headers.count("allow"), 1u) << target;
  }
}

TEST_F(RestFront, AsksForATokenWhereTheServiceDoes) {
  service_.RequireTokens();
  const std::string user = "Authorization: Bearer user\r\n";
  const std::string operator_ = "Authorization: Bearer operator\r\n";
  for (const char* target :
       {"/v2", "/v2/models/m", "/v2/models/m/config", "/v2/models/stats", "/v2/systemsharedmemory/status"}) {
    const RawAnswer refused = Ask("GET", target);
    ErrorOf(refused, 401);
    EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
    EXPECT_EQ(Ask("GET", target, "", user).status, 200);
  }
  EXPECT_EQ(Ask("GET", "/v2/health/live").status, 200);
  EXPECT_EQ(Ask("GET", "/v2/models/m/ready").status, 200);
  ErrorOf(Ask("POST", "/v2/repository/models/m/load", "", user), 403);
  EXPECT_EQ(Ask("POST", "/v2/repository/models/m/load", "", operator_).status, 200);
  ErrorOf(Ask("POST", "/v2/repository/index"), 401);
}

TEST(MetricsFront, TellsMetricsStatusAndHealthOnly) {
  RecordingService service;
  HttpServerOptions options;
  options.address = "127.0.0.1:0";
  const auto server = HttpServer::Start(options, MakeMetricsFront(&service));
  ASSERT_TRUE(server.ok());
  RawClient c = RawClient::Tcp((*server)->port());
  const auto get = [&](const std::string& target) {
    EXPECT_TRUE(c.Send("GET " + target + " HTTP/1.1\r\n\r\n"));
    return c.Read().value_or(RawAnswer());
  };
  const RawAnswer metrics = get("/metrics");
  EXPECT_EQ(metrics.body, service.MetricsText());
  EXPECT_EQ(metrics.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(get("/status").body, service.StatusJson());
  EXPECT_EQ(get("/v2/health/ready").status, 200);
  EXPECT_EQ(get("/v2/models/m").status, 404);
  EXPECT_EQ(get("/v2").status, 404);
}

}  // namespace
}  // namespace ganglion::net
