// Untrained nets over token sequences for benchmarks, as an exporter would write them: input "tokens" INT64[-1, times],
// output "logits" FP32[-1, 10].
#pragma once

#include <cstdint>
#include <string>

namespace ganglion::bench {

struct SequenceSpec {
  std::int64_t times = 20;
  std::int64_t vocabulary = 1000;
  std::int64_t width = 64;   // of the embedding and everything after it
  std::int64_t layers = 2;   // of the transformer
  std::int64_t heads = 4;    // of its attention
  std::int64_t inner = 256;  // of its two-layer perceptrons
};

// Embedding, GRU, linear layer on the last state. Serialised.
std::string MakeGruClassifier(const SequenceSpec& spec, std::uint64_t seed);
// Embedding plus learned positions, encoder layers (attention and a perceptron with GELU, each added and normalised),
// mean over the times, linear layer. Serialised.
std::string MakeTransformerClassifier(const SequenceSpec& spec, std::uint64_t seed);

}  // namespace ganglion::bench
