// What a node says, through both fronts.
#include "node/server.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "node/serving_test.h"

namespace ganglion::node {
namespace {

using namespace fixture;  // NOLINT: a test
using std::chrono::milliseconds;
using topology::Tier;

const std::vector<std::string> kRowOutputs{"label",
                                           "label_name",
                                           "confidence",
                                           "ganglion.tier",
                                           "ganglion.stage",
                                           "ganglion.confidence",
                                           "ganglion.decision_id",
                                           "ganglion.propensity",
                                           "ganglion.degraded"};

// One node with all three tiers of the decision "plane", and two plain models.
class Serving : public ServingDir {
 protected:
  void SetUp() override {
    ServingDir::SetUp();
    WriteThreeTiers();
    CalibrateInPlace();
    onnx::ModelProto sum;
    graph::GraphBuilder g(&sum);
    for (const char* name : {"a", "b"}) g.Input({name, DataType::kFp32, {-1, 2}});
    g.Node("Add", {"a", "b"}, {}, "y");
    g.Output({"y", DataType::kFp32, {-1, 2}});
    Write("sum.onnx", graph::Serialize(sum));
    Open("");
  }
  void TearDown() override {
    client_.reset();
    node_.reset();
    ServingDir::TearDown();
  }
  void Open(const std::string& more) {
    client_.reset();
    node_.reset();
    node_ = Start("tier: global\ndecisions: [.]\nmodels: [edge.onnx, sum.onnx]\n" + more);
    ASSERT_NE(node_, nullptr);
    client_ = std::make_unique<Client>(*node_);
  }
  // Both fronts must agree; gives what REST said.
  Result<wire::InferResponse> Both(const wire::InferRequest& request) {
    auto rest = client_->Rest(request);
    const auto grpc = client_->Grpc(request);
    EXPECT_EQ(rest.ok(), grpc.ok()) << rest.status().message() << " / " << grpc.status().message();
    if (rest.ok() && grpc.ok()) {
      EXPECT_EQ(rest->outputs.size(), grpc->outputs.size());
      for (std::size_t i = 0; i < std::min(rest->outputs.size(), grpc->outputs.size()); ++i) {
        EXPECT_EQ(rest->outputs[i].name, grpc->outputs[i].name);
        if (rest->outputs[i].name == "ganglion.decision_id") continue;
        const auto a = rest->outputs[i].tensor.View().bytes;
        const auto b = grpc->outputs[i].tensor.View().bytes;
        EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << rest->outputs[i].name;
      }
    }
    return rest;
  }

  std::unique_ptr<Server> node_;
  std::unique_ptr<Client> client_;
};

TEST_F(Serving, DescribesDecisionsAndModelsInTheSameWay) {
  const auto [live, no_body] = client_->Get("/v2/health/live");
  EXPECT_EQ(live, 200);
  EXPECT_EQ(client_->Get("/v2/health/ready").first, 200);
  const std::string about = client_->Get("/v2").second;
  for (const char* part : {"\"ganglion\"", "ganglion.tier=global", "binary_tensor_data", "system_shared_memory"})
    EXPECT_NE(about.find(part), std::string::npos) << about;
  const auto metadata = wire::ParseModelMetadata(client_->Get("/v2/models/plane").second);
  ASSERT_TRUE(metadata.ok()) << metadata.status().message();
  EXPECT_EQ(metadata->platform, "ganglion_decision");
  EXPECT_EQ(metadata->inputs, (std::vector<tensor::Spec>{{"point", DataType::kFp32, {-1, 2}}}));
  ASSERT_EQ(metadata->outputs.size(), 3u);
  EXPECT_EQ(metadata->outputs[0], (tensor::Spec{"label", DataType::kInt64, {-1}}));
  EXPECT_EQ(metadata->outputs[1], (tensor::Spec{"label_name", DataType::kBytes, {-1}}));
  EXPECT_EQ(metadata->outputs[2], (tensor::Spec{"confidence", DataType::kFp32, {-1}}));
  const auto by_grpc = client_->grpc().ModelMetadata("plane", "", kPatience);
  ASSERT_TRUE(by_grpc.ok());
  EXPECT_EQ(by_grpc->inputs, metadata->inputs);
  EXPECT_EQ(by_grpc->outputs, metadata->outputs);
  EXPECT_EQ(by_grpc->versions, metadata->versions);

  const auto model = client_->grpc().ModelMetadata("edge", "", kPatience);
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->platform, "onnxruntime_onnx");
  EXPECT_EQ(model->inputs[0].name, "x");
  EXPECT_EQ(client_->Get("/v2/models/edge/config").first, 200);
  for (const std::string name : {"plane", "edge"}) {
    EXPECT_EQ(client_->Get("/v2/models/" + name + "/ready").first, 200);
    EXPECT_NE(client_->Get("/v2/models/" + name + "/config").second.find("\"name\":\"" + name + "\""),
              std::string::npos);
    EXPECT_NE(client_->Post("/v2/repository/index").second.find("\"" + name + "\""), std::string::npos);
  }
  EXPECT_EQ(client_->Get("/v2/models/plane/versions/" + metadata->versions[0] + "/ready").first, 200);
  const auto [missing, why] = client_->Get("/v2/models/plane/versions/7");
  EXPECT_EQ(missing, 404);
  EXPECT_NE(why.find("has no version 7; there are " + metadata->versions[0]), std::string::npos) << why;
  EXPECT_EQ(client_->Get("/v2/models/nobody").first, 404);
  EXPECT_EQ(client_->grpc().ModelMetadata("nobody", "", kPatience).status().code(), Code::kNotFound);
}

TEST_F(Serving, CountsWhatItAnswered) {
  ASSERT_TRUE(client_->Rest(Ask({kEasy, kHard})).ok());
  ASSERT_TRUE(client_->Rest(Ask({kEasy}, {}, "edge", "x")).ok());
  ASSERT_FALSE(client_->Rest(Ask({kEasy}, {}, "edge", "nothing")).ok());
  const auto read = [&](const std::string& path) {
    wire::Json j;
    EXPECT_TRUE(wire::ParseJson(client_->Get(path).second, &j).ok());
    return j.at("model_stats").at(0);
  };
  const auto plane = read("/v2/models/plane/stats");
  EXPECT_EQ(plane.at("inference_count"), 2);
  EXPECT_EQ(plane.at("inference_stats").at("success").at("count"), 1);
  const auto edge = read("/v2/models/edge/stats");
  EXPECT_EQ(edge.at("inference_count"), 1);
  EXPECT_EQ(edge.at("inference_stats").at("fail").at("count"), 1);
  wire::Json all;
  ASSERT_TRUE(wire::ParseJson(client_->Get("/v2/models/stats").second, &all).ok());
  EXPECT_EQ(all.at("model_stats").size(), 3u);
}

TEST_F(Serving, SaysWhoDecidedAndHowSureItWas) {
  for (const bool by_grpc : {false, true}) {
    const auto request = Ask({kEasy});
    const auto r = by_grpc ? client_->Grpc(request) : client_->Rest(request, false);
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(r->model, "plane");
    EXPECT_EQ(Labels(*r), std::vector<std::int64_t>{0});
    EXPECT_EQ(Texts(*r, "label_name"), std::vector<std::string>{"ne"});
    const auto& p = r->parameters;
    EXPECT_EQ(TextOf(p, "tier"), "device");
    EXPECT_EQ(TextOf(p, "stage"), "device");
    EXPECT_EQ(TextOf(p, "variant"), "default");
    EXPECT_EQ(TextOf(p, "degraded"), "false");
    EXPECT_EQ(TextOf(p, "reason"), "(none)");
    EXPECT_EQ(NumberOf(p, "propensity"), 1);
    EXPECT_FLOAT_EQ(static_cast<float>(NumberOf(p, "confidence")), Numbers<float>(*r, "confidence").at(0));
    EXPECT_EQ(TextOf(p, "model_version"), r->version);
    EXPECT_EQ(TextOf(p, "decision_id").size(), 26u);
  }
  const auto hard = Both(Ask({kHard}));
  EXPECT_EQ(TextOf(hard->parameters, "tier"), "global");
  EXPECT_EQ(TextOf(hard->parameters, "stage"), "ensemble");
}

TEST_F(Serving, DecisionIdsSortByTimeAndNeverRepeat) {
  std::set<std::string> ids;
  std::string last;
  for (int i = 0; i < 200; ++i) {
    const auto r = client_->Grpc(Ask({kEasy}));
    ASSERT_TRUE(r.ok());
    const std::string id = TextOf(r->parameters, "decision_id");
    EXPECT_TRUE(ids.insert(id).second) << id;
    EXPECT_GE(id.substr(0, 10), last.substr(0, 10));  // the milliseconds
    last = id;
  }
}

TEST_F(Serving, TellsEachRowOfABatchApart) {
  const auto at_edge = RowsDecidedAt(Tier::kEdge);
  ASSERT_FALSE(at_edge.empty());
  const auto r = Both(Ask({kEasy, kHard, at_edge[0], kEasy}, kRowOutputs));
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(Texts(*r, "ganglion.tier"), (std::vector<std::string>{"device", "global", "edge", "device"}));
  EXPECT_EQ(Texts(*r, "ganglion.stage"), (std::vector<std::string>{"device", "ensemble", "edge", "device"}));
  EXPECT_EQ(Numbers<float>(*r, "ganglion.confidence"), Numbers<float>(*r, "confidence"));
  EXPECT_EQ(Numbers<float>(*r, "ganglion.propensity"), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(Flags(*r, "ganglion.degraded"), (std::vector<bool>{false, false, false, false}));
  const auto ids = Texts(*r, "ganglion.decision_id");
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 4u);
  EXPECT_EQ(TextOf(r->parameters, "decision_id"), ids.at(0));
  EXPECT_EQ(TextOf(r->parameters, "tier"), "(none)");  // there is not one for all
  // Asked for one output, it gives one; in the order of the asking.
  const auto some = Both(Ask({kHard}, {"ganglion.tier", "label"}));
  ASSERT_EQ(some->outputs.size(), 2u);
  EXPECT_EQ(some->outputs[0].name, "ganglion.tier");
  EXPECT_EQ(Both(Ask({kHard}))->outputs.size(), 3u);
}

TEST_F(Serving, DecidesABatchAsItsRowsAndAsTheLibrary) {
  const auto decision = Decision::Open(engine_, dir_).value();
  const auto points = MakePoints(150, 77);
  const SteadyClock clock;
  std::vector<Row> rows;
  std::vector<std::int64_t> labels;
  std::vector<float> confidences;
  std::vector<std::string> tiers;
  for (std::int64_t r = 0; r < 150; ++r) {
    tensor::Shape shape;
    const auto view = tensor::Rows(points.x.View(), r, r + 1, &shape);
    const auto decided = decision->Decide({&view, 1}, clock, clock.Now() + kPatience).value();
    rows.push_back({view.As<float>()[0], view.As<float>()[1]});
    labels.push_back(decided.label);
    confidences.push_back(decided.confidence);
    tiers.emplace_back(topology::Name(decided.tier));
  }
  EXPECT_EQ((std::set<std::string>(tiers.begin(), tiers.end()).size()), 3u);
  const auto batch = Both(Ask(rows, kRowOutputs));
  ASSERT_TRUE(batch.ok()) << batch.status().message();
  EXPECT_EQ(Labels(*batch), labels);
  EXPECT_EQ(Texts(*batch, "ganglion.tier"), tiers);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto one = client_->Grpc(Ask({rows[r]}, kRowOutputs));
    ASSERT_TRUE(one.ok());
    EXPECT_EQ(Labels(*one)[0], labels[r]);
    EXPECT_EQ(Texts(*one, "ganglion.tier")[0], tiers[r]);
    EXPECT_NEAR(Numbers<float>(*one, "confidence")[0], confidences[r], 1e-5);
    EXPECT_NEAR(Numbers<float>(*batch, "confidence")[r], confidences[r], 1e-5);
  }
}

TEST_F(Serving, BeginsWhereItIsToldTo) {
  auto above = Ask({kEasy}, kRowOutputs);
  above.parameters.push_back({"above_tier", std::string("device")});
  EXPECT_EQ(Texts(Both(above).value(), "ganglion.tier")[0], "edge");
  auto required = Ask({kEasy}, kRowOutputs);
  required.parameters.push_back({"require_tier", std::string("global")});
  EXPECT_EQ(Texts(Both(required).value(), "ganglion.tier")[0], "global");
  required.parameters[0].value = std::string("region");  // nothing there: the next above
  EXPECT_EQ(Texts(Both(required).value(), "ganglion.tier")[0], "global");
  required.parameters[0].value = std::string("moon");
  EXPECT_NE(Both(required).status().message().find("\\\"moon\\\" is no tier"), std::string::npos);
  above.parameters[0].value = std::string("global");
  EXPECT_NE(Both(above).status().message().find("plane has no stage above tier global"), std::string::npos);
}

TEST_F(Serving, RefusesWhatItCannotTakeInOneSentence) {
  const std::string good = R"("inputs":[{"name":"point","shape":[1,2],"datatype":"FP32","data":[3,0.5]}])";
  const auto refused = [&](const std::string& body, int status, const std::string& message,
                           const std::string& model = "plane") {
    const auto [got, text] = client_->Post("/v2/models/" + model + "/infer", body);
    EXPECT_EQ(got, status) << body << "\n" << text;
    wire::Json j;
    ASSERT_TRUE(wire::ParseJson(text, &j).ok()) << text;
    EXPECT_NE(j.at("error").get<std::string>().find(message), std::string::npos) << text;
  };
  ASSERT_EQ(client_->Post("/v2/models/plane/infer", "{" + good + "}").first, 200);
  refused("{" + good + "}", 404, "there is no model \"nobody\"", "nobody");
  refused(R"({"inputs":[{"name":"q","shape":[1,2],"datatype":"FP32","data":[1,2]}]})", 400,
          "input \"q\" is unknown; plane takes \"point\"");
  refused(R"({"inputs":[{"name":"point","shape":[1,2],"datatype":"FP32","data":[1,2]},)"
          R"({"name":"point","shape":[1,2],"datatype":"FP32","data":[1,2]}]})",
          400, "input \"point\" is there twice");
  refused(R"({"inputs":[]})", 400, "\"inputs\" is missing or empty");
  refused(R"({"inputs":[{"name":"b","shape":[1,2],"datatype":"FP32","data":[1,2]}]})", 400,
          "input \"a\" FP32[-1,2] is missing", "sum");
  refused(R"({"inputs":[{"name":"point","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]})", 400,
          "input \"point\" is FP32[1,3], want FP32[-1,2]; reshape, or set pre");
  refused(R"({"inputs":[{"name":"point","shape":[1,2],"datatype":"INT64","data":[1,2]}]})", 400, "want FP32[-1,2]");
  refused(R"({"inputs":[{"name":"point","shape":[0,2],"datatype":"FP32","data":[]}]})", 400, "no rows");
  refused("{" + good + R"(,"outputs":[{"name":"sure"}]})", 400,
          "output \"sure\" is unknown; plane gives \"label\", \"label_name\", \"confidence\"");
  refused("{" + good + R"(,"outputs":[{"name":"label","parameters":{"classification":2}}]})", 400,
          "no scores to classify");
  refused("{" + good + R"(,"parameters":{"deadline_ms":"soon"}})", 400, "\"deadline_ms\" is \"soon\", want a number");
  refused("{" + good + R"(,"parameters":{"deadline_ms":-5}})", 400, "deadline_ms -5 is out of range");
  refused("{" + good + R"(,"parameters":{"hop":9}})", 400, "hop 9 is beyond the limit of 8");
  refused("{", 400, "");
  refused(R"({"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]})", 400, "want FP32[-1,2]",
          "edge");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const auto r = Both(Ask({kEasy, {1, bad}}));
    EXPECT_EQ(r.status().code(), Code::kInvalidArgument);
    EXPECT_NE(r.status().message().find("at element 3"), std::string::npos) << r.status().message();
  }
  EXPECT_EQ(client_->Get("/v2/health/ready").first, 200);
}

TEST_F(Serving, EchoesTheIdOfTheRequest) {
  auto request = Ask({kEasy});
  request.id = "mine-7";
  EXPECT_EQ(client_->Rest(request)->id, "mine-7");
  EXPECT_EQ(client_->Grpc(request)->id, "mine-7");
  EXPECT_EQ(client_->Rest(request)->id, "mine-7");  // out of the cache, too
}

TEST_F(Serving, PlainModelsAnswerWithTheirOutputs) {
  const auto r = Both(Ask({kEasy, kHard}, {}, "edge", "x"));
  ASSERT_TRUE(r.ok()) << r.status().message();
  ASSERT_EQ(r->outputs.size(), 1u);
  EXPECT_EQ(r->outputs[0].name, "logits");
  EXPECT_EQ(r->outputs[0].tensor.shape(), (tensor::Shape{2, 4}));
  const auto w = Quadrants(3, .3f);
  for (std::size_t k = 0; k < 4; ++k)
    EXPECT_NEAR(r->outputs[0].tensor.As<float>()[k], kEasy[0] * w[k] + kEasy[1] * w[4 + k], 1e-4);
  EXPECT_EQ(TextOf(r->parameters, "tier"), "(none)");
  // Classes: "value:index", the largest first.
  auto classes = Ask({kEasy}, {"logits"}, "edge", "x");
  classes.outputs[0].classification = 2;
  const auto best = Texts(Both(classes).value(), "logits");
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[0].substr(best[0].find(':')), ":0") << best[0];
  EXPECT_GT(std::stof(best[0]), std::stof(best[1]));
}

TEST_F(Serving, TakesDeadlinesInEveryForm) {
  const auto with = [&](const std::string& name, wire::ParameterValue value, const std::string& model) {
    auto request = model == "plane" ? Ask({kEasy}) : Ask({kEasy}, {}, "edge", "x");
    request.parameters.push_back({name, std::move(value)});
    return Both(request).status();
  };
  for (const std::string model : {"plane", "edge"}) {
    EXPECT_EQ(with("deadline_ms", std::int64_t{0}, model).code(), Code::kDeadlineExceeded);
    EXPECT_EQ(with("timeout", std::int64_t{1}, model).code(), Code::kDeadlineExceeded);  // a microsecond
    EXPECT_TRUE(with("timeout", std::int64_t{0}, model).ok());                           // none
    EXPECT_TRUE(with("timeout", std::int64_t{5'000'000}, model).ok());
    EXPECT_TRUE(with("deadline_ms", std::string("5000.5"), model).ok());
    EXPECT_EQ(with("deadline_ms", std::int64_t{100'000'000}, model).code(), Code::kInvalidArgument);
    EXPECT_EQ(with("deadline_ms", true, model).code(), Code::kInvalidArgument);
  }
  const auto [status, text] = client_->Post(
      "/v2/models/plane/infer", R"({"inputs":[{"name":"point","shape":[1,2],"datatype":"FP32","data":[3,0.5]}],)"
                                R"("parameters":{"deadline_ms":0}})");
  EXPECT_EQ(status, 504);
  EXPECT_NE(text.find("deadline 0ms passed"), std::string::npos) << text;
}

TEST_F(Serving, AnswersEqualRequestsOutOfTheCacheWithIdsOfTheirOwn) {
  const auto first = client_->Rest(Ask({kHard}, kRowOutputs)).value();
  EXPECT_EQ(TextOf(first.parameters, "cached"), "(none)");
  const auto again = client_->Grpc(Ask({kHard}, kRowOutputs)).value();
  EXPECT_EQ(TextOf(again.parameters, "cached"), "true");
  EXPECT_EQ(Labels(again), Labels(first));
  EXPECT_EQ(Texts(again, "ganglion.tier"), Texts(first, "ganglion.tier"));
  EXPECT_NE(TextOf(again.parameters, "decision_id"), TextOf(first.parameters, "decision_id"));
  EXPECT_EQ(Texts(again, "ganglion.decision_id")[0], TextOf(again.parameters, "decision_id"));
  // Another row, other outputs, another beginning: other questions.
  EXPECT_EQ(TextOf(client_->Rest(Ask({{-.001f, .001f}}, kRowOutputs))->parameters, "cached"), "(none)");
  EXPECT_EQ(TextOf(client_->Rest(Ask({kHard}, {"label"}))->parameters, "cached"), "(none)");
  auto required = Ask({kHard}, kRowOutputs);
  required.parameters.push_back({"require_tier", std::string("global")});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(TextOf(client_->Rest(required)->parameters, "cached"), "(none)");
  // Deadline, unit and trace change nothing.
  auto other = Ask({kHard}, kRowOutputs);
  other.parameters.push_back({"deadline_ms", std::int64_t{900}});
  other.parameters.push_back({"unit", std::string("u-1")});
  EXPECT_EQ(TextOf(client_->Rest(other)->parameters, "cached"), "true");
  EXPECT_EQ(Metric(client_->Metrics(), "ganglion_cache_hits_total"), 2);
  // A reload empties it.
  ASSERT_EQ(client_->Post("/v2/repository/models/plane/load").first, 200);
  EXPECT_EQ(TextOf(client_->Rest(Ask({kHard}, kRowOutputs))->parameters, "cached"), "(none)");
  Open("cache: off\n");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(TextOf(client_->Rest(Ask({kHard}))->parameters, "cached"), "(none)");
}

// A piece of POSIX shared memory that goes with the test.
class Region {
 public:
  Region(const std::string& key, std::size_t bytes) : key_(key) {
    fd_ = ::shm_open(key.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT_GE(fd_, 0);
    Resize(bytes);
  }
  ~Region() {
    ::close(fd_);
    ::shm_unlink(key_.c_str());
  }
  void Resize(std::size_t bytes) { EXPECT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0); }
  template <typename T>
  void Put(std::size_t at, const std::vector<T>& values) {
    EXPECT_EQ(::pwrite(fd_, values.data(), values.size() * sizeof(T), static_cast<off_t>(at)),
              static_cast<ssize_t>(values.size() * sizeof(T)));
  }
  template <typename T>
  T Get(std::size_t at) {
    T value{};
    EXPECT_EQ(::pread(fd_, &value, sizeof value, static_cast<off_t>(at)), static_cast<ssize_t>(sizeof value));
    return value;
  }

 private:
  std::string key_;
  int fd_ = -1;
};

TEST_F(Serving, PassesTensorsInSharedMemory) {
  const std::string key = "/ganglion-test-" + std::to_string(::getpid());
  Region memory(key, 4096);
  const std::string base = "/v2/systemsharedmemory";
  ASSERT_EQ(client_->Post(base + "/region/r/register", R"({"key":")" + key + R"(","byte_size":4096})").first, 200);
  EXPECT_EQ(client_->Post(base + "/region/r/register", R"({"key":")" + key + R"(","byte_size":4096})").first, 409);
  EXPECT_EQ(client_->Post(base + "/region/big/register", R"({"key":")" + key + R"(","byte_size":4097})").first, 400);
  EXPECT_EQ(client_->Post(base + "/region/gone/register", R"({"key":"/no-such-region","byte_size":8})").first, 400);
  EXPECT_NE(client_->Get(base + "/status").second.find(key), std::string::npos);

  memory.Put<float>(64, {kHard[0], kHard[1], kEasy[0], kEasy[1]});
  const auto request = [](std::uint64_t offset, std::uint64_t bytes) {
    wire::InferRequest q;
    q.model = "plane";
    wire::InferInput in;
    in.name = "point";
    in.shape = {2, 2};
    in.shared = wire::SharedMemory{"r", offset, bytes};
    q.inputs.push_back(std::move(in));
    q.outputs.push_back({"label", false, 0, wire::SharedMemory{"r", 1024, 16}, {}});
    q.outputs.push_back({"ganglion.tier", false, 0, {}, {}});
    return q;
  };
  const auto expected = Labels(client_->Rest(Ask({kHard, kEasy})).value());
  for (const bool by_grpc : {false, true}) {
    memory.Put<std::int64_t>(1024, {-9, -9});
    const auto r = by_grpc ? client_->Grpc(request(64, 16)) : client_->Rest(request(64, 16));
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_EQ(Texts(*r, "ganglion.tier"), (std::vector<std::string>{"global", "device"}));
    EXPECT_EQ(memory.Get<std::int64_t>(1024), expected[0]);
    EXPECT_EQ(memory.Get<std::int64_t>(1032), expected[1]);
  }
  // The writer may change it at any time, so such requests never come out of the cache.
  EXPECT_EQ(TextOf(client_->Rest(request(64, 16))->parameters, "cached"), "(none)");
  EXPECT_NE(client_->Rest(request(64, 12)).status().message().find("shared_memory_byte_size is 12"), std::string::npos);
  EXPECT_NE(client_->Rest(request(4090, 16)).status().message().find("do not fit"), std::string::npos);
  // Made shorter behind our back: an error, and the node lives.
  memory.Resize(32);
  const auto cut = client_->Rest(request(64, 16));
  EXPECT_NE(cut.status().message().find("became shorter"), std::string::npos) << cut.status().message();
  EXPECT_EQ(client_->Get("/v2/health/live").first, 200);
  EXPECT_EQ(client_->Post(base + "/region/r/unregister").first, 200);
  EXPECT_NE(client_->Rest(request(64, 16)).status().message().find("is not registered"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::node
