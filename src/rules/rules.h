// A RuleSet answers what plain if-then rules can answer, before any model runs.
//
// Intuition: a blank picture needs no network, and a customer under 18 no score. Rules stand in order; the first whose
// condition holds gives its answer and confidence. When none holds there is no answer, and the cascade goes on.
//
// A condition compares a feature with numbers or texts: one of the six comparisons, a range (both ends belong to it) or
// a set; all, any and not join conditions. A feature is
//     age                 a decision input with one element a row: shape [-1], [-1,1] ...
//     image[17]  x[2,3]   an element of an input, counted from 0, an index for each dimension after the rows
//     mean(image)         of all numbers of the row; also min, max, sum
// An input's own name goes first: an input called "x[0]" is meant by x[0].
//
// Compile finds every name, position, type and label once and flattens the conditions into steps: a step is one
// comparison and says where to go when it holds and where when it does not, always forward. All, any and not are
// nothing but where these arrows point, so there is no stack, and what cannot matter any more is not looked at.
// Why not a walk over the tree: it chases pointers and looks up names for every request.
//
// Numbers are compared as doubles. What is compared with an element (or min, max) of FP16, BF16 or FP32 is first
// rounded to that datatype: age == 0.1 holds for the FP32 number nearest to 0.1. INT64 and UINT64 elements compare
// exactly; numbers beyond 2^53 - 1 are refused there. Means and sums are double sums in a fixed order. BOOL is 0 or 1,
// and compares with the texts true and false too. BYTES compare byte by byte with ==, != and sets. NaN satisfies no
// comparison, != included (so "not (x > 1)" holds where x is NaN, and "x <= 1" does not). An aggregate of a row that
// holds a NaN is NaN, and so are mean, min and max of an empty row. A BYTES element that is cut short satisfies no
// comparison either.
//
// Limits: kMaxRules, kMaxConditions (all, any and not count as well), kMaxDepth, kMaxSetValues, kMaxAggregatedInputs.
// Errors: all mistakes at once, a line each, with the rule, the feature, what there is and the way out.
// Threads: an immutable value; const members may be called from many threads.
// Cost: Evaluate allocates nothing. Ten rules of two comparisons take about 80 ns; mean, min, max and sum of an input
// together one pass over its row, made when the first of them is asked for: about 0.6 us for 784 FP32 numbers. A BYTES
// element costs a step for each element before it in the batch: for all rows of a batch use EvaluateAll, which goes
// over the texts once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace ganglion::rules {

inline constexpr std::size_t kMaxRules = 1'000;
inline constexpr std::size_t kMaxConditions = 10'000;
inline constexpr int kMaxDepth = 16;  // a comparison by itself is 1 deep
inline constexpr std::size_t kMaxSetValues = 100'000;
inline constexpr std::size_t kMaxAggregatedInputs = 32;

using Value = std::variant<double, std::string>;

// As rules files call them: below, at_most, above, at_least, equals, not_equals.
enum class Op : std::uint8_t { kLess, kLessOrEqual, kGreater, kGreaterOrEqual, kEqual, kNotEqual };

struct Condition {
  enum class Kind : std::uint8_t {
    kCompare,  // feature op values[0]
    kBetween,  // values[0] <= feature <= values[1]
    kIn,       // feature is one of values
    kAll,      // every child holds; at least one child
    kAny,      // some child holds; at least one child
    kNot,      // the only child does not hold
  } kind = Kind::kCompare;
  std::string feature;
  Op op = Op::kEqual;
  std::vector<Value> values;
  std::vector<Condition> children;
};

struct Rule {
  std::string name;  // optional; for whoever reads answers and messages
  Condition when;
  std::string answer;  // a label's name, or else a class number
  double confidence = 1;
  std::string place;  // where it is written ("rules.yaml:3"), for messages; may be empty
};

struct RuleSetSpec {
  std::vector<Rule> rules;
};

struct RuleAnswer {
  int label = -1;
  float confidence = 0;
  std::size_t rule = 0;  // which one answered, counted from 0
};

class RuleSet {
 public:
  // `inputs` are the decision's, rows first; `labels` its class names, none where classes are numbers.
  static Result<RuleSet> Compile(RuleSetSpec spec, std::span<const tensor::Spec> inputs,
                                 std::span<const std::string> labels);

  // The answer to one row, or nothing when no rule's condition holds. REQUIRES: views match the specs that were
  // compiled against, in their order, and have this row.
  std::optional<RuleAnswer> Evaluate(std::span<const tensor::View> inputs, std::int64_t row) const;
  // The same for each row. Allocates the result and little else.
  std::vector<std::optional<RuleAnswer>> EvaluateAll(std::span<const tensor::View> inputs) const;

  std::size_t size() const { return names_.size(); }
  // Empty where the rule has none. REQUIRES: rule < size().
  const std::string& name(std::size_t rule) const { return names_[rule]; }
  // The highest class that some rule answers: where there were no labels, compare it with what the models have.
  int highest_label() const { return highest_label_; }

 private:
  friend class Compiler;
  struct Row;

  struct Feature {
    enum class Kind : std::uint8_t { kNumber, kText, kMean, kMin, kMax, kSum } kind = Kind::kNumber;
    tensor::DataType type = tensor::DataType::kFp32;
    std::uint32_t input = 0;
    std::uint32_t summary = 0;      // aggregates: which of the row's summaries
    std::int64_t row_elements = 0;  // of one row; not for aggregates
    std::int64_t element = 0;
  };
  enum class Test : std::uint8_t { kLess, kLessOrEqual, kGreater, kGreaterOrEqual, kEqual, kNotEqual, kBetween, kIn };
  struct Step {
    Feature feature;
    Test test = Test::kEqual;
    double low = 0;   // of numbers; what is compared with, or the low end
    double high = 0;  // the high end
    std::uint32_t first =
        0;  // kIn, and all tests of texts: values first .. first + count of numbers_ or texts_, sorted
    std::uint32_t count = 0;
    std::uint32_t yes = 0;  // where to go: a step, kAnswer + a rule, or kNone
    std::uint32_t no = 0;
  };
  static constexpr std::uint32_t kAnswer = std::uint32_t{1} << 31;
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  RuleSet() = default;
  std::optional<RuleAnswer> Run(Row* row) const;
  bool Holds(const Step& step, Row* row) const;
  bool TextHolds(const Step& step, const Row& row) const;

  std::vector<Step> steps_;
  std::vector<double> numbers_;
  std::vector<std::string> texts_;
  std::vector<RuleAnswer> answers_;
  std::vector<std::string> names_;
  std::size_t inputs_ = 0;
  int highest_label_ = -1;
};

}  // namespace ganglion::rules
