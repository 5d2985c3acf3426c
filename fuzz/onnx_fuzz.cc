// Reading an ONNX file, describing it, differentiating it.
#include "gradient/gradient.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "model/model.h"
#include "target.h"
#include "training/perceptron.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion;
  const auto model = model::Model::FromBytes("f.onnx", std::string(reinterpret_cast<const char*>(data), size));
  if (!model.ok()) return 0;
  onnx::ModelProto proto;
  onnx::ModelProto step;
  if (!graph::Parse(model->bytes(), &proto).ok()) return 0;
  (void)gradient::Differentiate(proto, {}, &step);
  gradient::Options clipped;
  clipped.clip_norm = 1.f;
  (void)gradient::Differentiate(proto, clipped, &step);
  return 0;
}

std::vector<std::string> Seeds() {
  return {ganglion::training::MakePerceptron({3, 2}, 1), ganglion::training::MakePerceptron({2, 3, 2}, 1, {.5f, 2})};
}
