// Outcomes of decisions, for the stage that learns from them.
#include <charconv>

#include "node/server.h"

namespace ganglion::node {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

// The class that a report names: by the label's name, or by its number.
Result<int> LabelOf(const DecisionConfig& config, const std::string& text) {
  for (std::size_t i = 0; i < config.labels.size(); ++i) {
    if (config.labels[i] == text) return static_cast<int>(i);
  }
  int label = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), label);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    return InvalidArgument("label \"" + text.substr(0, 100) + "\" is no label of " + config.name +
                           "; give a label's name, or its number, counted from 0");
  return label;
}

}  // namespace

// Every row waits for its outcome under the id that its caller gets.
void Server::RememberRows(const Served& served, std::span<const tensor::View> inputs, std::vector<RowAnswer>* rows,
                          const std::function<std::string()>& new_id) {
  std::vector<std::string> ids;
  ids.reserve(rows->size());
  for (RowAnswer& r : *rows) {
    if (r.decision_id.empty()) r.decision_id = new_id();
    ids.push_back(r.decision_id);
  }
  if (const Status s = served.learns->Remember(inputs, ids, Now()); !s.ok())
    log_->Warning("not remembered", {{"decision", served.name}, {"error", s.message()}});
}

Status Server::Report(const std::string& model, const std::string& version, const wire::Outcome& outcome) {
  ASSIGN_OR_RETURN(const auto served, Find(model, version));
  if (served->learns == nullptr)
    return FailedPrecondition(model + " learns from no outcomes; a decision does with a stage online: MODEL.gol here");
  ASSIGN_OR_RETURN(const int label, LabelOf(served->decision->config(), outcome.label));
  Status learned = served->learns->Learn(outcome.decision_id, label, outcome.weight, Now());
  registry_
      ->AddCounter("ganglion_outcomes_total", "Outcomes reported, by what became of them",
                   {{"decision", served->name}, {"result", learned.ok() ? "learned" : "refused"}})
      .Add(1);
  return learned;
}

Result<std::string> Server::Learned(const std::string& model, const std::string& version) const {
  ASSIGN_OR_RETURN(const auto served, Find(model, version));
  if (served->learns == nullptr) return FailedPrecondition(model + " has no stage that learns");
  return served->learns->Learned();
}

}  // namespace ganglion::node
