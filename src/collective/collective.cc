#include "collective/collective.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "base/check.h"
#include "collective/mesh.h"
#include "collective/shared_sum.h"

namespace ganglion::collective {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

// Slots tell messages of one connection apart: what kind, and the how many-th.
enum class Kind : std::uint64_t { kWords = 1, kLengths, kBytes, kSlices, kSums, kFew, kRoot, kSendLength, kSendBytes };
std::uint64_t Slot(Kind kind, std::uint64_t number) { return static_cast<std::uint64_t>(kind) << 48 | number; }

// What a rank says to each other one at most once: goodbye, or why it gives up.
struct Words {
  enum : std::int32_t { kGoodbye = 0, kGivesUp = 1 };
  std::int32_t what = kGoodbye;
  std::int32_t culprit = -1;
  std::array<char, 248> why{};
};
static_assert(sizeof(Words) == 256);

std::string SecondsText(Duration d) {
  std::string text = std::to_string(std::chrono::duration<double>(d).count());
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text + " s";
}

// numbers[0..n) += more[0..n)
void Add(float* numbers, const float* more, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) numbers[i] += more[i];
}

}  // namespace

struct Collective::Impl {
  explicit Impl(const Options& o) : options(o), mesh(std::make_shared<Mesh>(o.rank, o.size)) {}

  struct Loss {
    int rank = -1;
    std::string why;
    bool late = false;  // a timeout of ours or another's, not a closed connection
  };
  // A wait under way, so that the thread that keeps time and those that watch can wake it.
  struct Waiting {
    Transfer* transfer = nullptr;
    TimePoint deadline;
    bool of_all = true;  // part of an operation of all ranks, which any loss ends
    bool expired = false;
  };

  int rank() const { return options.rank; }
  int size() const { return options.size; }
  template <typename F>
  void ForOthers(F&& f) {
    for (int k = 1; k < size(); ++k) f((rank() + k) % size());
  }

  void StartThreads();
  void KeepTime();
  // Takes down that a rank is gone; the first one is why operations of all end.
  void Lose(const Loss& loss);
  bool Wait(Transfer& transfer, bool of_all, TimePoint deadline, bool* expired);
  // Waits for all; the first failure is returned.
  Status WaitAll(std::list<Transfer>& transfers, const char* doing);
  Status Failed(int peer, bool expired, bool of_all, const char* doing);
  Status Gone(const Loss& loss, const char* doing) const;
  void Say(const Words& words);
  Status Usable(const char* doing);
  // Tries to share memory with everyone; all do, or none.
  Status ShareMemory();
  // AllReduce by shared memory. False: not to be had, for none.
  Result<bool> SumShared(std::span<float> numbers, std::span<float> few, const char* doing);
  Result<std::vector<std::string>> Swap(const std::vector<std::string_view>& bytes, const char* doing);

  Options options;
  std::shared_ptr<Mesh> mesh;
  std::uint64_t operation = 0;
  std::vector<std::uint64_t> sent_to;        // messages of Send by peer; one thread each
  std::vector<std::uint64_t> received_from;  // of Receive
  std::atomic<std::uint64_t> sent{0};
  std::unique_ptr<SharedSum> shared;  // null: not all ranks are on this machine
  std::vector<float> slices;          // AllReduce's memory, kept to save its allocation

  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Loss> first;  // guarded by mutex, as all that follows
  std::map<int, Loss> gone;
  std::set<int> departed;  // after a goodbye
  std::list<Waiting*> waiting;
  bool spoke = false;
  bool left = false;
  bool closed = false;
  bool ending = false;

  std::vector<Words> heard;
  std::list<Transfer> ears;  // a receive of words from each peer, posted before anything else
  std::vector<std::thread> threads;
};

void Collective::Impl::StartThreads() {
  heard.resize(static_cast<std::size_t>(size()));
  ForOthers([&](int peer) {
    ears.emplace_back();
    ears.back().StartReceive(*mesh, peer, Slot(Kind::kWords, 0), &heard[static_cast<std::size_t>(peer)], sizeof(Words));
  });
  int n = 1;
  for (Transfer& ear : ears) {
    Transfer* const e = &ear;
    const int peer = (rank() + n++) % size();
    threads.emplace_back([this, e, peer] {
      if (e->Wait()) {
        const Words& words = heard[static_cast<std::size_t>(peer)];
        if (words.what == Words::kGoodbye) {
          std::lock_guard lock(mutex);
          departed.insert(peer);
          changed.notify_all();
          return;
        }
        const std::string why(words.why.data(), ::strnlen(words.why.data(), words.why.size()));
        const int culprit = words.culprit >= 0 && words.culprit < size() ? words.culprit : peer;
        Lose({culprit, culprit == peer ? why : why + " (says rank " + std::to_string(peer) + ")", false});
        Lose({peer, "it gave up", false});
        return;
      }
      {
        std::lock_guard lock(mutex);
        if (ending) return;
      }
      Lose({peer, "its connection closed", false});
    });
  }
  threads.emplace_back([this] { KeepTime(); });
}

void Collective::Impl::KeepTime() {
  std::unique_lock lock(mutex);
  while (!ending) {
    // A wait that begins while this sleeps is late by an eighth at most.
    TimePoint next = Now() + options.timeout / 8;
    for (Waiting* w : waiting) next = std::min(next, w->deadline);
    changed.wait_until(lock, next, [&] { return ending; });
    const TimePoint now = Now();
    for (Waiting* w : waiting) {
      if (w->expired || w->deadline > now) continue;
      w->expired = true;
      w->deadline = TimePoint::max();
      w->transfer->Abort();
    }
  }
}

void Collective::Impl::Lose(const Loss& loss) {
  std::lock_guard lock(mutex);
  if (ending || loss.rank == rank()) {
    // Another one blames us: we were too slow for it. What we wait for from it will fail by itself.
    if (ending || first) return;
  }
  if (loss.rank != rank()) gone.emplace(loss.rank, loss);
  if (!first) first = loss;
  for (Waiting* w : waiting) {
    if (w->of_all || w->transfer->peer() == loss.rank) w->transfer->Abort();
  }
  changed.notify_all();
}

bool Collective::Impl::Wait(Transfer& transfer, bool of_all, TimePoint deadline, bool* expired) {
  Waiting w{&transfer, deadline, of_all, false};
  std::list<Waiting*>::iterator place;
  {
    std::lock_guard lock(mutex);
    if (closed || (of_all && first) || gone.count(transfer.peer()) > 0) return false;
    place = waiting.insert(waiting.end(), &w);
  }
  const bool done = transfer.Wait();
  std::lock_guard lock(mutex);
  waiting.erase(place);
  *expired = w.expired;
  return done;
}

Status Collective::Impl::Gone(const Loss& loss, const char* doing) const {
  if (loss.rank == rank()) {
    return {Code::kUnavailable, "rank " + std::to_string(rank()) + " (this one) was given up by the others while " +
                                    doing + ": " + loss.why};
  }
  return {loss.late ? Code::kDeadlineExceeded : Code::kUnavailable, "rank " + std::to_string(loss.rank) + " of " +
                                                                        std::to_string(size()) + " is lost while " +
                                                                        doing + ": " + loss.why};
}

Status Collective::Impl::Failed(int peer, bool expired, bool of_all, const char* doing) {
  Loss loss{peer, "it did not answer within " + SecondsText(options.timeout), true};
  if (!expired) {
    // The watching threads know who was first, and hear what others say; they may need a moment.
    std::unique_lock lock(mutex);
    if (closed) return Cancelled("the collective was closed while " + std::string(doing));
    const auto known = [&] { return of_all ? first.has_value() : gone.count(peer) > 0; };
    if (changed.wait_for(lock, std::chrono::milliseconds(300), known))
      loss = of_all ? *first : gone.at(peer);
    else
      loss = {peer, "it left before the others", false};
  }
  Lose(loss);
  if (expired && !of_all) mesh->Close(loss.rank);  // what it sends later must not find half a message waiting
  if (of_all) {
    Words words{Words::kGivesUp, loss.rank, {}};
    std::memcpy(words.why.data(), loss.why.data(), std::min(loss.why.size(), words.why.size() - 1));
    Say(words);
  }
  return Gone(loss, doing);
}

// To everyone who is still there. Their ears are open since they joined, so this does not wait for them; that of one
// who was stopped is not waited for longer than a moment.
void Collective::Impl::Say(const Words& words) {
  std::vector<bool> there(static_cast<std::size_t>(size()), true);
  {
    std::lock_guard lock(mutex);
    if (std::exchange(spoke, true)) return;
    for (const auto& [peer, loss] : gone) there[static_cast<std::size_t>(peer)] = false;
  }
  std::list<Transfer> transfers;
  ForOthers([&](int peer) {
    if (!there[static_cast<std::size_t>(peer)]) return;
    transfers.emplace_back();
    transfers.back().StartSend(*mesh, peer, Slot(Kind::kWords, 0), &words, sizeof words);
  });
  const TimePoint end = Now() + std::chrono::seconds(1);
  std::atomic<bool> done{false};
  std::mutex m;
  std::condition_variable woken;
  std::thread timer([&] {
    std::unique_lock lock(m);
    if (woken.wait_until(lock, end, [&] { return done.load(); })) return;
    for (Transfer& t : transfers) t.Abort();
  });
  for (Transfer& t : transfers) (void)t.Wait();
  {
    std::lock_guard lock(m);
    done = true;
  }
  woken.notify_all();
  timer.join();
}

Status Collective::Impl::Usable(const char* doing) {
  std::lock_guard lock(mutex);
  if (left || closed) return FailedPrecondition("this rank has left");
  if (first) return Gone(*first, doing);
  return {};
}

Status Collective::Impl::WaitAll(std::list<Transfer>& transfers, const char* doing) {
  const TimePoint deadline = Now() + options.timeout;
  for (Transfer& t : transfers) {
    bool expired = false;
    if (!Wait(t, true, deadline, &expired)) return Failed(t.peer(), expired, true, doing);
  }
  return {};
}

Result<std::vector<std::string>> Collective::Impl::Swap(const std::vector<std::string_view>& bytes, const char* doing) {
  GANGLION_CHECK(bytes.size() == static_cast<std::size_t>(size()));
  RETURN_IF_ERROR(Usable(doing));
  const std::uint64_t number = operation++;
  std::vector<std::uint64_t> mine(bytes.size());
  std::vector<std::uint64_t> theirs(bytes.size());
  std::vector<std::string> got(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    mine[i] = bytes[i].size();
    if (bytes[i].size() > kMaxMessage) {
      return ResourceExhausted("a message of " + std::to_string(bytes[i].size()) + " bytes is longer than " +
                               std::to_string(kMaxMessage));
    }
  }
  got[static_cast<std::size_t>(rank())] = bytes[static_cast<std::size_t>(rank())];
  std::list<Transfer> transfers;
  ForOthers([&](int peer) {
    transfers.emplace_back();
    transfers.back().StartReceive(*mesh, peer, Slot(Kind::kLengths, number), &theirs[static_cast<std::size_t>(peer)],
                                  8);
  });
  ForOthers([&](int peer) {
    transfers.emplace_back();
    transfers.back().StartSend(*mesh, peer, Slot(Kind::kLengths, number), &mine[static_cast<std::size_t>(peer)], 8);
    const std::string_view b = bytes[static_cast<std::size_t>(peer)];
    sent += 8 + b.size();
    if (b.empty()) return;
    transfers.emplace_back();
    transfers.back().StartSend(*mesh, peer, Slot(Kind::kBytes, number), b.data(), b.size());
  });
  // The lengths come first; the payloads' sends end only when they are asked for.
  std::list<Transfer> payloads;
  const TimePoint deadline = Now() + options.timeout;
  auto at = transfers.begin();
  for (int k = 1; k < size(); ++k, ++at) {
    bool expired = false;
    if (!Wait(*at, true, deadline, &expired)) return Failed(at->peer(), expired, true, doing);
    const auto peer = static_cast<std::size_t>(at->peer());
    if (theirs[peer] > kMaxMessage) {
      return ResourceExhausted("rank " + std::to_string(peer) + " sends " + std::to_string(theirs[peer]) +
                               " bytes; the limit is " + std::to_string(kMaxMessage));
    }
    if (theirs[peer] == 0) continue;
    got[peer].resize(theirs[peer]);
    payloads.emplace_back();
    payloads.back().StartReceive(*mesh, at->peer(), Slot(Kind::kBytes, number), got[peer].data(), got[peer].size());
  }
  RETURN_IF_ERROR(WaitAll(payloads, doing));
  for (; at != transfers.end(); ++at) {
    bool expired = false;
    if (!Wait(*at, true, deadline, &expired)) return Failed(at->peer(), expired, true, doing);
  }
  return got;
}

Collective::Collective(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Collective>> Collective::Join(const Options& options) {
  if (options.size < 1 || options.size > kMaxRanks) {
    return InvalidArgument("the number of ranks must be 1 .. " + std::to_string(kMaxRanks) + ", got " +
                           std::to_string(options.size));
  }
  if (options.rank < 0 || options.rank >= options.size) {
    return InvalidArgument("the rank must be 0 .. " + std::to_string(options.size - 1) + ", got " +
                           std::to_string(options.rank));
  }
  if (options.timeout < std::chrono::milliseconds(10) || options.timeout > std::chrono::hours(24)) {
    return InvalidArgument("the timeout must be 0.01 s .. 24 h, got " + SecondsText(options.timeout));
  }
  if (options.about.size() > 4096) return InvalidArgument("what ranks are about to do must be told in 4096 bytes");
  struct sigaction pipe {};
  if (::sigaction(SIGPIPE, nullptr, &pipe) == 0 && pipe.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
  auto impl = std::make_unique<Impl>(options);
  impl->sent_to.resize(static_cast<std::size_t>(options.size));
  impl->received_from.resize(static_cast<std::size_t>(options.size));
  if (options.size == 1) return std::unique_ptr<Collective>(new Collective(std::move(impl)));
  ASSIGN_OR_RETURN(const Place place, ParsePlace(options.rendezvous));
  const TimePoint deadline = Now() + options.timeout;
  ASSIGN_OR_RETURN(const auto meeting, Meeting::Open(place, options.rank, options.size, deadline, options.watch));
  RETURN_IF_ERROR(impl->mesh->Connect(*meeting, options.host.empty() ? meeting->local_host() : options.host,
                                      options.about, options.timeout));
  impl->StartThreads();
  std::unique_ptr<Collective> joined(new Collective(std::move(impl)));
  RETURN_IF_ERROR(joined->impl_->ShareMemory());  // all have read where all are, then: the meeting may end
  return joined;
}

Status Collective::Impl::ShareMemory() {
  constexpr const char* kDoing = "meeting";
  std::string offer;
  if (rank() == 0 && options.shared_memory) {
    auto made = SharedSum::Offer(size(), &offer);
    if (made.ok()) shared = std::move(*made);
  }
  ASSIGN_OR_RETURN(const auto offers,
                   Swap(std::vector<std::string_view>(static_cast<std::size_t>(size()), offer), kDoing));
  if (rank() != 0 && options.shared_memory) {
    auto taken = SharedSum::Accept(rank(), size(), offers[0]);
    if (taken.ok()) shared = std::move(*taken);
  }
  const std::string_view mine = shared ? "y" : "n";
  ASSIGN_OR_RETURN(const auto all, Swap(std::vector<std::string_view>(static_cast<std::size_t>(size()), mine), kDoing));
  if (std::find(all.begin(), all.end(), "n") != all.end()) shared.reset();
  return {};
}

Result<bool> Collective::Impl::SumShared(std::span<float> numbers, std::span<float> few, const char* doing) {
  const TimePoint deadline = Now() + options.timeout;
  bool expired = false;
  int culprit = -1;
  const auto ended = shared->Run(
      numbers, few,
      [&](int peer) {
        expired = Now() >= deadline;
        std::lock_guard lock(mutex);
        return !expired && !first && !closed && departed.count(peer) == 0;
      },
      &culprit);
  if (ended == SharedSum::Ended::kUnavailable) return false;
  if (ended == SharedSum::Ended::kDone) return true;
  return Failed(culprit, expired, true, doing);
}

Collective::~Collective() {
  {
    std::unique_lock lock(impl_->mutex);
    // Who is gone at once may take its last words with it (a connection that closes with bytes unread is reset), and
    // would look like one that died. Whoever hears that somebody gave up gives up, too, and says so.
    const auto all_know = [&] {
      int know = 0;
      for (int peer = 0; peer < size(); ++peer)
        know += peer != rank() && (impl_->gone.count(peer) > 0 || impl_->departed.count(peer) > 0);
      return know == size() - 1;
    };
    if (impl_->spoke && !impl_->closed) impl_->changed.wait_for(lock, std::chrono::seconds(1), all_know);
    impl_->ending = true;
  }
  impl_->changed.notify_all();
  for (Transfer& ear : impl_->ears) ear.Abort();
  for (auto& t : impl_->threads) t.join();
  impl_->ears.clear();
}

int Collective::rank() const { return impl_->rank(); }
int Collective::size() const { return impl_->size(); }
Duration Collective::timeout() const { return impl_->options.timeout; }

Status Collective::AllReduce(std::span<float> numbers, std::span<float> few) {
  Impl& c = *impl_;
  if (c.size() == 1) return {};
  constexpr const char* kDoing = "adding up";
  RETURN_IF_ERROR(c.Usable(kDoing));
  const auto n = static_cast<std::size_t>(c.size());
  const auto me = static_cast<std::size_t>(c.rank());
  if (c.shared) {
    ASSIGN_OR_RETURN(const bool done, c.SumShared(numbers, few, kDoing));
    const std::size_t mine = numbers.size() * (me + 1) / n - numbers.size() * me / n;
    if (done) c.sent += 4 * (numbers.size() - mine + (n - 1) * (mine + few.size()));
    if (done) return {};
  }
  const std::uint64_t number = c.operation++;
  const auto begin = [&](std::size_t k) { return numbers.size() * k / n; };
  const auto slice = [&](std::size_t k) { return numbers.subspan(begin(k), begin(k + 1) - begin(k)); };
  const std::span<float> mine = slice(me);
  c.slices.resize((mine.size() + few.size()) * n);
  const auto of = [&](std::size_t k) { return c.slices.data() + k * (mine.size() + few.size()); };
  std::list<Transfer> parts;  // of my slice, from everyone
  std::list<Transfer> sums;   // of the other slices, from their owners
  std::list<Transfer> sends;
  const auto receive = [&](std::list<Transfer>& list, int peer, Kind kind, float* to, std::size_t count) {
    if (count == 0) return;
    list.emplace_back();
    list.back().StartReceive(*c.mesh, peer, Slot(kind, number), to, count * 4);
  };
  const auto send = [&](int peer, Kind kind, const float* from, std::size_t count) {
    if (count == 0) return;
    sends.emplace_back();
    sends.back().StartSend(*c.mesh, peer, Slot(kind, number), from, count * 4);
    c.sent += count * 4;
  };
  c.ForOthers([&](int peer) {
    const auto k = static_cast<std::size_t>(peer);
    receive(parts, peer, Kind::kSlices, of(k), mine.size());
    receive(parts, peer, Kind::kFew, of(k) + mine.size(), few.size());
    // Rank k sends the sum only after it has my part, so that this cannot come too early.
    receive(sums, peer, Kind::kSums, slice(k).data(), slice(k).size());
  });
  std::copy(few.begin(), few.end(), of(me) + mine.size());
  c.ForOthers([&](int peer) {
    const auto k = static_cast<std::size_t>(peer);
    send(peer, Kind::kSlices, slice(k).data(), slice(k).size());
    send(peer, Kind::kFew, of(me) + mine.size(), few.size());
  });
  RETURN_IF_ERROR(c.WaitAll(parts, kDoing));
  // In the order of the ranks, whoever came first.
  if (me != 0) {
    std::copy(mine.begin(), mine.end(), of(me));
    std::copy_n(of(0), mine.size(), mine.begin());
  }
  for (std::size_t k = 1; k < n; ++k) Add(mine.data(), of(k), mine.size());
  std::copy_n(of(0) + mine.size(), few.size(), few.begin());
  for (std::size_t k = 1; k < n; ++k) Add(few.data(), of(k) + mine.size(), few.size());
  c.ForOthers([&](int peer) { send(peer, Kind::kSums, mine.data(), mine.size()); });
  RETURN_IF_ERROR(c.WaitAll(sums, kDoing));
  return c.WaitAll(sends, kDoing);
}

Result<std::vector<std::string>> Collective::AllGather(std::string_view bytes) {
  return impl_->Swap(std::vector<std::string_view>(static_cast<std::size_t>(size()), bytes), "gathering");
}

Result<std::vector<std::string>> Collective::AllToAll(const std::vector<std::string_view>& bytes) {
  return impl_->Swap(bytes, "trading");
}

Status Collective::Broadcast(std::span<float> numbers, int root) {
  GANGLION_CHECK(root >= 0 && root < size());
  Impl& c = *impl_;
  constexpr const char* kDoing = "broadcasting";
  RETURN_IF_ERROR(c.Usable(kDoing));
  const std::uint64_t number = c.operation++;
  if (numbers.empty()) return {};
  std::list<Transfer> transfers;
  if (rank() == root) {
    c.ForOthers([&](int peer) {
      transfers.emplace_back();
      transfers.back().StartSend(*c.mesh, peer, Slot(Kind::kRoot, number), numbers.data(), numbers.size_bytes());
      c.sent += numbers.size_bytes();
    });
  } else {
    transfers.emplace_back();
    transfers.back().StartReceive(*c.mesh, root, Slot(Kind::kRoot, number), numbers.data(), numbers.size_bytes());
  }
  return c.WaitAll(transfers, kDoing);
}

Status Collective::Barrier() {
  const auto all = impl_->Swap(std::vector<std::string_view>(static_cast<std::size_t>(size())), "meeting");
  return all.ok() ? Status() : all.status();
}

Status Collective::Send(int to, std::string_view bytes) {
  GANGLION_CHECK(to >= 0 && to < size() && to != rank());
  Impl& c = *impl_;
  if (bytes.size() > kMaxMessage) {
    return ResourceExhausted("a message of " + std::to_string(bytes.size()) + " bytes is longer than " +
                             std::to_string(kMaxMessage));
  }
  const std::uint64_t number = c.sent_to[static_cast<std::size_t>(to)]++;
  const std::uint64_t length = bytes.size();
  std::list<Transfer> transfers;
  transfers.emplace_back();
  transfers.back().StartSend(*c.mesh, to, Slot(Kind::kSendLength, number), &length, 8);
  if (!bytes.empty()) {
    transfers.emplace_back();
    transfers.back().StartSend(*c.mesh, to, Slot(Kind::kSendBytes, number), bytes.data(), bytes.size());
  }
  c.sent += 8 + bytes.size();
  const TimePoint deadline = Now() + c.options.timeout;
  for (Transfer& t : transfers) {
    bool expired = false;
    if (!c.Wait(t, false, deadline, &expired)) return c.Failed(t.peer(), expired, false, "sending");
  }
  return {};
}

Result<std::string> Collective::Receive(int from, Duration patience) {
  GANGLION_CHECK(from >= 0 && from < size() && from != rank());
  Impl& c = *impl_;
  const std::uint64_t number = c.received_from[static_cast<std::size_t>(from)]++;
  const TimePoint deadline = Now() + std::max(patience, c.options.timeout);
  std::uint64_t length = 0;
  bool expired = false;
  Transfer head;
  head.StartReceive(*c.mesh, from, Slot(Kind::kSendLength, number), &length, 8);
  if (!c.Wait(head, false, deadline, &expired)) return c.Failed(from, expired, false, "receiving");
  if (length > kMaxMessage) {
    return ResourceExhausted("rank " + std::to_string(from) + " sends " + std::to_string(length) +
                             " bytes; the limit is " + std::to_string(kMaxMessage));
  }
  std::string bytes(length, '\0');
  if (length == 0) return bytes;
  Transfer body;
  body.StartReceive(*c.mesh, from, Slot(Kind::kSendBytes, number), bytes.data(), bytes.size());
  if (!c.Wait(body, false, Now() + c.options.timeout, &expired)) return c.Failed(from, expired, false, "receiving");
  return bytes;
}

void Collective::Abandon(const std::string& why) {
  if (size() == 1) return;
  Words words{Words::kGivesUp, rank(), {}};
  std::memcpy(words.why.data(), why.data(), std::min(why.size(), words.why.size() - 1));
  impl_->Say(words);
}

void Collective::Leave() {
  if (size() == 1) return;
  {
    std::lock_guard lock(impl_->mutex);
    if (std::exchange(impl_->left, true)) return;
  }
  impl_->Say(Words{});
}

void Collective::Close() {
  std::lock_guard lock(impl_->mutex);
  impl_->closed = true;
  for (Impl::Waiting* w : impl_->waiting) w->transfer->Abort();
}

std::vector<int> Collective::lost() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<int> ranks;
  for (const auto& [rank, loss] : impl_->gone) ranks.push_back(rank);
  return ranks;
}

std::uint64_t Collective::sent_bytes() const { return impl_->sent; }

}  // namespace ganglion::collective
