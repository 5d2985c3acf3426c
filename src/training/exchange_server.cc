// A parameter server with bounded staleness: rank 0 keeps the parameters, ranks add what they moved.
//
//   a rank, in its step t:  moved = (theta - fetched) / live ranks; send; fetch when nobody live is more than S steps
//   behind
// Each rank's optimiser works on its own mean gradient, so that adaptive ones see the right scale; for SGD and momentum
// the sum of the moves is the step on the whole batch. With S = 0 everyone waits for everyone and fetches the
// parameters of exactly that step. Rank 0 trains, too; a thread of it serves each other rank. A rank that dies, or does
// not send for the timeout, is left out: the others' moves then weigh 1 / (live ranks). Messages, little endian: clock
// as i64 (steps done; -1: this rank has finished), then the moves as FP32; back: FP32 parameters. Source: Q. Ho et al.,
// "More effective distributed ML via a stale synchronous parallel parameter server", 2013.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>

#include "training/exchange_ways.h"

namespace ganglion::training {
namespace {

constexpr std::int64_t kFinished = -1;
constexpr std::int64_t kNoClock = std::numeric_limits<std::int64_t>::max();

// What all ranks share, kept by rank 0. A service.
class Parameters {
 public:
  using Snapshot = std::shared_ptr<const std::vector<float>>;

  Parameters(std::span<const float> initial, int ranks, int staleness)
      : staleness_(staleness),
        values_(initial.begin(), initial.end()),
        clocks_(static_cast<std::size_t>(ranks)),
        live_(static_cast<std::size_t>(ranks), true) {}

  // Adds what `rank` moved in its step that ends at `clock`, and waits until it may go on. Null: closed.
  Snapshot Push(int rank, std::int64_t clock, std::span<const float> moved) {
    std::unique_lock lock(mutex_);
    const float share = 1 / static_cast<float>(Live());
    for (std::size_t i = 0; i < values_.size(); ++i) values_[i] += share * moved[i];
    Advance(rank, clock);
    changed_.wait(lock, [&] { return closed_ || Slowest() >= clock - staleness_; });
    if (closed_) return nullptr;
    // Strictly in step: the parameters of the moment when the last one came. Nobody can have moved them on since,
    // for that takes this answer; with staleness it is whatever there is now.
    return staleness_ == 0 ? in_step_ : std::make_shared<const std::vector<float>>(values_);
  }

  // No more comes from `rank`. Waits until that holds for all; then the last parameters. Null: closed.
  Snapshot Finish(int rank) {
    std::unique_lock lock(mutex_);
    Advance(rank, kNoClock);
    changed_.wait(lock, [&] { return closed_ || Slowest() == kNoClock; });
    if (closed_) return nullptr;
    return std::make_shared<const std::vector<float>>(values_);
  }

  void Drop(int rank) {
    std::lock_guard lock(mutex_);
    if (clocks_[static_cast<std::size_t>(rank)] == kNoClock) return;
    live_[static_cast<std::size_t>(rank)] = false;
    lost_.push_back(rank);
    Advance(rank, kNoClock);
  }

  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  std::vector<int> lost() const {
    std::lock_guard lock(mutex_);
    return lost_;
  }

 private:
  std::int64_t Slowest() const { return *std::min_element(clocks_.begin(), clocks_.end()); }
  std::int64_t Live() const { return std::count(live_.begin(), live_.end(), true); }
  void Advance(int rank, std::int64_t clock) {
    const std::int64_t before = Slowest();
    clocks_[static_cast<std::size_t>(rank)] = clock;
    if (Slowest() == before) return;
    if (staleness_ == 0) in_step_ = std::make_shared<const std::vector<float>>(values_);
    changed_.notify_all();
  }

  const int staleness_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<float> values_;         // guarded by mutex_, as all that follows
  std::vector<std::int64_t> clocks_;  // steps done by each rank; kNoClock: finished or lost
  std::vector<bool> live_;            // not lost
  std::vector<int> lost_;
  Snapshot in_step_;
  bool closed_ = false;
};

class Server final : public ExchangeBase {
 public:
  Server(const ExchangeOptions& o, collective::Collective& c) : ExchangeBase(c), staleness_(o.staleness) {}

  ~Server() override {
    if (threads_.empty()) return;
    if (!finished_) {
      collective_.Abandon("it ended before its training did");
      shared_->Close();
      collective_.Close();
    }
    for (auto& t : threads_) t.join();
  }

  Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& segments) override {
    RETURN_IF_ERROR(ExchangeBase::Start(parameters, segments));
    fetched_.assign(parameters.begin(), parameters.end());
    moved_.resize(parameters.size());
    if (rank() != 0) return {};
    shared_ = std::make_unique<Parameters>(parameters, size(), staleness_);
    for (int worker = 1; worker < size(); ++worker) threads_.emplace_back([this, worker] { Serve(worker); });
    return {};
  }

  Status Average(std::span<float> gradients, float* loss) override {
    const auto ranks = static_cast<float>(size());
    for (float& g : gradients) g *= ranks;
    *loss *= ranks;
    return {};
  }

  Status AfterStep(std::span<float> parameters, std::int64_t /*step*/) override {
    for (std::size_t i = 0; i < moved_.size(); ++i) moved_[i] = parameters[i] - fetched_[i];
    if (const auto s = compress::CheckFinite(moved_); !s.ok()) {
      collective_.Abandon("its parameters are no longer finite");
      return FailedPrecondition("the parameters are no longer finite; lower the rate");
    }
    return Fetch(++clock_, moved_, parameters);
  }

  Status Finish(std::span<float> parameters) override {
    RETURN_IF_ERROR(Fetch(kFinished, {}, parameters));
    finished_ = true;
    for (auto& t : threads_) t.join();  // each worker has had its answer, or is lost
    threads_.clear();
    collective_.Leave();
    return {};
  }

  std::vector<int> lost() const override { return shared_ ? shared_->lost() : std::vector<int>{}; }

 private:
  // Sends `moved` (or that this rank has finished) and takes over the parameters that come back.
  Status Fetch(std::int64_t clock, std::span<const float> moved, std::span<float> parameters) {
    if (rank() == 0) {
      const auto now = clock == kFinished ? shared_->Finish(0) : shared_->Push(0, clock, moved);
      if (!now) return Cancelled("the parameter server was closed");
      std::copy(now->begin(), now->end(), parameters.begin());
    } else {
      std::string bytes(8 + moved.size() * 4, '\0');
      std::memcpy(bytes.data(), &clock, 8);
      if (!moved.empty()) std::memcpy(bytes.data() + 8, moved.data(), moved.size() * 4);
      RETURN_IF_ERROR(collective_.Send(0, bytes));
      // Rank 0 may first have to find out that another rank is gone, which takes it the timeout. At the end it answers
      // when all have finished, however far behind they are.
      const Duration patience =
          clock == kFinished ? std::chrono::hours(24 * 7) : 2 * collective_.timeout() + std::chrono::seconds(1);
      ASSIGN_OR_RETURN(const std::string answer, collective_.Receive(0, patience));
      if (answer.size() != parameters.size() * 4)
        return DataLoss("rank 0 has sent " + std::to_string(answer.size()) + " bytes of parameters, wanted " +
                        std::to_string(parameters.size() * 4));
      std::memcpy(parameters.data(), answer.data(), answer.size());
    }
    std::copy(parameters.begin(), parameters.end(), fetched_.begin());
    return {};
  }

  // A thread of rank 0: one worker's messages until it has finished or is lost.
  void Serve(int worker) {
    std::vector<float> moved(moved_.size());
    for (;;) {
      const auto bytes = collective_.Receive(worker);
      std::int64_t clock = 0;
      if (bytes.ok() && bytes->size() >= 8) std::memcpy(&clock, bytes->data(), 8);
      const bool last = clock == kFinished;
      if (!bytes.ok() || bytes->size() != 8 + (last ? 0 : moved.size() * 4) || (clock < 1 && !last)) break;
      if (!last) std::memcpy(moved.data(), bytes->data() + 8, moved.size() * 4);
      if (!compress::CheckFinite(moved).ok()) break;
      const auto now = last ? shared_->Finish(worker) : shared_->Push(worker, clock, moved);
      if (!now) return;
      const auto sent =
          collective_.Send(worker, {reinterpret_cast<const char*>(now->data()), now->size() * sizeof(float)});
      if (last) return;
      if (!sent.ok()) break;
    }
    shared_->Drop(worker);
  }

  const int staleness_;
  std::int64_t clock_ = 0;
  std::vector<float> fetched_;
  std::vector<float> moved_;
  std::unique_ptr<Parameters> shared_;  // rank 0
  std::vector<std::thread> threads_;    // rank 0
};

}  // namespace

std::unique_ptr<Exchange> MakeServer(const ExchangeOptions& o, collective::Collective& c) {
  return std::make_unique<Server>(o, c);
}

}  // namespace ganglion::training
