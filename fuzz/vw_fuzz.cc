// Lines of VW's text format, with pairs; what is read must fit the table and can be learned or is refused.
#include "base/check.h"
#include "online/online.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion;
  static const auto options = [] {
    online::LearnerOptions o;
    o.bits = 8;
    o.interactions = {"ab", "aa", "::"};
    return o;
  }();
  static auto text = online::VwText::Create(options);
  static auto learner = online::Learner::Create(options);
  online::Example example;
  if (!text->Parse({reinterpret_cast<const char*>(data), size}, &example).ok()) return 0;
  for (const online::Feature& f : example.features) GANGLION_CHECK(f.index < 256);
  float score = 0;
  learner->Predict(example.features, {&score, 1});
  GANGLION_CHECK(score == score);
  if (example.labelled) (void)learner->Learn(example, 0).ok();
  return 0;
}

std::vector<std::string> Seeds() {
  return {"1 |a x:2 12 foo |b bar:0.5 baz",
          "-1 2.0 'tag1 |a x:1 y |bb:2 bar |cde 7 :3 :4",
          "1 |",
          "-1 tag|a x y:2 z:0",
          "3.5e-2 1|  lonely:1e-3 \xc3\xa9:2",
          "| no label"};
}
