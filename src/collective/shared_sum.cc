#include "collective/shared_sum.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "collective/collective.h"

namespace ganglion::collective {
namespace {

constexpr std::size_t kPage = 4096;
constexpr int kWatches = 2000;  // looks at a counter before sleeping: about 20 us

std::string Errno(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

long Futex(std::atomic<std::uint32_t>* word, int operation, std::uint32_t value, const timespec* timeout) {
  return ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(word), operation, value, timeout, nullptr, 0);
}

// to[i] += from[i]
void Add(float* __restrict to, const float* __restrict from, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace

// At the front of the memory, for good; the numbers follow it.
struct SharedSum::Head {
  static constexpr std::size_t kBytes = std::size_t{1} << 18;
  struct alignas(64) Rank {
    std::atomic<std::uint32_t> met;       // how often it was there
    std::atomic<std::uint32_t> sleepers;  // who waits for that
    float few[kMaxFew];
  };
  std::array<char, 16> token;
  std::atomic<std::uint64_t> capacity;
  std::atomic<std::uint32_t> broken;  // some rank could not follow
  std::array<Rank, kMaxRanks> ranks;
};

Status SharedSum::MapHead() {
  static_assert(sizeof(Head) <= Head::kBytes);
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);
  void* const at = ::mmap(nullptr, Head::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (at == MAP_FAILED) return Unavailable(Errno("shared memory cannot be mapped"));
  head_ = static_cast<Head*>(at);  // zeros are what a Head begins with
  return {};
}

Result<std::unique_ptr<SharedSum>> SharedSum::Offer(int size, std::string* offer) {
  std::unique_ptr<SharedSum> s(new SharedSum(0, size));
  s->fd_ = ::memfd_create("ganglion-sum", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (s->fd_ < 0) return Unavailable(Errno("memfd_create"));
  if (::ftruncate(s->fd_, Head::kBytes) != 0 || ::fallocate(s->fd_, 0, 0, Head::kBytes) != 0 ||
      ::fcntl(s->fd_, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return Unavailable(Errno("shared memory cannot be reserved"));
  }
  RETURN_IF_ERROR(s->MapHead());
  if (::getrandom(s->head_->token.data(), s->head_->token.size(), 0) != static_cast<ssize_t>(s->head_->token.size()))
    return Unavailable(Errno("getrandom"));
  *offer = std::to_string(::getpid()) + " " + std::to_string(s->fd_) + " " +
           std::string(s->head_->token.data(), s->head_->token.size());
  return s;
}

Result<std::unique_ptr<SharedSum>> SharedSum::Accept(int rank, int size, std::string_view offer) {
  const Status no = Unavailable("the shared memory of rank 0 is not for this process");
  int pid = 0;
  int fd = 0;
  const char* const end = offer.data() + offer.size();
  const auto [after_pid, bad_pid] = std::from_chars(offer.data(), end, pid);
  if (bad_pid != std::errc() || after_pid == end) return no;
  const auto [after_fd, bad_fd] = std::from_chars(after_pid + 1, end, fd);
  if (bad_fd != std::errc() || after_fd == end || end - after_fd != 17 || pid < 1 || fd < 0) return no;
  std::unique_ptr<SharedSum> s(new SharedSum(rank, size));
  s->fd_ = ::open(("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd)).c_str(), O_RDWR | O_CLOEXEC);
  struct stat file {};
  if (s->fd_ < 0 || ::fstat(s->fd_, &file) != 0 || static_cast<std::size_t>(file.st_size) < Head::kBytes ||
      (::fcntl(s->fd_, F_GET_SEALS) & F_SEAL_SHRINK) == 0) {
    return no;
  }
  RETURN_IF_ERROR(s->MapHead());
  if (std::memcmp(s->head_->token.data(), after_fd + 1, s->head_->token.size()) != 0) return no;
  return s;
}

SharedSum::~SharedSum() {
  if (head_ != nullptr) ::munmap(head_, Head::kBytes);
  if (data_ != nullptr) ::munmap(data_, data_bytes_);
  if (fd_ >= 0) ::close(fd_);
}

std::size_t SharedSum::DataBytes(std::size_t capacity) const {
  return capacity * 4 * (static_cast<std::size_t>(size_) + 1);
}
float* SharedSum::PartsOf(int rank) const {
  return reinterpret_cast<float*>(data_) + capacity_ * static_cast<std::size_t>(rank);
}
float* SharedSum::Sums() const { return PartsOf(size_); }

bool SharedSum::Meet(const std::function<bool(int peer)>& wait_on, int* culprit) {
  ++met_;
  Head::Rank& own = head_->ranks[static_cast<std::size_t>(rank_)];
  own.met.store(met_);
  if (own.sleepers.load() > 0) Futex(&own.met, FUTEX_WAKE, std::uint32_t{1} << 30, nullptr);
  for (int k = 1; k < size_; ++k) {
    const int peer = (rank_ + k) % size_;
    Head::Rank& other = head_->ranks[static_cast<std::size_t>(peer)];
    // A rank may be one meeting ahead already, never two.
    const auto there = [&] { return static_cast<std::int32_t>(other.met.load() - met_) >= 0; };
    for (int i = 0; i < kWatches && !there(); ++i) Pause();
    while (!there()) {
      ++other.sleepers;
      const std::uint32_t seen = other.met.load();
      const timespec moment{0, 1'000'000};
      if (static_cast<std::int32_t>(seen - met_) < 0) Futex(&other.met, FUTEX_WAIT, seen, &moment);
      --other.sleepers;
      if (!there() && !wait_on(peer)) {
        *culprit = peer;
        return false;
      }
    }
  }
  return true;
}

SharedSum::Ended SharedSum::Grow(std::size_t numbers, const std::function<bool(int peer)>& wait_on, int* culprit) {
  // Pages of numbers, so that every rank's part begins at a page.
  const std::size_t wanted = (numbers + kPage - 1) / kPage * kPage;
  if (DataBytes(wanted) > kMaxBytes) return Ended::kUnavailable;
  if (!Meet(wait_on, culprit)) return Ended::kGivenUp;  // nobody uses the old one any more
  if (rank_ == 0) {
    const auto bytes = static_cast<off_t>(Head::kBytes + DataBytes(wanted));
    if (::ftruncate(fd_, bytes) == 0 && ::fallocate(fd_, 0, 0, bytes) == 0)
      head_->capacity = wanted;
    else
      head_->broken = 1;
  }
  if (!Meet(wait_on, culprit)) return Ended::kGivenUp;
  if (head_->broken == 0) {
    if (data_ != nullptr) ::munmap(data_, data_bytes_);
    data_bytes_ = DataBytes(wanted);
    void* const at = ::mmap(nullptr, data_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, Head::kBytes);
    data_ = at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
    capacity_ = data_ == nullptr ? 0 : wanted;
    if (data_ == nullptr) head_->broken = 1;
  }
  if (!Meet(wait_on, culprit)) return Ended::kGivenUp;
  return head_->broken == 0 ? Ended::kDone : Ended::kUnavailable;
}

SharedSum::Ended SharedSum::Run(std::span<float> numbers, std::span<float> few,
                                const std::function<bool(int peer)>& wait_on, int* culprit) {
  if (head_->broken != 0 || few.size() > kMaxFew) return Ended::kUnavailable;
  if (numbers.size() > capacity_) {
    const Ended grown = Grow(numbers.size(), wait_on, culprit);
    if (grown != Ended::kDone) return grown;
  }
  const auto n = static_cast<std::size_t>(size_);
  const auto me = static_cast<std::size_t>(rank_);
  const auto begin = [&](std::size_t k) { return numbers.size() * k / n; };
  const std::size_t from = begin(me);
  const std::size_t count = begin(me + 1) - from;
  const auto copy = [](float* to, const float* what, std::size_t how_many) {
    if (how_many > 0) std::memcpy(to, what, how_many * 4);
  };
  copy(PartsOf(rank_), numbers.data(), from);
  copy(PartsOf(rank_) + from + count, numbers.data() + from + count, numbers.size() - from - count);
  copy(head_->ranks[me].few, few.data(), few.size());
  if (!Meet(wait_on, culprit)) return Ended::kGivenUp;

  const auto part = [&](int k) { return k == rank_ ? numbers.data() + from : PartsOf(k) + from; };
  float* const sum = Sums() + from;
  copy(sum, part(0), count);
  for (int k = 1; k < size_; ++k) Add(sum, part(k), count);
  copy(few.data(), head_->ranks[0].few, few.size());
  for (std::size_t k = 1; k < n; ++k) Add(few.data(), head_->ranks[k].few, few.size());
  if (!Meet(wait_on, culprit)) return Ended::kGivenUp;
  // What is read here is written again only after the next meeting; the parts, and few, are free.
  copy(numbers.data(), Sums(), numbers.size());
  return Ended::kDone;
}

}  // namespace ganglion::collective
