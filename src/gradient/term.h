// A Term is a value of a step model as it stands in a formula, so that a rule reads like mathematics:
//   b.Give(0, b.Dy() * (1 - b.Y() * b.Y()));
//
// Each operator appends one node to the graph when it is applied; a float becomes a scalar constant. A Term used twice
// is computed once, a formula written twice is computed twice.
// A value; keeps a pointer to the GraphBuilder, which must outlive it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace ganglion::gradient {

class Term {
 public:
  Term(graph::GraphBuilder& g, std::string name) : g_(&g), name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  operator const std::string&() const { return name_; }  // NOLINT: a term is a value's name with a builder

  // op(*this), and op(*this, b)
  Term Then(const std::string& op, const std::vector<graph::Attribute>& attributes = {}) const {
    return {*g_, g_->Node(op, {name_}, attributes)};
  }
  Term With(const std::string& op, const std::string& b) const { return {*g_, g_->Node(op, {name_, b})}; }
  Term With(const std::string& op, float b) const { return With(op, g_->Scalar("c", b)); }

  // 1 where positive, 0 elsewhere: HardSigmoid with a huge slope, one operator where Greater and Cast would be two and
  // slower. `at_zero` is the value at 0.
  Term Step(float at_zero = 0) const { return Then("HardSigmoid", {{"alpha", 1e38f}, {"beta", at_zero}}); }

  friend Term operator+(const Term& a, const Term& b) { return a.With("Add", b.name_); }
  friend Term operator-(const Term& a, const Term& b) { return a.With("Sub", b.name_); }
  friend Term operator*(const Term& a, const Term& b) { return a.With("Mul", b.name_); }
  friend Term operator/(const Term& a, const Term& b) { return a.With("Div", b.name_); }
  friend Term operator+(const Term& a, float b) { return a.With("Add", b); }
  friend Term operator-(const Term& a, float b) { return a.With("Sub", b); }
  friend Term operator*(const Term& a, float b) { return a.With("Mul", b); }
  friend Term operator/(const Term& a, float b) { return a.With("Div", b); }
  friend Term operator+(float a, const Term& b) { return b + a; }
  friend Term operator*(float a, const Term& b) { return b * a; }
  friend Term operator-(float a, const Term& b) { return Term(*b.g_, b.g_->Scalar("c", a)) - b; }
  friend Term operator/(float a, const Term& b) { return Term(*b.g_, b.g_->Scalar("c", a)) / b; }
  Term operator-() const { return Then("Neg"); }

 private:
  graph::GraphBuilder* g_;
  std::string name_;
};

}  // namespace ganglion::gradient
