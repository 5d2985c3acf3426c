#include "wire/inference.h"

#include <charconv>
#include <cmath>
#include <utility>

namespace ganglion::wire {
namespace {

Status WrongType(std::string_view name, const ParameterValue& value, const char* wanted) {
  constexpr const char* kNames[] = {"a boolean", "an integer", "a number", "a string"};
  return InvalidArgument("parameter \"" + std::string(name) + "\" is " + kNames[value.index()] + ", want " + wanted);
}

}  // namespace

const ParameterValue* Find(const Parameters& parameters, std::string_view name) {
  for (const auto& p : parameters) {
    if (p.name == name) return &p.value;
  }
  return nullptr;
}

void Set(Parameters* parameters, std::string_view name, ParameterValue value) {
  for (auto& p : *parameters) {
    if (p.name == name) {
      p.value = std::move(value);
      return;
    }
  }
  parameters->push_back({std::string(name), std::move(value)});
}

Result<std::optional<std::string>> FindString(const Parameters& parameters, std::string_view name) {
  const ParameterValue* value = Find(parameters, name);
  if (value == nullptr) return std::optional<std::string>();
  const auto* text = std::get_if<std::string>(value);
  if (text == nullptr) return WrongType(name, *value, "a string");
  return std::optional<std::string>(*text);
}

Result<std::optional<double>> FindNumber(const Parameters& parameters, std::string_view name) {
  const ParameterValue* value = Find(parameters, name);
  if (value == nullptr) return std::optional<double>();
  if (const auto* number = std::get_if<double>(value)) {
    if (!std::isfinite(*number))
      return InvalidArgument("parameter \"" + std::string(name) + "\" is not finite, want a number");
    return std::optional<double>(*number);
  }
  if (const auto* integer = std::get_if<std::int64_t>(value))
    return std::optional<double>(static_cast<double>(*integer));
  const auto* text = std::get_if<std::string>(value);
  if (text == nullptr) return WrongType(name, *value, "a number");
  double number = 0;
  const char* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, number);
  // "nan" and "inf" are words that from_chars knows and no numbers that anybody could compare with.
  if (error != std::errc() || stop != end || !std::isfinite(number))
    return InvalidArgument("parameter \"" + std::string(name) + "\" is \"" + text->substr(0, 40) + "\", want a number");
  return std::optional<double>(number);
}

Result<std::optional<bool>> FindBool(const Parameters& parameters, std::string_view name) {
  const ParameterValue* value = Find(parameters, name);
  if (value == nullptr) return std::optional<bool>();
  const auto* truth = std::get_if<bool>(value);
  if (truth == nullptr) return WrongType(name, *value, "true or false");
  return std::optional<bool>(*truth);
}

}  // namespace ganglion::wire
