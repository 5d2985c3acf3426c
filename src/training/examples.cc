#include "training/examples.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>

#include "base/limits.h"
#include "crypto/crypto.h"
#include "stats/softmax.h"

namespace ganglion::training {
namespace {

void Mirror(std::span<float> x, std::int64_t width) {
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(width)) {
    std::reverse(x.begin() + static_cast<std::ptrdiff_t>(row), x.begin() + static_cast<std::ptrdiff_t>(row) + width);
  }
}

// The width of an image row, or 0 where rows are not images of one channel.
std::int64_t ImageWidth(const data::Dataset& d) { return d.row_shape.size() == 2 ? d.row_shape[1] : 0; }

}  // namespace

std::int64_t CountClasses(const data::Dataset& dataset) {
  int top = 0;
  for (const int y : dataset.labels) top = std::max(top, y);
  return top + 1;
}

Result<std::unique_ptr<LabelledExamples>> LabelledExamples::Create(const data::Dataset& dataset, std::int64_t classes,
                                                                   bool mirror) {
  if (dataset.labels.empty()) return InvalidArgument("training needs labels");
  if (CountClasses(dataset) > classes) {
    return InvalidArgument("label " + std::to_string(CountClasses(dataset) - 1) + " is out of range: the model has " +
                           std::to_string(classes) + " classes");
  }
  if (mirror && ImageWidth(dataset) == 0) return InvalidArgument("only images of one channel can be mirrored");
  std::unique_ptr<LabelledExamples> e(new LabelledExamples);
  e->dataset_ = &dataset;
  e->classes_ = classes;
  e->mirror_width_ = mirror ? ImageWidth(dataset) : 0;
  e->fingerprint_ = "labels " + data::DigestOf(dataset).Hex() + " classes " + std::to_string(classes) + " mirror " +
                    std::to_string(e->mirror_width_);
  return e;
}

void LabelledExamples::Fill(std::int64_t i, std::int64_t, Random& random, std::span<float> x,
                            std::span<float> target) const {
  const auto row = dataset_->Row(i);
  std::copy(row.begin(), row.end(), x.begin());
  if (mirror_width_ > 0 && random.Below(2) == 1) Mirror(x, mirror_width_);
  std::fill(target.begin(), target.end(), 0.f);
  target[static_cast<std::size_t>(dataset_->labels[static_cast<std::size_t>(i)])] = 1;
}

Result<std::unique_ptr<DistilledExamples>> DistilledExamples::Create(
    const data::Dataset& dataset, const std::vector<const runtime::Session*>& teachers, const Options& options,
    std::stop_token stop, const std::function<void(double)>& progress) {
  if (teachers.empty()) return InvalidArgument("distillation needs a teacher");
  for (const auto* t : teachers) {
    const auto& out = t->signature().outputs[0].shape;
    if (out.size() != 2 || out[1] < 1 || out[1] != teachers[0]->signature().outputs[0].shape.back() ||
        out[1] > limits::kMaxClasses) {
      return InvalidArgument(t->name() + ": a teacher gives FP32[-1,classes], this one " + t->signature().Text());
    }
  }
  if (options.mirror && ImageWidth(dataset) == 0) return InvalidArgument("only images of one channel can be mirrored");
  if (!(options.mixtures >= 0 && options.mixtures <= 1))
    return InvalidArgument("the share of mixtures must be in [0, 1], got " + std::to_string(options.mixtures));
  if (!(options.label_share >= 0 && options.label_share <= 1))
    return InvalidArgument("the share of labels must be in [0, 1], got " + std::to_string(options.label_share));
  if (options.label_share > 0 &&
      (dataset.labels.empty() || CountClasses(dataset) > teachers[0]->signature().outputs[0].shape.back()))
    return InvalidArgument("a share of labels needs labels that the teachers know");
  std::unique_ptr<DistilledExamples> e(new DistilledExamples);
  e->dataset_ = &dataset;
  e->classes_ = teachers[0]->signature().outputs[0].shape.back();
  e->width_ = std::max<std::int64_t>(ImageWidth(dataset), 1);
  Random random(options.seed);
  const auto rows = static_cast<std::uint64_t>(dataset.rows());
  const std::int64_t count = options.slices * dataset.rows();
  for (std::int64_t k = 0; k < count; ++k) {
    Recipe r;
    r.first = static_cast<std::int32_t>(static_cast<std::uint64_t>(k) % rows);
    r.mirror_first = options.mirror && random.Below(2) == 1;
    // A share of each slice, other rows in the next: at one half every row is seen both ways.
    const double j = static_cast<double>(k + k / dataset.rows());
    if (std::floor((j + 1) * options.mixtures) > std::floor(j * options.mixtures)) {
      r.second = static_cast<std::int32_t>(random.Below(rows));
      r.mirror_second = options.mirror && random.Below(2) == 1;
      r.lambda = static_cast<float>(random.Uniform());
    }
    e->recipes_.push_back(r);
  }
  const auto classes = static_cast<std::size_t>(e->classes_);
  const auto features = static_cast<std::size_t>(dataset.features());
  e->targets_.assign(e->recipes_.size() * classes, 0.f);

  constexpr std::int64_t kBatch = 256;
  const std::int64_t batches = (count + kBatch - 1) / kBatch;
  std::atomic<std::int64_t> next = 0;
  std::mutex mutex;  // guards failure and the calls of progress
  Status failure;
  std::int64_t done = 0;
  const auto work = [&] {
    tensor::Tensor x = tensor::Tensor::Zeros(tensor::DataType::kFp32, {kBatch, dataset.features()}).value();
    for (;;) {
      const std::int64_t b = next++;
      if (b >= batches || stop.stop_requested()) return;
      const std::int64_t begin = b * kBatch;
      const std::int64_t n = std::min(kBatch, count - begin);
      for (std::int64_t i = 0; i < n; ++i) {
        e->Mix(e->recipes_[static_cast<std::size_t>(begin + i)],
               x.As<float>().subspan(static_cast<std::size_t>(i) * features, features));
      }
      tensor::Shape shape;
      const tensor::View view = tensor::Rows(x.View(), 0, n, &shape);
      for (const auto* teacher : teachers) {
        const auto out = teacher->Run({&view, 1});
        if (!out.ok()) {
          const std::lock_guard lock(mutex);
          failure = out.status();
          next = batches;  // the others stop too
          return;
        }
        const auto logits = (*out)[0].As<float>();
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
          stats::AddSoftmax(logits.subspan(i * classes, classes), 1.f / static_cast<float>(teachers.size()),
                            std::span(e->targets_).subspan((static_cast<std::size_t>(begin) + i) * classes, classes));
        }
      }
      const std::lock_guard lock(mutex);
      if (++done % 16 == 0 || done == batches) progress(static_cast<double>(done) / static_cast<double>(batches));
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t < options.threads; ++t) threads.emplace_back(work);
    work();
  }
  RETURN_IF_ERROR(failure);
  if (stop.stop_requested()) return Cancelled("stopped while the teacher labelled the pool");
  e->MixLabels(options.label_share);
  crypto::Sha256Stream stream;
  stream.Add(std::as_bytes(std::span(e->targets_)));
  e->fingerprint_ = "distilled " + data::DigestOf(dataset).Hex() + " seed " + std::to_string(options.seed) +
                    " mirror " + std::to_string(options.mirror) + " targets " + stream.Finish().Hex();
  return e;
}

void DistilledExamples::MixLabels(double share) {
  if (share == 0) return;
  const auto classes = static_cast<std::size_t>(classes_);
  const auto h = static_cast<float>(share);
  for (std::size_t k = 0; k < recipes_.size(); ++k) {
    const Recipe& r = recipes_[k];
    const auto target = std::span(targets_).subspan(k * classes, classes);
    for (float& t : target) t *= 1 - h;
    const auto label = [&](std::int32_t row) {
      return static_cast<std::size_t>(dataset_->labels[static_cast<std::size_t>(row)]);
    };
    target[label(r.first)] += h * r.lambda;
    if (r.lambda != 1) target[label(r.second)] += h * (1 - r.lambda);
  }
}

void DistilledExamples::Mix(const Recipe& r, std::span<float> x) const {
  const auto first = dataset_->Row(r.first);
  std::copy(first.begin(), first.end(), x.begin());
  if (r.mirror_first) Mirror(x, width_);
  if (r.lambda == 1) return;
  const auto second = dataset_->Row(r.second);
  const auto width = static_cast<std::size_t>(width_);
  const float rest = 1 - r.lambda;
  if (!r.mirror_second) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = r.lambda * x[i] + rest * second[i];
  } else {
    for (std::size_t row = 0; row < x.size(); row += width) {
      for (std::size_t c = 0; c < width; ++c) x[row + c] = r.lambda * x[row + c] + rest * second[row + width - 1 - c];
    }
  }
}

void DistilledExamples::Fill(std::int64_t i, std::int64_t epoch, Random&, std::span<float> x,
                             std::span<float> target) const {
  const auto k = static_cast<std::size_t>(epoch * dataset_->rows() + i) % recipes_.size();
  Mix(recipes_[k], x);
  const auto from = std::span(targets_).subspan(k * target.size(), target.size());
  std::copy(from.begin(), from.end(), target.begin());
}

}  // namespace ganglion::training
