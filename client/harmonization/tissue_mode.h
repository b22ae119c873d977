#pragma once

#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "client/harmonization/intensity_map.h"
#include "client/harmonization/masked_intensities.h"
#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// Decides which peak of a brain's histogram is white matter:
///   kT1w           the last below the 96th percentile: white matter is brightest
///   kT2w, kFlair   the highest of all
///   kPdw           the first below the 99th percentile
using Contrast = HarmonizationPlan::Contrast;

/// Width of the kernel that smooths the histogram:
///   kScott    n^(-1/5) times the standard deviation (n - 1): follows a scale.
///             Source: docs/references.md#scott1992.
///   kPackage  greatest intensity / 80 times the standard deviation, as intensity-normalization
///             3.0.1 has it for its KDE: a width times a width, so it does not follow a scale;
///             wherever the greatest intensity is above some 200, the only peak left is the mean.
using Bandwidth = HarmonizationPlan::Bandwidth;

/// Places at which a density is looked at, from the least to the greatest intensity.
inline constexpr std::size_t kDensityPoints = 80;

/// Gaussian kernel density of intensities at kDensityPoints evenly spaced places from one end of
/// their range to the other. Requires at least two bins.
std::vector<double> KernelDensity(std::span<const IntensityBin> bins, const IntensityRange& range,
                                  Bandwidth bandwidth);

/// Where that peak lies: the place among the 80 at which the density is higher than at both
/// neighbours, or highest of all where there is no peak. With kScott it follows the volume under x'
/// = s x + b, s > 0. A pure function without random numbers; bins (range / 65536) stand for voxels.
///
/// Errors: those of RangeOverMask; INVALID_ARGUMENT when the voxels below the percentile share one
///         intensity.
absl::StatusOr<double> TissueMode(const Volume& volume, const Mask& mask, Contrast contrast,
                                  Bandwidth bandwidth = Bandwidth::kScott);

/// y = x / mode. With kScott it removes x' = s x; a bias stays.
/// Errors: those of TissueMode and CheckDivisor.
absl::StatusOr<AffineMap> FitTissueMode(const Volume& volume, const Mask& mask, Contrast contrast,
                                        Bandwidth bandwidth);

}  // namespace isoscan
