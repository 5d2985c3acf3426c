// stats: distributions, quantiles and intervals.
//
//   binomial.h   exact binomial tails and Clopper-Pearson bounds: what a certificate is made of
//   summary.h    mean and exact quantiles of a sample
#pragma once

#include "stats/binomial.h"
#include "stats/summary.h"
