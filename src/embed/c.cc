#include <algorithm>
#include <cstring>

#include "embed/embed.h"

struct ganglion_decider {
  std::unique_ptr<ganglion::Decider> decider;
};

namespace {

void CopyText(const std::string& text, char* out, size_t size) {
  if (out == nullptr || size == 0) return;
  const size_t n = std::min(text.size(), size - 1);
  std::memcpy(out, text.data(), n);
  out[n] = '\0';
}

}  // namespace

ganglion_decider* ganglion_open(const char* directory, const char* highest_tier, int64_t deadline_ns, char* error,
                                size_t error_size) {
  CopyText("", error, error_size);
  std::string message;
  ganglion::DeciderOptions options;
  if (highest_tier != nullptr) options.highest_tier = highest_tier;
  options.deadline = std::chrono::nanoseconds(deadline_ns);
  auto decider = directory == nullptr ? nullptr : ganglion::Decider::Open(directory, options, &message);
  if (decider == nullptr) {
    CopyText(directory == nullptr ? "no directory" : message, error, error_size);
    return nullptr;
  }
  return new ganglion_decider{std::move(decider)};
}

int ganglion_decide(const ganglion_decider* decider, const float* input, size_t count, ganglion_answer* answer,
                    char* error, size_t error_size) {
  if (decider == nullptr || answer == nullptr || (input == nullptr && count > 0)) {
    CopyText("a pointer is NULL", error, error_size);
    return 0;
  }
  ganglion::Answer a;
  std::string message;
  if (!decider->decider->Decide(std::span(input, count), &a, &message)) {
    CopyText(message, error, error_size);
    return 0;
  }
  // tier and reason point at constants of the library, which end in '\0'.
  *answer = {static_cast<ganglion_kind>(a.kind),
             a.label,
             a.confidence,
             a.stage,
             a.tier.data(),
             a.reason.data(),
             a.took.count()};
  return 1;
}

size_t ganglion_input_size(const ganglion_decider* decider) {
  return decider == nullptr ? 0 : decider->decider->input_size();
}

void ganglion_label_text(const ganglion_decider* decider, int label, char* text, size_t size) {
  CopyText(decider == nullptr ? "" : decider->decider->LabelText(label), text, size);
}

void ganglion_close(ganglion_decider* decider) { delete decider; }
