#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

#include "data/file.h"
#include "gradient/gradient.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string model;
  std::string loss = "softmax_cross_entropy";
  std::string out = "step.onnx";
  gradient::Options gradient;
};

Status Run(const Options& o) {
  const auto loss = gradient::LossFromName(o.loss);
  if (!loss)
    return InvalidArgument(fmt::format("loss \"{}\" is unknown; {}", o.loss, fmt::join(gradient::LossNames(), ", ")));
  gradient::Options options = o.gradient;
  options.loss = *loss;
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(o.model, limits::kMaxModelBytes));
  onnx::ModelProto model;
  if (auto s = graph::Parse(std::as_bytes(std::span(bytes)), &model); !s.ok()) return s.Within(o.model);
  onnx::ModelProto step;
  const auto parts = gradient::Differentiate(model, options, &step);
  if (!parts.ok()) return parts.status().Within(o.model);
  RETURN_IF_ERROR(data::WriteFileAtomically(o.out, graph::Serialize(step)));
  const auto& last = parts->parameters.back();
  fmt::print(
      "wrote {}: {} nodes, {} parameters in {} tensors; feed the model's inputs, target, row_weight and the "
      "parameters\n",
      o.out, step.graph().node_size(), last.offset + last.size, parts->parameters.size());
  return {};
}

}  // namespace

void AddGradient(CLI::App& app, Context&, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("gradient", "Write the training step of an ONNX model as another ONNX model");
  verb->add_option("model", o->model)->required();
  verb->add_option("--loss", o->loss)->capture_default_str();
  verb->add_option("-o,--out", o->out)->capture_default_str();
  verb->add_option("--freeze", o->gradient.frozen, "parameters that keep their value");
  verb->add_flag("--freeze-statistics", o->gradient.freeze_statistics,
                 "batch normalisation uses the model's statistics instead of the batch's");
  verb->add_option("--huber-delta", o->gradient.huber_delta)->capture_default_str();
  verb->add_option("--temperature", o->gradient.temperature, "of distillation")->capture_default_str();
  verb->add_option("--hard-share", o->gradient.hard_share, "of distillation: the labels' share of the loss");
  verb->add_option("--proximal", o->gradient.proximal,
                   "pull towards anchors, mu/2 |p - anchor|^2: adds inputs anchor.P");
  verb->callback([&exit_code, o] {
    if (auto s = Run(*o); !s.ok()) exit_code = Fail("gradient", s);
  });
}

}  // namespace ganglion::app
