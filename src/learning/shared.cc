#include "learning/shared.h"

#include "online/learner_core.h"

template class ganglion::online::BasicLearner<ganglion::learning::Relaxed>;
