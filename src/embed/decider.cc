#include <algorithm>
#include <exception>
#include <optional>
#include <vector>

#include "embed/embed.h"
#include "node/decision.h"

namespace ganglion {

struct Decider::Impl {
  std::unique_ptr<node::Decision> decision;
  SteadyClock clock;
  Duration deadline{};
  std::optional<tensor::Shape> row_shape;  // of one row of the only FP32 input, when its size is fixed
  std::size_t row_size = 0;
};

namespace {

bool Refuse(const Status& status, std::string* error) {
  if (error != nullptr) *error = status.message();
  return false;
}

}  // namespace

Decider::Decider(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decider::~Decider() = default;

std::unique_ptr<Decider> Decider::Open(const std::string& directory, const DeciderOptions& options,
                                       std::string* error) {
  const auto open = [&]() -> Result<std::unique_ptr<Impl>> {
    const auto tier = topology::TierFromName(options.highest_tier);
    if (!tier)
      return InvalidArgument("\"" + options.highest_tier + "\" is no tier; one of device, edge, region, global");
    ASSIGN_OR_RETURN(auto engine, runtime::Engine::Create());
    auto impl = std::make_unique<Impl>();
    ASSIGN_OR_RETURN(impl->decision, node::Decision::Open(engine, directory, {.highest_tier = tier}));
    const auto& config = impl->decision->config();
    constexpr Duration kLongest = std::chrono::hours(24 * 365);  // anything longer is "none", and must not overflow
    impl->deadline = std::min<Duration>(options.deadline.count() > 0 ? options.deadline : config.deadline, kLongest);
    tensor::Shape shape = config.inputs[0].shape;
    shape[0] = 1;
    const auto count = tensor::ElementCount(shape);
    if (count.ok()) impl->row_size = static_cast<std::size_t>(*count);
    if (count.ok() && config.inputs.size() == 1 && config.inputs[0].type == tensor::DataType::kFp32)
      impl->row_shape = shape;
    return impl;
  };
  // The last stop for what a library below throws (memory that is not there): nothing may cross into a C caller.
  auto impl = [&]() -> Result<std::unique_ptr<Impl>> {
    try {
      return open();
    } catch (const std::exception& e) {
      return ResourceExhausted(std::string("cannot open ") + directory + ": " + e.what());
    }
  }();
  if (!impl.ok()) {
    Refuse(impl.status(), error);
    return nullptr;
  }
  return std::unique_ptr<Decider>(new Decider(std::move(*impl)));
}

namespace {

bool Finish(const Result<node::Decided>& decided, Answer* answer, std::string* error) {
  if (!decided.ok()) return Refuse(decided.status(), error);
  answer->kind = static_cast<Answer::Kind>(decided->kind);
  answer->label = decided->label;
  answer->confidence = decided->confidence;
  answer->stage = static_cast<int>(decided->stage);
  answer->tier = topology::Name(decided->tier);
  answer->reason = cascade::Name(decided->reason);
  answer->took = decided->took;
  return true;
}

}  // namespace

bool Decider::DecideViews(const Impl& d, std::span<const tensor::View> views, Answer* answer, std::string* error) {
  try {
    return Finish(d.decision->Decide(views, d.clock, d.clock.Now() + d.deadline), answer, error);
  } catch (const std::exception& e) {  // memory that is not there; nothing may cross into a C caller
    return Refuse(ResourceExhausted(e.what()), error);
  }
}

bool Decider::Decide(std::span<const float> input, Answer* answer, std::string* error) const {
  const Impl& d = *impl_;
  if (!d.row_shape)
    return Refuse(InvalidArgument("this decision does not take one FP32 input of fixed size; pass TensorRefs"), error);
  if (input.size() != d.row_size) {
    return Refuse(
        InvalidArgument("input has " + std::to_string(input.size()) + " numbers, want " + std::to_string(d.row_size)),
        error);
  }
  const tensor::View view{tensor::DataType::kFp32, *d.row_shape, std::as_bytes(input)};
  return DecideViews(d, {&view, 1}, answer, error);
}

bool Decider::Decide(std::span<const TensorRef> inputs, Answer* answer, std::string* error) const {
  const Impl& d = *impl_;
  std::vector<tensor::View> views;
  for (const TensorRef& t : inputs) {
    const auto type = tensor::DataTypeFromName(t.datatype);
    if (!type)
      return Refuse(InvalidArgument("\"" + std::string(t.datatype) + "\" is no datatype; FP32 for example is"), error);
    const auto count = tensor::ElementCount(t.shape);
    if (!count.ok()) return Refuse(count.status(), error);
    if (*type == tensor::DataType::kBytes ||
        t.bytes.size() != static_cast<std::size_t>(*count) * tensor::SizeOf(*type)) {
      return Refuse(InvalidArgument(std::string(t.datatype) + tensor::ShapeText(t.shape) + " does not take " +
                                    std::to_string(t.bytes.size()) + " bytes"),
                    error);
    }
    views.push_back({*type, t.shape, t.bytes});
  }
  return DecideViews(d, views, answer, error);
}

std::size_t Decider::input_size() const { return impl_->row_size; }
std::size_t Decider::classes() const { return impl_->decision->classes(); }
std::string Decider::LabelText(int label) const { return impl_->decision->config().LabelText(label); }

}  // namespace ganglion
