// Clipping where one backward pass cannot tell the examples apart: the step of one example, over and over.
#include <algorithm>
#include <map>

#include "gradient/clip.h"
#include "gradient/losses.h"
#include "gradient/scan.h"
#include "graph/onnx.pb.h"

namespace ganglion::gradient {
namespace {

using graph::GraphBuilder;
using tensor::DataType;
using tensor::Shape;
using tensor::Spec;

using Names = std::map<std::string, std::string>;

void Rename(onnx::GraphProto* g, const Names& names);

void Rename(onnx::NodeProto* n, const Names& names) {
  const auto rename = [&](std::string* name) {
    const auto at = names.find(*name);
    if (at != names.end()) *name = at->second;
  };
  for (auto& name : *n->mutable_input()) rename(&name);
  for (auto& name : *n->mutable_output()) rename(&name);
  for (auto& a : *n->mutable_attribute()) {
    if (a.has_g()) Rename(a.mutable_g(), names);
  }
}

void Rename(onnx::GraphProto* g, const Names& names) {
  for (auto& n : *g->mutable_node()) Rename(&n, names);
}

// The Scan, in the order of its making.
class OneByOne {
 public:
  OneByOne(const onnx::ModelProto& one, const StepModel& parts, const Options& options, onnx::ModelProto* out)
      : one_(one), parts_(parts), options_(options), g_(out), scan_(g_) {
    g_.Avoid(one.graph());
    for (const auto& t : one.graph().initializer()) *out->mutable_graph()->add_initializer() = t;
  }

  Status Run() {
    ASSIGN_OR_RETURN(const auto inputs, graph::InputSpecs(one_));
    for (const auto& spec : inputs) g_.Input(spec);
    for (const auto& p : parts_.parameters) sums_.push_back(scan_.State(Zeros(p.shape), p.shape));
    const std::string sum_of_losses = scan_.State(Zeros({}), {});
    const auto weight =
        std::find_if(inputs.begin(), inputs.end(), [](const Spec& s) { return s.name == "row_weight"; });
    const std::int64_t batch = weight->shape[0];
    if (batch > 1) {
      return Unimplemented("the model has a fixed batch of " + std::to_string(batch) +
                           ", so it has no step of one example; export it with an open batch (-1)");
    }
    const std::string axis = g_.Ints("axis", {0});
    for (const auto& spec : inputs) {
      const bool of_rows = !IsParameter(spec.name) && !spec.shape.empty() && spec.shape[0] == batch;
      if (!of_rows) continue;
      const std::string at = scan_.Sequence(spec.name, Shape(spec.shape.begin() + 1, spec.shape.end()), spec.type);
      if (spec.name == "row_weight") {
        weight_ = at;
        const float one[1] = {1};
        names_[spec.name] = g_.Constant("weight_of_one", tensor::Tensor::From<float>({1}, one).value());
      } else {
        names_[spec.name] = scan_.Node("Unsqueeze", {at, axis});
      }
    }
    for (const auto& p : parts_.parameters) names_["grad." + p.name] = g_.Fresh("of_one");
    names_["loss"] = g_.Fresh("loss_of_one");
    for (onnx::NodeProto n : one_.graph().node()) {
      Rename(&n, names_);
      *scan_.graph()->add_node() = std::move(n);
    }
    AppendUpdate();
    scan_.Carry(scan_.Node("Add", {sum_of_losses, scan_.Node("Mul", {names_["loss"], weight_})}));
    scan_.Emit(norm_, {});
    NameOutputs(scan_.Append(false), batch);
    return {};
  }

 private:
  bool IsParameter(const std::string& name) const {
    return std::any_of(parts_.parameters.begin(), parts_.parameters.end(),
                       [&](const Segment& s) { return s.name == name; });
  }

  std::string Zeros(const Shape& shape) { return g_.Node("ConstantOfShape", {g_.Ints("shape", shape)}); }

  // sums + w min(1, C / norm) gradients
  void AppendUpdate() {
    std::vector<std::string> squares;
    squares.reserve(parts_.parameters.size());
    for (const auto& p : parts_.parameters)
      squares.push_back(scan_.Node("ReduceSumSquare", {names_["grad." + p.name]}, {KeepDims(false)}));
    norm_ = scan_.Node("Sqrt", {scan_.Node("Sum", squares)});
    const std::string over = scan_.Node("Div", {g_.Scalar("clip_norm", *options_.clip_norm), norm_});
    const std::string factor = scan_.Node("Mul", {scan_.Node("Min", {over, g_.Scalar("one", 1)}), weight_});
    for (std::size_t i = 0; i < parts_.parameters.size(); ++i) {
      const std::string& gradient = names_["grad." + parts_.parameters[i].name];
      scan_.Carry(scan_.Node("Add", {sums_[i], scan_.Node("Mul", {gradient, factor})}));
    }
  }

  void NameOutputs(const std::vector<std::string>& out, std::int64_t batch) {
    const std::size_t count = parts_.parameters.size();
    std::string loss = out[count];
    std::vector<std::string> sums(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count));
    if (options_.proximal > 0) {
      for (std::size_t i = 0; i < count; ++i)
        AppendProximal(g_, options_.proximal, parts_.parameters[i], &sums[i], &loss);
    }
    g_.Rename(loss, "loss");
    g_.Output({"loss", DataType::kFp32, {}});
    for (std::size_t i = 0; i < count; ++i) {
      const Segment& p = parts_.parameters[i];
      g_.Rename(sums[i], "grad." + p.name);
      g_.Output({"grad." + p.name, DataType::kFp32, p.shape});
    }
    g_.Rename(out[count + 1], "norms");
    g_.Output({"norms", DataType::kFp32, {batch}});
  }

  const onnx::ModelProto& one_;
  const StepModel& parts_;
  const Options& options_;
  GraphBuilder g_;
  ScanBody scan_;
  Names names_;  // of the one step, to those inside
  std::vector<std::string> sums_;
  std::string weight_, norm_;
};

}  // namespace

Result<StepModel> ClipOneByOne(const onnx::ModelProto& model, const Options& options, const std::string& why,
                               onnx::ModelProto* step) {
  Options plain = options;
  plain.clip_norm.reset();
  plain.proximal = 0;
  onnx::ModelProto one;
  ASSIGN_OR_RETURN(StepModel parts, Differentiate(model, plain, &one));
  onnx::ModelProto out;
  OneByOne scan(one, parts, options, &out);
  out.mutable_opset_import(0)->set_version(graph::OpsetVersion(one));
  out.set_doc_string(one.doc_string() + ", clipped one example at a time");
  RETURN_IF_ERROR(scan.Run());
  if (auto s = graph::Validate(out); !s.ok()) return s.Within("clipped training step");
  *step = std::move(out);
  parts.one_by_one = why;
  return parts;
}

}  // namespace ganglion::gradient
