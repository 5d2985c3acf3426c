// DiLoCo: each rank trains alone for H steps; then all move to where an outer optimiser takes the mean of their ways.
//
//   d = mean_k (anchor - theta_k);   v = mu v + d;   anchor -= rate (d + mu v);   theta_k = anchor
// The outer optimiser is SGD with Nesterov momentum in PyTorch's form; with rate 1 and mu 0 it is plain averaging.
// The inner optimiser keeps its state across outer steps, each rank its own. Between two outer steps nothing is sent,
// so the loss that Average gives is this rank's alone.
// Source: A. Douillard et al., "DiLoCo: distributed low-communication training of language models", 2023, algorithm 1.
#include "training/exchange_ways.h"

namespace ganglion::training {
namespace {

class DiLoCo final : public SummingExchange {
 public:
  using SummingExchange::SummingExchange;

  Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& segments) override {
    RETURN_IF_ERROR(SummingExchange::Start(parameters, segments));
    anchor_.assign(parameters.begin(), parameters.end());
    velocity_.assign(parameters.size(), 0.F);
    return {};
  }

  Status Average(std::span<float> gradients, float* loss) override {
    const auto ranks = static_cast<float>(size());
    for (float& g : gradients) g *= ranks;
    *loss *= ranks;
    return {};
  }

  Status AfterStep(std::span<float> parameters, std::int64_t /*step*/) override {
    if (++alone_ < options_.local_steps) return {};
    return Outer(parameters);
  }

  Status Finish(std::span<float> parameters) override {
    if (alone_ > 0) RETURN_IF_ERROR(Outer(parameters));
    return LeaveTogether();
  }

 private:
  Status Outer(std::span<float> parameters) {
    alone_ = 0;
    way_.resize(parameters.size());
    for (std::size_t i = 0; i < way_.size(); ++i) way_[i] = anchor_[i] - parameters[i];
    float none = 0;
    RETURN_IF_ERROR(sum_->Run(way_, &none));
    const auto rate = static_cast<float>(options_.outer_rate);
    const auto momentum = static_cast<float>(options_.outer_momentum);
    const float share = 1 / static_cast<float>(size());
    for (std::size_t i = 0; i < way_.size(); ++i) {
      const float d = way_[i] * share;
      velocity_[i] = momentum * velocity_[i] + d;
      anchor_[i] -= rate * (d + momentum * velocity_[i]);
      parameters[i] = anchor_[i];
    }
    return {};
  }

  std::vector<float> anchor_;
  std::vector<float> velocity_;
  std::vector<float> way_;
  int alone_ = 0;  // steps since the last outer one
};

}  // namespace

std::unique_ptr<Exchange> MakeDiLoCo(const ExchangeOptions& o, collective::Collective& c) {
  return std::make_unique<DiLoCo>(o, c);
}

}  // namespace ganglion::training
