#include "learning/learning.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <thread>

#include "base/scratch_test.h"
#include "online/snapshot.h"
#include "online/streams_test.h"

namespace ganglion::learning {
namespace {

using online::Example;
using online::LearnerOptions;
using std::chrono::seconds;

class LearnWhilePredicting : public ::testing::TestWithParam<online::Named> {};

// Run under ThreadSanitizer by make tsan: one thread learns, two predict, on every kind of learner.
TEST_P(LearnWhilePredicting, GivesFiniteScoresAndTheModelOfOneThread) {
  const LearnerOptions& options = GetParam().options;
  auto shared = SharedLearner::Create(options);
  ASSERT_TRUE(shared.ok());
  online::Stream stream(options, 1);
  const std::vector<Example> examples = online::Take(&stream, 1500);
  std::atomic<bool> done = false;
  std::atomic<int> bad = 0;
  std::vector<std::thread> readers;
  for (std::size_t r = 0; r < 2; ++r) {
    readers.emplace_back([&, r] {
      std::vector<float> scores(shared->outputs());
      std::size_t at = r;
      do {
        shared->Predict(examples[at++ % examples.size()].features, scores);
        for (const float z : scores) {
          if (!std::isfinite(z)) bad.fetch_add(1);
        }
      } while (!done);
    });
  }
  online::LearnAll(&*shared, examples);
  done = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(bad, 0);
  auto alone = online::Learner::Create(options);
  online::LearnAll(&*alone, examples);
  EXPECT_EQ(online::Snapshot(*shared), online::Snapshot(*alone));
}

INSTANTIATE_TEST_SUITE_P(EveryLearner, LearnWhilePredicting, ::testing::ValuesIn(online::EveryLearner()),
                         [](const auto& one) { return one.param.name; });

class Lines : public ScratchDir {
 protected:
  std::vector<std::string> Read(const std::string& content, std::size_t limit) {
    const auto path = dir_ / "lines";
    std::ofstream(path, std::ios::binary) << content;
    auto reader = LineReader::Open(path.string(), limit);
    EXPECT_TRUE(reader.ok());
    std::vector<std::string> all;
    for (;;) {
      auto line = reader->Next({});
      EXPECT_TRUE(line.ok());
      if (!line.ok() || !*line) break;
      EXPECT_EQ((*line)->number, all.size() + 1);
      all.push_back((*line)->too_long ? "TOO LONG" : std::string((*line)->text));
    }
    return all;
  }
};

TEST_F(Lines, AreReadWholeWhateverTheBuffer) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(Read("a\n\nbc\n", 100), (Strings{"a", "", "bc"}));
  EXPECT_EQ(Read("a\nbc", 3), (Strings{"a", "bc"}));
  EXPECT_EQ(Read("", 3), Strings{});
  EXPECT_EQ(Read("abc\nabcd\nx\nabcdefghijkl\ny", 3), (Strings{"abc", "TOO LONG", "x", "TOO LONG", "y"}));
  EXPECT_EQ(Read("abcdefghijkl", 3), Strings{"TOO LONG"});
  std::string many;
  Strings want;
  for (int i = 0; i < 200'000; ++i) {
    want.push_back(std::string(static_cast<std::size_t>(i % 37), 'x'));
    many += want.back() + "\n";
  }
  EXPECT_EQ(Read(many, 1 << 20), want);
}

TEST_F(Lines, OfAPipeEndWhenAskedToStop) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  auto reader = LineReader::Open("/proc/self/fd/" + std::to_string(ends[0]));
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  ASSERT_EQ(write(ends[1], "one\ntw", 6), 6);
  std::stop_source stop;
  EXPECT_EQ((*reader->Next(stop.get_token()))->text, "one");
  stop.request_stop();
  EXPECT_EQ(reader->Next(stop.get_token()).status().code(), Code::kCancelled);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(Lines, OfNoFileAreRefused) {
  EXPECT_EQ(LineReader::Open((dir_ / "none").string()).status().code(), Code::kNotFound);
  EXPECT_EQ(LineReader::Open(dir_.string()).status().code(), Code::kInvalidArgument);
}

LearnerOptions TwoClasses() {
  LearnerOptions o;
  o.task = online::Task::kBinary;
  o.bits = 10;
  return o;
}

TEST(OutcomeLearner, LearnsFromOutcomesAsALearnerDoesFromTheStream) {
  auto fresh = online::Learner::Create(TwoClasses());
  auto served = OutcomeLearner::Create(online::Snapshot(*fresh), {50, seconds(1000)});
  ASSERT_TRUE(served.ok());
  online::Stream stream(TwoClasses(), 2);
  const auto examples = online::Take(&stream, 300);
  // Outcomes come ten decisions late, in order.
  float score = 0;
  for (std::size_t i = 0; i < examples.size() + 10; ++i) {
    const TimePoint now{seconds(i)};
    if (i < examples.size()) {
      ASSERT_TRUE((*served)->Predict("id" + std::to_string(i), examples[i], now, {&score, 1}).ok());
    }
    if (i >= 10) {
      const Example& e = examples[i - 10];
      ASSERT_TRUE((*served)->Learn("id" + std::to_string(i - 10), e.label, e.weight, now).ok());
    }
  }
  online::LearnAll(&*fresh, examples);
  EXPECT_EQ((*served)->Snapshot(), online::Snapshot(*fresh));
  EXPECT_EQ((*served)->progress().examples, 300u);
  EXPECT_EQ((*served)->open(), 0u);
}

TEST(OutcomeLearner, SaysWhatItCannotLearn) {
  auto served = OutcomeLearner::Create(online::Snapshot(*online::Learner::Create(TwoClasses())), {1, seconds(10)});
  float score = 0;
  Example e;
  e.features = {{3, 1}};
  EXPECT_TRUE((*served)->Predict("", e, TimePoint{}, {&score, 1}).ok());
  EXPECT_EQ((*served)->open(), 0u) << "without an id nothing waits";
  EXPECT_TRUE((*served)->Predict("a", e, TimePoint{}, {&score, 1}).ok());
  EXPECT_EQ((*served)->Learn("b", 1, 1, TimePoint{}).status().code(), Code::kNotFound);
  EXPECT_EQ((*served)->Learn("a", 7, 1, TimePoint{}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ((*served)->Learn("a", 1, 1, TimePoint{}).status().code(), Code::kNotFound) << "used up";
  e.features = {{1u << 10, 1}};
  EXPECT_FALSE((*served)->Predict("c", e, TimePoint{}, {&score, 1}).ok());
  e.features = {{3, std::nanf("")}};
  EXPECT_FALSE((*served)->Predict("c", e, TimePoint{}, {&score, 1}).ok());
  EXPECT_FALSE(OutcomeLearner::Create("no snapshot").ok());
}

TEST(OutcomeLearner, PredictsWhileOutcomesAndSnapshotsCome) {
  auto served = OutcomeLearner::Create(online::Snapshot(*online::Learner::Create(TwoClasses())), {1000, seconds(10)});
  std::vector<std::thread> threads;
  std::atomic<int> learned = 0;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      online::Stream stream(TwoClasses(), static_cast<std::uint64_t>(t));
      float score = 0;
      for (int i = 0; i < 300; ++i) {
        const Example e = stream.Next();
        const std::string id = std::to_string(t) + "/" + std::to_string(i);
        if (!(*served)->Predict(id, e, TimePoint{}, {&score, 1}).ok()) continue;
        if ((*served)->Learn(id, e.label, e.weight, TimePoint{}).ok()) learned.fetch_add(1);
        if (i % 100 == 0) (void)(*served)->Snapshot();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(learned, 900);
  EXPECT_EQ((*served)->progress().examples, 900u);
}

}  // namespace
}  // namespace ganglion::learning
