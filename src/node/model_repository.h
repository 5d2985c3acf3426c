// A Triton model repository on disk: which models lie there, in which versions, and what their configurations say.
//
//   DIR/MODEL/config.pbtxt     optional; without it everything is as the model file says
//   DIR/MODEL/labels.txt       where an output names it as its label_filename
//   DIR/MODEL/1/model.onnx     a version is a directory named by a number from 1 up
//
// Of config.pbtxt: name, platform, backend, max_batch_size, input, output, version_policy, dynamic_batching,
// default_model_filename. What changes the meaning of a request or an answer and is not done here (reshape, ragged
// batches, sequences, ensembles, decoupled models, another backend) is the model's `problem`; other fields, such as
// instance_group, only say how Triton would run the model, and are passed over.
// A model with a problem stays in the list, so that an index can show it and why; the others are served.
// Shapes: with max_batch_size > 0 the batch dimension is not in the file's dims; specs here have it, as a leading -1.
// Ranges: max_batch_size >= 0 (0: the model does not batch, or the file does not say), versions >= 1.
// Errors: ReadModelRepository refuses only a directory that cannot be listed. Values; ONNX files are not opened.
// Source: Triton Inference Server, "Model Repository", "Model Configuration" and model_config.proto. Differs: a version
// called 0 and directories whose names begin with a dot are passed over, and a version chosen by the policy that lacks
// its file is a problem of the whole model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::node {

struct VersionPolicy {
  enum class Kind { kLatest, kAll, kSpecific };
  Kind kind = Kind::kLatest;
  std::int64_t latest = 1;             // of kLatest: how many of the highest
  std::vector<std::int64_t> specific;  // of kSpecific; those that are not there are passed over, as Triton does

  // Those of `existing` (ascending) to serve, ascending.
  std::vector<std::int64_t> Select(const std::vector<std::int64_t>& existing) const;
  bool operator==(const VersionPolicy&) const = default;
};

struct DynamicBatching {
  std::vector<std::int64_t> preferred_sizes;  // each from 1 to max_batch_size
  Duration max_delay{};                       // of max_queue_delay_microseconds
  bool operator==(const DynamicBatching&) const = default;
};

struct RepositoryVersion {
  std::int64_t version = 0;
  std::filesystem::path file;  // DIR/MODEL/VERSION/model.onnx
};

struct RepositoryModel {
  std::string name;  // of its directory
  std::filesystem::path dir;
  std::vector<RepositoryVersion> versions;  // those to serve, ascending
  std::int64_t max_batch_size = 0;
  std::vector<tensor::Spec> inputs;  // empty: the configuration names none, take the model file's
  std::vector<tensor::Spec> outputs;
  std::map<std::string, std::string> label_files;          // by output, as written
  std::map<std::string, std::vector<std::string>> labels;  // by output: a label for each class
  VersionPolicy version_policy;
  std::optional<DynamicBatching> dynamic_batching;
  std::string model_filename = "model.onnx";
  std::string problem;  // not empty: this model cannot be served, and why
};

// Every model of the repository, by name.
Result<std::vector<RepositoryModel>> ReadModelRepository(const std::filesystem::path& dir);

// What the text of a config.pbtxt says of the model `name`; all that is wrong goes to `problem`. Opens no file:
// versions and labels stay empty.
RepositoryModel ReadModelConfig(const std::string& name, const std::string& text);

}  // namespace ganglion::node
