// stats: distributions, quantiles and intervals.
//
//   binomial.h   exact binomial tails and Clopper-Pearson bounds: what a certificate is made of
//   softmax.h    the mean of several models' softmax
//   summary.h    mean and exact quantiles of a sample
#pragma once

#include "stats/binomial.h"
#include "stats/softmax.h"
#include "stats/summary.h"
