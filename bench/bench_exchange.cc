// Two processes against one, what compression saves and costs, a killed worker and a slow one (make bench-exchange).
//
// The perceptron 784-200-200-10 (199,210 parameters) on Fashion-MNIST, SGD (with momentum .9 but for the accuracy), by
// training::Train; each rank is a process with one thread (exchange_rank.h). All on this machine: traffic is counted,
// not sent over a wire.
//
//   loss         the loss of each of 200 steps, two processes and one. At small rates: where steps are large, a
//                difference in the last digit can put a Relu on the other side of zero, and two runs part
//   throughput   rows a second, median steps of three turns in which one process and two take turns
//
//   traffic      bytes that a rank sends in a step, over a whole run
//   accuracy     on the 10,000 test images after 10 epochs of plain SGD, mean over three seeds. Momentum gets no
//                further here, and half a point less with top-k: what is late gets its momentum too late
//
//   killed       seconds from SIGKILL until a survivor has ended with an error that names it; the timeout is 30 s
//   straggler    three ranks, one of which computes each gradient 20 ms later: steps a second
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "exchange_rank.h"
#include "figures.h"

namespace ganglion::bench {
namespace {

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// The ranks' outcomes; an error of one is ours.
Result<std::vector<Outcome>> RunWell(const Job& job) {
  ASSIGN_OR_RETURN(auto outcomes, RunRanks(job));
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (!outcomes[i].error.empty()) return Unavailable(fmt::format("rank {}: {}", i, outcomes[i].error));
  }
  return outcomes;
}

Status SameLoss(Figures& figures) {
  for (const char* optimizer : {"sgd", "adam"}) {
    Job job{.batch = 128, .rows = 25'600, .epochs = 1, .optimizer = optimizer};
    job.rate = std::strcmp(optimizer, "sgd") == 0 ? .02 : .001;
    ASSIGN_OR_RETURN(const auto one, RunWell(job));
    job.ranks = 2;
    ASSIGN_OR_RETURN(const auto two, RunWell(job));
    const auto& a = one[0].losses;
    const auto& b = two[0].losses;
    if (a.size() != 200 || b.size() != 200) return Internal("the trace has not a loss for each of 200 steps");
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(a[i] - b[i]));
    figures.Add({fmt::format("loss over 200 steps of {}, two processes from one, largest", optimizer), worst, "",
                 std::nullopt, "<= 0.00001"});
  }
  return {};
}

Status Throughput(Figures& figures) {
  for (const std::int64_t batch : {512, 128}) {
    std::vector<double> one;
    std::vector<double> two;
    for (int turn = 0; turn < 3; ++turn) {
      for (const int ranks : {1, 2}) {
        Job job{.ranks = ranks, .batch = batch, .rows = 51'200, .epochs = batch == 512 ? 4 : 2};
        ASSIGN_OR_RETURN(const auto run, RunWell(job));
        (ranks == 1 ? one : two).push_back(1000 * static_cast<double>(batch) / run[0].step_ms);
      }
    }
    figures.Add({fmt::format("throughput, batch {}: two processes against one", batch), Median(two), "rows/s",
                 Median(one), batch == 512 ? ">= 1.6x" : ""});
  }
  return {};
}

struct Code {
  const char* name;
  const char* way;
  const char* compress;
  const char* traffic_goal;
  const char* accuracy_goal;
};

Status TrafficAndAccuracy(Figures& figures) {
  constexpr int kSeeds = 3;
  const std::vector<Code> codes = {{"exact", "allreduce", "none", "", ""},
                                   {"8bit", "allreduce", "8bit", ">= 3.9x", "<= 0.3"},
                                   {"topk:0.03", "allreduce", "topk:0.03", ">= 50x", "<= 0.3"},
                                   {"powersgd:2", "allreduce", "powersgd:2", "", ""},
                                   {"diloco:50", "diloco:50", "none", "", ""},
                                   {"diloco:50 8bit", "diloco:50", "8bit", "", ""}};
  double exact_bytes = 0;
  double exact_accuracy = 0;
  for (const Code& code : codes) {
    double accuracy = 0;
    double bytes = 0;
    for (int seed = 1; seed <= kSeeds; ++seed) {
      Job job{.way = code.way, .compress = code.compress, .ranks = 2, .epochs = 10, .rate = .3, .momentum = 0};
      job.seed = static_cast<std::uint64_t>(seed);
      job.valid = true;
      ASSIGN_OR_RETURN(const auto run, RunWell(job));
      accuracy += run[0].accuracy / kSeeds;
      bytes = run[0].sent_bytes;
    }
    figures.Add({fmt::format("accuracy, {}", code.name), accuracy, "", std::nullopt, ""});
    if (exact_bytes == 0) {
      exact_bytes = bytes;
      exact_accuracy = accuracy;
      figures.Add({"traffic of a rank, exact", bytes, "bytes/step", std::nullopt, ""});
      continue;
    }
    figures.Add({fmt::format("accuracy, {}: points from exact", code.name), 100 * std::fabs(accuracy - exact_accuracy),
                 "points", std::nullopt, code.accuracy_goal});
    // Less is better as the exact traffic over the coded one.
    figures.Add({fmt::format("traffic of a rank, exact over {}", code.name), exact_bytes, "bytes/step", bytes,
                 code.traffic_goal});
  }
  return {};
}

Status Killed(Figures& figures) {
  for (const char* way : {"allreduce", "diloco:10", "server:2", "backup:1"}) {
    Job job{.way = way, .ranks = 3, .rows = 25'600, .epochs = 2};
    job.kill_rank = 2;
    job.kill_step = 60;
    job.timeout_s = 30;
    ASSIGN_OR_RETURN(const auto run, RunRanks(job));
    const bool goes_on = way[0] == 's' || way[0] == 'b';
    double named = 0;
    double latest = 0;
    for (int rank = 0; rank < 2; ++rank) {
      const Outcome& o = run[static_cast<std::size_t>(rank)];
      if (goes_on) {
        named += o.error.empty() && o.steps == 400;
      } else {
        named += o.error.find("rank 2 of 3 is lost") != std::string::npos;
        latest = std::max(latest, o.ended_at - o.died_at);
      }
    }
    if (goes_on) {
      named *= run[0].lost == std::vector<int>{2};
      figures.Add({fmt::format("killed worker, {}: survivors that train to the end", way), named, "of 2", std::nullopt,
                   ">= 2"});
    } else {
      figures.Add({fmt::format("killed worker, {}: survivors that name it", way), named, "of 2", std::nullopt, ">= 2"});
      figures.Add({fmt::format("killed worker, {}: until the last survivor has ended", way), latest, "s", std::nullopt,
                   "<= 30"});
    }
  }
  return {};
}

Status Straggler(Figures& figures) {
  const auto rate = [](const char* way, bool slow) -> Result<double> {
    Job job{.way = way, .ranks = 3, .rows = 25'600, .epochs = 2};
    if (slow) {
      job.slow_rank = 2;
      job.slow_ms = 20;
    }
    ASSIGN_OR_RETURN(const auto run, RunWell(job));
    return 1000 / run[0].mean_step_ms;
  };
  ASSIGN_OR_RETURN(const double quick, rate("allreduce", false));
  ASSIGN_OR_RETURN(const double waits, rate("allreduce", true));
  ASSIGN_OR_RETURN(const double backup, rate("backup:1", true));
  figures.Add({"three ranks, none slow, allreduce", quick, "steps/s", std::nullopt, ""});
  figures.Add({"three ranks, one 20 ms late, allreduce", waits, "steps/s", std::nullopt, ""});
  figures.Add({"three ranks, one 20 ms late, backup:1 against allreduce", backup, "steps/s", waits, ">= 2x"});
  return {};
}

int Run(const std::string& only) {
  Figures figures("exchange");
  struct Part {
    const char* name;
    Status (*run)(Figures&);
  };
  for (const Part& part : {Part{"loss", SameLoss}, Part{"throughput", Throughput}, Part{"killed", Killed},
                           Part{"straggler", Straggler}, Part{"accuracy", TrafficAndAccuracy}}) {
    if (!only.empty() && only != part.name) continue;
    fmt::print("{} ...\n", part.name);
    std::fflush(stdout);
    if (const auto s = part.run(figures); !s.ok()) {
      fmt::print(stderr, "bench_exchange: {}: {}\n", part.name, s.message());
      return 1;
    }
  }
  return figures.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "rank") == 0) return ganglion::bench::RankMain(argc, argv);
  return ganglion::bench::Run(argc > 1 ? argv[1] : "");
}
