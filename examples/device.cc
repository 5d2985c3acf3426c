// A device tier in 30 lines: decide one row, or say that a tier above must.
//   device DIRECTORY NUMBER...      (the numbers of one input row; none: zeros)
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ganglion/decider.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: device DIRECTORY [NUMBER...]\n");
    return 2;
  }
  std::string error;
  const auto decider = ganglion::Decider::Open(argv[1], {.highest_tier = "device"}, &error);
  if (decider == nullptr) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  std::vector<float> input(decider->input_size());
  for (int i = 2; i < argc && i - 2 < static_cast<int>(input.size()); ++i)
    input[static_cast<std::size_t>(i - 2)] = std::strtof(argv[i], nullptr);
  ganglion::Answer answer;
  if (!decider->Decide(input, &answer, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  const bool deferred = answer.kind == ganglion::Answer::Kind::kDeferred;
  std::printf("%s %.2f %s%s\n", decider->LabelText(answer.label).c_str(), static_cast<double>(answer.confidence),
              std::string(answer.tier).c_str(), deferred ? " deferred" : "");
  return 0;
}
