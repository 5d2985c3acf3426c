// A SharedLearner is asked by many threads while one thread teaches it, and nobody waits.
//
// Intuition: a weight is one word of memory. Whoever predicts reads words, whoever learns writes words, and a
// prediction made in the middle of a step sees some weights before and some after it. Either is a model that was right
// a microsecond ago: a single step moves a score by far less than the model is wrong anyway.
// Why not a lock, or a copy that is swapped: half a million steps a second would hand the lock around all the time, and
// a copy of a table of megabytes is stale before it is made.
//
// Weights (and the range of labels) are read and written as relaxed atomics, which on common machines are plain loads
// and stores; so there is no data race, torn numbers cannot happen, and ThreadSanitizer has nothing to say. All else of
// a learner belongs to the thread that learns.
//
// Threads: Predict, outputs and options from any thread at any time; Learn, PlaceAnchor and snapshots from one thread
// at a time. SetAnchor and moving it before it is shared.
// Cost: as online::Learner. Source: the argument is that of F. Niu et al., "Hogwild!", NIPS 2011, with one writer.
#pragma once

#include <atomic>

#include "online/learner.h"

namespace ganglion::learning {

struct Relaxed {
  static_assert(std::atomic_ref<float>::is_always_lock_free);
  static float Load(const float* p) {
    return std::atomic_ref<float>(*const_cast<float*>(p)).load(std::memory_order_relaxed);
  }
  static void Store(float* p, float v) { std::atomic_ref<float>(*p).store(v, std::memory_order_relaxed); }
};

using SharedLearner = online::BasicLearner<Relaxed>;

}  // namespace ganglion::learning

extern template class ganglion::online::BasicLearner<ganglion::learning::Relaxed>;
