#include "torch_peer.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ganglion::bench {

std::unique_ptr<TorchPeer> TorchPeer::Start(const std::string& script) {
  std::signal(SIGPIPE, SIG_IGN);  // a peer that died is noticed by what it does not answer
  int in[2];
  int out[2];
  if (pipe(in) != 0) return nullptr;
  if (pipe(out) != 0) {
    close(in[0]);
    close(in[1]);
    return nullptr;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
    execl("/usr/bin/python3", "python3", script.c_str(), nullptr);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  std::unique_ptr<TorchPeer> peer(new TorchPeer);
  peer->pid_ = pid;
  peer->in_ = fdopen(in[1], "w");
  peer->out_ = fdopen(out[0], "r");
  const std::string hello = peer->Line();
  if (hello.rfind("torch", 0) != 0) {
    fmt::print("PyTorch is not here: ratios are skipped (make bench-train installs python3-torch)\n");
    return nullptr;
  }
  fmt::print("peer: {}\n", hello);
  return peer;
}

TorchPeer::~TorchPeer() {
  if (in_ != nullptr) std::fclose(in_);
  if (out_ != nullptr) std::fclose(out_);
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

std::string TorchPeer::Line() {
  char line[256] = "";
  if (out_ == nullptr || std::fgets(line, sizeof line, out_) == nullptr) return "";
  line[std::strcspn(line, "\n")] = '\0';
  return line;
}

std::optional<double> TorchPeer::Milliseconds(const std::string& request) {
  std::fprintf(in_, "%s\n", request.c_str());
  std::fflush(in_);
  const std::string answer = Line();
  char* end = nullptr;
  const double value = std::strtod(answer.c_str(), &end);
  if (answer.empty() || *end != '\0') return std::nullopt;
  return value;
}

double Median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

std::optional<PairedTimes> TakeTurns(const std::function<bool()>& step, TorchPeer* torch, const std::string& request,
                                     int turns, int steps) {
  std::vector<double> ours;
  std::vector<double> theirs;
  std::vector<double> times(static_cast<std::size_t>(steps));
  for (int turn = 0; turn <= turns; ++turn) {
    for (double& t : times) {
      const auto begin = std::chrono::steady_clock::now();
      if (!step()) return std::nullopt;
      t = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    }
    std::optional<double> peer;
    if (torch != nullptr) peer = torch->Milliseconds(request);
    if (turn == 0) continue;  // warm-up
    ours.push_back(Median(times));
    if (peer.has_value()) theirs.push_back(peer.value());
  }
  PairedTimes result{Median(ours), std::nullopt};
  if (theirs.size() == ours.size()) result.theirs = Median(theirs);
  return result;
}

void AddPaired(Figures& figures, const std::string& name, const PairedTimes& times, const std::string& goal) {
  figures.Add({name + ": step", times.ours, "ms", std::nullopt, ""});
  // More is better as PyTorch's time over ours.
  if (times.theirs) figures.Add({name + ": PyTorch's step over ours", *times.theirs, "ms", times.ours, goal});
}

}  // namespace ganglion::bench
