#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "data/file.h"
#include "gradient/gradient.h"
#include "gradient/prepare.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string model;
  std::string loss = "softmax_cross_entropy";
  std::string out = "step.onnx";
  std::string prepared;             // where to write the prepared model
  std::vector<std::string> fixed;   // NAME=NUMBER
  std::vector<std::string> shapes;  // NAME=1,3,48,320
  gradient::Options gradient;
};

// "NAME=REST", the name possibly with a '=' in it.
Status Split(const std::string& text, std::string* name, std::string* rest) {
  const auto at = text.rfind('=');
  if (at == std::string::npos || at == 0) return InvalidArgument(fmt::format("\"{}\" is not NAME=VALUE", text));
  *name = text.substr(0, at);
  *rest = text.substr(at + 1);
  return {};
}

// The number as a tensor of the input's datatype, of one element.
Result<tensor::Tensor> FixedValue(const onnx::ModelProto& model, const std::string& name, const std::string& number) {
  ASSIGN_OR_RETURN(const auto inputs, graph::InputSpecs(model));
  for (const auto& spec : inputs) {
    if (spec.name != name) continue;
    for (const auto d : spec.shape) {
      if (d != 1)
        return InvalidArgument(fmt::format("--fix takes inputs of one number, \"{}\" is {}", name, spec.Text()));
    }
    char* end = nullptr;
    if (spec.type == tensor::DataType::kInt64) {
      const long value = std::strtol(number.c_str(), &end, 10);
      if (end != number.c_str() && *end == 0) return tensor::Tensor::From<long>(spec.shape, {&value, 1});
    } else if (spec.type == tensor::DataType::kFp32) {
      const float value = std::strtof(number.c_str(), &end);
      if (end != number.c_str() && *end == 0) return tensor::Tensor::From<float>(spec.shape, {&value, 1});
    }
    return InvalidArgument(fmt::format("\"{}\" is no value for input \"{}\", {}", number, name, spec.Text()));
  }
  return InvalidArgument(fmt::format("the model has no input \"{}\"", name));
}

Result<gradient::PrepareOptions> ReadPreparation(const Options& o, const onnx::ModelProto& model) {
  gradient::PrepareOptions p;
  std::string name;
  std::string rest;
  for (const auto& text : o.fixed) {
    RETURN_IF_ERROR(Split(text, &name, &rest));
    ASSIGN_OR_RETURN(p.fixed[name], FixedValue(model, name, rest));
  }
  for (const auto& text : o.shapes) {
    RETURN_IF_ERROR(Split(text, &name, &rest));
    const auto spec = tensor::ParseSpec("FP32[" + rest + "]");
    if (!spec.ok()) return InvalidArgument(fmt::format("\"{}\" is no shape such as -1,3,48,320", rest));
    p.shapes[name] = spec->shape;
  }
  return p;
}

// What a program that runs the step has to know.
void Print(const std::string& out, const onnx::ModelProto& step, const gradient::StepModel& parts) {
  const auto size = [](const std::vector<gradient::Segment>& s) {
    return s.empty() ? 0 : s.back().offset + s.back().size;
  };
  fmt::print("wrote {}: {} nodes\n", out, step.graph().node_size());
  fmt::print("parameters  {} numbers in {} tensors: inputs P, outputs grad.P\n", size(parts.parameters),
             parts.parameters.size());
  if (!parts.statistics.empty())
    fmt::print("statistics  {} numbers in {} tensors: inputs S, outputs next.S\n", size(parts.statistics),
               parts.statistics.size());
  const auto inputs = graph::InputSpecs(step);
  if (!inputs.ok()) return;
  const auto is_in = [](const std::vector<gradient::Segment>& list, const std::string& name) {
    return std::any_of(list.begin(), list.end(), [&](const auto& s) { return s.name == name; });
  };
  for (const auto& spec : *inputs) {
    if (is_in(parts.parameters, spec.name) || is_in(parts.statistics, spec.name)) continue;
    if (spec.name.rfind("anchor.", 0) != 0) fmt::print("input       {} {}\n", spec.name, spec.Text());
  }
}

Status Run(const Options& o) {
  const auto loss = gradient::LossFromName(o.loss);
  if (!loss)
    return InvalidArgument(fmt::format("loss \"{}\" is unknown; {}", o.loss, fmt::join(gradient::LossNames(), ", ")));
  gradient::Options options = o.gradient;
  options.loss = *loss;
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(o.model, limits::kMaxModelBytes));
  onnx::ModelProto model;
  if (auto s = graph::Parse(std::as_bytes(std::span(bytes)), &model); !s.ok()) return s.Within(o.model);
  ASSIGN_OR_RETURN(const gradient::PrepareOptions preparation, ReadPreparation(o, model));
  if (auto s = gradient::Prepare(preparation, &model); !s.ok()) return s.Within(o.model);
  if (!o.prepared.empty()) RETURN_IF_ERROR(data::WriteFileAtomically(o.prepared, graph::Serialize(model)));
  onnx::ModelProto step;
  const auto parts = gradient::Differentiate(model, options, &step);
  if (!parts.ok()) return parts.status().Within(o.model);
  RETURN_IF_ERROR(data::WriteFileAtomically(o.out, graph::Serialize(step)));
  Print(o.out, step, *parts);
  if (!parts->one_by_one.empty()) fmt::print("examples are clipped one at a time: {}\n", parts->one_by_one);
  return {};
}

}  // namespace

void AddGradient(CLI::App& app, Context&, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("gradient", "Write the training step of an ONNX model as another ONNX model");
  verb->add_option("model", o->model)->required();
  verb->add_option("--loss", o->loss)->capture_default_str();
  verb->add_option("-o,--out", o->out)->capture_default_str();
  verb->add_option("--output", o->gradient.output, "the model's output that the loss is taken on, if not the first");
  verb->add_option("--fix", o->fixed, "an input that is a constant of the training: NAME=NUMBER");
  verb->add_option("--shape", o->shapes, "the shape of an input that leaves it open: NAME=-1,3,48,320");
  verb->add_option("--prepared", o->prepared,
                   "also write the model as it is trained: operator set 13 or later, weights as initializers");
  verb->add_option("--freeze", o->gradient.frozen, "parameters that keep their value");
  verb->add_flag("--freeze-statistics", o->gradient.freeze_statistics,
                 "batch normalisation uses the model's statistics instead of the batch's");
  verb->add_option("--huber-delta", o->gradient.huber_delta)->capture_default_str();
  verb->add_option("--temperature", o->gradient.temperature, "of distillation")->capture_default_str();
  verb->add_option("--hard-share", o->gradient.hard_share, "of distillation: the labels' share of the loss");
  verb->add_option("--proximal", o->gradient.proximal,
                   "pull towards anchors, mu/2 |p - anchor|^2: adds inputs anchor.P");
  verb->add_option("--clip-norm", o->gradient.clip_norm,
                   "cut every example's gradient to this norm; adds output norms");
  verb->callback([&exit_code, o] {
    if (auto s = Run(*o); !s.ok()) exit_code = Fail("gradient", s);
  });
}

}  // namespace ganglion::app
