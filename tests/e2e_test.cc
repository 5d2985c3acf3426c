// The program as a user runs it: real processes, real files, real signals.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"
#include "data/formats.h"
#include "program_test.h"
#include "training/perceptron.h"
#include "wire/json.h"

namespace ganglion {
namespace {

namespace fs = std::filesystem;

class Program : public ProgramTest {
 protected:
  pid_t Start(const std::vector<std::string>& args, rlim_t file_limit = RLIM_INFINITY) {
    return StartProgram(args, -1, file_limit);
  }
  Finished Run(const std::vector<std::string>& args) { return Wait(Start(args)); }
};

TEST_F(Program, GoesFromAUsersModelsToDecisions) {
  WriteClouds("train.csv", 3000, 1);
  WriteClouds("calibrate.csv", 3000, 2);
  WriteClouds("test.csv", 1500, 3);
  Write("labels.txt", "red\ngreen\nblue\n");
  Write("small-0.onnx", training::MakePerceptron({4, 3}, 1));
  Write("big-0.onnx", training::MakePerceptron({4, 32, 3}, 2));
  for (const char* name : {"small", "big"}) {
    const auto r =
        Run({"ganglion", "train", std::string(name) + "-0.onnx", "--data", "train.csv", "--valid", "test.csv", "-o",
             std::string(name) + ".onnx", "--rate", "0.01", "--epochs", "8", "--json", "--quiet"});
    ASSERT_EQ(r.code, 0) << r.err;
    wire::Json j;
    ASSERT_TRUE(wire::ParseJson(r.out, &j).ok()) << r.out;
    EXPECT_GT(j["accuracy"].get<double>(), .75);
  }
  auto r = Run({"ganglion", "init", "colours", "--stage", "device=small.onnx", "--stage", "global=big.onnx", "--labels",
                "labels.txt"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("next: ganglion calibrate colours"), std::string::npos);
  r = Run({"ganglion", "infer", "colours", "test.csv"});
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.err.find("is not calibrated"), std::string::npos) << r.err;

  r = Run({"ganglion", "calibrate", "colours", "--data", "calibrate.csv", "--promise", "loss_at_most=0.03"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("certified <= 0.03 at 90%"), std::string::npos) << r.out;
  r = Run({"ganglion", "evaluate", "colours", "--data", "test.csv", "--json", "report.json", "--html", "report.html"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("against everything in the cloud"), std::string::npos);
  EXPECT_EQ(r.out.find('\x1b'), std::string::npos) << "no colour into a file";
  wire::Json j;
  ASSERT_TRUE(wire::ParseJson(Read("report.json"), &j).ok());
  EXPECT_EQ(j["rows"], 1500);
  EXPECT_FALSE(Read("report.html").empty());

  Write("one.json", "[1, 1, 1, 1]");
  r = Run({"ganglion", "infer", "colours", "one.json"});
  ASSERT_EQ(r.code, 0) << r.err;
  r = Run({"ganglion", "infer", "colours", "test.csv", "--rows", "0:20", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  ASSERT_TRUE(wire::ParseJson(r.out, &j).ok()) << r.out;
  ASSERT_EQ(j.size(), 20u);
  for (const auto& d : j) EXPECT_EQ(d["kind"], "accepted");

  // The embedded device tier, in C++ and in C, says the same.
  const auto cc = Run({"device", "colours", "0", "0", "0", "0"});
  ASSERT_EQ(cc.code, 0) << cc.err;
  const auto c = Run({"device_c", "colours"});
  ASSERT_EQ(c.code, 0) << c.err;
  EXPECT_EQ(cc.out, c.out);
  EXPECT_EQ(Run({"device_c", "nowhere"}).code, 1);
}

TEST_F(Program, KeepsItsCheckpointOnCtrlCAndGoesOnToTheSameBytes) {
  WriteClouds("train.csv", 20'000, 1);
  Write("m.onnx", training::MakePerceptron({4, 64, 64, 3}, 1));
  const std::vector<std::string> train{"ganglion", "train",   "m.onnx", "--data",  "train.csv", "--epochs",
                                       "12",       "--batch", "16",     "--quiet", "-o"};
  const auto with = [&](std::vector<std::string> more) {
    auto args = train;
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  ASSERT_EQ(Run(with({"whole.onnx"})).code, 0);
  const pid_t pid = Start(with({"stopped.onnx"}));
  while (!fs::exists(dir_ / "stopped.onnx.checkpoint")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  kill(pid, SIGINT);
  const auto stopped = Wait(pid);
  ASSERT_EQ(stopped.code, 1) << stopped.out;
  EXPECT_NE(stopped.err.find("--resume continues there"), std::string::npos) << stopped.err;
  EXPECT_FALSE(fs::exists(dir_ / "stopped.onnx"));
  const auto resumed = Run(with({"stopped.onnx", "--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(Read("stopped.onnx"), Read("whole.onnx"));
  EXPECT_FALSE(fs::exists(dir_ / "stopped.onnx.checkpoint"));
}

TEST_F(Program, TrainsByOtherRecipesAndDrawsTheCurve) {
  WriteClouds("train.csv", 2000, 1);
  WriteClouds("valid.csv", 500, 2);
  Write("m.onnx", training::MakePerceptron({4, 32, 3}, 1));
  const auto r =
      Run({"ganglion",     "train",      "m.onnx",      "--data",   "train.csv", "--valid",  "valid.csv",
           "--epochs",     "50",         "--optimiser", "nesterov", "--rate",    ".05",      "--weight-decay",
           "1e-4",         "--schedule", "step:5:0.5",  "--clip",   "1",         "--freeze", "b0",
           "--early-stop", "3:0.001",    "--val-every", "20",       "--memory",  "20KB",     "--quiet",
           "--json",       "-o",         "t.onnx"});
  ASSERT_EQ(r.code, 0) << r.err;
  for (const char* key : {"\"valid_loss\"", "\"accuracy\"", "\"best_step\"", "\"curve\": \"t.curve.json\""}) {
    EXPECT_NE(r.out.find(key), std::string::npos) << key << " in " << r.out;
  }
  EXPECT_NE(Read("t.curve.html").find("Norm of the gradient"), std::string::npos);
  EXPECT_NE(Read("t.curve.json").find("\"valid_loss\":"), std::string::npos);
  EXPECT_EQ(Run({"ganglion", "train", "m.onnx", "--data", "train.csv", "--schedule", "staircase"}).code, 2);
  EXPECT_EQ(Run({"ganglion", "train", "m.onnx", "--data", "train.csv", "--freeze", "nothing*"}).code, 2);
  EXPECT_EQ(Run({"ganglion", "train", "m.onnx", "--data", "train.csv", "--early-stop", "soon"}).code, 2);
}

TEST_F(Program, LosesNothingWhenItIsKilledOrTheDiskIsFull) {
  WriteClouds("train.csv", 20'000, 1);
  Write("m.onnx", training::MakePerceptron({4, 64, 64, 3}, 1));
  const std::vector<std::string> train{"ganglion", "train",   "m.onnx", "--data",  "train.csv", "--epochs",
                                       "30",       "--batch", "16",     "--quiet", "-o",        "k.onnx"};
  const pid_t pid = Start(train);
  while (!fs::exists(dir_ / "k.onnx.checkpoint")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  kill(pid, SIGKILL);
  ASSERT_EQ(Wait(pid).code, -SIGKILL);
  auto resume = train;
  resume.push_back("--resume");
  const std::string before = Read("k.onnx.checkpoint");
  const auto full = Wait(Start(resume, 1000));  // no file may grow beyond 1000 bytes
  EXPECT_EQ(full.code, 1) << full.out << full.err;
  EXPECT_EQ(Read("k.onnx.checkpoint"), before);
  EXPECT_EQ(Run(resume).code, 0);
  EXPECT_TRUE(fs::exists(dir_ / "k.onnx"));
}

TEST_F(Program, SaysWhatIsWrongAndExitsWithTwoOnUsageAndConfiguration) {
  struct Bad {
    std::vector<std::string> args;
    int code;
    std::string says;
  };
  Write("junk.onnx", "junk");
  Write("junk.csv", "a,b,c,d,label\n1,x,3,4,0\n");
  Write("small.csv", "a,b,c,d,label\n1,2,3,4,0\n");
  Write("m.onnx", training::MakePerceptron({4, 3}, 1));
  Write("broken/decision.yaml", "decision: x\nstages: []\ncolour: red\n");
  for (const Bad& b : std::vector<Bad>{
           {{"ganglion"}, 2, "subcommand"},
           {{"ganglion", "fly"}, 2, "fly"},
           {{"ganglion", "train", "--epochs", "0"}, 2, "epochs"},
           {{"ganglion", "train", "--epochs", "3"}, 2, "the ladder\'s recipe is fixed; it does not take --epochs"},
           {{"ganglion", "train", "junk.onnx", "--data", "small.csv"}, 2, "junk.onnx: not an ONNX file"},
           {{"ganglion", "train", "m.onnx", "--data", "junk.csv"}, 2, "junk.csv line 2: field 2 \"x\" is no number"},
           {{"ganglion", "train", "m.onnx", "--data", "none.csv"}, 1, "none.csv"},
           {{"ganglion", "train", "m.onnx", "--data", "small.csv", "--rate", "-1"}, 2, "rate must be > 0"},
           {{"ganglion", "train", "m.onnx"}, 2, "--data is missing"},
           {{"ganglion", "gradient", "m.onnx", "--loss", "vibes"}, 2, "loss \"vibes\" is unknown"},
           {{"ganglion", "calibrate", "nowhere", "--data", "small.csv"}, 1, "nowhere/decision.yaml does not exist"},
           {{"ganglion", "calibrate", "broken", "--data", "small.csv"}, 2, "broken/decision.yaml:3 colour is unknown"},
           {{"ganglion", "init", "d", "--stage", "moon=m.onnx"}, 2, "\"moon\" is no tier"},
           {{"ganglion", "init", "d", "--stage", "device=grpc://x:1/y"}, 2, "the first --stage must be a model here"},
           {{"ganglion", "init", "d", "--stage", "device=,"}, 2, "names no file"},
           {{"ganglion", "init", "d", "--stage", "global=m.onnx", "--stage", "device=m.onnx"},
            2,
            "lies below the stage before it"},
           {{"ganglion", "demo", "--data", "nowhere", "--out", "o", "--quiet"}, 1, "nowhere/train"}}) {
    const auto r = Run(b.args);
    EXPECT_EQ(r.code, b.code) << b.args.back() << ": " << r.err;
    EXPECT_NE((r.err + r.out).find(b.says), std::string::npos) << b.args.back() << ": " << r.err << r.out;
  }
  EXPECT_EQ(Run({"ganglion", "--version"}).code, 0);
  EXPECT_EQ(Run({"ganglion", "train", "--help"}).code, 0);
}

TEST_F(Program, WritesTheTrainingStepOfAModel) {
  Write("m.onnx", training::MakePerceptron({4, 8, 3}, 1));
  const auto r = Run({"ganglion", "gradient", "m.onnx", "--loss", "squared_error", "-o", "step.onnx"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("67 numbers in 4 tensors"), std::string::npos) << r.out;
  EXPECT_GT(Read("step.onnx").size(), 300u);
}

// ONNX Runtime's official builds carry a telemetry client. It must not wake up: no database in the user's cache, no
// log.
TEST_F(Program, StartsNoTelemetry) {
  Write("m.onnx", training::MakePerceptron({4, 3}, 1));
  const char* home = getenv("HOME");
  const std::string before = home == nullptr ? "" : home;
  setenv("HOME", dir_.c_str(), 1);
  unsetenv("XDG_CACHE_HOME");
  const pid_t pid = Start({"ganglion", "gradient", "m.onnx"});
  const auto r = Wait(pid);
  setenv("HOME", before.c_str(), 1);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(fs::exists(dir_ / ".cache"));
  EXPECT_FALSE(fs::exists(fs::temp_directory_path() / ("mat-debug-" + std::to_string(pid) + ".log")));
}

// The main job on the real images, with a twentieth of the training: the whole way, not its figures.
TEST_F(Program, DemoRunsOnTheRealImages) {
  if (!fs::exists("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"))
    GTEST_SKIP() << "dataset-fashion-mnist is not installed";
  const auto r = Run({"ganglion", "demo", "--effort", "0.05", "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("fashion: 10,000 decisions"), std::string::npos) << r.out;
  wire::Json j;
  ASSERT_TRUE(wire::ParseJson(Read("out/demo.json"), &j).ok());
  EXPECT_EQ(j["cascade"]["answered"], 10'000);
  EXPECT_EQ(j["outage"]["cascade"]["lost"], 0);
  EXPECT_GT(j["cloud"]["accuracy"].get<double>(), .8);
  EXPECT_NE(Read("out/demo.html").find("</html>"), std::string::npos);
  // The second run finds the ladder and trains nothing.
  const auto again = Run({"ganglion", "demo", "--effort", "0.05", "--quiet"});
  ASSERT_EQ(again.code, 0);
  EXPECT_EQ(again.out.find("training the ladder"), std::string::npos);
}

}  // namespace
}  // namespace ganglion
