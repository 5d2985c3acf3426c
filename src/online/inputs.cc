#include "online/inputs.h"

#include "base/check.h"
#include "online/hash.h"

namespace ganglion::online {

Result<InputFeatures> InputFeatures::Create(const LearnerOptions& options, const std::vector<std::string>& inputs) {
  InputFeatures f;
  f.bits_ = options.bits;
  f.mask_ = (1u << options.bits) - 1;
  f.constant_ = options.constant;
  bool columns = false;
  for (const std::string& pair : options.interactions) columns |= pair.find(',') != std::string::npos;
  if (columns) {
    ASSIGN_OR_RETURN(f.interactions_, Interactions::OfColumns(options.interactions, inputs));
  } else {
    ASSIGN_OR_RETURN(f.interactions_, Interactions::OfLetters(options.interactions));
  }
  f.hashes_.reserve(inputs.size());
  f.groups_.reserve(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    f.hashes_.push_back(HashName(inputs[i], 0));
    const std::uint32_t letter = inputs[i].empty() ? ' ' : static_cast<std::uint8_t>(inputs[i].front());
    f.groups_.push_back(columns ? static_cast<std::uint32_t>(i) : letter);
  }
  return f;
}

void InputFeatures::Begin(Example* example) {
  example_ = example;
  example_->Clear();
  spans_.clear();
}

void InputFeatures::Numbers(std::size_t input, std::span<const float> values) {
  std::vector<Feature>& features = example_->features;
  const auto first = static_cast<std::uint32_t>(features.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0) features.push_back({(hashes_[input] + static_cast<std::uint32_t>(i)) & mask_, values[i]});
  }
  const auto end = static_cast<std::uint32_t>(features.size());
  if (end > first) spans_.push_back({groups_[input], first, end});
}

void InputFeatures::Text(std::size_t input, std::string_view text) {
  if (text.empty()) return;
  const auto at = static_cast<std::uint32_t>(example_->features.size());
  example_->features.push_back({HashName(text, hashes_[input]) & mask_, 1.f});
  spans_.push_back({groups_[input], at, at + 1});
}

Status InputFeatures::Finish() {
  GANGLION_CHECK(example_ != nullptr);
  if (constant_) AppendConstant(bits_, example_);
  return interactions_.Expand(spans_, mask_, example_);
}

}  // namespace ganglion::online
