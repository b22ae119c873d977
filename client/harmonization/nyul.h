#pragma once

#include <array>

#include "absl/status/statusor.h"

#include "client/harmonization/intensity_map.h"
#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// The percentiles that are brought to the same place in every case.
inline constexpr std::array<double, 11> kNyulPercentiles{1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99};

/// One intensity per percentile, ascending.
using NyulLandmarks = std::array<double, kNyulPercentiles.size()>;

/// Where a scale has its ends: the percentiles 1 and 99.
inline constexpr double kNyulLow = 1;
inline constexpr double kNyulHigh = 100;

/// The percentiles of the intensities under a mask (QuantilesOverMask).
///
/// Errors: those of RangeOverMask; INVALID_ARGUMENT percentiles 1 and 10, or 90 and 99, that are
///         one intensity: the map would have no slope beyond them. Others may coincide.
/// Source: docs/references.md#nyul2000.
absl::StatusOr<NyulLandmarks> FindLandmarks(const Volume& volume, const Mask& mask);

/// The landmarks on the range from kNyulLow to kNyulHigh: the same for x' = s x + b, s > 0. Their
/// mean over cases (common/population/population_mean.h) is the standard scale.
NyulLandmarks OnStandardRange(const NyulLandmarks& landmarks);

/// Brings the case's landmarks to those of `scale`: straight between them, and beyond them as the
/// outermost pieces go on. Removes x' = s x + b, s > 0, and what a change of contrast does to the
/// landmarks, whatever lies between them.
/// Errors: those of FindLandmarks.
absl::StatusOr<PiecewiseLinearMap> FitNyul(const Volume& volume, const Mask& mask,
                                           const NyulLandmarks& scale);

}  // namespace isoscan
