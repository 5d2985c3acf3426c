// A Collective joins processes, of one machine or several, so that they can add up numbers and send each other bytes.
//
// Intuition: `size` processes, each with a number from 0 on, its rank. A collective operation is called by all of them
// in the same order; each contributes, all get the result.
//
// It is Gloo's TCP transport underneath: one connection between every two ranks, and none through a server (ADR 18 says
// why Gloo and not MPI). The operations are ours: each rank sends slice j of its numbers to rank j, which adds them in
// the order of the ranks and sends the sum to everyone.
// Why not Gloo's ring: its traffic is the same, 2 (size-1)/size of the numbers, but in a ring everyone waits for a
// neighbour, so that one stopped process looks to each like another one. Here everyone waits for the culprit himself.
// The sums are the same bits on all ranks and in all runs. Where all ranks are on one machine, AllReduce goes through
// memory that they share (shared_sum.h), for sockets cost more than the sum.
//
// When a process dies, its connections close and every other rank's current or next operation fails, naming it. A
// process that is stopped, or a machine that is cut off, is found by the timeout, and named, too. Whoever fails tells
// the others why before it leaves. After a failure a Collective is good for nothing but Send and Receive between those
// who live. A rank that calls Leave is gone without a fault.
//
// Limits: kMaxRanks ranks, kMaxMessage bytes a message. Sizes must agree between ranks (Options::about makes sure that
// they run the same thing before they are joined). Traffic is neither encrypted nor authenticated, and the transport
// trusts what comes in: this is for machines and a network of one owner.
// A service: it owns size threads and the transport's. Operations are for one thread at a time; Send and Receive may be
// called beside them from other threads, one for each peer and direction. Gloo throws; nothing here does. It ignores
// SIGPIPE for the process, unless a handler is set, because a dead peer's socket would raise it.
// Cost: two message latencies an operation; through loopback about 0.1 ms and 1 ns a byte, through shared memory 10 us
// and 0.2 ns a byte.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::collective {

inline constexpr int kMaxRanks = 256;
inline constexpr std::size_t kMaxMessage = std::size_t{1} << 31;

struct Options {
  int rank = 0;
  int size = 1;
  // Where the ranks meet: "tcp://HOST:PORT", where rank 0 listens at HOST, or a directory, for processes of one
  // machine.
  std::string rendezvous;
  // How long to wait for another rank, when joining and in every operation.
  Duration timeout = std::chrono::seconds(60);
  // What is about to be done, in any words; ranks that say something else are refused when they join.
  std::string about;
  // The address of this machine that others connect to. Empty: found out (tcp), or 127.0.0.1 (directory).
  std::string host;
  // Whether AllReduce may go through shared memory when all ranks are on one machine. The sums are the same bits.
  bool shared_memory = true;
  // Asked now and then while others are waited for (in a directory, or by rank 0 at its port); a refusal ends Join.
  std::function<Status()> watch;
};

class Collective {
 public:
  // Waits until all ranks are there. DEADLINE_EXCEEDED names those that are missing.
  static Result<std::unique_ptr<Collective>> Join(const Options& options);
  // After a failure or a Leave it waits, a second at most, until the others know or leave, too.
  ~Collective();
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;

  int rank() const;
  int size() const;
  Duration timeout() const;

  // numbers = their sum over the ranks. `few` are summed, too; for a handful of numbers that should not cost an
  // operation of their own.
  Status AllReduce(std::span<float> numbers, std::span<float> few = {});
  // What every rank sent, by rank. Lengths may differ.
  Result<std::vector<std::string>> AllGather(std::string_view bytes);
  // Rank j gets bytes[j] of every rank. REQUIRES: bytes.size() == size().
  Result<std::vector<std::string>> AllToAll(const std::vector<std::string_view>& bytes);
  Status Broadcast(std::span<float> numbers, int root);
  Status Barrier();

  // One message to or from one rank; fails when that rank is gone, whoever else is. Receive waits for `patience` where
  // that is longer than the timeout.
  Status Send(int to, std::string_view bytes);
  Result<std::string> Receive(int from, Duration patience = Duration::zero());

  // Tells the others that this rank gives up, and why; their operations fail with these words.
  void Abandon(const std::string& why);
  // Says goodbye: what the others still wait for from here fails for them, nothing else does. No operation may follow.
  void Leave();

  // Ends what other threads wait for here with CANCELLED; nothing works afterwards. From any thread.
  void Close();

  // Ranks that are gone without a goodbye.
  std::vector<int> lost() const;
  // Bytes that this rank has sent in operations and messages, without the transport's 48 a message; through shared
  // memory they count as through a socket.
  std::uint64_t sent_bytes() const;

 private:
  struct Impl;
  explicit Collective(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::collective
