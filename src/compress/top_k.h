// TopK sends the k largest numbers of a gradient and where they are; the rest waits in the residual.
//
// Intuition: a few numbers carry most of a gradient, and which they are changes; what is small now adds up in the
// residual until it is among the largest.
// Message, little endian: "GTK2", count as u32, k as u32, k gaps between the places (7 bits a byte, the highest bit
// says that more follow), and for each 256 of the k numbers a scale as FP32 and a level a number (levels.h). What the
// levels miss waits, too. At 3 % a number takes 2.05 bytes, at 1 % 2.3: 65 and 170 times less than FP32 for all. Zeros
// are not sent, so k may be smaller than share * n. Of equal magnitudes the first are taken.
// Cost: about 2 ns a number to encode (a histogram of the magnitudes finds the k-th without sorting), k to decode.
// Source: A. Aji and K. Heafield, "Sparse communication for distributed gradient descent", 2017; Y. Lin et al., "Deep
// gradient compression", 2018. Its momentum correction (momentum taken before the choice, in place of the optimiser's)
// was tried and left out: in trials on Fashion-MNIST it made no difference. What costs nothing there is plain SGD:
// behind top-k, momentum loses half a point of accuracy, for it works on what comes late and in bursts.
#pragma once

#include <vector>

#include "compress/compress.h"

namespace ganglion::compress {

class TopK final : public Compressor {
 public:
  // REQUIRES: 0 < share <= 1.
  TopK(std::size_t size, double share);

  std::size_t size() const override { return residual_.size(); }
  Status Encode(std::span<const float> gradient, std::string* bytes) override;
  Status Accumulate(std::string_view bytes, std::span<float> out) const override;
  std::span<const float> residual() const override { return residual_; }

 private:
  std::size_t k_;
  std::vector<float> residual_;
  std::vector<float> sum_;             // these two are kept to save their allocation
  std::vector<std::uint32_t> chosen_;  // places of the last message
};

}  // namespace ganglion::compress
