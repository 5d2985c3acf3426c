#include "load.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>

#include "base/random.h"

namespace ganglion::bench {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

struct UnderWay {
  std::size_t shot;
  TimePoint intended;
  TimePoint sent;
};

struct Connection {
  int fd = -1;
  bool writable = true;  // false: the socket is full, wait for EPOLLOUT
  std::string out;
  std::size_t written = 0;
  std::string in;  // received, not looked at yet, from `read` on
  std::size_t read = 0;
  std::deque<UnderWay> under_way;
  bool listed = false;  // among those that can take a request
  TimePoint retry_at{};
};

int Connect(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int yes = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

// The length of a whole answer at the start of `text`: status, where the body begins, where it ends. Nothing: more has
// to come.
struct Parsed {
  int status;
  std::size_t body;
  std::size_t end;
};
std::optional<Parsed> ParseAnswer(std::string_view text) {
  const std::size_t head = text.find("\r\n\r\n");
  if (head == std::string_view::npos) return std::nullopt;
  Parsed p{0, head + 4, head + 4};
  if (text.size() > 12) std::from_chars(text.data() + 9, text.data() + 12, p.status);
  constexpr std::string_view kLength = "Content-Length: ";
  const std::size_t at = text.substr(0, head).find(kLength);
  if (at != std::string_view::npos) {
    std::size_t n = 0;
    std::from_chars(text.data() + at + kLength.size(), text.data() + head, n);
    p.end += n;
  }
  if (text.size() < p.end) return std::nullopt;
  return p;
}

class Run {
 public:
  explicit Run(const LoadOptions& options)
      : o_(options), random_(options.seed), stamp_(static_cast<std::uint32_t>(options.seed) << 20) {}
  ~Run() {
    for (auto& c : connections_) {
      if (c.fd >= 0) ::close(c.fd);
    }
    if (epoll_ >= 0) ::close(epoll_);
  }

  Result<LoadResult> Go() {
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    connections_.resize(static_cast<std::size_t>(o_.connections));
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (!Open(i)) return Unavailable(fmt::format("no connection to port {}: {}", o_.port, std::strerror(errno)));
    }
    const TimePoint begin = Now();
    const TimePoint end = o_.lasts == Duration::max() ? TimePoint::max() : begin + o_.lasts;
    next_ = begin;
    std::array<epoll_event, 256> events;
    TimePoint last_sent = begin;
    while (true) {
      TimePoint now = Now();
      const bool sending = now < end && result_.sent + backlog_.size() < o_.count;
      if (sending) {
        Fill(now, end);
        last_sent = now;
      } else {
        if (under_way_ == 0 && backlog_.empty()) break;
        if (now - last_sent > o_.patience) break;
        Drain(now);
      }
      Reopen(now);
      // Open loop: until the next intended time; with requests that found no connection, until one is free.
      Duration wait = std::chrono::milliseconds(20);
      if (sending && o_.rate_per_s > 0) wait = std::min(wait, next_ - Now());
      if (wait < Duration::zero()) wait = Duration::zero();
      timespec t{0, static_cast<long>(wait.count())};
      const int n = ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &t, nullptr);
      now = Now();
      for (int i = 0; i < n; ++i) OnEvent(events[static_cast<std::size_t>(i)], now);
    }
    for (auto& c : connections_) {
      for (const auto& u : c.under_way) Missing(u, &result_.hung);
    }
    for (const auto& b : backlog_) {
      ++result_.sent;  // it should have been
      Missing({b.shot, b.intended, b.intended}, &result_.hung);
    }
    result_.took = std::min(Now(), std::max(end, begin)) - begin;
    return result_;
  }

 private:
  struct Intended {
    std::size_t shot;
    TimePoint intended;
  };

  bool Open(std::size_t i) {
    Connection& c = connections_[i];
    c.fd = Connect(o_.port);
    if (c.fd < 0) {
      c.retry_at = Now() + std::chrono::milliseconds(50);
      return false;
    }
    c.out.clear();
    c.written = c.read = 0;
    c.in.clear();
    c.writable = true;
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.u64 = i;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &e);
    List(i);
    return true;
  }
  void Reopen(TimePoint now) {
    if (broken_ == 0) return;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (connections_[i].fd < 0 && now >= connections_[i].retry_at && Open(i)) --broken_;
    }
  }
  void List(std::size_t i) {
    Connection& c = connections_[i];
    if (c.listed || c.fd < 0 || !c.writable || c.under_way.size() >= static_cast<std::size_t>(o_.depth)) return;
    c.listed = true;
    free_.push_back(i);
  }

  std::size_t Draw() { return o_.shots.size() == 1 ? 0 : static_cast<std::size_t>(random_.Below(o_.shots.size())); }

  void Fill(TimePoint now, TimePoint end) {
    if (o_.rate_per_s > 0) {
      while (next_ <= now && next_ < end && result_.sent + backlog_.size() < o_.count) {
        backlog_.push_back({Draw(), next_});
        const double gap = 1e9 / o_.rate_per_s * (o_.poisson ? -std::log(1 - random_.Uniform()) : 1);
        next_ += Duration(static_cast<std::int64_t>(gap));
      }
      return Drain(now);
    }
    while (!free_.empty() && result_.sent < o_.count) SendOn(Take(), {Draw(), now}, now);
    Flush();
  }
  void Drain(TimePoint now) {
    while (!backlog_.empty() && !free_.empty()) {
      if (now - backlog_.front().intended > std::chrono::milliseconds(1)) ++result_.late_sends;
      SendOn(Take(), backlog_.front(), now);
      backlog_.pop_front();
    }
    Flush();
  }
  std::size_t Take() {
    const std::size_t i = free_.back();
    free_.pop_back();
    connections_[i].listed = false;
    return i;
  }

  void SendOn(std::size_t i, const Intended& what, TimePoint now) {
    Connection& c = connections_[i];
    if (c.fd < 0) {  // broke while it was listed
      backlog_.push_back(what);
      return;
    }
    const Shot& shot = o_.shots[what.shot];
    const std::size_t at = c.out.size();
    c.out.append(shot.bytes);
    if (shot.stamp) {
      const std::uint32_t bits = 0x3f000000u + (stamp_++ & 0xffffffu);  // the floats from .5 to 2, one after the other
      std::memcpy(c.out.data() + at + *shot.stamp, &bits, sizeof bits);
    }
    c.under_way.push_back({what.shot, what.intended, now});
    ++under_way_;
    ++result_.sent;
    if (!c.listed && c.under_way.size() < static_cast<std::size_t>(o_.depth)) {
      List(i);
    }
    unflushed_.push_back(i);
  }
  void Flush() {
    for (const std::size_t i : unflushed_) Write(i);
    unflushed_.clear();
  }
  void Write(std::size_t i) {
    Connection& c = connections_[i];
    if (c.fd < 0 || c.written == c.out.size()) return;
    const ssize_t n = ::send(c.fd, c.out.data() + c.written, c.out.size() - c.written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) return Broke(i);
    if (n > 0) c.written += static_cast<std::size_t>(n);
    const bool whole = c.written == c.out.size();
    if (whole) {
      c.out.clear();
      c.written = 0;
    }
    if (whole != c.writable) {
      c.writable = whole;
      epoll_event e{};
      e.events = whole ? EPOLLIN : EPOLLIN | EPOLLOUT;
      e.data.u64 = i;
      ::epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &e);
      if (whole) List(i);
    }
  }

  void OnEvent(const epoll_event& event, TimePoint now) {
    const std::size_t i = event.data.u64;
    Connection& c = connections_[i];
    if (c.fd < 0) return;
    if ((event.events & EPOLLOUT) != 0) Write(i);
    if (c.fd < 0 || (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    std::array<char, 64 << 10> block;
    const ssize_t n = ::recv(c.fd, block.data(), block.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return Broke(i);
    std::string_view text(block.data(), static_cast<std::size_t>(n));
    if (!c.in.empty()) {
      c.in.append(text);
      text = c.in;
    }
    std::size_t used = 0;
    bool close = false;
    while (!c.under_way.empty()) {
      const auto parsed = ParseAnswer(text.substr(used));
      if (!parsed) break;
      const UnderWay u = c.under_way.front();
      c.under_way.pop_front();
      --under_way_;
      ++result_.answered;
      Reply reply;
      reply.shot = u.shot;
      reply.status = parsed->status;
      reply.head = text.substr(used, parsed->body);
      reply.body = text.substr(used + parsed->body, parsed->end - parsed->body);
      reply.intended = u.intended;
      reply.sent = u.sent;
      reply.received = now;
      close |= reply.head.find("Connection: close") != std::string_view::npos;
      if (o_.on_reply) o_.on_reply(reply);
      used += parsed->end;
    }
    if (close) return Broke(i);
    if (used == text.size()) {
      c.in.clear();
    } else {
      c.in = std::string(text.substr(used));
    }
    List(i);
  }

  void Broke(std::size_t i) {
    Connection& c = connections_[i];
    ::close(c.fd);
    c.fd = -1;
    c.retry_at = Now() + std::chrono::milliseconds(10);
    ++broken_;
    for (const auto& u : c.under_way) Missing(u, &result_.lost);
    under_way_ -= c.under_way.size();
    c.under_way.clear();
    if (c.listed) {
      c.listed = false;
      free_.erase(std::find(free_.begin(), free_.end(), i));
    }
  }
  void Missing(const UnderWay& u, std::uint64_t* count) {
    ++*count;
    Reply reply;
    reply.shot = u.shot;
    reply.intended = u.intended;
    reply.sent = u.sent;
    reply.received = Now();
    if (o_.on_reply) o_.on_reply(reply);
  }

  const LoadOptions& o_;
  Random random_;
  std::uint32_t stamp_;
  int epoll_ = -1;
  std::vector<Connection> connections_;
  std::vector<std::size_t> free_;  // last in, first out: the fewest connections stay busy
  std::vector<std::size_t> unflushed_;
  std::deque<Intended> backlog_;
  TimePoint next_{};
  std::size_t under_way_ = 0;
  std::size_t broken_ = 0;
  LoadResult result_;
};

}  // namespace

Shot Post(const std::string& target, const std::string& body, std::optional<std::size_t> json_bytes) {
  std::string head = fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", target, body.size());
  if (json_bytes) head += fmt::format("Inference-Header-Content-Length: {}\r\n", *json_bytes);
  return {head + "\r\n" + body, std::nullopt};
}

Shot InferShot(const Row& row) {
  std::string parameters = row.parameters;
  if (row.binary_answer) parameters += std::string(parameters.empty() ? "" : ",") + R"("binary_data_output":true)";
  std::string body = fmt::format(
      R"({{"inputs":[{{"name":"{}","shape":[1,{}],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}]{}}})",
      row.input, row.values.size(), row.values.size() * sizeof(float),
      parameters.empty() ? "" : fmt::format(R"(,"parameters":{{{}}})", parameters));
  const std::size_t json_bytes = body.size();
  body.append(reinterpret_cast<const char*>(row.values.data()), row.values.size() * sizeof(float));
  Shot shot = Post("/v2/models/" + row.model + "/infer", body, json_bytes);
  if (row.unique) shot.stamp = shot.bytes.size() - row.values.size() * sizeof(float);
  return shot;
}

Result<LoadResult> RunLoad(const LoadOptions& options) { return Run(options).Go(); }

double Quantile(std::vector<double>* values, double q) {
  if (values->empty()) return 0;
  std::sort(values->begin(), values->end());
  const auto last = static_cast<double>(values->size() - 1);
  return (*values)[static_cast<std::size_t>(std::llround(q * last))];
}

}  // namespace ganglion::bench
