#include "training/checkpoint.h"

#include <cstring>
#include <span>
#include <type_traits>

#include "crypto/crypto.h"

namespace ganglion::training {
namespace {

constexpr char kMagic[] = "ganglion checkpoint 2\n";

template <typename T>
void Append(std::string& out, std::span<const T> v) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::uint64_t n = v.size();
  out.append(reinterpret_cast<const char*>(&n), 8);
  out.append(reinterpret_cast<const char*>(v.data()), v.size_bytes());
}

template <typename T>
bool Take(std::string_view& in, std::vector<T>* v) {
  std::uint64_t n = 0;
  if (in.size() < 8) return false;
  std::memcpy(&n, in.data(), 8);
  in.remove_prefix(8);
  if (n > in.size() / sizeof(T)) return false;
  v->resize(n);
  if (n > 0) std::memcpy(v->data(), in.data(), n * sizeof(T));
  in.remove_prefix(n * sizeof(T));
  return true;
}

// The numbers that are one of a kind.
struct Numbers {
  std::int64_t epoch, step, observed, ended, optimizer_steps, plateau_waited, best_step, stopping_waited;
  double loss_sum, trace_loss, trace_norm, plateau_best, plateau_scale, best;
};

}  // namespace

std::string EncodeCheckpoint(const Checkpoint& c, const std::string& fingerprint) {
  std::string body = fingerprint;
  const Numbers numbers{c.epoch,           c.step,           c.observed,           c.ended ? 1 : 0,
                        c.optimizer.steps, c.plateau.waited, c.stopping.best_step, c.stopping.waited,
                        c.loss_sum,        c.trace_loss,     c.trace_norm,         c.plateau.best,
                        c.plateau.scale,   c.stopping.best};
  Append<Numbers>(body, {&numbers, 1});
  Append<float>(body, c.parameters);
  Append<float>(body, c.statistics);
  Append<float>(body, c.optimizer.first);
  Append<float>(body, c.optimizer.second);
  Append<float>(body, c.best_parameters);
  Append<float>(body, c.best_statistics);
  Append<CurvePoint>(body, c.history);
  Append<TracePoint>(body, c.trace);
  return kMagic + crypto::Sha256(body).Hex() + body;
}

Result<Checkpoint> DecodeCheckpoint(std::string_view file, const std::string& fingerprint, std::size_t parameters,
                                    std::size_t statistics) {
  const std::size_t magic = sizeof(kMagic) - 1;
  if (file.size() < magic + 128 || file.substr(0, magic) != kMagic)
    return DataLoss("not a checkpoint of this version; delete it to start again");
  const std::string_view digest = file.substr(magic, 64);
  std::string_view body = file.substr(magic + 64);
  if (crypto::Sha256(body).Hex() != digest) return DataLoss("the checkpoint is damaged; delete it to start again");
  if (body.substr(0, 64) != fingerprint) {
    return FailedPrecondition("the checkpoint is of another model, data set or setting; delete it to start again");
  }
  body.remove_prefix(64);
  Checkpoint c;
  std::vector<Numbers> numbers;
  const auto none_or = [](const std::vector<float>& v, std::size_t n) { return v.empty() || v.size() == n; };
  if (!Take(body, &numbers) || numbers.size() != 1 || !Take(body, &c.parameters) || c.parameters.size() != parameters ||
      !Take(body, &c.statistics) || c.statistics.size() != statistics || !Take(body, &c.optimizer.first) ||
      !Take(body, &c.optimizer.second) || !Take(body, &c.best_parameters) || !none_or(c.best_parameters, parameters) ||
      !Take(body, &c.best_statistics) || !none_or(c.best_statistics, statistics) || !Take(body, &c.history) ||
      !Take(body, &c.trace)) {
    return DataLoss("the checkpoint is damaged; delete it to start again");
  }
  const Numbers& n = numbers[0];
  c.epoch = n.epoch;
  c.step = n.step;
  c.observed = n.observed;
  c.ended = n.ended != 0;
  c.optimizer.steps = n.optimizer_steps;
  c.plateau = {n.plateau_best, n.plateau_waited, n.plateau_scale};
  c.stopping = {n.best, n.best_step, n.stopping_waited};
  c.loss_sum = n.loss_sum;
  c.trace_loss = n.trace_loss;
  c.trace_norm = n.trace_norm;
  return c;
}

}  // namespace ganglion::training
