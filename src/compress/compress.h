// compress makes gradients small for the wire: what one message leaves out goes into a later one (error feedback).
//
// Intuition: a slow link carries a few percent of a gradient per step. Whatever is left out is not lost but kept at
// the sender and added to the next gradient, so that over the steps everything arrives; training sees a delay, not a
// bias. Without that memory, top-k at 1 % and one-bit codes do not converge.
//
// Definition, g_t the gradient of step t, e_0 = 0:
//   m_t = g_t + e_t;   bytes_t = code(m_t);   e_{t+1} = m_t - decode(bytes_t)
//   hence   sum_t decode(bytes_t) + e_{T+1} = sum_t g_t   up to rounding: the contract that the tests hold.
//
// The codes (n numbers, 4 n bytes as FP32):
//   eight bit   quantize.h    blocks of 256 with a scale each, nearest of 255 levels      1.016 n bytes
//   top-k       top_k.h       the k largest numbers, 8 bit each, and where they are       about 2.1 k bytes
//   PowerSGD    power_sgd.h   for each matrix of n1 x n2 a product of rank r              4 r (n1 + n2) bytes a matrix
// The first two are sent to everyone and added up there (all-gather). PowerSGD's factors can be added on the way
// (all-reduce), so it has steps of its own besides this interface.
//
// Why nearest and not stochastic rounding: with error feedback the bias of the nearest level does not stay, its
// variance is a quarter of the stochastic one's in the worst case, and the same gradients give the same bytes.
//
// A state machine: its state is the residual e, a value of n numbers. The same calls give the same bytes on the same
// machine. Thread-compatible. Errors: a number that is not finite is refused and changes nothing; bytes that no
// Encode of this size can have written are refused and change nothing (a flipped bit inside a number is a number).
// Source: F. Seide et al., "1-bit stochastic gradient descent", 2014; S. Karimireddy et al., "Error feedback fixes
// SignSGD", 2019.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace ganglion::compress {

enum class Code { kNone, kEightBit, kTopK, kPowerSgd };

struct Options {
  Code code = Code::kNone;
  double share = .03;  // top-k: share of the numbers that is sent, in (0, 1]

  int rank = 2;            // PowerSGD: 1 .. kMaxRank
  std::uint64_t seed = 1;  // PowerSGD: where its first subspaces come from; the same on every rank
};
inline constexpr int kMaxRank = 64;

// "none", "8bit", "topk:0.03", "powersgd:2".
Result<Options> ParseOptions(std::string_view text);
std::string Name(const Options& options);

// A run of the flat vector that is a matrix [rows, columns]; anything else is a vector (columns 1).
struct Segment {
  std::size_t offset = 0;
  std::size_t rows = 0;
  std::size_t columns = 1;
};

class Compressor {
 public:
  virtual ~Compressor() = default;
  // How many numbers a message is about.
  virtual std::size_t size() const = 0;
  // The message about `gradient` and what earlier messages left out. REQUIRES: gradient.size() == size().
  virtual Status Encode(std::span<const float> gradient, std::string* bytes) = 0;
  // out += decoded numbers. Of any compressor of the same options and size. REQUIRES: out.size() == size().
  virtual Status Accumulate(std::string_view bytes, std::span<float> out) const = 0;
  // What the messages so far have left out.
  virtual std::span<const float> residual() const = 0;
};

// `segments` say where matrices are (PowerSGD; the others need none). Refuses options out of range, and segments that
// reach beyond `size` or overlap.
Result<std::unique_ptr<Compressor>> Create(const Options& options, std::size_t size,
                                           std::span<const Segment> segments = {});

// INVALID_ARGUMENT with the place of the first number that is not finite.
Status CheckFinite(std::span<const float> numbers);

}  // namespace ganglion::compress
