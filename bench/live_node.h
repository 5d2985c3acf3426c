// A LiveNode is a `ganglion serve` in a process of its own, with a folder of its own, for benchmarks that load it, ask
// it for its metrics, kill it and start it again on the same ports.
//
// The process dies with whoever started it (PR_SET_PDEATHSIG), so start it from a thread that lives as long: main.
// A service for one thread, but for the numbers of ports.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::bench {

// A folder that is removed with everything in it.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::filesystem::path& dir() const { return dir_; }

 private:
  std::filesystem::path dir_;
};

class LiveNode {
 public:
  // Writes dir/NAME.yaml and serves it on free ports of loopback; `yaml` is the file without listen and node. Comes
  // back when the node says that it is ready.
  static Result<std::unique_ptr<LiveNode>> Start(const std::filesystem::path& dir, const std::string& name,
                                                 const std::string& yaml);
  ~LiveNode();  // SIGKILL, if it still runs

  int http() const { return http_; }
  int grpc() const { return grpc_; }
  bool running();

  void Kill();       // SIGKILL, and waits until it is gone
  void Pause();      // SIGSTOP: its connections stand, and nothing comes back any more
  Status Restart();  // the same file on the same ports; comes back when it is ready
  // SIGTERM. OK when it ends by itself with exit code 0 within `patience`.
  Status End(Duration patience);

  // The sum of the samples of a metric whose labels contain all of `labels` (as "outcome=\"ok\""). 0: no such sample.
  double Metric(const std::string& name, const std::vector<std::string>& labels = {}) const;
  std::size_t rss_bytes() const;  // VmRSS
  // POST /v2/repository/models/MODEL/load
  Status Load(const std::string& model) const;

 private:
  LiveNode() = default;
  Status Spawn(const std::vector<std::string>& more);

  std::filesystem::path file_;
  pid_t pid_ = -1;
  int http_ = 0;
  int grpc_ = 0;
  int metrics_ = 0;
};

}  // namespace ganglion::bench
