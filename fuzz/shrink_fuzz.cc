// Shrinking what an ONNX file holds by every transformation, and reading progressive files: their head, a prefix, and a
// level that passes its digest (which random changes never do).
#include "crypto/crypto.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"
#include "shrink/shrink.h"
#include "target.h"
#include "training/perceptron.h"

namespace {

using namespace ganglion;

void Transform(const onnx::ModelProto& model) {
  onnx::ModelProto out;
  (void)shrink::FoldBatchNorm(model, &out);
  (void)shrink::QuantiseDynamic(model, {}, &out);
  onnx::ModelProto observed;
  const auto names = shrink::PlanCalibration(model, {}, &observed);
  if (names.ok()) {
    std::map<std::string, shrink::Range> ranges;
    for (const auto& name : *names) ranges[name] = {-1, 2};
    (void)shrink::QuantiseStatic(model, ranges, {.signed_activations = true}, &out);
  }
  if (const auto masks = shrink::MagnitudeMasks(model, .5, shrink::Scope::kPerLayer); masks.ok()) {
    onnx::ModelProto masked = model;
    (void)shrink::ApplyMasks(*masks, &masked);
  }
  (void)shrink::ExtractWidth(model, .5, 1, &out);
  (void)shrink::SortByImportance(model, &out);
  (void)shrink::FindNorms(model, &observed);
  (void)shrink::PlanInputs(model, &observed);
}

std::string Progressive() {
  onnx::ModelProto wide;
  onnx::ModelProto narrow;
  const std::string bytes = training::MakePerceptron({3, 4, 2}, 1);
  if (!graph::Parse(std::as_bytes(std::span(bytes)), &wide).ok() || !shrink::ExtractWidth(wide, .5, 1, &narrow).ok())
    return "";
  const auto file = shrink::WriteProgressive({&narrow, &wide}, {.5, 1});
  return file.ok() ? *file : "";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = AsBytes(data, size);
  onnx::ModelProto model;
  if (graph::Parse(bytes, &model).ok()) Transform(model);
  onnx::ModelProto loaded;
  int level = 0;
  (void)shrink::LoadPrefix(bytes, shrink::kMaxLevels, &loaded, &level);
  // The bytes as a level of their own, and as one that follows a model.
  shrink::ProgressiveHead head;
  const auto digest = crypto::Sha256(bytes);
  shrink::Level all;
  all.end = size;
  all.digest.assign(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  head.levels = {all, all};
  (void)shrink::Upgrade(head, 0, bytes, &loaded);
  const std::string before = training::MakePerceptron({3, 2, 2}, 1);
  if (graph::Parse(std::as_bytes(std::span(before)), &loaded).ok()) (void)shrink::Upgrade(head, 1, bytes, &loaded);
  return 0;
}

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds{training::MakePerceptron({3, 4, 2}, 1), Progressive()};
  // A level without its head, as Upgrade takes it.
  if (const auto head = shrink::ReadHead(std::as_bytes(std::span(seeds[1]))); head.ok()) {
    for (const auto& l : head->levels) seeds.push_back(seeds[1].substr(l.begin, l.end - l.begin));
  }
  return seeds;
}
