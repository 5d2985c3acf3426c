// A Step is one session that computes the loss and all gradients of a fixed batch, and the memory around it.
//
// Intuition: everything a training run touches a thousand times a second lies still: inputs, target, parameters and
// gradients are buffers that are bound once. A training loop fills the batch, runs, and moves the parameters.
//
// Parameters are one flat vector with named segments, gradients another in the same order: what optimisers, exchanges
// and federated rounds work on. Statistics (running means and variances of BatchNormalization) are a second one, which
// no gradient moves: KeepStatistics takes over what the last Run made of them.
//
// Shapes: inputs and target as the model and the loss say, their first dimension the batch. A model whose other
// dimensions are open ([-1,3,-1,-1]) needs `row_shapes`; the trained model keeps its open dimensions.
// Thread-compatible. The same numbers give the same bits on one machine (one thread computes).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "gradient/gradient.h"
#include "model/model.h"
#include "optimizer/optimizer.h"
#include "runtime/runtime.h"
#include "tensor/tensor.h"

namespace ganglion::training {

struct StepOptions {
  gradient::Options gradient;
  std::int64_t batch = 1;
  // One row of each input, in the model's order; empty: the model says everything itself.
  std::vector<tensor::Shape> row_shapes;
};

class Step {
 public:
  static Result<std::unique_ptr<Step>> Create(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                                              const StepOptions& options);
  static Result<std::unique_ptr<Step>> Create(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                                              gradient::Loss loss, std::int64_t batch);

  std::int64_t batch() const { return options_.batch; }
  // The model's inputs that the loss depends on.
  const std::vector<tensor::Spec>& input_specs() const { return input_specs_; }
  tensor::MutableView input(std::size_t i) { return inputs_[i].Mutable(); }
  std::span<float> x() { return inputs_[0].As<float>(); }  // the first input. REQUIRES: FP32
  const tensor::Spec& target_spec() const { return target_spec_; }
  tensor::MutableView target() { return target_.Mutable(); }  // as the loss wants it
  // True classes beside a teacher's answers (distillation with a share of hard labels).
  bool has_label() const { return has_label_; }
  tensor::MutableView label() { return label_.Mutable(); }
  // The classes (or values) that the loss is taken over: the last dimension of the model's output; 0 where it is open.
  std::int64_t classes() const { return classes_; }

  std::span<float> weight() { return weight_.As<float>(); }  // [batch], 1/batch to begin with
  // Rows 0 .. rows-1 count `each`, those after them nothing. Where the model has statistics, the next Run computes
  // these rows alone, so that what a shorter batch leaves over does not get into them.
  Status Weigh(std::int64_t rows, float each);

  std::span<float> parameters() { return parameters_.As<float>(); }
  std::span<float> gradients() { return gradients_.As<float>(); }
  const std::vector<gradient::Segment>& segments() const { return step_.parameters; }
  std::span<float> statistics() { return statistics_.As<float>(); }
  const std::vector<gradient::Segment>& statistic_segments() const { return step_.statistics; }
  // What a proximal term pulls to; the starting parameters to begin with. Empty without one.
  std::span<float> anchors() { return anchors_.As<float>(); }
  float loss() const { return loss_.As<float>()[0]; }

  // Fresh uniform numbers for dropout.
  void DrawNoise(Random random);
  bool has_noise() const { return !step_.noise.empty(); }
  // loss() and gradients() of what all buffers hold now.
  Status Run();
  void KeepStatistics();

  // Biases and the parameters of normalisations, as ranges of the flat vector: what weight decay leaves out.
  const std::vector<optimizer::Range>& undecayed() const { return undecayed_; }
  // The model with the current parameters and statistics.
  Result<model::Model> Snapshot(const std::string& name) const;
  // Which number is the first that is not finite, in the order of computation: "parameter \"w1\" (nan at element 3)",
  // "input \"x\"", "\"fc2_out\" of node 3 \"fc2\" (Gemm)". Runs the step once more with every value as an output: slow.
  std::string WhatIsNotFinite(const std::shared_ptr<runtime::Engine>& engine);

 private:
  Step() = default;
  Status Allocate(const model::Signature& step_signature);
  Result<runtime::Binding> Bind(std::int64_t rows);
  std::string ValueNotFinite(const std::shared_ptr<runtime::Engine>& engine);

  StepOptions options_;
  std::string model_bytes_;
  std::unique_ptr<runtime::Session> session_;
  gradient::StepModel step_;
  std::vector<tensor::Spec> input_specs_;
  tensor::Spec target_spec_;
  std::int64_t classes_ = 0;
  bool has_label_ = false;
  std::vector<tensor::Tensor> inputs_;
  std::vector<tensor::Tensor> noise_;
  tensor::Tensor target_, label_, weight_, parameters_, gradients_, anchors_, loss_;
  tensor::Tensor statistics_, next_statistics_;
  std::vector<optimizer::Range> undecayed_;
  std::optional<runtime::Binding> binding_;
  std::optional<runtime::Binding> tail_;  // of the first tail_rows_ rows
  std::int64_t tail_rows_ = 0;
  std::int64_t rows_ = 0;  // that count; 0: all
};

// The names that `patterns` mean: a pattern is a name, or a name with * for anything ("layer1.*").
// Refuses a pattern that no name matches.
Result<std::vector<std::string>> MatchNames(const std::vector<std::string>& patterns,
                                            const std::vector<std::string>& names);
// The names of a model's FP32 initializers of rank >= 1, in its order.
Result<std::vector<std::string>> ParameterNames(const model::Model& model);

}  // namespace ganglion::training
