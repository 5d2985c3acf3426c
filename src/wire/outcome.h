// What came of a decision, as a client reports it: POST v2/models/NAME/outcome.
//
//   {"decision_id": "01J9...", "label": 3, "weight": 1}      label: a class, counted from 0, or a label's name
// weight is how much the outcome counts, 1 when left out; of decisions that were drawn at random, 1 / propensity.
// A value; parsing is pure. Errors: INVALID_ARGUMENT, with the member and what was wanted.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace ganglion::wire {

struct Outcome {
  std::string decision_id;
  std::string label;  // a name, or a number as text
  float weight = 1;
};

Result<Outcome> ParseOutcome(std::string_view body);

}  // namespace ganglion::wire
