// For tests and fuzz targets: a client that sends whatever bytes it is told, and reads what comes back as HTTP answers.
// Every wait ends, at the latest, after its patience.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ganglion::net {

struct RawAnswer {
  int status = 0;
  std::string head;                            // status line and fields as they came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

class RawClient {
 public:
  static constexpr std::chrono::milliseconds kPatience{20'000};

  static RawClient Tcp(int port) {
    RawClient c(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c.connected_ = ::connect(c.fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
    return c;
  }
  static RawClient Unix(const std::string& path) {
    RawClient c(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    path.copy(to.sun_path, sizeof to.sun_path - 1);
    c.connected_ = ::connect(c.fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
    return c;
  }
  RawClient(RawClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_), bytes_(std::move(other.bytes_)) {}
  RawClient& operator=(RawClient&&) = delete;
  ~RawClient() { Close(); }

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  void Close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  // False when the other end has gone.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  void HalfClose() { ::shutdown(fd_, SHUT_WR); }

  // The next answer; nothing when the connection ended before it was whole, or it is no HTTP answer, or it took too
  // long. An answer to HEAD has no body, whatever its Content-Length says.
  std::optional<RawAnswer> Read(bool of_head = false, std::chrono::milliseconds patience = kPatience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    std::size_t head = 0;
    while ((head = bytes_.find("\r\n\r\n")) == std::string::npos) {
      if (!More(end)) return {};
    }
    RawAnswer a;
    a.head = bytes_.substr(0, head + 2);
    if (a.head.compare(0, 9, "HTTP/1.1 ") != 0 || a.head.size() < 14) return {};
    a.status = std::atoi(a.head.c_str() + 9);
    for (std::size_t at = a.head.find("\r\n") + 2; at < a.head.size();) {
      const std::size_t line_end = a.head.find("\r\n", at);
      const std::string line = a.head.substr(at, line_end - at);
      const auto colon = line.find(": ");
      if (colon == std::string::npos) return {};
      std::string name = line.substr(0, colon);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (!a.headers.emplace(name, line.substr(colon + 2)).second) return {};
      at = line_end + 2;
    }
    std::size_t body = 0;
    if (!of_head && a.status != 100) {
      if (a.headers.count("content-length") == 0) return {};
      body = std::strtoull(a.headers["content-length"].c_str(), nullptr, 10);
    }
    while (bytes_.size() < head + 4 + body) {
      if (!More(end)) return {};
    }
    a.body = bytes_.substr(head + 4, body);
    bytes_.erase(0, head + 4 + body);
    return a;
  }
  // Whether the server ends the connection and nothing more came before that.
  bool Ends(std::chrono::milliseconds patience = kPatience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (bytes_.empty() && More(end)) {
    }
    return bytes_.empty() && ended_;
  }
  // Everything until the server ends the connection; nothing when it does not in time.
  std::optional<std::string> ReadToEnd(std::chrono::milliseconds patience = kPatience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (More(end)) {
    }
    if (!ended_) return {};
    return std::move(bytes_);
  }

 private:
  explicit RawClient(int fd) : fd_(fd) {}

  // Waits for more bytes. False: none until `end`, or the connection ended.
  bool More(std::chrono::steady_clock::time_point end) {
    char block[16 << 10];
    while (!ended_) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
      pollfd p{fd_, POLLIN, 0};
      const int ready = ::poll(&p, 1, static_cast<int>(std::max<long>(0, left)));
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0) return false;
      const auto n = ::recv(fd_, block, sizeof block, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        ended_ = true;
        return false;
      }
      bytes_.append(block, static_cast<std::size_t>(n));
      return true;
    }
    return false;
  }

  int fd_;
  bool connected_ = false;
  bool ended_ = false;
  std::string bytes_;
};

}  // namespace ganglion::net
