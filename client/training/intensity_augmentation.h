#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "common/random/philox.h"
#include "common/study/study.h"

namespace isoscan {

struct IntensityAugmentation {
  double strength = 1;      ///< Multiplies the probabilities (at most 1).
  bool resolution = false;  ///< Also blur and lower resolution.
  /// Keeps its resolution: it is the lowest already.
  std::optional<std::size_t> flat_axis = std::nullopt;
};

/// Changes a harmonised patch as another scanner might, in nnU-Net's order:
///
///   Gaussian noise, variance in [0, 0.1]       p 0.10   the same variance for all channels
///   Gaussian blur, deviation in [0.5, 1]
///     voxels, each axis its own                p 0.20   each channel with p 0.5
///   brightness x [0.75, 1.25]                  p 0.15
///   contrast [0.75, 1.25] about the mean,
///     within the channel's range               p 0.15
///   lower resolution x [0.5, 1]                p 0.25   each channel with p 0.5
///   gamma [0.7, 1.5] of the inverted channel   p 0.10   mean and deviation kept
///   gamma [0.7, 1.5]                           p 0.30   mean and deviation kept
///
/// Each happens to a whole patch or not; each channel then has numbers of its own. Half of the
/// factors lie below 1.
/// Shapes: image [channels, D, H, W] of `patch_size`.
/// Source: docs/references.md#isensee2021; nnUNetTrainer.get_training_transforms.
void AugmentIntensity(std::span<float> image, const Triple& patch_size,
                      const IntensityAugmentation& how, RandomStream& random);

}  // namespace isoscan
