#include "data/bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/limits.h"
#include "crypto/crypto.h"

namespace ganglion::data {
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 18;

Status CannotRead(const std::string& path, int error) {
  return Status(error == ENOENT ? Code::kNotFound : Code::kUnavailable,
                "cannot read " + path + ": " + std::strerror(error));
}

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), error_(errno) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  bool ok() const { return fd_ >= 0; }
  int error() const { return error_; }

  Result<std::int64_t> Size(const std::string& path) const {
    struct stat s {};
    if (::fstat(fd_, &s) != 0) return CannotRead(path, errno);
    if (S_ISDIR(s.st_mode)) return InvalidArgument(path + " is a directory, want a file");
    return static_cast<std::int64_t>(s.st_size);
  }
  Result<std::size_t> Read(const std::string& path, std::int64_t offset, std::span<std::byte> out) const {
    std::size_t have = 0;
    while (have < out.size()) {
      const ssize_t n = ::pread(fd_, out.data() + have, out.size() - have, offset + static_cast<std::int64_t>(have));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return CannotRead(path, errno);
      if (n == 0) break;
      have += static_cast<std::size_t>(n);
    }
    return have;
  }

 private:
  int fd_;
  int error_;
};

class PlainBytes final : public Bytes {
 public:
  explicit PlainBytes(const std::string& path) : Bytes(path), file_(path) {}
  Status Open() {
    if (!file_.ok()) return CannotRead(path(), file_.error());
    ASSIGN_OR_RETURN(size_, file_.Size(path()));
    return {};
  }
  Result<std::size_t> Read(std::int64_t offset, std::span<std::byte> out) override {
    return file_.Read(path(), offset, out);
  }
  std::int64_t size() const override { return size_; }
  bool sequential() const override { return false; }

 private:
  Descriptor file_;
  std::int64_t size_ = 0;
};

class GzipBytes final : public Bytes {
 public:
  explicit GzipBytes(const std::string& path) : Bytes(path), file_(gzopen(path.c_str(), "rb")) {
    if (file_ != nullptr) gzbuffer(file_, 1 << 17);
  }
  ~GzipBytes() override {
    if (file_ != nullptr) gzclose_r(file_);
  }
  GzipBytes(const GzipBytes&) = delete;
  GzipBytes& operator=(const GzipBytes&) = delete;

  Result<std::size_t> Read(std::int64_t offset, std::span<std::byte> out) override {
    if (file_ == nullptr) return CannotRead(path(), ENOMEM);
    if (at_ != offset) {
      // Seeking forward reads and throws away; where that ends early the read below says so.
      if (gzseek(file_, offset, SEEK_SET) < 0) {
        if (gzeof(file_) != 0) return std::size_t{0};
        return Damaged();
      }
      at_ = offset;
    }
    std::size_t have = 0;
    while (have < out.size()) {
      const auto want = static_cast<unsigned>(std::min(out.size() - have, kChunk));
      const int n = gzread(file_, out.data() + have, want);
      if (n < 0) return Damaged();
      have += static_cast<std::size_t>(n);
      at_ += n;
      if (static_cast<unsigned>(n) < want) {
        // zlib tells a stream that was cut short by an error, not by the count.
        int code = Z_OK;
        gzerror(file_, &code);
        if (code == Z_BUF_ERROR) return Damaged();
        break;
      }
    }
    return have;
  }
  std::int64_t size() const override { return -1; }
  bool sequential() const override { return true; }

 private:
  Status Damaged() {
    int code = Z_OK;
    const std::string why = gzerror(file_, &code);
    at_ = -1;
    gzclearerr(file_);
    return DataLoss("cannot read " + path() + ": " +
                    (code == Z_BUF_ERROR ? "the gzip stream is cut short"
                     : code == Z_ERRNO   ? std::strerror(errno)
                     : why.empty()       ? "the gzip stream is damaged"
                                         : why));
  }
  gzFile file_;
  std::int64_t at_ = 0;
};

class ZipBytes final : public Bytes {
 public:
  ZipBytes(const std::string& path, std::string name) : Bytes(path), name_(std::move(name)) {}
  ~ZipBytes() override {
    if (file_ != nullptr) zip_fclose(file_);
    if (archive_ != nullptr) zip_discard(archive_);
  }
  ZipBytes(const ZipBytes&) = delete;
  ZipBytes& operator=(const ZipBytes&) = delete;

  Status Open() {
    int code = 0;
    archive_ = zip_open(path().c_str(), ZIP_RDONLY, &code);
    if (archive_ == nullptr) return CannotOpen(code);
    zip_stat_t stat;
    if (zip_stat(archive_, name_.c_str(), 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0)
      return InvalidArgument(path() + " has no entry \"" + name_ + "\"");
    size_ = static_cast<std::int64_t>(stat.size);
    stored_ = (stat.valid & ZIP_STAT_COMP_METHOD) != 0 && stat.comp_method == ZIP_CM_STORE;
    return Reopen();
  }
  Status CannotOpen(int code) const {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    return Status(code == ZIP_ER_NOENT ? Code::kNotFound : Code::kInvalidArgument,
                  "cannot read " + path() + ": " + why);
  }

  Result<std::size_t> Read(std::int64_t offset, std::span<std::byte> out) override {
    if (offset != at_ && stored_ && zip_fseek(file_, offset, SEEK_SET) == 0) at_ = offset;
    if (offset < at_) RETURN_IF_ERROR(Reopen());
    std::vector<std::byte> skipped;
    while (at_ < offset) {
      skipped.resize(static_cast<std::size_t>(std::min<std::int64_t>(offset - at_, static_cast<std::int64_t>(kChunk))));
      const zip_int64_t n = zip_fread(file_, skipped.data(), skipped.size());
      if (n < 0) return Damaged();
      if (n == 0) return std::size_t{0};
      at_ += n;
    }
    std::size_t have = 0;
    while (have < out.size()) {
      const zip_int64_t n = zip_fread(file_, out.data() + have, out.size() - have);
      if (n < 0) return Damaged();
      if (n == 0) break;
      have += static_cast<std::size_t>(n);
      at_ += n;
    }
    return have;
  }
  std::int64_t size() const override { return size_; }
  bool sequential() const override { return !stored_; }

 private:
  Status Reopen() {
    if (file_ != nullptr) zip_fclose(file_);
    file_ = zip_fopen(archive_, name_.c_str(), 0);
    at_ = 0;
    if (file_ == nullptr)
      return InvalidArgument("cannot read " + path() + ": \"" + name_ + "\": " + zip_strerror(archive_));
    return {};
  }
  Status Damaged() const { return DataLoss("cannot read " + path() + ": \"" + name_ + "\" is damaged"); }

  std::string name_;
  zip_t* archive_ = nullptr;
  zip_file_t* file_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t at_ = 0;
  bool stored_ = false;
};

}  // namespace

Status Bytes::ReadAll(std::int64_t offset, std::span<std::byte> out) {
  ASSIGN_OR_RETURN(const std::size_t n, Read(offset, out));
  if (n == out.size()) return {};
  return InvalidArgument(path_ + " is cut short: " + std::to_string(out.size()) + " bytes are wanted from byte " +
                         std::to_string(offset) + " on, " + std::to_string(n) + " are there");
}

Result<std::unique_ptr<Bytes>> OpenBytes(const std::filesystem::path& path) {
  auto plain = std::make_unique<PlainBytes>(path.string());
  RETURN_IF_ERROR(plain->Open());
  std::byte magic[2] = {};
  ASSIGN_OR_RETURN(const std::size_t n, plain->Read(0, magic));
  if (n == 2 && magic[0] == std::byte{0x1f} && magic[1] == std::byte{0x8b})
    return std::unique_ptr<Bytes>(std::make_unique<GzipBytes>(path.string()));
  return std::unique_ptr<Bytes>(std::move(plain));
}

Result<std::unique_ptr<Bytes>> OpenZipEntry(const std::filesystem::path& path, const std::string& name) {
  auto entry = std::make_unique<ZipBytes>(path.string(), name);
  RETURN_IF_ERROR(entry->Open());
  return std::unique_ptr<Bytes>(std::move(entry));
}

Result<std::vector<std::string>> ZipEntries(const std::filesystem::path& path) {
  int code = 0;
  zip_t* archive = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (archive == nullptr) return ZipBytes(path.string(), "").CannotOpen(code);
  std::vector<std::string> names;
  const zip_int64_t count = zip_get_num_entries(archive, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    if (const char* name = zip_get_name(archive, static_cast<zip_uint64_t>(i), 0); name != nullptr)
      names.emplace_back(name);
  }
  zip_discard(archive);
  return names;
}

Result<bool> Lines::Next(std::string_view* line) {
  for (;;) {
    const auto newline = buffer_.find('\n', at_);
    if (newline != std::string::npos || (end_ && at_ < buffer_.size())) {
      const std::size_t stop = newline != std::string::npos ? newline : buffer_.size();
      *line = std::string_view(buffer_).substr(at_, stop - at_);
      const std::size_t next = newline != std::string::npos ? newline + 1 : buffer_.size();
      offset_ += static_cast<std::int64_t>(next - at_);
      at_ = next;
      if (line->ends_with('\r')) line->remove_suffix(1);
      return true;
    }
    if (end_) return false;
    buffer_.erase(0, at_);
    at_ = 0;
    if (buffer_.size() > limits::kMaxLineBytes) {
      return ResourceExhausted(bytes_.path() + ": the line at byte " + std::to_string(offset_) + " is longer than " +
                               std::to_string(limits::kMaxLineBytes) + " bytes");
    }
    const std::size_t have = buffer_.size();
    buffer_.resize(have + kChunk);
    ASSIGN_OR_RETURN(const std::size_t n, bytes_.Read(offset_ + static_cast<std::int64_t>(have),
                                                      std::as_writable_bytes(std::span(buffer_)).subspan(have)));
    buffer_.resize(have + n);
    end_ = n < kChunk;
  }
}

Result<std::string> FileFingerprint(const std::filesystem::path& path) {
  constexpr std::int64_t kWhole = std::int64_t{256} << 20;
  constexpr std::int64_t kPieces = 256;
  constexpr std::int64_t kPiece = 1 << 16;
  PlainBytes file(path.string());
  RETURN_IF_ERROR(file.Open());
  crypto::Sha256Stream stream;
  const std::string head = std::to_string(file.size()) + "\n";
  stream.Add(std::as_bytes(std::span(head)));
  std::vector<std::byte> buffer(static_cast<std::size_t>(kPiece));
  const bool whole = file.size() <= kWhole;
  const std::int64_t pieces = whole ? (file.size() + kPiece - 1) / kPiece : kPieces;
  for (std::int64_t i = 0; i < pieces; ++i) {
    const std::int64_t offset = whole ? i * kPiece : (file.size() - kPiece) / (kPieces - 1) * i;
    ASSIGN_OR_RETURN(const std::size_t n, file.Read(offset, buffer));
    stream.Add(std::span<const std::byte>(buffer.data(), n));
  }
  return stream.Finish().Hex();
}

}  // namespace ganglion::data
