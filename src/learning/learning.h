// learning: what lets an online model (src/online) live in a running program.
//
//   shared.h    a learner that many threads ask while one teaches it
//   lines.h     lines of a file or of standard input, in bounded memory
//   outcomes.h  answers now, learns when it is known what came of them
#pragma once

#include "learning/lines.h"
#include "learning/outcomes.h"
#include "learning/shared.h"
