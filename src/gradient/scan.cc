#include "gradient/scan.h"

#include <memory>

#include "base/check.h"

namespace ganglion::gradient {

using Ints = std::vector<std::int64_t>;
using tensor::DataType;
using tensor::Shape;

std::string ScanBody::State(const std::string& initial, Shape shape) {
  initial_.push_back(initial);
  states_.push_back({around_.Fresh("state"), DataType::kFp32, std::move(shape)});
  return states_.back().name;
}

std::string ScanBody::Sequence(const std::string& sequence, Shape shape, DataType type) {
  sequences_.push_back(sequence);
  slices_.push_back({around_.Fresh("at"), type, std::move(shape)});
  return slices_.back().name;
}

std::string ScanBody::Node(const std::string& op, std::vector<std::string> inputs,
                           const std::vector<graph::Attribute>& attributes) {
  return inside_.Node(op, std::move(inputs), attributes, around_.Fresh(op));
}

void ScanBody::Carry(const std::string& value) {
  GANGLION_CHECK(next_.size() < states_.size());
  next_.push_back({value, DataType::kFp32, states_[next_.size()].shape});
}

void ScanBody::Emit(const std::string& value, Shape shape) {
  emitted_.push_back({value, DataType::kFp32, std::move(shape)});
}

std::vector<std::string> ScanBody::Append(bool backwards) {
  GANGLION_CHECK(next_.size() == states_.size());
  std::vector<std::string> inputs = initial_;
  inputs.insert(inputs.end(), sequences_.begin(), sequences_.end());
  for (const auto& spec : states_) inside_.Input(spec);
  for (const auto& spec : slices_) inside_.Input(spec);
  for (const auto& spec : next_) inside_.Output(spec);
  for (const auto& spec : emitted_) inside_.Output(spec);
  auto body = std::make_shared<onnx::GraphProto>(body_.graph());
  body->set_name(around_.Fresh("body"));
  return around_.Nodes("Scan", std::move(inputs), next_.size() + emitted_.size(),
                       {{"body", std::shared_ptr<const onnx::GraphProto>(std::move(body))},
                        {"num_scan_inputs", static_cast<std::int64_t>(sequences_.size())},
                        {"scan_input_directions", Ints(sequences_.size(), backwards ? 1 : 0)},
                        {"scan_output_directions", Ints(emitted_.size(), backwards ? 1 : 0)}});
}

}  // namespace ganglion::gradient
