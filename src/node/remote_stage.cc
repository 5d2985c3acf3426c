#include "node/remote_stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "net/grpc_client.h"
#include "node/notation.h"
#include "wire/inference.h"

namespace ganglion::node {
namespace {

using tensor::DataType;

constexpr Duration kPatience = std::chrono::seconds(30);
constexpr std::int64_t kBatch = 64;

class GrpcStage final : public RemoteStage {
 public:
  const std::string& input(std::size_t i) const override { return names_[i]; }
  const std::string& output() const override { return output_; }
  std::string Pinned() const override;
  Result<std::vector<float>> Score(std::span<const tensor::View> inputs) const override;

 private:
  friend Result<std::unique_ptr<RemoteStage>> ganglion::node::ConnectRemoteStage(const std::string& url,
                                                                                 std::span<const tensor::Spec> inputs);
  std::string url_;
  RemoteUrl parts_;
  wire::ModelMetadata metadata_;
  std::vector<std::string> names_;
  std::string output_;
  std::unique_ptr<net::GrpcClient> client_;
};

std::string GrpcStage::Pinned() const {
  const std::string version = !parts_.version.empty()      ? parts_.version
                              : metadata_.versions.empty() ? "?"
                                                           : metadata_.versions.back();
  return fmt::format("{}://{}/{}@{}", parts_.tls ? "grpcs" : "grpc", parts_.target, parts_.model, version);
}

Result<std::vector<float>> GrpcStage::Score(std::span<const tensor::View> inputs) const {
  const std::int64_t rows = inputs[0].shape[0];
  std::vector<float> all;
  for (std::int64_t begin = 0; begin < rows; begin += kBatch) {
    const std::int64_t end = std::min(rows, begin + kBatch);
    wire::InferRequest q;
    q.model = parts_.model;
    q.version = parts_.version;
    q.outputs.push_back({output_, false, 0, {}, {}});
    std::vector<tensor::Shape> shapes(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const tensor::View view = tensor::Rows(inputs[i], begin, end, &shapes[i]);
      wire::InferInput in;
      in.name = names_[i];
      in.type = view.type;
      in.shape = shapes[i];
      in.bytes = view.bytes;
      q.inputs.push_back(std::move(in));
    }
    auto answered = client_->InferAndWait(q, kPatience);
    if (!answered.ok()) return answered.status().Within(url_);
    const auto it = std::find_if(answered->outputs.begin(), answered->outputs.end(),
                                 [&](const auto& o) { return o.name == output_; });
    const auto n = static_cast<std::size_t>(end - begin);
    if (it == answered->outputs.end() || it->tensor.type() != DataType::kFp32 || it->tensor.As<float>().empty() ||
        it->tensor.As<float>().size() % n != 0)
      return DataLoss(fmt::format("{}: output \"{}\" has not the same number of FP32 scores for each of {} rows", url_,
                                  output_, n));
    const auto scores = it->tensor.As<float>();
    all.insert(all.end(), scores.begin(), scores.end());
  }
  const std::size_t width = all.size() / static_cast<std::size_t>(rows);
  bool probabilities = width > 1;
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows) && probabilities; ++r) {
    float sum = 0;
    for (std::size_t k = 0; k < width; ++k) {
      const float v = all[r * width + k];
      probabilities &= v >= 0 && v <= 1;
      sum += v;
    }
    probabilities &= std::abs(sum - 1) < 1e-3f;
  }
  if (probabilities) {
    for (float& v : all) v = std::log(std::max(v, 1e-30f));
  }
  return all;
}

}  // namespace

Result<std::unique_ptr<RemoteStage>> ConnectRemoteStage(const std::string& url, std::span<const tensor::Spec> inputs) {
  auto stage = std::make_unique<GrpcStage>();
  GrpcStage& s = *stage;
  s.url_ = url;
  ASSIGN_OR_RETURN(s.parts_, ParseRemoteUrl(url));
  net::GrpcClientOptions options;
  options.target = s.parts_.target;
  options.tls = s.parts_.tls;
  options.stream = net::StreamMode::kNever;
  ASSIGN_OR_RETURN(s.client_, net::GrpcClient::Create(options));
  auto metadata = s.client_->ModelMetadata(s.parts_.model, s.parts_.version, kPatience);
  if (!metadata.ok()) return metadata.status().Within(url);
  s.metadata_ = std::move(*metadata);
  const auto& theirs = s.metadata_.inputs;
  for (const auto& ours : inputs) {
    auto it = std::find_if(theirs.begin(), theirs.end(), [&](const auto& spec) { return spec.name == ours.name; });
    if (it == theirs.end() && inputs.size() == 1 && theirs.size() == 1) it = theirs.begin();
    if (it == theirs.end()) {
      std::string have;
      for (const auto& spec : theirs) have += (have.empty() ? "" : ", ") + spec.name;
      return InvalidArgument(fmt::format("{}: it has no input \"{}\"; it takes {}", url, ours.name, have));
    }
    if (it->type != ours.type)
      return InvalidArgument(
          fmt::format("{}: its input \"{}\" is {}, the decision's is {}", url, it->name, it->Text(), ours.Text()));
    s.names_.push_back(it->name);
  }
  const auto& outputs = s.metadata_.outputs;
  const auto scores =
      std::find_if(outputs.begin(), outputs.end(), [](const auto& o) { return o.type == DataType::kFp32; });
  if (scores == outputs.end()) return InvalidArgument(url + ": it has no FP32 output that could hold scores");
  s.output_ = scores->name;
  return std::unique_ptr<RemoteStage>(std::move(stage));
}

}  // namespace ganglion::node
