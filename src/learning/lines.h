// A LineReader gives a stream's lines one by one: a file, a pipe, standard input.
//
// Memory: one buffer, 1 MiB, more only for a longer line, never beyond the limit. A line beyond the limit is told as
// such and passed over, so that one broken line does not end a stream of millions.
// While it waits for a pipe it looks at the stop token ten times a second.
// Thread-compatible. Errors name the path and the system's reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::learning {

inline constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;

struct Line {
  std::string_view text;     // without the line feed; valid until the next call
  std::uint64_t number = 0;  // from 1
  bool too_long = false;     // text is its beginning
};

class LineReader {
 public:
  // "-" is standard input.
  static Result<LineReader> Open(const std::string& path, std::size_t max_line_bytes = kMaxLineBytes);
  ~LineReader();
  LineReader(LineReader&& other) noexcept;
  LineReader& operator=(LineReader&&) = delete;

  // nullopt at the end. CANCELLED when asked to stop.
  Result<std::optional<Line>> Next(const std::stop_token& stop);
  std::uint64_t lines() const { return lines_; }

 private:
  LineReader() = default;
  // False at the end of the stream.
  Result<bool> Fill(const std::stop_token& stop);

  std::string path_;
  int fd_ = -1;
  bool waits_ = false;  // no plain file: reading may wait
  bool ended_ = false;
  std::size_t max_line_ = 0;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;
  std::uint64_t lines_ = 0;
};

}  // namespace ganglion::learning
