#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"

namespace isoscan {

// What the tissue-based normalisers ask of the voxels under a mask. Every answer has the same bits
// on any number of threads.

/// Ends of the intensities under a mask, and how many voxels these are.
struct IntensityRange {
  double minimum = 0;
  double maximum = 0;
  std::int64_t voxels = 0;
};

/// Voxels above `limit` count as outside the mask.
/// Errors: INVALID_ARGUMENT a mask of another size or without a voxel; NaN or infinite voxels
///         anywhere in the volume, with their number; one intensity alone under the mask.
absl::StatusOr<IntensityRange> RangeOverMask(
    const Volume& volume, const Mask& mask, double limit = std::numeric_limits<double>::infinity());

/// Quantiles at `fractions` (0 to 1) of the intensities under a mask, which `range` describes: the
/// exact order statistics at (n - 1) * fraction, linear between neighbours (type 7 of Hyndman and
/// Fan; numpy's default). Source: docs/references.md#hyndman1996.
std::vector<double> QuantilesOverMask(const Volume& volume, const Mask& mask,
                                      const IntensityRange& range,
                                      std::span<const double> fractions);

/// Neighbouring intensities that are told apart no further.
struct IntensityBin {
  double mean = 0;
  std::int64_t voxels = 0;
};

/// Equal parts that a range is cut into by BinsOverMask.
inline constexpr std::size_t kIntensityBins = std::size_t{1} << 16;

/// The intensities under a mask within [range.minimum, range.maximum], in kIntensityBins equal
/// bins; those without a voxel are left out, the rest ascend. Integers that lie at least a bin
/// apart keep their exact values, since a bin knows its mean.
std::vector<IntensityBin> BinsOverMask(const Volume& volume, const Mask& mask,
                                       const IntensityRange& range);

/// Voxels under a mask that lie below `value`.
std::int64_t VoxelsBelow(const Volume& volume, const Mask& mask, double value);

/// A normaliser that divides by an intensity removes scale alone, so it needs one that is well
/// above zero. INVALID_ARGUMENT unless `divisor`, called `name` in the message, exceeds 1e-6 of the
/// greatest magnitude: dividing by it would turn the contrast over or blow it up.
absl::Status CheckDivisor(double divisor, const IntensityRange& range, std::string_view name);

}  // namespace isoscan
