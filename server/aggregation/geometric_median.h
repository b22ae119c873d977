#pragma once

#include <vector>

#include "server/aggregation/update_distances.h"

namespace isoscan {

/// The point with the least weighted sum of distances to all updates, as weights of the updates
/// that sum to 1: it lies among them.
///
///   x = argmin sum_k a_k |x - x_k|;  by turns  b_k = a_k / max(nu, |x - x_k|),  x = sum_k b_k x_k
///   / sum_k b_k
///
/// Smoothed Weiszfeld, until no weight moves by 1e-12 or for 1000 turns. |x - x_k| follows from the
/// distances, so no turn reads an update. nu is a millionth of the weighted median distance
/// from the update that is nearest to all: no update, however far, moves the scale.
///
/// `shares` are a_k and sum to 1. No update counts for nothing, but one that is far away for as
/// much less: less than half of the shares cannot take the point away from the others.
/// Source: docs/references.md#pillutla2022, algorithm 2.
std::vector<double> GeometricMedianWeights(const Distances& distances,
                                           const std::vector<double>& shares);

}  // namespace isoscan
