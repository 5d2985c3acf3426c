// The rotation that makes one set of factors look like another.
//
// Intuition: a factorisation machine knows only products <v_i, v_j>, which stay when all v turn together. Two models
// that have found the same thing may have it turned, and their mean would be nothing; turned back, it is their mean.
// Definition: the orthogonal Q that minimises sum_i e_i |v_i Q - r_i|^2, the polar factor of M = sum_i e_i v_i^T r_i
// (orthogonal Procrustes), by Newton's iteration X <- (X + X^-T) / 2, from M with a little of the identity added, so
// that directions nobody knows anything about stay as they are.
//
// Pure. Cost: O(rows k^2 + 30 k^3). Source: P. Schoenemann, "A generalized solution of the orthogonal Procrustes
// problem", 1966; N. Higham, "Computing the polar decomposition", 1986.
#pragma once

#include <vector>

namespace ganglion::online {

// The orthogonal polar factor of a k x k matrix, by rows; the identity for a matrix of zeros.
std::vector<double> PolarFactor(std::vector<double> matrix, std::size_t k);

}  // namespace ganglion::online
