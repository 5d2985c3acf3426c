// A snapshot is a learner as bytes. What is restored goes on as if nothing had been: the same examples give the same
// weights, to the bit.
//
//   "GOL1"  version u32  options, origin, progress, scale  used cells  anchors  factors  reservoir  SHA-256
// Only places that were touched are written, with their place (so a table of 2^24 of which a thousand are used is a
// file of 16 KB); factors that never moved are made again from the seed. All numbers little-endian.
//
// Errors: bytes that were cut, changed, of another version or larger than `max_table_bytes` in memory are refused,
// each with its reason. Pure.
// Cost: about 1 s per GB of table.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "online/learner.h"

namespace ganglion::online {

std::string SnapshotState(const internal::State& state);
Result<internal::State> RestoreState(std::string_view bytes, std::uint64_t max_table_bytes = kMaxTableBytes);
// The body with its checksum behind it.
std::string Seal(std::string body);

template <class Access>
std::string Snapshot(const BasicLearner<Access>& learner) {
  return SnapshotState(learner.state());
}
template <class Access = Plain>
Result<BasicLearner<Access>> Restore(std::string_view bytes, std::uint64_t max_table_bytes = kMaxTableBytes) {
  ASSIGN_OR_RETURN(internal::State state, RestoreState(bytes, max_table_bytes));
  return BasicLearner<Access>(std::move(state));
}

}  // namespace ganglion::online
