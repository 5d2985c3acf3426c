// A TorchPeer is PyTorch (Debian's python3-torch) in a process of its own, so that a benchmark can take turns with it.
//
// Intuition: two programs measured one after the other see two machines; turn by turn they see the same one. The peer
// is a script under bench/peers that prints "torch VERSION", then answers each line on its standard input with the
// median milliseconds of what the line asks for. One thread on either side. Where there is no PyTorch, Start says so
// once and gives nothing: rows are then recorded without a ratio. Not thread-safe. The process ends with the object.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "figures.h"

namespace ganglion::bench {

class TorchPeer {
 public:
  // `script`: a file of bench/peers. Null where it does not start.
  static std::unique_ptr<TorchPeer> Start(const std::string& script);
  ~TorchPeer();
  TorchPeer(const TorchPeer&) = delete;
  TorchPeer& operator=(const TorchPeer&) = delete;

  // Sends `request`, waits for the number. Not a number, or a peer that is gone: nothing.
  std::optional<double> Milliseconds(const std::string& request);

 private:
  TorchPeer() = default;
  std::string Line();
  int pid_ = -1;
  FILE* in_ = nullptr;
  FILE* out_ = nullptr;
};

double Median(std::vector<double> v);

struct PairedTimes {
  double ours = 0;               // median milliseconds of one step
  std::optional<double> theirs;  // the same of the peer
};

// Takes turns: `steps` calls of `step`, then `request` of the peer (which runs as many), `turns` times after one turn
// of warm-up. Nothing when a step fails. `torch` may be null.
std::optional<PairedTimes> TakeTurns(const std::function<bool()>& step, TorchPeer* torch, const std::string& request,
                                     int turns = 15, int steps = 100);

// Adds "NAME: step" in ms, and, where there is a peer, "NAME: PyTorch's step over ours" against `goal` (">= 2x").
void AddPaired(Figures& figures, const std::string& name, const PairedTimes& times, const std::string& goal);

}  // namespace ganglion::bench
