// For tests: conditions and rules in one line each.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "rules/rules.h"
#include "tensor/tensor.h"

namespace ganglion::rules {

inline Condition Is(std::string feature, Op op, Value value) {
  return {Condition::Kind::kCompare, std::move(feature), op, {std::move(value)}, {}};
}
inline Condition Between(std::string feature, double low, double high) {
  return {Condition::Kind::kBetween, std::move(feature), Op::kEqual, {low, high}, {}};
}
inline Condition In(std::string feature, std::vector<Value> values) {
  return {Condition::Kind::kIn, std::move(feature), Op::kEqual, std::move(values), {}};
}
inline Condition All(std::vector<Condition> children) {
  return {Condition::Kind::kAll, "", Op::kEqual, {}, std::move(children)};
}
inline Condition Any(std::vector<Condition> children) {
  return {Condition::Kind::kAny, "", Op::kEqual, {}, std::move(children)};
}
inline Condition Not(Condition child) {
  std::vector<Condition> children;
  children.push_back(std::move(child));
  return {Condition::Kind::kNot, "", Op::kEqual, {}, std::move(children)};
}
inline Rule Then(Condition when, std::string answer = "0") { return {"", std::move(when), std::move(answer), 1, ""}; }

// What these tests compile against.
inline const std::vector<tensor::Spec>& Inputs() {
  using tensor::DataType;
  static const std::vector<tensor::Spec> inputs{
      {"image", DataType::kFp32, {-1, 784}},  {"age", DataType::kInt64, {-1}},     {"x", DataType::kFp64, {-1, 2, 3}},
      {"country", DataType::kBytes, {-1, 1}}, {"tags", DataType::kBytes, {-1, 3}}, {"open", DataType::kFp32, {-1, -1}},
      {"words", DataType::kBytes, {-1, -1}},  {"empty", DataType::kFp32, {-1, 0}}, {"member", DataType::kBool, {-1}}};
  return inputs;
}

}  // namespace ganglion::rules
