// Training of general models: losses, inputs, schedules, stops, kills.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "base/scratch_test.h"
#include "data/file.h"
#include "training/exchange.h"
#include "training/models_test.h"
#include "training/training.h"

namespace ganglion::training {
namespace {

namespace fs = std::filesystem;
using gradient::Loss;

std::shared_ptr<runtime::Engine> TheEngine() {
  static const auto engine = runtime::Engine::Create().value();
  return engine;
}

std::unique_ptr<RecordSource> Open(const std::string& path, const RecordSourceOptions& options = {},
                                   const data::RecordOptions& records = {}) {
  auto opened = data::OpenRecords(path, records);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  return RecordSource::Create(std::move(*opened), options).value();
}

Validation On(RecordSource& valid, const gradient::Options& loss) {
  return [&valid, loss](const model::Model& m) { return Measure(TheEngine(), m, valid, loss); };
}

// The run that the kill tests interrupt: convolution, statistics, dropout, images that are mirrored, short memory, a
// short last batch, decoupled decay, clipping, a plateau.
Result<Trained> KillRun(const fs::path& dir, bool checkpoints, std::int64_t kill_at) {
  const auto source = Open((dir / "s").string(), {.memory = 2000, .mirror = true});
  const auto valid = Open((dir / "v").string(), {.shuffle = false});
  TrainOptions o;
  o.optimizer = optimizer::Recommended(optimizer::Kind::kAdamW);
  o.optimizer.rate = .01;
  o.schedule = optimizer::ParseSchedule("plateau:0:0.5").value();
  o.gradient.loss = Loss::kSoftmaxCrossEntropy;
  o.batch = 16;
  o.epochs = 3;
  o.seed = 5;
  o.clip_norm = 1;
  o.validate_every = 7;
  o.early_stopping = optimizer::EarlyStopping::Options{.patience = 100};
  if (checkpoints) {
    o.checkpoint = dir / "c";
    o.checkpoint_steps = 3;
    o.resume = true;
  }
  o.after_step = [&](std::span<float>, std::int64_t step) {
    if (step == kill_at) std::raise(SIGKILL);
  };
  return Train(TheEngine(), test::ConvNet(6, .3f), *source, On(*valid, o.gradient), o, {}, {});
}

class GeneralTraining : public ScratchDir {
 protected:
  void SetUp() override {
    ScratchDir::SetUp();
    test::WriteStripes((dir_ / "s").string(), 200, 6, 1);
    test::WriteStripes((dir_ / "v").string(), 60, 6, 2);
  }
  Result<Trained> Stripes(const TrainOptions& o, RecordSourceOptions rows = {}, double dropout = 0) {
    const auto source = Open((dir_ / "s").string(), rows);
    const auto valid = Open((dir_ / "v").string(), {.shuffle = false});
    return Train(TheEngine(), test::ConvNet(6, static_cast<float>(dropout)), *source, On(*valid, o.gradient), o, {},
                 {});
  }
  static TrainOptions Classes() {
    TrainOptions o;
    o.gradient.loss = Loss::kSoftmaxCrossEntropy;
    o.optimizer.rate = .02;
    o.batch = 20;
    o.epochs = 8;
    return o;
  }
};

// Not a test of its own: what the child process of the next one runs.
TEST(TrainingChild, IsKilled) {
  const char* dir = std::getenv("GANGLION_KILL_DIR");
  if (dir == nullptr) GTEST_SKIP() << "runs only as a child of the test of kills";
  const auto r = KillRun(dir, true, std::atoll(std::getenv("GANGLION_KILL_AT")));
  ASSERT_TRUE(r.ok()) << r.status().message();
}

TEST_F(GeneralTraining, GoesOnToTheSameBytesAfterKillsInTheMiddleOfEpochs) {
  const auto whole = KillRun(dir_, false, -1);
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  ASSERT_EQ(whole->steps, 39);
  // Within the first epoch before and after its first checkpoint, in the second, and just before the end.
  for (const int at : {1, 8, 9, 20, 38}) {
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("GANGLION_KILL_DIR", dir_.c_str(), 1);
      setenv("GANGLION_KILL_AT", std::to_string(at).c_str(), 1);
      execl("/proc/self/exe", "training_test", "--gtest_filter=TrainingChild.IsKilled", "--gtest_brief=1", nullptr);
      _exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "at " << at << ": " << status;
  }
  ASSERT_TRUE(fs::exists(dir_ / "c"));
  const auto resumed = KillRun(dir_, true, -1);
  ASSERT_TRUE(resumed.ok()) << resumed.status().message();
  EXPECT_EQ(resumed->model.digest(), whole->model.digest());
  EXPECT_EQ(CurveJson(*resumed, "l"), CurveJson(*whole, "l"));
}

TEST_F(GeneralTraining, LearnsFromImagesInShortMemoryAsFromWholeOnes) {
  const auto whole = Stripes(Classes());
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  EXPECT_GT(whole->history.back().accuracy, .9);
  EXPECT_LT(whole->history.back().valid_loss, whole->history.front().valid_loss);
  const auto blocks = Stripes(Classes(), {.memory = 2000}, .2);
  ASSERT_TRUE(blocks.ok()) << blocks.status().message();
  EXPECT_GT(blocks->history.back().accuracy, .9);
  EXPECT_EQ(blocks->model.digest(), Stripes(Classes(), {.memory = 2000}, .2)->model.digest());
}

TEST_F(GeneralTraining, LearnsWhatComesNextInAText) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "abcd";
  for (char& c : text) c = static_cast<char>(c - 'a');
  test::WriteText((dir_ / "t.txt").string(), text);
  const auto source = Open((dir_ / "t.txt").string(), {}, {.text = data::RecordOptions::Text::kLanguage, .length = 6});
  TrainOptions o = Classes();
  const auto r = Train(TheEngine(), test::Language(4, 6), *source, {}, o, {}, {});
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_LT(r->history.back().loss, .1) << "what follows is certain";
  EXPECT_GT(r->history.front().loss, .5);
  const auto measured = Measure(TheEngine(), r->model, *source, o.gradient);
  ASSERT_TRUE(measured.ok()) << measured.status().message();
  EXPECT_EQ(measured->accuracy, 1);
}

TEST_F(GeneralTraining, LearnsPricesFromTwoInputsAndStaysNearARobustLine) {
  const std::string path = (dir_ / "set").string();
  fs::create_directories(path);
  Random random(3);
  std::vector<long> city;
  std::vector<float> size;
  std::vector<float> price;
  for (int i = 0; i < 500; ++i) {
    city.push_back(static_cast<long>(random.Below(5)));
    size.push_back(static_cast<float>(random.Uniform()));
    size.push_back(static_cast<float>(random.Uniform()));
    price.push_back(static_cast<float>(city.back()) + 2 * size[size.size() - 2] - size.back());
  }
  test::WriteArray<long>(path + "/city.npy", {500}, city);
  test::WriteArray<float>(path + "/size.npy", {500, 2}, size);
  test::WriteArray<float>(path + "/y.npy", {500}, price);
  for (const Loss loss : {Loss::kSquaredError, Loss::kHuber}) {
    const auto source = Open(path);
    TrainOptions o = Classes();
    o.gradient.loss = loss;
    o.optimizer.rate = .1;
    o.epochs = 20;
    const auto r = Train(TheEngine(), test::TwoInputs(), *source, On(*source, o.gradient), o, {}, {});
    ASSERT_TRUE(r.ok()) << r.status().message();
    EXPECT_LT(r->history.back().valid_loss, .01);
    EXPECT_EQ(r->history.back().accuracy, -1) << "this loss has none";
  }
}

// What Measure says must be what the step says: the same definitions, computed twice.
TEST_F(GeneralTraining, MeasuresEveryLossAsTheStepDoes) {
  const std::string path = (dir_ / "set").string();
  fs::create_directories(path);
  Random random(4);
  const int rows = 10;
  std::vector<float> x(rows * 8);
  std::vector<float> t(rows * 3);
  std::vector<long> y(rows);
  for (float& v : x) v = static_cast<float>(random.Normal());
  for (float& v : t) v = static_cast<float>(random.Uniform());
  for (long& v : y) v = static_cast<long>(random.Below(3));
  test::WriteArray<float>(path + "/x.npy", {rows, 8}, x);
  test::WriteArray<float>(path + "/t.npy", {rows, 3}, t);
  test::WriteArray<float>(path + "/teacher.npy", {rows, 3}, t);
  test::WriteArray<long>(path + "/y.npy", {rows}, y);
  const auto model = model::Model::FromBytes("m", MakePerceptron({8, 5, 3}, 4)).value();
  for (const Loss loss : {Loss::kSoftmaxCrossEntropy, Loss::kSoftmaxCrossEntropyDense, Loss::kSquaredError,
                          Loss::kSigmoidCrossEntropy, Loss::kHuber, Loss::kDistillation}) {
    const bool dense = loss != Loss::kSoftmaxCrossEntropy && loss != Loss::kDistillation;
    data::RecordOptions records;
    if (dense) records.targets = {"t"};
    const auto source = Open(path, {.shuffle = false}, records);
    gradient::Options o{.loss = loss, .huber_delta = .3f, .temperature = 2, .hard_share = .25f};
    const auto measured = Measure(TheEngine(), model, *source, o, 4);
    ASSERT_TRUE(measured.ok()) << measured.status().message();
    auto step = Step::Create(TheEngine(), model, StepOptions{o, rows, {}}).value();
    Batch batch{{step->input(0)}, step->target(), {}};
    if (step->has_label()) batch.label = step->label();
    ASSERT_TRUE(source->Prepare({step->input_specs(), step->target_spec(), step->has_label(), loss, 3}).ok());
    ASSERT_TRUE(source->Fill({}, 0, rows, batch).ok());
    ASSERT_TRUE(step->Run().ok());
    EXPECT_NEAR(measured->loss, step->loss(), 1e-6 + 1e-5 * step->loss()) << gradient::Name(loss);
    const bool has = loss != Loss::kSquaredError && loss != Loss::kHuber;
    EXPECT_EQ(measured->accuracy >= 0, has) << gradient::Name(loss);
  }
}

TEST_F(GeneralTraining, StopsEarlyWithTheBestParameters) {
  TrainOptions o = Classes();
  o.epochs = 200;
  o.optimizer.rate = .3;  // too fast to settle: the loss on other rows rises again
  o.schedule = optimizer::ParseSchedule("constant").value();
  o.early_stopping = optimizer::EarlyStopping::Options{.patience = 3};
  const auto r = Stripes(o);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_LT(r->steps, 2000);
  double best = 1e9;
  std::int64_t at = -1;
  for (const auto& p : r->history) {
    if (p.valid_loss < best) {
      best = p.valid_loss;
      at = p.step;
    }
  }
  EXPECT_EQ(r->best_step, at);
  EXPECT_EQ(r->steps, at + 4 * 10) << "four observations without an improvement, ten steps each";
  const auto valid = Open((dir_ / "v").string(), {.shuffle = false});
  EXPECT_NEAR(Measure(TheEngine(), r->model, *valid, o.gradient)->loss, best, 1e-9);
  const auto source = Open((dir_ / "s").string());
  EXPECT_NE(Train(TheEngine(), test::ConvNet(6), *source, {}, o, {}, {}).status().message().find("validation rows"),
            std::string::npos);
}

TEST_F(GeneralTraining, StopsAtALossThatIsNoNumberAndKeepsTheCheckpoint) {
  test::WriteText((dir_ / "n.csv").string(), [] {
    std::string text;
    for (int i = 0; i < 99; ++i) text += "1,2,1\n";
    return text + "-5,1,0\n";
  }());
  // In the order of the file, so that the bad row comes last; a checkpoint every two steps.
  const auto source = Open((dir_ / "n.csv").string(), {.shuffle = false});
  TrainOptions o = Classes();
  o.batch = 10;
  o.checkpoint = dir_ / "c";
  o.checkpoint_steps = 2;
  const auto r = Train(TheEngine(), test::Logarithm(), *source, {}, o, {}, {});
  ASSERT_FALSE(r.ok());
  const std::string& why = r.status().message();
  EXPECT_NE(why.find("log.onnx: epoch 1 step 10: the loss is no longer finite: value \"logits\" has NaN at element"),
            std::string::npos)
      << why;
  EXPECT_NE(why.find("made by node 1 (Log)"), std::string::npos) << why;
  EXPECT_NE(why.find("the checkpoint before it is kept"), std::string::npos) << why;
  const auto kept = data::ReadFile(o.checkpoint);
  ASSERT_TRUE(kept.ok());
  EXPECT_NE(kept->find("ganglion checkpoint"), std::string::npos);
}

TEST_F(GeneralTraining, SurvivesExplodingGradientsWhenTheyAreClipped) {
  TrainOptions o = Classes();
  o.optimizer = {.kind = optimizer::Kind::kSgd, .rate = 1e20};
  o.schedule = optimizer::ParseSchedule("constant").value();
  const auto without = Stripes(o);
  ASSERT_FALSE(without.ok());
  EXPECT_NE(without.status().message().find("no longer finite: "), std::string::npos) << without.status().message();
  EXPECT_NE(without.status().message().find("clip the gradient"), std::string::npos);
  o.clip_norm = 1e-21;
  EXPECT_TRUE(Stripes(o).ok());
  o.clip_norm.reset();
  o.clip_value = 1e-22;
  EXPECT_TRUE(Stripes(o).ok());
}

TEST_F(GeneralTraining, ProjectsAfterEveryStep) {
  TrainOptions o = Classes();
  o.epochs = 1;
  std::int64_t calls = 0;
  o.after_step = [&](std::span<float> parameters, std::int64_t step) {
    EXPECT_EQ(step, calls++);
    parameters[0] = 0;  // a pruned weight
  };
  const auto r = Stripes(o);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(calls, 10);
  onnx::ModelProto proto;
  ASSERT_TRUE(graph::Parse(r->model.bytes(), &proto).ok());
  EXPECT_EQ(graph::ToTensor(proto.graph().initializer(0))->As<float>()[0], 0);
}

TEST_F(GeneralTraining, LeavesFrozenParametersAsTheyAre) {
  TrainOptions o = Classes();
  o.epochs = 1;
  o.gradient.frozen = {"conv.*", "fc.b"};
  const auto r = Stripes(o);
  ASSERT_TRUE(r.ok()) << r.status().message();
  onnx::ModelProto before;
  onnx::ModelProto after;
  ASSERT_TRUE(graph::Parse(test::ConvNet(6).bytes(), &before).ok());
  ASSERT_TRUE(graph::Parse(r->model.bytes(), &after).ok());
  for (int i = 0; i < before.graph().initializer_size(); ++i) {
    const auto& name = before.graph().initializer(i).name();
    const bool frozen = name == "conv.w" || name == "fc.b";
    const auto a = graph::ToTensor(before.graph().initializer(i)).value();
    const auto b = graph::ToTensor(after.graph().initializer(i)).value();
    EXPECT_EQ(std::equal(a.As<float>().begin(), a.As<float>().end(), b.As<float>().begin()), frozen) << name;
  }
  o.gradient.frozen = {"nothing"};
  EXPECT_NE(Stripes(o).status().message().find("no parameter is called \"nothing\""), std::string::npos);
}

// Ranks as threads: sums over two of them.
class Pair {
 public:
  class Rank final : public Exchange {
   public:
    Rank(Pair& pair, int rank) : pair_(pair), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return 2; }
    Status Start(std::span<float>, const std::vector<gradient::Segment>&) override { return {}; }
    Status Average(std::span<float> gradients, float* loss) override {
      auto& mine = pair_.sums_[rank_];
      mine.assign(gradients.begin(), gradients.end());
      mine.push_back(*loss);
      pair_.barrier_.arrive_and_wait();
      for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i] = pair_.sums_[0][i] + pair_.sums_[1][i];
      *loss = pair_.sums_[0].back() + pair_.sums_[1].back();
      pair_.barrier_.arrive_and_wait();
      return {};
    }
    Status AfterStep(std::span<float>, std::int64_t step) override {
      steps = step + 1;
      return {};
    }
    Status Finish(std::span<float>) override { return {}; }
    std::int64_t steps = 0;

   private:
    Pair& pair_;
    int rank_;
  };

 private:
  std::vector<float> sums_[2];
  std::barrier<> barrier_{2};
};

TEST_F(GeneralTraining, OfTwoRanksFollowsTheCurveOfOneProcess) {
  const auto train = [&](Exchange* exchange) {
    TrainOptions o;
    o.optimizer.rate = .01;
    o.gradient.loss = Loss::kSoftmaxCrossEntropy;
    o.batch = 15;  // seven rows and eight; the last batch of an epoch has five
    o.epochs = 2;
    o.exchange = exchange;
    const auto source = Open((dir_ / "s").string());
    const auto model = model::Model::FromBytes("p", MakePerceptron({36, 12, 3}, 4)).value();
    return Train(TheEngine(), model, *source, {}, o, {}, {});
  };
  const auto one = train(nullptr);
  ASSERT_TRUE(one.ok()) << one.status().message();
  Pair pair;
  Pair::Rank first(pair, 0);
  Pair::Rank second(pair, 1);
  std::optional<Result<Trained>> other;
  std::jthread thread([&] { other = train(&second); });
  const auto mine = train(&first);
  thread.join();
  ASSERT_TRUE(mine.ok()) << mine.status().message();
  ASSERT_TRUE(other->ok());
  EXPECT_EQ(mine->model.digest(), (*other)->model.digest());
  EXPECT_EQ(first.steps, one->steps);
  ASSERT_EQ(mine->trace.size(), one->trace.size());
  for (std::size_t i = 0; i < one->trace.size(); ++i) EXPECT_NEAR(mine->trace[i].loss, one->trace[i].loss, 1e-5) << i;
}

TEST_F(GeneralTraining, DrawsACurveThatNeedsNothingElse) {
  TrainOptions o = Classes();
  o.epochs = 2;
  o.validate_every = 5;
  const auto r = Stripes(o);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->history.size(), 4u);
  EXPECT_EQ(r->trace.back().step, 20);
  const std::string json = CurveJson(*r, "softmax_cross_entropy");
  EXPECT_NE(json.find("\"points\":["), std::string::npos);
  EXPECT_NE(json.find("\"gradient_norm\""), std::string::npos);
  const std::string page = CurvePage(*r, "softmax_cross_entropy");
  for (const char* outside : {"http:", "https:", "src=", "@import", "url("}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
  for (const char* chart : {"Loss", "Accuracy on validation rows", "Norm of the gradient", "Learning rate"})
    EXPECT_NE(page.find(chart), std::string::npos) << chart;
}

TEST_F(GeneralTraining, RefusesOptionsThatMakeNoSense) {
  const auto why = [&](const auto& change) {
    TrainOptions o = Classes();
    change(o);
    return Stripes(o).status().message();
  };
  EXPECT_NE(why([](auto& o) { o.clip_norm = 0; }).find("clip_norm must be > 0"), std::string::npos);
  EXPECT_NE(why([](auto& o) { o.clip_value = std::nan(""); }).find("clip_value must be > 0"), std::string::npos);
  EXPECT_NE(why([](auto& o) { o.epochs = 0; }).find("epochs must be at least 1"), std::string::npos);
  EXPECT_NE(why([](auto& o) { o.batch = 0; }).find("batch must be at least 1"), std::string::npos);
  EXPECT_NE(why([](auto& o) { o.schedule.warmup = 1; }).find("warmup must be in [0, 1)"), std::string::npos);
  EXPECT_NE(why([](auto& o) { o.checkpoint_seconds = -1; }).find("checkpoint_seconds"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::training
