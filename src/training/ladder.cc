#include "training/ladder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>

#include "data/file.h"
#include "training/convnet.h"
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
  std::vector<std::vector<std::int64_t>> blocks = {};  // of convolutions before the hidden layers; none: a perceptron
  float dropout = 0;
};

struct Recipe {
  std::string name;  // changes when anything does that the jobs do not show
  std::vector<Job> teachers;
  std::vector<Job> students;
  std::int64_t slices = 8;
};

const Recipe kPerceptrons{
    "ladder 4",
    {
        {"global-a.onnx", {512, 512}, 1e-3, 12},
        {"global-b.onnx", {512, 512}, 1e-3, 12},
        {"global-c.onnx", {512, 512}, 1e-3, 12},
    },
    {
        {"region.onnx", {512, 512}, 1.5e-3, 24},
        {"edge.onnx", {192, 96}, 2e-3, 30},
        {"device.onnx", {128}, 3e-3, 40},
    },
};
const Recipe kConvolutional{
    "convolutional ladder 3",
    {
        {"global-a.onnx", {256}, 1.5e-3, 14, {{32}, {64}}, .4f},
        {"global-b.onnx", {256}, 1.5e-3, 14, {{32}, {64}}, .4f},
        {"global-c.onnx", {256}, 1.5e-3, 14, {{32}, {64}}, .4f},
    },
    {
        {"region.onnx", {128}, 2e-3, 16, {{16}, {32}}},
        {"edge.onnx", {192, 96}, 2e-3, 30},
        {"device.onnx", {128}, 3e-3, 40},
    },
    4,
};
constexpr char kRecipeFile[] = "recipe.txt";
constexpr char kBegun[] = "begun, not finished\n";
constexpr std::int64_t kBatch = 128;
constexpr std::int64_t kKernel = 3;

const Recipe& RecipeOf(LadderKind kind) { return kind == LadderKind::kConvolutional ? kConvolutional : kPerceptrons; }

std::int64_t Epochs(const Job& job, double scale) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::lround(static_cast<double>(job.epochs) * scale)));
}

// What the rows are, as far as the shape of a model depends on it.
struct Images {
  std::int64_t height = 1;  // 1 x features for rows that are no images
  std::int64_t width = 1;
  std::int64_t classes = 0;
  InputScale scale;
};

// Multiplications of one example's forward pass: what work is measured in.
double Cost(const Job& job, const Images& images) {
  std::int64_t cost = 0;
  std::int64_t channels = 1;
  std::int64_t height = images.height;
  std::int64_t width = images.width;
  for (const auto& block : job.blocks) {
    for (const auto out : block) {
      cost += height * width * channels * out * kKernel * kKernel;
      channels = out;
    }
    height /= 2;
    width /= 2;
  }
  std::int64_t features = channels * height * width;
  for (const auto h : job.hidden) {
    cost += features * h;
    features = h;
  }
  return static_cast<double>(cost + features * images.classes);
}

Result<std::string> MakeModel(const Job& job, const Images& images, std::uint64_t seed) {
  if (job.blocks.empty()) {
    std::vector<std::int64_t> sizes{images.height * images.width};
    sizes.insert(sizes.end(), job.hidden.begin(), job.hidden.end());
    sizes.push_back(images.classes);
    return MakePerceptron(sizes, seed, images.scale);
  }
  ConvNetSpec spec;
  spec.height = images.height;
  spec.width = images.width;
  spec.blocks = job.blocks;
  spec.kernel = kKernel;
  spec.dense = job.hidden;
  spec.classes = images.classes;
  spec.dropout = job.dropout;
  spec.scale = images.scale;
  return MakeConvNet(spec, seed);
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

std::string LadderRecipe(LadderKind kind, std::uint64_t seed, double scale) {
  const Recipe& recipe = RecipeOf(kind);
  std::string text = recipe.name + "; scaled inputs; adam, warm-up .03, cosine; batch " + std::to_string(kBatch) +
                     "; slices " + std::to_string(recipe.slices) + "; seed " + std::to_string(seed) + "; effort " +
                     std::to_string(scale);
  for (const auto* jobs : {&recipe.teachers, &recipe.students}) {
    for (const Job& job : *jobs) {
      text += "; " + job.file;
      for (const auto& block : job.blocks) {
        text += " [";
        for (const auto c : block) text += " " + std::to_string(c);
        text += " ]";
      }
      for (const auto h : job.hidden) text += " " + std::to_string(h);
      if (job.dropout > 0) text += " dropout " + std::to_string(job.dropout);
      text += " x" + std::to_string(job.epochs) + " rate " + std::to_string(job.rate);
    }
  }
  return text + "\n";
}

bool LadderIsTrained(const std::filesystem::path& dir, LadderKind kind, std::uint64_t seed, double scale) {
  const auto there = data::ReadFile(dir / kRecipeFile, limits::kMaxConfigBytes);
  return there.ok() && *there == LadderRecipe(kind, seed, scale);
}

Result<std::vector<Rung>> TrainLadder(const std::shared_ptr<runtime::Engine>& engine, const data::Dataset& train,
                                      const data::Dataset& valid, const LadderOptions& options, std::stop_token stop,
                                      const std::function<void(const LadderProgress&)>& on_progress) {
  const Recipe& plan = RecipeOf(options.kind);
  const std::int64_t classes = CountClasses(train);
  const bool mirror = train.row_shape.size() == 2;
  if (options.kind == LadderKind::kConvolutional && !mirror)
    return InvalidArgument("the convolutional ladder takes images [height, width], the rows are " +
                           tensor::ShapeText(train.row_shape));
  const Images images{mirror ? train.row_shape[0] : 1, mirror ? train.row_shape[1] : train.features(), classes,
                      ScaleOf(train.x.As<float>())};
  const std::filesystem::path checkpoints = options.dir / "checkpoints";
  // What a ladder of another recipe or seed left here must not become part of this one.
  const auto recipe_file = options.dir / kRecipeFile;
  const std::string recipe = LadderRecipe(options.kind, options.seed, options.scale);
  const auto there = data::ReadFile(recipe_file, limits::kMaxConfigBytes);
  if (!options.resume || !there.ok() || (*there != recipe + kBegun && *there != recipe)) {
    std::error_code ignored;
    std::filesystem::remove_all(checkpoints, ignored);
    for (const auto* jobs : {&plan.teachers, &plan.students}) {
      for (const Job& job : *jobs) std::filesystem::remove(options.dir / job.file, ignored);
    }
  }
  RETURN_IF_ERROR(data::MakeDirectories(checkpoints));
  RETURN_IF_ERROR(data::WriteFileAtomically(recipe_file, recipe + kBegun));

  const auto slices = std::min(plan.slices, Epochs(plan.students[0], options.scale));
  double total = 0;
  double labelling = 0;  // a forward pass is a third of a training step
  for (const Job& j : plan.teachers) {
    const double cost = Cost(j, images);
    total += cost * static_cast<double>(Epochs(j, options.scale)) * static_cast<double>(train.rows());
    labelling += cost * static_cast<double>(slices * train.rows()) / 3;
  }
  total += labelling;
  for (const Job& j : plan.students)
    total += Cost(j, images) * static_cast<double>(Epochs(j, options.scale) * train.rows());
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
        const double job_work = Cost(job, images) * static_cast<double>(Epochs(job, options.scale) * train.rows());
        const auto one = [&]() -> Result<Rung> {
          const auto path = options.dir / job.file;
          std::error_code ignored;
          if (options.resume && std::filesystem::exists(path, ignored)) {
            meter.Report(job.file, job_work, 1, 0, -1);
            return Rung{job.file, -1};
          }
          ASSIGN_OR_RETURN(auto bytes_of_initial, MakeModel(job, images, seed_base + i));
          ASSIGN_OR_RETURN(const auto initial, model::Model::FromBytes(job.file, std::move(bytes_of_initial)));
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
  run_jobs(plan.teachers, *labelled, options.seed * 1000);
  RETURN_IF_ERROR(failure);

  std::vector<std::unique_ptr<runtime::Session>> teachers;
  std::vector<const runtime::Session*> pointers;
  for (const Job& job : plan.teachers) {
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
  run_jobs(plan.students, *distilled, options.seed * 1000 + 100);
  RETURN_IF_ERROR(failure);
  std::sort(rungs.begin(), rungs.end(), [](const Rung& a, const Rung& b) { return a.file < b.file; });
  std::error_code ignored;
  std::filesystem::remove(checkpoints, ignored);
  RETURN_IF_ERROR(data::WriteFileAtomically(recipe_file, recipe));
  return rungs;
}

}  // namespace ganglion::training
