// Ranks as threads, each with its own connections over loopback; and as processes, where one has to die.
#include "collective/collective.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/random.h"
#include "base/scratch_test.h"
#include "collective/rendezvous.h"

namespace ganglion::collective {
namespace {

using namespace std::chrono_literals;
using Body = std::function<void(Collective&)>;

int FreePort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

class Ranks : public ScratchDir {
 protected:
  Options Of(int rank, int size) {
    Options o{.rank = rank, .size = size, .rendezvous = (dir_ / std::to_string(meeting_)).string()};
    o.timeout = 20s;
    o.shared_memory = shared_memory_;
    return o;
  }
  // Runs `body` on `size` ranks, each in a thread.
  void Run(int size, const Body& body, const std::string& rendezvous = "") {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      Options o = Of(rank, size);
      if (!rendezvous.empty()) o.rendezvous = rendezvous;
      threads.emplace_back([o, &body] {
        const auto joined = Collective::Join(o);
        ASSERT_TRUE(joined.ok()) << joined.status().message();
        body(**joined);
        (*joined)->Leave();
      });
    }
    for (auto& t : threads) t.join();
    ++meeting_;
  }

  // Runs `body` on `size` ranks, each in a process; what it returns is what the rank has to say.
  std::vector<std::string> Fork(int size, const std::function<std::string(Collective&)>& body, Duration timeout = 20s) {
    std::vector<int> pipes;
    pids_.clear();
    for (int rank = 0; rank < size; ++rank) {
      int ends[2];
      EXPECT_EQ(::pipe(ends), 0);
      const pid_t pid = ::fork();
      if (pid == 0) {
        Options o = Of(rank, size);
        o.timeout = timeout;
        auto joined = Collective::Join(o);
        std::string words = joined.ok() ? (*joined)->Barrier().message() : joined.status().message();  // all are there
        if (words.empty()) {
          words = body(**joined);
          (*joined)->Leave();
          joined->reset();  // ends as a program does that returns
        }
        (void)!::write(ends[1], words.data(), words.size());
        ::_exit(0);
      }
      ::close(ends[1]);
      pids_.push_back(pid);
      pipes.push_back(ends[0]);
    }
    std::vector<std::string> said;
    for (const int fd : pipes) {
      std::string words;
      char part[512];
      for (ssize_t n = 0; (n = ::read(fd, part, sizeof part)) > 0;) words.append(part, static_cast<std::size_t>(n));
      ::close(fd);
      said.push_back(words);
      if (said.size() + 1 == pipes.size() && stopped_) ::kill(pids_.back(), SIGKILL);
    }
    for (const pid_t pid : pids_) ::waitpid(pid, nullptr, 0);
    ++meeting_;
    return said;
  }

  int meeting_ = 0;
  bool shared_memory_ = true;
  bool stopped_ = false;  // the last rank stops itself: it is killed when all others have spoken
  std::vector<pid_t> pids_;
};

std::vector<float> Numbers(int rank, std::size_t n) {
  Random random(static_cast<std::uint64_t>(rank) + 17);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(random.Normal());
  return v;
}

TEST_F(Ranks, AddUpInTheOrderOfRanks) {
  for (const int run : {1, 2, 3, 5, -2, -3, -5}) {  // negative: over sockets
    const int size = std::abs(run);
    shared_memory_ = run > 0;
    Run(size, [&](Collective& c) {
      for (const std::size_t n : {0, 1, 2, 7, 1000, 100'003}) {
        auto mine = Numbers(c.rank(), n);
        float few[2] = {static_cast<float>(c.rank()), 1};
        const auto s = c.AllReduce(mine, few);
        ASSERT_TRUE(s.ok()) << s.message();
        auto want = Numbers(0, n);
        for (int k = 1; k < size; ++k) {
          const auto other = Numbers(k, n);
          for (std::size_t i = 0; i < n; ++i) want[i] += other[i];
        }
        ASSERT_EQ(mine, want) << size << " ranks, " << n << " numbers";
        EXPECT_EQ(few[0], static_cast<float>(size * (size - 1)) / 2);
        EXPECT_EQ(few[1], static_cast<float>(size));
      }
    });
  }
}

TEST_F(Ranks, AddUpThroughSocketsWhereSharedMemoryHasNoRoom) {
  Run(3, [](Collective& c) {
    for (const std::size_t few : {3, 65, 64, 1000}) {  // 64 have a place there
      std::vector<float> numbers(5000, 1.F);
      std::vector<float> more(few, static_cast<float>(c.rank()));
      ASSERT_TRUE(c.AllReduce(numbers, more).ok());
      EXPECT_EQ(numbers, std::vector<float>(5000, 3.F));
      EXPECT_EQ(more, std::vector<float>(few, 3.F));
    }
  });
}

TEST_F(Ranks, UseSocketsTogetherWhenOneWantsNoSharedMemory) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    Options o = Of(rank, 3);
    o.shared_memory = rank != 1;
    threads.emplace_back([o] {
      const auto joined = Collective::Join(o);
      ASSERT_TRUE(joined.ok()) << joined.status().message();
      std::vector<float> v(1000, 1.F);
      EXPECT_TRUE((*joined)->AllReduce(v).ok());
      EXPECT_EQ(v[999], 3);
      (*joined)->Leave();
    });
  }
  for (auto& t : threads) t.join();
}

TEST_F(Ranks, GatherAndTradeBytesOfAnyLength) {
  Run(4, [](Collective& c) {
    const auto me = static_cast<std::size_t>(c.rank());
    const auto all = c.AllGather(std::string(me * 50'000, static_cast<char>('a' + c.rank())));
    ASSERT_TRUE(all.ok());
    for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ((*all)[k], std::string(k * 50'000, static_cast<char>('a' + k)));
    std::vector<std::string> out;
    for (std::size_t k = 0; k < 4; ++k) out.push_back(std::to_string(me) + " to " + std::to_string(k));
    const auto in = c.AllToAll({out.begin(), out.end()});
    ASSERT_TRUE(in.ok());
    for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ((*in)[k], std::to_string(k) + " to " + std::to_string(me));
  });
}

TEST_F(Ranks, BroadcastFromAnyRoot) {
  Run(3, [](Collective& c) {
    for (int root = 0; root < 3; ++root) {
      auto v = Numbers(c.rank(), 999);
      ASSERT_TRUE(c.Broadcast(v, root).ok());
      EXPECT_EQ(v, Numbers(root, 999));
    }
    EXPECT_TRUE(c.Barrier().ok());
  });
}

TEST_F(Ranks, SendToOneWhileAllAddUp) {
  Run(3, [](Collective& c) {
    std::thread beside([&] {
      for (int i = 0; i < 20; ++i) {
        if (c.rank() == 0) {
          EXPECT_TRUE(c.Send(2, "message " + std::to_string(i)).ok());
          EXPECT_EQ(c.Receive(2).value(), std::string(static_cast<std::size_t>(i) * 1000, 'x'));
        } else if (c.rank() == 2) {
          EXPECT_EQ(c.Receive(0).value(), "message " + std::to_string(i));
          EXPECT_TRUE(c.Send(0, std::string(static_cast<std::size_t>(i) * 1000, 'x')).ok());
        }
      }
    });
    for (int i = 0; i < 20; ++i) {
      std::vector<float> v(5000, 1.F);
      EXPECT_TRUE(c.AllReduce(v).ok());
      EXPECT_EQ(v[4999], 3);
    }
    beside.join();
  });
}

TEST_F(Ranks, CountWhatTheySend) {
  for (const bool shared : {true, false}) {
    shared_memory_ = shared;
    Run(2, [](Collective& c) {
      const auto before = c.sent_bytes();
      std::vector<float> v(1000, 1.F);
      float few = 1;
      ASSERT_TRUE(c.AllReduce(v, {&few, 1}).ok());
      EXPECT_EQ(c.sent_bytes() - before, 4004);  // half to its owner, the other half's sum back
    });
  }
}

TEST_F(Ranks, MeetOverTcpWhicheverComesFirst) {
  for (const int late : {0, 2}) {
    const std::string place = "tcp://127.0.0.1:" + std::to_string(FreePort());
    std::vector<std::thread> threads;
    for (int k = 1; k <= 3; ++k) {
      Options o = Of((late + k) % 3, 3);  // the late one is started last
      o.rendezvous = place;
      threads.emplace_back([o] {
        const auto joined = Collective::Join(o);
        ASSERT_TRUE(joined.ok()) << joined.status().message();
        std::vector<float> v(10, 1.F);
        EXPECT_TRUE((*joined)->AllReduce(v).ok());
        EXPECT_EQ(v[0], 3);
        (*joined)->Leave();
      });
    }
    for (auto& t : threads) t.join();
  }
}

TEST_F(Ranks, AreNotDisturbedByStrangersAtTheirPort) {
  const int port = FreePort();
  const auto call = [&](const std::string& words) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (;;) {
      const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
      if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
        (void)!::send(fd, words.data(), words.size(), MSG_NOSIGNAL);
        return fd;
      }
      ::close(fd);  // nobody listens yet
      std::this_thread::yield();
    }
  };
  const std::string place = "tcp://127.0.0.1:" + std::to_string(port);
  std::thread first([&] {
    Options o = Of(0, 2);
    o.rendezvous = place;
    const auto joined = Collective::Join(o);
    ASSERT_TRUE(joined.ok()) << joined.status().message();
    (*joined)->Leave();
  });
  std::vector<int> strangers;
  for (const std::string& words : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\xff\xff\xff\xff", 4),
                                   std::string("\5\0\0\0hello", 9), std::string()}) {
    strangers.push_back(call(words));
  }
  Options o = Of(1, 2);
  o.rendezvous = place;
  const auto joined = Collective::Join(o);
  EXPECT_TRUE(joined.ok()) << joined.status().message();
  if (joined.ok()) (*joined)->Leave();
  first.join();
  for (const int fd : strangers) ::close(fd);
}

TEST_F(Ranks, WhoDiesIsNamedByEverySurvivorAtOnce) {
  for (const bool shared : {true, false}) {
    shared_memory_ = shared;
    const auto said = Fork(
        4,
        [](Collective& c) -> std::string {
          std::vector<float> v(200'000, 1.F);
          for (int step = 0; step < 1000; ++step) {
            if (c.rank() == 2 && step == 25) ::raise(SIGKILL);
            if (const auto s = c.AllReduce(v); !s.ok()) return s.message();
          }
          return "went on";
        },
        1h);  // so that this test ends in time only if nobody waits for the timeout
    for (const int rank : {0, 1, 3})
      EXPECT_NE(said[static_cast<std::size_t>(rank)].find("rank 2 of 4 is lost"), std::string::npos)
          << rank << ": " << said[static_cast<std::size_t>(rank)];
  }
}

TEST_F(Ranks, WhoDiesInAnyOperationIsNamed) {
  for (int operation = 0; operation < 5; ++operation) {
    shared_memory_ = operation == 4;
    const auto said = Fork(3, [&](Collective& c) -> std::string {
      for (int step = 0;; ++step) {
        if (c.rank() == 0 && step == 5) ::raise(SIGKILL);
        std::vector<float> v(30'000, 1.F);
        Status s;
        if (operation == 0 || operation == 4) s = c.AllReduce(v);
        if (operation == 1) s = c.AllGather(std::string(100'000, 'x')).status();
        if (operation == 2) s = c.Broadcast(v, step % 3);
        if (operation == 3) s = c.Barrier();
        if (!s.ok()) return s.message();
      }
    });
    for (const int rank : {1, 2})
      EXPECT_NE(said[static_cast<std::size_t>(rank)].find("rank 0 of 3 is lost"), std::string::npos)
          << operation << ": " << said[static_cast<std::size_t>(rank)];
  }
}

TEST_F(Ranks, WhoStopsIsNamedAfterTheTimeout) {
  stopped_ = true;
  for (const bool shared : {true, false}) {
    shared_memory_ = shared;
    const auto said = Fork(
        3,
        [](Collective& c) -> std::string {
          std::vector<float> v(1000, 1.F);
          for (int step = 0;; ++step) {
            if (c.rank() == 2 && step == 3) ::raise(SIGSTOP);
            if (const auto s = c.AllReduce(v); !s.ok()) return s.message();
          }
        },
        1s);
    for (const int rank : {0, 1})
      EXPECT_NE(said[static_cast<std::size_t>(rank)].find("rank 2 of 3 is lost"), std::string::npos)
          << said[static_cast<std::size_t>(rank)];
  }
}

TEST_F(Ranks, SendAndReceiveGoOnBetweenThoseWhoLive) {
  const auto said = Fork(3, [](Collective& c) -> std::string {
    if (c.rank() == 1) {
      if (c.Receive(0).ok() && c.Receive(2).ok()) ::raise(SIGKILL);  // both are past the harness's barrier
      return "was not told";
    }
    (void)c.Send(1, "here");  // may hear of the death before it hears that this arrived
    if (c.rank() == 0) {
      const auto dead = c.Receive(1);
      if (dead.ok() || c.lost() != std::vector<int>{1}) return "heard from the dead";
      if (!c.Send(2, "are you there?").ok()) return "cannot send";
      const auto answer = c.Receive(2);
      return answer.ok() ? *answer : answer.status().message();
    }
    const auto question = c.Receive(0);
    return question.ok() && c.Send(0, "I am").ok() ? "asked" : question.status().message();
  });
  EXPECT_EQ(said[0], "I am");
  EXPECT_EQ(said[2], "asked");
}

TEST_F(Ranks, SayWhyTheyGiveUp) {
  Run(3, [](Collective& c) {
    if (c.rank() == 1) {
      EXPECT_TRUE(c.Receive(0).ok() && c.Receive(2).ok());  // all have joined
      return c.Abandon("number 7 of the gradient is not finite");
    }
    (void)c.Send(1, "here");  // may hear that it gave up before it hears that this arrived
    std::vector<float> v(100);
    const auto s = c.AllReduce(v);
    EXPECT_FALSE(s.ok());
    EXPECT_NE(s.message().find("rank 1 of 3"), std::string::npos) << s.message();
    EXPECT_NE(s.message().find("number 7 of the gradient is not finite"), std::string::npos) << s.message();
  });
}

TEST_F(Ranks, WhoLeavesIsNoFaultUntilHeIsNeeded) {
  Run(3, [](Collective& c) {
    if (c.rank() == 2) return;  // leaves at once
    if (c.rank() == 0) {
      EXPECT_TRUE(c.Send(1, "hello").ok());
    } else {
      EXPECT_EQ(c.Receive(0).value(), "hello");
    }
    EXPECT_TRUE(c.lost().empty());
    std::vector<float> v(10);
    const auto s = c.AllReduce(v);
    EXPECT_FALSE(s.ok());
    EXPECT_NE(s.message().find("rank 2 of 3"), std::string::npos) << s.message();
  });
}

TEST_F(Ranks, CloseWakesWhoWaits) {
  Run(2, [](Collective& c) {
    std::thread waiter([&] { EXPECT_EQ(c.Receive(1 - c.rank(), 1h).status().code(), Code::kCancelled); });
    c.Close();
    waiter.join();
    EXPECT_FALSE(c.Barrier().ok());
  });
}

TEST_F(Ranks, ThoseThatAreMissingAreNamed) {
  for (const std::string& place : {std::string(), "tcp://127.0.0.1:" + std::to_string(FreePort())}) {
    std::vector<std::thread> threads;
    for (const int rank : {0, 2}) {
      Options o = Of(rank, 4);
      if (!place.empty()) o.rendezvous = place;
      o.timeout = 300ms;
      threads.emplace_back([o] {
        const auto joined = Collective::Join(o);
        ASSERT_FALSE(joined.ok());
        EXPECT_NE(joined.status().message().find("ranks 1, 3 did not come"), std::string::npos)
            << joined.status().message();
      });
    }
    for (auto& t : threads) t.join();
    ++meeting_;
  }
  Options alone = Of(1, 2);
  alone.rendezvous = "tcp://127.0.0.1:" + std::to_string(FreePort());
  alone.timeout = 100ms;
  const auto nobody = Collective::Join(alone);
  ASSERT_EQ(nobody.status().code(), Code::kDeadlineExceeded);
  EXPECT_NE(nobody.status().message().find("rank 0 did not answer"), std::string::npos);
}

TEST_F(Ranks, ThatDoSomethingElseAreRefused) {
  const auto both = [&](const Options& a, const Options& b, const std::string& words) {
    std::vector<std::thread> threads;
    for (const Options& o : {a, b}) {
      threads.emplace_back([o, &words] {
        const auto joined = Collective::Join(o);
        ASSERT_FALSE(joined.ok());
        EXPECT_NE(joined.status().message().find(words), std::string::npos) << joined.status().message();
      });
    }
    for (auto& t : threads) t.join();
    ++meeting_;
  };
  for (const bool tcp : {false, true}) {
    const auto of = [&](int rank, int size, const std::string& about, const std::string& place) {
      Options o = Of(rank, size);
      if (tcp) o.rendezvous = place;
      o.about = about;
      return o;
    };
    std::string place = "tcp://127.0.0.1:" + std::to_string(FreePort());
    both(of(0, 2, "train a.onnx", place), of(1, 2, "train b.onnx", place), "is about to do something else");
    if (!tcp) continue;  // a directory shows it only to those who look for the rank
    place = "tcp://127.0.0.1:" + std::to_string(FreePort());
    both(of(0, 2, "train", place), of(1, 3, "train", place), "expects 3 ranks");
  }
  std::filesystem::create_directories(Of(0, 2).rendezvous);
  const auto twin = Meeting::Open({Of(0, 2).rendezvous, "", 0}, 0, 2, TimePoint()).value();
  EXPECT_EQ(twin->Exchange("", "").status().code(), Code::kDeadlineExceeded);
  const auto again = Collective::Join(Of(0, 2));
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.status().message().find("is there already"), std::string::npos) << again.status().message();
}

TEST_F(Ranks, StopWaitingForOthersWhenTold) {
  Options o = Of(0, 2);
  o.timeout = 1h;
  int asked = 0;
  o.watch = [&]() -> Status { return ++asked < 3 ? Status() : Unavailable("rank 1 will not come"); };
  EXPECT_EQ(Collective::Join(o).status().message(), "rank 1 will not come");
}

TEST(CollectiveOptions, OutOfRangeAreRefused) {
  const auto refused = [](const Options& o) { return Collective::Join(o).status().code() == Code::kInvalidArgument; };
  EXPECT_TRUE(refused({.rank = 0, .size = 0}));
  EXPECT_TRUE(refused({.rank = 2, .size = 2, .rendezvous = "x"}));
  EXPECT_TRUE(refused({.rank = -1, .size = 2, .rendezvous = "x"}));
  EXPECT_TRUE(refused({.rank = 0, .size = 257, .rendezvous = "x"}));
  EXPECT_TRUE(refused({.rank = 0, .size = 2, .rendezvous = ""}));
  EXPECT_TRUE(refused({.rank = 0, .size = 2, .rendezvous = "x", .timeout = 0s}));
  EXPECT_TRUE(refused({.rank = 0, .size = 2, .rendezvous = "x", .about = std::string(5000, 'x')}));
}

TEST(RendezvousPlace, IsReadOrRefused) {
  EXPECT_EQ(ParsePlace("tcp://node0:7000")->port, 7000);
  EXPECT_EQ(ParsePlace("tcp://[::1]:7000")->host, "::1");
  EXPECT_EQ(ParsePlace("/tmp/x")->directory, "/tmp/x");
  for (const char* bad : {"", "tcp://", "tcp://host", "tcp://host:", "tcp://host:0", "tcp://host:65536",
                          "tcp://host:7x", "tcp://:7000", "tcp://::1:7000", "http://host:7000"})
    EXPECT_EQ(ParsePlace(bad).status().code(), Code::kInvalidArgument) << bad;
}

TEST(RendezvousMessages, AreReadBackAndDamagedOnesRefused) {
  const Hello hello{2, 3, "about", std::string("a\0b", 3)};
  const std::string bytes = EncodeHello(hello);
  const auto back = DecodeHello(bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->rank, 2);
  EXPECT_EQ(back->about, "about");
  EXPECT_EQ(back->addresses, hello.addresses);
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(DecodeHello(bytes.substr(0, n)).ok()) << n;
  EXPECT_FALSE(DecodeHello(bytes + "x").ok());
  EXPECT_FALSE(DecodeHello(EncodeHello({3, 3, "", ""})).ok());
  EXPECT_FALSE(DecodeHello(EncodeHello({0, 300, "", ""})).ok());
  const std::string table = EncodeTable({"one", "", "three"});
  EXPECT_EQ(DecodeTable(table).value(), (std::vector<std::string>{"one", "", "three"}));
  for (std::size_t n = 0; n < table.size(); ++n) EXPECT_FALSE(DecodeTable(table.substr(0, n)).ok()) << n;
  EXPECT_FALSE(DecodeTable(table + "x").ok());
}

}  // namespace
}  // namespace ganglion::collective
