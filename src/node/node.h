// node: from a directory of files to decisions.
//
//   decision_file.h  decision.yaml as a value; every mistake in it at once, with its line
//   lock.h           decision.lock: thresholds, the promise, and the digests of the models it was certified for
//   stage.h          one stage: pre graph, model or ensemble, post graph, from inputs to logits
//   decision.h       all of it loaded: decide one request, or score many rows
//   calibrate.h      from a labelled set to a lock
//   topology_file.h  links and prices from a file
#pragma once

#include "node/calibrate.h"
#include "node/decision.h"
#include "node/decision_file.h"
#include "node/lock.h"
#include "node/stage.h"
#include "node/topology_file.h"
