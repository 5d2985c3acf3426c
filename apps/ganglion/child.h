// A Child is a process that this one starts, signals and waits for: a node of the live demo, or of a test.
//
// It never outlives us. The destructor kills it and takes its exit code, whichever way we leave; if we are killed
// ourselves, the kernel kills it (Linux; so start children on a thread that lives as long as they do). It is the head
// of a process group of its own, so that Ctrl-C in our terminal reaches us alone and we end the children in order.
// Its output is appended to a file. Errors: UNAVAILABLE when it cannot be started. A resource; one thread at a time.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::app {

class Child {
 public:
  // command[0] is the program's path.
  static Result<Child> Start(const std::vector<std::string>& command, const std::filesystem::path& output);
  Child(Child&& other) noexcept : pid_(other.pid_), ended_(other.ended_) { other.pid_ = 0; }
  Child& operator=(Child&& other) noexcept;
  ~Child() { Kill(); }

  pid_t pid() const { return pid_; }
  // Nothing happens when it has ended.
  void Signal(int signal);
  // SIGKILL, and waits until it is gone.
  void Kill();
  // Its exit code, or -SIGNAL; nothing while it runs, or still runs after `patience`.
  std::optional<int> Ended();
  std::optional<int> Wait(Duration patience);

 private:
  explicit Child(pid_t pid) : pid_(pid) {}

  pid_t pid_ = 0;  // 0: moved away
  std::optional<int> ended_;
};

// Ports of 127.0.0.1 that nobody listens on, all different. They lie below those that the system gives to outgoing
// connections, so that while a node is down no connection takes its port, and none connects to itself there.
Result<std::vector<int>> FreePorts(std::size_t count);

}  // namespace ganglion::app
