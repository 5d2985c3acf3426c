#include "live_node.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

#include "data/file.h"
#include "net/http_client.h"

namespace ganglion::bench {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

constexpr Duration kStartPatience = std::chrono::seconds(30);

// The program beside this one.
std::string Program() {
  std::error_code ec;
  return (std::filesystem::read_symlink("/proc/self/exe", ec).parent_path() / "ganglion").string();
}

// A line of what a pipe brings, without its end; empty when the other side closed it or time is up.
std::string ReadLine(int fd, TimePoint until) {
  std::string line;
  while (true) {
    pollfd p{fd, POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Now()).count();
    if (left <= 0 || ::poll(&p, 1, static_cast<int>(left)) <= 0) return "";
    char c = 0;
    if (::read(fd, &c, 1) != 1) return "";
    if (c == '\n') return line;
    line += c;
  }
}

}  // namespace

Scratch::Scratch() {
  std::string name = (std::filesystem::temp_directory_path() / "ganglion-bench.XXXXXX").string();
  if (::mkdtemp(name.data()) != nullptr) dir_ = name;
}
Scratch::~Scratch() {
  std::error_code ec;
  if (!dir_.empty()) std::filesystem::remove_all(dir_, ec);
}

Result<std::unique_ptr<LiveNode>> LiveNode::Start(const std::filesystem::path& dir, const std::string& name,
                                                  const std::string& yaml) {
  std::unique_ptr<LiveNode> node(new LiveNode);
  node->file_ = dir / (name + ".yaml");
  RETURN_IF_ERROR(data::WriteFileAtomically(
      node->file_, fmt::format("node: {}\nlog: {{level: error}}\n"
                               "listen: {{http: \"127.0.0.1:0\", grpc: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\"}}\n{}",
                               name, yaml)));
  RETURN_IF_ERROR(node->Spawn({}));
  return node;
}

LiveNode::~LiveNode() { Kill(); }

Status LiveNode::Spawn(const std::vector<std::string>& more) {
  const std::string program = Program();
  std::vector<std::string> words = {program, "serve", file_.string()};
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> argv;
  for (auto& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  const std::string log = file_.string() + ".log";
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return Internal("no pipe");
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return Internal("no process");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) _exit(127);
    ::dup2(out[1], 1);
    const int err = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (err >= 0) ::dup2(err, 2);
    ::execv(argv[0], argv.data());
    _exit(127);
  }
  ::close(out[1]);
  pid_ = pid;
  const std::string line = ReadLine(out[0], Now() + kStartPatience);
  ::close(out[0]);
  if (std::sscanf(line.c_str(), "ready :%d :%d :%d", &http_, &grpc_, &metrics_) == 3) return {};
  Kill();
  const auto said = data::ReadFile(log);
  return Internal(fmt::format("{} does not serve {}: {}", program, file_.string(), said.ok() ? *said : line));
}

bool LiveNode::running() {
  if (pid_ < 0) return false;
  if (::waitpid(pid_, nullptr, WNOHANG) != pid_) return true;
  pid_ = -1;
  return false;
}

void LiveNode::Kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void LiveNode::Pause() {
  if (pid_ > 0) ::kill(pid_, SIGSTOP);
}

Status LiveNode::Restart() {
  Kill();
  const auto address = [](int port) { return fmt::format("127.0.0.1:{}", port); };
  return Spawn({"--http", address(http_), "--grpc", address(grpc_), "--metrics", address(metrics_)});
}

Status LiveNode::End(Duration patience) {
  if (pid_ < 0) return Internal("it had ended before");
  ::kill(pid_, SIGTERM);
  const TimePoint until = Now() + patience;
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) != pid_) {
    if (Now() > until) return Status(Code::kDeadlineExceeded, "it does not end");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  pid_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Internal(fmt::format("it ended with status {:#x}", status));
}

double LiveNode::Metric(const std::string& name, const std::vector<std::string>& labels) const {
  net::HttpQuestion q;
  q.url = fmt::format("http://127.0.0.1:{}/metrics", metrics_);
  const auto answer = net::Ask(q, std::chrono::seconds(5));
  if (!answer.ok()) return 0;
  double sum = 0;
  std::size_t at = 0;
  const std::string& text = answer->body;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.rfind(name, 0) != 0 || (line[name.size()] != ' ' && line[name.size()] != '{')) continue;
    const bool wanted = std::all_of(labels.begin(), labels.end(),
                                    [&](const std::string& l) { return line.find(l) != std::string::npos; });
    if (wanted) sum += std::strtod(line.c_str() + line.rfind(' '), nullptr);
  }
  return sum;
}

std::size_t LiveNode::rss_bytes() const {
  std::ifstream status(fmt::format("/proc/{}/status", pid_));
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
  }
  return 0;
}

Status LiveNode::Load(const std::string& model) const {
  net::HttpQuestion q;
  q.method = "POST";
  q.url = fmt::format("http://127.0.0.1:{}/v2/repository/models/{}/load", http_, model);
  ASSIGN_OR_RETURN(const auto answer, net::Ask(q, std::chrono::seconds(10)));
  if (answer.status != 200) return Internal(fmt::format("load answered {}: {}", answer.status, answer.body));
  return {};
}

}  // namespace ganglion::bench
