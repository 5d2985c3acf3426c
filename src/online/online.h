// online: models that learn from a stream, an example at a time.
//
//   hash.h          where a named feature lies in the table, as VW has it
//   example.h       what a learner sees of one event
//   vw_text.h       a line of VW's text format to an example
//   csv_text.h      a row of CSV to an example
//   interactions.h  features made of pairs of features
//   options.h       what a learner is to be
//   inputs.h        a decision's inputs to an example
//   learner.h       linear, logistic, multiclass and factorisation models; gradient steps and FTRL; what keeps from
//                   forgetting
//   loss.h          the losses and their closed-form steps
//   reservoir.h     a fair sample of a stream
//   snapshot.h      a learner as bytes, and back
//   merge.h         what many learners have learned apart, put together
//   pending.h       predictions that wait for their outcome
#pragma once

#include "online/csv_text.h"
#include "online/example.h"
#include "online/hash.h"
#include "online/inputs.h"
#include "online/interactions.h"
#include "online/learner.h"
#include "online/merge.h"
#include "online/options.h"
#include "online/pending.h"
#include "online/reservoir.h"
#include "online/snapshot.h"
#include "online/vw_text.h"
