// The four ways of an Exchange (exchange.h) and what they share. Inside the module only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "training/exchange.h"
#include "training/exchange_sum.h"

namespace ganglion::training {

// Rank, size, and an end that the others hear of.
class ExchangeBase : public Exchange {
 public:
  explicit ExchangeBase(collective::Collective& c) : collective_(c) {}
  ~ExchangeBase() override {
    if (!finished_) collective_.Abandon("it ended before its training did");
  }
  int rank() const override { return collective_.rank(); }
  int size() const override { return collective_.size(); }
  Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& /*segments*/) override {
    if (parameters.empty()) return InvalidArgument("there are no parameters to exchange");
    return collective_.Broadcast(parameters, 0);
  }

 protected:
  // Nobody leaves before all are here, so that no rank looks lost to one that still works.
  Status LeaveTogether() {
    RETURN_IF_ERROR(collective_.Barrier());
    finished_ = true;
    collective_.Leave();
    return {};
  }

  collective::Collective& collective_;
  bool finished_ = false;
};

// An exchange of sums: they are made when it is known of what.
class SummingExchange : public ExchangeBase {
 public:
  SummingExchange(const ExchangeOptions& o, collective::Collective& c) : ExchangeBase(c), options_(o) {}
  Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& segments) override {
    RETURN_IF_ERROR(ExchangeBase::Start(parameters, segments));
    ASSIGN_OR_RETURN(sum_, GradientSum::Create(options_.compress, collective_, segments, parameters.size()));
    return {};
  }

 protected:
  const ExchangeOptions options_;
  std::unique_ptr<GradientSum> sum_;
};

std::unique_ptr<Exchange> MakeDiLoCo(const ExchangeOptions& o, collective::Collective& c);
std::unique_ptr<Exchange> MakeServer(const ExchangeOptions& o, collective::Collective& c);
std::unique_ptr<Exchange> MakeBackup(const ExchangeOptions& o, collective::Collective& c);

}  // namespace ganglion::training
