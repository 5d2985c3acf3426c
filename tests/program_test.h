// For tests of programs of the build as a user runs them: a process in the test's own directory, and what it said.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"

namespace ganglion {

struct Finished {
  int code = -1;  // of the exit; of the signal, negative
  std::string out;
  std::string err;
};

class ProgramTest : public ScratchDir {
 protected:
  // Starts args[0] of the build, reading `in` when it is a descriptor, unable to write files beyond `file_limit`.
  pid_t StartProgram(const std::vector<std::string>& args, int in = -1, rlim_t file_limit = RLIM_INFINITY) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    if (chdir(dir_.c_str()) != 0 || (in >= 0 && dup2(in, 0) < 0)) _exit(126);
    if (std::freopen("stdout.txt", "w", stdout) == nullptr || std::freopen("stderr.txt", "w", stderr) == nullptr)
      _exit(126);
    if (file_limit != RLIM_INFINITY) {
      const rlimit limit{file_limit, file_limit};
      setrlimit(RLIMIT_FSIZE, &limit);
      signal(SIGXFSZ, SIG_IGN);
    }
    const std::string program = std::string(GANGLION_BIN) + "/" + args[0];
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (std::size_t i = 1; i < args.size(); ++i) argv.push_back(const_cast<char*>(args[i].c_str()));
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  Finished Wait(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), Read("stdout.txt"), Read("stderr.txt")};
  }
  std::string Read(const std::string& file) {
    const auto bytes = data::ReadFile(dir_ / file);
    return bytes.ok() ? *bytes : "";
  }
  void Write(const std::string& file, const std::string& bytes) {
    ASSERT_TRUE(data::WriteFileAtomically(dir_ / file, bytes).ok());
  }
  // Points of three clouds with a label column.
  void WriteClouds(const std::string& file, int rows, std::uint64_t seed) {
    Random random(seed);
    std::ostringstream csv;
    csv << "a,b,c,d,label\n";
    for (int i = 0; i < rows; ++i) {
      const int label = static_cast<int>(random.Below(3));
      for (int j = 0; j < 4; ++j) csv << std::cos(j * (label + 1.)) + .45 * random.Normal() << ',';
      csv << label << '\n';
    }
    Write(file, csv.str());
  }
};

}  // namespace ganglion
