// Messages of compressed gradients, of every code: whatever the bytes are, they are added or refused.
#include "compress/compress.h"
#include "target.h"

namespace {

using ganglion::compress::Compressor;

constexpr std::size_t kSize = 700;

const std::vector<std::unique_ptr<Compressor>>& Codes() {
  static const auto* const codes = [] {
    const std::vector<ganglion::compress::Segment> segments = {{10, 12, 20}, {300, 20, 15}};
    auto* made = new std::vector<std::unique_ptr<Compressor>>;
    for (const char* text : {"8bit", "topk:0.05", "powersgd:2"}) {
      made->push_back(
          ganglion::compress::Create(ganglion::compress::ParseOptions(text).value(), kSize, segments).value());
    }
    return made;
  }();
  return *codes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const auto& code : Codes()) {
    std::vector<float> out(kSize, 1.F);
    const bool taken = code->Accumulate(bytes, out).ok();
    for (const float v : out) {
      if (!taken && v != 1.F) std::abort();  // a refusal changes nothing
    }
  }
  return 0;
}

std::vector<std::string> Seeds() {
  std::vector<float> gradient(kSize);
  for (std::size_t i = 0; i < kSize; ++i) gradient[i] = static_cast<float>(i % 37) - 18;
  std::vector<std::string> seeds(Codes().size());
  for (std::size_t i = 0; i < seeds.size(); ++i) (void)Codes()[i]->Encode(gradient, &seeds[i]);
  return seeds;
}
