#pragma once

#include <array>
#include <span>

#include "common/study/study.h"

namespace isoscan {

/// Convolves one channel [D, H, W] of `size` along each axis with a sampled Gaussian of that axis'
/// standard deviation in voxels (positive), which is cut off at 3 of them and sums to 1. Beyond an
/// edge the channel is its own mirror image about the outermost voxel.
/// Source: docs/references.md#isensee2021; batchgeneratorsv2's GaussianBlurTransform.
void Blur(std::span<float> channel, const Triple& size, const std::array<double, 3>& deviations);

/// Makes one channel [D, H, W] of `size` look as if it had been taken with `zoom` times as many
/// voxels along each axis (0 < zoom <= 1): the nearest of these are kept, and what lies between is
/// interpolated linearly. An axis whose zoom is 1 stays as it is.
/// Source: docs/references.md#isensee2021; batchgeneratorsv2's SimulateLowResolutionTransform.
void LowerResolution(std::span<float> channel, const Triple& size,
                     const std::array<double, 3>& zoom);

}  // namespace isoscan
