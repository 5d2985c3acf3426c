#include "online/snapshot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "crypto/crypto.h"
#include "online/bytes.h"

namespace ganglion::online {
namespace {

constexpr std::string_view kMagic = "GOL1";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kDigestBytes = 32;
constexpr float kLargest = 1e30f;  // of a weight, as learning keeps it

void PutOptions(const LearnerOptions& o, ByteWriter* w) {
  w->Put(static_cast<std::uint8_t>(o.task));
  w->Put(o.classes);
  w->Put(static_cast<std::int32_t>(o.bits));
  w->Put(static_cast<std::uint8_t>(o.update));
  for (const double v : {o.rate, o.power_t, o.alpha, o.beta, o.l1, o.l2, o.factor_rate, o.factor_scale, o.anchor})
    w->Put(v);
  for (const bool v : {o.adaptive, o.normalised, o.invariant, o.constant}) w->Put(static_cast<std::uint8_t>(v));
  w->Put(static_cast<std::int32_t>(o.factors));
  w->Put(o.anchor_every);
  w->Put(o.replay);
  w->Put(o.replays);
  w->Put(o.seed);
  w->Put(static_cast<std::uint32_t>(o.interactions.size()));
  for (const std::string& i : o.interactions) w->Put(std::string_view(i));
}

LearnerOptions GetOptions(ByteReader* r) {
  LearnerOptions o;
  o.task = static_cast<Task>(std::min<std::uint8_t>(r->Get<std::uint8_t>(), 3));
  o.classes = r->Get<std::uint32_t>();
  o.bits = r->Get<std::int32_t>();
  o.update = r->Get<std::uint8_t>() == 0 ? Update::kGradient : Update::kFtrl;
  for (double* v : {&o.rate, &o.power_t, &o.alpha, &o.beta, &o.l1, &o.l2, &o.factor_rate, &o.factor_scale, &o.anchor})
    *v = r->Get<double>();
  for (bool* v : {&o.adaptive, &o.normalised, &o.invariant, &o.constant}) *v = r->Get<std::uint8_t>() != 0;
  o.factors = r->Get<std::int32_t>();
  o.anchor_every = r->Get<std::uint64_t>();
  o.replay = r->Get<std::uint32_t>();
  o.replays = r->Get<std::uint32_t>();
  o.seed = r->Get<std::uint64_t>();
  const auto interactions = r->Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < interactions && r->ok(); ++i) o.interactions.push_back(r->GetText());
  return o;
}

void PutExample(const Example& e, ByteWriter* w) {
  w->Put(e.label);
  w->Put(e.weight);
  w->Put(static_cast<std::uint64_t>(e.features.size()));
  for (const Feature& f : e.features) {
    w->Put(f.index);
    w->Put(f.value);
  }
}

Example GetExample(ByteReader* r, std::uint32_t mask) {
  Example e;
  e.labelled = true;
  e.label = r->Get<float>();
  e.weight = r->Get<float>();
  e.features.resize(r->GetCount(8));
  for (Feature& f : e.features) {
    f.index = r->Get<std::uint32_t>() & mask;
    f.value = r->Get<float>();
  }
  return e;
}

// Rows of `width` numbers, of which the first `kept` are written when `used` says so.
template <typename Used>
void PutRows(const std::vector<float>& rows, std::size_t width, std::size_t kept, const Used& used, ByteWriter* w) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < rows.size() / width; ++i) count += used(i, rows.data() + i * width) ? 1 : 0;
  w->Put(count);
  for (std::size_t i = 0; i < rows.size() / width; ++i) {
    const float* row = rows.data() + i * width;
    if (!used(i, row)) continue;
    w->Put(static_cast<std::uint32_t>(i));
    for (std::size_t j = 0; j < kept; ++j) w->Put(row[j]);
  }
}

bool GetRows(ByteReader* r, std::size_t width, std::size_t kept, std::vector<float>* rows) {
  const std::uint64_t count = r->GetCount(4 + 4 * kept);
  bool good = true;
  for (std::uint64_t n = 0; n < count; ++n) {
    const std::size_t i = r->Get<std::uint32_t>();
    if (i >= rows->size() / width) return false;
    for (std::size_t j = 0; j < kept; ++j) {
      const auto v = r->Get<float>();
      good &= std::isfinite(v);
      (*rows)[i * width + j] = v;
    }
  }
  return good && r->ok();
}

bool AnyBit(const float* row, std::size_t n) {
  std::uint32_t any = 0;
  for (std::size_t j = 0; j < n; ++j) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, row + j, 4);
    any |= bits;
  }
  return any != 0;
}

}  // namespace

std::string Seal(std::string body) {
  const crypto::Digest digest = crypto::Sha256(body);
  body.append(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  return body;
}

std::string SnapshotState(const internal::State& s) {
  std::string out(kMagic);
  ByteWriter w(&out);
  w.Put(kVersion);
  PutOptions(s.options, &w);
  w.Put(std::string_view(s.origin.writer));
  w.Put(s.origin.epoch);
  w.Put(static_cast<std::uint8_t>(s.origin.merged));
  w.Put(s.progress.examples);
  w.Put(s.progress.weight);
  w.Put(s.progress.loss);
  w.Put(s.total_weight);
  w.Put(s.norm_sum);
  w.Put(s.label_low);
  w.Put(s.label_high);
  // A cell's fourth number lives within one step.
  PutRows(
      s.cells, 4, 3, [](std::size_t, const float* c) { return AnyBit(c, 3); }, &w);
  PutRows(
      s.anchors, 2, 2, [](std::size_t, const float* a) { return AnyBit(a, 2); }, &w);
  const auto k = static_cast<std::size_t>(s.options.factors);
  if (k > 0)
    PutRows(
        s.factors, 2 * k, 2 * k, [k](std::size_t, const float* v) { return AnyBit(v + k, k); }, &w);
  w.Put(static_cast<std::uint64_t>(s.reservoir.size()));
  for (const auto& kept : s.reservoir.kept()) {
    w.Put(kept.ticket);
    PutExample(kept.example, &w);
  }
  return Seal(std::move(out));
}

Result<internal::State> RestoreState(std::string_view bytes, std::uint64_t max_table_bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic)
    return InvalidArgument("this is no online model: it does not begin with GOL1");
  if (bytes.size() < kMagic.size() + 4 + kDigestBytes)
    return DataLoss("the online model is cut short: " + std::to_string(bytes.size()) + " bytes");
  const std::string_view body = bytes.substr(0, bytes.size() - kDigestBytes);
  ByteReader r(body.substr(kMagic.size()));
  const auto version = r.Get<std::uint32_t>();
  if (version != kVersion) {
    return Unimplemented("the online model is of version " + std::to_string(version) + ", this program reads version " +
                         std::to_string(kVersion));
  }
  const crypto::Digest digest = crypto::Sha256(body);
  if (std::memcmp(digest.bytes.data(), bytes.data() + body.size(), kDigestBytes) != 0)
    return DataLoss("the online model's checksum does not fit: the bytes were cut or changed");
  const LearnerOptions options = GetOptions(&r);
  if (!r.ok()) return DataLoss("the online model ends within its options");
  if (const Status s = Check(options); !s.ok()) return s.Within("the online model");
  if (options.table_bytes() > max_table_bytes) {
    return ResourceExhausted("the online model's table takes " + std::to_string(options.table_bytes() >> 10) +
                             " KiB, limit " + std::to_string(max_table_bytes >> 10));
  }
  internal::State s = internal::NewState(options);
  s.origin.writer = r.GetText();
  s.origin.epoch = r.Get<std::uint64_t>();
  s.origin.merged = r.Get<std::uint8_t>() != 0;
  s.progress.examples = r.Get<std::uint64_t>();
  s.progress.weight = r.Get<double>();
  s.progress.loss = r.Get<double>();
  s.total_weight = r.Get<double>();
  s.norm_sum = r.Get<double>();
  s.label_low = r.Get<float>();
  s.label_high = r.Get<float>();
  const auto k = static_cast<std::size_t>(options.factors);
  bool good = GetRows(&r, 4, 3, &s.cells) && GetRows(&r, 2, 2, &s.anchors);
  if (k > 0) good = good && GetRows(&r, 2 * k, 2 * k, &s.factors);
  for (const double v : {s.progress.weight, s.progress.loss, s.total_weight, s.norm_sum,
                         static_cast<double>(s.label_low), static_cast<double>(s.label_high)})
    good &= std::isfinite(v);
  good &= s.progress.weight >= 0 && s.total_weight >= 0 && s.norm_sum >= 0 && s.label_low <= s.label_high;
  for (std::size_t i = 0; i < s.cells.size(); i += 4) {
    good &= std::abs(s.cells[i]) <= kLargest && s.cells[i + 1] >= 0 && std::abs(s.cells[i + 2]) <= 1e36f;
    good &= options.update == Update::kFtrl || s.cells[i + 2] >= 0;
  }
  for (std::size_t i = 0; i < s.anchors.size(); i += 2)
    good &= std::abs(s.anchors[i]) <= kLargest && s.anchors[i + 1] >= 0;
  for (std::size_t i = 0; k > 0 && i < s.factors.size(); i += 2 * k) {
    for (std::size_t j = i; j < i + k; ++j) good &= std::abs(s.factors[j]) <= kLargest && s.factors[j + k] >= 0;
  }
  const std::uint64_t examples = good ? r.GetCount(24) : 0;
  std::vector<Reservoir::Kept> kept;
  const std::uint32_t mask = (1u << options.bits) - 1;
  for (std::uint64_t i = 0; i < examples && r.ok(); ++i) {
    const auto ticket = r.Get<std::uint64_t>();
    kept.push_back({ticket, GetExample(&r, mask)});
    // What is kept is learned again without a second look.
    const Example& e = kept.back().example;
    const float y = e.label;
    good &= std::isfinite(y) && std::isfinite(e.weight) && e.weight >= 0;
    good &= options.outputs() == 1 || (y >= 0 && y < static_cast<float>(options.classes));
    for (const Feature& f : e.features) good &= std::isfinite(f.value);
  }
  if (!good || !r.ok() || r.left() > 0 || !s.reservoir.Restore(std::move(kept)))
    return DataLoss("the online model's parts do not add up");
  return s;
}

}  // namespace ganglion::online
