// Gradients that are too large are made smaller before they do harm.
//
// Intuition: one odd batch can give a gradient a thousand times the usual and throw the parameters out of the valley
// they were in. By norm keeps the direction and bounds the length; by value bounds each number and bends the direction.
//
// Definition: g *= min(1, limit / ||g||), ||g|| over all parameters together; or g = clamp(g, -limit, limit).
// Sums are in double precision over 16 interleaved partial sums: the same numbers give the same norm whatever the width
// of the processor's vectors.
// Pure; thread-safe. REQUIRES: limit > 0. Cost: about 0.1 ns a number.
// Source: R. Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, algorithm 1.
#pragma once

#include <span>

namespace ganglion::optimizer {

// ||v||; not finite when any number is not (or when the squares overflow a double, which FP32 numbers cannot).
double Norm(std::span<const float> v);

// Scales `gradients` down to `limit` when they are longer. Returns the norm before.
double ClipByNorm(std::span<float> gradients, double limit);
// The same where the norm is known.
void ScaleToNorm(std::span<float> gradients, double norm, double limit);

void ClipByValue(std::span<float> gradients, float limit);

}  // namespace ganglion::optimizer
