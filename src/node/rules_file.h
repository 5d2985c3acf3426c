// rules.yaml: what a rules stage answers by itself, in order; the first rule whose condition holds answers.
//
//   rules:
//     - name: blank picture                    # optional; shown with the answer
//       if: {feature: mean(image), below: 0.01}
//       then: bag                              # a label's name or a class number
//     - if:
//         all:
//           - {feature: age, at_least: 18}
//           - any:
//               - {feature: country, in: [FR, DE]}
//               - not: {feature: risk, above: .5}
//       then: {answer: 3, confidence: .99}     # confidence from 0 to 1, 1 when left out
//
// A condition is one of all: [..], any: [..], not: {..}, or a feature with exactly one operator: equals, not_equals,
// above, at_least, below, at_most, between: [low, high] (both belong to it), in: [..].
// A feature is an input with one element a row (age), an element of an input ("image[17]", "x[2,3]"), or mean, min, max
// or sum of an input. Within { } YAML wants quotes around names with brackets or commas.
// equals, not_equals and in take numbers for inputs of numbers and texts for BYTES. What reads as a number is one
// unless it is quoted; everything else is a text.
//
// All mistakes are reported at once, a line each, with file and line; unknown keys are mistakes. What the decision's
// inputs and labels have to say comes when the rules are compiled (rules::RuleSet::Compile), with the same file and
// line. What anchors repeat counts as often as it is repeated, against the limits of rules/rules.h.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"
#include "rules/rules.h"

namespace ganglion::node {

Result<rules::RuleSetSpec> LoadRulesFile(const std::filesystem::path& path);
// The same from text; `shown_as` is the file's name in messages.
Result<rules::RuleSetSpec> ParseRulesFile(const std::string& text, const std::string& shown_as);

}  // namespace ganglion::node
