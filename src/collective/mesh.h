// Gloo's side of a Collective: the connections between all ranks, and one buffer in flight. Inside the module only.
//
// What Gloo throws becomes a reason in words. Waiting is without Gloo's own timeouts, because one that expires closes
// every connection of the process; the collective has its own, and wakes a wait by Abort.
#pragma once

#include <gloo/context.h>
#include <gloo/transport/unbound_buffer.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "collective/rendezvous.h"

namespace ganglion::collective {

class Mesh final : public gloo::Context {
 public:
  Mesh(int my_rank, int ranks) : gloo::Context(my_rank, ranks) {}
  // Meets the others and connects to each.
  Status Connect(Meeting& meeting, const std::string& host, const std::string& about, Duration timeout);
  // Cuts the connection to one rank.
  void Close(int peer);
};

// A piece of memory that is being sent or received. The memory must outlive it. Not movable: others point to it.
class Transfer {
 public:
  Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Each at most once. False: the peer is gone; error() says how.
  bool StartSend(Mesh& mesh, int to, std::uint64_t slot, const void* bytes, std::size_t size);
  bool StartReceive(Mesh& mesh, int from, std::uint64_t slot, void* bytes, std::size_t size);
  // False: it failed or was aborted. REQUIRES: started.
  bool Wait();
  // Wakes Wait from another thread.
  void Abort();

  bool started() const { return buffer_ != nullptr; }
  int peer() const { return peer_; }
  const std::string& error() const { return error_; }

 private:
  std::unique_ptr<gloo::transport::UnboundBuffer> buffer_;
  int peer_ = -1;
  bool sends_ = false;
  std::string error_;
};

}  // namespace ganglion::collective
