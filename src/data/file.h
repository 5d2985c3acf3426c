// Whole files: reading them with a bound, writing them so that a reader sees the old or the new one and never a half.
// Errors name the path and the system's reason. Thread-safe.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "base/status.h"

namespace ganglion::data {

// The file's bytes. A gzip file is decompressed; more than `limit` bytes (after that) is refused.
Result<std::string> ReadFile(const std::filesystem::path& path, std::size_t limit = limits::kMaxDataFileBytes);

// Writes to a new file beside `path`, flushes it to the disk and renames it over `path`. When anything fails (a full
// disk, say) the old file stays as it was and the new one is removed.
Status WriteFileAtomically(const std::filesystem::path& path, std::string_view bytes);

Status MakeDirectories(const std::filesystem::path& path);

}  // namespace ganglion::data
