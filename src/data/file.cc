#include "data/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace ganglion::data {
namespace {

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

Status WriteFileAtomically(const std::filesystem::path& path, std::string_view bytes) {
  if (path.has_parent_path()) RETURN_IF_ERROR(MakeDirectories(path.parent_path()));
  std::string temporary = path.string() + ".XXXXXX";
  const int fd = mkstemp(temporary.data());
  if (fd < 0) return Unavailable("cannot write beside " + path.string() + ": " + Reason(errno));
  int error = 0;
  for (std::size_t at = 0; at < bytes.size() && error == 0;) {
    const ssize_t n = ::write(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno != EINTR) error = errno;
    if (n > 0) at += static_cast<std::size_t>(n);
  }
  if (error == 0 && fchmod(fd, 0644) != 0) error = errno;
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    return Status(error == ENOSPC || error == EDQUOT || error == EFBIG ? Code::kResourceExhausted : Code::kUnavailable,
                  "cannot write " + path.string() + ": " + Reason(error) + "; what was there before is unchanged");
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
