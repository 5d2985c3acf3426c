// Backup workers: of n ranks' gradients of a step the first n - B count, and nobody waits for the others.
//
// Intuition: with many machines one is always slow; a few more than needed, and the slowest do not matter.
//
// Rank 0 gathers. When n - B gradients of a step are there, their sum times n / (n - B), which estimates the batch's
// gradient, is the step's result and goes to every rank, in the order of steps. A gradient that comes later is dropped.
// All ranks make the same updates from the same results, so parameters and optimiser state stay equal everywhere: a
// late rank catches up by taking the results that wait for it, without computing (Wanted is false then). Rank 0 keeps
// results until all have them; a rank that lags by more than longest_lag steps is waited for, so that memory stays
// bounded. A rank that dies or takes no result for the timeout is left out; with fewer than n - B ranks left, training
// ends. Messages to rank 0, little endian: step as i64 (-1: finished), loss as FP32, gradient as FP32. From rank 0:
// step as i64
// (-1: the end, -2: a reason follows as text), loss, gradient.
// Source: J. Chen et al., "Revisiting distributed synchronous SGD", 2016, section 3.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "training/exchange_ways.h"

namespace ganglion::training {
namespace {

constexpr std::int64_t kEnd = -1;
constexpr std::int64_t kReason = -2;
constexpr std::size_t kHead = 12;

using Message = std::shared_ptr<const std::string>;

std::string Encode(std::int64_t step, float loss, std::span<const float> gradient) {
  std::string bytes(kHead + gradient.size() * 4, '\0');
  std::memcpy(bytes.data(), &step, 8);
  std::memcpy(bytes.data() + 8, &loss, 4);
  if (!gradient.empty()) std::memcpy(bytes.data() + kHead, gradient.data(), gradient.size() * 4);
  return bytes;
}

std::int64_t StepOf(const std::string& bytes) {
  std::int64_t step = kReason;
  if (bytes.size() >= kHead) std::memcpy(&step, bytes.data(), 8);
  return step;
}

// Of a message that has the right length.
void Decode(const std::string& bytes, std::span<float> gradient, float* loss) {
  std::memcpy(loss, bytes.data() + 8, 4);
  std::memcpy(gradient.data(), bytes.data() + kHead, gradient.size() * 4);
}

// The step that is being gathered and the results that not all have yet. Rank 0's. A service.
class Gathering {
 public:
  Gathering(int ranks, int backup, int longest_lag, std::size_t parameters)
      : needed_(ranks - backup),
        longest_lag_(longest_lag),
        scale_(static_cast<float>(ranks) / static_cast<float>(needed_)),
        sum_(parameters),
        next_(static_cast<std::size_t>(ranks)),
        live_(static_cast<std::size_t>(ranks), true) {}

  // A gradient; dropped when its step is closed.
  void Give(std::int64_t step, float loss, std::span<const float> gradient) {
    std::unique_lock lock(mutex_);
    // A rank ahead of the gathering cannot be: it has had the results before. Full: the result waits for a laggard.
    if (step != step_ || given_ >= needed_) return;
    for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] += gradient[i];
    loss_ += loss;
    ++given_;
    MayClose();
  }

  // Waits for the next result for `rank`, which had all before. Null: there is none and will be none.
  Message Take(int rank) {
    std::unique_lock lock(mutex_);
    const auto r = static_cast<std::size_t>(rank);
    changed_.wait(lock, [&] { return closed_ || !failure_.ok() || !live_[r] || next_[r] < step_ || ended_; });
    if (closed_ || !failure_.ok() || !live_[r] || next_[r] == step_) return nullptr;
    Message m = results_[static_cast<std::size_t>(next_[r] - first_)];
    return m;
  }
  // `rank` has it.
  void Taken(int rank) {
    std::lock_guard lock(mutex_);
    ++next_[static_cast<std::size_t>(rank)];
    Forget();
    MayClose();
  }

  bool Waits(int rank) const {
    std::lock_guard lock(mutex_);
    return next_[static_cast<std::size_t>(rank)] == step_;
  }

  void Drop(int rank) {
    std::lock_guard lock(mutex_);
    if (!live_[static_cast<std::size_t>(rank)]) return;
    live_[static_cast<std::size_t>(rank)] = false;
    lost_.push_back(rank);
    const auto live = std::count(live_.begin(), live_.end(), true);
    if (live < needed_ && !ended_) {
      failure_ = Unavailable("only " + std::to_string(live) + " ranks are left, and every step needs " +
                             std::to_string(needed_) + "; lost: rank " + Names());
    }
    Forget();
    MayClose();
    changed_.notify_all();
  }

  // Rank 0 has made its last step: what waits is the rest.
  void End() {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  Status failure() const {
    std::lock_guard lock(mutex_);
    return failure_;
  }
  std::vector<int> lost() const {
    std::lock_guard lock(mutex_);
    return lost_;
  }

 private:
  std::string Names() const {
    std::string names;
    for (const int r : lost_) names += (names.empty() ? "" : ", ") + std::to_string(r);
    return names;
  }
  std::int64_t Slowest() const {
    std::int64_t slowest = step_;
    for (std::size_t r = 0; r < next_.size(); ++r) {
      if (live_[r]) slowest = std::min(slowest, next_[r]);
    }
    return slowest;
  }
  void MayClose() {
    if (given_ < needed_ || step_ - Slowest() >= longest_lag_) return;
    for (float& v : sum_) v *= scale_;
    results_.push_back(std::make_shared<const std::string>(Encode(step_, loss_ * scale_, sum_)));
    std::fill(sum_.begin(), sum_.end(), 0.F);
    loss_ = 0;
    given_ = 0;
    ++step_;
    changed_.notify_all();
  }
  void Forget() {
    for (; !results_.empty() && first_ < Slowest(); ++first_) results_.pop_front();
  }

  const int needed_;
  const int longest_lag_;
  const float scale_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t step_ = 0;  // guarded by mutex_, as all that follows: being gathered
  int given_ = 0;
  float loss_ = 0;
  std::vector<float> sum_;
  std::deque<Message> results_;  // of steps first_ .. step_ - 1
  std::int64_t first_ = 0;
  std::vector<std::int64_t> next_;  // the step whose result each rank wants next
  std::vector<bool> live_;
  std::vector<int> lost_;
  Status failure_;
  bool ended_ = false;
  bool closed_ = false;
};

// Results that have come to a rank and that it has not used yet. A service.
class Inbox {
 public:
  // Waits while two are there: more would only move the queue from rank 0 to here. False: closed.
  bool Room() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || messages_.size() < 2; });
    return !closed_;
  }
  void Put(Result<std::string> message) {
    std::lock_guard lock(mutex_);
    messages_.push_back(std::move(message));
    changed_.notify_all();
  }
  bool empty() const {
    std::lock_guard lock(mutex_);
    return messages_.empty();
  }
  Result<std::string> Get() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !messages_.empty(); });
    if (messages_.empty()) return Cancelled("the exchange was closed");
    Result<std::string> m = std::move(messages_.front());
    messages_.pop_front();
    changed_.notify_all();
    return m;
  }
  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Result<std::string>> messages_;  // guarded by mutex_, as closed_
  bool closed_ = false;
};

class Backup final : public ExchangeBase {
 public:
  Backup(const ExchangeOptions& o, collective::Collective& c) : ExchangeBase(c), options_(o) {}

  ~Backup() override {
    if (!finished_) {
      collective_.Abandon("it ended before its training did");
      if (gathering_) gathering_->Close();
      inbox_.Close();
      collective_.Close();
    }
    for (auto& t : threads_) t.join();
  }

  Status Start(std::span<float> parameters, const std::vector<gradient::Segment>& segments) override {
    RETURN_IF_ERROR(ExchangeBase::Start(parameters, segments));
    parameters_ = parameters.size();
    if (rank() == 0) {
      gathering_ = std::make_unique<Gathering>(size(), options_.backup, options_.longest_lag, parameters_);
      for (int worker = 1; worker < size(); ++worker) {
        threads_.emplace_back([this, worker] { Gather(worker); });
        threads_.emplace_back([this, worker] { Distribute(worker); });
      }
    } else {
      threads_.emplace_back([this] { Listen(); });
    }
    return {};
  }

  bool Wanted() override { return rank() == 0 ? gathering_->Waits(0) : inbox_.empty(); }

  Status Average(std::span<float> gradients, float* loss) override {
    const std::int64_t step = step_++;
    const bool wanted = Wanted();
    if (wanted) {
      if (const auto s = compress::CheckFinite(gradients); !s.ok()) {
        collective_.Abandon(s.message());
        return s;
      }
    }
    if (rank() == 0) {
      if (wanted) gathering_->Give(step, *loss, gradients);
      const Message m = gathering_->Take(0);
      if (!m) {
        const auto failure = gathering_->failure();
        return failure.ok() ? Cancelled("the exchange was closed") : failure;
      }
      Decode(*m, gradients, loss);
      gathering_->Taken(0);
      return {};
    }
    if (wanted) RETURN_IF_ERROR(collective_.Send(0, Encode(step, *loss, gradients)));
    ASSIGN_OR_RETURN(const std::string m, inbox_.Get());
    heard_end_ = StepOf(m) == kEnd;
    RETURN_IF_ERROR(CheckResult(m, step));
    Decode(m, gradients, loss);
    return {};
  }

  Status AfterStep(std::span<float> /*parameters*/, std::int64_t /*step*/) override { return {}; }

  Status Finish(std::span<float> /*parameters*/) override {
    if (rank() == 0) {
      gathering_->End();
    } else {
      RETURN_IF_ERROR(collective_.Send(0, Encode(kEnd, 0, {})));
      if (!heard_end_) {
        ASSIGN_OR_RETURN(const std::string end, inbox_.Get());
        RETURN_IF_ERROR(CheckResult(end, kEnd));
      }
    }
    for (auto& t : threads_) t.join();
    threads_.clear();
    finished_ = true;
    collective_.Leave();
    return {};
  }

  std::vector<int> lost() const override { return gathering_ ? gathering_->lost() : std::vector<int>{}; }

 private:
  Status CheckResult(const std::string& m, std::int64_t step) const {
    if (StepOf(m) == kReason && m.size() >= kHead) return Unavailable(m.substr(kHead));
    if (StepOf(m) == kEnd && step == kEnd) return {};
    if (StepOf(m) == kEnd) return Cancelled("rank 0 has ended and needs no more from here");
    if (StepOf(m) != step || m.size() != kHead + parameters_ * 4)
      return DataLoss("rank 0 has sent something else than the result of step " + std::to_string(step));
    return {};
  }

  // Rank 0: what one worker sends, until it has finished or is lost.
  void Gather(int worker) {
    std::vector<float> gradient(parameters_);
    // A late rank sends nothing while it catches up, and may be slow; that it is gone shows when it takes no results.
    const Duration patience = std::chrono::hours(24 * 7);
    for (;;) {
      const auto bytes = collective_.Receive(worker, patience);
      const std::int64_t step = bytes.ok() ? StepOf(*bytes) : kReason;
      if (step == kEnd) return;
      if (step < 0 || bytes->size() != kHead + parameters_ * 4) return gathering_->Drop(worker);
      float loss = 0;
      Decode(*bytes, gradient, &loss);
      gathering_->Give(step, loss, gradient);
    }
  }

  // Rank 0: results to one worker, until there are no more.
  void Distribute(int worker) {
    while (const Message m = gathering_->Take(worker)) {
      if (!collective_.Send(worker, *m).ok()) return gathering_->Drop(worker);
      gathering_->Taken(worker);
    }
    const auto failure = gathering_->failure();
    (void)collective_.Send(worker, failure.ok() ? Encode(kEnd, 0, {}) : Encode(kReason, 0, {}) + failure.message());
  }

  // The others: results as they come.
  void Listen() {
    while (inbox_.Room()) {
      // Between two results lies the slowest step that counts, or the time to find that a rank is gone.
      auto m = collective_.Receive(0, 2 * collective_.timeout() + std::chrono::seconds(1));
      const bool last = !m.ok() || StepOf(*m) < 0;
      inbox_.Put(std::move(m));
      if (last) return;
    }
  }

  ExchangeOptions options_;
  std::size_t parameters_ = 0;
  std::int64_t step_ = 0;
  bool heard_end_ = false;
  std::unique_ptr<Gathering> gathering_;  // rank 0
  Inbox inbox_;                           // the others
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Exchange> MakeBackup(const ExchangeOptions& o, collective::Collective& c) {
  return std::make_unique<Backup>(o, c);
}

}  // namespace ganglion::training
