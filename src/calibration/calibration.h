// calibration: from a model's scores to a threshold that keeps a promise.
//
//   confidence.h  what a stage thinks of its own answer: temperature, and three measures in [0, 1]
//   certify.h     thresholds for all stages together, certified by Learn-then-Test
//
// Everything is a pure function of its arguments. Which rows tune and which certify is the caller's split; nothing that
// has seen the certifying rows may flow into temperature, measure, path or start.
#pragma once

#include "calibration/certify.h"
#include "calibration/confidence.h"
