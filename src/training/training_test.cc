#include "training/training.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "base/scratch_test.h"
#include "data/file.h"

namespace ganglion::training {
namespace {

namespace fs = std::filesystem;

// Three clouds of points in the plane of 4 x 2 "images".
data::Dataset Clouds(std::int64_t rows, std::uint64_t seed, std::int64_t height = 2, std::int64_t width = 4) {
  Random random(seed);
  data::Dataset d;
  d.x = tensor::Tensor::Zeros(tensor::DataType::kFp32, {rows, height * width}).value();
  d.row_shape = {height, width};
  for (std::int64_t i = 0; i < rows; ++i) {
    const int label = static_cast<int>(random.Below(3));
    d.labels.push_back(label);
    const auto features = static_cast<std::size_t>(height * width);
    auto row = d.x.As<float>().subspan(static_cast<std::size_t>(i) * features, features);
    for (std::size_t j = 0; j < features; ++j)
      row[j] = static_cast<float>(random.Normal() * .5 + std::cos(static_cast<double>(j) * (label + 1)));
  }
  return d;
}

class Training : public ScratchDir {
 protected:
  Result<Trained> Run(const TrainOptions& options, std::stop_token stop = {},
                      const std::function<void(const Progress&)>& report = {}) {
    const auto examples = LabelledExamples::Create(train_, 3, false).value();
    const auto model = model::Model::FromBytes("net.onnx", MakePerceptron({8, 16, 3}, 4)).value();
    return Train(engine_, model, *examples, &valid_, options, stop, report);
  }

  std::shared_ptr<runtime::Engine> engine_ = runtime::Engine::Create().value();
  data::Dataset train_ = Clouds(700, 1);
  data::Dataset valid_ = Clouds(300, 2);
};

TEST_F(Training, LearnsAndRepeatsToTheBit) {
  const TrainOptions o{.optimizer = {.kind = optimizer::Kind::kAdam, .rate = .01}, .batch = 32, .epochs = 6, .seed = 9};
  const auto a = Run(o);
  ASSERT_TRUE(a.ok()) << a.status().message();
  EXPECT_GT(a->history.back().accuracy, .9);
  EXPECT_LT(a->history.back().loss, a->history.front().loss);
  EXPECT_EQ(a->model.digest(), Run(o)->model.digest());
  EXPECT_NE(a->model.digest(), Run({.batch = 32, .epochs = 6, .seed = 10})->model.digest());
}

TEST_F(Training, ContinuesAfterAStopToTheBit) {
  TrainOptions o{.batch = 32, .epochs = 6, .seed = 9};
  const auto whole = Run(o);
  o.checkpoint = dir_ / "net.checkpoint";
  o.resume = true;
  std::stop_source stop;
  const auto stopped = Run(o, stop.get_token(), [&](const Progress& p) {
    if (p.epoch == 4) stop.request_stop();
  });
  ASSERT_EQ(stopped.status().code(), Code::kCancelled);
  EXPECT_NE(stopped.status().message().find("holds epoch 3"), std::string::npos) << stopped.status().message();
  const auto resumed = Run(o);
  ASSERT_TRUE(resumed.ok()) << resumed.status().message();
  EXPECT_EQ(resumed->model.digest(), whole->model.digest());
  EXPECT_EQ(resumed->history.size(), 6u);
}

TEST_F(Training, RefusesACheckpointOfSomethingElseOrDamaged) {
  TrainOptions o{.batch = 32, .epochs = 2, .seed = 9, .checkpoint = dir_ / "c", .resume = true};
  ASSERT_TRUE(Run(o).ok());
  o.seed = 10;
  EXPECT_NE(Run(o).status().message().find("of another model, data set or setting"), std::string::npos);
  o.seed = 9;
  std::string bytes = data::ReadFile(o.checkpoint).value();
  bytes[bytes.size() - 3] ^= 1;
  ASSERT_TRUE(data::WriteFileAtomically(o.checkpoint, bytes).ok());
  EXPECT_NE(Run(o).status().message().find("damaged"), std::string::npos);
  ASSERT_TRUE(data::WriteFileAtomically(o.checkpoint, "short").ok());
  EXPECT_FALSE(Run(o).ok());
}

// A file may not grow beyond 1000 bytes, as on a full disk: the run ends with an error and the old checkpoint stays.
TEST_F(Training, KeepsTheOldCheckpointWhenTheDiskIsFull) {
  TrainOptions o{.batch = 32, .epochs = 3, .seed = 9, .checkpoint = dir_ / "c"};
  ASSERT_TRUE(Run(o).ok());
  const std::string before = data::ReadFile(o.checkpoint).value();
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{1000, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto full = Run(o);
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(full.status().code(), Code::kResourceExhausted) << full.status().message();
  EXPECT_EQ(data::ReadFile(o.checkpoint).value(), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
}

TEST_F(Training, DoesNotContinueOnOtherDataOrAnotherRate) {
  TrainOptions o{.optimizer = {.kind = optimizer::Kind::kAdam, .rate = 2e-7},
                 .batch = 32,
                 .epochs = 2,
                 .checkpoint = dir_ / "c",
                 .resume = true};
  ASSERT_TRUE(Run(o).ok());
  o.optimizer.rate = 1e-7;
  EXPECT_NE(Run(o).status().message().find("of another model, data set or setting"), std::string::npos);
  o.optimizer.rate = 2e-7;
  EXPECT_TRUE(Run(o).ok());
  train_.x.As<float>()[0] += 1;
  EXPECT_NE(Run(o).status().message().find("of another model, data set or setting"), std::string::npos);
}

TEST_F(Training, DistillationShowsEveryRowBothPureAndMixed) {
  const auto teacher = model::Model::FromBytes("t.onnx", MakePerceptron({8, 3}, 4)).value();
  const auto session = runtime::Session::Create(engine_, teacher).value();
  const auto e =
      DistilledExamples::Create(train_, {session.get()}, {.slices = 2, .mirror = false, .seed = 5}, {}, [](double) {
      }).value();
  Random unused(1);
  std::vector<float> x(8);
  std::vector<float> t(3);
  int mixed_with_itself = 0;  // one row in 700 draws itself as the other
  for (std::int64_t i = 0; i < train_.rows(); ++i) {
    int pure = 0;
    for (const std::int64_t epoch : {0, 1}) {
      e->Fill(i, epoch, unused, x, t);
      pure += std::equal(x.begin(), x.end(), train_.Row(i).begin());
    }
    EXPECT_GE(pure, 1) << i;
    mixed_with_itself += pure - 1;
  }
  EXPECT_LE(mixed_with_itself, 8) << "seed 5";
}

TEST_F(Training, LadderKeepsNothingOfAnotherSeed) {
  LadderOptions o{.seed = 3, .threads = 1, .dir = dir_ / "clean", .scale = .05};
  ASSERT_TRUE(TrainLadder(engine_, train_, valid_, o, {}, {}).ok());
  o.dir = dir_ / "mixed";
  o.seed = 4;
  ASSERT_TRUE(TrainLadder(engine_, train_, valid_, o, {}, {}).ok());
  o.seed = 3;
  o.resume = true;
  ASSERT_TRUE(TrainLadder(engine_, train_, valid_, o, {}, {}).ok());
  for (const char* f : {"global-a.onnx", "device.onnx"})
    EXPECT_EQ(data::ReadFile(dir_ / "clean" / f).value(), data::ReadFile(dir_ / "mixed" / f).value()) << f;
  EXPECT_TRUE(LadderIsTrained(o.dir, o.kind, 3, .05));
  EXPECT_FALSE(LadderIsTrained(o.dir, o.kind, 4, .05));
}

TEST_F(Training, TheConvolutionalLadderHasConvolutionsAboveAndPerceptronsBelow) {
  const data::Dataset images = Clouds(260, 1, 8, 8);
  LadderOptions o{.kind = LadderKind::kConvolutional, .seed = 3, .threads = 2, .dir = dir_ / "conv", .scale = .01};
  ASSERT_TRUE(TrainLadder(engine_, images, images, o, {}, {}).ok());
  for (const auto& [file, convolutional] : std::vector<std::pair<std::string, bool>>{
           {"global-a.onnx", true}, {"global-c.onnx", true}, {"region.onnx", true}, {"edge.onnx", false}}) {
    const std::string bytes = data::ReadFile(o.dir / file).value();
    EXPECT_EQ(bytes.find("Conv") != std::string::npos, convolutional) << file;
    // One decision's stages take the same input.
    const auto model = model::Model::FromBytes(file, bytes).value();
    EXPECT_EQ(model.signature().inputs[0].shape, (tensor::Shape{-1, 64})) << file;
  }
  EXPECT_TRUE(LadderIsTrained(o.dir, LadderKind::kConvolutional, 3, .01));
  EXPECT_FALSE(LadderIsTrained(o.dir, LadderKind::kPerceptrons, 3, .01));
  data::Dataset rows = Clouds(260, 1, 8, 8);
  rows.row_shape = {64};
  const auto refused = TrainLadder(engine_, rows, rows, o, {}, {});
  EXPECT_NE(refused.status().message().find("takes images [height, width]"), std::string::npos)
      << refused.status().message();
}

TEST_F(Training, StopsWhenTheLossExplodes) {
  const auto r = Run({.optimizer = {.rate = 1e30}, .batch = 32, .epochs = 2});
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.status().message().find("no longer finite"), std::string::npos) << r.status().message();
}

TEST_F(Training, RefusesDataThatDoNotFitTheModel) {
  const auto examples = LabelledExamples::Create(train_, 3, false).value();
  const auto model = model::Model::FromBytes("net.onnx", MakePerceptron({9, 3}, 4)).value();
  EXPECT_NE(Train(engine_, model, *examples, nullptr, {}, {}, {})
                .status()
                .message()
                .find("the data have 8 features and 3 classes"),
            std::string::npos);
  EXPECT_NE(LabelledExamples::Create(train_, 2, false).status().message().find("label 2 is out of range"),
            std::string::npos);
  auto flat = Clouds(10, 1);
  flat.row_shape = {8};
  EXPECT_FALSE(LabelledExamples::Create(flat, 3, true).ok());
}

TEST_F(Training, DistillationGivesTheTeachersAnswerOnAnyNumberOfThreads) {
  const auto teacher = model::Model::FromBytes("t.onnx", MakePerceptron({8, 3}, 4)).value();
  const auto session = runtime::Session::Create(engine_, teacher).value();
  const auto one =
      DistilledExamples::Create(train_, {session.get()}, {.slices = 3, .seed = 5, .threads = 1}, {}, [](double) {
      }).value();
  const auto two =
      DistilledExamples::Create(train_, {session.get()}, {.slices = 3, .seed = 5, .threads = 2}, {}, [](double) {
      }).value();
  Random unused(1);
  std::vector<float> x(8);
  std::vector<float> t(3);
  std::vector<float> x2(8);
  std::vector<float> t2(3);
  for (const std::int64_t i : {0, 1, 350, 699}) {
    one->Fill(i, 2, unused, x, t);
    two->Fill(i, 2, unused, x2, t2);
    EXPECT_EQ(x, x2);
    EXPECT_EQ(t, t2);
    EXPECT_NEAR(t[0] + t[1] + t[2], 1, 1e-5);
    const tensor::Shape shape{1, 8};
    const tensor::View view{tensor::DataType::kFp32, shape, std::as_bytes(std::span(x))};
    const auto out = session->Run({&view, 1}).value();
    const auto z = out[0].As<float>();
    EXPECT_NEAR(t[1] / t[0], std::exp(z[1] - z[0]), 1e-4 * std::exp(z[1] - z[0]));
  }
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(DistilledExamples::Create(train_, {session.get()}, {.slices = 3}, stop.get_token(), [](double) {})
                .status()
                .code(),
            Code::kCancelled);
}

TEST_F(Training, LadderIsTheSameOnOneThreadAndTwo) {
  LadderOptions o{.seed = 3, .threads = 1, .dir = dir_ / "one", .scale = .05};
  ASSERT_TRUE(TrainLadder(engine_, train_, valid_, o, {}, {}).ok());
  o.threads = 2;
  o.dir = dir_ / "two";
  double last = 0;
  const auto rungs = TrainLadder(engine_, train_, valid_, o, {}, [&](const LadderProgress& p) {
    EXPECT_GE(p.done, last - 1e-12);
    last = p.done;
  });
  ASSERT_TRUE(rungs.ok()) << rungs.status().message();
  EXPECT_EQ(rungs->size(), 6u);
  EXPECT_NEAR(last, 1, 1e-9);
  for (const auto& r : *rungs)
    EXPECT_EQ(data::ReadFile(dir_ / "one" / r.file).value(), data::ReadFile(dir_ / "two" / r.file).value()) << r.file;
}

}  // namespace
}  // namespace ganglion::training
