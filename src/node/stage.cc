#include "node/stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/file.h"

namespace ganglion::node {
namespace {

using tensor::DataType;
using tensor::Tensor;

void AddSoftmax(std::span<const float> z, bool probabilities, float weight, std::span<float> into) {
  if (probabilities) {
    for (std::size_t k = 0; k < z.size(); ++k) into[k] += weight * z[k];
    return;
  }
  float top = z[0];
  for (const float v : z) top = std::max(top, v);
  float sum = 0;
  for (const float v : z) sum += std::exp(v - top);
  for (std::size_t k = 0; k < z.size(); ++k) into[k] += weight * std::exp(z[k] - top) / sum;
}

}  // namespace

Stage::~Stage() = default;
Stage::Lane::Lane() = default;
Stage::Lane::~Lane() = default;

Status Stage::AddGraph(const std::shared_ptr<runtime::Engine>& engine, const DecisionConfig& config,
                       const std::string& file, bool member) {
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(config.dir / file, limits::kMaxModelBytes));
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(file, std::move(bytes)));
  Graph g;
  ASSIGN_OR_RETURN(g.session, runtime::Session::Create(engine, model));
  g.member = member;
  g.probabilities = model.gives_probabilities();
  for (const auto& in : model.signature().inputs) {
    std::optional<std::size_t> slot;
    for (const std::size_t s : at_hand_) {
      if (slot_specs_[s].name == in.name) slot = s;
    }
    // By position: the one tensor there is, or the first output of the graph before.
    const bool made = at_hand_[0] >= inputs_;
    if (!slot && (at_hand_.size() == 1 || made) && model.signature().inputs.size() == 1) slot = at_hand_[0];
    if (!slot) {
      std::string have;
      for (const std::size_t s : at_hand_) have += " " + slot_specs_[s].name;
      return InvalidArgument(
          fmt::format("{}: its input \"{}\" is none of the tensors at hand:{}", file, in.name, have));
    }
    g.reads.push_back(*slot);
    if (!in.shape.empty() && in.shape[0] != -1) batches_ = false;
  }
  g.first_output = slot_specs_.size();
  for (const auto& out : model.signature().outputs) slot_specs_.push_back(out);
  files_.push_back({file, model.digest()});
  graphs_.push_back(std::move(g));
  return {};
}

Result<std::unique_ptr<Stage>> Stage::Load(const std::shared_ptr<runtime::Engine>& engine, const DecisionConfig& config,
                                           std::size_t index) {
  std::unique_ptr<Stage> stage(new Stage);
  Stage& s = *stage;
  s.config_ = config.stages[index];
  s.slot_specs_ = config.inputs;
  s.inputs_ = config.inputs.size();
  const auto outputs_at_hand = [&] {
    s.at_hand_.clear();
    for (std::size_t i = s.graphs_.back().first_output; i < s.slot_specs_.size(); ++i) s.at_hand_.push_back(i);
  };
  const auto load = [&]() -> Status {
    for (std::size_t i = 0; i < s.inputs_; ++i) s.at_hand_.push_back(i);
    if (!s.config_.pre.empty()) {
      RETURN_IF_ERROR(s.AddGraph(engine, config, s.config_.pre, false));
      outputs_at_hand();
    }
    const bool ensemble = s.config_.models.size() > 1;
    for (const auto& file : s.config_.models) RETURN_IF_ERROR(s.AddGraph(engine, config, file, ensemble));
    if (ensemble) {
      s.mean_slot_ = s.slot_specs_.size();
      tensor::Spec mean = s.slot_specs_[s.graphs_.back().first_output];
      mean.name = "mean";
      s.slot_specs_.push_back(mean);
      s.at_hand_ = {*s.mean_slot_};
      s.score_slot_ = *s.mean_slot_;
      s.probabilities_ = true;
    } else {
      s.score_slot_ = s.graphs_.back().first_output;
      s.probabilities_ = s.graphs_.back().probabilities;
      outputs_at_hand();
    }
    if (!s.config_.post.empty()) {
      RETURN_IF_ERROR(s.AddGraph(engine, config, s.config_.post, false));
      s.score_slot_ = s.graphs_.back().first_output;
      s.probabilities_ = s.graphs_.back().probabilities;
    }
    if (!s.config_.confidence_output.empty()) {
      for (std::size_t i = s.inputs_; i < s.slot_specs_.size(); ++i) {
        if (s.slot_specs_[i].name == s.config_.confidence_output) s.confidence_slot_ = i;
      }
      if (!s.confidence_slot_) {
        std::string have;
        for (std::size_t i = s.inputs_; i < s.slot_specs_.size(); ++i) have += " " + s.slot_specs_[i].name;
        return InvalidArgument(
            fmt::format("no output \"{}\" for the confidence; there are:{}", s.config_.confidence_output, have));
      }
    }
    return s.DryRun(config);
  };
  if (auto status = load(); !status.ok()) return status.Within(fmt::format("{} stages[{}]", config.name, index));
  return stage;
}

Status Stage::DryRun(const DecisionConfig& config) {
  std::vector<Tensor> zeros;
  std::vector<tensor::View> views;
  for (const auto& spec : config.inputs) {
    tensor::Shape shape = spec.shape;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == -1) shape[i] = 1;
      fixed_row_ &= i == 0 || spec.shape[i] != -1;
    }
    ASSIGN_OR_RETURN(auto t, Tensor::Zeros(spec.type, shape));
    zeros.push_back(std::move(t));
  }
  std::vector<Tensor> slots = std::move(zeros);
  for (const Graph& g : graphs_) {
    views.clear();
    for (const std::size_t r : g.reads) views.push_back(slots[r].View());
    ASSIGN_OR_RETURN(auto out, g.session->Run(views));
    for (auto& t : out) slots.push_back(std::move(t));
    if (mean_slot_ && slots.size() == *mean_slot_) slots.push_back(slots[g.first_output]);
  }
  for (const auto& t : slots) slot_shapes_.push_back(t.shape());
  const auto check = [&](std::size_t slot, const char* what) -> Status {
    const Tensor& t = slots[slot];
    const auto& shape = t.shape();
    if (t.type() != DataType::kFp32 || shape.empty() || shape[0] != 1) {
      return InvalidArgument(fmt::format("{} \"{}\" is {}{}, want FP32 with a row for each row of the input", what,
                                         slot_specs_[slot].name, tensor::Name(t.type()), tensor::ShapeText(shape)));
    }
    return {};
  };
  RETURN_IF_ERROR(check(score_slot_, "output"));
  classes_ = slots[score_slot_].As<float>().size();
  if (classes_ == 0 || classes_ > static_cast<std::size_t>(limits::kMaxClasses))
    return InvalidArgument(fmt::format("a stage with {} classes", classes_));
  for (const Graph& g : graphs_) {
    if (!g.member) continue;
    RETURN_IF_ERROR(check(g.first_output, "output"));
    if (slots[g.first_output].As<float>().size() !=
        slots[graphs_.back().member ? score_slot_ : *mean_slot_].As<float>().size()) {
      return InvalidArgument("the members of the ensemble have different numbers of classes");
    }
  }
  if (confidence_slot_) {
    RETURN_IF_ERROR(check(*confidence_slot_, "confidence"));
    if (slots[*confidence_slot_].As<float>().size() != 1)
      return InvalidArgument("confidence \"" + config_.confidence_output + "\" is more than one number a row");
  }
  return {};
}

void Stage::ToLogits(std::span<const float> scores, std::span<float> z) const {
  if (!probabilities_) {
    std::copy(scores.begin(), scores.end(), z.begin());
  } else {
    for (std::size_t k = 0; k < z.size(); ++k) z[k] = std::log(std::max(scores[k], 1e-30f));
  }
}

Result<Stage::Scores> Stage::Score(std::span<const tensor::View> inputs) const {
  GANGLION_CHECK(inputs.size() == inputs_);
  const std::int64_t rows = inputs[0].shape.empty() ? 0 : inputs[0].shape[0];
  Scores all;
  all.rows = static_cast<std::size_t>(rows);
  all.z.resize(all.rows * classes_);
  if (confidence_slot_) all.confidence.resize(all.rows);
  const std::int64_t chunk = batches_ ? 512 : 1;
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t end = std::min(rows, begin + chunk);
    const auto n = static_cast<std::size_t>(end - begin);
    std::vector<tensor::Shape> shapes(inputs_);
    std::vector<tensor::View> slots;
    for (std::size_t i = 0; i < inputs_; ++i) slots.push_back(tensor::Rows(inputs[i], begin, end, &shapes[i]));
    std::vector<std::vector<Tensor>> keep;
    Tensor mean;
    std::vector<float> z(classes_);
    for (const Graph& g : graphs_) {
      std::vector<tensor::View> reads;
      for (const std::size_t r : g.reads) reads.push_back(slots[r]);
      ASSIGN_OR_RETURN(auto out, g.session->Run(reads));
      keep.push_back(std::move(out));
      for (const auto& t : keep.back()) slots.push_back(t.View());
      if (mean_slot_ && slots.size() == *mean_slot_) {
        ASSIGN_OR_RETURN(mean, Tensor::Zeros(DataType::kFp32, keep.back()[0].shape()));
        const auto members = static_cast<float>(config_.models.size());
        const std::size_t width = mean.As<float>().size() / n;
        for (const Graph& m : graphs_) {
          if (!m.member) continue;
          for (std::size_t row = 0; row < n; ++row) {
            AddSoftmax(slots[m.first_output].As<float>().subspan(row * width, width), m.probabilities, 1 / members,
                       mean.As<float>().subspan(row * width, width));
          }
        }
        slots.push_back(mean.View());
      }
    }
    const auto scores = slots[score_slot_].As<float>();
    if (scores.size() != n * classes_)
      return Internal(fmt::format("{} gives {} numbers for {} rows", files_.back().file, scores.size(), n));
    for (std::size_t row = 0; row < n; ++row) {
      const std::size_t at = static_cast<std::size_t>(begin) + row;
      ToLogits(scores.subspan(row * classes_, classes_), std::span(all.z).subspan(at * classes_, classes_));
      if (confidence_slot_) all.confidence[at] = slots[*confidence_slot_].As<float>()[row];
    }
  }
  return all;
}

std::unique_ptr<Stage::Lane> Stage::MakeLane() const {
  if (!fixed_row_) return nullptr;
  std::unique_ptr<Lane> lane(new Lane);
  lane->stage_ = this;
  lane->z_.resize(classes_);
  for (std::size_t i = 0; i < slot_specs_.size(); ++i) {
    auto t = Tensor::Zeros(slot_specs_[i].type, slot_shapes_[i]);
    if (!t.ok()) return nullptr;
    lane->slots_.push_back(std::move(*t));
  }
  for (const Graph& g : graphs_) {
    std::vector<runtime::NamedView> in;
    std::vector<runtime::NamedMutableView> out;
    const auto& signature = g.session->signature();
    for (std::size_t i = 0; i < g.reads.size(); ++i)
      in.push_back({signature.inputs[i].name, lane->slots_[g.reads[i]].View()});
    for (std::size_t i = 0; i < signature.outputs.size(); ++i)
      out.push_back({signature.outputs[i].name, lane->slots_[g.first_output + i].Mutable()});
    auto binding = g.session->Bind(std::move(in), std::move(out));
    if (!binding.ok()) return nullptr;
    lane->bindings_.push_back(std::move(*binding));
  }
  return lane;
}

Status Stage::Lane::Run(std::span<const tensor::View> inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    std::memcpy(slots_[i].Mutable().bytes.data(), inputs[i].bytes.data(), inputs[i].bytes.size());
  const Stage& s = *stage_;
  for (std::size_t g = 0; g < bindings_.size(); ++g) {
    const bool last_member = s.graphs_[g].member && (g + 1 == bindings_.size() || !s.graphs_[g + 1].member);
    RETURN_IF_ERROR(bindings_[g].Run());
    if (!last_member) continue;
    const auto mean = slots_[*s.mean_slot_].As<float>();
    std::fill(mean.begin(), mean.end(), 0.f);
    for (const Graph& m : s.graphs_) {
      if (m.member)
        AddSoftmax(slots_[m.first_output].As<float>(), m.probabilities, 1 / static_cast<float>(s.config_.models.size()),
                   mean);
    }
  }
  s.ToLogits(slots_[s.score_slot_].As<float>(), z_);
  return {};
}

std::optional<float> Stage::Lane::confidence() const {
  if (!stage_->confidence_slot_) return std::nullopt;
  return slots_[*stage_->confidence_slot_].As<float>()[0];
}

}  // namespace ganglion::node
