// training: a model learns from examples on the inference runtime.
//
//   perceptron.h  makes an untrained perceptron as an ONNX model
//   examples.h    what to learn from, in memory: labelled rows, or rows labelled by a teacher
//   source.h      the same for a run: batches in an order, from memory or from files of any size
//   step.h        one step's session and memory: loss and gradients of a batch
//   measure.h     how good a model is on rows
//   trainer.h     the loop: steps, optimiser, schedule, checkpoint, stop and resume
//   checkpoint.h  the state of a run as a file
//   curve.h       learning curves as JSON and as a page
//   exchange.h    several processes that train one model
//   ladder.h      the four tiers of the demo, trained from one data set
#pragma once

#include "training/curve.h"
#include "training/examples.h"
#include "training/ladder.h"
#include "training/measure.h"
#include "training/perceptron.h"
#include "training/source.h"
#include "training/step.h"
#include "training/trainer.h"
