// Bytes of a client to an HttpServer with the REST front: one server for the whole process, one connection a run, the
// bytes at once and then no more. Whatever they are, the server answers in HTTP or ends the connection, within two
// seconds, and goes on answering others.
// A Unix socket, because thousands of TCP connections a second would use up the ports.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "net/http_server.h"
#include "net/rest_front.h"
#include "net/service_test.h"
#include "net/socket_test.h"
#include "target.h"
#include "wire/json.h"

namespace {

namespace net = ganglion::net;
constexpr std::chrono::milliseconds kBound{2000};

struct Process {
  Process() {
    path = (std::filesystem::temp_directory_path() / ("ganglion-fuzz-" + std::to_string(::getpid()))).string();
    net::HttpServerOptions options;
    options.unix_path = path;
    options.max_header_bytes = 2048;
    options.max_body_bytes = 4096;
    options.max_bodies_bytes = 1 << 20;
    auto started = net::HttpServer::Start(options, net::MakeRestFront(&service));
    GANGLION_CHECK(started.ok());
    server = *std::move(started);
  }
  net::RecordingService service{/*keep=*/0};
  std::string path;
  std::unique_ptr<net::HttpServer> server;  // before the service
};

void AskSomethingGood(const std::string& path) {
  net::RawClient c = net::RawClient::Unix(path);
  GANGLION_CHECK(c.Send("GET /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n"));
  const auto answer = c.Read(false, kBound);
  GANGLION_CHECK(answer.has_value() && answer->status == 200);
}

// What came is answers one after another, each with a status of three digits; errors say what is wrong in JSON.
void CheckAnswers(std::string_view bytes) {
  while (!bytes.empty()) {
    GANGLION_CHECK(bytes.substr(0, 9) == "HTTP/1.1 ");
    const int status = std::atoi(std::string(bytes.substr(9, 3)).c_str());
    GANGLION_CHECK(status >= 100 && status < 600);
    const auto end = bytes.find("\r\n\r\n");
    GANGLION_CHECK(end != std::string_view::npos);
    const std::string_view head = bytes.substr(0, end);
    bytes.remove_prefix(end + 4);
    if (status == 100) continue;
    const auto field = head.find("Content-Length: ");
    GANGLION_CHECK(field != std::string_view::npos);
    const std::size_t length = std::strtoull(std::string(head.substr(field + 16, 20)).c_str(), nullptr, 10);
    if (bytes.empty() || bytes.substr(0, 9) == "HTTP/1.1 ") continue;  // of HEAD, which has no body
    GANGLION_CHECK(length <= bytes.size());
    if (status >= 400) {
      ganglion::wire::Json json;
      GANGLION_CHECK(ganglion::wire::ParseJson(bytes.substr(0, length), &json).ok());
      GANGLION_CHECK(ganglion::wire::GetString(json, "error").ok());
    }
    bytes.remove_prefix(length);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Process process;
  static long runs = 0;
  if (runs++ % 100 == 0) AskSomethingGood(process.path);
  net::RawClient c = net::RawClient::Unix(process.path);
  GANGLION_CHECK(c.connected());
  c.Send({reinterpret_cast<const char*>(data), size});  // the server may have refused it before the end
  c.HalfClose();
  const auto answers = c.ReadToEnd(kBound);
  GANGLION_CHECK(answers.has_value());
  CheckAnswers(*answers);
  return 0;
}

std::vector<std::string> Seeds() {
  const auto post = [](const std::string& target, const std::string& body, const std::string& fields = "") {
    return "POST " + target + " HTTP/1.1\r\n" + fields + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           body;
  };
  const std::string json = R"({"id":"4","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]})";
  const std::string binary =
      R"({"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[2],"datatype":"FP32",)"
      R"("parameters":{"binary_data_size":8}}]})";
  return {
      "GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\nGET /v2 HTTP/1.0\r\n\r\n",
      "HEAD /v2/models/a%20b/versions/1/ready HTTP/1.1\r\nConnection: close\r\n\r\n",
      "GET /v2/models/stats HTTP/1.1\r\n\r\nGET /v2/models/absent/config HTTP/1.1\r\n\r\n",
      post("/v2/models/m/infer", json, "traceparent: 00-a-b-01\r\nAuthorization: Bearer t\r\n"),
      post("/v2/models/m/infer", binary + "12345678",
           "Inference-Header-Content-Length: " + std::to_string(binary.size()) + "\r\n"),
      post("/v2/models/m/infer", "12345678", "Inference-Header-Content-Length: 0\r\n"),
      "POST /v2/models/m/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n",
      "POST /v2/repository/index HTTP/1.1\r\n\r\n" + post("/v2/repository/models/m/load", "{}"),
      post("/v2/systemsharedmemory/region/r/register", R"({"key":"/k","byte_size":4})", "Expect: 100-continue\r\n"),
      "POST /v2/systemsharedmemory/unregister HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
  };
}
