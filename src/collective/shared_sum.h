// A SharedSum adds up numbers over ranks of one machine through memory that they share: Collective's all-reduce without
// the sockets. Inside the module only.
//
// Intuition: through loopback every byte is copied twice in the kernel, by threads that need the cores which should
// compute. Through shared memory each rank lays down what the others need, adds up its slice, and takes the sums:
//   write numbers of the others' slices  |  everyone there?  |  add own slice in the order of ranks, write the sum  |
//   everyone there?  |  read the other slices' sums
// The same sums in the same order as over sockets: the same bits.
//
// The memory is a memfd of rank 0, which the others open under /proc: nothing has a name that could be left behind, it
// goes with the last process. It cannot shrink (sealed), and is reserved before it is used, so that touching it cannot
// fail. A rank of another machine, container or user cannot open it; then all use sockets.
// Waiting: watches the other's counter for a moment, then sleeps on it (futex), and asks every millisecond whether to
// go on: for losses and timeouts, which Collective knows about. Threads: one at a time. Cost: on one machine 2 (size +
// 1) / size bytes copied for each byte of numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace ganglion::collective {

class SharedSum {
 public:
  static constexpr std::size_t kMaxFew = 64;
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 30;  // of the shared memory; beyond, sockets are used

  // Rank 0's part: makes the memory. What it offers goes to the others, by any way.
  static Result<std::unique_ptr<SharedSum>> Offer(int size, std::string* offer);
  // The others'. Refuses an offer that cannot be taken up here.
  static Result<std::unique_ptr<SharedSum>> Accept(int rank, int size, std::string_view offer);
  ~SharedSum();
  SharedSum(const SharedSum&) = delete;
  SharedSum& operator=(const SharedSum&) = delete;

  enum class Ended { kDone, kUnavailable, kGivenUp };
  // numbers and few become their sums. kUnavailable at all ranks alike: too much for the memory there is, nothing
  // changed. kGivenUp: `wait_on` said false while waiting for the rank in `*culprit`.
  Ended Run(std::span<float> numbers, std::span<float> few, const std::function<bool(int peer)>& wait_on, int* culprit);

 private:
  struct Head;
  SharedSum(int rank, int size) : rank_(rank), size_(size) {}
  Status MapHead();
  bool Meet(const std::function<bool(int peer)>& wait_on, int* culprit);
  Ended Grow(std::size_t numbers, const std::function<bool(int peer)>& wait_on, int* culprit);
  float* PartsOf(int rank) const;  // numbers as rank has them; only slices of others are written
  float* Sums() const;
  std::size_t DataBytes(std::size_t capacity) const;

  int rank_;
  int size_;
  int fd_ = -1;
  Head* head_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t data_bytes_ = 0;
  std::size_t capacity_ = 0;  // numbers that fit
  std::uint32_t met_ = 0;     // how often all have met
};

}  // namespace ganglion::collective
