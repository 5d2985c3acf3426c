#include "training/exchange.h"

#include <charconv>
#include <cmath>

#include "training/exchange_ways.h"

namespace ganglion::training {
namespace {

class AllReduce final : public SummingExchange {
 public:
  using SummingExchange::SummingExchange;
  Status Average(std::span<float> gradients, float* loss) override { return sum_->Run(gradients, loss); }
  Status AfterStep(std::span<float> /*parameters*/, std::int64_t /*step*/) override { return {}; }
  Status Finish(std::span<float> /*parameters*/) override { return LeaveTogether(); }
};

bool Read(std::string_view text, int* value) {
  const auto [p, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && p == text.data() + text.size();
}

Status Check(const ExchangeOptions& o, int ranks) {
  using Way = ExchangeOptions::Way;
  if (o.way == Way::kDiLoCo && (o.local_steps < 1 || o.local_steps > 1'000'000))
    return InvalidArgument("diloco takes 1 .. 1000000 local steps, got " + std::to_string(o.local_steps));
  if (!(o.outer_rate > 0) || !std::isfinite(o.outer_rate))
    return InvalidArgument("the outer rate must be > 0, got " + std::to_string(o.outer_rate));
  if (!(o.outer_momentum >= 0 && o.outer_momentum < 1))
    return InvalidArgument("the outer momentum must be in [0, 1), got " + std::to_string(o.outer_momentum));
  if (o.way == Way::kServer && (o.staleness < 0 || o.staleness > 1'000'000))
    return InvalidArgument("a server's staleness must be 0 .. 1000000 steps, got " + std::to_string(o.staleness));
  if (o.way == Way::kBackup && (o.backup < 1 || (ranks > 0 && o.backup >= ranks))) {
    return InvalidArgument("backup workers must be 1 .. ranks - 1" +
                           (ranks > 0 ? " (" + std::to_string(ranks - 1) + " here)" : std::string()) + ", got " +
                           std::to_string(o.backup));
  }
  if (o.longest_lag < 1) return InvalidArgument("the longest lag must be at least 1 step");
  if ((o.way == Way::kServer || o.way == Way::kBackup) && o.compress.code != compress::Code::kNone) {
    return InvalidArgument("server and backup send what is not compressed; take allreduce or diloco with " +
                           compress::Name(o.compress));
  }
  return {};
}

}  // namespace

Result<ExchangeOptions> ParseExchange(std::string_view way, std::string_view compression) {
  ExchangeOptions o;
  ASSIGN_OR_RETURN(o.compress, compress::ParseOptions(compression));
  const auto colon = way.find(':');
  const std::string_view name = way.substr(0, colon);
  const std::string_view number = colon == std::string_view::npos ? "" : way.substr(colon + 1);
  const bool bare = colon == std::string_view::npos;
  bool good = true;
  if (name == "allreduce") {
    o.way = ExchangeOptions::Way::kAllReduce;
    good = bare;
  } else if (name == "diloco") {
    o.way = ExchangeOptions::Way::kDiLoCo;
    good = bare || Read(number, &o.local_steps);
  } else if (name == "server") {
    o.way = ExchangeOptions::Way::kServer;
    good = bare || Read(number, &o.staleness);
  } else if (name == "backup") {
    o.way = ExchangeOptions::Way::kBackup;
    good = bare || Read(number, &o.backup);
  } else {
    good = false;
  }
  if (!good) {
    return InvalidArgument("exchange \"" + std::string(way) +
                           "\" is unknown; allreduce, diloco:STEPS, server:STALENESS or backup:WORKERS");
  }
  RETURN_IF_ERROR(Check(o, 0));
  return o;
}

std::string Name(const ExchangeOptions& o) {
  switch (o.way) {
    case ExchangeOptions::Way::kAllReduce:
      return "allreduce";
    case ExchangeOptions::Way::kDiLoCo:
      return "diloco:" + std::to_string(o.local_steps);
    case ExchangeOptions::Way::kServer:
      return "server:" + std::to_string(o.staleness);
    case ExchangeOptions::Way::kBackup:
      return "backup:" + std::to_string(o.backup);
  }
  return "";
}

Result<std::unique_ptr<Exchange>> MakeExchange(const ExchangeOptions& o, collective::Collective& collective) {
  RETURN_IF_ERROR(Check(o, collective.size()));
  std::unique_ptr<Exchange> made;
  switch (o.way) {
    case ExchangeOptions::Way::kAllReduce:
      made = std::make_unique<AllReduce>(o, collective);
      break;
    case ExchangeOptions::Way::kDiLoCo:
      made = MakeDiLoCo(o, collective);
      break;
    case ExchangeOptions::Way::kServer:
      made = MakeServer(o, collective);
      break;
    case ExchangeOptions::Way::kBackup:
      made = MakeBackup(o, collective);
      break;
  }
  return made;
}

}  // namespace ganglion::training
