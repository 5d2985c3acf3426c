#include "online/merge.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "crypto/crypto.h"
#include "online/align.h"
#include "online/bytes.h"
#include "online/snapshot.h"

namespace ganglion::online {
namespace {

constexpr std::string_view kMagic = "GOC1";

// One number and its evidence, over all contributions in order.
class Mean {
 public:
  Mean(float base, float base_evidence) : base_(base), base_evidence_(base_evidence) {}
  void Add(float value, float evidence) {
    const double gained = std::max(0., static_cast<double>(evidence) - base_evidence_);
    gained_ += gained;
    moved_ += gained * (static_cast<double>(value) - base_);
  }
  float value() const { return gained_ > 0 ? static_cast<float>(base_ + moved_ / gained_) : static_cast<float>(base_); }
  float evidence() const { return static_cast<float>(std::min(base_evidence_ + gained_, 1e37)); }

 private:
  double base_;
  double base_evidence_;
  double gained_ = 0;
  double moved_ = 0;
};

}  // namespace

Status Contributions::Add(const internal::State& state) {
  if (state.origin.merged) {
    return FailedPrecondition(
        "a model that is the work of several cannot be merged again: what it shares with others would count twice; "
        "merge the models it was made of");
  }
  if (!entries_.empty() && !(entries_.begin()->second.state.options == state.options))
    return FailedPrecondition("models with different options (task, bits, updates, interactions, seed) do not merge");
  std::string digest = crypto::Sha256(SnapshotState(state)).Hex();
  Key key{state.origin.writer.empty() ? "sha256:" + digest : state.origin.writer, state.origin.epoch};
  const auto at = entries_.find(key);
  if (at == entries_.end()) {
    entries_.emplace(std::move(key), Entry{state, std::move(digest)});
    return {};
  }
  const auto rank = [](const Entry& e) { return std::pair(e.state.progress.examples, e.digest); };
  Entry entry{state, std::move(digest)};
  if (rank(at->second) < rank(entry)) at->second = std::move(entry);
  return {};
}

Status Contributions::Merge(const Contributions& other) {
  for (const auto& [key, entry] : other.entries_) RETURN_IF_ERROR(Add(entry.state));
  return {};
}

// The mean of the factors, each contribution's turned as the reference's are (align.h): the base's, or those of the
// first contribution. A place counts by what it has gathered over all its factors, since turning mixes them.
void Contributions::MeanFactors(const internal::State* base, internal::State* all) const {
  const auto k = static_cast<std::size_t>(all->options.factors);
  const std::size_t places = all->factors.size() / (2 * k);
  const internal::State& reference = base != nullptr ? *base : entries_.begin()->second.state;
  const auto gathered = [k](const internal::State& s, std::size_t place) {
    const float* squares = s.factors.data() + place * 2 * k + k;
    double sum = 0;
    for (std::size_t j = 0; j < k; ++j) sum += squares[j];
    return sum;
  };
  const auto gained = [&](const internal::State& s, std::size_t place) {
    return std::max(0., gathered(s, place) - (base != nullptr ? gathered(*base, place) : 0));
  };
  std::vector<double> moved(places * k);
  std::vector<double> weights(places);
  std::vector<double> added(places * k);
  std::vector<double> cross(k * k);
  for (const auto& [key, entry] : entries_) {
    const internal::State& s = entry.state;
    std::fill(cross.begin(), cross.end(), 0.);
    for (std::size_t i = 0; i < places; ++i) {
      const double e = std::sqrt(gathered(s, i) * gathered(reference, i));
      const float* v = s.factors.data() + i * 2 * k;
      const float* r = reference.factors.data() + i * 2 * k;
      for (std::size_t a = 0; e > 0 && a < k; ++a) {
        for (std::size_t b = 0; b < k; ++b) cross[a * k + b] += e * v[a] * r[b];
      }
    }
    const std::vector<double> turn = &s == &reference ? std::vector<double>() : PolarFactor(cross, k);
    for (std::size_t i = 0; i < places; ++i) {
      const double e = gained(s, i);
      if (!(e > 0)) continue;
      const float* v = s.factors.data() + i * 2 * k;
      weights[i] += e;
      for (std::size_t b = 0; b < k; ++b) {
        double turned = turn.empty() ? v[b] : 0;
        for (std::size_t a = 0; !turn.empty() && a < k; ++a) turned += v[a] * turn[a * k + b];
        moved[i * k + b] += e * turned;
        const float before = base != nullptr ? base->factors[i * 2 * k + k + b] : 0;
        added[i * k + b] += std::max(0.f, v[k + b] - before);
      }
    }
  }
  for (std::size_t i = 0; i < places; ++i) {
    float* v = all->factors.data() + i * 2 * k;
    for (std::size_t b = 0; b < k; ++b) {
      if (base != nullptr) v[b] = base->factors[i * 2 * k + b];
      if (weights[i] > 0) v[b] = static_cast<float>(moved[i * k + b] / weights[i]);
      const double before = base != nullptr ? base->factors[i * 2 * k + k + b] : 0;
      v[k + b] = static_cast<float>(std::min(before + added[i * k + b], 1e37));
    }
  }
}

Result<Learner> Contributions::Combine(const internal::State* base) const {
  GANGLION_CHECK(!entries_.empty());
  const LearnerOptions& options = entries_.begin()->second.state.options;
  if (base != nullptr && !(base->options == options))
    return FailedPrecondition("the base has other options than the models that started from it");
  internal::State all = internal::NewState(options);
  const internal::State none = base == nullptr ? all : *base;
  all.origin.merged = true;
  all.progress = none.progress;
  all.total_weight = none.total_weight;
  all.norm_sum = none.norm_sum;
  all.label_low = none.label_low;
  all.label_high = none.label_high;
  all.anchors = none.anchors;
  for (const auto& [key, entry] : entries_) {
    const internal::State& s = entry.state;
    all.progress.examples += s.progress.examples - std::min(s.progress.examples, none.progress.examples);
    all.progress.weight += std::max(0., s.progress.weight - none.progress.weight);
    all.progress.loss += std::max(0., s.progress.loss - none.progress.loss);
    all.total_weight += std::max(0., s.total_weight - none.total_weight);
    all.norm_sum += std::max(0., s.norm_sum - none.norm_sum);
    all.label_low = std::min(all.label_low, s.label_low);
    all.label_high = std::max(all.label_high, s.label_high);
    all.reservoir.Merge(s.reservoir);
  }
  if (base != nullptr) all.reservoir.Merge(base->reservoir);

  const bool ftrl = options.update == Update::kFtrl;
  for (std::size_t i = 0; i < all.cells.size(); i += 4) {
    Mean mean(none.cells[i], none.cells[i + 1]);
    Mean leader(none.cells[i + 2], none.cells[i + 1]);
    float norm = none.cells[i + 2];
    for (const auto& [key, entry] : entries_) {
      const float* c = entry.state.cells.data() + i;
      mean.Add(c[0], c[1]);
      leader.Add(c[2], c[1]);
      norm = std::max(norm, c[2]);
    }
    float* const c = all.cells.data() + i;
    c[0] = mean.value();
    c[1] = mean.evidence();
    if (!ftrl) {
      c[2] = norm;
    } else if (c[0] == 0) {  // z of a weight that is zero: anywhere within l1
      const auto l1 = static_cast<float>(options.l1);
      c[2] = std::min(std::max(leader.value(), -l1), l1);
    } else {  // the z that gives this weight with this evidence
      const double stiffness = (options.beta + std::sqrt(static_cast<double>(c[1]))) / options.alpha + options.l2;
      c[2] = static_cast<float>(-c[0] * stiffness - std::copysign(options.l1, c[0]));
    }
  }
  if (options.factors > 0) MeanFactors(base == nullptr ? nullptr : &none, &all);
  return Learner(std::move(all));
}

std::string Contributions::Bytes() const {
  std::string out(kMagic);
  ByteWriter w(&out);
  w.Put(static_cast<std::uint64_t>(entries_.size()));
  for (const auto& [key, entry] : entries_) {
    const std::string snapshot = SnapshotState(entry.state);
    w.Put(static_cast<std::uint64_t>(snapshot.size()));
    out += snapshot;
  }
  return out;
}

Result<Contributions> Contributions::FromBytes(std::string_view bytes, std::uint64_t max_table_bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic)
    return InvalidArgument("these are no contributions: they do not begin with GOC1");
  bytes.remove_prefix(kMagic.size());
  const auto take_count = [&bytes]() -> std::optional<std::uint64_t> {
    if (bytes.size() < 8) return std::nullopt;
    const auto count = ByteReader(bytes).Get<std::uint64_t>();
    bytes.remove_prefix(8);
    return count;
  };
  const auto count = take_count();
  if (!count) return DataLoss("the contributions are cut short");
  Contributions all;
  for (std::uint64_t i = 0; i < *count; ++i) {
    const auto size = take_count();
    if (!size || *size > bytes.size()) return DataLoss("the contributions are cut short");
    ASSIGN_OR_RETURN(const internal::State state, RestoreState(bytes.substr(0, *size), max_table_bytes));
    max_table_bytes -= state.options.table_bytes();
    RETURN_IF_ERROR(all.Add(state));
    bytes.remove_prefix(*size);
  }
  if (!bytes.empty()) return DataLoss("there are bytes behind the last contribution");
  return all;
}

}  // namespace ganglion::online
