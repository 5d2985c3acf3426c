// ganglion shrink as a user runs it: a real process, files, and a signal in the middle.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/file.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "program_test.h"
#include "shrink/progressive.h"
#include "training/perceptron.h"
#include "wire/json.h"

namespace ganglion {
namespace {

class Shrink : public ProgramTest {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    WriteClouds("train.csv", 1500, 1);
    WriteClouds("valid.csv", 600, 2);
    Write("m.onnx", training::MakePerceptron({4, 24, 3}, 2));
    Write("teacher.onnx", training::MakePerceptron({4, 64, 3}, 3));
  }
  pid_t Start(const std::vector<std::string>& args) {
    std::vector<std::string> all{"ganglion"};
    all.insert(all.end(), args.begin(), args.end());
    return StartProgram(all);
  }
  Finished Run(const std::vector<std::string>& args) { return Wait(Start(args)); }
  static std::vector<std::string> With(std::vector<std::string> args, const std::vector<std::string>& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  const std::vector<std::string> train_{"train",  "m.onnx", "--data",   "train.csv", "-o",     "trained.onnx",
                                        "--rate", "0.01",   "--epochs", "8",         "--quiet"};
  const std::vector<std::string> shrink_{"shrink",  "trained.onnx", "--data",   "train.csv",
                                         "--valid", "valid.csv",    "--epochs", "4",
                                         "--rate",  "0.01",         "--quiet"};
};

TEST_F(Shrink, WritesTheChosenModelAndAllWidths) {
  ASSERT_EQ(Run(train_).code, 0);
  auto r = Run(With(shrink_, {"--json", "--budget-accuracy", "-.05", "-o", "small.onnx", "--progressive", "w.slim"}));
  ASSERT_EQ(r.code, 0) << r.err;
  wire::Json j;
  ASSERT_TRUE(wire::ParseJson(r.out, &j).ok()) << r.out;
  EXPECT_EQ(j["candidates"].size(), 14u);
  const std::string chosen = j["chosen"];
  for (const auto& c : j["candidates"]) {
    EXPECT_GT(c["accuracy"].get<double>(), .5) << c;
    if (c["name"] == chosen) {
      EXPECT_EQ(c["bytes"].get<std::size_t>(), Read("small.onnx").size());
    }
  }
  const std::string file = Read("w.slim");
  onnx::ModelProto narrow;
  int level = -1;
  ASSERT_TRUE(shrink::LoadPrefix(std::as_bytes(std::span(file)), shrink::kMaxLevels, &narrow, &level).ok());
  EXPECT_EQ(level, 2);
  // Another budget chooses at once from what is there.
  r = Run(With(shrink_, {"--budget-bytes", "10MB", "-o", "small.onnx", "--resume"}));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("chosen"), std::string::npos) << r.out;
  r = Run(With(shrink_, {"--budget-bytes", "5", "-o", "small.onnx", "--resume"}));
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.err.find("no candidate is within the budget"), std::string::npos) << r.err;
}

TEST_F(Shrink, GoesOnAfterASignal) {
  const std::vector<std::string> args{"shrink",    "trained.onnx", "--data",    "train.csv", "--valid",
                                      "valid.csv", "--epochs",     "200",       "--without", "slim,int8,dynamic",
                                      "--quiet",   "-o",           "small.onnx"};
  ASSERT_EQ(Run(train_).code, 0);
  const pid_t pid = Start(args);
  const auto begun = dir_ / "small.onnx.shrink" / "pruned-50.checkpoint";
  for (int i = 0; i < 3000 && !std::filesystem::exists(begun); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(std::filesystem::exists(begun));
  kill(pid, SIGINT);
  const Finished stopped = Wait(pid);
  EXPECT_EQ(stopped.code, 1);
  EXPECT_NE(stopped.err.find("--resume continues there"), std::string::npos) << stopped.err;
  EXPECT_FALSE(std::filesystem::exists(dir_ / "small.onnx"));
  const Finished r = Run(With(args, {"--resume"}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(Read("small.onnx").empty());
}

TEST_F(Shrink, SaysWhatIsWrong) {
  Write("junk.onnx", "this is no model");
  Write("other.csv", "a,b,label\n1,2,0\n3,4,1\n");
  const std::vector<std::string> data{"--data", "train.csv", "--valid", "valid.csv", "--quiet"};
  struct Case {
    std::vector<std::string> args;
    int code;
    std::string says;
  };
  const std::vector<Case> cases{
      {With({"shrink", "junk.onnx"}, data), 2, "junk.onnx: not an ONNX file"},
      {With({"shrink", "none.onnx"}, data), 1, "none.onnx"},
      {{"shrink", "m.onnx", "--data", "other.csv", "--valid", "valid.csv"}, 2, "features"},
      {With({"shrink", "m.onnx", "--budget-latency", "3"}, data), 2, "\"3\" is no number with a unit"},
      {With({"shrink", "m.onnx", "--budget-accuracy", ".1"}, data), 2, "what may be lost"},
      {With({"shrink", "m.onnx", "--budget-bytes", "many"}, data), 2, "\"many\" is no number"},
      {With({"shrink", "m.onnx", "--without", "everything"}, data), 2, "\"everything\" is unknown"},
      {With({"shrink", "m.onnx", "--ranges", "guess"}, data), 2, "\"guess\" is unknown"},
      {With({"shrink", "m.onnx", "--sparsity", "1.5"}, data), 2, "a sparsity must be above 0 and below 1"},
      {With({"shrink", "m.onnx", "--widths", ".5,.25"}, data), 2, "widths must rise"},
      {With({"shrink", "m.onnx", "--progressive", "w", "--without", "slim"}, data), 2, "do not leave slim out"},
      {With({"shrink", "m.onnx", "--teacher", "junk.onnx"}, data), 2, "junk.onnx: not an ONNX file"},
      {{"shrink", "m.onnx", "--data", "train.csv"}, 2, "--valid"},
  };
  for (const Case& c : cases) {
    const Finished r = Run(c.args);
    EXPECT_EQ(r.code, c.code) << c.says << ": " << r.err;
    EXPECT_NE((r.err + r.out).find(c.says), std::string::npos) << r.err;
  }
}

}  // namespace
}  // namespace ganglion
