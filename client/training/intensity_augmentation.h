#pragma once

#include <span>

#include "common/random/philox.h"

namespace isoscan {

/// Changes one channel of a harmonised patch as another scanner might, in nnU-Net's order:
///
///   Gaussian noise, variance in [0, 0.1]       p 0.10
///   brightness x [0.75, 1.25]                  p 0.15
///   contrast [0.75, 1.25] about the mean,
///     within the patch's range                 p 0.15
///   gamma [0.7, 1.5] of the inverted patch     p 0.10   mean and deviation kept
///   gamma [0.7, 1.5]                           p 0.30   mean and deviation kept
///
/// `strength` multiplies the probabilities (at most 1). Half of the factors lie below 1.
/// Source: docs/references.md#isensee2021; nnUNetTrainer.get_training_transforms.
void AugmentIntensity(std::span<float> patch, double strength, RandomStream& random);

}  // namespace isoscan
