// PowerSgd sends, for each matrix of a gradient, the best product of two thin matrices that one power step finds.
//
// Intuition: gradients of layers are nearly of low rank. One step of subspace iteration from the last step's result
// (warm start) follows the main directions as they turn, for the price of two matrix products.
//
// Definition, for a segment M_w [n, m] of rank (worker) w, residual added, Q [m, r] from the step before:
//   P = sum_w M_w Q        P gets orthonormal columns (modified Gram-Schmidt)
//   Q = sum_w M_w' P       decoded sum = P Q',  residual_w = M_w - P (M_w' P)'
// Both sums are linear in the workers' numbers, so an all-reduce adds them on the way: traffic does not grow with the
// number of workers, where codes that must be gathered grow. Segments that are vectors, and matrices for which
// r (n + m) >= n m, are sent as they are. A direction that has died (a zero column) is drawn anew from the seed.
//
// Shapes: the flat vector; Left() and Right() are flat, too: r n or r m numbers for each matrix, in order.
//   a step:  Left(g) -> all-reduce -> Right() -> all-reduce -> Finish(out)      or Encode for one worker alone
// Message of Encode, little endian: "GPS1", count as u32, Left() after Gram-Schmidt, Right(), all FP32.
// Errors as Compressor's; a refused Left changes nothing. Cost: 4 n m r multiplications a matrix, and twice as many to
// decode and to form the residual.
// Source: T. Vogels, S. Karimireddy and M. Jaggi, "PowerSGD: practical low-rank gradient compression", 2019, algorithms
// 1 and 2. Differs in the residual, which is against the worker's own projection (M_w' P) and not against the mean of
// all; the residuals' sum is the same.
#pragma once

#include <vector>

#include "base/random.h"
#include "compress/compress.h"

namespace ganglion::compress {

class PowerSgd final : public Compressor {
 public:
  // REQUIRES: what Create of compress.h checks.
  PowerSgd(std::size_t size, std::span<const Segment> segments, int rank, std::uint64_t seed);

  std::size_t size() const override { return residual_.size(); }
  Status Encode(std::span<const float> gradient, std::string* bytes) override;
  Status Accumulate(std::string_view bytes, std::span<float> out) const override;
  std::span<const float> residual() const override { return residual_; }

  // M Q of every matrix, then every number that is sent as it is. The span stays valid and is to be summed in place.
  Result<std::span<float>> Left(std::span<const float> gradient);
  // M' P of every matrix, P being Left()'s sum made orthonormal. To be summed in place.
  std::span<float> Right();
  // out = the sum's approximation; keeps the residual.
  void Finish(std::span<float> out);

  std::size_t left_size() const { return left_.size(); }
  std::size_t right_size() const { return right_.size(); }

 private:
  struct Matrix {
    Segment at;
    std::size_t left = 0;   // where its P begins in left_, r rows of n
    std::size_t right = 0;  // where its Q begins in right_ and warm_, r rows of m
  };
  void Revive(const Matrix& matrix);
  void Expand(const Matrix& matrix, const float* p, const float* q, std::span<float> out, float sign) const;

  std::size_t rank_;
  Random random_;
  std::vector<Matrix> matrices_;
  std::vector<Segment> plain_;  // runs that are sent as they are, columns 1
  std::vector<float> residual_;
  std::vector<float> sum_;  // kept to save its allocation
  std::vector<float> left_;
  std::vector<float> right_;
  std::vector<float> own_;   // this worker's Right before the sum
  std::vector<float> warm_;  // Q of the step before
};

}  // namespace ganglion::compress
