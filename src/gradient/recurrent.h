// What the gradients of a recurrent layer are made of, before anything is summed: clipping sums it by example.
//
// "Rows" are all times of all examples, [T B, ...], times outside.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "gradient/rules.h"

namespace ganglion::gradient {

// Of one direction, with G gates of H numbers.
struct RecurrentProducts {
  struct Product {  // d' a, of rows [T B, n] and [T B, m]
    std::string d, a;
    std::int64_t n = 0, m = 0;
  };
  std::string of_x;           // rows [T B, G H] of what X goes into: dW = of_x' X, dX = of_x W, dWb = their sum
  std::vector<Product> of_r;  // dR, one after the other along the gates
  std::string of_rb;          // rows [T B, G H] whose sum is dRb
  std::string dh0, dc0;       // [B, H]
};

// By direction, for a RNN, GRU or LSTM. Made once for a node where the caller keeps notes.
std::vector<RecurrentProducts> ProductsOf(Backward& b);

}  // namespace ganglion::gradient
