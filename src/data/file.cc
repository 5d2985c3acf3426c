#include "data/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

namespace ganglion::data {
namespace {

std::atomic<unsigned> next_temporary = 0;

std::string Reason(int error) { return std::strerror(error); }

}  // namespace

Result<std::string> ReadFile(const std::filesystem::path& path, std::size_t limit) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return InvalidArgument(path.string() + " is a directory, want a file");
  errno = 0;
  const gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) {
    const int error = errno;
    return Status(error == ENOENT ? Code::kNotFound : Code::kUnavailable,
                  "cannot read " + path.string() + ": " + Reason(error != 0 ? error : ENOMEM));
  }
  gzbuffer(file, 1 << 17);
  std::string bytes;
  constexpr std::size_t kChunk = 1 << 20;
  for (;;) {
    const std::size_t have = bytes.size();
    bytes.resize(have + kChunk);
    const int n = gzread(file, bytes.data() + have, kChunk);
    if (n < 0) {
      int code = 0;
      const std::string why = gzerror(file, &code);
      gzclose_r(file);
      return DataLoss("cannot read " + path.string() + ": " + (code == Z_ERRNO ? Reason(errno) : why));
    }
    bytes.resize(have + static_cast<std::size_t>(n));
    if (bytes.size() > limit) {
      gzclose_r(file);
      return ResourceExhausted(path.string() + " is larger than the limit of " + std::to_string(limit) + " bytes");
    }
    if (static_cast<std::size_t>(n) < kChunk) break;
  }
  if (gzclose_r(file) != Z_OK) return DataLoss("cannot read " + path.string() + ": the gzip stream is cut short");
  return bytes;
}

Status WriteFileAtomically(const std::filesystem::path& asked, std::string_view bytes) {
  // A link keeps pointing where it did: the file behind it is replaced.
  std::error_code none;
  const std::filesystem::path real = std::filesystem::canonical(asked, none);
  const std::filesystem::path path = none ? asked : real;
  if (path.has_parent_path()) RETURN_IF_ERROR(MakeDirectories(path.parent_path()));
  const auto write_all = [&](int fd) {
    for (std::size_t at = 0; at < bytes.size();) {
      const ssize_t n = ::write(fd, bytes.data() + at, bytes.size() - at);
      if (n < 0 && errno != EINTR) return errno;
      if (n > 0) at += static_cast<std::size_t>(n);
    }
    return 0;
  };
  // A device or a pipe is written to, not replaced.
  if (std::filesystem::exists(path, none) && !std::filesystem::is_regular_file(path, none)) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : write_all(fd);
    if (fd >= 0 && ::close(fd) != 0 && error == 0) error = errno;
    return error == 0 ? Status() : Unavailable("cannot write " + path.string() + ": " + Reason(error));
  }
  std::string temporary;
  int fd = -1;
  for (int attempt = 0; attempt < 100 && fd < 0; ++attempt) {
    temporary = path.string() + "." + std::to_string(::getpid()) + "." + std::to_string(next_temporary++);
    fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);  // the umask has its say
    if (fd < 0 && errno != EEXIST) break;
  }
  if (fd < 0) return Unavailable("cannot write beside " + path.string() + ": " + Reason(errno));
  int error = write_all(fd);
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    return Status(error == ENOSPC || error == EDQUOT || error == EFBIG ? Code::kResourceExhausted : Code::kUnavailable,
                  "cannot write " + path.string() + ": " + Reason(error) + "; what was there before is unchanged");
  }
  // The rename itself must survive a power cut; where the folder cannot be opened the file is still whole.
  const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
  if (const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
  return {};
}

Status MakeDirectories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Unavailable("cannot make directory " + path.string() + ": " + error.message());
  return {};
}

}  // namespace ganglion::data
