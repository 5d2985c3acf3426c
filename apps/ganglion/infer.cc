#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "calibrate.h"
#include "net/grpc_client.h"
#include "net/http_client.h"
#include "net/mailbox.h"
#include "node/input_file.h"
#include "node/node.h"
#include "node/yaml.h"
#include "serving.h"
#include "terminal.h"
#include "verbs.h"
#include "wire/json.h"
#include "wire/rest.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string name;
  std::string file;
  std::string deadline;
  std::string highest_tier;
  std::string rows;
  std::string url;
  std::string require_tier;
  std::string token_variable;
  std::string ca;
  bool json = false;
};

const char* KindName(node::Decided::Kind kind) {
  switch (kind) {
    case node::Decided::Kind::kAccepted:
      return "accepted";
    case node::Decided::Kind::kDegraded:
      return "degraded";
    case node::Decided::Kind::kDeferred:
      return "deferred";
  }
  return "";
}

// One way to send a request and get its answer, over either transport.
class Client {
 public:
  static Result<std::unique_ptr<Client>> Create(const Options& o) {
    std::unique_ptr<Client> c(new Client);
    ASSIGN_OR_RETURN(c->url_, net::ParseUrl(o.url));
    c->ca_ = o.ca;
    if (!o.token_variable.empty()) {
      ASSIGN_OR_RETURN(c->token_, TokenFrom(o.token_variable));
    }
    const std::string& scheme = c->url_.scheme;
    if (scheme == "grpc" || scheme == "grpcs") {
      net::GrpcClientOptions options;
      options.target = c->url_.host.find(':') == std::string::npos ? c->url_.host + ":" + c->url_.port
                                                                   : "[" + c->url_.host + "]:" + c->url_.port;
      options.tls = scheme == "grpcs";
      options.files.authority = o.ca;
      options.token = c->token_;
      ASSIGN_OR_RETURN(c->grpc_, net::GrpcClient::Create(options));
    } else if (scheme == "mailbox") {
      ASSIGN_OR_RETURN(c->mailbox_, net::MailboxClient::Connect(c->url_.path));
    } else if (scheme != "http" && scheme != "https") {
      return InvalidArgument(
          fmt::format("--url {} has scheme {}; one of http, https, grpc, grpcs, mailbox", o.url, scheme));
    }
    return c;
  }

  Result<wire::ModelMetadata> Metadata(const std::string& model, Duration patience) {
    if (grpc_) return grpc_->ModelMetadata(model, "", patience);
    ASSIGN_OR_RETURN(const auto answer, Ask("GET", "/v2/models/" + model, {}, patience));
    return wire::ParseModelMetadata(answer.body);
  }
  Result<wire::InferResponse> Infer(const wire::InferRequest& request, Duration patience) {
    if (grpc_) return grpc_->InferAndWait(request, patience);
    ASSIGN_OR_RETURN(const auto answer, Ask("POST", "/v2/models/" + request.model + "/infer",
                                            wire::WriteInferRequest(request, true), patience));
    const auto json = answer.Header("inference-header-content-length");
    return wire::ParseInferResponse(
        answer.body, json.empty() ? std::nullopt
                                  : std::optional<std::size_t>(std::strtoull(std::string(json).c_str(), nullptr, 10)));
  }

 private:
  Client() = default;
  Result<net::HttpAnswer> Ask(const std::string& method, const std::string& path, const wire::RestBody& body,
                              Duration patience) {
    if (mailbox_) {
      ASSIGN_OR_RETURN(const auto answer, mailbox_->Ask(method, path, body.body, body.json_bytes, patience));
      net::HttpAnswer same{answer.status, std::string(answer.body), {}};
      if (answer.json_bytes)
        same.headers.emplace_back("inference-header-content-length", std::to_string(*answer.json_bytes));
      return Checked(std::move(same));
    }
    net::HttpQuestion q;
    q.method = method;
    q.url = fmt::format("{}://{}:{}{}", url_.scheme,
                        url_.host.find(':') == std::string::npos ? url_.host : "[" + url_.host + "]", url_.port, path);
    q.authority = ca_;
    q.body = body.body;
    if (body.json_bytes) q.headers.emplace_back("Inference-Header-Content-Length", std::to_string(*body.json_bytes));
    if (!token_.empty()) q.headers.emplace_back("Authorization", "Bearer " + token_);
    ASSIGN_OR_RETURN(auto answer, net::Ask(q, patience));
    return Checked(std::move(answer));
  }
  static Result<net::HttpAnswer> Checked(net::HttpAnswer answer) {
    if (answer.status == 200) return answer;
    wire::Json error;
    const bool said = wire::ParseJson(answer.body, &error).ok() && error.is_object() && error.contains("error") &&
                      error["error"].is_string();
    return Status(
        wire::CodeFromHttp(answer.status),
        fmt::format("{} {}", answer.status, said ? error["error"].get<std::string>() : answer.body.substr(0, 200)));
  }

  net::Url url_;
  std::string ca_;
  std::string token_;
  std::unique_ptr<net::GrpcClient> grpc_;
  std::unique_ptr<net::MailboxClient> mailbox_;
};

std::string FirstText(const tensor::Tensor& t) {
  const auto bytes = t.View().bytes;
  std::uint32_t n = 0;
  if (bytes.size() < 4) return "";
  std::memcpy(&n, bytes.data(), 4);
  return {reinterpret_cast<const char*>(bytes.data()) + 4, n};
}

// Asks a running node (or any server of the protocol) about each row.
Status RunRemote(Context& context, const Options& o) {
  ASSIGN_OR_RETURN(const auto client, Client::Create(o));
  const Duration patience = std::chrono::seconds(30);
  ASSIGN_OR_RETURN(const auto metadata, client->Metadata(o.name, patience));
  node::DecisionConfig config;  // as far as reading inputs needs it
  config.name = o.name;
  config.inputs = metadata.inputs;
  ASSIGN_OR_RETURN(const auto inputs, node::LoadInputs(config, o.file));
  std::int64_t begin = 0;
  std::int64_t end = -1;
  RETURN_IF_ERROR(ParseRows(o.rows, &begin, &end));
  const std::int64_t rows = inputs[0].shape()[0];
  if (end < 0) end = rows;
  if (begin >= end || end > rows)
    return InvalidArgument(fmt::format("rows {}:{} of a file that has {}", begin, end, rows));
  wire::Json all = wire::Json::array();
  for (std::int64_t row = begin; row < end && !context.stop.stop_requested(); ++row) {
    wire::InferRequest request;
    request.model = o.name;
    std::vector<tensor::Shape> shapes(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const tensor::View view = tensor::Rows(inputs[i].View(), row, row + 1, &shapes[i]);
      wire::InferInput in;
      in.name = metadata.inputs[i].name;
      in.type = view.type;
      in.shape = shapes[i];
      in.bytes = view.bytes;
      request.inputs.push_back(std::move(in));
    }
    if (!o.deadline.empty()) {
      ASSIGN_OR_RETURN(const Duration deadline, node::ParseDuration(o.deadline));
      request.parameters.push_back({"deadline_ms", Milliseconds(deadline)});
    }
    if (!o.require_tier.empty()) request.parameters.push_back({"require_tier", o.require_tier});
    const auto began = std::chrono::steady_clock::now();
    auto answered = client->Infer(request, patience);
    const double took = Milliseconds(std::chrono::steady_clock::now() - began);
    if (!answered.ok()) return rows > 1 ? answered.status().Within(fmt::format("row {}", row)) : answered.status();
    const auto text = [&](const char* name) {
      return wire::FindString(answered->parameters, name).value().value_or("");
    };
    wire::Json one;
    std::string label;
    for (const auto& out : answered->outputs) {
      if (out.name == "label" && out.tensor.type() == tensor::DataType::kInt64 && out.tensor.size_bytes() >= 8)
        one["label"] = out.tensor.As<std::int64_t>()[0];
      if (out.name == "label_name" && out.tensor.type() == tensor::DataType::kBytes)
        one["text"] = label = FirstText(out.tensor);
      if (out.tensor.type() == tensor::DataType::kFp32 && out.name != "confidence") {  // a plain model's scores
        const auto z = out.tensor.As<float>();
        one[out.name] = std::vector<float>(z.begin(), z.end());
        if (label.empty() && !z.empty())
          label = fmt::format("{}: largest of {} is [{}] {:g}", out.name, z.size(),
                              std::max_element(z.begin(), z.end()) - z.begin(), *std::max_element(z.begin(), z.end()));
      }
    }
    const auto confidence = wire::FindNumber(answered->parameters, "confidence");
    const auto degraded = wire::FindBool(answered->parameters, "degraded");
    if (confidence.ok() && *confidence) one["confidence"] = **confidence;
    for (const char* name : {"tier", "stage", "decision_id", "reason"}) {
      if (!text(name).empty()) one[name] = text(name);
    }
    one["degraded"] = degraded.ok() && degraded->value_or(false);
    one["took_ms"] = took;
    if (o.json) {
      all.push_back(std::move(one));
      continue;
    }
    std::string line = label;
    if (confidence.ok() && *confidence) line += fmt::format(" {:.2f} {}/{}", **confidence, text("tier"), text("stage"));
    line += fmt::format(" {}", Millis(took));
    if (!text("decision_id").empty()) line += " id=" + text("decision_id");
    if (one["degraded"] == true)
      line += Paint(fmt::format(" degraded ({})", text("reason")), Colour::kYellow, ColourOut());
    fmt::print("{}\n", line);
  }
  if (o.json) std::fputs(wire::WriteJson(all).c_str(), stdout);
  if (context.stop.stop_requested()) return Cancelled("stopped");
  return {};
}

Status Run(Context& context, const Options& o) {
  if (!o.url.empty()) return RunRemote(context, o);
  if (!o.require_tier.empty())
    return InvalidArgument("--require-tier needs --url: in this process --up-to chooses the tiers");
  node::OpenOptions open;
  open.connect = node::ConnectRemoteStage;
  if (!o.highest_tier.empty()) {
    open.highest_tier = topology::TierFromName(o.highest_tier);
    if (!open.highest_tier)
      return InvalidArgument("--up-to \"" + o.highest_tier + "\" is no tier; one of device, edge, region, global");
  }
  ASSIGN_OR_RETURN(const auto decision, node::Decision::Open(context.engine, o.name, open));
  if (const auto remark = PromiseRemark(*decision); !remark.empty()) fmt::print(stderr, "infer: {}\n", remark);
  const auto& config = decision->config();
  Duration deadline = config.deadline;
  if (!o.deadline.empty()) {
    ASSIGN_OR_RETURN(deadline, node::ParseDuration(o.deadline));
  }
  ASSIGN_OR_RETURN(const auto inputs, node::LoadInputs(config, o.file));
  std::int64_t begin = 0;
  std::int64_t end = -1;
  RETURN_IF_ERROR(ParseRows(o.rows, &begin, &end));
  const std::int64_t rows = inputs[0].shape()[0];
  if (end < 0) end = rows;
  if (begin >= end || end > rows)
    return InvalidArgument(fmt::format("rows {}:{} of a file that has {}", begin, end, rows));
  const SteadyClock clock;
  wire::Json all = wire::Json::array();
  for (std::int64_t row = begin; row < end && !context.stop.stop_requested(); ++row) {
    std::vector<tensor::Shape> shapes(inputs.size());
    std::vector<tensor::View> views;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      views.push_back(tensor::Rows(inputs[i].View(), row, row + 1, &shapes[i]));
    auto decided = decision->Decide(views, clock, clock.Now() + deadline);
    if (!decided.ok()) return rows > 1 ? decided.status().Within(fmt::format("row {}", row)) : decided.status();
    const auto& d = *decided;
    const std::string file = d.label < 0 ? "" : decision->stage(d.stage).files().back().file;
    if (o.json) {
      all.push_back({{"label", d.label},
                     {"text", config.LabelText(d.label)},
                     {"confidence", d.confidence},
                     {"tier", std::string(topology::Name(d.tier))},
                     {"stage", d.stage},
                     {"kind", KindName(d.kind)},
                     {"reason", std::string(cascade::Name(d.reason))},
                     {"took_ms", Milliseconds(d.took)}});
      continue;
    }
    std::string line =
        fmt::format("{} {:.2f} {}/{} {}", config.LabelText(d.label), d.confidence, topology::Name(d.tier),
                    std::filesystem::path(file).stem().string(), Millis(Milliseconds(d.took)));
    if (d.kind == node::Decided::Kind::kDegraded)
      line += Paint(fmt::format(" degraded ({})", cascade::Name(d.reason)), Colour::kYellow, ColourOut());
    if (d.kind == node::Decided::Kind::kDeferred)
      line += Paint(" deferred: a tier above decides", Colour::kYellow, ColourOut());
    fmt::print("{}\n", line);
  }
  if (o.json) std::fputs(wire::WriteJson(all).c_str(), stdout);
  if (context.stop.stop_requested()) return Cancelled("stopped");
  return {};
}

}  // namespace

void AddInfer(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("infer", "Decide one input or a batch from a file, in this process or by a node");
  verb->add_option("name", o->name, "the decision's directory; with --url its name, or a model's")->required();
  verb->add_option("file", o->file, ".npy, .npz, .csv, .json, .png or .jpg")->required();
  verb->add_option("--rows", o->rows, "only rows BEGIN:END");
  verb->add_option("--deadline", o->deadline, "for each row, for example 50ms; default: decision.yaml's");
  verb->add_option("--up-to", o->highest_tier,
                   "use only stages up to this tier; what would go higher is shown as deferred");
  verb->add_option("--url", o->url,
                   "ask a node (or any Open Inference server): http://, https://, grpc://, grpcs:// or mailbox://PATH");
  verb->add_option("--require-tier", o->require_tier, "with --url: nothing below this tier decides");
  verb->add_option("--token-env", o->token_variable, "with --url: environment variable that holds the bearer token");
  verb->add_option("--ca", o->ca, "with --url: PEM file of who signed the server's certificate");
  verb->add_flag("--json", o->json, "all answers as a JSON list");
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("infer", s);
  });
}

}  // namespace ganglion::app
