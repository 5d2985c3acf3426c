// Contributions are what many learners have learned apart, put together so that neither order nor repetition counts.
//
// Intuition: each learner signs its model with its name and the epoch it learns in. A later snapshot of the same
// learner and epoch holds everything that an earlier one did, so of each the one with the most examples is kept. What
// is kept is then combined, weight by weight: who has seen a feature often has a say in proportion, who has never seen
// it has none.
//
//   w_i = sum_k e_ki w_ki / sum_k e_ki,  e_ki the evidence (sum of squared gradients) of learner k for weight i
//   e_i = sum_k e_ki
// With a base that all have started from, evidence and change count from there: w_i = b_i + sum d_ki (w_ki - b_i) /
// sum d_ki with d_ki = e_ki - e_bi.
// Merging is the union with a maximum per (writer, epoch): associative, commutative, idempotent (DESIGN.md, decision
// 9). Combining goes through the entries in their order, so the same entries give the same bits.
// Factors are turned into one another first (align.h); then places are weighed the same way.
// Why not the mean of the models: a word that one learner of ten has seen would count a tenth.
// Why not to combine pairs as they come: combined models overlap, and what is in both would count twice. So a combined
// model is refused as a contribution; keep the contributions.
//
// Writers without a name are named by the digest of what they bring: a copy is a duplicate, all else is new.
// A state machine; thread-compatible. Memory: each contribution whole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "online/learner.h"

namespace ganglion::online {

class Contributions {
 public:
  // Refuses what is combined already, and a model with other options than those here.
  Status Add(const internal::State& state);
  template <class Access>
  Status Add(const BasicLearner<Access>& learner) {
    return Add(learner.state());
  }
  Status Merge(const Contributions& other);

  std::size_t size() const { return entries_.size(); }

  // REQUIRES: size() > 0. `base`: what every contribution started from, or nullptr when they started from nothing.
  Result<Learner> Combine(const internal::State* base = nullptr) const;

  // To send or keep; the same entries give the same bytes. `max_table_bytes` is for all of them together.
  std::string Bytes() const;
  static Result<Contributions> FromBytes(std::string_view bytes, std::uint64_t max_table_bytes = kMaxTableBytes);

 private:
  using Key = std::pair<std::string, std::uint64_t>;  // writer, epoch
  struct Entry {
    internal::State state;
    std::string digest;  // breaks ties between equally many examples
  };
  void MeanFactors(const internal::State* base, internal::State* all) const;

  std::map<Key, Entry> entries_;
};

}  // namespace ganglion::online
