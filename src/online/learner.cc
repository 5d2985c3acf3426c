#include "online/learner.h"

#include <charconv>
#include <numbers>

#include "online/hash.h"
#include "online/learner_core.h"

namespace ganglion::online {
namespace {

std::string Number(double v) {
  std::array<char, 32> text{};
  const auto r = std::to_chars(text.data(), text.data() + text.size(), v, std::chars_format::general, 6);
  return {text.data(), r.ptr};
}

// SplitMix64 of a counter: the same word for the same counter, unlike its neighbours.
std::uint64_t Mixed(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = seed + 0x9e3779b97f4a7c15u * counter;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

namespace internal {

Status RefuseValue(const Example& example, std::uint32_t mask) {
  if (!std::isfinite(example.weight) || example.weight < 0)
    return InvalidArgument("the example's weight must be finite and >= 0, got " + Number(example.weight));
  for (std::size_t i = 0; i < example.features.size(); ++i) {
    const Feature& f = example.features[i];
    const std::string name = "feature " + std::to_string(i + 1) + " (place " + std::to_string(f.index) + ")";
    if (!std::isfinite(f.value)) return InvalidArgument(name + " is " + Number(f.value) + "; values must be finite");
    if (f.index > mask)
      return InvalidArgument(name + " lies beyond the table's last place, " + std::to_string(mask) +
                             "; take more bits");
  }
  return {};
}

Status RefuseLabel(const LearnerOptions& options, float label) {
  const std::string got = "label " + Number(label);
  if (options.task == Task::kRegression) return InvalidArgument(got + " is not finite");
  if (options.task == Task::kBinary) {
    return InvalidArgument(got + " is neither -1 nor 1; two classes are -1 and 1, more are learned with --classes");
  }
  return InvalidArgument(got + " is no class; there are " + std::to_string(options.classes) + ", counted from 0");
}

Status RefuseStep(double score, float label, float largest) {
  return InvalidArgument("the step would be out of range: score " + Number(score) + ", label " + Number(label) +
                         ", largest value " + Number(largest) + "; scale the values or the labels down");
}

float StartingFactor(const LearnerOptions& options, std::uint64_t index, int factor) {
  // Two uniform numbers of 24 bits from one mixed word, to a normal one (Box and Muller).
  const std::uint64_t z = Mixed(options.seed, index * kMaxFactors + static_cast<std::uint64_t>(factor) + 1);
  const double u = (static_cast<double>(z >> 40) + 1) * 0x1p-24;
  const double v = static_cast<double>(z & 0xffffff) * 0x1p-24;
  return static_cast<float>(options.factor_scale * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

State NewState(const LearnerOptions& options) {
  State s;
  s.options = options;
  const std::size_t places = std::size_t{1} << options.bits;
  s.cells.resize(places * options.outputs() * 4);
  if (options.anchor > 0) s.anchors.resize(places * options.outputs() * 2);
  if (options.factors > 0) {
    const auto k = static_cast<std::size_t>(options.factors);
    s.factors.resize(places * 2 * k);
    for (std::size_t i = 0; i < places; ++i) {
      for (std::size_t j = 0; j < k; ++j) s.factors[i * 2 * k + j] = StartingFactor(options, i, static_cast<int>(j));
    }
  }
  s.reservoir = Reservoir(options.replay);
  return s;
}

}  // namespace internal

std::uint64_t StepBits(const internal::State& s) {
  if (s.options.replay == 0) return 0;
  const std::uint64_t writer = Mixed(Murmur3(s.origin.writer, 0), s.origin.epoch + 1);
  return Mixed(s.options.seed ^ writer, s.progress.examples + 1);
}

}  // namespace ganglion::online

template class ganglion::online::BasicLearner<ganglion::online::Plain>;
