// Training by several processes: the options of `ganglion train` about them, and the crew that they make.
//
//   --workers N              this process is rank 0 and starts N - 1 more of itself on this machine
//   --rank K --size N --rendezvous PLACE     this process is one of N, which are started elsewhere (several machines)
// Processes that were started here end when this one does; nothing else is ever signalled.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "child.h"
#include "collective/collective.h"
#include "training/exchange.h"

namespace CLI {
class App;
}

namespace ganglion::app {

struct WorkersOptions {
  int workers = 1;
  int rank = -1;
  int size = 0;
  std::string rendezvous;
  std::string host;
  std::string exchange = "allreduce";
  std::string compress = "none";
  double timeout_s = 60;
};

void AddWorkersOptions(CLI::App& verb, WorkersOptions& options);

// The processes that train together, seen from one of them. A resource.
class Crew {
 public:
  // Null when the options ask for one process. `about` tells what is trained and how: every rank must say the same.
  static Result<std::unique_ptr<Crew>> Start(const WorkersOptions& options, const std::string& about);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  bool first() const { return collective_->rank() == 0; }
  training::Exchange* exchange() { return exchange_.get(); }

  // Where this rank has its checkpoint: rank 0 at `path`, the others in a place of their own, into which rank 0's is
  // copied when the run is resumed. Empty: this rank needs none.
  Result<std::filesystem::path> ShareCheckpoint(const std::filesystem::path& path, bool resume);

  // How training ended: waits for the processes that were started here, and adds to a refusal what became of them.
  Status Ended(const Status& status);

  int size() const { return collective_->size(); }
  // Of the time after Ended: ranks that were lost while training went on.
  const std::vector<int>& lost() const { return lost_; }
  std::uint64_t sent_bytes() const { return collective_->sent_bytes(); }

 private:
  Crew() = default;
  Status StartOthers(const std::string& rendezvous, int size);

  std::filesystem::path dir_;  // of this process alone, removed with it
  std::vector<Child> others_;  // ranks 1, 2, ...
  Duration timeout_{};
  std::unique_ptr<collective::Collective> collective_;
  std::unique_ptr<training::Exchange> exchange_;
  std::vector<int> lost_;
};

}  // namespace ganglion::app
