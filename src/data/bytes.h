// Bytes are a file that is read in places and never as a whole: what data larger than memory are read through.
//
//   OpenBytes     a plain file (read where asked) or a gzip file (read forward; going back starts again at its begin)
//   OpenZipEntry  one entry of a zip file, such as an array of an npz
// Not memory-mapped: a file that another program cuts short would end the process instead of giving an error.
// Errors name the path. One thread at a time. Cost: a system call a read for plain files; gzip and deflated entries
// are read at 200-400 MB/s, and a step back costs all that lies before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::data {

class Bytes {
 public:
  virtual ~Bytes() = default;
  // Fills `out` from `offset` on and returns how many bytes there were: fewer only at the end of the file.
  virtual Result<std::size_t> Read(std::int64_t offset, std::span<std::byte> out) = 0;
  // The size, where it is known without reading everything; else -1.
  virtual std::int64_t size() const = 0;
  // Whether going back is dear.
  virtual bool sequential() const = 0;
  const std::string& path() const { return path_; }

  // Read, and refuse an end before `out` is full.
  Status ReadAll(std::int64_t offset, std::span<std::byte> out);

 protected:
  explicit Bytes(std::string path) : path_(std::move(path)) {}

 private:
  std::string path_;
};

Result<std::unique_ptr<Bytes>> OpenBytes(const std::filesystem::path& path);
// `name` is the entry's.
Result<std::unique_ptr<Bytes>> OpenZipEntry(const std::filesystem::path& path, const std::string& name);
// The names of the entries of a zip file.
Result<std::vector<std::string>> ZipEntries(const std::filesystem::path& path);

// Lines of Bytes, from an offset on, without their line ends. Refuses a line longer than limits::kMaxLineBytes.
class Lines {
 public:
  explicit Lines(Bytes& bytes, std::int64_t offset = 0) : bytes_(bytes), offset_(offset) {}
  // The next line, or false at the end. The view holds until the next call.
  Result<bool> Next(std::string_view* line);
  // Where the line after the last one begins.
  std::int64_t offset() const { return offset_; }

 private:
  Bytes& bytes_;
  std::int64_t offset_;
  std::string buffer_;
  std::size_t at_ = 0;
  bool end_ = false;
};

// SHA-256 over the size and the bytes of a file; of files beyond 256 MB over 256 pieces of 64 KB, evenly spread, so
// that naming a large file takes no longer than a moment. A change between the pieces that keeps the size is not seen.
Result<std::string> FileFingerprint(const std::filesystem::path& path);

}  // namespace ganglion::data
