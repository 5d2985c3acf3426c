#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "collective/collective.h"
#include "collective/meeting_places.h"

namespace ganglion::collective {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

// Owns a descriptor.
class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Socket() { Close(); }
  int fd() const { return fd_; }

 private:
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  int fd_;
};

// How long poll may wait: until `deadline`, at most a second.
int PollTime(TimePoint deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left + 1, 0, 1000));
}

// Waits for `events` on a descriptor. False: the deadline came first.
bool Wait(int fd, short events, TimePoint deadline) {
  for (;;) {
    pollfd p{fd, events, 0};
    if (::poll(&p, 1, PollTime(deadline)) > 0) return true;
    if (Now() >= deadline) return false;
  }
}

bool WriteAll(int fd, std::string_view bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(n));
    } else if ((n < 0 && errno != EAGAIN && errno != EINTR) || !Wait(fd, POLLOUT, deadline)) {
      return false;
    }
  }
  return true;
}

std::string Frame(std::string_view bytes) {
  const auto n = static_cast<std::uint32_t>(bytes.size());
  std::string out(reinterpret_cast<const char*>(&n), 4);
  out.append(bytes);
  return out;
}

// Reads what there is. False: the connection is over, or what comes is longer than `limit`.
bool ReadSome(int fd, std::string* in, std::size_t limit) {
  char part[4096];
  for (;;) {
    const ssize_t n = ::recv(fd, part, sizeof part, 0);
    if (n == 0) return false;
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    in->append(part, static_cast<std::size_t>(n));
    if (in->size() > limit + 4) return false;
  }
}

// The frame at the head of `in`, once it is whole. `bad`: it can never be.
bool WholeFrame(const std::string& in, std::size_t limit, std::string_view* frame, bool* bad) {
  if (in.size() < 4) return false;
  std::uint32_t n = 0;
  std::memcpy(&n, in.data(), 4);
  *bad = n > limit;
  if (*bad || in.size() < 4 + std::size_t{n}) return false;
  *frame = std::string_view(in).substr(4, n);
  return true;
}

std::string NumericHost(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST] = "";
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, nullptr, 0,
                    NI_NUMERICHOST) != 0)
    return "";
  return host;
}

std::string LocalHost(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "";
  return NumericHost(address, length);
}

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Result<Addresses> Resolve(const Place& place) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(place.host.c_str(), std::to_string(place.port).c_str(), &hints, &found);
  if (error != 0) return Unavailable("the host " + place.host + " cannot be found: " + ::gai_strerror(error));
  return Addresses(found, ::freeaddrinfo);
}

std::string Text(const Place& place) { return place.host + ":" + std::to_string(place.port); }

class Listener final : public Meeting {
 public:
  Listener(Socket socket, Place place, int size, TimePoint deadline, std::function<Status()> watch)
      : socket_(std::move(socket)),
        place_(std::move(place)),
        size_(size),
        deadline_(deadline),
        watch_(std::move(watch)) {
    host_ = LocalHost(socket_.fd());
  }

  const std::string& local_host() const override { return host_; }

  Result<std::vector<std::string>> Exchange(const std::string& about, const std::string& addresses) override {
    std::vector<std::string> table(static_cast<std::size_t>(size_));
    std::vector<bool> here(table.size());
    table[0] = addresses;
    here[0] = true;
    Status status;
    while (status.ok() && std::find(here.begin(), here.end(), false) != here.end()) {
      if (Now() >= deadline_)
        status = Status(Code::kDeadlineExceeded, Missing(here) + " did not come to " + Text(place_) + " in time");
      else
        status = Turn(about, &table, &here);
      if (status.ok() && watch_) status = watch_();
    }
    const std::string answer =
        Frame(status.ok() ? std::string(1, '\0') + EncodeTable(table) : std::string(1, '\1') + status.message());
    for (const Guest& g : guests_) {
      const TimePoint end = std::max(deadline_, Now() + std::chrono::seconds(1));
      if (g.rank >= 0 && !WriteAll(g.socket.fd(), answer, end) && status.ok())
        status = Unavailable("rank " + std::to_string(g.rank) + " is gone again");
    }
    if (!status.ok()) return status;
    return table;
  }

 private:
  struct Guest {
    Socket socket;
    std::string in;
    int rank = -1;  // not greeted yet
  };

  // One round of poll over everyone.
  Status Turn(const std::string& about, std::vector<std::string>* table, std::vector<bool>* here) {
    std::vector<pollfd> polls(1, pollfd{socket_.fd(), POLLIN, 0});
    for (const Guest& g : guests_) polls.push_back({g.socket.fd(), POLLIN, 0});
    if (::poll(polls.data(), polls.size(), PollTime(deadline_)) <= 0) return {};
    std::vector<std::size_t> gone;
    for (std::size_t i = 0; i < guests_.size(); ++i) {
      if (polls[i + 1].revents == 0) continue;
      Guest& g = guests_[i];
      const bool open = ReadSome(g.socket.fd(), &g.in, kMaxHello);
      std::string_view frame;
      bool bad = false;
      if (g.rank < 0 && WholeFrame(g.in, kMaxHello, &frame, &bad)) {
        auto hello = DecodeHello(frame);
        if (hello.ok()) {
          g.rank = hello->rank;
          RETURN_IF_ERROR(Take(std::move(*hello), about, table, here));
        } else {
          bad = true;
        }
      }
      if (!open && g.rank >= 0) return Unavailable("rank " + std::to_string(g.rank) + " is gone again");
      if (!open || bad) gone.push_back(i);
    }
    for (std::size_t i = gone.size(); i-- > 0;) guests_.erase(guests_.begin() + static_cast<std::ptrdiff_t>(gone[i]));
    if (polls[0].revents != 0) {
      Socket guest(::accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (guest.fd() >= 0 && guests_.size() < 2 * static_cast<std::size_t>(kMaxRanks))
        guests_.push_back({std::move(guest), "", -1});
    }
    return {};
  }

  Status Take(Hello hello, const std::string& about, std::vector<std::string>* table, std::vector<bool>* here) {
    RETURN_IF_ERROR(CheckHello(hello, size_, about));
    const auto rank = static_cast<std::size_t>(hello.rank);
    if ((*here)[rank]) return FailedPrecondition("rank " + std::to_string(hello.rank) + " came twice");
    (*here)[rank] = true;
    (*table)[rank] = std::move(hello.addresses);
    return {};
  }

  Socket socket_;
  Place place_;
  int size_;
  TimePoint deadline_;
  std::function<Status()> watch_;
  std::string host_;
  std::vector<Guest> guests_;
};

class Visitor final : public Meeting {
 public:
  Visitor(Socket socket, Place place, int rank, int size, TimePoint deadline)
      : socket_(std::move(socket)), place_(std::move(place)), rank_(rank), size_(size), deadline_(deadline) {
    host_ = LocalHost(socket_.fd());
  }

  const std::string& local_host() const override { return host_; }

  Result<std::vector<std::string>> Exchange(const std::string& about, const std::string& addresses) override {
    const Status gone = Unavailable("rank 0 at " + Text(place_) + " has closed the connection");
    // Rank 0 tells who is missing when its time is over; it may have come later than we.
    const TimePoint end = deadline_ + std::chrono::seconds(2);
    if (!WriteAll(socket_.fd(), Frame(EncodeHello({rank_, size_, about, addresses})), end)) return gone;
    std::string in;
    for (;;) {
      std::string_view frame;
      bool bad = false;
      if (WholeFrame(in, kMaxFrame, &frame, &bad)) {
        if (frame.empty()) return DataLoss("the answer of rank 0 is empty");
        if (frame[0] != 0) return FailedPrecondition(std::string(frame.substr(1)));
        auto table = DecodeTable(frame.substr(1));
        if (!table.ok()) return table;
        if (table->size() != static_cast<std::size_t>(size_)) return DataLoss("the answer of rank 0 is of others");
        return table;
      }
      if (bad) return DataLoss("what answers at " + Text(place_) + " is no rank 0");
      if (!Wait(socket_.fd(), POLLIN, end))
        return Status(Code::kDeadlineExceeded, "not all ranks came to " + Text(place_) + " in time");
      if (!ReadSome(socket_.fd(), &in, kMaxFrame)) {
        if (!WholeFrame(in, kMaxFrame, &frame, &bad)) return gone;
      }
    }
  }

 private:
  Socket socket_;
  Place place_;
  int rank_;
  int size_;
  TimePoint deadline_;
  std::string host_;
};

}  // namespace

Result<std::unique_ptr<Meeting>> ListenForOthers(const Place& place, int size, TimePoint deadline,
                                                 const std::function<Status()>& watch) {
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(place));
  int error = 0;
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    Socket socket(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(socket.fd(), a->ai_addr, a->ai_addrlen) == 0 && ::listen(socket.fd(), kMaxRanks) == 0)
      return std::unique_ptr<Meeting>(new Listener(std::move(socket), place, size, deadline, watch));
    error = errno;
  }
  return Unavailable("rank 0 cannot listen at " + Text(place) + ": " + std::strerror(error) +
                     (error == EADDRNOTAVAIL ? "; HOST must be an address of the machine of rank 0" : ""));
}

Result<std::unique_ptr<Meeting>> ConnectToFirst(const Place& place, int rank, int size, TimePoint deadline) {
  std::string reason = "nobody listens";
  for (;;) {  // rank 0 may start later than we
    auto addresses = Resolve(place);
    if (!addresses.ok()) reason = addresses.status().message();
    for (const addrinfo* a = addresses.ok() ? addresses->get() : nullptr; a != nullptr; a = a->ai_next) {
      Socket socket(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const int on = 1;
      ::setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      int error = ::connect(socket.fd(), a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
      if (error == EINPROGRESS && Wait(socket.fd(), POLLOUT, deadline)) {
        socklen_t length = sizeof error;
        ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
      }
      if (error == 0) return std::unique_ptr<Meeting>(new Visitor(std::move(socket), place, rank, size, deadline));
      reason = std::strerror(error);
    }
    if (Now() >= deadline)
      return Status(Code::kDeadlineExceeded, "rank 0 did not answer at " + Text(place) + " in time: " + reason);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace ganglion::collective
