#include "wire/outcome.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "wire/json.h"

namespace ganglion::wire {
namespace {

constexpr std::size_t kMaxBody = 4096;
constexpr std::size_t kMaxId = 256;

}  // namespace

Result<Outcome> ParseOutcome(std::string_view body) {
  if (body.size() > kMaxBody)
    return InvalidArgument("an outcome of " + std::to_string(body.size()) + " bytes; limit " +
                           std::to_string(kMaxBody));
  Json j;
  RETURN_IF_ERROR(ParseJson(body, &j));
  Outcome outcome;
  ASSIGN_OR_RETURN(outcome.decision_id, GetString(j, "decision_id"));
  if (outcome.decision_id.empty() || outcome.decision_id.size() > kMaxId)
    return InvalidArgument("decision_id must have 1 to 256 characters, it has " +
                           std::to_string(outcome.decision_id.size()));
  const auto label = j.find("label");
  if (label == j.end() || !(label->is_string() || label->is_number_unsigned()))
    return InvalidArgument("label must be a class, counted from 0, or a label's name");
  outcome.label = label->is_string() ? label->get<std::string>() : std::to_string(label->get<std::uint64_t>());
  if (j.contains("weight")) {
    ASSIGN_OR_RETURN(const double weight, GetNumber(j, "weight"));
    if (!(weight >= 0) || !std::isfinite(static_cast<float>(weight)))
      return InvalidArgument("weight must be finite and >= 0, got " + std::to_string(weight));
    outcome.weight = static_cast<float>(weight);
  }
  return outcome;
}

}  // namespace ganglion::wire
