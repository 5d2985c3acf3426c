#include "node/online_stage.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "online/snapshot.h"

namespace ganglion::node {

using tensor::DataType;

Result<std::unique_ptr<OnlineStage>> OnlineStage::Create(const std::string& snapshot,
                                                         const std::vector<tensor::Spec>& inputs) {
  ASSIGN_OR_RETURN(online::Learner certified, online::Restore(snapshot));
  const online::LearnerOptions& options = certified.options();
  if (options.task == online::Task::kRegression)
    return InvalidArgument("it predicts numbers, a decision is among classes; learn with --loss logistic or --classes");
  std::vector<std::string> names;
  names.reserve(inputs.size());
  for (const tensor::Spec& spec : inputs) {
    if (spec.type != DataType::kFp32 && spec.type != DataType::kBytes)
      return InvalidArgument(
          fmt::format("input \"{}\" is {}; online models take FP32 and BYTES", spec.name, tensor::Name(spec.type)));
    names.push_back(spec.name);
  }
  ASSIGN_OR_RETURN(auto features, online::InputFeatures::Create(options, names));
  ASSIGN_OR_RETURN(auto learning, learning::OutcomeLearner::Create(snapshot));
  const std::size_t classes = options.task == online::Task::kBinary ? 2 : options.classes;
  return std::unique_ptr<OnlineStage>(
      new OnlineStage(std::move(certified), std::move(learning), std::move(features), classes));
}

Status OnlineStage::Features(std::span<const tensor::View> inputs, std::size_t row, Scratch* scratch) const {
  scratch->features.Begin(&scratch->example);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const tensor::View& view = inputs[i];
    std::size_t width = 1;
    for (std::size_t d = 1; d < view.shape.size(); ++d) width *= static_cast<std::size_t>(view.shape[d]);
    if (view.type == DataType::kFp32) {
      const auto numbers = view.As<float>().subspan(row * width, width);
      for (const float v : numbers) {
        if (!std::isfinite(v)) return InvalidArgument("an input has a number that is not finite");
      }
      scratch->features.Numbers(i, numbers);
      continue;
    }
    // Texts lie one after the other, each behind its length; those of earlier rows are stepped over.
    const std::byte* at = view.bytes.data();
    for (std::size_t k = 0; k < (row + 1) * width; ++k) {
      std::uint32_t size = 0;
      std::memcpy(&size, at, sizeof(size));
      at += sizeof(size);
      if (k >= row * width) scratch->features.Text(i, {reinterpret_cast<const char*>(at), size});
      at += size;
    }
  }
  return scratch->features.Finish();
}

void OnlineStage::Scores(std::span<const online::Feature> features, std::span<float> z) const {
  if (certified_.outputs() > 1) return certified_.Predict(features, z);
  z[0] = 0;
  certified_.Predict(features, z.subspan(1));
}

Status OnlineStage::Score(std::span<const tensor::View> inputs, std::size_t row, Scratch* scratch,
                          std::span<float> z) const {
  RETURN_IF_ERROR(Features(inputs, row, scratch));
  Scores(scratch->example.features, z);
  return {};
}

Status OnlineStage::Remember(std::span<const tensor::View> inputs, std::span<const std::string> ids, TimePoint now) {
  Scratch scratch = MakeScratch();
  std::vector<float> scores(learning_->outputs());
  for (std::size_t row = 0; row < ids.size(); ++row) {
    RETURN_IF_ERROR(Features(inputs, row, &scratch));
    RETURN_IF_ERROR(learning_->Predict(ids[row], scratch.example, now, scores));
  }
  return {};
}

Status OnlineStage::Learn(const std::string& id, int label, float weight, TimePoint now) {
  if (label < 0 || static_cast<std::size_t>(label) >= classes_)
    return InvalidArgument(fmt::format("label {} is no class; there are {}, counted from 0", label, classes_));
  if (!(weight >= 0) || !std::isfinite(weight))
    return InvalidArgument(fmt::format("weight must be finite and >= 0, got {}", weight));
  const bool two = certified_.outputs() == 1;
  const float told = two ? (label == 1 ? 1.f : -1.f) : static_cast<float>(label);
  ASSIGN_OR_RETURN(const auto learned, learning_->Learn(id, told, weight, now));
  std::vector<float> z(certified_.outputs());
  certified_.Predict(learned.example.features, z);
  const double loss = certified_.Loss(z, told);
  sums_.With([&](Sums& s) {
    ++s.outcomes;
    s.weight += weight;
    s.certified += weight * loss;
    s.learned += weight * learned.outcome.loss;
  });
  return {};
}

OnlineStage::Report OnlineStage::report() const {
  return sums_.With([](const Sums& s) {
    const double weight = s.weight > 0 ? s.weight : 1;
    return Report{s.outcomes, s.certified / weight, s.learned / weight};
  });
}

}  // namespace ganglion::node
