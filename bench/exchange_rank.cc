#include "exchange_rank.h"

#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>

#include "data/dataset.h"
#include "data/file.h"
#include "training/exchange.h"
#include "training/training.h"
#include "wire/json.h"

extern char** environ;

namespace ganglion::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double Seconds() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

// What a slow or a dying machine does to an exchange.
class Troubled final : public training::Exchange {
 public:
  Troubled(training::Exchange& inner, const Job& job, fs::path dir) : inner_(inner), job_(job), dir_(std::move(dir)) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& segments) override {
    return inner_.Start(parameters, segments);
  }
  bool Wanted() override { return wanted_ = inner_.Wanted(); }
  Status Average(std::span<float> gradients, float* loss) override {
    if (rank() == job_.slow_rank && wanted_) std::this_thread::sleep_for(std::chrono::milliseconds(job_.slow_ms));
    return inner_.Average(gradients, loss);
  }
  Status AfterStep(std::span<float> parameters, std::int64_t step) override {
    if (rank() == job_.kill_rank && step == job_.kill_step) {
      (void)data::WriteFileAtomically(dir_ / "died", fmt::format("{:.6f}", Seconds()));
      ::raise(SIGKILL);
    }
    return inner_.AfterStep(parameters, step);
  }
  Status Finish(std::span<float> parameters) override { return inner_.Finish(parameters); }

 private:
  training::Exchange& inner_;
  const Job& job_;
  fs::path dir_;
  bool wanted_ = true;
};

std::vector<std::string> Words(const Job& j) {
  return {"way=" + j.way,
          "compress=" + j.compress,
          fmt::format("ranks={}", j.ranks),
          fmt::format("batch={}", j.batch),
          fmt::format("rows={}", j.rows),
          fmt::format("epochs={}", j.epochs),
          "optimizer=" + j.optimizer,
          fmt::format("rate={}", j.rate),
          fmt::format("momentum={}", j.momentum),
          fmt::format("seed={}", j.seed),
          fmt::format("valid={}", j.valid ? 1 : 0),
          fmt::format("slow_rank={}", j.slow_rank),
          fmt::format("slow_ms={}", j.slow_ms),
          fmt::format("kill_rank={}", j.kill_rank),
          fmt::format("kill_step={}", j.kill_step),
          fmt::format("timeout_s={}", j.timeout_s)};
}

Job FromWords(int argc, char** argv, int from) {
  std::map<std::string, std::string> words;
  for (int i = from; i < argc; ++i) {
    const std::string word = argv[i];
    const auto equals = word.find('=');
    if (equals != std::string::npos) words[word.substr(0, equals)] = word.substr(equals + 1);
  }
  Job j;
  j.way = words["way"];
  j.compress = words["compress"];
  j.ranks = std::stoi(words["ranks"]);
  j.batch = std::stoll(words["batch"]);
  j.rows = std::stoll(words["rows"]);
  j.epochs = std::stoll(words["epochs"]);
  j.optimizer = words["optimizer"];
  j.rate = std::stod(words["rate"]);
  if (!words["momentum"].empty()) j.momentum = std::stod(words["momentum"]);
  j.seed = std::stoull(words["seed"]);
  j.valid = words["valid"] == "1";
  j.slow_rank = std::stoi(words["slow_rank"]);
  j.slow_ms = std::stoi(words["slow_ms"]);
  j.kill_rank = std::stoi(words["kill_rank"]);
  j.kill_step = std::stoi(words["kill_step"]);
  j.timeout_s = std::stod(words["timeout_s"]);
  return j;
}

Status Train(const Job& job, int rank, const fs::path& dir, Outcome* outcome) {
  constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist";
  data::LoadOptions rows;
  rows.end = job.rows;
  ASSIGN_OR_RETURN(const auto train, data::LoadDataset(std::string(kFashion) + "/train", rows));
  std::optional<data::Dataset> valid;
  if (job.valid && rank == 0) {
    ASSIGN_OR_RETURN(valid, data::LoadDataset(std::string(kFashion) + "/t10k"));
  }
  ASSIGN_OR_RETURN(const auto engine, runtime::Engine::Create());
  ASSIGN_OR_RETURN(const auto model,
                   model::Model::FromBytes("perceptron.onnx", training::MakePerceptron({784, 200, 200, 10}, job.seed)));
  ASSIGN_OR_RETURN(const auto examples, training::LabelledExamples::Create(train, 10, false));
  ASSIGN_OR_RETURN(const auto way, training::ParseExchange(job.way, job.compress));
  collective::Options join{.rank = rank, .size = job.ranks, .rendezvous = (dir / "meeting").string()};
  join.timeout = FromMilliseconds(job.timeout_s * 1000);
  ASSIGN_OR_RETURN(const auto joined, collective::Collective::Join(join));
  ASSIGN_OR_RETURN(const auto exchange, training::MakeExchange(way, *joined));
  Troubled troubled(*exchange, job, dir);

  training::TrainOptions options;
  const auto kind = optimizer::KindFromName(job.optimizer);
  if (!kind) return InvalidArgument("no optimiser " + job.optimizer);
  options.optimizer = {.kind = *kind, .rate = job.rate, .momentum = *kind == optimizer::Kind::kSgd ? job.momentum : 0};
  options.batch = job.batch;
  options.epochs = job.epochs;
  options.seed = job.seed;
  if (job.ranks > 1) options.exchange = &troubled;
  std::vector<double> times;
  Clock::time_point last;
  std::int64_t steps = 0;
  options.after_step = [&](std::span<float>, std::int64_t step) {
    const auto now = Clock::now();
    if (step >= 10) times.push_back(std::chrono::duration<double, std::milli>(now - last).count());
    last = now;
    steps = step + 1;
  };
  const auto trained = training::Train(engine, model, *examples, valid ? &*valid : nullptr, options, {}, nullptr);
  outcome->ended_at = Seconds();
  outcome->lost = exchange->lost();
  outcome->steps = steps;
  if (!times.empty()) {
    outcome->mean_step_ms = std::accumulate(times.begin(), times.end(), 0.) / static_cast<double>(times.size());
    std::sort(times.begin(), times.end());
    outcome->step_ms = times[times.size() / 2];
    outcome->fast_step_ms = times[times.size() / 10];
  }
  outcome->sent_bytes =
      static_cast<double>(joined->sent_bytes()) / static_cast<double>(std::max<std::int64_t>(1, steps));
  if (!trained.ok()) return trained.status();
  outcome->accuracy = trained->history.back().accuracy;
  for (const auto& point : trained->trace) outcome->losses.push_back(point.loss);
  return {};
}

}  // namespace

int RankMain(int argc, char** argv) {
  if (argc < 4) return 2;
  const int rank = std::stoi(argv[2]);
  const fs::path dir = argv[3];
  const Job job = FromWords(argc, argv, 4);
  Outcome o;
  const auto status = Train(job, rank, dir, &o);
  wire::Json j;
  j["error"] = status.message();
  j["step_ms"] = o.step_ms;
  j["mean_step_ms"] = o.mean_step_ms;
  j["fast_step_ms"] = o.fast_step_ms;
  j["steps"] = o.steps;
  j["accuracy"] = o.accuracy;
  j["sent_bytes"] = o.sent_bytes;
  j["losses"] = o.losses;
  j["lost"] = o.lost;
  j["ended_at"] = o.ended_at;
  return data::WriteFileAtomically(dir / fmt::format("outcome.{}", rank), wire::WriteJson(j)).ok() ? 0 : 1;
}

Result<std::vector<Outcome>> RunRanks(const Job& job) {
  std::string name = (fs::temp_directory_path() / "ganglion-bench.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) return Unavailable("no directory for the ranks");
  const fs::path dir = name;
  const std::string self = fs::read_symlink("/proc/self/exe");
  std::vector<pid_t> pids;
  for (int rank = 0; rank < job.ranks; ++rank) {
    std::vector<std::string> words{self, "rank", std::to_string(rank), dir.string()};
    for (auto& w : Words(job)) words.push_back(std::move(w));
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    if (::posix_spawn(&pid, self.c_str(), nullptr, nullptr, argv.data(), environ) != 0)
      return Unavailable("a rank cannot be started");
    pids.push_back(pid);
  }
  for (const pid_t pid : pids) ::waitpid(pid, nullptr, 0);
  double died = 0;
  if (const auto text = data::ReadFile(dir / "died"); text.ok()) died = std::stod(*text);
  std::vector<Outcome> outcomes;
  for (int rank = 0; rank < job.ranks; ++rank) {
    Outcome o;
    o.died_at = died;
    const auto text = data::ReadFile(dir / fmt::format("outcome.{}", rank));
    if (!text.ok() && rank == job.kill_rank) {
      o.error = "killed";
    } else if (!text.ok()) {
      return Unavailable(fmt::format("rank {} has ended without a word", rank));
    } else {
      wire::Json j;
      RETURN_IF_ERROR(wire::ParseJson(*text, &j));
      o.error = j["error"].get<std::string>();
      o.step_ms = j["step_ms"].get<double>();
      o.mean_step_ms = j["mean_step_ms"].get<double>();
      o.fast_step_ms = j["fast_step_ms"].get<double>();
      o.steps = j["steps"].get<std::int64_t>();
      o.accuracy = j["accuracy"].get<double>();
      o.sent_bytes = j["sent_bytes"].get<double>();
      o.losses = j["losses"].get<std::vector<double>>();
      o.lost = j["lost"].get<std::vector<int>>();
      o.ended_at = j["ended_at"].get<double>();
    }
    outcomes.push_back(std::move(o));
  }
  std::error_code ignored;
  fs::remove_all(dir, ignored);
  return outcomes;
}

}  // namespace ganglion::bench
