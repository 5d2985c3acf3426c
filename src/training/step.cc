#include "training/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::training {
namespace {

using tensor::DataType;
using tensor::Shape;
using tensor::Spec;
using tensor::Tensor;

const Spec* FindSpec(const std::vector<Spec>& specs, const std::string& name) {
  for (const auto& s : specs) {
    if (s.name == name) return &s;
  }
  return nullptr;
}

// `flat`'s part that is `s`.
tensor::MutableView Part(Tensor& flat, const gradient::Segment& s) {
  return {DataType::kFp32, s.shape,
          flat.Mutable().bytes.subspan(static_cast<std::size_t>(s.offset) * 4, static_cast<std::size_t>(s.size) * 4)};
}

std::int64_t SizeOf(const std::vector<gradient::Segment>& segments) {
  return segments.empty() ? 0 : segments.back().offset + segments.back().size;
}

// Copies the initializers that `segments` name into `flat`.
Status Load(const onnx::GraphProto& graph, const std::vector<gradient::Segment>& segments, Tensor* flat) {
  for (const auto& s : segments) {
    for (const auto& t : graph.initializer()) {
      if (t.name() != s.name) continue;
      ASSIGN_OR_RETURN(const Tensor value, graph::ToTensor(t));
      std::memcpy(Part(*flat, s).bytes.data(), value.View().bytes.data(), value.View().bytes.size());
    }
  }
  return {};
}

// Sets the open dimensions of the inputs to those of the data, so that the step is of static shapes.
Status FixShapes(const std::vector<Shape>& row_shapes, const std::string& name, onnx::ModelProto* model) {
  ASSIGN_OR_RETURN(const auto specs, graph::InputSpecs(*model));
  if (!row_shapes.empty() && row_shapes.size() != specs.size())
    return InvalidArgument(name + " has " + std::to_string(specs.size()) + " inputs, the data fit " +
                           std::to_string(row_shapes.size()));
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const Spec& spec = specs[i];
    if (spec.shape.empty()) return InvalidArgument(name + ": input \"" + spec.name + "\" has no batch: " + spec.Text());
    Shape row(spec.shape.begin() + 1, spec.shape.end());
    const bool open = std::any_of(row.begin(), row.end(), [](std::int64_t d) { return d < 0; });
    if (!open) continue;
    const Shape* wanted = row_shapes.empty() ? nullptr : &row_shapes[i];
    bool fits = wanted != nullptr && wanted->size() == row.size();
    for (std::size_t d = 0; fits && d < row.size(); ++d) fits = row[d] < 0 || row[d] == (*wanted)[d];
    if (!fits) {
      return InvalidArgument(name + ": input \"" + spec.name + "\" " + spec.Text() +
                             " has open dimensions beside the batch; a training step needs them fixed. Train on data "
                             "of one shape" +
                             (wanted == nullptr ? "" : " (these are " + tensor::ShapeText(*wanted) + ")") +
                             ", or fix them in the model");
    }
    for (auto& v : *model->mutable_graph()->mutable_input()) {
      if (v.name() != spec.name) continue;
      auto* dims = v.mutable_type()->mutable_tensor_type()->mutable_shape();
      for (int d = 1; d < dims->dim_size(); ++d)
        dims->mutable_dim(d)->set_dim_value((*wanted)[static_cast<std::size_t>(d) - 1]);
    }
  }
  return {};
}

// Vectors are biases and norm parameters; so is what recurrent operators take as their bias (and peephole) matrix.
std::vector<optimizer::Range> Undecayed(const onnx::GraphProto& graph, const std::vector<gradient::Segment>& segments) {
  std::unordered_set<std::string> biases;
  for (const auto& n : graph.node()) {
    const bool recurrent = n.op_type() == "GRU" || n.op_type() == "LSTM" || n.op_type() == "RNN";
    for (const int i : {3, 7}) {
      if (recurrent && n.input_size() > i) biases.insert(n.input(i));
    }
  }
  std::vector<optimizer::Range> ranges;
  for (const auto& s : segments) {
    if (s.shape.size() > 1 && !biases.contains(s.name)) continue;
    ranges.push_back({static_cast<std::size_t>(s.offset), static_cast<std::size_t>(s.offset + s.size)});
  }
  return ranges;
}

Result<Tensor> Zeros(const Spec& spec, std::int64_t batch) {
  Shape shape = spec.shape;
  if (!shape.empty()) shape[0] = batch;
  for (const auto d : shape) {
    if (d < 0) return InvalidArgument("\"" + spec.name + "\" " + spec.Text() + " has open dimensions beside the batch");
  }
  return Tensor::Zeros(spec.type, shape);
}

// "\"w1\" has NaN at element 3", or nothing when all numbers of an FP32 tensor are finite.
std::string NotFinite(const std::string& name, const tensor::View& view) {
  if (view.type != DataType::kFp32 || tensor::CheckFinite(name, view).ok()) return "";
  const auto v = view.As<float>();
  const auto at = std::find_if(v.begin(), v.end(), [](float x) { return !std::isfinite(x); });
  return "\"" + name + "\" has " + (std::isnan(*at) ? "NaN" : "an infinity") + " at element " +
         std::to_string(at - v.begin());
}

bool Matches(const std::string& pattern, const std::string& name) {
  // Classic backtracking over the last star.
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string::npos;
  std::size_t from = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      from = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++from;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

Result<std::vector<std::string>> MatchNames(const std::vector<std::string>& patterns,
                                            const std::vector<std::string>& names) {
  std::vector<std::string> matched;
  for (const auto& pattern : patterns) {
    bool any = false;
    for (const auto& name : names) {
      if (!Matches(pattern, name)) continue;
      any = true;
      if (std::find(matched.begin(), matched.end(), name) == matched.end()) matched.push_back(name);
    }
    if (any) continue;
    std::string have;
    for (std::size_t i = 0; i < names.size() && i < 20; ++i) have += " " + names[i];
    return InvalidArgument("no parameter is called \"" + pattern + "\"; there are:" + have +
                           (names.size() > 20 ? " ..." : ""));
  }
  return matched;
}

Result<std::vector<std::string>> ParameterNames(const model::Model& model) {
  onnx::ModelProto proto;
  RETURN_IF_ERROR(graph::Parse(model.bytes(), &proto));
  std::vector<std::string> names;
  for (const auto& t : proto.graph().initializer()) {
    if (t.data_type() == onnx::TensorProto::FLOAT && t.dims_size() > 0) names.push_back(t.name());
  }
  return names;
}

Result<std::unique_ptr<Step>> Step::Create(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                                           gradient::Loss loss, std::int64_t batch) {
  StepOptions options;
  options.gradient.loss = loss;
  options.batch = batch;
  return Create(engine, model, options);
}

Result<std::unique_ptr<Step>> Step::Create(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model,
                                           const StepOptions& options) {
  if (options.batch < 1) return InvalidArgument("batch must be at least 1, got " + std::to_string(options.batch));
  std::unique_ptr<Step> step(new Step);
  step->options_ = options;
  step->options_.gradient.usual_batch = options.batch;
  step->model_bytes_.assign(reinterpret_cast<const char*>(model.bytes().data()), model.bytes().size());
  onnx::ModelProto proto;
  RETURN_IF_ERROR(graph::Parse(model.bytes(), &proto));
  RETURN_IF_ERROR(FixShapes(options.row_shapes, model.name(), &proto));
  onnx::ModelProto step_proto;
  gradient::Options gradient_options = options.gradient;
  gradient_options.usual_batch = options.batch;
  gradient_options.one_thread = true;  // as the session below
  auto differentiated = gradient::Differentiate(proto, gradient_options, &step_proto);
  if (!differentiated.ok()) return differentiated.status().Within(model.name());
  step->step_ = std::move(*differentiated);
  ASSIGN_OR_RETURN(const auto step_model,
                   model::Model::FromBytes(model.name() + " (training step)", graph::Serialize(step_proto)));
  step_proto.Clear();
  ASSIGN_OR_RETURN(step->session_, runtime::Session::Create(engine, step_model,
                                                            {.optimise = runtime::SessionOptions::Optimise::kBasic}));
  ASSIGN_OR_RETURN(const auto fixed_inputs, graph::InputSpecs(proto));
  const auto& signature = step_model.signature();
  for (const auto& spec : fixed_inputs) {
    if (FindSpec(signature.inputs, spec.name) == nullptr) continue;  // the loss does not depend on it
    if (spec.shape[0] >= 0 && spec.shape[0] != options.batch) {
      return InvalidArgument(model.name() + ": input \"" + spec.name + "\" " + spec.Text() +
                             " has a fixed batch; train with that batch, not " + std::to_string(options.batch) +
                             ", or export the model with an open one");
    }
    step->input_specs_.push_back(spec);
  }
  if (step->input_specs_.empty()) return InvalidArgument(model.name() + ": the output does not depend on any input");
  const Spec* named = FindSpec(model.signature().outputs, options.gradient.output);
  const auto& head = (named != nullptr ? *named : model.signature().outputs[0]).shape;
  step->classes_ = head.empty() ? 0 : std::max<std::int64_t>(head.back(), 0);
  if (auto s = step->Allocate(signature); !s.ok()) return s.Within(model.name());
  step->undecayed_ = Undecayed(proto.graph(), step->step_.parameters);
  RETURN_IF_ERROR(Load(proto.graph(), step->step_.parameters, &step->parameters_));
  RETURN_IF_ERROR(Load(proto.graph(), step->step_.statistics, &step->statistics_));
  const auto start = step->parameters();
  if (!step->anchors().empty()) std::copy(start.begin(), start.end(), step->anchors().begin());
  ASSIGN_OR_RETURN(step->binding_, step->Bind(options.batch));
  return step;
}

Status Step::Allocate(const model::Signature& signature) {
  for (const auto& spec : input_specs_) {
    ASSIGN_OR_RETURN(Tensor t, Zeros(spec, options_.batch));
    inputs_.push_back(std::move(t));
  }
  for (const auto& spec : step_.noise) {
    ASSIGN_OR_RETURN(Tensor t, Zeros(spec, options_.batch));
    noise_.push_back(std::move(t));
  }
  target_spec_ = step_.target;
  ASSIGN_OR_RETURN(target_, Zeros(target_spec_, options_.batch));
  const Spec* label = FindSpec(signature.inputs, "label");
  has_label_ = label != nullptr;
  if (has_label_) {
    ASSIGN_OR_RETURN(label_, Zeros(*label, options_.batch));
  }
  ASSIGN_OR_RETURN(weight_, Tensor::Zeros(DataType::kFp32, {options_.batch}));
  std::fill(weight().begin(), weight().end(), 1.f / static_cast<float>(options_.batch));
  const std::int64_t size = SizeOf(step_.parameters);
  ASSIGN_OR_RETURN(parameters_, Tensor::Zeros(DataType::kFp32, {size}));
  ASSIGN_OR_RETURN(gradients_, Tensor::Zeros(DataType::kFp32, {size}));
  ASSIGN_OR_RETURN(anchors_, Tensor::Zeros(DataType::kFp32, {options_.gradient.proximal > 0 ? size : 0}));
  ASSIGN_OR_RETURN(statistics_, Tensor::Zeros(DataType::kFp32, {SizeOf(step_.statistics)}));
  ASSIGN_OR_RETURN(next_statistics_, Tensor::Zeros(DataType::kFp32, {SizeOf(step_.statistics)}));
  ASSIGN_OR_RETURN(loss_, Tensor::Zeros(DataType::kFp32, {}));
  return {};
}

Result<runtime::Binding> Step::Bind(std::int64_t rows) {
  std::vector<runtime::NamedView> inputs;
  std::vector<runtime::NamedMutableView> outputs;
  std::vector<Shape> shapes;  // the views borrow them
  shapes.reserve(inputs_.size() + noise_.size() + 3);
  const auto cut = [&](const std::string& name, Tensor& t) {
    Shape shape = t.shape();
    const auto batch = static_cast<std::size_t>(shape[0]);
    shape[0] = rows;
    shapes.push_back(std::move(shape));
    const auto bytes = t.View().bytes;
    inputs.push_back(
        {name, {t.type(), shapes.back(), bytes.first(bytes.size() / batch * static_cast<std::size_t>(rows))}});
  };
  for (std::size_t i = 0; i < inputs_.size(); ++i) cut(input_specs_[i].name, inputs_[i]);
  for (std::size_t i = 0; i < noise_.size(); ++i) cut(step_.noise[i].name, noise_[i]);
  cut("target", target_);
  if (has_label_) cut("label", label_);
  cut("row_weight", weight_);
  outputs.push_back({"loss", loss_.Mutable()});
  for (const auto& s : step_.parameters) {
    inputs.push_back({s.name, Part(parameters_, s)});
    outputs.push_back({"grad." + s.name, Part(gradients_, s)});
    if (!anchors().empty()) inputs.push_back({"anchor." + s.name, Part(anchors_, s)});
  }
  for (const auto& s : step_.statistics) {
    inputs.push_back({s.name, Part(statistics_, s)});
    outputs.push_back({"next." + s.name, Part(next_statistics_, s)});
  }
  return session_->Bind(inputs, outputs);
}

Status Step::Weigh(std::int64_t rows, float each) {
  const auto w = weight();
  for (std::size_t r = 0; r < w.size(); ++r) w[r] = r < static_cast<std::size_t>(rows) ? each : 0.f;
  rows_ = rows;
  if (step_.statistics.empty() || rows == options_.batch || rows < 1 || rows == tail_rows_) return {};
  tail_.reset();
  ASSIGN_OR_RETURN(tail_, Bind(rows));
  tail_rows_ = rows;
  return {};
}

Status Step::Run() {
  const bool shorter = !step_.statistics.empty() && rows_ > 0 && rows_ < options_.batch;
  return shorter ? tail_->Run() : binding_->Run();
}

void Step::KeepStatistics() {
  if (statistics().empty()) return;
  std::memcpy(statistics_.Mutable().bytes.data(), next_statistics_.View().bytes.data(), next_statistics_.size_bytes());
}

void Step::DrawNoise(Random random) {
  for (auto& t : noise_) {
    // 24 bits: every number is exact in FP32 and below 1.
    for (float& v : t.As<float>()) v = static_cast<float>(random.Next() >> 40) * 0x1p-24f;
  }
}

Result<model::Model> Step::Snapshot(const std::string& name) const {
  onnx::ModelProto proto;
  RETURN_IF_ERROR(graph::Parse(std::as_bytes(std::span(model_bytes_)), &proto));
  const auto put = [&](const std::vector<gradient::Segment>& segments, const Tensor& flat) {
    for (auto& t : *proto.mutable_graph()->mutable_initializer()) {
      for (const auto& s : segments) {
        if (s.name != t.name()) continue;
        const auto bytes =
            flat.View().bytes.subspan(static_cast<std::size_t>(s.offset) * 4, static_cast<std::size_t>(s.size) * 4);
        onnx::TensorProto fresh;
        graph::FromTensor(s.name, {DataType::kFp32, s.shape, bytes}, &fresh);
        t = std::move(fresh);
      }
    }
  };
  put(step_.parameters, parameters_);
  put(step_.statistics, statistics_);
  return model::Model::FromBytes(name, graph::Serialize(proto));
}

std::string Step::WhatIsNotFinite(const std::shared_ptr<runtime::Engine>& engine) {
  for (const auto& s : step_.parameters) {
    if (auto text = NotFinite(s.name, Part(parameters_, s)); !text.empty()) return "parameter " + text;
  }
  for (const auto& s : step_.statistics) {
    if (auto text = NotFinite(s.name, Part(statistics_, s)); !text.empty()) return "statistic " + text;
  }
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (auto text = NotFinite(input_specs_[i].name, inputs_[i].View()); !text.empty()) return "input " + text;
  }
  if (auto text = NotFinite("target", target_.View()); !text.empty()) return text;

  return ValueNotFinite(engine);
}

// Everything that was fed is finite: runs the step with every value on the way as an output, and looks at them.
std::string Step::ValueNotFinite(const std::shared_ptr<runtime::Engine>& engine) {
  std::string unknown = "no single value could be named";
  onnx::ModelProto model;
  onnx::ModelProto step;
  if (!graph::Parse(std::as_bytes(std::span(model_bytes_)), &model).ok()) return unknown;
  if (!FixShapes(options_.row_shapes, "", &model).ok()) return unknown;
  if (!gradient::Differentiate(model, options_.gradient, &step).ok()) return unknown;
  struct Seen {
    std::string value;
    std::string node;
  };
  std::vector<Seen> seen;
  auto* g = step.mutable_graph();
  g->clear_output();
  const int nodes = g->node_size();
  for (int i = 0; i < nodes; ++i) {
    const onnx::NodeProto n = g->node(i);
    for (const auto& value : n.output()) {
      if (value.empty()) continue;
      const std::string name = "finite." + std::to_string(seen.size());
      auto* cast = g->add_node();
      cast->set_op_type("Cast");
      cast->add_input(value);
      cast->add_output(name);
      auto* to = cast->add_attribute();
      to->set_name("to");
      to->set_type(onnx::AttributeProto::INT);
      to->set_i(onnx::TensorProto::FLOAT);
      auto* out = g->add_output();
      out->set_name(name);
      out->mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
      seen.push_back({value, graph::Describe(n, i)});
    }
  }
  const auto every = model::Model::FromBytes("step", graph::Serialize(step));
  if (!every.ok()) return unknown;
  const auto session =
      runtime::Session::Create(engine, *every, {.optimise = runtime::SessionOptions::Optimise::kBasic});
  if (!session.ok()) return unknown;
  std::vector<tensor::View> views;
  for (const auto& spec : every->signature().inputs) {
    tensor::View view;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (input_specs_[i].name == spec.name) view = inputs_[i].View();
    }
    for (std::size_t i = 0; i < noise_.size(); ++i) {
      if (step_.noise[i].name == spec.name) view = noise_[i].View();
    }
    if (spec.name == "target") view = target_.View();
    if (spec.name == "label") view = label_.View();
    if (spec.name == "row_weight") view = weight_.View();
    for (const auto& s : step_.parameters) {
      if (s.name == spec.name) view = Part(parameters_, s);
      if ("anchor." + s.name == spec.name) view = Part(anchors_, s);
    }
    for (const auto& s : step_.statistics) {
      if (s.name == spec.name) view = Part(statistics_, s);
    }
    views.push_back(view);
  }
  const auto values = (*session)->Run(views);
  if (!values.ok()) return unknown;
  for (std::size_t i = 0; i < values->size(); ++i) {
    if (auto text = NotFinite(seen[i].value, (*values)[i].View()); !text.empty())
      return "value " + text + ", made by " + seen[i].node;
  }
  return unknown;
}

}  // namespace ganglion::training
