// Examples are what a training run draws from: number them, fill one in.
//
// Targets are always a probability distribution over the classes: one-hot for a label, a teacher's answer for
// distillation. One loss (dense softmax cross-entropy) then serves both.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "data/dataset.h"
#include "model/model.h"
#include "runtime/runtime.h"

namespace ganglion::training {

// An interface; const means callable from many threads.
class Examples {
 public:
  virtual ~Examples() = default;
  virtual std::int64_t count() const = 0;
  virtual std::int64_t features() const = 0;
  virtual std::int64_t classes() const = 0;
  // Names the examples: two runs on examples of the same fingerprint see the same numbers.
  virtual std::string Fingerprint() const = 0;
  // Writes example `i` as it is seen in `epoch` (from 0), and its target. `random` is the run's own stream: what is
  // random about an example (a mirroring) is drawn from it, so that a seed repeats the run.
  virtual void Fill(std::int64_t i, std::int64_t epoch, Random& random, std::span<float> x,
                    std::span<float> target) const = 0;
};

// Rows of a data set and their labels. With `mirror`, images are mirrored left to right half of the time.
class LabelledExamples final : public Examples {
 public:
  // Refuses a data set without labels, and `mirror` on rows that are not images. The data set must outlive it.
  static Result<std::unique_ptr<LabelledExamples>> Create(const data::Dataset& dataset, std::int64_t classes,
                                                          bool mirror);

  std::int64_t count() const override { return dataset_->rows(); }
  std::int64_t features() const override { return dataset_->features(); }
  std::int64_t classes() const override { return classes_; }
  std::string Fingerprint() const override { return fingerprint_; }
  void Fill(std::int64_t i, std::int64_t epoch, Random& random, std::span<float> x,
            std::span<float> target) const override;

 private:
  LabelledExamples() = default;
  const data::Dataset* dataset_ = nullptr;
  std::int64_t classes_ = 0;
  std::int64_t mirror_width_ = 0;  // 0: never mirror
  std::string fingerprint_;
};

// Images labelled by a teacher (knowledge distillation).
//
// Intuition: on its own training rows a teacher is almost always sure and right, so its answers there say little more
// than the labels. Half of the pool are therefore mixtures of two images, where the teacher hesitates; a student that
// agrees with it there agrees with it on hard inputs later, and that agreement is what a cascade's promise is about.
//
// Definition. The pool holds `slices` versions of every row. Example k is x = m(x_i), i = k mod rows, m a random
// mirroring; for half of them (Options::mixtures) it is lambda m(x_i) + (1 - lambda) m(x_j), lambda uniform in [0, 1],
// j uniform. Mixtures make for agreement with the teacher; a small student is more often right without. The target is
// the mean of the teachers' softmax. An epoch sees one slice, the slices in turn. All draws come from `seed`, so the
// images need not be kept: memory is slices * rows * (classes + 4) * 4 bytes. Source: G. Hinton et al., "Distilling the
// Knowledge in a Neural Network", 2015 (temperature 1); mixtures as in H. Zhang et al., "mixup", 2018, but labelled by
// the teacher instead of mixed labels.
class DistilledExamples final : public Examples {
 public:
  struct Options {
    std::int64_t slices = 1;
    bool mirror = true;
    std::uint64_t seed = 0;
    int threads = 1;         // the result is the same for any number
    double mixtures = .5;    // share of the pool, in [0, 1]
    double label_share = 0;  // of the target, in [0, 1]; above 0 the rows need labels
  };
  // Runs every teacher over the pool. `progress` gets the share done, from one thread at a time.
  static Result<std::unique_ptr<DistilledExamples>> Create(const data::Dataset& dataset,
                                                           const std::vector<const runtime::Session*>& teachers,
                                                           const Options& options, std::stop_token stop,
                                                           const std::function<void(double)>& progress);

  std::int64_t count() const override { return dataset_->rows(); }
  std::int64_t features() const override { return dataset_->features(); }
  std::int64_t classes() const override { return classes_; }
  std::string Fingerprint() const override { return fingerprint_; }
  void Fill(std::int64_t i, std::int64_t epoch, Random& random, std::span<float> x,
            std::span<float> target) const override;

 private:
  struct Recipe {
    std::int32_t first = 0;
    std::int32_t second = 0;
    float lambda = 1;
    bool mirror_first = false;
    bool mirror_second = false;
  };
  DistilledExamples() = default;
  void Mix(const Recipe& r, std::span<float> x) const;
  void MixLabels(double share);

  const data::Dataset* dataset_ = nullptr;
  std::int64_t classes_ = 0;
  std::int64_t width_ = 1;
  std::vector<Recipe> recipes_;
  std::vector<float> targets_;
  std::string fingerprint_;
};

// The classes a labelled data set has: its largest label + 1.
std::int64_t CountClasses(const data::Dataset& dataset);

}  // namespace ganglion::training
