// A progressive file holds models of rising size so that its prefix is a working model and the rest makes it better.
//
// Intuition: a device on a slow link can answer as soon as the first tenth of the file is there, and a device with
// little memory never asks for more. What a wider model shares with the narrower one before it is not sent twice.
//
//   head     "GANGSLIM 1\n"; the number of levels; for each its end in the file, the parameters of the model that it
//            completes, its width and the SHA-256 of its bytes; the SHA-256 of all this
//   level 0  the narrowest model
//   level i  what makes model i out of model i-1: the graph without its numbers, and for each initializer either all of
//            it or, where the old tensor is the corner of the new one, what lies outside of the corner
// All integers are little-endian. Which tensors are corners is found by comparing bytes, so a level holds in full only
// what differs: the statistics of a normalisation, say. Any models can be put in a file; nested ones take no more than
// the widest and some kilobytes of graph for each level.
//
// Reading: Head says what there is and how many bytes each level takes; LoadPrefix gives the widest model that is whole
// in the bytes at hand (and within a number of levels); Upgrade makes the next one from a model and its level alone.
// A level whose bytes are not those that the head names is refused, and so is a head that does not add up.
// Ranges: 1 to 64 levels. Pure. Memory: the model and the level.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace onnx {
class ModelProto;
}

namespace ganglion::shrink {

inline constexpr int kMaxLevels = 64;

struct Level {
  std::uint64_t begin = 0;  // its bytes in the file
  std::uint64_t end = 0;
  std::uint64_t parameters = 0;  // of the model that this level completes
  double width = 0;              // share of the widest, as the writer says
  std::string digest;            // SHA-256, 32 bytes
};

struct ProgressiveHead {
  std::uint64_t size = 0;  // bytes of the head itself
  std::vector<Level> levels;
};

// `models` from narrow to wide, `widths` one each, ascending.
Result<std::string> WriteProgressive(const std::vector<const onnx::ModelProto*>& models,
                                     const std::vector<double>& widths);

// Whether these bytes begin like a progressive file.
bool LooksProgressive(std::span<const std::byte> file);
// The head, from the first bytes of a file. Too few: says how many are needed.
Result<ProgressiveHead> ReadHead(std::span<const std::byte> file);

// The widest whole model in the first bytes of a file, of levels 0 to `at_most`. `file` may be cut anywhere.
Status LoadPrefix(std::span<const std::byte> file, int at_most, onnx::ModelProto* model, int* level);

// Model `level` out of model `level` - 1 and the bytes [begin, end) of its level. `model` is both; it is left as it was
// when the level is refused. REQUIRES: 0 <= level < head.levels.size().
Status Upgrade(const ProgressiveHead& head, int level, std::span<const std::byte> bytes, onnx::ModelProto* model);

}  // namespace ganglion::shrink
