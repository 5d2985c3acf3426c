// A Decider is a device tier inside your own program: it answers what it may, and says when a tier above must.
//
//   std::string error;
//   auto decider = ganglion::Decider::Open("fashion", {}, &error);
//   ganglion::Answer answer;
//   if (decider && decider->Decide(pixels, &answer, &error) && answer.kind == ganglion::Answer::Kind::kAccepted) ...
//
// It opens a decision directory that `ganglion calibrate` has certified, loads the stages up to a tier, and decides one
// row at a time through them. Once warm, Decide on a span of floats allocates nothing beyond what ONNX Runtime itself
// does in a bare run.
// Shapes: the decision's inputs, one row each. Units: nanoseconds. Errors: false, with a sentence in *error; nothing
// throws. Threads: all members may be called from many threads at once; each call computes on its caller's thread.
// Cost: the model's own run plus about a microsecond.
#ifndef GANGLION_DECIDER_H_
#define GANGLION_DECIDER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#define GANGLION_API __attribute__((visibility("default")))

namespace ganglion {

namespace tensor {
struct View;
}

struct Answer {
  enum class Kind {
    kAccepted,  // within the certified promise
    kDegraded,  // the best so far, outside the promise: time ran out or a stage broke
    kDeferred,  // no stage here may accept it: ask a tier above. label is the best so far
  } kind = Kind::kDeferred;
  int label = -1;           // -1: none
  float confidence = 0;     // in [0, 1]
  int stage = 0;            // index in decision.yaml
  std::string_view tier;    // "device", ...
  std::string_view reason;  // of a degraded answer: "deadline", "failed"
  std::chrono::nanoseconds took{};
};

// One input tensor, borrowed for the call.
struct TensorRef {
  std::string_view datatype;  // "FP32", as the Open Inference Protocol names them
  std::span<const std::int64_t> shape;
  std::span<const std::byte> bytes;
};

struct DeciderOptions {
  std::string highest_tier = "device";   // stages above it are not loaded
  std::chrono::nanoseconds deadline{0};  // for each decision; 0: the decision file's
};

class GANGLION_API Decider {
 public:
  // Null with a sentence in *error when the directory, a model or the lock is refused.
  static std::unique_ptr<Decider> Open(const std::string& directory, const DeciderOptions& options, std::string* error);
  ~Decider();

  // For decisions with one FP32 input of fixed size: its numbers, row-major.
  bool Decide(std::span<const float> input, Answer* answer, std::string* error) const;
  // Any inputs, in the order of the decision file.
  bool Decide(std::span<const TensorRef> inputs, Answer* answer, std::string* error) const;

  std::size_t input_size() const;  // numbers in one row of the first input; 0 when the decision file leaves it open
  std::size_t classes() const;
  std::string LabelText(int label) const;

 private:
  struct Impl;
  explicit Decider(std::unique_ptr<Impl> impl);
  static bool DecideViews(const Impl& d, std::span<const tensor::View> views, Answer* answer, std::string* error);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion

#endif  // GANGLION_DECIDER_H_
