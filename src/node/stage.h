// A Stage turns a decision's inputs into logits: an optional pre graph, a model or an ensemble, an optional post graph.
//
//   inputs -> [pre] -> model            -> [post] -> z [rows, classes], and its own confidence where it has one
//                   -> ensemble members -> mean of softmax -> [post]
// or to the scores of another server (remote_stage.h), or to the answer of a rule, where the stage is made of rules: z
// is 1 for its class, and the confidence of its own is infinite, so that it is accepted at any threshold; where no rule
// holds it is -1, accepted at none; or to the scores of an online model (online_stage.h). Graphs are joined by tensor
// names; a graph with one input of another name takes the first output of the graph before it, or the decision's only
// input. z are logits: where the last graph ends in a Softmax, and for ensembles, z = log p.
//
// What does not fit together is found when the stage is loaded, by running it once on zeros.
// A service; const members are thread-safe.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "crypto/crypto.h"
#include "node/decision_file.h"
#include "node/online_stage.h"
#include "node/remote_stage.h"
#include "rules/rules.h"
#include "runtime/runtime.h"
#include "tensor/tensor.h"

namespace ganglion::node {

struct StageFile {
  std::string file;
  std::string role;  // "pre", "model" (also of an ensemble's members), "post", "rules", "online", "server"
  crypto::Digest digest;
  bool operator==(const StageFile&) const = default;
};

class Stage {
 public:
  static Result<std::unique_ptr<Stage>> Load(const std::shared_ptr<runtime::Engine>& engine,
                                             const DecisionConfig& config, std::size_t index,
                                             const RemoteConnect& connect = nullptr);
  ~Stage();

  const StageConfig& config() const { return config_; }
  // Every file the stage is made of, in the order pre, models, post.
  const std::vector<StageFile>& files() const { return files_; }
  // 0 for rules until SetClasses: they know the classes that they name, not how many there are.
  std::size_t classes() const { return classes_; }
  // REQUIRES: is_rules(). Refuses when a rule answers a class that is not there.
  Status SetClasses(std::size_t classes);
  bool is_rules() const { return rules_.has_value(); }
  const rules::RuleSet& rules() const { return *rules_; }      // REQUIRES: is_rules()
  OnlineStage* online() const { return online_.get(); }        // nullptr: does not learn
  const RemoteStage* remote() const { return remote_.get(); }  // nullptr: computed here

  struct Scores {
    std::size_t rows = 0;
    std::vector<float> z;           // [rows, classes]
    std::vector<float> confidence;  // [rows], empty unless the stage has its own
  };
  // Any number of rows; inputs in the order of the decision's. Allocates.
  Result<Scores> Score(std::span<const tensor::View> inputs) const;
  // The same for requests: in one run where rows_independent(), row by row otherwise.
  Result<Scores> ScoreTogether(std::span<const tensor::View> inputs) const;
  // Whether rows get the same numbers together as alone, but for rounding (1e-4 of the largest). Tried when the stage
  // was loaded, on random rows. Dynamic quantisation, for one, makes rows depend on each other.
  bool rows_independent() const { return rows_independent_; }

  // Memory and bindings for one row at a time: the hot path. Thread-compatible.
  class Lane {
   public:
    ~Lane();
    // REQUIRES: inputs match the decision's specs, one row. Copies them in and runs.
    Status Run(std::span<const tensor::View> inputs) {
      Load(inputs);
      return Run();
    }
    // The two halves: after Load the inputs are not needed any more.
    void Load(std::span<const tensor::View> inputs);
    Status Run();
    std::span<const float> z() const { return z_; }
    std::optional<float> confidence() const;

   private:
    friend class Stage;
    Lane();
    const Stage* stage_ = nullptr;
    std::vector<tensor::Tensor> slots_;
    std::vector<runtime::Binding> bindings_;
    std::vector<float> z_;
    float own_ = -1;                               // of rules
    std::optional<OnlineStage::Scratch> scratch_;  // of online models
  };
  // Nothing where a row's shape is not fixed by the decision file: then Score is the only way.
  std::unique_ptr<Lane> MakeLane() const;

 private:
  Stage() = default;
  // One graph of the stage: which slots it reads; its outputs become the slots from first_output on.
  struct Graph {
    std::unique_ptr<runtime::Session> session;
    std::vector<std::size_t> reads;
    std::size_t first_output = 0;
    bool member = false;  // of an ensemble
    bool probabilities = false;
  };
  Status AddGraph(const std::shared_ptr<runtime::Engine>& engine, const DecisionConfig& config, const std::string& file,
                  const char* role);
  Status DryRun(const DecisionConfig& config);
  void FixRow(const DecisionConfig& config);
  Status LoadRules(const DecisionConfig& config);
  Status LoadOnline(const DecisionConfig& config);
  Status LoadRemote(const DecisionConfig& config, const RemoteConnect& connect);
  Result<Scores> ScoreOnline(std::span<const tensor::View> inputs) const;
  Result<Scores> ScoreRemote(std::span<const tensor::View> inputs) const;
  bool TryRowsTogether(const DecisionConfig& config) const;
  Scores ScoreRules(std::span<const tensor::View> inputs) const;
  Status ScoreChunk(std::span<const tensor::View> inputs, std::int64_t begin, std::int64_t end, std::span<float> z,
                    std::span<float> confidence) const;
  void ToLogits(std::span<const float> scores, std::span<float> z) const;

  StageConfig config_;
  std::vector<StageFile> files_;
  std::vector<tensor::Spec> slot_specs_;    // inputs, then outputs of each graph, then the ensemble's mean
  std::vector<tensor::Shape> slot_shapes_;  // of one row, as the dry run found them
  std::vector<bool> needed_;                // slots that are read later
  std::vector<std::size_t> at_hand_;        // slots the next graph may read by position
  std::vector<Graph> graphs_;
  std::optional<rules::RuleSet> rules_;
  std::unique_ptr<OnlineStage> online_;
  std::unique_ptr<RemoteStage> remote_;
  std::size_t inputs_ = 0;
  std::optional<std::size_t> mean_slot_;  // ensemble
  std::size_t score_slot_ = 0;
  std::optional<std::size_t> confidence_slot_;
  bool probabilities_ = false;
  bool batches_ = true;
  bool rows_independent_ = false;
  bool fixed_row_ = true;
  std::size_t classes_ = 0;

  friend class Lane;
};

}  // namespace ganglion::node
