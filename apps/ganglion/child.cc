#include "child.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace ganglion::app {
namespace {

constexpr int kFirstPort = 20'000;
constexpr int kPorts = 12'000;  // Linux gives connections 32768 and up

// -1: taken.
int Bind(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

Result<Child> Child::Start(const std::vector<std::string>& command, const std::filesystem::path& output) {
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) return Unavailable(output.string() + ": " + std::strerror(errno));
  const pid_t us = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {  // only calls that are safe between fork and exec of a program with threads
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != us) ::_exit(127);  // we were gone before the kernel knew
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  const int error = errno;
  ::close(out);
  if (pid < 0) return Unavailable(command[0] + " cannot be started: " + std::strerror(error));
  return Child(pid);
}

Child& Child::operator=(Child&& other) noexcept {
  if (this == &other) return *this;
  Kill();
  pid_ = std::exchange(other.pid_, 0);
  ended_ = other.ended_;
  return *this;
}

void Child::Signal(int signal) {
  if (pid_ > 0 && !Ended()) ::kill(pid_, signal);
}

void Child::Kill() {
  if (pid_ <= 0 || Ended()) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  ended_ = -SIGKILL;
}

std::optional<int> Child::Ended() {
  int status = 0;
  if (!ended_ && ::waitpid(pid_, &status, WNOHANG) == pid_)
    ended_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ended_;
}

std::optional<int> Child::Wait(Duration patience) {
  const TimePoint end = std::chrono::steady_clock::now() + patience;
  while (!Ended() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return ended_;
}

Result<std::vector<int>> FreePorts(std::size_t count) {
  // Begins where other runs on this machine likely do not.
  const int first = static_cast<int>((static_cast<std::uint64_t>(::getpid()) * 37) % kPorts);
  std::vector<int> ports;
  std::vector<int> held;  // until all are found
  for (int i = 0; i < kPorts && ports.size() < count; ++i) {
    const int port = kFirstPort + (first + i) % kPorts;
    const int fd = Bind(port);
    if (fd < 0) continue;
    ports.push_back(port);
    held.push_back(fd);
  }
  for (const int fd : held) ::close(fd);
  if (ports.size() < count) return Unavailable("there are not enough free ports on 127.0.0.1");
  return ports;
}

}  // namespace ganglion::app
