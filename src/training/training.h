// training: a model learns from examples on the inference runtime.
//
//   perceptron.h  makes an untrained perceptron as an ONNX model
//   examples.h    what to learn from: labelled rows, or rows labelled by a teacher
//   trainer.h     the loop: gradient graph, optimiser, schedule, checkpoint, stop and resume
//   ladder.h      the four tiers of the demo, trained from one data set
#pragma once

#include "training/examples.h"
#include "training/ladder.h"
#include "training/perceptron.h"
#include "training/trainer.h"
