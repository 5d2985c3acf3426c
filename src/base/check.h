// CHECK stops the process when something that can never happen has happened: a bug of ours, not of the world.
// It stays on in release builds. Bad input, a missing file or a dead peer is a Status (status.h), never a CHECK.
#pragma once

namespace ganglion {

// Prints `file:line: CHECK failed: condition` to standard error and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace ganglion

#define GANGLION_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::ganglion::CheckFailed(__FILE__, __LINE__, #condition))
