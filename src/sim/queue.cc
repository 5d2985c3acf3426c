#include "sim/queue.h"

#include <utility>

#include "sim/node.h"

namespace ganglion::sim {

bool Queue::Enqueue(std::shared_ptr<Waiting> waiting) {
  const std::uint64_t id = next_id_++;
  if (!batcher_.Enqueue(id, waiting->rows, waiting->deadline, node_->now())) return false;
  waiting_.emplace(id, std::move(waiting));
  node_->invariants().Bound(node_->id(), "requests in a queue", waiting_.size(), node_->spec().batching.max_queue);
  Pump();
  return true;
}

void Queue::Pump() {
  if (waiting_.empty()) return;
  if (batcher_.ShouldRun(node_->now(), true)) {
    if (workers_ >= node_->executor().workers()) return;
    ++workers_;
    node_->executor().Post([this](const Then& then) { RunSome(then); });
    return;
  }
  const auto due = batcher_.NextAt();
  if (!due) return;
  const bool set = timer_at_ != TimePoint::max();
  if (node_->has(Mutation::kOneQueueTimer) ? set : timer_at_ <= *due) return;
  timer_at_ = *due;
  node_->executor().At(*due, [this, at = *due] {
    if (timer_at_ == at) timer_at_ = TimePoint::max();
    Pump();
  });
}

void Queue::RunSome(const Then& then) {
  auto batch = std::make_shared<Batch>();
  Batch expired;
  const TimePoint now = node_->now();
  batcher_.SetExpected(node_->has(Mutation::kRunExpired) ? Duration::zero() : times_->fastest(node_->news_at()));
  if (batcher_.ShouldRun(now, true)) {
    std::vector<std::uint64_t> late;
    const auto ids = batcher_.Take(now, &late);
    const auto take = [this](const std::vector<std::uint64_t>& from, Batch* to) {
      for (const std::uint64_t id : from) {
        const auto it = waiting_.find(id);
        to->push_back(std::move(it->second));
        waiting_.erase(it);
      }
    };
    take(ids, batch.get());
    take(late, node_->has(Mutation::kRunExpired) ? batch.get() : &expired);
  }
  for (const auto& w : expired) w->Expire();
  RunBatch(batch, 0, [this, then] {
    --workers_;
    Pump();
    then();
  });
}

void Queue::RunBatch(const std::shared_ptr<Batch>& batch, std::size_t first, const Then& then) {
  auto members = std::make_shared<Batch>();
  std::int64_t rows = 0;
  while (first < batch->size() && (members->empty() || times_->together())) {
    const auto& w = (*batch)[first++];
    if (!w->Collect()) continue;
    members->push_back(w);
    rows += w->rows;
  }
  if (members->empty()) return then();
  if (members->size() > 1) ++node_->invariants().counts().shared_runs;
  for (const auto& w : *members) w->Compute();
  const Duration takes = node_->Takes(decision_, stage_, rows);
  node_->executor().At(node_->now() + takes, [this, batch, first, members, rows, takes, then] {
    times_->Observe(takes, rows, node_->news_at());
    DeliverFrom(members, 0, !node_->broken(), takes, [this, batch, first, then] { RunBatch(batch, first, then); });
  });
}

void Queue::DeliverFrom(const std::shared_ptr<Batch>& members, std::size_t at, bool ok, Duration took,
                        const Then& then) {
  if (at == members->size()) return then();
  const auto& w = (*members)[at];
  w->Deliver(ok, took, [this, members, at, ok, took, then] { DeliverFrom(members, at + 1, ok, took, then); });
}

}  // namespace ganglion::sim
