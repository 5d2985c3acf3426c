// A limit on everything that comes from outside, in one place. Each is far above honest use and far below harm;
// whoever refuses because of one names the value and the limit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ganglion::limits {

inline constexpr std::size_t kMaxModelBytes = std::size_t{1} << 31;  // protobuf's own limit: 2 GiB
inline constexpr int kMaxGraphNesting = 8;                           // If / Loop / Scan inside each other
inline constexpr int kMaxGraphNodes = 200'000;
inline constexpr int kMaxTensorRank = 16;
inline constexpr std::int64_t kMaxTensorElements = std::int64_t{1} << 31;
inline constexpr std::int64_t kMaxRowElements = std::int64_t{1} << 26;  // numbers in one row of a decision's input
inline constexpr std::size_t kMaxDataFileBytes = std::size_t{4} << 30;  // after decompression
inline constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;     // of CSV and text
inline constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxJsonBytes = std::size_t{256} << 20;
inline constexpr int kMaxJsonDepth = 64;
inline constexpr std::int64_t kMaxImagePixels = std::int64_t{1} << 26;  // 8192 x 8192
inline constexpr int kMaxStages = 16;
inline constexpr int kMaxEnsemble = 64;
inline constexpr int kMaxClasses = 100'000;
inline constexpr std::size_t kMaxVocabulary = std::size_t{1} << 22;

}  // namespace ganglion::limits
