// runtime: models on ONNX Runtime, the only engine.
//
//   Engine   the process's one ONNX Runtime environment; create it in main and pass it on
//   Session  a loaded model; Run is thread-safe
//   Binding  a session with its input and output memory fixed: what a hot loop runs, without allocation of ours
//
// Errors of the runtime come back as Status with the model's name; nothing throws. ONNX Runtime's C interface is used
// because the C++ one throws.
// One thread computes a run unless SessionOptions says otherwise: at the batch sizes of a decision, waking a second
// thread costs more than it brings, and results stay the same to the bit.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/model.h"
#include "tensor/tensor.h"

struct OrtApi;
struct OrtEnv;
struct OrtSession;
struct OrtValue;

namespace ganglion::runtime {

// A service. Keep it alive as long as its sessions (they share ownership).
class Engine {
 public:
  static Result<std::shared_ptr<Engine>> Create();
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // "1.30.0"
  static std::string Version();

 private:
  friend class Session;
  friend class Binding;
  Engine() = default;
  OrtEnv* env_ = nullptr;
};

struct SessionOptions {
  int threads = 1;
  // kBasic leaves layouts alone: right for training graphs, whose parameters change every step.
  enum class Optimise { kBasic, kAll } optimise = Optimise::kAll;
};

// A session with fixed memory. The views given to Session::Bind must outlive it. Thread-compatible: one at a time.
class Binding {
 public:
  Binding(Binding&&) noexcept;
  Binding& operator=(Binding&&) noexcept;
  ~Binding();

  // Reads the input views, writes the output views. Allocates nothing of its own.
  Status Run();

 private:
  friend class Session;
  struct Impl;
  explicit Binding(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct NamedView {
  std::string name;
  tensor::View view;
};
struct NamedMutableView {
  std::string name;
  tensor::MutableView view;
};

// A service; all const members are thread-safe.
class Session {
 public:
  static Result<std::unique_ptr<Session>> Create(std::shared_ptr<Engine> engine, const model::Model& model,
                                                 SessionOptions options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const model::Signature& signature() const { return signature_; }
  const std::string& name() const { return name_; }

  // Inputs in the order of signature().inputs; gives all outputs. Allocates.
  Result<std::vector<tensor::Tensor>> Run(std::span<const tensor::View> inputs) const;

  // Fixes memory for later runs. Names must be inputs and outputs of the model; outputs not named are not computed.
  Result<Binding> Bind(const std::vector<NamedView>& inputs, const std::vector<NamedMutableView>& outputs) const;

 private:
  Session() = default;
  std::shared_ptr<Engine> engine_;
  OrtSession* session_ = nullptr;
  model::Signature signature_;
  std::string name_;
};

}  // namespace ganglion::runtime
