#include "training/exchange_sum.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "compress/power_sgd.h"
#include "compress/quantize.h"

namespace ganglion::training {
namespace {

// A number at the end of a message.
void AppendFloat(std::string* bytes, float v) { bytes->append(reinterpret_cast<const char*>(&v), 4); }

Status TakeFloat(std::string* bytes, float* v) {
  if (bytes->size() < 4) return DataLoss("a message of another rank is too short");
  std::memcpy(v, bytes->data() + bytes->size() - 4, 4);
  bytes->resize(bytes->size() - 4);
  return {};
}

Status Of(std::size_t rank, const Status& status) {
  return status.ok() ? status : status.Within("from rank " + std::to_string(rank));
}

}  // namespace

GradientSum::GradientSum(const compress::Options& options, collective::Collective& collective)
    : options_(options), collective_(collective) {}
GradientSum::~GradientSum() = default;

Result<std::unique_ptr<GradientSum>> GradientSum::Create(const compress::Options& options,
                                                         collective::Collective& collective,
                                                         const std::vector<gradient::Segment>& segments,
                                                         std::size_t size) {
  std::unique_ptr<GradientSum> sum(new GradientSum(options, collective));
  sum->size_ = size;
  const auto ranks = static_cast<std::size_t>(collective.size());
  switch (options.code) {
    case compress::Code::kNone:
      break;
    case compress::Code::kEightBit:
      for (std::size_t k = 0; k < ranks; ++k) {
        const std::size_t slice = size * (k + 1) / ranks - size * k / ranks;
        sum->to_owner_.push_back(std::make_unique<compress::EightBit>(slice));
        if (k == static_cast<std::size_t>(collective.rank()))
          sum->to_all_ = std::make_unique<compress::EightBit>(slice);
      }
      break;
    case compress::Code::kTopK: {
      ASSIGN_OR_RETURN(sum->whole_, compress::Create(options, size));
      break;
    }
    case compress::Code::kPowerSgd: {
      std::vector<compress::Segment> matrices;
      for (const auto& s : segments) {
        if (s.shape.size() < 2 || s.size < 1) continue;
        // [out, in, height, width] of a convolution is the matrix [out, in * height * width].
        const auto rows = static_cast<std::size_t>(s.shape[0]);
        matrices.push_back({static_cast<std::size_t>(s.offset), rows, static_cast<std::size_t>(s.size) / rows});
      }
      RETURN_IF_ERROR(compress::Create(options, size, matrices).status());  // its checks
      sum->power_ = std::make_unique<compress::PowerSgd>(size, matrices, options.rank, options.seed);
      break;
    }
  }
  return sum;
}

Status GradientSum::Run(std::span<float> numbers, float* few) {
  GANGLION_CHECK(numbers.size() == size_);
  if (collective_.size() == 1) return {};
  switch (options_.code) {
    case compress::Code::kNone:
      return collective_.AllReduce(numbers, {few, 1});
    case compress::Code::kEightBit:
      return EightBits(numbers, few);
    case compress::Code::kTopK:
      return TopK(numbers, few);
    case compress::Code::kPowerSgd:
      return PowerSgd(numbers, few);
  }
  return {};
}

Status GradientSum::Refuse(const Status& status) {
  collective_.Abandon(status.message());
  return status;
}

Status GradientSum::EightBits(std::span<float> numbers, float* few) {
  const std::size_t ranks = to_owner_.size();
  const auto me = static_cast<std::size_t>(collective_.rank());
  const auto slice = [&](std::size_t k) {
    const std::size_t begin = size_ * k / ranks;
    return numbers.subspan(begin, size_ * (k + 1) / ranks - begin);
  };
  if (const auto s = compress::CheckFinite(numbers); !s.ok()) return Refuse(s);
  std::vector<std::string> messages(ranks);
  for (std::size_t k = 0; k < ranks; ++k) {
    if (k == me) continue;
    if (const auto s = to_owner_[k]->Encode(slice(k), &messages[k]); !s.ok()) return Refuse(s);
    AppendFloat(&messages[k], *few);
  }
  AppendFloat(&messages[me], *few);
  ASSIGN_OR_RETURN(auto parts, collective_.AllToAll({messages.begin(), messages.end()}));
  *few = 0;
  for (std::size_t k = 0; k < ranks; ++k) {
    float theirs = 0;
    RETURN_IF_ERROR(Of(k, TakeFloat(&parts[k], &theirs)));
    *few += theirs;
    if (k != me) RETURN_IF_ERROR(Of(k, to_all_->Accumulate(parts[k], slice(me))));
  }
  std::string mine;
  if (const auto s = to_all_->Encode(slice(me), &mine); !s.ok()) return Refuse(s);
  ASSIGN_OR_RETURN(const auto sums, collective_.AllGather(mine));
  std::fill(numbers.begin(), numbers.end(), 0.F);
  for (std::size_t k = 0; k < ranks; ++k) RETURN_IF_ERROR(Of(k, to_owner_[k]->Accumulate(sums[k], slice(k))));
  return {};
}

Status GradientSum::TopK(std::span<float> numbers, float* few) {
  std::string mine;
  if (const auto s = whole_->Encode(numbers, &mine); !s.ok()) return Refuse(s);
  AppendFloat(&mine, *few);
  ASSIGN_OR_RETURN(auto all, collective_.AllGather(mine));
  std::fill(numbers.begin(), numbers.end(), 0.F);
  *few = 0;
  for (std::size_t k = 0; k < all.size(); ++k) {
    float theirs = 0;
    RETURN_IF_ERROR(Of(k, TakeFloat(&all[k], &theirs)));
    *few += theirs;
    RETURN_IF_ERROR(Of(k, whole_->Accumulate(all[k], numbers)));
  }
  return {};
}

Status GradientSum::PowerSgd(std::span<float> numbers, float* few) {
  const auto left = power_->Left(numbers);
  if (!left.ok()) return Refuse(left.status());
  RETURN_IF_ERROR(collective_.AllReduce(*left, {few, 1}));
  RETURN_IF_ERROR(collective_.AllReduce(power_->Right()));
  power_->Finish(numbers);
  return {};
}

}  // namespace ganglion::training
