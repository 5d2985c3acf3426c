// For tests and fuzz targets: a Service that answers with a request's inputs as its outputs, and remembers what it was
// asked.
//
// A test says what happens to the next requests: an answer at once, an answer from another thread, a refusal, no answer
// until told (`Release`), or a call that is dropped. Every model exists but those named "absent...". A service;
// thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "net/service.h"

namespace ganglion::net {

// What a request was, after its buffer has gone.
struct SeenRequest {
  std::string model, version, id;
  wire::Parameters parameters;
  std::vector<wire::InferOutput> inputs;  // those in shared memory are empty
  std::vector<wire::RequestedOutput> outputs;
  CallContext context;
};

class RecordingService final : public Service {
 public:
  enum class Mode { kEcho, kEchoLater, kFail, kHold, kDrop };

  // Remembers the first `keep` of each kind of question.
  explicit RecordingService(std::size_t keep = 100'000) : keep_(keep), later_([this] { AnswerLater(); }) {}
  ~RecordingService() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    later_.join();
    ReleaseAll();
  }

  void SetMode(Mode mode) {
    std::lock_guard lock(mutex_);
    mode_ = mode;
  }
  void FailWith(Status failure, std::optional<Duration> retry_after = {}) {
    std::lock_guard lock(mutex_);
    mode_ = Mode::kFail;
    failure_ = std::move(failure);
    retry_after_ = retry_after;
  }
  // From now on callers need a token: "operator" may do everything, "user" may infer.
  void RequireTokens() {
    std::lock_guard lock(mutex_);
    tokens_ = true;
  }
  void SetReady(bool live, bool ready) {
    std::lock_guard lock(mutex_);
    live_ = live;
    ready_ = ready;
  }

  std::vector<SeenRequest> seen() const {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  SeenRequest last() const {
    std::lock_guard lock(mutex_);
    return seen_.empty() ? SeenRequest() : seen_.back();
  }
  // "load m", "register r /k 8 64", "stats m 2" and so on, in order.
  std::vector<std::string> asked() const {
    std::lock_guard lock(mutex_);
    return asked_;
  }
  std::size_t held() const {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  std::size_t most_held() const {
    std::lock_guard lock(mutex_);
    return most_held_;
  }
  // False when that did not happen within half a minute.
  bool WaitForHeld(std::size_t count) {
    return WaitFor([&] { return held_.size() >= count; });
  }
  bool WaitForSeen(std::size_t count) {
    return WaitFor([&] { return seen_.size() >= count; });
  }
  // Answers held requests, the newest first or the oldest first.
  void Release(std::size_t count, bool newest_first = false) {
    for (std::size_t i = 0; i < count; ++i) {
      std::unique_ptr<InferCall> call;
      {
        std::lock_guard lock(mutex_);
        if (held_.empty()) return;
        if (newest_first) {
          call = std::move(held_.back());
          held_.pop_back();
        } else {
          call = std::move(held_.front());
          held_.pop_front();
        }
      }
      Echo(*call);
    }
  }
  void ReleaseAll() {
    SetMode(Mode::kEcho);
    while (held() > 0) Release(1);
  }

  void Infer(std::unique_ptr<InferCall> call) override {
    Mode mode;
    Status failure;
    {
      std::lock_guard lock(mutex_);
      if (seen_.size() < keep_) seen_.push_back(Copy(*call));
      mode = mode_;
      failure = failure_;
      call->retry_after = retry_after_;
      if (mode == Mode::kHold) {
        held_.push_back(std::move(call));
        most_held_ = std::max(most_held_, held_.size());
      } else if (mode == Mode::kEchoLater) {
        queue_.push_back(std::move(call));
      }
    }
    changed_.notify_all();
    if (mode == Mode::kEcho) Echo(*call);
    if (mode == Mode::kFail) call->Finish(failure);
  }

  Status Allow(const CallContext& context, Role needed) const override {
    std::lock_guard lock(mutex_);
    if (!tokens_ || context.token == "operator") return {};
    if (context.token != "user") return Unauthenticated("no token, or one that is not known");
    return needed == Role::kInfer ? Status() : PermissionDenied("token may infer, not operate");
  }
  bool Live() const override {
    std::lock_guard lock(mutex_);
    return live_;
  }
  bool Ready() const override {
    std::lock_guard lock(mutex_);
    return ready_;
  }
  bool ModelReady(const std::string& model, const std::string& version) const override {
    Ask("ready " + model + " " + version);
    return !Absent(model);
  }
  wire::ServerMetadata ServerMetadata() const override {
    return {"recorder", "7", {"statistics", "binary_tensor_data"}};
  }
  // "two" has two inputs.
  Result<wire::ModelMetadata> ModelMetadata(const std::string& model, const std::string& version) const override {
    Ask("metadata " + model + " " + version);
    if (Absent(model)) return NotFound("no model \"" + model + "\"");
    wire::ModelMetadata m{model, {"1"}, "onnxruntime_onnx", {{"x", tensor::DataType::kFp32, {-1, 2}}}, {}};
    m.outputs = m.inputs;
    if (model == "two") m.inputs.push_back({"y", tensor::DataType::kBytes, {-1}});
    return m;
  }
  Result<wire::ModelConfig> ModelConfig(const std::string& model, const std::string& version) const override {
    Ask("config " + model + " " + version);
    if (Absent(model)) return NotFound("no model \"" + model + "\"");
    const std::vector<tensor::Spec> specs{{"x", tensor::DataType::kFp32, {2}}, {"s", tensor::DataType::kBytes, {1}}};
    return wire::ModelConfig{model, "onnxruntime_onnx", "onnxruntime", 8, specs, specs};
  }
  Result<std::vector<wire::ModelStatistics>> Statistics(const std::string& model,
                                                        const std::string& version) const override {
    Ask("stats " + model + " " + version);
    if (Absent(model)) return NotFound("no model \"" + model + "\"");
    wire::ModelStatistics s;
    s.name = model.empty() ? "m" : model;
    s.version = "1";
    s.inference_count = 5;
    s.execution_count = 3;
    s.success = {3, 1234};
    return std::vector<wire::ModelStatistics>{s};
  }
  std::vector<wire::RepositoryEntry> RepositoryIndex(bool only_ready) const override {
    Ask(only_ready ? "index ready" : "index");
    std::vector<wire::RepositoryEntry> all{{"m", "1", "READY", ""}};
    if (!only_ready) all.push_back({"broken", "1", "UNAVAILABLE", "no file \"model.onnx\""});
    return all;
  }
  void Load(const std::string& model, std::function<void(Status)> done) override {
    Ask("load " + model);
    done(Absent(model) ? NotFound("no model \"" + model + "\"") : Status());
  }
  void Unload(const std::string& model, std::function<void(Status)> done) override {
    Ask("unload " + model);
    done(Absent(model) ? NotFound("no model \"" + model + "\"") : Status());
  }
  Result<std::vector<wire::SharedMemoryRegion>> SharedMemoryStatus(const std::string& name) const override {
    std::lock_guard lock(mutex_);
    std::vector<wire::SharedMemoryRegion> found;
    for (const auto& r : regions_) {
      if (name.empty() || r.name == name) found.push_back(r);
    }
    if (!name.empty() && found.empty()) return NotFound("no region \"" + name + "\"");
    return found;
  }
  Status RegisterSharedMemory(const wire::SharedMemoryRegion& region) override {
    std::lock_guard lock(mutex_);
    for (const auto& r : regions_) {
      if (r.name == region.name) return {Code::kAlreadyExists, "region \"" + region.name + "\" is registered"};
    }
    regions_.push_back(region);
    return {};
  }
  Status UnregisterSharedMemory(const std::string& name) override {
    std::lock_guard lock(mutex_);
    std::erase_if(regions_, [&](const auto& r) { return name.empty() || r.name == name; });
    return {};
  }
  std::string MetricsText() const override { return "# TYPE recorded counter\nrecorded 1\n"; }
  std::string StatusJson() const override { return R"({"node":"recorder"})"; }

 private:
  static bool Absent(const std::string& model) { return model.rfind("absent", 0) == 0; }
  static SeenRequest Copy(const InferCall& call) {
    const wire::InferRequest& q = call.request;
    SeenRequest seen{q.model, q.version, q.id, q.parameters, {}, q.outputs, call.context};
    for (const auto& in : q.inputs) seen.inputs.push_back(OutputOf(in));
    return seen;
  }
  static wire::InferOutput OutputOf(const wire::InferInput& in) {
    wire::InferOutput out{in.name, {}, in.shared};
    if (in.shared) return out;
    auto copy = tensor::Tensor::FromBytes(in.type, in.shape, in.bytes);
    GANGLION_CHECK(copy.ok());  // what a front passes on has been checked
    out.tensor = *std::move(copy);
    return out;
  }
  static void Echo(InferCall& call) {
    const wire::InferRequest& q = call.request;
    wire::InferResponse response{q.model, q.version.empty() ? "1" : q.version, q.id, q.parameters, {}};
    for (const auto& in : q.inputs) {
      if (!in.shared) response.outputs.push_back(OutputOf(in));
    }
    call.Finish(std::move(response));
  }
  void AnswerLater() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const auto call = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      Echo(*call);
      lock.lock();
    }
  }
  template <typename Condition>
  bool WaitFor(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), condition);
  }
  void Ask(std::string what) const {
    std::lock_guard lock(mutex_);
    if (asked_.size() < keep_) asked_.push_back(std::move(what));
  }

  const std::size_t keep_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Mode mode_ = Mode::kEcho;
  Status failure_;
  std::optional<Duration> retry_after_;
  bool tokens_ = false;
  bool live_ = true;
  bool ready_ = true;
  bool stop_ = false;
  std::vector<SeenRequest> seen_;
  mutable std::vector<std::string> asked_;
  std::deque<std::unique_ptr<InferCall>> held_;
  std::size_t most_held_ = 0;
  std::deque<std::unique_ptr<InferCall>> queue_;
  std::vector<wire::SharedMemoryRegion> regions_;
  std::thread later_;  // last: it uses the others
};

}  // namespace ganglion::net
