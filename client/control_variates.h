#pragma once

#include "common/weights/named_tensors.h"

namespace isoscan {

/// A site's part of SCAFFOLD, by the paper's option II. c_i is the mean of the gradients that the
/// site's last round took, weighted by the learning rate of each step; c is the mean of the c_i of
/// all sites. Gradients are corrected by c - c_i, and so lead where all sites' data lead.
///
///   c_i' = c_i - c + (x - y) / (sum of the learning rates)       x before, y after the round
///
/// With one rate eta over K steps that is the paper's (x - y) / (K eta).
/// Source: docs/references.md#karimireddy2020, Algorithm 1.

/// c - c_i. `own` may be empty: a site that has not trained yet has c_i = 0.
NamedTensors GradientCorrection(const NamedTensors& global, const NamedTensors& own);

/// c_i' - c_i, of the parameters in `global`; `before` and `after` have these and may have more.
NamedTensors ControlChange(const NamedTensors& global, const NamedTensors& before,
                           const NamedTensors& after, double learning_rate_sum);

/// Adds `change` to `own`, which may be empty.
void AddTo(NamedTensors& own, const NamedTensors& change);

}  // namespace isoscan
