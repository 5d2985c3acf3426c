#include "model/model.h"

#include <unordered_map>

#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::model {
namespace {

bool MadeBySoftmax(const onnx::GraphProto& g, const std::string& output) {
  std::unordered_map<std::string, const onnx::NodeProto*> maker;
  for (const auto& n : g.node()) {
    for (const auto& out : n.output()) maker.emplace(out, &n);
  }
  const std::string* value = &output;
  for (;;) {
    const auto at = maker.find(*value);
    if (at == maker.end()) return false;
    if (at->second->op_type() != "Identity" || at->second->input_size() == 0) return at->second->op_type() == "Softmax";
    value = &at->second->input(0);
  }
}

}  // namespace

std::string Signature::Text() const {
  std::string text;
  for (const auto& s : inputs) text += (text.empty() ? "" : ", ") + s.name + " " + s.Text();
  text += " ->";
  for (const auto& s : outputs) text += " " + s.name + " " + s.Text();
  return text;
}

Result<Model> Model::FromBytes(std::string name, std::string bytes) {
  Model m;
  m.name_ = std::move(name);
  m.bytes_ = std::make_shared<const std::string>(std::move(bytes));
  onnx::ModelProto proto;
  if (auto s = graph::Parse(m.bytes(), &proto); !s.ok()) return s.Within(m.name_);
  auto inputs = graph::InputSpecs(proto);
  if (!inputs.ok()) return inputs.status().Within(m.name_);
  auto outputs = graph::OutputSpecs(proto);
  if (!outputs.ok()) return outputs.status().Within(m.name_);
  m.signature_ = {std::move(*inputs), std::move(*outputs)};
  m.digest_ = crypto::Sha256(m.bytes());
  m.gives_probabilities_ = MadeBySoftmax(proto.graph(), proto.graph().output(0).name());
  for (const auto& t : proto.graph().initializer()) {
    std::int64_t count = 1;
    for (const auto d : t.dims()) count *= d;
    m.parameter_count_ += count;
  }
  return m;
}

}  // namespace ganglion::model
