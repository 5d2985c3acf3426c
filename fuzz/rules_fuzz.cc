// rules.yaml: reading it, compiling it against fixed inputs, and answering a row of zeros and one of NaN.
#include <algorithm>
#include <array>
#include <limits>

#include "base/check.h"
#include "node/rules_file.h"
#include "target.h"

namespace {

using ganglion::tensor::DataType;
using ganglion::tensor::Tensor;

struct Signature {
  std::vector<ganglion::tensor::Spec> specs{{"image", DataType::kFp32, {-1, 4}}, {"age", DataType::kInt64, {-1}},
                                            {"risk", DataType::kFp64, {-1, 1}},  {"country", DataType::kBytes, {-1}},
                                            {"x", DataType::kFp16, {-1, 2, 3}},  {"open", DataType::kBf16, {-1, -1}},
                                            {"member", DataType::kBool, {-1}}};
  std::vector<std::string> labels{"shirt", "bag", "boot", "7"};
  std::vector<Tensor> tensors;
  std::vector<ganglion::tensor::View> views;

  Signature() {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    constexpr std::array<float, 8> kImage{0, 0, 0, 0, kNan, kNan, kNan, kNan};
    constexpr std::array<double, 2> kRisk{0, std::numeric_limits<double>::quiet_NaN()};
    constexpr std::array<char, 11> kCountry{0, 0, 0, 0, 3, 0, 0, 0, 'N', 'a', 'N'};
    std::array<std::uint16_t, 12> x{};
    std::fill(x.begin() + 6, x.end(), std::uint16_t{0x7e00});
    const std::array<std::uint16_t, 4> open{0, 0, 0x7fc0, 0x7fc0};
    Add(Tensor::From<float>({2, 4}, kImage));
    Add(Tensor::Zeros(DataType::kInt64, {2}));
    Add(Tensor::From<double>({2, 1}, kRisk));
    Add(Tensor::FromBytes(DataType::kBytes, {2}, std::as_bytes(std::span(kCountry))));
    Add(Tensor::FromBytes(DataType::kFp16, {2, 2, 3}, std::as_bytes(std::span(x))));
    Add(Tensor::FromBytes(DataType::kBf16, {2, 2}, std::as_bytes(std::span(open))));
    Add(Tensor::Zeros(DataType::kBool, {2}));
    for (const Tensor& t : tensors) views.push_back(t.View());
  }
  void Add(ganglion::Result<Tensor> t) { tensors.push_back(std::move(t).value()); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Signature signature;
  auto spec = ganglion::node::ParseRulesFile(std::string(reinterpret_cast<const char*>(data), size), "rules.yaml");
  if (!spec.ok()) return 0;
  const auto rules = ganglion::rules::RuleSet::Compile(std::move(spec).value(), signature.specs, signature.labels);
  if (!rules.ok()) return 0;
  const auto all = rules->EvaluateAll(signature.views);
  for (std::int64_t row = 0; row < 2; ++row) {
    const auto one = rules->Evaluate(signature.views, row);
    const auto& same = all[static_cast<std::size_t>(row)];
    GANGLION_CHECK(one.has_value() == same.has_value());
    if (!one) continue;
    GANGLION_CHECK(one->rule == same->rule && one->rule < rules->size());
    GANGLION_CHECK(one->label >= 0 && one->label <= rules->highest_label());
    GANGLION_CHECK(one->confidence >= 0 && one->confidence <= 1);
  }
  return 0;
}

std::vector<std::string> Seeds() {
  return {
      "rules:\n  - name: blank picture\n    if: {feature: mean(image), below: 0.01}\n    then: bag\n"
      "  - if: {all: [{feature: age, at_least: 18}, {any: [{feature: country, in: [FR, DE]}, "
      "{not: {feature: risk, above: .5}}]}]}\n    then: {answer: 3, confidence: .99}\n",
      "rules:\n  - if:\n      feature: x[1,2]\n      between: [0, 0.1]\n    then: 7\n"
      "  - if: {any: [{feature: sum(open), not_equals: 1}, {feature: \"image[3]\", at_most: -1e3}]}\n    then: boot\n"
      "  - if: {feature: country, not_equals: \"\"}\n    then: shirt\n"
      "  - if: {feature: member, equals: true}\n    then: {answer: 0, confidence: 0}\n",
      "rules:\n  - if: &a {all: [{feature: max(x), in: [1, 2, 2.5]}, {feature: min(x), not_equals: 0}]}\n    then: 1\n"
      "  - if: {not: *a}\n    then: 2\n"};
}
