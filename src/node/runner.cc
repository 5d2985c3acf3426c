#include "node/runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/random.h"
#include "node/stage.h"

namespace ganglion::node {

using tensor::DataType;
using tensor::Tensor;

void Runner::Observe(Duration took, std::int64_t rows, TimePoint now) const {
  counts_.runs.fetch_add(1, std::memory_order_relaxed);
  counts_.rows.fetch_add(static_cast<std::uint64_t>(rows), std::memory_order_relaxed);
  counts_.run_ns.fetch_add(static_cast<std::uint64_t>(took.count()), std::memory_order_relaxed);
  fastest_.Observe(took, now);
  const std::int64_t ns = std::max<std::int64_t>(took.count(), 1);  // races lose an observation
  const std::int64_t usual = usual_ns_.load(std::memory_order_relaxed);
  usual_ns_.store(usual == 0 ? ns : usual + (ns - usual) / 8, std::memory_order_relaxed);
}

struct StageRunner::Lanes {
  static constexpr std::size_t kKept = 16;
  bool possible = false;
  Guarded<std::vector<std::unique_ptr<Stage::Lane>>> idle;
};

StageRunner::StageRunner(const Stage& stage) : stage_(stage), lanes_(std::make_unique<Lanes>()) {
  if (auto lane = stage_.MakeLane()) {
    lanes_->possible = true;
    lanes_->idle.With([&](auto& idle) { idle.push_back(std::move(lane)); });
  }
}
StageRunner::~StageRunner() = default;

Result<std::vector<Tensor>> StageRunner::Run(std::span<const tensor::View> inputs) const {
  const auto classes = static_cast<std::int64_t>(stage_.classes());
  if (lanes_->possible && inputs[0].shape[0] == 1) {
    auto lane = lanes_->idle.With([](auto& idle) -> std::unique_ptr<Stage::Lane> {
      if (idle.empty()) return nullptr;
      auto last = std::move(idle.back());
      idle.pop_back();
      return last;
    });
    if (lane == nullptr) lane = stage_.MakeLane();
    const Status ran = lane->Run(inputs);
    std::vector<Tensor> out;
    if (ran.ok()) {
      out.push_back(Tensor::From<float>({1, classes}, lane->z()).value());
      if (const auto own = lane->confidence()) out.push_back(Tensor::From<float>({1}, std::span(&*own, 1)).value());
    }
    lanes_->idle.With([&](auto& idle) {
      if (idle.size() < Lanes::kKept) idle.push_back(std::move(lane));
    });
    if (!ran.ok()) return ran;
    return out;
  }
  ASSIGN_OR_RETURN(auto scores, stage_.ScoreTogether(inputs));
  std::vector<Tensor> out;
  const auto rows = static_cast<std::int64_t>(scores.rows);
  ASSIGN_OR_RETURN(auto z, Tensor::From<float>({rows, classes}, scores.z));
  out.push_back(std::move(z));
  if (!scores.confidence.empty()) {
    ASSIGN_OR_RETURN(auto own, Tensor::From<float>({rows}, scores.confidence));
    out.push_back(std::move(own));
  }
  return out;
}

bool StageRunner::together() const { return stage_.rows_independent(); }

ModelRunner::ModelRunner(std::unique_ptr<runtime::Session> session) : session_(std::move(session)) {
  together_ = TryTogether();
}

bool ModelRunner::TryTogether() const {
  const auto& signature = session_->signature();
  for (const auto* specs : {&signature.inputs, &signature.outputs}) {
    for (const auto& spec : *specs) {
      if (spec.shape.empty() || spec.shape[0] != -1) return false;
    }
  }
  Random random(20261124);
  std::vector<Tensor> two;
  std::vector<std::vector<Tensor>> one(2);
  for (const auto& spec : signature.inputs) {
    tensor::Shape shape = spec.shape;
    for (auto& d : shape) d = d == -1 ? 1 : d;
    shape[0] = 2;
    auto t = Tensor::Zeros(spec.type, shape);
    if (!t.ok()) return false;
    if (t->type() == DataType::kFp32) {
      for (float& v : t->As<float>()) v = static_cast<float>(random.Uniform());
    }
    for (std::int64_t row = 0; row < 2; ++row) {
      tensor::Shape row_shape;
      const tensor::View view = tensor::Rows(t->View(), row, row + 1, &row_shape);
      auto r = Tensor::FromBytes(view.type, row_shape, view.bytes);
      if (!r.ok()) return false;
      one[static_cast<std::size_t>(row)].push_back(std::move(*r));
    }
    two.push_back(std::move(*t));
  }
  const auto run = [&](const std::vector<Tensor>& tensors) {
    std::vector<tensor::View> views;
    views.reserve(tensors.size());
    for (const auto& t : tensors) views.push_back(t.View());
    const TimePoint began = std::chrono::steady_clock::now();
    auto out = session_->Run(views);
    const TimePoint end = std::chrono::steady_clock::now();
    Observe(end - began, static_cast<std::int64_t>(tensors[0].shape()[0]), end);
    return out;
  };
  const auto together = run(two);
  if (!together.ok()) return false;
  for (std::int64_t row = 0; row < 2; ++row) {
    const auto alone = run(one[static_cast<std::size_t>(row)]);
    if (!alone.ok()) return false;
    for (std::size_t i = 0; i < alone->size(); ++i) {
      const Tensor& a = (*alone)[i];
      const Tensor& t = (*together)[i];
      if (t.shape().empty() || t.shape()[0] != 2 || a.type() == DataType::kBytes ||
          a.size_bytes() * 2 != t.size_bytes())
        return false;
      const auto part = t.View().bytes.subspan(static_cast<std::size_t>(row) * a.size_bytes(), a.size_bytes());
      if (a.type() != DataType::kFp32) {
        if (std::memcmp(part.data(), a.View().bytes.data(), part.size()) != 0) return false;
        continue;
      }
      const auto* b = reinterpret_cast<const float*>(part.data());
      const auto alone_values = a.As<float>();
      float largest = 1e-3f;
      float difference = 0;
      for (std::size_t k = 0; k < alone_values.size(); ++k) {
        largest = std::max(largest, std::abs(alone_values[k]));
        difference = std::max(difference, std::abs(alone_values[k] - b[k]));
      }
      if (!(difference <= 1e-4f * largest)) return false;
    }
  }
  return true;
}

BatchQueue::BatchQueue(const Runner* runner, Executor* executor, batching::Batcher batcher,
                       std::function<void(std::int64_t)> on_batch)
    : runner_(runner), executor_(executor), on_batch_(std::move(on_batch)), state_(std::move(batcher)) {}

std::size_t BatchQueue::depth() const {
  return state_.With([](const State& s) { return s.waiting.size(); });
}

bool BatchQueue::Enqueue(std::shared_ptr<Waiting> waiting, const std::shared_ptr<const void>& owner) {
  const TimePoint now = std::chrono::steady_clock::now();
  waiting->enqueued = now;
  const std::int64_t rows = waiting->rows();
  const TimePoint deadline = waiting->deadline;
  const bool queued = state_.With([&](State& s) {
    const std::uint64_t id = s.next_id++;
    if (!s.batcher.Enqueue(id, rows, deadline, now)) return false;
    s.waiting.emplace(id, std::move(waiting));
    return true;
  });
  if (queued) Pump(owner);
  return queued;
}

// Sees to it that somebody takes what may run: a worker now, or a timer when the oldest must not wait longer.
void BatchQueue::Pump(const std::shared_ptr<const void>& owner) {
  const TimePoint now = std::chrono::steady_clock::now();
  enum class Next { kNothing, kWorker, kTimer } next = Next::kNothing;
  TimePoint at{};
  state_.With([&](State& s) {
    if (s.waiting.empty()) return;
    if (s.batcher.ShouldRun(now, true)) {
      if (s.workers >= executor_->workers()) return;
      ++s.workers;
      next = Next::kWorker;
    } else {
      const auto due = s.batcher.NextAt();
      if (!due || *due >= s.timer) return;
      s.timer = at = *due;
      next = Next::kTimer;
    }
  });
  if (next == Next::kWorker) {
    executor_->Post([this, owner] { RunSome(owner); });
  } else if (next == Next::kTimer) {
    executor_->At(at, [this, owner] {
      state_.With([](State& s) { s.timer = TimePoint::max(); });
      Pump(owner);
    });
  }
}

// One batch; then the queue takes its turn behind the others.
void BatchQueue::RunSome(const std::shared_ptr<const void>& owner) {
  std::vector<std::shared_ptr<Waiting>> batch;
  std::vector<std::shared_ptr<Waiting>> expired;
  const TimePoint now = std::chrono::steady_clock::now();
  state_.With([&](State& s) {
    s.batcher.SetExpected(runner_->fastest(now));
    if (!s.batcher.ShouldRun(now, true)) return;
    std::vector<std::uint64_t> late;
    const auto ids = s.batcher.Take(now, &late);
    const auto take = [&s](const std::vector<std::uint64_t>& from, std::vector<std::shared_ptr<Waiting>>* to) {
      for (const std::uint64_t id : from) {
        const auto it = s.waiting.find(id);
        to->push_back(std::move(it->second));
        s.waiting.erase(it);
      }
    };
    take(ids, &batch);
    take(late, &expired);
  });
  for (const auto& w : expired) w->Expire();
  if (!batch.empty()) RunBatch(batch);
  state_.With([](State& s) { --s.workers; });
  Pump(owner);
}

void BatchQueue::RunBatch(const std::vector<std::shared_ptr<Waiting>>& batch) {
  // Rows that differ in more than their number cannot share a run; nor where the model forbids it.
  std::vector<char> done(batch.size(), 0);
  for (std::size_t first = 0; first < batch.size(); ++first) {
    if (done[first]) continue;
    std::vector<std::size_t> members;
    std::vector<std::vector<std::byte>> buffers;
    std::int64_t rows = 0;
    const auto fits = [&](const Waiting& w) {
      if (w.shapes.size() != batch[first]->shapes.size()) return false;
      for (std::size_t i = 0; i < w.shapes.size(); ++i) {
        const auto& a = w.shapes[i];
        const auto& b = batch[first]->shapes[i];
        if (a.size() != b.size() || a.empty() || !std::equal(a.begin() + 1, a.end(), b.begin() + 1)) return false;
      }
      return true;
    };
    for (std::size_t i = first; i < batch.size(); ++i) {
      if (done[i] || (i > first && (!runner_->together() || !fits(*batch[i])))) continue;
      done[i] = 1;
      if (!batch[i]->Collect(&buffers)) continue;
      members.push_back(i);
      rows += batch[i]->rows();
      if (!runner_->together()) break;
    }
    if (members.empty()) continue;
    const Waiting& head = *batch[members[0]];
    std::vector<tensor::Shape> shapes = head.shapes;
    std::vector<tensor::View> views;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      if (members.size() > 1) shapes[i][0] = rows;
      views.push_back({head.types[i], shapes[i], buffers[i]});
    }
    const TimePoint began = std::chrono::steady_clock::now();
    auto outputs = runner_->Run(views);
    const TimePoint end = std::chrono::steady_clock::now();
    runner_->Observe(end - began, rows, end);
    if (on_batch_) on_batch_(rows);
    if (members.size() == 1) {
      batch[members[0]]->Deliver(std::move(outputs), began - batch[members[0]]->enqueued);
      continue;
    }
    std::int64_t at = 0;
    for (const std::size_t m : members) {
      const std::int64_t n = batch[m]->rows();
      if (!outputs.ok()) {
        batch[m]->Deliver(outputs.status(), began - batch[m]->enqueued);
        continue;
      }
      std::vector<Tensor> part;
      Status split;
      for (const auto& t : *outputs) {
        tensor::Shape shape;
        const tensor::View view = tensor::Rows(t.View(), at, at + n, &shape);
        auto copy = Tensor::FromBytes(view.type, shape, view.bytes);
        if (copy.ok()) {
          part.push_back(std::move(*copy));
        } else {
          split = copy.status();
        }
      }
      at += n;
      batch[m]->Deliver(split.ok() ? Result<std::vector<Tensor>>(std::move(part)) : Result<std::vector<Tensor>>(split),
                        began - batch[m]->enqueued);
    }
  }
}

}  // namespace ganglion::node
