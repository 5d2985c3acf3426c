// ganglion learn as a user runs it: real processes, files, pipes and signals.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"
#include "online/snapshot.h"
#include "program_test.h"
#include "wire/json.h"

namespace ganglion {
namespace {

namespace fs = std::filesystem;

class Learn : public ProgramTest {
 protected:
  // Starts `ganglion learn ARGS`.
  pid_t Start(const std::vector<std::string>& args, int in = -1, rlim_t file_limit = RLIM_INFINITY) {
    std::vector<std::string> all{"ganglion", "learn"};
    all.insert(all.end(), args.begin(), args.end());
    return StartProgram(all, in, file_limit);
  }
  Finished Run(const std::vector<std::string>& args) { return Wait(Start(args)); }
  wire::Json Json(const std::vector<std::string>& args) {
    const Finished f = Run(args);
    EXPECT_EQ(f.code, 0) << f.err;
    wire::Json j;
    EXPECT_TRUE(wire::ParseJson(f.out, &j).ok()) << f.out;
    return j;
  }
  static std::string Lines(std::uint64_t seed, int n) {
    Random random(seed);
    std::string text;
    for (int i = 0; i < n; ++i) {
      const auto user = random.Below(20);
      const auto page = random.Below(10);
      const bool yes = random.Uniform() < ((user + page) % 2 == 0 ? .9 : .1);
      text += std::string(yes ? "1" : "-1") + " 't" + std::to_string(i) + " |u u" + std::to_string(user) + " |p p" +
              std::to_string(page) + "\n";
    }
    return text;
  }
};

TEST_F(Learn, LearnsSavesResumesAndTests) {
  Write("first.vw", Lines(1, 2000));
  Write("second.vw", Lines(2, 2000));
  Write("all.vw", Lines(1, 2000) + Lines(2, 2000));
  const auto first = Json({"first.vw", "--loss", "logistic", "-q", "up", "-m", "m.gol", "--json"});
  EXPECT_EQ(first["examples"], 2000);
  EXPECT_GT(first["accuracy"].get<double>(), .7);
  const std::string after_first = Read("m.gol");
  const auto tested = Json({"second.vw", "-t", "-m", "m.gol", "--json"});
  EXPECT_GT(tested["accuracy"].get<double>(), .85);
  EXPECT_EQ(Read("m.gol"), after_first) << "a test learns nothing";
  const auto second = Json({"second.vw", "--resume", "-m", "m.gol", "--json"});
  EXPECT_EQ(second["examples_ever"], 4000);
  ASSERT_EQ(Run({"all.vw", "--loss", "logistic", "-q", "up", "-m", "once.gol"}).code, 0);
  EXPECT_EQ(Read("m.gol"), Read("once.gol")) << "in two runs as in one, to the bit";
  const Finished other = Run({"first.vw", "--resume", "-m", "m.gol", "--bits", "20"});
  EXPECT_EQ(other.code, 2);
  EXPECT_EQ(other.err, "learn: m.gol was made with another --bits; leave it out, or start anew\n");
}

TEST_F(Learn, WritesAPredictionALineBeforeItLearns) {
  Write("in.vw", "1 'a |x y\n|x y\n-1 |x z\n");
  const Finished f = Run({"in.vw", "--loss", "logistic", "-p", "-", "--probability"});
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_EQ(f.out.substr(0, 11), "0.500000 a\n");
  EXPECT_EQ(std::count(f.out.begin(), f.out.end(), '\n'), 3);
  EXPECT_NE(f.err.find("average  since"), std::string::npos);
}

TEST_F(Learn, CountsAndNamesBadLinesAndEndsAtTheFirstWhenStrict) {
  Write("in.vw", "1 |x y\n1 |x y:red\nno bar\n7 |x y\n-1 |x z\n");
  const auto j = Json({"in.vw", "--loss", "logistic", "--json"});
  EXPECT_EQ(j["examples"], 2);
  EXPECT_EQ(j["bad_lines"], 3);
  EXPECT_EQ(j["first_bad_line"], "in.vw:2: column 8: value \"red\" of \"y\" is no finite number");
  const Finished strict = Run({"in.vw", "--loss", "logistic", "--strict", "-m", "m.gol"});
  EXPECT_EQ(strict.code, 2);
  EXPECT_NE(strict.err.find("in.vw:2: column 8"), std::string::npos);
  EXPECT_FALSE(fs::exists(dir_ / "m.gol"));
  Write("nothing.vw", "x\n\n");
  EXPECT_EQ(Run({"nothing.vw"}).code, 2);
}

TEST_F(Learn, ReadsCsvAsTheEqualLines) {
  Write("in.csv", "label,size,colour\n1,.5,red\n-1,2,blue\n1,,red\n");
  Write("in.vw", "1 |size :.5 |colour red\n-1 |size :2 |colour blue\n1 |colour red\n");
  const auto csv = Json({"in.csv", "--loss", "logistic", "-m", "csv.gol", "--json"});
  const auto vw = Json({"in.vw", "--loss", "logistic", "-m", "vw.gol", "--json"});
  EXPECT_EQ(csv["sha256"], vw["sha256"]);
  EXPECT_EQ(Run({"in.csv", "--label", "nowhere"}).code, 2);
}

TEST_F(Learn, SavesWhenAskedToStop) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t pid = Start({"-", "--loss", "logistic", "-m", "m.gol", "--save-every", "1000", "--quiet"}, ends[0]);
  close(ends[0]);
  const std::string lines = Lines(3, 1000);
  ASSERT_EQ(write(ends[1], lines.data(), lines.size()), static_cast<ssize_t>(lines.size()));
  while (!fs::exists(dir_ / "m.gol") && waitpid(pid, nullptr, WNOHANG) == 0) std::this_thread::yield();
  const std::string one = "1 |u u1 |p p1\n";
  ASSERT_EQ(write(ends[1], one.data(), one.size()), static_cast<ssize_t>(one.size()));
  ASSERT_EQ(kill(pid, SIGINT), 0);
  const Finished f = Wait(pid);
  close(ends[1]);
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_EQ(f.out.substr(0, 20), "stopped; wrote m.gol");
  const auto saved = online::Restore(Read("m.gol"));
  ASSERT_TRUE(saved.ok());
  EXPECT_GE(saved->progress().examples, 1000u);
}

TEST_F(Learn, KeepsTheOldModelWhenTheDiskIsFull) {
  Write("in.vw", Lines(4, 5000));
  ASSERT_EQ(Run({"in.vw", "-m", "m.gol", "--replay", "100"}).code, 0);
  const std::string old = Read("m.gol");
  const Finished full = Wait(Start({"in.vw", "-m", "m.gol", "--resume", "--quiet"}, -1, 512));
  EXPECT_EQ(full.code, 1);
  EXPECT_EQ(Read("m.gol"), old);
}

TEST_F(Learn, MergesWhatWasLearnedApart) {
  Write("a.vw", Lines(5, 1000));
  Write("b.vw", Lines(6, 1000));
  for (const std::string w : {"a", "b"})
    ASSERT_EQ(Run({w + ".vw", "--loss", "logistic", "-q", "up", "-m", w + ".gol", "--writer", w}).code, 0);
  const auto ab = Json({"--merge", "a.gol", "b.gol", "a.gol", "-m", "ab.gol", "--json"});
  const auto ba = Json({"--merge", "b.gol", "a.gol", "-m", "ba.gol", "--json"});
  EXPECT_EQ(ab["contributions"], 2);
  EXPECT_EQ(ab["sha256"], ba["sha256"]);
  const Finished again = Run({"--merge", "ab.gol", "a.gol", "-m", "x.gol"});
  EXPECT_EQ(again.code, 1);
  EXPECT_NE(again.err.find("ab.gol: a model that is the work of several"), std::string::npos);
}

TEST_F(Learn, RefusesWhatDoesNotGoTogether) {
  Write("in.vw", "1 |x y\n");
  Write("broken.gol", "GOL1 and then nothing of the kind, but long enough to look like something");
  for (const auto& args : std::vector<std::vector<std::string>>{{"in.vw", "--loss", "hinge"},
                                                                {"in.vw", "--classes", "3", "--loss", "squared"},
                                                                {"in.vw", "--format", "xml"},
                                                                {"in.vw", "--test"},
                                                                {"in.vw", "--resume"},
                                                                {"in.vw", "-q", "abc"},
                                                                {"in.vw", "--bits", "60"},
                                                                {"in.vw", "--base", "x"},
                                                                {"--merge", "a.gol"}})
    EXPECT_EQ(Run(args).code, 2) << args.back();
  EXPECT_EQ(Run({"in.vw", "-i", "none.gol"}).code, 1);
  EXPECT_NE(Run({"in.vw", "-i", "broken.gol"}).code, 0);
  EXPECT_EQ(Run({"none.vw"}).code, 1);
}

}  // namespace
}  // namespace ganglion
