#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// What N4 found and how well it had settled.
struct BiasField {
  /// The field over the mask, relative to its mean: 0.8 to 1.3 means that the coil saw some tissue
  /// at 80 % and some at 130 %.
  double minimum = 1;
  double maximum = 1;
  double standard_deviation = 0;
  /// By how much the field still changed at the end: the coefficient of variation over the mask of
  /// the ratio of the last two fields.
  double residual = 0;
  std::int64_t iterations = 0;  ///< Of all levels together.
};

/// N4 bias-field correction, in place: a smooth multiplicative field is estimated on a coarse copy
/// of the volume, under the mask, and divided out of every voxel, inside the mask or not. The
/// field's mean over the mask is 1, so intensities keep their units.
///
/// N4 works on logarithms, which a scanner's bias would bend. The volume is therefore mapped to a
/// fixed range first (its own 0.1 and 99.9 percentiles to 1 and 1000, in steps of a half; what is
/// below counts as 1) and mapped back afterwards: N4(s x + b) = s N4(x) + b for s > 0, but for
/// float32 rounding, as long as no voxel of the coarse copy lies within that rounding of the middle
/// between two steps (one that does moves by a two-thousandth of the range). The darkest voxels
/// thereby stand for no signal, so a crop without anything dark gets a wrong field.
///
/// Runs on the cores of this process; their number does not show in the result. Memory: one float
/// per voxel. May be called from several threads.
/// Errors: INVALID_ARGUMENT an axis of a single voxel, a mask of another size or with fewer than 64
///         voxels on the coarse copy, NaN or infinite voxels, a constant volume;
///         RESOURCE_EXHAUSTED more memory than there is; INTERNAL what else ITK throws.
/// Source: docs/references.md#tustison2010, through ITK.
absl::StatusOr<BiasField> CorrectBiasField(Volume& volume, const Mask& mask, const N4Plan& plan);

}  // namespace isoscan
