#include "learning/lines.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace ganglion::learning {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
constexpr std::size_t kShownOfLongLine = 200;

}  // namespace

Result<LineReader> LineReader::Open(const std::string& path, std::size_t max_line_bytes) {
  LineReader r;
  r.path_ = path == "-" ? "standard input" : path;
  r.max_line_ = max_line_bytes;
  r.fd_ = path == "-" ? dup(0) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (r.fd_ < 0) {
    const Code code = errno == ENOENT ? Code::kNotFound : Code::kUnavailable;
    return Status(code, r.path_ + " cannot be opened: " + std::strerror(errno));
  }
  struct stat info {};
  if (fstat(r.fd_, &info) == 0 && S_ISDIR(info.st_mode))
    return InvalidArgument(r.path_ + " is a folder; name a file, or - for standard input");
  r.waits_ = !S_ISREG(info.st_mode);
  r.buffer_.resize(std::min(kBufferBytes, max_line_bytes + 1));
  return r;
}

LineReader::LineReader(LineReader&& o) noexcept
    : path_(std::move(o.path_)),
      fd_(std::exchange(o.fd_, -1)),
      waits_(o.waits_),
      ended_(o.ended_),
      max_line_(o.max_line_),
      buffer_(std::move(o.buffer_)),
      begin_(o.begin_),
      end_(o.end_),
      lines_(o.lines_) {}

LineReader::~LineReader() {
  if (fd_ >= 0) close(fd_);
}

Result<bool> LineReader::Fill(const std::stop_token& stop) {
  if (ended_) return false;
  for (;;) {
    if (stop.stop_requested()) return Cancelled("stopped");
    if (waits_) {
      pollfd waiting{fd_, POLLIN, 0};
      const int ready = poll(&waiting, 1, 100);
      if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    }
    const ssize_t n = read(fd_, buffer_.data() + end_, buffer_.size() - end_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unavailable(path_ + " cannot be read: " + std::strerror(errno));
    ended_ = n == 0;
    end_ += static_cast<std::size_t>(n);
    return n > 0;
  }
}

Result<std::optional<Line>> LineReader::Next(const std::stop_token& stop) {
  std::size_t looked = begin_;
  for (;;) {
    const void* feed = looked < end_ ? std::memchr(buffer_.data() + looked, '\n', end_ - looked) : nullptr;
    if (feed != nullptr) {
      const auto at = static_cast<std::size_t>(static_cast<const char*>(feed) - buffer_.data());
      const Line line{{buffer_.data() + begin_, at - begin_}, ++lines_, at - begin_ > max_line_};
      begin_ = at + 1;
      return std::optional<Line>(line);
    }
    looked = end_;
    if (end_ - begin_ > max_line_) break;
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      looked -= begin_;
      end_ -= begin_;
      begin_ = 0;
    }
    if (end_ == buffer_.size()) buffer_.resize(std::min(2 * buffer_.size(), max_line_ + 1));
    ASSIGN_OR_RETURN(const bool more, Fill(stop));
    if (more) continue;
    if (begin_ == end_) return std::optional<Line>();
    const Line line{{buffer_.data() + begin_, end_ - begin_}, ++lines_, false};
    begin_ = end_;
    return std::optional<Line>(line);
  }
  // Too long: what it begins with is kept to be shown, the rest is passed over.
  const std::size_t shown = std::min(kShownOfLongLine, max_line_);
  std::memmove(buffer_.data(), buffer_.data() + begin_, shown);
  const Line line{{buffer_.data(), shown}, ++lines_, true};
  for (;;) {
    begin_ = end_ = shown;
    ASSIGN_OR_RETURN(const bool more, Fill(stop));
    if (!more) return std::optional<Line>(line);
    const void* feed = std::memchr(buffer_.data() + begin_, '\n', end_ - begin_);
    if (feed == nullptr) continue;
    begin_ = static_cast<std::size_t>(static_cast<const char*>(feed) - buffer_.data()) + 1;
    return std::optional<Line>(line);
  }
}

}  // namespace ganglion::learning
