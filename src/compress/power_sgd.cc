#include "compress/power_sgd.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace ganglion::compress {
namespace {

constexpr char kMagic[] = {'G', 'P', 'S', '1'};
constexpr std::size_t kHead = 8;

// Eight partial sums, so that the loop needs no order.
float Dot(const float* a, const float* b, std::size_t n) {
  float sum[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) sum[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) sum[0] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

void AddScaled(float* to, const float* from, float factor, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

// Modified Gram-Schmidt over `rank` rows of n, each projection done twice, which keeps them orthogonal to rounding. A
// row that depends on those before becomes zero.
void Orthonormalise(float* rows, std::size_t rank, std::size_t n) {
  for (std::size_t k = 0; k < rank; ++k) {
    float* const row = rows + k * n;
    const float before = std::sqrt(Dot(row, row, n));
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t j = 0; j < k; ++j) AddScaled(row, rows + j * n, -Dot(row, rows + j * n, n), n);
    }
    const float after = std::sqrt(Dot(row, row, n));
    const bool dead = !(after > 1e-6F * before) || !std::isfinite(1 / after);
    for (std::size_t i = 0; i < n; ++i) row[i] = dead ? 0 : row[i] / after;
  }
}

}  // namespace

PowerSgd::PowerSgd(std::size_t size, std::span<const Segment> segments, int rank, std::uint64_t seed)
    : rank_(static_cast<std::size_t>(rank)), random_(seed), residual_(size), sum_(size) {
  std::vector<Segment> sorted(segments.begin(), segments.end());
  std::sort(sorted.begin(), sorted.end(), [](const Segment& a, const Segment& b) { return a.offset < b.offset; });
  std::size_t left = 0;
  std::size_t right = 0;
  std::size_t at = 0;  // everything before has its place
  for (const Segment& s : sorted) {
    if (rank_ * (s.rows + s.columns) >= s.rows * s.columns) continue;
    if (s.offset > at) plain_.push_back({at, s.offset - at, 1});
    matrices_.push_back({s, left, right});
    left += rank_ * s.rows;
    right += rank_ * s.columns;
    at = s.offset + s.rows * s.columns;
  }
  if (at < size) plain_.push_back({at, size - at, 1});
  for (const Segment& s : plain_) left += s.rows;
  left_.resize(left);
  right_.resize(right);
  own_.resize(right);
  warm_.resize(right);
  for (const Matrix& m : matrices_) Revive(m);
}

// Columns of Q that are zero would stay zero: they get fresh directions.
void PowerSgd::Revive(const Matrix& m) {
  for (std::size_t k = 0; k < rank_; ++k) {
    float* const row = warm_.data() + m.right + k * m.at.columns;
    if (Dot(row, row, m.at.columns) > 0) continue;
    for (std::size_t j = 0; j < m.at.columns; ++j) row[j] = static_cast<float>(random_.Normal());
  }
}

Result<std::span<float>> PowerSgd::Left(std::span<const float> gradient) {
  GANGLION_CHECK(gradient.size() == size());
  for (std::size_t i = 0; i < size(); ++i) sum_[i] = residual_[i] + gradient[i];
  RETURN_IF_ERROR(CheckFinite(sum_));
  residual_.swap(sum_);
  for (const Matrix& m : matrices_) {
    const std::size_t n = m.at.rows;
    const std::size_t c = m.at.columns;
    for (std::size_t i = 0; i < n; ++i) {
      const float* row = residual_.data() + m.at.offset + i * c;
      for (std::size_t k = 0; k < rank_; ++k) left_[m.left + k * n + i] = Dot(row, warm_.data() + m.right + k * c, c);
    }
  }
  std::size_t at = matrices_.empty() ? 0 : matrices_.back().left + rank_ * matrices_.back().at.rows;
  for (const Segment& s : plain_) {
    std::copy_n(residual_.begin() + static_cast<std::ptrdiff_t>(s.offset), s.rows,
                left_.begin() + static_cast<std::ptrdiff_t>(at));
    std::fill_n(residual_.begin() + static_cast<std::ptrdiff_t>(s.offset), s.rows, 0.F);
    at += s.rows;
  }
  return std::span<float>(left_);
}

std::span<float> PowerSgd::Right() {
  std::fill(right_.begin(), right_.end(), 0.F);
  for (const Matrix& m : matrices_) {
    Orthonormalise(left_.data() + m.left, rank_, m.at.rows);
    for (std::size_t i = 0; i < m.at.rows; ++i) {
      const float* row = residual_.data() + m.at.offset + i * m.at.columns;
      for (std::size_t k = 0; k < rank_; ++k) {
        AddScaled(right_.data() + m.right + k * m.at.columns, row, left_[m.left + k * m.at.rows + i], m.at.columns);
      }
    }
  }
  own_ = right_;
  return right_;
}

// out += sign * P Q'.
void PowerSgd::Expand(const Matrix& m, const float* p, const float* q, std::span<float> out, float sign) const {
  for (std::size_t i = 0; i < m.at.rows; ++i) {
    float* row = out.data() + m.at.offset + i * m.at.columns;
    for (std::size_t k = 0; k < rank_; ++k) {
      AddScaled(row, q + k * m.at.columns, sign * p[k * m.at.rows + i], m.at.columns);
    }
  }
}

void PowerSgd::Finish(std::span<float> out) {
  GANGLION_CHECK(out.size() == size());
  std::fill(out.begin(), out.end(), 0.F);
  for (const Matrix& m : matrices_) {
    Expand(m, left_.data() + m.left, own_.data() + m.right, residual_, -1);
    Expand(m, left_.data() + m.left, right_.data() + m.right, out, 1);
  }
  std::size_t at = matrices_.empty() ? 0 : matrices_.back().left + rank_ * matrices_.back().at.rows;
  for (const Segment& s : plain_) {
    std::copy_n(left_.begin() + static_cast<std::ptrdiff_t>(at), s.rows,
                out.begin() + static_cast<std::ptrdiff_t>(s.offset));
    at += s.rows;
  }
  warm_ = right_;
  for (const Matrix& m : matrices_) Revive(m);
}

Status PowerSgd::Encode(std::span<const float> gradient, std::string* bytes) {
  const auto left = Left(gradient);
  if (!left.ok()) return left.status();
  Right();
  bytes->assign(kMagic, 4);
  const auto count = static_cast<std::uint32_t>(size());
  bytes->append(reinterpret_cast<const char*>(&count), 4);
  bytes->append(reinterpret_cast<const char*>(left_.data()), left_.size() * 4);
  bytes->append(reinterpret_cast<const char*>(right_.data()), right_.size() * 4);
  std::vector<float> ignored(size());
  Finish(ignored);
  return {};
}

Status PowerSgd::Accumulate(std::string_view bytes, std::span<float> out) const {
  GANGLION_CHECK(out.size() == size());
  const std::size_t want = kHead + (left_.size() + right_.size()) * 4;
  std::uint32_t count = 0;
  if (bytes.size() == want) std::memcpy(&count, bytes.data() + 4, 4);
  if (bytes.size() != want || std::memcmp(bytes.data(), kMagic, 4) != 0 || count != size()) {
    return DataLoss("a PowerSGD message about " + std::to_string(size()) + " numbers has " + std::to_string(want) +
                    " bytes and its own head, this one has " + std::to_string(bytes.size()) + " bytes");
  }
  std::vector<float> left(left_.size());
  std::vector<float> right(right_.size());
  std::memcpy(left.data(), bytes.data() + kHead, left.size() * 4);
  if (!right.empty()) std::memcpy(right.data(), bytes.data() + kHead + left.size() * 4, right.size() * 4);
  if (!CheckFinite(left).ok() || !CheckFinite(right).ok()) return DataLoss("the PowerSGD message is damaged");
  for (const Matrix& m : matrices_) Expand(m, left.data() + m.left, right.data() + m.right, out, 1);
  std::size_t at = matrices_.empty() ? 0 : matrices_.back().left + rank_ * matrices_.back().at.rows;
  for (const Segment& s : plain_) {
    AddScaled(out.data() + s.offset, left.data() + at, 1, s.rows);
    at += s.rows;
  }
  return {};
}

}  // namespace ganglion::compress
