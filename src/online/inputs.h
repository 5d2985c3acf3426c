// From a decision's inputs, which have names and numbers or texts, to an example: each input is a namespace.
//
//   number i of input x    the feature called i of namespace x:  "|x 0:.5 1:.3"; of one number, CSV's column x
//   a text of input x      the feature of that name:             "|x red"; CSV's field red in column x
// So a model learned from VW's text or CSV answers requests that carry the same things as tensors, and learns on from
// their outcomes.
// Thread-compatible: keep one a thread. Pure. Errors: as Interactions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "online/example.h"
#include "online/interactions.h"
#include "online/options.h"

namespace ganglion::online {

class InputFeatures {
 public:
  // Pairs of the options may be of letters (of the inputs' names) or of names.
  static Result<InputFeatures> Create(const LearnerOptions& options, const std::vector<std::string>& inputs);

  // Begin, then the inputs in any order, then Finish.
  void Begin(Example* example);
  void Numbers(std::size_t input, std::span<const float> values);
  void Text(std::size_t input, std::string_view text);
  Status Finish();

 private:
  InputFeatures() = default;
  std::uint32_t mask_ = 0;
  int bits_ = 0;
  bool constant_ = true;
  Interactions interactions_;
  std::vector<std::uint32_t> hashes_;
  std::vector<std::uint32_t> groups_;
  std::vector<Span> spans_;
  Example* example_ = nullptr;
};

}  // namespace ganglion::online
