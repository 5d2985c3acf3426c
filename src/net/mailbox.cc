#include "net/mailbox.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <thread>

namespace ganglion::net {
namespace {

constexpr std::uint32_t kMagic = 0x6c676e31;
constexpr std::uint64_t kAllJson = ~std::uint64_t{0};
constexpr std::size_t kMaxTarget = 2048;
constexpr Duration kClientSpin = std::chrono::microseconds(100);

// The memory's head. Each side writes its own half; a sequence is raised after everything that it announces.
struct alignas(64) Half {
  std::atomic<std::uint32_t> sequence{0};
  std::atomic<std::uint32_t> sleeping{0};  // whether the other side sleeps on our sequence
  std::uint32_t status = 0;                // of replies
  std::uint32_t target_bytes = 0;          // of requests: the method, a space and the target lie before the body
  std::uint64_t json_bytes = kAllJson;
  std::uint64_t body_bytes = 0;
};
struct Head {
  std::uint32_t magic = kMagic;
  std::uint64_t capacity = 0;
  Half request;
  Half reply;
};
constexpr std::size_t kHeadBytes = 4096;
static_assert(sizeof(Head) <= kHeadBytes);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

std::size_t AreaBytes(std::size_t capacity) { return capacity + kMaxTarget + kBodyPadding; }
std::size_t TotalBytes(std::size_t capacity) { return kHeadBytes + 2 * AreaBytes(capacity); }

void Wake(std::atomic<std::uint32_t>* word) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
}
void SleepOn(std::atomic<std::uint32_t>* word, std::uint32_t while_equal, Duration at_most) {
  timespec t{};
  t.tv_sec = static_cast<time_t>(at_most.count() / 1'000'000'000);
  t.tv_nsec = static_cast<long>(at_most.count() % 1'000'000'000);
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(word), FUTEX_WAIT, while_equal, &t, nullptr, 0);
}

void Announce(Half* half, std::uint32_t sequence) {
  half->sequence.store(sequence, std::memory_order_seq_cst);
  if (half->sleeping.load(std::memory_order_seq_cst) != 0) Wake(&half->sequence);
}

// Waits until the half's sequence is no longer `seen`: watches for `spin`, then sleeps. False: `until` or `stop` came.
template <typename Stop>
bool Await(Half* half, std::uint32_t seen, Duration spin, TimePoint until, Stop stop) {
  const TimePoint begin = std::chrono::steady_clock::now();
  TimePoint now = begin;
  while (now - begin < spin) {
    for (int i = 0; i < 64; ++i) {
      if (half->sequence.load(std::memory_order_acquire) != seen) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    // Both ends may be on one core, where watching keeps the other from answering.
    std::this_thread::yield();
    now = std::chrono::steady_clock::now();
  }
  while (half->sequence.load(std::memory_order_acquire) == seen) {
    now = std::chrono::steady_clock::now();
    if (now >= until || stop()) return false;
    half->sleeping.store(1, std::memory_order_seq_cst);
    if (half->sequence.load(std::memory_order_seq_cst) == seen)
      SleepOn(&half->sequence, seen, std::min<Duration>(until - now, std::chrono::milliseconds(100)));
    half->sleeping.store(0, std::memory_order_relaxed);
  }
  return true;
}

bool HungUp(int socket) {
  pollfd p{socket, POLLIN | POLLRDHUP, 0};
  return ::poll(&p, 1, 0) > 0;  // nothing is ever sent after the descriptor: anything means the end
}

Result<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() > 100)
    return InvalidArgument("mailbox path of " + std::to_string(path.size()) + " characters, limit 100");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Status Errno(const std::string& what) { return Unavailable(what + ": " + std::strerror(errno)); }

// Both ends map it.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  ~Memory() {
    if (data_ != nullptr) ::munmap(data_, size_);
    if (fd_ >= 0) ::close(fd_);
  }
  Status Make(std::size_t capacity) {
    fd_ = ::memfd_create("ganglion-mailbox", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(TotalBytes(capacity))) != 0 ||
        ::fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
      return Errno("mailbox memory");
    RETURN_IF_ERROR(Map(fd_, TotalBytes(capacity)));
    new (data_) Head;
    head()->capacity = capacity_ = capacity;
    return {};
  }
  Status Take(int fd) {
    fd_ = fd;
    struct stat info {};
    if (::fstat(fd_, &info) != 0 || static_cast<std::size_t>(info.st_size) < kHeadBytes)
      return DataLoss("the mailbox's memory is too small");
    const auto size = static_cast<std::size_t>(info.st_size);
    RETURN_IF_ERROR(Map(fd_, size));
    capacity_ = static_cast<std::size_t>(head()->capacity);
    if (head()->magic != kMagic || capacity_ > size || TotalBytes(capacity_) != size)
      return DataLoss("the mailbox's memory is not as expected");
    return {};
  }
  Head* head() const { return reinterpret_cast<Head*>(data_); }
  char* request() const { return data_ + kHeadBytes; }
  char* reply() const { return data_ + kHeadBytes + AreaBytes(capacity_); }
  std::size_t capacity() const { return capacity_; }
  int fd() const { return fd_; }

 private:
  Status Map(int fd, std::size_t size) {
    void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return Errno("mailbox memory");
    data_ = static_cast<char*>(p);
    size_ = size;
    return {};
  }
  int fd_ = -1;
  char* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// One client at the server.
class Channel final : public HttpAnswerer, public std::enable_shared_from_this<Channel> {
 public:
  Channel(int socket, const MailboxOptions& options, const HttpHandler* handler)
      : socket_(socket), options_(options), handler_(handler) {}
  ~Channel() override { ::close(socket_); }

  Status Open() {
    RETURN_IF_ERROR(memory_.Make(options_.capacity));
    char byte = 1;
    iovec io{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = memory_.fd();
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return ::sendmsg(socket_, &message, MSG_NOSIGNAL) == 1 ? Status() : Errno("mailbox");
  }

  void Run(const std::atomic<bool>& stopping) {
    Head* head = memory_.head();
    std::uint32_t seen = 0;
    while (true) {
      const bool came = Await(&head->request, seen, seen == 0 ? Duration::zero() : options_.spin,
                              TimePoint::max() - std::chrono::hours(1),
                              [&] { return stopping.load(std::memory_order_relaxed) || HungUp(socket_); });
      if (!came) return;
      seen = head->request.sequence.load(std::memory_order_acquire);
      Handle(seen);
      // The next request may come only after the reply; until then this thread has nothing to watch.
      std::unique_lock lock(mutex_);
      while (!answered_) {
        if (stopping.load(std::memory_order_relaxed) || HungUp(socket_)) return;
        answered_now_.wait_for(lock, std::chrono::milliseconds(100));
      }
    }
  }

  // Any thread.
  void Send(HttpResponse response) override {
    Head* head = memory_.head();
    std::uint64_t json_bytes = kAllJson;
    for (const auto& [name, value] : response.headers) {
      if (name == "Inference-Header-Content-Length") json_bytes = std::strtoull(value.c_str(), nullptr, 10);
    }
    if (response.body.size() > memory_.capacity()) {
      response.status = 413;
      response.body = R"({"error":"the answer does not fit the mailbox; ask over HTTP"})";
      json_bytes = kAllJson;
    }
    std::memcpy(memory_.reply(), response.body.data(), response.body.size());
    head->reply.status = static_cast<std::uint32_t>(response.status);
    head->reply.json_bytes = json_bytes;
    head->reply.body_bytes = response.body.size();
    Announce(&head->reply, sequence_);
    std::lock_guard lock(mutex_);
    answered_ = true;
    answered_now_.notify_one();
  }

 private:
  static std::string_view FindHeader(const void* source, std::string_view name) {
    constexpr std::string_view kHeader = "inference-header-content-length";
    const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
    const auto& channel = *static_cast<const Channel*>(source);
    if (!std::equal(name.begin(), name.end(), kHeader.begin(), kHeader.end(), same)) return {};
    return channel.json_header_;
  }

  void Handle(std::uint32_t sequence) {
    sequence_ = sequence;
    {
      std::lock_guard lock(mutex_);
      answered_ = false;
    }
    HttpReply reply(shared_from_this());
    const Half& half = memory_.head()->request;
    // Once, into our own: the client may change it at any time.
    const std::size_t target_bytes = *const_cast<const volatile std::uint32_t*>(&half.target_bytes);
    const std::size_t body_bytes =
        static_cast<std::size_t>(*const_cast<const volatile std::uint64_t*>(&half.body_bytes));
    const std::uint64_t json_bytes = *const_cast<const volatile std::uint64_t*>(&half.json_bytes);
    if (target_bytes > kMaxTarget || body_bytes > memory_.capacity())
      return reply.Send(
          {413, R"({"error":"the request does not fit the mailbox; send it over HTTP"})", "application/json", {}});
    line_.assign(memory_.request(), target_bytes);
    body_.clear();
    body_.reserve(body_bytes + kBodyPadding);
    body_.assign(memory_.request() + kMaxTarget, body_bytes);
    json_header_ = json_bytes == kAllJson ? std::string() : std::to_string(json_bytes);
    const auto space = line_.find(' ');
    if (space == std::string::npos)
      return reply.Send({400, R"({"error":"no method and target"})", "application/json", {}});
    HttpRequest request;
    request.method = std::string_view(line_).substr(0, space);
    request.target = std::string_view(line_).substr(space + 1);
    request.body = body_;
    request.front = Front::kUnix;
    request.received = std::chrono::steady_clock::now();
    request.header_ = &FindHeader;
    request.source_ = this;
    (*handler_)(request, std::move(reply));
  }

  int socket_;
  const MailboxOptions& options_;
  const HttpHandler* handler_;
  Memory memory_;
  std::uint32_t sequence_ = 0;
  std::string line_;
  std::string body_;
  std::string json_header_;
  std::mutex mutex_;
  std::condition_variable answered_now_;
  bool answered_ = true;
};

}  // namespace

struct MailboxServer::Impl {
  MailboxOptions options;
  HttpHandler handler;
  int listener = -1;
  std::atomic<bool> stopping{false};
  std::atomic<int> open{0};
  struct Served {
    std::thread thread;
    std::atomic<bool> over{false};
  };
  std::list<Served> served;  // of the accepting thread
  std::thread accepting;

  void Accept() {
    while (!stopping) {
      pollfd p{listener, POLLIN, 0};
      const bool ready = ::poll(&p, 1, 100) > 0;
      for (auto it = served.begin(); it != served.end();) {
        if (!it->over) {
          ++it;
          continue;
        }
        it->thread.join();
        it = served.erase(it);
      }
      if (!ready) continue;
      const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) continue;
      if (served.size() >= static_cast<std::size_t>(kMaxMailboxes)) {
        ::close(socket);
        continue;
      }
      auto channel = std::make_shared<Channel>(socket, options, &handler);
      if (!channel->Open().ok()) continue;
      served.emplace_back();
      Served& s = served.back();
      ++open;
      s.thread = std::thread([this, &s, channel]() mutable {
        channel->Run(stopping);
        channel.reset();
        --open;
        s.over = true;
      });
    }
    for (Served& s : served) s.thread.join();
  }
};

MailboxServer::MailboxServer() : impl_(std::make_unique<Impl>()) {}

Result<std::unique_ptr<MailboxServer>> MailboxServer::Start(const MailboxOptions& options, HttpHandler handler) {
  std::unique_ptr<MailboxServer> server(new MailboxServer);
  Impl& s = *server->impl_;
  s.options = options;
  s.handler = std::move(handler);
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(options.path));
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool taken = ::connect(probe, generic, sizeof address) == 0;
  ::close(probe);
  if (taken) return Unavailable("cannot listen on " + options.path + ": another process does");
  struct stat info {};
  if (::lstat(options.path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(options.path.c_str());
  s.listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s.listener < 0 || ::bind(s.listener, generic, sizeof address) != 0 || ::listen(s.listener, kMaxMailboxes) != 0)
    return Errno("cannot listen on " + options.path);
  s.accepting = std::thread([&s] { s.Accept(); });
  return server;
}

MailboxServer::~MailboxServer() {
  impl_->stopping = true;
  if (impl_->accepting.joinable()) {
    impl_->accepting.join();
    ::unlink(impl_->options.path.c_str());
  }
  if (impl_->listener >= 0) ::close(impl_->listener);
}

std::size_t MailboxServer::open() const { return static_cast<std::size_t>(impl_->open.load()); }

struct MailboxClient::Impl {
  int socket = -1;
  Memory memory;
  std::uint32_t sequence = 0;
  ~Impl() {
    if (socket >= 0) ::close(socket);
  }
};

MailboxClient::MailboxClient() : impl_(std::make_unique<Impl>()) {}
MailboxClient::~MailboxClient() = default;

Result<std::unique_ptr<MailboxClient>> MailboxClient::Connect(const std::string& path) {
  std::unique_ptr<MailboxClient> client(new MailboxClient);
  Impl& c = *client->impl_;
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  c.socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c.socket < 0 || ::connect(c.socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return Errno(path);
  pollfd p{c.socket, POLLIN, 0};
  if (::poll(&p, 1, 5000) <= 0) return Status(Code::kDeadlineExceeded, path + " did not open a mailbox within 5 s");
  char byte = 0;
  iovec io{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(c.socket, &message, MSG_CMSG_CLOEXEC) != 1)
    return Unavailable(path + ": no mailbox is free, limit " + std::to_string(kMaxMailboxes));
  const cmsghdr* h = CMSG_FIRSTHDR(&message);
  if (h == nullptr || h->cmsg_type != SCM_RIGHTS) return DataLoss(path + " is no mailbox");
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(h), sizeof fd);
  RETURN_IF_ERROR(c.memory.Take(fd));
  return client;
}

Result<MailboxClient::Answer> MailboxClient::Ask(std::string_view method, std::string_view target,
                                                 std::string_view body, std::optional<std::size_t> json_bytes,
                                                 Duration patience) {
  Impl& c = *impl_;
  Head* head = c.memory.head();
  if (body.size() > c.memory.capacity() || method.size() + 1 + target.size() > kMaxTarget)
    return InvalidArgument("request of " + std::to_string(body.size()) + " bytes, the mailbox takes " +
                           std::to_string(c.memory.capacity()));
  char* to = c.memory.request();
  std::memcpy(to, method.data(), method.size());
  to[method.size()] = ' ';
  std::memcpy(to + method.size() + 1, target.data(), target.size());
  std::memcpy(to + kMaxTarget, body.data(), body.size());
  head->request.target_bytes = static_cast<std::uint32_t>(method.size() + 1 + target.size());
  head->request.body_bytes = body.size();
  head->request.json_bytes = json_bytes ? *json_bytes : kAllJson;
  const std::uint32_t before = c.sequence++;
  Announce(&head->request, c.sequence);
  const TimePoint until = std::chrono::steady_clock::now() + patience;
  bool gone = false;
  if (!Await(&head->reply, before, kClientSpin, until, [&] { return gone = HungUp(c.socket); })) {
    if (gone) return Unavailable("the node closed the mailbox");
    return Status(Code::kDeadlineExceeded, "no answer within " + std::to_string(Milliseconds(patience)) + " ms");
  }
  Answer answer;
  answer.status = static_cast<int>(head->reply.status);
  const std::uint64_t bytes = head->reply.body_bytes;
  if (bytes > c.memory.capacity())
    return DataLoss("an answer of " + std::to_string(bytes) + " bytes does not fit the mailbox");
  answer.body = {c.memory.reply(), static_cast<std::size_t>(bytes)};
  if (head->reply.json_bytes != kAllJson) answer.json_bytes = static_cast<std::size_t>(head->reply.json_bytes);
  return answer;
}

}  // namespace ganglion::net
