// A GradientSum adds up one vector over all ranks, exactly or compressed: what all-reduce does every step and DiLoCo
// every H. Inside the module only.
//
//   none       all-reduce of the numbers
//   8bit       each rank sends slice j, coded, to rank j; rank j adds them and sends the coded sum to all: two messages
//   of
//              a quarter of the exact ones' length, for any number of ranks, each with error feedback of its own
//   topk       everyone's message to everyone
//   powersgd   all-reduce of the left factors, then of the right ones
// All ranks get the same bits. Thread-compatible.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "collective/collective.h"
#include "compress/compress.h"
#include "gradient/gradient.h"

namespace ganglion::compress {
class EightBit;
class PowerSgd;
}  // namespace ganglion::compress

namespace ganglion::training {

class GradientSum {
 public:
  static Result<std::unique_ptr<GradientSum>> Create(const compress::Options& options,
                                                     collective::Collective& collective,
                                                     const std::vector<gradient::Segment>& segments, std::size_t size);
  ~GradientSum();

  // numbers and *few become their sums over the ranks. A number that is not finite is refused when it would be
  // compressed, and the other ranks are told. REQUIRES: numbers has the size given to Create.
  Status Run(std::span<float> numbers, float* few);

 private:
  GradientSum(const compress::Options& options, collective::Collective& collective);
  Status EightBits(std::span<float> numbers, float* few);
  Status TopK(std::span<float> numbers, float* few);
  Status PowerSgd(std::span<float> numbers, float* few);
  Status Refuse(const Status& status);

  compress::Options options_;
  collective::Collective& collective_;
  std::size_t size_ = 0;
  std::unique_ptr<compress::Compressor> whole_;                // topk
  std::unique_ptr<compress::PowerSgd> power_;                  // powersgd
  std::vector<std::unique_ptr<compress::EightBit>> to_owner_;  // 8bit: of the slice of each rank
  std::unique_ptr<compress::EightBit> to_all_;                 // 8bit: of the sum of this rank's slice
};

}  // namespace ganglion::training
