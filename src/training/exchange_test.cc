// Training by several ranks against one process on the whole batch; ranks as threads, and as processes where one dies.
#include "training/exchange.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <latch>
#include <limits>
#include <thread>

#include "base/scratch_test.h"
#include "optimizer/optimizer.h"
#include "training/perceptron.h"
#include "training/trainer.h"

namespace ganglion::training {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kFeatures = 8;
constexpr std::size_t kRows = 600;
constexpr std::size_t kBatch = 25;  // not divisible by 2 or 3: slices differ in length
constexpr std::int64_t kSteps = 72;

struct Outcome {
  std::vector<float> losses;
  std::vector<float> parameters;
  std::vector<int> lost;
  std::uint64_t sent_bytes = 0;
  Status status;
};

// What a rank does at a step besides training: stand still, die.
using Event = std::function<void(int rank, std::int64_t step)>;

class Exchanges : public ScratchDir {
 protected:
  Exchanges() {
    Random random(5);
    x_.resize(kRows * kFeatures);
    y_.resize(kRows);
    for (std::size_t i = 0; i < kRows; ++i) {
      y_[i] = static_cast<std::int64_t>(random.Below(3));
      for (std::size_t j = 0; j < kFeatures; ++j)
        x_[i * kFeatures + j] = static_cast<float>(.5 * random.Normal() +
                                                   std::cos(static_cast<double>(j) * static_cast<double>(y_[i] + 1)));
    }
  }

  optimizer::Options optimizer_{.kind = optimizer::Kind::kSgd, .rate = .05, .momentum = .9};

  // The training loop as exchange.h tells it. Null: one process.
  Outcome Train(const ExchangeOptions& options, collective::Collective* c, const Event& event = {}) {
    Outcome run;
    const auto rank = static_cast<std::size_t>(c ? c->rank() : 0);
    const auto size = static_cast<std::size_t>(c ? c->size() : 1);
    const auto engine = runtime::Engine::Create().value();
    const auto model = model::Model::FromBytes("net.onnx", MakePerceptron({kFeatures, 16, 3}, 4)).value();
    const auto step = Step::Create(engine, model, gradient::Loss::kSoftmaxCrossEntropy, kBatch).value();
    auto optimiser = optimizer::Optimizer::Create(optimizer_, step->parameters().size()).value();
    if (rank != 0)  // what Start is for
      for (float& v : step->parameters()) v = 7;
    std::unique_ptr<Exchange> exchange;
    const auto go = [&]() -> Status {
      if (c) {
        ASSIGN_OR_RETURN(exchange, MakeExchange(options, *c));
        RETURN_IF_ERROR(exchange->Start(step->parameters(), step->segments()));
      }
      std::vector<float> gradients(step->parameters().size());
      for (std::int64_t t = 0; t < kSteps; ++t) {
        if (event) event(static_cast<int>(rank), t);
        const std::size_t begin = static_cast<std::size_t>(t) * kBatch % (kRows - kBatch);
        for (std::size_t i = 0; i < kBatch; ++i) {
          const bool mine = i >= rank * kBatch / size && i < (rank + 1) * kBatch / size;
          step->weight()[i] = mine ? 1.F / kBatch : 0.F;
          step->target().As<std::int64_t>()[i] = y_[begin + i];
          std::copy_n(x_.begin() + static_cast<std::ptrdiff_t>((begin + i) * kFeatures), kFeatures,
                      step->x().begin() + static_cast<std::ptrdiff_t>(i * kFeatures));
        }
        float loss = 0;
        if (!exchange || exchange->Wanted()) {
          RETURN_IF_ERROR(step->Run());
          std::copy(step->gradients().begin(), step->gradients().end(), gradients.begin());
          loss = step->loss();
        }
        if (poison_ && rank == 1 && t == 9) gradients[11] = std::numeric_limits<float>::quiet_NaN();
        if (exchange) RETURN_IF_ERROR(exchange->Average(gradients, &loss));
        run.losses.push_back(loss);
        optimiser.Step(step->parameters(), gradients);
        if (exchange) RETURN_IF_ERROR(exchange->AfterStep(step->parameters(), t));
      }
      return exchange ? exchange->Finish(step->parameters()) : Status();
    };
    run.status = go();
    if (exchange) run.lost = exchange->lost();
    run.parameters.assign(step->parameters().begin(), step->parameters().end());
    if (c) run.sent_bytes = c->sent_bytes();
    return run;
  }
  Outcome Alone() { return Train({}, nullptr); }

  collective::Options Of(int rank, int size, Duration timeout) {
    collective::Options o{.rank = rank, .size = size, .rendezvous = (dir_ / std::to_string(meeting_)).string()};
    o.timeout = timeout;
    return o;
  }

  std::vector<Outcome> Together(int size, const ExchangeOptions& options, const Event& event = {}, bool good = true) {
    std::vector<Outcome> runs(static_cast<std::size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        const auto c = collective::Collective::Join(Of(rank, size, 60s));
        ASSERT_TRUE(c.ok()) << c.status().message();
        runs[static_cast<std::size_t>(rank)] = Train(options, c->get(), event);
      });
    }
    for (auto& t : threads) t.join();
    ++meeting_;
    for (const Outcome& r : runs) EXPECT_TRUE(r.status.ok() || !good) << r.status.message();
    return runs;
  }

  // The same with processes. What each rank says is "lost A B; loss L" or its error.
  std::vector<std::string> Processes(int size, const ExchangeOptions& options, const Event& event) {
    std::vector<int> pipes;
    std::vector<pid_t> pids;
    for (int rank = 0; rank < size; ++rank) {
      int ends[2];
      EXPECT_EQ(::pipe(ends), 0);
      const pid_t pid = ::fork();
      if (pid == 0) {
        auto c = collective::Collective::Join(Of(rank, size, 60s));
        std::string words = c.status().message();
        if (c.ok()) {
          const Outcome r = Train(options, c->get(), event);
          words = r.status.message();
          if (r.status.ok()) {
            words = "lost";
            for (const int k : r.lost) words += " " + std::to_string(k);
            words += r.losses.back() < .5F * r.losses.front() ? "; learned" : "; learned nothing";
          }
        }
        if (c.ok()) c->reset();  // its threads end before the process does
        (void)!::write(ends[1], words.data(), words.size());
        ::_exit(0);
      }
      ::close(ends[1]);
      pids.push_back(pid);
      pipes.push_back(ends[0]);
    }
    std::vector<std::string> said;
    for (const int fd : pipes) {
      std::string words;
      char part[512];
      for (ssize_t n = 0; (n = ::read(fd, part, sizeof part)) > 0;) words.append(part, static_cast<std::size_t>(n));
      ::close(fd);
      said.push_back(words);
    }
    for (const pid_t pid : pids) ::waitpid(pid, nullptr, 0);
    ++meeting_;
    return said;
  }

  static ExchangeOptions Parse(const char* way, const char* compression = "none") {
    return ParseExchange(way, compression).value();
  }
  static void ExpectSameParameters(const std::vector<Outcome>& runs) {
    for (const Outcome& r : runs) EXPECT_EQ(r.parameters, runs[0].parameters);
  }
  static float Mean(const std::vector<float>& v, std::size_t last) {
    float sum = 0;
    for (std::size_t i = v.size() - last; i < v.size(); ++i) sum += v[i];
    return sum / static_cast<float>(last);
  }

  std::vector<float> x_;
  std::vector<std::int64_t> y_;
  int meeting_ = 0;
  bool poison_ = false;
};

TEST_F(Exchanges, ByAllReduceMakeTheStepsOfOneProcess) {
  for (const auto kind : {optimizer::Kind::kSgd, optimizer::Kind::kAdam}) {
    optimizer_ = {.kind = kind, .rate = kind == optimizer::Kind::kSgd ? .05 : .01, .momentum = .9};
    const Outcome alone = Alone();
    for (const int size : {1, 2, 3}) {
      const auto runs = Together(size, Parse("allreduce"));
      ExpectSameParameters(runs);
      for (std::size_t t = 0; t < alone.losses.size(); ++t) {
        for (const Outcome& r : runs) ASSERT_NEAR(r.losses[t], alone.losses[t], 1e-5) << size << " ranks, step " << t;
      }
      for (std::size_t i = 0; i < alone.parameters.size(); ++i)
        ASSERT_NEAR(runs[0].parameters[i], alone.parameters[i], 1e-4);
    }
  }
}

TEST_F(Exchanges, ByAllReduceAreTheSameInEveryRun) {
  const auto a = Together(3, Parse("allreduce"));
  const auto b = Together(3, Parse("allreduce"));
  EXPECT_EQ(a[0].parameters, b[0].parameters);
  EXPECT_EQ(a[0].losses, b[0].losses);
}

TEST_F(Exchanges, OfCompressedGradientsLearnAsWellAndStayEqual) {
  const Outcome alone = Alone();
  ASSERT_LT(Mean(alone.losses, 10), .4F * alone.losses[0]);
  for (const char* compression : {"8bit", "topk:0.1", "powersgd:2"}) {
    const auto runs = Together(3, Parse("allreduce", compression));
    ExpectSameParameters(runs);
    EXPECT_NEAR(Mean(runs[0].losses, 10), Mean(alone.losses, 10), .05) << compression;
  }
}

TEST_F(Exchanges, ByDiLoCoWithOneStepAndPlainAveragingAreOneProcess) {
  optimizer_.momentum = 0;
  const Outcome alone = Alone();
  auto o = Parse("diloco:1");
  o.outer_rate = 1;
  o.outer_momentum = 0;
  const auto runs = Together(3, o);
  ExpectSameParameters(runs);
  for (std::size_t i = 0; i < alone.parameters.size(); ++i)
    ASSERT_NEAR(runs[0].parameters[i], alone.parameters[i], 1e-4);
}

TEST_F(Exchanges, ByDiLoCoSendALittleAndLearn) {
  const auto every = Together(2, Parse("allreduce"));
  for (const char* compression : {"none", "8bit"}) {
    const auto runs = Together(2, Parse("diloco:10", compression));
    ExpectSameParameters(runs);
    EXPECT_LT(Mean(runs[0].losses, 10), .5F * runs[0].losses[0]);
    EXPECT_LT(8 * runs[0].sent_bytes, every[0].sent_bytes);
  }
}

TEST_F(Exchanges, ByAServerInStepAreOneProcess) {
  const Outcome alone = Alone();
  const auto runs = Together(3, Parse("server:0"));
  ExpectSameParameters(runs);
  for (std::size_t t = 0; t < alone.losses.size(); ++t) {
    const float mean = (runs[0].losses[t] + runs[1].losses[t] + runs[2].losses[t]) / 3;
    ASSERT_NEAR(mean, alone.losses[t], 1e-5) << t;
  }
  EXPECT_TRUE(runs[0].lost.empty());
}

TEST_F(Exchanges, ByAServerWithStalenessLearnAndEndEqual) {
  for (const int staleness : {1, 4}) {
    const auto runs = Together(3, Parse(("server:" + std::to_string(staleness)).c_str()));
    ExpectSameParameters(runs);
    for (const Outcome& r : runs) EXPECT_LT(Mean(r.losses, 10), .5F * r.losses[0]);
  }
}

TEST_F(Exchanges, ByAServerDoNotRunAheadFurtherThanStalenessAllows) {
  // Rank 2 stands still at its step 6 until rank 0 has begun step 9: 6 done by rank 2, 9 by rank 0, 3 apart.
  std::latch reached(1);
  std::atomic<std::int64_t> furthest{0};
  std::atomic<bool> stands{true};
  const auto runs = Together(3, Parse("server:3"), [&](int rank, std::int64_t step) {
    if (rank == 0 && step == 9) reached.count_down();
    if (rank == 2 && step == 6) {
      reached.wait();
      stands = false;
    }
    if (rank != 2 && stands && step > furthest) furthest = step;
  });
  EXPECT_LE(furthest, 9);
  EXPECT_GE(furthest, 8);
}

TEST_F(Exchanges, WithBackupWorkersNobodyWaitsForTheSlowest) {
  // Rank 2 stands still in its first step until rank 0 is five further: waiting for it would never end.
  std::latch further(1);
  const auto runs = Together(3, Parse("backup:1"), [&](int rank, std::int64_t step) {
    if (rank == 0 && step == 5) further.count_down();
    if (rank == 2 && step == 0) further.wait();
  });
  ExpectSameParameters(runs);  // the late one has caught up
  EXPECT_LT(Mean(runs[0].losses, 10), .5F * runs[0].losses[0]);
  EXPECT_TRUE(runs[0].lost.empty());
}

TEST_F(Exchanges, WithBackupWorkersALagIsBounded) {
  auto o = Parse("backup:1");
  o.longest_lag = 3;
  std::atomic<std::int64_t> furthest{0};
  std::atomic<bool> stands{true};
  std::latch further(1);
  const auto runs = Together(3, o, [&](int rank, std::int64_t step) {
    if (rank == 1 && step == 3) further.count_down();
    if (rank == 2 && step == 0) {
      further.wait();
      stands = false;
    }
    if (rank != 2 && stands && step > furthest) furthest = step;
  });
  ExpectSameParameters(runs);
  // Two results may lie at the late rank, three at rank 0, and one is on its way.
  EXPECT_LE(furthest, 3 + 2 + 2);
}

TEST_F(Exchanges, ByAllReduceEndWithTheNameOfWhoDied) {
  const auto said = Processes(3, Parse("allreduce"), [](int rank, std::int64_t step) {
    if (rank == 1 && step == 20) ::raise(SIGKILL);
  });
  for (const int rank : {0, 2})
    EXPECT_NE(said[static_cast<std::size_t>(rank)].find("rank 1 of 3 is lost"), std::string::npos)
        << said[static_cast<std::size_t>(rank)];
}

TEST_F(Exchanges, ByAServerGoOnWithoutAWorkerThatDied) {
  const auto said = Processes(3, Parse("server:1"), [](int rank, std::int64_t step) {
    if (rank == 1 && step == 20) ::raise(SIGKILL);
  });
  EXPECT_EQ(said[0], "lost 1; learned");
  EXPECT_EQ(said[2], "lost; learned");
}

TEST_F(Exchanges, WithBackupWorkersGoOnWithoutOneThatDied) {
  const auto said = Processes(3, Parse("backup:1"), [](int rank, std::int64_t step) {
    if (rank == 2 && step == 20) ::raise(SIGKILL);
  });
  EXPECT_EQ(said[0], "lost 2; learned");
  EXPECT_EQ(said[1], "lost; learned");
}

TEST_F(Exchanges, WithBackupWorkersEndWhenTooFewAreLeft) {
  const auto said = Processes(3, Parse("backup:1"), [](int rank, std::int64_t step) {
    if (rank != 0 && step == 10 + rank) ::raise(SIGKILL);
  });
  EXPECT_NE(said[0].find("only 1 ranks are left, and every step needs 2"), std::string::npos) << said[0];
}

TEST_F(Exchanges, EndWhenRankZeroDies) {
  for (const char* way : {"allreduce", "diloco:5", "server:2", "backup:1"}) {
    const auto said = Processes(3, Parse(way), [](int rank, std::int64_t step) {
      if (rank == 0 && step == 20) ::raise(SIGKILL);
    });
    for (const int rank : {1, 2})
      EXPECT_NE(said[static_cast<std::size_t>(rank)].find("rank 0 of 3 is lost"), std::string::npos)
          << way << ": " << said[static_cast<std::size_t>(rank)];
  }
}

TEST_F(Exchanges, RefuseWhatIsNotFiniteAndTellTheOthers) {
  poison_ = true;
  for (const char* compression : {"8bit", "topk:0.1", "powersgd:1"}) {
    const auto runs = Together(2, Parse("allreduce", compression), {}, false);
    EXPECT_NE(runs[1].status.message().find("number 11 of the gradient is not finite"), std::string::npos)
        << runs[1].status.message();
    EXPECT_NE(runs[0].status.message().find("number 11 of the gradient is not finite"), std::string::npos)
        << runs[0].status.message();
    EXPECT_NE(runs[0].status.message().find("rank 1"), std::string::npos) << runs[0].status.message();
  }
}

TEST(ExchangeOptions, AreReadAndWritten) {
  for (const char* way : {"allreduce", "diloco:50", "server:2", "backup:1"})
    EXPECT_EQ(Name(ParseExchange(way, "none").value()), way);
  EXPECT_EQ(ParseExchange("diloco:5", "topk:0.1")->compress.share, .1);
  for (const auto& [way, compression] : std::vector<std::pair<const char*, const char*>>{{"", "none"},
                                                                                         {"ring", "none"},
                                                                                         {"allreduce:2", "none"},
                                                                                         {"diloco:0", "none"},
                                                                                         {"diloco:x", "none"},
                                                                                         {"server:-1", "none"},
                                                                                         {"backup:0", "none"},
                                                                                         {"allreduce", "zip"},
                                                                                         {"server:1", "8bit"},
                                                                                         {"backup:1", "topk:0.1"}}) {
    EXPECT_EQ(ParseExchange(way, compression).status().code(), Code::kInvalidArgument) << way << " " << compression;
  }
}

TEST(ExchangeOptions, OfMoreBackupWorkersThanRanksAreRefused) {
  const auto alone = collective::Collective::Join({.rank = 0, .size = 1}).value();
  const auto refused = MakeExchange(ParseExchange("backup:1", "none").value(), *alone);
  EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace ganglion::training
