// VW's text format: one example a line.
//
//   [label [weight]] [tag]|namespace[:scale] feature[:value] feature ... |namespace ...
//   1 2.0 'first|user age:.31 male |page news sport:2
//
// A word touching the first bar, or beginning with ', is a tag. A namespace may be without a name, a feature without a
// name (":3") counts up, a feature without a value has 1; what is 0 is left out. Labels of several classes count from
// 1, as VW's do, and become classes from 0 here. A line without a label can be predicted, not learned.
// Which place a feature gets, hash.h says. The constant feature and the pairs are appended as the options say.
// Refused, with the column: a value that is no finite number (VW reads "x:red" as a name), a line without a bar, an
// initial prediction other than 0 (the third number), a weight below 0, more than kMaxFeatures features.
//
// Holds memory between lines; thread-compatible, pure. Cost: about 20 ns a feature.
// Source: the VW wiki, "Input format"; compared with VW 9.11 feature by feature (vw_text_test.cc).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "online/example.h"
#include "online/interactions.h"
#include "online/options.h"

namespace ganglion::online {

class VwText {
 public:
  // Refuses interactions that are no pairs of letters.
  static Result<VwText> Create(const LearnerOptions& options);

  // REQUIRES: no line feed but at the end. `example` is overwritten; after a refusal its content means nothing.
  Status Parse(std::string_view line, Example* example);

 private:
  VwText() = default;
  Status Head(std::string_view head, bool touches, Example* example) const;
  Status Body(std::string_view line, std::size_t bar, Example* example);

  std::uint32_t mask_ = 0;
  int bits_ = 0;
  bool classes_ = false;
  bool constant_ = true;
  Interactions interactions_;
  std::vector<Span> spans_;
};

}  // namespace ganglion::online
