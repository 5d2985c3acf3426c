// ganglion train --workers as a user runs it: the model of one process, a worker that dies, a stop and a resume.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"
#include "training/perceptron.h"
#include "wire/json.h"

namespace ganglion {
namespace {

struct Finished {
  int code = -1;
  std::string out;
  std::string err;
};

class Workers : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    ASSERT_TRUE(data::WriteFileAtomically(dir_ / "m.onnx", training::MakePerceptron({4, 16, 3}, 2)).ok());
    Random random(1);
    std::ostringstream csv;
    csv << "a,b,c,d,label\n";
    for (int i = 0; i < 400; ++i) {
      const int label = static_cast<int>(random.Below(3));
      for (int j = 0; j < 4; ++j) csv << std::cos(j * (label + 1.)) + .45 * random.Normal() << ',';
      csv << label << '\n';
    }
    ASSERT_TRUE(data::WriteFileAtomically(dir_ / "train.csv", csv.str()).ok());
  }

  // `ganglion train m.onnx --data train.csv` and more, in the test's directory; output to NAME.out and NAME.err.
  pid_t Start(const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> words{GANGLION_BIN "/ganglion", "train", "m.onnx", "--data", "train.csv", "--batch", "30"};
    words.insert(words.end(), more.begin(), more.end());
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    if (::chdir(dir_.c_str()) != 0 || std::freopen((name + ".out").c_str(), "w", stdout) == nullptr ||
        std::freopen((name + ".err").c_str(), "w", stderr) == nullptr)
      ::_exit(126);
    std::vector<char*> argv;
    for (auto& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  Finished Wait(const std::string& name, pid_t pid) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    const auto read = [&](const std::string& file) {
      const auto text = data::ReadFile(dir_ / file);
      return text.ok() ? *text : "";
    };
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), read(name + ".out"), read(name + ".err")};
  }
  Finished Train(const std::string& name, const std::vector<std::string>& more) {
    return Wait(name, Start(name, more));
  }

  // The first process that `parent` has started; waits until there is one.
  static pid_t ChildOf(pid_t parent) {
    const std::string path = "/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) + "/children";
    for (;;) {
      std::ifstream in(path);
      pid_t child = 0;
      if (in >> child) return child;
      std::this_thread::yield();
    }
  }
  void WaitForFile(const std::string& file) {
    while (!std::filesystem::exists(dir_ / file)) std::this_thread::yield();
  }
  static wire::Json Parse(const std::string& text) {
    wire::Json j;
    EXPECT_TRUE(wire::ParseJson(text, &j).ok()) << text;
    return j;
  }
};

TEST_F(Workers, TrainTheModelThatOneProcessTrains) {
  const auto one = Train("one", {"--epochs", "3", "--json", "-o", "one.onnx"});
  ASSERT_EQ(one.code, 0) << one.err;
  for (const char* workers : {"2", "3"}) {
    const auto many = Train("many", {"--epochs", "3", "--json", "-o", "many.onnx", "--workers", workers});
    ASSERT_EQ(many.code, 0) << many.err;
    EXPECT_NEAR(Parse(many.out)["loss"].get<double>(), Parse(one.out)["loss"].get<double>(), 1e-5);
  }
}

TEST_F(Workers, TrainInEveryWay) {
  for (const std::vector<std::string>& how : std::vector<std::vector<std::string>>{{"--compress", "8bit"},
                                                                                   {"--compress=topk:0.1"},
                                                                                   {"--compress", "powersgd:2"},
                                                                                   {"--exchange", "diloco:5"},
                                                                                   {"--exchange", "server:1"},
                                                                                   {"--exchange", "backup:1"}}) {
    std::vector<std::string> words{"--epochs", "20", "--json", "-o", "out.onnx", "--workers=2"};
    words.insert(words.end(), how.begin(), how.end());
    const auto run = Train("run", words);
    ASSERT_EQ(run.code, 0) << how.back() << ": " << run.err;
    EXPECT_LT(Parse(run.out)["loss"].get<double>(), .7) << how.back();
  }
}

TEST_F(Workers, MeetOnARankEach) {
  std::vector<pid_t> pids;
  for (const std::string rank : {"0", "1"}) {
    pids.push_back(Start("rank" + rank, {"--epochs", "2", "-o", "r" + rank + ".onnx", "--rank", rank, "--size", "2",
                                         "--rendezvous", "meeting"}));
  }
  for (std::size_t i = 0; i < 2; ++i) {
    const auto run = Wait("rank" + std::to_string(i), pids[i]);
    EXPECT_EQ(run.code, 0) << run.err;
  }
  EXPECT_TRUE(std::filesystem::exists(dir_ / "r0.onnx"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "r1.onnx"));  // rank 0 writes for all
}

TEST_F(Workers, RefuseRanksThatDoSomethingElse) {
  const pid_t first = Start("first", {"--epochs", "2", "--rank", "0", "--size", "2", "--rendezvous", "meeting"});
  const pid_t second = Start("second", {"--epochs", "3", "--rank", "1", "--size", "2", "--rendezvous", "meeting"});
  for (const auto& run : {Wait("first", first), Wait("second", second)}) {
    EXPECT_EQ(run.code, 1);
    EXPECT_NE(run.err.find("is about to do something else"), std::string::npos) << run.err;
  }
}

TEST_F(Workers, EndWithTheNameOfOneThatDied) {
  const pid_t pid = Start("run", {"--epochs", "100000", "--checkpoint-steps", "5", "-o", "out.onnx", "--workers", "2"});
  WaitForFile("out.onnx.checkpoint");  // both are training
  const pid_t child = ChildOf(pid);
  ASSERT_GT(child, 0);
  ::kill(child, SIGKILL);
  const auto run = Wait("run", pid);
  EXPECT_EQ(run.code, 1);
  EXPECT_NE(run.err.find("rank 1 of 2 is lost"), std::string::npos) << run.err;
  EXPECT_NE(run.err.find("(process " + std::to_string(child) + ") was ended by signal 9"), std::string::npos)
      << run.err;
  EXPECT_TRUE(std::filesystem::exists(dir_ / "out.onnx.checkpoint"));
}

TEST_F(Workers, GoOnWithoutOneThatDiedWhenAServerKeepsTheParameters) {
  const pid_t pid = Start("run", {"--epochs", "400", "--checkpoint-steps", "5", "-o", "out.onnx", "--workers", "2",
                                  "--exchange", "server:1", "--json"});
  WaitForFile("out.onnx.checkpoint");
  const pid_t child = ChildOf(pid);
  ASSERT_GT(child, 0);
  ::kill(child, SIGKILL);
  const auto run = Wait("run", pid);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(Parse(run.out)["lost"].dump(), "[1]");
}

TEST_F(Workers, StopAndResumeToTheBit) {
  const std::vector<std::string> recipe{"--epochs", "400", "--checkpoint-steps", "5", "--workers", "2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), recipe.begin(), recipe.end());
    return more;
  };
  ASSERT_EQ(Train("whole", with({"-o", "whole.onnx"})).code, 0);
  const pid_t pid = Start("run", with({"-o", "out.onnx"}));
  WaitForFile("out.onnx.checkpoint");
  ::kill(pid, SIGTERM);
  const auto stopped = Wait("run", pid);
  EXPECT_EQ(stopped.code, 1);
  EXPECT_NE(stopped.err.find("--resume continues there"), std::string::npos) << stopped.err;
  const auto resumed = Train("resumed", with({"-o", "out.onnx", "--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(data::ReadFile(dir_ / "out.onnx").value(), data::ReadFile(dir_ / "whole.onnx").value());
}

TEST_F(Workers, SayWhatIsWrongAtOnce) {
  for (const auto& [words, reason] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--workers", "2", "--rank", "0"}, "does not go with --rank"},
           {{"--rank", "0", "--size", "2"}, "are given together"},
           {{"--workers", "2", "--exchange", "ring"}, "exchange \"ring\" is unknown"},
           {{"--workers", "2", "--exchange", "backup:2"}, "backup workers must be 1 .. ranks - 1"},
           {{"--workers", "2", "--exchange", "server", "--compress", "8bit"}, "server and backup send what is not"}}) {
    const auto run = Train("run", words);
    EXPECT_EQ(run.code, 2) << run.err;
    EXPECT_NE(run.err.find(reason), std::string::npos) << run.err;
  }
}

}  // namespace
}  // namespace ganglion
