// An Exchange lets several processes train one model: it is what a training loop calls between gradient and update.
//
// Intuition: each rank (process) computes the gradient of its slice of every batch. With the rows weighted by one over
// the whole batch, the slices' gradients and losses simply add up to those of the batch; every rank then makes the same
// update from the same sum, and all stay equal without ever sending parameters.
//
// How the training loop uses it, for batch b of size B and rank k of n: it fills rows [k B / n, (k+1) B / n), each
// weighted 1 / B, and calls, in this order,
//   Start(parameters, segments)          once, before the first step: everyone goes on from rank 0's
//   for every step:   Wanted()           false: nobody waits for this rank's gradient any more; Step::Run may be left
//   out
//                     Step::Run
//                     Average(g, &loss)  after it, before gradient clipping and the optimiser
//                     optimiser
//                     AfterStep(parameters, step)
//   Finish(parameters)                   once, after the last step and before the model is written
//
// Ways (exchange.cc, exchange_local.cc, exchange_server.cc, exchange_backup.cc), n ranks, P parameters:
//   all-reduce   every step the sum over all ranks, exact or compressed (module compress).  8 P (n-1)/n bytes a step
//   DiLoCo:H     H steps alone, then one outer step on the mean of what the ranks moved.    8 P (n-1)/n bytes in H
//   steps server:S     rank 0 keeps the parameters; ranks send what they moved and fetch, and     8 P bytes a step and
//   worker
//                none may be more than S steps ahead of the slowest
//   backup:B     every step the first n-B gradients count; whoever is late is left out      8 P bytes a step and worker
// The first makes the steps of one process on the whole batch, up to the order of sums. DiLoCo trades traffic for steps
// that differ. A server goes on when a worker dies and does not wait for one that lags a little; backup workers hide
// stragglers at the price of computing more gradients than are used.
//
// Errors: a rank that died or did not answer in time is UNAVAILABLE or DEADLINE_EXCEEDED and named. server and backup
// go on without it while rank 0 lives (and at least n-B ranks, for backup); lost() says who. CANCELLED from Average:
// rank 0 has ended and needs no more from here. A gradient that is not finite is refused at its rank, and the others
// are told so. Threads: one at a time. Deterministic: all-reduce and DiLoCo give the same bits on every rank and in
// every run; server with S > 0 and backup depend on who comes first. Source: J. Chen et al., "Revisiting distributed
// synchronous SGD", 2016 (backup workers); Q. Ho et al., "More effective distributed ML via a stale synchronous
// parallel parameter server", 2013; A. Douillard et al., "DiLoCo", 2023.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "collective/collective.h"
#include "compress/compress.h"
#include "gradient/gradient.h"

namespace ganglion::training {

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Gives every rank rank 0's parameters. `segments` say which runs of them are matrices.
  virtual Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& segments) = 0;
  // Whether this rank's next gradient still counts. False only for a late rank in backup mode, which may then call
  // Average with any gradients and a loss of 0.
  virtual bool Wanted() { return true; }
  // In: this rank's share of the batch's gradient and loss (rows weighted 1 / batch). Out: what to update with, and the
  // sum of the losses. The local ways scale both up to the rank's own mean instead.
  virtual Status Average(std::span<float> gradients, float* loss) = 0;
  // After the update of `step`, counted from 0.
  virtual Status AfterStep(std::span<float> parameters, std::int64_t step) = 0;
  // After the last step: all ranks leave with the same parameters, and leaving is no fault.
  virtual Status Finish(std::span<float> parameters) = 0;
  // Ranks that were lost on the way while training went on.
  virtual std::vector<int> lost() const { return {}; }
};

struct ExchangeOptions {
  enum class Way { kAllReduce, kDiLoCo, kServer, kBackup } way = Way::kAllReduce;
  int local_steps = 50;        // DiLoCo: H >= 1
  double outer_rate = .7;      // DiLoCo: its outer optimiser is SGD with Nesterov momentum
  double outer_momentum = .9;  // in [0, 1)
  int staleness = 0;           // server: S >= 0
  int backup = 1;              // backup: 1 <= B < ranks
  compress::Options compress;  // all-reduce: of gradients; DiLoCo: of what the ranks moved; else none
  // Backup: a rank that lags by more steps than this is waited for, so that rank 0's memory stays bounded.
  int longest_lag = 8;
};

// "allreduce", "diloco:50", "server:2", "backup:1".
Result<ExchangeOptions> ParseExchange(std::string_view way, std::string_view compression);
std::string Name(const ExchangeOptions& options);

// `collective` must outlive the exchange. Refuses options out of range and combinations that make no sense.
Result<std::unique_ptr<Exchange>> MakeExchange(const ExchangeOptions& options, collective::Collective& collective);

}  // namespace ganglion::training
