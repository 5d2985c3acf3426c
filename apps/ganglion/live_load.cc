#include "live_load.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "net/http_client.h"
#include "wire/rest.h"

namespace ganglion::app {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

std::string TextOf(const wire::InferResponse& answer, const char* name) {
  const auto text = wire::FindString(answer.parameters, name);
  return text.ok() ? text->value_or("") : "";
}

}  // namespace

LiveLoad::LiveLoad(LiveLoadOptions options, const data::Dataset& rows)
    : options_(std::move(options)), rows_(rows), begin_(Now()) {
  // A sender is busy for a deadline at worst while answers come in time, and one request in four may take as long.
  const double busy = options_.rate_per_s * Milliseconds(options_.deadline) / 1000 / 4;
  const auto threads = static_cast<int>(std::clamp(std::ceil(busy), 4., 64.));
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

void LiveLoad::Stop() {
  stopping_ = true;
  for (auto& t : threads_) {
    if (t.joinable()) t.join();
  }
}

void LiveLoad::Work() {
  while (!stopping_) {
    const std::size_t i = next_.fetch_add(1);
    const TimePoint due = begin_ + FromMilliseconds(1000 * static_cast<double>(i) / options_.rate_per_s);
    std::this_thread::sleep_until(due);
    if (stopping_) return;
    LiveSample sample = Send(i);
    samples_.With([&](auto& all) {
      sample.at = Now();
      sample.ms = Milliseconds(sample.at - due);
      all.push_back(std::move(sample));
    });
  }
}

LiveSample LiveLoad::Send(std::size_t i) const {
  const auto row = static_cast<std::int64_t>(i) % rows_.rows();
  wire::InferRequest request;
  request.model = options_.model;
  request.binary_output = true;
  request.parameters.push_back({"deadline_ms", Milliseconds(options_.deadline)});
  wire::InferInput in;
  in.name = options_.input;
  in.shape = {1, rows_.features()};
  in.bytes = std::as_bytes(rows_.Row(row));
  request.inputs.push_back(std::move(in));
  const wire::RestBody body = wire::WriteInferRequest(request, true);
  net::HttpQuestion q;
  q.method = "POST";
  q.url = options_.url + "/v2/models/" + options_.model + "/infer";
  q.body = body.body;
  if (body.json_bytes) q.headers.emplace_back("Inference-Header-Content-Length", std::to_string(*body.json_bytes));

  LiveSample s;
  const auto reply = net::Ask(q, options_.deadline + kHangs);
  if (!reply.ok() || reply->status != 200) {
    const bool hung = reply.status().code() == Code::kDeadlineExceeded;
    s.end = hung ? LiveSample::End::kHung : LiveSample::End::kLost;
    s.why = reply.ok() ? std::to_string(reply->status) + " " + reply->body.substr(0, 200) : reply.status().message();
    return s;
  }
  const auto json = reply->Header("inference-header-content-length");
  const auto answer = wire::ParseInferResponse(
      reply->body,
      json.empty() ? std::nullopt : std::optional<std::size_t>(std::strtoull(std::string(json).c_str(), nullptr, 10)));
  if (!answer.ok()) {
    s.end = LiveSample::End::kLost;
    s.why = answer.status().message();
    return s;
  }
  std::int64_t label = -1;
  for (const auto& out : answer->outputs) {
    if (out.name == "label" && out.tensor.type() == tensor::DataType::kInt64 && out.tensor.size_bytes() >= 8)
      label = out.tensor.As<std::int64_t>()[0];
  }
  const auto tier = topology::TierFromName(TextOf(*answer, "tier"));
  const auto degraded = wire::FindBool(answer->parameters, "degraded");
  s.labelled = label >= 0 && tier && degraded.ok() && *degraded && !TextOf(*answer, "stage").empty() &&
               !TextOf(*answer, "decision_id").empty();
  s.right = label == rows_.labels[static_cast<std::size_t>(row)];
  s.tier = tier.value_or(topology::Tier::kDevice);
  s.degraded = degraded.ok() && degraded->value_or(false);
  if (s.degraded) s.why = TextOf(*answer, "reason");
  return s;
}

std::optional<TimePoint> LiveLoad::Accepted(topology::Tier tier, TimePoint since) {
  return samples_.With([&](const auto& all) -> std::optional<TimePoint> {
    // From the end: this is asked again and again about the last few seconds.
    std::optional<TimePoint> first;
    for (auto s = all.rbegin(); s != all.rend() && s->at >= since; ++s) {
      if (s->end == LiveSample::End::kAnswered && s->tier == tier && !s->degraded) first = s->at;
    }
    return first;
  });
}

std::vector<LiveSample> LiveLoad::Samples() {
  return samples_.With([](const auto& all) { return all; });
}

}  // namespace ganglion::app
