#include <fmt/format.h>

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
  std::vector<std::string> frozen;
};

Status Run(const Options& o) {
  const auto loss = gradient::LossFromName(o.loss);
  if (!loss)
    return InvalidArgument("loss \"" + o.loss +
                           "\" is unknown; softmax_cross_entropy, softmax_cross_entropy_dense or squared_error");
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(o.model, limits::kMaxModelBytes));
  onnx::ModelProto model;
  if (auto s = graph::Parse(std::as_bytes(std::span(bytes)), &model); !s.ok()) return s.Within(o.model);
  onnx::ModelProto step;
  const auto segments = gradient::Differentiate(model, {.loss = *loss, .frozen = o.frozen}, &step);
  if (!segments.ok()) return segments.status().Within(o.model);
  RETURN_IF_ERROR(data::WriteFileAtomically(o.out, graph::Serialize(step)));
  fmt::print(
      "wrote {}: {} nodes, {} parameters in {} tensors; feed the model's inputs, target, row_weight and the "
      "parameters\n",
      o.out, step.graph().node_size(), segments->back().offset + segments->back().size, segments->size());
  return {};
}

}  // namespace

void AddGradient(CLI::App& app, Context&, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("gradient", "Write the training step of an ONNX model as another ONNX model");
  verb->add_option("model", o->model)->required();
  verb->add_option("--loss", o->loss)->capture_default_str();
  verb->add_option("-o,--out", o->out)->capture_default_str();
  verb->add_option("--freeze", o->frozen, "parameters that keep their value");
  verb->callback([&exit_code, o] {
    if (auto s = Run(*o); !s.ok()) exit_code = Fail("gradient", s);
  });
}

}  // namespace ganglion::app
