#include "node/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "wire/json.h"

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Tensor;

constexpr const char* kOptional[] = {"ganglion.tier",        "ganglion.stage",      "ganglion.confidence",
                                     "ganglion.decision_id", "ganglion.propensity", "ganglion.degraded"};

Tensor Texts(const std::vector<std::string>& texts, tensor::Shape shape) {
  std::string bytes;
  for (const auto& t : texts) {
    const auto n = static_cast<std::uint32_t>(t.size());
    bytes.append(reinterpret_cast<const char*>(&n), sizeof n).append(t);
  }
  return Tensor::FromBytes(DataType::kBytes, std::move(shape), std::as_bytes(std::span(bytes))).value();
}

template <typename T, typename Get>
Tensor Numbers(const std::vector<RowAnswer>& rows, Get get) {
  std::vector<T> values;
  values.reserve(rows.size());
  for (const auto& r : rows) values.push_back(get(r));
  return Tensor::From<T>({static_cast<std::int64_t>(rows.size())}, values).value();
}

template <typename Get>
Tensor RowTexts(const std::vector<RowAnswer>& rows, Get get) {
  std::vector<std::string> texts;
  texts.reserve(rows.size());
  for (const auto& r : rows) texts.push_back(get(r));
  return Texts(texts, {static_cast<std::int64_t>(rows.size())});
}

Tensor DecisionOutput(const std::string& name, const DecisionConfig& config, const std::vector<RowAnswer>& rows) {
  if (name == "label")
    return Numbers<std::int64_t>(rows, [](const auto& r) { return static_cast<std::int64_t>(r.label); });
  if (name == "label_name")
    return RowTexts(rows, [&](const auto& r) { return r.label < 0 ? std::string() : config.LabelText(r.label); });
  if (name == "ganglion.tier") return RowTexts(rows, [](const auto& r) { return std::string(topology::Name(r.tier)); });
  if (name == "ganglion.stage") return RowTexts(rows, [](const auto& r) { return r.stage; });
  if (name == "ganglion.decision_id") return RowTexts(rows, [](const auto& r) { return r.decision_id; });
  if (name == "ganglion.propensity") return Numbers<float>(rows, [](const auto&) { return 1.f; });
  if (name == "ganglion.degraded") {
    std::vector<std::byte> flags;
    flags.reserve(rows.size());
    for (const auto& r : rows) flags.push_back(std::byte{r.degraded});
    return Tensor::FromBytes(DataType::kBool, {static_cast<std::int64_t>(rows.size())}, flags).value();
  }
  return Numbers<float>(rows, [](const auto& r) { return r.confidence; });  // confidence, ganglion.confidence
}

// The k largest of each row as "value:index" or "value:index:label".
Result<Tensor> Classify(const std::string& name, const Tensor& scores, std::int64_t k,
                        const std::vector<std::string>& labels) {
  if (scores.type() != DataType::kFp32 || scores.shape().empty())
    return InvalidArgument(fmt::format("output \"{}\" is {}{}; classification takes FP32 scores", name,
                                       tensor::Name(scores.type()), tensor::ShapeText(scores.shape())));
  const std::int64_t rows = scores.shape().size() > 1 ? scores.shape()[0] : 1;
  const auto all = scores.As<float>();
  const std::size_t width = rows == 0 ? 0 : all.size() / static_cast<std::size_t>(rows);
  const std::size_t n = std::min(static_cast<std::size_t>(k), width);
  std::vector<std::string> texts;
  std::vector<std::size_t> order(width);
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto z = all.subspan(static_cast<std::size_t>(row) * width, width);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
                      [&](std::size_t a, std::size_t b) { return z[a] > z[b] || (z[a] == z[b] && a < b); });
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t c = order[i];
      texts.push_back(c < labels.size() ? fmt::format("{:f}:{}:{}", z[c], c, labels[c])
                                        : fmt::format("{:f}:{}", z[c], c));
    }
  }
  tensor::Shape shape{static_cast<std::int64_t>(n)};
  if (scores.shape().size() > 1) shape.insert(shape.begin(), rows);
  return Texts(texts, std::move(shape));
}

}  // namespace

Status CheckOutputs(const Served& served, const wire::InferRequest& request) {
  for (const auto& asked : request.outputs) {
    const auto& own = served.metadata.outputs;
    bool known = std::any_of(own.begin(), own.end(), [&](const auto& spec) { return spec.name == asked.name; });
    if (served.decision) {
      known |= std::find(std::begin(kOptional), std::end(kOptional), asked.name) != std::end(kOptional);
      if (known && asked.classification > 0)
        return InvalidArgument("output \"" + asked.name + "\" of a decision has no scores to classify");
    }
    if (!known) {
      std::string have;
      for (const auto& spec : own) have += (have.empty() ? "" : ", ") + ("\"" + spec.name + "\"");
      return InvalidArgument(
          fmt::format("output \"{}\" is unknown; {} gives {}", asked.name.substr(0, 200), served.name, have));
    }
  }
  return {};
}

wire::InferResponse DecisionAnswer(const Served& served, const wire::InferRequest& request,
                                   const std::vector<RowAnswer>& given, const std::function<std::string()>& new_id) {
  const DecisionConfig& config = served.decision->config();
  std::vector<RowAnswer> rows = given;
  for (auto& r : rows) {
    if (r.decision_id.empty()) r.decision_id = new_id();
  }
  wire::InferResponse response;
  response.model = served.name;
  response.version = served.version;
  auto& out = response.parameters;
  out.push_back({"decision_id", rows[0].decision_id});
  if (rows.size() == 1) {
    out.push_back({"tier", std::string(topology::Name(rows[0].tier))});
    out.push_back({"stage", rows[0].stage});
    // As a double that prints as the float it is.
    out.push_back({"confidence", std::stod(fmt::format("{}", rows[0].confidence))});
  }
  out.push_back({"model_version", served.digest.substr(0, 12)});
  out.push_back({"variant", std::string("default")});
  out.push_back({"propensity", 1.0});
  const auto degraded = std::find_if(rows.begin(), rows.end(), [](const auto& r) { return r.degraded; });
  out.push_back({"degraded", degraded != rows.end()});
  if (degraded != rows.end()) out.push_back({"reason", degraded->reason});
  if (request.outputs.empty()) {
    for (const auto& spec : served.metadata.outputs)
      response.outputs.push_back({spec.name, DecisionOutput(spec.name, config, rows), {}});
  } else {
    for (const auto& asked : request.outputs)
      response.outputs.push_back({asked.name, DecisionOutput(asked.name, config, rows), {}});
  }
  return response;
}

void RenewIds(wire::InferResponse* response, const std::function<std::string()>& new_id) {
  std::string first = new_id();
  for (auto& o : response->outputs) {
    if (o.name != "ganglion.decision_id") continue;
    std::vector<std::string> ids{first};
    while (ids.size() < static_cast<std::size_t>(o.tensor.shape()[0])) ids.push_back(new_id());
    o.tensor = Texts(ids, o.tensor.shape());
  }
  wire::Set(&response->parameters, "decision_id", std::move(first));
}

Result<wire::InferResponse> ModelAnswer(const Served& served, const wire::InferRequest& request,
                                        std::vector<Tensor> outputs) {
  wire::InferResponse response;
  response.model = served.name;
  response.version = served.version;
  const auto& specs = served.metadata.outputs;
  if (request.outputs.empty()) {
    for (std::size_t i = 0; i < specs.size(); ++i)
      response.outputs.push_back({specs[i].name, std::move(outputs[i]), {}});
    return response;
  }
  for (const auto& asked : request.outputs) {
    for (std::size_t i = 0; i < specs.size(); ++i) {
      if (specs[i].name != asked.name) continue;
      if (asked.classification > 0) {
        ASSIGN_OR_RETURN(auto classes, Classify(asked.name, outputs[i], asked.classification, served.output_labels[i]));
        response.outputs.push_back({asked.name, std::move(classes), {}});
      } else {
        response.outputs.push_back({asked.name, outputs[i], {}});
      }
    }
  }
  return response;
}

Status PlaceInSharedMemory(const wire::InferRequest& request, const SharedRegions& regions,
                           wire::InferResponse* response) {
  for (const auto& asked : request.outputs) {
    if (!asked.shared) continue;
    for (auto& o : response->outputs) {
      if (o.name != asked.name) continue;
      RETURN_IF_ERROR(regions.Write(*asked.shared, o.tensor.View().bytes).Within("output \"" + o.name + "\""));
      o.shared = asked.shared;
      o.shared->bytes = o.tensor.size_bytes();
    }
  }
  return {};
}

std::string WriteStatus(const NodeStatus& s) {
  wire::Json j;
  j["node"] = s.node;
  j["tier"] = s.tier;
  j["version"] = s.version;
  j["ready"] = s.ready;
  j["draining"] = s.draining;
  j["up_seconds"] = std::chrono::duration<double>(s.up).count();
  j["in_flight"] = s.in_flight;
  j["concurrency_limit"] = s.limit;
  j["waiting_above"] = s.waiting_above;
  j["connections"] = s.connections;
  j["cache"] = {{"hits", s.cache.hits}, {"misses", s.cache.misses}, {"bytes", s.cache.bytes}, {"off", s.cache.off}};
  j["models"] = wire::Json::array();
  for (const auto& m : s.models) {
    wire::Json one{
        {"name", m.name}, {"version", m.version}, {"kind", m.decision ? "decision" : "model"}, {"state", m.state}};
    if (!m.reason.empty()) one["reason"] = m.reason;
    one["requests"] = m.requests;
    one["failed"] = m.failed;
    if (m.learning)
      one["learning"] = {{"outcomes", m.learning->outcomes},
                         {"certified_loss", m.learning->certified_loss},
                         {"learned_loss", m.learning->learned_loss}};
    one["stages"] = wire::Json::array();
    for (const auto& stage : m.stages)
      one["stages"].push_back(
          {{"name", stage.name}, {"usual_ms", Milliseconds(stage.usual)}, {"queued", stage.queued}});
    j["models"].push_back(std::move(one));
  }
  j["parents"] = wire::Json::array();
  for (const auto& p : s.parents) {
    wire::Json one{{"name", p.name},
                   {"url", p.url},
                   {"tier", p.tier},
                   {"foreign", p.foreign},
                   {"up", p.up},
                   {"breaker", p.breaker},
                   {"average", p.average},
                   {"latency_ms", Milliseconds(p.latency)},
                   {"in_flight", p.in_flight}};
    if (!p.last_error.empty()) one["last_error"] = p.last_error;
    if (p.probe_in > Duration::zero()) one["probe_in_ms"] = Milliseconds(p.probe_in);
    j["parents"].push_back(std::move(one));
  }
  return wire::WriteJson(j);
}

}  // namespace ganglion::node
