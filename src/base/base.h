// base: the few things every module needs and none owns.
//
//   status.h   Status and Result<T>: how the world's refusals are told (CHECK is for our own bugs)
//   check.h    CHECK: stops the process when an invariant of ours is broken, in release too
//   clock.h    TimePoint, Duration, and the Clock that effects read; decisions get `now` as an argument
//   random.h   Random: seeded, the same numbers on every machine
//   guarded.h  Guarded<T>: a value that can only be reached while its lock is held
//   limits.h   a limit on everything that comes from outside, in one place
//
// Everything here is in namespace ganglion itself; other modules have a namespace of their own.
#pragma once

#include "base/check.h"
#include "base/clock.h"
#include "base/guarded.h"
#include "base/limits.h"
#include "base/random.h"
#include "base/status.h"
