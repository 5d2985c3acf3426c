#include "training/ladder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>

#include "data/file.h"
#include "training/examples.h"
#include "training/perceptron.h"
#include "training/trainer.h"

namespace ganglion::training {
namespace {

struct Job {
  std::string file;
  std::vector<std::int64_t> hidden;
  double rate = 1e-3;
  std::int64_t epochs = 0;
};

const std::vector<Job> kTeachers{
    {"global-a.onnx", {512, 512}, 1e-3, 12},
    {"global-b.onnx", {512, 512}, 1e-3, 12},
    {"global-c.onnx", {512, 512}, 1e-3, 12},
};
const std::vector<Job> kStudents{
    {"region.onnx", {512, 512}, 1.5e-3, 24},
    {"edge.onnx", {192, 96}, 2e-3, 30},
    {"device.onnx", {128}, 3e-3, 40},
};
constexpr char kRecipeFile[] = "recipe.txt";
constexpr char kBegun[] = "begun, not finished\n";
constexpr std::int64_t kSlices = 8;
constexpr std::int64_t kBatch = 128;

std::int64_t Epochs(const Job& job, double scale) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::lround(static_cast<double>(job.epochs) * scale)));
}

std::vector<std::int64_t> Sizes(const Job& job, std::int64_t features, std::int64_t classes) {
  std::vector<std::int64_t> sizes{features};
  sizes.insert(sizes.end(), job.hidden.begin(), job.hidden.end());
  sizes.push_back(classes);
  return sizes;
}

// Multiplications of one example's forward pass: what work is measured in.
double Cost(const std::vector<std::int64_t>& sizes) {
  double cost = 0;
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) cost += static_cast<double>(sizes[i] * sizes[i + 1]);
  return cost;
}

// Adds up what parallel jobs have done. Thread-safe.
class Meter {
 public:
  Meter(double total, const std::function<void(const LadderProgress&)>& report) : total_(total), report_(report) {}
  void Report(const std::string& job, double job_work, double share, double loss, double accuracy) {
    const std::lock_guard lock(mutex_);
    auto at = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& j) { return j.first == job; });
    if (at == jobs_.end()) at = jobs_.insert(jobs_.end(), {job, 0});
    done_ += job_work * share - at->second;
    at->second = job_work * share;
    if (report_) report_({std::min(done_ / total_, 1.), job, loss, accuracy});
  }

 private:
  std::mutex mutex_;
  const double total_;
  const std::function<void(const LadderProgress&)>& report_;
  std::vector<std::pair<std::string, double>> jobs_;
  double done_ = 0;
};

}  // namespace

std::string LadderRecipe(std::uint64_t seed, double scale) {
  std::string text = "ladder 3; scaled inputs; adam, warm-up .03, cosine; batch " + std::to_string(kBatch) +
                     "; slices " + std::to_string(kSlices) + "; seed " + std::to_string(seed) + "; effort " +
                     std::to_string(scale);
  for (const auto* jobs : {&kTeachers, &kStudents}) {
    for (const Job& job : *jobs) {
      text += "; " + job.file;
      for (const auto h : job.hidden) text += " " + std::to_string(h);
      text += " x" + std::to_string(job.epochs) + " rate " + std::to_string(job.rate);
    }
  }
  return text + "\n";
}

bool LadderIsTrained(const std::filesystem::path& dir, std::uint64_t seed, double scale) {
  const auto there = data::ReadFile(dir / kRecipeFile, limits::kMaxConfigBytes);
  return there.ok() && *there == LadderRecipe(seed, scale);
}

Result<std::vector<Rung>> TrainLadder(const std::shared_ptr<runtime::Engine>& engine, const data::Dataset& train,
                                      const data::Dataset& valid, const LadderOptions& options, std::stop_token stop,
                                      const std::function<void(const LadderProgress&)>& on_progress) {
  const std::int64_t classes = CountClasses(train);
  const std::int64_t features = train.features();
  const bool mirror = train.row_shape.size() == 2;
  const InputScale scale = ScaleOf(train.x.As<float>());
  const std::filesystem::path checkpoints = options.dir / "checkpoints";
  // What a ladder of another recipe or seed left here must not become part of this one.
  const auto recipe_file = options.dir / kRecipeFile;
  const std::string recipe = LadderRecipe(options.seed, options.scale);
  const auto there = data::ReadFile(recipe_file, limits::kMaxConfigBytes);
  if (!options.resume || !there.ok() || (*there != recipe + kBegun && *there != recipe)) {
    std::error_code ignored;
    std::filesystem::remove_all(checkpoints, ignored);
    for (const auto* jobs : {&kTeachers, &kStudents}) {
      for (const Job& job : *jobs) std::filesystem::remove(options.dir / job.file, ignored);
    }
  }
  RETURN_IF_ERROR(data::MakeDirectories(checkpoints));
  RETURN_IF_ERROR(data::WriteFileAtomically(recipe_file, recipe + kBegun));

  const auto slices = std::min(kSlices, Epochs(kStudents[0], options.scale));
  double total = 0;
  double labelling = 0;  // a forward pass is a third of a training step
  for (const Job& j : kTeachers) {
    const double cost = Cost(Sizes(j, features, classes));
    total += cost * static_cast<double>(Epochs(j, options.scale)) * static_cast<double>(train.rows());
    labelling += cost * static_cast<double>(slices * train.rows()) / 3;
  }
  total += labelling;
  for (const Job& j : kStudents)
    total += Cost(Sizes(j, features, classes)) * static_cast<double>(Epochs(j, options.scale) * train.rows());
  Meter meter(total, on_progress);

  std::mutex mutex;  // guards rungs and failure
  std::vector<Rung> rungs;
  Status failure;
  std::atomic<bool> failed = false;  // no new job is begun after a failure
  const auto run_jobs = [&](const std::vector<Job>& jobs, const Examples& examples, std::uint64_t seed_base) {
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
      for (;;) {
        const std::size_t i = next++;
        if (i >= jobs.size() || failed) return;
        const Job& job = jobs[i];
        const auto sizes = Sizes(job, features, classes);
        const double job_work = Cost(sizes) * static_cast<double>(Epochs(job, options.scale) * train.rows());
        const auto one = [&]() -> Result<Rung> {
          const auto path = options.dir / job.file;
          std::error_code ignored;
          if (options.resume && std::filesystem::exists(path, ignored)) {
            meter.Report(job.file, job_work, 1, 0, -1);
            return Rung{job.file, -1};
          }
          ASSIGN_OR_RETURN(const auto initial,
                           model::Model::FromBytes(job.file, MakePerceptron(sizes, seed_base + i, scale)));
          TrainOptions o;
          o.optimizer.rate = job.rate;
          o.batch = kBatch;
          o.epochs = Epochs(job, options.scale);
          o.seed = seed_base + i;
          o.checkpoint = checkpoints / (job.file + ".checkpoint");
          o.resume = options.resume;
          ASSIGN_OR_RETURN(const auto trained,
                           Train(engine, initial, examples, &valid, o, stop, [&](const Progress& p) {
                             meter.Report(job.file, job_work, p.done, p.loss, p.accuracy);
                           }));
          const auto bytes = trained.model.bytes();
          RETURN_IF_ERROR(data::WriteFileAtomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
          std::filesystem::remove(o.checkpoint, ignored);
          return Rung{job.file, trained.history.back().accuracy};
        };
        auto rung = one();
        const std::lock_guard lock(mutex);
        if (rung.ok()) {
          rungs.push_back(std::move(*rung));
        } else if (failure.ok()) {
          failure = rung.status();
          failed = true;
        }
      }
    };
    std::vector<std::jthread> threads;
    for (int t = 1; t < std::min<int>(options.threads, static_cast<int>(jobs.size())); ++t) threads.emplace_back(work);
    work();
  };

  ASSIGN_OR_RETURN(const auto labelled, LabelledExamples::Create(train, classes, mirror));
  run_jobs(kTeachers, *labelled, options.seed * 1000);
  RETURN_IF_ERROR(failure);

  std::vector<std::unique_ptr<runtime::Session>> teachers;
  std::vector<const runtime::Session*> pointers;
  for (const Job& job : kTeachers) {
    ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(options.dir / job.file));
    ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(job.file, std::move(bytes)));
    ASSIGN_OR_RETURN(auto session, runtime::Session::Create(engine, model));
    pointers.push_back(session.get());
    teachers.push_back(std::move(session));
  }
  ASSIGN_OR_RETURN(
      const auto distilled,
      DistilledExamples::Create(train, pointers, {slices, mirror, options.seed, options.threads}, stop,
                                [&](double share) { meter.Report("labels by global", labelling, share, 0, -1); }));
  run_jobs(kStudents, *distilled, options.seed * 1000 + 100);
  RETURN_IF_ERROR(failure);
  std::sort(rungs.begin(), rungs.end(), [](const Rung& a, const Rung& b) { return a.file < b.file; });
  std::error_code ignored;
  std::filesystem::remove(checkpoints, ignored);
  RETURN_IF_ERROR(data::WriteFileAtomically(recipe_file, recipe));
  return rungs;
}

}  // namespace ganglion::training
