// shrink: an ONNX model into a smaller one. Graph transformations alone; what they cost in accuracy is measured by
// module shrinking, which runs them.
//
//   edit.h         a graph with its makers, readers and constants; small edits
//   fold.h         BatchNormalization into the layer before it
//   ranges.h       which numbers a tensor takes: histograms, and the range that 8 bits should cover
//   quantise.h     8-bit weights and activations: static (QDQ with calibration) and dynamic
//   prune.h        single weights to zero, masks that fine-tuning keeps
//   channels.h     which neurons and channels belong together through a graph; removing some of them
//   slim.h         several widths in one set of parameters, the narrow inside the wide
//   progressive.h  a file whose prefix is a working model and whose rest makes it better
//   pareto.h       which of several measured models to keep under a budget
#pragma once

#include "shrink/channels.h"
#include "shrink/fold.h"
#include "shrink/pareto.h"
#include "shrink/progressive.h"
#include "shrink/prune.h"
#include "shrink/quantise.h"
#include "shrink/ranges.h"
#include "shrink/slim.h"
